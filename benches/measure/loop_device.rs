//! A loop device over a new, sparse file.

use super::measure::{Any, text};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Detached, and its file removed, when it is dropped.
pub(crate) struct LoopDevice {
    pub(crate) path: PathBuf,
    file: PathBuf,
}

impl LoopDevice {
    /// Over `file`, which is made, `len` bytes long. Needs root.
    pub(crate) fn new(file: &Path, len: u64) -> Any<LoopDevice> {
        let _ = std::fs::remove_file(file);
        File::create_new(file)?.set_len(len)?;
        let args = ["--find", "--show", text(file)?];
        let output = Command::new("losetup").args(args).output()?;
        let mut device = LoopDevice {
            path: PathBuf::new(),
            file: file.to_owned(),
        };
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        device.path = String::from_utf8(output.stdout)?.trim().into();
        Ok(device)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let detach = Command::new("losetup")
                .arg("--detach")
                .arg(&self.path)
                .status();
            if !detach.is_ok_and(|status| status.success()) {
                eprintln!("{} is left", self.path.display());
            }
        }
        let _ = std::fs::remove_file(&self.file);
    }
}
