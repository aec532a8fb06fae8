//! Which files hold the bytes that cannot be read, or that are lost?
//!
//! Promises: never more certain than the walk was. A byte is named free only when all that could hold
//! it was looked at; what is left over by an incomplete walk is unknown, and the answer says why. The
//! walk reads around what cannot be read: such a range may fail, or hold the pattern that an image has
//! in its place ([`lost::Lost`]). Must not know: formats; each has its own walk beside its decoder,
//! behind `Reader::files`.
//!
//! Memory: a few MiB for claims and names, whatever the volume holds; more hits than are kept are
//! counted. Reads are bounded by the budget of `Volume`.

mod hits;
mod lost;
mod names;
mod pending;
mod search;

pub(super) use hits::{Found, Hits};
pub(super) use names::{Climber, shown, shown_utf16};
pub(super) use pending::Pending;
pub(super) use search::Search;

use super::doubt::Doubt;
use super::volume::Volume;
use super::{READERS, Reader, probe};
use crate::base::{ByteOffset, Cancel, Extent, Result, normalize};
use crate::block::BlockSource;
use lost::Lost;

/// So many files are listed; the others are counted. What a person reads is shorter still.
pub const MAX_LISTED: usize = 1000;

/// What some byte ranges of a partition hold. Extents are relative to the partition, ascending and apart,
/// and each lies inside the ranges that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// What the partition holds ("ext4", "LVM2", "unknown").
    pub kind: String,
    /// The files that are hit, at most [`MAX_LISTED`], by volume, then by path.
    pub files: Vec<FileHit>,
    /// How many more files are hit.
    pub more: u64,
    /// What holds structures of the file system: allocation, journal, tables of inodes or of files,
    /// what says where a file's content lies. Files that are known to suffer are listed too.
    pub metadata: Vec<Extent>,
    /// What is known to hold nothing that is needed.
    pub free: Vec<Extent>,
    /// What nothing is known of.
    pub unknown: Vec<Extent>,
    /// Why not all is known, for people; `None` when the walk has seen everything.
    pub incomplete: Option<String>,
}

/// A file or directory that is hit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileHit {
    /// The volume inside the partition that holds it: "vg0/root"; `None` for the partition itself.
    pub volume: Option<String>,
    /// Its path from the volume's root, with a leading `/`. What is no plain text is escaped:
    /// unprintable characters and `\` as in Rust, bytes that are no UTF-8 as `\xNN`. Where a directory
    /// on the way is lost, the path begins with what is known: `<inode 12>/name`.
    pub path: String,
    /// More of its names (hard links), as far as they are kept.
    pub others: Vec<String>,
    /// Its number: inode, MFT record, first cluster of FAT and exFAT.
    pub number: u64,
    /// Whether it is a directory.
    pub directory: bool,
    /// Bytes of its content that are hit, counted in the blocks that hold it, to the end of the last.
    pub bytes: u64,
    /// Whether its own metadata is hit: inode or record, what says where its content lies, attributes.
    /// Then more of it than `bytes` may be lost.
    pub own_metadata: bool,
}

/// What the byte ranges `ranges` of `partition` hold. They may come in any order.
///
/// # Errors
/// `Interrupted` or `Terminated` when cancelled. What cannot be read is no error: the answer is then
/// incomplete, and says so.
pub fn files_hit(partition: &dyn BlockSource, ranges: &[Extent], cancel: &Cancel) -> Result<Hit> {
    let whole = Extent::whole(partition.len());
    let inside = ranges.iter().filter_map(|range| range.intersect(whole));
    let ranges = normalize(inside.collect());
    let source = Lost::new(partition, &ranges);
    look_into(&Volume::new(&source, cancel), ranges.clone(), READERS)
}

/// What `ranges`, which are normal and inside, are in `volume`, as one of `readers` says.
///
/// # Errors
/// Only when the run was stopped.
pub(super) fn look_into(
    volume: &Volume<'_>,
    ranges: Vec<Extent>,
    readers: &[&dyn Reader],
) -> Result<Hit> {
    let mut search = Search::new(ranges);
    let answer = match probe::recognise_around(volume, readers) {
        Ok((found, reader)) => {
            let answer = reader.files(volume, &mut search);
            (found, answer)
        }
        Err((found, doubt)) => (found, Err(doubt)),
    };
    match answer {
        (_, Err(Doubt::Stopped(error))) => Err(error),
        (found, Err(Doubt::Unsure(why))) => {
            search.lacks(why);
            Ok(search.finish(found.kind))
        }
        (found, Ok(())) => Ok(search.finish(found.kind)),
    }
}

/// The bytes `start..end` as an extent; empty when they are none.
pub(in crate::fs) fn extent(range: std::ops::Range<u64>) -> Extent {
    let (start, end) = (ByteOffset(range.start), ByteOffset(range.end));
    Extent::between(start, end).unwrap_or_default()
}
