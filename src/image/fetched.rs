//! Frames that are read before they are wanted, and by somebody else.

use super::frame_reader::FrameSource;
use super::leaf::FrameRef;
use super::record::RecordHeader;
use crate::base::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Fetches frames into buffers that are used again and again. Any number of threads may have it.
#[derive(Debug, Default, Clone)]
pub struct FrameFetcher {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl FrameFetcher {
    /// Reads the record of `frame` from `source` and checks that it is that one and whole.
    ///
    /// # Errors
    /// As [`FrameSource::record`].
    pub(super) fn fetch(&self, source: Arc<dyn FrameSource>, frame: &FrameRef) -> Result<Fetched> {
        let mut stored = self.free().pop().unwrap_or_default();
        let record = source.record(frame, &mut stored)?;
        Ok(Fetched {
            source,
            frame: *frame,
            record,
            stored: Mutex::new(Some(stored)),
            fetcher: self.clone(),
        })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The source of a frame that was read already. Whoever asks a second time has it read once more.
pub(super) struct Fetched {
    source: Arc<dyn FrameSource>,
    frame: FrameRef,
    record: RecordHeader,
    /// Until somebody has asked for it.
    stored: Mutex<Option<Vec<u8>>>,
    fetcher: FrameFetcher,
}

impl Fetched {
    fn take(&self) -> Option<Vec<u8>> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.take()
    }
}

impl FrameSource for Fetched {
    fn record(&self, frame: &FrameRef, stored: &mut Vec<u8>) -> Result<RecordHeader> {
        if *frame == self.frame
            && let Some(mut fetched) = self.take()
        {
            std::mem::swap(stored, &mut fetched);
            self.fetcher.free().push(fetched);
            return Ok(self.record);
        }
        self.source.record(frame, stored)
    }

    fn is_cached(&self, _frame: &FrameRef) -> bool {
        true
    }

    fn damage(&self, frame: &FrameRef, why: &str) -> Error {
        self.source.damage(frame, why)
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        if let Some(unread) = self.take() {
            self.fetcher.free().push(unread);
        }
    }
}
