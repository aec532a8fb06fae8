//! The orders that have cost other programs data, before every call and not before some.

use crate::deeds::{Deed, Template};
use crate::pairs::{dead, stopped};
use crate::paused::{At, Gate};

/// Stops the first before each of its calls, and lets it die there.
fn before_every_call(first: Deed, second: Deed) {
    let template = Template::new();
    let gate = Gate::new(At::Never);
    template.fresh().run(first, Some(&gate)).unwrap();
    let calls = gate.calls();
    for nth in 1..=calls {
        stopped(&template, (first, second), nth);
        dead(&template, (first, second), nth);
    }
    println!("{first:?} and {second:?}: {calls} calls");
}

/// An image that is newer than the list by which a prune decides.
#[test]
fn a_prune_whose_list_is_older_than_a_new_image() {
    before_every_call(Deed::Prune, Deed::Backup);
}

#[test]
fn a_parent_that_is_merged_while_its_child_is_written() {
    before_every_call(Deed::Backup, Deed::Merge);
}

#[test]
fn an_image_that_goes_between_list_and_read() {
    before_every_call(Deed::List, Deed::Prune);
    before_every_call(Deed::Verify, Deed::Prune);
}

#[test]
fn an_image_that_is_merged_between_list_and_read() {
    before_every_call(Deed::List, Deed::Merge);
    before_every_call(Deed::Show, Deed::Merge);
}
