//! Where files lie: chains of the file allocation table, and whether the bitmap knows them.

use super::super::doubt::{Doubt, ensure};
use super::super::pages::Pages;
use super::super::raw::Raw;
use super::super::volume::{Piece, Volume};
use super::disk::{Boot, Stream};
use crate::base::to_usize;
use std::ops::Range;

/// Pieces that the bitmap may lie in: 1.5 MiB of memory.
const MOST_PIECES: usize = 1 << 16;
/// The largest directory: 256 MiB.
const LARGEST_DIRECTORY: u64 = 256 << 20;
/// What the first two entries of the table have to be for it to be one: the medium, and all ones.
const FIRST_ENTRY: u32 = 0xFFFF_FFF8;
const LAST: u32 = 0xFFFF_FFFF;

/// The file allocation table.
pub(super) struct Table<'v> {
    boot: &'v Boot,
    pages: Pages<'v>,
}

impl<'v> Table<'v> {
    /// The table of `volume`.
    ///
    /// # Errors
    /// A doubt when it does not begin as one.
    pub(super) fn open(volume: &'v Volume<'v>, boot: &'v Boot) -> Result<Table<'v>, Doubt> {
        let mut table = Table {
            boot,
            pages: Pages::new(volume, boot.table_at, boot.table_len),
        };
        let first = table.entry(0)?;
        ensure(first == FIRST_ENTRY, || {
            format!("its file allocation table begins with {first:#010x}")
        })?;
        Ok(table)
    }

    fn entry(&mut self, cluster: u32) -> Result<u32, Doubt> {
        let rest = self.pages.from(u64::from(cluster) * 4)?;
        Raw::new(rest, "file allocation table").le32(0)
    }

    /// The runs of clusters that `stream` lies in, in its order, each to `each`.
    ///
    /// # Errors
    /// A doubt when they are not the volume's, or are not as many as the stream's length needs.
    pub(super) fn runs(
        &mut self,
        stream: Stream,
        each: &mut dyn FnMut(Range<u32>) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let Stream { first, len, .. } = stream;
        if first == 0 && len == 0 {
            return Ok(());
        }
        // An empty file may keep its first cluster.
        let count = len.div_ceil(self.boot.cluster).max(1);
        ensure(self.boot.has(first, 1), || {
            format!("a file of {len} bytes begins in cluster {first}, which does not exist")
        })?;
        if !stream.in_one_piece {
            let found = self.chain(first, count, each)?;
            return ensure(found == count, || {
                format!(
                    "a file of {len} bytes from cluster {first} has {found} clusters and needs {count}: \
                     run fsck.exfat"
                )
            });
        }
        let end = u64::from(first).saturating_add(count);
        let inside = self.boot.has(first, count);
        let end = u32::try_from(end).ok().filter(|_| inside).ok_or_else(|| {
            Doubt::new(format!(
                "a file of {len} bytes in one piece from cluster {first} passes the end: run fsck.exfat"
            ))
        })?;
        each(first..end)
    }

    /// The runs of the root directory, of which only the first cluster is known.
    pub(super) fn root(
        &mut self,
        each: &mut dyn FnMut(Range<u32>) -> Result<(), Doubt>,
    ) -> Result<(), Doubt> {
        let most = (LARGEST_DIRECTORY / self.boot.cluster).max(1);
        self.chain(self.boot.root_cluster, most, each).map(|_| ())
    }

    /// Follows a chain of at the most `most` clusters to its end; how many there are.
    fn chain(
        &mut self,
        first: u32,
        most: u64,
        each: &mut dyn FnMut(Range<u32>) -> Result<(), Doubt>,
    ) -> Result<u64, Doubt> {
        let mut run = first..first.saturating_add(1);
        for found in 1..=most {
            let from = run.end - 1;
            match self.entry(from)? {
                LAST => {
                    each(run)?;
                    return Ok(found);
                }
                next if !self.boot.has(next, 1) => {
                    return Err(Doubt::new(format!(
                        "its file allocation table leads from cluster {from} to {next:#x}, which does \
                         not exist: run fsck.exfat"
                    )));
                }
                next if next == run.end => run.end += 1,
                next => {
                    each(run)?;
                    run = next..next.saturating_add(1);
                }
            }
        }
        Err(Doubt::new(format!(
            "the chain from cluster {first} does not end after the {most} clusters that it can have: \
             run fsck.exfat"
        )))
    }
}

/// The allocation bitmap, in the order of its bits.
///
/// # Errors
/// A doubt when its chain is broken or lies in too many pieces.
pub(super) fn bitmap_volume<'a>(
    volume: &Volume<'a>,
    boot: &Boot,
    table: &mut Table<'_>,
    stream: Stream,
) -> Result<Volume<'a>, Doubt> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut start = 0;
    table.runs(stream, &mut |run| {
        ensure(pieces.len() < MOST_PIECES, || {
            format!("its allocation bitmap lies in more than {MOST_PIECES} pieces")
        })?;
        let len = u64::from(run.end - run.start) * boot.cluster;
        let at = boot.cluster_at(run.start);
        pieces.push(Piece { start, len, at });
        start += len;
        Ok(())
    })?;
    volume.window(&pieces)
}

/// Which clusters are in use, looked up in the bitmap.
pub(super) struct Bitmap<'v> {
    pages: Pages<'v>,
}

impl<'v> Bitmap<'v> {
    /// `bits` is the volume that [`bitmap_volume`] makes.
    pub(super) fn new(bits: &'v Volume<'v>) -> Bitmap<'v> {
        Bitmap {
            pages: Pages::new(bits, 0, bits.len()),
        }
    }

    /// The first of the clusters `run` that the bitmap calls free.
    pub(super) fn first_free(&mut self, run: Range<u32>) -> Result<Option<u32>, Doubt> {
        let mut bit = u64::from(run.start).saturating_sub(2);
        let end = u64::from(run.end).saturating_sub(2);
        while bit < end {
            let bytes = self.pages.from(bit / 8)?;
            let held_to = (bit / 8 + crate::base::to_u64(bytes.len())) * 8;
            let base = bit / 8 * 8;
            while bit < held_to.min(end) {
                let byte = bytes.get(to_usize((bit - base) / 8)).copied();
                let byte = byte.unwrap_or_default();
                if byte == 0xFF {
                    bit = bit / 8 * 8 + 8;
                } else if byte & 1 << (bit % 8) == 0 {
                    return Ok(u32::try_from(bit + 2).ok());
                } else {
                    bit += 1;
                }
            }
        }
        Ok(None)
    }
}
