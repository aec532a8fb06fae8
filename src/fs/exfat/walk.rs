//! From the boot region to the map.

use super::super::checksum;
use super::super::doubt::{Doubt, ensure};
use super::super::map::MapBuilder;
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::super::{Found, Used};
use super::directory::{Entries, Walk};
use super::disk::{self, BOOT_LEN, Boot, Kind, Stream};
use super::streams::{Bitmap, Table, bitmap_volume};
use crate::base::{to_u64, to_usize};

/// How much of the bitmap is held at a time.
const CHUNK: u64 = 1 << 20;
/// The largest up-case table: two bytes for each of 65536 characters.
const LARGEST_UP_CASE: u64 = 128 << 10;

/// What the volume is, if its boot sector is exFAT's.
pub(super) fn recognise(volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
    if volume.len() < BOOT_LEN {
        return Ok(None);
    }
    let bytes = volume.read(0, BOOT_LEN)?;
    let raw = Raw::new(&bytes, "boot sector");
    if !disk::is_exfat(&raw)? {
        return Ok(None);
    }
    let label = match label(volume, &raw) {
        Err(Doubt::Stopped(error)) => return Err(Doubt::Stopped(error)),
        // A damaged volume is recognised all the same.
        Err(Doubt::Unsure(_)) => None,
        Ok(label) => label,
    };
    Ok(Some(Found {
        kind: "exFAT".to_owned(),
        label,
    }))
}

/// The label, if its entry is in the first cluster of the root directory, where formatters put it.
fn label(volume: &Volume<'_>, raw: &Raw<'_>) -> Result<Option<String>, Doubt> {
    let boot = Boot::decode(raw)?;
    volume.must_hold(boot.len, boot.sector)?;
    boot.check_layout()?;
    let root = boot.root_cluster;
    let mut entries = Entries::new(volume, &boot, std::iter::once(root..root + 1).collect());
    while let Some((kind, entry)) = entries.next_in_use()? {
        match kind {
            Kind::Label => return disk::label(&Raw::new(&entry, "label")),
            Kind::File { .. } => break,
            _ => {}
        }
    }
    Ok(None)
}

/// What is in use.
pub(super) fn used(volume: &Volume<'_>) -> Result<Used, Doubt> {
    let bytes = volume.read(0, BOOT_LEN)?;
    let boot = Boot::decode(&Raw::new(&bytes, "boot sector"))?;
    let len = boot.region_len();
    disk::check_regions(&boot, &volume.read(0, len)?, &volume.read(len, len)?)?;
    boot.check_state()?;
    volume.must_hold(boot.len, boot.sector)?;
    boot.check_layout()?;

    let mut table = Table::open(volume, &boot)?;
    let tables = Tables::find(volume, &boot, &mut table)?;
    tables.check_up_case(volume, &boot, &mut table)?;
    let bits = bitmap_volume(volume, &boot, &mut table, tables.bitmap)?;
    let walk = Walk::new(volume, &boot, table, Bitmap::new(&bits));
    let claimed = walk.all(&[tables.bitmap, tables.up_case])?;

    let mut free = Free::new(volume, &boot);
    free.all(&bits)?;
    ensure(claimed <= free.set, || {
        format!(
            "its files take {claimed} clusters and its allocation bitmap has {} in use: run fsck.exfat",
            free.set
        )
    })?;
    Ok(Used::mapped(free.map))
}

/// The tables that the root directory names.
struct Tables {
    bitmap: Stream,
    up_case: Stream,
    up_case_sum: u32,
}

impl Tables {
    fn find(volume: &Volume<'_>, boot: &Boot, table: &mut Table<'_>) -> Result<Tables, Doubt> {
        let mut runs = Vec::new();
        table.root(&mut |run| {
            runs.push(run);
            Ok(())
        })?;
        let (mut bitmaps, mut up_cases) = (Vec::new(), Vec::new());
        let mut entries = Entries::new(volume, boot, runs);
        while let Some((kind, _)) = entries.next_in_use()? {
            match kind {
                Kind::Bitmap { second, stream } => bitmaps.push((second, stream)),
                Kind::UpCase { sum, stream } => up_cases.push((sum, stream)),
                _ => {}
            }
            ensure(
                bitmaps.len() <= 1 && up_cases.len() <= 1,
                || "its root directory names more than one allocation bitmap or up-case table",
            )?;
        }
        let ([(false, bitmap)], [(up_case_sum, up_case)]) =
            (bitmaps.as_slice(), up_cases.as_slice())
        else {
            return Err(Doubt::new(
                "its root directory names no allocation bitmap or no up-case table: run fsck.exfat",
            ));
        };
        let needed = u64::from(boot.clusters).div_ceil(8);
        ensure(bitmap.len >= needed, || {
            format!(
                "its allocation bitmap has {} bytes, and {} clusters need {needed}",
                bitmap.len, boot.clusters
            )
        })?;
        Ok(Tables {
            bitmap: *bitmap,
            up_case: *up_case,
            up_case_sum: *up_case_sum,
        })
    }

    /// The up-case table has a checksum: it shows that clusters lie where they are looked for.
    fn check_up_case(
        &self,
        volume: &Volume<'_>,
        boot: &Boot,
        table: &mut Table<'_>,
    ) -> Result<(), Doubt> {
        let mut left = self.up_case.len;
        ensure((1..=LARGEST_UP_CASE).contains(&left), || {
            format!("its up-case table claims to be {left} bytes long")
        })?;
        let mut sum = 0;
        table.runs(self.up_case, &mut |run| {
            let len = boot.cluster_at(run.end) - boot.cluster_at(run.start);
            let bytes = volume.read(boot.cluster_at(run.start), len.min(left))?;
            sum = disk::table_checksum(sum, &bytes);
            left -= to_u64(bytes.len());
            Ok(())
        })?;
        ensure(checksum::matches(sum, self.up_case_sum), || {
            format!(
                "its up-case table has the checksum {sum:#010x} and should have {:#010x}: run fsck.exfat",
                self.up_case_sum
            )
        })
    }
}

/// The map, from the clear bits.
struct Free<'a> {
    boot: &'a Boot,
    map: MapBuilder,
    /// Clusters in use.
    set: u64,
    /// The first of the free clusters before the one that is looked at.
    free_from: Option<u32>,
}

impl<'a> Free<'a> {
    fn new(volume: &Volume<'_>, boot: &'a Boot) -> Free<'a> {
        // The largest unit of which both the first cluster and the clusters' length are multiples.
        let unit = boot.cluster.min(1 << boot.heap_at.trailing_zeros());
        let mut map = MapBuilder::new(volume.len(), unit);
        map.keep(0..boot.heap_at);
        Free {
            boot,
            map,
            set: 0,
            free_from: None,
        }
    }

    fn all(&mut self, bits: &Volume<'_>) -> Result<(), Doubt> {
        let needed = u64::from(self.boot.clusters).div_ceil(8);
        let last = self.boot.clusters + 2;
        let mut cluster = 2u32;
        let mut bytes = vec![0; to_usize(needed.min(CHUNK))];
        for at in (0..needed).step_by(to_usize(CHUNK)) {
            bytes.truncate(to_usize(CHUNK.min(needed - at)));
            bits.read_into(at, &mut bytes)?;
            for byte in &bytes {
                let end = last.min(cluster.saturating_add(8));
                self.byte(*byte, cluster, end);
                cluster = end;
            }
        }
        self.end_of_free(last);
        Ok(())
    }

    /// The bits of `byte` are the clusters `first..end`.
    fn byte(&mut self, byte: u8, first: u32, end: u32) {
        if byte == 0 {
            self.free_from.get_or_insert(first);
            return;
        }
        for cluster in first..end {
            if byte & 1 << (cluster - first) == 0 {
                self.free_from.get_or_insert(cluster);
            } else {
                self.set += 1;
                self.end_of_free(cluster);
            }
        }
    }

    /// The free clusters before `cluster`, if any, end there.
    fn end_of_free(&mut self, cluster: u32) {
        if let Some(from) = self.free_from.take() {
            let boot = self.boot;
            self.map
                .free(boot.cluster_at(from)..boot.cluster_at(cluster));
        }
    }
}
