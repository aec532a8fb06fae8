//! Loop devices, mounts and swap: made by root, and taken away on every way out of a test.

use super::tools;
use std::path::{Path, PathBuf};

/// Whether privileged tests can run here. Where they cannot they say so and are skipped, and where
/// `STRATA_REQUIRE_PRIVILEGED=1` says that they can, a skip is a failure.
#[must_use]
pub(crate) fn privileged(what: &str) -> bool {
    available("root and loop devices", what, usable())
}

/// As [`privileged`], for a test that also needs a file system of the kernel.
#[must_use]
pub(crate) fn privileged_with_fs(name: &str, what: &str) -> bool {
    privileged(what) && available(&format!("the kernel's {name}"), what, kernel_knows(name))
}

pub(super) fn available(needed: &str, what: &str, there: bool) -> bool {
    if there {
        return true;
    }
    let required = std::env::var_os("STRATA_REQUIRE_PRIVILEGED").is_some_and(|v| v == "1");
    assert!(
        !required,
        "{what}: needs {needed}, and STRATA_REQUIRE_PRIVILEGED=1 says it is there"
    );
    eprintln!("SKIPPED (needs root): {what}: needs {needed}");
    false
}

fn usable() -> bool {
    nix::unistd::geteuid().is_root() && tools::try_run("losetup", &["--find"]).status.success()
}

fn kernel_knows(filesystem: &str) -> bool {
    let listed = || {
        let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        all.lines()
            .any(|line| line.split_whitespace().last() == Some(filesystem))
    };
    listed() || {
        let _ = tools::tool("modprobe").arg(filesystem).output();
        listed()
    }
}

/// A loop device that is detached when dropped.
#[derive(Debug)]
pub(crate) struct Loop {
    path: PathBuf,
    /// The file behind it, as the kernel names it.
    file: String,
}

impl Loop {
    pub(crate) fn new(file: &Path) -> Loop {
        Loop::with(file, &[])
    }

    /// With 4096-byte or other sectors.
    pub(crate) fn with_sector(file: &Path, sector: u64) -> Loop {
        Loop::with(file, &["--sector-size", &sector.to_string()])
    }

    /// Over a part of the file, as a partition's device lies over its disk.
    pub(crate) fn of_range(file: &Path, start: u64, len: u64) -> Loop {
        let (start, len) = (start.to_string(), len.to_string());
        Loop::with(file, &["--offset", &start, "--sizelimit", &len])
    }

    pub(crate) fn read_only(file: &Path) -> Loop {
        Loop::with(file, &["--read-only"])
    }

    /// Over a part of the file that not even a mount may change.
    pub(crate) fn of_range_read_only(file: &Path, start: u64, len: u64) -> Loop {
        let (start, len) = (start.to_string(), len.to_string());
        Loop::with(
            file,
            &["--read-only", "--offset", &start, "--sizelimit", &len],
        )
    }

    fn with(file: &Path, options: &[&str]) -> Loop {
        let mut args = vec!["--find", "--show"];
        args.extend(options);
        args.push(file.to_str().unwrap());
        let path: PathBuf = tools::run("losetup", &args).trim().into();
        // Partitions that an earlier user of this device forgot would count as uses of it.
        let _ = tools::try_run("partx", &["--delete", path.to_str().unwrap()]);
        let file = shown_by(&path).unwrap_or_else(|| panic!("{path:?} shows no file"));
        Loop { path, file }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the device shows the file still, which may have been removed since.
    fn shows_it(&self) -> bool {
        shown_by(&self.path).is_some_and(|file| file.starts_with(&self.file))
    }
}

/// The file that a loop device shows (Documentation/ABI/testing/sysfs-block-loop of the kernel).
fn shown_by(device: &Path) -> Option<String> {
    let dir = Path::new("/sys/block").join(device.file_name()?);
    let file = std::fs::read_to_string(dir.join("loop/backing_file")).ok()?;
    Some(file.trim_end_matches('\n').to_owned())
}

impl Drop for Loop {
    fn drop(&mut self) {
        take_away("losetup", &["--detach", self.path.to_str().unwrap()]);
        // While somebody else has it open, such as another test that lists all disks, the kernel puts
        // the detaching off; the file would still be in use for whoever asks next.
        for _ in 0..300 {
            if !self.shows_it() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let left = format!("{:?} still shows {}", self.path, self.file);
        eprintln!("CLEAN-UP FAILED: {left}");
        assert!(std::thread::panicking(), "{left}");
    }
}

/// A mounted file system, unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    at: PathBuf,
}

impl Mount {
    /// Mounts `device` on the new folder `at`.
    pub(crate) fn new(device: &Path, at: &Path) -> Mount {
        Mount::with(&[device.to_str().unwrap()], at)
    }

    /// Mounts `device` so that nothing is written to it.
    pub(crate) fn read_only(device: &Path, at: &Path) -> Mount {
        Mount::with_options(device, at, "ro")
    }

    /// Mounts the NTFS volume on `device` by FUSE.
    pub(crate) fn ntfs(device: &Path, at: &Path) -> Mount {
        Mount::with(&["-t", "ntfs-3g", device.to_str().unwrap()], at)
    }

    /// Mounts `device` with `-o options`.
    pub(crate) fn with_options(device: &Path, at: &Path, options: &str) -> Mount {
        Mount::with(&["-o", options, device.to_str().unwrap()], at)
    }

    /// A file system in memory with room for `bytes`.
    pub(crate) fn memory(at: &Path, bytes: u64) -> Mount {
        let room = format!("size={bytes}");
        Mount::with(&["-t", "tmpfs", "-o", &room, "tmpfs"], at)
    }

    fn with(args: &[&str], at: &Path) -> Mount {
        std::fs::create_dir(at).unwrap();
        let args = [args, &[at.to_str().unwrap()]].concat();
        tools::run("mount", &args);
        Mount { at: at.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let args = [self.at.to_str().unwrap()];
        // Another thread of this test program may be starting a program just now: until that has
        // replaced it, the copy of this process holds every file open that was open here.
        for _ in 0..50 {
            let said = tools::try_run("umount", &args);
            if !String::from_utf8_lossy(&said.stderr).contains("busy") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        if is_mounted(&self.at) {
            take_away("umount", &args);
        }
    }
}

fn is_mounted(at: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let at = at.to_str().unwrap();
    mounts.lines().any(|m| m.split(' ').nth(1) == Some(at))
}

/// A swap area in use, given back when dropped.
#[derive(Debug)]
pub(crate) struct Swap {
    device: PathBuf,
}

impl Swap {
    pub(crate) fn on(device: &Path) -> Swap {
        tools::run("mkswap", &["-q", device.to_str().unwrap()]);
        tools::run("swapon", &[device.to_str().unwrap()]);
        Swap {
            device: device.to_owned(),
        }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        take_away("swapoff", &[self.device.to_str().unwrap()]);
    }
}

/// Undoes something; a failure is told, and fails the test unless it is failing already.
fn take_away(tool: &str, args: &[&str]) {
    let output = tools::try_run(tool, args);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        eprintln!("CLEAN-UP FAILED: {tool} {args:?}: {said}");
        assert!(std::thread::panicking(), "{tool} {args:?}: {said}");
    }
}
