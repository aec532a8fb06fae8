//! How near each operation comes to what the machine can do, and how far it is ahead of others.
//!
//! `cargo bench --bench limits [-- [full] [readers] [device] [rivals] [encrypted] [cold] [DISK]]`
//!
//! DISK is a file that holds a disk; without one, a disk of 1 GiB is made of text, machine code, noise and
//! zeros. Without a name all parts but `cold` and `device` run:
//!
//! - `full`: a full image against reading, BLAKE3 and zstd on all cores of exactly the bytes that it takes.
//! - `readers`: verify and restore against reading, decoding and writing them, with the image in the page cache
//!   and out of it.
//! - `device`: a restore to a loop device against writing the same bytes to one; needs root.
//! - `encrypted`: the same with an encrypted image, against the plain one.
//! - `rivals`: full images by partclone (of each partition, as Clonezilla does), qemu-img,
//!   dd and zstd, fsarchiver, restic, borg, rustic, bupstash, and what restores theirs; those that are installed.
//! - `cold`: full images with the disk out of the page cache, against zstd of what is read past it, of rivals too
//!   where those run.
//!
//! Limits and operations run in turn, several times; the table shows medians and ratios, which are what can
//! be compared: absolute figures belong to one machine and one hour. A line of JSON with every measurement
//! follows. `STRATA_BENCH_ROUNDS` (5), `STRATA_BENCH_DIR` (the temporary directory) and
//! `STRATA_BENCH_RIVALS` (all that are installed) change the rest.

#[path = "measure/mod.rs"]
mod measure;

#[path = "measure/loop_device.rs"]
mod loop_device;

use loop_device::LoopDevice;
use measure::rivals::{Ground, rivals};
use measure::{Any, FRAME, Pieces, Table, evict, folder_len, strata, timed};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const LEVEL: i32 = 3;
const ENCRYPTED: &str = ", encrypted";
const FROM_DISK: &str = ", image not cached";
const COLD: &str = ", disk not cached";

fn main() -> Any<()> {
    if measure::was_middle_process()? {
        return Ok(());
    }
    let (mut parts, mut disk) = (Vec::new(), None);
    // Cargo passes `--bench`.
    for arg in std::env::args().skip(1).filter(|a| !a.starts_with("--")) {
        match arg.as_str() {
            "full" | "readers" | "device" | "rivals" | "encrypted" | "cold" => parts.push(arg),
            _ => disk = Some(PathBuf::from(arg)),
        }
    }
    let rounds = measure::number("STRATA_BENCH_ROUNDS", 5);
    let dir = measure::work_dir()?;
    let disk = match disk {
        Some(path) => path,
        None => {
            let path = dir.path().join("disk.img");
            measure::made_disk(&path, 1 << 30)?;
            path
        }
    };
    let bench = Bench::new(dir.path(), disk, parts)?;
    let mut table = Table::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        bench.round(&mut table)?;
    }
    bench.ratios(&mut table);
    table.print(&serde_json::json!({
        "cores": measure::cores(),
        "rounds": rounds,
        "disk_bytes": fs::metadata(&bench.disk)?.len(),
        "taken_bytes": bench.pieces.bytes(),
    }));
    Ok(())
}

struct Bench {
    work: PathBuf,
    disk: PathBuf,
    parts: Vec<String>,
    /// What a full image takes of the disk, window by window.
    pieces: Pieces,
    /// Partitions with a file system: what it is called, where they begin and how long they are.
    partitions: Vec<(String, u64, u64)>,
}

impl Bench {
    /// Makes an image to learn what is taken, and writes that into one file, which is what limits work on.
    fn new(work: &Path, disk: PathBuf, parts: Vec<String>) -> Any<Bench> {
        let folder = work.join("first");
        let store = measure::text(&folder)?;
        strata(&[
            "backup",
            measure::text(&disk)?,
            "--store",
            store,
            "--set",
            "bench",
        ])?;
        let (_, shown) = strata(&["show", "latest", "--store", store])?;
        let partitions = shown["partitions"].as_array().ok_or("no partitions")?;
        let partitions = partitions.iter().filter_map(|p| {
            let name = p["filesystem"].as_str()?.to_lowercase();
            Some((name, p["start"].as_u64()?, p["length"].as_u64()?))
        });
        let pieces = Pieces::taken(&folder, &work.join("content"))?;
        fs::remove_dir_all(&folder)?;
        Ok(Bench {
            work: work.to_owned(),
            disk,
            parts,
            pieces,
            partitions: partitions.collect(),
        })
    }

    fn wants(&self, part: &str) -> bool {
        let asked = self.parts.iter().any(|p| p == part);
        asked || (self.parts.is_empty() && !["cold", "device"].contains(&part))
    }

    fn round(&self, table: &mut Table) -> Any<()> {
        // Brings the disk and what is taken of it into the cache; what others wrote is not to be waited for.
        measure::read(&self.disk)?;
        measure::read(&self.pieces.path)?;
        nix::unistd::sync();
        let store = self.work.join("store");
        self.limits(table)?;
        self.backup(table, "backup", &store, &[])?;
        if self.wants("cold") {
            evict(&self.disk)?;
            table.add(
                "limit: read past the cache",
                timed(|| measure::read_direct(&self.disk))?.0,
            );
            evict(&self.pieces.path)?;
            let (mut cost, size) = timed(|| zstd_direct(&self.pieces, LEVEL))?;
            cost.bytes = size;
            table.add("limit: zstd, not cached", cost);
            self.backup(table, &format!("backup{COLD}"), &store, &[])?;
            measure::read(&self.disk)?;
        }
        if self.wants("device") {
            self.device(table, &store)?;
        }
        let mut stores = vec![(store, vec![], "")];
        if self.wants("encrypted") {
            stores.push(self.encrypted(table)?);
        }
        if self.wants("readers") || self.wants("encrypted") {
            self.readers(table, &stores)?;
        }
        if self.wants("rivals") {
            self.rivals(table)?;
        }
        Ok(())
    }

    /// What the machine makes of the bytes that are taken, with nothing else to do.
    fn limits(&self, table: &mut Table) -> Any<()> {
        let pieces = &self.pieces;
        table.add(
            "limit: read",
            timed(|| pieces.each(&|| |_, bytes| measure::touch(bytes)))?.0,
        );
        table.add(
            "limit: BLAKE3",
            timed(|| pieces.each(&|| |_, bytes| measure::digests(bytes)))?.0,
        );
        table.add(
            "limit: CRC-32",
            timed(|| pieces.each(&|| |_, bytes| crc(bytes)))?.0,
        );
        let (mut cost, size) = timed(|| zstd(pieces, LEVEL))?;
        cost.bytes = size;
        table.add("limit: zstd", cost);
        Ok(())
    }

    fn backup(&self, table: &mut Table, name: &str, store: &Path, more: &[&str]) -> Any<()> {
        remove(store);
        let args = [
            "backup",
            measure::text(&self.disk)?,
            "--store",
            measure::text(store)?,
        ];
        let (mut cost, _) = strata(&[&args[..], &["--set", "bench"], more].concat())?;
        cost.bytes = folder_len(store)?;
        table.add(name, cost);
        Ok(())
    }

    /// Backs up to a store whose image is encrypted for an age key, and says what opens it.
    fn encrypted(&self, table: &mut Table) -> Any<(PathBuf, Vec<String>, &'static str)> {
        let (store, key) = (self.work.join("encrypted"), self.work.join("key.txt"));
        let _ = fs::remove_file(&key);
        let key = measure::text(&key)?.to_owned();
        self.backup(
            table,
            &format!("backup{ENCRYPTED}"),
            &store,
            &["--recovery-key", &key],
        )?;
        Ok((store, vec!["--identity".to_owned(), key], ENCRYPTED))
    }

    /// What reads the image in each store, with the words that open it; in turn, so that a slow minute of
    /// the machine meets them all.
    fn readers(&self, table: &mut Table, stores: &[(PathBuf, Vec<String>, &str)]) -> Any<()> {
        let out = self.work.join("restored.img");
        let to = measure::text(&out)?;
        let frames = self.work.join("frames");
        let image = measure::first_image(&stores.first().ok_or("no store")?.0)?;
        measure::read(&image)?;
        table.add("limit: read image", timed(|| measure::read(&image))?.0);
        let frames = frames_of(&self.pieces, LEVEL, &frames)?;
        let unzstd = || timed(|| frames.each(&unpacker));
        table.add("limit: unzstd + BLAKE3", unzstd()?.0);
        evict(&frames.path)?;
        let read = timed(|| frames.read_direct());
        table.add("limit: read image past the cache", read?.0);
        evict(&frames.path)?;
        let unzstd = timed(|| frames.each_direct(&unpacker));
        table.add("limit: unzstd + BLAKE3, not cached", unzstd?.0);
        let direct = nix::libc::O_DIRECT;
        for (name, flags) in [("limit: write", 0), ("limit: write past the cache", direct)] {
            table.add(name, timed(|| self.write(&out, flags))?.0);
        }
        let verbs: &[(&str, &[&str])] = &[
            ("verify", &["verify"]),
            ("verify --deep", &["verify", "--deep"]),
            (
                "restore, not read back",
                &["restore", "latest", to, "--no-read-back"],
            ),
            ("restore", &["restore", "latest", to]),
            (
                "restore --only-changed, nothing to write",
                &["restore", "latest", to, "--only-changed", "--yes"],
            ),
        ];
        for (name, words) in verbs {
            for cache in ["", FROM_DISK] {
                for (store, keys, label) in stores {
                    let again = words.contains(&"--only-changed");
                    if again && !cache.is_empty() {
                        continue;
                    }
                    if !again {
                        let _ = fs::remove_file(&out);
                    }
                    nix::unistd::sync();
                    let image = measure::first_image(store)?;
                    match cache == FROM_DISK {
                        true => evict(&image)?,
                        false => measure::read(&image)?,
                    }
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    let line = [*words, &["--store", measure::text(store)?], &keys].concat();
                    table.add(&format!("{name}{cache}{label}"), strata(&line)?.0);
                }
            }
        }
        let _ = fs::remove_file(&out);
        Ok(())
    }

    /// What writes to a block device: each time to one whose file is new.
    fn device(&self, table: &mut Table, store: &Path) -> Any<()> {
        let (file, len) = (
            self.work.join("device.img"),
            fs::metadata(&self.disk)?.len(),
        );
        let device = LoopDevice::new(&file, len)?;
        let mut options = File::options();
        let options = options.write(true).custom_flags(nix::libc::O_DIRECT);
        let out = options.open(&device.path)?;
        table.add(
            "limit: write to a loop device",
            timed(|| self.write_to(&out))?.0,
        );
        drop((out, device));
        let device = LoopDevice::new(&file, len)?;
        measure::read(&measure::first_image(store)?)?;
        nix::unistd::sync();
        let restore = ["restore", "latest", measure::text(&device.path)?];
        let how = ["--no-read-back", "--yes", "--store", measure::text(store)?];
        let (cost, _) = strata(&[&restore[..], &how].concat())?;
        table.add("restore to a loop device, not read back", cost);
        Ok(())
    }

    /// Writes what is taken where it belongs in a sparse file, and syncs it.
    fn write(&self, to: &Path, flags: i32) -> Any<()> {
        let _ = fs::remove_file(to);
        nix::unistd::sync();
        let mut options = File::options();
        let new = options.write(true).create_new(true).custom_flags(flags);
        let out = new.open(to)?;
        out.set_len(fs::metadata(&self.disk)?.len())?;
        self.write_to(&out)
    }

    fn write_to(&self, out: &File) -> Any<()> {
        self.pieces.each(&|| {
            |at, bytes: &[u8]| match out.write_all_at(bytes, at) {
                Ok(()) => {}
                // The sync says the same of the whole file.
                Err(e) => eprintln!("limit: write: {e}"),
            }
        })?;
        Ok(out.sync_all()?)
    }

    fn rivals(&self, table: &mut Table) -> Any<()> {
        for cold in [false, true] {
            if !cold || self.wants("cold") {
                self.rivals_from(cold, table)?;
            }
        }
        Ok(())
    }

    /// The rivals with the disk, and then what they made of it, in the page cache, or out of it.
    fn rivals_from(&self, cold: bool, table: &mut Table) -> Any<()> {
        let (folder, out) = (self.work.join("rival"), self.work.join("restored.img"));
        let [disk_is, image_is] = match cold {
            false => ["", ""],
            true => [COLD, FROM_DISK],
        };
        let ground = Ground {
            work: &self.work,
            disk: &self.disk,
            folder: &folder,
            partitions: &self.partitions,
        };
        for rival in rivals(&self.partitions) {
            let _ = fs::remove_dir_all(self.work.join("home"));
            remove(&folder);
            fs::create_dir(&folder)?;
            ground.run(rival.prepare)?;
            match cold {
                false => measure::read(&self.disk)?,
                true => evict(&self.disk)?,
            }
            let mut cost = ground.run(rival.backup)?;
            // Others leave it to the kernel when their bytes are written.
            let (sync, ()) = timed(|| measure::sync_folder(&folder))?;
            cost.seconds += sync.seconds;
            cost.bytes = folder_len(&folder)?;
            table.add(&format!("rival: {}{disk_is}", rival.name), cost);
            if let Some(restore) = rival.restore {
                match cold {
                    false => measure::read_folder(&folder)?,
                    true => measure::each_file(&folder, &evict)?,
                }
                let mut cost = ground.run(restore)?;
                let (sync, ()) = timed(|| Ok(File::open(&out)?.sync_all()?))?;
                cost.seconds += sync.seconds;
                table.add(&format!("rival restores: {}{image_is}", rival.name), cost);
                let _ = fs::remove_file(&out);
            }
        }
        let _ = fs::remove_dir_all(&folder);
        Ok(())
    }

    fn ratios(&self, table: &mut Table) {
        let limits: &[(&str, &[&str], &str)] = &[
            ("backup", &["limit: read", "limit: zstd"], "at least 0.92"),
            (
                "backup, disk not cached",
                &["limit: zstd, not cached"],
                "at least 0.92",
            ),
            ("verify", &["limit: read image"], "at least 0.9"),
            (
                "verify --deep",
                &["limit: read image", "limit: unzstd + BLAKE3"],
                "at least 0.9",
            ),
            (
                "restore to a loop device, not read back",
                &["limit: write to a loop device"],
                "at least 0.9",
            ),
            (
                "verify, image not cached",
                &["limit: read image past the cache"],
                "at least 0.9",
            ),
            (
                "verify --deep, image not cached",
                &["limit: unzstd + BLAKE3, not cached"],
                "at least 0.9",
            ),
        ];
        // Whichever way of writing is the faster one here.
        let writes = ["limit: write", "limit: write past the cache"];
        let writes = writes
            .into_iter()
            .filter_map(|n| Some((n, table.cost(n)?.seconds)));
        let write = writes.min_by(|a, b| a.1.total_cmp(&b.1));
        let restore: &[&str] = &[write.map_or("", |w| w.0), "limit: unzstd + BLAKE3"];
        let restore = ("restore, not read back", restore, "at least 0.9");
        let seconds = |table: &Table, name: &str| table.cost(name).map(|cost| cost.seconds);
        let slowest = |table: &Table, limits: &[&str]| {
            let limits = limits.iter().filter_map(|name| seconds(table, name));
            limits.fold(0.0, f64::max)
        };
        for (name, limits, wanted) in limits.iter().chain([&restore]) {
            if let Some(cost) = seconds(table, name) {
                table.ratio(name, slowest(table, limits) / cost, wanted);
            }
        }
        // Nothing is written before all of the image was read.
        let name = format!("restore, not read back{FROM_DISK}");
        let read = seconds(table, "limit: read image past the cache");
        if let (Some(read), Some(cost)) = (read, seconds(table, &name)) {
            let one_after_the_other = read + slowest(table, restore.1);
            table.ratio(&name, one_after_the_other / cost, restore.2);
        }
        for name in table.names() {
            let against = |ours: &str, wanted: &str, table: &mut Table| {
                let both = table.cost(ours).zip(table.cost(&name));
                if let Some((ours, theirs)) = both {
                    table.ratio(&name, theirs.seconds / ours.seconds, wanted);
                }
            };
            if let Some(plain) = name.strip_suffix(ENCRYPTED) {
                let both = table.cost(plain).zip(table.cost(&name));
                if let Some((plain, encrypted)) = both {
                    table.ratio(&name, plain.seconds / encrypted.seconds, "");
                }
            } else if name.starts_with("rival: ") && name.ends_with(COLD) {
                against(&format!("backup{COLD}"), "at least 1", table);
            } else if name.starts_with("rival: partclone") {
                against("backup", "at least 3", table);
            } else if name.starts_with("rival: ") {
                against("backup", "at least 2", table);
            } else if name.starts_with("rival restores: ") && name.ends_with(FROM_DISK) {
                let ours = format!("restore, not read back{FROM_DISK}");
                against(&ours, "at least 1", table);
            } else if name.starts_with("rival restores: ") {
                against("restore, not read back", "at least 1.5", table);
            }
        }
    }
}

fn crc(bytes: &[u8]) {
    std::hint::black_box(crc32fast::hash(bytes));
}

/// Decodes every frame that it gets and hashes its blocks.
fn unpacker() -> impl FnMut(u64, &[u8]) {
    let mut zstd = zstd::bulk::Decompressor::new().ok();
    let mut data = vec![0; FRAME];
    move |_, packed| {
        let zstd = zstd.as_mut();
        let len = zstd.and_then(|z| z.decompress_to_buffer(packed, data.as_mut_slice()).ok());
        measure::digests(&data[..len.unwrap_or(0)]);
    }
}

/// Removes what another run has made, and waits until the file system has: else the next run would.
fn remove(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    nix::unistd::sync();
}

/// Compresses every piece by itself, on all cores: how many bytes the frames are.
fn zstd(pieces: &Pieces, level: i32) -> Any<u64> {
    let total = AtomicU64::new(0);
    pieces.each(&|| compressor(level, |_, packed| count(&total, packed)))?;
    Ok(total.into_inner())
}

/// The same while they are read past the page cache.
fn zstd_direct(pieces: &Pieces, level: i32) -> Any<u64> {
    let total = AtomicU64::new(0);
    pieces.each_direct(&|| compressor(level, |_, packed| count(&total, packed)))?;
    Ok(total.into_inner())
}

/// The frames, in the file `to`.
fn frames_of(pieces: &Pieces, level: i32, to: &Path) -> Any<Pieces> {
    let out = Mutex::new(Pieces::begin(to)?);
    pieces.each(&|| {
        compressor(level, |at, packed| {
            if let Ok(mut out) = out.lock()
                && let Err(e) = out.push(at, packed)
            {
                eprintln!("frames: {e}");
            }
        })
    })?;
    out.into_inner().map_err(|e| e.to_string())?.finish()
}

fn count(total: &AtomicU64, packed: &[u8]) {
    let len = u64::try_from(packed.len()).unwrap_or(0);
    total.fetch_add(len, Ordering::Relaxed);
}

/// Gives frames to `take`. One context and one buffer a thread, as any program that means it would have.
fn compressor(level: i32, take: impl Fn(u64, &[u8])) -> impl FnMut(u64, &[u8]) {
    let mut zstd = zstd::bulk::Compressor::new(level).ok();
    let mut packed = vec![0; zstd::zstd_safe::compress_bound(FRAME)];
    move |at, bytes| {
        let zstd = zstd.as_mut();
        let len = zstd.and_then(|z| z.compress_to_buffer(bytes, packed.as_mut_slice()).ok());
        take(at, &packed[..len.unwrap_or(0)]);
    }
}
