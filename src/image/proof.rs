//! Is what was compressed still what went in? Memory that flips a bit, or a processor that computes wrongly, would
//! else be noticed when somebody restores.

use super::codec::{Compression, Decoder};
use super::header::Header;
use super::state::Block;
use super::window::EncodedFrame;
use crate::base::{BlockIndex, Digest, Error, ErrorKind, Result, to_u64, to_usize};

/// Which share of new frames is decoded again before it is written: one in so many, the first one among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    every: u64,
}

impl Proof {
    /// One in 64, of each thread: below one per cent of what compressing takes, and memory or a processor that
    /// fails now and then is caught within a few GiB.
    pub const SAMPLED: Proof = Proof { every: 64 };
    /// All of them.
    pub const ALL: Proof = Proof { every: 1 };
}

/// How frames are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// How new payloads are stored.
    pub compression: Compression,
    /// How many of them are decoded again.
    pub proof: Proof,
    /// What goes wrong, for tests.
    pub fault: Option<EncoderFault>,
}

impl From<Compression> for Encoding {
    fn from(compression: Compression) -> Encoding {
        Encoding {
            compression,
            proof: Proof::SAMPLED,
            fault: None,
        }
    }
}

/// A bit that flips in a frame after it was compressed, as in memory that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderFault {
    /// In the so many-th frame of each thread, from 1.
    pub frame: u64,
    /// Which bit of the payload; behind its end it begins again.
    pub bit: u64,
}

impl EncoderFault {
    /// Does it to frame number `frame`, before its checksum is computed.
    pub(super) fn strike(self, frame: u64, payload: &mut [u8]) {
        let byte = (self.bit / 8).checked_rem(to_u64(payload.len()));
        let byte = byte.and_then(|at| payload.get_mut(to_usize(at)));
        if let Some(byte) = byte.filter(|_| frame == self.frame) {
            *byte ^= 1 << (self.bit % 8);
        }
    }
}

/// Decodes frames again, as many as a [`Proof`] says. One for each thread.
#[derive(Debug)]
pub(super) struct Prover {
    proof: Proof,
    /// Frames so far.
    seen: u64,
    decoder: Decoder,
    decoded: Vec<u8>,
}

impl Prover {
    pub(super) fn new(proof: Proof) -> Result<Prover> {
        Ok(Prover {
            proof,
            seen: 0,
            decoder: Decoder::new()?,
            decoded: Vec::new(),
        })
    }

    /// Decodes `frame`, if it is its turn, and compares it with the digests of `blocks`, a window from block
    /// `first` on. These were computed before anything was compressed, so they tell also of what has changed in
    /// between.
    ///
    /// # Errors
    /// `Internal` when it is not what went in.
    pub(super) fn check(
        &mut self,
        header: &Header,
        first: BlockIndex,
        blocks: &[Block],
        frame: &EncodedFrame,
    ) -> Result<()> {
        let is_due = self.seen.is_multiple_of(self.proof.every);
        self.seen += 1;
        if !is_due || self.is_right(header, blocks, frame) {
            return Ok(());
        }
        let extent = header.extent_of(&(first.0..first.0 + to_u64(blocks.len())));
        let what = format!("what was compressed of {extent} of the disk");
        Err(Error::new(ErrorKind::Internal, "trust", what)
            .because(
                "it does not decode to what went in: the memory or the processor of this machine \
                 cannot be trusted",
            )
            .hint(
                "test its memory, undo any overclocking, or use another machine; no image was made",
            ))
    }

    fn is_right(&mut self, header: &Header, blocks: &[Block], frame: &EncodedFrame) -> bool {
        self.decoded.resize(to_usize(u64::from(frame.raw_len)), 0);
        let decoded = self
            .decoder
            .decode(frame.codec, &frame.payload, &mut self.decoded);
        let bits = (0..64).filter(|bit| frame.mask >> bit & 1 == 1);
        let digests: Vec<Digest> = bits
            .filter_map(|bit: usize| blocks.get(bit))
            .map(|block| block.digest)
            .collect();
        let held = self.decoded.chunks(header.block_size.as_usize());
        decoded.is_some()
            && crc32fast::hash(&frame.payload) == frame.crc
            && held.map(Digest::of).eq(digests)
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::Encoder;
    use super::super::header::tests::sample;
    use super::super::window::{Base, encode_window};
    use super::*;

    /// Encodes `count` windows of a disk; says of which one the encoder complains.
    fn complains_at(encoding: Encoding, count: u64) -> Option<u64> {
        let header = sample(4096 * 4 * count);
        let mut encoder = Encoder::new(encoding).unwrap();
        let mut scratch = Vec::new();
        (1..=count).find(|n| {
            let data: Vec<u8> = (0..4096 * 4u64).map(|i| low(i / 7 * n)).collect();
            let first = BlockIndex((n - 1) * 4);
            let (base, scratch) = (&Base::None, &mut scratch);
            let encoded = encode_window(
                &header,
                first,
                &data,
                &[],
                &base.clone().into(),
                &mut encoder,
                scratch,
            );
            let Err(error) = encoded else { return false };
            assert_eq!(error.kind(), ErrorKind::Internal);
            let text = error.to_string();
            assert!(text.contains("memory or the processor"), "{text}");
            true
        })
    }

    fn low(n: u64) -> u8 {
        n.to_le_bytes()[0]
    }

    fn encoding(compression: Compression, proof: Proof, frame: u64, bit: u64) -> Encoding {
        Encoding {
            compression,
            proof,
            fault: Some(EncoderFault { frame, bit }),
        }
    }

    #[test]
    fn a_bit_that_flips_is_found_when_all_frames_are_decoded() {
        for compression in [Compression::None, Compression::Zstd(1)] {
            for bit in 0..2000 {
                let frame = bit % 3 + 1;
                let encoding = encoding(compression, Proof::ALL, frame, bit * 7);
                assert_eq!(
                    complains_at(encoding, 4),
                    Some(frame),
                    "{compression}, bit {bit}"
                );
            }
        }
    }

    #[test]
    fn of_a_sample_one_frame_in_64_is_decoded() {
        let found = |frame| {
            let encoding = encoding(Compression::Zstd(1), Proof::SAMPLED, frame, 300);
            complains_at(encoding, 200)
        };
        let all: Vec<u64> = (1..=200).filter_map(found).collect();
        assert_eq!(all, [1, 65, 129, 193]);
    }

    #[test]
    fn nothing_is_found_where_nothing_is_wrong() {
        for compression in [Compression::None, Compression::Zstd(1)] {
            let mut encoding = Encoding::from(compression);
            assert_eq!((encoding.proof, encoding.fault), (Proof::SAMPLED, None));
            encoding.proof = Proof::ALL;
            assert_eq!(complains_at(encoding, 200), None);
        }
    }
}
