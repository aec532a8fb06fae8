//! Many days of one store: a file system that is used, imaged every day and pruned every day. What is
//! left comes back file by file, and the store holds what it says and nothing else.
//!
//! The short form is one of the usual tests; 200 days are a long campaign.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../filesystems/manifest.rs"]
mod manifest;

mod clock;
mod fat;
mod keep;
mod mishaps;
mod subject;
mod usage;
mod year;

use keep::Rules;
use kit::MIB;
use kit::privileged::{privileged, privileged_with_fs};
use subject::Kind;
use year::{Soak, Year};

/// Rules that let something go, and merge, almost every day of a short run.
const SHORT: Rules = Rules {
    daily: 3,
    weekly: 2,
    monthly: 1,
};
const LONG: Rules = Rules {
    daily: 7,
    weekly: 4,
    monthly: 6,
};

fn short(kind: Kind) {
    Soak::lived(&Year {
        kind,
        disk: 96 * MIB,
        content: 12 * MIB,
        days: 12,
        rules: SHORT,
        // Some points are restored while there are younger and older ones.
        check_every: 5,
        mishap_every: 3,
        room: 128 * MIB,
        seed: 20,
    });
}

fn long(kind: Kind) {
    Soak::lived(&Year {
        kind,
        disk: 512 * MIB,
        content: 96 * MIB,
        days: 200,
        rules: LONG,
        check_every: 10,
        mishap_every: 10,
        room: 1024 * MIB,
        seed: 200,
    });
}

#[test]
fn twelve_days_of_ext4() {
    if privileged("twelve days of ext4") {
        short(Kind::Ext4);
    }
}

#[test]
fn twelve_days_of_ntfs() {
    if privileged_with_fs("fuseblk", "twelve days of NTFS") {
        short(Kind::Ntfs);
    }
}

#[test]
#[ignore = "200 days take minutes: `./test --long`"]
fn two_hundred_days_of_ext4() {
    if privileged("200 days of ext4") {
        long(Kind::Ext4);
    }
}

#[test]
#[ignore = "200 days take minutes: `./test --long`"]
fn two_hundred_days_of_ntfs() {
    if privileged_with_fs("fuseblk", "200 days of NTFS") {
        long(Kind::Ntfs);
    }
}
