//! Permission to write. Only here does a disk or file become a target: every reason against it is
//! looked for first, and what was looked at is compared with what is opened.

use super::identity::DiskIdentity;
use super::inventory::Inventory;
use super::node::{DevNum, Device, FileId};
use super::refusal::{Refusal, refusals, refused};
use super::resolve::Resolved;
use super::text::shown;
use crate::base::{ByteLen, Error, ErrorKind, Result};
use crate::block::{FileTarget, TargetOptions};
use crate::sys::{self, Access, Lock};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often and how long a lock is waited for: udev holds a shared one while it looks at a disk
/// that has just been written.
const LOCK_TRIES: u32 = 30;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// What is going to be written, and what must survive it.
#[derive(Debug, Clone, Default)]
pub struct WriteRequest {
    /// Bytes that must fit. A file that does not exist is created with exactly this length.
    pub needed_len: ByteLen,
    /// The disk that a plan was made for, when there is one.
    pub expected: Option<DiskIdentity>,
    /// The store's folder, image files: neither they nor what they lie on may be written.
    pub keep_away: Vec<PathBuf>,
    /// What is read from at the same time, when it is a disk or file of this machine.
    pub source: Option<Resolved>,
}

/// The right to write to one disk or file. Only [`permit_write`] makes one.
#[derive(Debug)]
pub struct WritePermit {
    name: String,
    path: PathBuf,
    plan: Plan,
}

/// What the permit was given for, to be found again when it is opened.
#[derive(Debug)]
enum Plan {
    Device(Box<DevicePlan>),
    File { id: FileId, needed: ByteLen },
    NewFile { len: ByteLen },
}

#[derive(Debug)]
struct DevicePlan {
    device: Device,
    /// The path that the person gave.
    asked: Option<PathBuf>,
    /// Where the kernel says at which sector a partition begins, and what it said.
    start: Option<(PathBuf, u64)>,
}

/// Every reason not to write to `target`. Changes nothing; what a dry run shows.
///
/// # Errors
/// As [`Inventory::target_facts`].
pub fn write_refusals(
    inventory: &Inventory,
    target: &Resolved,
    request: &WriteRequest,
) -> Result<Vec<Refusal>> {
    Ok(refusals(&inventory.target_facts(target, request)?))
}

/// Permits writing to `target`, or says everything that speaks against it. Changes nothing yet: a
/// file is created by [`WritePermit::into_target`].
///
/// # Errors
/// `Refused` with every reason, one a line; otherwise as [`write_refusals`].
pub fn permit_write(
    inventory: &Inventory,
    target: &Resolved,
    request: &WriteRequest,
) -> Result<WritePermit> {
    let reasons = write_refusals(inventory, target, request)?;
    if !reasons.is_empty() {
        return Err(refused("write to", &target.title(), &reasons));
    }
    let (path, plan) = match target {
        Resolved::Device { device, asked } => {
            (device.path.clone(), device_plan(device, asked.clone()))
        }
        Resolved::File { path, .. } => match inventory.tree.metadata(path) {
            Ok(metadata) => {
                let id = FileId::of(&metadata);
                let needed = request.needed_len;
                (path.clone(), Plan::File { id, needed })
            }
            Err(_) => {
                let len = request.needed_len;
                (path.clone(), Plan::NewFile { len })
            }
        },
    };
    Ok(WritePermit {
        name: target.title(),
        path: inventory.tree.at(path),
        plan,
    })
}

fn device_plan(device: &Device, asked: Option<PathBuf>) -> Plan {
    let start = device.partition.as_ref().map(|partition| {
        // sysfs counts in 512 bytes (Documentation/ABI/stable/sysfs-block).
        let path = format!("/sys/dev/block/{}/start", device.dev);
        (PathBuf::from(path), partition.start.0 / 512)
    });
    Plan::Device(Box::new(DevicePlan {
        device: device.clone(),
        asked,
        start,
    }))
}

impl WritePermit {
    /// What to call the target in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether opening the target creates a file, which the caller may want to remove should the
    /// writing fail.
    pub fn created(&self) -> bool {
        matches!(self.plan, Plan::NewFile { .. })
    }

    /// Opens the target for this process alone and makes sure that it is still what the permit was
    /// given for. The claim and an exclusive flock last as long as the target.
    ///
    /// # Errors
    /// `Refused` when it has become another or somebody has claimed it, `Locked` when another
    /// program holds its lock, `NotFound` when it is gone, `Destination` when it cannot be opened
    /// or created.
    pub fn into_target(self) -> Result<FileTarget> {
        let created = self.created();
        let file = match &self.plan {
            Plan::Device(plan) => self.open_device(plan)?,
            Plan::File { id, needed } => self.open_file(*id, *needed)?,
            Plan::NewFile { len } => self.create(*len)?,
        };
        let options = self.locked(&file).map(|lock| TargetOptions {
            direct: sys::reopen_direct(&file).ok(),
            cached: file,
            lock,
            created,
        });
        let target = options.and_then(|options| FileTarget::new(self.name.as_str(), options));
        if created && target.is_err() {
            // Ours and empty; leaving it would only confuse.
            let _ = fs::remove_file(&self.path);
        }
        target
    }

    fn open_device(&self, plan: &DevicePlan) -> Result<File> {
        let file = sys::open_disk(&self.path, Access::WriteExclusive).map_err(|e| {
            if e.kind() == io::ErrorKind::ResourceBusy {
                return self.refused(Refusal::Claimed);
            }
            self.open_error(e)
        })?;
        let changes = plan.changes(&file).map_err(|e| self.open_error(e))?;
        if changes.is_empty() {
            return Ok(file);
        }
        Err(self.refused(Refusal::NotTheSame { changes }))
    }

    fn open_file(&self, id: FileId, needed: ByteLen) -> Result<File> {
        let file =
            sys::open_disk(&self.path, Access::WriteExclusive).map_err(|e| self.open_error(e))?;
        let metadata = file.metadata().map_err(|e| self.open_error(e))?;
        if !metadata.is_file() || FileId::of(&metadata) != id {
            let changes = vec!["another file has taken its place".to_owned()];
            return Err(self.refused(Refusal::NotTheSame { changes }));
        }
        let has = ByteLen(metadata.len());
        if has < needed {
            return Err(self.refused(Refusal::TooSmall { needed, has }));
        }
        Ok(file)
    }

    fn create(&self, len: ByteLen) -> Result<File> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&self.path).map_err(|e| {
            if e.kind() == io::ErrorKind::AlreadyExists {
                let changes = vec!["a file of this name has appeared".to_owned()];
                return self.refused(Refusal::NotTheSame { changes });
            }
            self.open_error(e)
        })?;
        let sized = file.set_len(len.0).and_then(|()| sync_folder(&self.path));
        sized.map_err(|e| {
            let _ = fs::remove_file(&self.path);
            Error::new(ErrorKind::Destination, "create", &self.name).caused_by(e)
        })?;
        Ok(file)
    }

    /// Takes the exclusive flock. A file system without locks is no reason to stop.
    fn locked(&self, file: &File) -> Result<Option<Lock>> {
        for _ in 0..LOCK_TRIES {
            let duplicate = file.try_clone().map_err(|e| self.open_error(e))?;
            match sys::lock_exclusive(duplicate) {
                Ok(None) => std::thread::sleep(LOCK_PAUSE),
                Ok(lock) => return Ok(lock),
                Err(_) => return Ok(None),
            }
        }
        Err(Error::new(ErrorKind::Locked, "write to", &self.name)
            .because("another program has locked it")
            .hint("wait until the other program has ended"))
    }

    fn refused(&self, reason: Refusal) -> Error {
        refused("write to", &self.name, &[reason])
    }

    fn open_error(&self, e: io::Error) -> Error {
        let kind = match e.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Destination,
        };
        let denied = e.kind() == io::ErrorKind::PermissionDenied;
        let error = Error::new(kind, "open for writing", &self.name).caused_by(e);
        if denied {
            return error.hint("writing to a disk needs root: run the command with sudo");
        }
        error
    }
}

impl DevicePlan {
    /// What is no longer as it was, asked of the open handle where that is possible.
    fn changes(&self, file: &File) -> io::Result<Vec<String>> {
        let metadata = file.metadata()?;
        let number = DevNum::from_raw(metadata.rdev());
        if !metadata.file_type().is_block_device() || number != self.device.dev {
            let path = shown(&self.device.path);
            return Ok(vec![format!("{path} now leads to another device")]);
        }
        let mut changes = Vec::new();
        let has = sys::block_device_len(file)?;
        let had = self.device.len.0;
        if has != had {
            changes.push(format!("its length was {had} bytes, is {has} bytes"));
        }
        // Kernels before 5.15 have no such number.
        let sequence = sys::disk_sequence(file).ok();
        if let (Some(was), Some(is)) = (self.device.diskseq, sequence)
            && was != is
        {
            changes.push(format!("its disk sequence number was {was}, is {is}"));
        }
        if let Some((path, was)) = &self.start {
            let text = fs::read_to_string(path)?;
            if text.trim() != was.to_string() {
                changes.push("it begins at another place of its disk".to_owned());
            }
        }
        if let Some(asked) = &self.asked {
            let now = fs::metadata(asked).map(|m| DevNum::from_raw(m.rdev()));
            if !now.is_ok_and(|now| now == self.device.dev) {
                changes.push(format!("{} now leads elsewhere", shown(asked)));
            }
        }
        Ok(changes)
    }
}

/// Makes a new name durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}
