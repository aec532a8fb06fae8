//! The policy of overwriting, as a function of values: from what is known of a target to every
//! reason not to write to it. There is no switch that waives them all.

use super::inventory::Process;
use super::text::shown;
use super::uses::Use;
use crate::base::{ByteLen, Error, ErrorKind};
use std::fmt;
use std::path::{Path, PathBuf};

/// Why something is no disk at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// A folder.
    Folder,
    /// A character device such as `/dev/null`.
    CharacterDevice,
    /// A pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block device without a medium, or a loop device without a file.
    Empty,
    /// The replay-protected area of an eMMC.
    ProtectedArea,
    /// A block device that sysfs does not show: hidden below another, or gone.
    UnknownDevice,
}

/// How a target and a source are one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// They are the same, perhaps under two names.
    Same,
    /// The target is a partition of the source, or lies on it in another way.
    TargetOnSource,
    /// The source is a partition of the target, or lies on it in another way.
    SourceOnTarget,
}

/// One reason not to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is no disk and no regular file.
    Unfit(Unfit),
    /// Several disks bear the name that was given.
    Ambiguous {
        /// What the name may mean.
        candidates: Vec<String>,
    },
    /// Mounted, swapped to, or held by an upper layer.
    InUse(Use),
    /// The running system lives on it.
    System {
        /// Where the system has it: `/`, `/boot`, `/usr`.
        point: PathBuf,
        /// The device that is mounted there.
        device: String,
    },
    /// The target is a file that a loop device shows as a disk.
    BacksLoop {
        /// The loop device.
        device: String,
    },
    /// The target is a file that is itself in use as swap.
    SwapFile,
    /// The target is a file that is mounted over something.
    MountedFile {
        /// Where.
        point: PathBuf,
    },
    /// Something that must be kept lies on it: the store, an image.
    Holds {
        /// What.
        path: PathBuf,
    },
    /// The target is such a thing, or a file inside of it.
    IsKept {
        /// What.
        path: PathBuf,
    },
    /// The target is what is read from.
    Source {
        /// The source.
        name: String,
        /// How they overlap.
        overlap: Overlap,
    },
    /// Too little room.
    TooSmall {
        /// Bytes that must fit.
        needed: ByteLen,
        /// Bytes there are.
        has: ByteLen,
    },
    /// Nothing can be written to it.
    ReadOnly {
        /// What says so.
        why: String,
    },
    /// Not the disk that the plan was made for.
    NotTheSame {
        /// What differs.
        changes: Vec<String>,
    },
    /// A program or the kernel has claimed it, and nothing above says who.
    Claimed,
    /// Programs have it open for writing.
    OpenForWriting {
        /// Which.
        processes: Vec<Process>,
    },
}

/// Everything known of a target that the policy looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// Set when it is no disk and no regular file.
    pub unfit: Option<Unfit>,
    /// Length in bytes; `None` for a file that will be created.
    pub len: Option<ByteLen>,
    /// Bytes that must fit.
    pub needed: ByteLen,
    /// What says that nothing can be written.
    pub read_only: Option<String>,
    /// Uses of a device, of all that lies on it, and of the disk that a partition is a part of.
    pub uses: Vec<Use>,
    /// Loop devices that show a file target as a disk.
    pub loops: Vec<String>,
    /// Whether a file target is in use as swap.
    pub is_swap_file: bool,
    /// Where a file target is mounted over something.
    pub mounted_file: Vec<PathBuf>,
    /// What must be kept and lies on the target.
    pub holds: Vec<PathBuf>,
    /// What must be kept and is, or contains, a file target.
    pub is_kept: Vec<PathBuf>,
    /// The source of the same operation, when the target overlaps it.
    pub source: Option<(String, Overlap)>,
    /// What differs from the disk that the plan was made for.
    pub changes: Vec<String>,
    /// Whether the kernel says that somebody has claimed a device.
    pub claimed: bool,
    /// Programs that have the target open for writing.
    pub writers: Vec<Process>,
}

/// Every reason not to write, in the order in which a person should read them.
pub fn refusals(facts: &TargetFacts) -> Vec<Refusal> {
    let mut found = Vec::new();
    found.extend(facts.unfit.map(Refusal::Unfit));
    if !facts.changes.is_empty() {
        found.push(Refusal::NotTheSame {
            changes: facts.changes.clone(),
        });
    }
    found.extend(facts.uses.iter().filter_map(system_use));
    found.extend(facts.uses.iter().cloned().map(Refusal::InUse));
    let loops = facts.loops.iter().cloned();
    found.extend(loops.map(|device| Refusal::BacksLoop { device }));
    if facts.is_swap_file {
        found.push(Refusal::SwapFile);
    }
    let points = facts.mounted_file.iter().cloned();
    found.extend(points.map(|point| Refusal::MountedFile { point }));
    let holds = facts.holds.iter().cloned();
    found.extend(holds.map(|path| Refusal::Holds { path }));
    let kept = facts.is_kept.iter().cloned();
    found.extend(kept.map(|path| Refusal::IsKept { path }));
    let source = facts.source.clone();
    found.extend(source.map(|(name, overlap)| Refusal::Source { name, overlap }));
    if let Some(has) = facts.len.filter(|len| *len < facts.needed) {
        let needed = facts.needed;
        found.push(Refusal::TooSmall { needed, has });
    }
    let read_only = facts.read_only.clone();
    found.extend(read_only.map(|why| Refusal::ReadOnly { why }));
    // A mount, swap and an upper layer claim the device too, and say more.
    if facts.claimed && facts.uses.is_empty() {
        found.push(Refusal::Claimed);
    }
    if !facts.writers.is_empty() {
        found.push(Refusal::OpenForWriting {
            processes: facts.writers.clone(),
        });
    }
    found
}

/// Whether a use is the running system's own (the mount points of hier(7) and of the Boot Loader
/// Specification).
fn system_use(used: &Use) -> Option<Refusal> {
    const SYSTEM: [&str; 5] = ["/", "/usr", "/boot", "/boot/efi", "/efi"];
    match used {
        Use::Mounted {
            point,
            device,
            process: None,
            ..
        } if SYSTEM.iter().any(|system| point == Path::new(system)) => Some(Refusal::System {
            point: point.clone(),
            device: device.clone(),
        }),
        _ => None,
    }
}

/// The error that says no to `operation` on `subject`: the one reason, or all of them, one a line.
pub(super) fn refused(operation: &str, subject: &str, reasons: &[Refusal]) -> Error {
    let text = match reasons {
        [only] => only.to_string(),
        several => {
            let mut text = format!("{} reasons speak against it", several.len());
            for reason in several {
                text.push_str("\n- ");
                text.push_str(&reason.to_string());
            }
            text
        }
    };
    let mut advice: Vec<&str> = Vec::new();
    for line in reasons.iter().filter_map(Refusal::advice) {
        if !advice.contains(&line) {
            advice.push(line);
        }
    }
    let error = Error::new(ErrorKind::Refused, operation, subject).because(text);
    if advice.is_empty() {
        return error;
    }
    error.hint(advice.join("; "))
}

impl Refusal {
    /// What a person can do about it, when anything sensible.
    fn advice(&self) -> Option<&'static str> {
        match self {
            Refusal::InUse(Use::Mounted { .. }) => Some("unmount what is mounted (umount)"),
            Refusal::InUse(Use::Swap { .. }) | Refusal::SwapFile => {
                Some("stop swapping to it (swapoff)")
            }
            Refusal::InUse(Use::Held { .. }) => {
                Some("deactivate what holds it (vgchange -an, cryptsetup close, mdadm --stop)")
            }
            Refusal::BacksLoop { .. } => Some("detach the loop device (losetup -d)"),
            Refusal::System { .. } => Some("start from a rescue medium to overwrite this disk"),
            Refusal::Ambiguous { .. } => Some("give the path of the one you mean"),
            Refusal::NotTheSame { .. } => Some("look at the disks again and make a new plan"),
            Refusal::TooSmall { .. } => Some("choose a larger target"),
            Refusal::Claimed | Refusal::OpenForWriting { .. } => {
                Some("end the program that uses it")
            }
            Refusal::Unfit(_) => Some("name a disk or a file that holds one"),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unfit(what) => what.fmt(f),
            Refusal::Ambiguous { candidates } => {
                write!(f, "the name may mean {}", candidates.join(" or "))
            }
            Refusal::InUse(used) => used.fmt(f),
            Refusal::System { point, device } => {
                write!(f, "the running system has its {} on {device}", shown(point))
            }
            Refusal::BacksLoop { device } => {
                write!(f, "loop device {device} shows this file as a disk")
            }
            Refusal::SwapFile => write!(f, "this file is in use as swap"),
            Refusal::MountedFile { point } => {
                write!(f, "this file is mounted at {}", shown(point))
            }
            Refusal::Holds { path } => write!(f, "{} lies on it", shown(path)),
            Refusal::IsKept { path } => write!(f, "it is part of {}", shown(path)),
            Refusal::Source { name, overlap } => match overlap {
                Overlap::Same => write!(f, "it is the source {name} itself"),
                Overlap::TargetOnSource => write!(f, "it is a part of the source {name}"),
                Overlap::SourceOnTarget => write!(f, "the source {name} lies on it"),
            },
            Refusal::TooSmall { needed, has } => write!(
                f,
                "it is too small: {} bytes are needed, it has {}",
                needed.0, has.0
            ),
            Refusal::ReadOnly { why } => write!(f, "it is read-only: {why}"),
            Refusal::NotTheSame { changes } => {
                write!(
                    f,
                    "it is not the disk that was chosen: {}",
                    changes.join(", ")
                )
            }
            Refusal::Claimed => write!(f, "another program has claimed it for itself"),
            Refusal::OpenForWriting { processes } => {
                let names = processes.iter().map(|p| format!("{} ({})", p.pid, p.name));
                let names: Vec<String> = names.collect();
                write!(f, "it is open for writing in process {}", names.join(", "))
            }
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unfit::Folder => "it is a folder, neither a disk nor a file that holds one",
            Unfit::CharacterDevice => "it is a character device, not a disk",
            Unfit::Fifo => "it is a pipe, not a disk",
            Unfit::Socket => "it is a socket, not a disk",
            Unfit::Empty => "it has no medium: its length is 0",
            Unfit::ProtectedArea => "it is the replay-protected area of an eMMC, not a disk",
            Unfit::UnknownDevice => "it is a block device that the kernel does not list in sysfs",
        })
    }
}
