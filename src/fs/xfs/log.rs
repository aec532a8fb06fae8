//! Whether the log holds changes to replay.
//!
//! The log is a ring of basic blocks. Each of them carries the number of the turn it was written
//! in, its cycle, in its first word, or in its second one where a record begins. So the blocks
//! from the start up to the head carry one cycle, and those from the head on the one before. What
//! the log says last is the record that ends at the head; a clean unmount leaves one there that
//! says nothing else.
//!
//! The whole log is read, not only a path by bisection: a block anywhere that does not fit means
//! that writes were torn or lie behind the record that looks like the last one. A mount stamps
//! blocks ahead of the head with empty records of the cycle before; they fit.
//!
//! Formats: `fs/xfs/libxfs/xfs_log_format.h`; the rules are those of `fs/xfs/xfs_log_recover.c`
//! (`xlog_find_head`, `xlog_check_unmount_rec`), only stricter.

use super::super::checksum;
use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::disk::{BASIC_BLOCK, Superblock, array};
use crate::base::{AlignedBuf, to_usize};
use std::ops::Range;

/// A record's first bytes.
const RECORD_MAGIC: [u8; 4] = [0xFE, 0xED, 0xBA, 0xBE];
/// Logs have at most 2 GiB.
const MAX_LOG: u64 = 2 << 30;
/// Bytes read at a time: several requests for a disk, which is faster with more than one.
const CHUNK: u64 = 4 << 20;
/// A record has at most 256 KiB, with its header.
const MAX_RECORD: u64 = 256 << 10;
/// Each block of a header has the first words of so many bytes of the record.
const BYTES_A_HEADER: u64 = 32 << 10;
/// Bit of a record's version: its header may have several blocks.
const VERSION_2: u32 = 2;
/// Where a record's header has its checksum, and how much of it the checksum is of: 64-bit systems
/// count the padding at its end, 32-bit systems have none.
const CHECKSUM: usize = 32;
const HEADER_SIZES: [usize; 2] = [328, 324];
/// How much of the further blocks of a header its checksum is of.
const FURTHER_HEADER_SIZE: usize = 260;
/// Who writes the operation that marks an unmount, and its flag.
const LOG_CLIENT: u8 = 0xAA;
const UNMOUNT: u8 = 0x20;
/// What people can do about it.
const ADVICE: &str = "mount it once and unmount it";

/// Doubts unless the log's newest record says that the file system was unmounted cleanly. The
/// bytes of the log.
pub(super) fn must_be_clean(
    volume: &Volume<'_>,
    superblock: &Superblock,
) -> Result<Range<u64>, Doubt> {
    let log = Log {
        volume,
        place: place(superblock)?,
    };
    let blocks = log.blocks();
    let newest = log.scan()?.newest()?;
    let header = Header::decode(&log.read(newest.start, 1)?, newest, superblock)?;
    let whole = header.header_blocks + header.data_blocks;
    ensure(
        whole <= blocks && (newest.start + whole) % blocks == newest.head % blocks,
        || torn(newest.start),
    )?;
    let record = log.read(newest.start, whole)?;
    header.check(&record, newest, blocks, superblock)?;
    Ok(log.place)
}

/// A log on its volume.
struct Log<'a, 'v> {
    volume: &'a Volume<'v>,
    /// Its bytes: whole basic blocks, at least one.
    place: Range<u64>,
}

impl Log<'_, '_> {
    fn blocks(&self) -> u64 {
        (self.place.end - self.place.start) / BASIC_BLOCK
    }

    /// Reads all of it.
    fn scan(&self) -> Result<Ring, Doubt> {
        let mut ring = Ring::default();
        let mut buf = AlignedBuf::zeroed(to_usize(CHUNK.min(self.place.end - self.place.start)));
        let mut at = self.place.start;
        while at < self.place.end {
            let len = CHUNK.min(self.place.end - at);
            let part = buf.get_mut(..to_usize(len)).unwrap_or_default();
            self.volume.read_into(at, part)?;
            for block in part.chunks_exact(to_usize(BASIC_BLOCK)) {
                ring.push(block)?;
            }
            at += len;
        }
        Ok(ring)
    }

    /// `count` basic blocks from `first`, on from the start behind the last.
    fn read(&self, first: u64, count: u64) -> Result<Vec<u8>, Doubt> {
        let mut bytes = Vec::new();
        let mut next = first;
        let mut left = count;
        while left > 0 {
            let run = left.min(self.blocks() - next);
            let at = self.place.start + next * BASIC_BLOCK;
            bytes.extend(self.volume.read(at, run * BASIC_BLOCK)?);
            next = 0;
            left -= run;
        }
        Ok(bytes)
    }
}

/// The bytes of the log.
fn place(superblock: &Superblock) -> Result<Range<u64>, Doubt> {
    ensure(superblock.log_start != 0, || {
        let uuid = uuid::Uuid::from_bytes(superblock.uuid);
        format!(
            "its log is on another device (an external log, which carries the UUID {uuid}), so \
             whether it was unmounted cleanly cannot be seen here"
        )
    })?;
    let group = superblock.log_start >> superblock.group_bits;
    let block = superblock.log_start & ((1 << superblock.group_bits) - 1);
    let count = superblock.log_blocks;
    let bytes = count.saturating_mul(superblock.block);
    ensure(
        group < superblock.groups
            && block.saturating_add(count) <= superblock.blocks_of(group)
            && (BASIC_BLOCK..=MAX_LOG).contains(&bytes),
        || {
            format!(
                "its superblock places a log of {count} blocks at block {block} of allocation \
                 group {group}, where it does not fit: run xfs_repair on it"
            )
        },
    )?;
    let start = superblock.byte_of(group, block);
    Ok(start..start.saturating_add(bytes))
}

fn torn(block: u64) -> String {
    format!("the newest records of its log, near its block {block}, are torn: {ADVICE}")
}

/// What the log says last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Newest {
    /// Basic block at which its record begins.
    start: u64,
    /// Its cycle.
    cycle: u32,
    /// The basic block behind it: where the log goes on.
    head: u64,
}

/// The log as it is read, one basic block after another.
#[derive(Debug, Default)]
struct Ring {
    /// Blocks so far.
    blocks: u64,
    /// Cycle of the first block.
    cycle: u32,
    /// The first block that is not of that cycle.
    head: Option<u64>,
    /// Whether zeros were there, not of any cycle.
    gap: bool,
    /// Whether a block of the cycle before was there.
    old: bool,
    /// The last record that begins before the head.
    before: Option<u64>,
    /// The last record that begins behind it.
    behind: Option<u64>,
}

impl Ring {
    fn push(&mut self, block: &[u8]) -> Result<(), Doubt> {
        let raw = Raw::new(block, "log");
        let begins = block.starts_with(&RECORD_MAGIC);
        let cycle = raw.be32(if begins { 4 } else { 0 })?;
        let at = self.blocks;
        self.blocks += 1;
        if at == 0 {
            ensure(cycle != 0, || {
                format!("its log was wiped, so what it held cannot be told: {ADVICE}")
            })?;
            self.cycle = cycle;
        }
        if self.head.is_none() && cycle != self.cycle {
            self.head = Some(at);
        }
        if self.head.is_some() && !self.old && cycle == 0 && self.cycle > 1 {
            // xfs_repair writes a new log as an unmount record, zeros up to 256 KiB, and records of
            // the cycle before. The next mount overwrites the zeros.
            let filling = at < MAX_RECORD / BASIC_BLOCK && block.iter().all(|b| *b == 0);
            self.gap = true;
            return ensure(filling, || torn(at));
        }
        self.old = self.head.is_some();
        ensure(cycle == self.cycle - u32::from(self.old), || torn(at))?;
        if begins {
            let last = if self.old {
                &mut self.behind
            } else {
                &mut self.before
            };
            *last = Some(at);
        }
        Ok(())
    }

    fn newest(&self) -> Result<Newest, Doubt> {
        // A record that begins at the log's end goes on at its start, with the next cycle.
        let found = self.before.map(|at| (at, self.cycle));
        let found = found.or(self.behind.map(|at| (at, self.cycle - 1)));
        let (start, cycle) =
            found.ok_or_else(|| Doubt::new(format!("there is no record in its log: {ADVICE}")))?;
        ensure(!self.gap || start == 0, || torn(start))?;
        Ok(Newest {
            start,
            cycle,
            head: self.head.unwrap_or(self.blocks),
        })
    }
}

/// The header of the newest record, which names one operation only.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    header_blocks: u64,
    data_blocks: u64,
}

impl Header {
    fn decode(bytes: &[u8], newest: Newest, superblock: &Superblock) -> Result<Header, Doubt> {
        let raw = Raw::new(bytes, "log record");
        let Newest { start, cycle, .. } = newest;
        let wrong = |what: &str| {
            format!("the newest record of its log, at its block {start}, {what}: {ADVICE}")
        };
        let version = raw.be32(8)?;
        ensure(version == 1 || version == VERSION_2, || {
            wrong(&format!("is of version {version}"))
        })?;
        ensure(raw.be64(16)? == u64::from(cycle) << 32 | start, || {
            wrong("is one of another place")
        })?;
        ensure(array(raw, 304)? == superblock.uuid, || {
            wrong("is one of another file system")
        })?;
        ensure((1..=3).contains(&raw.be32(300)?), || {
            wrong("is of an unknown format")
        })?;
        ensure(raw.be32(40)? == 1, dirty)?;
        let len = u64::from(raw.be32(12)?);
        // Version 1 has headers of one block, and nothing where version 2 has what decides.
        let size = if version == VERSION_2 {
            u64::from(raw.be32(320)?)
        } else {
            0
        };
        let header_blocks = size.div_ceil(BYTES_A_HEADER).max(1);
        ensure(
            len > 0 && len.is_multiple_of(BASIC_BLOCK) && len <= MAX_RECORD && size <= MAX_RECORD,
            || wrong(&format!("gives a length of {len} bytes of {size}")),
        )?;
        Ok(Header {
            header_blocks,
            data_blocks: len / BASIC_BLOCK,
        })
    }

    /// Doubts unless `record`, header and data, is sound and marks an unmount. The log has `blocks`
    /// basic blocks.
    fn check(
        &self,
        record: &[u8],
        newest: Newest,
        blocks: u64,
        superblock: &Superblock,
    ) -> Result<(), Doubt> {
        let data = to_usize(self.header_blocks * BASIC_BLOCK);
        let operation = Raw::new(record, "log record").from(data)?;
        let marks = operation.u8(8)? == LOG_CLIENT && operation.u8(9)? == UNMOUNT;
        ensure(marks, dirty)?;
        let raw = Raw::new(record, "log record");
        let stored = raw.slice(CHECKSUM, 4)?;
        let stored = u32::from_le_bytes(stored.try_into().unwrap_or_default());
        // Records of the tools have no checksum: the one that begins a new log, and those of the
        // cycle before that fill the rest of it. Nor have those of version 4 from kernels that had
        // no version 5.
        let fills = newest.start == 0 || newest.head == blocks;
        if stored == 0 && (fills || !superblock.v5()) {
            return Ok(());
        }
        for size in HEADER_SIZES {
            if checksum::matches(self.checksum(raw, size)?, stored) {
                return Ok(());
            }
        }
        Err(Doubt::new(torn(newest.start)))
    }

    /// The record's checksum when the header's first block counts with `size` bytes.
    fn checksum(&self, record: Raw<'_>, size: usize) -> Result<u32, Doubt> {
        let block = to_usize(BASIC_BLOCK);
        let mut sum = checksum::crc32c_raw(!0, record.slice(0, CHECKSUM)?);
        sum = checksum::crc32c_raw(sum, &[0; 4]);
        let rest = CHECKSUM + 4;
        sum = checksum::crc32c_raw(sum, record.slice(rest, size.saturating_sub(rest))?);
        // As many further blocks of the header count as the data needs.
        let needed = self.data_blocks.div_ceil(BYTES_A_HEADER / BASIC_BLOCK);
        for i in 1..to_usize(needed.min(self.header_blocks)) {
            sum = checksum::crc32c_raw(sum, record.slice(i * block, FURTHER_HEADER_SIZE)?);
        }
        let data = record.from(to_usize(self.header_blocks) * block)?;
        Ok(!checksum::crc32c_raw(sum, data.bytes()))
    }
}

fn dirty() -> String {
    format!(
        "its log holds changes that are not in their places yet, as when it is in use or was not \
         unmounted: {ADVICE}"
    )
}
