//! Repeatable content, and comparison of files and devices of any size.

use super::{MIB, size};
use nix::unistd::{Whence, lseek};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What fills targets before a restore: a byte left over is seen.
pub(crate) const FILLER: u8 = 0xA5;

/// A stream of numbers that a seed decides (splitmix64).
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64) -> Stream {
        Stream(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Fills `buf` with bytes that do not compress.
    pub(crate) fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// `len` bytes that do not compress.
    pub(crate) fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut buf = vec![0; size(len)];
        self.fill(&mut buf);
        buf
    }

    /// `len` bytes of lines that compress well.
    pub(crate) fn text(&mut self, len: u64) -> Vec<u8> {
        let mut text = Vec::with_capacity(size(len) + 64);
        while text.len() < size(len) {
            let number = self.below(10_000);
            text.extend_from_slice(
                format!("line {number} of a log that repeats itself\n").as_bytes(),
            );
        }
        text.truncate(size(len));
        text
    }
}

pub(crate) fn open_rw(path: &Path) -> File {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
}

pub(crate) fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
}

/// An empty sparse file of `len` bytes.
pub(crate) fn create_sparse(path: &Path, len: u64) {
    File::create(path).unwrap().set_len(len).unwrap();
}

/// A file of `len` times the filler, as a target that has seen use.
pub(crate) fn create_filled(path: &Path, len: u64) {
    let file = File::create(path).unwrap();
    let chunk = vec![FILLER; size(MIB)];
    let mut at = 0;
    while at < len {
        let count = MIB.min(len - at);
        file.write_all_at(&chunk[..size(count)], at).unwrap();
        at += count;
    }
}

pub(crate) fn write(path: &Path, at: u64, bytes: &[u8]) {
    open_rw(path).write_all_at(bytes, at).unwrap();
}

pub(crate) fn write_random(path: &Path, at: u64, len: u64, seed: u64) {
    let file = open_rw(path);
    let mut stream = Stream::new(seed);
    let mut done = 0;
    while done < len {
        let chunk = stream.bytes(MIB.min(len - done));
        file.write_all_at(&chunk, at + done).unwrap();
        done += chunk.len() as u64;
    }
}

pub(crate) fn read(path: &Path, at: u64, len: u64) -> Vec<u8> {
    let mut buf = vec![0; size(len)];
    let file = open(path);
    file.read_exact_at(&mut buf, at)
        .unwrap_or_else(|e| panic!("read {len} bytes at {at} of {}: {e}", path.display()));
    buf
}

/// Turns every bit of one byte.
pub(crate) fn flip(path: &Path, at: u64) {
    let byte = read(path, at, 1)[0];
    write(path, at, &[!byte]);
}

/// How many bytes these are.
pub(crate) fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

/// The length of a file or a block device.
pub(crate) fn length(path: &Path) -> u64 {
    open(path).seek(SeekFrom::End(0)).unwrap()
}

/// Where a file may hold anything but zeros; all of it where holes are not told.
fn data_ranges(file: &File, len: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < len {
        let from = i64::try_from(at).unwrap();
        let start = match lseek(file, from, Whence::SeekData) {
            Ok(start) => u64::try_from(start).unwrap(),
            Err(nix::errno::Errno::ENXIO) => break,
            Err(_) => return vec![(0, len)],
        };
        let end = lseek(file, i64::try_from(start).unwrap(), Whence::SeekHole).unwrap();
        let end = u64::try_from(end).unwrap().min(len);
        ranges.push((start, end));
        at = end;
    }
    ranges
}

/// The first byte at which `[a_at, a_at + len)` of `a` and `[b_at, b_at + len)` of `b` differ,
/// counted from the start of the range.
pub(crate) fn first_difference(a: &Path, a_at: u64, b: &Path, b_at: u64, len: u64) -> Option<u64> {
    let (a_file, b_file) = (open(a), open(b));
    let inside = |ranges: Vec<(u64, u64)>, start: u64| {
        let relative = ranges.into_iter().filter_map(move |(from, to)| {
            let from = from.max(start) - start;
            let to = to.min(start + len).checked_sub(start)?;
            (from < to).then_some((from, to))
        });
        relative.collect::<Vec<_>>()
    };
    let mut ranges = inside(data_ranges(&a_file, length(a)), a_at);
    ranges.extend(inside(data_ranges(&b_file, length(b)), b_at));
    ranges.sort_unstable();
    let (mut left, mut right) = (vec![0; size(MIB)], vec![0; size(MIB)]);
    let mut done = 0;
    for (from, to) in ranges {
        let mut at = from.max(done);
        while at < to {
            let count = size(MIB.min(to - at));
            a_file.read_exact_at(&mut left[..count], a_at + at).unwrap();
            b_file
                .read_exact_at(&mut right[..count], b_at + at)
                .unwrap();
            if left[..count] != right[..count] {
                let within = (0..count).find(|&i| left[i] != right[i]).unwrap();
                return Some(at + within as u64);
            }
            at += count as u64;
        }
        done = done.max(to);
    }
    None
}

/// Whether two files or devices are the same to the last byte.
pub(crate) fn same(a: &Path, b: &Path) -> bool {
    let len = length(a);
    len == length(b) && first_difference(a, 0, b, 0, len).is_none()
}

/// Fails and names the first byte that differs, unless both are the same.
#[track_caller]
pub(crate) fn assert_same(a: &Path, b: &Path) {
    let (a_len, b_len) = (length(a), length(b));
    assert_eq!(
        a_len,
        b_len,
        "lengths of {} and {}",
        a.display(),
        b.display()
    );
    assert_same_range(a, 0, b, 0, a_len);
}

/// Fails and names the first byte of the ranges that differs, unless they are the same.
#[track_caller]
pub(crate) fn assert_same_range(a: &Path, a_at: u64, b: &Path, b_at: u64, len: u64) {
    if let Some(at) = first_difference(a, a_at, b, b_at, len) {
        let show = |path: &Path, from: u64| read(path, from, 16.min(length(path) - from));
        panic!(
            "{} and {} differ first at byte {} and {} ({at} of the range of {len}):\n{:02x?}\n{:02x?}",
            a.display(),
            b.display(),
            a_at + at,
            b_at + at,
            show(a, a_at + at),
            show(b, b_at + at),
        );
    }
}

/// Everything about a file that a run which may not touch it could change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    digest: String,
    len: u64,
    modified: Option<std::time::SystemTime>,
    mode: u32,
}

/// The fingerprint of a file, or of a device without its times.
pub(crate) fn fingerprint(path: &Path) -> Fingerprint {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let metadata = std::fs::metadata(path).unwrap();
    let is_device = metadata.file_type().is_block_device();
    let len = length(path);
    let file = open(path);
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; size(MIB)];
    // Which zeros are holes changes by itself when a file system writes a file out: pages of zeros
    // do not count, wherever they come from.
    for (start, end) in data_ranges(&file, len) {
        let mut at = start - start % 4096;
        while at < end {
            let count = size(MIB.min(len - at));
            file.read_exact_at(&mut buf[..count], at).unwrap();
            for (page, place) in buf[..count].chunks(4096).zip((at..).step_by(4096)) {
                if place < end && page.iter().any(|b| *b != 0) {
                    hasher.update(&place.to_le_bytes());
                    hasher.update(page);
                }
            }
            at += count as u64;
        }
    }
    Fingerprint {
        digest: hasher.finalize().to_hex().to_string(),
        len,
        modified: (!is_device).then(|| metadata.modified().unwrap()),
        mode: metadata.mode(),
    }
}
