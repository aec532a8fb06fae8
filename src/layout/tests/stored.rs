//! Layouts out of image files, which may have been made by anybody.

use super::reading::layout;
use crate::base::{ByteLen, ErrorKind};
use crate::layout::Layout;
use serde_json::Value;

#[test]
fn layouts_survive_json() {
    for name in super::TABLES {
        let layout = layout(name);
        let text = serde_json::to_string(&layout).unwrap();
        let again: Layout = serde_json::from_str(&text).unwrap();
        assert_eq!(again, layout);
        again.validate(layout.disk_len()).unwrap();
        let other = again.validate(ByteLen(layout.disk_len + 512)).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Damaged);
    }
    let bad = serde_json::to_string(&layout("gpt-512"))
        .unwrap()
        .replace("\"sector\":512", "\"sector\":500");
    assert!(serde_json::from_str::<Layout>(&bad).is_err());
}

#[test]
fn layouts_that_cannot_be_true_are_refused() {
    let whole = serde_json::to_value(layout("mbr-logicals")).unwrap();
    let gpt = serde_json::to_value(layout("gpt-512")).unwrap();
    let cases = [
        (&whole, "/findings", serde_json::json!(["\u{1b}[2J"])),
        (&whole, "/findings", serde_json::json!(["x".repeat(3000)])),
        (&whole, "/findings", serde_json::json!(vec!["x"; 65])),
        (&whole, "/table/ebrs", serde_json::json!([26624, 26624])),
        (&whole, "/table/ebrs", serde_json::json!([1, 26624])),
        (&whole, "/table/ebrs", serde_json::json!([u64::MAX])),
        (
            &whole,
            "/table",
            serde_json::json!({"kind": "none", "reason": ""}),
        ),
        (&whole, "/extended", Value::Null),
        (&whole, "/partitions/0/number", 2.into()),
        (&whole, "/partitions/0/number", 5.into()),
        (&whole, "/partitions/0/start", 0.into()),
        (&whole, "/partitions/0/start", (2048 * 512 + 1).into()),
        (&whole, "/partitions/0/len", 0.into()),
        (&whole, "/partitions/0/len", u64::MAX.into()),
        (&whole, "/partitions/0/len", (8193 * 512).into()),
        (&whole, "/partitions/0/kind", "extended".into()),
        (&whole, "/partitions/0/type_id", "0x83\n".into()),
        (&whole, "/partitions/0/name", "x".repeat(37).into()),
        (&whole, "/disk_id", "g".into()),
        (&gpt, "/table/entry_count", 0.into()),
        (&gpt, "/table/entry_count", 3.into()),
        (&gpt, "/table/entry_count", 4097.into()),
        (&gpt, "/table/entry_size", 132.into()),
        (&gpt, "/table/first_usable", 1.into()),
        (&gpt, "/table/last_usable", u64::MAX.into()),
        (&gpt, "/table/primary/header_lba", Value::Null),
        (&gpt, "/table/primary/entries_lba", 2048.into()),
        (&gpt, "/table/backup/entries_lba", u64::MAX.into()),
        (&gpt, "/extended", gpt["partitions"][0].clone()),
        (&gpt, "/partitions/0/kind", "logical".into()),
    ];
    for (valid, at, value) in cases {
        let mut bad = valid.clone();
        *bad.pointer_mut(at).unwrap() = value.clone();
        let layout: Layout = serde_json::from_value(bad).unwrap();
        let result = layout.validate(layout.disk_len());
        assert!(result.is_err(), "{at} = {value}");
    }
}
