//! From the file allocation tables to the map.

use super::super::doubt::{Doubt, ensure};
use super::super::map::MapBuilder;
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::super::{Found, Used};
use super::chains::{Chains, Entry, put_away};
use super::directory;
use super::disk::{self, BOOT_LEN, Boot, Width};
use crate::base::to_usize;

/// How much of each table is held at a time; a table of FAT12 is shorter.
const CHUNK: u64 = 512 << 10;
/// So many entries may differ between the tables: what a few interrupted writes leave.
const A_HANDFUL: usize = 8;
/// Where JFS and HPFS, whose boot sectors have the fields of FAT, have their superblocks, and how
/// those begin.
const OTHER_SUPERBLOCKS: [(u64, [u8; 4]); 2] =
    [(0x8000, *b"JFS1"), (0x2000, [0x49, 0xE8, 0x95, 0xF9])];
/// Bits of the state byte: in use, and a check of the medium is wanted.
const IN_USE: u8 = 1;
const CHECK_WANTED: u8 = 2;

/// What the volume is, if its boot sector is FAT's.
pub(super) fn recognise(volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
    if volume.len() < BOOT_LEN {
        return Ok(None);
    }
    let bytes = volume.read(0, BOOT_LEN)?;
    let raw = Raw::new(&bytes, "boot sector");
    if disk::is_another(&raw)? {
        return Ok(None);
    }
    let claimed = disk::claimed(&raw)?;
    // Old systems did not read the signature, nor write it; then the type has to be there.
    if !disk::is_signed(&raw)? && claimed.is_none() {
        return Ok(None);
    }
    let kind = match Boot::decode(&raw) {
        Ok(boot) => boot.width.kind(),
        Err(Doubt::Stopped(error)) => return Err(Doubt::Stopped(error)),
        // A damaged boot sector that still says what it was.
        Err(Doubt::Unsure(_)) => match claimed {
            Some(kind) => kind,
            None => return Ok(None),
        },
    };
    for (at, magic) in OTHER_SUPERBLOCKS {
        if volume.len() >= at + 4 && volume.read(at, 4)? == magic {
            return Ok(None);
        }
    }
    Ok(Some(Found {
        kind: kind.to_owned(),
        label: disk::label(&raw, kind == Width::ThirtyTwo.kind())?,
    }))
}

/// What is in use.
pub(super) fn used(volume: &Volume<'_>) -> Result<Used, Doubt> {
    let bytes = volume.read(0, BOOT_LEN)?;
    let raw = Raw::new(&bytes, "boot sector");
    let boot = Boot::decode(&raw)?;
    volume.must_hold(boot.len, boot.sector)?;
    boot.check()?;
    check_state(&boot)?;
    ensure(
        disk::is_signed(&raw)?,
        || "its boot sector does not end in 55 AA",
    )?;
    check_backup(volume, &boot, &raw)?;
    check_first_entries(volume, &boot)?;
    let mut scan = Scan::new(volume, &boot);
    scan.tables()?;
    check_root(volume, &boot, scan.taken)?;
    scan.finish()
}

/// Both systems that matter set a bit of the boot sector while they use a volume.
pub(super) fn check_state(boot: &Boot) -> Result<(), Doubt> {
    let (at, state) = boot.state;
    ensure(state & IN_USE == 0, || {
        format!(
            "it is marked as in use (byte {at} of its boot sector is {state:#04x}), as Linux and \
             Windows do while it is mounted: unmount it, or run fsck.fat if it was not put away \
             properly"
        )
    })?;
    ensure(state & CHECK_WANTED == 0, || {
        format!(
            "it is marked as in need of a check (byte {at} of its boot sector is {state:#04x}): run \
             fsck.fat or chkdsk"
        )
    })
}

/// FAT32 keeps a copy of its boot sector. One that was never written says nothing.
fn check_backup(volume: &Volume<'_>, boot: &Boot, raw: &Raw<'_>) -> Result<(), Doubt> {
    let Some(at) = boot.backup_at else {
        return Ok(());
    };
    let bytes = volume.read(at, BOOT_LEN)?;
    let copy = Raw::new(&bytes, "copy of the boot sector");
    if !disk::is_signed(&copy)? || copy.le16(11)? == 0 {
        return Ok(());
    }
    ensure(disk::layout(&copy)? == disk::layout(raw)?, || {
        format!(
            "its boot sector and the copy at byte {at} say different things of where its files are: \
             run fsck.fat"
        )
    })
}

/// The first two entries of every table are no clusters: they name the medium and the state.
fn check_first_entries(volume: &Volume<'_>, boot: &Boot) -> Result<(), Doubt> {
    let first = boot.width.mask() & !0xFF | u32::from(boot.media);
    for copy in 0..boot.copies {
        let is_valid = boot.only_copy.is_none_or(|only| only == copy);
        if !is_valid {
            continue;
        }
        let at = table_at(boot, copy);
        let bytes = volume.read(at, 8)?;
        let entry = |n| boot.width.entry(&bytes, n).unwrap_or_default();
        ensure(entry(0) == first, || {
            format!(
                "its file allocation table {copy} at byte {at} begins with {:#x}, not with {first:#x}: \
                 run fsck.fat",
                entry(0)
            )
        })?;
        let (clean, healthy) = put_away(boot.width, entry(1));
        ensure(clean, || {
            format!(
                "it is marked as in use (entry 1 of its file allocation table {copy} is {:#x}): \
                 unmount it, or run fsck.fat if it was not put away properly",
                entry(1)
            )
        })?;
        ensure(healthy, || {
            format!(
                "reading or writing it has failed before (entry 1 of its file allocation table \
                 {copy} is {:#x}): run chkdsk or fsck.fat",
                entry(1)
            )
        })?;
    }
    Ok(())
}

fn check_root(volume: &Volume<'_>, boot: &Boot, taken: u64) -> Result<(), Doubt> {
    if boot.width == Width::ThirtyTwo {
        let root = boot.root_cluster;
        let there = boot.has(root) && !is_free(volume, boot, root)?;
        ensure(there, || {
            format!("its root directory in cluster {root} is free or does not exist: run fsck.fat")
        })?;
    }
    directory::check_root(volume, boot, taken)
}

/// The first byte of table `copy`.
pub(super) fn table_at(boot: &Boot, copy: u8) -> u64 {
    boot.table_at + u64::from(copy) * boot.table_len
}

/// Whether every table calls `cluster`, which is one of the volume's, free.
pub(super) fn is_free(volume: &Volume<'_>, boot: &Boot, cluster: u32) -> Result<bool, Doubt> {
    let bits = u64::from(cluster) * boot.width.bits();
    for copy in 0..boot.copies {
        let bytes = volume.read(table_at(boot, copy) + bits / 8, boot.width.bytes(1))?;
        // An odd entry of 12 bits begins in the middle of a byte.
        let entry = match (boot.width, bits % 8) {
            (Width::Twelve, 4) => {
                let raw = Raw::new(&bytes, "file allocation table");
                u32::from(raw.le16(0)? >> 4)
            }
            (width, _) => width.entry(&bytes, 0).unwrap_or(u32::MAX),
        };
        if entry != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// All tables side by side, cluster by cluster.
struct Scan<'a> {
    volume: &'a Volume<'a>,
    boot: &'a Boot,
    map: MapBuilder,
    chains: Chains,
    /// The first of the free clusters before the one that is looked at.
    free_from: Option<u64>,
    bad: u64,
    /// Clusters in use, but for bad ones.
    taken: u64,
    /// Clusters of which the tables say different things.
    differing: usize,
    /// Where those go on in tables that are not followed.
    led_to: Vec<u32>,
}

impl<'a> Scan<'a> {
    fn new(volume: &'a Volume<'a>, boot: &'a Boot) -> Scan<'a> {
        // The largest unit of which both the first cluster and the clusters' length are multiples.
        let unit = boot.cluster.min(1 << boot.data_at.trailing_zeros());
        let mut map = MapBuilder::new(volume.len(), unit);
        map.keep(0..boot.data_at);
        Scan {
            volume,
            boot,
            map,
            chains: Chains::new(boot),
            free_from: None,
            bad: 0,
            taken: 0,
            differing: 0,
            led_to: Vec::new(),
        }
    }

    fn tables(&mut self) -> Result<(), Doubt> {
        let boot = self.boot;
        let needed = boot.width.bytes(boot.clusters + 2);
        let followed = usize::from(boot.only_copy.unwrap_or(0));
        let mut tables = vec![vec![0; to_usize(needed.min(CHUNK))]; usize::from(boot.copies)];
        for at in (0..needed).step_by(to_usize(CHUNK)) {
            let len = to_usize(CHUNK.min(needed - at));
            for (copy, table) in (0..boot.copies).zip(&mut tables) {
                table.truncate(len);
                self.volume.read_into(table_at(boot, copy) + at, table)?;
            }
            // Entries of 12 bits are never cut: their table is one chunk.
            let first = at * 8 / boot.width.bits();
            let end = (first + CHUNK * 8 / boot.width.bits()).min(boot.clusters + 2);
            tables.swap(0, followed);
            self.chunk(&tables, first, end)?;
            tables.swap(0, followed);
        }
        self.end_of_free(boot.clusters + 2);
        Ok(())
    }

    /// Entries `first..end`, the first of each of `tables` being `first`; the first table is followed.
    fn chunk(&mut self, tables: &[Vec<u8>], first: u64, end: u64) -> Result<(), Doubt> {
        let Some((followed, others)) = tables.split_first() else {
            return Ok(());
        };
        let same = others.iter().all(|other| other == followed);
        let width = self.boot.width;
        let cut_off = || Doubt::new("its file allocation table is cut off");
        for cluster in first.max(2)..end {
            let index = to_usize(cluster - first);
            let value = width.entry(followed, index).ok_or_else(cut_off)?;
            let mut is_free = value == 0;
            if !same {
                for other in others {
                    let other = width.entry(other, index).ok_or_else(cut_off)?;
                    is_free &= other == 0;
                    if other != value {
                        self.differs(cluster, other)?;
                    }
                }
            }
            self.cluster(cluster, value, is_free)?;
        }
        Ok(())
    }

    fn differs(&mut self, cluster: u64, other: u32) -> Result<(), Doubt> {
        if self.boot.only_copy.is_some() {
            return Ok(());
        }
        self.differing += 1;
        ensure(self.differing <= A_HANDFUL, || {
            format!(
                "its file allocation tables differ in more than {A_HANDFUL} entries, by cluster \
                 {cluster}: run fsck.fat"
            )
        })?;
        if let Entry::Next(next) = Entry::of(self.boot, cluster, other)? {
            self.led_to.push(next);
        }
        Ok(())
    }

    fn cluster(&mut self, cluster: u64, value: u32, is_free: bool) -> Result<(), Doubt> {
        if is_free {
            self.free_from.get_or_insert(cluster);
            return self.chains.free(cluster);
        }
        self.end_of_free(cluster);
        match Entry::of(self.boot, cluster, value)? {
            Entry::Bad => self.bad += 1,
            Entry::Next(next) => {
                self.taken += 1;
                self.chains.next(cluster, next)?;
            }
            Entry::Free | Entry::End => self.taken += 1,
        }
        Ok(())
    }

    /// The free clusters before `cluster`, if any, end there.
    fn end_of_free(&mut self, cluster: u64) {
        if let Some(from) = self.free_from.take() {
            let boot = self.boot;
            self.map
                .free(boot.cluster_at(from)..boot.cluster_at(cluster));
        }
    }

    fn finish(self) -> Result<Used, Doubt> {
        for cluster in &self.led_to {
            ensure(!is_free(self.volume, self.boot, *cluster)?, || {
                format!(
                    "one of its file allocation tables leads to cluster {cluster}, which is free: \
                     run fsck.fat"
                )
            })?;
        }
        let mut used = Used::mapped(self.map);
        if self.bad > 0 {
            used.notes.push(format!(
                "{} of its clusters are marked as bad and count as in use",
                self.bad
            ));
        }
        if self.differing > 0 {
            used.notes.push(format!(
                "its file allocation tables differ in {} entries: what any of them calls used counts \
                 as in use; run fsck.fat",
                self.differing
            ));
        }
        if let Some(only) = self.boot.only_copy {
            used.notes.push(format!(
                "only its file allocation table {only} is kept up to date; what any of them calls \
                 used counts as in use"
            ));
        }
        Ok(used)
    }
}
