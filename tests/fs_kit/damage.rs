//! Damage to a capsule: decided by records of 16 bytes, so that a seed or a fuzzer can choose it.

use diskstrata::base::ByteLen;
use diskstrata::block::{BlockSource, Capsule};

/// What decides one damage. Every record is one.
pub(crate) type Record = [u8; 16];

/// One damage. Positions count the kept bytes of the capsule, as if they lay side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Damage {
    /// One bit turned.
    Bit { at: usize, bit: u32 },
    /// These bytes instead.
    Bytes { at: usize, bytes: Vec<u8> },
    /// An aligned number of 1, 2, 4 or 8 bytes set to something that invites mistakes.
    Number {
        at: usize,
        width: usize,
        big_endian: bool,
        value: Value,
    },
    /// Two blocks in each other's place.
    Swap { a: usize, b: usize, block: usize },
    /// A block over another one.
    Copy {
        from: usize,
        to: usize,
        block: usize,
    },
    /// A block full of one byte.
    Fill { at: usize, block: usize, byte: u8 },
    /// A kept piece that ends early; zeros follow.
    Cut { at: usize },
    /// A disk of another length.
    Length(u64),
}

/// What a number is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    Zero,
    One,
    Max,
    HalfOfMax,
    OneMore,
    OneLess,
    Twice,
    Half,
}

const VALUES: [Value; 8] = [
    Value::Zero,
    Value::One,
    Value::Max,
    Value::HalfOfMax,
    Value::OneMore,
    Value::OneLess,
    Value::Twice,
    Value::Half,
];
const WIDTHS: [usize; 4] = [1, 2, 4, 8];
/// The longest disk: 1 EiB.
const LONGEST: u64 = 1 << 60;

/// `capsule` with the damage that `records` decide, one after another, and what it is.
pub(crate) fn damaged(capsule: &Capsule, records: &[Record]) -> (Capsule, Vec<Damage>) {
    let mut out = capsule.clone();
    let mut all = Vec::new();
    for record in records {
        if out.pieces().is_empty() {
            break;
        }
        let damage = decide(&out, record);
        out = apply(out, &damage);
        all.push(damage);
    }
    (out, all)
}

fn decide(capsule: &Capsule, record: &Record) -> Damage {
    let number = |at: usize| {
        let bytes = record[at..at + 4].try_into().expect("four bytes");
        usize::try_from(u32::from_le_bytes(bytes)).expect("32 bits fit")
    };
    let detail = usize::from(record[2]);
    let block = if record[3] & 1 == 0 { 512 } else { 4096 };
    let at = position(capsule, record[1], number(4));
    let other = position(capsule, record[1] >> 4, number(8));
    match record[0] % 16 {
        0..=3 => Damage::Bit {
            at,
            bit: u32::from(record[2]) % 8,
        },
        4 => Damage::Bytes {
            at,
            bytes: record[8..8 + 1 + detail % 8].to_vec(),
        },
        5..=9 => Damage::Number {
            at,
            width: WIDTHS[detail % 4],
            big_endian: record[3] & 2 != 0,
            value: VALUES[usize::from(record[3]) >> 2 & 7],
        },
        10 => Damage::Swap {
            a: at,
            b: other,
            block,
        },
        11 => Damage::Copy {
            from: at,
            to: other,
            block,
        },
        12 => Damage::Fill { at, block, byte: 0 },
        13 => Damage::Fill {
            at,
            block,
            byte: 0xFF,
        },
        14 => Damage::Cut { at },
        _ => Damage::Length(length(capsule, record[2], number(4))),
    }
}

/// A kept byte. Some ways to choose prefer the starts of pieces, where headers are, and bytes that
/// are not zero, because most of a bitmap says nothing.
fn position(capsule: &Capsule, how: u8, number: usize) -> usize {
    let pieces = capsule.pieces();
    let lens = || pieces.iter().map(|(_, bytes)| bytes.len());
    let total: usize = lens().sum();
    match how % 4 {
        0 => number % total,
        1 | 2 => {
            let piece = (number >> 16) % pieces.len();
            let start: usize = lens().take(piece).sum();
            let near = if how % 4 == 1 { 256 } else { 4096 };
            start + (number & 0xFFFF) % pieces[piece].1.len().min(near)
        }
        _ => {
            let at = number % total;
            let bytes = pieces.iter().flat_map(|(_, bytes)| bytes);
            let ahead = bytes.skip(at).take(1 << 16).position(|b| *b != 0);
            at + ahead.unwrap_or(0)
        }
    }
}

fn length(capsule: &Capsule, how: u8, number: usize) -> u64 {
    let len = capsule.len().0;
    let wide = u64::try_from(number).expect("32 bits fit");
    let small = [1, 511, 512, 4096, 65_536, 1 << 20][number % 6];
    match how % 8 {
        0 => wide.saturating_mul(512) % len.max(1),
        1 => len.saturating_sub(small),
        2 => (wide % 300) * 512,
        3 => capsule.pieces()[number % capsule.pieces().len()].0 + small,
        4 => len.saturating_add(small),
        5 => len.saturating_mul(2 + wide % 7),
        6 => 1 << (20 + wide % 41),
        _ => LONGEST - wide % 4096,
    }
    .min(LONGEST)
}

fn apply(mut capsule: Capsule, damage: &Damage) -> Capsule {
    match *damage {
        Damage::Length(len) => return capsule.with_len(ByteLen(len)),
        Damage::Bit { at, bit } => change(&mut capsule, at, 1, 1, |b| b[0] ^= 1 << bit),
        Damage::Bytes { at, ref bytes } => change(&mut capsule, at, bytes.len(), 1, |b| {
            let len = b.len();
            b.copy_from_slice(&bytes[..len]);
        }),
        Damage::Number {
            at,
            width,
            big_endian,
            value,
        } => change(&mut capsule, at, width, width, |b| {
            set(b, big_endian, value);
        }),
        Damage::Fill { at, block, byte } => {
            change(&mut capsule, at, block, block, |b| b.fill(byte));
        }
        Damage::Cut { at } => change(&mut capsule, at, usize::MAX, 1, |b| b.fill(0)),
        Damage::Copy { from, to, block } => {
            let bytes = look(&mut capsule, from, block);
            replace(&mut capsule, to, block, &bytes);
        }
        Damage::Swap { a, b, block } => {
            let (first, second) = (look(&mut capsule, a, block), look(&mut capsule, b, block));
            replace(&mut capsule, a, block, &second);
            replace(&mut capsule, b, block, &first);
        }
    }
    capsule
}

fn set(bytes: &mut [u8], big_endian: bool, value: Value) {
    let flip = |bytes: &mut [u8]| {
        if big_endian {
            bytes.reverse();
        }
    };
    flip(bytes);
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let old = u64::from_le_bytes(wide);
    let new = match value {
        Value::Zero => 0,
        Value::One => 1,
        Value::Max => u64::MAX,
        Value::HalfOfMax => u64::MAX >> (65 - 8 * bytes.len()),
        Value::OneMore => old.wrapping_add(1),
        Value::OneLess => old.wrapping_sub(1),
        Value::Twice => old << 1,
        Value::Half => old >> 1,
    };
    bytes.copy_from_slice(&new.to_le_bytes()[..bytes.len()]);
    flip(bytes);
}

/// Lets `with` change `len` kept bytes around `at`: from where the disk is aligned to `align`, and
/// no more than the piece has.
fn change(
    capsule: &mut Capsule,
    at: usize,
    len: usize,
    align: usize,
    with: impl FnOnce(&mut [u8]),
) {
    let Some((piece, within)) = place(capsule, at) else {
        return;
    };
    let offset = usize::try_from(capsule.pieces()[piece].0).unwrap_or(0);
    let start = within.saturating_sub((offset + within) % align);
    if let Some(bytes) = capsule.pieces_mut().nth(piece) {
        let end = start.saturating_add(len).min(bytes.len());
        with(&mut bytes[start..end]);
    }
}

fn look(capsule: &mut Capsule, at: usize, block: usize) -> Vec<u8> {
    let mut found = Vec::new();
    change(capsule, at, block, block, |b| found = b.to_vec());
    found
}

fn replace(capsule: &mut Capsule, at: usize, block: usize, bytes: &[u8]) {
    change(capsule, at, block, block, |b| {
        let len = b.len().min(bytes.len());
        b[..len].copy_from_slice(&bytes[..len]);
    });
}

/// The piece that holds the kept byte `at`, and where in it.
fn place(capsule: &Capsule, at: usize) -> Option<(usize, usize)> {
    let mut within = at;
    for (piece, (_, bytes)) in capsule.pieces().iter().enumerate() {
        if within < bytes.len() {
            return Some((piece, within));
        }
        within -= bytes.len();
    }
    None
}
