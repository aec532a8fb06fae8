//! `/proc/<pid>/mountinfo`: what is mounted where, as the kernel writes it
//! (Documentation/filesystems/proc.rst, section 3.5).

use super::node::DevNum;
use super::text::{as_path, clean_bytes, unescape_octal};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// One mount of one mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The kernel's number of the mount.
    pub id: u64,
    /// `st_dev` of files on it; the major number is 0 where no single device lies below.
    pub dev: DevNum,
    /// What of the file system is mounted: not `/` for a bind mount of a folder or file.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Whether nothing can be written through this mount.
    pub mount_read_only: bool,
    /// Whether the file system itself is read-only, through whatever mount.
    pub read_only: bool,
    /// Its type ("ext4", "fuseblk", "overlay").
    pub fs_type: String,
    /// What was mounted: a device path, or anything.
    pub source: PathBuf,
    /// The file system's own options, each `name` or `name=value`.
    pub options: Vec<Vec<u8>>,
    /// The block devices that it lies on; empty until `places` has found them.
    pub devices: BTreeSet<DevNum>,
}

impl Mount {
    /// The value of an option of the file system. The first, when it is there more than once.
    pub(super) fn option(&self, name: &str) -> Option<&[u8]> {
        self.options
            .iter()
            .find_map(|option| option.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// The folders that an overlay is made of.
    pub(super) fn overlay_folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for option in &self.options {
            let Some(at) = option.iter().position(|b| *b == b'=') else {
                continue;
            };
            let (name, value) = option.split_at(at);
            let value = value.get(1..).unwrap_or_default();
            match name {
                // One folder each (Linux 6.5 and later show them so).
                b"lowerdir+" | b"datadir+" | b"upperdir" | b"workdir" => {
                    folders.push(as_path(&unbackslash(value)).to_owned());
                }
                b"lowerdir" => folders.extend(split_lower(value)),
                _ => {}
            }
        }
        folders
    }
}

/// Splits `lowerdir=` at colons; a backslash makes a colon part of a name.
fn split_lower(value: &[u8]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, byte) in value.iter().enumerate() {
        if *byte == b':' && !escaped {
            folders.extend(value.get(start..at));
            start = at + 1;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    folders.extend(value.get(start..));
    folders
        .into_iter()
        // `a::b` separates lower folders from data-only ones.
        .filter(|folder| !folder.is_empty())
        .map(|folder| as_path(&unbackslash(folder)).to_owned())
        .collect()
}

fn unbackslash(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut escaped = false;
    for byte in bytes {
        escaped = *byte == b'\\' && !escaped;
        if !escaped {
            out.push(*byte);
        }
    }
    out
}

/// Reads a whole table. The error is the number of the first line that makes no sense, from 1.
pub(super) fn parse(table: &[u8]) -> Result<Vec<Mount>, usize> {
    let mut mounts = Vec::new();
    for (index, line) in table.split(|b| *b == b'\n').enumerate() {
        if !line.is_empty() {
            mounts.push(parse_line(line).ok_or(index + 1)?);
        }
    }
    Ok(mounts)
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    // Six fields, any number of optional ones, a lone dash, three more.
    let dash = fields.iter().skip(6).position(|f| *f == b"-")? + 6;
    let number = |at: usize| std::str::from_utf8(fields.get(at)?).ok()?.parse().ok();
    let path = |at: usize| Some(as_path(&unescape_octal(fields.get(at)?)).to_owned());
    // Commas of values are escaped, so the options are split first.
    let options = |at: usize| {
        let options = fields.get(at)?.split(|b| *b == b',');
        Some(options.map(unescape_octal).collect::<Vec<_>>())
    };
    let says_ro = |options: &[Vec<u8>]| options.iter().any(|o| o == b"ro");
    let super_options = options(dash + 3)?;
    Some(Mount {
        id: number(0)?,
        dev: DevNum::parse(std::str::from_utf8(fields.get(2)?).ok()?)?,
        root: path(3)?,
        point: path(4)?,
        mount_read_only: says_ro(&options(5)?),
        read_only: says_ro(&super_options),
        fs_type: clean_bytes(fields.get(dash + 1)?).unwrap_or_default(),
        source: path(dash + 2)?,
        options: super_options,
        devices: BTreeSet::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn a_line_of_the_kernel_documentation() {
        let line = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root ro,errors=continue\n";
        let mounts = parse(line).unwrap();
        let mount = &mounts[0];
        assert_eq!(
            (mount.id, mount.dev),
            (
                36,
                DevNum {
                    major: 98,
                    minor: 0
                }
            )
        );
        assert_eq!(mount.root, Path::new("/mnt1"));
        assert_eq!(mount.point, Path::new("/mnt 2"));
        assert_eq!(mount.fs_type, "ext3");
        assert!(mount.read_only && !mount.mount_read_only);
        assert_eq!(mount.option("errors"), Some(&b"continue"[..]));
    }

    #[test]
    fn overlays_name_their_folders() {
        let line = br"50 1 0:40 / / rw - overlay overlay rw,lowerdir=/a\134:b:/c\054d::/d,upperdir=/cow/up,lowerdir+=/e:f,workdir=/cow/w";
        let folders = parse(line).unwrap()[0].overlay_folders();
        let folders: Vec<_> = folders.iter().map(|f| f.to_str().unwrap()).collect();
        assert_eq!(folders, ["/a:b", "/c,d", "/d", "/cow/up", "/e:f", "/cow/w"]);
    }

    #[test]
    fn a_line_without_sense_is_told() {
        let table = b"22 27 0:21 / /proc rw - proc proc rw\n22 27 x / /y rw - ext4 /dev/sda rw\n";
        assert_eq!(parse(table), Err(2));
        assert_eq!(parse(b"1 2 3:4 / / rw ext4 /dev/sda rw"), Err(1));
    }

    proptest! {
        #[test]
        fn any_table_is_survived(table: Vec<u8>) {
            if let Ok(mounts) = parse(&table) {
                for mount in mounts {
                    mount.overlay_folders();
                }
            }
        }
    }
}
