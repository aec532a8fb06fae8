//! Which programs have a disk or file open for writing: a virtual machine that runs from a disk
//! need not claim it.

use super::inventory::{Inventory, Process, process, processes};
use super::node::{DevNum, FileId};
use crate::base::Result;
use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// Most open files of one process that are looked at; the kernel's default limit (fs.nr_open).
const MAX_DESCRIPTORS: usize = 1 << 20;

/// Access bits of the octal `flags` in `/proc/<pid>/fdinfo/<fd>` (proc(5)); 0 is `O_RDONLY`.
const ACCESS_MODE: u64 = 0o3;

/// How long a program must hold on to count.
pub(super) const PASSING: Duration = Duration::from_millis(200);

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opened<'a> {
    /// Any of these block devices, under whatever paths.
    Devices(&'a BTreeSet<DevNum>),
    /// A regular file that lies at this path or, moved, at another with the same last name.
    File(FileId, &'a Path),
}

impl Inventory {
    /// The programs that have `what` open for writing; this one not counted. Processes that may not
    /// be looked into are left out, and so are programs that only pass by, as partitioning tools,
    /// udev's rules and losetup do.
    ///
    /// # Errors
    /// `Source` when `/proc` cannot be listed.
    pub(super) fn writers(&self, what: &Opened<'_>) -> Result<Vec<Process>> {
        let found = self.writers_now(what)?;
        if found.is_empty() || !self.tree.is_live() {
            return Ok(found);
        }
        std::thread::sleep(PASSING);
        let still = self.writers_now(what)?;
        Ok(found.into_iter().filter(|p| still.contains(p)).collect())
    }

    fn writers_now(&self, what: &Opened<'_>) -> Result<Vec<Process>> {
        let myself = self.tree.link("/proc/self");
        let mut found = Vec::new();
        for pid in processes(&self.tree)? {
            let is_me = myself.as_deref() == Some(Path::new(&pid.to_string()));
            if !is_me && self.writes(pid, what) {
                found.push(process(&self.tree, pid));
            }
        }
        Ok(found)
    }

    fn writes(&self, pid: u32, what: &Opened<'_>) -> bool {
        let dir = format!("/proc/{pid}");
        let names = self.tree.names(format!("{dir}/fd"), MAX_DESCRIPTORS);
        names.unwrap_or_default().iter().any(|fd| {
            let fd = fd.to_string_lossy();
            let link = format!("{dir}/fd/{fd}");
            if !self.is_it(&link, what) {
                return false;
            }
            match self.tree.bytes(format!("{dir}/fdinfo/{fd}")) {
                Some(info) => opened_for_writing(&info),
                // Closed in between, or its flags may not be seen.
                None => self.is_it(&link, what),
            }
        })
    }

    /// Whether a descriptor's link leads to `what`. Its text is looked at first, since asking for
    /// the inode of a file on a dead network share would hang.
    fn is_it(&self, link: &str, what: &Opened<'_>) -> bool {
        let Some(text) = self.tree.link(link) else {
            return false;
        };
        let worth_asking = match what {
            Opened::Devices(_) => text.starts_with("/dev"),
            Opened::File(_, path) => text.file_name() == path.file_name(),
        };
        if !worth_asking {
            return false;
        }
        let Ok(metadata) = self.tree.metadata(link) else {
            return false;
        };
        match what {
            Opened::Devices(set) => {
                metadata.file_type().is_block_device()
                    && set.contains(&DevNum::from_raw(metadata.rdev()))
            }
            Opened::File(file, _) => *file == FileId::of(&metadata),
        }
    }
}

/// Reads the octal number after `flags:`. Without such a line the worst is assumed.
fn opened_for_writing(info: &[u8]) -> bool {
    let flags = info
        .split(|b| *b == b'\n')
        .find_map(|line| line.strip_prefix(b"flags:"))
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| u64::from_str_radix(digits.trim(), 8).ok());
    flags.is_none_or(|flags| flags & ACCESS_MODE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_octal() {
        assert!(opened_for_writing(
            b"pos:\t0\nflags:\t0100002\nmnt_id:\t29\n"
        ));
        assert!(!opened_for_writing(
            b"pos:\t0\nflags:\t0100000\nmnt_id:\t29\n"
        ));
        assert!(opened_for_writing(b"pos:\t0\nflags:\t02100001\n"));
        assert!(opened_for_writing(b"nothing"));
    }
}
