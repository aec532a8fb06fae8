//! What tools tell of a file system, for those who compare with it. `None` where they do not say it.

use std::ops::Range;

/// The number behind `name`, with which a line begins.
pub(crate) fn field(said: &str, name: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

/// The number behind `word`, wherever it stands in a line.
pub(crate) fn after(line: &str, word: &str) -> Option<u64> {
    let words = line.split([' ', '\t', '(', ')']).filter(|w| !w.is_empty());
    let mut words = words.skip_while(|w| *w != word);
    words.nth(1)?.parse().ok()
}

/// What `dumpe2fs` says.
pub(crate) struct Dump {
    /// Length of a block in bytes.
    pub(crate) block: u64,
    pub(crate) blocks: u64,
    /// How many are free.
    pub(crate) free: u64,
    /// Which.
    pub(crate) free_ranges: Vec<Range<u64>>,
    /// Whether it could read every bitmap, and no journal has others.
    pub(crate) complete: bool,
}

pub(crate) fn dumpe2fs(said: &str) -> Option<Dump> {
    let block = field(said, "Block size:")?;
    // Of a free cluster the first block is listed.
    let cluster = field(said, "Cluster size:").unwrap_or(block);
    let cluster = cluster.checked_div(block)?;
    let starts = |start: &'static str| said.lines().filter_map(move |l| l.strip_prefix(start));
    let groups = starts("Group ").filter(|rest| rest.contains(": (Blocks "));
    let lists = starts("  Free blocks: ");
    let replayed = starts("Filesystem features:").all(|names| !names.contains("needs_recovery"));
    let complete = replayed && groups.count() == lists.clone().count();
    let mut free_ranges = Vec::new();
    for range in lists.flat_map(|list| list.split(',')).map(str::trim) {
        if range.is_empty() {
            continue;
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        free_ranges.push(first..last.checked_add(cluster)?);
    }
    Some(Dump {
        block,
        blocks: field(said, "Block count:")?,
        free: field(said, "Free blocks:")?,
        free_ranges,
        complete,
    })
}

/// A chunk of a Btrfs.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Its first logical address.
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// Where on the device its copies begin.
    pub(crate) stripes: Vec<u64>,
}

/// What `btrfs inspect-internal dump-tree -t chunk` says.
pub(crate) fn chunks(said: &str) -> Option<Vec<Chunk>> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for line in said.lines().map(str::trim) {
        if line.starts_with("item ") && line.contains("CHUNK_ITEM") {
            chunks.push(Chunk {
                start: after(line, "CHUNK_ITEM")?,
                ..Chunk::default()
            });
        } else if let Some(chunk) = chunks.last_mut() {
            if line.starts_with("length ") {
                chunk.len = after(line, "length")?;
            } else if line.starts_with("stripe ") {
                chunk.stripes.push(after(line, "offset")?);
            }
        }
    }
    Some(chunks)
}
