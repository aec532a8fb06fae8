//! The table of an image without its content, in a file of its own: what a machine keeps that has to
//! find out what changed and cannot read its images.
//!
//! `docs/format.md`, section 15. Leaves are stored as they would stand in an image that builds on the one
//! they are of and records nothing.

use super::bytes::{Fields, low32};
use super::header::{HEADER_LEN, Header, Kind, Parent};
use super::leaf::Leaf;
use super::limits::{LEAF_BLOCKS, MAX_PAGE_LEN};
use super::resolved::{BlockStates, Piece};
use super::state::{Block, BlockState};
use super::tree::leaf_len;
use crate::base::{BlockIndex, Digest, Error, ErrorKind, RangeRead, Result, to_u64, to_usize};
use std::io::Write;
use std::sync::Arc;
use uuid::Uuid;

const MAGIC: [u8; 8] = *b"\x89STTABL\n";
const HEAD_LEN: usize = 8 + HEADER_LEN + Digest::LEN;
/// A leaf in the index: kind (1 uniform, 2 page), state, two reserved bytes, then who recorded it or the
/// length of the page (4), and where the page is (8).
const ENTRY_LEN: usize = 16;
/// Leaves in one piece of the index.
const PIECE: usize = 4096;

/// Writes the copy while the blocks come, each exactly once and in order.
pub struct TableCopyWriter<W> {
    out: W,
    at: u64,
    of: Header,
    leaf: Leaf,
    /// The open piece of the index.
    index: Vec<u8>,
    /// Where the pieces before it are.
    pieces: Vec<u64>,
    next: u64,
}

impl<W: Write> TableCopyWriter<W> {
    /// Begins a copy of the table of the image `of`.
    ///
    /// # Errors
    /// As `out`.
    pub fn start(mut out: W, of: &Header) -> std::io::Result<TableCopyWriter<W>> {
        out.write_all(&MAGIC)?;
        out.write_all(&of.encode())?;
        // The root digest is known only at the end.
        out.write_all(&[0; Digest::LEN])?;
        Ok(TableCopyWriter {
            out,
            at: to_u64(HEAD_LEN),
            of: of.clone(),
            leaf: empty(0),
            index: Vec::new(),
            pieces: Vec::new(),
            next: 0,
        })
    }

    /// The next `count` blocks are in `state`, which has no content, as image `since` recorded.
    ///
    /// # Errors
    /// As the sink.
    pub fn push_run(&mut self, state: BlockState, since: u32, count: u64) -> std::io::Result<()> {
        let mut left = count;
        while left > 0 {
            let whole = leaf_len(&self.of, self.leaf.index());
            if self.leaf.blocks.is_empty() && left >= whole && whole > 0 {
                self.entry([1, state.to_byte()], since, 0)?;
                self.leaf = empty(self.leaf.index() + 1);
                self.next += whole;
                left -= whole;
                continue;
            }
            let room = whole.saturating_sub(to_u64(self.leaf.blocks.len()));
            let now = left.min(room.max(1));
            let len = self.leaf.blocks.len() + to_usize(now);
            self.leaf.blocks.resize(len, Block::empty(state, since));
            self.next += now;
            left -= now;
            self.close_full()?;
        }
        Ok(())
    }

    /// The next blocks, which lie in one leaf.
    ///
    /// # Errors
    /// As the sink.
    pub fn push_blocks(&mut self, blocks: &[Block]) -> std::io::Result<()> {
        self.leaf.blocks.extend_from_slice(blocks);
        self.next += to_u64(blocks.len());
        self.close_full()
    }

    fn close_full(&mut self) -> std::io::Result<()> {
        let full = to_u64(self.leaf.blocks.len()) >= LEAF_BLOCKS || self.next >= self.of.blocks();
        if !full {
            return Ok(());
        }
        let leaf = std::mem::replace(&mut self.leaf, empty(0));
        self.leaf = empty(leaf.index() + 1);
        let (payload, ..) = leaf.encode();
        self.out.write_all(&payload)?;
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let at = self.at;
        self.at += to_u64(payload.len());
        self.entry([2, 0], len, at)
    }

    fn entry(&mut self, kind: [u8; 2], number: u32, at: u64) -> std::io::Result<()> {
        self.index.extend_from_slice(&kind);
        self.index.extend_from_slice(&[0; 2]);
        self.index.extend_from_slice(&number.to_le_bytes());
        self.index.extend_from_slice(&at.to_le_bytes());
        if self.index.len() == PIECE * ENTRY_LEN {
            self.close_piece()?;
        }
        Ok(())
    }

    fn close_piece(&mut self) -> std::io::Result<()> {
        self.out.write_all(&self.index)?;
        self.pieces.push(self.at);
        self.at += to_u64(self.index.len());
        self.index.clear();
        Ok(())
    }

    /// Ends the copy; `root` is the root digest of the image, and `file` what tells its file from every other.
    ///
    /// # Errors
    /// As the sink.
    pub fn finish(mut self, root: Digest, file: Digest) -> std::io::Result<W> {
        if !self.index.is_empty() {
            self.close_piece()?;
        }
        let at = self.at;
        for piece in &self.pieces {
            self.out.write_all(&piece.to_le_bytes())?;
        }
        self.out.write_all(&at.to_le_bytes())?;
        self.out.write_all(&low32(to_u64(self.pieces.len())))?;
        self.out.write_all(&root.0)?;
        self.out.write_all(&file.0)?;
        self.out.write_all(&MAGIC)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Behind the pieces of the index: where the list of them is, how many there are, the root digest, that of the
/// file, magic.
const TAIL_LEN: usize = 8 + 4 + 2 * Digest::LEN + 8;

fn empty(index: u64) -> Leaf {
    Leaf {
        first: BlockIndex(index * LEAF_BLOCKS),
        blocks: Vec::new(),
        frames: Vec::new(),
    }
}

/// A copy, open.
pub struct TableCopy {
    input: Arc<dyn RangeRead>,
    /// The image that it is of.
    of: Header,
    root: Digest,
    file: Digest,
    /// As the next image has it, which recorded nothing: what leaves are checked against.
    next: Header,
    pieces_at: u64,
    pieces: u64,
}

impl TableCopy {
    /// Opens a copy.
    ///
    /// # Errors
    /// `Damaged` when it is none.
    pub fn open(input: Arc<dyn RangeRead>) -> Result<TableCopy> {
        let name = input.name().to_owned();
        let bad = |why: &str| Error::new(ErrorKind::Damaged, "open", &name).because(why);
        let mut head = [0; HEAD_LEN];
        let mut tail = [0; TAIL_LEN];
        let Some(tail_at) = input.len().checked_sub(to_u64(TAIL_LEN)) else {
            return Err(bad("it is too short"));
        };
        if tail_at < to_u64(HEAD_LEN) {
            return Err(bad("it is too short"));
        }
        input.read_at(0, &mut head)?;
        input.read_at(tail_at, &mut tail)?;
        let malformed = || bad("it is no copy of a table");
        let mut f = Fields(&head);
        (f.array() == Some(MAGIC))
            .then_some(())
            .ok_or_else(malformed)?;
        let of = Header::decode(f.bytes(HEADER_LEN).unwrap_or_default(), &name)?;
        let mut f = Fields(&tail);
        let fields = (f.u64(), f.u32(), f.array(), f.array(), f.array());
        let (Some(pieces_at), Some(pieces), Some(root), Some(file), Some(MAGIC)) = fields else {
            return Err(malformed());
        };
        let leaves = of.blocks().div_ceil(LEAF_BLOCKS);
        let pieces = u64::from(pieces);
        let ends = pieces_at.checked_add(pieces * 8) == Some(tail_at);
        if pieces != leaves.div_ceil(to_u64(PIECE)) || !ends {
            return Err(malformed());
        }
        let root = Digest(root);
        Ok(TableCopy {
            next: next_of(&of, root),
            input,
            of,
            root,
            file: Digest(file),
            pieces_at,
            pieces,
        })
    }

    /// The image that it is of.
    pub fn of(&self) -> &Header {
        &self.of
    }

    /// Its root digest.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// What tells the file of the image from every other.
    pub fn file(&self) -> Digest {
        self.file
    }

    fn leaf(&self, index: u64) -> Result<Piece> {
        let bad = || {
            let subject = format!("{}, leaf {index}", self.input.name());
            Error::new(ErrorKind::Damaged, "read", subject).because("it is malformed")
        };
        let piece = index / to_u64(PIECE);
        if piece >= self.pieces {
            return Err(bad());
        }
        let mut at = [0; 8];
        self.input.read_at(self.pieces_at + piece * 8, &mut at)?;
        let within = index % to_u64(PIECE) * to_u64(ENTRY_LEN);
        let at = u64::from_le_bytes(at).checked_add(within).ok_or_else(bad)?;
        let mut entry = [0; ENTRY_LEN];
        self.input.read_at(at, &mut entry)?;
        let mut f = Fields(&entry);
        let fields = (f.u8(), f.u8(), f.reserved(2), f.u32(), f.u64());
        let (Some(kind), Some(state), Some(()), Some(number), Some(at)) = fields else {
            return Err(bad());
        };
        match kind {
            1 => {
                let state = BlockState::from_byte(state).filter(|s| !s.has_content());
                let state = state.ok_or_else(bad)?;
                let first = index * LEAF_BLOCKS;
                let sane = (1..=self.of.sequence).contains(&number);
                sane.then_some(()).ok_or_else(bad)?;
                Ok(Piece::Uniform {
                    blocks: first..first + leaf_len(&self.of, index),
                    state,
                    since: number,
                })
            }
            2 if number <= MAX_PAGE_LEN => {
                let mut payload = vec![0; to_usize(u64::from(number))];
                self.input.read_at(at, &mut payload)?;
                let leaf = Leaf::decode(&payload, &self.next, index);
                let (leaf, ..) = leaf.ok_or_else(bad)?;
                // The image that it would stand in recorded nothing.
                let old = leaf.since() <= self.of.sequence && leaf.frames.is_empty();
                old.then(|| Piece::Leaf(Arc::new(leaf))).ok_or_else(bad)
            }
            _ => Err(bad()),
        }
    }
}

/// The header of an image that builds on `of` and records nothing. Its id is that of nobody.
fn next_of(of: &Header, root: Digest) -> Header {
    Header {
        id: Uuid::max(),
        sequence: of.sequence.saturating_add(1),
        parent: Some(Parent {
            id: of.id,
            sequence: of.sequence,
            root,
        }),
        kind: Kind::Incremental,
        ..of.clone()
    }
}

impl BlockStates for TableCopy {
    fn header(&self) -> &Header {
        &self.of
    }

    fn piece(&self, block: BlockIndex) -> Piece {
        let index = block.0 / LEAF_BLOCKS;
        self.leaf(index).unwrap_or_else(|error| {
            let first = index * LEAF_BLOCKS;
            Piece::Lost {
                blocks: first..first + leaf_len(&self.of, index).max(1),
                error,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::{child_of, sample};
    use super::*;
    use BlockState::{Data, Unused, Zero};

    fn data(n: u8, since: u32) -> Block {
        Block {
            digest: Digest::of(&[n]),
            ..Block::empty(Data, since)
        }
    }

    fn copy_of(header: &Header, fill: impl FnOnce(&mut TableCopyWriter<Vec<u8>>)) -> Vec<u8> {
        let mut writer = TableCopyWriter::start(Vec::new(), header).unwrap();
        fill(&mut writer);
        writer
            .finish(Digest::of(b"root"), Digest::of(b"file"))
            .unwrap()
    }

    #[test]
    fn what_was_said_of_blocks_is_read_again() {
        let blocks = 256 * 5 + 7;
        let header = child_of(&sample(4096 * blocks), 3, 9);
        let bytes = copy_of(&header, |copy| {
            copy.push_run(Unused, 2, 256).unwrap();
            copy.push_blocks(&[data(1, 9), data(2, 4)]).unwrap();
            copy.push_run(Zero, 1, 254 + 2 * 256).unwrap();
            copy.push_run(Unused, 9, 100).unwrap();
            copy.push_run(Zero, 9, 156).unwrap();
            copy.push_blocks(&[data(3, 5); 7]).unwrap();
        });
        let copy = TableCopy::open(Arc::new(bytes)).unwrap();
        assert_eq!((copy.of(), copy.root()), (&header, Digest::of(b"root")));
        assert_eq!(copy.file(), Digest::of(b"file"));
        let block = |index: u64| match copy.piece(BlockIndex(index)) {
            Piece::Uniform { state, since, .. } => Block::empty(state, since),
            Piece::Leaf(leaf) => *leaf.block(BlockIndex(index)).unwrap(),
            Piece::Lost { error, .. } => panic!("{error}"),
        };
        for (index, expected) in [
            (0, Block::empty(Unused, 2)),
            (255, Block::empty(Unused, 2)),
            (256, data(1, 9)),
            (257, data(2, 4)),
            (258, Block::empty(Zero, 1)),
            (1023, Block::empty(Zero, 1)),
            (1024, Block::empty(Unused, 9)),
            (1124, Block::empty(Zero, 9)),
            (1280, data(3, 5)),
            (1286, data(3, 5)),
        ] {
            assert_eq!(block(index), expected, "block {index}");
        }
    }

    #[test]
    fn nothing_is_younger_than_the_image() {
        let header = sample(4096 * 300);
        // The writer believes whoever uses it; a reader must not.
        let bytes = copy_of(&header, |copy| {
            copy.push_blocks(&[data(1, 1)]).unwrap();
            copy.push_run(Zero, header.sequence + 1, 255).unwrap();
            copy.push_run(Zero, header.sequence, 44).unwrap();
        });
        let copy = TableCopy::open(Arc::new(bytes)).unwrap();
        let piece = |index| copy.piece(BlockIndex(index));
        assert!(matches!(piece(0), Piece::Lost { .. }));
        assert!(matches!(piece(256), Piece::Uniform { since: 1, .. }));
    }

    #[test]
    fn damaged_copies_are_lost_and_never_believed() {
        let header = sample(4096 * 300);
        let bytes = copy_of(&header, |copy| {
            copy.push_blocks(&[data(1, 1); 256]).unwrap();
            copy.push_run(Zero, 1, 44).unwrap();
        });
        for cut in 0..bytes.len() {
            assert!(
                TableCopy::open(Arc::new(bytes[..cut].to_vec())).is_err(),
                "{cut}"
            );
        }
        for at in 0..bytes.len() {
            for value in [0, 0xFF, bytes[at] ^ 1] {
                let mut bad = bytes.clone();
                bad[at] = value;
                if let Ok(copy) = TableCopy::open(Arc::new(bad)) {
                    // Whatever it says, it is about the blocks that were asked for.
                    for index in [0, 255, 256, 299] {
                        assert!(
                            copy.piece(BlockIndex(index)).blocks().contains(&index),
                            "{at}"
                        );
                    }
                }
            }
        }
    }
}
