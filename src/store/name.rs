//! Names of files in a store.

use crate::base::{Error, ErrorKind, Result, is_unprintable};
use std::fmt;

/// The name of a file in a store: one plain component that is safe to join to a folder, to print
/// and to give to any file system.
///
/// 1 to 255 bytes of UTF-8 without slashes of either kind (a backslash is a separator on SMB
/// shares), control characters and characters that reorder the text around them; the first is no
/// dot, which also keeps the store's own files apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// The most bytes a name can have.
    pub const MAX_LEN: usize = 255;

    /// `name`, checked.
    ///
    /// # Errors
    /// `Usage` when the name breaks a rule of this type.
    pub fn new(name: impl Into<String>) -> Result<FileName> {
        let name = name.into();
        match fault_of(&name) {
            None => Ok(FileName(name)),
            Some(why) => {
                // Escaped and short: the name may be made to fool a terminal.
                let shown: String = name.chars().take(40).collect();
                Err(
                    Error::new(ErrorKind::Usage, "use the file name", format!("{shown:?}"))
                        .because(why),
                )
            }
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn fault_of(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > FileName::MAX_LEN {
        Some("it is longer than 255 bytes")
    } else if name.starts_with('.') {
        Some("it starts with a dot")
    } else if name.contains(['/', '\\']) {
        Some("it has a slash in it")
    } else if name.chars().any(is_unprintable) {
        Some("it has a control character in it")
    } else {
        None
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<std::ffi::OsStr> for FileName {
    fn as_ref(&self) -> &std::ffi::OsStr {
        self.0.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_refused_and_shown_harmlessly() {
        let long = "x".repeat(256);
        let odd = [
            "",
            ".",
            "..",
            ".hidden",
            "/",
            "a/b",
            "../a",
            "/etc/passwd",
            "a\\b",
            "a\0b",
            "a\nb",
            "a\x1b[2Jb",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{202e}b",
            long.as_str(),
        ];
        for name in odd {
            let error = FileName::new(name).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(!error.to_string().chars().any(is_unprintable), "{name:?}");
            assert!(error.to_string().len() < 300);
        }
        for name in [
            "a",
            "disk 1.strata",
            "a..b",
            "-x",
            "zürich-Σ.strata",
            &long[..255],
        ] {
            assert_eq!(FileName::new(name).expect(name).as_str(), name);
        }
    }
}
