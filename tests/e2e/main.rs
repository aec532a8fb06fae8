//! The command as people and scripts meet it, on real disks in files and on loop devices.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kit/mod.rs"]
mod kit;

mod bad_sectors;
mod chains;
mod clocks;
mod codes;
mod confirm;
mod copies;
mod damage;
mod disks;
mod dry_run;
mod encryption;
mod forgotten;
mod heal;
mod identity;
mod increments;
mod kills;
mod limits;
mod map;
mod media;
mod memory;
mod moments;
mod output;
mod partition;
mod pipes;
mod power;
mod refusals;
mod resize;
mod resources;
mod resume;
mod round_trip;
mod salvage;
mod shares;
mod short;
mod space;
mod split;
mod stalls;
mod take;
mod unreadable;
mod vanishing;
