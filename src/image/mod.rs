//! One image file: `docs/format.md` made code.
//!
//! Promises: written front to back, read by range; every byte is checked before it is believed;
//! memory follows the sizes in [`limits`], never what a file claims. Must not know: where files
//! live, devices, partitions, which other image of a history a file needs beyond its number.

mod bytes;
mod codec;
mod ends;
mod fetched;
mod frame_reader;
mod header;
mod info;
mod leaf;
pub mod limits;
mod node;
mod noise;
mod page;
mod proof;
mod reader;
mod rebuild;
mod record;
mod resolved;
mod salvage;
mod state;
mod stream;
mod table;
mod table_copy;
#[cfg(test)]
pub(crate) mod testing;
mod trailer;
mod tree;
mod unfinished;
mod walk;
mod window;
mod writer;

pub use codec::{Compression, Decoder, Encoder, Payloads, USUAL_LEVEL};
pub use fetched::FrameFetcher;
pub use frame_reader::{FrameReader, FrameSource, mismatch};
pub use header::{HEADER_LEN, Header, Kind, Parent};
pub use info::{
    BlockCounts, ByteRange, HealedInfo, HostInfo, Info, InsideInfo, PartitionInfo, RawTable,
    SourceInfo, Summary, TakeInfo,
};
pub use leaf::{FrameRef, Leaf, frame_of};
pub use node::{Child, Node, PagePlace};
pub use page::{Body, Content, Page};
pub use proof::{EncoderFault, Encoding, Proof};
pub use reader::ImageReader;
pub use rebuild::rebuild;
pub use record::RECORD_HEADER_LEN;
pub use resolved::{
    BlockStates, BlockTable, OlderFiles, Piece, Source, Unasked, Window, read_window,
};
pub use salvage::{Salvaged, salvage};
pub use state::{Block, BlockState};
pub use stream::{Beginning, Ending, ImageStream, StreamLeaf, StreamPiece};
pub use table_copy::{TableCopy, TableCopyWriter};
pub use trailer::{RecordRef, TRAILER_LEN};
pub use tree::span_of;
pub use unfinished::{KeptLeaf, Unfinished};
pub use walk::FilePiece;
pub use window::{
    Around, Base, EncodedFrame, EncodedWindow, describe_block, encode_frame, encode_window, is_zero,
};
pub use writer::{Finished, ImageWriter, Sections, Told};
