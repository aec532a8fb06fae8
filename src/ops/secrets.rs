//! Where passwords and private keys come from. Never from the command line, which others can see.

use crate::base::{Cancel, Error, ErrorKind, KeySetId, Result};
use crate::crypt::{Identity, KeyRing, KeySource};
use crate::sys;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Once};
use zeroize::Zeroizing;

pub use crate::crypt::Passphrase;

/// Asks a person for a password with this question; `None` when nobody is there.
pub type Ask = Arc<dyn Fn(&str) -> Result<Option<Passphrase>> + Send + Sync>;

/// Asks `question` at the terminal; what is typed is not shown.
///
/// # Errors
/// `Usage` when that fails or the answer is not UTF-8, `Interrupted` or `Terminated` meanwhile.
pub fn ask_at_terminal(question: &str, cancel: &Cancel) -> Result<Option<Passphrase>> {
    guard_memory();
    let answer = sys::ask_hidden(question, &|| !cancel.is_cancelled());
    cancel.check()?;
    let failed = Error::new(ErrorKind::Usage, "ask", "for a password");
    let Some(line) = answer.map_err(|e| failed.clone().caused_by(e))? else {
        return Ok(None);
    };
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Some(text.to_owned().into())),
        Err(_) => Err(failed.because("what was typed is not UTF-8")),
    }
}

/// How often a person may mistype.
const TRIES: u32 = 3;
/// The longest password and the longest file of identities, in bytes.
const MAX_LEN: u64 = 64 << 10;
/// What systemd calls the credentials that this program looks for (systemd.exec(5), `LoadCredential=`).
const PASSWORD_CREDENTIAL: &str = "strata.password";
const IDENTITY_CREDENTIAL: &str = "strata.identity";

/// What a person said of keys.
#[derive(Clone, Default)]
pub struct KeyOptions {
    /// Files with private keys.
    pub identities: Vec<PathBuf>,
    /// An open file descriptor that the password is read from.
    pub password_fd: Option<i32>,
    /// Ids of the key sets whose images may be opened; all when empty.
    pub key_sets: Vec<String>,
    /// How to ask.
    pub ask: Option<Ask>,
}

/// Where one password comes from.
enum Source {
    Fd(i32),
    Value(OsString),
    File(PathBuf),
    Command(OsString),
}

impl KeyOptions {
    /// The keys for a run. Nothing is read yet.
    ///
    /// # Errors
    /// `Usage` when a key set's id is none.
    pub fn ring(&self) -> Result<KeyRing> {
        let parse = |text: &String| {
            KeySetId::parse(text).ok_or_else(|| {
                Error::new(ErrorKind::Usage, "use the key set", format!("{text:?}"))
                    .because("the id of a key set has 32 hexadecimal digits")
                    .hint("`strata key list` and `strata list -v` show it")
            })
        };
        let accepted = self.key_sets.iter().map(parse).collect::<Result<_>>()?;
        Ok(KeyRing::new(Secrets {
            options: self.clone(),
            accepted,
        }))
    }

    /// A password for images to come: from where the environment says, or asked for twice.
    ///
    /// # Errors
    /// `Usage` when there is none, it is empty, or it was typed in two ways.
    pub fn new_password(&self) -> Result<Passphrase> {
        let source = match named("STRATA_NEW_PASSWORD")? {
            Some(source) => Some(source),
            None => self.source()?,
        };
        self.chosen(source)
    }

    /// Whether a file that has a password and was opened was opened with the very one that [`KeyOptions::new_password`]
    /// gives: there is one password for both, and no other key.
    ///
    /// # Errors
    /// `Usage` when several are named.
    pub(super) fn opens_with_new_password(&self) -> Result<bool> {
        Ok(named("STRATA_NEW_PASSWORD")?.is_none() && !self.names_identity())
    }

    /// A password beside the one that opens the images already.
    ///
    /// # Errors
    /// As [`KeyOptions::new_password`].
    pub fn another_password(&self) -> Result<Passphrase> {
        self.chosen(named("STRATA_NEW_PASSWORD")?)
    }

    fn chosen(&self, source: Option<Source>) -> Result<Passphrase> {
        let bad = |why: &str| Error::new(ErrorKind::Usage, "set", "the new password").because(why);
        if let Some(source) = source {
            return source.read();
        }
        let none = || {
            bad("nobody is there to be asked").hint(
                "set STRATA_PASSWORD_FILE or STRATA_PASSWORD_COMMAND; for a second password, \
                 STRATA_NEW_PASSWORD_FILE or STRATA_NEW_PASSWORD_COMMAND",
            )
        };
        let ask = |question: &str| match &self.ask {
            Some(ask) => ask(question)?.ok_or_else(none),
            None => Err(none()),
        };
        let first = ask("New password: ")?;
        let second = ask("The same again: ")?;
        use age::secrecy::ExposeSecret;
        if first.expose_secret() != second.expose_secret() {
            return Err(bad("it was typed in two ways").hint("nothing was changed; try again"));
        }
        if first.expose_secret().is_empty() {
            return Err(bad("it is empty"));
        }
        Ok(first)
    }

    /// The one place that names a password.
    fn source(&self) -> Result<Option<Source>> {
        if let Some(fd) = self.password_fd {
            return Ok(Some(Source::Fd(fd)));
        }
        if let Some(source) = named("STRATA_PASSWORD")? {
            return Ok(Some(source));
        }
        Ok(credential(PASSWORD_CREDENTIAL).map(Source::File))
    }

    /// Whether a private key is named.
    pub(super) fn names_identity(&self) -> bool {
        !self.identity_files().is_empty()
    }

    /// The files with private keys that are named, here or by the environment.
    fn identity_files(&self) -> Vec<PathBuf> {
        if !self.identities.is_empty() {
            return self.identities.clone();
        }
        let named = set("STRATA_IDENTITY").map(PathBuf::from);
        named
            .into_iter()
            .chain(credential(IDENTITY_CREDENTIAL))
            .collect()
    }

    /// Whether a password is named, so that nobody needs to be asked.
    ///
    /// # Errors
    /// `Usage` when several are.
    pub fn names_password(&self) -> Result<bool> {
        Ok(self.source()?.is_some())
    }
}

/// What `NAME`, `NAME_FILE` or `NAME_COMMAND` say.
fn named(name: &str) -> Result<Option<Source>> {
    let (file, command) = (format!("{name}_FILE"), format!("{name}_COMMAND"));
    let mut found: Vec<Source> = Vec::new();
    found.extend(set(name).map(Source::Value));
    found.extend(set(&file).map(|f| Source::File(f.into())));
    found.extend(set(&command).map(Source::Command));
    if found.len() > 1 {
        return Err(Error::new(ErrorKind::Usage, "take the password from", name)
            .because(format!(
                "more than one of {name}, {file} and {command} is set"
            ))
            .hint("unset all but one"));
    }
    Ok(found.pop())
}

fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The file with a credential that systemd passed on.
fn credential(name: &str) -> Option<PathBuf> {
    let file = Path::new(&set("CREDENTIALS_DIRECTORY")?).join(name);
    file.is_file().then_some(file)
}

/// To be called before the first secret comes into memory.
pub(super) fn guard_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(sys::keep_memory_private);
}

impl Source {
    fn read(self) -> Result<Passphrase> {
        guard_memory();
        let (name, bytes) = match self {
            Source::Value(value) => {
                return into_password(&Zeroizing::new(value.into_vec()), "STRATA_PASSWORD");
            }
            // The descriptor is opened anew by its name: it belongs to whoever passed it on.
            Source::Fd(fd) => {
                let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
                (format!("file descriptor {fd}"), read_file(&path))
            }
            Source::File(path) => (path.display().to_string(), read_file(&path)),
            Source::Command(command) => return read_command(&command),
        };
        let bytes = bytes.map_err(|e| unreadable(&name).caused_by(e))?;
        into_password(&bytes, &name)
    }
}

fn unreadable(name: &str) -> Error {
    Error::new(ErrorKind::Usage, "read the password from", name)
}

fn read_file(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    read_all(&mut File::open(path)?)
}

/// All of `input`, into memory that never moves, so that no copy is left behind.
fn read_all(input: &mut dyn Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let capacity = usize::try_from(MAX_LEN).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    let mut limited = input.take(MAX_LEN);
    limited.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_command(command: &OsString) -> Result<Passphrase> {
    let name = "the command STRATA_PASSWORD_COMMAND";
    let failed = |e| unreadable(name).caused_by(e);
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let bytes = match &mut child.stdout {
        Some(out) => read_all(out),
        None => Ok(Zeroizing::default()),
    };
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(unreadable(name).because(format!("it ended with {status}")));
    }
    into_password(&bytes.map_err(failed)?, name)
}

/// The first line of `bytes`.
fn into_password(bytes: &[u8], name: &str) -> Result<Passphrase> {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok("") => Err(unreadable(name).because("it is empty")),
        Ok(text) => Ok(text.to_owned().into()),
        Err(_) => Err(unreadable(name).because("it is not UTF-8")),
    }
}

/// The keys that `options` lead to.
struct Secrets {
    options: KeyOptions,
    accepted: Vec<KeySetId>,
}

impl KeySource for Secrets {
    fn identities(&self) -> Result<Vec<Identity>> {
        let files = self.options.identity_files();
        let mut identities = Vec::new();
        if !files.is_empty() {
            guard_memory();
        }
        for file in files {
            let name = file.display().to_string();
            let bad = |e| Error::new(ErrorKind::Usage, "read the identity", &name).caused_by(e);
            let bytes = read_file(&file).map_err(bad)?;
            let text = std::str::from_utf8(&bytes).map_err(|_| {
                Error::new(ErrorKind::Usage, "read the identity", &name).because("it is no text")
            })?;
            let ask = self.options.ask.clone();
            let password =
                move |of: &str| ask.as_ref().and_then(|ask| ask(&format!("{of}: ")).ok()?);
            identities.extend(Identity::parse(text, &name, password)?);
        }
        Ok(identities)
    }

    fn password(&self, attempt: u32, what: &str) -> Result<Option<Passphrase>> {
        if let Some(source) = self.options.source()? {
            return (attempt == 1).then(|| source.read()).transpose();
        }
        // Whoever names a private key means that.
        let has_key = self.options.names_identity();
        match &self.options.ask {
            Some(ask) if attempt <= TRIES && !has_key => {
                let again = if attempt > 1 { "That is not it. " } else { "" };
                ask(&format!("{again}Password for {what}: "))
            }
            _ => Ok(None),
        }
    }

    fn accepted(&self) -> Vec<KeySetId> {
        self.accepted.clone()
    }
}
