//! The first entries of the root directory, as a proof that clusters lie where the boot sector says.
//!
//! FAT has no checksum anywhere. A boot sector with a wrong number may still fit its tables, and
//! then every cluster is looked for in the wrong place; but a subdirectory begins with an entry that
//! names its own cluster.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::disk::{Boot, Width};
use super::walk::is_free;
use crate::base::to_u64;

/// Files and directories that are looked at.
const MOST_LOOKED_AT: usize = 256;
/// Bytes of the root directory that are looked at.
const MOST_READ: u64 = 64 << 10;
/// Bytes of an entry.
pub(super) const ENTRY: usize = 32;
/// The first byte of an entry that was given back.
pub(super) const DELETED: u8 = 0xE5;
/// Attributes.
pub(super) const LABEL: u8 = 0x08;
pub(super) const DIRECTORY: u8 = 0x10;

/// An entry of a directory: a file, or a directory.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    name: String,
    is_directory: bool,
    /// 0 for an empty file.
    cluster: u32,
}

/// Files and directories among `entries`, up to the end of the directory.
fn named(entries: &[u8], width: Width) -> Result<Vec<Named>, Doubt> {
    let mut found = Vec::new();
    for entry in entries.chunks_exact(ENTRY) {
        let raw = Raw::new(entry, "directory");
        let (first, attributes) = (raw.u8(0)?, raw.u8(11)?);
        if first == 0 || found.len() == MOST_LOOKED_AT {
            break;
        }
        // Parts of long names have the bit of a label too.
        if first == DELETED || attributes & LABEL != 0 {
            continue;
        }
        found.push(Named {
            name: raw.slice(0, 11)?.escape_ascii().to_string(),
            is_directory: attributes & DIRECTORY != 0,
            cluster: first_cluster(&raw, width)?,
        });
    }
    Ok(found)
}

/// The first cluster that `entry` names.
pub(super) fn first_cluster(entry: &Raw<'_>, width: Width) -> Result<u32, Doubt> {
    let high = match width {
        Width::ThirtyTwo => u32::from(entry.le16(20)?),
        Width::Twelve | Width::Sixteen => 0,
    };
    Ok(high << 16 | u32::from(entry.le16(26)?))
}

/// Looks at the root directory of a volume whose files and directories have `taken` clusters.
///
/// # Errors
/// A doubt when it leads to clusters that are free, or to directories that are not there.
pub(super) fn check_root(volume: &Volume<'_>, boot: &Boot, taken: u64) -> Result<(), Doubt> {
    let (at, len) = match boot.width {
        Width::ThirtyTwo => (boot.cluster_at(boot.root_cluster.into()), boot.cluster),
        Width::Twelve | Width::Sixteen => (boot.root_at, boot.root_len),
    };
    let entries = volume.read(at, len.min(MOST_READ))?;
    let all = named(&entries, boot.width)?;
    // Two tables show by themselves where they end; behind a single one the directory has to.
    let is_proof = boot.copies > 1 || boot.width == Width::ThirtyTwo;
    ensure(is_proof || taken == 0 || !all.is_empty(), || {
        format!(
            "its root directory at byte {at} is empty, and {taken} of its clusters are in use: run \
             fsck.fat"
        )
    })?;
    all.iter().try_for_each(|entry| check(volume, boot, entry))
}

fn check(volume: &Volume<'_>, boot: &Boot, entry: &Named) -> Result<(), Doubt> {
    let Named { name, cluster, .. } = entry;
    if *cluster == 0 && !entry.is_directory {
        return Ok(());
    }
    let there = boot.has(*cluster) && !is_free(volume, boot, *cluster)?;
    ensure(there, || {
        format!(
            "its root directory says that {name:?} begins in cluster {cluster}, which is free or \
             does not exist: run fsck.fat"
        )
    })?;
    if !entry.is_directory {
        return Ok(());
    }
    let at = boot.cluster_at(u64::from(*cluster));
    let dot = named(&volume.read(at, to_u64(ENTRY))?, boot.width)?;
    let itself = dot.first().is_some_and(|dot| {
        dot.name.trim_end() == "." && dot.is_directory && dot.cluster == *cluster
    });
    ensure(itself, || {
        format!(
            "its directory {name:?} is not in cluster {cluster} at byte {at}: its boot sector or the \
             directory is damaged; run fsck.fat"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_long_names_and_what_is_deleted_are_no_files() {
        let mut entries = vec![0; 7 * ENTRY];
        let mut put = |n: usize, name: &[u8; 11], attributes: u8, cluster: u16, high: u16| {
            let at = n * ENTRY;
            entries[at..at + 11].copy_from_slice(name);
            entries[at + 11] = attributes;
            entries[at + 20..at + 22].copy_from_slice(&high.to_le_bytes());
            entries[at + 26..at + 28].copy_from_slice(&cluster.to_le_bytes());
        };
        put(0, b"VOLUME     ", 0x08, 0, 0);
        put(1, b"Al\0o\0n\0g\0 \0", 0x0F, 0, 0);
        put(2, b"\xE5ELETED TXT", 0x20, 9, 0);
        put(3, b"DIRECTORY  ", 0x10, 5, 1);
        put(4, b"FILE    TXT", 0x20, 7, 0);
        put(6, b"BEHIND     ", 0x20, 8, 0);
        let read = |width| {
            let all = named(&entries, width).unwrap();
            let of = |n: &Named| (n.is_directory, n.cluster);
            all.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(read(Width::ThirtyTwo), [(true, 0x10005), (false, 7)]);
        assert_eq!(read(Width::Sixteen), [(true, 5), (false, 7)]);
    }
}
