//! Leaf pages: states, digests and frames.

use super::bytes::{Fields, low16, low32};
use super::header::Header;
use super::limits::LEAF_BLOCKS;
use super::record::{RECORD_HEADER_LEN, frame_len};
use super::state::BlockState;
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
