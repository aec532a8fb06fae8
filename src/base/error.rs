//! What went wrong: a kind that decides the exit code, what was being done, to what, why, and what
//! a person can do next.
//!
//! Rules: an error is made where it is understood and passed up unchanged, gaining context but
//! never losing its kind. `Display` prints one line without the hint; frontends print the hint apart.

use std::fmt;
use std::sync::Arc;

/// Shorthand for results with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of a failure. Each has one exit code; `docs/exit-codes.md` is the table for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A defect of this program.
    Internal,
    /// The command line or a value in it makes no sense.
    Usage,
    /// The safety gate said no.
    Refused,
    /// The source cannot be read.
    Source,
    /// The store or the target cannot be written.
    Destination,
    /// An image, its chain or a structure read from outside is damaged or incomplete.
    Damaged,
    /// Wrong password or key.
    WrongKey,
    /// Another run holds the store or the source.
    Locked,
    /// No such image, set, disk or partition.
    NotFound,
    /// Two things that were compared are not the same.
    Differs,
    /// SIGINT or the like: stopped in good order.
    Interrupted,
    /// SIGTERM: stopped in good order.
    Terminated,
}

impl ErrorKind {
    /// The process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Internal => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Refused => 4,
            ErrorKind::Source => 5,
            ErrorKind::Destination => 6,
            ErrorKind::Damaged => 7,
            ErrorKind::WrongKey => 8,
            ErrorKind::Locked => 9,
            ErrorKind::NotFound => 10,
            ErrorKind::Differs => 11,
            ErrorKind::Interrupted => 130,
            ErrorKind::Terminated => 143,
        }
    }

    /// The stable name used in JSON output.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Internal => "internal",
            ErrorKind::Usage => "usage",
            ErrorKind::Refused => "refused",
            ErrorKind::Source => "source",
            ErrorKind::Destination => "destination",
            ErrorKind::Damaged => "damaged",
            ErrorKind::WrongKey => "wrong-key",
            ErrorKind::Locked => "locked",
            ErrorKind::NotFound => "not-found",
            ErrorKind::Differs => "differs",
            ErrorKind::Interrupted => "interrupted",
            ErrorKind::Terminated => "terminated",
        }
    }
}

/// A failure with its whole story. See the module text for the rules.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    operation: String,
    subject: String,
    cause: Option<Cause>,
    hint: Option<String>,
}

#[derive(Debug, Clone)]
enum Cause {
    Text(String),
    Error(Arc<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// An error of `kind` while doing `operation` ("read", "publish") to `subject` ("/dev/sda at 4096").
    pub fn new(kind: ErrorKind, operation: impl Into<String>, subject: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            operation: operation.into(),
            subject: subject.into(),
            cause: None,
            hint: None,
        }))
    }

    /// Adds the reason in words.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Error {
        self.0.cause = Some(Cause::Text(why.into()));
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn caused_by(
        mut self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        self.0.cause = Some(Cause::Error(Arc::from(cause.into())));
        self
    }

    /// Adds what the person can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// The class, which decides the exit code.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether somebody stopped the run: then it says nothing about its subject.
    pub fn is_stop(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Interrupted | ErrorKind::Terminated)
    }

    /// What was being done.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// To what it was being done.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// What to do next, when anything is known to help.
    pub fn next_step(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether the cause is that there was no room, or no more that this user may have.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let kind = self
            .os_error()
            .map(|n| std::io::Error::from_raw_os_error(n).kind());
        matches!(kind, Some(StorageFull | QuotaExceeded))
    }

    /// Whether this process, or this machine, had too many files open: `EMFILE` and `ENFILE`, the same numbers on all
    /// architectures (include/uapi/asm-generic/errno-base.h). What could not be opened may be whole.
    pub fn is_out_of_files(&self) -> bool {
        matches!(self.os_error(), Some(23 | 24))
    }

    /// The operating system's error number, when one is the cause.
    pub fn os_error(&self) -> Option<i32> {
        match &self.0.cause {
            Some(Cause::Error(e)) => e.downcast_ref::<std::io::Error>()?.raw_os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.0.operation, self.0.subject)?;
        match &self.0.cause {
            None => Ok(()),
            Some(Cause::Text(text)) => write!(f, ": {text}"),
            Some(Cause::Error(error)) => write!(f, ": {error}"),
        }
    }
}

/// The cause is part of the one line that `Display` prints, so `source` continues behind it.
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.cause {
            Some(Cause::Error(error)) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_tells_the_story() {
        let error = Error::new(ErrorKind::Source, "read", "/dev/sdz at byte 4096")
            .caused_by(std::io::Error::from_raw_os_error(5))
            .hint("check the cable");
        assert_eq!(
            error.to_string(),
            "cannot read /dev/sdz at byte 4096: Input/output error (os error 5)"
        );
        assert_eq!(error.next_step(), Some("check the cable"));
        assert_eq!(error.os_error(), Some(5));
        assert_eq!(error.kind().exit_code(), 5);
    }
}
