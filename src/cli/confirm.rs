//! Asking before a disk is overwritten.

use super::render::clean;
use crate::base::{ByteLen, Error, ErrorKind, Result};
use crate::ops::restore::RestorePreview;
use std::io::{BufRead, IsTerminal, Write};

/// Makes the person type the target's name or serial number. A file that is about to be created
/// needs no question: nothing is lost.
///
/// # Errors
/// `Refused` when something else was typed or nobody is there to ask.
pub(super) fn overwrite(preview: &RestorePreview) -> Result<()> {
    let target = &preview.target;
    if target.created {
        return Ok(());
    }
    let refuse =
        |why: &str| Error::new(ErrorKind::Refused, "overwrite", clean(&target.name)).because(why);
    if !std::io::stdin().is_terminal() {
        return Err(
            refuse("nobody confirmed it and standard input is no terminal")
                .hint("add --yes once `--dry-run` shows the right target"),
        );
    }
    let mut err = std::io::stderr().lock();
    let holds = match target.holds.as_slice() {
        [] => String::new(),
        some => format!(" ({})", clean(&some.join(", "))),
    };
    let question = format!(
        "Everything on {}, {}{holds}, will be overwritten by image {} of {}.\n\
         Type its name or serial number to go on: ",
        clean(&target.name),
        ByteLen(target.bytes),
        clean(&preview.image.file),
        clean(&preview.image.time),
    );
    let asked = err
        .write_all(question.as_bytes())
        .and_then(|()| err.flush());
    let mut answer = String::new();
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    read.map_err(|e| refuse("the question could not be asked").caused_by(e))?;
    let answer = answer.trim();
    if !answer.is_empty() && target.confirmations.iter().any(|c| c.trim() == answer) {
        return Ok(());
    }
    Err(refuse("what was typed is not its name or serial number").hint("nothing was written"))
}
