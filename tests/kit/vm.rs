//! A virtual machine with a kernel of its own, for file systems that the running kernel lacks: a
//! Debian kernel and a static busybox in QEMU, without KVM, off again when its script ends.
//!
//! The kernel is looked for in the folder that `STRATA_VM_KERNEL` names, laid out as a package is
//! (`boot/vmlinuz-VERSION`, `lib/modules/VERSION`), then in `target/tmp/vm-kernel`, which is filled
//! from the package archive (`apt-get download`, `dpkg -x`) when it is empty.

use super::privileged::available;
use super::tools;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// No script of the usual tests needs nearly as long, even on a busy machine.
const LIMIT_SECONDS: u32 = 240;
/// Memory of a machine, in MiB.
const MEMORY: u32 = 256;
/// What every machine loads: its disks, and checksums that modules ask for by another name. Kernels
/// may have them built in.
const BASE: [&str; 4] = [
    "virtio_pci",
    "virtio_blk",
    "crc32_generic",
    "crc32c_generic",
];
/// Runs the script. `power_cut` ends the machine at once: what was not synced is lost.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /mnt /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
dmesg -n 1
for module in /modules/*; do insmod $module || echo \"$module cannot be loaded\"; done
echo --begin--
sh -c '
power_cut() { echo b >/proc/sysrq-trigger; sleep 1000; }
. /script' </dev/null 2>&1
status=$?
[ $status = 0 ] || dmesg | tail -n 30
echo --end-- $status
poweroff -f
";

/// Whether virtual machines can run here; where not, this says so, as [`super::privileged`] does.
#[must_use]
pub(crate) fn virtual_machine(what: &str) -> bool {
    let there = present("qemu-system-x86_64", "--version")
        && is_static(Path::new(BUSYBOX))
        && Kernel::find().is_some();
    let needed = "QEMU, a static busybox and a Debian kernel (STRATA_VM_KERNEL, or apt)";
    available(needed, what, there)
}

/// The host's busybox, a static program.
const BUSYBOX: &str = "/bin/busybox";

fn present(name: &str, argument: &str) -> bool {
    let started = tools::tool(name).arg(argument).output();
    started.is_ok_and(|o| o.status.success())
}

/// Whether a program needs no loader: its bytes name none.
fn is_static(program: &Path) -> bool {
    let bytes = fs::read(program).unwrap_or_default();
    let loader = b"/ld-linux";
    let head = &bytes[..bytes.len().min(4096)];
    bytes.starts_with(b"\x7fELF") && !head.windows(loader.len()).any(|w| w == loader)
}

/// How a script ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What it wrote, both streams.
    pub(crate) output: String,
    /// Its exit status; `None` when the machine ended before it.
    pub(crate) status: Option<i32>,
}

impl Outcome {
    /// Fails, showing everything, unless the script ended with `status`; what it wrote.
    #[track_caller]
    pub(crate) fn expect(self, status: Option<i32>) -> String {
        let output = &self.output;
        assert_eq!(self.status, status, "in the virtual machine:\n{output}");
        self.output
    }
}

/// A machine to be.
#[derive(Debug)]
pub(crate) struct Vm {
    modules: Vec<String>,
    disks: Vec<PathBuf>,
    programs: Vec<PathBuf>,
    /// Files at the same paths as here.
    libraries: BTreeSet<PathBuf>,
    memory: u32,
    seconds: u32,
    cache: &'static str,
}

impl Vm {
    pub(crate) fn new() -> Vm {
        Vm {
            modules: Vec::new(),
            disks: Vec::new(),
            programs: Vec::new(),
            libraries: BTreeSet::new(),
            memory: MEMORY,
            seconds: LIMIT_SECONDS,
            cache: "writethrough",
        }
    }

    /// For a long campaign: so much memory, in MiB, so many seconds at most, and disks that are on the
    /// host's files only when the machine has ended.
    pub(crate) fn long(mut self, memory: u32, seconds: u32) -> Vm {
        (self.memory, self.seconds, self.cache) = (memory, seconds, "unsafe");
        self
    }

    /// Loads a module of the kernel, with all that it needs.
    pub(crate) fn module(mut self, name: &str) -> Vm {
        self.modules.push(name.to_owned());
        self
    }

    /// Attaches a file as `/dev/vda`, the next as `/dev/vdb` and so on. What is written to it is on
    /// the host's file when the machine hears that it is.
    pub(crate) fn disk(mut self, file: &Path) -> Vm {
        self.disks.push(file.to_owned());
        self
    }

    /// Brings a static program of the host.
    pub(crate) fn program(mut self, path: &Path) -> Vm {
        assert!(is_static(path), "{} is not static", path.display());
        self.programs.push(path.to_owned());
        self
    }

    /// Brings a program with the libraries that it needs.
    pub(crate) fn program_with_libraries(mut self, path: &Path) -> Vm {
        let needed = tools::run("ldd", &[path]);
        let paths = needed.split_whitespace().filter(|w| w.starts_with('/'));
        self.libraries.extend(paths.map(PathBuf::from));
        self.programs.push(path.to_owned());
        self
    }

    /// Runs `script` in the machine's shell, to the end.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Outcome {
        let kernel = Kernel::find().expect("`virtual_machine` says whether there is a kernel");
        let dir = super::scratch();
        let ram_disk = dir.path().join("initrd");
        fs::write(&ram_disk, self.archive(&kernel, script)).unwrap();
        let mut command = tools::tool("timeout");
        command
            .args(["--foreground", "--kill-after=5"])
            .args([&self.seconds.to_string(), "qemu-system-x86_64"])
            .args(["-accel", "tcg", "-m", &self.memory.to_string()])
            .args([
                "-nodefaults",
                "-nographic",
                "-serial",
                "stdio",
                "-no-reboot",
            ])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&ram_disk)
            .args(["-append", "console=ttyS0 quiet panic=-1"]);
        for disk in &self.disks {
            let disk = disk.to_str().unwrap();
            let drive = format!("file={disk},format=raw,if=virtio,cache={}", self.cache);
            command.args(["-drive", &drive]);
        }
        let output = command.output().expect("start timeout");
        let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let complaint = String::from_utf8_lossy(&output.stderr);
        let Some((_, said)) = said.split_once("--begin--\n") else {
            panic!("the virtual machine did not start: {said}\n{complaint}");
        };
        assert!(
            output.status.success(),
            "the virtual machine: {}\n{said}\n{complaint}",
            output.status
        );
        let end = said.rsplit_once("--end-- ");
        let status = end.and_then(|(_, after)| after.lines().next()?.parse().ok());
        let output = end.map_or(said, |(before, _)| before);
        // What the kernel says on the console, such as on a power cut, is no output of the script.
        let of_kernel = |line: &str| line.starts_with("[ ") && line.contains("] ");
        let lines = output.split_inclusive('\n').filter(|l| !of_kernel(l));
        let output = lines.collect();
        Outcome { output, status }
    }

    /// The machine's first file system.
    fn archive(&self, kernel: &Kernel, script: &str) -> Vec<u8> {
        let mut archive = Archive::default();
        for folder in ["bin", "modules"] {
            archive.add(folder, 0o40755, &[]);
        }
        archive.add("init", 0o100_755, INIT.as_bytes());
        archive.add("script", 0o100_644, script.as_bytes());
        let busybox = PathBuf::from(BUSYBOX);
        for program in self.programs.iter().chain([&busybox]) {
            let name = program.file_name().unwrap().to_str().unwrap();
            let bytes = fs::read(program).unwrap();
            archive.add(&format!("bin/{name}"), 0o100_755, &bytes);
        }
        for folder in self.folders() {
            archive.add(&folder, 0o40755, &[]);
        }
        for library in &self.libraries {
            let name = library.to_str().unwrap().trim_start_matches('/');
            archive.add(name, 0o100_755, &fs::read(library).unwrap());
        }
        for (number, module) in kernel.modules(&self.modules).iter().enumerate() {
            let name = format!("modules/{number:03}.ko");
            archive.add(&name, 0o100_644, module);
        }
        archive.finish()
    }

    /// The folders that libraries lie in, outer ones first.
    fn folders(&self) -> BTreeSet<String> {
        let above = self.libraries.iter().flat_map(|l| l.ancestors().skip(1));
        let names = above.filter_map(|folder| folder.to_str()?.strip_prefix('/'));
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// A kernel and its modules.
struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    fn find() -> Option<Kernel> {
        if let Some(given) = std::env::var_os("STRATA_VM_KERNEL") {
            return Kernel::at(Path::new(&given));
        }
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = cache.join("vm-kernel");
        // Tests are processes of their own: one of them fetches, the others wait.
        let lock = File::create(cache.join("vm-kernel.lock")).ok()?;
        lock.lock().ok()?;
        Kernel::at(&folder).or_else(|| {
            fetch(cache, &folder)?;
            Kernel::at(&folder)
        })
    }

    fn at(folder: &Path) -> Option<Kernel> {
        let boot = fs::read_dir(folder.join("boot")).ok()?;
        let mut names: Vec<String> = boot
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("vmlinuz-"))
            .collect();
        names.sort();
        let name = names.pop()?;
        let modules = folder.join("lib/modules").join(&name["vmlinuz-".len()..]);
        let image = folder.join("boot").join(&name);
        modules.is_dir().then_some(Kernel { image, modules })
    }

    /// The modules called `names` and those they need, in the order in which they load.
    fn modules(&self, names: &[String]) -> Vec<Vec<u8>> {
        let mut files = Vec::new();
        collect(&self.modules.join("kernel"), &mut files);
        let (mut done, mut loaded) = (BTreeSet::new(), Vec::new());
        for name in BASE {
            load(&files, name, &mut done, &mut loaded);
        }
        for name in names {
            let built_in = fs::read_to_string(self.modules.join("modules.builtin"));
            let known = load(&files, name, &mut done, &mut loaded)
                || built_in.is_ok_and(|list| list.contains(&format!("/{name}.ko")));
            assert!(known, "{} has no {name}", self.modules.display());
        }
        loaded
    }
}

/// Adds module `name` behind all that it names as its needs; `false` when there is none.
fn load(
    files: &[PathBuf],
    name: &str,
    done: &mut BTreeSet<String>,
    loaded: &mut Vec<Vec<u8>>,
) -> bool {
    let plain = |text: &str| text.replace('-', "_");
    let name = plain(name);
    let is_it = |path: &&PathBuf| {
        let file = path.file_name().unwrap().to_string_lossy();
        file.split_once(".ko")
            .is_some_and(|(stem, _)| plain(stem) == name)
    };
    let Some(path) = files.iter().find(is_it) else {
        return false;
    };
    if !done.insert(name.clone()) {
        return true;
    }
    let unpack = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => "cat",
    };
    let options: &[&str] = if unpack == "cat" {
        &[]
    } else {
        &["-d", "-c", "-q"]
    };
    let output = tools::tool(unpack)
        .args(options)
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{unpack} {}", path.display());
    for field in output.stdout.split(|b| *b == 0) {
        let Some(needs) = field.strip_prefix(b"depends=") else {
            continue;
        };
        for need in String::from_utf8_lossy(needs).split(',') {
            load(files, need, done, loaded);
        }
    }
    loaded.push(output.stdout);
    true
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// Unpacks the newest kernel package of the archive to `folder`; `None` when there is none to get.
fn fetch(cache: &Path, folder: &Path) -> Option<()> {
    let depends = tools::tool("apt-cache")
        .args(["depends", "--important", "linux-image-amd64"])
        .output()
        .ok()?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = depends.lines().find_map(|line| {
        let name = line.trim().strip_prefix("Depends: ")?;
        name.starts_with("linux-image-").then_some(name)
    })?;
    let work = tempfile::TempDir::with_prefix_in("vm-kernel-", cache).ok()?;
    let download = tools::tool("timeout")
        .args(["300", "apt-get", "-qq", "download", package])
        .current_dir(work.path())
        .output()
        .ok()?;
    let mut files = Vec::new();
    collect(work.path(), &mut files);
    let file = files.pop().filter(|_| download.status.success())?;
    let unpacked = work.path().join("unpacked");
    let unpack = tools::tool("dpkg")
        .arg("-x")
        .arg(file)
        .arg(&unpacked)
        .output();
    let whole = unpack.is_ok_and(|o| o.status.success());
    let _ = fs::remove_dir_all(folder);
    whole.then(|| fs::rename(&unpacked, folder).ok())?
}

/// A cpio archive in the form that the kernel unpacks ("newc").
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn add(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.0.extend_from_slice(b"070701");
        // Node, mode, owner, group, links, time, length, device (2), its own (2), name, checksum.
        let (node, name_len) = (self.0.len(), name.len() + 1);
        let mode = usize::try_from(mode).unwrap();
        let fields = [node, mode, 0, 0, 1, 0, bytes.len(), 0, 0, 0, 0, name_len, 0];
        for field in fields {
            self.0.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self.align();
        self.0.extend_from_slice(bytes);
        self.align();
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.0
    }
}
