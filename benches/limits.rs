//! How near each operation comes to what the machine can do.
//!
//! `cargo bench --bench limits [-- DISK]`
//!
//! DISK is a file that holds a disk; without one, a disk of 1 GiB is made of text, machine code,
//! noise and zeros. Limits and operations run in turn, several times; the table shows medians and
//! ratios, which are what can be compared: absolute figures belong to one machine and one hour. What is
//! encrypted is compared with the same that is not.
//! Everything is measured with a warm page cache; what reads an image also with that image out of it, which
//! is how a person finds it. Rivals that are not installed are left out.
//!
//! `STRATA_BENCH_ROUNDS` (3) and `STRATA_BENCH_DIR` (the temporary directory) change the rest.

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

const STRATA: &str = env!("CARGO_BIN_EXE_strata");
/// The default frame: what the zstd limit compresses at once.
const FRAME: usize = 1 << 20;
/// The default block: what the BLAKE3 limit hashes at once, and what is left out when zero.
const BLOCK: usize = 64 << 10;
const LEVEL: i32 = 3;
const ENCRYPTED: &str = ", encrypted";
const FROM_DISK: &str = ", image not cached";

type Any<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Any<()> {
    // Cargo passes `--bench`; it is no disk.
    let disk = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let rounds = std::env::var("STRATA_BENCH_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(3);
    let dir = std::env::var_os("STRATA_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::Builder::new()
        .prefix("strata-bench-")
        .tempdir_in(dir)?;
    let disk = match disk {
        Some(path) => PathBuf::from(path),
        None => made_disk(&dir.path().join("disk.img"))?,
    };
    let bench = Bench {
        work: dir.path().to_owned(),
        len: fs::metadata(&disk)?.len(),
        disk,
    };
    let mut table = Table::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        bench.round(&mut table)?;
    }
    table.print(&bench);
    Ok(())
}

struct Bench {
    work: PathBuf,
    disk: PathBuf,
    len: u64,
}

/// Measured seconds by name, in the order of first appearance.
#[derive(Default)]
struct Table(Vec<(String, Vec<f64>, u64)>);

impl Table {
    fn add(&mut self, name: &str, seconds: f64, size: u64) {
        match self.0.iter_mut().find(|(n, _, _)| n == name) {
            Some((_, all, last)) => {
                all.push(seconds);
                *last = size;
            }
            None => self.0.push((name.to_owned(), vec![seconds], size)),
        }
    }

    fn median(&self, name: &str) -> Option<f64> {
        let mut all = self.0.iter().find(|(n, _, _)| n == name)?.1.clone();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }

    /// The slowest of several limits: an operation that does all of them can be no faster.
    fn limit(&self, names: &[&str]) -> Option<f64> {
        names
            .iter()
            .filter_map(|n| self.median(n))
            .fold(None, |a, b| Some(a.unwrap_or(0.0).max(b)))
    }

    #[allow(clippy::cast_precision_loss)]
    fn print(&self, bench: &Bench) {
        let mib = bench.len as f64 / f64::from(1 << 20);
        println!("disk of {mib:.0} MiB, {} cores\n", cores());
        println!("| what | s | MiB/s of disk | size MiB | ratio to limit |");
        println!("|---|---|---|---|---|");
        for (name, _, size) in &self.0 {
            let Some(seconds) = self.median(name) else {
                continue;
            };
            let limits: &[&str] = match name.as_str() {
                "backup" => &["limit: read", "limit: zstd"],
                "verify" => &["limit: read image"],
                "verify --deep" => &["limit: read image", "limit: unzstd + BLAKE3"],
                "restore, not read back" => &["limit: write", "limit: unzstd + BLAKE3"],
                _ => &[],
            };
            let plain = name.strip_suffix(ENCRYPTED).and_then(|n| self.median(n));
            let ratio = plain
                .or_else(|| self.limit(limits))
                .map_or(String::new(), |l| format!("{:.2}", l / seconds));
            let size = if *size == 0 {
                String::new()
            } else {
                format!("{:.1}", *size as f64 / f64::from(1 << 20))
            };
            println!(
                "| {name} | {seconds:.3} | {:.0} | {size} | {ratio} |",
                mib / seconds
            );
        }
    }
}

/// Times one run of something that says how many bytes it made.
type Time<'a> = dyn Fn(&mut Table, &str, &mut dyn FnMut() -> Any<u64>) -> Any<()> + 'a;

fn hash(block: &[u8]) {
    std::hint::black_box(blake3::hash(block));
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Bench {
    fn round(&self, table: &mut Table) -> Any<()> {
        let store = self.work.join("store");
        let _ = fs::remove_dir_all(&store);
        let store_text = store.display().to_string();
        let disk = self.disk.display().to_string();
        let out = self.work.join("restored.img");
        let time = |table: &mut Table, name: &str, run: &mut dyn FnMut() -> Any<u64>| -> Any<()> {
            let start = Instant::now();
            let size = run()?;
            table.add(name, start.elapsed().as_secs_f64(), size);
            Ok(())
        };
        // Brings the disk into the cache, and is the first limit.
        self.read(&self.disk)?;
        time(table, "limit: read", &mut || self.read(&self.disk))?;
        time(table, "limit: BLAKE3", &mut || self.blake3())?;
        time(table, "limit: zstd", &mut || self.zstd())?;
        time(table, "backup", &mut || {
            strata(&["backup", &disk, "--store", &store_text, "--set", "bench"])?;
            folder_len(&store)
        })?;
        let image = first_image(&store)?;
        // The store drops what it wrote from the cache; everything here is measured warm.
        self.read(&image)?;
        time(table, "limit: read image", &mut || self.read(&image))?;
        self.keep_frames()?;
        time(table, "limit: unzstd + BLAKE3", &mut || self.unzstd())?;
        time(table, "limit: write", &mut || self.write(&out))?;
        let encrypted = self.encrypted(table, &time)?;
        self.readers(table, &time, &[(store, vec![]), encrypted])?;
        self.rivals(table, &time)
    }

    /// What reads the image in each store, with the words that open it; in turn, so that a slow minute of
    /// the machine meets them all.
    fn readers(
        &self,
        table: &mut Table,
        time: &Time<'_>,
        stores: &[(PathBuf, Vec<String>); 2],
    ) -> Any<()> {
        let out = self.work.join("restored.img");
        let to = out.display().to_string();
        let verbs: &[(&str, &[&str])] = &[
            ("verify", &["verify"]),
            ("verify --deep", &["verify", "--deep"]),
            (
                "restore, not read back",
                &["restore", "latest", &to, "--no-read-back"],
            ),
            ("restore", &["restore", "latest", &to]),
        ];
        for (name, words) in verbs {
            for cache in ["", FROM_DISK] {
                for ((store, keys), label) in stores.iter().zip(["", ENCRYPTED]) {
                    let _ = fs::remove_file(&out);
                    // What others wrote is not to be waited for in here.
                    nix::unistd::sync();
                    let image = first_image(store)?;
                    if cache == FROM_DISK {
                        evict(&image)?;
                    } else {
                        self.read(&image)?;
                    }
                    let store = store.display().to_string();
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    time(table, &format!("{name}{cache}{label}"), &mut || {
                        strata(&[words, &["--store", &store][..], &keys].concat())
                    })?;
                }
            }
        }
        let _ = fs::remove_file(&out);
        Ok(())
    }

    /// Backs up to a store whose image is encrypted for an age key, and says what opens it.
    fn encrypted(&self, table: &mut Table, time: &Time<'_>) -> Any<(PathBuf, Vec<String>)> {
        let store = self.work.join("encrypted");
        let key = self.work.join("key.txt");
        let (disk, key_text) = (self.disk.display().to_string(), key.display().to_string());
        let state = self.work.join("state");
        for path in [&store, &state] {
            let _ = fs::remove_dir_all(path);
        }
        let _ = fs::remove_file(&key);
        let store_text = store.display().to_string();
        time(table, &format!("backup{ENCRYPTED}"), &mut || {
            let args = ["backup", &disk, "--store", &store_text, "--set", "bench"];
            let mut backup = Command::new(STRATA);
            backup.args(args).args(["--recovery-key", &key_text]);
            ended_well(backup.env("STRATA_STATE", &state))?;
            folder_len(&store)
        })?;
        Ok((store, vec!["--identity".to_owned(), key_text]))
    }

    fn rivals(&self, table: &mut Table, time: &Time<'_>) -> Any<()> {
        let out = self.work.join("rival");
        let (disk, to) = (self.disk.display().to_string(), out.display().to_string());
        if installed("partclone.dd") && installed("zstd") {
            let command =
                "partclone.dd -q -L /dev/null -s \"$1\" -o - | zstd -q -T0 -3 -f -o \"$2\"";
            time(table, "rival: partclone.dd | zstd -T0 -3", &mut || {
                shell(command, &disk, &to)
            })?;
        }
        if installed("qemu-img") {
            let command = "qemu-img convert -c -O qcow2 -o compression_type=zstd -W -m 16 -f raw \"$1\" \"$2\"";
            time(table, "rival: qemu-img convert -c, zstd", &mut || {
                shell(command, &disk, &to)
            })?;
        }
        let _ = fs::remove_file(&out);
        Ok(())
    }

    fn read(&self, path: &Path) -> Any<u64> {
        let mut file = File::open(path)?;
        let mut buf = vec![0; FRAME];
        while file.read(&mut buf)? > 0 {}
        Ok(0)
    }

    /// Runs `work` on every non-zero frame of the disk, on all cores.
    fn frames(&self, work: &(dyn Fn(u64, &[u8]) -> Any<()> + Sync)) -> Any<()> {
        let next = Mutex::new(0u64);
        let file = File::open(&self.disk)?;
        let step = u64::try_from(FRAME)?;
        std::thread::scope(|scope| -> Any<()> {
            let workers: Vec<_> = (0..cores())
                .map(|_| {
                    scope.spawn(|| -> Result<(), String> {
                        let mut buf = vec![0; FRAME];
                        let mut kept = Vec::with_capacity(FRAME);
                        loop {
                            let at = {
                                let mut next = next.lock().map_err(|e| e.to_string())?;
                                let at = *next;
                                *next += step;
                                at
                            };
                            let len =
                                usize::try_from(self.len.saturating_sub(at).min(step)).unwrap_or(0);
                            if len == 0 {
                                return Ok(());
                            }
                            file.read_exact_at(&mut buf[..len], at)
                                .map_err(|e| e.to_string())?;
                            kept.clear();
                            for block in buf[..len].chunks(BLOCK) {
                                if !diskstrata::image::is_zero(block) {
                                    kept.extend_from_slice(block);
                                }
                            }
                            if !kept.is_empty() {
                                work(at, &kept).map_err(|e| e.to_string())?;
                            }
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.join().map_err(|_| "a thread panicked")??;
            }
            Ok(())
        })
    }

    fn blake3(&self) -> Any<u64> {
        self.frames(&|_, bytes| {
            bytes.chunks(BLOCK).for_each(hash);
            Ok(())
        })?;
        Ok(0)
    }

    fn zstd(&self) -> Any<u64> {
        let total = std::sync::atomic::AtomicU64::new(0);
        // One context and one buffer a thread, as any program that means it would have.
        thread_local! {
            static ZSTD: std::cell::RefCell<Option<(zstd::bulk::Compressor<'static>, Vec<u8>)>> =
                const { std::cell::RefCell::new(None) };
        }
        self.frames(&|_, bytes| {
            ZSTD.with_borrow_mut(|slot| -> Any<()> {
                if slot.is_none() {
                    let room = zstd::zstd_safe::compress_bound(FRAME);
                    *slot = Some((zstd::bulk::Compressor::new(LEVEL)?, vec![0; room]));
                }
                let Some((zstd, out)) = slot else {
                    return Ok(());
                };
                let len = u64::try_from(zstd.compress_to_buffer(bytes, out.as_mut_slice())?)?;
                total.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            })
        })?;
        Ok(total.into_inner())
    }

    /// Keeps every frame compressed, for the limit of decompressing.
    fn keep_frames(&self) -> Any<()> {
        let file = self.work.join("frames");
        if file.exists() {
            return Ok(());
        }
        let out = Mutex::new(File::create(&file)?);
        self.frames(&|_, bytes| {
            let packed = zstd::bulk::compress(bytes, LEVEL)?;
            let mut record = u64::try_from(packed.len())?.to_le_bytes().to_vec();
            record.extend(u64::try_from(bytes.len())?.to_le_bytes());
            record.extend(packed);
            let mut out = out.lock().map_err(|e| e.to_string())?;
            Ok(out.write_all(&record)?)
        })
    }

    /// Reads, decompresses and hashes every frame that `keep_frames` kept.
    fn unzstd(&self) -> Any<u64> {
        let file = self.work.join("frames");
        let bytes = fs::read(&file)?;
        let mut at = 0;
        let mut frames = Vec::new();
        while at < bytes.len() {
            let number = |at: usize| -> Any<usize> {
                Ok(usize::try_from(u64::from_le_bytes(
                    bytes[at..at + 8].try_into()?,
                ))?)
            };
            let (packed, raw) = (number(at)?, number(at + 8)?);
            frames.push((at + 16..at + 16 + packed, raw));
            at += 16 + packed;
        }
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..cores() {
                scope.spawn(|| {
                    let Ok(mut zstd) = zstd::bulk::Decompressor::new() else {
                        return;
                    };
                    let mut data = vec![0; FRAME];
                    while let Some((range, _)) =
                        frames.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                    {
                        let packed = &bytes[range.clone()];
                        let len = zstd.decompress_to_buffer(packed, data.as_mut_slice());
                        let data = &data[..len.unwrap_or(0)];
                        data.chunks(BLOCK).for_each(hash);
                    }
                });
            }
        });
        Ok(0)
    }

    /// Writes the non-zero blocks where they belong in a sparse file, and syncs it.
    fn write(&self, to: &Path) -> Any<u64> {
        let out = File::create(to)?;
        out.set_len(self.len)?;
        self.frames(&|at, bytes| Ok(out.write_all_at(bytes, at)?))?;
        out.sync_all()?;
        Ok(0)
    }
}

fn strata(args: &[&str]) -> Any<u64> {
    ended_well(Command::new(STRATA).args(args))
}

fn ended_well(command: &mut Command) -> Any<u64> {
    let status = command.stdout(Stdio::null()).status()?;
    if status.success() {
        Ok(0)
    } else {
        Err(format!("{command:?}: {status}").into())
    }
}

fn shell(command: &str, from: &str, to: &str) -> Any<u64> {
    let arguments = ["-c", command, "sh", from, to];
    let output = Command::new("sh")
        .args(arguments)
        .stdout(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    File::open(to)?.sync_all()?;
    Ok(fs::metadata(to)?.len())
}

fn installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$1\"", "sh", program])
        .output();
    found.is_ok_and(|o| o.status.success())
}

fn first_image(store: &Path) -> Any<PathBuf> {
    let mut files = fs::read_dir(store)?.filter_map(|e| Some(e.ok()?.path()));
    files
        .find(|p| p.extension().is_some_and(|e| e == "strata"))
        .ok_or_else(|| "no image".into())
}

/// Lets go of the page cache of `file`.
fn evict(file: &Path) -> Any<()> {
    let file = File::open(file)?;
    file.sync_all()?;
    Ok(posix_fadvise(
        &file,
        0,
        0,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )?)
}

fn folder_len(folder: &Path) -> Any<u64> {
    let entries = fs::read_dir(folder)?.filter_map(Result::ok);
    Ok(entries.filter_map(|e| Some(e.metadata().ok()?.len())).sum())
}

/// A disk of 1 GiB: a quarter each of text, this program's code, noise and zeros, in runs of
/// various lengths.
fn made_disk(path: &Path) -> Any<PathBuf> {
    let code = fs::read(std::env::current_exe()?)?;
    let mut out = std::io::BufWriter::new(File::create(path)?);
    let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
    let (mut written, mut turn) = (0usize, 0usize);
    let mut chunk = vec![0u8; 8 << 20];
    while written < 1 << 30 {
        let len = (4096 * (1 + turn * 37 % 2000))
            .min((1 << 30) - written)
            .min(chunk.len());
        let part = &mut chunk[..len];
        match turn % 4 {
            0 => {
                for (i, line) in part.chunks_mut(48).enumerate() {
                    let text = format!(
                        "{:>10} {:08x} entry of a log file, number\n",
                        i * turn,
                        i * 2_654_435_761 % 4_294_967_291
                    );
                    let count = line.len().min(text.len());
                    line[..count].copy_from_slice(&text.as_bytes()[..count]);
                }
            }
            1 => part
                .iter_mut()
                .zip(code.iter().cycle().skip(turn * 65_537 % code.len()))
                .for_each(|(a, b)| *a = *b),
            2 => noise.fill(part),
            _ => part.fill(0),
        }
        out.write_all(part)?;
        written += len;
        turn += 1;
    }
    out.flush()?;
    Ok(path.to_owned())
}
