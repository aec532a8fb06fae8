//! Claiming a disk for reading. A source is opened read-only, whatever lies on it; what may change
//! under the reader is told, not forbidden.

use super::identity::DiskIdentity;
use super::inventory::{Inventory, Process};
use super::node::{DevNum, Device, FileId};
use super::openers::Opened;
use super::resolve::Resolved;
use super::text::shown;
use super::uses::Use;
use crate::base::{Error, ErrorKind, Extent, Result};
use crate::block::{BlockSource, CachePolicy, FileSource};
use crate::sys::{self, Lock};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// How quiet a source is while it is read. The texts say what uses it and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing uses it.
    Unmounted,
    /// It is mounted, but only read-only.
    ReadOnlyMounted(Vec<String>),
    /// Something may write to it while it is read: a mount, swap, an upper layer, a program.
    Live(Vec<String>),
}

/// The right to read a source. While it lives, programs that follow udev's locking rule (a shared
/// or exclusive flock on the whole disk, <https://systemd.io/BLOCK_DEVICE_LOCKING/>) do not
/// repartition it, and no other run writes to it.
#[derive(Debug)]
pub struct ReadClaim {
    source: Arc<FileSource>,
    identity: DiskIdentity,
    consistency: Consistency,
    _lock: Option<Lock>,
}

impl ReadClaim {
    /// What is read.
    pub fn source(&self) -> Arc<dyn BlockSource> {
        Arc::clone(&self.source) as Arc<dyn BlockSource>
    }

    /// Which disk it is.
    pub fn identity(&self) -> &DiskIdentity {
        &self.identity
    }

    /// How quiet it was when it was claimed.
    pub fn consistency(&self) -> &Consistency {
        &self.consistency
    }
}

/// Claims what a name led to for reading.
///
/// # Errors
/// `NotFound` for a file that does not exist, `Locked` when another run writes to it, `Refused`
/// when the path now leads to another disk, `Source` when it cannot be opened.
pub fn claim_read(inventory: &Inventory, resolved: &Resolved) -> Result<ReadClaim> {
    let name = resolved.title();
    let (path, lock_path) = match resolved {
        Resolved::Device { device, .. } => {
            let disk = inventory.device(device.whole()).unwrap_or(device);
            (device.path.as_path(), disk.path.as_path())
        }
        Resolved::File { path, .. } => (path.as_path(), path.as_path()),
    };
    let at = inventory.tree.at(path);
    let lock = lock_shared(&inventory.tree.at(lock_path), &name)?;
    let source = FileSource::open(&at, name.as_str(), CachePolicy::Auto)?;
    if let Resolved::Device { device, .. } = resolved {
        check_device(&at, device, &source)?;
    }
    Ok(ReadClaim {
        source: Arc::new(source),
        identity: DiskIdentity::of(inventory, resolved)?,
        consistency: inventory.consistency(resolved)?,
        _lock: lock,
    })
}

/// The lock that keeps others from writing. `None` where it cannot be had for a reason other than
/// a holder (some network file systems): the lock is a courtesy, no proof.
fn lock_shared(path: &Path, name: &str) -> Result<Option<Lock>> {
    let Ok(file) = sys::open_disk(path, sys::Access::Read) else {
        return Ok(None);
    };
    match sys::lock_shared(file) {
        Ok(Some(lock)) => Ok(Some(lock)),
        Ok(None) => Err(Error::new(ErrorKind::Locked, "read", name)
            .because("another program has locked it to write to it")
            .hint("wait until the other program has ended")),
        Err(_) => Ok(None),
    }
}

fn check_device(at: &Path, device: &Device, source: &FileSource) -> Result<()> {
    let number = std::fs::metadata(at).map(|m| DevNum::from_raw(m.rdev()));
    let same_number = number.is_ok_and(|n| n == device.dev);
    if source.is_device() && same_number && source.len() == device.len {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, "read", device.title())
        .because("it is not the disk that was found a moment ago")
        .hint("look at the disks again"))
}

impl Inventory {
    /// How quiet a source is.
    ///
    /// # Errors
    /// `NotFound` for a file that does not exist, `Source` when `/proc` cannot be listed.
    pub fn consistency(&self, resolved: &Resolved) -> Result<Consistency> {
        let (uses, writers) = match resolved {
            Resolved::Device { device, .. } => {
                let mut set = self.above(device.dev);
                set.insert(device.whole());
                (self.uses(device), self.writers(&Opened::Devices(&set))?)
            }
            Resolved::File { path, .. } => {
                let metadata = self.tree.metadata(path).map_err(|e| {
                    Error::new(ErrorKind::NotFound, "read", shown(path)).caused_by(e)
                })?;
                let id = FileId::of(&metadata);
                let shows_it = |d: &&Device| d.loop_file.as_ref().is_some_and(|f| f.id == Some(id));
                let loops = self.devices().iter().filter(shows_it);
                let uses = loops.flat_map(|d| self.uses(d)).collect();
                (uses, self.writers(&Opened::File(id, path))?)
            }
        };
        Ok(judge(&uses, &writers))
    }
}

impl Inventory {
    /// How quiet one part of a source is: a partition that the kernel shows by itself, otherwise the
    /// source as a whole.
    ///
    /// # Errors
    /// As [`Inventory::consistency`].
    pub fn part_consistency(&self, resolved: &Resolved, part: Extent) -> Result<Consistency> {
        if let Resolved::Device { device, .. } = resolved {
            let is_part = |d: &&Device| {
                let facts = d.partition.as_ref();
                facts.is_some_and(|p| p.start == part.start) && d.len == part.len
            };
            if let Some(partition) = self.partitions_of(device.dev).find(is_part) {
                return self.consistency(&Resolved::Device {
                    device: Box::new(partition.clone()),
                    asked: None,
                });
            }
        }
        self.consistency(resolved)
    }
}

fn judge(uses: &[Use], writers: &[Process]) -> Consistency {
    let may_write = uses.iter().filter(|used| used.may_write());
    let mut live: Vec<String> = may_write.map(ToString::to_string).collect();
    live.extend(
        writers
            .iter()
            .map(|p| format!("process {} ({}) has it open for writing", p.pid, p.name)),
    );
    if !live.is_empty() {
        return Consistency::Live(live);
    }
    let mounted = uses.iter().filter(|u| matches!(u, Use::Mounted { .. }));
    let mounted: Vec<String> = mounted.map(ToString::to_string).collect();
    if mounted.is_empty() {
        Consistency::Unmounted
    } else {
        Consistency::ReadOnlyMounted(mounted)
    }
}
