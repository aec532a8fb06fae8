//! Files that are hit, before they have names.

use super::names::{Climber, Step};
use super::{FileHit, Search};
use crate::fs::doubt::Doubt;
use std::collections::BTreeMap;

/// So many files are kept while the volume is walked; more are only counted. With their names they take
/// some 16 MiB.
const MAX_KEPT: usize = 1 << 16;
/// Names that are kept of a file with several.
const MAX_NAMES: usize = 8;
/// What all names may take of memory together.
const MAX_NAME_BYTES: usize = 8 << 20;

/// What is known of a file that is hit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::fs) struct Found {
    /// Bytes of its content.
    pub(in crate::fs) bytes: u64,
    /// Whether its own metadata is hit.
    pub(in crate::fs) own_metadata: bool,
    pub(in crate::fs) directory: bool,
    /// Whether there is such a file at all: what said so may be what is lost. A name proves it.
    pub(in crate::fs) certain: bool,
}

impl Found {
    /// Whether anything of it is hit.
    pub(in crate::fs) fn is_hit(&self) -> bool {
        self.bytes > 0 || self.own_metadata
    }
}

/// A file, and its names with the directories that have them.
#[derive(Debug, Default)]
struct Kept {
    found: Found,
    names: Vec<(u64, String)>,
}

/// Files that are hit, by number.
#[derive(Debug, Default)]
pub(in crate::fs) struct Hits {
    kept: BTreeMap<u64, Kept>,
    beyond: u64,
    name_bytes: usize,
}

impl Hits {
    /// File `number` is hit as `found` says. May be told in parts.
    pub(in crate::fs) fn add(&mut self, number: u64, found: &Found) {
        if !found.is_hit() {
            return;
        }
        if self.kept.len() >= MAX_KEPT && !self.kept.contains_key(&number) {
            self.beyond += u64::from(found.certain);
            return;
        }
        let kept = &mut self.kept.entry(number).or_default().found;
        kept.bytes = kept.bytes.saturating_add(found.bytes);
        kept.own_metadata |= found.own_metadata;
        kept.directory |= found.directory;
        kept.certain |= found.certain;
    }

    pub(in crate::fs) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The numbers of all that are kept.
    pub(in crate::fs) fn numbers(&self) -> Vec<u64> {
        self.kept.keys().copied().collect()
    }

    /// Whether a name of file `number` is wanted.
    pub(in crate::fs) fn wants(&self, number: u64) -> bool {
        let kept = self.kept.get(&number);
        kept.is_some_and(|kept| kept.names.len() < MAX_NAMES)
    }

    /// Directory `parent` has file `number` under `name`, which is escaped.
    pub(in crate::fs) fn name(&mut self, number: u64, parent: u64, name: String) {
        let Some(kept) = self.kept.get_mut(&number) else {
            return;
        };
        let room = self.name_bytes < MAX_NAME_BYTES || kept.names.is_empty();
        let entry = (parent, name);
        if kept.names.len() < MAX_NAMES && room && !kept.names.contains(&entry) {
            self.name_bytes += entry.1.len();
            kept.names.push(entry);
        }
    }

    /// The first name of file `number`.
    pub(in crate::fs) fn first_name(&self, number: u64) -> Option<(u64, String)> {
        self.kept.get(&number)?.names.first().cloned()
    }

    /// Puts everything into the list of `search`, with paths. `step` finds the names of directories
    /// that are not hit themselves.
    ///
    /// # Errors
    /// Only when the run was stopped.
    pub(in crate::fs) fn list(
        self,
        search: &mut Search,
        climber: &mut Climber,
        root: u64,
        step: Step<'_>,
    ) -> Result<(), Doubt> {
        if self.beyond > 0 {
            search.lacks(format!(
                "more than {MAX_KEPT} files are hit, and not all of their names were looked for"
            ));
        }
        search.count_more(self.beyond);
        for (number, kept) in &self.kept {
            let found = &kept.found;
            if !found.certain && kept.names.is_empty() && *number != root {
                continue;
            }
            if search.is_full() {
                search.count_more(1);
                continue;
            }
            let mut step = |directory| match self.first_name(directory) {
                Some(known) => Ok(Some(known)),
                None => step(directory),
            };
            let mut paths = Vec::new();
            for (parent, name) in &kept.names {
                let path = climber.path(*parent, name, &mut step);
                paths.extend(search.tolerate(path)?);
            }
            paths.sort();
            if *number == root {
                paths = vec![climber.root_path()];
            }
            let mut paths = paths.into_iter();
            let path = paths.next().unwrap_or_else(|| climber.nameless(*number));
            search.list(FileHit {
                volume: None,
                path,
                others: paths.collect(),
                number: *number,
                directory: found.directory,
                bytes: found.bytes,
                own_metadata: found.own_metadata,
            });
        }
        Ok(())
    }
}
