//! A copy of a table: whatever it says is of the blocks that were asked for.

use crate::Target;
use crate::seeds::{self, Cut, header};
use crate::watch::{Metered, within_memory};
use diskstrata::base::{Digest, ErrorKind, to_u64};
use diskstrata::image::{Block, BlockState, BlockStates, Piece, TableCopy, TableCopyWriter};
use std::sync::{Arc, OnceLock};

pub(crate) const TARGET: Target = Target {
    name: "table_copy",
    prepare: || {
        copies();
    },
    run,
};

/// Pieces looked at of a disk that may have any number of them.
const MOST_PIECES: u64 = 600;

fn copies() -> &'static [Cut] {
    static SEEDS: OnceLock<Vec<Cut>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let blocks = [7, 256 * 5 + 7, 256 * 4096 + 3];
        blocks
            .iter()
            .flat_map(|blocks| [copy(*blocks, 0), copy(*blocks, 4)])
            .collect()
    })
}

/// A copy, cut into head, first page and first entries, and the rest.
fn copy(blocks: u64, parent: u32) -> Cut {
    let of = header(blocks, 4096, 2, parent);
    let data = |n: u8| Block {
        digest: Digest::of(&[n]),
        ..Block::empty(BlockState::Data, parent + 1)
    };
    let mut writer = TableCopyWriter::start(Vec::new(), &of).expect("in memory");
    writer
        .push_blocks(&[data(1), data(2), data(3)])
        .expect("in memory");
    let left = blocks - 3;
    writer
        .push_run(BlockState::Zero, 1, left / 2)
        .expect("in memory");
    writer
        .push_run(BlockState::Unused, parent + 1, left - left / 2)
        .expect("in memory");
    let file = writer
        .finish(Digest::of(b"root"), Digest::of(b"file"))
        .expect("in memory");
    let head = 8 + 128 + 32;
    let tail = file.len() - 8 - 12 - 64 - 8;
    // The index stands before the list of its pieces, 16 bytes for each leaf.
    let leaves = usize::try_from(blocks.div_ceil(256)).expect("it fits");
    let lists = if leaves > 4096 { 8 } else { 0 };
    let index = tail - lists - leaves * 16;
    let pieces = [
        &file[..head],
        &file[head..index],
        &file[index..tail],
        &file[tail..],
    ];
    Cut::of(
        pieces
            .iter()
            .filter(|p| !p.is_empty())
            .map(|p| p.to_vec())
            .collect(),
    )
}

fn run(input: &[u8]) {
    let Some(file) = seeds::file(input, copies()) else {
        return;
    };
    let metered = Arc::new(Metered::new(&file));
    let opened = within_memory("open", || TableCopy::open(Arc::clone(&metered) as _));
    assert!(metered.take() <= 4096, "open reads too much");
    match opened {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error}"),
        Ok(copy) => {
            let again = TableCopy::open(Arc::new(file)).expect("it opened before");
            let said = |copy: &TableCopy| (copy.of().clone(), copy.root(), copy.file());
            assert_eq!(said(&copy), said(&again));
            within_memory("read", || look(&copy, &again));
        }
    }
}

fn look(copy: &TableCopy, again: &TableCopy) {
    let blocks = copy.header().blocks();
    let mut at = 0;
    for _ in 0..MOST_PIECES {
        if at == blocks {
            break;
        }
        at = check(copy, again, at);
    }
    // The last ones too.
    check(copy, again, (blocks - 1) / 256 * 256);
}

/// Looks at what the copy says of a block that begins a leaf; returns where that ends.
fn check(copy: &TableCopy, again: &TableCopy, at: u64) -> u64 {
    let header = copy.header();
    let piece = copy.piece(diskstrata::base::BlockIndex(at));
    let range = piece.blocks();
    assert_eq!(range.start, at, "pieces cover the disk once");
    assert!(at < range.end && range.end <= header.blocks(), "{range:?}");
    let same = again.piece(diskstrata::base::BlockIndex(at));
    match (&piece, &same) {
        (
            Piece::Uniform { state, since, .. },
            Piece::Uniform {
                state: s, since: n, ..
            },
        ) => {
            assert_eq!((state, since), (s, n));
            assert!(!state.has_content() && (1..=header.sequence).contains(since));
        }
        (Piece::Leaf(leaf), Piece::Leaf(other)) => {
            assert_eq!(leaf, other);
            assert!(leaf.frames.is_empty(), "it has no content");
            assert_eq!(to_u64(leaf.blocks.len()), range.end - range.start);
            for block in &leaf.blocks {
                assert!((1..=header.sequence).contains(&block.since), "{block:?}");
            }
        }
        (Piece::Lost { error, .. }, Piece::Lost { .. }) => {
            assert_eq!(error.kind(), ErrorKind::Damaged);
        }
        _ => panic!("{piece:?}, then {same:?}"),
    }
    range.end
}
