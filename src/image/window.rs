//! Turning the bytes of one window into blocks and a frame.

use super::codec::Encoder;
use super::header::Header;
use super::leaf::Leaf;
use super::record::Codec;
use super::state::{Block, BlockState};
use super::unfinished::KeptLeaf;
use crate::base::{BlockIndex, Digest, Result, to_u64, to_usize};
use std::sync::Arc;

/// One window, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedWindow {
    pub(super) first: BlockIndex,
    pub(super) blocks: Vec<Block>,
    pub(super) frame: Option<EncodedFrame>,
}

/// A frame in its stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFrame {
    pub(super) mask: u64,
    pub(super) codec: Codec,
    pub(super) raw_len: u32,
    pub(super) payload: Vec<u8>,
    pub(super) crc: u32,
    /// Where its record stands in the file already, if it was taken from there.
    pub(super) at: Option<u64>,
}

impl EncodedWindow {
    /// `blocks` from block `first` on, of which `frame` holds those that are newer than the parent.
    pub fn with_frame(
        first: BlockIndex,
        blocks: Vec<Block>,
        frame: Option<EncodedFrame>,
    ) -> EncodedWindow {
        EncodedWindow {
            first,
            blocks,
            frame,
        }
    }

    /// How many bytes it will add to the image, record header included.
    pub fn stored_len(&self) -> u64 {
        let header = to_u64(super::record::RECORD_HEADER_LEN);
        self.frame
            .as_ref()
            .map_or(0, |f| to_u64(f.payload.len()) + header)
    }
}

/// What is known of a window beside its bytes.
#[derive(Debug, Clone)]
pub struct Around {
    /// What the parent says of it.
    pub base: Base,
    /// What the file holds of it already.
    pub kept: Option<Arc<KeptLeaf>>,
}

impl From<Base> for Around {
    fn from(base: Base) -> Around {
        Around { base, kept: None }
    }
}

/// What the parent says of a window.
#[derive(Debug, Clone)]
pub enum Base {
    /// There is none, or its table cannot be read there: every block is new.
    None,
    /// All blocks are like this one, which has no content.
    Uniform(Block),
    /// As in this leaf.
    Leaf(Arc<Leaf>),
}

impl Base {
    /// What it says of block `index`.
    pub fn block(&self, index: BlockIndex) -> Option<Block> {
        match self {
            Base::None => None,
            Base::Uniform(block) => Some(*block),
            Base::Leaf(leaf) => leaf.block(index).copied(),
        }
    }
}

/// Encodes the window that starts at block `first` and whose content is `data`, to the window's or
/// the disk's end. `known[i]` is the state of block i where that is decided already; every other
/// block, and all when `known` is empty, is Zero or Data as its bytes say. What the base in `around` holds already
/// is not stored again. Each block is looked at once: zero test, digest, compression. Where a leaf is kept that
/// says the same of the window, its frame is taken instead of compressing.
///
/// # Errors
/// `Internal` when the compressor fails, or a frame does not decode to what went in.
pub fn encode_window(
    header: &Header,
    first: BlockIndex,
    data: &[u8],
    known: &[Option<BlockState>],
    around: &Around,
    encoder: &mut Encoder,
    scratch: &mut Vec<u8>,
) -> Result<EncodedWindow> {
    let Around { base, kept } = around;
    let mut blocks = Vec::with_capacity(to_usize(header.window_blocks()));
    let mut mask = 0u64;
    for (i, bytes) in data.chunks(header.block_size.as_usize()).enumerate() {
        let state = known.get(i).copied().flatten();
        let index = BlockIndex(first.0 + to_u64(i));
        let (block, is_new) = describe_block(header, index, bytes, state, base);
        if is_new && block.state.has_content() {
            mask |= 1 << i;
        }
        blocks.push(block);
    }
    let frame = match mask {
        0 => None,
        _ => {
            let there = kept.as_ref().and_then(|k| k.frame(first, mask, &blocks));
            let frame = match there {
                Some(frame) => frame,
                None => encode_frame(held(header, data, mask, scratch), mask, encoder)?,
            };
            encoder.prove(header, first, &blocks, &frame)?;
            Some(frame)
        }
    };
    Ok(EncodedWindow {
        first,
        blocks,
        frame,
    })
}

/// What `bytes`, the content of block `index`, are in the image of `header`, and whether that is new: what `base` holds
/// already is since then. `state` is theirs where that is decided already, and then only one with content is looked
/// at; otherwise it is Zero or Data as they say.
pub fn describe_block(
    header: &Header,
    index: BlockIndex,
    bytes: &[u8],
    state: Option<BlockState>,
    base: &Base,
) -> (Block, bool) {
    let state = match state {
        Some(state) => state,
        None if is_zero(bytes) => BlockState::Zero,
        None => BlockState::Data,
    };
    let mut block = Block::empty(state, header.sequence);
    if state.has_content() {
        block.digest = Digest::of(bytes);
    }
    let old = base.block(index).filter(|old| old.is_like(&block));
    block.since = old.map_or(block.since, |old| old.since);
    (block, old.is_none())
}

/// The blocks in `mask`, back to back; a part of `data` itself where they already are.
fn held<'a>(header: &Header, data: &'a [u8], mask: u64, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let size = header.block_size.as_usize();
    let (first, count) = (mask.trailing_zeros(), mask.count_ones());
    let run = mask.checked_shr(first).unwrap_or(0);
    if run.count_ones() == run.trailing_ones() {
        let from = to_usize(u64::from(first)) * size;
        let to = from + to_usize(u64::from(count)) * size;
        return data.get(from..to.min(data.len())).unwrap_or_default();
    }
    scratch.clear();
    for (i, block) in data.chunks(size).enumerate() {
        if mask >> i & 1 == 1 {
            scratch.extend_from_slice(block);
        }
    }
    scratch
}

/// A frame of the blocks in `mask`, whose content is `raw`, back to back: at most 4 MiB.
///
/// # Errors
/// `Internal` when the compressor fails.
pub fn encode_frame(raw: &[u8], mask: u64, encoder: &mut Encoder) -> Result<EncodedFrame> {
    let (codec, payload) = encoder.frame(raw)?;
    let crc = crc32fast::hash(&payload);
    // A window is at most 4 MiB, see `limits::MAX_FRAME_LOG2`.
    let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
    Ok(EncodedFrame {
        mask,
        codec,
        raw_len,
        payload,
        crc,
        at: None,
    })
}

/// Whether every byte is zero. Compares page by page, which the compiler turns into memcmp.
pub fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| chunk == &ZEROS[..chunk.len()])
}

#[cfg(test)]
mod tests {
    use super::super::codec::Compression;
    use super::super::header::tests::{child_of, sample};
    use super::*;
    use BlockState::{Data, Unreadable, Unused, Zero};

    fn encode(
        header: &Header,
        data: &[u8],
        known: &[Option<BlockState>],
        base: &Base,
    ) -> EncodedWindow {
        let mut encoder = Encoder::new(Compression::None).unwrap();
        let scratch = &mut Vec::new();
        encode_window(
            header,
            BlockIndex(0),
            data,
            known,
            &base.clone().into(),
            &mut encoder,
            scratch,
        )
        .unwrap()
    }

    /// Four blocks: unused garbage, zeros, data with a bad sector, short data.
    fn four() -> (Vec<u8>, [Option<BlockState>; 4]) {
        let mut data = vec![7; 4096 * 3 + 10];
        data[4096..8192].fill(0);
        (data, [Some(Unused), None, Some(Unreadable), None])
    }

    #[test]
    fn states_follow_what_is_known_and_the_bytes() {
        let (data, known) = four();
        let window = encode(&sample(4096 * 3 + 10), &data, &known, &Base::None);
        let states: Vec<BlockState> = window.blocks.iter().map(|b| b.state).collect();
        assert_eq!(states, [Unused, Zero, Unreadable, Data]);
        assert_eq!(window.blocks[2].digest, Digest::of(&[7; 4096]));
        assert_eq!(window.blocks[3].digest, Digest::of(&[7; 10]));
        assert!(window.blocks.iter().all(|b| b.since == 1));
        let frame = window.frame.unwrap();
        assert_eq!(frame.mask, 0b1100);
        assert_eq!(frame.payload, vec![7; 4096 + 10]);
    }

    #[test]
    fn a_frame_has_the_blocks_of_its_mask_and_no_others() {
        let data: Vec<u8> = (0..5u8)
            .flat_map(|b| vec![b; 4096])
            .chain([5; 10])
            .collect();
        let header = sample(to_u64(data.len()));
        for mask in 0..1u64 << 6 {
            let of_mask = data.chunks(4096).enumerate();
            let of_mask = of_mask.filter(|(i, _)| mask >> i & 1 == 1);
            let expected: Vec<u8> = of_mask.flat_map(|(_, b)| b.to_vec()).collect();
            assert!(
                held(&header, &data, mask, &mut Vec::new()) == expected,
                "{mask:b}"
            );
        }
    }

    #[test]
    fn what_the_parent_holds_is_not_stored_again() {
        let (mut data, known) = four();
        let full = sample(4096 * 3 + 10);
        let header = child_of(&full, 1, 2);
        let first = encode(&full, &data, &known, &Base::None);
        let leaf = Leaf {
            first: BlockIndex(0),
            blocks: first.blocks,
            frames: vec![],
        };
        let base = Base::Leaf(Arc::new(leaf));
        let same = encode(&header, &data, &known, &base);
        assert_eq!(same.frame, None);
        assert!(same.blocks.iter().all(|b| b.since == 1));
        data[4096 * 3] = 8;
        let known = [Some(Unused), Some(Unused), None, None];
        let other = encode(&header, &data, &known, &base);
        let since: Vec<u32> = other.blocks.iter().map(|b| b.since).collect();
        assert_eq!(
            since,
            [1, 2, 2, 2],
            "zero to unused, readable again, changed"
        );
        assert_eq!(other.frame.unwrap().mask, 0b1100);
    }

    #[test]
    fn a_uniform_parent_has_no_content() {
        let header = child_of(&sample(4096 * 2), 1, 2);
        let base = Base::Uniform(Block::empty(Zero, 1));
        let mut data = vec![0; 8192];
        data[8191] = 1;
        let window = encode(&header, &data, &[], &base);
        let since: Vec<u32> = window.blocks.iter().map(|b| b.since).collect();
        assert_eq!(since, [1, 2]);
    }
}
