//! Runs `strata` and keeps everything that it said.

use super::tools;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No run of these tests needs nearly as long: one that does hangs.
const LIMIT: Duration = Duration::from_secs(600);

/// The command under test.
pub(crate) const STRATA: &str = env!("CARGO_BIN_EXE_strata");

/// A run of `strata` to be: arguments, and what stands on its standard input.
#[derive(Debug, Clone)]
pub(crate) struct Strata {
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    input: Vec<u8>,
}

/// Starts a command line with a verb.
pub(crate) fn strata(verb: &str) -> Strata {
    Strata {
        args: vec![verb.into()],
        env: Vec::new(),
        input: Vec::new(),
    }
}

impl Strata {
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Strata {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Strata {
        self.args
            .extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Strata {
        self.env.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(crate) fn input(mut self, bytes: &[u8]) -> Strata {
        self.input = bytes.to_vec();
        self
    }

    /// The whole command line, as it is started.
    pub(crate) fn command_line(&self) -> Vec<OsString> {
        let mut line = vec![OsString::from(STRATA)];
        line.extend(self.args.iter().cloned());
        line
    }

    fn command(&self, line: &[OsString]) -> Command {
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STRATA_") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").env("RUST_BACKTRACE", "0");
        // What this machine keeps of its own images is none of the tests' business.
        command.env("STRATA_STATE", "/proc/none/of/this/machine");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn start(&self) -> Running {
        self.start_line(&self.command_line())
    }

    /// Starts it below another program, such as `nice`.
    pub(crate) fn start_below(&self, prefix: &[&str]) -> Running {
        let mut line: Vec<OsString> = prefix.iter().map(OsString::from).collect();
        line.extend(self.command_line());
        self.start_line(&line)
    }

    fn start_line(&self, line: &[OsString]) -> Running {
        let mut command = self.command(line);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("start {line:?}: {e}"));
        let mut stdin = child.stdin.take().unwrap();
        // Whoever does not read its input closes the pipe: nothing to complain of.
        let _ = stdin.write_all(&self.input);
        drop(stdin);
        let (end, ended) = channel();
        let stdout = collect(child.stdout.take().unwrap(), end.clone());
        let stderr = collect(child.stderr.take().unwrap(), end);
        Running {
            line: line.to_vec(),
            child,
            ended,
            output: Some((stdout, stderr)),
        }
    }

    /// Runs it to the end.
    #[track_caller]
    pub(crate) fn run(&self) -> Outcome {
        self.start().wait()
    }

    /// Runs it on a terminal, where `input` is what the person types.
    #[track_caller]
    pub(crate) fn run_on_terminal(&self) -> Outcome {
        self.start_line(&self.terminal_line()).wait()
    }

    /// The command line that runs it on a terminal.
    fn terminal_line(&self) -> Vec<OsString> {
        let line = self.command_line();
        let quoted = line
            .iter()
            .map(|word| format!("'{}'", word.to_str().unwrap()));
        let quoted = quoted.collect::<Vec<_>>().join(" ");
        ["script", "-qec", &quoted, "/dev/null"]
            .map(OsString::from)
            .to_vec()
    }

    /// Runs it on a terminal and talks with it: waits until it has said the first text of a pair, behind
    /// what it said before, and types the second. Returns how it ended and all that stood on the terminal.
    #[track_caller]
    pub(crate) fn converse(&self, talk: &[(&str, &str)]) -> (Option<i32>, String) {
        let line = self.terminal_line();
        let mut command = self.command(&line);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.spawn().expect("start script");
        let mut typed = child.stdin.take().unwrap();
        let (sender, said) = channel();
        let mut output = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buf) {
                let _ = sender.send(buf[..len].to_vec());
            }
        });
        let (mut screen, mut heard) = (String::new(), 0);
        for (wait_for, answer) in talk {
            while !screen[heard..].contains(wait_for) {
                let Ok(bytes) = said.recv_timeout(LIMIT) else {
                    let _ = child.kill();
                    panic!("never said {wait_for:?}: {line:?}\n{screen}");
                };
                screen.push_str(&String::from_utf8_lossy(&bytes));
            }
            heard += screen[heard..].find(wait_for).unwrap() + wait_for.len();
            typed.write_all(answer.as_bytes()).unwrap();
        }
        while let Ok(bytes) = said.recv_timeout(LIMIT) {
            screen.push_str(&String::from_utf8_lossy(&bytes));
        }
        drop(typed);
        let status = child.wait().unwrap();
        reader.join().unwrap();
        assert!(!screen.contains("panicked at"), "{screen}");
        (status.code(), screen)
    }
}

/// What a pipe will have said.
type Collected = JoinHandle<Vec<u8>>;

/// Reads a pipe to its end and reports that.
fn collect(mut pipe: impl Read + Send + 'static, end: std::sync::mpsc::Sender<()>) -> Collected {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("read a pipe");
        let _ = end.send(());
        bytes
    })
}

/// A started run; dropping it kills it.
pub(crate) struct Running {
    line: Vec<OsString>,
    child: Child,
    ended: Receiver<()>,
    output: Option<(Collected, Collected)>,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal by name, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own `kill`: every system has it.
        let line = format!("kill -{name} {}", self.child.id());
        tools::run("sh", &["-c", &line]);
    }

    /// Ends with SIGKILL unless it ends by itself within `time`.
    pub(crate) fn kill_after(mut self, time: Duration) -> Outcome {
        if self.both_ended_within(time).is_err() {
            // Already gone is fine too.
            let _ = self.child.kill();
        }
        self.wait()
    }

    /// Ends what it has started with SIGKILL, unless that ends by itself within `time`: for a run below a program
    /// that waits for it and cleans up behind it. Says whether there was something to kill.
    pub(crate) fn kill_below_after(self, time: Duration) -> (Outcome, bool) {
        let mut killed = false;
        if self.both_ended_within(time).is_err() {
            let id = self.child.id();
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
            for child in children.unwrap_or_default().split_whitespace() {
                // Already gone is fine too.
                let line = format!("kill -KILL {child}");
                killed |= tools::try_run("sh", &["-c", &line]).status.success();
            }
        }
        (self.wait(), killed)
    }

    fn both_ended_within(&self, time: Duration) -> Result<(), RecvTimeoutError> {
        let deadline = Instant::now() + time;
        for _ in 0..2 {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ended.recv_timeout(left) {
                Err(RecvTimeoutError::Timeout) => return Err(RecvTimeoutError::Timeout),
                // Disconnected: both have reported before.
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            }
        }
        Ok(())
    }

    /// Waits for its end; a run that takes longer than any should is killed and fails the test.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Outcome {
        let hangs = self.both_ended_within(LIMIT).is_err();
        if hangs {
            let _ = self.child.kill();
        }
        let status = self.child.wait().unwrap();
        let (stdout, stderr) = self.output.take().expect("waited for once");
        let outcome = Outcome {
            line: self.line.clone(),
            status,
            stdout: stdout.join().unwrap(),
            stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned(),
        };
        assert!(!hangs, "still running after {LIMIT:?}: {outcome}");
        let panicked =
            outcome.stderr.contains("panicked at") || outcome.text().contains("panicked at");
        assert!(!panicked, "a panic: {outcome}");
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a run ended and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    line: Vec<OsString>,
    status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line: Vec<_> = self.line.iter().map(|w| w.to_string_lossy()).collect();
        writeln!(f, "`{}` ended with {}", line.join(" "), self.status)?;
        let text = self.text();
        let shown: String = text.chars().take(4000).collect();
        write!(f, "--- stdout\n{shown}\n--- stderr\n{}", self.stderr)
    }
}

impl Outcome {
    /// The exit code; `None` when a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub(crate) fn killed_by(&self) -> Option<i32> {
        self.status.signal()
    }

    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Everything it said, for a person or a script.
    pub(crate) fn all_text(&self) -> String {
        format!("{}\n{}", self.text(), self.stderr)
    }

    /// Fails, showing everything, unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Outcome {
        assert_eq!(self.code(), Some(code), "expected exit code {code}: {self}");
        self
    }

    /// The one JSON object on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.stdout);
        parsed.unwrap_or_else(|e| panic!("standard output is no JSON ({e}): {self}"))
    }

    /// Fails unless it said `part`, in any case of letters.
    #[track_caller]
    pub(crate) fn expect_says(self, part: &str) -> Outcome {
        let said = self.all_text().to_lowercase();
        assert!(
            said.contains(&part.to_lowercase()),
            "nothing about {part:?}: {self}"
        );
        self
    }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are plain text")
}
