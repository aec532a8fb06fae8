//! Reading around bad sectors.

use super::BlockSource;
use crate::base::{ByteLen, ByteOffset, Error, Extent, Result, to_u64, to_usize};

/// What stands in an image, and after a restore on the target, where the source could not be
/// read: repeated from byte 0 of the disk, so that every 16-byte line of a hole shows it whole.
pub const UNREADABLE_PATTERN: [u8; 16] = *b"strata:unreadabl";

/// Fills `buf`, which lies at `offset` of the disk, with [`UNREADABLE_PATTERN`].
pub fn fill_unreadable(buf: &mut [u8], offset: ByteOffset) {
    let phase = to_usize(offset.0 % to_u64(UNREADABLE_PATTERN.len()));
    for (byte, pattern) in buf
        .iter_mut()
        .zip(UNREADABLE_PATTERN.iter().cycle().skip(phase))
    {
        *byte = *pattern;
    }
}

/// Fills `buf` from `offset` as far as the medium gives it. Returns what could not be read, to the
/// logical sector, in ascending order; there `buf` holds the pattern.
///
/// # Errors
/// Anything but a bad spot: a device that is gone fails every read and must end the run.
pub fn read_rescuing(
    source: &dyn BlockSource,
    offset: ByteOffset,
    buf: &mut [u8],
) -> Result<Vec<Extent>> {
    match source.read_at(offset, buf) {
        Ok(()) => return Ok(Vec::new()),
        Err(e) if !is_bad_spot(&e) => return Err(e),
        Err(_) => {}
    }
    let sector = to_usize(u64::from(source.geometry().logical_sector.bytes()));
    let mut bad = Vec::new();
    rescue(source, offset, buf, sector, &mut bad)?;
    Ok(crate::base::normalize(bad))
}

/// Halves a range that failed until its parts are read or are single sectors.
fn rescue(
    source: &dyn BlockSource,
    offset: ByteOffset,
    buf: &mut [u8],
    sector: usize,
    bad: &mut Vec<Extent>,
) -> Result<()> {
    // Cut on a sector boundary of the disk, not of the buffer.
    let lead = to_usize(offset.0 % to_u64(sector));
    let sectors = (lead + buf.len()).div_ceil(sector);
    if sectors <= 1 {
        fill_unreadable(buf, offset);
        bad.push(Extent {
            start: offset,
            len: ByteLen(to_u64(buf.len())),
        });
        return Ok(());
    }
    let cut = sectors / 2 * sector - lead;
    let (low, high) = buf.split_at_mut(cut);
    let middle = ByteOffset(offset.0 + to_u64(cut));
    for (start, part) in [(offset, low), (middle, high)] {
        match source.read_at(start, part) {
            Ok(()) => {}
            Err(e) if is_bad_spot(&e) => rescue(source, start, part, sector, bad)?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Whether the error speaks of one spot of the medium rather than of the whole device. Numbers as
/// the block layer reports them (`block/blk-core.c`, `blk_errors`).
fn is_bad_spot(error: &Error) -> bool {
    use crate::sys::errno::{EILSEQ, EIO, ENODATA, EREMOTEIO};
    matches!(error.os_error(), Some(EIO | ENODATA | EREMOTEIO | EILSEQ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Fault, FaultSource, Faults, MemorySource, contract};
    use std::sync::Arc;

    fn bad(start: u64, len: u64) -> Extent {
        Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        }
    }

    #[test]
    fn only_the_bad_sectors_are_lost() {
        let bytes = contract::pattern(64 * 1024);
        let faults = Faults::new(vec![
            Fault::read_in(bad(5 * 512, 512), 5),
            Fault::read_in(bad(40 * 512, 3 * 512), 5),
        ]);
        let source = FaultSource::new(Arc::new(MemorySource::new("m", bytes.clone())), faults);
        let mut buf = vec![0; 32 * 1024];
        let lost = read_rescuing(&source, ByteOffset(100), &mut buf).unwrap();
        assert_eq!(lost, vec![bad(5 * 512, 512), bad(40 * 512, 3 * 512)]);
        let mut expected = bytes[100..100 + 32 * 1024].to_vec();
        for extent in lost {
            let at = to_usize(extent.start.0) - 100;
            fill_unreadable(&mut expected[at..at + to_usize(extent.len.0)], extent.start);
        }
        assert_eq!(buf, expected);
        assert!(buf.windows(16).any(|w| w == UNREADABLE_PATTERN));
    }

    #[test]
    fn a_device_that_is_gone_ends_the_read() {
        use crate::sys::errno::ENODEV;
        let faults = Faults::new(vec![Fault::read_in(bad(0, 1 << 20), ENODEV)]);
        let source = FaultSource::new(Arc::new(MemorySource::new("m", vec![1; 9000])), faults);
        let error = read_rescuing(&source, ByteOffset(0), &mut [0; 9000]).unwrap_err();
        assert_eq!(error.os_error(), Some(ENODEV));
    }
}
