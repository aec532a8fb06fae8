//! Reading frames of images that are not in memory: by threads of their own, ahead of the workers.

use super::crew::with_crew;
use super::ordered::{Emit, Slot};
use crate::base::Result;
use crate::image::{FrameFetcher, Source};

/// So much work waits for those who fetch, who have some while the next page of a table is read.
const WAITING: usize = 16;

/// Work for which frames have to be read.
pub(super) trait FromFrames: Send {
    /// Where they are.
    fn sources(&mut self) -> &mut [Source];
}

/// Hands out work as soon as its frames are in memory.
pub(super) type Bring<'a, J, O> = &'a mut dyn FnMut(J, &mut Emit<J, O>) -> Result<()>;

/// Runs `plan` with what hands out its work. A worker reads by itself what is in memory, for then it is in that
/// processor's cache; the rest was read when it gets it.
///
/// # Errors
/// What `plan` returns. What is wrong with a frame is said to whoever reads it.
pub(super) fn with_fetchers<J: FromFrames, O: Send>(
    plan: impl FnOnce(Bring<'_, J, O>) -> Result<()>,
) -> Result<()> {
    let fetcher = FrameFetcher::default();
    let each = |(slot, mut job): (Slot<J, O>, J)| {
        // Else whoever stops a run would wait for all that waits to be read.
        if slot.is_wanted() {
            let sources = job.sources().iter_mut();
            sources.for_each(|source| source.fetch(&fetcher));
            slot.job(job);
        }
    };
    with_crew(WAITING, each, |crew| {
        plan(&mut |mut job, emit| {
            let sources = job.sources();
            sources.iter().for_each(Source::will_need);
            match sources.iter().all(Source::is_cached) {
                true => emit.job(job),
                false => crew.hand((emit.slot()?, job)),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::ordered;
    use super::*;
    use crate::base::{BlockIndex, ErrorKind, RangeRead, to_u64};
    use crate::image::{FilePiece, FrameReader, FrameRef, ImageReader, testing};
    use std::ops::Range;
    use std::sync::{Arc, Mutex};

    /// An image of which only the bytes in `here` are in memory, none of `broken` can be read, and that knows what
    /// was.
    struct Partly {
        bytes: Vec<u8>,
        here: Range<u64>,
        broken: Mutex<Range<u64>>,
        read: Mutex<Vec<u64>>,
    }

    impl RangeRead for Partly {
        fn name(&self) -> &str {
            "partly"
        }

        fn len(&self) -> u64 {
            to_u64(self.bytes.len())
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            self.read.lock().unwrap().push(offset);
            if self.broken.lock().unwrap().contains(&offset) {
                return Err(crate::base::Error::new(
                    ErrorKind::Damaged,
                    "read",
                    "partly",
                ));
            }
            self.bytes.read_at(offset, buf)
        }

        fn is_cached(&self, offset: u64, len: u64) -> bool {
            self.here.contains(&offset) && offset + len <= self.here.end
        }
    }

    struct Work(Vec<Source>);

    impl FromFrames for Work {
        fn sources(&mut self) -> &mut [Source] {
            &mut self.0
        }
    }

    fn frames_of(image: &ImageReader) -> Vec<FrameRef> {
        let mut frames = Vec::new();
        let each = &mut |piece| {
            if let FilePiece::Leaf(leaf) = piece {
                frames.extend_from_slice(&leaf.frames);
            }
            Ok(())
        };
        image.walk(each).unwrap();
        frames
    }

    #[test]
    fn what_is_not_in_memory_was_read_when_a_worker_gets_it() {
        let disk: Vec<u8> = (0..200_000u32)
            .map(|i| (i / 3000 + 1).to_le_bytes()[0])
            .collect();
        let bytes = testing::image_of(&disk);
        let frames = frames_of(&testing::open(bytes.clone()));
        assert!(frames.len() > 8);
        let half = frames[frames.len() / 2].offset;
        let partly = Arc::new(Partly {
            here: 0..half,
            broken: Mutex::new(0..0),
            read: Mutex::default(),
            bytes,
        });
        let image = Arc::new(ImageReader::open(Arc::clone(&partly) as _).unwrap());
        let last = frames.last().unwrap().offset;
        *partly.broken.lock().unwrap() = last..last + 1;
        let was_read = |frame: &FrameRef| partly.read.lock().unwrap().contains(&frame.offset);
        let work = |frame: &FrameRef| {
            Work(vec![Source {
                wanted: frame.mask,
                frame: Ok((Arc::clone(&image) as _, *frame)),
            }])
        };
        let mut seen = Vec::<BlockIndex>::new();
        ordered::run(
            2,
            4,
            |emit| with_fetchers(|bring| frames.iter().try_for_each(|f| bring(work(f), emit))),
            || {
                let mut reader = FrameReader::new()?;
                let was_read = &was_read;
                Ok(move |Work(sources): Work| {
                    let wanted = sources[0].wanted;
                    let (source, frame) = match &sources[0].frame {
                        Ok(found) => found,
                        Err(error) => return Ok((None, error.kind() == ErrorKind::Damaged)),
                    };
                    assert_eq!(was_read(frame), frame.offset >= half, "{frame:?}");
                    reader.read(source.as_ref(), frame)?;
                    let first = reader.blocks().to_vec();
                    // A second time it comes from the image once more.
                    reader.read(source.as_ref(), frame)?;
                    let same = reader.blocks() == first && frame.mask == wanted;
                    Ok((Some(frame.first), same))
                })
            },
            |(first, fine)| {
                assert!(fine);
                seen.extend(first);
                Ok(())
            },
        )
        .unwrap();
        let all_but_the_broken: Vec<_> = frames.iter().map(|f| f.first).collect();
        assert_eq!(seen, all_but_the_broken[..frames.len() - 1]);
    }
}
