//! Whether cost grows straight: the same operations on disks of 1, 4, 16 and 64 GiB, and behind 1, 10, 100 and
//! 365 increments.
//!
//! `cargo bench --bench growth [-- [disks] [images]]`
//!
//! - `disks`: sparse disks of which an eighth is in use, everywhere the same mix of text, machine code, noise and
//!   zeros. Seconds are those of each GiB in use; the ratio is that to the smallest disk that is large enough for
//!   the start of a program not to matter. What the device makes of writing alone is there too.
//! - `images`: a disk of 256 MiB of which a little changes before each increment: one more increment, a restore, a
//!   list, and a prune that merges all of them into the newest image, of which the seconds for each image that
//!   goes are shown; the ratio is that to a single increment.
//!
//! Sizes go round in turns, so that a slow minute of the machine meets them all. `STRATA_BENCH_ROUNDS` (3),
//! `STRATA_BENCH_GIB` (64, the largest disk), `STRATA_BENCH_IMAGES` (365, the longest chain) and `STRATA_BENCH_DIR`
//! change the rest. A table and a line of JSON come out.

#[path = "measure/mod.rs"]
mod measure;

use measure::{Any, Cost, FRAME, MIB, Numbers, Table, number, strata, text};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// One mebibyte in so many is in use.
const SHARE: u64 = 8;
/// The disk of this many GiB is what larger ones are compared with.
const BASE_GIB: u64 = 4;
const WRITE: &str = "limit: write past the cache";
/// The disk that has many images, in bytes.
const SMALL: u64 = 256 * MIB;

fn main() -> Any<()> {
    if measure::was_middle_process()? {
        return Ok(());
    }
    // Cargo passes `--bench`.
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let dir = measure::work_dir()?;
    let rounds = number("STRATA_BENCH_ROUNDS", 3);
    let mut table = Table::default();
    if wanted("disks") {
        let largest = number("STRATA_BENCH_GIB", 64);
        let sizes = [1, 4, 16, 64].into_iter().filter(|gib| *gib <= largest);
        disks(&mut table, dir.path(), &sizes.collect::<Vec<u64>>(), rounds)?;
    }
    if wanted("images") {
        let longest = number("STRATA_BENCH_IMAGES", 365);
        let counts = [1, 10, 100, 365].into_iter().filter(|n| *n <= longest);
        images(
            &mut table,
            dir.path(),
            &counts.collect::<Vec<u64>>(),
            rounds,
        )?;
    }
    table.print(&serde_json::json!({"cores": measure::cores(), "rounds": rounds}));
    Ok(())
}

/// A disk, and what its images go into.
struct Place {
    disk: PathBuf,
    store: PathBuf,
    out: PathBuf,
}

impl Place {
    fn new(dir: &Path, name: &str) -> Place {
        Place {
            disk: dir.join(format!("{name}.img")),
            store: dir.join(format!("{name}.store")),
            out: dir.join(format!("{name}.out")),
        }
    }

    fn backup(&self, kind: &str) -> Any<Cost> {
        let (disk, store) = (text(&self.disk)?, text(&self.store)?);
        let set = ["--set", "growth", kind];
        Ok(strata(&[&["backup", disk, "--store", store][..], &set].concat())?.0)
    }

    fn with_store(&self, words: &[&str]) -> Any<Cost> {
        Ok(strata(&[words, &["--store", text(&self.store)?]].concat())?.0)
    }

    fn restore(&self) -> Any<Cost> {
        let cost = self.with_store(&["restore", "latest", text(&self.out)?, "--no-read-back"])?;
        fs::remove_file(&self.out)?;
        Ok(cost)
    }
}

fn disks(table: &mut Table, dir: &Path, sizes: &[u64], rounds: u64) -> Any<()> {
    let mut places = Vec::new();
    for gib in sizes {
        let place = Place::new(dir, &format!("disk-{gib}"));
        sparse_disk(&place.disk, gib << 30)?;
        places.push((*gib, place));
    }
    let name = |what: &str, gib: u64| format!("{what}, disk of {gib} GiB");
    for round in 0..rounds {
        eprintln!("disks: round {} of {rounds}", round + 1);
        for (gib, place) in &places {
            warm(&place.disk)?;
            let _ = fs::remove_dir_all(&place.store);
            nix::unistd::sync();
            let mut add =
                |what: &str, cost: Cost| table.add(&name(what, *gib), each_gib(cost, *gib));
            add("full image", place.backup("--full")?);
            add("increment, nothing changed", place.backup("--incremental")?);
            measure::read_folder(&place.store)?;
            add("verify --deep", place.with_store(&["verify", "--deep"])?);
            add("restore, not read back", place.restore()?);
            nix::unistd::sync();
            add(WRITE, measure::timed(|| copy_past_the_cache(place))?.0);
            fs::remove_file(&place.out)?;
        }
    }
    for what in [
        "full image",
        "increment, nothing changed",
        "verify --deep",
        "restore, not read back",
        WRITE,
    ] {
        let base = table.cost(&name(what, BASE_GIB.min(*sizes.last().unwrap_or(&1))));
        for gib in sizes {
            if let (Some(base), Some(cost)) = (base, table.cost(&name(what, *gib))) {
                let is_ours = *gib > BASE_GIB && what != WRITE;
                let wanted = if is_ours { "at most 1.1" } else { "" };
                table.ratio(&name(what, *gib), cost.seconds / base.seconds, wanted);
            }
        }
    }
    for (_, place) in places {
        fs::remove_file(&place.disk)?;
        fs::remove_dir_all(&place.store)?;
    }
    Ok(())
}

/// The share of `cost` that is that of one GiB in use on a disk of `gib` GiB.
#[allow(clippy::cast_precision_loss)]
fn each_gib(cost: Cost, gib: u64) -> Cost {
    let used = gib as f64 / SHARE as f64;
    Cost {
        seconds: cost.seconds / used,
        cpu: cost.cpu / used,
        ..cost
    }
}

/// Brings what is in use of a disk into the page cache, and no holes: with them the cache would not hold it.
fn warm(path: &Path) -> Any<()> {
    let file = File::open(path)?;
    let mut chunk = vec![0; FRAME];
    for at in (0..file.metadata()?.len()).step_by(usize::try_from(SHARE * MIB)?) {
        file.read_exact_at(&mut chunk, at)?;
    }
    Ok(())
}

/// Writes what is in use of a disk, and no zeros, where it belongs in a new file, and syncs it.
fn copy_past_the_cache(place: &Place) -> Any<()> {
    let disk = File::open(&place.disk)?;
    let len = disk.metadata()?.len();
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true);
    let out = options.custom_flags(nix::libc::O_DIRECT).open(&place.out)?;
    out.set_len(len)?;
    let mut chunk = measure::buffer(FRAME);
    chunk.set_len(FRAME);
    for at in (0..len).step_by(usize::try_from(SHARE * MIB)?) {
        disk.read_exact_at(&mut chunk, at)?;
        if chunk.iter().any(|byte| *byte != 0) {
            out.write_all_at(&chunk, at)?;
        }
    }
    Ok(out.sync_all()?)
}

/// A disk of `len` bytes of which an eighth is in use, a mebibyte here and there.
fn sparse_disk(path: &Path, len: u64) -> Any<()> {
    let code = fs::read(std::env::current_exe()?)?;
    let out = File::create(path)?;
    out.set_len(len)?;
    let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
    let mut chunk = vec![0; FRAME];
    for (turn, at) in (0..len).step_by(usize::try_from(SHARE * MIB)?).enumerate() {
        measure::content(turn, &code, &mut noise, &mut chunk);
        out.write_all_at(&chunk, at)?;
    }
    Ok(out.sync_all()?)
}

fn images(table: &mut Table, dir: &Path, counts: &[u64], rounds: u64) -> Any<()> {
    let name = |what: &str, count: u64| format!("{what}, {count} increments");
    let mut places = Vec::new();
    for count in counts {
        eprintln!("images: {count} increments");
        let place = Place::new(dir, &format!("images-{count}"));
        measure::made_disk(&place.disk, SMALL)?;
        place.backup("--full")?;
        let mut numbers = Numbers::new("growth");
        for _ in 0..*count {
            change(&place.disk, &mut numbers)?;
            place.backup("--incremental")?;
        }
        places.push((*count, place, numbers));
    }
    for round in 0..rounds {
        eprintln!("images: round {} of {rounds}", round + 1);
        for (count, place, numbers) in &mut places {
            change(&place.disk, numbers)?;
            table.add(
                &name("one more increment", *count),
                place.backup("--incremental")?,
            );
            measure::read_folder(&place.store)?;
            table.add(&name("restore, not read back", *count), place.restore()?);
            table.add(&name("list", *count), place.with_store(&["list"])?);
        }
    }
    for (count, place, _) in &places {
        let cost = place.with_store(&["prune", "--keep-last", "1"])?;
        // The increments, and one more of each round but the newest.
        let gone = f64::from(u32::try_from(count + rounds)?);
        let each = Cost {
            seconds: cost.seconds / gone,
            cpu: cost.cpu / gone,
            ..cost
        };
        table.add(&name("prune to one image, each image", *count), each);
        fs::remove_file(&place.disk)?;
        fs::remove_dir_all(&place.store)?;
    }
    for what in ["one more increment", "restore, not read back", "list"] {
        let base = table.cost(&name(what, 1));
        for count in counts {
            if let (Some(base), Some(cost)) = (base, table.cost(&name(what, *count))) {
                table.ratio(&name(what, *count), cost.seconds / base.seconds, "");
            }
        }
    }
    Ok(())
}

/// A mebibyte in a row, and pages here and there.
fn change(disk: &Path, numbers: &mut Numbers) -> Any<()> {
    let file = OpenOptions::new().write(true).open(disk)?;
    let at = numbers.below(SMALL / MIB) * MIB;
    file.write_all_at(&numbers.bytes(FRAME), at)?;
    for _ in 0..12 {
        let at = numbers.below(SMALL / 4096) * 4096;
        file.write_all_at(&numbers.bytes(4096), at)?;
    }
    Ok(())
}
