//! Keys: where they come from, and the verb that changes them.

use super::args::{EncryptArgs, KeyArgs, KeySourceArgs, KeyVerb, NewKeyArgs, OutputArgs};
use super::progress::Progress;
use super::{need_store, render};
use crate::base::{Cancel, Result};
use crate::ops::encryption::NewKeys;
use crate::ops::keys::{KeyChange, KeyRequest};
use crate::ops::secrets::{Ask, KeyOptions};
use crate::ops::{self, Context};
use std::io::IsTerminal;
use std::sync::Arc;

/// What the command line says of keys.
pub(super) fn options(
    args: KeySourceArgs,
    cancel: &Cancel,
    progress: &Arc<Progress>,
) -> KeyOptions {
    KeyOptions {
        identities: args.identity,
        password_fd: args.password_fd,
        key_sets: args.key_set,
        ask: std::io::stderr()
            .is_terminal()
            .then(|| asking(cancel, progress)),
    }
}

/// Asks at the terminal, until the run is to stop.
fn asking(cancel: &Cancel, progress: &Arc<Progress>) -> Ask {
    let (cancel, progress) = (cancel.clone(), Arc::clone(progress));
    Arc::new(move |question| {
        let _hidden = progress.hide();
        ops::secrets::ask_at_terminal(question, &cancel)
    })
}

impl From<EncryptArgs> for NewKeys {
    fn from(args: EncryptArgs) -> NewKeys {
        NewKeys {
            password: args.encrypt,
            recipients: args.recipient,
            recovery: args.recovery_key,
        }
    }
}

impl From<NewKeyArgs> for NewKeys {
    fn from(args: NewKeyArgs) -> NewKeys {
        NewKeys {
            password: args.password,
            recipients: args.recipient,
            recovery: args.recovery_key,
        }
    }
}

pub(super) fn key(context: &Context<'_>, args: KeyArgs, output: OutputArgs) -> Result<u8> {
    let request = KeyRequest {
        store: need_store(args.store, "handle keys")?,
        set: args.set,
    };
    let change = match args.verb {
        KeyVerb::List | KeyVerb::Check => {
            let report = ops::keys::list(context, &request)?;
            let is_check = matches!(args.verb, KeyVerb::Check);
            return render::show(output, &report, || render::keys(&report, is_check));
        }
        KeyVerb::Add { keys, name } => KeyChange::Add {
            keys: keys.into(),
            name,
        },
        KeyVerb::Remove { name } => KeyChange::Remove(name),
        KeyVerb::Rotate => KeyChange::Rotate,
    };
    let report = ops::keys::change(context, &request, &change)?;
    render::done(output, &report, || render::keys_changed(&report))
}
