//! A store whose images are opened also where their end, their sections or their upper table pages are damaged.

use crate::base::{Error, ErrorKind, RangeRead, Result};
use crate::chain::SUFFIX;
use crate::image::{ImageReader, rebuild};
use crate::store::{FileName, Store};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What was put together anew, and why.
struct Mend {
    file: Arc<dyn RangeRead>,
    /// Why it cannot be opened as it is, where it cannot.
    why: Option<Error>,
}

/// A store to read from. What it has put together stays open: that took going through the whole file.
pub(super) struct Mended {
    inner: Arc<dyn Store>,
    mends: Mutex<BTreeMap<FileName, Mend>>,
    point: OnceLock<FileName>,
}

impl Mended {
    pub(super) fn new(inner: Arc<dyn Store>) -> Mended {
        Mended {
            inner,
            mends: Mutex::default(),
            point: OnceLock::new(),
        }
    }

    /// Puts together what can be of `file`, also where it can be opened as it is. That is for the image that is
    /// restored: others find what they have in an older one by the digests of its pages, and one of a page that
    /// was put together is another.
    pub(super) fn restore(&self, file: &FileName) {
        let _ = self.point.set(file.clone());
    }

    fn mends(&self) -> MutexGuard<'_, BTreeMap<FileName, Mend>> {
        self.mends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a person should know of the files that were put together.
    pub(super) fn notes(&self) -> Vec<String> {
        let mends = self.mends();
        let reasons = mends.values().filter_map(|mend| mend.why.as_ref());
        let note = |why| format!("what is left of a damaged image is used: {why}");
        reasons.map(note).collect()
    }
}

impl Store for Mended {
    crate::pass_on!(inner: caveats, will_reread, name, list, create, overwrite, remove, space, lock, clean_up, file_of, paths_of);

    fn open(&self, name: &FileName) -> Result<Arc<dyn RangeRead>> {
        if let Some(mend) = self.mends().get(name) {
            return Ok(Arc::clone(&mend.file));
        }
        let file = self.inner.open(name)?;
        if !name.as_str().ends_with(SUFFIX) {
            return Ok(file);
        }
        let why = ImageReader::open(Arc::clone(&file)).err();
        let why = why.filter(|e| e.kind() == ErrorKind::Damaged);
        let is_point = self.point.get() == Some(name);
        if why.is_none() && !is_point {
            return Ok(file);
        }
        let Ok(mended) = rebuild(Arc::clone(&file)) else {
            // Whoever opens it is told what is wrong.
            return Ok(file);
        };
        let file = Arc::clone(&mended);
        self.mends().insert(name.clone(), Mend { file, why });
        Ok(mended)
    }
}
