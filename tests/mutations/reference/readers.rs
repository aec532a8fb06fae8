//! Those that there are: what e2fsprogs, xfsprogs, ntfs-3g, btrfs-progs, dosfstools, exfatprogs and f2fs-tools say.

use super::{Reference, Used};
use crate::fs_kit::capsules;
use crate::kit::run::text;
use crate::kit::told::{self, Chunk};
use crate::kit::{MIB, bytes, tools};
use diskstrata::base::{ByteLen, ByteOffset, Cancel, Extent};
use diskstrata::block::{Capsule, MemorySource};
use diskstrata::fs::Certainty;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// More than any undamaged disk makes a tool say.
const MOST_SAID: &str = "8388608";
/// What is kept of a disk is kept in pieces of this many bytes.
const BLOCK: usize = 4096;

pub(super) fn of(decoder: &str, dir: &Path) -> Reference {
    let plain = |disks, used| Reference {
        disks,
        mend: |_, _| {},
        used,
    };
    match decoder {
        "btrfs" => Reference {
            mend: mend_btrfs,
            ..plain(vec![btrfs_disk(dir)], btrfs)
        },
        "exfat" => plain(fixtures("exfat"), exfat),
        "ext" => plain(ext_disks(dir), ext),
        "f2fs" => plain(fixtures("f2fs"), f2fs),
        "fat" => plain(fat_disks(dir), fat),
        "ntfs" => plain(vec![ntfs_disk(dir)], ntfs),
        "xfs" => plain(fixtures("xfs"), xfs),
        other => panic!("no other reader of {other}"),
    }
}

/// The fixtures that are not taken whole: of the others nothing but their beginning is kept.
fn fixtures(decoder: &str) -> Vec<(String, Capsule)> {
    let is_mapped = |fixture: &capsules::Fixture| {
        let report = diskstrata::fs::used(&fixture.capsule, &Cancel::new()).unwrap();
        report.certainty == Certainty::Certain
    };
    let all = capsules::of_decoder(decoder).into_iter().filter(is_mapped);
    all.map(|fixture| (fixture.name, fixture.capsule)).collect()
}

/// What a tool says that ends well, soon, and with no more words than it should have.
fn said(line: &[&str]) -> Option<Vec<u8>> {
    let script = "timeout 10 \"$@\" 2>/dev/null | head -c \"$0\"";
    let args = [&["-o", "pipefail", "-c", script, MOST_SAID], line].concat();
    let output = tools::try_run("bash", &args);
    output.status.success().then_some(output.stdout)
}

fn said_text(line: &[&str]) -> Option<String> {
    String::from_utf8(said(line)?).ok()
}

/// What is left of `0..len` without `free`.
fn without(mut free: Vec<Range<u64>>, len: u64) -> Option<Used> {
    free.sort_by_key(|range| range.start);
    let (mut used, mut at) = (Vec::new(), 0);
    for range in free {
        used.push(at..range.start.min(len));
        at = range.end.max(at);
    }
    used.push(at..len);
    used.retain(|range| range.start < range.end);
    Some(Used::Ranges(used))
}

/// Fixtures without checksums, and what is rarer.
fn ext_disks(dir: &Path) -> Vec<(String, Capsule)> {
    // The same disk each time.
    const ID: &str = "6b8b4567-327b-23c6-643c-986966334873";
    const PLAIN: &str = "^has_journal,^metadata_csum,^uninit_bg,^resize_inode";
    let (image, content) = (dir.join("ext.img"), dir.join("content"));
    files(&content, 1);
    let make = |(name, features, more): (&str, &str, &str)| {
        bytes::create_sparse(&image, 96 * MIB);
        let how = format!("-q -F -t ext4 -U {ID} -E hash_seed={ID} -O {PLAIN},{features} {more}");
        let mut args: Vec<&str> = how.split_whitespace().collect();
        args.extend(["-d", text(&content), text(&image)]);
        tools::run("mke2fs", &args);
        let disk = recorded(&image);
        std::fs::remove_file(&image).unwrap();
        (format!("ext-{name}"), disk)
    };
    let made = [
        ("clusters", "bigalloc,64bit", "-C 16384"),
        ("small-blocks", "meta_bg,64bit", "-b 1024"),
        ("scattered", "^flex_bg,sparse_super2", "-b 2048 -g 8192"),
    ];
    let whole = ["ext-ext2", "ext-ext2-rev0", "ext-ext3"];
    let kept = capsules::of_decoder("ext").into_iter();
    let kept = kept.filter(|fixture| whole.contains(&fixture.name.as_str()));
    kept.map(|fixture| (fixture.name, fixture.capsule))
        .chain(made.map(make))
        .collect()
}

/// What `dumpe2fs` does not list as free.
fn ext(image: &Path) -> Option<Used> {
    let dump = told::dumpe2fs(&said_text(&["dumpe2fs", text(image)])?)?;
    let bytes = |blocks: u64| blocks.checked_mul(dump.block);
    let free = dump.free_ranges.iter();
    let free: Option<Vec<Range<u64>>> = free
        .map(|range| Some(bytes(range.start)?..bytes(range.end)?))
        .collect();
    without(free?, bytes(dump.blocks)?).filter(|_| dump.complete)
}

/// What `xfs_db` does not list as free.
fn xfs(image: &Path) -> Option<Used> {
    let fields = "p blocksize agblocks dblocks";
    let said = said_text(&[
        "xfs_db",
        "-r",
        "-f",
        "-c",
        "sb 0",
        "-c",
        fields,
        "-c",
        "freesp -d",
        text(image),
    ])?;
    let field = |name: &str| -> Option<u64> {
        let line = said.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(" = ")?.parse().ok()
    };
    let (block, group) = (field("blocksize")?, field("agblocks")?);
    let mut free = Vec::new();
    let lines = said.lines().skip_while(|line| !line.contains("agno"));
    for line in lines.skip(1).take_while(|line| !line.contains("from")) {
        let numbers: Option<Vec<u64>> = line.split_whitespace().map(|w| w.parse().ok()).collect();
        let [number, first, len] = numbers?[..] else {
            return None;
        };
        let start = number.checked_mul(group)?.checked_add(first)?;
        free.push(start.checked_mul(block)?..start.checked_add(len)?.checked_mul(block)?);
    }
    without(free, field("dblocks")?.checked_mul(block)?)
}

/// All of a file but zeros as a disk that can be damaged.
fn recorded(image: &Path) -> Capsule {
    let disk = std::fs::read(image).unwrap();
    let extent = |(number, block): (usize, &[u8])| Extent {
        start: ByteOffset(number as u64 * BLOCK as u64),
        len: ByteLen(block.len() as u64),
    };
    let blocks = disk.chunks(BLOCK).enumerate();
    let content = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
    let extents = content.map(extent).collect();
    Capsule::record(&MemorySource::new("disk", disk.clone()), extents).unwrap()
}

/// Makes the folder `content` with some files full of `byte`.
fn files(content: &Path, byte: u8) {
    std::fs::create_dir(content).unwrap();
    for number in 1..40 {
        let file = content.join(format!("file{number}"));
        std::fs::write(file, vec![byte; 1000 * number]).unwrap();
    }
}

/// A small volume with some files.
fn ntfs_disk(dir: &Path) -> (String, Capsule) {
    let image = dir.join("ntfs.img");
    bytes::create_sparse(&image, 8 * MIB);
    tools::run(
        "mkfs.ntfs",
        &["-q", "-F", "-Q", "-s", "512", "-c", "4096", text(&image)],
    );
    let file = dir.join("file");
    for len in [10_000, 300_000, 50_000] {
        std::fs::write(&file, vec![0; len]).unwrap();
        let name = format!("file{len}");
        tools::run("ntfscp", &["-q", "-f", text(&image), text(&file), &name]);
    }
    ("ntfs-small".to_owned(), recorded(&image))
}

/// The clusters set in `$Bitmap`, as `ntfscat` reads it.
fn ntfs(image: &Path) -> Option<Used> {
    let bitmap = said(&["ntfscat", "-f", "-i", "6", text(image)])?;
    let boot = boot_sector(image)?;
    let sector = u64::from(u16::from_le_bytes([boot[11], boot[12]]));
    let cluster = sector * u64::from(boot[13]);
    let set = |at: &u64| bitmap[usize::try_from(at / 8).unwrap_or(0)] >> (at % 8) & 1 == 1;
    let len = std::fs::metadata(image).ok()?.len();
    let clusters = (len / cluster.max(1)).min(bitmap.len() as u64 * 8);
    let used = (0..clusters).filter(set);
    let used = used.map(|at| at * cluster..(at + 1) * cluster);
    Some(Used::Ranges(used.collect()))
}

/// A small volume with some files.
fn btrfs_disk(dir: &Path) -> (String, Capsule) {
    let (image, content) = (dir.join("btrfs.img"), dir.join("content"));
    // Zeros are not kept: what is damaged is not the content.
    files(&content, 0);
    bytes::create_sparse(&image, 128 * MIB);
    tools::run(
        "mkfs.btrfs",
        &["-q", "--rootdir", text(&content), text(&image)],
    );
    ("btrfs-small".to_owned(), recorded(&image))
}

const SUPERBLOCKS: [u64; 2] = [64 << 10, 64 << 20];
const NODE: usize = 16 << 10;

/// CRC-32C of what lies behind the place for it, in superblocks and nodes (fs/btrfs/disk-io.c).
fn mend_btrfs(whole: &Capsule, damaged: &mut Capsule) {
    let mut sums: Vec<(u64, usize)> = SUPERBLOCKS.map(|at| (at, 4096)).to_vec();
    for (start, piece) in whole.pieces() {
        for (at, node) in (*start..).step_by(4096).zip((0..piece.len()).step_by(4096)) {
            let node = piece.get(node..node + NODE);
            let right = node.is_some_and(|n| crc32c::crc32c(&n[32..]).to_le_bytes() == n[..4]);
            sums.extend(right.then_some((at, NODE)));
        }
    }
    let starts: Vec<u64> = damaged.pieces().iter().map(|piece| piece.0).collect();
    for (start, piece) in starts.into_iter().zip(damaged.pieces_mut()) {
        for (at, len) in &sums {
            let within = at
                .checked_sub(start)
                .and_then(|at| usize::try_from(at).ok());
            let Some(bytes) = within.and_then(|at| piece.get_mut(at..at + len)) else {
                continue;
            };
            let sum = crc32c::crc32c(&bytes[32..]).to_le_bytes();
            bytes[..4].copy_from_slice(&sum);
        }
    }
}

/// The extents that `dump-tree` lists, wherever their chunks have them.
fn btrfs(image: &Path) -> Option<Used> {
    let dump = |tree| {
        said_text(&[
            "btrfs",
            "inspect-internal",
            "dump-tree",
            "-t",
            tree,
            text(image),
        ])
    };
    let chunks = told::chunks(&dump("chunk")?)?;
    let mut used = Vec::new();
    for line in dump("extent")?.lines().map(str::trim) {
        let (is_data, is_node) = (
            line.contains(" EXTENT_ITEM "),
            line.contains(" METADATA_ITEM "),
        );
        if !line.starts_with("item ") || !(is_data || is_node) {
            continue;
        }
        let start = told::after(line, "key")?;
        let len = if is_data {
            told::after(line, "EXTENT_ITEM")?
        } else {
            NODE as u64
        };
        let holds = |chunk: &&Chunk| start >= chunk.start && start - chunk.start < chunk.len;
        let chunk = chunks.iter().find(holds)?;
        used.extend(chunk.stripes.iter().map(|stripe| {
            let at = stripe.saturating_add(start - chunk.start);
            at..at.saturating_add(len)
        }));
    }
    used.sort_by_key(|range| range.start);
    (!used.is_empty()).then_some(Used::Ranges(used))
}

/// FAT of each width, with some files and a folder.
fn fat_disks(dir: &Path) -> Vec<(String, Capsule)> {
    let (image, content) = (dir.join("fat.img"), dir.join("content"));
    // Zeros are not kept: what is damaged is not the content.
    files(&content, 0);
    let make = |(width, len)| {
        bytes::create_sparse(&image, len);
        tools::run("mkfs.fat", &["-F", width, text(&image)]);
        tools::run("mcopy", &["-s", "-i", text(&image), text(&content), "::/"]);
        let disk = recorded(&image);
        std::fs::remove_file(&image).unwrap();
        (format!("fat-{width}"), disk)
    };
    [("12", 4 * MIB), ("16", 32 * MIB), ("32", 64 * MIB)]
        .map(make)
        .to_vec()
}

/// How many clusters `fsck.fat` counts, once it has put right in memory what it can.
fn fat(image: &Path) -> Option<Used> {
    // It ends with 1 when something is wrong.
    let said = said_text(&["sh", "-c", "fsck.fat -n \"$0\" || test $? = 1", text(image)])?;
    let last = said.lines().last()?;
    let (_, clusters) = last.split_once(" files, ")?;
    let (used, _) = clusters.split_once('/')?;
    let boot = boot_sector(image)?;
    let sector = u64::from(u16::from_le_bytes([boot[11], boot[12]]));
    let cluster = sector * u64::from(boot[13]);
    Some(Used::Bytes(used.parse::<u64>().ok()?.checked_mul(cluster)?))
}

/// How many clusters of the volume `dump.exfat` does not find free.
fn exfat(image: &Path) -> Option<Used> {
    let said = said_text(&["dump.exfat", text(image)])?;
    let field = |name| told::field(&said, name);
    let used = field("Total Clusters:")?.checked_sub(field("Free Clusters:")?)?;
    Some(Used::Bytes(used.checked_mul(field("Cluster size:")?)?))
}

/// The blocks set in the segment information table that `dump.f2fs` writes.
fn f2fs(image: &Path) -> Option<Used> {
    const BLOCK: u64 = 4096;
    const SEGMENT: u64 = 512;
    let dir = image.parent()?;
    let table = dir.join("dump_sit");
    let _ = std::fs::remove_file(&table);
    let script = "cd \"$0\" && dump.f2fs -d 1 -s 0~-1 \"$1\"";
    let said = said_text(&["sh", "-c", script, text(dir), text(image)])?;
    let main = said.lines().find(|line| line.starts_with("main_blkaddr"))?;
    let main: u64 = main
        .rsplit_once(": ")?
        .1
        .trim_end_matches(']')
        .trim()
        .parse()
        .ok()?;
    let (mut used, mut segment, mut at) = (Vec::new(), 0, 0);
    for line in std::fs::read_to_string(&table).ok()?.lines() {
        if let Some(rest) = line.strip_prefix("segno:") {
            segment = rest.split_whitespace().next()?.parse().ok()?;
            at = 0;
            continue;
        }
        let bytes: Option<Vec<u8>> = line
            .split_whitespace()
            .map(|word| {
                u8::from_str_radix(word, 16)
                    .ok()
                    .filter(|_| word.len() == 2)
            })
            .collect();
        for byte in bytes.unwrap_or_default() {
            // The first block is the highest bit.
            let set = (0..8).filter(|bit| byte << bit & 0x80 != 0);
            let first = main + segment * SEGMENT + at;
            used.extend(set.map(|bit: u64| (first + bit) * BLOCK..(first + bit + 1) * BLOCK));
            at += 8;
        }
    }
    (!used.is_empty()).then_some(Used::Ranges(used))
}

fn boot_sector(image: &Path) -> Option<[u8; 512]> {
    let mut sector = [0; 512];
    let file = File::open(image).ok()?;
    file.read_exact_at(&mut sector, 0).ok()?;
    Some(sector)
}
