//! Carrying out a plan.

use super::critical::Critical;
use super::plan::RestorePlan;
use super::recent::Recent;
use super::run::Run;
use crate::base::{
    AlignedBuf, BlockMap, ByteLen, Event, Extent, Phase, Result, normalize, outside, subtract,
    to_u64, to_usize,
};
use crate::block::{BlockSource, BlockTarget, fill_unreadable};
use crate::chain::ChainView;
use crate::image::{Ending, ImageStream};
use crate::pipeline::{Extracted, Resources, extract, extract_stream};
use std::io::Read;

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// Bytes written with content.
    pub written: u64,
    /// Bytes made zero.
    pub zeroed: u64,
    /// Bytes given back to the medium as free.
    pub discarded: u64,
    /// Bytes with content that the target held already.
    pub unchanged: u64,
    /// Whether the target was compared block by block before it was written.
    pub compared: bool,
    /// Whether everything was read back and was right.
    pub read_back: bool,
    /// Ranges of the imaged disk that the image does not have; the pattern stands there.
    pub unreadable: Vec<Extent>,
    /// Ranges of the imaged disk that the image has lost; the pattern stands there.
    pub lost: Vec<Extent>,
}

/// What is written of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    /// All of it.
    All,
    /// What the target holds already is found out by reading it, and left alone.
    Differing,
    /// The target is said to hold all but some blocks.
    Known {
        /// The blocks that differ.
        differing: BlockMap,
        /// Others, which are read to see whether that is so. When one of them is not held, everything
        /// is compared.
        sample: BlockMap,
    },
}

/// Writes `view` to `target` as `plan` says. With `read_back`, all of it is then read from the
/// medium and compared before the target is made recognisable.
///
/// # Errors
/// `Damaged` when the image is, `Destination` when the target fails or does not hold what was
/// written, `Interrupted` or `Terminated`. After any of them the target holds no valid table.
pub fn execute(
    view: &ChainView,
    plan: &RestorePlan,
    target: &dyn BlockTarget,
    scope: Scope,
    read_back: bool,
    resources: Resources<'_>,
) -> Result<Restored> {
    write_all(view, plan, target, (scope, &[]), read_back, resources)
}

/// Writes what is left of `view` to `target` as `plan` says. Where bytes are `lost`, which are ascending and
/// apart, the pattern stands afterwards; lost parts of partition tables are taken from the image's copy of them.
///
/// # Errors
/// As [`execute`]; `Damaged` also when more is lost than that.
pub fn execute_salvaging(
    view: &ChainView,
    plan: &RestorePlan,
    target: &dyn BlockTarget,
    lost: &[Extent],
    read_back: bool,
    resources: Resources<'_>,
) -> Result<Restored> {
    write_all(view, plan, target, (Scope::All, lost), read_back, resources)
}

fn write_all(
    view: &ChainView,
    plan: &RestorePlan,
    target: &dyn BlockTarget,
    (scope, lost): (Scope, &[Extent]),
    read_back: bool,
    resources: Resources<'_>,
) -> Result<Restored> {
    let mut critical = Critical::blank(plan);
    let mut mended = Vec::new();
    for imaged in critical.imaged(plan) {
        let mut bytes = AlignedBuf::zeroed(to_usize(imaged.len.0));
        mended.extend(read_critical(view, imaged, lost, &mut bytes)?);
        critical.take(plan, imaged, &bytes);
    }
    critical.finish(plan);
    let mut run = Run::new(view.image().header(), plan, target, resources);
    run.lost = lost;
    let still: Vec<Extent> = lost
        .iter()
        .filter_map(|e| e.intersect(plan.source))
        .collect();
    run.report.lost = subtract(&still, &normalize(mended));
    run.erase_critical()?;
    let only = match scope {
        Scope::All => None,
        Scope::Known { differing, sample }
            if run.differing(view, Some(sample.clone()))?.is_empty() =>
        {
            Some(differing)
        }
        Scope::Known { .. } | Scope::Differing => {
            run.report.compared = true;
            Some(run.differing(view, None)?)
        }
    };
    let (observer, phase) = (resources.observer, Phase::Restore);
    observer.event(run.begun());
    let (only, blocks) = (only.as_ref(), run.blocks());
    let writer = run.writer(only);
    let write = |extracted: &Extracted| writer.early(extracted);
    extract(
        view,
        blocks.clone(),
        only,
        writer.may_use(resources),
        &write,
        |extracted, done| {
            let bytes = run.add(extracted, &writer.late(extracted, done)?);
            observer.event(Event::Advanced { bytes });
            Ok(())
        },
    )?;
    observer.event(Event::PhaseFinished { phase });
    run.sync()?;
    if read_back {
        // What was compared a moment ago need not be read again.
        let again = only.filter(|_| run.report.compared).cloned();
        run.read_back(view, blocks, again, Phase::ReadBack)?;
    }
    run.end(&critical, read_back, view.image().summary())
}

/// Writes the image that comes out of a pipe to `target` as `plan` says, in one pass. With `read_back`,
/// what was written is read from the medium and compared every now and then, while what the image says
/// of it is still at hand. The target is made recognisable when the image has come to its end and was
/// whole.
///
/// # Errors
/// As [`execute`].
pub fn execute_stream<R: Read + Send>(
    stream: &mut ImageStream<R>,
    plan: &RestorePlan,
    target: &dyn BlockTarget,
    read_back: bool,
    resources: Resources<'_>,
) -> Result<(Restored, Ending)> {
    let header = stream.beginning().header.clone();
    let mut critical = Critical::blank(plan);
    let mut run = Run::new(&header, plan, target, resources);
    run.erase_critical()?;
    let mut recent = Recent::new(&header);
    let (observer, phase) = (resources.observer, Phase::Restore);
    observer.event(run.begun());
    let (blocks, writer) = (run.blocks(), run.writer(None));
    let write = |extracted: &Extracted| writer.early(extracted);
    let resources = writer.may_use(resources);
    let ending = extract_stream(stream, blocks, resources, &write, |extracted, done| {
        if let Extracted::Window(window) = extracted {
            critical.take(plan, header.extent_of(&extracted.blocks()), &window.data);
        }
        let bytes = run.add(extracted, &writer.late(extracted, done)?);
        if read_back {
            recent.add(extracted);
            if recent.is_full() {
                run.read_back_recent(&mut recent)?;
            }
        }
        observer.event(Event::Advanced { bytes });
        Ok(())
    })?;
    observer.event(Event::PhaseFinished { phase });
    run.sync()?;
    run.read_back_recent(&mut recent)?;
    critical.finish(plan);
    let report = run.end(&critical, read_back, &ending.summary)?;
    Ok((report, ending))
}

/// Fills `bytes` with the range `imaged` of the disk. What is `lost` comes from the image's copy of the partition
/// tables; where that does not have it, the pattern stands. Returns what it had.
fn read_critical(
    view: &ChainView,
    imaged: Extent,
    lost: &[Extent],
    bytes: &mut [u8],
) -> Result<Vec<Extent>> {
    let place = |part: Extent| {
        let from = to_usize(part.start.0 - imaged.start.0);
        from..from + to_usize(part.len.0)
    };
    for part in outside(imaged, lost) {
        view.read_at(part.start, &mut bytes[place(part)])?;
    }
    let mut mended = Vec::new();
    for gap in lost.iter().filter_map(|e| e.intersect(imaged)) {
        fill_unreadable(&mut bytes[place(gap)], gap.start);
        for (offset, table) in view.image().tables() {
            let whole = Extent::new(*offset, ByteLen(to_u64(table.len())));
            if let Some(part) = whole.and_then(|whole| whole.intersect(gap)) {
                let from = to_usize(part.start.0 - offset.0);
                bytes[place(part)].copy_from_slice(&table[from..from + to_usize(part.len.0)]);
                mended.push(part);
            }
        }
    }
    Ok(mended)
}
