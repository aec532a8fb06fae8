//! Parts of an image that lie on several media: a person at a terminal is asked for them.

use crate::kit::bytes::{self, assert_same};
use crate::kit::disk::{Disk, Layout};
use crate::kit::run::{Strata, strata, text};
use crate::kit::scratch;
use crate::kit::store::Store;
use crate::kit::tools;
use std::path::{Path, PathBuf};

/// What the question ends with.
const QUESTION: &str = "(q: give up): ";

/// An image whose parts lie in three folders, and another one's parts under the names of the first one's.
struct Media {
    dir: tempfile::TempDir,
    disk: PathBuf,
    /// Name of the image's file.
    file: String,
    /// Names of its parts.
    parts: Vec<String>,
}

impl Media {
    fn new(seed: u64) -> Media {
        let dir = scratch();
        let disk = Disk::build(Layout::Random, dir.path(), "disk.img", seed).path;
        // A partition that the third part holds, short enough for a part to take its place.
        let table = "label: dos\nstart=18432, size=2048, type=83\n";
        tools::run_with_input("sfdisk", &["-q", "--no-tell-kernel", text(&disk)], table);
        let store = Store::new(dir.path(), "store");
        let backed_up = |args: &[&str]| {
            let backup = store.backup(&disk).args(["--json", "--split", "4M"]);
            let image = backup.args(args).run().expect(0).json()["image"].clone();
            image["file"].as_str().unwrap().to_owned()
        };
        let (file, other) = (backed_up(&[]), backed_up(&["--full"]));
        let names = store.files().into_iter().map(|(name, _)| name);
        let parts: Vec<String> = names.filter(|name| name.starts_with(&file)).collect();
        assert!(parts.len() > 4, "{parts:?}");
        for folder in ["one", "two", "three", "wrong"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        for (number, part) in parts.iter().enumerate() {
            let folder = match number {
                0 | 1 => "one",
                2 => "two",
                _ => "three",
            };
            let of_other = format!("{other}{}", &part[file.len()..]);
            let to = |folder: &str| dir.path().join(folder).join(part);
            std::fs::rename(store.dir.join(of_other), to("wrong")).unwrap();
            std::fs::rename(store.dir.join(part), to(folder)).unwrap();
        }
        Media {
            dir,
            disk,
            file,
            parts,
        }
    }

    fn path(&self, folder: &str) -> PathBuf {
        self.dir.path().join(folder)
    }

    /// The image by its path in `folder`.
    fn image(&self, folder: &str) -> PathBuf {
        self.path(folder).join(&self.file)
    }

    /// What is typed to name a folder.
    fn folder(&self, name: &str) -> String {
        format!("{}\n", text(&self.path(name)))
    }

    fn restore(&self, target: &Path) -> Strata {
        strata("restore").arg(self.image("one")).arg(target)
    }
}

#[test]
fn a_restore_asks_for_what_is_not_there() {
    let media = Media::new(71);
    let target = media.path("target.img");
    let (wrong, two, three) = (
        media.folder("wrong"),
        media.folder("two"),
        media.folder("three"),
    );
    let (code, screen) = media.restore(&target).converse(&[
        (QUESTION, &two),
        ("last part", &three),
        // Enter without having done anything, then what is called so and is not it.
        (&format!("{} is not in", media.parts[2]), "\n"),
        (QUESTION, &wrong),
        ("another file than the first", ""),
        (QUESTION, "/no/such/folder\n"),
        ("/no/such/folder", ""),
        (QUESTION, &two),
    ]);
    assert_eq!(code, Some(0), "{screen}");
    assert_same(&media.disk, &target);
    // Asked for once each, however often they are read.
    assert_eq!(screen.matches(QUESTION).count(), 6, "{screen}");
}

#[test]
fn all_verbs_that_read_ask() {
    let media = Media::new(72);
    let (one, two, three) = (
        media.folder("one"),
        media.folder("two"),
        media.folder("three"),
    );
    let verify = strata("verify").arg(media.image("one")).arg("--deep");
    let (code, screen) = verify.converse(&[(QUESTION, &three), (QUESTION, &two)]);
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("ok (every block)"), "{screen}");
    // From the last medium, by the path of any part, and by the store that it is.
    let show = strata("show").arg(media.path("three").join(&media.parts[4]));
    let (code, screen) = show.converse(&[(&format!("{} is not", media.parts[0]), &one)]);
    assert_eq!(code, Some(0), "{screen}");
    let says = format!("in {} numbered files of 4 MiB at most", media.parts.len());
    assert!(screen.contains(&says), "{screen}");
    let export = Store::at(&media.path("three")).verb("export");
    let raw = media.path("raw.img");
    let export = export.arg("latest").arg(&raw);
    let (code, screen) = export.converse(&[(QUESTION, &one), (QUESTION, &two)]);
    assert_eq!(code, Some(0), "{screen}");
    assert_same(&media.disk, &raw);
    let map = strata("map").arg(media.image("one"));
    let (code, screen) = map.converse(&[(QUESTION, &three)]);
    assert_eq!(code, Some(0), "{screen}");
}

/// Whoever gives up, at whatever moment, ends the run; nothing of it is taken for damage.
#[test]
fn giving_up_ends_the_run_as_a_missing_part_does() {
    let media = Media::new(73);
    let three = media.folder("three");
    let target = media.path("target.img");
    for talk in [
        &[(QUESTION, "q\n")][..],
        &[(QUESTION, "\x04")],
        &[(QUESTION, &three), (QUESTION, "q\n")],
    ] {
        for verb in ["verify", "show", "restore", "export"] {
            // `show` needs no more than the first part and the last.
            if verb == "show" && talk.len() > 1 {
                continue;
            }
            let run = strata(verb).arg(media.image("one"));
            let run = match verb {
                "restore" | "export" => run.arg(&target),
                _ => run,
            };
            let (code, screen) = run.converse(talk);
            assert_eq!(code, Some(7), "{verb}: {screen}");
            assert!(screen.contains("nobody brought it"), "{verb}: {screen}");
            assert!(!screen.contains("DAMAGED"), "{verb}: {screen}");
            assert!(!target.exists(), "{verb}");
        }
    }
    // While the store is looked through, what is missing keeps no other image from being found.
    for verb in ["verify", "show"] {
        let run = Store::at(&media.path("one")).verb(verb).arg("latest");
        let (code, screen) = run.converse(&[(QUESTION, "q\n")]);
        assert_eq!(code, Some(7), "{verb}: {screen}");
        assert!(screen.contains("nobody brought it"), "{verb}: {screen}");
        assert_eq!(screen.matches(QUESTION).count(), 1, "{verb}: {screen}");
    }
    let notes = std::fs::read_dir(media.path("one")).unwrap();
    let noted = notes.filter(|e| {
        let name = e.as_ref().unwrap().file_name();
        name.to_str().unwrap().starts_with("verified-")
    });
    assert_eq!(noted.count(), 0, "nothing was found out");
}

#[test]
fn an_interruption_ends_the_run_while_a_question_stands() {
    let media = Media::new(74);
    let target = media.path("target.img");
    let three = media.folder("three");
    for talk in [
        &[(QUESTION, "\x03")][..],
        &[(QUESTION, &three), (QUESTION, "\x03")],
    ] {
        let (code, screen) = media.restore(&target).converse(talk);
        assert_eq!(code, Some(130), "{screen}");
        // In good order, and not by the signal.
        assert!(screen.contains("interrupted"), "{screen}");
        assert!(!target.exists());
    }
}

#[test]
fn nobody_is_asked_who_is_not_there_or_does_not_want_to_be() {
    let media = Media::new(75);
    let target = media.path("target.img");
    let missing = &media.parts[2];
    let restore = media.restore(&target);
    restore.run().expect(7).expect_says(missing);
    let quiet = ["--quiet", "--json"].map(|option| media.restore(&target).arg(option));
    let yes = media.restore(&target).arg("--yes");
    for run in quiet.into_iter().chain([yes]) {
        let outcome = run.run_on_terminal().expect(7).expect_says(missing);
        assert!(!outcome.all_text().contains(QUESTION), "{outcome}");
    }
    // What only lists asks nothing either.
    let list = Store::at(&media.path("one")).verb("list");
    let outcome = list.run_on_terminal().expect(0).expect_says(missing);
    assert!(!outcome.all_text().contains(QUESTION), "{outcome}");
}

/// The target is a part that only turns up while the image is read.
#[test]
fn a_part_that_is_brought_is_not_overwritten() {
    let media = Media::new(76);
    let target = media.path("two").join(&media.parts[2]);
    let before = bytes::fingerprint(&target);
    let typed = format!("{}\n", text(&target));
    let restore = media.restore(&target).arg("--partition").arg("1");
    let (code, screen) = restore.converse(&[
        (QUESTION, &media.folder("three")),
        ("to go on: ", &typed),
        (QUESTION, &media.folder("two")),
    ]);
    assert_eq!(code, Some(4), "{screen}");
    assert!(screen.contains("it is part of"), "{screen}");
    assert_eq!(bytes::fingerprint(&target), before);
}
