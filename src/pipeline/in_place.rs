//! What of a disk is as in the parent, told from its bytes where they are in memory.
//!
//! Of an increment most is so. In the page cache it is looked at where it lies: copying it takes more than half of the
//! time that its digests do. What is new there is read like everything else and looked at again: what goes into an
//! image must keep still. What was read from a medium is looked at by whoever read it, so that no other thread has to
//! be woken for it.

use super::backup::Job;
use super::reading::{Disk, WindowContent};
use crate::base::{BlockIndex, Extent, to_usize};
use crate::block::Missing;
use crate::image::{Base, EncodedWindow, describe_block};

/// Those of `jobs` that hold nothing new, each in its place; `None` for what must be read to be known. `scratch` is room
/// for a block.
pub(super) fn as_in_parent(
    disk: &Disk<'_>,
    jobs: &[Job],
    scratch: &mut Vec<u8>,
) -> Vec<Option<EncodedWindow>> {
    let mut found = Vec::with_capacity(jobs.len());
    // One mapping for neighbours: it costs as much for one window as for some.
    for near in jobs.chunk_by(|a, b| a.end() == b.first.0) {
        let done = found.len();
        if let Some(extent) = extent_of(disk, near) {
            let is_seen = disk.source.look_at_cached(extent, &mut |bytes| {
                for job in near {
                    let own = disk.extent(job.first.0, job.count);
                    let from = to_usize(own.start.0 - extent.start.0);
                    let bytes = bytes.get(from..from + to_usize(own.len.0));
                    let unused = disk.selection.unused_in(own);
                    found.push(bytes.and_then(|bytes| look(disk, job, bytes, &unused, scratch)));
                }
            });
            match is_seen {
                true => disk.rescue.was_good(extent.start),
                false => found.truncate(done),
            }
        }
        found.resize(done + near.len(), None);
    }
    found
}

/// The window of `job`, which `content` was read for, if it holds nothing new.
pub(super) fn read_as_in_parent(
    disk: &Disk<'_>,
    job: &Job,
    content: &WindowContent,
) -> Option<EncodedWindow> {
    if !has_parent(job) || !content.missing.is_empty() {
        return None;
    }
    let bytes = content.data.get(..content.len)?;
    // What is not used was read as zeros.
    look(disk, job, bytes, &[], &mut Vec::new())
}

fn has_parent(job: &Job) -> bool {
    !matches!(job.around.base, Base::None)
}

/// What `jobs` are about, if their parents may hold it and nothing forbids to look.
fn extent_of(disk: &Disk<'_>, jobs: &[Job]) -> Option<Extent> {
    let may_be = |job: &Job| job.content.is_none() && has_parent(job);
    if disk.known.is_some() || disk.rescue.has_failed() || !jobs.iter().all(may_be) {
        return None;
    }
    let (first, last) = (jobs.first()?, jobs.last()?);
    let extent = disk.extent(first.first.0, last.end() - first.first.0);
    (!disk.rescue.passes_over(extent)).then_some(extent)
}

/// The window of `job`, whose content is `bytes` with zeros in `gaps`, unless some of it is new.
fn look(
    disk: &Disk<'_>,
    job: &Job,
    bytes: &[u8],
    mut gaps: &[Extent],
    scratch: &mut Vec<u8>,
) -> Option<EncodedWindow> {
    let header = disk.header;
    let known = disk.known(job.first.0, job.count, &Missing::default());
    let mut blocks = Vec::with_capacity(known.len());
    let contents = bytes.chunks(header.block_size.as_usize());
    for ((index, state), bytes) in (job.first.0..).zip(known).zip(contents) {
        let own = disk.extent(index, 1);
        gaps = &gaps[gaps.partition_point(|gap| gap.end() <= own.start)..];
        let content = without_gaps(bytes, own, gaps, scratch);
        let index = BlockIndex(index);
        let (block, is_new) = describe_block(header, index, content, state, &job.around.base);
        if is_new {
            return None;
        }
        blocks.push(block);
    }
    Some(EncodedWindow::with_frame(job.first, blocks, None))
}

/// `bytes`, the content of `own`, with zeros in those of `gaps` that begin it or lie in it.
fn without_gaps<'a>(
    bytes: &'a [u8],
    own: Extent,
    gaps: &[Extent],
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    let mut gaps = gaps.iter().map_while(|gap| gap.intersect(own)).peekable();
    if gaps.peek().is_none() {
        return bytes;
    }
    scratch.clear();
    scratch.extend_from_slice(bytes);
    for gap in gaps {
        let from = to_usize(gap.start.0 - own.start.0);
        if let Some(part) = scratch.get_mut(from..from + to_usize(gap.len.0)) {
            part.fill(0);
        }
    }
    scratch
}
