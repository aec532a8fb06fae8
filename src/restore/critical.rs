//! What is written last: the bytes that make a target recognisable.

use super::plan::RestorePlan;
use crate::base::{AlignedBuf, ByteLen, Extent, to_u64, to_usize};
use std::ops::Range;

/// The final bytes of every critical range of a plan, ascending.
pub(super) struct Critical(pub(super) Vec<(Extent, AlignedBuf)>);

impl Critical {
    /// Zeros, which stand where nothing is imaged.
    pub(super) fn blank(plan: &RestorePlan) -> Critical {
        let zeros = |e: &Extent| (*e, AlignedBuf::zeroed(to_usize(e.len.0)));
        Critical(plan.critical.iter().map(zeros).collect())
    }

    /// The bytes of the imaged disk that belong there.
    pub(super) fn imaged(&self, plan: &RestorePlan) -> Vec<Extent> {
        let ranges = self.0.iter();
        ranges.filter_map(|(e, _)| plan.on_image(*e)).collect()
    }

    /// Takes what belongs there of `bytes`, which begin at `imaged` of the imaged disk and may be more
    /// than that.
    pub(super) fn take(&mut self, plan: &RestorePlan, imaged: Extent, bytes: &[u8]) {
        for (extent, own) in &mut self.0 {
            let here = plan.on_image(*extent).and_then(|e| e.intersect(imaged));
            let Some((here, place)) = here.and_then(|e| Some((e, plan.on_target(e)?))) else {
                continue;
            };
            let from = to_usize(here.start.0 - imaged.start.0);
            let part = bytes.get(from..from + to_usize(here.len.0));
            if let Some(part) = part {
                own[part_of(*extent, place)].copy_from_slice(part);
            }
        }
    }

    /// Puts the plan's zeros and patches on top.
    pub(super) fn finish(&mut self, plan: &RestorePlan) {
        for (extent, bytes) in &mut self.0 {
            for zero in plan.zero.iter().filter_map(|z| z.intersect(*extent)) {
                bytes[part_of(*extent, zero)].fill(0);
            }
            for patch in &plan.patches {
                let whole = Extent {
                    start: patch.offset,
                    len: ByteLen(to_u64(patch.bytes.len())),
                };
                if let Some(part) = whole.intersect(*extent) {
                    let from = to_usize(part.start.0 - whole.start.0);
                    let content = &patch.bytes[from..from + to_usize(part.len.0)];
                    bytes[part_of(*extent, part)].copy_from_slice(content);
                }
            }
        }
    }
}

/// Where `part`, which lies inside `extent`, stands in its bytes.
fn part_of(extent: Extent, part: Extent) -> Range<usize> {
    let from = to_usize(part.start.0 - extent.start.0);
    from..from + to_usize(part.len.0)
}
