//! Reading past the page cache, also what does not lie as such a transfer has to.

use super::{persist, prefer_huge_pages, read_full};
use crate::base::{AlignedBuf, to_u64, to_usize};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What is not aligned is read into a buffer of this size first.
const BOUNCE: usize = 1 << 20;

thread_local! {
    /// One for each thread that needs it.
    static BOUNCED: RefCell<AlignedBuf> = RefCell::default();
}

/// Whether a transfer of `buf` at `offset` may go past the page cache where `unit` bytes are the least.
pub fn is_aligned(buf: &[u8], offset: u64, unit: u64) -> bool {
    (buf.as_ptr() as usize).is_multiple_of(AlignedBuf::ALIGNMENT)
        && offset.is_multiple_of(unit)
        && to_u64(buf.len()).is_multiple_of(unit)
}

/// Fills `buf` from `offset` of `direct`, which is open past the page cache (`O_DIRECT`), takes transfers of multiples of
/// `unit` bytes, a power of two up to 64 KiB, and has `len` bytes.
///
/// # Errors
/// As pread(2); `UnexpectedEof` when it ends before that.
pub fn read_direct(
    direct: &File,
    buf: &mut [u8],
    offset: u64,
    unit: u64,
    len: u64,
) -> io::Result<()> {
    if is_aligned(buf, offset, unit) {
        return read_full(buf, offset, |b, o| direct.read_at(b, o));
    }
    let up = |len: usize| len.next_multiple_of(to_usize(unit));
    BOUNCED.with_borrow_mut(|bounce| {
        if bounce.is_empty() {
            *bounce = AlignedBuf::zeroed(AlignedBuf::HUGE_PAGE);
            prefer_huge_pages(bounce);
            bounce.set_len(BOUNCE);
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + to_u64(done);
            let start = at - at % unit;
            let skip = to_usize(at - start);
            let count = (bounce.len() - skip).min(buf.len() - done);
            // The kernel ends a direct read of a file at its end, aligned or not.
            let wanted = up(skip + count).min(bounce.len());
            let needed = to_usize(to_u64(wanted).min(len.saturating_sub(start)));
            read_at_least(&mut bounce[..up(needed)], needed, start, direct)?;
            let there = bounce.get(skip..needed.min(skip + count)).unwrap_or(&[]);
            if there.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf[done..done + there.len()].copy_from_slice(there);
            done += there.len();
        }
        Ok(())
    })
}

/// Reads at least `needed` bytes into an aligned `buf`.
fn read_at_least(buf: &mut [u8], needed: usize, offset: u64, file: &File) -> io::Result<()> {
    let mut done = 0;
    while done < needed {
        match persist(|| file.read_at(&mut buf[done..], offset + to_u64(done)))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Access, open_direct};

    #[test]
    fn any_range_of_a_file_is_read_up_to_its_odd_end() {
        let end = 3 * BOUNCE + 777;
        let bytes: Vec<u8> = (0..end)
            .map(|i| (i * 7 + i / 4096).to_le_bytes()[0])
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let Ok(direct) = open_direct(file.path(), Access::Read) else {
            eprintln!("SKIPPED: the file system of the temporary directory has no O_DIRECT");
            return;
        };
        let ends = [
            0,
            1,
            511,
            4096,
            4097,
            BOUNCE - 1,
            2 * BOUNCE + 5,
            end - 512,
            end - 1,
            end,
        ];
        let read =
            |buf: &mut [u8], at: usize| read_direct(&direct, buf, to_u64(at), 4096, to_u64(end));
        for (start, stop) in ends.iter().flat_map(|a| ends.map(|b| (*a, b))) {
            let mut buf = vec![0xEE; stop.saturating_sub(start)];
            read(&mut buf, start).unwrap();
            assert!(buf == bytes[start..start.max(stop)], "{start} to {stop}");
        }
        for (start, count) in [(end - 5, 6), (end, 1), (end + 9000, 1), (0, end + 1)] {
            let error = read(&mut vec![0; count], start).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        // Shorter than it was said to be.
        file.as_file().set_len(4096).unwrap();
        let error = read(&mut [0; 10], 5000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
