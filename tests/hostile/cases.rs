//! The files, and what has to become of each.

use crate::chains;
use crate::forge::{
    BLOCK, Forge, Frame, Payload, content, header, keep, len32, part_with, parts, prelude_with,
    put, putting,
};
use crate::kit::bytes::Stream;
use crate::kit::records::{RECORD, number};

/// What has to become of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It cannot be opened.
    Refused,
    /// It can be opened, and a look at it finds damage. Nothing of it is restored, or all of it, and rightly.
    Damaged,
    /// It is an image; only what it says is odd.
    Image,
}

/// A folder of files, one of which is asked for.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) fate: Fate,
    /// The disk of an image.
    pub(crate) disk: Vec<u8>,
    /// Whether a quick look is enough to find the damage.
    pub(crate) quick: bool,
}

/// The file that is asked for.
pub(crate) const ASKED: &str = "hostile.strata";

impl Case {
    pub(crate) fn new(name: impl Into<String>, bytes: Vec<u8>, fate: Fate) -> Case {
        Case {
            name: name.into(),
            files: vec![(ASKED.to_owned(), bytes)],
            fate,
            disk: Vec::new(),
            quick: true,
        }
    }

    fn of(name: impl Into<String>, forge: &Forge, fate: Fate) -> Case {
        Case {
            disk: forge.disk(),
            ..Case::new(name, forge.build(), fate)
        }
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let groups = [
        headers, trailers, records, leaves, nodes, frames, compressed, json, words, tables, split,
        encrypted,
    ];
    let mut all: Vec<Case> = groups.into_iter().flat_map(|group| group()).collect();
    all.extend(chains::all());
    let mut names: Vec<&str> = all.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len(), "each case has a name of its own");
    all
}

/// The small image with `bytes` at `at` of its header, in both places.
fn header_with(at: usize, bytes: &[u8]) -> Forge {
    let mut forge = Forge::small();
    put(&mut forge.header, at, bytes);
    forge
}

/// Among them what an attack on a partition cloner began with: block size, number of blocks, length of the
/// disk; the number of what is used and a short file are in `trailers`.
fn headers() -> Vec<Case> {
    let of = |name: &str, at: usize, bytes: &[u8], fate| {
        Case::of(format!("header: {name}"), &header_with(at, bytes), fate)
    };
    let len = |name: &str, len: u64, fate| of(name, 112, &len.to_le_bytes(), fate);
    use Fate::{Damaged, Refused};
    let mut all = vec![
        of("another magic", 0, b"partcln\n", Refused),
        of("version 0", 8, &[0, 0], Refused),
        of("version 65535", 8, &[255, 255], Refused),
        of("its own length is 127", 10, &[127, 0], Refused),
        of("its own length is 65535", 10, &[255, 255], Refused),
        of("sequence number 0", 12, &[0; 4], Refused),
        of("a feature nobody knows", 16, &[0, 0, 0, 128], Refused),
        of(
            "a place of the parent, and no parent",
            24,
            &[1, 0, 0, 0],
            Refused,
        ),
        of("reserved bytes", 28, &[0, 0, 1, 0], Refused),
        of("no id", 32, &[0; 16], Refused),
        of("no set", 48, &[0; 16], Refused),
        of("a parent, and full", 64, &[7; 16], Refused),
        of("a parent's digest, and full", 80, &[7; 32], Refused),
        len("a disk of no bytes", 0, Refused),
        len("a disk of 2^56 + 1 bytes", (1 << 56) + 1, Refused),
        len("a disk of 2^63 bytes", 1 << 63, Refused),
        len("a disk of 2^64 - 1 bytes", u64::MAX, Refused),
        len(
            "a disk of 2^64 - 7 bytes, which wraps when rounded",
            u64::MAX - 6,
            Refused,
        ),
        of("kind 0", 122, &[0], Refused),
        of("kind 4", 122, &[4], Refused),
        of("incremental, and no parent", 122, &[2], Refused),
        of("the last reserved byte", 123, &[1], Refused),
        of("windows of 2^7 blocks", 121, &[7], Refused),
        of("windows of 2^255 blocks", 121, &[255], Refused),
        of("windows of 64 MiB", 120, &[20, 6], Refused),
        // A table of one leaf does not go with these.
        len("a disk of 64 PiB", 1 << 56, Damaged),
        len("one block more than there are", 9 * 4096, Damaged),
        len("one block less than there are", 7 * 4096, Damaged),
        of("another block size than the table's", 120, &[13], Damaged),
        of("windows of one block", 121, &[0], Damaged),
    ];
    // Block sizes of 1, 2, 8, 2^21, 2^31 and 2^255 bytes.
    for log2 in [0u8, 1, 3, 21, 31, 63, 64, 255] {
        all.push(of(
            &format!("blocks of 2^{log2} bytes"),
            120,
            &[log2],
            Refused,
        ));
    }
    let mut itself = Forge::small();
    put(&mut itself.header, 12, &[2, 0, 0, 0]);
    put(&mut itself.header, 24, &[1, 0, 0, 0]);
    put(&mut itself.header, 64, &[0x1D; 16]);
    put(&mut itself.header, 80, &[9; 32]);
    itself.header[122] = 2;
    all.push(Case::of("header: its own parent", &itself, Refused));
    let mut other = Forge::small();
    other.header_again = Some(header(16, 2));
    all.push(Case::of(
        "header: another one in the trailer",
        &other,
        Refused,
    ));
    let mut known = Forge::small();
    put(&mut known.header, 20, &[255; 4]);
    all.push(Case::of(
        "header: features that need not be known",
        &known,
        Fate::Image,
    ));
    let mut last = Forge::small();
    put(&mut last.header, 12, &[255; 4]);
    all.push(Case::of(
        "header: sequence number 2^32 - 1",
        &last,
        Fate::Image,
    ));
    all
}

fn trailers() -> Vec<Case> {
    let of = |name: &str, at: usize, bytes: Vec<u8>, fate| {
        let forge = Forge {
            trailer: putting(at, bytes),
            ..Forge::small()
        };
        Case::of(format!("trailer: {name}"), &forge, fate)
    };
    let record = |at: u64, len: u32| [&at.to_le_bytes()[..], &len.to_le_bytes()].concat();
    use Fate::{Damaged, Refused};
    let mut all = vec![
        of("it says that it stands elsewhere", 8, vec![1; 8], Refused),
        of("reserved bytes", 300, vec![1], Refused),
        of("more reserved bytes", 157, vec![1], Refused),
        of("info at 2^63", 224, record(1 << 63, 100), Refused),
        of("info at 2^64 - 1", 224, record(u64::MAX, 100), Refused),
        of(
            "info of 2^32 - 1 bytes",
            224,
            record(128, u32::MAX),
            Refused,
        ),
        of("info in the header", 224, record(0, 80), Refused),
        of("info in the trailer", 224, record(40_000, 512), Refused),
        of("tables where info is", 236, record(128, 43), Refused),
        of(
            "the top page at 2^64 - 7",
            144,
            record(u64::MAX - 6, 100),
            Damaged,
        ),
        of("the top page in info", 144, record(128, 43), Damaged),
        of("a top page of 4 GiB", 144, record(0, u32::MAX), Damaged),
        of("another digest of the top page", 160, vec![1; 32], Damaged),
        of("2^64 - 1 frames", 260, vec![255; 8], Damaged),
        of("no frame", 260, vec![0; 8], Damaged),
    ];
    let root = Forge {
        trailer_sealed: putting(192, [1; 32]),
        ..Forge::small()
    };
    all.push(Case::of("trailer: another root digest", &root, Refused));
    let file = Forge::small().build();
    let short = |name: &str, bytes: Vec<u8>| Case::new(format!("file: {name}"), bytes, Refused);
    let (head, tail) = (&file[..128], &file[file.len() - 512..]);
    all.push(short(
        "header and trailer and nothing between",
        [head, tail].concat(),
    ));
    all.push(short("a header", head.to_vec()));
    all.push(short("a trailer", tail.to_vec()));
    all.push(short("nothing", Vec::new()));
    all.push(short(
        "one byte less than any image",
        [head, &tail[1..]].concat(),
    ));
    all.push(short("twice the same", [&file[..], &file].concat()));
    // What a partition cloner of another name would begin with.
    let mut image = b"partclone-image".to_vec();
    image.resize(4096, 0);
    all.push(short("an image of another program", image));
    all
}

fn records() -> Vec<Case> {
    let info = |name: &str, at: usize, bytes: Vec<u8>| {
        let forge = Forge {
            info_record: putting(at, bytes),
            ..Forge::small()
        };
        Case::of(format!("record of info: {name}"), &forge, Fate::Refused)
    };
    let mut all = vec![
        info("another magic", 0, b"sRed".to_vec()),
        info("kind 4", 4, vec![4]),
        info("codec 2", 5, vec![2]),
        info("reserved bytes", 6, vec![1]),
        info("of another image", 8, vec![1; 8]),
        info("section 2^64 - 1", 16, vec![255; 8]),
        info("a mask", 24, vec![1]),
        info("2^32 - 1 bytes stored", 32, vec![255; 4]),
        info("2^32 - 1 bytes decoded", 36, vec![255; 4]),
        info("16 MiB decoded", 36, vec![0, 0, 0, 1]),
        info("another checksum of its payload", 40, vec![1; 4]),
    ];
    let frame = |name: &str, at: usize, bytes: &[u8]| {
        let mut forge = Forge::small();
        forge.leaves[0].frames[0].edit = putting(at, bytes);
        Case::of(format!("record of a frame: {name}"), &forge, Fate::Damaged)
    };
    all.extend([
        frame("a page", 4, &[2]),
        frame("codec 255", 5, &[255]),
        frame("of another image", 8, &[1; 8]),
        frame("no block", 24, &[0]),
        frame("a block past the window", 24, &[31]),
        frame("all blocks there are", 24, &[255; 8]),
        frame("no whole window", 16, &[1]),
        frame("block 2^64 - 1", 16, &[255; 8]),
        frame("2^32 - 1 bytes stored", 32, &[255; 4]),
        frame("2^32 - 1 bytes decoded", 36, &[255; 4]),
        frame("no byte decoded", 36, &[0; 4]),
    ]);
    let page = |name: &str, at: usize, bytes: &[u8]| {
        let mut forge = Forge::small();
        forge.leaves[0].edit = putting(at, bytes);
        Case::of(format!("record of a page: {name}"), &forge, Fate::Damaged)
    };
    all.extend([
        page("level 255", 23, &[255]),
        page("index 2^56 - 1", 16, &[255; 7]),
        page("2^32 - 1 bytes decoded", 36, &[255; 4]),
    ]);
    all
}

/// Where a small leaf's payload has what: two bytes runs, two reserved, four digests, four state runs, six
/// digests; then behind what is committed to: since runs (4 + 8), the frames' offset (8), number (4), each 14.
fn leaves() -> Vec<Case> {
    let states = |name: &str, at: usize, bytes: &[u8]| {
        let mut forge = Forge::small();
        forge.leaves[0].committed = putting(at, bytes);
        Case::of(format!("leaf: {name}"), &forge, Fate::Damaged)
    };
    let rest = |name: &str, at: usize, bytes: &[u8]| {
        let mut forge = Forge::small();
        forge.leaves[0].located = putting(at, bytes);
        Case::of(format!("leaf: {name}"), &forge, Fate::Damaged)
    };
    let record = |at: u64, len: u32| [&at.to_le_bytes()[..], &len.to_le_bytes()].concat();
    vec![
        states("no run of states", 0, &[0, 0]),
        states("2^16 - 1 runs of states", 0, &[255, 255]),
        states("reserved bytes", 2, &[1]),
        states("2^32 - 1 digests", 4, &[255; 4]),
        states("no digest", 4, &[0; 4]),
        states("state 0", 8, &[0]),
        states("state 9", 8, &[9]),
        states("a run of no block", 10, &[0, 0]),
        states("a run of 2^16 - 1 blocks", 10, &[255, 255]),
        states("fewer blocks than there are", 10, &[4, 0]),
        states("neighbours that are alike", 12, &[1]),
        states("unreadable, which takes a digest more", 12, &[4]),
        rest("no run of numbers", 0, &[0, 0]),
        rest("2^16 - 1 runs of numbers", 0, &[255, 255]),
        rest("recorded by nobody", 4, &[0; 4]),
        rest("recorded by image 2^32 - 1", 4, &[255; 4]),
        rest("a run of no number", 8, &[0, 0]),
        rest("frames at 2^64 - 1", 12, &record(u64::MAX, 2)),
        rest("frames at 2^63", 12, &record(1 << 63, 2)),
        rest("frames in the header", 12, &record(0, 2)),
        rest("frames that run backwards into info", 12, &record(128, 2)),
        rest("frames that begin inside a frame", 12, &record(300, 2)),
        rest("2^32 - 1 frames", 20, &[255; 4]),
        rest("no frame", 20, &[0; 4]),
        rest("a frame of 2^32 - 1 bytes", 26, &[255; 4]),
        rest("a frame that overlaps the next", 26, &[0, 1, 0, 0]),
        rest("a frame at block 2^16 - 1", 24, &[255, 255]),
        rest("frames out of order", 24, &[4, 0]),
        rest("two frames of one window", 38, &[0, 0]),
        rest("a frame with a block that is zero", 30, &[0b11_1111]),
        rest("a frame without a block that it must have", 30, &[0b111]),
        rest("a frame of all 64 blocks", 30, &[255; 8]),
    ]
}

/// A node's places: 20 bytes for each child; kind, reserved (3), since (4), offset (8), length (4).
fn nodes() -> Vec<Case> {
    fn of(
        name: &str,
        committed: Option<(usize, Vec<u8>)>,
        located: impl Fn(&mut Vec<u8>, usize) + 'static,
    ) -> Case {
        let mut forge = Forge::wide();
        let node = forge.node.as_mut().expect("it has a node");
        if let Some((at, bytes)) = committed {
            node.committed = putting(at, bytes);
        }
        node.located = Box::new(located);
        Case::of(format!("node: {name}"), &forge, Fate::Damaged)
    }
    fn states(name: &str, at: usize, bytes: &[u8]) -> Case {
        of(name, Some((at, bytes.to_vec())), |_, _| {})
    }
    fn places(name: &str, at: usize, bytes: &[u8]) -> Case {
        let bytes = bytes.to_vec();
        of(name, None, move |out, _| put(out, at, &bytes))
    }
    vec![
        states("no child", 0, &[0, 0]),
        states("2^16 - 1 children", 0, &[255, 255]),
        states("a child of kind 3", 4, &[3]),
        states("a child that is data and nothing else", 4 + 36 + 1, &[1]),
        states("a child that is of state 9", 4 + 36 + 1, &[9]),
        states("a digest of nothing", 4 + 36 + 4, &[1; 32]),
        states("a child with another digest", 4 + 4, &[1; 32]),
        places("a child of place 0", 0, &[0]),
        places("a child in an older file of none", 0, &[2]),
        places("a child with content that is nowhere", 0, &[3]),
        places("a child recorded by nobody", 4, &[0; 4]),
        places("a child recorded by image 2^32 - 1", 4, &[255; 4]),
        places("a child at 2^64 - 7", 8, &(u64::MAX - 6).to_le_bytes()),
        places("a child of 2^32 - 1 bytes", 16, &[255; 4]),
        places("a child in the header", 8, &[0; 8]),
        of("a child that is the node itself", None, |out, at| {
            put(
                out,
                8,
                &u64::try_from(at).expect("a short file").to_le_bytes(),
            );
            put(out, 16, &len32(4 + 3 * 56));
        }),
        of("two children that are one page", None, |out, _| {
            let first = out[..20].to_vec();
            put(out, 40, &first);
        }),
        of("two children that are each other", None, |out, _| {
            let (first, third) = (out[8..20].to_vec(), out[48..60].to_vec());
            put(out, 8, &third);
            put(out, 48, &first);
        }),
    ]
}

fn frames() -> Vec<Case> {
    let deep = |name: &str, forge: &Forge| Case {
        quick: false,
        ..Case::of(format!("frame: {name}"), forge, Fate::Damaged)
    };
    let mut all = Vec::new();
    let mut forge = Forge::small();
    forge.leaves[0].frames[0].payload = Payload::raw(vec![7; 4 * BLOCK]);
    all.push(deep("content that is none of the blocks'", &forge));
    let mut forge = Forge::small();
    let turned = (0..4).rev().flat_map(content).collect::<Vec<u8>>();
    forge.leaves[0].frames[0].payload = Payload::raw(turned);
    all.push(deep("blocks in another order", &forge));
    let mut forge = Forge::small();
    let short = vec![7; 4 * BLOCK - 1];
    forge.leaves[0].frames[0].payload = Payload::raw(short);
    all.push(Case::of("frame: a byte is missing", &forge, Fate::Damaged));
    // Between the records that the table knows lies one that nobody asks for.
    let mut forge = Forge::small();
    let extra = Frame {
        first: 4,
        mask: 0b101,
        payload: Payload::packed(content(3)),
        edit: keep(),
    };
    let hidden = RECORD + extra.payload.stored.len();
    forge.leaves[0].frames.insert(0, extra);
    forge.leaves[0].located = Box::new(move |out| {
        let from = number(&out[12..20]) + u64::try_from(hidden).expect("it is short");
        put(out, 12, &from.to_le_bytes());
        put(out, 20, &[2]);
        out.drain(24..38);
    });
    forge.trailer = putting(260, [2]);
    all.push(Case::of(
        "frame: one that hides between records",
        &forge,
        Fate::Damaged,
    ));
    all
}

/// The second frame of the small image, stored as `stored`, which says that it is as long as its blocks.
fn packed(name: &str, stored: Vec<u8>, fate: Fate) -> Case {
    let mut forge = Forge::small();
    let frame = &mut forge.leaves[0].frames[1];
    frame.payload = Payload::zstd(stored, frame.payload.decoded.clone());
    Case {
        quick: false,
        ..Case::of(format!("zstd: {name}"), &forge, fate)
    }
}

/// A zstd frame by hand: this descriptor and what follows it, then one block of so many bytes, all alike.
fn zstd_frame(descriptor: u8, fields: &[u8], byte: u8, count: u32) -> Vec<u8> {
    let mut out = 0xFD2F_B528_u32.to_le_bytes().to_vec();
    out.push(descriptor);
    out.extend(fields);
    // Last block, a run.
    let block = 1 | 1 << 1 | count << 3;
    out.extend(&block.to_le_bytes()[..3]);
    out.push(byte);
    out
}

fn compressed() -> Vec<Case> {
    let held: Vec<u8> = [content(4), content(6)].concat();
    let zip = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).expect("zstd");
    let whole = zip(&held);
    let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &len32(9), b"skip this"].concat();
    let mut dictionary = whole.clone();
    // Says that it needs dictionary 7: the flag, and the id behind the descriptor and the window.
    dictionary[4] |= 1;
    dictionary.insert(if dictionary[4] & 0x20 == 0 { 6 } else { 5 }, 7);
    // All blocks alike, so that a run is their content.
    let alike = |stored: Vec<u8>, name: &str, fate| {
        let mut forge = Forge::small();
        let leaf = &mut forge.leaves[0];
        leaf.blocks[4].1 = vec![9; BLOCK];
        leaf.blocks[6].1 = vec![9; BLOCK];
        leaf.frames[1].payload = Payload::zstd(stored, vec![9; 2 * BLOCK]);
        Case {
            quick: false,
            ..Case::of(format!("zstd: {name}"), &forge, fate)
        }
    };
    use Fate::{Damaged, Image};
    vec![
        packed("32 MiB in a few bytes", zip(&vec![0; 32 << 20]), Damaged),
        packed(
            "a byte more than it says",
            zip(&[&held[..], &[0]].concat()),
            Damaged,
        ),
        packed("a byte less than it says", zip(&held[1..]), Damaged),
        packed("nothing", zip(&[]), Damaged),
        packed(
            "its end is missing",
            whole[..whole.len() - 1].to_vec(),
            Damaged,
        ),
        packed("no zstd at all", vec![0x28; 100], Damaged),
        packed("zstd of zstd", zip(&whole), Damaged),
        packed("a dictionary", dictionary, Damaged),
        packed(
            "something behind it",
            [&whole[..], b"more"].concat(),
            Damaged,
        ),
        packed("a hundred times the same", whole.repeat(100), Damaged),
        packed(
            "two frames, one for each block",
            [zip(&content(4)), zip(&content(6))].concat(),
            Image,
        ),
        packed(
            "a frame to skip, and then it",
            [&skippable[..], &whole].concat(),
            Image,
        ),
        packed(
            "frames to skip and nothing else",
            skippable.repeat(1000),
            Damaged,
        ),
        // A window descriptor of 2^31 and of 2^41 bytes, no content size.
        alike(
            zstd_frame(0, &[21 << 3], 9, 8192),
            "a window of 2 GiB, and right",
            Image,
        ),
        alike(
            zstd_frame(0, &[31 << 3], 9, 8192),
            "a window of 2 TiB",
            Damaged,
        ),
        // A single segment, which says how long its content is. 2^64 - 1 is how zstd says that it does not know.
        alike(
            zstd_frame(0xE0, &(u64::MAX - 1).to_le_bytes(), 9, 8192),
            "2^64 - 2 bytes",
            Damaged,
        ),
        alike(
            zstd_frame(0xE0, &[255; 8], 9, 8192),
            "2^64 - 1 bytes, and right",
            Image,
        ),
        alike(
            zstd_frame(0, &[0], 9, (1 << 21) - 1),
            "a block of 2 MiB",
            Damaged,
        ),
    ]
}

fn with_info(name: &str, info: Payload, fate: Fate) -> Case {
    let forge = Forge {
        info,
        ..Forge::small()
    };
    Case::of(name, &forge, fate)
}

fn json() -> Vec<Case> {
    let refused = |name: &str, text: Vec<u8>| {
        with_info(
            &format!("json: {name}"),
            Payload::packed(text),
            Fate::Refused,
        )
    };
    let deep = |open: &str, close: &str| {
        format!(
            "{{\"layout\":{}{}}}",
            open.repeat(100_000),
            close.repeat(100_000)
        )
        .into_bytes()
    };
    let many = |count: usize, what: &str| {
        format!("{{\"layout\":[{}]}}", vec![what; count].join(",")).into_bytes()
    };
    let long = format!("{{\"set\":\"{}\"}}", "x".repeat(16 << 20)).into_bytes();
    let bomb = zstd::bulk::compress(&vec![b' '; 32 << 20], 3).expect("zstd");
    let mut all = vec![
        refused("a hundred thousand brackets", deep("[", "]")),
        refused("a hundred thousand braces", deep("{\"a\":", "}")),
        refused("half a million values", many(1 << 19, "0")),
        refused("four million empty lists", many(4 << 20, "[]")),
        refused("invalid UTF-8", b"{\"set\":\"\xff\xfe\"}".to_vec()),
        refused(
            "half a character beyond Unicode",
            b"{\"set\":\"\\ud800\"}".to_vec(),
        ),
        refused("no object", b"7".to_vec()),
        refused("nothing", Vec::new()),
        refused("something behind it", b"{} {}".to_vec()),
        refused("a member twice", b"{\"set\":\"a\",\"set\":\"b\"}".to_vec()),
        refused("a number for a text", b"{\"set\":7}".to_vec()),
        refused("a number beyond all", b"{\"created\":1e999}".to_vec()),
        refused(
            "a time of 2^63",
            b"{\"created\":9223372036854775808}".to_vec(),
        ),
        refused("a text of 16 MiB", long[..16 << 20].to_vec()),
    ];
    all.push(with_info(
        "json: 32 MiB of blanks that say they are two bytes",
        Payload::zstd(bomb, b"{}".to_vec()),
        Fate::Refused,
    ));
    let summary = |name: &str, text: &str, fate| {
        let forge = Forge {
            summary: Payload::packed(text.as_bytes().to_vec()),
            ..Forge::small()
        };
        Case::of(format!("summary: {name}"), &forge, fate)
    };
    let big = u64::MAX.to_string();
    all.extend([
        summary(
            "more than 2^64 blocks",
            r#"{"blocks":{"data":18446744073709551616}}"#,
            Fate::Refused,
        ),
        summary(
            "2^64 - 1 blocks of each state",
            &r#"{"blocks":{"data":N,"zero":N,"unused":N,"unreadable":N}}"#.replace('N', &big),
            Fate::Image,
        ),
        summary(
            "unreadable from 2^64 - 1 on",
            &r#"{"unreadable":[{"start":N,"length":N}]}"#.replace('N', &big),
            Fate::Image,
        ),
        summary(
            "four million warnings",
            &format!("{{\"warnings\":[{}]}}", vec!["\"\""; 4 << 20].join(",")),
            Fate::Refused,
        ),
    ]);
    all
}

/// What an image may be called by somebody who means no good.
const NAMES: [(&str, &str); 12] = [
    ("a path upwards", "../../etc/passwd"),
    ("a device", "/dev/sda"),
    ("a NUL", "a\0b"),
    ("new lines", "a\nOK: everything is fine\r\nb"),
    ("an escape sequence", "\x1b[2J\x1b[1;1Hgone"),
    ("a title", "\x1b]0;owned\x07"),
    ("an escape of eight bits", "a\u{9b}31mb"),
    ("right to left", "a\u{202e}gpj.exe"),
    ("nothing", ""),
    ("an option", "--yes"),
    ("a backspace", "safe\u{8}\u{8}\u{8}\u{8}evil"),
    ("tags nobody sees", "a\u{e0041}\u{e0042}"),
];

fn words() -> Vec<Case> {
    let mut all = Vec::new();
    let everywhere = |text: &str| {
        serde_json::json!({
            "tool": text, "set": text, "created": 1, "consistency": text, "reason": text,
            "compression": text, "comment": text,
            "source": {"name": text, "path": text, "serial": text, "model": text, "wwn": text},
            "host": {"name": text, "kernel": text, "os": text, "boot": text},
            "take": {"exclude": [text]},
            "partitions": [{"number": 1, "label": text, "reason": text, "filesystem": text, "length": 4096}],
            "layout": {"kind": text, (text): [text]},
        })
    };
    for (name, text) in NAMES {
        let mut forge = Forge::small();
        forge.info = Payload::packed(everywhere(text).to_string().into_bytes());
        let warnings = serde_json::json!({"warnings": [text, text]});
        forge.summary = Payload::packed(warnings.to_string().into_bytes());
        all.push(Case::of(format!("words: {name}"), &forge, Fate::Image));
    }
    let long = everywhere(&"\u{1b}x".repeat(32 << 10)).to_string();
    all.push(with_info(
        "words: 64 KiB long",
        Payload::packed(long.into_bytes()),
        Fate::Image,
    ));
    for time in [0, -1, i64::MAX, i64::MIN, 253_402_300_800] {
        let info = format!("{{\"set\":\"a\",\"created\":{time}}}");
        let mut forge = Forge::small();
        forge.info = Payload::raw(info);
        forge.summary = Payload::raw(format!("{{\"finished\":{time}}}"));
        all.push(Case::of(
            format!("words: the time is {time}"),
            &forge,
            Fate::Image,
        ));
    }
    all
}

/// Partition tables in the image that are none of the disk's.
fn tables() -> Vec<Case> {
    let with = |name: &str, tables: Vec<u8>, fate| {
        let forge = Forge {
            tables: Payload::packed(tables),
            ..Forge::small()
        };
        Case::of(format!("tables: {name}"), &forge, fate)
    };
    let region = |at: u64, len: u32, bytes: &[u8]| {
        [&at.to_le_bytes()[..], &len.to_le_bytes(), bytes].concat()
    };
    let one = |at, len, bytes: &[u8]| [&[1, 0, 0, 0][..], &region(at, len, bytes)].concat();
    let mut gpt = vec![0xA5; 34 * 512];
    put(&mut gpt, 510, &[0x55, 0xAA]);
    put(
        &mut gpt,
        446,
        &[
            0, 0, 2, 0, 0xEE, 255, 255, 255, 1, 0, 0, 0, 255, 255, 255, 255,
        ],
    );
    put(&mut gpt, 512, b"EFI PART");
    let layout = serde_json::json!({
        "set": "a",
        "source": {"logical_sector": 512, "bytes": u64::MAX},
        "layout": {"kind": "gpt", "sector": 512, "entries": u32::MAX, "partitions": [
            {"number": 1, "start": u64::MAX, "length": u64::MAX},
            {"number": 1, "start": 0, "length": 1},
            {"number": u32::MAX, "first": u64::MAX, "last": 0},
        ]},
        "partitions": [
            {"number": 1, "start": u64::MAX, "length": u64::MAX, "used": u64::MAX},
            {"number": 1, "start": 0, "length": u64::MAX},
        ],
    });
    use Fate::{Image, Refused};
    vec![
        with("2^32 - 1 regions", vec![255; 4], Refused),
        with(
            "5000 regions",
            [&5000u32.to_le_bytes()[..], &vec![0; 5000 * 12]].concat(),
            Refused,
        ),
        with(
            "a region of 2^32 - 1 bytes",
            one(0, u32::MAX, b"x"),
            Refused,
        ),
        with("a region that is cut off", one(0, 512, b"x"), Refused),
        with(
            "a region that ends beyond 2^64",
            one(u64::MAX, 2, b"xy"),
            Refused,
        ),
        with("something behind it", vec![0; 5], Refused),
        with(
            "an MBR and a GPT that the disk has not",
            one(0, 34 * 512, &gpt),
            Image,
        ),
        with(
            "a region far behind the disk",
            one(1 << 62, 512, &[0x55; 512]),
            Image,
        ),
        with(
            "the same region 4000 times",
            {
                let all = region(0, 4, b"abcd").repeat(4000);
                [&4000u32.to_le_bytes()[..], &all].concat()
            },
            Image,
        ),
        with_info(
            "tables: partitions beyond all",
            Payload::raw(layout.to_string()),
            Image,
        ),
    ]
}

/// A file in three parts.
fn split() -> Vec<Case> {
    let forge = |seed| {
        let mut forge = Forge::small();
        let noise = Stream::new(seed).bytes(2_500_000);
        let region = [&[1, 0, 0, 0][..], &[0; 8], &len32(noise.len()), &noise].concat();
        forge.tables = Payload::raw(region);
        forge
    };
    let (mine, other) = (forge(1).build(), forge(2).build());
    let cut = |bytes: &[u8], id: u8| parts(bytes, 1 << 20, [id; 16]);
    let mine = cut(&mine, 1);
    let of = |name: &str, change: &dyn Fn(&mut Vec<Vec<u8>>), fate| {
        let mut all = mine.clone();
        change(&mut all);
        let named = (1..).zip(all).filter(|(_, part)| !part.is_empty());
        let files = named.map(|(n, part)| (format!("{ASKED}.{n:03}"), part));
        Case {
            files: files.collect(),
            disk: forge(1).disk(),
            ..Case::new(format!("parts: {name}"), Vec::new(), fate)
        }
    };
    let head = |at: usize, bytes: &'static [u8]| {
        move |all: &mut Vec<Vec<u8>>| all[1] = part_with(&all[1], at, bytes)
    };
    let theirs = cut(&other, 2);
    let same_id = cut(&other, 1);
    use Fate::{Image, Refused};
    vec![
        of("all there", &|_| {}, Image),
        of("the second is missing", &|all| all[1].clear(), Refused),
        of("the last is missing", &|all| all[2].clear(), Refused),
        of("two are swapped", &|all| all.swap(1, 2), Refused),
        of("the second twice", &|all| all[2] = all[1].clone(), Refused),
        of(
            "one from another set",
            &|all| all[1] = theirs[1].clone(),
            Refused,
        ),
        of(
            "one from another image with the same id",
            &|all| all[1] = same_id[1].clone(),
            Refused,
        ),
        of(
            "one more than there are",
            &|all| all.push(all[2].clone()),
            Refused,
        ),
        of("one is empty", &|all| all[1].truncate(96), Refused),
        of("version 9", &head(8, &[9]), Refused),
        of("number 0", &head(12, &[0; 4]), Refused),
        of("number 2^32 - 1", &head(12, &[255; 4]), Refused),
        of(
            "it begins at 2^64 - 7",
            &head(32, &[249, 255, 255, 255, 255, 255, 255, 255]),
            Refused,
        ),
        of("it begins at 0", &head(32, &[0; 8]), Refused),
        // How long the others are, the first one says.
        of("parts of 2^64 - 1 bytes", &head(40, &[255; 8]), Image),
        of("parts of no bytes", &head(40, &[0; 8]), Refused),
        of("reserved bytes", &head(50, &[1]), Refused),
    ]
}

fn encrypted() -> Vec<Case> {
    let of = |name: &str, at: usize, bytes: &[u8]| {
        Case::new(
            format!("encrypted: {name}"),
            prelude_with(at, bytes),
            Fate::Refused,
        )
    };
    vec![
        of("slots of zeros", 0, &[]),
        of("version 2", 8, &[2]),
        of("slots of no bytes", 12, &[0; 4]),
        of("slots of 2^32 - 1 bytes", 12, &[255; 4]),
        of("slots of 5000 bytes", 12, &len32(5000)),
        of("a feature nobody knows", 16, &[1]),
        of("chunks of 1 byte", 24, &[0]),
        of("chunks of 2^31 bytes", 24, &[31]),
        of("chunks of 2^255 bytes", 24, &[255]),
        of("reserved bytes", 40, &[1]),
    ]
}
