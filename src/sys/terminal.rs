//! Asking at the terminal for what nobody must see.

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use zeroize::Zeroizing;

/// The longest line, in bytes: what the kernel's line discipline takes (`N_TTY_BUF_SIZE`).
const MAX_LINE: usize = 4096;
/// How long is waited before it is asked whether to go on.
const PATIENCE_MS: u16 = 200;

/// Shows what is typed again when it is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> io::Result<Quiet<'a>> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        // The end of the line is shown: the cursor must not stay behind the question.
        quiet.local_flags.insert(LocalFlags::ECHONL);
        // What was typed before the question is no answer to it.
        tcsetattr(terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Quiet { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// Asks `question` at the terminal that controls this process (tty(4)) and reads one line without showing
/// it. `None` when there is no such terminal, the line is not ended, or `go_on` said no meanwhile.
///
/// # Errors
/// As open(2), read(2), termios(3).
pub fn ask_hidden(
    question: &str,
    go_on: &dyn Fn() -> bool,
) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Ok(None);
    };
    let quiet = Quiet::new(&terminal)?;
    (&terminal).write_all(question.as_bytes())?;
    // As long as it can get: growing would leave copies behind.
    let mut line = Zeroizing::new(vec![0; MAX_LINE]);
    let mut len = 0;
    let ended = loop {
        if !go_on() || len == line.len() {
            break false;
        }
        let mut asked = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        match poll(&mut asked, PATIENCE_MS) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        match (&terminal).read(&mut line[len..])? {
            0 => break false,
            count => len += count,
        }
        if line[..len].ends_with(b"\n") {
            len -= 1;
            break true;
        }
    };
    drop(quiet);
    if !ended {
        terminal.write_all(b"\n")?;
        return Ok(None);
    }
    line.truncate(len);
    Ok(Some(line))
}
