//! Which machine this is, and which file systems several machines may have mounted at once.

use std::fs::{File, read_to_string};
use std::os::fd::AsRawFd;

/// What tells this machine from others; nothing of it is for anybody else to see.
pub struct Machine {
    /// The name that it was given, its installation's id, and the one that its maker gave it (SMBIOS); each
    /// is empty where it cannot be told.
    pub ids: [String; 3],
    /// Id of the kernel's run, which is another one after every start (random(4)); empty when it cannot be
    /// told.
    pub boot: String,
}

/// This machine.
pub fn machine() -> Machine {
    let read = |path: &str| read_to_string(path).unwrap_or_default().trim().to_owned();
    Machine {
        ids: [
            super::process::hostname(),
            read("/etc/machine-id"),
            read("/sys/class/dmi/id/product_uuid"),
        ],
        boot: read("/proc/sys/kernel/random/boot_id"),
    }
}

/// File systems that other machines may have mounted too, by the number that statfs(2) has for them
/// (linux/magic.h): NFS, the three of SMB, 9P, Ceph, AFS, Lustre, GFS2, OCFS2.
const SHARED: [i64; 10] = [
    0x6969,
    0x517B,
    0xFF53_4D42,
    0xFE53_4D42,
    0x0102_1997,
    0x00C3_6400,
    0x5346_414F,
    0x0BD0_0BD0,
    0x0116_1970,
    0x7461_636F,
];

/// A program serves it (linux/magic.h).
const FUSE: i64 = 0x6573_5546;

/// Whether other machines may have mounted the file system of `file`, too. One that a program serves may be
/// shared unless it lies on a block device.
pub fn may_be_shared(file: &File) -> bool {
    let Ok(found) = nix::sys::statfs::fstatfs(file) else {
        return true;
    };
    #[allow(
        clippy::useless_conversion,
        reason = "32 bits with a sign on some architectures"
    )]
    let kind = i64::from(found.filesystem_type().0) & 0xFFFF_FFFF;
    if kind != FUSE {
        return SHARED.contains(&kind);
    }
    let mounts = read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let id = read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap_or_default();
    let id = id.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    !id.is_some_and(|id| is_on_block_device(&mounts, id.trim()))
}

/// Whether the mount `id` in a mountinfo (proc(5)) is of a program that serves what lies on a block device.
fn is_on_block_device(mounts: &str, id: &str) -> bool {
    let mount = mounts.lines().find(|l| l.split(' ').next() == Some(id));
    let kind = mount.and_then(|l| l.split_once(" - ")?.1.split(' ').next());
    kind.is_some_and(|kind| kind == "fuseblk" || kind.starts_with("fuseblk."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_this_machine_is_not_shared() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!may_be_shared(&File::open(dir.path()).unwrap()));
    }

    #[test]
    fn what_a_program_serves_from_a_block_device_is_told_by_its_kind() {
        let mounts = "\
            30 22 0:40 / /mnt/nas rw shared:1 - fuse.sshfs nas:/x rw\n\
            31 22 8:17 / /mnt/stick rw - fuseblk /dev/sdb1 rw\n";
        assert!(is_on_block_device(mounts, "31"));
        assert!(!is_on_block_device(mounts, "30"));
        assert!(!is_on_block_device(mounts, "3"));
    }

    #[test]
    fn a_machine_has_one_boot_at_a_time() {
        assert_eq!(machine().boot, machine().boot);
    }
}
