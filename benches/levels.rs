//! What each way to compress costs, and what it saves.
//!
//! `cargo bench --bench levels [-- DISK...]`
//!
//! Each DISK is a file that holds a disk, best one of each kind of data that matters; without one, 256 MiB are made of
//! text, machine code, noise and zeros. Each is imaged at each level in turn, several times; the table shows, of each
//! disk, medians of seconds and processor seconds and the size of the image. `STRATA_BENCH_ROUNDS` (3),
//! `STRATA_BENCH_LEVELS` (all of `none zstd:-5 zstd:1 zstd:2 zstd:3 zstd:5 zstd:7 zstd:9 zstd:12 zstd:15 zstd:19`) and
//! `STRATA_BENCH_DIR` (the temporary directory) change the rest.

#[path = "measure/mod.rs"]
mod measure;

use measure::{Any, Table, folder_len, strata, text};
use std::fs;
use std::path::PathBuf;

const LEVELS: &str =
    "none zstd:-5 zstd:1 zstd:2 zstd:3 zstd:5 zstd:7 zstd:9 zstd:12 zstd:15 zstd:19";

fn main() -> Any<()> {
    if measure::was_middle_process()? {
        return Ok(());
    }
    // Cargo passes `--bench`.
    let args = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let mut disks: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let dir = measure::work_dir()?;
    if disks.is_empty() {
        let made = dir.path().join("made.img");
        measure::made_disk(&made, 256 << 20)?;
        disks.push(made);
    }
    let rounds = measure::number("STRATA_BENCH_ROUNDS", 3);
    let levels = std::env::var("STRATA_BENCH_LEVELS").unwrap_or_else(|_| LEVELS.to_owned());
    let store = dir.path().join("store");
    let mut table = Table::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for disk in &disks {
            let name = disk.file_stem().unwrap_or_default().to_string_lossy();
            measure::read(disk)?;
            for level in levels.split_whitespace() {
                let _ = fs::remove_dir_all(&store);
                let line = [
                    "backup",
                    text(disk)?,
                    "--store",
                    text(&store)?,
                    "--set",
                    "bench",
                ];
                let (mut cost, _) = strata(&[&line[..], &["--compression", level]].concat())?;
                cost.bytes = folder_len(&store)?;
                table.add(&format!("{name}, {level}"), cost);
            }
        }
    }
    table.print(&serde_json::json!({"cores": measure::cores(), "rounds": rounds}));
    Ok(())
}
