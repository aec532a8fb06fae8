//! Is the journal, `$LogFile`, clean? Structures as in ntfs-3g's `include/ntfs-3g/logfile.h`.

use super::super::doubt::{Doubt, ensure};
use super::super::raw::Raw;
use super::super::volume::Volume;
use super::disk::fix_up;
use super::stream::Stream;
use crate::base::{AlignedBuf, to_usize};

/// What a person can do about a volume that Windows did not let go of.
pub(super) const ADVICE: &str = "shut Windows down with the Shift key held or with \
     `shutdown /s /f /t 0`, or disable fast startup, and image it then";

/// How much is read at once.
const PIECE: u64 = 1 << 20;
/// No client has the journal open.
const NO_CLIENT: u16 = 0xFFFF;
/// The volume was let go of cleanly.
const CLEAN: u16 = 2;
/// Restart pages are as long as a page of memory.
const PAGES: std::ops::RangeInclusive<u64> = 512..=64 << 10;

/// One of the two places where the journal says how far it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Restart {
    /// Greater is newer.
    sequence: u64,
    version: (u16, u16),
    client: u16,
    flags: u16,
}

impl Restart {
    fn decode(bytes: &mut [u8]) -> Result<Restart, Doubt> {
        match Raw::new(bytes, "restart page").slice(0, 4)? {
            b"RSTR" => fix_up(bytes)?,
            b"CHKD" => {
                return Err(Doubt::new(
                    "chkdsk changed it, and Windows has not opened the volume since",
                ));
            }
            other => {
                let found = other.escape_ascii();
                return Err(Doubt::new(format!(
                    "a restart page begins with \"{found}\", not with RSTR"
                )));
            }
        }
        let page = Raw::new(bytes, "restart page");
        let area = page.from(usize::from(page.le16(24)?))?;
        Ok(Restart {
            sequence: area.le64(0)?,
            version: (page.le16(28)?, page.le16(26)?),
            client: area.le16(12)?,
            flags: area.le16(14)?,
        })
    }

    /// Doubts unless the volume was let go of cleanly.
    fn judge(&self) -> Result<(), Doubt> {
        match self.version {
            (1, 0 | 1) => {}
            // Windows 8 and newer write 2.0 while the volume is mounted, and 1.1 when it is not.
            (2, 0) => {
                return Err(Doubt::new(format!(
                    "its journal has version 2.0: Windows shut down with fast startup, is \
                     hibernated, or the disk was taken out while in use, so that the newest state \
                     is not on the disk; {ADVICE}"
                )));
            }
            (major, minor) => {
                return Err(Doubt::new(format!(
                    "its journal has version {major}.{minor}, which is not known"
                )));
            }
        }
        ensure(self.client == NO_CLIENT || self.flags & CLEAN != 0, || {
            format!(
                "its journal is in use: it was not unmounted cleanly, and changes wait to be \
                 repeated; let Windows open it once, then {ADVICE}"
            )
        })
    }
}

/// Doubts unless the journal says that nothing waits in it.
///
/// A journal that is all 0xFF was emptied, which only happens when nothing waits in it. Otherwise
/// the newer of two restart pages counts, both when they are equally new.
pub(super) fn ensure_clean(volume: &Volume<'_>, log: &Stream) -> Result<(), Doubt> {
    let mut head = [0; 512];
    log.read_into(volume, 0, &mut head)?;
    if head.starts_with(&[0xFF; 4]) {
        return ensure_empty(volume, log);
    }
    let about = |doubt| match doubt {
        Doubt::Unsure(why) => Doubt::Unsure(format!("its journal cannot be judged: {why}")),
        stopped @ Doubt::Stopped(_) => stopped,
    };
    let page = u64::from(Raw::new(&head, "restart page").le32(16)?);
    let [first, second] = [
        restart(volume, log, 0, page),
        restart(volume, log, page, page),
    ];
    let (first, second) = (first.map_err(about)?, second.map_err(about)?);
    if first.sequence >= second.sequence {
        first.judge()?;
    }
    if second.sequence >= first.sequence {
        second.judge()?;
    }
    Ok(())
}

fn restart(volume: &Volume<'_>, log: &Stream, at: u64, len: u64) -> Result<Restart, Doubt> {
    ensure(len.is_power_of_two() && PAGES.contains(&len), || {
        format!("it has neither restart pages of a sensible length ({len} bytes) nor been emptied")
    })?;
    let mut bytes = vec![0; to_usize(len)];
    log.read_into(volume, at, &mut bytes)?;
    Restart::decode(&mut bytes)
}

fn ensure_empty(volume: &Volume<'_>, log: &Stream) -> Result<(), Doubt> {
    let mut at = 0;
    while at < log.initialised {
        let mut piece = AlignedBuf::zeroed(to_usize(PIECE.min(log.initialised - at)));
        log.read_into(volume, at, &mut piece)?;
        ensure(piece.iter().all(|b| *b == 0xFF), || {
            format!("its journal begins as if it were empty but holds something near byte {at}")
        })?;
        at += PIECE;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A restart page as Windows lays it out.
    fn page(version: (u16, u16), client: u16, flags: u16) -> Vec<u8> {
        let mut page = vec![0; 4096];
        page[..4].copy_from_slice(b"RSTR");
        page[4..8].copy_from_slice(&[0x1E, 0, 9, 0]);
        page[16..24].copy_from_slice(&[0, 16, 0, 0, 0, 16, 0, 0]);
        page[24..26].copy_from_slice(&[0x30, 0]);
        page[26..28].copy_from_slice(&version.1.to_le_bytes());
        page[28..30].copy_from_slice(&version.0.to_le_bytes());
        page[0x1E..0x20].copy_from_slice(&[7, 0]);
        page[0x30..0x32].copy_from_slice(&[99, 1]);
        page[0x3C..0x3E].copy_from_slice(&client.to_le_bytes());
        page[0x3E..0x40].copy_from_slice(&flags.to_le_bytes());
        for piece in page.chunks_exact_mut(512) {
            piece[510..].copy_from_slice(&[7, 0]);
        }
        page
    }

    fn why(version: (u16, u16), client: u16, flags: u16) -> Option<String> {
        let mut page = page(version, client, flags);
        let found = Restart::decode(&mut page).unwrap();
        assert_eq!(found.sequence, 0x163);
        match found.judge() {
            Ok(()) => None,
            Err(Doubt::Unsure(why)) => Some(why),
            Err(Doubt::Stopped(e)) => panic!("{e}"),
        }
    }

    #[test]
    fn what_the_restart_page_says_counts() {
        assert_eq!(why((1, 1), NO_CLIENT, 0), None);
        assert_eq!(why((1, 1), 0, CLEAN), None);
        assert!(why((1, 1), 0, 0).unwrap().contains("not unmounted cleanly"));
        let fast = why((2, 0), NO_CLIENT, CLEAN).unwrap();
        assert!(fast.contains("fast startup") && fast.contains("shutdown /s /f /t 0"));
        assert!(
            why((3, 0), NO_CLIENT, CLEAN)
                .unwrap()
                .contains("version 3.0")
        );
    }

    #[test]
    fn a_torn_page_is_not_believed() {
        let mut torn = page((1, 1), NO_CLIENT, CLEAN);
        torn[2 * 512 - 1] ^= 1;
        assert!(matches!(Restart::decode(&mut torn), Err(Doubt::Unsure(w)) if w.contains("torn")));
        let mut other = page((1, 1), NO_CLIENT, CLEAN);
        other[..4].copy_from_slice(b"CHKD");
        assert!(Restart::decode(&mut other).is_err());
    }
}
