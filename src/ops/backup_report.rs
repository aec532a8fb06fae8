//! What a backup tells of itself.

use super::ImageRecord;
use super::encryption::KeyRecord;
use super::rescue::{RescuePass, missing_in_words};
use super::take::Fallback;
use crate::block::Missing;
use crate::image::{BlockCounts, ByteRange, PartitionInfo, SourceInfo};
use serde::Serialize;

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackupReport {
    /// The new image.
    pub image: ImageRecord,
    /// Why it is full, incremental or differential.
    pub reason: String,
    /// Blocks of the disk by state.
    pub blocks: BlockCounts,
    /// Of these, the ones that differ from the parent; all of a full image.
    pub changed: BlockCounts,
    /// The disk.
    pub source: SourceInfo,
    /// Bytes read from it.
    pub read_bytes: u64,
    /// Length of the image file.
    pub stored_bytes: u64,
    /// Bytes of each part of it; absent when it is not cut.
    pub part_bytes: Option<u64>,
    /// The keys that open it; absent when it is not encrypted.
    pub keys: Option<Vec<KeyRecord>>,
    /// Bytes of it that an interrupted run had stored; 0 when it was begun anew.
    pub continued_bytes: u64,
    /// Bytes whose content older images have lost, and which this one does not take from them.
    pub healed_bytes: u64,
    /// What could not be read.
    pub unreadable: Vec<ByteRange>,
    /// Of this, what was passed over among bad sectors and not tried one by one.
    pub untried: Vec<ByteRange>,
    /// What was done about it once the rest was safe. `image` is the last one that was made.
    pub rescue: Vec<RescuePass>,
    /// What each partition holds and how much of it was taken.
    pub partitions: Vec<PartitionInfo>,
    /// What was taken whole because its used map is not known.
    pub fallbacks: Vec<Fallback>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

impl BackupReport {
    /// The report of an image that lacks what is `missing`.
    pub(super) fn lacking(mut self, missing: &Missing) -> BackupReport {
        self.unreadable = missing.all().into_iter().map(Into::into).collect();
        self.untried = missing.untried.iter().map(|e| (*e).into()).collect();
        self.warnings.extend(missing_in_words(missing));
        self
    }
}
