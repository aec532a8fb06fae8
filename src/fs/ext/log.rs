//! Blocks of a journal as values: its superblock, descriptor, commit and revoke blocks, and their
//! checksums. All big-endian. Facts: `include/linux/jbd2.h` and `fs/jbd2/recovery.c` of the Linux
//! kernel.

use super::super::checksum;
use super::super::doubt::{Doubt, ensure};
use super::super::raw::{self, Raw};

/// What begins every block of the journal that is not a copy of another block.
pub(super) const MAGIC: u32 = 0xC03B_3998;
/// Bytes of the header: magic, kind, sequence.
const HEADER: usize = 12;
/// Bytes of a checksum at the end of descriptor and revoke blocks.
const TAIL: usize = 4;
const KIND_COMMIT: u32 = 2;
const KIND_SUPERBLOCK_V1: u32 = 3;
const KIND_SUPERBLOCK_V2: u32 = 4;
const BITS_64: u32 = 0x2;
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
/// Revokes, 64 bits, checksums. Not asynchronous commits (whether a transaction is whole only its
/// checksum tells) and not fast commits (they allocate blocks and write no bitmap).
const KNOWN: u32 = 0x1B;
/// Fast commits.
const FAST_COMMIT: u32 = 0x20;

/// The journal's superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogSuperblock {
    /// Bytes in a block.
    pub(super) block: u64,
    /// Number of its blocks, this one too.
    pub(super) blocks: u64,
    /// First block of the log.
    pub(super) first: u64,
    /// Where the log that is not yet in place begins; 0 when there is none.
    pub(super) start: u64,
    /// The sequence number of the transaction there.
    pub(super) sequence: u32,
    /// The error that stopped it, or 0.
    pub(super) error: u32,
    /// How its blocks are written.
    pub(super) form: Form,
    /// Why a log in it cannot be replayed here.
    unknown: Option<&'static str>,
}

/// How the blocks of a journal are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    incompat: u32,
    seed: u32,
}

/// The transaction that a block of the log names in its header, if it has one. Copies of blocks that
/// begin like a header are stored with their first word cleared.
pub(super) fn sequence_of(block: &[u8]) -> Option<u32> {
    let raw = Raw::new(block, "journal block");
    let header = raw.be32(0).is_ok_and(|magic| magic == MAGIC);
    raw.be32(8).ok().filter(|_| header)
}

impl LogSuperblock {
    /// The superblock in `bytes`, the journal's first block.
    ///
    /// # Errors
    /// A doubt when it is none, or its checksum or a value is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<LogSuperblock, Doubt> {
        let raw = Raw::new(bytes, "journal superblock");
        let kind = raw.be32(4)?;
        let sound =
            raw.be32(0)? == MAGIC && [KIND_SUPERBLOCK_V1, KIND_SUPERBLOCK_V2].contains(&kind);
        ensure(sound, || "its journal has no superblock; run e2fsck")?;
        // The first version had no features: what is there means nothing.
        let feature = |at| {
            let there = kind == KIND_SUPERBLOCK_V2;
            if there { raw.be32(at) } else { Ok(0) }
        };
        let (compat, incompat, ro_compat) = (feature(0x24)?, feature(0x28)?, feature(0x2C)?);
        let form = Form {
            incompat,
            seed: checksum::crc32c_raw(!0, raw.slice(0x30, 16)?),
        };
        if form.has_sums() {
            check_superblock(&raw)?;
        }
        let log = LogSuperblock {
            block: raw.be32(0x0C)?.into(),
            blocks: raw.be32(0x10)?.into(),
            first: raw.be32(0x14)?.into(),
            start: raw.be32(0x1C)?.into(),
            sequence: raw.be32(0x18)?,
            error: raw.be32(0x20)?,
            form,
            unknown: unknown(compat, incompat, ro_compat),
        };
        let sound = log.first > 0
            && log.first < log.blocks
            && (log.start == 0 || (log.first..log.blocks).contains(&log.start));
        ensure(sound, || {
            format!(
                "its journal of {} blocks cannot have a log from block {} that begins at {}; run e2fsck",
                log.blocks, log.first, log.start
            )
        })?;
        Ok(log)
    }

    /// Doubts when its log has a form that is not replayed here.
    pub(super) fn check_form(&self) -> Result<(), Doubt> {
        ensure(self.unknown.is_none(), || {
            format!(
                "its journal holds changes and has {}; mount it once and unmount it cleanly",
                self.unknown.unwrap_or_default()
            )
        })
    }

    /// The block of the journal behind `block`.
    pub(super) fn next(&self, block: u64) -> u64 {
        if block + 1 < self.blocks {
            block + 1
        } else {
            self.first
        }
    }
}

fn check_superblock(raw: &Raw<'_>) -> Result<(), Doubt> {
    const KIND: usize = 0x50;
    const SUM: usize = 0xFC;
    let kind = raw.u8(KIND)?;
    ensure(kind == 4, || {
        format!("the checksums of its journal are of a kind that is not known here ({kind})")
    })?;
    let (head, tail) = (raw.slice(0, SUM)?, raw.slice(SUM + 4, 1024 - SUM - 4)?);
    let parts: [&[u8]; 3] = [head, &[0; 4], tail];
    let computed = parts.into_iter().fold(!0, checksum::crc32c_raw);
    ensure(
        checksum::matches(computed, raw.be32(SUM)?),
        || "the checksum of its journal's superblock is wrong; run e2fsck",
    )
}

fn unknown(compat: u32, incompat: u32, ro_compat: u32) -> Option<&'static str> {
    if incompat & FAST_COMMIT != 0 {
        Some("fast commits, which are not replayed here")
    } else if raw::unknown_bits(incompat.into(), KNOWN.into()).is_some() {
        Some("incompatible features that are not known here")
    } else if compat != 0 || ro_compat != 0 {
        Some("features that are not known here")
    } else if incompat & CSUM_V2 != 0 && incompat & CSUM_V3 != 0 {
        Some("checksums of two kinds at once")
    } else {
        None
    }
}

/// What one block of the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// Copies of these blocks follow.
    Descriptor(Vec<Tag>),
    /// What came before is whole.
    Commit,
    /// Copies of these blocks in this transaction and before it are void.
    Revoke(Vec<u64>),
}

/// A copy of a block that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// Where it belongs.
    pub(super) block: u64,
    /// Its first four bytes were zeroed.
    pub(super) escaped: bool,
    sum: u32,
}

impl Form {
    fn has_sums(self) -> bool {
        self.incompat & (CSUM_V2 | CSUM_V3) != 0
    }

    fn has_long_tags(self) -> bool {
        self.incompat & CSUM_V3 != 0
    }

    fn has_wide_blocks(self) -> bool {
        self.incompat & BITS_64 != 0
    }

    /// Bytes of a tag without a UUID.
    fn tag_len(self) -> usize {
        if self.has_long_tags() {
            return 16;
        }
        let sum = if self.has_sums() { 2 } else { 0 };
        let high = if self.has_wide_blocks() { 4 } else { 0 };
        8 + sum + high
    }

    /// What `bytes`, a block of the log, is in the transaction `sequence`; `None` behind the end of
    /// the log.
    ///
    /// # Errors
    /// A doubt when it is a block of that transaction and is damaged.
    pub(super) fn entry(self, bytes: &[u8], sequence: u32) -> Result<Option<Entry>, Doubt> {
        let raw = Raw::new(bytes, "journal block");
        if raw.be32(0)? != MAGIC || raw.be32(8)? != sequence {
            return Ok(None);
        }
        match raw.be32(4)? {
            1 => {
                self.check_tail(&raw, sequence)?;
                Ok(Some(Entry::Descriptor(self.tags(&raw)?)))
            }
            KIND_COMMIT => {
                self.check_commit(&raw, sequence)?;
                Ok(Some(Entry::Commit))
            }
            5 => {
                self.check_tail(&raw, sequence)?;
                Ok(Some(Entry::Revoke(self.revoked(&raw)?)))
            }
            kind => Err(Doubt::new(format!(
                "its journal has a block of unknown kind {kind} in transaction {sequence}"
            ))),
        }
    }

    /// The tags of a descriptor block.
    fn tags(self, raw: &Raw<'_>) -> Result<Vec<Tag>, Doubt> {
        const ESCAPED: u32 = 1;
        const SAME_UUID: u32 = 2;
        const LAST: u32 = 8;
        let end = raw.bytes().len() - if self.has_sums() { TAIL } else { 0 };
        let mut tags = Vec::new();
        let mut at = HEADER;
        while at + self.tag_len() <= end {
            let low = u64::from(raw.be32(at)?);
            let (flags, sum, high_at) = if self.has_long_tags() {
                (raw.be32(at + 4)?, raw.be32(at + 12)?, at + 8)
            } else {
                let sum = u32::from(raw.be16(at + 4)?);
                (raw.be16(at + 6)?.into(), sum, at + 8)
            };
            let high = if self.has_wide_blocks() {
                u64::from(raw.be32(high_at)?)
            } else {
                0
            };
            tags.push(Tag {
                block: high << 32 | low,
                escaped: flags & ESCAPED != 0,
                sum,
            });
            if flags & LAST != 0 {
                return Ok(tags);
            }
            at += self.tag_len() + if flags & SAME_UUID == 0 { 16 } else { 0 };
        }
        // A full block need not say that its last tag is the last.
        Ok(tags)
    }

    /// The blocks of a revoke block.
    fn revoked(self, raw: &Raw<'_>) -> Result<Vec<u64>, Doubt> {
        let tail = if self.has_sums() { TAIL } else { 0 };
        let used = usize::try_from(raw.be32(HEADER)?).unwrap_or(usize::MAX);
        ensure(
            used >= HEADER + 4 && used <= raw.bytes().len() - tail,
            || format!("a revoke block of its journal claims to hold {used} bytes"),
        )?;
        let list = raw.slice(HEADER + 4, used - HEADER - 4)?;
        let len = if self.has_wide_blocks() { 8 } else { 4 };
        let entries = list.chunks_exact(len).map(|entry| {
            let entry = Raw::new(entry, "revoke entry");
            if self.has_wide_blocks() {
                entry.be64(0)
            } else {
                entry.be32(0).map(u64::from)
            }
        });
        entries.collect()
    }

    /// Doubts unless the checksum at the end of a block is right.
    fn check_tail(self, raw: &Raw<'_>, sequence: u32) -> Result<(), Doubt> {
        if !self.has_sums() {
            return Ok(());
        }
        let end = raw.bytes().len().saturating_sub(TAIL);
        let parts: [&[u8]; 2] = [raw.slice(0, end)?, &[0; TAIL]];
        self.check(&parts, raw.be32(end)?, sequence)
    }

    /// Doubts unless the checksum inside a commit block is right.
    fn check_commit(self, raw: &Raw<'_>, sequence: u32) -> Result<(), Doubt> {
        const SUM: usize = 16;
        if !self.has_sums() {
            return Ok(());
        }
        let parts: [&[u8]; 3] = [raw.slice(0, SUM)?, &[0; 4], raw.from(SUM + 4)?.bytes()];
        self.check(&parts, raw.be32(SUM)?, sequence)
    }

    fn check(self, parts: &[&[u8]], stored: u32, sequence: u32) -> Result<(), Doubt> {
        let computed = parts
            .iter()
            .fold(self.seed, |sum, part| checksum::crc32c_raw(sum, part));
        ensure(checksum::matches(computed, stored), || {
            format!("a checksum in transaction {sequence} of its journal is wrong; run e2fsck")
        })
    }

    /// Doubts unless `copy`, the bytes in the journal, has the checksum that its tag tells.
    pub(super) fn check_copy(self, copy: &[u8], tag: &Tag, sequence: u32) -> Result<(), Doubt> {
        if !self.has_sums() {
            return Ok(());
        }
        let sum = checksum::crc32c_raw(self.seed, &sequence.to_be_bytes());
        let sum = checksum::crc32c_raw(sum, copy);
        let mask = if self.has_long_tags() { !0 } else { 0xFFFF };
        ensure(checksum::matches(sum & mask, tag.sum), || {
            format!(
                "the copy of block {} in transaction {sequence} of its journal has a wrong checksum; run e2fsck",
                tag.block
            )
        })
    }

    /// Whether copies carry checksums.
    pub(super) fn checks_copies(self) -> bool {
        self.has_sums()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes the blocks of a journal in one of its forms, as `fs/jbd2/commit.c` does.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Writer {
        /// 0: none, else the version of its checksums.
        pub(in super::super) sums: u8,
        wide: bool,
        /// Further bits of the incompatible features.
        pub(in super::super) more: u32,
    }

    const UUID: [u8; 16] = *b"journal of tests";

    fn put(block: &mut [u8], at: usize, value: u32) {
        block[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    impl Writer {
        pub(in super::super) const BLOCK: usize = 1024;

        pub(in super::super) fn new(sums: u8, wide: bool) -> Writer {
            Writer {
                sums,
                wide,
                more: 0,
            }
        }

        fn block(kind: u32, sequence: u32) -> Vec<u8> {
            let mut block = vec![0; Writer::BLOCK];
            for (at, value) in [(0, 0xC03B_3998), (4, kind), (8, sequence)] {
                put(&mut block, at, value);
            }
            block
        }

        fn sum(block: &[u8]) -> u32 {
            checksum::crc32c_raw(checksum::crc32c_raw(!0, &UUID), block)
        }

        fn sealed(&self, mut block: Vec<u8>, at: usize) -> Vec<u8> {
            if self.sums > 0 {
                let sum = Writer::sum(&block);
                put(&mut block, at, sum);
            }
            block
        }

        pub(in super::super) fn superblock(
            &self,
            blocks: u32,
            first: u32,
            start: u32,
            sequence: u32,
        ) -> Vec<u8> {
            let mut block = Writer::block(4, 0);
            let sums = match self.sums {
                0 => 0,
                2 => 8,
                _ => 0x10,
            };
            let incompat = 1 | if self.wide { 2 } else { 0 } | sums | self.more;
            let values = [
                (0x0C, 1024),
                (0x10, blocks),
                (0x14, first),
                (0x18, sequence),
            ];
            for (at, value) in values.into_iter().chain([(0x1C, start), (0x28, incompat)]) {
                put(&mut block, at, value);
            }
            block[0x30..0x40].copy_from_slice(&UUID);
            if self.sums > 0 {
                block[0x50] = 4;
                let sum = checksum::crc32c_raw(!0, &block);
                put(&mut block, 0xFC, sum);
            }
            block
        }

        /// A descriptor and the copies of these blocks.
        pub(in super::super) fn copies(
            &self,
            sequence: u32,
            copies: &[(u64, Vec<u8>)],
        ) -> Vec<Vec<u8>> {
            let mut descriptor = Writer::block(1, sequence);
            let mut blocks = Vec::new();
            let mut at = 12;
            for (number, (block, content)) in copies.iter().enumerate() {
                let mut content = content.clone();
                let escaped = content.starts_with(&0xC03B_3998u32.to_be_bytes());
                if escaped {
                    put(&mut content, 0, 0);
                }
                let same = number > 0;
                let last = number + 1 == copies.len();
                let flags = [(escaped, 1), (same, 2), (last, 8)];
                let flags: u32 = flags.into_iter().filter(|f| f.0).map(|f| f.1).sum();
                let sum = checksum::crc32c_raw(Writer::sum(&sequence.to_be_bytes()), &content);
                let low = u32::try_from(*block).unwrap();
                put(&mut descriptor, at, low);
                at += match self.sums {
                    3 => {
                        put(&mut descriptor, at + 4, flags);
                        put(&mut descriptor, at + 12, sum);
                        16
                    }
                    sums => {
                        let half = if sums == 0 { 0 } else { sum & 0xFFFF };
                        put(&mut descriptor, at + 4, half << 16 | flags);
                        8 + if self.wide { 4 } else { 0 } + if sums == 2 { 2 } else { 0 }
                    }
                };
                at += if same { 0 } else { 16 };
                blocks.push(content);
            }
            let descriptor = self.sealed(descriptor, Writer::BLOCK - 4);
            [vec![descriptor], blocks].concat()
        }

        pub(in super::super) fn commit(&self, sequence: u32) -> Vec<u8> {
            self.sealed(Writer::block(2, sequence), 16)
        }

        pub(in super::super) fn revoke(&self, sequence: u32, revoked: &[u32]) -> Vec<u8> {
            let mut block = Writer::block(5, sequence);
            let len = if self.wide { 8 } else { 4 };
            let mut at = 16;
            for number in revoked {
                put(&mut block, at + len - 4, *number);
                at += len;
            }
            put(&mut block, 12, u32::try_from(at).unwrap());
            self.sealed(block, Writer::BLOCK - 4)
        }
    }

    #[test]
    fn a_superblock_without_sense_is_a_doubt() {
        let writer = Writer::new(3, true);
        let sound = writer.superblock(100, 1, 5, 7);
        assert_eq!(LogSuperblock::decode(&sound).unwrap().start, 5);
        for (first, start) in [(0, 5), (100, 0), (1, 100), (10, 5)] {
            let block = writer.superblock(100, first, start, 7);
            assert!(LogSuperblock::decode(&block).is_err(), "{first} {start}");
        }
        let mut damaged = sound;
        damaged[0x18] ^= 1;
        assert!(LogSuperblock::decode(&damaged).is_err());
    }

    #[test]
    fn a_revoke_block_that_claims_too_much_is_a_doubt() {
        let writer = Writer::new(0, false);
        let form = LogSuperblock::decode(&writer.superblock(9, 1, 1, 1))
            .unwrap()
            .form;
        let mut block = writer.revoke(1, &[4, 5]);
        assert_eq!(
            form.entry(&block, 1).unwrap(),
            Some(Entry::Revoke(vec![4, 5]))
        );
        assert_eq!(form.entry(&block, 2).unwrap(), None);
        for claimed in [0, 15, 1025, u32::MAX] {
            put(&mut block, 12, claimed);
            assert!(form.entry(&block, 1).is_err(), "{claimed}");
        }
    }
}
