//! A disk through an image and back, onto a file full of random bytes.

use crate::kit::bytes;
use crate::kit::store::{Store, number, text};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What became of a disk.
#[derive(Debug)]
pub(crate) struct Cycle {
    /// The restored disk.
    pub(crate) restored: PathBuf,
    /// The plan of the backup (`backup --dry-run --json`).
    pub(crate) plan: Value,
}

impl Cycle {
    /// Images `disk` and restores the image onto a file of the same length in `dir` that holds
    /// random bytes.
    #[track_caller]
    pub(crate) fn of(disk: &Path, dir: &Path) -> Cycle {
        Cycle::with(disk, dir, &[])
    }

    /// With more arguments to `backup`.
    #[track_caller]
    pub(crate) fn with(disk: &Path, dir: &Path, options: &[&str]) -> Cycle {
        let name = disk.file_name().unwrap().to_str().unwrap();
        let store = Store::new(dir, &format!("store-of-{name}"));
        let backup = || store.backup(disk).args(options).arg("--json");
        let plan = backup().arg("--dry-run").run().expect(0).json()["plan"].clone();
        backup().run().expect(0);
        let restored = dir.join(format!("restored-{name}"));
        bytes::create_sparse(&restored, bytes::length(disk));
        bytes::write_random(&restored, 0, bytes::length(disk), 0xBAD_B10C);
        store.restore("latest", &restored).run().expect(0);
        store.verify(&["latest", "--deep"]).expect(0);
        Cycle { restored, plan }
    }

    /// The only partition, or the disk as a whole.
    #[track_caller]
    pub(crate) fn only(&self) -> Part<'_> {
        let parts = self.plan["partitions"].as_array().unwrap();
        assert_eq!(parts.len(), 1, "{}", self.plan);
        Part(&parts[0])
    }
}

/// One partition in the plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a>(pub(crate) &'a Value);

impl Part<'_> {
    pub(crate) fn kind(&self) -> &str {
        text(self.0, "filesystem")
    }

    pub(crate) fn reason(&self) -> &str {
        text(self.0, "reason")
    }

    pub(crate) fn length(&self) -> u64 {
        number(self.0, "length")
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        number(self.0, "used")
    }

    /// Bytes not in use.
    pub(crate) fn free(&self) -> u64 {
        self.length() - self.used()
    }

    /// Fails unless the map was certain and the format is `kind`.
    #[track_caller]
    pub(crate) fn assert_mapped(&self, kind: &str) {
        assert_eq!(self.kind(), kind, "{}", self.0);
        assert!(!self.reason().starts_with("all of it:"), "{}", self.0);
    }

    /// Fails unless everything is taken for a reason that has `why` in it, and the format is `kind`.
    #[track_caller]
    pub(crate) fn assert_whole(&self, kind: &str, why: &str) {
        assert_eq!(self.kind(), kind, "{}", self.0);
        let reason = self.reason();
        assert!(
            reason.starts_with("all of it:") && reason.contains(why),
            "{}",
            self.0
        );
        assert_eq!(self.used(), self.length());
    }
}
