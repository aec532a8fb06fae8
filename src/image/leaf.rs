//! Leaf pages: states, digests and frames.

use super::bytes::{Fields, low16, low32};
use super::header::Header;
use super::limits::LEAF_BLOCKS;
use super::page::Content;
use super::record::{RECORD_HEADER_LEN, frame_len};
use super::state::{Block, BlockState};
use super::tree::leaf_len;
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

    /// The blocks it holds, in the order of its payload.
    pub fn blocks(&self) -> impl Iterator<Item = BlockIndex> + use<> {
        let (first, mask) = (self.first.0, self.mask);
        (0..64)
            .filter(move |bit| mask >> bit & 1 == 1)
            .map(move |bit| BlockIndex(first + bit))
    }
}

/// Up to 256 blocks, and the frames of those that were recorded in the same file. Section 6 of
/// `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Number of the first block.
    pub first: BlockIndex,
    /// All blocks of the leaf, those of older images too.
    pub blocks: Vec<Block>,
    /// Ascending; their masks together are exactly the blocks with content that were recorded after
    /// the parent.
    pub frames: Vec<FrameRef>,
}

impl Leaf {
    /// Number of this leaf.
    pub fn index(&self) -> u64 {
        self.first.0 / LEAF_BLOCKS
    }

    /// The number behind that of the last block.
    pub fn end(&self) -> u64 {
        self.first.0 + to_u64(self.blocks.len())
    }

    /// Block `index`, if it is one of this leaf.
    pub fn block(&self, index: BlockIndex) -> Option<&Block> {
        let at = index.0.checked_sub(self.first.0)?;
        self.blocks.get(to_usize(at))
    }

    /// The frame that holds block `index`.
    pub fn frame_of(&self, index: BlockIndex) -> Option<&FrameRef> {
        frame_of(&self.frames, index)
    }

    /// The image that recorded something here last.
    pub fn since(&self) -> u32 {
        self.blocks.iter().map(|b| b.since).max().unwrap_or(0)
    }

    /// The state and image of every block, when all have the same and none has content.
    pub(super) fn uniform(&self) -> Option<(BlockState, u32)> {
        let first = self.blocks.first()?;
        let same = !first.state.has_content() && self.blocks.iter().all(|b| b == first);
        same.then_some((first.state, first.since))
    }

    /// What the page digest commits to, and what a parent page says of it.
    fn committed(&self) -> Vec<u8> {
        let runs = runs(self.blocks.iter().map(|b| b.state));
        let digests = self.blocks.iter().filter(|b| b.state.has_content());
        let count = digests.clone().count();
        let mut out = Vec::with_capacity(8 + runs.len() * 4 + count * Digest::LEN);
        out.extend_from_slice(&low16(to_u64(runs.len())));
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&low32(to_u64(count)));
        for (state, count) in runs {
            out.extend_from_slice(&[state.to_byte(), 0]);
            out.extend_from_slice(&low16(count));
        }
        digests.for_each(|b| out.extend_from_slice(&b.digest.0));
        out
    }

    /// The payload, the page digest, and what the page above says of it.
    pub(super) fn encode(&self) -> (Vec<u8>, Digest, Content) {
        let mut out = self.committed();
        let digest = leaf_digest(self.index(), &out);
        let runs = runs(self.blocks.iter().map(|b| b.since));
        out.extend_from_slice(&low16(to_u64(runs.len())));
        out.extend_from_slice(&[0; 2]);
        for (since, count) in runs {
            out.extend_from_slice(&since.to_le_bytes());
            out.extend_from_slice(&low16(count));
            out.extend_from_slice(&[0; 2]);
        }
        let start = self.frames.first().map_or(0, |f| f.offset);
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(&low32(to_u64(self.frames.len())));
        for frame in &self.frames {
            out.extend_from_slice(&low16(frame.first.0 - self.first.0));
            out.extend_from_slice(&frame.stored_len.to_le_bytes());
            out.extend_from_slice(&frame.mask.to_le_bytes());
        }
        (out, digest, self.content(digest))
    }

    fn content(&self, digest: Digest) -> Content {
        let state = self.blocks.first().map(|b| b.state);
        match state.filter(|s| !s.has_content() && self.blocks.iter().all(|b| b.state == *s)) {
            Some(state) => Content::Uniform(state),
            None => Content::Mixed(digest),
        }
    }

    /// Reads the payload of leaf `index`; `None` when any rule of the format is broken.
    pub(super) fn decode(
        bytes: &[u8],
        header: &Header,
        index: u64,
    ) -> Option<(Leaf, Digest, Content)> {
        let count = leaf_len(header, index);
        let first = BlockIndex(index.checked_mul(LEAF_BLOCKS)?);
        let mut f = Fields(bytes);
        let mut blocks = decode_states(&mut f, count)?;
        let committed = bytes.get(..bytes.len() - f.0.len())?;
        let digest = leaf_digest(index, committed);
        decode_since(&mut f, header, &mut blocks)?;
        let frames = decode_frames(&mut f, header, first)?;
        f.is_empty().then_some(())?;
        let leaf = Leaf {
            first,
            blocks,
            frames,
        };
        leaf.frames_hold_what_is_new(header.parent_sequence())
            .then_some(())?;
        let content = leaf.content(digest);
        Some((leaf, digest, content))
    }

    /// Only the frames in the payload of leaf `index`: nothing is hashed, the rest is passed over. `None`
    /// when the payload is no leaf.
    pub(super) fn decode_frames(
        bytes: &[u8],
        header: &Header,
        index: u64,
    ) -> Option<Vec<FrameRef>> {
        let mut f = Fields(bytes);
        let states = usize::from(f.u16()?);
        f.reserved(2)?;
        let digests = to_usize(u64::from(f.u32()?));
        f.bytes(
            states
                .checked_mul(4)?
                .checked_add(digests.checked_mul(Digest::LEN)?)?,
        )?;
        let since = usize::from(f.u16()?);
        f.reserved(2)?;
        f.bytes(since.checked_mul(8)?)?;
        let first = BlockIndex(index.checked_mul(LEAF_BLOCKS)?);
        let frames = decode_frames(&mut f, header, first)?;
        f.is_empty().then_some(frames)
    }

    pub(super) fn frames_hold_what_is_new(&self, parent: u32) -> bool {
        let mut held = vec![false; self.blocks.len()];
        for block in self.frames.iter().flat_map(FrameRef::blocks) {
            match held.get_mut(to_usize(block.0 - self.first.0)) {
                Some(slot) if !*slot => *slot = true,
                _ => return false,
            }
        }
        held.iter()
            .zip(&self.blocks)
            .all(|(held, block)| *held == (block.state.has_content() && block.since > parent))
    }
}

/// The one of `frames`, ascending, that holds block `index`.
pub fn frame_of(frames: &[FrameRef], index: BlockIndex) -> Option<&FrameRef> {
    let near = frames.partition_point(|f| f.first <= index);
    let frame = frames.get(near.checked_sub(1)?)?;
    let bit = index.0 - frame.first.0;
    (bit < 64 && frame.mask >> bit & 1 == 1).then_some(frame)
}

/// Runs of equal values with their lengths.
fn runs<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<(T, u64)> {
    let mut runs: Vec<(T, u64)> = Vec::new();
    for value in values {
        match runs.last_mut() {
            Some((last, count)) if *last == value => *count += 1,
            _ => runs.push((value, 1)),
        }
    }
    runs
}

fn leaf_digest(index: u64, committed: &[u8]) -> Digest {
    Digest::derive(
        "diskstrata table leaf 1",
        &[&index.to_le_bytes(), committed],
    )
}

fn decode_states(f: &mut Fields<'_>, count: u64) -> Option<Vec<Block>> {
    let runs = f.u16()?;
    f.reserved(2)?;
    let digests = f.u32()?;
    let mut blocks = Vec::with_capacity(to_usize(count));
    let mut last = None;
    for _ in 0..runs {
        let state = BlockState::from_byte(f.u8()?)?;
        f.reserved(1)?;
        let len = usize::from(f.u16()?);
        if len == 0 || last == Some(state) || to_u64(blocks.len() + len) > count {
            return None;
        }
        blocks.resize(blocks.len() + len, Block::empty(state, 0));
        last = Some(state);
    }
    if to_u64(blocks.len()) != count || count == 0 {
        return None;
    }
    let with_content = blocks.iter_mut().filter(|b| b.state.has_content());
    let mut found = 0;
    for block in with_content {
        block.digest = Digest(f.array()?);
        found += 1;
    }
    (digests == found).then_some(blocks)
}

fn decode_since(f: &mut Fields<'_>, header: &Header, blocks: &mut [Block]) -> Option<()> {
    let runs = f.u16()?;
    f.reserved(2)?;
    let mut rest = blocks.iter_mut();
    let mut last = None;
    for _ in 0..runs {
        let since = f.u32()?;
        let len = usize::from(f.u16()?);
        f.reserved(2)?;
        if len == 0 || last == Some(since) || !(1..=header.sequence).contains(&since) {
            return None;
        }
        for _ in 0..len {
            rest.next()?.since = since;
        }
        last = Some(since);
    }
    rest.next().is_none().then_some(())
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

#[cfg(test)]
mod tests {
    use super::super::header::tests::{child_of, sample};
    use super::*;
    use proptest::prelude::*;

    fn data(seed: u8, since: u32) -> Block {
        Block {
            state: BlockState::Data,
            since,
            digest: Digest::of(&[seed]),
        }
    }

    /// Eight blocks of an image at place 5 whose parent is at place 4.
    fn leaf() -> Leaf {
        use BlockState::{Unreadable, Unused, Zero};
        Leaf {
            first: BlockIndex(LEAF_BLOCKS),
            blocks: vec![
                Block::empty(Zero, 5),
                data(1, 5),
                data(2, 2),
                Block::empty(Unused, 4),
                Block::empty(Unused, 4),
                Block {
                    state: Unreadable,
                    ..data(3, 5)
                },
                Block::empty(Zero, 1),
                data(4, 5),
            ],
            frames: vec![
                FrameRef {
                    first: BlockIndex(LEAF_BLOCKS),
                    mask: 0b0010,
                    offset: 500,
                    stored_len: 100,
                },
                FrameRef {
                    first: BlockIndex(LEAF_BLOCKS + 4),
                    mask: 0b1010,
                    offset: 648,
                    stored_len: 7,
                },
            ],
        }
    }

    fn header() -> Header {
        child_of(&sample(4096 * (LEAF_BLOCKS + 8)), 4, 5)
    }

    #[test]
    fn leaves_round_trip() {
        let (bytes, digest, content) = leaf().encode();
        let expected = Some((leaf(), digest, content));
        assert_eq!(Leaf::decode(&bytes, &header(), 1), expected);
        let frames = Leaf::decode_frames(&bytes, &header(), 1);
        assert_eq!(frames, Some(leaf().frames));
        for len in 0..bytes.len() {
            assert_eq!(Leaf::decode_frames(&bytes[..len], &header(), 1), None);
        }
        assert_eq!(content, Content::Mixed(digest));
        assert!(
            Leaf::decode(&bytes, &header(), 0).is_none(),
            "another leaf has other blocks"
        );
        let found = |block: u64| leaf().frame_of(BlockIndex(LEAF_BLOCKS + block)).copied();
        assert_eq!(found(7), Some(leaf().frames[1]));
        assert_eq!(found(1), Some(leaf().frames[0]));
        assert_eq!(found(2), None, "an older image has it");
        assert_eq!(leaf().since(), 5);
    }

    #[test]
    fn what_a_frame_must_hold_depends_on_the_parent() {
        let (bytes, ..) = leaf().encode();
        let older_parent = child_of(&sample(4096 * (LEAF_BLOCKS + 8)), 1, 5);
        assert_eq!(
            Leaf::decode(&bytes, &older_parent, 1),
            None,
            "block 2 is newer than this parent and has no frame"
        );
        let older = child_of(&sample(4096 * (LEAF_BLOCKS + 8)), 3, 4);
        assert_eq!(
            Leaf::decode(&bytes, &older, 1),
            None,
            "nothing is recorded by a later image"
        );
    }

    #[test]
    fn the_content_does_not_tell_who_recorded_it() {
        let empty = |since: [u32; 2]| Leaf {
            first: BlockIndex(0),
            blocks: since.map(|s| Block::empty(BlockState::Unused, s)).to_vec(),
            frames: vec![],
        };
        let content = |leaf: &Leaf| leaf.encode().2;
        assert_eq!(content(&empty([1, 2])), content(&empty([3, 3])));
        assert_eq!(
            content(&empty([1, 2])),
            Content::Uniform(BlockState::Unused)
        );
        assert_eq!(empty([1, 2]).uniform(), None);
        assert_eq!(empty([3, 3]).uniform(), Some((BlockState::Unused, 3)));
        let mut newer = leaf();
        newer.blocks.iter_mut().for_each(|b| b.since = 5);
        assert_eq!(content(&newer), content(&leaf()));
    }

    #[test]
    fn the_largest_pages_stay_within_their_limit() {
        let leaf = Leaf {
            first: BlockIndex(0),
            blocks: (0..LEAF_BLOCKS)
                .map(|i| Block {
                    state: if i % 2 == 0 {
                        BlockState::Data
                    } else {
                        BlockState::Unreadable
                    },
                    since: u32::try_from(i + 1).unwrap(),
                    digest: Digest::of(b""),
                })
                .collect(),
            frames: (0..LEAF_BLOCKS)
                .map(|i| FrameRef {
                    first: BlockIndex(i),
                    mask: 1,
                    offset: 128 + i,
                    stored_len: 1,
                })
                .collect(),
        };
        let longest = to_usize(u64::from(super::super::limits::MAX_PAGE_LEN));
        assert_eq!(leaf.encode().0.len(), 14_872);
        assert!(14_872 <= longest);
    }

    proptest! {
        #[test]
        fn a_changed_byte_changes_the_leaf_or_is_refused(at in 0usize..300, value: u8) {
            let (mut bytes, digest, _) = leaf().encode();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != value);
            bytes[at] = value;
            if let Some((other, other_digest, _)) = Leaf::decode(&bytes, &header(), 1) {
                prop_assert!(other != leaf());
                let same = other.blocks.iter().zip(&leaf().blocks).all(|(a, b)| a.is_like(b));
                prop_assert_eq!(same, other_digest == digest);
            }
        }
    }
}
