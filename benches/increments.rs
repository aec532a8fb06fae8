//! What a second day of the same disk costs: its bytes beside what they should be, and beside others.
//!
//! `cargo bench --bench increments [-- DAY1 DAY2]`
//!
//! DAY1 and DAY2 are files that hold the same disk at two times; without them, 1 GiB is made, of which
//! some is written anew. Both are copied to one file in turn, and `strata`, restic, borg, rustic and bupstash,
//! those that are installed, back that file up both times. The table has the second time: seconds, and bytes
//! by which the store grew. It also states both sides of
//!
//!     bytes of the increment <= 1.10 x (changed blocks in use x their compression ratio) + table
//!
//! where the ratio is that of all changed blocks in one zstd stream of the same level.
//!
//! Everything is measured with a warm page cache. `STRATA_BENCH_ROUNDS` (3), `STRATA_BENCH_DIR` (the temporary
//! directory) and `STRATA_BENCH_RIVALS` (all that are installed) change the rest.

#[path = "measure/mod.rs"]
mod measure;

use diskstrata::base::{ByteLen, Error};
use diskstrata::block::BlockSource;
use diskstrata::chain::{Catalog, ChainView};
use diskstrata::image::FilePiece;
use diskstrata::store::{LocalStore, Store};
use measure::rivals::{Ground, Rival, rivals};
use measure::{Any, BLOCK, Cost, MIB, Numbers, folder_len, strata};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const LEVEL: i32 = 3;

fn main() -> Any<()> {
    if measure::was_middle_process()? {
        return Ok(());
    }
    // Cargo passes `--bench`.
    let args = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let given: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let rounds = measure::number("STRATA_BENCH_ROUNDS", 3);
    let dir = measure::work_dir()?;
    let days = match given.as_slice() {
        [first, second] => [first.clone(), second.clone()],
        [] => made_days(dir.path())?,
        _ => return Err("two files are needed: DAY1 DAY2".into()),
    };
    let bench = Bench {
        disk: dir.path().join("disk.img"),
        work: dir.path().to_owned(),
        days,
    };
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        bench.round(&mut rows)?;
    }
    print(&rows);
    bench.print_formula()
}

/// Two days of a disk of 1 GiB: runs that are written anew, and pages here and there.
fn made_days(dir: &Path) -> Any<[PathBuf; 2]> {
    let days = ["day-1.img", "day-2.img"].map(|name| dir.join(name));
    measure::made_disk(&days[0], 1 << 30)?;
    copy(&days[0], &days[1])?;
    let code = fs::read(std::env::current_exe()?)?;
    let mut noise = blake3::Hasher::new().update(b"day 2").finalize_xof();
    let mut numbers = Numbers::new("days");
    let file = OpenOptions::new().write(true).open(&days[1])?;
    let mut run = vec![0; 1 << 20];
    for turn in 0..24 {
        measure::content(turn % 3, &code, &mut noise, &mut run);
        file.write_all_at(&run, numbers.below(1 << 8) << 22)?;
    }
    for turn in 0..300 {
        measure::content(turn % 3, &code, &mut noise, &mut run[..4096]);
        file.write_all_at(&run[..4096], numbers.below(1 << 18) << 12)?;
    }
    Ok(days)
}

fn copy(from: &Path, to: &Path) -> Any<()> {
    let status = Command::new("cp")
        .args(["--sparse=always"])
        .args([from, to])
        .status()?;
    if !status.success() {
        return Err(format!("cp: {status}").into());
    }
    // Nobody has to write it out while others are measured.
    Ok(File::open(to)?.sync_all()?)
}

struct Bench {
    work: PathBuf,
    days: [PathBuf; 2],
    /// What is backed up: a copy of one of the days.
    disk: PathBuf,
}

/// One program: what it took for both days.
struct Row {
    name: &'static str,
    costs: [Vec<Cost>; 2],
    added: [u64; 2],
}

impl Bench {
    fn store(&self) -> PathBuf {
        self.work.join("store")
    }

    fn round(&self, rows: &mut Vec<Row>) -> Any<()> {
        let rivals: Vec<(Rival, PathBuf)> = rivals(&[])
            .into_iter()
            .filter(|rival| rival.increments)
            .map(|rival| {
                let folder = self.work.join(format!("rival-{}", rival.name));
                (rival, folder)
            })
            .collect();
        let ground = |folder| Ground {
            work: &self.work,
            disk: &self.disk,
            folder,
            partitions: &[],
        };
        let _ = fs::remove_dir_all(self.store());
        let _ = fs::remove_dir_all(self.work.join("home"));
        for (rival, folder) in &rivals {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir(folder)?;
            ground(folder).run(rival.prepare)?;
        }
        for day in 0..2 {
            copy(&self.days[day], &self.disk)?;
            self.take(rows, day, "strata", &self.store(), &|| self.backup())?;
            for (rival, folder) in &rivals {
                let backup = || ground(folder).run(rival.backup);
                self.take(rows, day, rival.name, folder, &backup)?;
            }
        }
        Ok(())
    }

    fn backup(&self) -> Any<Cost> {
        let store = self.store();
        let (disk, store) = (measure::text(&self.disk)?, measure::text(&store)?);
        let line = ["backup", disk, "--store", store, "--set", "bench"];
        Ok(strata(&line)?.0)
    }

    /// What `backup` takes for a day, and by how much the folder grows.
    fn take(
        &self,
        rows: &mut Vec<Row>,
        day: usize,
        name: &'static str,
        folder: &Path,
        backup: &dyn Fn() -> Any<Cost>,
    ) -> Any<()> {
        measure::read(&self.disk)?;
        let len = || match folder.exists() {
            true => folder_len(folder),
            false => Ok(0),
        };
        let before = len()?;
        let mut cost = backup()?;
        // Others leave it to the kernel when their bytes are written.
        let (sync, ()) = measure::timed(|| measure::sync_folder(folder))?;
        cost.seconds += sync.seconds;
        let added = len()?.saturating_sub(before);
        let at = rows.iter().position(|r| r.name == name);
        let at = at.unwrap_or_else(|| {
            rows.push(Row {
                name,
                costs: [Vec::new(), Vec::new()],
                added: [0, 0],
            });
            rows.len() - 1
        });
        let row = rows.get_mut(at).ok_or("no row")?;
        row.costs[day].push(cost);
        row.added[day] = added;
        Ok(())
    }

    /// Both sides of the inequality.
    #[allow(clippy::cast_precision_loss)]
    fn print_formula(&self) -> Any<()> {
        let folder = self.store();
        let shown = ["show", "latest", "--store", &folder.display().to_string()];
        let (_, shown) = strata(&shown)?;
        let store = LocalStore::open(&folder)?;
        let catalog = Catalog::load(&store)?;
        let newest = catalog.images.last().ok_or("an empty store")?;
        let reader = diskstrata::image::ImageReader::open(store.open(&newest.file)?)?;
        let (mut frames, mut blocks, mut leaves) = (0, Vec::new(), 0u64);
        reader.walk(&mut |piece| {
            if let FilePiece::Leaf(leaf) = piece {
                leaves += 1;
                for frame in &leaf.frames {
                    frames += frame.record_len();
                    blocks.extend(frame.blocks());
                }
            }
            Ok::<(), Error>(())
        })?;
        let view = ChainView::open(Arc::new(store.clone()), catalog.lineage(newest))?;
        let header = view.image().header();
        let (size, disk_len): (_, ByteLen) = (header.block_size, header.disk_len);
        let mut stream = zstd::stream::Encoder::new(Vec::new(), LEVEL)?;
        let mut raw = 0;
        let mut buf = vec![0; size.as_usize()];
        for block in &blocks {
            let extent = size.extent_of(*block, disk_len);
            let part = &mut buf[..usize::try_from(extent.len.0)?];
            view.read_at(extent.start, part)?;
            stream.write_all(part)?;
            raw += extent.len.0;
        }
        let packed = stream.finish()?.len() as f64;
        let table = newest.len - frames;
        let differ = differing(&self.days, BLOCK)?;
        let changed = &shown["changed"];
        let ratio = packed / (raw as f64).max(1.0);
        let right = 1.10 * raw as f64 * ratio + table as f64;
        let mib = |bytes: f64| bytes / MIB as f64;
        println!("\nblocks of 64 KiB that differ between the two files: {differ}");
        println!(
            "blocks in use that the increment holds: {} ({changed})",
            blocks.len()
        );
        println!(
            "their bytes: {:.2} MiB; in one zstd stream: {:.2} MiB, ratio {ratio:.4}",
            mib(raw as f64),
            mib(packed)
        );
        println!(
            "frames of the increment: {:.2} MiB; table and all else: {:.3} MiB, {leaves} leaf pages",
            mib(frames as f64),
            mib(table as f64)
        );
        println!(
            "bytes of the increment {:.2} MiB <= 1.10 x ({:.2} MiB x {ratio:.4}) + {:.3} MiB = {:.2} MiB: {}",
            mib(newest.len as f64),
            mib(raw as f64),
            mib(table as f64),
            mib(right),
            newest.len as f64 <= right
        );
        Ok(())
    }
}

/// How many blocks of `size` bytes differ between the two files.
fn differing(days: &[PathBuf; 2], size: usize) -> Any<u64> {
    let [a, b] = [File::open(&days[0])?, File::open(&days[1])?];
    let len = a.metadata()?.len();
    if len != b.metadata()?.len() {
        return Err("the two files have different lengths".into());
    }
    let (mut left, mut right) = (vec![0; size], vec![0; size]);
    let (mut at, mut count) = (0, 0);
    while at < len {
        let part = usize::try_from((len - at).min(u64::try_from(size)?))?;
        a.read_exact_at(&mut left[..part], at)?;
        b.read_exact_at(&mut right[..part], at)?;
        count += u64::from(left[..part] != right[..part]);
        at += u64::try_from(part)?;
    }
    Ok(count)
}

#[allow(clippy::cast_precision_loss)]
fn print(rows: &[Row]) {
    let median = |costs: &[Cost]| measure::median(costs.iter().map(|c| c.seconds)).unwrap_or(0.0);
    let peak = |costs: &[Cost]| costs.iter().map(|c| c.peak).max().unwrap_or(0) / MIB;
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    let cpu = |costs: &[Cost]| measure::median(costs.iter().map(|c| c.cpu)).unwrap_or(0.0);
    let ours = rows.first().map_or(0.0, |row| median(&row.costs[1]));
    println!("| program | first day s | MiB | second day s | times | cpu s | MiB | peak MiB |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut json = serde_json::Map::new();
    for row in rows {
        let [first, second] = [&row.costs[0], &row.costs[1]];
        println!(
            "| {} | {:.2} | {:.1} | {:.2} | {:.1} | {:.2} | {:.1} | {} |",
            row.name,
            median(first),
            mib(row.added[0]),
            median(second),
            median(second) / ours,
            cpu(second),
            mib(row.added[1]),
            peak(second)
        );
        let day = |costs: &[Cost], added: u64| {
            serde_json::json!({
                "seconds": costs.iter().map(|c| c.seconds).collect::<Vec<_>>(),
                "added_bytes": added,
            })
        };
        let days = [day(first, row.added[0]), day(second, row.added[1])];
        json.insert(row.name.to_owned(), serde_json::json!(days));
    }
    println!("\n{}", serde_json::Value::Object(json));
}
