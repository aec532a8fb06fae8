mod crash;

use super::*;
use crate::chain::Catalog;
use crate::store::MemoryStore;
use proptest::prelude::*;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn store() -> MemoryStore {
    MemoryStore::new("m")
}

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn names(store: &dyn Store) -> Vec<String> {
    let entries = store.list().unwrap().into_iter();
    entries.map(|entry| entry.name.to_string()).collect()
}

fn result(image: u128, time: i64, how: How, ok: bool) -> VerifiedRecord {
    VerifiedRecord {
        image: id(image),
        time,
        how,
        share: WHOLE,
        ok,
        root: Digest::of(&image.to_le_bytes()),
    }
}

fn verified(store: &dyn Store, image: u128) -> Vec<VerifiedRecord> {
    let mut records = Records::load(store).unwrap();
    records.verified.remove(&id(image)).unwrap_or_default()
}

#[test]
fn protecting_twice_and_taking_back_twice_is_no_error() {
    let store = store();
    assert!(protect(&store, id(1), Some("before the upgrade"), 100).unwrap());
    assert!(!protect(&store, id(1), Some("other words"), 200).unwrap());
    assert!(protect(&store, id(2), None, 300).unwrap());
    assert_eq!(
        names(&store),
        [
            "protected-00000000000000000000000000000001.json",
            "protected-00000000000000000000000000000002.json",
        ]
    );
    let records = Records::load(&store).unwrap();
    let first = Protection {
        time: Some(100),
        note: Some("before the upgrade".into()),
    };
    assert_eq!(records.protected[&id(1)], first, "the first words stay");
    assert_eq!(records.protected[&id(2)].note, None);
    assert!(records.unreadable.is_empty());
    assert!(unprotect(&store, id(1)).unwrap());
    assert!(!unprotect(&store, id(1)).unwrap());
    let records = Records::load(&store).unwrap();
    assert!(records.protected.keys().eq([&id(2)]));
}

/// A store in which another run is always faster: it protects what this one is about to.
struct Overtaken(MemoryStore);

impl Store for Overtaken {
    crate::pass_on!(0: name, list, open, overwrite, remove, space, lock, clean_up);

    fn create(&self, name: &FileName) -> Result<Box<dyn Upload>> {
        let upload = self.0.create(name)?;
        assert!(protect(&self.0, id(1), Some("faster"), 200)?);
        Ok(upload)
    }

    fn create_in_parts(&self, name: &FileName, _part_len: Option<u64>) -> Result<Box<dyn Upload>> {
        self.create(name)
    }
}

#[test]
fn another_run_that_protects_the_same_is_as_good() {
    let store = Overtaken(store());
    assert!(!protect(&store, id(1), Some("slower"), 100).unwrap());
    let records = Records::load(&store).unwrap();
    assert_eq!(records.protected[&id(1)].note.as_deref(), Some("faster"));
}

#[test]
fn a_note_too_long_to_read_again_is_refused() {
    let long = "x".repeat(MAX_NOTE + 1);
    let error = protect(&store(), id(1), Some(&long), 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.next_step().is_some());
    // Each character below takes six in the file.
    let worst = "\u{1}".repeat(MAX_NOTE);
    let store = store();
    protect(&store, id(1), Some(&worst), i64::MIN).unwrap();
    let records = Records::load(&store).unwrap();
    assert_eq!(
        records.protected[&id(1)].note.as_deref(),
        Some(worst.as_str())
    );
}

#[test]
fn notes_disturb_no_catalog_and_images_no_notes() {
    let store = store();
    protect(&store, id(1), None, 0).unwrap();
    record_verified(&store, &[result(1, 0, How::Deep, true)], id(9)).unwrap();
    let catalog = Catalog::load(&store).unwrap();
    assert!(catalog.images.is_empty() && catalog.broken.is_empty());
    for other in [
        "protected-a.strata",
        "a.json",
        "notes-protected-.json",
        "verified-.txt",
    ] {
        store.put(&name(other), b"x".to_vec());
    }
    assert_eq!(Records::load(&store).unwrap().unreadable, []);
}

#[test]
fn what_cannot_be_read_is_listed_and_a_name_protects_all_the_same() {
    let deep = "[".repeat(100_000);
    let record = |change: (&str, &str)| {
        let text = serde_json::to_string(&[result(7, 1, How::Deep, true)]).unwrap();
        text.replacen(change.0, change.1, 1)
    };
    let long = vec![b' '; to_usize(MAX_LEN) + 1];
    let hostile: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\xff\xfe".to_vec(),
        b"null".to_vec(),
        b"\"x\"".to_vec(),
        b"{\"time\":\"soon\",\"note\":7}".to_vec(),
        b"{\"time\":1e400}".to_vec(),
        b"[{}]".to_vec(),
        deep.into_bytes(),
        record(("deep", "profound")).into_bytes(),
        record(("1000", "-1")).into_bytes(),
        record(("\"ok\"", "\"fine\"")).into_bytes(),
        record(("\"time\":1", "\"time\":9223372036854775808")).into_bytes(),
        record(("\"root\":\"", "\"root\":\"0")).into_bytes(),
        record(("\"root\":\"", "\"root\":\"+")).into_bytes(),
        record(("\"image\":\"0", "\"image\":\"g")).into_bytes(),
        long,
    ];
    for bytes in hostile {
        let store = store();
        let protecting = name(&format!("protected-{}.json", id(7).simple()));
        let results = name(&format!("verified-{}.json", id(8).simple()));
        store.put(&protecting, bytes.clone());
        store.put(&results, bytes.clone());
        protect(&store, id(1), None, 5).unwrap();
        record_verified(&store, &[result(1, 5, How::Quick, true)], id(9)).unwrap();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let records = Records::load(&store).unwrap();
        assert!(records.protected.keys().eq([&id(1), &id(7)]), "{shown}");
        assert_eq!(records.protected[&id(7)], Protection::default(), "{shown}");
        assert_eq!(records.verified.len(), 1, "{shown}");
        assert_eq!(records.unreadable.len(), 2, "{shown}");
        assert_eq!(
            store.get(&results).as_ref(),
            Some(&bytes),
            "left where it is"
        );
        assert!(!protect(&store, id(7), None, 5).unwrap(), "{shown}");
        assert!(unprotect(&store, id(7)).unwrap(), "{shown}");
        assert!(
            !Records::load(&store)
                .unwrap()
                .protected
                .contains_key(&id(7))
        );
    }
}

#[test]
fn odd_names_are_listed_and_digits_of_either_case_are_read() {
    let store = store();
    let upper = format!("protected-{:X}.json", id(0xabc).simple());
    assert!(upper.contains("ABC"));
    store.put(&name(&upper), b"{}".to_vec());
    let odd = [
        "protected-.json",
        "protected-00000000-0000-0000-0000-000000000001.json",
        "protected-0000000000000000000000000000000g.json",
        "verified-1.json",
        "verified-00000000000000000000000000000001 (1).json",
    ];
    for text in odd {
        store.put(&name(text), b"{}".to_vec());
    }
    let records = Records::load(&store).unwrap();
    assert!(records.protected.keys().eq([&id(0xabc)]));
    let mut listed: Vec<&str> = records.unreadable.iter().map(FileName::as_str).collect();
    listed.sort_unstable();
    let mut odd = odd.to_vec();
    odd.sort_unstable();
    assert_eq!(listed, odd);
    assert!(!protect(&store, id(0xabc), None, 0).unwrap());
    assert!(unprotect(&store, id(0xabc)).unwrap());
    assert!(Records::load(&store).unwrap().protected.is_empty());
}

#[test]
fn members_of_later_versions_are_ignored() {
    let store = store();
    let file = name(&format!("protected-{}.json", id(1).simple()));
    store.put(&file, br#"{"note":"a","by":{"name":["x"]}}"#.to_vec());
    let record = serde_json::to_string(&[result(1, 5, How::Sample, false)]).unwrap();
    let record = record.replace("\"time\"", "\"later\":[[1]],\"time\"");
    let record = record.replace("1000", "4000000000");
    let file = name(&format!("verified-{}.json", id(1).simple()));
    store.put(&file, record.into_bytes());
    let records = Records::load(&store).unwrap();
    assert_eq!(records.unreadable, []);
    let expected = Protection {
        time: None,
        note: Some("a".into()),
    };
    assert_eq!(records.protected[&id(1)], expected);
    let expected = result(1, 5, How::Sample, false);
    assert_eq!(
        records.verified[&id(1)],
        [expected],
        "no share is above the whole"
    );
}

#[test]
fn results_have_the_documented_form() {
    let store = store();
    record_verified(&store, &[result(1, -5, How::Deep, true)], id(0xf)).unwrap();
    let file = name("verified-0000000000000000000000000000000f.json");
    let text = String::from_utf8(store.get(&file).unwrap()).unwrap();
    let root = Digest::of(&1u128.to_le_bytes());
    let expected = format!(
        "[{{\"image\":\"00000000000000000000000000000001\",\"time\":-5,\"how\":\"deep\",\
         \"share\":1000,\"ok\":true,\"root\":\"{root}\"}}]"
    );
    assert_eq!(text, expected);
}

#[test]
fn the_newest_good_and_bad_result_of_each_kind_stay_in_one_file() {
    let store = store();
    let runs = [
        result(1, 10, How::Deep, true),
        result(1, 20, How::Deep, false),
        result(1, 15, How::Deep, false),
        result(1, 30, How::Deep, true),
        result(1, 30, How::Quick, true),
        result(1, 30, How::Quick, false),
        result(2, 5, How::Sample, true),
    ];
    for (at, run) in (1..).zip(&runs) {
        assert!(
            record_verified(&store, std::slice::from_ref(run), id(at))
                .unwrap()
                .is_empty()
        );
        assert_eq!(names(&store).len(), 1);
    }
    assert!(record_verified(&store, &[], id(99)).unwrap().is_empty());
    let records = Records::load(&store).unwrap();
    let expected = [
        runs[1].clone(),
        runs[4].clone(),
        runs[3].clone(),
        runs[5].clone(),
    ];
    assert_eq!(records.verified[&id(1)], expected, "oldest first");
    assert_eq!(records.last(id(1), How::Deep), Some(&runs[3]));
    assert_eq!(
        records.last(id(1), How::Quick),
        Some(&runs[5]),
        "of equal times the bad one"
    );
    assert_eq!(records.last(id(1), How::Sample), None);
    assert_eq!(records.last(id(2), How::Sample), Some(&runs[6]));
    assert_eq!(records.last(id(3), How::Quick), None);
    // All at once is the same.
    let other = MemoryStore::new("other");
    record_verified(&other, &runs, id(1)).unwrap();
    assert_eq!(Records::load(&other).unwrap().verified, records.verified);
}

#[test]
fn a_clock_that_goes_back_hides_no_failure() {
    let store = store();
    let ahead = [
        result(1, 1000, How::Deep, true),
        result(1, 1000, How::Quick, true),
    ];
    record_verified(&store, &ahead, id(1)).unwrap();
    record_verified(&store, &[result(1, 10, How::Deep, false)], id(2)).unwrap();
    let records = Records::load(&store).unwrap();
    assert!(!records.last(id(1), How::Deep).unwrap().ok);
    assert_eq!(records.last(id(1), How::Quick), Some(&ahead[1]));
    // The other way round the failure stays in view until the clock has passed it.
    record_verified(&store, &[result(1, 5, How::Deep, true)], id(3)).unwrap();
    let records = Records::load(&store).unwrap();
    assert!(!records.last(id(1), How::Deep).unwrap().ok);
    record_verified(&store, &[result(1, 11, How::Deep, true)], id(4)).unwrap();
    let records = Records::load(&store).unwrap();
    assert!(records.last(id(1), How::Deep).unwrap().ok);
}

#[test]
fn a_damage_stands_until_somebody_looks_as_closely_and_finds_none() {
    use How::{Deep, Quick, Sample};
    let damaged = |results: &[(i64, How, bool)]| {
        let store = store();
        for (n, (time, how, ok)) in (1..).zip(results) {
            record_verified(&store, &[result(7, *time, *how, *ok)], id(n)).unwrap();
        }
        let records = Records::load(&store).unwrap();
        records.damage_of(id(7)).map(|r| r.time)
    };
    assert_eq!(damaged(&[(1, Deep, true)]), None);
    assert_eq!(damaged(&[(1, Quick, false)]), Some(1));
    assert_eq!(damaged(&[(1, Quick, false), (2, Sample, true)]), Some(1));
    assert_eq!(damaged(&[(1, Quick, false), (2, Quick, true)]), None);
    assert_eq!(damaged(&[(1, Deep, false), (2, Quick, true)]), Some(1));
    assert_eq!(damaged(&[(1, Sample, false), (2, Quick, true)]), Some(1));
    assert_eq!(damaged(&[(1, Sample, false), (2, Deep, true)]), None);
    assert_eq!(damaged(&[(1, Quick, true), (2, Deep, false)]), Some(2));
}

#[test]
fn a_file_never_grows_beyond_what_is_read() {
    let many = |first: u128, count: u128, time: i64| -> Vec<VerifiedRecord> {
        (first..first + count)
            .map(|image| result(image, time, How::Deep, true))
            .collect()
    };
    let store = store();
    // Some nine MiB each.
    record_verified(&store, &many(0, 55_000, 1), id(1)).unwrap();
    record_verified(&store, &many(100_000, 55_000, 2), id(2)).unwrap();
    assert_eq!(names(&store).len(), 2, "together they would be too long");
    record_verified(&store, &many(500, 1, 3), id(3)).unwrap();
    let records = Records::load(&store).unwrap();
    assert_eq!(records.verified.len(), 110_000);
    assert_eq!(records.last(id(500), How::Deep).unwrap().time, 3);
    assert_eq!(records.unreadable, []);
    let before = names(&store);
    let error = record_verified(&store, &many(0, 110_000, 4), id(4)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert_eq!(names(&store), before);
}

#[test]
fn many_large_files_do_not_fill_the_memory() {
    let store = store();
    let large = vec![b' '; to_usize(MAX_LEN)];
    for at in 0..6 {
        let file = name(&format!("verified-{}.json", id(at).simple()));
        let mut bytes = large.clone();
        bytes[..2].copy_from_slice(b"[]");
        store.put(&file, bytes);
    }
    let records = Records::load(&store).unwrap();
    assert_eq!(records.unreadable.len(), 2, "64 MiB are read and no more");
    record_verified(&store, &[result(1, 1, How::Deep, true)], id(99)).unwrap();
    assert_eq!(names(&store).len(), 3, "what was not read stays");
}

#[test]
fn protections_of_images_that_are_no_more_are_forgotten() {
    let store = store();
    for n in 1..5 {
        protect(&store, id(n), None, 0).unwrap();
    }
    record_verified(&store, &[result(1, 1, How::Deep, true)], id(99)).unwrap();
    let alive = |image: Uuid| image.as_u128().is_multiple_of(2);
    assert_eq!(Records::forget(&store, &alive).unwrap(), [id(1), id(3)]);
    assert!(Records::forget(&store, &alive).unwrap().is_empty());
    let records = Records::load(&store).unwrap();
    assert!(records.protected.keys().eq([&id(2), &id(4)]));
    assert_eq!(records.verified.len(), 1, "results are no protections");
}

proptest! {
    #[test]
    fn any_bytes_are_a_note_or_are_listed(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let store = store();
        store.put(&name_of(PROTECTED, id(1)).unwrap(), bytes.clone());
        store.put(&name_of(VERIFIED, id(2)).unwrap(), bytes);
        let records = Records::load(&store).unwrap();
        prop_assert!(records.protected.contains_key(&id(1)));
        prop_assert!(records.unreadable.len() <= 2);
    }
}
