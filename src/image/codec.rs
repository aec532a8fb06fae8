//! Compressing and decompressing payloads.

use super::header::Header;
use super::noise;
use super::proof::{EncoderFault, Encoding, Prover};
use super::record::Codec;
use super::state::Block;
use super::window::{EncodedFrame, EncodedWindow};
use crate::base::{BlockIndex, Error, ErrorKind, Result, to_usize};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// How new payloads are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// zstd at a level from -7 (fastest) to 19.
    Zstd(i32),
    /// zstd at a level from 3 to 19 that follows how fast the sink is.
    Auto,
}

/// The level where nobody says another: [`Compression::Auto`] begins there, and never goes below.
pub const USUAL_LEVEL: i32 = 3;

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Compression::None => f.write_str("none"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
            Compression::Auto => f.write_str("auto"),
        }
    }
}

impl Compression {
    /// Levels a person may ask for. Beyond 19 zstd needs far more memory for little gain.
    pub const LEVELS: std::ops::RangeInclusive<i32> = -7..=19;

    /// What `text` names: `none`, `auto`, or `zstd:LEVEL` with a level that is allowed and not 0.
    pub fn parse(text: &str) -> Option<Compression> {
        match text {
            "none" => return Some(Compression::None),
            "auto" => return Some(Compression::Auto),
            _ => {}
        }
        let level = text.strip_prefix("zstd:")?.parse().ok()?;
        (Compression::LEVELS.contains(&level) && level != 0).then_some(Compression::Zstd(level))
    }
}

/// A payload below this share of saving is stored raw: decoding it would cost more than it saves.
const MIN_SAVING: usize = 32;

/// The level whose tables are made for frames of 1 MiB: with less than half of what zstd takes for data of any length,
/// more of them stays in a core's cache. That takes 7 to 11 per cent less time, and 0.7 per cent more bytes
/// (docs/performance.md).
const TUNED_LEVEL: i32 = 3;

/// Logarithms of the lengths of its hash table and of its chain table.
const TUNED_TABLES: [u32; 2] = [16, 14];

/// What leaves the choice to zstd.
const OWN_TABLES: [u32; 2] = [0, 0];

fn tune(zstd: &mut Compressor<'static>, level: i32) -> io::Result<()> {
    zstd.set_compression_level(level)?;
    let [hash, chain] = match level {
        TUNED_LEVEL => TUNED_TABLES,
        _ => OWN_TABLES,
    };
    zstd.set_parameter(CParameter::HashLog(hash))?;
    zstd.set_parameter(CParameter::ChainLog(chain))
}

/// Payloads between uses: whoever has written one gives it back, and the next is encoded into its memory.
#[derive(Debug, Clone, Default)]
pub struct Payloads(Arc<Mutex<Pool>>);

#[derive(Debug, Default)]
struct Pool {
    kept: Vec<Vec<u8>>,
    /// How many are in use. What comes back beyond that was made elsewhere, and is not kept.
    lent: usize,
}

impl Payloads {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<u8> {
        let mut pool = self.pool();
        pool.lent += 1;
        let mut payload = pool.kept.pop().unwrap_or_default();
        payload.clear();
        payload
    }

    /// Gives back the memory of a window that was written.
    pub fn give(&self, window: EncodedWindow) {
        let Some(frame) = window.frame else {
            return;
        };
        let mut pool = self.pool();
        if pool.lent > 0 {
            pool.lent -= 1;
            pool.kept.push(frame.payload);
        }
    }
}

/// A compressor that keeps its context and buffer between payloads. One for each thread.
pub struct Encoder {
    zstd: Option<Compressor<'static>>,
    level: Option<i32>,
    payloads: Payloads,
    prover: Prover,
    fault: Option<EncoderFault>,
    /// Frames so far.
    frames: u64,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("zstd", &self.zstd.is_some())
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder that makes frames as `encoding` says; of a [`Compression`] alone, a sample is proven.
    ///
    /// # Errors
    /// `Internal` when zstd gives no context (out of memory).
    pub fn new(encoding: impl Into<Encoding>) -> Result<Encoder> {
        let encoding = encoding.into();
        let level = match encoding.compression {
            Compression::None => None,
            Compression::Zstd(level) => Some(level),
            Compression::Auto => Some(USUAL_LEVEL),
        };
        let zstd = level.map(|level| {
            let mut zstd = Compressor::new(level)?;
            tune(&mut zstd, level)?;
            Ok(zstd)
        });
        let zstd = zstd.transpose();
        Ok(Encoder {
            zstd: zstd.map_err(|e| failed("start", e))?,
            level,
            payloads: Payloads::default(),
            prover: Prover::new(encoding.proof)?,
            fault: encoding.fault,
            frames: 0,
        })
    }

    /// The same; payloads are made in what was given back to `payloads`.
    #[must_use]
    pub fn with_payloads(self, payloads: Payloads) -> Encoder {
        Encoder { payloads, ..self }
    }

    /// Compresses at `level` from now on, if at all.
    ///
    /// # Errors
    /// `Internal` when zstd does not take it.
    pub fn set_level(&mut self, level: i32) -> Result<()> {
        if let Some(zstd) = self.zstd.as_mut().filter(|_| self.level != Some(level)) {
            tune(zstd, level).map_err(|e| failed("set the level of", e))?;
            self.level = Some(level);
        }
        Ok(())
    }

    /// Decodes `frame`, which holds some of `blocks`, a window from block `first` on, if its turn has come.
    ///
    /// # Errors
    /// `Internal` when it does not decode to what went in.
    pub fn prove(
        &mut self,
        header: &Header,
        first: BlockIndex,
        blocks: &[Block],
        frame: &EncodedFrame,
    ) -> Result<()> {
        self.prover.check(header, first, blocks, frame)
    }

    /// The payload of a frame of `raw`, and how it is stored.
    pub(super) fn frame(&mut self, raw: &[u8]) -> Result<(Codec, Vec<u8>)> {
        let (codec, mut payload) = self.encode(raw)?;
        self.frames += 1;
        if let Some(fault) = self.fault {
            fault.strike(self.frames, &mut payload);
        }
        Ok((codec, payload))
    }

    /// `raw` in its stored form: compressed when that saves at least 1/32.
    pub(super) fn encode(&mut self, raw: &[u8]) -> Result<(Codec, Vec<u8>)> {
        let mut payload = self.payloads.take();
        if let Some(zstd) = self.zstd.as_mut().filter(|_| !noise::is_noise(raw)) {
            payload.reserve(zstd::zstd_safe::compress_bound(raw.len()));
            let len = zstd
                .compress_to_buffer(raw, &mut payload)
                .map_err(|e| failed("compress", e))?;
            if len <= raw.len() - raw.len() / MIN_SAVING {
                return Ok((Codec::Zstd, payload));
            }
            payload.clear();
        }
        payload.extend_from_slice(raw);
        Ok((Codec::Raw, payload))
    }
}

/// A decompressor that keeps its context between payloads. One for each thread.
pub struct Decoder {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

impl Decoder {
    /// A decoder.
    ///
    /// # Errors
    /// `Internal` when zstd gives no context (out of memory).
    pub fn new() -> Result<Decoder> {
        let zstd = zstd::bulk::Decompressor::new().map_err(|e| failed("start", e))?;
        Ok(Decoder { zstd })
    }

    /// Fills `out` with the decoded payload. `None` when that is longer or shorter: memory never grows,
    /// whatever the payload claims.
    pub(super) fn decode(&mut self, codec: Codec, stored: &[u8], out: &mut [u8]) -> Option<()> {
        match codec {
            Codec::Raw => {
                (stored.len() == out.len()).then_some(())?;
                out.copy_from_slice(stored);
                Some(())
            }
            Codec::Zstd => {
                let len = self.zstd.decompress_to_buffer(stored, out).ok()?;
                (len == out.len()).then_some(())
            }
        }
    }
}

/// Starting a decoder costs more than decoding a table page: as many are kept as were in use at once.
static DECODERS: Mutex<Vec<Decoder>> = Mutex::new(Vec::new());

/// The decoded payload, which is exactly `raw_len` bytes long; `None` when it is not.
///
/// # Errors
/// `Internal` when zstd gives no context (out of memory).
pub(super) fn decode_once(codec: Codec, stored: &[u8], raw_len: u32) -> Result<Option<Vec<u8>>> {
    let kept = || DECODERS.lock().unwrap_or_else(PoisonError::into_inner);
    let decoder = kept().pop();
    let mut decoder = decoder.map_or_else(Decoder::new, Ok)?;
    let mut out = vec![0; to_usize(u64::from(raw_len))];
    let decoded = decoder.decode(codec, stored, &mut out);
    kept().push(decoder);
    Ok(decoded.map(|()| out))
}

fn failed(what: &str, cause: io::Error) -> Error {
    Error::new(ErrorKind::Internal, what, "zstd").caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressible_shrinks_and_noise_stays_raw() {
        let mut encoder = Encoder::new(Compression::Zstd(3)).unwrap();
        let text = vec![b'a'; 100_000];
        let (codec, stored) = encoder.encode(&text).unwrap();
        assert_eq!(codec, Codec::Zstd);
        let out = decode_once(codec, &stored, 100_000).unwrap();
        assert_eq!(out.as_deref(), Some(text.as_slice()));
        assert_eq!(
            decode_once(Codec::Raw, &[1, 2], 2).unwrap(),
            Some(vec![1, 2])
        );
        assert_eq!(decode_once(Codec::Raw, &[1, 2], 3).unwrap(), None);
        let noise: Vec<u8> = (0..3000u32)
            .flat_map(|i| blake3::hash(&i.to_le_bytes()).as_bytes().to_vec())
            .collect();
        assert_eq!(encoder.encode(&noise).unwrap(), (Codec::Raw, noise));
        let mut none = Encoder::new(Compression::None).unwrap();
        assert_eq!(none.encode(&text).unwrap(), (Codec::Raw, text));
    }

    #[test]
    fn frames_of_every_level_decode_and_a_new_level_is_as_good_as_a_new_encoder() {
        let text: Vec<u8> = (0..200_000u32)
            .flat_map(|i| (i % 977 * (i / 1000)).to_string().into_bytes())
            .collect();
        let raw = &text[..600_000];
        let mut kept = Encoder::new(Compression::Zstd(3)).unwrap();
        for level in Compression::LEVELS.filter(|level| *level != 0) {
            let mut new = Encoder::new(Compression::Zstd(level)).unwrap();
            kept.set_level(level).unwrap();
            let (codec, stored) = new.encode(raw).unwrap();
            assert!(kept.encode(raw).unwrap() == (codec, stored.clone()));
            assert_eq!(codec, Codec::Zstd);
            let out = decode_once(codec, &stored, u32::try_from(raw.len()).unwrap());
            assert!(out.unwrap().as_deref() == Some(raw), "{level}");
        }
    }

    #[test]
    fn memory_that_was_given_back_is_used_again() {
        let payloads = Payloads::default();
        let encoder = Encoder::new(Compression::Zstd(1)).unwrap();
        let mut encoder = encoder.with_payloads(payloads.clone());
        let raw = vec![b'a'; 50_000];
        let mut places = std::collections::HashSet::new();
        for _ in 0..10 {
            let (_, payload) = encoder.frame(&raw).unwrap();
            assert_eq!(
                decode_once(Codec::Zstd, &payload, 50_000).unwrap(),
                Some(raw.clone())
            );
            places.insert(payload.as_ptr());
            let frame = EncodedFrame {
                mask: 1,
                codec: Codec::Zstd,
                raw_len: 50_000,
                payload,
                crc: 0,
                at: None,
            };
            payloads.give(EncodedWindow::with_frame(
                BlockIndex(0),
                vec![],
                Some(frame),
            ));
        }
        assert_eq!(places.len(), 1);
    }

    #[test]
    fn a_bomb_does_not_grow() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
        let short = zstd::bulk::compress(&[1; 100], 3).unwrap();
        let mut decoder = Decoder::new().unwrap();
        for stored in [&bomb[..], &bomb[..20], &short[..]] {
            assert_eq!(decoder.decode(Codec::Zstd, stored, &mut [0; 4096]), None);
            assert_eq!(decode_once(Codec::Zstd, stored, 4096).unwrap(), None);
        }
    }
}
