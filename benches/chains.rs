//! What a history costs: an increment in which nothing changed, a restore behind a year of increments,
//! and a thousand images of a disk of 8 TiB.
//!
//! `cargo bench --bench chains [-- [unchanged] [year] [long] [DISK]]`
//!
//! Without a name all three run. DISK is a file that holds a disk, for `unchanged`; without one, 4 GiB
//! of text, machine code, noise and zeros are made.
//!
//! - `unchanged`: against the slower of reading what is taken of the disk and BLAKE3 of it on all cores, in turns;
//!   of a disk that is not cached, both at once are measured too.
//! - `year`: opening and restoring the newest of a full image and 365 increments, against a new full
//!   image of the same disk, in turns.
//! - `long`: a sparse disk of 8 TiB with 1,000 images in its chain: one more increment, verify, restore,
//!   list, and reads here and there; their memory against the budget that all share.
//!
//! Everything is measured with a warm page cache. `STRATA_BENCH_ROUNDS` (5), `STRATA_BENCH_IMAGES` (1000)
//! and `STRATA_BENCH_DIR` (the temporary directory) change the rest. A table and a line of JSON come out.

#[path = "measure/mod.rs"]
mod measure;

use diskstrata::base::{ByteOffset, Error};
use diskstrata::block::BlockSource;
use diskstrata::chain::{Catalog, ChainView};
use diskstrata::store::LocalStore;
use measure::{Any, Cost, MIB, Numbers, Pieces, Table, evict, number, strata, text, timed};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The budget for buffers and tables, and what the program may take beside it, as in
/// `tests/e2e/memory.rs`.
const BUDGET: u64 = (256 + 64) * MIB;

fn main() -> Any<()> {
    if measure::was_middle_process()? {
        return Ok(());
    }
    let (mut names, mut disk) = (Vec::new(), None);
    // Cargo passes `--bench`.
    for arg in std::env::args().skip(1).filter(|a| !a.starts_with("--")) {
        match arg.as_str() {
            "unchanged" | "year" | "long" => names.push(arg),
            _ => disk = Some(PathBuf::from(arg)),
        }
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let dir = measure::work_dir()?;
    let rounds = number("STRATA_BENCH_ROUNDS", 5);
    let images = number("STRATA_BENCH_IMAGES", 1000);
    let mut table = Table::default();
    if wanted("unchanged") {
        unchanged(&mut table, dir.path(), disk.as_deref(), rounds)?;
    }
    if wanted("year") {
        year(&mut table, dir.path(), rounds)?;
    }
    if wanted("long") {
        long(&mut table, dir.path(), images, rounds)?;
    }
    let facts = serde_json::json!({"cores": measure::cores(), "rounds": rounds, "images": images});
    table.print(&facts);
    Ok(())
}

/// A new folder for a store.
fn store_in(dir: &Path, name: &str) -> Any<String> {
    let path = dir.join(name);
    fs::create_dir(&path)?;
    Ok(text(&path)?.to_owned())
}

fn backup(disk: &Path, store: &str, kind: &str) -> Any<(Cost, serde_json::Value)> {
    let args = [
        "backup",
        text(disk)?,
        "--store",
        store,
        "--set",
        "bench",
        kind,
    ];
    strata(&args)
}

/// An increment in which nothing changed.
fn unchanged(table: &mut Table, dir: &Path, disk: Option<&Path>, rounds: u64) -> Any<()> {
    let made = dir.join("unchanged.img");
    let disk = match disk {
        Some(disk) => disk,
        None => {
            measure::made_disk(&made, 4096 * MIB)?;
            &made
        }
    };
    let store = store_in(dir, "unchanged")?;
    backup(disk, &store, "--full")?;
    let pieces = Pieces::taken(Path::new(&store), &dir.join("content"))?;
    measure::read(disk)?;
    for round in 0..rounds {
        eprintln!("unchanged: round {} of {rounds}", round + 1);
        let read = || pieces.each_in_place(disk, &|| |_, bytes| measure::touch(bytes));
        table.add("limit: read", timed(read)?.0);
        let hash = || pieces.each_in_place(disk, &|| |_, bytes| measure::digests(bytes));
        table.add("limit: BLAKE3", timed(hash)?.0);
        let (cost, report) = backup(disk, &store, "--incremental")?;
        table.add("increment, nothing changed", cost);
        evict(disk)?;
        let read = || pieces.each_direct_in_place(disk, &|| |_, bytes| measure::touch(bytes));
        table.add("limit: read past the cache", timed(read)?.0);
        let hash = || pieces.each_direct_in_place(disk, &|| |_, bytes| measure::digests(bytes));
        table.add("limit: BLAKE3, not cached", timed(hash)?.0);
        let (cost, again) = backup(disk, &store, "--incremental")?;
        table.add("increment, nothing changed, disk not cached", cost);
        measure::read(disk)?;
        for changed in [&report["changed"], &again["changed"]] {
            if changed["data"] != 0 || changed["zero"] != 0 {
                return Err(format!("something changed: {changed}").into());
            }
        }
    }
    for (name, read) in [
        ("increment, nothing changed", "limit: read"),
        (
            "increment, nothing changed, disk not cached",
            "limit: read past the cache",
        ),
    ] {
        let limits = [read, "limit: BLAKE3"].map(|n| table.cost(n).map_or(0.0, |c| c.seconds));
        let took = table.cost(name).map_or(f64::INFINITY, |c| c.seconds);
        table.ratio(name, limits[0].max(limits[1]) / took, "at least 0.92");
    }
    let _ = fs::remove_file(&made);
    Ok(())
}

/// The newest of a full image and 365 increments, against a new full image.
fn year(table: &mut Table, dir: &Path, rounds: u64) -> Any<()> {
    let disk = dir.join("year.img");
    measure::made_disk(&disk, 512 * MIB)?;
    let (old, new) = (store_in(dir, "year")?, store_in(dir, "fresh")?);
    backup(&disk, &old, "--full")?;
    let mut numbers = Numbers::new("year");
    for day in 0..365 {
        if day % 50 == 0 {
            eprintln!("year: day {day} of 365");
        }
        a_day(&disk, 512 * MIB, &mut numbers)?;
        backup(&disk, &old, "--incremental")?;
    }
    backup(&disk, &new, "--full")?;
    let out = dir.join("restored.img");
    for round in 0..rounds {
        eprintln!("year: round {} of {rounds}", round + 1);
        for (which, store) in [("a full image", &new), ("365 increments", &old)] {
            measure::read_folder(Path::new(store))?;
            let (cost, _) = strata(&["show", "latest", "--store", store])?;
            table.add(&format!("open, {which}"), cost);
            for (how, flag) in [("not read back", "--no-read-back"), ("read back", "--yes")] {
                let _ = fs::remove_file(&out);
                let args = ["restore", "latest", text(&out)?, "--store", store, flag];
                table.add(&format!("restore, {how}, {which}"), strata(&args)?.0);
            }
        }
        if round == 0 {
            same(&disk, &out)?;
        }
    }
    // A restore opens what it restores: that is part of its time.
    for what in ["restore, not read back", "restore, read back"] {
        let name = format!("{what}, 365 increments");
        let costs = [&name, &format!("{what}, a full image")].map(|n| table.cost(n));
        if let [Some(chain), Some(full)] = costs {
            table.ratio(&name, chain.seconds / full.seconds, "at most 1.25");
        }
    }
    fs::remove_file(&disk)?;
    fs::remove_file(&out)?;
    Ok(())
}

/// What changes on a disk of `len` bytes in a day: a run of a mebibyte, and pages here and there.
fn a_day(disk: &Path, len: u64, numbers: &mut Numbers) -> Any<()> {
    let file = OpenOptions::new().write(true).open(disk)?;
    let at = numbers.below(len / MIB) * MIB;
    file.write_all_at(&numbers.bytes(usize::try_from(MIB)?), at)?;
    for _ in 0..24 {
        let at = numbers.below(len / 4096) * 4096;
        file.write_all_at(&numbers.bytes(4096), at)?;
    }
    Ok(())
}

fn same(a: &Path, b: &Path) -> Any<()> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    let len = a.metadata()?.len();
    let (mut left, mut right) = (vec![0; measure::FRAME], vec![0; measure::FRAME]);
    let mut at = 0;
    while at < len {
        let count = usize::try_from((len - at).min(MIB))?;
        a.read_exact_at(&mut left[..count], at)?;
        b.read_exact_at(&mut right[..count], at)?;
        if left[..count] != right[..count] {
            return Err(format!("the restored disk differs near byte {at}").into());
        }
        at += MIB;
    }
    Ok(())
}

/// A thousand images of a sparse disk of 8 TiB.
fn long(table: &mut Table, dir: &Path, images: u64, rounds: u64) -> Any<()> {
    let (disk, len, pieces) = (dir.join("long.img"), 8 << 40, 32);
    let file = File::create(&disk)?;
    file.set_len(len)?;
    let mut numbers = Numbers::new("long");
    let place = |piece: u64| len / pieces * piece;
    for piece in 0..pieces {
        let mut content = numbers.bytes(measure::FRAME / 2);
        content.resize(measure::FRAME, 7);
        file.write_all_at(&content, place(piece))?;
    }
    let store = store_in(dir, "long")?;
    backup(&disk, &store, "--full")?;
    let mut change = || -> Any<()> {
        for _ in 0..8 {
            let at = place(numbers.below(pieces)) + numbers.below(MIB / 4096) * 4096;
            file.write_all_at(&numbers.bytes(4096), at)?;
        }
        Ok(())
    };
    for image in 1..images {
        change()?;
        let (cost, _) = backup(&disk, &store, "--incremental")?;
        if image == 1 {
            table.add("8 TiB: the first increment", cost);
        }
        if image % 100 == 0 {
            eprintln!("long: image {image} of {images}: {:.3} s", cost.seconds);
        }
    }
    let name = |what: &str| format!("8 TiB, {images} images: {what}");
    let out = dir.join("restored.img");
    for round in 0..rounds {
        eprintln!("long: round {} of {rounds}", round + 1);
        change()?;
        let (cost, _) = backup(&disk, &store, "--incremental")?;
        table.add(&name("one more increment"), cost);
        measure::read_folder(Path::new(&store))?;
        table.add(&name("list"), strata(&["list", "--store", &store])?.0);
        let show = ["show", "latest", "--store", &store];
        table.add(&name("show the newest"), strata(&show)?.0);
        let _ = fs::remove_file(&out);
        let restore = ["restore", "latest", text(&out)?, "--store", &store];
        let dry = [&restore[..], &["--dry-run"]].concat();
        table.add(&name("restore --dry-run"), strata(&dry)?.0);
        table.add(&name("restore"), strata(&restore)?.0);
        let verify = ["verify", "latest", "--store", &store];
        table.add(&name("verify the newest and all below"), strata(&verify)?.0);
        reads(
            table,
            &name,
            Path::new(&store),
            &mut |numbers: &mut Numbers| {
                place(numbers.below(pieces)) + numbers.below(MIB / 4096) * 4096
            },
        )?;
    }
    for what in [
        "one more increment",
        "list",
        "show the newest",
        "restore --dry-run",
        "restore",
        "verify the newest and all below",
    ] {
        let name = name(what);
        if let Some(cost) = table.cost(&name) {
            #[allow(clippy::cast_precision_loss)]
            let ratio = cost.peak as f64 / BUDGET as f64;
            let wanted = format!("memory at most 1 of {} MiB", BUDGET / MIB);
            table.ratio(&name, ratio, &wanted);
        }
    }
    fs::remove_file(&disk)?;
    fs::remove_file(&out)?;
    Ok(())
}

/// Opens the newest image as a mount would, and reads 4 KiB here and there.
fn reads(
    table: &mut Table,
    name: &dyn Fn(&str) -> String,
    store: &Path,
    place: &mut dyn FnMut(&mut Numbers) -> u64,
) -> Any<()> {
    let (cost, store) = timed(|| Ok(LocalStore::open(store)?))?;
    let (opened, catalog) = timed(|| Ok(Catalog::load(&store)?))?;
    let both = Cost {
        seconds: cost.seconds + opened.seconds,
        cpu: cost.cpu + opened.cpu,
        peak: 0,
        bytes: 0,
    };
    table.add(&name("load the catalog"), both);
    let newest = catalog.images.last().ok_or("an empty store")?;
    let (cost, view) = timed(|| {
        let lineage = catalog.lineage(newest);
        Ok(ChainView::open(Arc::new(store), lineage)?)
    })?;
    table.add(&name("open the newest"), cost);
    let mut numbers = Numbers::new("reads");
    let mut page = vec![0; 4096];
    for read in 0..200 {
        let at = ByteOffset(place(&mut numbers));
        let (cost, ()) = timed(|| {
            let read: Result<(), Error> = view.read_at(at, &mut page);
            Ok(read?)
        })?;
        let which = if read == 0 {
            "the first read of 4 KiB"
        } else {
            "another read of 4 KiB, median"
        };
        table.add(&name(which), cost);
    }
    Ok(())
}
