//! Offsets, lengths and block indexes as distinct types, with checked arithmetic.
//!
//! Every value may come from a disk, an image file or a person, so nothing here wraps: an operation
//! that leaves the range returns `None`, and the caller says what that means for its subject.

use std::fmt;

/// A byte position on a disk, a partition or in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteOffset(pub u64);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteLen(pub u64);

/// The number of an image block: byte offset divided by the image's block size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockIndex(pub u64);

impl ByteOffset {
    /// The offset `len` bytes further on, or `None` past 2^64.
    pub fn checked_add(self, len: ByteLen) -> Option<ByteOffset> {
        self.0.checked_add(len.0).map(ByteOffset)
    }

    /// The distance from `start` to `self`, or `None` when `self` lies before `start`.
    pub fn checked_since(self, start: ByteOffset) -> Option<ByteLen> {
        self.0.checked_sub(start.0).map(ByteLen)
    }
}

impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ByteLen {
    /// In the largest binary unit of which it is a whole number, for a limit, which must not be rounded:
    /// `4095 MiB`, `1025 KiB`, `1048577 B`.
    pub fn exactly(self) -> String {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        // Ten bits each; a zero is a whole number of any unit.
        let bits = match self.0 {
            0 => 0,
            len => len.trailing_zeros(),
        };
        let unit = to_usize(u64::from(bits / 10));
        format!("{} {}", self.0 >> (unit * 10), UNITS[unit])
    }
}

/// Bytes in binary units with at most one decimal, as `lsblk` prints them: `512 B`, `1.5 GiB`.
impl fmt::Display for ByteLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        // Tenths of the unit, kept in u128 so that the largest length cannot overflow.
        let mut unit = 0;
        let mut divisor: u128 = 1024;
        while unit + 1 < UNITS.len() && u128::from(self.0) * 10 / divisor >= 10_235 {
            unit += 1;
            divisor *= 1024;
        }
        let tenths = (u128::from(self.0) * 10 + divisor / 2) / divisor;
        let text = if tenths.is_multiple_of(10) {
            format!("{} {}", tenths / 10, UNITS[unit])
        } else {
            format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
        };
        f.pad(&text)
    }
}

/// The unit of change detection and of block states: a power of two from 4 KiB to 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize {
    log2: u8,
}

impl BlockSize {
    /// The smallest block: below a memory page the table would outgrow the savings.
    pub const MIN_LOG2: u8 = 12;
    /// The largest block: above it a one-byte change costs too much.
    pub const MAX_LOG2: u8 = 20;

    /// What an image has unless asked otherwise: 64 KiB (docs/adr/0002).
    pub const DEFAULT: BlockSize = BlockSize { log2: 16 };

    /// The block size of `bytes`, or `None` when it is no power of two from 4 KiB to 1 MiB.
    pub fn new(bytes: u64) -> Option<BlockSize> {
        if !bytes.is_power_of_two() {
            return None;
        }
        u8::try_from(bytes.trailing_zeros())
            .ok()
            .and_then(BlockSize::from_log2)
    }

    /// The block size of `1 << log2` bytes, or `None` outside the allowed range.
    pub fn from_log2(log2: u8) -> Option<BlockSize> {
        (Self::MIN_LOG2..=Self::MAX_LOG2)
            .contains(&log2)
            .then_some(BlockSize { log2 })
    }

    /// The exponent: 12 to 20.
    pub fn log2(self) -> u8 {
        self.log2
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        1 << self.log2
    }

    /// The size in bytes, for indexing memory.
    pub fn as_usize(self) -> usize {
        1 << self.log2
    }

    /// How many blocks a disk of `len` bytes has; the last one may be short.
    pub fn count(self, len: ByteLen) -> u64 {
        len.0.div_ceil(self.bytes())
    }

    /// The block that holds byte `offset`.
    pub fn index_of(self, offset: ByteOffset) -> BlockIndex {
        BlockIndex(offset.0 >> self.log2)
    }

    /// Where block `index` starts, or `None` past 2^64.
    pub fn offset_of(self, index: BlockIndex) -> Option<ByteOffset> {
        index.0.checked_mul(self.bytes()).map(ByteOffset)
    }

    /// The bytes of block `index` on a disk of `len` bytes: shorter for the last block, empty past it.
    pub fn extent_of(self, index: BlockIndex, len: ByteLen) -> super::Extent {
        let start = index.0.saturating_mul(self.bytes()).min(len.0);
        let end = start.saturating_add(self.bytes()).min(len.0);
        super::Extent {
            start: ByteOffset(start),
            len: ByteLen(end - start),
        }
    }
}

/// A device's logical or physical sector: a power of two from 512 bytes to 64 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectorSize(u32);

impl SectorSize {
    /// 512 bytes: what a disk without a say has.
    pub const S512: SectorSize = SectorSize(512);
    /// 4096 bytes: "4Kn" disks.
    pub const S4096: SectorSize = SectorSize(4096);

    /// The sector size of `bytes`, or `None` when it is no power of two from 512 to 65536.
    pub fn new(bytes: u32) -> Option<SectorSize> {
        (bytes.is_power_of_two() && (512..=65536).contains(&bytes)).then_some(SectorSize(bytes))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }

    /// Where logical block address `lba` starts, or `None` past 2^64.
    pub fn offset_of(self, lba: u64) -> Option<ByteOffset> {
        lba.checked_mul(u64::from(self.0)).map(ByteOffset)
    }

    /// How many whole sectors `len` bytes hold.
    pub fn count(self, len: ByteLen) -> u64 {
        len.0 / u64::from(self.0)
    }
}

/// Size and sectors of a disk, a partition or a file holding one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// The whole length in bytes. A file's may end inside a sector.
    pub len: ByteLen,
    /// The unit in which partition tables count.
    pub logical_sector: SectorSize,
    /// The unit that the medium writes at once.
    pub physical_sector: SectorSize,
}

impl Geometry {
    /// A disk of `len` bytes with 512-byte sectors.
    pub fn of_len(len: ByteLen) -> Geometry {
        Geometry {
            len,
            logical_sector: SectorSize::S512,
            physical_sector: SectorSize::S512,
        }
    }
}

/// `value` as a `usize`. Only for numbers already checked against a limit far below 4 GiB; on
/// every supported platform that always fits.
pub fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A length in memory as a `u64`; lossless on every platform that Rust supports.
pub fn to_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_like_lsblk() {
        let text = |n: u64| ByteLen(n).to_string();
        assert_eq!(text(0), "0 B");
        assert_eq!(text(1023), "1023 B");
        assert_eq!(text(1024), "1 KiB");
        assert_eq!(text(1536), "1.5 KiB");
        assert_eq!(text(1024 * 1024 - 1), "1 MiB");
        assert_eq!(text(8 << 30), "8 GiB");
        assert_eq!(text(u64::MAX), "16 EiB");
    }

    #[test]
    fn limits_are_told_as_they_are() {
        let text = |n: u64| ByteLen(n).exactly();
        for (len, told) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1_048_577, "1048577 B"),
            (4095 << 20, "4095 MiB"),
            (650 << 20, "650 MiB"),
            (4 << 30, "4 GiB"),
            (1 << 63, "8 EiB"),
            (u64::MAX, "18446744073709551615 B"),
        ] {
            assert_eq!(text(len), told);
        }
    }

    #[test]
    fn block_sizes_have_bounds() {
        assert!(BlockSize::new(2048).is_none());
        assert!(BlockSize::new(4096).is_some());
        assert!(BlockSize::new(65537).is_none());
        assert!(BlockSize::new(1 << 20).is_some());
        assert!(BlockSize::new(1 << 21).is_none());
        assert!(BlockSize::new(0).is_none());
    }

    #[test]
    fn last_block_is_short() {
        let size = BlockSize::new(4096).unwrap();
        let len = ByteLen(4096 * 2 + 100);
        assert_eq!(size.count(len), 3);
        assert_eq!(size.extent_of(BlockIndex(2), len).len, ByteLen(100));
        assert_eq!(size.extent_of(BlockIndex(3), len).len, ByteLen(0));
    }
}
