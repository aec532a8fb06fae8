//! A store and what it must hold, kept up by doing everything twice: with the library, and by the
//! rules that it promises.

use crate::disk::{BLOCK, Cell, Disk, block_size};
use diskstrata::base::{ByteLen, Cancel, Digest, ErrorKind, Event, Observer, Result, Silent};
use diskstrata::chain::retention::{self, Policy};
use diskstrata::chain::{self, Catalog, ChainView, Choice, How, Records, VerifiedRecord, Wish};
use diskstrata::image::{
    BlockCounts, BlockTable, Compression, Header, ImageWriter, Info, Kind, Parent, Summary,
};
use diskstrata::ops::Context;
use diskstrata::ops::merge::{self, MergeRequest};
use diskstrata::ops::prune::{self, PruneReport, PruneRequest};
use diskstrata::pipeline::{Resources, write_blocks};
use diskstrata::store::{FileName, LockMode, Store};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

pub(crate) const SET: &str = "disk";
const HOUR: i64 = 3600;

/// The id of image number `n`.
pub(crate) fn id(n: u32) -> Uuid {
    Uuid::from_u128(u128::from(n) << 96 | 0xD15C)
}

/// An image that must be there.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) time: i64,
    pub(crate) kind: Kind,
    /// The number of the image that it builds on.
    pub(crate) parent: Option<u32>,
    pub(crate) root: Digest,
    /// What it must say of each block, and which image recorded that.
    pub(crate) cells: Arc<Vec<Cell>>,
    pub(crate) since: Arc<Vec<u32>>,
    /// Blocks that differed from the parent when it was made.
    pub(crate) changed: BlockCounts,
    pub(crate) protected: bool,
    /// Whether the last verification is noted to have failed.
    pub(crate) damaged: bool,
}

/// A store with one history, and a disk that changes.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) disk: Disk,
    /// The images by number, which is their place in the history.
    pub(crate) points: BTreeMap<u32, Point>,
    pub(crate) window_log2: u8,
    pub(crate) clock: i64,
}

/// A backup that is about to be made.
#[derive(Clone)]
pub(crate) struct Taking {
    disk: Disk,
    wish: Wish,
    number: u32,
    time: i64,
    window_log2: u8,
    pub(crate) compression: Compression,
    pub(crate) holes: bool,
}

impl World {
    pub(crate) fn new(store: Arc<dyn Store>, disk_len: u64, window_log2: u8) -> World {
        World {
            store,
            disk: Disk::new(disk_len),
            points: BTreeMap::new(),
            window_log2,
            clock: 1_700_000_000,
        }
    }

    /// The numbers of `point` and all that it builds on, oldest first.
    pub(crate) fn lineage(&self, point: u32) -> Vec<u32> {
        let parent = |n: &u32| self.points[n].parent;
        let mut all: Vec<u32> = std::iter::successors(Some(point), parent).collect();
        all.reverse();
        all
    }

    pub(crate) fn children(&self, point: u32) -> Vec<u32> {
        let all = self.points.iter();
        all.filter(|(_, p)| p.parent == Some(point))
            .map(|(n, _)| *n)
            .collect()
    }

    /// What the next image must be: its kind and the number of its parent.
    fn expected(&self, wish: Wish) -> (Kind, Option<u32>) {
        let Some(newest) = self.points.keys().next_back() else {
            return (Kind::Full, None);
        };
        let mut needed = self.lineage(*newest);
        let kind = match wish {
            Wish::Full => return (Kind::Full, None),
            Wish::Differential => {
                needed.truncate(1);
                Kind::Differential
            }
            Wish::Auto | Wish::Incremental => Kind::Incremental,
        };
        if needed.iter().any(|n| self.points[n].damaged) {
            return (Kind::Full, None);
        }
        (kind, needed.last().copied())
    }

    pub(crate) fn taking(&self, wish: Wish) -> Taking {
        Taking {
            disk: self.disk.clone(),
            wish,
            number: self.points.keys().next_back().map_or(1, |n| n + 1),
            time: self.clock,
            window_log2: self.window_log2,
            compression: Compression::Zstd(1),
            holes: false,
        }
    }

    /// Makes an image of the disk and returns its number.
    pub(crate) fn backup(&mut self, wish: Wish) -> u32 {
        self.take(&self.taking(wish))
    }

    pub(crate) fn take(&mut self, taking: &Taking) -> u32 {
        let (kind, parent) = self.expected(taking.wish);
        let (header, root) = taking.run(&self.store, &Stop::never()).unwrap();
        let found = header.parent.map(|p| p.sequence);
        assert_eq!((header.kind, found), (kind, parent), "what it builds on");
        let number = taking.number;
        assert_eq!(header.sequence, number);
        let cells = taking.disk.cells();
        let old = parent.map(|n| &self.points[&n]);
        let since = |(i, cell): (usize, &Cell)| match old {
            Some(old) if old.cells[i] == *cell => old.since[i],
            _ => number,
        };
        let since: Vec<u32> = cells.iter().enumerate().map(since).collect();
        let mut changed = BlockCounts::default();
        for (cell, _) in cells.iter().zip(&since).filter(|(_, s)| **s == number) {
            changed.add(cell.state, 1);
        }
        let point = Point {
            time: taking.time,
            kind,
            parent,
            root,
            cells: Arc::new(cells),
            since: Arc::new(since),
            changed,
            protected: false,
            damaged: false,
        };
        self.points.insert(number, point);
        self.disk.remember();
        self.clock += HOUR;
        number
    }

    /// Prunes; what no rule keeps must go, unless several images that stay build on it.
    pub(crate) fn prune(&mut self, policy: Policy) {
        let numbers: Vec<u32> = self.points.keys().copied().collect();
        let facts: Vec<retention::Point> = self.points.values().map(Point::facts).collect();
        let verdicts = retention::decide(&facts, &policy, &jiff::tz::TimeZone::system());
        let wanted = |at: usize| {
            let newest = numbers.len() - at <= usize::try_from(policy.last).unwrap();
            verdicts[at].keeps() || newest || facts[at].protected || at + 1 == numbers.len()
        };
        let stay: Vec<u32> = (0..numbers.len())
            .filter(|at| wanted(*at))
            .map(|at| numbers[at])
            .collect();
        let report = run_prune(&self.store, policy, &Stop::never()).unwrap();
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        let left = listed(&self.store);
        for number in &stay {
            assert!(left.contains(number), "image {number} must stay");
        }
        self.keep(&left);
        for number in left.iter().filter(|n| !stay.contains(n)) {
            assert!(self.children(*number).len() > 1, "image {number} must go");
        }
    }

    /// Merges the images from one to another, or from the full one on, unless that must be refused.
    pub(crate) fn merge(&mut self, from: Option<u32>, into: u32) {
        let lineage = self.lineage(into);
        let first = match from {
            None => Some(0),
            Some(from) => lineage.iter().position(|n| *n == from),
        };
        let absorbs = first.map_or(&[][..], |first| &lineage[first..lineage.len() - 1]);
        let others = |n: &u32| {
            self.children(*n)
                .into_iter()
                .any(|c| c != into && !absorbs.contains(&c))
        };
        let refused = absorbs
            .iter()
            .any(|n| self.points[n].protected || others(n));
        let outcome = run_merge(&self.store, from, into, &Stop::never());
        match (absorbs.is_empty(), refused) {
            (true, _) => assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Usage),
            (_, true) => assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Refused),
            _ => {
                outcome.unwrap();
                let left: Vec<u32> = self
                    .points
                    .keys()
                    .copied()
                    .filter(|n| !absorbs.contains(n))
                    .collect();
                self.keep(&left);
            }
        }
    }

    /// Drops all other points; those that are left build on what is left.
    pub(crate) fn keep(&mut self, left: &[u32]) {
        let old = self.points.clone();
        self.points.retain(|n, _| left.contains(n));
        for point in self.points.values_mut() {
            while let Some(gone) = point.parent.filter(|n| !left.contains(n)) {
                point.parent = old[&gone].parent;
            }
            if point.parent.is_none() {
                point.kind = Kind::Full;
            }
        }
    }

    pub(crate) fn protect(&mut self, number: u32, on: bool) {
        let store = self.store.as_ref();
        let changed = if on {
            chain::protect(store, id(number), Some("stays"), self.clock)
        } else {
            chain::unprotect(store, id(number))
        };
        let point = self.points.get_mut(&number).unwrap();
        assert_eq!(changed.unwrap(), point.protected != on);
        point.protected = on;
    }

    /// Notes how a verification of an image ended.
    pub(crate) fn note(&mut self, number: u32, ok: bool) {
        let point = self.points.get_mut(&number).unwrap();
        point.damaged = !ok;
        let record = VerifiedRecord {
            image: id(number),
            time: self.clock,
            how: How::Deep,
            share: 1000,
            ok,
            root: point.root,
        };
        self.clock += 1;
        let file = Uuid::from_u64_pair(1, u64::try_from(self.clock).unwrap());
        let left = chain::record_verified(self.store.as_ref(), &[record], file).unwrap();
        assert!(left.is_empty());
    }
}

impl Point {
    fn facts(&self) -> retention::Point {
        retention::Point {
            time: self.time,
            protected: self.protected,
        }
    }
}

impl Taking {
    /// Makes the image as a backup does.
    pub(crate) fn run(&self, store: &Arc<dyn Store>, stop: &Stop) -> Result<(Header, Digest)> {
        let _lock = store.lock(LockMode::Exclusive, "a test")?;
        store.clean_up()?;
        let catalog = Catalog::load(store.as_ref())?;
        let set = catalog.set(SET);
        let choice = self.choose(store, &catalog)?;
        let parent = choice
            .parent
            .map(|l| ChainView::open(Arc::clone(store), l))
            .transpose()?;
        let header = Header {
            id: id(self.number),
            set: Uuid::from_u128(9),
            sequence: set.last().map_or(1, |i| i.header.sequence + 1),
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
            ..Info::default()
        };
        let (sequence, kind) = (header.sequence, header.kind.name());
        let name = FileName::new(format!("{SET}-{sequence:05}-{}-{kind}.strata", self.time))?;
        let upload = store.create(&name)?;
        let mut writer = ImageWriter::start(upload, name.as_str(), header.clone(), &info, &[])?;
        let source = self.disk.source(self.holes);
        let table = parent.as_ref().map(|p| p as &dyn BlockTable);
        let selection = self.disk.selection();
        let resources = Resources {
            observer: stop,
            ..resources(&stop.cancel)
        };
        let totals = write_blocks(
            &source,
            &selection,
            table,
            self.compression,
            &mut writer,
            resources,
        )?;
        let unreadable = totals.unreadable.iter().map(|e| (*e).into()).collect();
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
            damaged: &|id| {
                records
                    .damage_of(id)
                    .map(|found| format!("at {}", found.time))
            },
        };
        Ok(chain::choose(catalog, catalog.set(SET), self.wish, &facts))
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn cells(&self) -> Vec<Cell> {
        self.disk.cells()
    }
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

fn context(stop: &Stop) -> Context<'_> {
    Context {
        root: PathBuf::from("/nowhere"),
        cancel: &stop.cancel,
        observer: stop,
        threads: 1,
        memory: 1 << 20,
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

/// The numbers of the images that the store lists, ascending.
pub(crate) fn listed(store: &Arc<dyn Store>) -> Vec<u32> {
    let catalog = Catalog::load(store.as_ref()).unwrap();
    let numbers = catalog.images.iter().map(|i| i.header.sequence);
    numbers.collect()
}

/// The length of a disk of so many whole blocks and a bit.
pub(crate) fn odd_len(blocks: u64) -> u64 {
    blocks * BLOCK + 1234
}
