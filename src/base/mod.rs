//! The words every other room speaks: positions and lengths with units, sets of blocks, errors,
//! events, cancellation, ids and digests.
//!
//! Promises: arithmetic never wraps; no I/O, clock, environment or randomness; nothing here knows
//! of disks, images or people.

mod aligned;
mod block_map;
mod cancel;
mod checksum;
mod digest;
mod error;
mod event;
mod extent;
mod key_set_id;
mod range_read;
mod text;
mod throttle;
mod units;

pub use aligned::AlignedBuf;
pub use block_map::BlockMap;
pub use cancel::Cancel;
pub use checksum::checksum_matches;
pub use digest::Digest;
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Observer, Phase, Silent};
pub use extent::{Extent, normalize, outside, subtract};
pub use key_set_id::KeySetId;
#[cfg(test)]
pub(crate) use range_read::testing::Announced;
pub use range_read::{RangeRead, past_end};
pub use text::{is_unprintable, printable};
pub use throttle::{Rates, Throttle};
pub use units::{
    BlockIndex, BlockSize, ByteLen, ByteOffset, Geometry, SectorSize, to_u64, to_usize,
};
