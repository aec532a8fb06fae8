//! Images that build on others, or say so.

use crate::cases::{ASKED, Case, Fate};
use crate::forge::{Forge, Payload, keep, put};

/// How long the long chain is.
const LONG: u32 = 1200;

fn id(n: u32) -> [u8; 16] {
    let mut id = [0x1D; 16];
    put(&mut id, 0, &n.to_be_bytes());
    id
}

/// Image `n` of a chain, which says that its parent is image `parent` at place `place` with this root.
fn child(n: u32, parent: u32, place: u32, root: &[u8]) -> Forge {
    let mut forge = Forge::small();
    put(&mut forge.header, 12, &n.to_le_bytes());
    put(&mut forge.header, 24, &place.to_le_bytes());
    put(&mut forge.header, 32, &id(n));
    put(&mut forge.header, 64, &id(parent));
    put(&mut forge.header, 80, root);
    forge.header[122] = 2;
    forge
}

/// The full image that all of them come from.
fn full() -> Forge {
    let mut forge = Forge::small();
    put(&mut forge.header, 32, &id(1));
    forge
}

/// Image `n`, in which nothing is new.
fn nothing_new(n: u32, root: &[u8]) -> Forge {
    let mut forge = child(n, n - 1, n - 1, root);
    let leaf = &mut forge.leaves[0];
    leaf.frames.clear();
    leaf.located = Box::new(|out| put(out, 4, &1u32.to_le_bytes()));
    leaf.edit = keep();
    forge
}

fn named(forge: &Forge, n: usize) -> (String, Vec<u8>) {
    (format!("other-{n}.strata"), forge.build())
}

fn case(name: &str, asked: &Forge, others: &[Forge], fate: Fate) -> Case {
    let mut files = vec![(ASKED.to_owned(), asked.build())];
    files.extend(others.iter().enumerate().map(|(n, forge)| named(forge, n)));
    Case {
        files,
        disk: asked.disk(),
        ..Case::new(format!("chain: {name}"), Vec::new(), fate)
    }
}

/// An image that has all of its blocks itself, and a parent nevertheless.
fn whole_child(n: u32, parent: u32, place: u32, root: &[u8]) -> Forge {
    child(n, parent, place, root)
}

pub(crate) fn all() -> Vec<Case> {
    use Fate::{Damaged, Image};
    let root = full().root();
    let second = || nothing_new(2, &root);
    let other_set = {
        let mut forge = full();
        put(&mut forge.header, 48, &[9; 16]);
        forge
    };
    let other_len = {
        let mut forge = full();
        forge.header = crate::forge::header(9, 2);
        put(&mut forge.header, 32, &id(1));
        forge
    };
    // What the older image has of one block is not what the younger one says of it.
    let lying = {
        let mut forge = second();
        forge.leaves[0].blocks[2].1 = vec![0xEE; crate::forge::BLOCK];
        forge
    };
    let twin = {
        let mut forge = full();
        forge.info = Payload::raw(*br#"{"set":"hostile","created":5}"#);
        forge
    };
    // Two that are each other's parents can only lie about places and roots.
    let first_of_two = whole_child(6, 5, 5, &root);
    let second_of_two = whole_child(5, 6, 4, &root);
    let long = {
        let mut all = vec![full()];
        let mut last = root.clone();
        for n in 2..=LONG {
            let next = nothing_new(n, &last);
            last = next.root();
            all.push(next);
        }
        let asked = all.pop().expect("it is long");
        case("1200 images", &asked, &all, Image)
    };
    vec![
        case("a full image and one on it", &second(), &[full()], Image),
        case("the parent is not there", &second(), &[], Damaged),
        case(
            "the parent has another root",
            &nothing_new(2, &[7; 32]),
            &[full()],
            Damaged,
        ),
        case(
            "the parent is of another set",
            &second(),
            &[other_set],
            Damaged,
        ),
        case(
            "the parent has another length",
            &second(),
            &[other_len],
            Damaged,
        ),
        case(
            "the parent's place is another",
            &child(9, 1, 8, &root),
            &[full()],
            Damaged,
        ),
        case(
            "the parent says another thing of a block",
            &lying,
            &[full()],
            Damaged,
        ),
        case("a circle of two", &first_of_two, &[second_of_two], Damaged),
        case(
            "the parent is there twice, and different",
            &second(),
            &[full(), twin],
            Image,
        ),
        long,
    ]
}
