//! The system's own tools, run to the end, their words shown when they fail.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Where administrators' tools lie even when a user's path leaves them out.
fn path() -> String {
    let given = std::env::var("PATH").unwrap_or_default();
    format!("{given}:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// A tool that will not talk another language or keep the time of day.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command
        .env("PATH", path())
        .env("LC_ALL", "C")
        .env("E2FSPROGS_FAKE_TIME", "1700000000")
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::null());
    command
}

/// Runs a tool and returns what it said, whatever its exit status.
pub(crate) fn try_run<A: AsRef<OsStr>>(name: &str, args: &[A]) -> Output {
    let output = tool(name).args(args).output();
    output.unwrap_or_else(|e| panic!("start {name}: {e}; `./test` installs what the tests need"))
}

/// Runs a tool that must succeed; its standard output.
#[track_caller]
pub(crate) fn run<A: AsRef<OsStr>>(name: &str, args: &[A]) -> String {
    let args: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
    let output = try_run(name, &args);
    expect_success(name, &args, &output)
}

/// Runs a tool that must succeed and reads `input`.
#[track_caller]
pub(crate) fn run_with_input<A: AsRef<OsStr>>(name: &str, args: &[A], input: &str) -> String {
    let args: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
    let mut command = tool(name);
    let pipes = command.args(&args).stdin(Stdio::piped());
    let pipes = pipes.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes
        .spawn()
        .unwrap_or_else(|e| panic!("start {name}: {e}"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    expect_success(name, &args, &output)
}

#[track_caller]
fn expect_success(name: &str, args: &[&OsStr], output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(
        output.status.success(),
        "{name} {args:?}: {}\n{out}\n{err}",
        output.status
    );
    out.into_owned()
}

/// Fails unless `sgdisk` finds nothing wrong with the GPT of `disk`.
#[track_caller]
pub(crate) fn assert_gpt_sound(disk: &Path) {
    let output = try_run("sgdisk", &[OsStr::new("-v"), disk.as_os_str()]);
    let said = String::from_utf8_lossy(&output.stdout);
    let sound = said.contains("No problems found") && !said.contains("Caution");
    assert!(
        output.status.success() && sound,
        "sgdisk -v {}:\n{said}",
        disk.display()
    );
}

/// The partition table that `sfdisk` finds, if it finds any.
pub(crate) fn table(disk: &Path) -> Option<serde_json::Value> {
    let output = try_run("sfdisk", &[OsStr::new("-J"), disk.as_os_str()]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| found["partitiontable"].clone())
}
