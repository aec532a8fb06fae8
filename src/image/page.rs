//! Table pages: leaves that hold block states, and nodes that hold pages.

use super::bytes::Fields;
use super::header::Header;
use super::limits::{LEAF_BLOCKS, NODE_CHILDREN};
use super::record::{RECORD_HEADER_LEN, frame_len};
use super::state::BlockState;
use crate::base::{BlockIndex, Digest, to_u64, to_usize};

/// Where one frame lies and which blocks it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRef {
    /// First block of its window.
    pub first: BlockIndex,
    /// Bit i: block `first + i` is held.
    pub mask: u64,
    /// Position of the record header in the file.
    pub offset: u64,
    /// Length of the payload in the file.
    pub stored_len: u32,
}

impl FrameRef {
    /// Header and payload together, in bytes.
    pub fn record_len(&self) -> u64 {
        to_u64(RECORD_HEADER_LEN) + u64::from(self.stored_len)
    }
}

/// States, digests and frames of up to 1024 blocks. Section 6 of `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Number of the first block.
    pub first: BlockIndex,
    /// One state a block.
    pub states: Vec<BlockState>,
    /// One digest for each stored block, ascending.
    pub digests: Vec<Digest>,
    /// Ascending; their masks together are exactly the stored blocks.
    pub frames: Vec<FrameRef>,
}

/// The blocks of leaf `index`.
pub(super) fn leaf_len(header: &Header, index: u64) -> u64 {
    header
        .blocks()
        .saturating_sub(index.saturating_mul(LEAF_BLOCKS))
        .min(LEAF_BLOCKS)
}

/// The level whose single page covers a disk of `blocks` blocks.
pub(super) fn top_level(blocks: u64) -> u8 {
    let mut level = 0;
    let mut pages = blocks.div_ceil(LEAF_BLOCKS);
    while pages > 1 {
        pages = pages.div_ceil(NODE_CHILDREN);
        level += 1;
    }
    level
}

/// How many pages `level` has on a disk of `blocks` blocks.
pub(super) fn pages_at(blocks: u64, level: u8) -> u64 {
    (0..level).fold(blocks.div_ceil(LEAF_BLOCKS), |pages, _| {
        pages.div_ceil(NODE_CHILDREN)
    })
}

/// Blocks below one page of `level`; saturates far above any disk.
pub(super) fn span_of(level: u8) -> u64 {
    (0..level).fold(LEAF_BLOCKS, |span, _| span.saturating_mul(NODE_CHILDREN))
}

impl Leaf {
    /// Number of this leaf.
    pub fn index(&self) -> u64 {
        self.first.0 / LEAF_BLOCKS
    }

    /// Runs of equal states as (state, number of blocks).
    pub fn runs(&self) -> Vec<(BlockState, u64)> {
        let mut runs: Vec<(BlockState, u64)> = Vec::new();
        for state in &self.states {
            match runs.last_mut() {
                Some((last, count)) if last == state => *count += 1,
                _ => runs.push((*state, 1)),
            }
        }
        runs
    }

    /// The digest of block `index` if it is a stored block of this leaf.
    pub fn digest_of(&self, index: BlockIndex) -> Option<Digest> {
        let at = to_usize(index.0.checked_sub(self.first.0)?);
        self.states.get(at)?.is_stored().then_some(())?;
        let before = self.states[..at].iter().filter(|s| s.is_stored()).count();
        self.digests.get(before).copied()
    }

    /// The blocks and digests that `frame` holds, in the order of its payload.
    pub fn blocks_of(&self, frame: &FrameRef) -> Vec<(BlockIndex, BlockState, Digest)> {
        let at = to_usize(frame.first.0.saturating_sub(self.first.0));
        let mut digest = self
            .states
            .iter()
            .take(at)
            .filter(|s| s.is_stored())
            .count();
        let mut out = Vec::new();
        for bit in 0..64 {
            if frame.mask >> bit & 1 == 0 {
                continue;
            }
            let block = BlockIndex(frame.first.0 + bit);
            let state = self.states.get(at + to_usize(bit)).copied();
            if let (Some(state), Some(d)) = (state, self.digests.get(digest)) {
                out.push((block, state, *d));
            }
            digest += 1;
        }
        out
    }

    /// The state of every block when it is one state without content.
    pub(super) fn uniform(&self) -> Option<BlockState> {
        let first = *self.states.first()?;
        (!first.is_stored() && self.states.iter().all(|s| *s == first)).then_some(first)
    }

    /// The part that the page digest commits to.
    fn committed(&self) -> Vec<u8> {
        let runs = self.runs();
        let mut out = Vec::with_capacity(8 + runs.len() * 4 + self.digests.len() * Digest::LEN);
        out.extend_from_slice(&low16(to_u64(runs.len())));
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&low32(to_u64(self.digests.len())));
        for (state, count) in runs {
            out.extend_from_slice(&[state.to_byte(), 0]);
            out.extend_from_slice(&low16(count));
        }
        self.digests
            .iter()
            .for_each(|d| out.extend_from_slice(&d.0));
        out
    }

    /// The payload and the page digest.
    pub(super) fn encode(&self) -> (Vec<u8>, Digest) {
        let mut out = self.committed();
        let digest = leaf_digest(self.index(), &out);
        let start = self.frames.first().map_or(0, |f| f.offset);
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(&low32(to_u64(self.frames.len())));
        for frame in &self.frames {
            out.extend_from_slice(&low16(frame.first.0 - self.first.0));
            out.extend_from_slice(&frame.stored_len.to_le_bytes());
            out.extend_from_slice(&frame.mask.to_le_bytes());
        }
        (out, digest)
    }

    /// Reads the payload of leaf `index`; `None` when any rule of the format is broken.
    pub(super) fn decode(bytes: &[u8], header: &Header, index: u64) -> Option<(Leaf, Digest)> {
        let blocks = leaf_len(header, index);
        let first = BlockIndex(index.checked_mul(LEAF_BLOCKS)?);
        let mut f = Fields(bytes);
        let runs = f.u16()?;
        f.reserved(2)?;
        let digests = f.u32()?;
        let states = decode_states(&mut f, runs, blocks)?;
        let stored = states.iter().filter(|s| s.is_stored()).count();
        (u64::from(digests) == to_u64(stored)).then_some(())?;
        if header.parent.is_none() && states.contains(&BlockState::Inherit) {
            return None;
        }
        let digests = (0..stored)
            .map(|_| f.array().map(Digest))
            .collect::<Option<Vec<_>>>()?;
        let committed = bytes.get(..bytes.len() - f.0.len())?;
        let digest = leaf_digest(index, committed);
        let frames = decode_frames(&mut f, header, first)?;
        f.is_empty().then_some(())?;
        let leaf = Leaf {
            first,
            states,
            digests,
            frames,
        };
        leaf.frames_hold_stored_blocks().then_some((leaf, digest))
    }

    fn frames_hold_stored_blocks(&self) -> bool {
        let mut held = vec![false; self.states.len()];
        for frame in &self.frames {
            let at = to_usize(frame.first.0 - self.first.0);
            for bit in (0..64).filter(|bit| frame.mask >> bit & 1 == 1) {
                match held.get_mut(at + bit) {
                    Some(slot) if !*slot => *slot = true,
                    _ => return false,
                }
            }
        }
        held.iter()
            .zip(&self.states)
            .all(|(held, state)| *held == state.is_stored())
    }
}

fn leaf_digest(index: u64, committed: &[u8]) -> Digest {
    Digest::derive(
        "diskstrata table leaf 1",
        &[&index.to_le_bytes(), committed],
    )
}

fn decode_states(f: &mut Fields<'_>, runs: u16, blocks: u64) -> Option<Vec<BlockState>> {
    let mut states = Vec::with_capacity(to_usize(blocks));
    let mut last = None;
    for _ in 0..runs {
        let state = BlockState::from_byte(f.u8()?)?;
        f.reserved(1)?;
        let count = usize::from(f.u16()?);
        if count == 0 || last == Some(state) || to_u64(states.len() + count) > blocks {
            return None;
        }
        states.resize(states.len() + count, state);
        last = Some(state);
    }
    (to_u64(states.len()) == blocks && blocks > 0).then_some(states)
}

fn decode_frames(f: &mut Fields<'_>, header: &Header, first: BlockIndex) -> Option<Vec<FrameRef>> {
    let mut offset = f.u64()?;
    let count = f.u32()?;
    if u64::from(count) > LEAF_BLOCKS || (count == 0) != (offset == 0) {
        return None;
    }
    let mut frames: Vec<FrameRef> = Vec::with_capacity(to_usize(u64::from(count)));
    for _ in 0..count {
        let relative = u64::from(f.u16()?);
        let stored_len = f.u32()?;
        let mask = f.u64()?;
        let window = first
            .0
            .checked_add(relative)
            .filter(|_| relative < LEAF_BLOCKS)?;
        frame_len(header, window, mask)?;
        let frame = FrameRef {
            first: BlockIndex(window),
            mask,
            offset,
            stored_len,
        };
        if frames.last().is_some_and(|last| last.first >= frame.first) {
            return None;
        }
        offset = offset.checked_add(frame.record_len())?;
        frames.push(frame);
    }
    Some(frames)
}

/// One child of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Child {
    /// A page of its own.
    Stored {
        digest: Digest,
        offset: u64,
        stored_len: u32,
    },
    /// Every block below has this state.
    Uniform(BlockState),
}

/// The children of page (`level`, `index`). Section 6 of `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) level: u8,
    pub(super) index: u64,
    pub(super) children: Vec<Child>,
}

impl Node {
    /// The blocks below child `i`, clipped to the disk.
    pub(super) fn child_range(&self, header: &Header, i: usize) -> std::ops::Range<u64> {
        let span = span_of(self.level - 1);
        let blocks = header.blocks();
        let index = self
            .index
            .saturating_mul(NODE_CHILDREN)
            .saturating_add(to_u64(i));
        let first = index.saturating_mul(span).min(blocks);
        first..first.saturating_add(span).min(blocks)
    }

    pub(super) fn uniform(&self) -> Option<BlockState> {
        let first = self.children.first()?;
        match first {
            Child::Uniform(state) if self.children.iter().all(|c| c == first) => Some(*state),
            _ => None,
        }
    }

    pub(super) fn encode(&self) -> (Vec<u8>, Digest) {
        let mut out = Vec::with_capacity(4 + self.children.len() * 48);
        out.extend_from_slice(&low16(to_u64(self.children.len())));
        out.extend_from_slice(&[0; 2]);
        for child in &self.children {
            match child {
                Child::Stored { digest, .. } => {
                    out.extend_from_slice(&[1, 0, 0, 0]);
                    out.extend_from_slice(&digest.0);
                }
                Child::Uniform(state) => {
                    out.extend_from_slice(&[2, state.to_byte(), 0, 0]);
                    out.extend_from_slice(&Digest::default().0);
                }
            }
        }
        let digest = node_digest(self.level, self.index, &out);
        for child in &self.children {
            if let Child::Stored {
                offset, stored_len, ..
            } = child
            {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&stored_len.to_le_bytes());
            }
        }
        (out, digest)
    }

    /// Reads the payload of node (`level`, `index`); `None` when any rule of the format is broken.
    pub(super) fn decode(
        bytes: &[u8],
        header: &Header,
        level: u8,
        index: u64,
    ) -> Option<(Node, Digest)> {
        let below = pages_at(header.blocks(), level.checked_sub(1)?);
        let expected = below
            .checked_sub(index.checked_mul(NODE_CHILDREN)?)?
            .min(NODE_CHILDREN);
        let mut f = Fields(bytes);
        let count = f.u16()?;
        f.reserved(2)?;
        (u64::from(count) == expected && count > 0).then_some(())?;
        let mut children = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            children.push(decode_child(&mut f, header)?);
        }
        let committed = bytes.get(..bytes.len() - f.0.len())?;
        let digest = node_digest(level, index, committed);
        for child in &mut children {
            if let Child::Stored {
                offset, stored_len, ..
            } = child
            {
                *offset = f.u64()?;
                *stored_len = f.u32()?;
            }
        }
        f.is_empty().then_some((
            Node {
                level,
                index,
                children,
            },
            digest,
        ))
    }
}

fn decode_child(f: &mut Fields<'_>, header: &Header) -> Option<Child> {
    let kind = f.u8()?;
    let state = f.u8()?;
    f.reserved(2)?;
    let digest = Digest(f.array()?);
    match (kind, state) {
        (1, 0) => Some(Child::Stored {
            digest,
            offset: 0,
            stored_len: 0,
        }),
        (2, state) if digest == Digest::default() => {
            let state = BlockState::from_byte(state).filter(|s| !s.is_stored())?;
            (state != BlockState::Inherit || header.parent.is_some())
                .then_some(Child::Uniform(state))
        }
        _ => None,
    }
}

fn node_digest(level: u8, index: u64, committed: &[u8]) -> Digest {
    let context = "diskstrata table node 1";
    Digest::derive(context, &[&[level], &index.to_le_bytes(), committed])
}

/// The low 16 bits of a number that the format keeps below 2^16.
fn low16(value: u64) -> [u8; 2] {
    let b = value.to_le_bytes();
    [b[0], b[1]]
}

/// The low 32 bits of a number that the format keeps below 2^32.
fn low32(value: u64) -> [u8; 4] {
    let b = value.to_le_bytes();
    [b[0], b[1], b[2], b[3]]
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::sample;
    use super::*;
    use proptest::prelude::*;

    fn leaf() -> Leaf {
        use BlockState::{Data, Unreadable, Unused, Zero};
        Leaf {
            first: BlockIndex(1024),
            states: vec![Zero, Data, Data, Unused, Unused, Unreadable, Zero, Data],
            digests: (0u8..4).map(|i| Digest::of(&[i])).collect(),
            frames: vec![
                FrameRef {
                    first: BlockIndex(1024),
                    mask: 0b0110,
                    offset: 500,
                    stored_len: 100,
                },
                FrameRef {
                    first: BlockIndex(1028),
                    mask: 0b1010,
                    offset: 648,
                    stored_len: 7,
                },
            ],
        }
    }

    fn header() -> Header {
        sample(4096 * (1024 + 8))
    }

    #[test]
    fn leaves_round_trip() {
        let (bytes, digest) = leaf().encode();
        assert_eq!(Leaf::decode(&bytes, &header(), 1), Some((leaf(), digest)));
        assert!(
            Leaf::decode(&bytes, &header(), 0).is_none(),
            "another leaf has other blocks"
        );
        let held = leaf().blocks_of(&leaf().frames[1]);
        assert_eq!(held.len(), 2);
        assert_eq!(held[0].0, BlockIndex(1029));
        assert_eq!(Some(held[1].2), leaf().digest_of(BlockIndex(1031)));
    }

    #[test]
    fn nodes_round_trip() {
        let node = Node {
            level: 1,
            index: 0,
            children: vec![
                Child::Uniform(BlockState::Zero),
                Child::Stored {
                    digest: Digest::of(b"a"),
                    offset: 77,
                    stored_len: 9,
                },
            ],
        };
        let (bytes, digest) = node.encode();
        assert_eq!(Node::decode(&bytes, &header(), 1, 0), Some((node, digest)));
        assert!(
            Node::decode(&bytes, &sample(4096), 1, 0).is_none(),
            "too many children"
        );
    }

    #[test]
    fn the_largest_pages_stay_within_their_limit() {
        let count = LEAF_BLOCKS;
        let leaf = Leaf {
            first: BlockIndex(0),
            states: (0..count)
                .map(|i| {
                    if i % 2 == 0 {
                        BlockState::Data
                    } else {
                        BlockState::Unreadable
                    }
                })
                .collect(),
            digests: vec![Digest::of(b""); to_usize(count)],
            frames: (0..count)
                .map(|i| FrameRef {
                    first: BlockIndex(i),
                    mask: 1,
                    offset: 128 + i,
                    stored_len: 1,
                })
                .collect(),
        };
        assert!(leaf.encode().0.len() <= to_usize(u64::from(super::super::limits::MAX_PAGE_LEN)));
    }

    #[test]
    fn levels_cover_the_disk() {
        assert_eq!(top_level(1), 0);
        assert_eq!(top_level(1024), 0);
        assert_eq!(top_level(1025), 1);
        assert_eq!(top_level(1024 * 256), 1);
        assert_eq!(top_level(1024 * 256 + 1), 2);
        assert_eq!(pages_at(1024 * 256 + 1, 1), 2);
        // 64 PiB in 4 KiB blocks is the deepest tree.
        assert_eq!(top_level(1 << 44), 5);
    }

    proptest! {
        #[test]
        fn a_changed_byte_changes_the_leaf_or_is_refused(at in 0usize..200, value: u8) {
            let (mut bytes, digest) = leaf().encode();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != value);
            bytes[at] = value;
            if let Some((other, other_digest)) = Leaf::decode(&bytes, &header(), 1) {
                prop_assert!(other != leaf());
                let same_content = other.states == leaf().states && other.digests == leaf().digests;
                prop_assert_eq!(same_content, other_digest == digest);
            }
        }
    }
}
