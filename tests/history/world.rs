//! A store and what it must hold, kept up by doing everything twice: with the library, and by the
//! rules that it promises.

use crate::deeds::{Stop, Taking, run_copy, run_merge, run_prune};
use crate::disk::{BLOCK, Cell, Disk};
use diskstrata::base::{Digest, ErrorKind};
use diskstrata::chain::retention::{self, Policy};
use diskstrata::chain::{self, Catalog, How, VerifiedRecord, Wish};
use diskstrata::image::{BlockCounts, Compression, Header, Kind};
use diskstrata::ops::copy::CopyRequest;
use diskstrata::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;
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
    /// Length of the disk.
    pub(crate) len: u64,
    /// What it must say of each block, and which image recorded that.
    pub(crate) cells: Arc<Vec<Cell>>,
    pub(crate) since: Arc<Vec<u32>>,
    /// Blocks that differed from the parent when it was made.
    pub(crate) changed: BlockCounts,
    pub(crate) protected: bool,
}

/// A store with one history, and a disk that changes.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) disk: Disk,
    /// The images by number, which is their place in the history.
    pub(crate) points: BTreeMap<u32, Point>,
    pub(crate) window_log2: u8,
    pub(crate) clock: i64,
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
        if self.points[newest].len != self.disk.len {
            return (Kind::Full, None);
        }
        let mut needed = self.lineage(*newest);
        let kind = match wish {
            Wish::Full => return (Kind::Full, None),
            Wish::Differential => {
                needed.truncate(1);
                Kind::Differential
            }
            Wish::Auto | Wish::Incremental => Kind::Incremental,
        };
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
        self.took(taking, &header, root, |_, since| since)
    }

    /// Adds an image that was made on some parent. Of every block `recorded` says which image recorded it, told
    /// which one should have.
    pub(crate) fn took(
        &mut self,
        taking: &Taking,
        header: &Header,
        root: Digest,
        recorded: impl Fn(usize, u32) -> u32,
    ) -> u32 {
        let number = taking.number;
        let parent = header.parent.map(|p| p.sequence);
        let cells = taking.disk.cells();
        let old = parent.map(|n| &self.points[&n]);
        let since = |(i, cell): (usize, &Cell)| match old {
            Some(old) if old.cells[i] == *cell => recorded(i, old.since[i]),
            _ => number,
        };
        let since: Vec<u32> = cells.iter().enumerate().map(since).collect();
        let mut changed = BlockCounts::default();
        for (cell, _) in cells.iter().zip(&since).filter(|(_, s)| **s == number) {
            changed.add(cell.state, 1);
        }
        let point = Point {
            time: taking.time,
            kind: header.kind,
            parent,
            root,
            len: taking.disk.len,
            cells: Arc::new(cells),
            since: Arc::new(since),
            changed,
            protected: false,
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

    /// Writes an image anew in its store; the others do not notice.
    pub(crate) fn rewrite(&mut self, number: u32, compression: Compression, full: bool) {
        let request = CopyRequest {
            recompress: Some(compression),
            full,
            ..CopyRequest::default()
        };
        let report = run_copy(&self.store, None, &[number], request, &Stop::never()).unwrap();
        assert_eq!((report.images.len(), report.removed.len()), (1, 1));
        assert_eq!(report.copied_frames, 0);
        let point = self.points.get_mut(&number).unwrap();
        if full {
            (point.parent, point.kind) = (None, Kind::Full);
        }
    }

    /// Copies all images into an empty store, which takes the place of the old one. Notes stay behind.
    pub(crate) fn move_to(&mut self, into: Arc<dyn Store>, recompress: Option<Compression>) {
        let numbers: Vec<u32> = self.points.keys().copied().collect();
        let request = CopyRequest {
            to: Some("/nowhere".into()),
            recompress,
            ..CopyRequest::default()
        };
        let report = run_copy(&self.store, Some(&into), &numbers, request, &Stop::never()).unwrap();
        assert_eq!(report.images.len(), numbers.len());
        self.store = into;
        for point in self.points.values_mut() {
            point.protected = false;
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
        let point = &self.points[&number];
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
            doubtful: false,
        }
    }
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
