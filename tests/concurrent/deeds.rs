//! What is done to a store, as the program does it, and what of it may go then.

use crate::paused::{Gate, PausedStore};
use age::secrecy::ExposeSecret;
use diskstrata::base::{BlockSize, ByteOffset, Cancel, Result, Silent, to_usize};
use diskstrata::block::BlockSource;
use diskstrata::chain::{Catalog, ChainView};
use diskstrata::crypt::{Identity, KeyRing, KeySource, Passphrase, Random};
use diskstrata::ops::backup::{self, BackupRequest, RescueOptions, Wish};
use diskstrata::ops::copy::{self, CopyRequest};
use diskstrata::ops::encryption::NewKeys;
use diskstrata::ops::keys::{self, KeyChange, KeyRequest};
use diskstrata::ops::merge::{self, MergeRequest};
use diskstrata::ops::prune::{self, Policy, PruneRequest};
use diskstrata::ops::restore::{self, RestoreRequest};
use diskstrata::ops::take::TakeOptions;
use diskstrata::ops::verify::{self, VerifyRequest};
use diskstrata::ops::{Compression, Context, Depth, Library, list, protect, show};
use diskstrata::store::{EncryptedStore, MemoryStore, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// The set of the disk that is imaged all the time, and of one that is copied.
pub(crate) const SET: &str = "disk";
const OTHER: &str = "other";
const BLOCK: u64 = 4096;
const DISK: u64 = 192 << 10;

const RANDOM: Random = |out| {
    for part in out.chunks_mut(16) {
        part.copy_from_slice(&Uuid::new_v4().as_bytes()[..part.len()]);
    }
    Ok(())
};

struct Pocket(String);

impl KeySource for Pocket {
    fn identities(&self) -> Result<Vec<Identity>> {
        Identity::parse(&self.0, "a test's", |_| None)
    }

    fn password(&self, _: u32, _: &str) -> Result<Option<Passphrase>> {
        Ok(None)
    }
}

/// What can be done to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deed {
    Backup,
    Prune,
    Merge,
    Protect,
    Verify,
    List,
    Show,
    Restore,
    CopyFrom,
    CopyInto,
    CopyInPlace,
    CopyRemoving,
    Keys,
}

impl Deed {
    pub(crate) const ALL: [Deed; 13] = [
        Deed::Backup,
        Deed::Prune,
        Deed::Merge,
        Deed::Protect,
        Deed::Verify,
        Deed::List,
        Deed::Show,
        Deed::Restore,
        Deed::CopyFrom,
        Deed::CopyInto,
        Deed::CopyInPlace,
        Deed::CopyRemoving,
        Deed::Keys,
    ];

    /// As docs/concurrency.md calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Deed::Backup => "backup",
            Deed::Prune => "prune",
            Deed::Merge => "merge",
            Deed::Protect => "protect",
            Deed::Verify => "verify",
            Deed::List => "list",
            Deed::Show => "show",
            Deed::Restore => "restore",
            Deed::CopyFrom => "copy from",
            Deed::CopyInto => "copy into",
            Deed::CopyInPlace => "copy in place",
            Deed::CopyRemoving => "copy, remove old",
            Deed::Keys => "key change",
        }
    }

    /// The word by which whoever holds a lock for it says what is done.
    pub(crate) fn said(self) -> &'static str {
        match self {
            Deed::Show | Deed::Restore => "reading",
            Deed::CopyFrom | Deed::CopyInto | Deed::CopyInPlace | Deed::CopyRemoving => "copy",
            Deed::Keys => "changing keys",
            other => other.name(),
        }
    }

    /// The places in the history of images that may be gone when both were done.
    pub(crate) fn may_remove(self, other: Deed) -> BTreeSet<u32> {
        let one_more = matches!(self, Deed::Backup) || matches!(other, Deed::Backup);
        let of = |deed: Deed| match deed {
            Deed::Prune if one_more => vec![1, 2, 3],
            Deed::Prune => vec![1, 2],
            Deed::Merge => vec![1],
            Deed::CopyRemoving => vec![4],
            _ => Vec::new(),
        };
        of(self).into_iter().chain(of(other)).collect()
    }
}

/// What a deed that went well has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// The id of a new image of [`SET`].
    pub(crate) new: Option<Uuid>,
    /// Images that it found damaged.
    pub(crate) damaged: Vec<String>,
}

/// A folder with a disk, a history of it and another store, from which every run begins.
pub(crate) struct Template {
    dir: tempfile::TempDir,
    identity: String,
    files: MemoryStore,
    other: MemoryStore,
    /// What each image holds.
    pub(crate) contents: BTreeMap<Uuid, Arc<Vec<u8>>>,
    /// The images of [`SET`] by their place, and the one of the other set.
    pub(crate) ids: BTreeMap<u32, Uuid>,
    other_id: Uuid,
}

impl Template {
    pub(crate) fn new() -> Template {
        let dir = crate::kit::scratch();
        let (private, _) = Identity::generate();
        let mut template = Template {
            dir,
            identity: private.expose_secret().to_owned(),
            files: MemoryStore::new("files"),
            other: MemoryStore::new("other"),
            contents: BTreeMap::new(),
            ids: BTreeMap::new(),
            other_id: Uuid::nil(),
        };
        std::fs::write(template.disk(), content(0)).unwrap();
        let open = |memory: &MemoryStore| template.opened(Arc::new(memory.clone()));
        let (files, other) = (open(&template.files), open(&template.other));
        for place in 1..=4u32 {
            template.change_disk(place);
            let made = template.backup(&files, SET).unwrap();
            template.ids.insert(place, made);
            template.remember(made);
        }
        template.change_disk(9);
        template.other_id = template.backup(&other, OTHER).unwrap();
        template.remember(template.other_id);
        template.change_disk(5);
        template
    }

    fn remember(&mut self, id: Uuid) {
        let now = std::fs::read(self.disk()).unwrap();
        self.contents.insert(id, Arc::new(now));
    }

    fn disk(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    /// The bytes of the disk as it is imaged now.
    pub(crate) fn now(&self) -> Vec<u8> {
        std::fs::read(self.disk()).unwrap()
    }

    fn change_disk(&self, seed: u32) {
        let disk = std::fs::OpenOptions::new()
            .write(true)
            .open(self.disk())
            .unwrap();
        let at = u64::from(seed) * BLOCK * 2;
        let bytes = &content(seed)[..to_usize(5 * BLOCK)];
        disk.write_all_at(bytes, at).unwrap();
    }

    fn ring(&self) -> Arc<KeyRing> {
        Arc::new(KeyRing::new(Pocket(self.identity.clone())))
    }

    fn opened(&self, store: Arc<dyn Store>) -> Arc<EncryptedStore> {
        Arc::new(EncryptedStore::new(store, self.ring(), RANDOM))
    }

    fn backup(&self, store: &Arc<EncryptedStore>, set: &str) -> Result<Uuid> {
        let cancel = Cancel::new();
        let context = self.context(&cancel);
        let store: Arc<dyn Store> = Arc::clone(store) as _;
        let is_new = Catalog::load(store.as_ref())?.set(set).is_empty();
        let recipient = Identity::public_of(&self.identity).unwrap().to_string();
        let request = BackupRequest {
            source: self.disk().display().to_string(),
            store: PathBuf::from("/nowhere"),
            set: Some(set.to_owned()),
            wish: Wish::Auto,
            block_size: BlockSize::new(BLOCK),
            compression: Compression::None,
            comment: None,
            take: TakeOptions::default(),
            strict: false,
            split: None,
            encrypt: NewKeys {
                recipients: is_new.then_some(recipient).into_iter().collect(),
                ..NewKeys::default()
            },
            no_encrypt: false,
            rescue: RescueOptions::default(),
            heal: false,
            paranoid: false,
        };
        let report = backup::run_in(&context, &store, &request)?;
        Ok(report.image.id.parse().unwrap())
    }

    pub(crate) fn context<'a>(&self, cancel: &'a Cancel) -> Context<'a> {
        Context {
            threads: 1,
            memory: 1 << 20,
            keys: self.ring(),
            ..Context::new(cancel, &Silent)
        }
    }

    /// Stores as they are at the beginning.
    pub(crate) fn fresh(&self) -> Stores<'_> {
        Stores {
            template: self,
            files: copy_of(&self.files),
            others: [copy_of(&self.other), copy_of(&self.other)],
        }
    }
}

/// Bytes that no other seed has, and some that repeat.
fn content(seed: u32) -> Vec<u8> {
    let mut stream = crate::kit::bytes::Stream::new(u64::from(seed) + 77);
    stream.bytes(DISK)
}

fn copy_of(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new("memory");
    for entry in store.list().unwrap() {
        copy.put(&entry.name, store.get(&entry.name).unwrap());
    }
    copy
}

/// The stores of one run.
pub(crate) struct Stores<'t> {
    pub(crate) template: &'t Template,
    pub(crate) files: MemoryStore,
    /// What the first of a pair copies from or into, and what the second does: the store that they share is the
    /// only one on which they meet.
    others: [MemoryStore; 2],
}

impl Stores<'_> {
    fn opened(&self, gate: Option<&Gate>) -> Arc<EncryptedStore> {
        match gate {
            None => self.template.opened(Arc::new(self.files.clone())),
            Some(gate) => {
                let paused = PausedStore::new(self.files.clone(), gate.clone());
                self.template.opened(Arc::new(paused))
            }
        }
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.opened(None)
    }

    /// Does it, behind a gate if there is one.
    pub(crate) fn run(&self, deed: Deed, gate: Option<&Gate>) -> Result<Done> {
        let cancel = Cancel::new();
        let context = self.template.context(&cancel);
        let encrypted = self.opened(gate);
        let store: Arc<dyn Store> = Arc::clone(&encrypted) as _;
        let other = &self.others[usize::from(gate.is_none())];
        let other: Arc<dyn Store> = self.template.opened(Arc::new(other.clone()));
        let library = Library::of(&context, Arc::clone(&store));
        let id = |place: u32| self.template.ids[&place].simple().to_string();
        let nowhere = || PathBuf::from("/nowhere");
        let mut done = Done::default();
        match deed {
            Deed::Backup => done.new = Some(self.template.backup(&encrypted, SET)?),
            Deed::Prune => {
                let request = PruneRequest {
                    store: nowhere(),
                    set: None,
                    policy: Policy {
                        last: 2,
                        ..Policy::default()
                    },
                    free_space: None,
                    least: 1,
                    trust_times: false,
                };
                let report = prune::run_in(&context, &store, &request)?;
                assert!(report.failures.is_empty(), "{:?}", report.failures);
            }
            Deed::Merge => {
                let request = MergeRequest {
                    store: nowhere(),
                    range: format!("{}..{}", id(1), id(2)),
                };
                merge::run_in(&context, &store, &request)?;
            }
            Deed::Protect => {
                let done = protect::protect_in(store.as_ref(), &id(1), Some("stays"), false)?;
                assert!(done.protected);
            }
            Deed::Verify => {
                let request = VerifyRequest {
                    images: Vec::new(),
                    store: None,
                    depth: Depth::Quick,
                    sample: None,
                    older_than: None,
                    against: None,
                };
                let report = verify::verify_in(&context, &library, &request)?;
                let damaged = report.images.iter().filter(|i| !i.ok);
                done.damaged = damaged.map(|i| format!("{i:?}")).collect();
            }
            Deed::List => {
                let listed = list::list_in(&library)?;
                let broken = listed.broken.iter().map(|b| format!("{b:?}"));
                let incomplete = listed.images.iter().filter_map(|i| i.incomplete.clone());
                done.damaged = broken.chain(incomplete).collect();
                assert!(listed.images.len() >= 2, "{:?}", listed.images);
            }
            Deed::Show => done.damaged = show::show_in(&library, &id(3), true)?.damage,
            Deed::Restore => self.restore(&context, &library, &id(2))?,
            Deed::CopyFrom => {
                let request = CopyRequest {
                    set: Some(SET.to_owned()),
                    to: Some(nowhere()),
                    ..CopyRequest::default()
                };
                copy::run_in(&context, &store, Some(&other), &request)?;
            }
            Deed::CopyInto => {
                let request = CopyRequest {
                    set: Some(OTHER.to_owned()),
                    to: Some(nowhere()),
                    ..CopyRequest::default()
                };
                copy::run_in(&context, &other, Some(&store), &request)?;
            }
            Deed::CopyInPlace => {
                let request = CopyRequest {
                    images: vec![id(3)],
                    recompress: Some(Compression::Zstd(1)),
                    ..CopyRequest::default()
                };
                copy::run_in(&context, &store, None, &request)?;
            }
            Deed::CopyRemoving => {
                let request = CopyRequest {
                    images: vec![id(4)],
                    to: Some(nowhere()),
                    remove_old: true,
                    ..CopyRequest::default()
                };
                copy::run_in(&context, &store, Some(&other), &request)?;
            }
            Deed::Keys => {
                let (_, public) = Identity::generate();
                let request = KeyRequest {
                    store: nowhere(),
                    set: Some(SET.to_owned()),
                };
                let change = KeyChange::Add {
                    keys: NewKeys {
                        recipients: vec![public.to_string()],
                        ..NewKeys::default()
                    },
                    name: None,
                };
                keys::change_in(&context, &encrypted, &request, &change)?;
            }
        }
        Ok(done)
    }

    fn restore(&self, context: &Context<'_>, library: &Library<'_>, image: &str) -> Result<()> {
        let dir = crate::kit::scratch();
        let target = dir.path().join("target.img");
        let request = RestoreRequest {
            image: image.to_owned(),
            store: None,
            target: target.display().to_string(),
            partition: None,
            only_changed: false,
            salvage: false,
            holds: None,
            read_back: true,
        };
        restore::prepare_in(context, library, &request)?.run(context)?;
        let expected = &self.template.contents[&image.parse().unwrap()];
        assert!(
            std::fs::read(&target).unwrap() == **expected,
            "{image} restores to something else"
        );
        Ok(())
    }

    /// The ids of the images of [`SET`] and others that the store lists. Each is whole, with all that it
    /// needs, and holds what it held; one that is not known yet holds what the disk holds now.
    pub(crate) fn whole(&self) -> BTreeSet<Uuid> {
        whole(&self.store(), self.template)
    }

    /// Whether another store holds this image, whole.
    pub(crate) fn is_elsewhere(&self, id: Uuid) -> bool {
        self.others.iter().any(|other| {
            let other: Arc<dyn Store> = self.template.opened(Arc::new(other.clone()));
            whole(&other, self.template).contains(&id)
        })
    }
}

fn whole(store: &Arc<dyn Store>, template: &Template) -> BTreeSet<Uuid> {
    let catalog = Catalog::load(store.as_ref()).unwrap();
    let broken: Vec<_> = catalog.broken.iter().map(|b| b.file.to_string()).collect();
    assert!(broken.is_empty(), "cannot be opened: {broken:?}");
    assert!(
        catalog.incomplete().is_empty(),
        "{:?}",
        catalog.incomplete()
    );
    let now = Arc::new(template.now());
    for image in &catalog.images {
        let view = ChainView::open(Arc::clone(store), catalog.lineage(image)).unwrap();
        let expected = template.contents.get(&image.header.id).unwrap_or(&now);
        let mut found = vec![0; expected.len()];
        view.read_at(ByteOffset(0), &mut found).unwrap();
        assert!(found == **expected, "{} holds something else", image.file);
    }
    catalog.images.iter().map(|i| i.header.id).collect()
}

/// Where the repository's documents are.
pub(crate) fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}
