//! Writes the golden images of `fixtures/image/`: the same disk, stored raw and compressed, and an
//! incremental image of the disk a day later, with ids and times that never change.
//!
//! `cargo run --example make_golden -- FOLDER`

use diskstrata::base::{BlockSize, ByteLen, ByteOffset, Error, to_u64};
use diskstrata::chain::ChainView;
use diskstrata::crypt::{
    EncryptWriter, Head, Identity, KeyEntry, KeyKind, KeyRing, KeySet, KeySource, NoKeys,
    Passphrase, UnfinishedFile, protect_identity,
};
use diskstrata::image::{
    Base, Block, BlockState, BlockStates, ByteRange, Compression, Encoder, Header, ImageReader,
    ImageWriter, Info, Kind, Parent, Piece, SourceInfo, Summary, encode_window,
};
use diskstrata::store::{FileName, LocalStore, Store};
use std::fs;
use std::path::Path;
use std::sync::Arc;
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

/// The disk a day later: a block changed, one was zeroed, one is new, and one came into use.
fn next_day() -> Vec<u8> {
    let mut disk = disk();
    disk[BLOCK..2 * BLOCK].fill(0x77);
    disk[2 * BLOCK..3 * BLOCK].fill(0);
    disk[1000 * BLOCK..1001 * BLOCK].fill(0x11);
    disk[9 * BLOCK..10 * BLOCK].fill(0x99);
    disk
}

fn header(id: u128) -> Header {
    Header {
        id: Uuid::from_u128(id),
        set: Uuid::from_u128(0x5e7),
        sequence: 1,
        parent: None,
        kind: Kind::Full,
        disk_len: ByteLen(to_u64(disk().len())),
        block_size: BlockSize::new(to_u64(BLOCK)).unwrap_or_else(|| unreachable!("4 KiB is one")),
        window_log2: 2,
    }
}

/// Writes an image of `disk`. Blocks in `known` are unreadable or not in use, besides data and zeros.
fn write(
    path: &Path,
    header: &Header,
    disk: &[u8],
    known: &[(u64, BlockState)],
    parent: Option<&ChainView>,
    compression: Compression,
) -> Result<(), Error> {
    let info = Info {
        tool: "make_golden".into(),
        created: 1_700_000_000 + i64::from(header.sequence - 1) * 86_400,
        set: "golden".into(),
        source: SourceInfo {
            name: "golden".into(),
            bytes: header.disk_len.0,
            ..SourceInfo::default()
        },
        compression: compression.to_string(),
        comment: Some("kept for ever".into()),
        ..Info::default()
    };
    let tables = [(ByteOffset(0), disk[..512].to_vec())];
    let mut encoder = Encoder::new(compression)?;
    let mut scratch = Vec::new();
    let mut writer = ImageWriter::start(Vec::new(), "golden", header.clone(), &info, &tables)?;
    for data in disk.chunks(header.window_len()) {
        let first = writer.next();
        let known: Vec<_> = (first.0..)
            .zip(data.chunks(BLOCK))
            .map(|(block, _)| known.iter().find(|k| k.0 == block).map(|k| k.1))
            .collect();
        let base = match parent.map(|p| p.piece(first)) {
            Some(Piece::Leaf(leaf)) => Base::Leaf(leaf),
            Some(Piece::Uniform { state, since, .. }) => Base::Uniform(Block::empty(state, since)),
            Some(Piece::Lost { error, .. }) => return Err(error),
            None => Base::None,
        };
        let (encoder, scratch) = (&mut encoder, &mut scratch);
        let window = encode_window(header, first, data, &known, &base.into(), encoder, scratch)?;
        writer.push_window(&window)?;
    }
    let unreadable = known.iter().filter(|k| k.1 == BlockState::Unreadable);
    let unreadable = unreadable.map(|k| ByteRange {
        start: k.0 * to_u64(BLOCK),
        length: 512,
    });
    let summary = Summary {
        finished: info.created + 1,
        unreadable: unreadable.collect(),
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

/// Bytes for keys and salts of a file that is made once and never again.
fn random(out: &mut [u8]) -> Result<(), Error> {
    let seed = std::time::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default()
        .as_nanos();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(out);
    Ok(())
}

/// The image `plain`, encrypted with a password and for a new private key, which is written too.
fn write_encrypted(folder: &Path, plain: &[u8]) -> Result<(), Error> {
    use age::secrecy::ExposeSecret;
    let failed =
        |e| Error::new(diskstrata::base::ErrorKind::Destination, "write", "it").caused_by(e);
    let (secret, public) = Identity::generate();
    let (hidden, of_password) = Identity::generate();
    let protected = protect_identity(&hidden, &"golden password".to_owned().into())?;
    let keys = KeySet::new(
        vec![
            KeyEntry::new("password", KeyKind::Password, &of_password)?
                .protected_by_password(protected),
            KeyEntry::new("age-1", KeyKind::Age, &public)?,
        ],
        random,
    )?;
    let file = fs::File::create(folder.join("v1.strata")).map_err(failed)?;
    let mut writer =
        EncryptWriter::new(file, &keys, &KeyRing::new(NoKeys), random)?.map_err(failed)?;
    std::io::Write::write_all(&mut writer, plain).map_err(failed)?;
    writer.finish().map_err(failed)?;
    fs::write(folder.join("v1.key"), secret.expose_secret()).map_err(failed)?;
    println!("key set {}", keys.id());
    Ok(())
}

/// The private key of the encrypted image.
struct GoldenKey(String);

impl KeySource for GoldenKey {
    fn identities(&self) -> Result<Vec<Identity>, Error> {
        Identity::parse(&self.0, "v1.key", |_| None)
    }

    fn password(&self, _: u32, _: &str) -> Result<Option<Passphrase>, Error> {
        Ok(None)
    }
}

/// The encrypted image as a second run leaves it that goes on with it behind byte 20,000 of `plain`.
fn write_continued(folder: &Path, plain: &[u8]) -> Result<(), Error> {
    let failed =
        |e| Error::new(diskstrata::base::ErrorKind::Destination, "write", "it").caused_by(e);
    let at = 20_000;
    let stored = fs::read(folder.join("v1.strata")).map_err(failed)?;
    let key = fs::read_to_string(folder.join("v1.key")).map_err(failed)?;
    let ring = KeyRing::new(GoldenKey(key));
    let Some(head) = Head::read(&stored)? else {
        return Ok(());
    };
    let file = UnfinishedFile::open(Arc::new(stored.clone()), head, &ring)?;
    let keys = Arc::clone(file.key_set());
    let going_on = file.go_on(to_u64(at), &[], &keys, &ring, random)?;
    let mut bytes = going_on.start.clone();
    bytes.extend_from_slice(&stored[bytes.len()..diskstrata::base::to_usize(going_on.len)]);
    let mut writer = going_on.writer(bytes).map_err(failed)?;
    std::io::Write::write_all(&mut writer, &plain[at..]).map_err(failed)?;
    let bytes = writer.finish().map_err(failed)?;
    fs::write(folder.join("v1-continued.strata"), bytes).map_err(failed)
}

fn main() -> Result<(), Error> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let path = |name: &str| Path::new(&folder).join(name);
    if let Some(encrypted) = std::env::args().nth(2) {
        let plain = fs::read(path("v1-raw.strata")).map_err(|e| {
            Error::new(
                diskstrata::base::ErrorKind::NotFound,
                "read",
                "v1-raw.strata",
            )
            .caused_by(e)
        })?;
        return match std::env::args().nth(3) {
            Some(_) => write_continued(Path::new(&encrypted), &plain),
            None => write_encrypted(Path::new(&encrypted), &plain),
        };
    }
    let known = [(3, BlockState::Unreadable), (9, BlockState::Unused)];
    let (raw, zstd) = (Compression::None, Compression::Zstd(9));
    let disk = disk();
    write(
        &path("v1-raw.strata"),
        &header(0x901d_0001),
        &disk,
        &known,
        None,
        raw,
    )?;
    let full = path("v1-zstd.strata");
    write(&full, &header(0x901d_0002), &disk, &known, None, zstd)?;
    let store = LocalStore::open(Path::new(&folder))?;
    let parent = ImageReader::open(store.open(&FileName::new("v1-zstd.strata")?)?)?;
    let child = Header {
        sequence: 2,
        parent: Some(Parent {
            id: parent.header().id,
            sequence: 1,
            root: parent.root(),
        }),
        kind: Kind::Incremental,
        ..header(0x901d_0003)
    };
    let parent = ChainView::of(Arc::new(parent))?;
    let next = next_day();
    let known = [(3, BlockState::Unreadable), (0, BlockState::Unused)];
    let incremental = path("v1-incremental.strata");
    write(&incremental, &child, &next, &known, Some(&parent), zstd)?;
    println!("disk {}", blake3::hash(&disk).to_hex());
    let mut seen = next;
    seen[..BLOCK].fill(0);
    println!(
        "next day, without what is not in use {}",
        blake3::hash(&seen).to_hex()
    );
    Ok(())
}
