//! Parts in several folders, brought one by one, by somebody who makes mistakes.

use super::part::name_of_part;
use super::*;
use crate::base::to_usize;
use crate::block::contract::pattern;
use crate::store::{LocalStore, ReopenedStore};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};
use tempfile::TempDir;

const PART: u64 = MIN_PART_LEN;

/// What somebody does when they are asked.
type Deed = Box<dyn Fn(&WantedPart) -> Result<Brought> + Send + Sync>;

struct Hands {
    deed: Deed,
    asked: Mutex<Vec<WantedPart>>,
}

impl Hands {
    fn that(deed: impl Fn(&WantedPart) -> Result<Brought> + Send + Sync + 'static) -> Arc<Hands> {
        Arc::new(Hands {
            deed: Box::new(deed),
            asked: Mutex::default(),
        })
    }

    /// What was asked for since the last time, by the names of parts; `last` for the last one.
    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap().drain(..).collect::<Vec<_>>();
        let name = |w: WantedPart| w.part.unwrap_or_else(|| "last".to_owned());
        asked.into_iter().map(name).collect()
    }
}

impl PartBringer for Hands {
    fn bring(&self, wanted: &WantedPart) -> Result<Brought> {
        self.asked.lock().unwrap().push(wanted.clone());
        (self.deed)(wanted)
    }
}

/// The files `a` and `b` of four parts, each part of `a` in a folder of its own, `1` to `4`; `all` has
/// both files whole.
struct Media {
    dir: TempDir,
    bytes: Vec<u8>,
}

fn file() -> FileName {
    FileName::new("a").unwrap()
}

impl Media {
    fn new() -> Media {
        let dir = tempfile::tempdir().unwrap();
        let bytes = pattern(3 * to_usize(PART) + 99);
        let media = Media { dir, bytes };
        let all = LocalStore::create(&media.path("all")).unwrap();
        let all = SplitStore::new(Arc::new(all), Uuid::new_v4);
        for name in ["a", "b"] {
            let name = FileName::new(name).unwrap();
            let mut upload = all.create_in_parts(&name, Some(PART)).unwrap();
            upload.write_all(&media.bytes).unwrap();
            upload.publish().unwrap();
        }
        for number in 1..=4 {
            let folder = number.to_string();
            std::fs::create_dir(media.path(&folder)).unwrap();
            media.copy(&part(number), &folder, &part(number));
        }
        media
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Copies `name` of `all` into a folder.
    fn copy(&self, name: &str, folder: &str, to: &str) {
        let to = self.path(folder).join(to);
        std::fs::copy(self.path("all").join(name), to).unwrap();
    }

    fn store(&self, home: &str, hands: &Arc<Hands>) -> SplitStore {
        let home = ReopenedStore::new(self.path(home));
        SplitStore::new(Arc::new(home), Uuid::new_v4).with_bringer(Arc::clone(hands) as _)
    }

    /// Somebody who has all parts of `a` and knows where.
    fn knowing(&self) -> Arc<Hands> {
        let dir = self.dir.path().to_owned();
        Hands::that(move |wanted| {
            let number = wanted
                .part
                .as_ref()
                .map_or("4", |name| &name[name.len() - 1..]);
            Ok(Brought::In(dir.join(number)))
        })
    }

    /// Whether a file below one of the folders is open in this process.
    fn any_open(dir: &Path) -> bool {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut targets = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
        targets.any(|target| target.starts_with(dir))
    }
}

fn part(number: u32) -> String {
    name_of_part(&file(), number).unwrap().to_string()
}

fn read(file: &Arc<dyn RangeRead>, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_at(at, &mut bytes).map(|()| bytes)
}

#[test]
fn parts_are_asked_for_when_they_are_read_and_remembered() {
    let media = Media::new();
    for (home, at_open) in [
        ("1", &["last"][..]),
        ("3", &["a.001", "last"]),
        ("4", &["a.001"]),
    ] {
        let hands = media.knowing();
        let store = media.store(home, &hands);
        let listed = store.list().unwrap();
        assert_eq!((listed.len(), listed[0].parts), (1, Some(1)));
        let open = store.open(&file()).unwrap();
        assert_eq!(hands.asked(), at_open, "from {home}");
        assert_eq!(open.len(), to_u64(media.bytes.len()));
        assert_eq!(
            read(&open, PART, 9).unwrap(),
            media.bytes[to_usize(PART)..][..9]
        );
        assert_eq!(hands.asked(), ["a.002"], "from {home}");
        assert!(read(&open, 0, media.bytes.len()).unwrap() == media.bytes);
        let third: &[&str] = if home == "3" { &[] } else { &["a.003"] };
        assert_eq!(hands.asked(), third, "from {home}");
        // The file opened again, and all of it read: nothing is asked twice.
        let again = store.open(&file()).unwrap();
        assert!(read(&again, 0, media.bytes.len()).unwrap() == media.bytes);
        assert_eq!(hands.asked(), [""; 0]);
        assert_eq!(store.part_count(&file()).unwrap(), Some(4));
        assert_eq!(store.part_len(&file()).unwrap(), Some(PART));
        let mut paths = store.paths_of(&[&file()]);
        paths.sort();
        let all = (1..=4).map(|n| media.path(&n.to_string()).join(part(n)));
        assert_eq!(
            paths,
            all.collect::<Vec<_>>(),
            "all of them are kept from being overwritten"
        );
        let missing = FileName::new("c").unwrap();
        let error = store.open(&missing).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound, "nobody is asked for it");
    }
}

#[test]
fn what_is_not_the_part_is_told_and_asked_for_again() {
    let media = Media::new();
    let wrong = |folder: &str, from: &str, to: &str| {
        let _ = std::fs::create_dir(media.path(folder));
        media.copy(from, folder, to);
    };
    wrong("other", "b.002", "a.002");
    wrong("number", "a.003", "a.002");
    wrong("both", "b.003", "a.002");
    wrong("short", "a.002", "a.002");
    let short = std::fs::OpenOptions::new()
        .write(true)
        .open(media.path("short").join("a.002"));
    short.unwrap().set_len(PART - 1).unwrap();
    wrong("not-last", "a.003", "a.003");
    wrong("last-of-other", "b.004", "a.004");
    let dir = media.dir.path().to_owned();
    let last = ["4", "last-of-other", "not-last", "empty"];
    let second = ["2", "short", "both", "number", "other", "empty", "missing"];
    std::fs::create_dir(media.path("empty")).unwrap();
    let left = Mutex::new((last.to_vec(), second.to_vec()));
    let hands = Hands::that(move |wanted| {
        let mut left = left.lock().unwrap();
        let folders = match &wanted.part {
            None => &mut left.0,
            Some(_) => &mut left.1,
        };
        Ok(Brought::In(dir.join(folders.pop().unwrap())))
    });
    let store = media.store("1", &hands);
    let open = store.open(&file()).unwrap();
    assert_eq!(
        read(&open, PART, 9).unwrap(),
        media.bytes[to_usize(PART)..][..9]
    );
    let asked = hands.asked.lock().unwrap();
    let told: Vec<&str> = asked
        .iter()
        .map(|w| w.wrong.first().map_or("", |t| t))
        .collect();
    let expected = [
        "",
        "the last part of a is not in",
        "the last part of a is not in",
        "belongs to another file",
        "",
        "cannot open",
        "part 2 of a is not in",
        "belongs to another file",
        "is part 3 of a file",
        "is part 3 of another file",
        "cut off or damaged",
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(
            told.contains(expected) && told.is_empty() == expected.is_empty(),
            "{told:?}"
        );
    }
    // A folder in which nothing was found is not looked into again.
    assert_eq!(asked[5].folders.len(), 2, "{:?}", asked[5].folders);
}

#[test]
fn a_medium_that_was_taken_away_is_asked_for_again() {
    let media = Media::new();
    let (second, drawer) = (media.path("2"), media.path("drawer"));
    let back = (drawer.clone(), second.clone());
    let know = media.knowing();
    let hands = Hands::that(move |wanted| {
        if back.0.exists() {
            std::fs::rename(&back.0, &back.1).unwrap();
            return Ok(Brought::There);
        }
        (know.deed)(wanted)
    });
    let store = media.store("1", &hands);
    let open = store.open(&file()).unwrap();
    read(&open, 0, media.bytes.len()).unwrap();
    hands.asked();
    std::fs::rename(&second, &drawer).unwrap();
    // As when another part is asked for: what is open would be read although it lies elsewhere now.
    store.media.as_ref().unwrap().let_go();
    assert!(read(&open, 0, media.bytes.len()).unwrap() == media.bytes);
    assert_eq!(hands.asked(), ["a.002"]);
    // Gone in the middle of a read: what is still open there fails.
    let broken = std::fs::OpenOptions::new()
        .write(true)
        .open(second.join("a.002"));
    broken.unwrap().set_len(0).unwrap();
    std::fs::create_dir(&drawer).unwrap();
    std::fs::remove_file(second.join("a.002")).unwrap();
    media.copy("a.002", "drawer", "a.002");
    std::fs::remove_dir_all(&second).unwrap();
    assert!(read(&open, 0, media.bytes.len()).unwrap() == media.bytes);
    assert_eq!(hands.asked(), ["a.002"]);
}

#[test]
fn nothing_is_kept_open_while_a_part_is_asked_for() {
    let media = Media::new();
    let (dir, know) = (media.dir.path().to_owned(), media.knowing());
    let hands = Hands::that(move |wanted| {
        assert!(!Media::any_open(&dir), "{wanted:?}");
        (know.deed)(wanted)
    });
    let open = media.store("1", &hands).open(&file()).unwrap();
    assert!(read(&open, 0, media.bytes.len()).unwrap() == media.bytes);
    assert!(
        Media::any_open(media.dir.path()),
        "until then, something is"
    );
    assert_eq!(hands.asked(), ["last", "a.002", "a.003"]);
}

#[test]
fn giving_up_is_passed_on_as_it_is() {
    let media = Media::new();
    let hands = Hands::that(|_| Err(Error::new(ErrorKind::Interrupted, "go", "on")));
    let error = media.store("1", &hands).open(&file()).err().unwrap();
    assert!(error.is_stop());
    assert_eq!(hands.asked(), ["last"]);
}

/// Two threads need parts that are not there, one after the other; a third one has what it needs.
#[test]
fn one_question_stands_at_a_time_and_others_go_on() {
    let media = Media::new();
    let know = media.knowing();
    let (told, third_is_done) = channel::<()>();
    let third_is_done = Mutex::new(third_is_done);
    let standing = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&standing);
    let hands = Hands::that(move |wanted| {
        if wanted.part.is_some() {
            assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            // The question stands until the third one has read what is there.
            third_is_done.lock().unwrap().recv().unwrap();
            count.fetch_sub(1, Ordering::SeqCst);
        }
        (know.deed)(wanted)
    });
    let open = media.store("1", &hands).open(&file()).unwrap();
    hands.asked();
    let (begun, bytes) = (Barrier::new(3), &media.bytes);
    std::thread::scope(|scope| {
        for number in [1, 2] {
            let (open, begun) = (&open, &begun);
            scope.spawn(move || {
                begun.wait();
                let at = number * PART;
                assert_eq!(read(open, at, 9).unwrap(), bytes[to_usize(at)..][..9]);
            });
        }
        begun.wait();
        while standing.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        for _ in 0..2 {
            assert_eq!(read(&open, 5, 9).unwrap(), bytes[5..][..9]);
            told.send(()).unwrap();
        }
    });
    let mut asked = hands.asked();
    asked.sort();
    assert_eq!(asked, ["a.002", "a.003"]);
}
