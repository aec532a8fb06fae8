//! How long the used maps of large file systems take, and how much is read and allocated for them.
//!
//! `cargo bench --bench used_maps [-- [--files N | --full] [--ntfs-files N] [ext4|xfs|btrfs|ntfs|huge …]]`
//!
//! Makes file systems of 100 GiB with N files (20,000; `--full`: a million) in some hundred folders, of
//! which every tenth is gone again, and asks `fs::used` what is in use; Partclone's domain mode, which
//! answers the same question, runs beside it on the same file where it is installed. NTFS gets a fifth
//! of the files, because `ntfs-3g` takes long to make them, or what `--ntfs-files` says. `huge` makes
//! empty ext4 and XFS of 16 TiB; memory for their maps must stay below 64 MiB. Everything is measured
//! with a warm page cache, in turns, and the table shows medians of three.
//!
//! Needs root, loop devices and the tools of the file systems. The file systems are sparse files in
//! `target/tmp/used-maps` and are used again; delete the folder to make them anew.

#[path = "../tests/fs_kit/mod.rs"]
mod fs_kit;

use diskstrata::base::Cancel;
use diskstrata::block::{CachePolicy, FileSource};
use diskstrata::fs::Certainty;
use fs_kit::watch;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

type Any<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 3;
const GIB: u64 = 1 << 30;
/// Length of the file systems with files.
const LARGE: u64 = 100 * GIB;
/// What a file may be long on ext4, less a little: 16 TiB.
const HUGE: u64 = (16 << 40) - (1 << 20);
const FOLDERS: u64 = 500;
const FEW: u64 = 20_000;
const MANY: u64 = 1_000_000;

/// A file system to make and to look at.
struct Subject {
    name: &'static str,
    len: u64,
    /// How many files it gets; `None`: it stays empty.
    files: Option<u64>,
    mkfs: &'static [&'static str],
    rival: Option<&'static str>,
}

fn main() -> Any<()> {
    let options = Options::from(std::env::args().skip(1))?;
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED (needs root): file systems are mounted to fill them");
        return Ok(());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("used-maps");
    fs::create_dir_all(&folder)?;
    println!("| file system | files | used map s | read MiB | reads | heap MiB | partclone s |");
    println!("|---|---|---|---|---|---|---|");
    for subject in subjects(&options) {
        let image = made(&subject, &folder)?;
        measure(&subject, &image)?;
    }
    Ok(())
}

#[derive(Default)]
struct Options {
    files: Option<u64>,
    ntfs_files: Option<u64>,
    only: Vec<String>,
}

impl Options {
    fn from(mut args: impl Iterator<Item = String>) -> Any<Options> {
        let mut options = Options::default();
        while let Some(arg) = args.next() {
            let mut number = || args.next().ok_or("a number is missing");
            match arg.as_str() {
                "--full" => options.files = Some(MANY),
                "--files" => options.files = Some(number()?.parse()?),
                "--ntfs-files" => options.ntfs_files = Some(number()?.parse()?),
                // Cargo says so itself.
                "--bench" => {}
                name => options.only.push(name.to_owned()),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only))
    }
}

fn subjects(options: &Options) -> Vec<Subject> {
    let files = options.files.unwrap_or(FEW);
    let with_files = |name, mkfs, rival| Subject {
        name,
        len: LARGE,
        files: Some(if name == "ntfs" {
            options.ntfs_files.unwrap_or(files / 5)
        } else {
            files
        }),
        mkfs,
        rival: Some(rival),
    };
    let empty = |name, mkfs| Subject {
        name,
        len: HUGE,
        files: None,
        mkfs,
        rival: None,
    };
    let all = [
        with_files("ext4", &["mkfs.ext4", "-q", "-F"], "partclone.ext4"),
        with_files("xfs", &["mkfs.xfs", "-q"], "partclone.xfs"),
        with_files("btrfs", &["mkfs.btrfs", "-q"], "partclone.btrfs"),
        with_files("ntfs", &["mkfs.ntfs", "-q", "-Q", "-F"], "partclone.ntfs"),
        empty("huge-ext4", &["mkfs.ext4", "-q", "-F"]),
        empty("huge-xfs", &["mkfs.xfs", "-q", "-l", "size=64m"]),
    ];
    all.into_iter().filter(|s| options.wants(s.name)).collect()
}

/// The image of a subject, made unless it is there.
fn made(subject: &Subject, folder: &Path) -> Any<PathBuf> {
    let files = subject.files.unwrap_or(0);
    let image = folder.join(format!("{}-{files}.img", subject.name));
    if image.exists() {
        return Ok(image);
    }
    eprintln!("making {}", image.display());
    let part = Unfinished(image.with_extension("part"));
    File::create(&part.0)?.set_len(subject.len)?;
    let (mkfs, options) = subject.mkfs.split_first().ok_or("no mkfs")?;
    run(Command::new(mkfs).args(options).arg(&part.0))?;
    if subject.files.is_some() {
        let mounted = Mounted::new(&part.0, &folder.join("mounted"))?;
        fill(&mounted.0, files)?;
    }
    fs::rename(&part.0, &image)?;
    Ok(image)
}

/// Small files, most of them empty, and gaps where every tenth was.
fn fill(root: &Path, files: u64) -> Any<()> {
    let path = |n: u64| root.join(format!("{}/a file of the measurement {n}", n % FOLDERS));
    for folder in 0..FOLDERS {
        fs::create_dir(root.join(folder.to_string()))?;
    }
    let content = [0xC5; 5000];
    for n in 0..files {
        let mut file = File::create(path(n))?;
        if n % 4 == 0 {
            file.write_all(&content)?;
        }
    }
    for n in (0..files).step_by(10) {
        fs::remove_file(path(n))?;
    }
    Ok(())
}

fn measure(subject: &Subject, image: &Path) -> Any<()> {
    let installed_rival = subject.rival.filter(|rival| installed(rival));
    let (mut own, mut rival) = (Vec::new(), Vec::new());
    let source = FileSource::open(image, subject.name, CachePolicy::Auto)?;
    // Brings the metadata into the cache.
    diskstrata::fs::used(&source, &Cancel::new())?;
    let mut last = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let run = watch::run_whole(&source);
        own.push(start.elapsed().as_secs_f64());
        last = Some(run);
        if let Some(program) = installed_rival {
            let start = Instant::now();
            domain(program, image)?;
            rival.push(start.elapsed().as_secs_f64());
        }
    }
    let run = last.ok_or("no round")?;
    let report = run.check()?;
    if report.certainty != Certainty::Certain {
        return Err(format!("{}: {:?}", subject.name, report.certainty).into());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    println!(
        "| {} ({} GiB) | {} | {:.3} | {} | {} | {} | {} |",
        report.kind,
        subject.len.div_ceil(GIB),
        subject.files.unwrap_or(0),
        median(own),
        mib(run.bytes),
        run.reads,
        mib(run.heap),
        if rival.is_empty() {
            String::new()
        } else {
            format!("{:.3}", median(rival))
        }
    );
    Ok(())
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// Partclone's list of the used ranges, thrown away.
fn domain(rival: &str, image: &Path) -> Any<()> {
    let options = [
        "--domain",
        "--offset_domain=0",
        "--quiet",
        "--logfile=/dev/null",
    ];
    let mut command = Command::new(rival);
    let command = command.args(options).arg("--source").arg(image);
    run(command.args(["--overwrite", "/dev/null"]))?;
    Ok(())
}

fn run(command: &mut Command) -> Any<Output> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{said}", output.status).into())
}

fn installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$1\"", "sh", program])
        .output();
    found.is_ok_and(|o| o.status.success())
}

/// A file that is deleted unless it was given its name.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A mounted file, unmounted when dropped; its folder goes too.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Any<Mounted> {
        fs::create_dir(at)?;
        let mounted = Mounted(at.to_owned());
        run(Command::new("mount").args(["-o", "loop"]).args([image, at]))?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.0)) {
            eprintln!("CLEAN-UP FAILED: {error}");
        }
        let _ = fs::remove_dir(&self.0);
    }
}
