//! Is every byte of an image what it was when it was written?

use super::Resources;
use super::ordered;
use crate::base::{BlockIndex, ByteLen, Event, Extent, Phase, Result};
use crate::image::{FrameReader, FrameRef, ImageReader, Leaf, Piece};
use std::sync::Arc;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Structure, every table page's digest and every frame's checksum.
    Quick,
    /// Also decode every frame and compare every block with its digest.
    Deep,
}

/// Something wrong, and the bytes of the disk it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Bytes of the disk that cannot be restored; empty when the damage costs none.
    pub extent: Extent,
    /// What is wrong, in words.
    pub what: String,
}

/// Checks all of `image` behind what opening it has checked. An empty answer means that every byte
/// of the file is accounted for and right.
///
/// # Errors
/// `Interrupted` or `Terminated` when cancelled.
pub fn verify(image: &ImageReader, depth: Depth, resources: Resources<'_>) -> Result<Vec<Damage>> {
    let mut damage: Vec<Damage> = image
        .findings()
        .iter()
        .map(|what| Damage {
            extent: Extent::default(),
            what: what.clone(),
        })
        .collect();
    let (phase, bytes) = (Phase::Verify, Some(image.file_len()));
    resources
        .observer
        .event(Event::PhaseStarted { phase, bytes });
    ordered::run(
        resources.threads,
        resources.tickets(image.header().window_len()),
        |emit| {
            image.walk(0..image.header().blocks(), &mut |piece| {
                resources.cancel.check()?;
                match piece {
                    Piece::Uniform { .. } => Ok(()),
                    Piece::Lost {
                        first,
                        count,
                        error,
                    } => {
                        let extent = image.header().extent_of(&(first.0..first.0 + count));
                        emit.ready((
                            vec![Damage {
                                extent,
                                what: error.to_string(),
                            }],
                            0,
                        ))
                    }
                    Piece::Misplaced(error) => {
                        let damage = Damage {
                            extent: Extent::default(),
                            what: error.to_string(),
                        };
                        emit.ready((vec![damage], 0))
                    }
                    Piece::Leaf(leaf) => {
                        let frames = leaf.frames.clone();
                        frames
                            .into_iter()
                            .try_for_each(|frame| emit.job((Arc::clone(&leaf), frame)))
                    }
                }
            })
        },
        || {
            let mut reader = FrameReader::new()?;
            Ok(move |(leaf, frame): (Arc<Leaf>, FrameRef)| {
                Ok((
                    check(image, &leaf, &frame, depth, &mut reader),
                    frame.record_len(),
                ))
            })
        },
        |(found, bytes)| {
            resources.cancel.check()?;
            found.into_iter().for_each(|d| add(&mut damage, d));
            resources.observer.event(Event::Advanced { bytes });
            Ok(())
        },
    )?;
    resources.observer.event(Event::PhaseFinished { phase });
    Ok(damage)
}

/// Neighbouring losses are one loss to a person; the first explanation stands for them.
fn add(damage: &mut Vec<Damage>, new: Damage) {
    match damage.last_mut() {
        Some(last)
            if !new.extent.is_empty()
                && !last.extent.is_empty()
                && last.extent.end() == new.extent.start =>
        {
            last.extent.len = ByteLen(last.extent.len.0 + new.extent.len.0);
        }
        _ => damage.push(new),
    }
}

fn check(
    image: &ImageReader,
    leaf: &Leaf,
    frame: &FrameRef,
    depth: Depth,
    reader: &mut FrameReader,
) -> Vec<Damage> {
    let result = match depth {
        Depth::Quick => reader.check(image, frame).map(|()| Vec::new()),
        Depth::Deep => reader.read(image, leaf, frame),
    };
    let (blocks, what) = match result {
        Ok(wrong) if wrong.is_empty() => return Vec::new(),
        Ok(wrong) => {
            let why = "blocks there do not match their digests";
            (wrong, image.damage_in_frame(frame, why).to_string())
        }
        Err(e) => (
            leaf.blocks_of(frame)
                .into_iter()
                .map(|(block, _, _)| block)
                .collect(),
            e.to_string(),
        ),
    };
    let extent_of = |b: BlockIndex| image.header().extent_of(&(b.0..b.0 + 1));
    let mut damage = Vec::new();
    for block in blocks {
        add(
            &mut damage,
            Damage {
                extent: extent_of(block),
                what: what.clone(),
            },
        );
    }
    damage
}
