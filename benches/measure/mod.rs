//! What benches of histories share: runs of commands with their time and peak of memory, medians, and
//! the table and JSON that they end with.

// Each bench uses its own part.
#![allow(dead_code)]

pub(crate) mod rivals;

use diskstrata::base::{AlignedBuf, BlockIndex};
use diskstrata::block::BlockSource;
use diskstrata::chain::{Catalog, ChainView};
use diskstrata::image::{BlockState, BlockStates, Piece};
use diskstrata::store::LocalStore;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub(crate) type Any<T> = Result<T, Box<dyn std::error::Error>>;

pub(crate) const STRATA: &str = env!("CARGO_BIN_EXE_strata");
pub(crate) const MIB: u64 = 1 << 20;
/// The default frame and the default block.
pub(crate) const FRAME: usize = 1 << 20;
pub(crate) const BLOCK: usize = 64 << 10;

/// Threads that do little more than read past the page cache: more make no difference.
const DIRECT_READERS: usize = 8;

/// Holds the command line where this program is only the middle process of a measurement.
const MEASURED: &str = "STRATA_BENCH_MEASURED";

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    /// Seconds of all cores together: what other programs on the machine change least.
    pub(crate) cpu: f64,
    /// Peak of resident memory in bytes; 0 where it was not measured.
    pub(crate) peak: u64,
    /// Bytes that it made; 0 where that is not asked.
    pub(crate) bytes: u64,
}

/// To be called first in `main`: whether this was only the middle process of a measurement, which is
/// over now. The kernel tells the peak of children only as the maximum of all, so that each run that is
/// measured needs a parent of its own.
pub(crate) fn was_middle_process() -> Any<bool> {
    let Some(line) = std::env::var_os(MEASURED) else {
        return Ok(false);
    };
    let line: Vec<String> = serde_json::from_str(line.to_str().ok_or("no text")?)?;
    let (program, args) = line.split_first().ok_or("no command")?;
    let start = Instant::now();
    let status = Command::new(program)
        .args(args)
        .env_remove(MEASURED)
        .status()?;
    let seconds = start.elapsed().as_secs_f64();
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    eprintln!("MEASURED {seconds} {} {}", cpu_of(&usage), usage.max_rss());
    if status.success() {
        return Ok(true);
    }
    std::process::exit(1)
}

#[allow(clippy::cast_precision_loss)]
fn cpu_of(usage: &nix::sys::resource::Usage) -> f64 {
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Runs a command that must succeed; what it took, and its standard output.
pub(crate) fn measured(line: &[&str]) -> Any<(Cost, Vec<u8>)> {
    let output = Command::new(std::env::current_exe()?)
        .env(MEASURED, serde_json::to_string(line)?)
        .stdin(Stdio::null())
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{line:?}: {words}").into());
    }
    let said = words.lines().find_map(|l| l.strip_prefix("MEASURED "));
    let words: Vec<&str> = said.ok_or("nothing was measured")?.split(' ').collect();
    let [seconds, cpu, kib] = words.as_slice() else {
        return Err("nothing was measured".into());
    };
    let cost = Cost {
        seconds: seconds.parse()?,
        cpu: cpu.parse()?,
        peak: kib.parse::<u64>()? << 10,
        bytes: 0,
    };
    Ok((cost, output.stdout))
}

/// Runs `strata` with `--json`; what it took, and what it said.
pub(crate) fn strata(args: &[&str]) -> Any<(Cost, serde_json::Value)> {
    let line = [&[STRATA], args, &["--json", "--no-progress"]].concat();
    let (cost, said) = measured(&line)?;
    Ok((cost, serde_json::from_slice(&said)?))
}

/// The number that an environment variable says.
pub(crate) fn number(variable: &str, usual: u64) -> u64 {
    let said = std::env::var(variable).ok();
    said.and_then(|s| s.parse().ok()).unwrap_or(usual)
}

/// A folder for all that is made, which goes when it is dropped.
pub(crate) fn work_dir() -> Any<tempfile::TempDir> {
    let dir = std::env::var_os("STRATA_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    Ok(tempfile::Builder::new()
        .prefix("strata-bench-")
        .tempdir_in(dir)?)
}

pub(crate) fn text(path: &Path) -> Any<&str> {
    Ok(path.to_str().ok_or("a path that is no text")?)
}

/// Times something that is done in this process.
pub(crate) fn timed<T>(run: impl FnOnce() -> Any<T>) -> Any<(Cost, T)> {
    let cpu = || -> Any<f64> {
        let who = nix::sys::resource::UsageWho::RUSAGE_SELF;
        Ok(cpu_of(&nix::sys::resource::getrusage(who)?))
    };
    let (start, before) = (Instant::now(), cpu()?);
    let value = run()?;
    let cost = Cost {
        seconds: start.elapsed().as_secs_f64(),
        cpu: cpu()? - before,
        peak: 0,
        bytes: 0,
    };
    Ok((cost, value))
}

/// Measurements by name, in the order of first appearance.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<(String, Vec<Cost>)>,
    ratios: BTreeMap<String, (f64, String)>,
}

impl Table {
    /// Says it on standard error too: whoever stops a long run has what was measured until then.
    pub(crate) fn add(&mut self, name: &str, cost: Cost) {
        eprintln!(
            "  {name}: {:.2} s, {:.2} s of the processor",
            cost.seconds, cost.cpu
        );
        match self.rows.iter_mut().find(|(n, _)| n == name) {
            Some((_, all)) => all.push(cost),
            None => self.rows.push((name.to_owned(), vec![cost])),
        }
    }

    /// Medians of the seconds, and the greatest peak.
    pub(crate) fn cost(&self, name: &str) -> Option<Cost> {
        let all = &self.rows.iter().find(|(n, _)| n == name)?.1;
        Some(Cost {
            seconds: median(all.iter().map(|c| c.seconds))?,
            cpu: median(all.iter().map(|c| c.cpu))?,
            peak: all.iter().map(|c| c.peak).max()?,
            bytes: all.last()?.bytes,
        })
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.rows.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Notes beside `name` how it compares, and what was wanted.
    pub(crate) fn ratio(&mut self, name: &str, ratio: f64, wanted: &str) {
        self.ratios
            .insert(name.to_owned(), (ratio, wanted.to_owned()));
    }

    /// As a table for people and one line of JSON for programs.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn print(&self, facts: &serde_json::Value) {
        println!("| what | s | cpu s | peak MiB | MiB made | ratio | wanted |");
        println!("|---|---|---|---|---|---|---|");
        let mut json = serde_json::Map::new();
        for (name, all) in &self.rows {
            let Some(cost) = self.cost(name) else {
                continue;
            };
            let (ratio, wanted) = match self.ratios.get(name) {
                Some((ratio, wanted)) => (format!("{ratio:.2}"), wanted.as_str()),
                None => (String::new(), ""),
            };
            let mib = |bytes: u64| match bytes {
                0 => String::new(),
                bytes => format!("{:.1}", bytes as f64 / MIB as f64),
            };
            let (peak, made) = (mib(cost.peak), mib(cost.bytes));
            println!(
                "| {name} | {:.4} | {:.4} | {peak} | {made} | {ratio} | {wanted} |",
                cost.seconds, cost.cpu
            );
            let row = serde_json::json!({
                "seconds": all.iter().map(|c| c.seconds).collect::<Vec<_>>(),
                "median": cost.seconds,
                "cpu_median": cost.cpu,
                "peak_bytes": (cost.peak > 0).then_some(cost.peak),
                "made_bytes": (cost.bytes > 0).then_some(cost.bytes),
                "ratio": self.ratios.get(name).map(|r| r.0),
                "wanted": self.ratios.get(name).map(|r| &r.1),
            });
            json.insert(name.clone(), row);
        }
        println!("\n{}", serde_json::json!({"facts": facts, "rows": json}));
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Reads a file from end to end, which also brings it into the page cache.
pub(crate) fn read(path: &Path) -> Any<()> {
    let mut file = File::open(path)?;
    let mut buf = vec![0; FRAME];
    while file.read(&mut buf)? > 0 {}
    Ok(())
}

/// Does something with all files below a folder.
pub(crate) fn each_file(folder: &Path, action: &dyn Fn(&Path) -> Any<()>) -> Any<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => each_file(&path, action)?,
            false => action(&path)?,
        }
    }
    Ok(())
}

pub(crate) fn read_folder(folder: &Path) -> Any<()> {
    each_file(folder, &read)
}

pub(crate) fn sync_folder(folder: &Path) -> Any<()> {
    each_file(folder, &|path| Ok(File::open(path)?.sync_all()?))
}

/// The first image file of a store.
pub(crate) fn first_image(store: &Path) -> Any<PathBuf> {
    let mut files = fs::read_dir(store)?.filter_map(|e| Some(e.ok()?.path()));
    files
        .find(|p| p.extension().is_some_and(|e| e == "strata"))
        .ok_or_else(|| "no image".into())
}

/// Lets go of the page cache of `file`.
pub(crate) fn evict(file: &Path) -> Any<()> {
    let file = File::open(file)?;
    file.sync_all()?;
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    Ok(nix::fcntl::posix_fadvise(&file, 0, 0, advice)?)
}

/// Reads a whole file past the page cache, which must not hold it, one call after the other.
pub(crate) fn read_direct(path: &Path) -> Any<()> {
    let file = open_direct(path)?;
    let mut buf = buffer(usize::try_from(4 * MIB)?);
    let mut at = 0;
    loop {
        let count = file.read_at(&mut buf, at)?;
        if count == 0 {
            return Ok(());
        }
        at += u64::try_from(count)?;
    }
}

/// A buffer of `len` bytes in huge pages, which makes fewer requests of a transfer past the page cache.
pub(crate) fn buffer(len: usize) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(len.next_multiple_of(AlignedBuf::HUGE_PAGE));
    diskstrata::sys::prefer_huge_pages(&mut buf);
    buf
}

fn open_direct(path: &Path) -> Any<File> {
    let mut options = OpenOptions::new();
    let direct = options.read(true).custom_flags(nix::libc::O_DIRECT);
    Ok(direct.open(path)?)
}

pub(crate) fn folder_len(folder: &Path) -> Any<u64> {
    let total = std::cell::Cell::new(0);
    each_file(folder, &|path| {
        total.set(total.get() + fs::symlink_metadata(path)?.len());
        Ok(())
    })?;
    Ok(total.into_inner())
}

/// Reads nothing but what is at hand.
pub(crate) fn touch(bytes: &[u8]) {
    std::hint::black_box(bytes);
}

/// Hashes every block of it.
pub(crate) fn digests(bytes: &[u8]) {
    for block in bytes.chunks(BLOCK) {
        std::hint::black_box(blake3::hash(block));
    }
}

/// Fills `out` with text, program code, noise or nothing, as `turn` says.
pub(crate) fn content(turn: usize, code: &[u8], noise: &mut blake3::OutputReader, out: &mut [u8]) {
    match turn % 4 {
        0 => {
            for (i, line) in out.chunks_mut(48).enumerate() {
                let text = format!(
                    "{:>10} {:08x} entry of a log file, number\n",
                    i * (turn + 1),
                    i * 2_654_435_761 % 4_294_967_291
                );
                let count = line.len().min(text.len());
                line[..count].copy_from_slice(&text.as_bytes()[..count]);
            }
        }
        1 => out
            .iter_mut()
            .zip(code.iter().cycle().skip(turn * 65_537 % code.len().max(1)))
            .for_each(|(a, b)| *a = *b),
        2 => noise.fill(out),
        _ => out.fill(0),
    }
}

/// A disk of `len` bytes without a partition table: runs of text, code, noise and zeros.
pub(crate) fn made_disk(path: &Path, len: u64) -> Any<()> {
    let code = fs::read(std::env::current_exe()?)?;
    let out = File::create(path)?;
    out.set_len(len)?;
    let mut noise = blake3::Hasher::new().update(b"noise").finalize_xof();
    let (mut at, mut turn) = (0, 0);
    let mut chunk = vec![0u8; 8 << 20];
    while at < len {
        let count = (4096 * (1 + turn * 37 % 2000)).min(chunk.len());
        let count = count.min(usize::try_from(len - at)?);
        content(turn, &code, &mut noise, &mut chunk[..count]);
        out.write_all_at(&chunk[..count], at)?;
        at += u64::try_from(count)?;
        turn += 1;
    }
    Ok(())
}

/// Numbers that a seed decides.
pub(crate) struct Numbers(blake3::OutputReader);

impl Numbers {
    pub(crate) fn new(seed: &str) -> Numbers {
        Numbers(blake3::Hasher::new().update(seed.as_bytes()).finalize_xof())
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit.max(1)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        bytes
    }
}

/// Pieces of a disk back to back in a file, each with the place that it has on the disk.
pub(crate) struct Pieces {
    pub(crate) path: PathBuf,
    /// Place on the disk, place in the file, length.
    index: Vec<(u64, u64, usize)>,
}

/// [`Pieces`] being written.
pub(crate) struct PiecesOut {
    pieces: Pieces,
    out: BufWriter<File>,
    len: u64,
}

impl Pieces {
    pub(crate) fn begin(path: &Path) -> Any<PiecesOut> {
        let pieces = Pieces {
            path: path.to_owned(),
            index: Vec::new(),
        };
        Ok(PiecesOut {
            pieces,
            out: BufWriter::with_capacity(FRAME, File::create(path)?),
            len: 0,
        })
    }

    /// The content that the image in `folder` holds, window by window, in the file `to`.
    pub(crate) fn taken(folder: &Path, to: &Path) -> Any<Pieces> {
        let store = LocalStore::open(folder)?;
        let catalog = Catalog::load(&store)?;
        let image = catalog.images.first().ok_or("an empty store")?;
        let view = ChainView::open(Arc::new(store), catalog.lineage(image))?;
        let header = view.image().header().clone();
        let mut out = Pieces::begin(to)?;
        let windows = header.window_blocks();
        let mut window = vec![0; header.window_len()];
        for first in (0..header.blocks()).step_by(usize::try_from(windows)?) {
            let blocks = first..header.blocks().min(first + windows);
            let extent = header.extent_of(&blocks);
            let bytes = &mut window[..usize::try_from(extent.len.0)?];
            view.read_at(extent.start, bytes)?;
            let mut content = Vec::new();
            for (block, bytes) in blocks.zip(bytes.chunks(header.block_size.as_usize())) {
                let state = match view.piece(BlockIndex(block)) {
                    Piece::Leaf(leaf) => leaf.block(BlockIndex(block)).map(|b| b.state),
                    Piece::Uniform { state, .. } => Some(state),
                    Piece::Lost { .. } => return Err("a damaged image".into()),
                };
                if state == Some(BlockState::Data) {
                    content.extend_from_slice(bytes);
                }
            }
            if !content.is_empty() {
                out.push(first * header.block_size.bytes(), &content)?;
            }
        }
        out.finish()
    }

    pub(crate) fn bytes(&self) -> u64 {
        let lens = self.index.iter().map(|(_, _, len)| *len);
        lens.map(|len| u64::try_from(len).unwrap_or(0)).sum()
    }

    /// Reads the pieces in turn, on all cores, each with a worker of its own made by `worker`, which gets their
    /// place on the disk and their bytes, which lie on pages.
    pub(crate) fn each<W: FnMut(u64, &[u8])>(&self, worker: &(dyn Fn() -> W + Sync)) -> Any<()> {
        let file = File::open(&self.path)?;
        self.hand_out(cores(), &|| {
            let (mut buf, mut work) = (buffer(FRAME), worker());
            let file = &file;
            move |at, from, len| {
                if buf.len() < len {
                    buf.set_len(len);
                }
                let bytes = &mut buf[..len];
                file.read_exact_at(bytes, from)?;
                work(at, bytes);
                Ok(())
            }
        })
    }

    /// The same past the page cache, which must not hold them, with two workers for each core: one waits for the disk
    /// while the other works.
    pub(crate) fn each_direct<W: FnMut(u64, &[u8])>(
        &self,
        worker: &(dyn Fn() -> W + Sync),
    ) -> Any<()> {
        let file = open_direct(&self.path)?;
        self.each_at(&file, 2 * cores(), &|_, from| from, worker)
    }

    /// Reads them all past the page cache, which must not hold them.
    pub(crate) fn read_direct(&self) -> Any<()> {
        let file = open_direct(&self.path)?;
        self.each_at(&file, DIRECT_READERS, &|_, from| from, &|| {
            |_, bytes| touch(bytes)
        })
    }

    /// Hands out as many bytes, read where they begin on `disk`: how fast the page cache gives them depends on how they
    /// came into it.
    pub(crate) fn each_in_place<W: FnMut(u64, &[u8])>(
        &self,
        disk: &Path,
        worker: &(dyn Fn() -> W + Sync),
    ) -> Any<()> {
        let file = File::open(disk)?;
        self.hand_out(cores(), &|| {
            let (mut buf, mut work) = (buffer(FRAME), worker());
            let file = &file;
            move |at, _, len| {
                file.read_exact_at(&mut buf[..len], at)?;
                work(at, &buf[..len]);
                Ok(())
            }
        })
    }

    /// The same past the page cache, which must not hold them.
    pub(crate) fn each_direct_in_place<W: FnMut(u64, &[u8])>(
        &self,
        disk: &Path,
        worker: &(dyn Fn() -> W + Sync),
    ) -> Any<()> {
        let file = open_direct(disk)?;
        self.each_at(&file, DIRECT_READERS, &|at, _| at, worker)
    }

    /// Hands on what `file`, which is read past the page cache, has at `place` of each piece: of its place on the disk
    /// and of its place in the file of all.
    fn each_at<W: FnMut(u64, &[u8])>(
        &self,
        file: &File,
        threads: usize,
        place: &(dyn Fn(u64, u64) -> u64 + Sync),
        worker: &(dyn Fn() -> W + Sync),
    ) -> Any<()> {
        self.hand_out(threads, &|| {
            let page = AlignedBuf::ALIGNMENT;
            let (mut buf, mut work) = (buffer(FRAME + 2 * page), worker());
            move |at, from, len| {
                let from = place(at, from);
                let begin = from - from % u64::try_from(page)?;
                let skip = usize::try_from(from - begin)?;
                let whole = (skip + len).next_multiple_of(page);
                let mut done = 0;
                while done < skip + len {
                    let place = &mut buf[done..whole];
                    match file.read_at(place, begin + u64::try_from(done)?)? {
                        0 => return Err("the file ends too early".into()),
                        count => done += count,
                    }
                }
                work(at, &buf[skip..skip + len]);
                Ok(())
            }
        })
    }

    /// Hands every piece, as its place on the disk, its place in the file and its length, to one of the workers.
    fn hand_out<W: FnMut(u64, u64, usize) -> Any<()>>(
        &self,
        threads: usize,
        worker: &(dyn Fn() -> W + Sync),
    ) -> Any<()> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let run = || -> Result<(), String> {
                let mut work = worker();
                while let Some((at, from, len)) =
                    self.index.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    work(*at, *from, *len).map_err(|e| e.to_string())?;
                }
                Ok(())
            };
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            for worker in workers {
                worker.join().map_err(|_| "a thread panicked")??;
            }
            Ok(())
        })
    }
}

impl PiecesOut {
    pub(crate) fn push(&mut self, at: u64, bytes: &[u8]) -> Any<()> {
        self.out.write_all(bytes)?;
        self.pieces.index.push((at, self.len, bytes.len()));
        self.len += u64::try_from(bytes.len())?;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Any<Pieces> {
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        Ok(self.pieces)
    }
}
