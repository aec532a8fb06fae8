//! Tests of the whole room on real tables, and what they share: sparse disks and fixtures.

mod adapting;
mod damage;
mod hostile;
mod invented;
mod reading;
mod stored;

use crate::base::{
    ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result, SectorSize, to_u64, to_usize,
};
use crate::block::BlockSource;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

const PIECE: u64 = 512;

/// A disk of any size of which only the 512-byte pieces that are not zero take memory.
#[derive(Debug, Default)]
struct SparseDisk {
    len: u64,
    sector: u32,
    pieces: BTreeMap<u64, Vec<u8>>,
    /// The longest read, and the sum of all reads, in bytes.
    longest: AtomicU64,
    total: AtomicU64,
}

impl Clone for SparseDisk {
    fn clone(&self) -> SparseDisk {
        SparseDisk {
            len: self.len,
            sector: self.sector,
            pieces: self.pieces.clone(),
            ..SparseDisk::default()
        }
    }
}

impl SparseDisk {
    fn zeros(len: u64, sector: u32) -> SparseDisk {
        SparseDisk {
            len,
            sector,
            ..SparseDisk::default()
        }
    }

    /// The same content on a disk of another length, as a plain copy would leave it.
    fn resized(&self, len: u64) -> SparseDisk {
        let mut disk = self.clone();
        disk.len = len;
        disk.pieces.retain(|at, _| at + PIECE <= len);
        disk
    }

    fn with_sector(mut self, sector: u32) -> SparseDisk {
        self.sector = sector;
        self
    }

    fn get(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut out = vec![0; to_usize(len)];
        let wanted = extent(offset, len);
        let first = offset / PIECE * PIECE;
        for (at, piece) in self.pieces.range(first..offset + len) {
            if let Some(part) = wanted.intersect(extent(*at, PIECE)) {
                let (from, to) = (part.start.0, part.end().0);
                out[to_usize(from - offset)..to_usize(to - offset)]
                    .copy_from_slice(&piece[to_usize(from - at)..to_usize(to - at)]);
            }
        }
        out
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let inside = to_usize(at % PIECE);
            let (now, later) = rest.split_at(rest.len().min(512 - inside));
            let piece = self.pieces.entry(at / PIECE * PIECE);
            let piece = piece.or_insert_with(|| vec![0; 512]);
            piece[inside..inside + now.len()].copy_from_slice(now);
            (at, rest) = (at + to_u64(now.len()), later);
        }
    }

    fn flip(&mut self, offset: u64) {
        let byte = self.get(offset, 1)[0];
        self.put(offset, &[byte ^ 0x40]);
    }

    fn write_to(&self, path: &Path) {
        let file = std::fs::File::create(path).unwrap();
        file.set_len(self.len).unwrap();
        for (at, piece) in &self.pieces {
            file.write_all_at(piece, *at).unwrap();
        }
    }
}

impl BlockSource for SparseDisk {
    fn name(&self) -> &str {
        "sparse disk"
    }

    fn geometry(&self) -> Geometry {
        let logical_sector = SectorSize::new(self.sector).unwrap();
        Geometry {
            len: ByteLen(self.len),
            logical_sector,
            physical_sector: logical_sector,
        }
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let len = to_u64(buf.len());
        if offset.0.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(Error::new(ErrorKind::Internal, "read", "past the end"));
        }
        self.longest.fetch_max(len, Ordering::Relaxed);
        self.total.fetch_add(len, Ordering::Relaxed);
        buf.copy_from_slice(&self.get(offset.0, len));
        Ok(())
    }
}

/// A disk of `fixtures/layout`, and what `sfdisk -J` said of it. Parsed once, copied for every use.
fn fixture(name: &str) -> (SparseDisk, serde_json::Value) {
    static PARSED: Mutex<BTreeMap<String, (SparseDisk, serde_json::Value)>> =
        Mutex::new(BTreeMap::new());
    let mut parsed = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = parsed.entry(name.to_owned());
    entry.or_insert_with(|| load(name)).clone()
}

fn load(name: &str) -> (SparseDisk, serde_json::Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/layout");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let sector = u32::try_from(value["sector"].as_u64().unwrap()).unwrap();
    let mut disk = SparseDisk::zeros(value["len"].as_u64().unwrap(), sector);
    for run in value["runs"].as_array().unwrap() {
        let hex = run["hex"].as_str().unwrap();
        let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        disk.put(run["offset"].as_u64().unwrap(), &bytes);
    }
    (disk, value["sfdisk"].take())
}

fn disk(name: &str) -> SparseDisk {
    fixture(name).0
}

const TABLES: [&str; 12] = [
    "gpt-512",
    "gpt-4096",
    "gpt-4-entries",
    "gpt-256-entries",
    "gpt-moved-array",
    "gpt-3tib",
    "gpt-hybrid",
    "stale-gpt",
    "mbr-logicals",
    "mbr-out-of-order",
    "mbr-4096",
    "mbr-loop",
];

fn extent(start: u64, len: u64) -> Extent {
    Extent::new(ByteOffset(start), ByteLen(len)).unwrap()
}

/// Recomputes the checksums of the GPT whose header lies at byte `at`, after its fields or entries
/// were changed. Written apart from the code under test.
fn fix_checksums(disk: &mut SparseDisk, at: u64) {
    let number = |disk: &SparseDisk, field: u64, len: u64| {
        let mut bytes = disk.get(at + field, len);
        bytes.resize(8, 0);
        u64::from_le_bytes(bytes.try_into().unwrap())
    };
    let array = number(disk, 80, 4).saturating_mul(number(disk, 84, 4));
    let start = number(disk, 72, 8).saturating_mul(u64::from(disk.sector));
    if array <= 1 << 20 && start.checked_add(array).is_some_and(|end| end <= disk.len) {
        let crc = crc32fast::hash(&disk.get(start, array));
        disk.put(at + 88, &crc.to_le_bytes());
    }
    let size = number(disk, 12, 4).min(u64::from(disk.sector));
    disk.put(at + 16, &[0; 4]);
    let crc = crc32fast::hash(&disk.get(at, size));
    disk.put(at + 16, &crc.to_le_bytes());
}
