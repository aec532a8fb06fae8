//! Writes the golden images of `fixtures/image/`: the same disk, stored raw and compressed, with ids
//! and times that never change.
//!
//! `cargo run --example make_golden -- FOLDER`

use diskstrata::base::{BlockSize, ByteLen, ByteOffset, Error, to_u64};
use diskstrata::image::{
    Base, BlockState, ByteRange, Compression, Encoder, Header, ImageWriter, Info, Kind, SourceInfo,
    Summary, encode_window,
};
use std::fs;
use std::path::Path;
use uuid::Uuid;

/// Four blocks to a window, 4 KiB blocks, a short last one, and enough blocks for a node page.
const BLOCK: usize = 4096;
const BLOCKS: usize = 2 * 1024 + 7;

fn disk() -> Vec<u8> {
    let mut disk = vec![0; BLOCK * BLOCKS - 123];
    let text: Vec<u8> = b"diskstrata golden image "
        .iter()
        .copied()
        .cycle()
        .take(BLOCK)
        .collect();
    for block in [0, 1, 3, 2050] {
        disk[block * BLOCK..(block + 1) * BLOCK].copy_from_slice(&text);
    }
    let mut noise = blake3::Hasher::new().finalize_xof();
    noise.fill(&mut disk[2 * BLOCK..3 * BLOCK]);
    disk.iter_mut().rev().take(10).for_each(|b| *b = 0x5A);
    disk
}

fn write(path: &Path, id: u128, compression: Compression) -> Result<(), Error> {
    let disk = disk();
    let header = Header {
        id: Uuid::from_u128(id),
        set: Uuid::from_u128(0x5e7),
        sequence: 1,
        parent: None,
        kind: Kind::Full,
        disk_len: ByteLen(to_u64(disk.len())),
        block_size: BlockSize::new(to_u64(BLOCK)).unwrap_or_else(|| unreachable!("4 KiB is one")),
        window_log2: 2,
    };
    let info = Info {
        tool: "make_golden".into(),
        created: 1_700_000_000,
        set: "golden".into(),
        source: SourceInfo {
            name: "golden".into(),
            bytes: header.disk_len.0,
            ..SourceInfo::default()
        },
        comment: Some("kept for ever".into()),
        ..Info::default()
    };
    let tables = [(ByteOffset(0), disk[..512].to_vec())];
    let mut encoder = Encoder::new(compression)?;
    let mut scratch = Vec::new();
    let mut writer = ImageWriter::start(Vec::new(), "golden", header.clone(), &info, &tables)?;
    for data in disk.chunks(header.window_len()) {
        let first = writer.next();
        // One block in use but unreadable, one not in use, besides data and zeros.
        let known: Vec<_> = (first.0..)
            .zip(data.chunks(BLOCK))
            .map(|(block, _)| match block {
                3 => Some(BlockState::Unreadable),
                9 => Some(BlockState::Unused),
                _ => None,
            })
            .collect();
        writer.push_window(&encode_window(
            &header,
            first,
            data,
            &known,
            &Base::None,
            &mut encoder,
            &mut scratch,
        )?)?;
    }
    let unreadable = vec![ByteRange {
        start: 3 * to_u64(BLOCK),
        length: 512,
    }];
    let summary = Summary {
        finished: 1_700_000_001,
        unreadable,
        ..Summary::default()
    };
    let (bytes, finished) = writer.finish(summary)?;
    println!("{} {} {}", path.display(), bytes.len(), finished.root);
    fs::write(path, bytes).map_err(|e| {
        Error::new(
            diskstrata::base::ErrorKind::Destination,
            "write",
            path.display().to_string(),
        )
        .caused_by(e)
    })
}

fn main() -> Result<(), Error> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    write(
        &Path::new(&folder).join("v1-raw.strata"),
        0x901d_0001,
        Compression::None,
    )?;
    write(
        &Path::new(&folder).join("v1-zstd.strata"),
        0x901d_0002,
        Compression::Zstd(9),
    )?;
    println!("disk {}", blake3::hash(&disk()).to_hex());
    Ok(())
}
