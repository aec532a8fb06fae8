//! What block size and frame size cost and bring: image sizes, speeds and read amplification on a
//! disk and the same disk a day later. The figures of `docs/adr/0002-block-and-frame-size.md` come
//! from here.
//!
//! ```text
//! cargo run --release --example measure_frames -- DISK DISK-A-DAY-LATER [WORD…]
//! ```
//!
//! Both are files of equal length. Words like `64+1024` ask for these block and frame sizes (KiB)
//! instead of the usual ones.
//!
//! The model: a frame is an aligned window of the disk. It holds the window's non-zero blocks (full
//! image) or its changed non-zero blocks (increment), one behind the other, as one zstd frame, or
//! raw where zstd saves less than 1/64. A frame has a header of 64 bytes; each stored block has a
//! digest of 32 bytes in the table.
//!
//! Sizes are of the whole disk. Speeds are the median of [`ROUNDS`] passes over every
//! [`TIMED`]th piece of the disk, everything in memory, in MiB of block data for each second by the
//! clock and, behind a slash, for each second of processor time: the latter says what a machine
//! gives that does nothing else, times the cores. Within each piece all variants take turns, so
//! that a disturbance hits all of them.

use crossbeam_channel::{Receiver, Sender};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// How much of the disks is in memory at a time.
const PIECE: usize = 128 << 20;
/// One piece in so many is timed.
const TIMED: usize = 4;
/// How often a timed piece is gone through.
const ROUNDS: usize = 3;

const KIB: usize = 1024;
const BLOCKS: [usize; 3] = [64 * KIB, 128 * KIB, 256 * KIB];
const FRAMES: [usize; 4] = [256 * KIB, 512 * KIB, 1024 * KIB, 2048 * KIB];
const LEVELS: [i32; 2] = [1, 3];

const HEADER: usize = 64;
const DIGEST: usize = 32;

/// A way to store the disk.
#[derive(Clone, Copy)]
struct Shape {
    block: usize,
    frame: usize,
    level: i32,
}

/// One line of the table: a shape and what came of it.
struct Variant {
    shape: Shape,
    full: Size,
    increment: Size,
    /// The increment with every frame filled up, wherever its blocks lie.
    packed: Size,
    /// Compress with one thread and with two, hash and compress with two, decode with two.
    speeds: [Speed; 4],
}

#[derive(Default)]
struct Size {
    input: usize,
    frames: usize,
    stored: usize,
    blocks: usize,
    /// Sum of input length times stored length, for the mean that a random read sees.
    weighted: f64,
}

/// Seconds of each round over the same bytes, by the clock and of processor time.
#[derive(Default)]
struct Speed {
    bytes: usize,
    clock: [f64; ROUNDS],
    processor: [f64; ROUNDS],
}

#[derive(Clone, Copy)]
enum Work {
    Compress,
    HashAndCompress,
    Decode,
}

/// The blocks of one frame; `encoded` is what is stored, once it has been compressed.
struct Frame {
    input: Vec<u8>,
    encoded: Vec<u8>,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(old), Some(new)) = (args.next(), args.next()) else {
        return Err("usage: measure_frames DISK DISK-A-DAY-LATER [BLOCK+FRAME in KiB…]".into());
    };
    let (old, new) = (File::open(old)?, File::open(new)?);
    let len = usize::try_from(old.metadata()?.len())?;
    if usize::try_from(new.metadata()?.len())? != len {
        return Err("the two disks differ in length".into());
    }
    let mut variants = variants(&args.collect::<Vec<_>>())?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (number, start) in (0..len).step_by(PIECE).enumerate() {
        for (file, bytes) in [(&old, &mut before), (&new, &mut after)] {
            bytes.resize(PIECE.min(len - start), 0);
            file.read_exact_at(bytes, u64::try_from(start)?)?;
        }
        eprintln!("{} of {} MiB", start >> 20, len >> 20);
        let rounds = ROUNDS * usize::from(number.is_multiple_of(TIMED));
        measure_piece(&mut variants, &before, &after, rounds)?;
    }
    print_sizes(&variants);
    println!();
    print_speeds(&variants);
    Ok(())
}

/// The variants that `words` name, or all of [`BLOCKS`] and [`FRAMES`]; each at every level.
fn variants(words: &[String]) -> Result<Vec<Variant>> {
    let pair = |block| FRAMES.map(|frame| (block, frame));
    let all = || BLOCKS.into_iter().flat_map(pair).collect();
    let asked = || -> Result<Vec<_>> { words.iter().map(|word| sizes_of(word)).collect() };
    let sizes: Vec<(usize, usize)> = if words.is_empty() { all() } else { asked()? };
    let shapes = LEVELS.iter().flat_map(|level| {
        let shape = |(block, frame)| Shape {
            block,
            frame,
            level: *level,
        };
        sizes.iter().copied().map(shape)
    });
    Ok(shapes.map(Variant::new).collect())
}

/// Block and frame size in bytes of a word like `64+1024`.
fn sizes_of(word: &str) -> Result<(usize, usize)> {
    let (block, frame) = word
        .split_once('+')
        .ok_or("want BLOCK+FRAME, like 64+1024")?;
    let (block, frame) = (block.parse::<usize>()? * KIB, frame.parse::<usize>()? * KIB);
    if block == 0 || !frame.is_multiple_of(block) || !PIECE.is_multiple_of(frame.max(1)) {
        return Err("a block divides a frame, and a frame 128 MiB".into());
    }
    Ok((block, frame))
}

/// Adds the piece `before`, which is `after` a day later, to the figures of all variants.
fn measure_piece(
    variants: &mut [Variant],
    before: &[u8],
    after: &[u8],
    rounds: usize,
) -> Result<()> {
    for round in 0..rounds.max(1) {
        for v in &mut *variants {
            let mut frames = windows(before, v.shape, |_, block| !is_zero(block));
            if rounds > 0 {
                let works = [
                    (Work::Compress, 1),
                    (Work::Compress, 2),
                    (Work::HashAndCompress, 2),
                    (Work::Decode, 2),
                ];
                for ((work, threads), speed) in works.into_iter().zip(&mut v.speeds) {
                    let (start, used) = (Instant::now(), processor_seconds()?);
                    frames = run(frames, v.shape, work, threads)?;
                    speed.clock[round] += start.elapsed().as_secs_f64();
                    speed.processor[round] += processor_seconds()? - used;
                    if round == 0 {
                        speed.bytes += frames.iter().map(|f| f.input.len()).sum::<usize>();
                    }
                }
            }
            if round == 0 {
                measure_sizes(v, frames, before, after)?;
            }
        }
    }
    Ok(())
}

fn measure_sizes(v: &mut Variant, full: Vec<Frame>, before: &[u8], after: &[u8]) -> Result<()> {
    let shape = v.shape;
    let encode = |frames| run(frames, shape, Work::Compress, 2);
    let changed =
        |at: usize, block: &[u8]| block != &before[at..at + block.len()] && !is_zero(block);
    let increment = windows(after, shape, changed);
    let all: Vec<u8> = increment
        .iter()
        .flat_map(|f| f.input.iter().copied())
        .collect();
    let packed = all.chunks(shape.frame).map(|input| frame(input.to_vec()));
    let (full, packed) = (encode(full)?, encode(packed.collect())?);
    let increment = encode(increment)?;
    v.full.add(&full, shape.block);
    v.increment.add(&increment, shape.block);
    v.packed.add(&packed, shape.block);
    Ok(())
}

/// The frames of a piece: of each aligned window the blocks that `wanted` says, from their offset
/// and bytes.
fn windows(piece: &[u8], shape: Shape, wanted: impl Fn(usize, &[u8]) -> bool) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (number, window) in piece.chunks(shape.frame).enumerate() {
        let mut input = Vec::new();
        for (block, bytes) in window.chunks(shape.block).enumerate() {
            if wanted(number * shape.frame + block * shape.block, bytes) {
                input.extend_from_slice(bytes);
            }
        }
        if !input.is_empty() {
            frames.push(frame(input));
        }
    }
    frames
}

/// Its second buffer is touched here, so that no page faults are timed.
fn frame(input: Vec<u8>) -> Frame {
    let encoded = input.clone();
    Frame { input, encoded }
}

fn is_zero(block: &[u8]) -> bool {
    let or = |part: &[u8]| part.iter().fold(0, |all, byte| all | byte);
    block.chunks(4096).all(|part| or(part) == 0)
}

/// Does `work` on every frame with so many threads, each taking the next frame when it is free.
fn run(frames: Vec<Frame>, shape: Shape, work: Work, threads: usize) -> Result<Vec<Frame>> {
    let (give, jobs) = crossbeam_channel::bounded(frames.len());
    let (put, done) = crossbeam_channel::bounded(frames.len());
    for frame in frames {
        give.send(frame)?;
    }
    drop(give);
    std::thread::scope(|scope| {
        let worker = || scope.spawn(|| worker(&jobs, &put, shape, work));
        let workers: Vec<_> = (0..threads).map(|_| worker()).collect();
        for worker in workers {
            worker.join().map_err(|_| "a worker panicked")??;
        }
        Ok(done.try_iter().collect())
    })
}

fn worker(jobs: &Receiver<Frame>, done: &Sender<Frame>, shape: Shape, work: Work) -> Result<()> {
    let mut encoder = zstd::bulk::Compressor::new(shape.level)?;
    let mut decoder = zstd::bulk::Decompressor::new()?;
    let mut scratch = Vec::new();
    for mut frame in jobs {
        let Frame { input, encoded } = &mut frame;
        if matches!(work, Work::HashAndCompress) {
            for bytes in input.chunks(shape.block) {
                std::hint::black_box(blake3::hash(bytes));
            }
        }
        match work {
            Work::Compress | Work::HashAndCompress => {
                scratch.resize(zstd::zstd_safe::compress_bound(input.len()), 0);
                let len = encoder.compress_to_buffer(input, &mut scratch[..])?;
                let saves = len <= input.len() - input.len() / 64;
                encoded.clear();
                encoded.extend_from_slice(if saves { &scratch[..len] } else { input });
            }
            Work::Decode if encoded.len() < input.len() => {
                let len = decoder.decompress_to_buffer(encoded, &mut input[..])?;
                assert_eq!(len, input.len(), "decoding gives the blocks back");
            }
            Work::Decode => input.copy_from_slice(encoded),
        }
        done.send(frame)?;
    }
    Ok(())
}

impl Variant {
    fn new(shape: Shape) -> Variant {
        Variant {
            shape,
            full: Size::default(),
            increment: Size::default(),
            packed: Size::default(),
            speeds: Default::default(),
        }
    }
}

impl Size {
    fn add(&mut self, frames: &[Frame], block: usize) {
        for Frame { input, encoded } in frames {
            self.input += input.len();
            self.frames += 1;
            self.stored += encoded.len();
            self.blocks += input.len().div_ceil(block);
            self.weighted += float(input.len()) * float(encoded.len());
        }
    }

    fn overhead(&self) -> usize {
        self.frames * HEADER + self.blocks * DIGEST
    }

    fn mib(&self) -> f64 {
        mib(self.stored + self.overhead())
    }
}

impl Speed {
    /// MiB a second of the median round, by the clock and of processor time.
    fn rates(&self) -> [f64; 2] {
        [self.clock, self.processor].map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            mib(self.bytes) / seconds[ROUNDS / 2]
        })
    }
}

/// What all threads of this process have used so far.
fn processor_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = usage.user_time() + usage.system_time();
    Ok(used.num_microseconds() as f64 / 1e6)
}

fn float(count: usize) -> f64 {
    count as f64
}

fn mib(bytes: usize) -> f64 {
    float(bytes) / float(1 << 20)
}

fn print_sizes(variants: &[Variant]) {
    println!(
        "| zstd | block KiB | frame KiB | non-zero MiB | full MiB | of it overhead | changed MiB \
         | increment MiB | of it overhead | packed MiB | random read KiB |"
    );
    println!("|{}", "---:|".repeat(11));
    for v in variants {
        let Shape {
            block,
            frame,
            level,
        } = v.shape;
        let read = v.full.weighted / float(v.full.input) / float(KIB);
        println!(
            "| {level} | {} | {} | {:.1} | {:.1} | {:.2} | {:.1} | {:.1} | {:.2} | {:.1} | {read:.0} |",
            block / KIB,
            frame / KIB,
            mib(v.full.input),
            v.full.mib(),
            mib(v.full.overhead()),
            mib(v.increment.input),
            v.increment.mib(),
            mib(v.increment.overhead()),
            v.packed.mib(),
        );
    }
}

fn print_speeds(variants: &[Variant]) {
    println!(
        "| zstd | block KiB | frame KiB | compress, 1 thread | 2 threads \
         | hash + compress, 2 threads | decode, 2 threads |"
    );
    println!("|{}", "---:|".repeat(7));
    for v in variants {
        let Shape {
            block,
            frame,
            level,
        } = v.shape;
        print!("| {level} | {} | {} |", block / KIB, frame / KIB);
        for [clock, processor] in v.speeds.each_ref().map(Speed::rates) {
            print!(" {clock:.0} / {processor:.0} |");
        }
        println!();
    }
}
