//! What will be written where. Pure: reads the image, touches nothing.

use crate::base::{
    BlockSize, ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result, normalize, to_usize,
};
use crate::block::{BlockSource, Mapping};
use crate::image::is_zero;
use crate::layout::{self, Layout, Patch};

/// How much at the end of a target is rewritten whatever lies there: old backup tables, RAID and
/// volume signatures live in it.
const TAIL: u64 = 1 << 20;

/// How much at either end of a partition holds no old bytes after a restore, in use or not: Btrfs,
/// RAID, ZFS and the like keep their signatures there.
const EDGE: u64 = 2 << 20;

/// Everything that a restore will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    /// Bytes of the imaged disk that are restored.
    pub source: Extent,
    /// Where on the target the first of them goes.
    pub start: ByteOffset,
    /// Ranges of the target that are erased first and written last, ascending. Where they overlap
    /// restored bytes, they end on block boundaries of the image.
    pub critical: Vec<Extent>,
    /// Bytes that replace restored ones, to make the table fit.
    pub patches: Vec<Patch>,
    /// Ranges of the target, ascending, in which free space is zeroed and not only given back: the
    /// ends of partitions, where a signature left over makes other tools see an array, a volume or a
    /// table that is gone.
    pub edges: Vec<Extent>,
    /// Ranges of the target that become zero instead of what the image holds.
    pub zero: Vec<Extent>,
    /// The target's bytes behind all this, which stay as they are.
    pub untouched: Extent,
    /// What a person should know.
    pub findings: Vec<String>,
}

impl RestorePlan {
    /// The position on the target of a byte of the imaged disk; `None` when it is not restored.
    pub fn on_target(&self, imaged: Extent) -> Option<Extent> {
        let part = imaged.intersect(self.source)?;
        let since = part.start.checked_since(self.source.start)?;
        Extent::new(self.start.checked_add(since)?, part.len)
    }

    /// The bytes of the imaged disk that go to a range of the target.
    pub fn on_image(&self, target: Extent) -> Option<Extent> {
        let all = Extent {
            start: self.start,
            len: self.source.len,
        };
        let part = target.intersect(all)?;
        let since = part.start.checked_since(self.start)?;
        Extent::new(self.source.start.checked_add(since)?, part.len)
    }
}

/// Plans a whole disk onto a target. `imaged` is a view of the imaged disk, `layout` its checked
/// layout, `block_size` the image's.
///
/// # Errors
/// `Refused` when the target is too small, saying what does not fit, or its sectors do not suit;
/// the kinds of `imaged` when that cannot be read.
pub fn plan_disk(
    layout: &Layout,
    imaged: &dyn BlockSource,
    block_size: BlockSize,
    target: Geometry,
) -> Result<RestorePlan> {
    let disk_len = imaged.len();
    let adapted = layout::adapt(layout, imaged, target.len, target.logical_sector)?;
    if target.len < disk_len {
        check_tail(layout, imaged, target.len)?;
    }
    let len = disk_len.min(target.len);
    let mut critical = layout::critical_extents(layout, target.len);
    critical.extend(adapted.patches.iter().map(patch_extent));
    critical.extend(adapted.zero.iter().copied());
    critical.push(tail_of(Extent {
        start: ByteOffset(0),
        len: target.len,
    }));
    let untouched = Extent {
        start: ByteOffset(len.0),
        len: ByteLen(target.len.0 - len.0),
    };
    let mut plan = RestorePlan {
        source: Extent {
            start: ByteOffset(0),
            len,
        },
        start: ByteOffset(0),
        critical: normalize(critical),
        edges: normalize(
            layout
                .partitions
                .iter()
                .flat_map(|p| edges_of(p.extent()))
                .collect(),
        ),
        patches: adapted.patches,
        zero: adapted.zero,
        untouched,
        findings: adapted.findings,
    };
    plan.align(block_size);
    if !untouched.is_empty() {
        plan.findings.push(format!(
            "the target is {} larger than the imaged disk; that space is left to you",
            untouched.len
        ));
    }
    Ok(plan)
}

/// Plans one partition of an imaged disk, `source`, onto `room` bytes of a target.
///
/// # Errors
/// `Refused` when it does not fit.
pub fn plan_partition(source: Extent, block_size: BlockSize, room: Extent) -> Result<RestorePlan> {
    if source.len > room.len {
        return Err(
            Error::new(ErrorKind::Refused, "restore", "the partition").because(format!(
                "it has {} bytes, the place for it only {}",
                source.len.0, room.len.0
            )),
        );
    }
    let target = Extent {
        start: room.start,
        len: source.len,
    };
    let head = Extent {
        start: target.start,
        len: target.len.min(ByteLen(TAIL)),
    };
    let end = target.end();
    let mut plan = RestorePlan {
        source,
        start: room.start,
        critical: normalize(vec![head, tail_of(target)]),
        edges: normalize(edges_of(target).to_vec()),
        patches: Vec::new(),
        zero: Vec::new(),
        untouched: Extent {
            start: end,
            len: ByteLen(room.end().0 - end.0),
        },
        findings: Vec::new(),
    };
    plan.align(block_size);
    if !plan.untouched.is_empty() {
        plan.findings.push(format!(
            "the place is {} larger than the partition; its file system keeps its size",
            plan.untouched.len
        ));
    }
    Ok(plan)
}

impl RestorePlan {
    /// Widens the critical ranges to whole blocks of the image, and takes in the blocks that the
    /// restored range holds only a part of: the rest is then whole blocks, which have digests.
    fn align(&mut self, block_size: BlockSize) {
        let size = block_size.bytes();
        let (start, end) = (self.source.start.0, self.source.end().0);
        let mut wider = self.critical.clone();
        let mut edges = vec![];
        if !start.is_multiple_of(size) {
            edges.push((start, start + 1));
        }
        if !end.is_multiple_of(size) {
            edges.push((end - 1, end));
        }
        edges.extend(
            wider
                .iter()
                .filter_map(|e| self.on_image(*e))
                .map(|e| (e.start.0, e.end().0)),
        );
        for (from, to) in edges {
            let from = ByteOffset(from / size * size);
            let to = ByteOffset(to.div_ceil(size).saturating_mul(size));
            wider.extend(Extent::between(from, to).and_then(|e| self.on_target(e)));
        }
        self.critical = normalize(wider);
    }
}

fn patch_extent(patch: &Patch) -> Extent {
    Extent {
        start: patch.offset,
        len: ByteLen(crate::base::to_u64(patch.bytes.len())),
    }
}

/// The first and last bytes of a partition.
fn edges_of(partition: Extent) -> [Extent; 2] {
    let len = partition.len.min(ByteLen(EDGE));
    [
        Extent {
            start: partition.start,
            len,
        },
        Extent {
            start: ByteOffset(partition.end().0 - len.0),
            len,
        },
    ]
}

fn tail_of(whole: Extent) -> Extent {
    let len = whole.len.min(ByteLen(TAIL));
    Extent {
        start: ByteOffset(whole.end().0 - len.0),
        len,
    }
}

/// Refuses a smaller target unless only zeros and table structures lie behind its end.
fn check_tail(layout: &Layout, imaged: &dyn BlockSource, new_len: ByteLen) -> Result<()> {
    let tables = layout::table_extents(layout);
    let mut at = ByteOffset(new_len.0);
    while at.0 < imaged.len().0 {
        match imaged.mapping(at)? {
            Mapping::Zero(len) => at = ByteOffset(at.0.saturating_add(len.0)),
            Mapping::Data(len) => {
                let count = len.0.min(TAIL);
                let mut bytes = vec![0; to_usize(count)];
                imaged.read_at(at, &mut bytes)?;
                let here = Extent {
                    start: at,
                    len: ByteLen(count),
                };
                for table in tables.iter().filter_map(|t| t.intersect(here)) {
                    let from = to_usize(table.start.0 - at.0);
                    bytes[from..from + to_usize(table.len.0)].fill(0);
                }
                if !is_zero(&bytes) {
                    let nonzero = bytes.iter().position(|b| *b != 0).unwrap_or(0);
                    return Err(data_behind_end(
                        at.0 + crate::base::to_u64(nonzero),
                        new_len,
                    ));
                }
                at = ByteOffset(at.0 + count);
            }
        }
    }
    Ok(())
}

fn data_behind_end(at: u64, new_len: ByteLen) -> Error {
    Error::new(ErrorKind::Refused, "fit", "the image onto the target")
        .because(format!(
            "the imaged disk holds data at byte {at}, behind the target's end at {}",
            new_len.0
        ))
        .hint("choose a larger target, or restore the partitions that fit one by one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(start: u64, len: u64) -> Extent {
        Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        }
    }

    #[test]
    fn a_partition_off_the_block_grid_is_critical_at_its_edges() {
        let size = BlockSize::new(64 << 10).unwrap();
        // Starts at sector 63, as old tools did; ends off the grid too.
        let source = extent(63 * 512, 10 << 20);
        let plan = plan_partition(source, size, extent(1 << 20, 20 << 20)).unwrap();
        for e in &plan.critical {
            let image = plan.on_image(*e).unwrap();
            let aligned = |at: u64| {
                at.is_multiple_of(64 << 10) || at == source.start.0 || at == source.end().0
            };
            assert!(aligned(image.start.0) && aligned(image.end().0), "{image}");
        }
        assert_eq!(plan.critical.first().unwrap().start, ByteOffset(1 << 20));
        assert_eq!(plan.critical.last().unwrap().end(), ByteOffset(11 << 20));
        assert_eq!(plan.untouched, extent(11 << 20, 10 << 20));
        assert_eq!(plan.on_target(extent(0, 63 * 512)), None);
    }

    #[test]
    fn a_partition_too_large_is_refused() {
        let size = BlockSize::new(4096).unwrap();
        let error = plan_partition(extent(0, 4097), size, extent(0, 4096)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
    }

    #[test]
    fn a_small_partition_is_critical_as_a_whole() {
        let size = BlockSize::new(4096).unwrap();
        let plan = plan_partition(extent(8192, 4096), size, extent(0, 4096)).unwrap();
        assert_eq!(plan.critical, vec![extent(0, 4096)]);
    }
}
