//! What the tests of the guard ask of it.

use super::{digest, run};
use diskstrata::base::{ByteLen, ByteOffset, ErrorKind, Result};
use diskstrata::block::BlockTarget;
use diskstrata::device::{Inventory, Resolved, WriteRequest, permit_write, resolve};
use std::path::Path;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn inventory() -> Inventory {
    Inventory::read(Path::new("/")).unwrap()
}

pub(crate) fn find(name: &Path) -> (Inventory, Resolved) {
    let inventory = inventory();
    let found = resolve(&inventory, name.to_str().unwrap()).unwrap();
    (inventory, found)
}

/// Asks for `target` and, were it granted, opens it and writes: the bytes would tell.
pub(crate) fn try_write(target: &Path, request: &WriteRequest) -> Result<()> {
    let inventory = inventory();
    let target = resolve(&inventory, target.to_str().unwrap())?;
    let target = permit_write(&inventory, &target, request)?.into_target()?;
    target.write_at(ByteOffset(0), &[0xEE; 4096])?;
    target.flush()
}

/// Asserts that writing is refused for each of `reasons`, and that no byte of `disk` changes.
pub(crate) fn refused(target: &Path, content: &Path, request: &WriteRequest, reasons: &[&str]) {
    run("sync", &[]);
    let before = digest(content);
    let error = try_write(target, request).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Refused, "{text}");
    for reason in reasons {
        let one_line = |line: &str| line.contains(reason);
        assert!(
            text.lines().any(one_line),
            "{reason:?} is not among the reasons: {text}"
        );
    }
    assert_eq!(before, digest(content), "the target has changed: {text}");
}

pub(crate) fn needs(len: u64) -> WriteRequest {
    WriteRequest {
        needed_len: ByteLen(len),
        ..WriteRequest::default()
    }
}
