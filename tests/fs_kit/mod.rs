//! What the tests, the fuzzers and the measurements of used maps share: the capsules of
//! `fixtures/fs`, damage to them, and a run of `fs::used` that is watched.

// Each of them uses its own part.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod capsules;
pub(crate) mod damage;
pub(crate) mod watch;
