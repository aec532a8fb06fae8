//! Which files hold given bytes: a walk over all directories, whose entries lead to runs of clusters or
//! to chains of the file allocation table.
//!
//! Boot regions, the table and the bitmap are metadata. A file whose chain is broken, or whose entries
//! have something for a vendor that is hit, is told of as one whose metadata is hit.

use super::super::doubt::Doubt;
use super::super::files::{FileHit, Pending, Search};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::directory::Entries;
use super::disk::{BOOT_LEN, Boot, File, Kind, Stream};
use super::streams::{Bitmap, Table, bitmap_volume};
use crate::base::{BlockIndex, BlockMap};
use std::ops::Range;

/// The largest directory: 256 MiB.
const LARGEST_DIRECTORY: u64 = 256 << 20;
/// Clusters that are looked up to tell free ones from lost ones, at the most.
const MOST_LOOKED_UP: u64 = 1 << 22;

/// Tells `search` who holds what in `volume`.
pub(super) fn files(volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
    let bytes = volume.read(0, BOOT_LEN)?;
    let boot = Boot::decode(&Raw::new(&bytes, "boot sector"))?;
    volume.must_hold(boot.len, boot.sector)?;
    boot.check_layout()?;
    search.tolerate(boot.check_state())?;
    search.metadata(0..boot.heap_at);
    let mut walk = Walk {
        volume,
        boot: &boot,
        table: Table::open(volume, &boot)?,
        visited: BlockMap::empty(u64::from(boot.clusters) + 2),
        pending: Pending::new(),
        // No cluster belongs to two files, but for damage.
        left: u64::from(boot.clusters).saturating_mul(2) + 64,
        bitmap: None,
    };
    let walked = walk.all(search);
    search.tolerate(walked)?;
    if search.is_unsure() {
        let free = walk.free(search);
        search.tolerate(free)?;
    }
    Ok(())
}

struct Walk<'v> {
    volume: &'v Volume<'v>,
    boot: &'v Boot,
    table: Table<'v>,
    /// First clusters of directories.
    visited: BlockMap,
    pending: Pending<(Stream, bool)>,
    /// How many more clusters files may have.
    left: u64,
    /// The allocation bitmap.
    bitmap: Option<Stream>,
}

impl Walk<'_> {
    fn all(&mut self, search: &mut Search) -> Result<(), Doubt> {
        let mut runs = Vec::new();
        let root = self.table.root(&mut |run| {
            runs.push(run);
            Ok(())
        });
        let broken = search.tolerate(root)?.is_none();
        let first = self.boot.root_cluster;
        self.visited.insert(BlockIndex(first.into()));
        self.directory(search, first, runs, broken, "")?;
        while let Some(((stream, own_metadata), path)) = self.pending.pop() {
            let (runs, whole) = self.runs(stream)?;
            if !whole {
                search.lacks("chains of directories are broken: what is in them is not known");
            }
            self.directory(search, stream.first, runs, own_metadata || !whole, &path)?;
        }
        Ok(())
    }

    /// The runs of `stream`, and whether that is all of them.
    fn runs(&mut self, stream: Stream) -> Result<(Vec<Range<u32>>, bool), Doubt> {
        let (left, mut runs) = (&mut self.left, Vec::new());
        let found = self.table.runs(stream, &mut |run| {
            let rest = left.checked_sub(u64::from(run.end - run.start));
            *left =
                rest.ok_or_else(|| Doubt::new("its files take more clusters than there are"))?;
            runs.push(run);
            Ok(())
        });
        match found {
            Ok(()) => Ok((runs, true)),
            Err(Doubt::Unsure(_)) => {
                self.volume.must_go_on()?;
                Ok((runs, false))
            }
            Err(stopped) => Err(stopped),
        }
    }

    fn bytes(&self, run: &Range<u32>) -> Range<u64> {
        self.boot.cluster_at(run.start)..self.boot.cluster_at(run.end)
    }

    fn directory(
        &mut self,
        search: &mut Search,
        first: u32,
        runs: Vec<Range<u32>>,
        own_metadata: bool,
        path: &str,
    ) -> Result<(), Doubt> {
        let bytes = runs.iter().map(|run| search.content(self.bytes(run))).sum();
        let shown = if path.is_empty() { "/" } else { path };
        list(search, shown.to_owned(), first, true, (bytes, own_metadata));
        let mut entries = Entries::around(self.volume, self.boot, runs);
        while let Some((kind, entry)) = entries.next_in_use()? {
            match kind {
                Kind::File { more } => match entries.set(&entry, more) {
                    Ok(file) => self.entry(search, path, &file)?,
                    Err(doubt) => {
                        search.tolerate(Err::<(), _>(doubt))?;
                    }
                },
                Kind::Bitmap { stream, .. } => {
                    self.bitmap = Some(stream);
                    self.metadata(search, stream)?;
                }
                Kind::UpCase { stream, .. } => {
                    self.metadata(search, stream)?;
                }
                _ => {}
            }
        }
        if entries.is_lost() {
            search.lacks("directories cannot be read: what is in them is not known");
        }
        Ok(())
    }

    /// The clusters of `stream` are the file system's own; whether any is looked for.
    fn metadata(&mut self, search: &mut Search, stream: Stream) -> Result<bool, Doubt> {
        let (runs, whole) = self.runs(stream)?;
        if !whole {
            search.lacks("chains of its own tables are broken");
        }
        let hit = runs.iter().map(|run| search.metadata(self.bytes(run)));
        Ok(hit.fold(false, |any, hit| any | hit))
    }

    fn entry(&mut self, search: &mut Search, parent: &str, file: &File) -> Result<(), Doubt> {
        let path = format!("{parent}/{}", file.name);
        let Some((content, others)) = file.streams.split_first() else {
            return Ok(());
        };
        let mut own_metadata = false;
        for stream in others {
            own_metadata |= self.metadata(search, *stream)?;
        }
        if file.is_directory {
            self.push(search, *content, own_metadata, path);
            return Ok(());
        }
        let (runs, whole) = self.runs(*content)?;
        if !whole {
            search.lacks("chains of files are broken: where their content lies is not known");
        }
        let bytes = runs.iter().map(|run| search.content(self.bytes(run))).sum();
        list(
            search,
            path,
            content.first,
            false,
            (bytes, own_metadata || !whole),
        );
        Ok(())
    }

    /// A directory is to be read; once. One without clusters is empty.
    fn push(&mut self, search: &mut Search, stream: Stream, own_metadata: bool, path: String) {
        let first = BlockIndex(stream.first.into());
        let sound = self.boot.has(stream.first, 1)
            && stream.len <= LARGEST_DIRECTORY
            && !self.visited.contains(first);
        if stream.first == 0 && stream.len == 0 {
            return;
        }
        if !sound {
            search.lacks("its directories lead to where none can be, or in circles");
            return;
        }
        self.visited.insert(first);
        self.pending.push(search, (stream, own_metadata), path);
    }

    /// Tells what is free of what is looked for: a file that was not found may have the rest.
    fn free(&mut self, search: &mut Search) -> Result<(), Doubt> {
        let Some(stream) = self.bitmap else {
            return Ok(());
        };
        let boot = self.boot;
        let bits = bitmap_volume(self.volume, boot, &mut self.table, stream)?;
        let mut bitmap = Bitmap::new(&bits);
        let mut left = MOST_LOOKED_UP;
        for range in search.ranges().to_vec() {
            let number = |at: u64| at.saturating_sub(boot.heap_at) / boot.cluster + 2;
            let end = number(range.end().0.saturating_sub(1)) + 1;
            let clusters = number(range.start.0)..end.min(u64::from(boot.clusters) + 2);
            for cluster in clusters.filter_map(|cluster| u32::try_from(cluster).ok()) {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                let run = cluster..cluster.saturating_add(1);
                match bitmap.first_free(run.clone()) {
                    Ok(Some(_)) => search.free(self.bytes(&run)),
                    Ok(None) => {}
                    Err(Doubt::Unsure(_)) => self.volume.must_go_on()?,
                    Err(stopped) => return Err(stopped),
                }
            }
        }
        Ok(())
    }
}

/// Takes a file of which so many bytes, or its metadata, are hit into the list; not when neither is.
fn list(
    search: &mut Search,
    path: String,
    first: u32,
    directory: bool,
    (bytes, own_metadata): (u64, bool),
) {
    if bytes > 0 || own_metadata {
        search.list(FileHit {
            volume: None,
            path,
            others: Vec::new(),
            number: first.into(),
            directory,
            bytes,
            own_metadata,
        });
    }
}
