//! The answer that leaves this room.

use crate::base::{BlockMap, ByteLen, Extent};

/// How far a used map may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certainty {
    /// The format's own metadata was read and agrees with itself.
    Certain,
    /// Nothing is proven, so all is taken; the text says why, for people.
    Unknown(String),
}

/// Which units of a partition are in use.
#[derive(Debug, Clone, PartialEq)]
pub struct UsedReport {
    /// What was found ("ext4", "unknown").
    pub kind: String,
    /// Its label.
    pub label: Option<String>,
    /// Size of the units in `used`, in bytes.
    pub unit: ByteLen,
    /// The units in use. May hold too many, never too few. Covers the whole partition: what lies
    /// behind the end of the file system counts as used.
    pub used: BlockMap,
    /// How far `used` may be believed.
    pub certainty: Certainty,
    /// What a certain map rests on, for people: "in use", "encrypted: all of it is in use".
    pub basis: String,
    /// What a person should know although the map is certain.
    pub notes: Vec<String>,
    /// Content that a person may want to leave out.
    pub contents: Vec<Content>,
    /// Volumes inside: logical volumes, the data of an array.
    pub inside: Vec<Inside>,
}

/// Content that is in use but that a restored system does not need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What it is.
    pub kind: ContentKind,
    /// Its bytes, relative to the partition.
    pub extents: Vec<Extent>,
}

/// The kinds of content that a person can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentKind {
    /// Pages of a Linux swap area, and Windows' `swapfile.sys`.
    Swap,
    /// Windows' `pagefile.sys`.
    PageFile,
    /// The memory of a suspended system: `hiberfil.sys`, or a hibernation image in a swap area.
    Hibernation,
}

impl ContentKind {
    /// All kinds.
    pub const ALL: [ContentKind; 3] = [
        ContentKind::Swap,
        ContentKind::PageFile,
        ContentKind::Hibernation,
    ];

    /// The word on the command line and in an image.
    pub fn name(self) -> &'static str {
        match self {
            ContentKind::Swap => "swap",
            ContentKind::PageFile => "pagefile",
            ContentKind::Hibernation => "hibernation",
        }
    }
}

/// A volume inside a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Its name: "vg0/root".
    pub name: String,
    /// What it holds.
    pub kind: String,
    /// Its length on this partition.
    pub bytes: ByteLen,
    /// How much of that is in use.
    pub used: ByteLen,
    /// How far that may be believed.
    pub certainty: Certainty,
}

impl UsedReport {
    /// Everything of a partition `len` long, because nothing is proven: `why` says why.
    pub fn unknown(kind: impl Into<String>, len: ByteLen, why: impl Into<String>) -> UsedReport {
        UsedReport {
            kind: kind.into(),
            label: None,
            // One unit as large as the partition: there is nothing to tell apart.
            unit: len.max(ByteLen(1)),
            used: BlockMap::full(1),
            certainty: Certainty::Unknown(why.into()),
            basis: "in use".to_owned(),
            notes: Vec::new(),
            contents: Vec::new(),
            inside: Vec::new(),
        }
    }

    /// How many of a partition's `len` bytes are in use.
    pub fn used_bytes(&self, len: ByteLen) -> ByteLen {
        let free: u64 = self
            .used
            .gaps()
            .map(|gap| {
                let end = gap.end.saturating_mul(self.unit.0).min(len.0);
                end.saturating_sub(gap.start.saturating_mul(self.unit.0))
            })
            .sum();
        ByteLen(len.0.saturating_sub(free))
    }

    /// Every part that is taken whole because nothing is proven, and why: the partition itself
    /// (without a name) or volumes inside.
    pub fn fallbacks(&self) -> impl Iterator<Item = (Option<&Inside>, &str)> {
        let own = match &self.certainty {
            Certainty::Unknown(why) => Some((None, why.as_str())),
            Certainty::Certain => None,
        };
        let inside = self.inside.iter().filter_map(|i| match &i.certainty {
            Certainty::Unknown(why) => Some((Some(i), why.as_str())),
            Certainty::Certain => None,
        });
        own.into_iter().chain(inside)
    }
}
