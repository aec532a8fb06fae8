//! A source that vanishes while it is imaged, and a target that vanishes or turns read-only while it is written:
//! the exit code says which of the two, older images are as they were, and the same command goes well afterwards.

use crate::kit::bytes::{self, Stream, assert_same};
use crate::kit::privileged::{Loop, privileged};
use crate::kit::recorded::{Break, RecordedFolder};
use crate::kit::store::Store;
use crate::kit::{MIB, scratch};

/// How calls end that are made to what has gone: a program that served it, a disk that was pulled out, a share
/// that was taken away. `EIO` is not among them: it is what bad sectors answer.
const GONE: [(&str, i32); 3] = [("ENOTCONN", 107), ("ENODEV", 19), ("ESTALE", 116)];
const EROFS: i32 = 30;
const MOMENTS: u64 = 20;

fn disk(folder: &RecordedFolder, len: u64) -> (std::path::PathBuf, Vec<u8>) {
    let content = Stream::new(401).bytes(len);
    folder.put("disk.img", content.clone());
    (folder.path().join("disk.img"), content)
}

/// The store holds the image that it had, whole, and nothing of another one.
fn as_before(store: &Store, what: &str) {
    assert_eq!(store.list().len(), 1, "{what}");
    store.verify(&["--deep"]).expect(0);
}

#[test]
fn a_source_whose_file_system_goes_away() {
    let Some(folder) = RecordedFolder::mount("a source that vanishes") else {
        return;
    };
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    let (disk, content) = disk(&folder, 8 * MIB);
    let first = dir.path().join("first.img");
    bytes::create_filled(&first, MIB);
    store.backed_up(&first);
    let mut moments = 0;
    for (name, errno) in GONE {
        for moment in 0..MOMENTS {
            let broken = Break {
                nth: 1 + moment * 4,
                errno,
                lasting: true,
            };
            folder.break_call(broken);
            let outcome = store.backup(&disk).arg("--full").run();
            if !folder.mend() {
                break;
            }
            moments += 1;
            let what = format!("{name} from call {} on", broken.nth);
            // 10 when it is gone before anybody has opened it.
            let source = matches!(outcome.code(), Some(5 | 10));
            assert!(source, "{what}: {outcome}");
            as_before(&store, &what);
        }
    }
    assert!(moments >= 20, "{moments} moments");
    println!("{moments} moments at which a source vanished");
    store.backed_up(&disk);
    let target = dir.path().join("target.img");
    store.restore("latest", &target).run().expect(0);
    assert!(std::fs::read(&target).unwrap() == content);
    store.assert_no_clutter();
}

/// A loop device whose file is cut off has nothing to read any more.
#[test]
fn a_source_whose_device_loses_its_disk() {
    if !privileged("a loop device that loses its file") {
        return;
    }
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    let first = dir.path().join("first.img");
    bytes::create_filled(&first, MIB);
    store.backed_up(&first);
    let file = dir.path().join("disk.img");
    bytes::create_filled(&file, 64 * MIB);
    let device = Loop::new(&file);
    bytes::open_rw(&file).set_len(0).unwrap();
    let outcome = store.backup(device.path()).run();
    assert!(matches!(outcome.code(), Some(5)), "{outcome}");
    as_before(&store, "the file of a loop device is cut off");
}

#[test]
fn a_target_that_goes_away_or_turns_read_only() {
    let Some(folder) = RecordedFolder::mount("a target that vanishes") else {
        return;
    };
    let dir = scratch();
    let store = Store::new(dir.path(), "store");
    let truth = dir.path().join("truth.img");
    std::fs::write(&truth, Stream::new(402).bytes(4 * MIB)).unwrap();
    store.backed_up(&truth);
    let target = folder.path().join("target.img");
    let errnos = [GONE[0], GONE[1], ("EROFS", EROFS)];
    let (mut moments, mut in_writing) = (0, 0);
    for (name, errno) in errnos {
        for moment in 0..MOMENTS {
            folder.put("target.img", vec![0xA5; crate::kit::size(4 * MIB)]);
            let broken = Break {
                nth: 1 + moment * 3,
                errno,
                lasting: true,
            };
            folder.break_call(broken);
            let what = format!("{name} from call {} on", broken.nth);
            let outcome = store.restore("latest", &target).run();
            if !folder.mend() {
                outcome.expect(0);
                break;
            }
            moments += 1;
            if outcome.code() == Some(0) {
                // Nothing that it needs has failed.
                assert_same(&truth, &target);
                continue;
            }
            assert!(
                matches!(outcome.code(), Some(4 | 6 | 10)),
                "{what}: {outcome}"
            );
            in_writing += u64::from(outcome.code() == Some(6));
            store.verify(&["--deep"]).expect(0);
            store.restore("latest", &target).run().expect(0);
            assert_same(&truth, &target);
        }
    }
    assert!(in_writing >= 20, "{in_writing} of {moments} moments");
    println!(
        "{moments} moments at which a target vanished, {in_writing} of them while it was written"
    );
    store.assert_no_clutter();
}
