//! F2FS: which blocks of the main area are in use, from the newest checkpoint and the segment
//! information table.
//!
//! Certain when the file system was unmounted, no file waits to be recovered, both superblocks
//! agree, every segment's count is that of its map, and their sum is the checkpoint's or, where files
//! have reserved blocks that they have not written, that of the nodes and data of all files. Everything
//! before the main area and the six segments that are written to stay whole. Formats as in
//! "include/linux/f2fs_fs.h", rules as in "fs/f2fs/checkpoint.c", "segment.c" and "recovery.c".

mod count;
mod disk;
mod node;
mod walk;

use super::doubt::Doubt;
use super::volume::Volume;
use super::{Found, Reader, Used};

/// Reads F2FS.
pub(super) struct F2fs;

impl Reader for F2fs {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        if volume.len() < disk::SUPERBLOCK + disk::SUPERBLOCK_LEN {
            return Ok(None);
        }
        let bytes = volume.read(disk::SUPERBLOCK, disk::SUPERBLOCK_LEN)?;
        let there = bytes.starts_with(&disk::MAGIC.to_le_bytes());
        Ok(there.then(|| Found {
            kind: "F2FS".to_owned(),
            label: disk::label(&bytes),
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        walk::used(volume)
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::look_into;
    use super::super::{Certainty, UsedReport, checksum};
    use super::*;
    use crate::base::Cancel;
    use crate::block::Capsule;

    const PLAIN: &[u8] = include_bytes!("../../../fixtures/fs/f2fs-plain.capsule");
    const AGED: &[u8] = include_bytes!("../../../fixtures/fs/f2fs-aged.capsule");
    const RESERVED: &[u8] = include_bytes!("../../../fixtures/fs/f2fs-reserved.capsule");

    /// Where the first checkpoint of every fixture begins, and its checksum.
    const CHECKPOINT: u64 = 512 * disk::BLOCK;
    const CHECKSUM: usize = 4092;

    fn look(capsule: &Capsule) -> UsedReport {
        let cancel = Cancel::new();
        look_into(&Volume::new(capsule, &cancel), &[&F2fs]).unwrap()
    }

    fn why(capsule: &Capsule) -> String {
        match look(capsule).certainty {
            Certainty::Unknown(why) => why,
            Certainty::Certain => panic!("a certain map"),
        }
    }

    /// Changes the block at `at` wherever it is kept.
    fn change(capsule: &mut Capsule, at: u64, change: impl Fn(&mut [u8])) {
        let starts: Vec<u64> = capsule.pieces().iter().map(|(start, _)| *start).collect();
        for (start, piece) in starts.into_iter().zip(capsule.pieces_mut()) {
            let Some(before) = at.checked_sub(start) else {
                continue;
            };
            let before = usize::try_from(before).unwrap();
            if let Some(block) = piece.get_mut(before..before + 4096) {
                change(block);
            }
        }
    }

    /// Changes both ends of both checkpoints and makes their checksums right again.
    fn change_checkpoints(stored: &[u8], changed: impl Fn(&mut [u8])) -> Capsule {
        let mut capsule = Capsule::decode(stored).unwrap();
        for block in 0..1024 {
            change(&mut capsule, CHECKPOINT + block * disk::BLOCK, |bytes| {
                let sum = checksum::crc32_raw(disk::MAGIC, &bytes[..CHECKSUM]).to_le_bytes();
                if bytes[CHECKSUM..] == sum && bytes.iter().any(|b| *b != 0) {
                    changed(bytes);
                    let sum = checksum::crc32_raw(disk::MAGIC, &bytes[..CHECKSUM]);
                    bytes[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
                }
            });
        }
        capsule
    }

    #[test]
    fn fixtures_are_certain() {
        for stored in [PLAIN, AGED, RESERVED] {
            let report = look(&change_checkpoints(stored, |_| {}));
            assert_eq!(report.certainty, Certainty::Certain);
            assert!(report.used.gaps().count() > 0);
        }
    }

    #[test]
    fn flags_of_trouble_are_doubted() {
        for (byte, bit, said) in [
            (132, 0x08, "after an error"),
            (132, 0x10, "marked for a check"),
            (133, 0x08, "quotas"),
            (133, 0x10, "switched off"),
            (133, 0x40, "resized"),
            (134, 0x01, "unknown flags: 0x10000"),
        ] {
            let changed = change_checkpoints(AGED, |bytes| bytes[byte] |= bit);
            assert!(why(&changed).contains(said), "{}", why(&changed));
        }
        let changed = change_checkpoints(AGED, |bytes| bytes[132] &= !1);
        assert!(why(&changed).contains("not unmounted"));
    }

    #[test]
    fn counts_that_do_not_add_up_are_doubted() {
        for stored in [AGED, RESERVED] {
            let fewer = change_checkpoints(stored, |bytes| bytes[17] = bytes[17].wrapping_sub(2));
            assert!(why(&fewer).contains("blocks in use"), "{}", why(&fewer));
        }
        // More are only believed when files bear it out, and those were not kept in this fixture.
        let more = change_checkpoints(AGED, |bytes| bytes[16] = bytes[16].wrapping_add(1));
        assert!(why(&more).contains("its files"), "{}", why(&more));
    }

    #[test]
    fn damaged_checkpoints_and_superblocks_are_doubted() {
        let mut capsule = Capsule::decode(AGED).unwrap();
        for pack in [CHECKPOINT, CHECKPOINT + 512 * disk::BLOCK] {
            change(&mut capsule, pack, |bytes| bytes[300] ^= 1);
        }
        assert!(why(&capsule).contains("neither of its checkpoints"));
        for (at, value, said) in [
            (1024 + 48, 0xFFu8, "segments at"),
            (1024 + 16, 14, "a block size of 2^14"),
            (1024 + 2180, 2, "zoned"),
            (1024 + 2181, 0x40, "read only"),
            (1024 + 2183, 0x80, "unknown features: 0x80000000"),
            (1024 + 2201, b'/', "more than one device"),
        ] {
            let mut capsule = Capsule::decode(AGED).unwrap();
            let starts: Vec<u64> = capsule.pieces().iter().map(|(start, _)| *start).collect();
            for (start, piece) in starts.into_iter().zip(capsule.pieces_mut()) {
                if start <= 1024 && at < usize::try_from(start).unwrap() + piece.len() {
                    piece[at - usize::try_from(start).unwrap()] = value;
                }
            }
            let said_why = why(&capsule);
            assert!(said_why.contains(said), "{said_why}");
            assert!(said_why.contains("first superblock"), "{said_why}");
        }
    }
}
