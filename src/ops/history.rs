//! Which history a backup goes on with, on which of its images it builds, and what a person should know of it.

use super::Context;
use super::backup::BackupRequest;
use super::backup_plan::{ParentTable, window_log2};
use super::encryption::{Protection, check_recipients};
use super::place::{Place, differs};
use super::remembered::Remembered;
use super::state::{self, Kept};
use crate::base::{BlockSize, ByteLen, Error, ErrorKind, Result};
use crate::chain::{self, Catalog, ChainView, Records};
use crate::device::{DiskIdentity, ReadClaim};
use crate::image::{HealedInfo, Kind, SourceInfo};
use crate::layout::Layout;
use crate::store::Store;
use std::sync::Arc;
use uuid::Uuid;

/// So many files that cannot be opened are named; of the others, their number.
const MOST_NAMED: usize = 10;

/// Which history goes on, and how.
pub(super) struct History {
    pub(super) place: Place,
    pub(super) block_size: BlockSize,
    pub(super) kind: Kind,
    pub(super) parent: Option<ParentTable>,
    pub(super) reason: String,
    pub(super) protection: Protection,
    pub(super) warnings: Vec<String>,
    pub(super) damaged: Vec<HealedInfo>,
}

impl History {
    /// That of the disk that was claimed, in `store`, if there is one.
    ///
    /// # Errors
    /// As [`plan`](super::backup::plan).
    pub(super) fn find(
        context: &Context<'_>,
        request: &BackupRequest,
        claim: &ReadClaim,
        layout: &Layout,
        store: Option<&Arc<dyn Store>>,
    ) -> Result<History> {
        let disk = DiskIdentity {
            table_id: layout.disk_id.clone(),
            ..claim.identity().clone()
        };
        let catalog = store.map(|s| Catalog::load(s.as_ref())).transpose()?;
        let remembered = store.map(|_| Remembered::of(&request.store));
        // Images that cannot be read here may be this machine's own.
        if let (Some(store), true) = (
            store,
            catalog.as_ref().is_some_and(|c| c.locked().is_some()),
        ) && let Some(kept) = state::find(request.set.as_deref(), &disk, store.as_ref())?
        {
            let mut history = History::from_kept(request, claim.source().len(), kept)?;
            history.misses(remembered.as_ref(), catalog.as_ref());
            return Ok(history);
        }
        let place = Place::find(request.set.as_deref(), &disk, catalog.as_ref())?;
        let protection =
            Protection::settle(context, request, catalog.as_ref(), &place.images, store)?;
        let records = store.map(|s| Records::load(s.as_ref())).transpose()?;
        let records = records.unwrap_or_default();
        let trusting = request.set.is_some();
        let facts = chain::Disk {
            len: claim.source().len(),
            block_size: request.block_size,
            window_log2: &window_log2,
            differs: &|then: &SourceInfo| differs(then, &disk, trusting),
            damaged: &|id: Uuid| records.damage_of(id).map(|found| found.time),
        };
        let nothing = Catalog::of(Vec::new(), Vec::new());
        let catalog = catalog.as_ref().unwrap_or(&nothing);
        let choice = chain::choose(catalog, &place.images, request.wish, &facts);
        let mut history = History {
            warnings: passed_over(&place.broken),
            block_size: request.block_size.unwrap_or(BlockSize::DEFAULT),
            kind: choice.kind,
            parent: None,
            reason: choice.reason,
            protection,
            damaged: choice.damaged,
            place,
        };
        if !history.protection.is_some()
            && !request.no_encrypt
            && context.key_options.names_password()?
        {
            let why = "a password is named, but the images of the set are not encrypted, and this one is not \
                       either";
            history.warnings.push(why.to_owned());
        }
        if choice.unexpected {
            history
                .warnings
                .push(format!("a full image is made: {}", history.reason));
        }
        if let (Some(lineage), Some(store)) = (choice.parent, store) {
            let view = ChainView::open(Arc::clone(store), lineage)?;
            history.block_size = view.image().header().block_size;
            history.parent = Some(ParentTable::View(Box::new(view)));
        }
        history.misses(remembered.as_ref(), Some(catalog));
        Ok(history)
    }

    /// Goes on behind what this machine has made of it and is not in the store any more, and says so.
    fn misses(&mut self, remembered: Option<&Remembered>, catalog: Option<&Catalog>) {
        if let (Some(remembered), Some(catalog)) = (remembered, catalog) {
            let set = &self.place.set;
            self.warnings.extend(remembered.lost_of(Some(set), catalog));
            let number = remembered.number_of(set);
            self.place.go_behind(number);
        }
    }

    /// The history whose images this machine makes and cannot read.
    fn from_kept(request: &BackupRequest, len: ByteLen, kept: Kept) -> Result<History> {
        let cannot = |why: &str| {
            Err(Error::new(ErrorKind::WrongKey, "go on with the set", &kept.set)
                .because(why)
                .hint("name a private key with --identity, or leave that to a machine that has one"))
        };
        if request.wish == chain::Wish::Differential {
            return cannot("what its last full image holds is not known on this machine");
        }
        if request.no_encrypt {
            return cannot("its images are encrypted");
        }
        check_recipients(&request.encrypt, &kept.keys, &kept.set)?;
        let usable = kept.table.and_then(|table| {
            let header = table.of();
            let block_size = request.block_size.unwrap_or(header.block_size);
            if header.disk_len != len {
                return Err("the disk has another length now".to_owned());
            }
            if block_size != header.block_size || window_log2(block_size) != header.window_log2 {
                return Err("blocks of another size were asked for".to_owned());
            }
            Ok(table)
        });
        let (kind, parent, reason, unexpected) = match usable {
            _ if request.wish == chain::Wish::Full => {
                (Kind::Full, None, "asked for".to_owned(), false)
            }
            Ok(table) => {
                let reason = format!(
                    "against number {}, of which this machine has kept the table",
                    table.of().sequence
                );
                (
                    Kind::Incremental,
                    Some(ParentTable::Kept(Box::new(table))),
                    reason,
                    false,
                )
            }
            Err(why) => (Kind::Full, None, why, true),
        };
        let block_size = match &parent {
            Some(parent) => parent.states().header().block_size,
            None => request.block_size.unwrap_or(BlockSize::DEFAULT),
        };
        let full = unexpected.then(|| format!("a full image is made: {reason}"));
        Ok(History {
            place: Place {
                set: kept.set,
                set_id: kept.set_id,
                sequence: kept.sequence,
                images: Vec::new(),
                begins: false,
                broken: Vec::new(),
            },
            block_size,
            kind,
            parent,
            reason,
            protection: Protection::Blind(kept.keys),
            warnings: full.into_iter().collect(),
            damaged: Vec::new(),
        })
    }
}

/// What a person should know of files that cannot be opened.
fn passed_over(broken: &[Error]) -> Vec<String> {
    let named = broken
        .iter()
        .take(MOST_NAMED)
        .map(|why| format!("{why}; nothing is built on it, and `strata verify` says what is lost"));
    let more = broken.len().saturating_sub(MOST_NAMED);
    let rest = (more > 0).then(|| format!("{more} more files of the set cannot be opened"));
    named.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_files_are_named_and_the_others_counted() {
        let broken = |count: usize| -> Vec<Error> {
            let one = |n| Error::new(ErrorKind::Damaged, "open", format!("file-{n}"));
            (0..count).map(one).collect()
        };
        assert_eq!(passed_over(&broken(0)), [""; 0]);
        let few = passed_over(&broken(10));
        assert_eq!(few.len(), 10);
        assert!(few[9].contains("file-9") && few[9].contains("strata verify"));
        let many = passed_over(&broken(15));
        assert_eq!(many.len(), 11);
        assert!(many[10].starts_with("5 more files"), "{many:?}");
    }
}
