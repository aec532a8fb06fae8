//! Error numbers that other rooms tell apart.

pub use nix::libc::{
    EILSEQ, EINVAL, EIO, EMFILE, ENFILE, ENODATA, ENODEV, ENOSPC, EPIPE, EREMOTEIO,
};

/// Whether the kernel or the device said that it does not know the call at all.
pub fn is_unsupported(e: &std::io::Error) -> bool {
    use nix::libc::{ENOSYS, ENOTTY, EOPNOTSUPP};
    matches!(
        e.raw_os_error(),
        Some(EOPNOTSUPP | ENOTTY | EINVAL | ENOSYS)
    )
}
