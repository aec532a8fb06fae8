//! Files that a restored Windows makes anew, and what the file of a hibernated one says.

use super::super::doubt::{Doubt, ensure};
use super::super::report::{Content as Left, ContentKind};
use super::disk::{Attribute, DATA, FILE_NAME, Record, Value, file_name, in_record, text};
use super::log::ADVICE;
use super::stream::{Content, Mft};
use super::walk::{ROOT, each_record};
use crate::base::{ByteOffset, Extent};

/// The root folder has at most one file of each name; more are damage and stay in.
const MAX_CANDIDATES: usize = 8;
/// The files, all in the root folder.
const NAMES: [(&str, ContentKind); 3] = [
    ("pagefile.sys", ContentKind::PageFile),
    ("swapfile.sys", ContentKind::Swap),
    ("hiberfil.sys", ContentKind::Hibernation),
];

/// Files by these names.
#[derive(Debug, Default)]
pub(super) struct Candidates(Vec<(ContentKind, u64)>);

impl Candidates {
    /// Takes the file of `record` when `value` is its name and one of these.
    pub(super) fn look_at(
        &mut self,
        record: &Record<'_>,
        attribute: &Attribute<'_>,
        value: &[u8],
    ) -> Result<(), Doubt> {
        if attribute.kind != FILE_NAME || self.0.len() >= MAX_CANDIDATES {
            return Ok(());
        }
        let (folder, name) = file_name(value)?;
        let longest = 2 * "hiberfil.sys".len();
        if folder != ROOT || name.len() != longest {
            return Ok(());
        }
        let name = text(name);
        let kind = NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(&name));
        if let Some((_, kind)) = kind {
            let found = (*kind, record.base);
            if !self.0.contains(&found) {
                self.0.push(found);
            }
        }
        Ok(())
    }
}

/// A file whose content can be left out.
struct Found {
    kind: ContentKind,
    number: u64,
    extents: Vec<Extent>,
    shared: bool,
}

/// Where the contents of the candidates lie, and notes about those that stay in.
///
/// # Errors
/// A doubt when one of them says that Windows is hibernated.
pub(super) fn set_apart(
    mft: &Mft<'_>,
    candidates: Candidates,
) -> Result<(Vec<Left>, Vec<String>), Doubt> {
    let mut found = Vec::new();
    for (kind, number) in candidates.0 {
        let bytes = mft.record(number)?;
        let record = Record::decode(&bytes, number).map_err(|d| in_record(number, d))?;
        if record.base != number || record.folder {
            continue;
        }
        let Some(content) = mft.content(number, DATA, "")? else {
            continue;
        };
        if kind == ContentKind::Hibernation {
            ensure_awake(mft, &content)?;
        }
        // A second name means that somebody keeps it as something else.
        if let (Content::Clusters(stream), 1) = (&content, record.links) {
            let extents = stream.places().filter_map(|place| {
                Extent::between(ByteOffset(place.start), ByteOffset(place.end))
            });
            found.push(Found {
                kind,
                number,
                extents: crate::base::normalize(extents.collect()),
                shared: false,
            });
        }
    }
    found.retain(|f| !f.extents.is_empty());
    if !found.is_empty() {
        mark_shared(mft, &mut found)?;
    }
    let shared = |f: &&Found| f.shared;
    let note = |f: &Found| {
        let name = f.kind.name();
        format!("its {name} file shares clusters with another file and is not told apart")
    };
    let notes = found.iter().filter(shared).map(note).collect();
    let apart = found.into_iter().filter(|f| !f.shared);
    let left = apart.map(|f| Left {
        kind: f.kind,
        extents: f.extents,
    });
    Ok((left.collect(), notes))
}

/// Marks the files that have clusters which another file has too, as in a damaged volume: those
/// must stay in. Reads the MFT once more.
fn mark_shared(mft: &Mft<'_>, found: &mut [Found]) -> Result<(), Doubt> {
    let cluster = mft.boot.cluster;
    each_record(mft, |_, record| {
        for attribute in record.attributes()? {
            let attribute = attribute?;
            let Value::Clusters(clusters) = attribute.value else {
                continue;
            };
            for run in clusters.runs() {
                let run = run?;
                let Some(start) = run.at.map(|at| at.saturating_mul(cluster)) else {
                    continue;
                };
                let end = start.saturating_add(run.len.saturating_mul(cluster));
                for file in found.iter_mut() {
                    let own = record.base == file.number && attribute.is(DATA, "");
                    file.shared |= !own && overlaps(&file.extents, start, end);
                }
            }
        }
        Ok(())
    })
}

/// Whether any of `extents`, which ascend, lies in part between `start` and `end`.
fn overlaps(extents: &[Extent], start: u64, end: u64) -> bool {
    let first = extents.partition_point(|e| e.end().0 <= start);
    extents.get(first).is_some_and(|e| e.start.0 < end)
}

/// Doubts when the hibernation file holds the memory of a system that goes on from it.
fn ensure_awake(mft: &Mft<'_>, content: &Content) -> Result<(), Doubt> {
    let mut head = [0; 4];
    match content {
        Content::Resident(value) => head
            .iter_mut()
            .zip(value)
            .for_each(|(head, byte)| *head = *byte),
        Content::Clusters(stream) => {
            if stream.places().next().is_none() {
                return Ok(());
            }
            stream.read_into(mft.volume, 0, &mut head)?;
        }
    }
    // "wake": the system went on from it. Else it was never written, or was wiped.
    let awake = head == [0; 4] || head.eq_ignore_ascii_case(b"wake");
    ensure(awake, || {
        format!(
            "its hiberfil.sys begins with \"{}\": Windows is hibernated or shut down with fast \
             startup, so that the newest state is not on the disk; {ADVICE}",
            head.escape_ascii()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ByteLen;

    #[test]
    fn overlaps_are_found_at_either_end() {
        let extent = |start, len| Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        };
        let extents = [extent(10, 10), extent(40, 5)];
        let found = [
            (0, 10),
            (20, 40),
            (45, 99),
            (0, 11),
            (19, 20),
            (44, 45),
            (0, 99),
        ];
        let found = found.map(|(start, end)| overlaps(&extents, start, end));
        assert_eq!(found, [false, false, false, true, true, true, true]);
    }
}
