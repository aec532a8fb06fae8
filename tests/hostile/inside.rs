//! Every case through the library.

use crate::cases::{ASKED, Case, Fate, all};
use crate::{each, within_memory};
use diskstrata::base::{Cancel, ErrorKind, KeySetId, RangeRead, Result, Silent, to_usize};
use diskstrata::block::fill_unreadable;
use diskstrata::chain::{Catalog, ChainView, Image};
use diskstrata::crypt::{Identity, KeyRing, KeySource, Passphrase};
use diskstrata::image::{BlockStates, Compression, ImageReader, ImageStream, salvage};
use diskstrata::pipeline::{
    Depth, Extracted, Resources, Sample, extract, untouched, verify_disk, verify_file,
    verify_stream,
};
use diskstrata::store::{EncryptedStore, FileName, MemoryStore, SplitStore, Store};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

struct NoKeys;

impl KeySource for NoKeys {
    fn identities(&self) -> Result<Vec<Identity>> {
        Ok(Vec::new())
    }

    fn password(&self, _: u32, _: &str) -> Result<Option<Passphrase>> {
        Ok(None)
    }

    fn accepted(&self) -> Vec<KeySetId> {
        Vec::new()
    }
}

fn store(case: &Case) -> Arc<dyn Store> {
    let memory = MemoryStore::new("memory");
    for (name, bytes) in &case.files {
        memory.put(&FileName::new(name.as_str()).unwrap(), bytes.clone());
    }
    let split = SplitStore::new(Arc::new(memory), Uuid::new_v4);
    let ring = Arc::new(KeyRing::new(NoKeys));
    Arc::new(EncryptedStore::new(Arc::new(split), ring, |_| Ok(())))
}

fn resources(cancel: &Cancel) -> Resources<'_> {
    Resources {
        threads: 1,
        memory: 8 << 20,
        cancel,
        observer: &Silent,
    }
}

/// What was seen of an image that opens.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    quick: bool,
    deep: bool,
    /// The disk, if all of it can be read.
    disk: Option<Vec<u8>>,
}

fn look(store: &Arc<dyn Store>, catalog: &Catalog, image: &Image) -> Seen {
    let lineage = catalog.lineage(image);
    let unbroken = lineage.check().is_ok();
    let Ok(view) = ChainView::open(Arc::clone(store), lineage) else {
        return Seen {
            quick: true,
            deep: true,
            disk: None,
        };
    };
    let cancel = Cancel::new();
    let all = 0..view.header().blocks();
    let sees = |depth| {
        let file = verify_file(view.image(), &view, depth, Sample::ALL, resources(&cancel));
        let disk = verify_disk(&view, all.clone(), depth, resources(&cancel));
        !unbroken || !file.unwrap().is_empty() || !disk.unwrap().is_empty()
    };
    Seen {
        quick: sees(Depth::Quick),
        deep: sees(Depth::Deep),
        disk: disk(&view),
    }
}

/// The disk, as far as it is short and can be read. A block that is read is what its digest says: that is not
/// asked here again, but the whole is compared with what it should be.
fn disk(view: &ChainView) -> Option<Vec<u8>> {
    let cancel = Cancel::new();
    let (mut disk, mut whole) = (Vec::new(), true);
    let all = 0..view.header().blocks().min(4096);
    extract(
        view,
        all,
        None,
        resources(&cancel),
        &untouched,
        |extracted, ()| {
            match extracted {
                Extracted::Run { .. } => {
                    let extent = view.header().extent_of(&extracted.blocks());
                    disk.resize(disk.len() + to_usize(extent.len.0), 0);
                }
                Extracted::Window(window) => {
                    whole &= window.lost.is_empty();
                    disk.extend_from_slice(&window.data);
                }
                Extracted::Lost { .. } | Extracted::Unwanted { .. } => whole = false,
            }
            Ok(())
        },
    )
    .unwrap();
    whole.then_some(disk)
}

/// As it comes out of a pipe; `true` when nothing was wrong with it.
fn piped(bytes: &[u8]) -> bool {
    let cancel = Cancel::new();
    let mut stream = match ImageStream::open(bytes, "pipe") {
        Ok(stream) => stream,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            return false;
        }
    };
    matches!(verify_stream(&mut stream, resources(&cancel)), Ok((damage, _)) if damage.is_empty())
}

/// Whatever can be saved of it is an image that is whole.
fn salvaged(name: &str, bytes: &[u8]) {
    let fill = |out: &mut [u8], at| fill_unreadable(out, at);
    let input: &dyn RangeRead = &bytes.to_vec();
    let made = salvage(
        input,
        Vec::new(),
        "new",
        Uuid::from_u128(5),
        Compression::None,
        &fill,
    );
    if let Ok((made, _)) = made {
        let image = ImageReader::open(Arc::new(made));
        assert!(image.is_ok_and(|i| i.findings().is_empty()), "{name}");
    }
}

fn check(case: &Case) {
    let name = &case.name;
    let store = store(case);
    let catalog = within_memory(name, || Catalog::load(store.as_ref()).unwrap());
    let asked = |image: &&Image| image.file.as_str() == ASKED;
    let image = catalog.images.iter().find(asked);
    if let [(_, bytes)] = &case.files[..] {
        let right = within_memory(name, || piped(bytes));
        assert_eq!(right, case.fate == Fate::Image, "{name}, through a pipe");
        within_memory(name, || salvaged(name, bytes));
    }
    let Some(image) = image else {
        assert_eq!(case.fate, Fate::Refused, "{name}: it cannot be opened");
        let broken = catalog.broken.iter().map(|b| b.file.as_str());
        assert_eq!(broken.collect::<Vec<_>>(), [ASKED], "{name}");
        return;
    };
    let seen = within_memory(name, || look(&store, &catalog, image));
    match case.fate {
        Fate::Refused => panic!("{name}: it was opened"),
        Fate::Damaged => {
            assert!(seen.deep, "{name}: nothing is found");
            assert!(
                seen.quick || !case.quick,
                "{name}: only a deep look finds it"
            );
            // Behind damage that costs no block, there may still be all of the disk, and no other one.
            let other = |disk: &Vec<u8>| *disk != case.disk;
            assert!(
                !seen.disk.as_ref().is_some_and(other),
                "{name}: another disk"
            );
        }
        Fate::Image => {
            let disk = Some(case.disk.clone());
            let whole = Seen {
                quick: false,
                deep: false,
                disk,
            };
            assert!(seen == whole, "{name}: {:?}", (seen.quick, seen.deep));
        }
    }
}

#[test]
fn hostile_files_end_in_an_error_or_in_what_they_hold() {
    let cases = all();
    let mut counts = BTreeMap::new();
    each(&cases, check);
    for case in &cases {
        *counts.entry(format!("{:?}", case.fate)).or_insert(0) += 1;
    }
    eprintln!("{} hostile files: {counts:?}", cases.len());
    assert!(cases.len() >= 200 && counts.len() == 3, "{counts:?}");
}
