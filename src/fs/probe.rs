//! Which reader is asked: signatures decide, and two answers are no answer.

use super::doubt::Doubt;
use super::volume::Volume;
use super::{Certainty, Found, Reader, UsedReport};
use crate::base::{ByteLen, Result};

/// Longest text of a doubt; what a disk says of itself may be long.
const LONGEST_REASON: usize = 400;

/// What is in use in `volume`, as the one of `readers` says that recognises it.
///
/// # Errors
/// Only when the run was stopped.
pub(super) fn look_into(volume: &Volume<'_>, readers: &[&dyn Reader]) -> Result<UsedReport> {
    let len = ByteLen(volume.len());
    let (found, answer) = match recognise(volume, readers) {
        Ok((found, reader)) => {
            let answer = reader.used(volume);
            (found, answer)
        }
        Err((found, doubt)) => (found, Err(doubt)),
    };
    match answer {
        Ok(used) => {
            let (unit, map) = used.map.finish();
            Ok(UsedReport {
                kind: found.kind,
                label: found.label,
                unit,
                used: map,
                certainty: Certainty::Certain,
                basis: used.basis.unwrap_or_else(|| "in use".to_owned()),
                notes: used.notes,
                contents: used.contents,
                inside: used.inside,
            })
        }
        Err(Doubt::Stopped(error)) => Err(error),
        Err(Doubt::Unsure(why)) => {
            let why = why.chars().take(LONGEST_REASON).collect::<String>();
            let mut report = UsedReport::unknown(found.kind, len, why);
            report.label = found.label;
            Ok(report)
        }
    }
}

/// What `volume` is, with everything in use.
///
/// # Errors
/// Only when the run was stopped.
pub(super) fn recognise_only(volume: &Volume<'_>, readers: &[&dyn Reader]) -> Result<UsedReport> {
    let (found, why) = match recognise(volume, readers) {
        Ok((found, _)) => (found, "its used map was not asked for".to_owned()),
        Err((found, Doubt::Unsure(why))) => (found, why),
        Err((_, Doubt::Stopped(error))) => return Err(error),
    };
    let mut report = UsedReport::unknown(found.kind, ByteLen(volume.len()), why);
    report.label = found.label;
    Ok(report)
}

/// What a volume is, and its reader.
pub(super) type Recognised<'r> = (Found, &'r dyn Reader);

/// The reader whose signature is there, when it is the only one.
fn recognise<'r>(
    volume: &Volume<'_>,
    readers: &[&'r dyn Reader],
) -> Result<Recognised<'r>, (Found, Doubt)> {
    recognise_by(volume, readers, false)
}

/// As the used map's readers are found, but for signatures of others whose place cannot be read: on a
/// medium that fails those are no reason to know nothing.
pub(super) fn recognise_around<'r>(
    volume: &Volume<'_>,
    readers: &[&'r dyn Reader],
) -> Result<Recognised<'r>, (Found, Doubt)> {
    recognise_by(volume, readers, true)
}

fn recognise_by<'r>(
    volume: &Volume<'_>,
    readers: &[&'r dyn Reader],
    around: bool,
) -> Result<Recognised<'r>, (Found, Doubt)> {
    let unknown = || Found {
        kind: "unknown".to_owned(),
        label: None,
    };
    let mut answers: Vec<Recognised<'r>> = Vec::new();
    for reader in readers {
        match reader.probe(volume) {
            Ok(Some(found)) => answers.push((found, *reader)),
            Ok(None) => {}
            Err(Doubt::Unsure(_)) if around => {}
            Err(doubt) => return Err((unknown(), doubt)),
        }
    }
    if let Some(outer) = answers.iter().position(|(_, r)| r.shows_inner_signature()) {
        return Ok(answers.swap_remove(outer));
    }
    if answers.len() > 1 {
        let kinds: Vec<&str> = answers.iter().map(|(f, _)| f.kind.as_str()).collect();
        let why = format!(
            "it carries the signatures of {} at once, and which of them is out of date cannot be told",
            kinds.join(" and ")
        );
        return Err((unknown(), Doubt::new(why)));
    }
    answers.pop().ok_or_else(|| {
        (
            unknown(),
            Doubt::new("no known file system is recognised in it"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::Used;
    use super::super::map::MapBuilder;
    use super::*;
    use crate::base::{BlockMap, ByteOffset, Cancel, Extent};
    use crate::block::{Fault, FaultSource, Faults, MemorySource};
    use std::sync::Arc;

    /// Recognises a first byte; frees the second half.
    struct Byte(u8, &'static str, bool);

    impl Reader for Byte {
        fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
            let there = volume.read(0, 4)?.contains(&self.0);
            Ok(there.then(|| Found {
                kind: self.1.to_owned(),
                label: None,
            }))
        }

        fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
            if self.0 == b'?' {
                return Err(Doubt::new("it is a riddle"));
            }
            let mut map = MapBuilder::new(volume.len(), 512);
            map.free(volume.len() / 2..volume.len());
            Ok(Used::mapped(map))
        }

        fn shows_inner_signature(&self) -> bool {
            self.2
        }
    }

    fn look(start: &[u8]) -> UsedReport {
        let mut bytes = start.to_vec();
        bytes.resize(4096, 0);
        let readers: [&dyn Reader; 4] = [
            &Byte(b'c', "container", true),
            &Byte(b'a', "a-fs", false),
            &Byte(b'b', "b-fs", false),
            &Byte(b'?', "riddle", false),
        ];
        let (source, cancel) = (MemorySource::new("m", bytes), Cancel::new());
        look_into(&Volume::new(&source, &cancel), &readers).unwrap()
    }

    fn why(report: &UsedReport) -> &str {
        assert_eq!(report.used, BlockMap::full(1));
        assert_eq!(report.used_bytes(ByteLen(4096)), ByteLen(4096));
        match &report.certainty {
            Certainty::Unknown(why) => why,
            Certainty::Certain => panic!("{report:?}"),
        }
    }

    #[test]
    fn one_answer_is_believed() {
        let report = look(b"a");
        assert_eq!(
            (report.kind.as_str(), &report.certainty),
            ("a-fs", &Certainty::Certain)
        );
        assert_eq!(report.used_bytes(ByteLen(4096)), ByteLen(2048));
    }

    #[test]
    fn two_answers_are_none() {
        let report = look(b"ab");
        assert_eq!(report.kind, "unknown");
        assert!(why(&report).contains("a-fs and b-fs"), "{}", why(&report));
    }

    #[test]
    fn a_container_may_show_what_it_holds() {
        assert_eq!(look(b"ac").kind, "container");
    }

    #[test]
    fn no_answer_and_doubt_take_everything() {
        assert!(why(&look(b"x")).contains("no known file system"));
        let report = look(b"?");
        assert_eq!(
            (report.kind.as_str(), why(&report)),
            ("riddle", "it is a riddle")
        );
    }

    #[test]
    fn a_medium_that_fails_takes_everything() {
        let start = Extent {
            start: ByteOffset(0),
            len: ByteLen(512),
        };
        let faults = Faults::new(vec![Fault::read_in(start, 5)]);
        let inner = Arc::new(MemorySource::new("m", vec![b'a'; 4096]));
        let source = FaultSource::new(inner, faults);
        let cancel = Cancel::new();
        let readers: [&dyn Reader; 1] = [&Byte(b'a', "a-fs", false)];
        let report = look_into(&Volume::new(&source, &cancel), &readers).unwrap();
        assert!(why(&report).contains("byte 0"), "{}", why(&report));
    }

    #[test]
    fn a_stopped_run_is_an_error() {
        let (source, cancel) = (MemorySource::new("m", vec![0; 4096]), Cancel::new());
        cancel.cancel();
        let readers: [&dyn Reader; 1] = [&Byte(b'a', "a-fs", false)];
        assert!(look_into(&Volume::new(&source, &cancel), &readers).is_err());
    }
}
