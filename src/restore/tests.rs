//! Restores onto disks in memory: whole, cut off at every step, onto other sizes, onto bad media.

use super::{RestorePlan, Restored, Scope, execute, execute_stream, plan_disk, plan_partition};
use crate::base::{
    BlockSize, ByteLen, ByteOffset, Cancel, ErrorKind, Extent, Geometry, Result, Silent, to_u64,
    to_usize,
};
use crate::block::{
    BlockTarget, Fault, FaultTarget, Faults, MemorySource, MemoryTarget, Op, RecordTarget,
    Recorded, Zeroing,
};
use crate::chain::ChainView;
use crate::image::{ImageStream, testing};
use crate::layout::{self, Layout, Table};
use crate::pipeline::Resources;
use std::io::Cursor;
use std::sync::Arc;

mod at_once;
mod stopped;

const MIB: usize = 1 << 20;

/// A GPT disk with one partition, filled with bytes that follow `seed`; boot code, and something in
/// the gap before the partition, as GRUB has it.
fn gpt_disk(len: usize, seed: u8) -> Vec<u8> {
    let mut disk = vec![0; len];
    let sectors = u32::try_from(len / 512 - 1).unwrap();
    let mut cursor = Cursor::new(&mut disk);
    gpt::mbr::ProtectiveMBR::with_lb_size(sectors)
        .overwrite_lba0(&mut cursor)
        .unwrap();
    let id = Some(uuid::Uuid::from_u128(u128::from(seed) + 1));
    let config = gpt::GptConfig::new().writable(true);
    let mut table = config.create_from_device(cursor, id).unwrap();
    let kind = gpt::partition_types::LINUX_FS;
    table
        .add_partition("data", to_u64(len - 4 * MIB), kind, 0, Some(2048))
        .unwrap();
    table.write().unwrap();
    let mut noise = blake3::Hasher::new_derive_key("restore test")
        .update(&[seed])
        .finalize_xof();
    noise.fill(&mut disk[..440]);
    noise.fill(&mut disk[64 * 512..100 * 512]);
    noise.fill(&mut disk[MIB + 8192..3 * MIB]);
    noise.fill(&mut disk[3 * MIB + 65536..len - 4 * MIB]);
    disk
}

fn view_of(disk: &[u8]) -> ChainView {
    ChainView::of(Arc::new(testing::open(testing::image_of(disk)))).unwrap()
}

fn plan_for(view: &ChainView, len: usize) -> Result<RestorePlan> {
    let layout = layout::read(view).unwrap();
    let size = view.image().header().block_size;
    plan_disk(&layout, view, size, Geometry::of_len(ByteLen(to_u64(len))))
}

fn resources(cancel: &Cancel) -> Resources<'_> {
    Resources {
        threads: 2,
        memory: 1 << 20,
        cancel,
        observer: &Silent,
    }
}

fn restore(view: &ChainView, plan: &RestorePlan, target: &dyn BlockTarget) -> Result<Restored> {
    let cancel = Cancel::new();
    execute(view, plan, target, Scope::All, true, resources(&cancel))
}

/// Restores a full image of a disk.
type Way = fn(&[u8], &RestorePlan, &dyn BlockTarget) -> Result<Restored>;

/// From a file, and out of a pipe.
const WAYS: [Way; 2] = [
    |disk, plan, target| restore(&view_of(disk), plan, target),
    |disk, plan, target| restore_piped(&testing::image_of(disk), plan, target),
];

fn restore_piped(image: &[u8], plan: &RestorePlan, target: &dyn BlockTarget) -> Result<Restored> {
    let cancel = Cancel::new();
    let mut stream = ImageStream::open(image, "pipe")?;
    let (done, _) = execute_stream(&mut stream, plan, target, true, resources(&cancel))?;
    Ok(done)
}

fn layout_of(disk: &[u8]) -> Layout {
    layout::read(&MemorySource::new("disk", disk.to_vec())).unwrap()
}

fn has_table(disk: &[u8]) -> bool {
    matches!(layout_of(disk).table, Table::Gpt(_) | Table::Mbr(_))
}

#[test]
fn the_target_becomes_the_disk() {
    let disk = gpt_disk(8 * MIB, 1);
    let plan = plan_for(&view_of(&disk), 8 * MIB).unwrap();
    for way in WAYS {
        let target = MemoryTarget::new("target", vec![0xA5; 8 * MIB]);
        let done = way(&disk, &plan, &target).unwrap();
        assert!(target.snapshot() == disk);
        assert!(done.read_back);
        assert_eq!(done.written + done.zeroed, to_u64(8 * MIB));
    }
}

/// Whatever is wrong with what comes out of a pipe, and wherever it ends: no table is written.
#[test]
fn half_an_image_in_a_pipe_makes_no_disk() {
    let (old, new) = (gpt_disk(8 * MIB, 1), gpt_disk(8 * MIB, 2));
    let plan = plan_for(&view_of(&new), 8 * MIB).unwrap();
    let image = testing::image_of(&new);
    let step = image.len() / 40;
    for at in (128..image.len()).step_by(step).chain([image.len() - 1]) {
        let mut wrong = image.clone();
        wrong[at] ^= 0x10;
        for bytes in [&image[..at], &wrong] {
            let target = MemoryTarget::new("target", old.clone());
            let error = restore_piped(bytes, &plan, &target).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            // Nothing was touched before the beginning had been read.
            assert!(
                target.snapshot() == old || !has_table(&target.snapshot()),
                "{at}"
            );
        }
    }
}

/// At every moment of a restore, and whatever of the unsynced writes survives a power cut, a table
/// that can be read stands before a disk that is whole: the old one or the new one.
#[test]
fn a_table_never_stands_before_half_a_disk() {
    WAYS.into_iter().for_each(no_table_before_half_a_disk);
}

fn no_table_before_half_a_disk(way: Way) {
    let (old, new) = (gpt_disk(8 * MIB, 1), gpt_disk(8 * MIB, 2));
    let plan = plan_for(&view_of(&new), 8 * MIB).unwrap();
    let log = Recorded::default();
    let target = RecordTarget::new(Arc::new(MemoryTarget::new("t", old.clone())), log.clone());
    way(&new, &plan, &target).unwrap();
    let ops: Vec<Op> = log
        .ops()
        .into_iter()
        .filter(|op| !matches!(op, Op::Read(_)))
        .collect();
    assert!(ops.len() > 50, "{} writes", ops.len());
    let mut durable = old.clone();
    let (mut without_table, mut checked) = (0, 0);
    let mut pending: Vec<&Op> = Vec::new();
    for (i, op) in ops.iter().enumerate() {
        if *op == Op::Flush {
            pending.drain(..).for_each(|op| op.apply(&mut durable));
        } else {
            pending.push(op);
        }
        for mix in 0..4 {
            // All of it, none of it, and two halves that a disk may have reordered.
            let kept = |n: usize| match mix {
                0 => true,
                1 => false,
                _ => (n * 7 + i + mix).is_multiple_of(2),
            };
            let mut state = durable.clone();
            let survivors = pending.iter().enumerate().filter(|(n, _)| kept(*n));
            survivors.for_each(|(_, op)| op.apply(&mut state));
            checked += 1;
            if !has_table(&state) {
                without_table += 1;
                continue;
            }
            let same = |whole: &[u8], from: usize, to: usize| state[from..to] == whole[from..to];
            let is_new = same(&new, 8192, new.len());
            // While the old disk is being erased only its critical ranges may be gone.
            let is_old = same(&old, MIB, old.len() - MIB);
            assert!(is_new || is_old, "after operation {i}, mix {mix}: {op:?}");
        }
    }
    assert!(
        without_table * 10 > checked * 9,
        "{without_table} of {checked} states have no table"
    );
}

#[test]
fn a_torn_last_write_leaves_a_whole_disk_or_none() {
    let (old, new) = (gpt_disk(8 * MIB, 1), gpt_disk(8 * MIB, 2));
    let view = view_of(&new);
    let log = Recorded::default();
    let target = RecordTarget::new(Arc::new(MemoryTarget::new("t", old.clone())), log.clone());
    restore(&view, &plan_for(&view, 8 * MIB).unwrap(), &target).unwrap();
    let ops: Vec<Op> = log.ops();
    let last = ops
        .iter()
        .rposition(|op| matches!(op, Op::Write(..)))
        .unwrap();
    let Op::Write(ByteOffset(0), head) = &ops[last] else {
        panic!("{:?}", ops[last])
    };
    let mut before = old;
    ops[..last].iter().for_each(|op| op.apply(&mut before));
    assert!(!has_table(&before));
    for sectors in 0..=head.len() / 512 {
        let mut torn = before.clone();
        torn[..sectors * 512].copy_from_slice(&head[..sectors * 512]);
        if has_table(&torn) {
            assert!(
                torn[head.len()..] == new[head.len()..],
                "all the rest is there"
            );
        }
    }
}

#[test]
fn every_failing_write_or_flush_ends_in_an_error_without_a_table() {
    WAYS.into_iter().for_each(no_failure_leaves_a_table);
}

fn no_failure_leaves_a_table(way: Way) {
    const EIO: i32 = 5;
    let (old, new) = (gpt_disk(8 * MIB, 1), gpt_disk(8 * MIB, 2));
    let plan = plan_for(&view_of(&new), 8 * MIB).unwrap();
    let mut failed = 0;
    for nth in (1..).step_by(3) {
        let memory = Arc::new(MemoryTarget::new("t", old.clone()));
        let faults = Faults::new(vec![Fault::nth_write(nth, EIO, true)]);
        match way(&new, &plan, &FaultTarget::new(memory.clone(), faults)) {
            Ok(_) => {
                assert!(memory.snapshot() == new);
                break;
            }
            Err(e) => assert_eq!(
                (e.kind(), e.os_error()),
                (ErrorKind::Destination, Some(EIO))
            ),
        }
        failed += 1;
        // The very first write is the one that erases the old table.
        assert!(nth == 1 || !has_table(&memory.snapshot()), "write {nth}");
    }
    assert!(failed > 20, "{failed} failures were tried");
    for nth in 1..=4 {
        let memory = Arc::new(MemoryTarget::new("t", old.clone()));
        let faults = Faults::new(vec![Fault::nth_flush(nth, EIO, false)]);
        let error = way(&new, &plan, &FaultTarget::new(memory, faults)).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Destination,
            "a failed flush is never ignored"
        );
    }
}

/// A medium that says yes and keeps one sector as it was.
struct Liar(MemoryTarget, Extent);

impl BlockTarget for Liar {
    fn name(&self) -> &str {
        "liar"
    }
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
    fn write_at(&self, offset: ByteOffset, data: &[u8]) -> Result<()> {
        let mut kept = vec![0; to_usize(self.1.len.0)];
        self.0.read_back(self.1.start, &mut kept)?;
        self.0.write_at(offset, data)?;
        self.0.write_at(self.1.start, &kept)
    }
    fn write_zeros(&self, extent: Extent) -> Result<Zeroing> {
        self.0.write_zeros(extent)
    }
    fn discard(&self, extent: Extent) -> Result<bool> {
        self.0.discard(extent)
    }
    fn flush(&self) -> Result<()> {
        self.0.flush()
    }
    fn read_back(&self, offset: ByteOffset, buf: &mut [u8]) -> Result<()> {
        self.0.read_back(offset, buf)
    }
}

#[test]
fn a_medium_that_does_not_hold_what_it_was_given_is_found_out() {
    let disk = gpt_disk(8 * MIB, 2);
    let plan = plan_for(&view_of(&disk), 8 * MIB).unwrap();
    let places = [70 * 512, 2 * MIB, 8 * MIB - 512];
    for (at, way) in places.into_iter().flat_map(|at| WAYS.map(|way| (at, way))) {
        let bad = Extent {
            start: ByteOffset(to_u64(at)),
            len: ByteLen(512),
        };
        let target = Liar(MemoryTarget::new("liar", vec![0xA5; 8 * MIB]), bad);
        let error = way(&disk, &plan, &target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Destination, "{error}");
        assert!(!has_table(&target.0.snapshot()), "sector at {at}");
    }
}

#[test]
fn a_larger_target_gets_its_table_at_its_true_end() {
    let disk = gpt_disk(8 * MIB, 3);
    let view = view_of(&disk);
    for len in [8 * MIB + 512, 9 * MIB, 24 * MIB + 4096] {
        // What was there before: another disk, with another table at the very end.
        let target = MemoryTarget::new("target", gpt_disk(len, 9));
        restore(&view, &plan_for(&view, len).unwrap(), &target).unwrap();
        let now = target.snapshot();
        let (before, after) = (layout_of(&disk), layout_of(&now));
        assert_eq!(after.partitions, before.partitions);
        assert_eq!(after.disk_id, before.disk_id);
        assert!(after.certain, "{:?}", after.findings);
        assert!(now[MIB..7 * MIB] == disk[MIB..7 * MIB]);
        let header = &now[len - 512..];
        assert_eq!(
            &header[..8],
            b"EFI PART",
            "the backup header is the last sector"
        );
    }
}

#[test]
fn a_smaller_target_is_taken_when_only_free_space_is_cut_off() {
    let disk = gpt_disk(12 * MIB, 4);
    let view = view_of(&disk);
    // The partition ends at 9 MiB, the backup GPT needs 33 sectors.
    let smallest = 9 * MIB + 33 * 512;
    let target = MemoryTarget::new("target", vec![0xA5; smallest]);
    restore(&view, &plan_for(&view, smallest).unwrap(), &target).unwrap();
    let after = layout_of(&target.snapshot());
    assert_eq!(after.partitions, layout_of(&disk).partitions);
    assert!(after.certain, "{:?}", after.findings);
    let error = plan_for(&view, smallest - 512).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    // Something that no table knows of lies behind the end.
    let mut hidden = disk;
    hidden[11 * MIB + 5] = 1;
    let error = plan_for(&view_of(&hidden), 10 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains(&(11 * MIB + 5).to_string()),
        "{error}"
    );
}

#[test]
fn one_partition_goes_into_another_place_and_nothing_else_changes() {
    let disk = gpt_disk(8 * MIB, 5);
    // Off the block grid on both ends, and at another place on the target.
    for (start, len) in [(MIB, 4 * MIB), (63 * 512, 3 * MIB + 512), (MIB + 512, 1024)] {
        let source = Extent {
            start: ByteOffset(to_u64(start)),
            len: ByteLen(to_u64(len)),
        };
        let before = gpt_disk(16 * MIB, 6);
        let targets = WAYS.map(|_| MemoryTarget::new("target", before.clone()));
        let room = Extent {
            start: ByteOffset(to_u64(5 * MIB)),
            len: ByteLen(to_u64(6 * MIB)),
        };
        let plan = plan_partition(source, BlockSize::new(4096).unwrap(), room).unwrap();
        let mut expected = before;
        expected[5 * MIB..5 * MIB + len].copy_from_slice(&disk[start..start + len]);
        for (way, target) in WAYS.iter().zip(&targets) {
            way(&disk, &plan, target).unwrap();
            assert!(target.snapshot() == expected, "partition at {start}");
        }
    }
}
