//! Two operations on one store at once: nothing that was published is lost, nothing half-made is listed,
//! nobody waits for ever, and whoever is refused is told by whom. docs/concurrency.md has the table.
//!
//! | file | what |
//! |---|---|
//! | `paused` | a store whose caller is stopped before a call, or dies there |
//! | `deeds` | what is done to a store, and what of it may go then |
//! | `pairs` | every operation stopped before each of its calls, and every other one meanwhile |
//! | `races` | the orders that have cost other programs data, each by itself |
//! | `processes` | the program itself, twice at once, either killed at any moment; one that sleeps |
//! | `shares` | two machines on one share whose locks do not reach from one to the other |
//!
//! `STRATA_LONG=1` stops before every call instead of some, and runs more processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kit/mod.rs"]
mod kit;

mod deeds;
mod pairs;
mod paused;
mod processes;
mod races;
mod shares;
