//! Small images for tests.

use super::header::tests::sample;
use super::{Base, Compression, Encoder, ImageReader, ImageWriter, Info, Summary, encode_window};
use crate::base::to_u64;
use std::sync::Arc;

/// A full image of `disk` with blocks of 4 KiB.
pub(crate) fn image_of(disk: &[u8]) -> Vec<u8> {
    let header = sample(to_u64(disk.len()));
    let (info, mut scratch) = (Info::default(), Vec::new());
    let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
    let mut writer = ImageWriter::start(Vec::new(), "memory", header.clone(), &info, &[]).unwrap();
    for data in disk.chunks(header.window_len()) {
        let first = writer.next();
        let window = encode_window(
            &header,
            first,
            data,
            &[],
            &Base::None.into(),
            &mut encoder,
            &mut scratch,
        );
        writer.push_window(&window.unwrap()).unwrap();
    }
    writer.finish(Summary::default()).unwrap().0
}

/// The image in `bytes`.
pub(crate) fn open(bytes: Vec<u8>) -> ImageReader {
    ImageReader::open(Arc::new(bytes)).unwrap()
}
