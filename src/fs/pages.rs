//! Random access to a table of any size with a bounded number of its pages in memory.

use super::doubt::Doubt;
use super::volume::Volume;
use crate::base::to_usize;

const PAGE: u64 = 4096;
/// Pages held: 4 MiB.
const SLOTS: u64 = 1024;

/// A part of a volume, by pages.
pub(super) struct Pages<'v> {
    volume: &'v Volume<'v>,
    at: u64,
    len: u64,
    /// Page `n` is held in slot `n % SLOTS`, with its number; `None` for one that cannot be read, which is
    /// not tried again and again.
    slots: Vec<Option<(u64, Option<Vec<u8>>)>>,
}

impl<'v> Pages<'v> {
    /// `len` bytes from `at`.
    pub(super) fn new(volume: &'v Volume<'v>, at: u64, len: u64) -> Pages<'v> {
        Pages {
            volume,
            at,
            len,
            slots: (0..SLOTS).map(|_| None).collect(),
        }
    }

    /// The bytes from `at` to the end of its page or of the table.
    pub(super) fn from(&mut self, at: u64) -> Result<&[u8], Doubt> {
        let number = at / PAGE;
        let missing = || Doubt::new(format!("a table of {} bytes is cut off", self.len));
        let start = number * PAGE;
        let len = self.len.checked_sub(start).ok_or_else(missing)?.min(PAGE);
        let slot = self.slots.get_mut(to_usize(number % SLOTS));
        let slot = slot.ok_or_else(missing)?;
        if slot.as_ref().is_none_or(|(held, _)| *held != number) {
            let read = self.volume.read(self.at + start, len);
            let (page, failed) = match read {
                Ok(page) => (Some(page), None),
                Err(doubt) => (None, Some(doubt)),
            };
            *slot = Some((number, page));
            if let Some(doubt) = failed {
                return Err(doubt);
            }
        }
        let page = slot.as_ref().and_then(|(_, page)| page.as_deref());
        let page = page.ok_or_else(|| Doubt::new("a part of a table cannot be read"))?;
        page.get(to_usize(at - start)..).ok_or_else(missing)
    }
}
