//! What a store that is far away costs: a folder whose every answer takes its time is mounted by FUSE, and
//! images in it are verified, restored and listed.
//!
//! `cargo bench --bench far [-- DISK]`, as root
//!
//! DISK is a file that holds a disk; without one, 1 GiB of text, machine code, noise and zeros are made. The
//! limit is what sixteen readers make of the image together. `STRATA_BENCH_DELAY` (milliseconds, 5),
//! `STRATA_BENCH_RATE` (MiB a second, 100), `STRATA_BENCH_IMAGES` (1000, for the list), `STRATA_BENCH_ROUNDS` (5)
//! and `STRATA_BENCH_DIR` change the rest. A table and a line of JSON come out.

#[path = "measure/mod.rs"]
mod measure;

#[path = "measure/far.rs"]
mod far;

#[path = "../tests/kit/fuse_attr.rs"]
mod fuse_attr;

use far::{Distance, FarFolder};
use measure::{Any, FRAME, MIB, Table, number, strata, text, timed};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Readers of the limit: more than the line needs to be full.
const READERS: usize = 16;

fn main() -> Any<()> {
    if measure::was_middle_process()? {
        return Ok(());
    }
    // Cargo passes `--bench`.
    let disk = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let dir = measure::work_dir()?;
    let disk = match disk {
        Some(disk) => PathBuf::from(disk),
        None => {
            let path = dir.path().join("disk.img");
            measure::made_disk(&path, 1 << 30)?;
            path
        }
    };
    let distance = Distance {
        delay: Duration::from_millis(number("STRATA_BENCH_DELAY", 5)),
        rate: number("STRATA_BENCH_RATE", 100) * MIB,
    };
    let (rounds, images) = (
        number("STRATA_BENCH_ROUNDS", 5),
        number("STRATA_BENCH_IMAGES", 1000),
    );
    let mut table = Table::default();
    one_image(&mut table, dir.path(), &disk, distance, rounds)?;
    many_images(&mut table, dir.path(), images, distance, rounds)?;
    table.print(&serde_json::json!({
        "cores": measure::cores(),
        "rounds": rounds,
        "delay_ms": u64::try_from(distance.delay.as_millis())?,
        "bytes_a_second": distance.rate,
        "images": images,
    }));
    Ok(())
}

/// Reading one image from end to end.
fn one_image(
    table: &mut Table,
    dir: &Path,
    disk: &Path,
    distance: Distance,
    rounds: u64,
) -> Any<()> {
    let (store, out) = (dir.join("store"), dir.join("restored.img"));
    strata(&[
        "backup",
        text(disk)?,
        "--store",
        text(&store)?,
        "--set",
        "far",
    ])?;
    let image = measure::first_image(&store)?;
    let name = image.file_name().ok_or("no image")?;
    for round in 0..rounds {
        eprintln!("one image: round {} of {rounds}", round + 1);
        // A mount of its own for each: nothing is in the page cache.
        let mount = || FarFolder::mount(&store, distance);
        let folder = mount()?;
        let (cost, ()) = timed(|| read_together(&folder.path().join(name)))?;
        table.add("limit: read image", cost);
        for (what, words) in [
            ("verify", &["verify"][..]),
            ("verify --deep", &["verify", "--deep"]),
            (
                "restore, not read back",
                &["restore", "latest", text(&out)?, "--no-read-back"],
            ),
        ] {
            let _ = fs::remove_file(&out);
            nix::unistd::sync();
            let folder = mount()?;
            let line = [words, &["--store", text(folder.path())?]].concat();
            table.add(what, strata(&line)?.0);
        }
    }
    let limit = table.cost("limit: read image").ok_or("no limit")?.seconds;
    for what in ["verify", "verify --deep", "restore, not read back"] {
        if let Some(cost) = table.cost(what) {
            table.ratio(what, limit / cost.seconds, "at least 0.9");
        }
    }
    Ok(fs::remove_dir_all(&store)?)
}

/// Finding out what there is.
fn many_images(
    table: &mut Table,
    dir: &Path,
    images: u64,
    distance: Distance,
    rounds: u64,
) -> Any<()> {
    let (store, disk) = (dir.join("many"), dir.join("small.img"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&disk)?;
    file.set_len(MIB)?;
    for image in 0..images {
        file.write_all_at(format!("{image:16}").as_bytes(), image * 4096 % MIB)?;
        strata(&[
            "backup",
            text(&disk)?,
            "--store",
            text(&store)?,
            "--set",
            "far",
        ])?;
    }
    for round in 0..rounds {
        eprintln!("many images: round {} of {rounds}", round + 1);
        for words in [&["list"][..], &["show", "latest"]] {
            for (where_, mounted) in [
                ("here", None),
                ("far", Some(FarFolder::mount(&store, distance)?)),
            ] {
                let folder = mounted.as_ref().map_or(store.as_path(), FarFolder::path);
                let line = [words, &["--store", text(folder)?]].concat();
                let name = format!("{}, {images} images, {where_}", words.join(" "));
                table.add(&name, strata(&line)?.0);
            }
        }
    }
    Ok(())
}

/// Reads a file as fast as it comes, front to back.
fn read_together(path: &Path) -> Any<()> {
    let file = File::open(path)?;
    let (len, step) = (file.metadata()?.len(), u64::try_from(FRAME)?);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let run = || -> Result<(), String> {
            let mut buf = vec![0; FRAME];
            loop {
                let at = next.fetch_add(step, Ordering::Relaxed);
                let count = usize::try_from(len.saturating_sub(at).min(step)).unwrap_or(0);
                if count == 0 {
                    return Ok(());
                }
                let read = file.read_exact_at(&mut buf[..count], at);
                read.map_err(|e| e.to_string())?;
            }
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(run)).collect();
        for reader in readers {
            reader.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}
