//! Partitions encrypted with LUKS.
//!
//! Ciphertext has no free space, and header and key slots must come back to the last byte: all of it
//! is in use. The header is checked so that a person hears of a damaged one while the disk is at hand.
//!
//! Source: the LUKS1 on-disk format specification 1.2.3 and the LUKS2 one 1.1.1. All numbers are
//! big-endian.

use super::checksum::matches;
use super::doubt::{Doubt, ensure};
use super::files::Search;
use super::raw::{Raw, label};
use super::volume::Volume;
use super::{Found, Reader, Used};
use crate::base::to_usize;
use serde::Deserialize;
use sha2::{Digest, Sha256, Sha512};

const MAGIC: &[u8] = b"LUKS\xba\xbe";
/// The binary header of LUKS1, key slots and all.
const LUKS1_HEADER: u64 = 592;
/// The binary header of LUKS2; what describes keys and data in JSON follows.
const LUKS2_HEADER: u64 = 4096;
/// Binary header and JSON of LUKS2: from 16 KiB in powers of two to 4 MiB.
const LUKS2_SIZES: std::ops::RangeInclusive<u64> = 16_384..=4 << 20;
/// Where LUKS2 has its checksum.
const LUKS2_CHECKSUM: std::ops::Range<usize> = 448..512;

/// Reads both versions.
pub(super) struct Luks;

impl Reader for Luks {
    fn probe(&self, volume: &Volume<'_>) -> Result<Option<Found>, Doubt> {
        let start = volume.read(0, volume.len().min(512))?;
        if !start.starts_with(MAGIC) {
            return Ok(None);
        }
        let raw = Raw::new(&start, "LUKS header");
        let version = raw.be16(6)?;
        let named = if version == 2 {
            raw.slice(24, 48)?
        } else {
            &[]
        };
        Ok(Some(Found {
            kind: format!("LUKS{version}"),
            label: label(named),
        }))
    }

    fn used(&self, volume: &Volume<'_>) -> Result<Used, Doubt> {
        let start = volume.read(0, LUKS2_HEADER.min(volume.len()))?;
        match Raw::new(&start, "LUKS header").be16(6)? {
            1 => luks1(volume, &start),
            2 => luks2(volume, &start),
            version => Err(Doubt::new(format!("its LUKS version {version} is unknown"))),
        }
    }

    fn files(&self, _: &Volume<'_>, _: &mut Search) -> Result<(), Doubt> {
        Err(Doubt::new("it is encrypted: what lies in it is not known"))
    }
}

fn luks1(volume: &Volume<'_>, start: &[u8]) -> Result<Used, Doubt> {
    let raw = Raw::new(start, "LUKS header");
    raw.slice(0, to_usize(LUKS1_HEADER))?;
    let payload = u64::from(raw.be32(104)?) * 512;
    // A header that is kept apart from the data says 0.
    ensure(payload <= volume.len(), || {
        format!("its data is said to begin at byte {payload}, behind its end")
    })?;
    Ok(Used::whole(
        volume,
        "encrypted with LUKS1: all of it is in use",
    ))
}

fn luks2(volume: &Volume<'_>, start: &[u8]) -> Result<Used, Doubt> {
    let raw = Raw::new(start, "LUKS header");
    let (size, offset) = (raw.be64(8)?, raw.be64(256)?);
    ensure(
        LUKS2_SIZES.contains(&size) && size.is_power_of_two() && offset == 0,
        || format!("its LUKS2 header claims to be {size} bytes long at byte {offset}"),
    )?;
    let header = volume.read(0, size)?;
    check(&header)?;
    let json = header.get(to_usize(LUKS2_HEADER)..).unwrap_or_default();
    let json = json.split(|b| *b == 0).next().unwrap_or_default();
    let description: Description = serde_json::from_slice(json).map_err(|e| {
        Doubt::new(format!(
            "the description in its LUKS2 header is damaged: {e}"
        ))
    })?;
    let mut used = Used::whole(volume, "encrypted with LUKS2: all of it is in use");
    let needed = description.config.requirements.mandatory;
    if needed.iter().any(|n| n.starts_with("online-reencrypt")) {
        used.notes.push(
            "its re-encryption was begun and not finished: `cryptsetup reencrypt` goes on with it"
                .to_owned(),
        );
    }
    Ok(used)
}

/// The parts of the JSON that matter; the rest is passed over without being kept.
#[derive(Deserialize)]
struct Description {
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    requirements: Requirements,
}

#[derive(Deserialize, Default)]
struct Requirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

/// Fails unless the checksum of the first header is right.
fn check(header: &[u8]) -> Result<(), Doubt> {
    let raw = Raw::new(header, "LUKS header");
    let name = label(raw.slice(72, 32)?).unwrap_or_default();
    let stored = raw.slice(LUKS2_CHECKSUM.start, LUKS2_CHECKSUM.len())?;
    let mut zeroed = header.to_vec();
    if let Some(field) = zeroed.get_mut(LUKS2_CHECKSUM) {
        field.fill(0);
    }
    let computed = match name.as_str() {
        "sha256" => Sha256::digest(&zeroed).to_vec(),
        "sha512" => Sha512::digest(&zeroed).to_vec(),
        _ => {
            let why = format!("the checksum of its LUKS2 header is of the unknown kind {name:?}");
            return Err(Doubt::new(why));
        }
    };
    let right = matches(Some(computed.as_slice()), stored.get(..computed.len()));
    ensure(
        right,
        || "the checksum of its first LUKS2 header is wrong; `cryptsetup repair` takes the second",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Cancel;
    use crate::block::MemorySource;

    fn luks2_disk(json: &str) -> Vec<u8> {
        let mut disk = vec![0; 65_536];
        disk[..6].copy_from_slice(MAGIC);
        disk[7] = 2;
        disk[8..16].copy_from_slice(&16_384u64.to_be_bytes());
        disk[24..28].copy_from_slice(b"safe");
        disk[72..78].copy_from_slice(b"sha256");
        disk[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        seal(&mut disk);
        disk
    }

    fn seal(disk: &mut [u8]) {
        disk[LUKS2_CHECKSUM].fill(0);
        let digest = Sha256::digest(&disk[..16_384]);
        disk[448..480].copy_from_slice(&digest);
    }

    fn look(disk: Vec<u8>) -> (Found, Result<Used, String>) {
        let (source, cancel) = (MemorySource::new("m", disk), Cancel::new());
        let volume = Volume::new(&source, &cancel);
        let found = Luks.probe(&volume).unwrap().unwrap();
        let used = Luks.used(&volume).map_err(|doubt| match doubt {
            Doubt::Unsure(why) => why,
            Doubt::Stopped(error) => panic!("{error}"),
        });
        (found, used)
    }

    #[test]
    fn all_of_it_is_in_use() {
        let (found, used) = look(luks2_disk(r#"{"keyslots":{"0":[1]},"config":{}}"#));
        assert_eq!(
            (found.kind.as_str(), found.label.as_deref()),
            ("LUKS2", Some("safe"))
        );
        let used = used.unwrap();
        assert_eq!(
            used.basis.unwrap(),
            "encrypted with LUKS2: all of it is in use"
        );
        assert_eq!(used.map.finish().1.gaps().count(), 0);
        assert!(used.notes.is_empty());
    }

    #[test]
    fn unfinished_reencryption_is_told() {
        let json = r#"{"config":{"requirements":{"mandatory":["online-reencrypt-v2"]}}}"#;
        let used = look(luks2_disk(json)).1.unwrap();
        assert!(used.notes[0].contains("re-encryption"), "{:?}", used.notes);
    }

    #[test]
    fn damaged_headers_are_doubts() {
        let why = |change: fn(&mut Vec<u8>)| {
            let mut disk = luks2_disk(r#"{"config":{}}"#);
            change(&mut disk);
            look(disk).1.unwrap_err()
        };
        assert!(why(|d| d[5000] = 1).contains("checksum"));
        assert!(why(|d| d[10] = 1).contains("bytes long"));
        assert!(why(|d| d[7] = 3).contains("version 3"));
        assert!(why(|d| d[72] = b'x').contains("xha256"));
        assert!(why(|d| d.truncate(10_000)).contains("past its end"));
        let json = why(|d| {
            d[4096] = b'[';
            seal(d);
        });
        assert!(json.contains("description"), "{json}");
    }

    #[test]
    fn data_of_luks1_must_be_inside() {
        let mut disk = vec![0; 8192];
        disk[..6].copy_from_slice(MAGIC);
        disk[7] = 1;
        disk[107] = 8;
        assert!(look(disk.clone()).1.is_ok());
        disk[105] = 1;
        assert!(look(disk).1.unwrap_err().contains("behind its end"));
    }
}
