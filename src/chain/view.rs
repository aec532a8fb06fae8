//! An image as a disk.

use crate::base::{
    BlockIndex, ByteLen, ByteOffset, Error, ErrorKind, Extent, Geometry, Result, SectorSize,
    to_u64, to_usize,
};
use crate::block::{BlockSource, Mapping};
use crate::image::{BlockState, FrameReader, FrameRef, ImageReader, Leaf, Piece};
use std::sync::{Arc, Mutex, PoisonError};

/// The disk that an image stands for, readable anywhere. Every block is compared with its digest
/// when it is read; one that does not match is an error, never data.
pub struct ChainView {
    image: Arc<ImageReader>,
    geometry: Geometry,
    /// The leaf used last: neighbours are asked for one after the other.
    leaf: Mutex<Option<Arc<Leaf>>>,
}

/// One block's place in the table.
enum Found {
    Leaf(Arc<Leaf>),
    Uniform { end: u64, state: BlockState },
}

impl ChainView {
    /// The disk of a full image.
    ///
    /// # Errors
    /// `Damaged` when the image builds on another: alone it is not a disk.
    pub fn new(image: Arc<ImageReader>) -> Result<ChainView> {
        if let Some(parent) = image.header().parent {
            return Err(
                Error::new(ErrorKind::Damaged, "read", image.name()).because(format!(
                    "it builds on image {}, which is needed too",
                    parent.id
                )),
            );
        }
        // The sizes are from the image's text; what cannot be a sector is taken for the usual one.
        let source = &image.info().source;
        let sector = |bytes| SectorSize::new(bytes).unwrap_or(SectorSize::S512);
        let geometry = Geometry {
            len: image.header().disk_len,
            logical_sector: sector(source.logical_sector),
            physical_sector: sector(source.physical_sector),
        };
        Ok(ChainView {
            image,
            geometry,
            leaf: Mutex::new(None),
        })
    }

    /// The image behind it.
    pub fn image(&self) -> &Arc<ImageReader> {
        &self.image
    }

    fn find(&self, block: BlockIndex) -> Result<Found> {
        let cached = self
            .leaf
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(leaf) = cached.filter(|leaf| holds(leaf, block)) {
            return Ok(Found::Leaf(leaf));
        }
        let mut found = None;
        self.image.walk(block.0..block.0 + 1, &mut |piece| {
            found = match piece {
                Piece::Leaf(leaf) => Some(Found::Leaf(leaf)),
                Piece::Uniform {
                    first,
                    count,
                    state,
                } => Some(Found::Uniform {
                    end: first.0 + count,
                    state,
                }),
                Piece::Lost { error, .. } => return Err(error),
                Piece::Misplaced(_) => found.take(),
            };
            Ok(())
        })?;
        if let Some(Found::Leaf(leaf)) = &found {
            *self.leaf.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(leaf));
        }
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "find",
                format!("block {} of {}", block.0, self.name()),
            )
        })
    }

    /// Reads from `offset` as much of `buf` as lies in one frame window or one run; returns how much.
    fn read_part(&self, offset: u64, buf: &mut [u8], frames: &mut FrameReader) -> Result<usize> {
        let size = self.image.header().block_size;
        let block = size.index_of(ByteOffset(offset));
        let leaf = match self.find(block)? {
            Found::Uniform { end, .. } => {
                let until = self.image.header().extent_of(&(0..end)).end().0;
                let count = to_usize((until - offset).min(to_u64(buf.len())));
                buf[..count].fill(0);
                return Ok(count);
            }
            Found::Leaf(leaf) => leaf,
        };
        let extent = size.extent_of(block, self.geometry.len);
        let skip = to_usize(offset - extent.start.0);
        let count = (to_usize(extent.len.0) - skip).min(buf.len());
        let Some(frame) = frame_of(&leaf, block) else {
            buf[..count].fill(0);
            return Ok(count);
        };
        let wrong = frames.read(&self.image, &leaf, frame)?;
        let mut done = 0;
        // The frame is decoded: take every block of it that follows.
        for ((block, _, _), bytes) in leaf
            .blocks_of(frame)
            .iter()
            .zip(frames.blocks().chunks(size.as_usize()))
        {
            let start = size.extent_of(*block, self.geometry.len).start.0;
            let at = offset + to_u64(done);
            if start + to_u64(bytes.len()) <= at {
                continue;
            }
            if start > at || done == buf.len() {
                break;
            }
            if wrong.contains(block) {
                return Err(self
                    .image
                    .damage_in_frame(frame, "a block there does not match its digest"));
            }
            let from = to_usize(at - start);
            let part = (bytes.len() - from).min(buf.len() - done);
            buf[done..done + part].copy_from_slice(&bytes[from..from + part]);
            done += part;
        }
        Ok(done)
    }
}

fn holds(leaf: &Leaf, block: BlockIndex) -> bool {
    (leaf.first.0..leaf.first.0 + to_u64(leaf.states.len())).contains(&block.0)
}

fn frame_of(leaf: &Leaf, block: BlockIndex) -> Option<&FrameRef> {
    leaf.frames.iter().find(|f| {
        block
            .0
            .checked_sub(f.first.0)
            .is_some_and(|bit| bit < 64 && f.mask >> bit & 1 == 1)
    })
}

impl BlockSource for ChainView {
    fn name(&self) -> &str {
        self.image.name()
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read_at(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        let wanted = Extent {
            start: offset,
            len: ByteLen(to_u64(buf.len())),
        };
        let whole = Extent {
            start: ByteOffset(0),
            len: self.geometry.len,
        };
        if !whole.contains(wanted) || offset.checked_add(wanted.len).is_none() {
            return Err(Error::new(
                ErrorKind::Internal,
                "read",
                format!("{}, {wanted}", self.name()),
            )
            .because(format!("its disk ends at {}", self.geometry.len.0)));
        }
        let mut frames = FrameReader::new()?;
        let mut done = 0;
        while done < buf.len() {
            done += self.read_part(offset.0 + to_u64(done), &mut buf[done..], &mut frames)?;
        }
        Ok(())
    }

    fn mapping(&self, offset: ByteOffset) -> Result<Mapping> {
        if offset.0 >= self.geometry.len.0 {
            return Err(Error::new(
                ErrorKind::Internal,
                "look at",
                format!("{} at byte {offset}", self.name()),
            )
            .because(format!("its disk ends at {}", self.geometry.len.0)));
        }
        let header = self.image.header();
        let block = header.block_size.index_of(offset);
        let (zero, end) = match self.find(block)? {
            Found::Uniform { end, state } => (!state.is_stored(), end),
            Found::Leaf(leaf) => {
                let at = to_usize(block.0 - leaf.first.0);
                let zero = !leaf.states[at].is_stored();
                let run = leaf.states[at..]
                    .iter()
                    .take_while(|s| s.is_stored() != zero);
                (zero, block.0 + to_u64(run.count()))
            }
        };
        let len = ByteLen(header.extent_of(&(0..end)).end().0 - offset.0);
        Ok(if zero {
            Mapping::Zero(len)
        } else {
            Mapping::Data(len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::contract;
    use crate::image::testing;

    #[test]
    fn an_image_is_a_disk() {
        for len in [20_001, 4096 * 40, 4096 * 2100 + 5] {
            let mut disk = contract::pattern(len);
            let zeros = len / 5 / 4096 * 4096;
            disk[zeros..zeros + len / 4].fill(0);
            let view = ChainView::new(Arc::new(testing::open(testing::image_of(&disk)))).unwrap();
            contract::check_source(&view, &disk);
        }
    }
}
