//! Damaged images rebuilt from what can still be read.

use super::*;
use crate::image::salvage;

fn salvaged(bytes: &[u8]) -> Option<(Vec<u8>, Vec<Extent>)> {
    salvaged_from(&bytes.to_vec())
}

fn salvaged_from(input: &dyn RangeRead) -> Option<(Vec<u8>, Vec<Extent>)> {
    let fill = |buf: &mut [u8], at| fill_unreadable(buf, at);
    let compression = Compression::Zstd(1);
    let (out, report) = salvage(
        input,
        Vec::new(),
        "new",
        Uuid::from_u128(0xC3),
        compression,
        &fill,
    )
    .ok()?;
    let image = open(&out).unwrap();
    assert!(
        damage(&image, Depth::Deep).is_empty(),
        "a salvaged image is whole"
    );
    let listed = image.image().summary().unreadable.iter();
    let listed = listed
        .map(|r| Extent {
            start: ByteOffset(r.start),
            len: ByteLen(r.length),
        })
        .collect();
    assert_eq!(
        normalize(listed),
        report.lost,
        "the new image lists the loss itself"
    );
    let (disk, lost) = restored(&image);
    assert!(lost.is_empty());
    Some((disk, report.lost))
}

#[test]
fn salvage_of_a_whole_image_loses_nothing() {
    let disk = mixed_disk(2500);
    assert_eq!(
        salvaged(&image_of_bytes(&disk, Compression::Zstd(3))),
        Some((disk, vec![]))
    );
}

#[test]
fn salvage_recovers_all_but_the_damaged_part() {
    let (disk, good) = small_image();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let (back, lost) = salvaged(&bad).unwrap_or_else(|| panic!("byte {at}"));
        assert_same_outside(&back, &disk, &lost, at);
        let lost: u64 = lost.iter().map(|e| e.len.0).sum();
        // The worst is a node page: the leaves that it called uniform are unknown.
        assert!(
            lost <= 3 * 1024 * to_u64(BLOCK),
            "byte {at} cost {lost} bytes"
        );
    }
}

/// Bytes of which some cannot be read.
struct Holed(Vec<u8>, std::ops::Range<u64>);

impl RangeRead for Holed {
    fn name(&self) -> &str {
        "holed"
    }

    fn len(&self) -> u64 {
        to_u64(self.0.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset + to_u64(buf.len());
        if offset < self.1.end && self.1.start < end {
            return Err(Error::new(ErrorKind::Damaged, "read", "holed"));
        }
        self.0.read_at(offset, buf)
    }
}

/// A bad sector, or a chunk of an encrypted file that is not authentic.
#[test]
fn salvage_recovers_all_but_what_cannot_be_read() {
    let disk = mixed_disk(2500);
    let good = image_of_bytes(&disk, Compression::Zstd(3));
    for at in (0..good.len()).step_by(good.len() / 50) {
        let from = to_u64(at);
        let (back, lost) = salvaged_from(&Holed(good.clone(), from..from + 700)).unwrap();
        assert_same_outside(&back, &disk, &lost, at);
        let lost: u64 = lost.iter().map(|e| e.len.0).sum();
        assert!(
            lost <= 3 * 1024 * to_u64(BLOCK),
            "byte {at} cost {lost} bytes"
        );
    }
}

#[test]
fn salvage_of_a_truncated_image_keeps_what_came_before() {
    let disk = mixed_disk(2500);
    let good = image_of_bytes(&disk, Compression::Zstd(3));
    let mut last = 0;
    for len in (0..good.len()).step_by(good.len() / 60) {
        let Some((back, lost)) = salvaged(&good[..len]) else {
            assert!(len < 128, "the header is enough to begin");
            continue;
        };
        assert_same_outside(&back, &disk, &lost, len);
        let lost: u64 = lost.iter().map(|e| e.len.0).sum();
        let kept = to_u64(disk.len()) - lost;
        assert!(
            kept + 4 * to_u64(BLOCK) >= last,
            "a longer piece never keeps less"
        );
        last = kept;
    }
    assert!(last > to_u64(disk.len()) / 2);
}

#[test]
fn records_of_another_image_are_not_taken() {
    // The disk holds, uncompressed, an image of another disk: its records look right in every way
    // but their image id.
    let inner = image_of_bytes(&mixed_disk(40), Compression::None);
    let mut disk = inner.clone();
    disk.resize(inner.len().next_multiple_of(BLOCK) + BLOCK, 1);
    let source = MemorySource::new("disk", disk.clone());
    let blocks = to_u64(disk.len() / BLOCK);
    let mut outer = header(disk.len());
    outer.id = Uuid::from_u128(0xFFFF_0000_0000_0000_0000_0000_0000_0001);
    let mut writer = ImageWriter::start(Vec::new(), "m", outer, &Info::default(), &[]).unwrap();
    let cancel = Cancel::new();
    let selection = taking(source.len(), BlockMap::full(blocks));
    write_blocks(
        &Input::new(&source, &selection),
        None,
        Compression::None,
        &mut writer,
        resources(&cancel),
    )
    .unwrap();
    let (mut bytes, _) = writer.finish(Summary::default()).unwrap();
    // Break the first frame's record header, so that salvage must search through its payload.
    let first = bytes
        .windows(4)
        .skip(128)
        .position(|w| w == b"sRec")
        .unwrap()
        + 128;
    let frame = (first..bytes.len())
        .find(|at| bytes[*at..].starts_with(b"sRec\x01"))
        .unwrap();
    bytes[frame + 20] ^= 1;
    let (back, lost) = salvaged(&bytes).unwrap();
    assert_same_outside(&back, &disk, &lost, frame);
    assert_eq!(
        lost.iter().map(|e| e.len.0).sum::<u64>(),
        4 * to_u64(BLOCK),
        "one frame"
    );
}
