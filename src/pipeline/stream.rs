//! An image out of a pipe: read once, decode on all workers, hand out windows in order.

use super::Resources;
use super::extract::{Extracted, Part, Task, decode, split};
use super::ordered::Emit;
use crate::base::{Error, ErrorKind, Result};
use crate::image::{Ending, Header, ImageStream, StreamPiece};
use std::io::Read;
use std::ops::Range;

/// Reads `stream` to its end and hands every block of `range` to `work` and `sink` as
/// [`extract`](super::extract()) does: windows in ascending order and compared with their digests, runs of blocks
/// without content behind what is around them. Runs are clipped to `range`, windows are not; frames outside are
/// passed over. The answer means that the image was complete and its structure whole.
///
/// # Errors
/// What `work` or `sink` returns; `Damaged` when the stream is not what the format demands; `Interrupted` or
/// `Terminated` when cancelled. Damaged frames are handed to both.
pub fn extract_stream<R: Read + Send, T: Send>(
    stream: &mut ImageStream<R>,
    range: Range<u64>,
    resources: Resources<'_>,
    work: &(dyn Fn(&Extracted) -> Result<T> + Sync),
    sink: impl FnMut(&Extracted, T) -> Result<()>,
) -> Result<Ending> {
    let header = stream.beginning().header.clone();
    let mut ending = None;
    let end = &mut ending;
    decode(&header, &resources, work, sink, |emit| {
        *end = Some(produce(stream, &header, &range, &resources, emit)?);
        Ok(())
    })?;
    ending.ok_or_else(|| Error::new(ErrorKind::Internal, "read", "a pipe to its end"))
}

fn produce<R: Read, O>(
    stream: &mut ImageStream<R>,
    header: &Header,
    range: &Range<u64>,
    resources: &Resources<'_>,
    emit: &mut Emit<Task, O>,
) -> Result<Ending> {
    loop {
        resources.cancel.check()?;
        match stream.next_piece()? {
            StreamPiece::End(ending) => return Ok(*ending),
            StreamPiece::Run { blocks, state } => {
                let blocks = blocks.start.max(range.start)..blocks.end.min(range.end);
                if !blocks.is_empty() {
                    emit.job(Part::Run { blocks, state }.into_task())?;
                }
            }
            StreamPiece::Leaf(leaf) => {
                if leaf.leaf.end() <= range.start || leaf.leaf.first.0 >= range.end {
                    continue;
                }
                let sources = |window: &Range<u64>| leaf.sources(window);
                let each = &mut |part: Part| emit.job(part.into_task());
                split(header, &leaf.leaf, &sources, range, each)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::untouched;
    use super::*;
    use crate::base::{Cancel, Digest, Silent, to_usize};
    use crate::block::contract;
    use crate::image::testing;

    /// Gives a few bytes at a time, and is interrupted now and then.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(5) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let count = (self.1 % 4000 + 1).min(buf.len()).min(self.0.len());
            let (now, later) = self.0.split_at(count);
            buf[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    /// The disk that comes out, with `0xEE` where nothing came, the blocks that are lost, and the root.
    fn out_of(image: &[u8], range: Range<u64>) -> Result<(Vec<u8>, Vec<u64>, Digest)> {
        let mut stream = ImageStream::open(Trickle(image, 0), "pipe")?;
        let header = stream.beginning().header.clone();
        let mut disk = vec![0xEE; to_usize(header.disk_len.0)];
        let mut lost = Vec::new();
        let cancel = Cancel::new();
        let resources = Resources {
            threads: 2,
            memory: 1 << 20,
            cancel: &cancel,
            observer: &Silent,
        };
        let ending = extract_stream(
            &mut stream,
            range,
            resources,
            &untouched,
            |extracted, ()| {
                let extent = header.extent_of(&extracted.blocks());
                let part = &mut disk[to_usize(extent.start.0)..to_usize(extent.end().0)];
                assert!(part.iter().all(|b| *b == 0xEE), "nothing comes twice");
                match extracted {
                    Extracted::Window(window) => {
                        part.copy_from_slice(&window.data);
                        lost.extend(window.lost.iter().map(|b| b.0));
                    }
                    Extracted::Run { .. } => part.fill(0),
                    Extracted::Unwanted { .. } | Extracted::Lost { .. } => panic!("{extracted:?}"),
                }
                Ok(())
            },
        )?;
        assert_eq!(usize::try_from(ending.len).unwrap(), image.len());
        Ok((disk, lost, ending.root))
    }

    /// Content, a short last block, and zeros here and there; 300 blocks of them make whole leaves
    /// without a page.
    fn disk(len: usize) -> Vec<u8> {
        let mut disk = contract::pattern(len);
        disk.iter_mut().for_each(|b| *b = b.wrapping_add(1).max(1));
        let zeros = [(len / 7, len / 6), (len / 3, len / 3 + 300 * 4096)];
        for (from, to) in zeros {
            disk[from.min(len)..to.min(len)].fill(0);
        }
        disk
    }

    #[test]
    fn a_pipe_gives_what_a_file_gives() {
        for len in [1, 4096, 4096 * 40 + 7, 4096 * 256, 4096 * 1500 + 5] {
            let disk = disk(len);
            let image = testing::image_of(&disk);
            let (found, lost, root) = out_of(&image, 0..u64::MAX).unwrap();
            assert!(found == disk, "{len}");
            assert_eq!(lost, Vec::<u64>::new());
            assert_eq!(root, testing::open(image).root());
        }
    }

    #[test]
    fn a_part_of_it_is_all_that_comes() {
        let disk = disk(4096 * 1500);
        let image = testing::image_of(&disk);
        let (found, ..) = out_of(&image, 700..1000).unwrap();
        assert!(found[4096 * 700..4096 * 1000] == disk[4096 * 700..4096 * 1000]);
        // Windows are not clipped; nothing comes that is further away.
        assert!(found[..4096 * 696].iter().all(|b| *b == 0xEE));
        assert!(found[4096 * 1004..].iter().all(|b| *b == 0xEE));
    }

    #[test]
    fn an_image_that_ends_early_or_late_is_noticed_wherever_that_is() {
        let image = testing::image_of(&disk(4096 * 9 + 3));
        for len in 0..image.len() {
            let error = out_of(&image[..len], 0..u64::MAX).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{len}: {error}");
        }
        let longer = [&image[..], &[0]].concat();
        let error = out_of(&longer, 0..u64::MAX).unwrap_err();
        assert!(error.to_string().contains("follow"), "{error}");
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let disk = disk(4096 * 9 + 3);
        let image = testing::image_of(&disk);
        let mut in_frames = 0;
        for at in 0..image.len() {
            let mut wrong = image.clone();
            wrong[at] ^= 1 << (at % 8);
            let Ok((found, lost, _)) = out_of(&wrong, 0..u64::MAX) else {
                continue;
            };
            in_frames += 1;
            assert_ne!(lost, Vec::<u64>::new(), "byte {at}");
            for (block, (now, then)) in (0..).zip(found.chunks(4096).zip(disk.chunks(4096))) {
                assert!(
                    lost.contains(&block) || now == then,
                    "byte {at}, block {block}"
                );
            }
        }
        assert!(in_frames > 1000, "{in_frames}");
    }

    #[test]
    fn parts_in_another_order_are_refused() {
        let image = testing::image_of(&disk(4096 * 600));
        let records = records_of(&image);
        assert!(records.len() > 50);
        let put = |order: &[usize]| {
            let parts = order.iter().map(|n| &image[records[*n].clone()]);
            let mut bytes = image[..128].to_vec();
            parts.for_each(|p| bytes.extend_from_slice(p));
            bytes.extend_from_slice(&image[image.len() - 512..]);
            bytes
        };
        let all: Vec<usize> = (0..records.len()).collect();
        assert_eq!(put(&all), image);
        for n in 0..records.len() - 1 {
            let mut swapped = all.clone();
            swapped.swap(n, n + 1);
            let without: Vec<usize> = all.iter().copied().filter(|m| *m != n).collect();
            let twice: Vec<usize> = all
                .iter()
                .flat_map(|m| [*m].repeat(1 + usize::from(*m == n)))
                .collect();
            for order in [swapped, without, twice] {
                let error = out_of(&put(&order), 0..u64::MAX).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Damaged, "record {n}: {error}");
            }
        }
    }

    /// Where the records lie.
    fn records_of(image: &[u8]) -> Vec<Range<usize>> {
        let (mut at, mut records) = (128, Vec::new());
        while at < image.len() - 512 {
            let len = image[at + 32..at + 36].try_into().unwrap();
            let end = at + 48 + usize::try_from(u32::from_le_bytes(len)).unwrap();
            records.push(at..end);
            at = end;
        }
        records
    }
}
