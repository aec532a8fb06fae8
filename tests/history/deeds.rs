//! What is done to a store: backups as the library makes them, prunes, merges, copies, and stopping them.

use crate::disk::{Cell, Disk, block_size};
use crate::world::{SET, id};
use diskstrata::base::{ByteLen, Cancel, Digest, Event, Observer, Result, Silent};
use diskstrata::chain::retention::Policy;
use diskstrata::chain::{self, Catalog, ChainView, Choice, Records, Wish};
use diskstrata::image::{BlockStates, Compression, Header, ImageWriter, Info, Parent, Summary};
use diskstrata::ops::Context;
use diskstrata::ops::copy::{self, CopyReport, CopyRequest};
use diskstrata::ops::merge::{self, MergeRequest};
use diskstrata::ops::prune::{self, PruneReport, PruneRequest};
use diskstrata::pipeline::{Depth, Input, Resources, Without, verify_disk, write_blocks};
use diskstrata::store::{FileName, LockMode, Store};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// A backup that is about to be made.
#[derive(Clone)]
pub(crate) struct Taking {
    pub(crate) disk: Disk,
    pub(crate) wish: Wish,
    pub(crate) number: u32,
    pub(crate) time: i64,
    pub(crate) window_log2: u8,
    pub(crate) compression: Compression,
    pub(crate) holes: bool,
}

impl Taking {
    /// Makes the image as a backup does.
    pub(crate) fn run(&self, store: &Arc<dyn Store>, stop: &Stop) -> Result<(Header, Digest)> {
        let _lock = store.lock(LockMode::Exclusive, "a test")?;
        store.clean_up()?;
        let catalog = Catalog::load(store.as_ref())?;
        let choice = self.choose(store, &catalog)?;
        let parent = choice
            .parent
            .map(|l| ChainView::open(Arc::clone(store), l))
            .transpose()?;
        let header = Header {
            id: id(self.number),
            set: Uuid::from_u128(9),
            sequence: self.number,
            parent: parent.as_ref().map(|p| Parent {
                id: p.header().id,
                sequence: p.header().sequence,
                root: p.image().root(),
            }),
            kind: choice.kind,
            disk_len: ByteLen(self.disk.len),
            block_size: block_size(),
            window_log2: self.window_log2,
        };
        let info = Info {
            set: SET.to_owned(),
            created: self.time,
            compression: self.compression.to_string(),
            healed: choice.damaged,
            ..Info::default()
        };
        let lost = match &parent {
            Some(view) if !info.healed.is_empty() => {
                let blocks = 0..view.header().blocks();
                let damage = verify_disk(view, blocks, Depth::Deep, resources(&stop.cancel))?;
                damage.into_iter().map(|d| d.extent).collect()
            }
            _ => Vec::new(),
        };
        let (start, kind) = (name_start(self.number), header.kind.name());
        let name = FileName::new(format!("{start}{}-{kind}.strata", self.time))?;
        let upload = store.create(&name)?;
        let mut writer = ImageWriter::start(upload, name.as_str(), header.clone(), &info, &[])?;
        let source = self.disk.source(self.holes);
        let table = parent.as_ref().map(|p| Without::new(p, &lost));
        let table = table.as_ref().map(|t| t as &dyn BlockStates);
        let selection = self.disk.selection();
        let resources = Resources {
            observer: stop,
            ..resources(&stop.cancel)
        };
        let totals = write_blocks(
            &Input::new(&source, &selection),
            table,
            self.compression,
            &mut writer,
            resources,
        )?;
        let unreadable = totals.missing.all().into_iter().map(Into::into).collect();
        let (upload, finished) = writer.finish(Summary {
            unreadable,
            ..Summary::default()
        })?;
        stop.cancel.check()?;
        upload.publish()?;
        Ok((header, finished.root))
    }

    fn choose(&self, store: &Arc<dyn Store>, catalog: &Catalog) -> Result<Choice> {
        let records = Records::load(store.as_ref())?;
        let facts = chain::Disk {
            len: ByteLen(self.disk.len),
            block_size: None,
            window_log2: &|_| self.window_log2,
            differs: &|_| None,
            damaged: &|id| records.damage_of(id).map(|found| found.time),
        };
        Ok(chain::choose(catalog, catalog.set(SET), self.wish, &facts))
    }

    pub(crate) fn cells(&self) -> Vec<Cell> {
        self.disk.cells()
    }
}

/// What the name of the file of image `number` begins with.
pub(crate) fn name_start(number: u32) -> String {
    format!("{SET}-{number:05}-")
}

/// Cancels a run when it reports something for the so many-th time.
#[derive(Default)]
pub(crate) struct Stop {
    cancel: Cancel,
    at: u64,
    seen: AtomicU64,
}

impl Stop {
    pub(crate) fn at(nth: u64) -> Stop {
        Stop {
            at: nth,
            ..Stop::default()
        }
    }

    pub(crate) fn never() -> Stop {
        Stop::default()
    }

    pub(crate) fn fired(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

impl Observer for Stop {
    fn event(&self, _: Event) {
        if self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            self.cancel.cancel();
        }
    }
}

pub(crate) fn resources(cancel: &Cancel) -> Resources<'_> {
    Resources {
        threads: 1,
        memory: 1 << 20,
        cancel,
        observer: &Silent,
    }
}

pub(crate) fn context(stop: &Stop) -> Context<'_> {
    Context {
        root: PathBuf::from("/nowhere"),
        threads: 1,
        memory: 1 << 20,
        ..Context::new(&stop.cancel, stop)
    }
}

pub(crate) fn run_prune(
    store: &Arc<dyn Store>,
    policy: Policy,
    stop: &Stop,
) -> Result<PruneReport> {
    let request = PruneRequest {
        store: PathBuf::from("/nowhere"),
        set: None,
        policy,
        free_space: None,
        least: 1,
        trust_times: false,
    };
    prune::run_in(&context(stop), store, &request)
}

pub(crate) fn run_merge(
    store: &Arc<dyn Store>,
    from: Option<u32>,
    into: u32,
    stop: &Stop,
) -> Result<()> {
    let name = |n: u32| id(n).simple().to_string();
    let request = MergeRequest {
        store: PathBuf::from("/nowhere"),
        range: format!("{}..{}", from.map(name).unwrap_or_default(), name(into)),
    };
    merge::run_in(&context(stop), store, &request).map(drop)
}

/// Copies the images `numbers` into another store, or writes them anew in their own.
pub(crate) fn run_copy(
    store: &Arc<dyn Store>,
    into: Option<&Arc<dyn Store>>,
    numbers: &[u32],
    request: CopyRequest,
    stop: &Stop,
) -> Result<CopyReport> {
    let request = CopyRequest {
        images: numbers
            .iter()
            .map(|n| id(*n).simple().to_string())
            .collect(),
        ..request
    };
    copy::run_in(&context(stop), store, into, &request)
}
