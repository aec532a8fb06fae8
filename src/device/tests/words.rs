//! Reasons in words, as a person would read them.

use super::machine::target;
use crate::base::ErrorKind;
use crate::device::{Inventory, WriteRequest, permit_write, write_refusals};

/// The reasons against writing a few bytes to `name`, in words.
pub(super) fn reasons(inventory: &Inventory, name: &str, request: &WriteRequest) -> Vec<String> {
    let target = target(inventory, name);
    let found = write_refusals(inventory, &target, request).unwrap();
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    match permit_write(inventory, &target, request) {
        Ok(_) => assert!(
            texts.is_empty(),
            "{name} is permitted in spite of {texts:?}"
        ),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Refused);
            let text = error.to_string();
            let listed = |reason: &String| match texts.len() {
                1 => text.ends_with(reason),
                _ => text.lines().any(|line| line == format!("- {reason}")),
            };
            assert!(texts.iter().all(listed), "{texts:?} are not all in {text}");
        }
    }
    texts
}

pub(super) fn plain(inventory: &Inventory, name: &str) -> String {
    reasons(inventory, name, &WriteRequest::default()).join("\n")
}

pub(super) fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}
