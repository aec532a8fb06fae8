//! Turning the bytes of one window into block states, digests and a frame payload.

use super::codec::Encoder;
use super::header::Header;
use super::record::Codec;
use super::state::BlockState;
use crate::base::{BlockIndex, Digest, Result, to_u64, to_usize};

/// One window, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedWindow {
    pub(super) first: BlockIndex,
    pub(super) states: Vec<BlockState>,
    pub(super) digests: Vec<Digest>,
    pub(super) frame: Option<EncodedFrame>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EncodedFrame {
    pub(super) mask: u64,
    pub(super) codec: Codec,
    pub(super) raw_len: u32,
    pub(super) payload: Vec<u8>,
    pub(super) crc: u32,
}

impl EncodedWindow {
    /// How many bytes it will add to the image, record header included.
    pub fn stored_len(&self) -> u64 {
        let header = to_u64(super::record::RECORD_HEADER_LEN);
        self.frame
            .as_ref()
            .map_or(0, |f| to_u64(f.payload.len()) + header)
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u64 {
        to_u64(self.states.len())
    }
}

/// Encodes the window that starts at block `first` and whose content is `data`, to the window's or
/// the disk's end. `known[i]` is the state of block i where that is decided already; every other
/// block, and all when `known` is empty, is Zero or Data as its bytes say. Each block is looked at
/// once: zero test, digest, compression.
///
/// # Errors
/// `Internal` when the compressor fails.
pub fn encode_window(
    header: &Header,
    first: BlockIndex,
    data: &[u8],
    known: &[Option<BlockState>],
    encoder: &mut Encoder,
    scratch: &mut Vec<u8>,
) -> Result<EncodedWindow> {
    let mut states = Vec::with_capacity(to_usize(header.window_blocks()));
    let mut digests = Vec::new();
    let mut mask = 0u64;
    for (i, block) in data.chunks(header.block_size.as_usize()).enumerate() {
        let state = match known.get(i).copied().flatten() {
            Some(state) => state,
            None if is_zero(block) => BlockState::Zero,
            None => BlockState::Data,
        };
        if state.is_stored() {
            digests.push(Digest::of(block));
            mask |= 1 << i;
        }
        states.push(state);
    }
    let frame = match mask {
        0 => None,
        _ => Some(encode_frame(
            held(header, data, mask, scratch),
            mask,
            encoder,
        )?),
    };
    Ok(EncodedWindow {
        first,
        states,
        digests,
        frame,
    })
}

/// The blocks in `mask`, back to back; `data` itself where they already are.
fn held<'a>(header: &Header, data: &'a [u8], mask: u64, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let size = header.block_size.as_usize();
    if to_usize(u64::from(mask.count_ones())) == data.len().div_ceil(size) {
        return data;
    }
    scratch.clear();
    for (i, block) in data.chunks(size).enumerate() {
        if mask >> i & 1 == 1 {
            scratch.extend_from_slice(block);
        }
    }
    scratch
}

fn encode_frame(raw: &[u8], mask: u64, encoder: &mut Encoder) -> Result<EncodedFrame> {
    let (codec, stored) = encoder.encode(raw)?;
    let payload = match codec {
        Codec::Raw => raw.to_vec(),
        Codec::Zstd => stored.to_vec(),
    };
    let crc = crc32fast::hash(&payload);
    // A window is at most 4 MiB, see `limits::MAX_FRAME_LOG2`.
    let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
    Ok(EncodedFrame {
        mask,
        codec,
        raw_len,
        payload,
        crc,
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
    use super::super::header::tests::sample;
    use super::*;

    #[test]
    fn states_follow_what_is_known_and_the_bytes() {
        use BlockState::{Data, Unreadable, Unused, Zero};
        // Four blocks: unused garbage, zeros, data with a bad sector, short data.
        let header = sample(4096 * 3 + 10);
        let mut data = vec![7; 4096 * 3 + 10];
        data[4096..8192].fill(0);
        let known = [Some(Unused), None, Some(Unreadable), None];
        let mut encoder = Encoder::new(Compression::None).unwrap();
        let first = BlockIndex(0);
        let window =
            encode_window(&header, first, &data, &known, &mut encoder, &mut Vec::new()).unwrap();
        assert_eq!(window.states, [Unused, Zero, Unreadable, Data]);
        assert_eq!(
            window.digests,
            [Digest::of(&[7; 4096]), Digest::of(&[7; 10])]
        );
        let frame = window.frame.unwrap();
        assert_eq!(frame.mask, 0b1100);
        assert_eq!(frame.payload, vec![7; 4096 + 10]);
    }
}
