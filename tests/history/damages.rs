//! All kinds of damage, drawn from seeds, to all kinds of files: no wrong byte is ever handed out, and a look
//! at the files finds each.

use crate::check;
use crate::disk::{Disk, Edit};
use crate::kit::bytes::Stream;
use crate::kit::records::{Record, number, records};
use crate::long;
use crate::power::long_history;
use crate::shaped::{encrypted, in_parts};
use crate::world::{World, odd_len};
use diskstrata::base::{to_u64, to_usize};
use diskstrata::chain::Wish;
use diskstrata::store::{FileName, MemoryStore, Store};
use std::ops::Range;
use std::sync::Arc;

/// The unit in which file systems lose and mix up what they keep.
const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// How the images of a chain lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lying {
    Full,
    Chain,
    Encrypted,
    InParts,
}

/// A chain in a store that is damaged below everything that checks.
struct Victim {
    lying: Lying,
    memory: MemoryStore,
    world: World,
    /// What the store holds.
    files: Vec<(FileName, Vec<u8>)>,
}

impl Victim {
    fn new(lying: Lying) -> Victim {
        let memory = MemoryStore::new("memory");
        let inner: Arc<dyn Store> = Arc::new(memory.clone());
        let world = match lying {
            Lying::Full => history(inner, &[Wish::Full]),
            Lying::Chain => history(inner, &[Wish::Incremental; 2]),
            Lying::Encrypted => history(encrypted(inner), &[Wish::Incremental; 2]),
            Lying::InParts => long_history(in_parts(inner), &[Wish::Incremental], 0),
        };
        let names = memory.list().unwrap().into_iter().map(|e| e.name);
        let files = names.map(|name| {
            let bytes = memory.get(&name).unwrap();
            (name, bytes)
        });
        let files = files.collect();
        Victim {
            lying,
            memory,
            world,
            files,
        }
    }

    /// Where a change costs no content, because nobody looks there: the slots of an encrypted head, of which one
    /// is enough, and what stands behind them up to their length.
    fn harmless(&self, good: &[u8]) -> Range<usize> {
        match self.lying {
            Lying::Encrypted => 64..64 + 2 * to_usize(number(&good[12..16])),
            _ => 0..0,
        }
    }

    /// Whether some of `changed` is more than the payload of frames.
    fn is_structural(&self, good: &[u8], changed: &Range<usize>) -> bool {
        match self.lying {
            Lying::Full | Lying::Chain => {
                let mut frames = records(good).into_iter().filter(Record::is_frame);
                let inside = |f: Record| {
                    let payload = f.payload();
                    payload.start <= changed.start && changed.end <= payload.end
                };
                !frames.any(inside)
            }
            Lying::Encrypted => true,
            // Heads and ends of parts.
            Lying::InParts => changed.start < 64 || changed.end > good.len() - 32,
        }
    }

    /// Whether a quick and a deep look find something wrong.
    fn look(&self) -> (bool, bool) {
        let found = check::damaged(&self.world);
        (!found.quick.is_empty(), !found.deep.is_empty())
    }
}

fn history(store: Arc<dyn Store>, kinds: &[Wish]) -> World {
    let mut world = World::new(store, odd_len(299), 3);
    world.disk.edit(&Edit::Free { at: 40, count: 230 });
    for (n, wish) in (0u32..).zip([Wish::Full].iter().chain(kinds)) {
        let at = u64::from(n) * 5;
        change(&mut world.disk, at, 100 * n);
        world.backup(*wish);
    }
    world
}

fn change(disk: &mut Disk, at: u64, seed: u32) {
    for (at, count) in [(at, 9), (280 + at, 4)] {
        disk.edit(&Edit::Write { at, count, seed });
    }
    disk.edit(&Edit::Zero {
        at: 20 - at,
        count: 2,
    });
    disk.edit(&Edit::Spoil {
        sector: 8 * (25 + at),
        count: 1,
    });
}

/// The damages that are drawn.
const KINDS: [&str; 6] = [
    "a bit",
    "a byte",
    "a sector of zeros",
    "two places swapped",
    "a run twice",
    "a piece of another file",
];

/// Changes `bytes`, of which `other` is another file of the store. Returns the bytes that may differ now.
fn damage(kind: usize, bytes: &mut Vec<u8>, other: &[u8], stream: &mut Stream) -> Range<usize> {
    let len = bytes.len();
    // A third at the ends, where there is more than content.
    let place = match stream.below(3) {
        0 if stream.below(2) == 0 => stream.below(to_u64(len.min(700))),
        0 => to_u64(len) - 1 - stream.below(to_u64(len.min(700))),
        _ => stream.below(to_u64(len)),
    };
    let at = to_usize(place);
    let page = PAGE.min(len / 3);
    match kind {
        0 => {
            bytes[at] ^= 1 << stream.below(8);
            at..at + 1
        }
        1 => {
            bytes[at] = u8::try_from(stream.below(256)).unwrap();
            at..at + 1
        }
        2 => {
            let start = at / SECTOR * SECTOR;
            let end = (start + SECTOR).min(len);
            bytes[start..end].fill(0);
            start..end
        }
        3 => {
            let pages = to_u64(len / page);
            let mut two = [stream.below(pages), stream.below(pages)].map(|n| to_usize(n) * page);
            two.sort_unstable();
            let [a, b] = two;
            if a < b {
                let (low, high) = bytes.split_at_mut(b);
                low[a..a + page].swap_with_slice(&mut high[..page]);
            }
            a..b + page
        }
        4 => {
            let run = bytes[at..(at + 1 + to_usize(stream.below(6000))).min(len)].to_vec();
            let end = at + run.len();
            if stream.below(2) == 0 {
                bytes.splice(end..end, run);
                return end..len;
            }
            let copied = run.len().min(len - end);
            bytes[end..end + copied].copy_from_slice(&run[..copied]);
            end..end + copied
        }
        _ => {
            let start = at / page * page;
            let end = (start + page).min(len).min(other.len());
            if start < end {
                bytes[start..end].copy_from_slice(&other[start..end]);
            }
            start..end.max(start)
        }
    }
}

/// What became of one kind of damage.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    done: u32,
    quick: u32,
    structural: u32,
    quick_of_structural: u32,
    /// Not found, and proved to cost nothing.
    harmless: u32,
}

fn campaign(lying: Lying, usual: u32, whole: u32, seed: u64) {
    let victim = Victim::new(lying);
    let mut stream = Stream::new(seed);
    let cases = if long() { whole } else { usual };
    let mut tallies = [Tally::default(); KINDS.len()];
    assert_eq!(victim.look(), (false, false), "it was whole");
    // A damage may change nothing: zeros become zeros.
    let mut done = 0;
    while done < cases {
        let kind = to_usize(stream.below(6));
        let pick = |stream: &mut Stream| to_usize(stream.below(to_u64(victim.files.len())));
        let (name, good) = &victim.files[pick(&mut stream)];
        let (_, other) = &victim.files[pick(&mut stream)];
        let mut bytes = good.clone();
        let touched = damage(kind, &mut bytes, other, &mut stream);
        let Some(changed) = changed(good, &bytes) else {
            continue;
        };
        assert!(touched.start <= changed.start);
        done += 1;
        let is_structural = victim.is_structural(good, &changed);
        victim.memory.put(name, bytes);
        let (quick, deep) = victim.look();
        let tally = &mut tallies[kind];
        tally.done += 1;
        tally.quick += u32::from(quick);
        tally.structural += u32::from(is_structural);
        tally.quick_of_structural += u32::from(is_structural && quick);
        if !deep {
            // Everything was read and is right: it must lie where nobody looks.
            let harmless = victim.harmless(good);
            let inside = harmless.start <= changed.start && changed.end <= harmless.end;
            assert!(inside, "{}: bytes {changed:?} of {name}", KINDS[kind]);
            tally.harmless += 1;
        }
        victim.memory.put(name, good.clone());
    }
    for (kind, tally) in KINDS.iter().zip(&tallies) {
        eprintln!("{lying:?}, {kind}: {tally:?}");
        assert!(tally.done > cases / 20, "{kind}: {tally:?}");
        let found = tally.done - tally.harmless;
        assert!(tally.quick * 100 >= found * 99, "{kind}: {tally:?}");
        let structural = tally.structural.saturating_sub(tally.harmless);
        assert!(
            tally.quick_of_structural * 100 >= structural * 99,
            "{kind}: {tally:?}"
        );
    }
    let sum = |of: fn(&Tally) -> u32| tallies.iter().map(of).sum::<u32>();
    eprintln!(
        "{lying:?}: {cases} damages, {} harmless, {} of {} found by a quick look",
        sum(|t| t.harmless),
        sum(|t| t.quick),
        sum(|t| t.done - t.harmless),
    );
    assert_eq!(sum(|t| t.done), cases);
}

/// From the first byte that differs to the last; `None` when there is none. Behind the first byte that was put in,
/// all counts.
fn changed(good: &[u8], bad: &[u8]) -> Option<Range<usize>> {
    let first = good.iter().zip(bad).position(|(a, b)| a != b);
    if good.len() != bad.len() {
        return Some(first.unwrap_or(good.len())..good.len().max(bad.len()));
    }
    let last = good.iter().zip(bad).rposition(|(a, b)| a != b)?;
    Some(first?..last + 1)
}

#[test]
fn no_damage_of_a_full_image_goes_unnoticed() {
    campaign(Lying::Full, 1000, 40_000, 51);
}

#[test]
fn no_damage_of_a_chain_goes_unnoticed() {
    campaign(Lying::Chain, 800, 30_000, 52);
}

#[test]
fn no_damage_of_encrypted_images_goes_unnoticed() {
    campaign(Lying::Encrypted, 800, 25_000, 53);
}

#[test]
fn no_damage_of_images_in_parts_goes_unnoticed() {
    campaign(Lying::InParts, 120, 5_000, 54);
}
