//! Loop devices, mounts and swap that are undone on every way out of a test.

// Each test program uses a part of it; like a test, it may give up by panicking.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod ask;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test at a time: a new mount namespace copies every mount there is and keeps it alive.
static ALONE: Mutex<()> = Mutex::new(());

/// A folder for one test. Everything made with it is dropped before it.
pub(crate) struct Rig {
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Rig {
    /// `None` without root, after saying so.
    pub(crate) fn new(test: &str) -> Option<Rig> {
        if !diskstrata::sys::effective_uid().eq(&0) {
            // Past the capturing of tests that pass: a skip must be seen.
            let _ = writeln!(std::io::stderr(), "SKIPPED (needs root): {test}");
            let required = std::env::var_os("STRATA_REQUIRE_PRIVILEGED").is_some_and(|v| v == "1");
            assert!(
                !required,
                "{test} was skipped although STRATA_REQUIRE_PRIVILEGED=1"
            );
            return None;
        }
        Some(Rig {
            folder: tempfile::tempdir().unwrap(),
            _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// Where a thing called `name` is or will be.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// A new folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// A file full of 0xA5.
    pub(crate) fn file(&self, name: &str, len: u64) -> PathBuf {
        let path = self.path(name);
        fill(&path, len);
        path
    }

    /// A loop device over a file full of 0xA5.
    pub(crate) fn disk(&self, name: &str, len: u64) -> Disk {
        Disk::attach(&self.file(name, len))
    }

    /// A loop device that refuses to be written.
    pub(crate) fn read_only(&self, name: &str, len: u64) -> Disk {
        Disk::attach_with(&self.file(name, len), &["-r"])
    }

    /// A loop device with an ext4 that the kernel will not touch up in the background.
    pub(crate) fn ext4(&self, name: &str) -> Disk {
        let disk = self.disk(name, 16 << 20);
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-E", options, text(disk.path())]);
        disk
    }

    /// Mounts a disk on a new folder.
    pub(crate) fn mount(&self, disk: &Disk, name: &str, options: &[&str]) -> Mounted {
        let point = self.folder(name);
        let mut args = options.to_vec();
        args.extend([text(disk.path()), text(&point)]);
        run("mount", &args);
        Mounted { point }
    }

    /// Mounts a device on a new folder.
    pub(crate) fn mount_path(&self, device: &Path, name: &str) -> Mounted {
        let point = self.folder(name);
        run("mount", &[text(device), text(&point)]);
        Mounted { point }
    }

    /// Mounts a folder a second time.
    pub(crate) fn bind(&self, folder: &Path, name: &str) -> Mounted {
        let point = self.folder(name);
        run("mount", &["--bind", text(folder), text(&point)]);
        Mounted { point }
    }

    /// Mounts an overlay over `lower` on a new folder.
    pub(crate) fn overlay(&self, lower: &Path, name: &str) -> Mounted {
        let (upper, work) = (self.folder("upper"), self.folder("work"));
        let point = self.folder(name);
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        run(
            "mount",
            &["-t", "overlay", "overlay", "-o", &options, text(&point)],
        );
        Mounted { point }
    }

    /// Swaps to a disk or file that mkswap has prepared.
    pub(crate) fn swap(&self, path: &Path) -> Swap {
        run("swapon", &[text(path)]);
        Swap {
            path: path.to_owned(),
        }
    }
}

/// A loop device, detached when dropped.
pub(crate) struct Disk {
    path: PathBuf,
    file: PathBuf,
    attached: bool,
}

impl Disk {
    /// Shows `file` as a disk.
    pub(crate) fn attach(file: &Path) -> Disk {
        Disk::attach_with(file, &[])
    }

    fn attach_with(file: &Path, options: &[&str]) -> Disk {
        let mut args = vec!["--find", "--show"];
        args.extend(options);
        args.push(text(file));
        Disk {
            path: PathBuf::from(run("losetup", &args).trim()),
            file: file.to_owned(),
            attached: true,
        }
    }

    /// The device.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file behind it.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Writes a GPT with these partitions (`START,SIZE` of sfdisk(8)) in place of any other, and
    /// has the kernel show them. Their nodes; none where the kernel does not.
    pub(crate) fn partitions(&self, parts: &[&str]) -> Vec<PathBuf> {
        quietly_failing("partx", &["-d", text(&self.path)]);
        let script = format!("label: gpt\n{}\n", parts.join("\n"));
        let mut child = Command::new("sfdisk")
            .args(["-q", "--no-reread", "--wipe", "always", text(&self.path)])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(script.as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
        run("sync", &[]);
        quietly_failing("partx", &["-a", text(&self.path)]);
        let nodes = (1..=parts.len()).map(|n| PathBuf::from(format!("{}p{n}", text(&self.path))));
        nodes.filter(|node| node.exists()).collect()
    }

    /// Puts another file behind the same device.
    pub(crate) fn point_to(&mut self, file: &Path) {
        self.detach();
        let attach = || {
            let losetup = Command::new("losetup")
                .args([text(&self.path), text(file)])
                .output();
            losetup.unwrap().status.success()
        };
        // Another test may have taken the device meanwhile, and gives it back.
        let what = format!("attach {} again", self.path.display());
        patiently(&what, attach);
        self.attached = true;
    }

    /// Takes the file away; returns when the device is empty.
    pub(crate) fn detach(&mut self) {
        forget_partitions(&self.path);
        run("losetup", &["-d", text(&self.path)]);
        self.attached = false;
        let name = self.path.file_name().unwrap();
        let size = Path::new("/sys/block").join(name).join("size");
        // Whoever has it open, such as a test that lists all disks, keeps it until then.
        let what = format!("empty {}", self.path.display());
        patiently(&what, || {
            fs::read_to_string(&size).is_ok_and(|s| s.trim() == "0")
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.attached {
            forget_partitions(&self.path);
            quietly("losetup", &["-d", text(&self.path)]);
        }
    }
}

/// Takes away the partitions that a test has shown to the kernel: they would outlive the disk.
fn forget_partitions(device: &Path) {
    quietly("partx", &["-d", text(device)]);
}

/// A mount, undone when dropped.
pub(crate) struct Mounted {
    point: PathBuf,
}

impl Mounted {
    /// Where.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        quietly("umount", &[text(&self.point)]);
    }
}

/// Swap in use, ended when dropped.
pub(crate) struct Swap {
    path: PathBuf,
}

impl Drop for Swap {
    fn drop(&mut self) {
        quietly("swapoff", &[text(&self.path)]);
    }
}

/// Another process that holds something until it is dropped.
pub(crate) struct Holder {
    child: Child,
    /// Kept open: the process may still say something when it ends.
    _output: BufReader<ChildStdout>,
}

impl Holder {
    /// Runs a command that prints `ready` when it holds, and ends when its input does.
    pub(crate) fn spawn(program: &str, args: &[&str]) -> Holder {
        let mut command = Command::new(program);
        command.args(args);
        Holder::start(command)
    }

    /// A process that has claimed a device (`O_EXCL`).
    pub(crate) fn claims(device: &Path) -> Holder {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "--nocapture", "holds_a_disk"])
            .env("GUARD_HOLDS", device);
        Holder::start(command)
    }

    fn start(mut command: Command) -> Holder {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            let read = output.read_line(&mut line).unwrap();
            assert!(read > 0, "the other process does not hold");
        }
        Holder {
            child,
            _output: output,
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The other process of [`Holder::claims`].
pub(crate) fn hold_claim() {
    let Some(device) = std::env::var_os("GUARD_HOLDS") else {
        return;
    };
    let _claim = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_EXCL)
        .open(device)
        .unwrap();
    println!("ready");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// Fills a new file with 0xA5, since zeros would hide a stray write of zeros.
pub(crate) fn fill(path: &Path, len: u64) {
    let bytes = vec![0xA5; usize::try_from(len).unwrap()];
    fs::write(path, bytes).unwrap();
}

/// BLAKE3 of a disk's or file's bytes.
pub(crate) fn digest(path: &Path) -> blake3::Hash {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    blake3::hash(&bytes)
}

/// Asks again and again, for up to a minute, until `done`.
#[track_caller]
fn patiently(what: &str, done: impl Fn() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what}: not within a minute");
}

/// Runs a command that must succeed; its output.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that may have nothing to do.
fn quietly_failing(program: &str, args: &[&str]) {
    let _ = Command::new(program).args(args).output();
}

fn quietly(program: &str, args: &[&str]) {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => {}
        other => eprintln!("cleaning up: {program} {args:?}: {other:?}"),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
