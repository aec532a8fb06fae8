//! Which files hold given bytes: a walk over all directories, whose entries lead to the chains of the
//! file allocation table.
//!
//! Clusters of a file are its content to the end of its chain. Boot sectors and tables are metadata. A
//! table that cannot be read is read from its copy; a file whose chain is broken all the same is told of
//! as one whose metadata is hit.

use super::super::doubt::{Doubt, ensure};
use super::super::files::{FileHit, Pending, Search};
use super::super::pages::Pages;
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::chains::Entry;
use super::directory::{DELETED, ENTRY};
use super::disk::{BOOT_LEN, Boot, Width};
use super::names::{Found, Names};
use super::walk::{check_state, table_at};
use crate::base::{BlockIndex, BlockMap, to_usize};
use std::ops::Range;

/// The largest directory: 65536 entries.
const LARGEST_DIRECTORY: u64 = 2 << 20;
/// Clusters that are looked up to tell free ones from lost ones, at the most.
const MOST_LOOKED_UP: u64 = 1 << 22;

/// Tells `search` who holds what in `volume`.
pub(super) fn files(volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
    let bytes = volume.read(0, BOOT_LEN)?;
    let boot = Boot::decode(&Raw::new(&bytes, "boot sector"))?;
    volume.must_hold(boot.len, boot.sector)?;
    boot.check()?;
    search.tolerate(check_state(&boot))?;
    search.metadata(0..boot.root_at);
    let copies: Vec<u8> = match boot.only_copy {
        Some(only) => vec![only],
        None => (0..boot.copies).collect(),
    };
    let table = |copy: u8| Pages::new(volume, table_at(&boot, copy), boot.table_len);
    let mut walk = Walk {
        volume,
        boot: &boot,
        tables: copies.into_iter().map(table).collect(),
        visited: BlockMap::empty(boot.clusters + 2),
        pending: Pending::new(),
        // No cluster belongs to two files, but for damage.
        steps: boot.clusters.saturating_mul(2) + 64,
    };
    let walked = walk.all(search);
    search.tolerate(walked)?;
    if search.is_unsure() {
        let free = walk.free(search);
        search.tolerate(free)?;
    }
    Ok(())
}

/// A file's clusters, as far as they are known.
struct Chain {
    /// In bytes of the volume.
    runs: Vec<Range<u64>>,
    /// Whether it could be followed to its end.
    whole: bool,
}

struct Walk<'v> {
    volume: &'v Volume<'v>,
    boot: &'v Boot,
    /// Those that are kept up to date.
    tables: Vec<Pages<'v>>,
    /// First clusters of directories.
    visited: BlockMap,
    pending: Pending<u32>,
    /// How many more clusters may be followed.
    steps: u64,
}

impl Walk<'_> {
    fn all(&mut self, search: &mut Search) -> Result<(), Doubt> {
        let boot = self.boot;
        if boot.width == Width::ThirtyTwo {
            self.push(search, boot.root_cluster, String::new());
        } else {
            let root = boot.root_at..boot.root_at + boot.root_len;
            let chain = Chain {
                runs: vec![root],
                whole: true,
            };
            self.directory(search, 0, &chain, "")?;
        }
        while let Some((cluster, path)) = self.pending.pop() {
            let most = (LARGEST_DIRECTORY / boot.cluster).max(1);
            let mut runs = Vec::new();
            let whole = self.chain(cluster, most, &mut |run| runs.push(run))?;
            if !whole {
                search.lacks("chains of directories are broken: what is in them is not known");
            }
            self.directory(search, cluster, &Chain { runs, whole }, &path)?;
        }
        Ok(())
    }

    /// A directory that begins in `cluster` is to be read; once.
    fn push(&mut self, search: &mut Search, cluster: u32, path: String) {
        let first = BlockIndex(cluster.into());
        if !self.boot.has(cluster) || self.visited.contains(first) {
            search.lacks("its directories lead to where none can be, or in circles");
            return;
        }
        self.visited.insert(first);
        self.pending.push(search, cluster, path);
    }

    fn directory(
        &mut self,
        search: &mut Search,
        cluster: u32,
        chain: &Chain,
        path: &str,
    ) -> Result<(), Doubt> {
        let bytes = chain
            .runs
            .iter()
            .map(|run| search.content(run.clone()))
            .sum();
        let shown = if path.is_empty() { "/" } else { path };
        list(search, shown.to_owned(), cluster, true, bytes, !chain.whole);
        let mut names = Names::default();
        for run in &chain.runs {
            let bytes = self.read(search, run)?;
            for entry in bytes.chunks_exact(ENTRY) {
                match names.take(entry, self.boot.width)? {
                    Found::EndOfDirectory => return Ok(()),
                    Found::Nothing => {}
                    Found::File(file) => {
                        let path = format!("{path}/{}", file.name);
                        if file.is_directory {
                            self.push(search, file.cluster, path);
                        } else if file.cluster != 0 {
                            self.file(search, file.cluster, path)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The bytes of a run of a directory; entries that cannot be read look deleted.
    fn read(&self, search: &mut Search, run: &Range<u64>) -> Result<Vec<u8>, Doubt> {
        let sector = self.boot.sector;
        let read = |n: u64, count: u64| self.volume.read(run.start + n * sector, count * sector);
        let mut bytes = Vec::new();
        let count = (run.end - run.start) / sector;
        self.volume
            .read_around(sector, count, &read, &mut |_, found| {
                match found {
                    Some(found) => bytes.extend_from_slice(found),
                    None => {
                        search.lacks("directories cannot be read: what is in them is not known");
                        bytes.resize(bytes.len() + to_usize(sector), DELETED);
                    }
                }
                Ok(())
            })?;
        Ok(bytes)
    }

    fn file(&mut self, search: &mut Search, cluster: u32, path: String) -> Result<(), Doubt> {
        let mut bytes = 0u64;
        let whole = self.chain(cluster, u64::MAX, &mut |run| {
            bytes = bytes.saturating_add(search.content(run));
        })?;
        if !whole {
            search.lacks("chains of files are broken: where their content lies is not known");
        }
        list(search, path, cluster, false, bytes, !whole);
        Ok(())
    }

    /// Follows the chain from `first` for at the most `most` clusters; whether it ends in that.
    fn chain(
        &mut self,
        first: u32,
        most: u64,
        each: &mut dyn FnMut(Range<u64>),
    ) -> Result<bool, Doubt> {
        let boot = self.boot;
        let bytes = |run: &Range<u64>| boot.cluster_at(run.start)..boot.cluster_at(run.end);
        if !boot.has(first) {
            return Ok(false);
        }
        let mut run = u64::from(first)..u64::from(first) + 1;
        // Brent's search for circles: the mark follows at powers of two.
        let (mut mark, mut since, mut power) = (first, 0u64, 1u64);
        let mut at = first;
        let mut whole = false;
        for _ in 0..most {
            ensure(
                self.steps > 0,
                || "its files take more clusters than there are: run fsck.fat",
            )?;
            self.steps -= 1;
            let next = match self.entry(at)? {
                Some(Entry::Next(next)) => next,
                end => {
                    whole = end == Some(Entry::End);
                    break;
                }
            };
            if since == power {
                (mark, since, power) = (at, 0, power * 2);
            }
            since += 1;
            if next == mark {
                break;
            }
            at = next;
            if u64::from(next) == run.end {
                run.end += 1;
            } else {
                each(bytes(&run));
                run = u64::from(next)..u64::from(next) + 1;
            }
        }
        each(bytes(&run));
        Ok(whole)
    }

    /// What the first table that can be read says of `cluster`, if it makes sense.
    fn entry(&mut self, cluster: u32) -> Result<Option<Entry>, Doubt> {
        let Some(value) = self.value(cluster)? else {
            return Ok(None);
        };
        match Entry::of(self.boot, cluster.into(), value) {
            Ok(entry) => Ok(Some(entry)),
            Err(Doubt::Unsure(_)) => Ok(None),
            Err(stopped) => Err(stopped),
        }
    }

    fn value(&mut self, cluster: u32) -> Result<Option<u32>, Doubt> {
        let (width, bit) = (self.boot.width, u64::from(cluster) * self.boot.width.bits());
        for table in &mut self.tables {
            let mut bytes = [0; 4];
            let mut read = || -> Result<(), Doubt> {
                let len = to_usize(width.bytes(1));
                for (at, byte) in (bit / 8..).zip(bytes.iter_mut().take(len)) {
                    *byte = table.from(at)?.first().copied().unwrap_or_default();
                }
                Ok(())
            };
            match read() {
                Ok(()) => {
                    let value = u32::from_le_bytes(bytes) >> (bit % 8);
                    return Ok(Some(value & width.mask()));
                }
                Err(Doubt::Unsure(_)) => self.volume.must_go_on()?,
                Err(stopped) => return Err(stopped),
            }
        }
        Ok(None)
    }

    /// Tells what is free of what is looked for: a file that was not found may have the rest.
    fn free(&mut self, search: &mut Search) -> Result<(), Doubt> {
        let boot = self.boot;
        let mut left = MOST_LOOKED_UP;
        for range in search.ranges().to_vec() {
            let number = |at: u64| at.saturating_sub(boot.data_at) / boot.cluster + 2;
            let end = number(range.end().0.saturating_sub(1)) + 1;
            for cluster in number(range.start.0)..end.min(boot.clusters + 2) {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                let value = u32::try_from(cluster).ok();
                let value = value.map(|cluster| self.value(cluster)).transpose()?;
                if value.flatten() == Some(0) {
                    search.free(boot.cluster_at(cluster)..boot.cluster_at(cluster + 1));
                }
            }
        }
        Ok(())
    }
}

/// Takes a file into the list when it is hit.
fn list(
    search: &mut Search,
    path: String,
    cluster: u32,
    directory: bool,
    bytes: u64,
    own_metadata: bool,
) {
    if bytes > 0 || own_metadata {
        search.list(FileHit {
            volume: None,
            path,
            others: Vec::new(),
            number: cluster.into(),
            directory,
            bytes,
            own_metadata,
        });
    }
}
