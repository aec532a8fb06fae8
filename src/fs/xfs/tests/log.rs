//! Logs as rings of a few hundred basic blocks, written here from the format's description.

use super::super::disk::Superblock;
use super::super::log::must_be_clean;
use crate::base::{Cancel, to_u64};
use crate::block::MemorySource;
use crate::fs::doubt::Doubt;
use crate::fs::volume::Volume;
use byteorder::{BE, ByteOrder, LE};

const BLOCK: usize = 512;
/// Blocks before the log.
const BEFORE: usize = 8;
/// Blocks of the log: more than the 512 that a new log of xfs_repair begins with.
const BLOCKS: usize = 900;
const UUID: [u8; 16] = *b"0123456789abcdef";

fn superblock(version: u8) -> Superblock {
    Superblock {
        block: 512,
        sector: 512,
        blocks: 1024,
        group_blocks: 1024,
        groups: 1,
        group_bits: 10,
        log_start: 8,
        log_blocks: 900,
        realtime_blocks: 0,
        free_blocks: 0,
        uuid: UUID,
        meta_uuid: UUID,
        version,
        version_bits: 0,
        features2: 0,
        ro_compatible: 0,
        incompatible: 0,
        log_incompatible: 0,
        in_progress: false,
        inode: 256,
        inode_bits: 1,
        directory_block: 512,
        root_inode: 64,
        own_inodes: [0; 6],
    }
}

/// A record to write.
#[derive(Clone, Copy)]
struct Record {
    cycle: u32,
    /// Bytes that a header may be of; above 32 KiB it has more blocks.
    size: u32,
    data_blocks: usize,
    operations: u32,
    flag: u8,
    /// Bytes of the header's first block that the checksum is of; none when it is 0.
    checked: usize,
}

const UNMOUNT: Record = Record {
    cycle: 5,
    size: 32 << 10,
    data_blocks: 1,
    operations: 1,
    flag: 0x20,
    checked: 328,
};
const OTHER: Record = Record {
    data_blocks: 3,
    operations: 4,
    flag: 0,
    ..UNMOUNT
};

impl Record {
    fn header_blocks(self) -> usize {
        usize::try_from(self.size.div_ceil(32 << 10)).unwrap()
    }

    fn blocks(self) -> usize {
        self.header_blocks() + self.data_blocks
    }
}

/// A log whose head is at a block of a cycle.
struct Log(Vec<u8>);

impl Log {
    /// Blocks before `head` of `cycle`, from there on of the one before.
    fn new(head: usize, cycle: u32) -> Log {
        let mut log = Log(vec![0; BLOCKS * BLOCK]);
        for at in 0..BLOCKS {
            log.stamp(at, if at < head { cycle } else { cycle - 1 });
        }
        log
    }

    fn block(&mut self, at: usize) -> &mut [u8] {
        let at = at % BLOCKS * BLOCK;
        &mut self.0[at..at + BLOCK]
    }

    fn stamp(&mut self, at: usize, cycle: u32) {
        BE::write_u32(self.block(at), cycle);
    }

    /// An empty record, as a mount writes them ahead of the head.
    fn stale(&mut self, at: usize, cycle: u32) {
        let block = self.block(at);
        block[..4].copy_from_slice(&[0xFE, 0xED, 0xBA, 0xBE]);
        BE::write_u32(&mut block[4..], cycle);
        BE::write_u32(&mut block[8..], 2);
        BE::write_u64(&mut block[16..], u64::from(cycle) << 32 | to_u64(at));
    }

    fn write(&mut self, at: usize, record: Record) {
        let mut bytes = vec![0; record.blocks() * BLOCK];
        bytes[..4].copy_from_slice(&[0xFE, 0xED, 0xBA, 0xBE]);
        BE::write_u32(&mut bytes[4..], record.cycle);
        BE::write_u32(&mut bytes[8..], 2);
        BE::write_u32(
            &mut bytes[12..],
            u32::try_from(record.data_blocks * BLOCK).unwrap(),
        );
        BE::write_u64(&mut bytes[16..], u64::from(record.cycle) << 32 | to_u64(at));
        BE::write_u32(&mut bytes[40..], record.operations);
        BE::write_u32(&mut bytes[300..], 1);
        bytes[304..320].copy_from_slice(&UUID);
        BE::write_u32(&mut bytes[320..], record.size);
        let data = record.header_blocks() * BLOCK;
        bytes[data + 4..data + 12].copy_from_slice(&[0, 0, 0, 8, 0xAA, record.flag, 0, 0]);
        for (i, block) in bytes.chunks_mut(BLOCK).enumerate().skip(1) {
            let behind_the_end = u32::from(at + i >= BLOCKS);
            BE::write_u32(block, record.cycle + behind_the_end);
        }
        if record.checked > 0 {
            let mut covered = bytes[..record.checked].to_vec();
            for i in 1..record.data_blocks.div_ceil(64) {
                covered.extend(&bytes[i * BLOCK..i * BLOCK + 260]);
            }
            covered.extend(&bytes[data..]);
            LE::write_u32(&mut bytes[32..], crc32c::crc32c(&covered));
        }
        for (i, block) in bytes.chunks(BLOCK).enumerate() {
            self.block(at + i).copy_from_slice(block);
        }
    }

    /// With `record` at `at` as the newest, behind another one.
    fn ending_with(at: usize, record: Record) -> Log {
        let end = at + record.blocks();
        let mut log = if end <= BLOCKS {
            Log::new(end, record.cycle)
        } else {
            Log::new(end - BLOCKS, record.cycle + 1)
        };
        if at >= 5 {
            let before = Record {
                cycle: record.cycle,
                ..OTHER
            };
            log.write(at - before.blocks(), before);
        }
        log.write(at, record);
        log
    }

    fn judge(&self, version: u8) -> Result<(), String> {
        let mut bytes = vec![0xEE; 1024 * BLOCK];
        bytes[BEFORE * BLOCK..(BEFORE + BLOCKS) * BLOCK].copy_from_slice(&self.0);
        let (source, cancel) = (MemorySource::new("log", bytes), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        match must_be_clean(&volume, &superblock(version)) {
            Ok(place) => {
                let (start, end) = (BEFORE * BLOCK, (BEFORE + BLOCKS) * BLOCK);
                assert_eq!(place, to_u64(start)..to_u64(end));
                Ok(())
            }
            Err(Doubt::Unsure(why)) => Err(why),
            Err(Doubt::Stopped(error)) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn assert_clean(&self) {
        assert_eq!(self.judge(5), Ok(()));
        assert_eq!(self.judge(4), Ok(()));
    }

    #[track_caller]
    fn assert_doubt(&self, why: &str) {
        for version in [4, 5] {
            let said = self.judge(version).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}

#[test]
fn an_unmount_record_is_clean_wherever_it_lies() {
    for at in (0..BLOCKS).step_by(7).chain(BLOCKS - 5..BLOCKS) {
        Log::ending_with(at, UNMOUNT).assert_clean();
    }
}

#[test]
fn an_unmount_record_may_have_a_long_header() {
    // A log stripe of 256 KiB, and one of 64 KiB written by a mount with larger buffers.
    for (size, data_blocks) in [
        (256 << 10, 504),
        (256 << 10, 120),
        (40 << 10, 64),
        (64 << 10, 1),
    ] {
        let record = Record {
            size,
            data_blocks,
            ..UNMOUNT
        };
        for at in [0, 1, 40, 300, 890, 893, 899] {
            Log::ending_with(at, record).assert_clean();
        }
    }
}

#[test]
fn checksums_of_32_bit_systems_count() {
    let record = Record {
        checked: 324,
        ..UNMOUNT
    };
    Log::ending_with(50, record).assert_clean();
}

#[test]
fn a_fresh_log_is_clean() {
    // mkfs writes no checksum.
    let mut log = Log::new(2, 1);
    log.write(
        0,
        Record {
            cycle: 1,
            checked: 0,
            ..UNMOUNT
        },
    );
    log.assert_clean();
}

#[test]
fn stale_records_ahead_of_the_head_are_not_the_newest() {
    for head in [100, BLOCKS - 10] {
        let mut log = Log::ending_with(head - 2, UNMOUNT);
        // Stamping goes on at the start, where blocks are of the record's cycle.
        for at in head..head + 300 {
            log.stale(at % BLOCKS, if at < BLOCKS { 4 } else { 5 });
        }
        log.assert_clean();
        // An empty record of the cycle itself is the newest, and no unmount.
        log.stale(head, 5);
        assert!(log.judge(5).is_err());
    }
}

#[test]
fn anything_else_at_the_end_is_dirty() {
    for at in [0, 20, 400, BLOCKS - 4, BLOCKS - 3, BLOCKS - 1] {
        Log::ending_with(at, OTHER).assert_doubt("holds changes");
    }
    // One operation, but not the one that marks an unmount; and that one beside others.
    let one = Record {
        operations: 1,
        ..OTHER
    };
    Log::ending_with(50, one).assert_doubt("holds changes");
    let two = Record {
        operations: 2,
        ..UNMOUNT
    };
    Log::ending_with(50, two).assert_doubt("holds changes");
    // A mount after the unmount.
    let mut log = Log::new(56, 5);
    log.write(50, UNMOUNT);
    log.write(52, OTHER);
    log.assert_doubt("holds changes");
}

#[test]
fn writes_behind_the_unmount_record_are_seen_wherever_they_are() {
    for at in [52, 53, 60, 300, BLOCKS - 1] {
        let mut log = Log::ending_with(50, UNMOUNT);
        log.stamp(at, 5);
        log.assert_doubt("torn");
        log.stamp(at, 6);
        log.assert_doubt("torn");
        log.stamp(at, 0);
        log.assert_doubt("torn");
    }
    // A block that was not written although later ones were.
    let mut log = Log::ending_with(50, UNMOUNT);
    log.stamp(20, 4);
    log.assert_doubt("torn");
    // The next turn has begun at the start of the ring.
    let mut log = Log::ending_with(BLOCKS - 2, UNMOUNT);
    log.stamp(0, 6);
    assert!(log.judge(5).is_err());
}

#[test]
fn a_record_that_does_not_end_at_the_head_is_torn() {
    let mut log = Log::new(53, 5);
    log.write(50, UNMOUNT);
    log.assert_doubt("torn");
    let mut log = Log::new(51, 5);
    log.write(50, UNMOUNT);
    log.stamp(51, 4);
    log.assert_doubt("torn");
}

#[test]
fn no_log_at_all_is_not_clean() {
    Log(vec![0; BLOCKS * BLOCK]).assert_doubt("wiped");
    Log::new(100, 5).assert_doubt("no record");
    let mut log = Log::ending_with(50, UNMOUNT);
    log.block(50)[304] ^= 1;
    log.assert_doubt("another file system");
}

#[test]
fn a_record_without_checksum_counts_where_tools_write_it() {
    let bare = Record {
        checked: 0,
        ..UNMOUNT
    };
    Log::ending_with(0, bare).assert_clean();
    Log::ending_with(BLOCKS - 2, bare).assert_clean();
    let log = Log::ending_with(50, bare);
    assert_eq!(log.judge(4), Ok(()));
    assert!(log.judge(5).unwrap_err().contains("torn"));
}

#[test]
fn every_damaged_bit_of_the_record_is_noticed() {
    let record = Record {
        size: 64 << 10,
        data_blocks: 70,
        ..UNMOUNT
    };
    let sound = Log::ending_with(50, record);
    sound.assert_clean();
    let covered = (0..328)
        .chain(BLOCK..BLOCK + 260)
        .chain(2 * BLOCK..72 * BLOCK);
    // The checksum holds these; that the others may be anything is seen nowhere else.
    for byte in covered.step_by(3) {
        let mut log = Log(sound.0.clone());
        log.0[50 * BLOCK + byte] ^= 1 << (byte % 8);
        assert!(log.judge(5).is_err(), "byte {byte}");
    }
}

#[test]
fn a_log_that_xfs_repair_made_anew_is_clean_until_it_is_used() {
    let new = Record {
        checked: 0,
        ..UNMOUNT
    };
    let mut log = Log::ending_with(0, new);
    (2..512).for_each(|at| log.block(at).fill(0));
    log.assert_clean();
    // Zeros that are none, that reach too far, that follow another record, or that come later.
    log.block(77)[99] = 1;
    log.assert_doubt("torn");
    let mut log = Log::ending_with(0, new);
    (2..520).for_each(|at| log.block(at).fill(0));
    log.assert_doubt("torn");
    let mut log = Log::ending_with(50, UNMOUNT);
    (52..512).for_each(|at| log.block(at).fill(0));
    log.assert_doubt("torn");
    let mut log = Log::ending_with(0, new);
    log.block(30).fill(0);
    log.assert_doubt("torn");
}
