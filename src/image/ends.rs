//! Both ends of a file, brought with one read each.

use crate::base::{KeySetId, RangeRead, Result, to_usize};
use std::sync::Arc;

/// So many bytes at either end: most images have all there that opening them takes.
const LEN: u64 = 8 << 10;

/// A file whose ends are at hand.
pub(super) struct Ends {
    inner: Arc<dyn RangeRead>,
    /// Where each begins, and its bytes: none where they could not be read, for what is wanted of them may be.
    ends: [(u64, Vec<u8>); 2],
}

impl Ends {
    /// Reads the ends of `inner`, or the whole of it where they meet.
    pub(super) fn of(inner: Arc<dyn RangeRead>) -> Ends {
        let read = |from: u64, len: u64| {
            let mut bytes = vec![0; to_usize(len)];
            match bytes.is_empty() || inner.read_at(from, &mut bytes).is_err() {
                true => (from, Vec::new()),
                false => (from, bytes),
            }
        };
        let len = inner.len();
        let ends = match len <= 2 * LEN {
            true => [read(0, len), (len, Vec::new())],
            false => [read(0, LEN), read(len - LEN, LEN)],
        };
        Ends { inner, ends }
    }

    /// The bytes from `offset`, where they are at hand.
    fn at_hand(&self, offset: u64, len: usize) -> Option<&[u8]> {
        self.ends.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(offset.checked_sub(*start)?).ok()?;
            bytes.get(from..from.checked_add(len)?)
        })
    }
}

impl RangeRead for Ends {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn key_set(&self) -> Option<KeySetId> {
        self.inner.key_set()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        match self.at_hand(offset, buf.len()) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => self.inner.read_at(offset, buf),
        }
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.inner.will_need(offset, len);
    }

    fn is_cached(&self, offset: u64, len: u64) -> bool {
        self.inner.is_cached(offset, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Announced, Error, ErrorKind, to_u64};

    #[test]
    fn every_range_is_as_in_the_file_and_past_its_end_is_an_error() {
        for len in [0, 1, LEN - 1, LEN, 2 * LEN, 2 * LEN + 1, 5 * LEN] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let ends = Ends::of(Arc::new(bytes.clone()));
            let places = [0, 1, LEN - 3, LEN, LEN + 9, 2 * LEN, 4 * LEN - 2, len];
            for (at, count) in places
                .iter()
                .flat_map(|at| [(*at, 1), (*at, 7), (*at, 9000)])
            {
                let mut found = vec![0; count];
                let there = bytes.get(to_usize(at)..to_usize(at) + count);
                let read = ends.read_at(at, &mut found);
                assert_eq!(read.is_ok(), there.is_some(), "{at} of {len}");
                assert!(there.is_none_or(|there| found == there), "{at} of {len}");
            }
        }
    }

    #[test]
    fn two_reads_bring_what_opening_an_image_takes() {
        let image = super::super::testing::image_of(&vec![7; 4096 * 20_000]);
        let len = to_u64(image.len());
        let file = Arc::new(Announced::new(image));
        super::super::ImageReader::open(Arc::clone(&file) as _).unwrap();
        let reads: Vec<_> = file.take().into_iter().map(|(range, _)| range).collect();
        let whole = 0..len;
        let both = [0..LEN, len.saturating_sub(LEN)..len];
        assert_eq!(
            reads,
            if len <= 2 * LEN {
                vec![whole]
            } else {
                both.to_vec()
            }
        );
    }

    /// Cannot read one byte.
    struct Bad(Vec<u8>, u64);

    impl RangeRead for Bad {
        fn name(&self) -> &str {
            "bad"
        }
        fn len(&self) -> u64 {
            to_u64(self.0.len())
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            match (offset..offset + to_u64(buf.len())).contains(&self.1) {
                true => Err(Error::new(ErrorKind::Damaged, "read", "bad")),
                false => self.0.read_at(offset, buf),
            }
        }
    }

    /// What nobody asked for may be unreadable.
    #[test]
    fn a_bad_spot_near_an_end_spoils_only_what_lies_on_it() {
        let bytes = vec![7; to_usize(5 * LEN)];
        for bad in [LEN - 1, 5 * LEN - 1] {
            let ends = Ends::of(Arc::new(Bad(bytes.clone(), bad)));
            let mut found = [0; 9];
            ends.read_at(bad - 9, &mut found).unwrap();
            assert_eq!(found, [7; 9]);
            assert!(ends.read_at(bad - 8, &mut found).is_err());
        }
    }
}
