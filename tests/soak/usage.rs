//! What people and programs do to files in a day: logs grow and turn over, documents and pictures come
//! and go, a database changes pages here and there, packages are replaced. The same for the same seed
//! and day.

use crate::clock::Day;
use crate::kit::bytes::{Stream, open_rw};
use crate::kit::{KIB, size};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A page of the database.
const PAGE: u64 = 8 * KIB;

const FOLDERS: [&str; 5] = ["documents", "pictures", "programs", "log", "data"];

/// What is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// About how many bytes of files there are.
    pub(crate) content: u64,
    pub(crate) seed: u64,
}

impl Usage {
    /// Fills the empty file system at `root`.
    pub(crate) fn begin(self, root: &Path) {
        let mut stream = Stream::new(self.seed);
        for folder in FOLDERS {
            fs::create_dir(root.join(folder)).unwrap();
        }
        let share = self.content / 4;
        for n in 0..40 {
            let content = self.picture(&mut stream);
            write(&root.join(format!("pictures/first-{n}")), &content);
        }
        for n in 0..120 {
            let len = share / 240 + stream.below(share / 120);
            let content = stream.text(len);
            write(&root.join(format!("documents/first-{n}")), &content);
        }
        for n in 0..300 {
            let len = 200 + stream.below(share / 600);
            let content = program(&mut stream, len);
            write(&root.join(format!("programs/file-{n}")), &content);
        }
        let database = File::create(root.join("data/base")).unwrap();
        for page in 0..share / PAGE {
            let content = page_of(&mut stream);
            database.write_all_at(&content, page * PAGE).unwrap();
        }
        let sparse = File::create(root.join("data/sparse")).unwrap();
        sparse.set_len(self.content / 2).unwrap();
    }

    /// One day.
    pub(crate) fn day(self, root: &Path, day: Day) {
        let mut stream = Stream::new(self.seed ^ day.wrapping_mul(0x9E37_79B9));
        self.log(root, &mut stream);
        self.come_and_go(root, day, &mut stream);
        self.database(root, &mut stream);
        let sparse = open_rw(&root.join("data/sparse"));
        let at = stream.below(self.content / 2 - 64 * KIB);
        sparse.write_all_at(&stream.bytes(40 * KIB), at).unwrap();
        if day % 7 == 5 {
            upgrade(root, &mut stream);
        }
        if day % 30 == 17 {
            // The database is written anew, as `VACUUM` does.
            let new = root.join("data/base.new");
            fs::copy(root.join("data/base"), &new).unwrap();
            fs::rename(&new, root.join("data/base")).unwrap();
        }
    }

    fn picture(self, stream: &mut Stream) -> Vec<u8> {
        let usual = self.content / 160;
        let len = usual / 2 + stream.below(usual);
        stream.bytes(len)
    }

    /// A log grows; the oldest one goes.
    fn log(self, root: &Path, stream: &mut Stream) {
        let log = |n: u64| root.join(format!("log/messages.{n}"));
        let mut open = OpenOptions::new();
        let mut file = open.create(true).append(true).open(log(0)).unwrap();
        let lines = stream.text(self.content / 300);
        file.write_all(&lines).unwrap();
        file.sync_all().unwrap();
        if file.metadata().unwrap().len() > self.content / 60 {
            for n in (0..3).rev().filter(|n| log(*n).exists()) {
                fs::rename(log(n), log(n + 1)).unwrap();
            }
        }
    }

    /// Documents and pictures are made, saved again in both usual ways, moved, thrown away.
    fn come_and_go(self, root: &Path, day: Day, stream: &mut Stream) {
        for n in 0..3 {
            let len = 1000 + stream.below(self.content / 200);
            let content = stream.text(len);
            write(&root.join(format!("documents/{day}-{n}")), &content);
        }
        for n in 0..2 {
            let content = self.picture(stream);
            write(&root.join(format!("pictures/{day}-{n}")), &content);
        }
        let documents = files_of(&root.join("documents"));
        for n in 0..4 {
            let file = one_of(&documents, stream);
            let len = 500 + stream.below(self.content / 300);
            let content = stream.text(len);
            if n % 2 == 0 {
                let new = file.with_extension("saved");
                write(&new, &content);
                fs::rename(&new, file).unwrap();
            } else {
                write(file, &content);
            }
        }
        for n in 0..2 {
            let file = one_of(&documents, stream);
            let to = root.join(format!("pictures/moved-{day}-{n}"));
            if file.exists() {
                fs::rename(file, to).unwrap();
            }
        }
        let mut all = [
            files_of(&root.join("documents")),
            files_of(&root.join("pictures")),
        ]
        .concat();
        let mut total: u64 = all.iter().map(|f| fs::metadata(f).unwrap().len()).sum();
        for n in 0.. {
            // What came yesterday has the place of what goes today.
            if n >= 3 && total <= self.content / 2 {
                break;
            }
            let index = size(stream.below(all.len() as u64));
            let file = all.swap_remove(index);
            total -= fs::metadata(&file).unwrap().len();
            fs::remove_file(&file).unwrap();
        }
    }

    /// Pages here and there, with a journal of what was there before that goes when all is safe.
    fn database(self, root: &Path, stream: &mut Stream) {
        let base = open_rw(&root.join("data/base"));
        let pages = base.metadata().unwrap().len() / PAGE;
        let changed: Vec<u64> = (0..24).map(|_| stream.below(pages)).collect();
        let journal = root.join("data/base-journal");
        let mut file = File::create(&journal).unwrap();
        let mut old = vec![0; size(PAGE)];
        for page in &changed {
            base.read_exact_at(&mut old, page * PAGE).unwrap();
            file.write_all(&old).unwrap();
        }
        file.sync_all().unwrap();
        for page in &changed {
            base.write_all_at(&page_of(stream), page * PAGE).unwrap();
        }
        base.sync_all().unwrap();
        fs::remove_file(&journal).unwrap();
    }
}

/// Every third program is replaced as a package manager does it: a new file, synced, renamed over.
fn upgrade(root: &Path, stream: &mut Stream) {
    for file in files_of(&root.join("programs")).iter().step_by(3) {
        let len = fs::metadata(file).unwrap().len() + stream.below(64);
        let new = file.with_extension("new");
        let mut out = File::create(&new).unwrap();
        out.write_all(&program(stream, len)).unwrap();
        out.sync_all().unwrap();
        fs::rename(&new, file).unwrap();
    }
}

/// Half of it compresses.
fn program(stream: &mut Stream, len: u64) -> Vec<u8> {
    let mut content = stream.bytes(len / 2);
    content.extend(stream.text(len - len / 2));
    content
}

fn page_of(stream: &mut Stream) -> Vec<u8> {
    let mut page = stream.text(PAGE / 2);
    page.extend(stream.bytes(PAGE / 4));
    page.resize(size(PAGE), 0);
    page
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

/// In the order of their names: folders tell theirs in any order.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

fn one_of<'a>(files: &'a [PathBuf], stream: &mut Stream) -> &'a Path {
    &files[size(stream.below(files.len() as u64))]
}
