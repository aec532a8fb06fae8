//! The ranges that are looked for, and what is known of them so far.

use super::{FileHit, Hit, MAX_LISTED, extent};
use crate::base::{Extent, normalize, outside};
use crate::fs::doubt::Doubt;
use crate::fs::layer;
use crate::fs::volume::Piece;
use std::ops::Range;

/// Reasons that are told, of those why not all is known.
const MAX_REASONS: usize = 3;
/// Longest text of a reason; what a disk says of itself may be long.
const LONGEST_REASON: usize = 400;

/// Byte ranges of a volume, and who claims what of them.
#[derive(Debug)]
pub(in crate::fs) struct Search {
    /// Ascending and apart.
    ranges: Vec<Extent>,
    /// For each of them, how many bytes lie in those before it.
    before: Vec<u64>,
    content: Claims,
    metadata: Claims,
    free: Claims,
    unknown: Claims,
    files: Vec<FileHit>,
    more: u64,
    /// What nobody has claimed may yet be somebody's.
    unsure: bool,
    reasons: Vec<String>,
    more_reasons: u64,
}

impl Search {
    /// Looks for `ranges`, which are ascending, apart and not empty.
    pub(super) fn new(ranges: Vec<Extent>) -> Search {
        let before = ranges.iter().scan(0u64, |sum, range| {
            let before = *sum;
            *sum = sum.saturating_add(range.len.0);
            Some(before)
        });
        Search {
            before: before.collect(),
            content: Claims::default(),
            metadata: Claims::default(),
            free: Claims::default(),
            unknown: Claims::default(),
            files: Vec::new(),
            more: 0,
            unsure: false,
            reasons: Vec::new(),
            more_reasons: 0,
            ranges,
        }
    }

    /// What is looked for.
    pub(in crate::fs) fn ranges(&self) -> &[Extent] {
        &self.ranges
    }

    /// Whether what nobody claims may yet be somebody's.
    pub(in crate::fs) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// How many of these bytes are looked for.
    pub(in crate::fs) fn bytes_in(&self, bytes: &Range<u64>) -> u64 {
        self.below(bytes.end)
            .saturating_sub(self.below(bytes.start))
    }

    /// Whether any of these bytes is looked for.
    pub(in crate::fs) fn touches(&self, bytes: &Range<u64>) -> bool {
        self.bytes_in(bytes) > 0
    }

    /// How many bytes before `at` are looked for.
    fn below(&self, at: u64) -> u64 {
        let next = self.ranges.partition_point(|range| range.start.0 < at);
        let last = next.checked_sub(1);
        let last = last.and_then(|i| self.ranges.get(i).zip(self.before.get(i)));
        last.map_or(0, |(range, before)| {
            before.saturating_add(range.len.0.min(at - range.start.0))
        })
    }

    /// These bytes hold content of a file. How many of them are looked for.
    pub(in crate::fs) fn content(&mut self, bytes: Range<u64>) -> u64 {
        let found = self.bytes_in(&bytes);
        if found > 0 {
            let bytes = self.stretched(bytes);
            self.content.add(bytes);
        }
        found
    }

    /// These bytes hold a structure of the file system. Whether any is looked for.
    pub(in crate::fs) fn metadata(&mut self, bytes: Range<u64>) -> bool {
        let found = self.touches(&bytes);
        if found {
            let bytes = self.stretched(bytes);
            self.metadata.add(bytes);
        }
        found
    }

    /// These bytes hold nothing that is needed.
    pub(in crate::fs) fn free(&mut self, bytes: Range<u64>) {
        if self.touches(&bytes) {
            let bytes = self.stretched(bytes);
            self.free.add(bytes);
        }
    }

    /// `bytes` with the gaps between ranges that either end lies in, so that claims which follow one
    /// another become one. There are never more than a few for each range.
    fn stretched(&self, bytes: Range<u64>) -> Range<u64> {
        let first = self.ranges.partition_point(|r| r.end().0 <= bytes.start);
        let before = first.checked_sub(1).and_then(|i| self.ranges.get(i));
        let start = match self.ranges.get(first) {
            Some(range) if range.start.0 <= bytes.start => bytes.start,
            _ => before.map_or(0, |range| range.end().0),
        };
        let next = self.ranges.partition_point(|r| r.start.0 < bytes.end);
        let last = next.checked_sub(1).and_then(|i| self.ranges.get(i));
        let end = match last {
            Some(range) if range.end().0 > bytes.end => bytes.end,
            _ => self.ranges.get(next).map_or(u64::MAX, |r| r.start.0),
        };
        start..end
    }

    /// What nobody has claimed, not even as free, is metadata, unless it may yet be somebody's.
    pub(in crate::fs) fn rest_is_metadata(&mut self) {
        if !self.unsure {
            let sets = [&self.content, &self.metadata, &self.free, &self.unknown];
            let claimed = sets.map(|set| set.extents.as_slice()).concat();
            let claimed = normalize(claimed);
            for range in minus(&self.ranges, &claimed) {
                self.metadata.add(range.start.0..range.end().0);
            }
        }
    }

    /// Takes a file that is hit into the list.
    pub(in crate::fs) fn list(&mut self, file: FileHit) {
        if self.is_full() {
            self.count_more(1);
        } else {
            self.files.push(file);
        }
    }

    /// Whether the list takes no more files.
    pub(in crate::fs) fn is_full(&self) -> bool {
        self.files.len() >= MAX_LISTED
    }

    /// Counts files that are hit beside those of the list.
    pub(in crate::fs) fn count_more(&mut self, files: u64) {
        self.more = self.more.saturating_add(files);
    }

    /// Not all can be known, for the reason `why`.
    pub(in crate::fs) fn lacks(&mut self, why: impl Into<String>) {
        self.unsure = true;
        self.reason(&why.into());
    }

    fn reason(&mut self, why: &str) {
        if self.reasons.iter().any(|known| known == why) {
            return;
        }
        if self.reasons.len() < MAX_REASONS {
            self.reasons
                .push(why.chars().take(LONGEST_REASON).collect());
        } else {
            self.more_reasons += 1;
        }
    }

    /// What `result` has; a doubt is a reason why not all is known.
    ///
    /// # Errors
    /// Only when the run was stopped.
    pub(in crate::fs) fn tolerate<T>(
        &mut self,
        result: Result<T, Doubt>,
    ) -> Result<Option<T>, Doubt> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Doubt::Unsure(why)) => {
                self.lacks(why);
                Ok(None)
            }
            Err(stopped) => Err(stopped),
        }
    }

    /// What of the ranges lies in the volume made of `pieces`, in its places.
    pub(in crate::fs) fn inside(&self, pieces: &[Piece]) -> Vec<Extent> {
        let mut found = Vec::new();
        for piece in pieces {
            let first = self.ranges.partition_point(|r| r.end().0 <= piece.at);
            let whole = extent(piece.at..piece.at.saturating_add(piece.len));
            let rest = self.ranges.iter().skip(first);
            for part in rest.map_while(|range| range.intersect(whole)) {
                let start = piece.start + (part.start.0 - piece.at);
                found.push(extent(start..start.saturating_add(part.len.0)));
            }
        }
        normalize(found)
    }

    /// Takes over the answer `hit` to `inside`, the ranges within the volume `name` of `pieces`.
    pub(in crate::fs) fn absorb(
        &mut self,
        name: &str,
        pieces: &[Piece],
        inside: &[Extent],
        hit: Hit,
    ) {
        let mut others = [hit.metadata.as_slice(), &hit.free, &hit.unknown].concat();
        others = normalize(others);
        let content: Vec<Extent> = inside
            .iter()
            .flat_map(|range| outside(*range, &others))
            .collect();
        for (extents, claims) in [
            (&hit.metadata, &mut self.metadata),
            (&hit.free, &mut self.free),
            (&hit.unknown, &mut self.unknown),
            (&content, &mut self.content),
        ] {
            for place in layer::places(extents, pieces) {
                claims.add(place.start.0..place.end().0);
            }
        }
        for file in hit.files {
            let volume = match &file.volume {
                Some(inner) => format!("{name} > {inner}"),
                None => name.to_owned(),
            };
            self.list(FileHit {
                volume: Some(volume),
                ..file
            });
        }
        self.count_more(hit.more);
        if let Some(why) = hit.incomplete {
            self.reason(&format!("{name}: {why}"));
        }
    }

    /// The answer for a volume that is a `kind`.
    pub(super) fn finish(mut self, kind: String) -> Hit {
        let metadata = common(&self.ranges, &self.metadata.extents());
        let said_unknown = common(&self.ranges, &self.unknown.extents());
        let content = self.content.extents();
        let taken = normalize([content, metadata.clone(), said_unknown.clone()].concat());
        let left = minus(&self.ranges, &taken);
        let (free, unknown) = if self.unsure {
            let free = common(&left, &self.free.extents());
            let rest = minus(&left, &free);
            (free, normalize([said_unknown, rest].concat()))
        } else {
            (left, said_unknown)
        };
        self.files.sort();
        let mut incomplete = self.reasons.join("; ");
        if self.more_reasons > 0 {
            incomplete.push_str(&format!("; and {} more reasons", self.more_reasons));
        }
        Hit {
            kind,
            files: self.files,
            more: self.more,
            metadata,
            free,
            unknown,
            incomplete: Some(incomplete).filter(|why| !why.is_empty()),
        }
    }
}

/// What `one` has and `other` has not; both are ascending and apart.
fn minus(one: &[Extent], other: &[Extent]) -> Vec<Extent> {
    let mut found = Vec::new();
    let mut first = 0;
    for extent in one {
        let rest = other.get(first..).unwrap_or_default();
        first += rest.partition_point(|hole| hole.end() <= extent.start);
        let holes = other.iter().skip(first);
        let holes: Vec<Extent> = holes
            .take_while(|hole| hole.start < extent.end())
            .copied()
            .collect();
        found.extend(outside(*extent, &holes));
    }
    found
}

/// What both have; both are ascending and apart.
fn common(one: &[Extent], other: &[Extent]) -> Vec<Extent> {
    minus(one, &minus(one, other))
}

/// A set of bytes that grows.
#[derive(Debug, Default)]
struct Claims {
    /// In any order, and overlapping.
    extents: Vec<Extent>,
    /// At this length they are put in order.
    next_look: usize,
}

impl Claims {
    fn add(&mut self, bytes: Range<u64>) {
        if self.extents.len() >= self.next_look {
            self.extents = normalize(std::mem::take(&mut self.extents));
            self.next_look = (2 * self.extents.len()).max(4096);
        }
        self.extents.push(extent(bytes));
    }

    fn extents(&mut self) -> Vec<Extent> {
        normalize(std::mem::take(&mut self.extents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(ranges: &[Range<u64>]) -> Search {
        Search::new(ranges.iter().cloned().map(extent).collect())
    }

    fn ranges(extents: &[Extent]) -> Vec<(u64, u64)> {
        extents.iter().map(|e| (e.start.0, e.end().0)).collect()
    }

    #[test]
    fn bytes_are_counted_inside_the_ranges() {
        let search = search(&[10..20, 30..40, 50..51]);
        for (bytes, count) in [
            (0..100, 21),
            (0..10, 0),
            (15..35, 10),
            (20..30, 0),
            (39..50, 1),
            (50..51, 1),
            (51..u64::MAX, 0),
        ] {
            assert_eq!(search.bytes_in(&bytes), count, "{bytes:?}");
        }
    }

    #[test]
    fn every_byte_is_one_thing() {
        let mut search = search(&[10..20, 30..40, 50..60, 70..80]);
        assert_eq!(search.content(0..35), 15);
        assert!(search.metadata(35..36) && !search.metadata(40..50));
        search.free(52..75);
        let hit = search.finish("x".into());
        assert_eq!(ranges(&hit.metadata), [(35, 36)]);
        assert_eq!(ranges(&hit.free), [(36, 40), (50, 60), (70, 80)]);
        assert_eq!((hit.unknown.len(), hit.incomplete), (0, None));
    }

    #[test]
    fn what_nobody_claims_is_unknown_after_an_incomplete_walk() {
        let mut search = search(&[10..20, 30..40, 50..60, 70..80]);
        search.content(0..35);
        search.free(52..75);
        for why in ["a", "b", "a", "c", "d", "e"] {
            search.lacks(why);
        }
        search.rest_is_metadata();
        let hit = search.finish("x".into());
        assert_eq!(ranges(&hit.free), [(52, 60), (70, 75)]);
        assert_eq!(ranges(&hit.unknown), [(35, 40), (50, 52), (75, 80)]);
        assert_eq!(
            hit.incomplete.as_deref(),
            Some("a; b; c; and 2 more reasons")
        );
    }

    #[test]
    fn claims_stay_few() {
        let mut search = search(&[0..10, 1 << 30..1 << 31]);
        for n in 0..20_000 {
            search.content(n * 1000..n * 1000 + 500);
            search.content(1 << 29..(1 << 30) + n);
        }
        assert!(search.content.extents.len() <= 8192);
        let hit = search.finish("x".into());
        assert_eq!(ranges(&hit.free), [((1 << 30) + 19_999, 1 << 31)]);
    }

    #[test]
    fn an_answer_from_inside_is_told_in_places_of_the_volume_below() {
        let piece = |start, len, at| Piece { start, len, at };
        let pieces = [piece(0, 10, 100), piece(10, 10, 50)];
        let mut search = search(&[55..70, 105..107, 300..301]);
        let inside = search.inside(&pieces);
        assert_eq!(ranges(&inside), [(5, 7), (15, 20)]);
        let hit = Hit {
            kind: "inner".into(),
            files: Vec::new(),
            more: 3,
            metadata: vec![extent(6..7)],
            free: vec![extent(15..17)],
            unknown: vec![extent(19..20)],
            incomplete: Some("why".into()),
        };
        search.absorb("a/b", &pieces, &inside, hit);
        let hit = search.finish("outer".into());
        assert_eq!(ranges(&hit.metadata), [(106, 107)]);
        assert_eq!(ranges(&hit.free), [(55, 57), (60, 70), (300, 301)]);
        assert_eq!(ranges(&hit.unknown), [(59, 60)]);
        assert_eq!((hit.more, hit.incomplete.as_deref()), (3, Some("a/b: why")));
    }
}
