//! The walk over all directories: every cluster of a file must be in use for the bitmap.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::disk::{self, Boot, ENTRY, File, Kind, Stream};
use super::streams::{Bitmap, Table};
use crate::base::{BlockIndex, BlockMap, to_usize};
use std::ops::Range;

/// How much of a directory is read at a time.
const PART: u64 = 16 << 10;
/// Clusters of directories: their set takes at most 8 MiB.
const MOST_DIRECTORY_CLUSTERS: u64 = 4 << 20;
/// Directories found and not yet read: 16 MiB.
const MOST_PENDING: usize = 1 << 20;
/// The largest directory.
const LARGEST_DIRECTORY: u64 = 256 << 20;

/// Entries of a directory, one after the other, up to its end.
pub(super) struct Entries<'v> {
    volume: &'v Volume<'v>,
    boot: &'v Boot,
    /// The clusters yet to be read, in reverse.
    runs: Vec<Range<u32>>,
    /// The rest of the run that is being read, in bytes of the volume.
    rest: Range<u64>,
    part: Vec<u8>,
    at: usize,
    /// Whether what cannot be read is left out, and whether there was such.
    around: bool,
    lost: bool,
}

impl<'v> Entries<'v> {
    /// The entries in `runs`, which are the volume's.
    pub(super) fn new(
        volume: &'v Volume<'v>,
        boot: &'v Boot,
        mut runs: Vec<Range<u32>>,
    ) -> Entries<'v> {
        runs.reverse();
        Entries {
            volume,
            boot,
            runs,
            rest: 0..0,
            part: Vec::new(),
            at: 0,
            around: false,
            lost: false,
        }
    }

    /// As [`Entries::new`], without the entries that cannot be read.
    pub(super) fn around(
        volume: &'v Volume<'v>,
        boot: &'v Boot,
        runs: Vec<Range<u32>>,
    ) -> Entries<'v> {
        Entries {
            around: true,
            ..Entries::new(volume, boot, runs)
        }
    }

    /// Whether entries were left out.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The next `len` bytes of the run.
    fn read_part(&mut self, len: u64) -> Result<Vec<u8>, Doubt> {
        if !self.around {
            return self.volume.read(self.rest.start, len);
        }
        let (sector, start) = (self.boot.sector, self.rest.start);
        let read = |n: u64, count: u64| self.volume.read(start + n * sector, count * sector);
        let (mut part, lost) = (Vec::new(), &mut self.lost);
        self.volume
            .read_around(sector, len / sector, &read, &mut |_, bytes| {
                match bytes {
                    Some(bytes) => part.extend_from_slice(bytes),
                    None => {
                        *lost = true;
                        part.resize(part.len() + to_usize(sector), disk::UNUSED);
                    }
                }
                Ok(())
            })?;
        Ok(part)
    }

    /// The next entry; `None` where the clusters end.
    fn next(&mut self) -> Result<Option<[u8; ENTRY]>, Doubt> {
        if self.at >= self.part.len() {
            if self.rest.is_empty() {
                let Some(run) = self.runs.pop() else {
                    return Ok(None);
                };
                self.rest = self.boot.cluster_at(run.start)..self.boot.cluster_at(run.end);
            }
            let len = PART.min(self.rest.end - self.rest.start);
            self.part = self.read_part(len)?;
            self.rest.start += len;
            self.at = 0;
        }
        let entry = self
            .part
            .get(self.at..)
            .and_then(|p| p.first_chunk::<ENTRY>());
        self.at += ENTRY;
        Ok(entry.copied())
    }

    /// The next entry in use that stands for itself or begins a set.
    pub(super) fn next_in_use(&mut self) -> Result<Option<(Kind, [u8; ENTRY])>, Doubt> {
        while let Some(entry) = self.next()? {
            match disk::kind(&Raw::new(&entry, "directory"))? {
                Kind::EndOfDirectory => break,
                Kind::Unused => {}
                kind => return Ok(Some((kind, entry))),
            }
        }
        Ok(None)
    }

    /// The set that `first` begins and `more` entries end.
    pub(super) fn set(&mut self, first: &[u8; ENTRY], more: u8) -> Result<File, Doubt> {
        let mut set = first.to_vec();
        for _ in 0..more {
            let entry = self.next()?;
            let entry =
                entry.ok_or_else(|| Doubt::new("a directory ends within a file's entries"))?;
            set.extend_from_slice(&entry);
        }
        disk::file(&set)
    }
}

/// The walk and what it has found.
pub(super) struct Walk<'v> {
    volume: &'v Volume<'v>,
    boot: &'v Boot,
    table: Table<'v>,
    bitmap: Bitmap<'v>,
    /// Clusters of directories.
    visited: BlockMap,
    pending: Vec<Stream>,
    /// Clusters of all that was found.
    claimed: u64,
}

impl<'v> Walk<'v> {
    /// A walk that has found nothing yet.
    pub(super) fn new(
        volume: &'v Volume<'v>,
        boot: &'v Boot,
        table: Table<'v>,
        bitmap: Bitmap<'v>,
    ) -> Walk<'v> {
        Walk {
            volume,
            boot,
            table,
            bitmap,
            visited: BlockMap::empty(u64::from(boot.clusters) + 2),
            pending: Vec::new(),
            claimed: 0,
        }
    }

    /// Walks all directories; how many clusters files, directories and `tables` have.
    ///
    /// # Errors
    /// A doubt when one of them is free for the bitmap, or when they do not hold together.
    pub(super) fn all(mut self, tables: &[Stream]) -> Result<u64, Doubt> {
        for stream in tables {
            self.claim(*stream, "a table of its own")?;
        }
        let mut root = Vec::new();
        self.table.root(&mut |run| {
            root.push(run);
            Ok(())
        })?;
        self.directory(root, true)?;
        while let Some(stream) = self.pending.pop() {
            ensure(stream.len <= LARGEST_DIRECTORY, || {
                format!(
                    "a directory in cluster {} claims to be {} bytes long",
                    stream.first, stream.len
                )
            })?;
            let mut runs = Vec::new();
            self.table.runs(stream, &mut |run| {
                runs.push(run);
                Ok(())
            })?;
            self.directory(runs, false)?;
        }
        Ok(self.claimed)
    }

    fn directory(&mut self, runs: Vec<Range<u32>>, is_root: bool) -> Result<(), Doubt> {
        for run in &runs {
            self.visit(run)?;
            in_use(
                &mut self.bitmap,
                &mut self.claimed,
                self.boot,
                run,
                "a directory",
            )?;
        }
        let mut entries = Entries::new(self.volume, self.boot, runs);
        while let Some((kind, entry)) = entries.next_in_use()? {
            match kind {
                Kind::File { more } => {
                    let file = entries.set(&entry, more)?;
                    self.file(&file)?;
                }
                Kind::Bitmap { .. } | Kind::UpCase { .. } | Kind::Label | Kind::VolumeId
                    if is_root => {}
                other => {
                    return Err(Doubt::new(format!(
                        "a directory has an entry of the type {:#04x}, which is not understood there \
                         ({other:?})",
                        entry[0]
                    )));
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, file: &File) -> Result<(), Doubt> {
        let mut streams = file.streams.iter();
        if file.is_directory
            && let Some(content) = streams.next()
        {
            ensure(self.pending.len() < MOST_PENDING, || {
                format!("more than {MOST_PENDING} of its directories lie in one")
            })?;
            self.pending.push(*content);
        }
        streams.try_for_each(|stream| self.claim(*stream, "a file"))
    }

    /// Every cluster of `stream` must be in use.
    fn claim(&mut self, stream: Stream, what: &str) -> Result<(), Doubt> {
        let (bitmap, claimed, boot) = (&mut self.bitmap, &mut self.claimed, self.boot);
        self.table
            .runs(stream, &mut |run| in_use(bitmap, claimed, boot, &run, what))
    }

    /// A directory that is met again leads in circles.
    fn visit(&mut self, run: &Range<u32>) -> Result<(), Doubt> {
        for cluster in run.clone() {
            let cluster = BlockIndex(cluster.into());
            ensure(!self.visited.contains(cluster), || {
                format!(
                    "two of its directories share cluster {}: run fsck.exfat",
                    cluster.0
                )
            })?;
            self.visited.insert(cluster);
        }
        ensure(self.visited.count() <= MOST_DIRECTORY_CLUSTERS, || {
            format!("its directories take more than {MOST_DIRECTORY_CLUSTERS} clusters")
        })
    }
}

/// The clusters `run` of `what` must be in use. All that is found cannot be more than there is; that
/// ends every search in a damaged volume.
fn in_use(
    bitmap: &mut Bitmap<'_>,
    claimed: &mut u64,
    boot: &Boot,
    run: &Range<u32>,
    what: &str,
) -> Result<(), Doubt> {
    *claimed += u64::from(run.end - run.start);
    ensure(*claimed <= u64::from(boot.clusters), || {
        format!(
            "its files take more clusters than its {}: run fsck.exfat",
            boot.clusters
        )
    })?;
    match bitmap.first_free(run.clone())? {
        None => Ok(()),
        Some(free) => Err(Doubt::new(format!(
            "its allocation bitmap calls cluster {free} free, which is part of {what}: run fsck.exfat"
        ))),
    }
}
