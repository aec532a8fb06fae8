//! Chunks: where logical addresses lie on the device.

use super::super::doubt::{Doubt, ensure};
use super::disk::{Chunk, Superblock};
use crate::base::to_usize;

/// The most chunks that are held in memory: enough for 128 TiB in chunks of the usual 1 GiB.
const MAX_CHUNKS: usize = 1 << 17;
const RAID0: u64 = 0x8;
const DUP: u64 = 0x20;
const PROFILES: u64 = 0xFF8;
const NAMED_PROFILES: [(u64, &str); 8] = [
    (0x10, "RAID1"),
    (0x40, "RAID10"),
    (0x80, "RAID5"),
    (0x100, "RAID6"),
    (0x200, "RAID1C3"),
    (0x400, "RAID1C4"),
    (0x800, "remapped"),
    (RAID0, "RAID0"),
];

/// A chunk on this device.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// First logical address.
    pub(super) start: u64,
    pub(super) len: u64,
    /// What it holds and how it is spread.
    pub(super) kind: u64,
    /// Where its copies begin on the device.
    copies: [u64; 2],
    count: u8,
}

impl Place {
    /// The first logical address behind it.
    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Where each copy of the logical address `at`, which is inside, lies on the device.
    pub(super) fn copies_of(&self, at: u64) -> impl Iterator<Item = u64> + use<> {
        let inside = at.saturating_sub(self.start);
        let copies = self.copies.into_iter().take(usize::from(self.count));
        copies.map(move |copy| copy.saturating_add(inside))
    }
}

/// All chunks, in the order of their logical addresses.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    places: Vec<Place>,
}

impl Chunks {
    /// Those that the superblock lists.
    pub(super) fn of_system(superblock: &Superblock) -> Result<Chunks, Doubt> {
        let mut listed: Vec<&(u64, Chunk)> = superblock.system_chunks.iter().collect();
        listed.sort_by_key(|(start, _)| *start);
        let mut chunks = Chunks::default();
        for (start, chunk) in listed {
            ensure(chunk.kind & Chunk::SYSTEM != 0, || {
                format!("its superblock lists the chunk at {start}, which is no system chunk")
            })?;
            chunks.add(superblock, *start, chunk)?;
        }
        Ok(chunks)
    }

    /// Adds the next chunk.
    ///
    /// # Errors
    /// A doubt when it is not all on this device, not whole blocks, of an unknown kind, overlaps the
    /// one before, or there are too many.
    pub(super) fn add(
        &mut self,
        superblock: &Superblock,
        start: u64,
        chunk: &Chunk,
    ) -> Result<(), Doubt> {
        ensure(self.places.len() < MAX_CHUNKS, || {
            format!("it has more than {MAX_CHUNKS} chunks")
        })?;
        let device = &superblock.device;
        let block = superblock.block();
        let before = self.places.last().map_or(0, Place::end);
        let whole = start.is_multiple_of(block) && chunk.len.is_multiple_of(block);
        let ends = start.checked_add(chunk.len).is_some();
        ensure(whole && ends && chunk.len > 0 && start >= before, || {
            format!(
                "its chunk at {start}, {} bytes long, overlaps another or is not made of blocks",
                chunk.len
            )
        })?;
        let count = copies(start, chunk)?;
        let mut places = [0; 2];
        for (place, stripe) in places.iter_mut().zip(&chunk.stripes) {
            let end = stripe.at.checked_add(chunk.len);
            ensure(end.is_some_and(|end| end <= device.total_bytes), || {
                format!(
                    "its chunk at {start} lies behind its end, at byte {}",
                    stripe.at
                )
            })?;
            ensure(
                stripe.device == device.id && stripe.uuid == device.uuid,
                || {
                    format!(
                        "its chunk at {start} lies on another device, {}",
                        stripe.device
                    )
                },
            )?;
            ensure(stripe.at.is_multiple_of(block), || {
                format!(
                    "its chunk at {start} begins in the middle of a block, {}",
                    stripe.at
                )
            })?;
            *place = stripe.at;
        }
        self.places.push(Place {
            start,
            len: chunk.len,
            kind: chunk.kind,
            copies: places,
            count,
        });
        Ok(())
    }

    /// The chunk that the logical bytes from `at` lie in, all of them.
    pub(super) fn find(&self, at: u64, len: u64) -> Result<&Place, Doubt> {
        let index = self.places.partition_point(|p| p.end() <= at);
        let place = self.places.get(index);
        let found = place
            .filter(|p| p.start <= at && at.checked_add(len).is_some_and(|end| end <= p.end()));
        found.ok_or_else(|| {
            Doubt::new(format!(
                "{len} bytes at its address {at} are in use, and it has no chunk there"
            ))
        })
    }

    /// All of them.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Where each copy of each chunk lies on the device: first byte, length and the chunk, ascending.
    ///
    /// # Errors
    /// A doubt when two overlap.
    pub(super) fn on_device(&self) -> Result<Vec<(u64, u64, u64)>, Doubt> {
        let mut all: Vec<(u64, u64, u64)> = Vec::new();
        for place in &self.places {
            let copies = place.copies_of(place.start);
            all.extend(copies.map(|at| (at, place.len, place.start)));
        }
        all.sort_unstable();
        for (one, next) in all.iter().zip(all.iter().skip(1)) {
            ensure(one.0.saturating_add(one.1) <= next.0, || {
                format!(
                    "its chunks at {} and {} share byte {} of the device",
                    one.2, next.2, next.0
                )
            })?;
        }
        Ok(all)
    }
}

/// How many copies of all its bytes a chunk has on one device.
fn copies(start: u64, chunk: &Chunk) -> Result<u8, Doubt> {
    let contents = Chunk::DATA | Chunk::SYSTEM | Chunk::METADATA;
    let kind = chunk.kind;
    ensure(
        kind & !(contents | PROFILES) == 0 && kind & contents != 0,
        || format!("its chunk at {start} is of the unknown type {kind:#x}"),
    )?;
    let expected = match kind & PROFILES {
        // Striped over a single device, RAID0 is no different from a plain chunk.
        0 | RAID0 => 1,
        DUP => 2,
        profile => {
            let named = NAMED_PROFILES.iter().find(|(bit, _)| profile & bit != 0);
            let name = named.map_or("unknown", |(_, name)| *name);
            return Err(Doubt::new(format!(
                "its chunk at {start} is spread as {name} ({profile:#x}), which is made for several devices"
            )));
        }
    };
    let found = chunk.stripes.len();
    ensure(found == to_usize(u64::from(expected)), || {
        format!("its chunk at {start} has {found} stripes instead of {expected}")
    })?;
    Ok(expected)
}
