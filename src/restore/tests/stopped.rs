//! A restore that is stopped at any of its writes, by a kill or by a power cut that drops, tears and reorders
//! what was not synced: the target looks unfinished, and another restore goes on from what it holds.

use super::{MIB, gpt_disk, has_table, plan_for, resources, view_of};
use crate::base::{Cancel, Extent, to_u64, to_usize};
use crate::block::{MemoryTarget, Op, RecordTarget, Recorded};
use crate::chain::ChainView;
use crate::restore::{RestorePlan, Scope, execute};
use std::collections::BTreeSet;
use std::sync::Arc;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;
const LEN: usize = 8 * MIB;
/// What is written at the very end: boot code, MBR and primary GPT header.
const HEAD: usize = 8192;

/// Of the cuts between two flushes, one in so many is looked at.
const STEP: usize = 8;

/// How many of the mixes of a cut are left to chance.
const CHANCES: u64 = 1;

/// A disk with an MBR and one active partition.
fn mbr_disk(seed: u8) -> Vec<u8> {
    let mut disk = noise(seed);
    let sectors = u32::try_from(LEN / SECTOR - 4096).unwrap();
    disk[446..510].fill(0);
    disk[446] = 0x80;
    disk[450] = 0x83;
    disk[454..458].copy_from_slice(&2048_u32.to_le_bytes());
    disk[458..462].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk
}

/// A disk without partitions that begins with a boot sector.
fn bare_disk(seed: u8) -> Vec<u8> {
    let mut disk = noise(seed);
    disk[..3].copy_from_slice(&[0xEB, 0x58, 0x90]);
    disk[446..510].fill(0);
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk
}

/// Content in all of it but one MiB.
fn noise(seed: u8) -> Vec<u8> {
    let mut disk = vec![0; LEN];
    let mut noise = blake3::Hasher::new_derive_key("stopped restore")
        .update(&[seed])
        .finalize_xof();
    noise.fill(&mut disk[..3 * MIB]);
    noise.fill(&mut disk[4 * MIB..]);
    disk
}

/// What a power cut leaves of the writes that were not synced.
fn left(durable: &[u8], pending: &[&Op], mix: u64, behind: usize) -> Vec<u8> {
    let mut state = durable.to_vec();
    let mut chance = blake3::Hasher::new_derive_key("power cut")
        .update(&mix.to_le_bytes())
        .update(&behind.to_le_bytes())
        .finalize_xof();
    for op in pending {
        let mut bytes = [0; 2];
        chance.fill(&mut bytes);
        match (mix, bytes[0] % 3, op) {
            (0, ..) | (2.., 0, _) => op.apply(&mut state),
            (2.., 1, Op::Write(at, data)) => {
                let sectors = usize::from(bytes[1]) % (data.len().div_ceil(SECTOR) + 1);
                let torn = &data[..data.len().min(sectors * SECTOR)];
                Op::Write(*at, torn.to_vec()).apply(&mut state);
            }
            _ => {}
        }
    }
    state
}

fn recorded(
    view: &ChainView,
    state: &[u8],
    plan: &RestorePlan,
    scope: Scope,
) -> (Vec<Op>, Vec<u8>) {
    let (log, cancel) = (Recorded::default(), Cancel::new());
    let memory = Arc::new(MemoryTarget::new("target", state.to_vec()));
    let target = RecordTarget::new(memory.clone(), log.clone());
    execute(view, plan, &target, scope, true, resources(&cancel)).unwrap();
    let changes = |op: &Op| !matches!(op, Op::Read(_) | Op::Discard(_));
    let ops = log.ops().into_iter().filter(changes).collect();
    (ops, memory.snapshot())
}

/// Whether this block is among what is erased first and written last.
fn is_critical(plan: &RestorePlan, block: usize) -> bool {
    let (start, end) = (to_u64(block * BLOCK), to_u64((block + 1) * BLOCK));
    let meets = |e: &Extent| e.start.0 < end && start < e.end().0;
    plan.critical.iter().any(meets)
}

/// The blocks that a write covers, in part or as a whole.
fn blocks(op: &Op) -> std::ops::Range<usize> {
    let (start, len) = match op {
        Op::Write(at, data) => (to_usize(at.0), data.len()),
        Op::Zero(e) => (to_usize(e.start.0), to_usize(e.len.0)),
        _ => (0, 0),
    };
    start / BLOCK..(start + len).div_ceil(BLOCK)
}

/// Restores again, and says how many blocks were done and how many of these were written again, outside of what
/// is written last in any case.
fn go_on(
    (view, new): (&ChainView, &[u8]),
    state: &[u8],
    plan: &RestorePlan,
    when: &str,
) -> (usize, usize) {
    let (ops, now) = recorded(view, state, plan, Scope::Differing);
    assert!(now == new, "{when}: restored again");
    let of = |block: usize| block * BLOCK..(block + 1) * BLOCK;
    let is_done =
        |block: &usize| !is_critical(plan, *block) && state[of(*block)] == new[of(*block)];
    let written: BTreeSet<usize> = ops.iter().flat_map(blocks).collect();
    let done = (0..LEN / BLOCK).filter(is_done).count();
    (done, written.into_iter().filter(is_done).count())
}

/// Stops a restore of `new` over `old` behind each of its writes. Returns how many states that were.
fn stop_everywhere(what: &str, old: &[u8], new: &[u8]) -> usize {
    let view = view_of(new);
    let plan = plan_for(&view, LEN).unwrap();
    let (ops, whole) = recorded(&view, old, &plan, Scope::All);
    assert!(whole == new, "{what}");
    let erased = ops.iter().position(|op| *op == Op::Flush).unwrap();
    // The very last write is the one that makes it a disk.
    let last = ops.iter().rposition(|op| matches!(op, Op::Write(..)));
    let last = last.unwrap();
    let (mut durable, mut pending) = (old.to_vec(), Vec::new());
    let mut seen = BTreeSet::new();
    let mut most_done = 0;
    for (behind, op) in ops[..last].iter().enumerate() {
        if *op == Op::Flush {
            pending.drain(..).for_each(|op: &Op| op.apply(&mut durable));
        } else {
            pending.push(op);
        }
        // Around a flush all of them, elsewhere some: a restore for each state takes its time.
        let near = [behind.wrapping_sub(1), behind, behind + 1];
        let flushes = near.iter().any(|n| ops.get(*n) == Some(&Op::Flush));
        if behind < erased || !flushes && behind % STEP != 0 {
            continue;
        }
        for mix in 0..2 + CHANCES {
            let state = left(&durable, &pending, mix, behind);
            if !seen.insert(*blake3::hash(&state).as_bytes()) {
                continue;
            }
            let when = format!("{what}: stopped behind write {behind}, mix {mix}");
            let head = &state[..HEAD];
            assert!(head.iter().all(|b| *b == 0), "{when}: it has a beginning");
            assert!(!has_table(&state), "{when}: it has a table");
            let (done, again) = go_on((&view, new), &state, &plan, &when);
            assert!(
                again * 100 <= done,
                "{when}: {again} of {done} blocks again"
            );
            most_done = most_done.max(done);
        }
    }
    let all = (0..LEN / BLOCK).filter(|b| !is_critical(&plan, *b)).count();
    assert!(
        most_done == all,
        "{what}: {most_done} of {all} blocks were done at most"
    );
    eprintln!("{what}: {} states of {last} writes", seen.len());
    seen.len()
}

#[test]
fn wherever_a_restore_is_stopped_it_looks_unfinished_and_goes_on_from_there() {
    let states = [
        stop_everywhere("GPT", &gpt_disk(LEN, 1), &gpt_disk(LEN, 2)),
        stop_everywhere("MBR", &mbr_disk(1), &mbr_disk(2)),
        stop_everywhere("no partitions", &bare_disk(1), &bare_disk(2)),
    ];
    let all: usize = states.iter().sum();
    assert!(all >= 200, "{states:?} states");
    eprintln!("{all} states of stopped restores");
}

/// The same with a disk of another kind in the target.
#[test]
fn nothing_of_another_disk_comes_back_when_a_restore_is_stopped() {
    let (gpt, mbr) = (gpt_disk(LEN, 3), mbr_disk(4));
    let states = stop_everywhere("MBR over GPT", &gpt, &mbr)
        + stop_everywhere("GPT over MBR", &mbr, &gpt)
        + stop_everywhere("no partitions over GPT", &gpt, &bare_disk(5));
    assert!(states >= 150, "{states} states");
}
