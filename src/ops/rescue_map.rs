//! The file that says what of a disk could not be read: written for a person and for GNU ddrescue, read by
//! the next run.

use crate::base::{ByteLen, Error, ErrorKind, Result};
use crate::block::{MAX_MAP_LEN, Missing, RescueMap};
use std::fs::{self, File};
use std::io::{ErrorKind as IoKind, Read, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What the comment begins with that names the image.
const IMAGE: &str = "diskstrata image ";

/// The file of a map, and what it held when the run began.
pub(super) struct MapFile {
    path: PathBuf,
    text: Option<String>,
    /// Whether the file now is one that `strata` has written.
    own: bool,
}

impl MapFile {
    /// Reads the file at `path`, if there is one.
    ///
    /// # Errors
    /// `Usage` when it cannot be a map.
    pub(super) fn open(path: &Path) -> Result<MapFile> {
        let mut map = MapFile {
            path: path.to_owned(),
            text: None,
            own: false,
        };
        map.text = map.read()?;
        map.own = map.image().is_some();
        Ok(map)
    }

    /// Sees whether a map can be written, before hours of work are done.
    ///
    /// # Errors
    /// `Usage` when the path names no file, `Destination` when none can be written there.
    pub(super) fn check_writable(&self) -> Result<()> {
        let kept = self.beside(".bak")?;
        if self.text.is_some() && !self.own && kept.symlink_metadata().is_ok() {
            return Err(
                Error::new(ErrorKind::Destination, "keep a copy of", self.name())
                    .because(format!("{} exists", kept.display()))
                    .hint("move the file with .bak behind its name away"),
            );
        }
        let beside = self.beside(".new")?;
        let made = File::create(&beside).and_then(|_| fs::remove_file(&beside));
        made.map_err(|e| self.fails(e))
    }

    fn read(&self) -> Result<Option<String>> {
        let no_map = |why: &str| Error::new(ErrorKind::Usage, "read", self.name()).because(why);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == IoKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::new(ErrorKind::Usage, "open", self.name()).caused_by(e)),
        };
        if !file.metadata().is_ok_and(|m| m.is_file()) {
            return Err(no_map("it is no regular file"));
        }
        let mut text = String::new();
        let read = file.take(MAX_MAP_LEN + 1).read_to_string(&mut text);
        read.map_err(|e| Error::new(ErrorKind::Usage, "read", self.name()).caused_by(e))?;
        if crate::base::to_u64(text.len()) > MAX_MAP_LEN {
            return Err(no_map("it is too long for a map"));
        }
        Ok(Some(text))
    }

    /// The image that the map was written with.
    pub(super) fn image(&self) -> Option<Uuid> {
        let lines = self.text.as_deref()?.lines();
        let mut comments = lines.filter_map(|line| line.trim_start().strip_prefix('#'));
        comments.find_map(|c| Uuid::parse_str(c.trim().strip_prefix(IMAGE)?.trim()).ok())
    }

    /// What the map says of a disk of `len` bytes; `None` when there was none.
    ///
    /// # Errors
    /// `Usage`, naming the line, when it is no map.
    pub(super) fn decode(&self, len: ByteLen) -> Result<Option<RescueMap>> {
        let Some(text) = &self.text else {
            return Ok(None);
        };
        RescueMap::decode(text, len)
            .map(Some)
            .map_err(|(line, why)| {
                let subject = format!("line {line} of the rescue map {}", self.name());
                Error::new(ErrorKind::Usage, "understand", subject)
                    .because(why)
                    .hint("name a map that strata or ddrescue has written, or a new file")
            })
    }

    /// Writes the map anew: `missing` is what image `id` of a disk of `len` bytes does not have. A map that
    /// another program has written is kept beside it, with `.bak` behind its name. At every moment one whole
    /// map is there.
    ///
    /// # Errors
    /// `Destination`.
    pub(super) fn write(&mut self, id: Uuid, len: ByteLen, missing: &Missing) -> Result<()> {
        let map = RescueMap {
            comments: vec![
                concat!("Mapfile. Created by strata ", env!("CARGO_PKG_VERSION")).to_owned(),
                format!("{IMAGE}{id}"),
                "strata backup --rescue-map goes on from here. What nothing uses counts as read."
                    .to_owned(),
            ],
            missing: missing.clone(),
            failed: Vec::new(),
        };
        if !self.own && self.text.is_some() {
            fs::hard_link(&self.path, self.beside(".bak")?).map_err(|e| {
                let error = Error::new(ErrorKind::Destination, "keep a copy of", self.name());
                error
                    .caused_by(e)
                    .hint("move the file with .bak behind its name away")
            })?;
        }
        let beside = self.beside(".new")?;
        let written = File::create(&beside).and_then(|mut file| {
            file.write_all(map.encode(len).as_bytes())?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| fs::rename(&beside, &self.path));
        renamed.map_err(|e| {
            // It is this run's own, and of no use.
            let _ = fs::remove_file(&beside);
            self.fails(e)
        })?;
        self.own = true;
        Ok(())
    }

    fn beside(&self, suffix: &str) -> Result<PathBuf> {
        let name = self.path.file_name().ok_or_else(|| {
            Error::new(ErrorKind::Usage, "write", self.name()).because("it is no name of a file")
        })?;
        let mut name = name.to_owned();
        name.push(suffix);
        Ok(self.path.with_file_name(name))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn fails(&self, e: std::io::Error) -> Error {
        let subject = format!("the rescue map {}", self.name());
        Error::new(ErrorKind::Destination, "write", subject).caused_by(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ByteOffset, Extent};

    fn missing() -> Missing {
        let extent = |start, len| Extent {
            start: ByteOffset(start),
            len: ByteLen(len),
        };
        Missing {
            bad: vec![extent(512, 512)],
            untried: vec![extent(8192, 4096)],
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.map");
        let mut file = MapFile::open(&path).unwrap();
        assert_eq!(
            (file.image(), file.decode(ByteLen(1 << 20)).unwrap()),
            (None, None)
        );
        let id = Uuid::from_u128(77);
        file.write(id, ByteLen(1 << 20), &missing()).unwrap();
        file.write(id, ByteLen(1 << 20), &missing()).unwrap();
        let again = MapFile::open(&path).unwrap();
        assert_eq!(again.image(), Some(id));
        let map = again.decode(ByteLen(1 << 20)).unwrap().unwrap();
        assert_eq!(map.missing, missing());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_map_of_another_program_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.map");
        let theirs = "# Mapfile. Created by GNU ddrescue\n0x0 ?\n0x0 0x200 -\n";
        fs::write(&path, theirs).unwrap();
        let mut file = MapFile::open(&path).unwrap();
        assert_eq!(file.image(), None);
        for _ in 0..2 {
            file.write(Uuid::from_u128(1), ByteLen(4096), &missing())
                .unwrap();
        }
        let kept = fs::read_to_string(dir.path().join("disk.map.bak")).unwrap();
        assert_eq!(kept, theirs);
        // Whose copy is there already is never lost.
        fs::write(&path, "0x0 ?\n").unwrap();
        let mut other = MapFile::open(&path).unwrap();
        let error = other
            .write(Uuid::from_u128(1), ByteLen(4096), &missing())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Destination);
        assert_eq!(fs::read_to_string(&path).unwrap(), "0x0 ?\n");
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.map");
        fs::write(&path, "hello\n").unwrap();
        let error = MapFile::open(&path)
            .unwrap()
            .decode(ByteLen(1))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("line 1"), "{error}");
        assert_eq!(
            MapFile::open(dir.path()).map(drop).unwrap_err().kind(),
            ErrorKind::Usage
        );
        let nowhere = dir.path().join("nowhere/disk.map");
        let nowhere = MapFile::open(&nowhere).unwrap();
        assert_eq!(
            nowhere.check_writable().unwrap_err().kind(),
            ErrorKind::Destination
        );
    }
}
