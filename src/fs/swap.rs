//! Linux swap: what is in use is its header, because no system needs the pages of another boot.
//!
//! A swap area begins with one page of header: version, number of pages, label, UUID and bad pages
//! from byte 1024, the signature in the last ten bytes of the page ("include/linux/swap.h", `union
//! swap_header`). The page is that of the machine that made it, 4 to 64 KiB, and so is the order of
//! bytes. A suspended system puts its own signature over that of the area
//! ("kernel/power/swap.c", `swsusp_header`): then every page may be memory that wants to come back.

use super::doubt::{Doubt, ensure};
use super::files::Search;
use super::map::MapBuilder;
use super::raw::{Raw, label};
use super::volume::Volume;
use super::{Content, ContentKind, Found, Reader, Used};
use crate::base::{ByteOffset, Extent, to_u64, to_usize};
use std::ops::Range;

/// The pages that machines with Linux have had, in bytes.
const PAGES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// What is looked at for a signature: the largest page.
const HEAD: u64 = 64 << 10;
/// Where the signature begins, counted from the end of the page.
const SIGNATURE: u64 = 10;
/// Where version, last page and number of bad pages lie.
const VERSION: usize = 1024;
const LAST_PAGE: usize = 1028;
const BAD_COUNT: usize = 1032;
const LABEL: usize = 1052;
const BAD_PAGES: usize = 1536;
/// Signatures of a system that is suspended into the area, with what wrote them.
const SUSPENDED: [(&[u8], &str); 4] = [
    (b"S1SUSPEND", "the kernel"),
    (b"S2SUSPEND", "Software Suspend 2"),
    (b"ULSUSPEND", "uswsusp"),
    (b"LINHIB0001", "an old kernel"),
];
/// What TuxOnIce writes over the first bytes.
const TUX_ON_ICE: [u8; 8] = [0xED, 0xC3, 0x02, 0xE9, 0x98, 0x56, 0xE5, 0x0C];

/// Reads Linux swap areas.
pub(super) struct Swap;

impl Reader for Swap {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        let head = read_head(volume)?;
        Ok(signature(&head).map(|found| {
            let suspended = matches!(found.state, State::Suspended(_));
            let kind = if suspended {
                "swap, hibernated"
            } else {
                "swap"
            };
            let bytes = head.get(LABEL..LABEL + 16).unwrap_or_default();
            Found {
                kind: kind.to_owned(),
                // TuxOnIce keeps another header in that place.
                label: found.page.and_then(|_| label(bytes)),
            }
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        let head = read_head(volume)?;
        let found = signature(&head).ok_or_else(|| Doubt::new("its signature is gone"))?;
        match (found.state, found.page) {
            (State::Suspended(by), page) => Ok(suspended(volume, by, page.unwrap_or(HEAD))),
            (State::Area, Some(page)) => area(volume, &Header::decode(&head, page)?),
            _ => Err(Doubt::new(
                "it has the signature of swap areas of version 0, which no kernel has used since 2008",
            )),
        }
    }

    fn files(&self, volume: &Volume<'_>, search: &mut Search) -> Result<(), Doubt> {
        let head = read_head(volume)?;
        let found = signature(&head).ok_or_else(|| Doubt::new("its signature is gone"))?;
        search.metadata(0..found.page.unwrap_or(HEAD));
        match found.state {
            State::Area => Ok(()),
            State::Old => Err(Doubt::new("it is a swap area of version 0")),
            State::Suspended(by) => Err(Doubt::new(format!(
                "it holds the memory of a system that {by} has suspended"
            ))),
        }
    }
}

/// What the signature says of an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Pages that nobody needs.
    Area,
    /// Version 0, with a map of bad pages in the first page.
    Old,
    /// A system is suspended into it, by this program.
    Suspended(&'static str),
}

/// A signature, and the page at whose end it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    state: State,
    page: Option<u64>,
}

fn read_head(volume: &Volume<'_>) -> Result<Vec<u8>, Doubt> {
    volume.read(0, volume.len().min(HEAD))
}

/// The signature in the first bytes of a volume. A suspended system counts before all others, for
/// one of an older use may stand behind it; then that of the smallest page, which is the one that
/// promises the smallest area.
fn signature(head: &[u8]) -> Option<Signature> {
    let mut area = None;
    for page in PAGES {
        let at = to_usize(page - SIGNATURE);
        let Some(text) = head.get(at..at + to_usize(SIGNATURE)) else {
            break;
        };
        // Behind the first page may lie what others have left.
        if page > PAGES[0] && order(head).is_none() {
            continue;
        }
        let page = Some(page);
        for (word, by) in SUSPENDED {
            if text.starts_with(word) {
                let state = State::Suspended(by);
                return Some(Signature { state, page });
            }
        }
        let state = match text {
            b"SWAPSPACE2" => State::Area,
            b"SWAP-SPACE" => State::Old,
            _ => continue,
        };
        area = area.or(Some(Signature { state, page }));
    }
    if head.starts_with(&TUX_ON_ICE) {
        return Some(Signature {
            state: State::Suspended("TuxOnIce"),
            page: None,
        });
    }
    area
}

/// The order of bytes of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

/// The order in which the version is 1, the only one there is.
fn order(head: &[u8]) -> Option<Order> {
    match head.get(VERSION..VERSION + 4)? {
        [1, 0, 0, 0] => Some(Order::Little),
        [0, 0, 0, 1] => Some(Order::Big),
        _ => None,
    }
}

/// A header of version 1.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// The page in bytes.
    page: u64,
    /// The number of pages, with that of the header.
    pages: u64,
    /// Pages that must not be used.
    bad: Vec<u64>,
}

impl Header {
    fn decode(head: &[u8], page: u64) -> Result<Header, Doubt> {
        let raw = Raw::new(head, "header");
        let order = order(head).ok_or_else(|| {
            let version = raw.le32(VERSION).unwrap_or_default();
            Doubt::new(format!(
                "its header is of version {version:#x}, where only version 1 is known"
            ))
        })?;
        let number = |at| match order {
            Order::Little => raw.le32(at),
            Order::Big => raw.be32(at),
        };
        let last = number(LAST_PAGE)?;
        ensure(last > 0, || "its header says that it has no pages")?;
        let pages = u64::from(last) + 1;
        let (count, room) = (
            u64::from(number(BAD_COUNT)?),
            (page - SIGNATURE - to_u64(BAD_PAGES)) / 4,
        );
        ensure(count <= room, || {
            format!("its header lists {count} bad pages, and has room for {room}")
        })?;
        let mut bad = Vec::new();
        for n in 0..to_usize(count) {
            let number = u64::from(number(BAD_PAGES + n * 4)?);
            ensure((1..pages).contains(&number), || {
                format!("its header lists bad page {number} of {pages}")
            })?;
            bad.push(number);
        }
        Ok(Header { page, pages, bad })
    }
}

/// An area that nothing is suspended into.
fn area(volume: &Volume<'_>, header: &Header) -> Result<Used, Doubt> {
    let end = header.pages * header.page;
    ensure(end <= volume.len(), || {
        format!(
            "its header says that it is {end} bytes long, and here are {}",
            volume.len()
        )
    })?;
    let mut map = MapBuilder::new(volume.len(), PAGES[0]);
    map.free(header.page..end);
    for page in &header.bad {
        map.keep(page * header.page..(page + 1) * header.page);
    }
    let mut used = Used::mapped(map);
    used.basis = Some("its header; pages of swap are not needed".to_owned());
    used.contents = contents(ContentKind::Swap, header.page..end);
    Ok(used)
}

/// An area that a system is suspended into by `by`, behind `head` bytes of header.
fn suspended(volume: &Volume<'_>, by: &str, head: u64) -> Used {
    let mut used = Used::whole(volume, "a suspended system: all of it is in use");
    used.notes.push(format!(
        "A SYSTEM IS SUSPENDED TO DISK HERE (by {by}): every file system that it had mounted still \
         is, as far as it knows. Resume it only if none of them has changed since; to make a clean \
         image, boot it and shut it down"
    ));
    used.contents = contents(ContentKind::Hibernation, head..volume.len());
    used
}

fn contents(kind: ContentKind, pages: Range<u64>) -> Vec<Content> {
    let extent = Extent::between(ByteOffset(pages.start), ByteOffset(pages.end));
    let extents: Vec<Extent> = extent.into_iter().filter(|e| !e.is_empty()).collect();
    if extents.is_empty() {
        return Vec::new();
    }
    vec![Content { kind, extents }]
}

#[cfg(test)]
mod tests {
    use super::super::probe::look_into;
    use super::super::{Certainty, UsedReport};
    use super::*;
    use crate::base::{ByteLen, Cancel};
    use crate::block::MemorySource;

    const LEN: usize = 1 << 20;

    /// An area of 1 MiB with pages of `page` bytes, as mkswap makes it.
    fn made(page: usize, order: Order) -> Vec<u8> {
        let mut bytes = vec![0; LEN];
        let last = u32::try_from(LEN / page).unwrap() - 1;
        for (at, value) in [(1024, 1), (1028, last)] {
            put(&mut bytes, at, value, order);
        }
        bytes[LABEL..LABEL + 4].copy_from_slice(b"pool");
        bytes[page - 10..page].copy_from_slice(b"SWAPSPACE2");
        bytes
    }

    fn put(bytes: &mut [u8], at: usize, value: u32, order: Order) {
        bytes[at..at + 4].copy_from_slice(&match order {
            Order::Little => value.to_le_bytes(),
            Order::Big => value.to_be_bytes(),
        });
    }

    fn look(bytes: Vec<u8>) -> UsedReport {
        let (source, cancel) = (MemorySource::new("m", bytes), Cancel::new());
        look_into(&Volume::new(&source, &cancel), &[&Swap]).unwrap()
    }

    fn runs(report: &UsedReport) -> Vec<Range<u64>> {
        let runs = report.used.runs();
        runs.map(|r| r.start * report.unit.0..r.end * report.unit.0)
            .collect()
    }

    fn why(report: &UsedReport) -> &str {
        assert_eq!(
            report.used_bytes(ByteLen(to_u64(LEN))),
            ByteLen(to_u64(LEN))
        );
        match &report.certainty {
            Certainty::Unknown(why) => why,
            Certainty::Certain => panic!("{report:?}"),
        }
    }

    #[test]
    fn the_header_is_in_use_and_what_lies_behind_the_last_page() {
        for page in PAGES {
            for order in [Order::Little, Order::Big] {
                let mut bytes = made(to_usize(page), order);
                put(&mut bytes, LAST_PAGE, 9, order);
                let report = look(bytes);
                assert_eq!(report.certainty, Certainty::Certain);
                assert_eq!(report.kind, "swap");
                assert_eq!(report.label.as_deref(), Some("pool"));
                let expected = [0..page, page * 10..to_u64(LEN)];
                assert_eq!(runs(&report), expected, "{page} {order:?}");
            }
        }
    }

    #[test]
    fn bad_pages_are_in_use() {
        let mut bytes = made(8192, Order::Big);
        for (at, value) in [(BAD_COUNT, 2), (BAD_PAGES, 20), (BAD_PAGES + 4, 127)] {
            put(&mut bytes, at, value, Order::Big);
        }
        let report = look(bytes);
        let (page, len) = (8192, to_u64(LEN));
        assert_eq!(
            runs(&report),
            [0..page, 20 * page..21 * page, len - page..len]
        );
    }

    #[test]
    fn a_suspended_system_is_all_in_use_whatever_else_stands_there() {
        for (word, _) in SUSPENDED {
            for page in PAGES {
                let page = to_usize(page);
                let mut bytes = made(page, Order::Little);
                bytes[page - 10..page].fill(0);
                bytes[page - 10..page - 10 + word.len()].copy_from_slice(word);
                bytes[page - 20..page - 10].copy_from_slice(b"SWAPSPACE2");
                // A signature of smaller pages from before.
                if page > 4096 {
                    bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
                }
                let report = look(bytes);
                assert_eq!(report.certainty, Certainty::Certain);
                assert_eq!(report.kind, "swap, hibernated");
                assert_eq!(runs(&report), vec![0..to_u64(LEN)]);
                assert!(report.notes[0].contains("SUSPENDED"));
                assert_eq!(report.contents[0].kind, ContentKind::Hibernation);
            }
        }
        let mut bytes = vec![0; LEN];
        bytes[..8].copy_from_slice(&TUX_ON_ICE);
        let report = look(bytes);
        assert_eq!(report.kind, "swap, hibernated");
        assert_eq!(runs(&report), vec![0..to_u64(LEN)]);
    }

    #[test]
    fn the_smaller_of_two_pages_bounds_the_area() {
        let mut bytes = made(4096, Order::Little);
        put(&mut bytes, LAST_PAGE, 99, Order::Little);
        bytes[65526..65536].copy_from_slice(b"SWAPSPACE2");
        assert_eq!(runs(&look(bytes)), [0..4096, 409_600..to_u64(LEN)]);
    }

    #[test]
    fn headers_that_do_not_add_up_are_doubted() {
        let order = Order::Little;
        let with = |at, value| {
            let mut bytes = made(4096, order);
            put(&mut bytes, at, value, order);
            look(bytes)
        };
        assert!(why(&with(LAST_PAGE, 256)).contains("1052672 bytes"));
        assert!(why(&with(LAST_PAGE, u32::MAX)).contains("bytes long"));
        assert!(why(&with(LAST_PAGE, 0)).contains("no pages"));
        assert!(why(&with(VERSION, 2)).contains("version 0x2"));
        assert!(why(&with(BAD_COUNT, 638)).contains("room for 637"));
        assert!(why(&with(BAD_COUNT, 1)).contains("bad page 0 of 256"));
        let mut old = made(4096, order);
        old[4086..4096].copy_from_slice(b"SWAP-SPACE");
        assert!(why(&look(old)).contains("version 0"));
    }

    #[test]
    fn signatures_alone_are_swap_only_in_the_first_page() {
        let mut bytes = vec![0; LEN];
        bytes[65526..65536].copy_from_slice(b"SWAPSPACE2");
        assert_eq!(look(bytes.clone()).kind, "unknown");
        bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
        assert_eq!(look(bytes).kind, "swap");
        assert_eq!(look(vec![0; 4000]).kind, "unknown");
    }
}
