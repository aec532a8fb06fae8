//! An image out of a pipe, which is accepted exactly when the file is.

use crate::Target;
use crate::image::{check_leaf, images, read_checked, verified, windows_of, with_resources};
use crate::seeds;
use crate::watch::within_memory;
use diskstrata::base::{BlockIndex, Error, ErrorKind, Result, to_u64};
use diskstrata::image::{
    Child, Ending, FrameReader, ImageReader, ImageStream, Leaf, OlderFiles, StreamPiece,
};
use diskstrata::pipeline::{Depth, verify_stream};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

pub(crate) const TARGET: Target = Target {
    name: "stream",
    prepare: || {
        images();
    },
    run,
};

fn run(input: &[u8]) {
    let Some(file) = seeds::file(input, images()) else {
        return;
    };
    let read = within_memory("read", || pieces(&file));
    let checked = within_memory("verify", || {
        let mut stream = ImageStream::open(Trickle::new(&file), "pipe")?;
        with_resources(|r| verify_stream(&mut stream, r))
    });
    match (&read, &checked) {
        (Ok((ending, lost)), Ok((damage, same))) => {
            assert_eq!((ending.root, ending.len), (same.root, same.len));
            assert_eq!(ending.summary, same.summary);
            assert_eq!(*lost > 0, !damage.is_empty(), "{damage:?}");
            assert_eq!(ending.len, to_u64(file.len()));
        }
        (Err(error), Err(_)) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
        _ => panic!("read {read:?}, verified {checked:?}"),
    }
    as_a_file(&file, &read);
}

/// What a pipe gives must be what the file says.
fn as_a_file(file: &[u8], read: &Result<(Ending, usize)>) {
    let Ok(image) = ImageReader::open(Arc::new(file.to_vec())).map(Arc::new) else {
        let error = read.as_ref().err();
        assert!(error.is_some(), "what is no image came out of a pipe");
        return;
    };
    let quick = verified(&image, &Nothing, Depth::Quick);
    match read {
        Ok((ending, lost)) => {
            assert_eq!(ending.root, image.root());
            assert_eq!(ending.summary, *image.summary());
            assert_eq!(quick, [], "in a pipe nothing was wrong with it");
            let deep = verified(&image, &Nothing, Depth::Deep);
            assert_eq!(*lost > 0, !deep.is_empty(), "{deep:?}");
        }
        Err(error) => {
            let alone = image.header().parent.is_none();
            assert!(
                !alone || !quick.is_empty(),
                "a whole file, and in a pipe {error}"
            );
        }
    }
}

/// A full image needs nothing else.
struct Nothing;

impl OlderFiles for Nothing {
    fn has_page(&self, _: u8, _: u64, _: &Child) -> Result<()> {
        Err(Error::new(ErrorKind::Damaged, "read", "an older page"))
    }

    fn missing(&self, _: &Leaf) -> Vec<(BlockIndex, Error)> {
        Vec::new()
    }
}

/// Reads it all. Returns how it ended, and how many blocks were lost.
fn pieces(file: &[u8]) -> Result<(Ending, usize)> {
    let mut stream = ImageStream::open(Trickle::new(file), "pipe")?;
    let header = stream.beginning().header.clone();
    assert!(header.parent.is_none());
    let mut reader = FrameReader::new()?;
    let (mut covered, mut lost): (Vec<Range<u64>>, usize) = (Vec::new(), 0);
    loop {
        match stream.next_piece()? {
            StreamPiece::Leaf(leaf) => {
                check_leaf(&header, &leaf.leaf);
                covered.push(leaf.leaf.first.0..leaf.leaf.end());
                for window in windows_of(&header, &leaf.leaf) {
                    let sources = leaf.sources(&window);
                    let read = read_checked(&header, &leaf.leaf, &window, &sources, &mut reader);
                    lost += read.lost.len();
                }
            }
            StreamPiece::Run { blocks, state } => {
                assert!(!state.has_content());
                covered.push(blocks);
            }
            StreamPiece::End(ending) => {
                covered.sort_by_key(|range| range.start);
                let end = covered.iter().fold(0, |at, range| {
                    assert_eq!(range.start, at, "pieces cover the disk once");
                    assert!(range.start < range.end);
                    range.end
                });
                assert_eq!(end, header.blocks(), "pieces cover the disk");
                return Ok((*ending, lost));
            }
        }
    }
}

/// A pipe that gives a few bytes at a time, another number each time.
struct Trickle<'a> {
    rest: &'a [u8],
    turn: usize,
}

impl Trickle<'_> {
    fn new(bytes: &[u8]) -> Trickle<'_> {
        Trickle {
            rest: bytes,
            turn: 0,
        }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.turn += 1;
        let most = [3, 64, 4096, 1, 100_000][self.turn % 5];
        let count = buf.len().min(most).min(self.rest.len());
        let (now, later) = self.rest.split_at(count);
        buf[..count].copy_from_slice(now);
        self.rest = later;
        Ok(count)
    }
}
