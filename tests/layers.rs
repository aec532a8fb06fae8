//! The rooms of `src/` keep to their borders: who may use whom, where the kernel is called, where
//! anything is printed, where clock, environment and chance are asked, and who may open for writing.
//!
//! The source is read as tokens, so comments and strings never count and macro bodies do. A room
//! that this table does not know is a finding too: a new room starts with a line here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// Each room and the rooms that its code may name. Tests may also name any room above their own
/// row: what lies lower may help to prove what lies higher.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("sys", &["base"]),
    ("block", &["base", "sys"]),
    ("device", &["base", "sys", "block"]),
    ("layout", &["base", "block"]),
    ("fs", &["base", "block"]),
    ("change", &["base", "sys", "block"]),
    ("image", &["base"]),
    ("crypt", &["base"]),
    ("store", &["base", "sys", "crypt"]),
    ("chain", &["base", "block", "image", "store"]),
    ("pipeline", &["base", "sys", "block", "image"]),
    (
        "restore",
        &["base", "block", "layout", "chain", "image", "pipeline"],
    ),
    (
        "ops",
        &[
            "base", "sys", "block", "device", "layout", "fs", "change", "image", "crypt", "store",
            "chain", "pipeline", "restore",
        ],
    ),
    ("config", &["base"]),
    ("schedule", &["base"]),
    ("mount", &["base", "block", "layout"]),
    ("cli", &["base", "config", "ops"]),
    ("tui", &["base", "config", "ops"]),
    ("main", &["base", "config", "ops", "cli", "tui"]),
];

/// Macros for other crates too, which the language puts beside the rooms, and the rooms that they are of.
const MACROS: &[(&str, &str)] = &[("pass_on", "store")];

const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];
const PRINTING_ROOMS: &[&str] = &["cli", "tui", "main"];

/// Adjacent path segments that ask the clock, the environment or chance.
const AMBIENT: &[(&str, &str)] = &[
    ("SystemTime", "now"),
    ("Instant", "now"),
    ("Timestamp", "now"),
    ("Zoned", "now"),
    ("Uuid", "new_v4"),
    ("Uuid", "now_v7"),
    ("std", "env"),
];
/// Crates that are nothing but chance.
const CHANCE: &[&str] = &["rand", "getrandom", "fastrand"];
/// Names that may not be hidden behind another name.
const NOT_RENAMED: &[&str] = &["SystemTime", "Instant", "Timestamp", "Zoned", "Uuid", "env"];
const AMBIENT_ROOMS: &[&str] = &["ops", "cli", "tui", "main"];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    line: usize,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.text)
    }
}

/// Where in the tree of modules some tokens stand.
#[derive(Clone)]
struct Place {
    module: Vec<String>,
    in_test: bool,
}

/// One source file while it is read.
struct Scan<'a> {
    /// Path below `src`, such as `block/file.rs`.
    file: &'a str,
    room: String,
    findings: Vec<Finding>,
    /// Modules in files of their own that exist only under test.
    test_modules: Vec<String>,
}

impl<'a> Scan<'a> {
    /// Reads `text`, the content of `file`. `test_file`: the whole file exists only under test.
    fn of(file: &'a str, text: &str, test_file: bool) -> Scan<'a> {
        let module = module_path(file);
        let room = match file {
            "lib.rs" => "lib".to_owned(),
            "main.rs" => "main".to_owned(),
            _ => module[0].clone(),
        };
        let mut scan = Scan {
            file,
            room,
            findings: Vec::new(),
            test_modules: Vec::new(),
        };
        let tokens: TokenStream = text.parse().unwrap_or_else(|e| panic!("{file}: {e}"));
        if scan.room != "lib" && scan.allowed().is_none() {
            let text = format!(
                "room `{}` is not in the table of tests/layers.rs",
                scan.room
            );
            scan.findings.push(Finding { line: 1, text });
        }
        let place = Place {
            module,
            in_test: test_file,
        };
        scan.walk(tokens, &place);
        scan
    }

    fn allowed(&self) -> Option<&'static [&'static str]> {
        let row = ROOMS.iter().find(|(room, _)| *room == self.room)?;
        Some(row.1)
    }

    fn find(&mut self, at: &Ident, text: String) {
        let line = at.span().start().line;
        let finding = Finding { line, text };
        if self.findings.last() != Some(&finding) {
            self.findings.push(finding);
        }
    }

    /// Looks at one level of tokens and, through groups, at all below.
    fn walk(&mut self, tokens: TokenStream, place: &Place) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut item = place.clone();
        let mut at = 0;
        while at < tokens.len() {
            let step = match &tokens[at] {
                TokenTree::Punct(p) if p.as_char() == '#' => {
                    item.in_test |= attribute(&tokens[at + 1..]).is_some_and(is_test_cfg);
                    1
                }
                TokenTree::Punct(p) if p.as_char() == ';' => {
                    item = place.clone();
                    1
                }
                TokenTree::Punct(p) if p.as_char() == '.' => {
                    self.method(&tokens[at + 1..], &item);
                    1
                }
                TokenTree::Group(group) => {
                    self.walk(group.stream(), &item);
                    if group.delimiter() == Delimiter::Brace {
                        item = place.clone();
                    }
                    1
                }
                TokenTree::Ident(ident) => self.word(ident, &tokens[at..], &mut item),
                _ => 1,
            };
            at += step;
        }
    }

    /// Looks at what begins with `ident`, the first of `tokens`; returns how many tokens it took.
    fn word(&mut self, ident: &Ident, tokens: &[TokenTree], item: &mut Place) -> usize {
        let word = ident.to_string();
        match word.as_str() {
            "mod" => return self.module(tokens, item),
            "use" => return self.imports(tokens, item),
            "unsafe" if self.room != "sys" => {
                self.find(ident, "`unsafe` outside the room sys".to_owned());
            }
            _ => {}
        }
        let (path, taken) = path_at(tokens);
        self.check_path(ident, &path, item);
        if is_macro(&tokens[taken..]) {
            self.check_macro(ident, path.last().expect("a path has a segment"), item);
        }
        taken
    }

    fn module(&mut self, tokens: &[TokenTree], item: &mut Place) -> usize {
        let Some(TokenTree::Ident(name)) = tokens.get(1) else {
            return 1;
        };
        match tokens.get(2) {
            Some(TokenTree::Group(body)) => {
                let mut inner = item.clone();
                inner.module.push(name.to_string());
                inner.in_test |= inner_attributes_are_test(body);
                self.walk(body.stream(), &inner);
                item.in_test = false;
                3
            }
            _ => {
                if item.in_test {
                    self.test_modules.push(name.to_string());
                }
                2
            }
        }
    }

    /// A `use` declaration up to its semicolon.
    fn imports(&mut self, tokens: &[TokenTree], item: &Place) -> usize {
        let end = tokens.iter().position(is_semicolon).unwrap_or(tokens.len());
        let tree = Tree {
            prefix: Vec::new(),
            tokens: &tokens[1..end],
        };
        for import in tree.leaves() {
            self.check_path(&import.at, &import.path, item);
            let last = import.path.last().map_or("", String::as_str);
            if import.renamed && NOT_RENAMED.contains(&last) && !self.may_be_ambient(item) {
                self.find(&import.at, format!("`{last}` hidden behind another name"));
            }
        }
        end
    }

    fn method(&mut self, tokens: &[TokenTree], item: &Place) {
        if let Some(TokenTree::Ident(name)) = tokens.first()
            && *name == "elapsed"
            && !self.may_be_ambient(item)
        {
            self.find(
                name,
                "`elapsed` asks the clock; take the time as a parameter".into(),
            );
        }
    }

    fn may_be_ambient(&self, item: &Place) -> bool {
        item.in_test || AMBIENT_ROOMS.contains(&self.room.as_str())
    }

    fn check_macro(&mut self, at: &Ident, name: &str, item: &Place) {
        let may = item.in_test || PRINTING_ROOMS.contains(&self.room.as_str());
        if PRINTING.contains(&name) && !may {
            self.find(at, format!("`{name}!` outside the frontends"));
        }
    }

    fn check_path(&mut self, at: &Ident, path: &[String], item: &Place) {
        self.check_room(at, path, item);
        self.check_kernel(at, path);
        self.check_ambient(at, path, item);
        if path.iter().any(|s| s == "WriteExclusive") && !self.may_open_for_writing(item) {
            self.find(
                at,
                "`WriteExclusive` outside sys and device::guard".to_owned(),
            );
        }
    }

    fn check_room(&mut self, at: &Ident, path: &[String], item: &Place) {
        let Some(target) = resolve(path, &item.module) else {
            return;
        };
        let Some(allowed) = self.allowed() else {
            return;
        };
        let Some(room) = target.first() else {
            return;
        };
        let of_macro = MACROS.iter().find(|(name, _)| name == room);
        let room = &of_macro.map_or_else(|| room.clone(), |(_, room)| (*room).to_owned());
        if *room == self.room || allowed.contains(&room.as_str()) {
            return;
        }
        let row = |name: &str| ROOMS.iter().position(|(room, _)| *room == name);
        if item.in_test && row(room) < row(&self.room) && row(room).is_some() {
            return;
        }
        let known = row(room).is_some();
        let why = if known {
            format!("room `{}` may not use room `{room}`", self.room)
        } else {
            format!("`{}` names no room", path.join("::"))
        };
        self.find(at, why);
    }

    fn check_kernel(&mut self, at: &Ident, path: &[String]) {
        let foreign = path.first().is_some_and(|s| s == "nix") || path.iter().any(|s| s == "libc");
        if foreign && self.room != "sys" {
            self.find(at, format!("`{}` outside the room sys", path.join("::")));
        }
    }

    fn check_ambient(&mut self, at: &Ident, path: &[String], item: &Place) {
        let asks = path.windows(2).any(|two| {
            AMBIENT
                .iter()
                .any(|(owner, name)| two[0] == *owner && two[1] == *name)
        });
        let chance = path.len() > 1 && CHANCE.contains(&path[0].as_str());
        if (asks || chance) && !self.may_be_ambient(item) {
            let path = path.join("::");
            self.find(
                at,
                format!("`{path}`: clock, environment and chance are parameters here"),
            );
        }
    }

    fn may_open_for_writing(&self, item: &Place) -> bool {
        self.room == "sys"
            || self.file.starts_with("device/guard")
            || (self.file == "block/file/target.rs" && item.in_test)
    }
}

/// The module that a file below `src` is.
fn module_path(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").expect("a Rust file");
    let mut parts: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if matches!(
        parts.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        parts.pop();
    }
    parts
}

/// The path from the crate's root, or `None` for what is neither of this crate nor relative.
fn resolve(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let mut base = match path.first()?.as_str() {
        "crate" | "diskstrata" if path.len() > 1 => return Some(path[1..].to_vec()),
        "self" | "super" if path.len() > 1 => module.to_vec(),
        _ => return None,
    };
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "self" => {}
            "super" => {
                base.pop();
            }
            _ => break,
        }
        rest = tail;
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The path that starts at the first token and how many tokens it has.
fn path_at(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    let mut at = 0;
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        path.push(ident.to_string());
        at += 1;
        if !is_path_separator(&tokens[at..])
            || !matches!(tokens.get(at + 2), Some(TokenTree::Ident(_)))
        {
            break;
        }
        at += 2;
    }
    (path, at)
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    let colon =
        |t: Option<&TokenTree>| matches!(t, Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(tokens.first()) && colon(tokens.get(1))
}

fn is_semicolon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(p) if p.as_char() == ';')
}

fn is_macro(tokens: &[TokenTree]) -> bool {
    matches!(tokens.first(), Some(TokenTree::Punct(p)) if p.as_char() == '!')
        && matches!(tokens.get(1), Some(TokenTree::Group(_)))
}

/// The bracket of an attribute whose `#` came before.
fn attribute(tokens: &[TokenTree]) -> Option<&Group> {
    match tokens.first()? {
        TokenTree::Group(group) => Some(group),
        TokenTree::Punct(p) if p.as_char() == '!' => attribute(&tokens[1..]),
        _ => None,
    }
}

/// Whether the attribute says that its item exists only under test.
fn is_test_cfg(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

fn inner_attributes_are_test(body: &Group) -> bool {
    let tokens: Vec<TokenTree> = body.stream().into_iter().collect();
    tokens.iter().enumerate().any(|(at, token)| {
        matches!(token, TokenTree::Punct(p) if p.as_char() == '#')
            && matches!(tokens.get(at + 1), Some(TokenTree::Punct(p)) if p.as_char() == '!')
            && attribute(&tokens[at + 1..]).is_some_and(is_test_cfg)
    })
}

/// A part of a `use` declaration.
struct Tree<'a> {
    prefix: Vec<String>,
    tokens: &'a [TokenTree],
}

/// One name that a `use` declaration brings.
struct Import {
    at: Ident,
    path: Vec<String>,
    renamed: bool,
}

impl Tree<'_> {
    /// Every imported path; a glob ends in `*`.
    fn leaves(&self) -> Vec<Import> {
        let mut path = self.prefix.clone();
        let mut leaves = Vec::new();
        let mut first: Option<Ident> = None;
        let mut renamed = false;
        for token in self.tokens {
            match token {
                TokenTree::Ident(ident) if *ident == "as" => renamed = true,
                TokenTree::Ident(ident) if !renamed => {
                    first.get_or_insert_with(|| ident.clone());
                    path.push(ident.to_string());
                }
                TokenTree::Punct(p) if p.as_char() == '*' => path.push("*".to_owned()),
                TokenTree::Group(group) => return below(group, &path),
                _ => {}
            }
        }
        leaves.extend(first.map(|at| Import { at, path, renamed }));
        leaves
    }
}

/// The leaves inside the braces of a `use` declaration.
fn below(group: &Group, prefix: &[String]) -> Vec<Import> {
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    let comma = |t: &TokenTree| matches!(t, TokenTree::Punct(p) if p.as_char() == ',');
    let parts = tokens.split(comma);
    let trees = parts.map(|tokens| Tree {
        prefix: prefix.to_vec(),
        tokens,
    });
    trees.flat_map(|tree| tree.leaves()).collect()
}

/// All Rust files below `dir`.
fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Findings of all files as `path:line: text`, and how many files were read.
fn scan_tree(src: &Path) -> (Vec<String>, usize) {
    let mut files = Vec::new();
    rust_files(src, &mut files);
    files.sort();
    let names: Vec<String> = files
        .iter()
        .map(|f| f.strip_prefix(src).unwrap().to_str().unwrap().to_owned())
        .collect();
    let texts: Vec<String> = files
        .iter()
        .map(|f| std::fs::read_to_string(f).unwrap())
        .collect();
    let mut test_only = BTreeSet::new();
    for (name, text) in names.iter().zip(&texts) {
        let module = module_path(name);
        for child in Scan::of(name, text, false).test_modules {
            test_only.insert([module.clone(), vec![child]].concat());
        }
    }
    let mut findings = Vec::new();
    for (name, text) in names.iter().zip(&texts) {
        let module = module_path(name);
        let in_test = test_only.iter().any(|test| module.starts_with(test));
        for finding in Scan::of(name, text, in_test).findings {
            findings.push(format!("src/{name}:{finding}"));
        }
    }
    (findings, names.len())
}

#[test]
fn the_rooms_keep_to_their_borders() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (findings, files) = scan_tree(&src);
    assert!(
        files > 20,
        "only {files} files found below src: is this the right place?"
    );
    assert!(
        findings.is_empty(),
        "the borders of docs/architecture.md are crossed:\n{}",
        findings.join("\n")
    );
}

#[test]
fn the_table_has_no_circle() {
    for (at, (room, allowed)) in ROOMS.iter().enumerate() {
        for friend in *allowed {
            let place = ROOMS.iter().position(|(name, _)| name == friend);
            assert!(
                place.is_some_and(|place| place < at),
                "`{room}` uses `{friend}`, which does not stand above it"
            );
        }
    }
}

/// What the scanner says of `text` standing in `file`.
fn says(file: &str, text: &str) -> Vec<String> {
    let findings = Scan::of(file, text, false).findings;
    findings.iter().map(Finding::to_string).collect()
}

/// Fails unless exactly one finding, on the line that holds the mark `HERE`, contains `part`.
fn assert_caught(file: &str, text: &str, part: &str) {
    let line = text.lines().position(|l| l.contains("HERE")).unwrap() + 1;
    let found = says(file, text);
    assert!(
        found.len() == 1 && found[0].starts_with(&format!("{line}: ")) && found[0].contains(part),
        "in {file} expected one finding on line {line} about {part:?}, got {found:?} for\n{text}"
    );
}

fn assert_clean(file: &str, text: &str) {
    assert_eq!(says(file, text), Vec::<String>::new(), "in {file}:\n{text}");
}

#[test]
fn a_forbidden_import_is_caught_however_it_is_written() {
    for text in [
        "use crate::device::Inventory; // HERE",
        "use diskstrata::device::Inventory; // HERE",
        "use crate::{base::Error,\n device::{guard, Inventory as I}}; // HERE once",
        "use super::super::device; // HERE",
        "fn f() -> crate::device::Inventory { todo!() } // HERE",
        "fn f() { debug_assert!(crate::device::ok()); } // HERE",
        "mod inner {\n use super::super::super::device::X; // HERE\n}",
        "pub(crate) use crate::device; // HERE",
        "macro_rules! m { () => { $crate::device::f() } } // HERE",
    ] {
        let found = says("layout/gpt.rs", text);
        let about = found
            .iter()
            .filter(|f| f.contains("may not use room `device`"))
            .count();
        assert!(about >= 1, "{text}: {found:?}");
    }
    assert_caught("block/mod.rs", "use super::fs::x; // HERE", "`fs`");
    let passes_on = "impl Store for X { crate::pass_on!(inner: list); } // HERE";
    assert_caught("block/mod.rs", passes_on, "may not use room `store`");
    assert_clean("ops/mod.rs", passes_on);
    let test = "#[cfg(test)]\nmod tests {\n use crate::restore::plan; // HERE\n}";
    assert_caught("chain/view.rs", test, "`restore`");
    assert_caught("base/units.rs", "\n\nuse crate::sys; // HERE", "`sys`");
    assert_caught("cli/mod.rs", "use crate::store::Store; // HERE", "`store`");
    assert_caught("cli/mod.rs", "use crate::*; // HERE", "names no room");
    assert_caught("cli/mod.rs", "use crate::Thing; // HERE", "names no room");
    assert_caught("attic/mod.rs", "// HERE", "not in the table");
}

#[test]
fn an_allowed_import_passes() {
    assert_clean(
        "layout/gpt.rs",
        "use crate::{base::{self, Error}, block::BlockSource};\n\
         use super::mbr::Mbr;\n use self::inner::X;\n\
         // crate::device::Inventory\n\
         const TEXT: &str = \"crate::device::Inventory\";\n\
         const RAW: &str = r#\"unsafe { println!() }\"#;\n\
         /// [`crate::device`] println!()\n fn f<'a>(x: &'a str) -> char { 'u' }",
    );
    assert_clean("main.rs", "fn main() { diskstrata::cli::run() }");
    let test = "#[cfg(test)]\nmod tests { use crate::block::MemorySource; }";
    assert_clean("store/local.rs", test);
    assert_clean(
        "ops/backup.rs",
        "use crate::{chain, pipeline, restore, store, sys};",
    );
}

#[test]
fn the_kernel_is_called_only_in_sys() {
    assert_caught(
        "block/file.rs",
        "fn f() {\n unsafe { g() } // HERE\n}",
        "unsafe",
    );
    assert_caught("block/file.rs", "use nix::sys::stat; // HERE", "nix");
    assert_caught(
        "store/local.rs",
        "const E: i32 = nix::libc::ENOSPC; // HERE",
        "libc",
    );
    assert_caught(
        "ops/clone.rs",
        "const E: i32 = libc::ENOSPC; // HERE",
        "libc",
    );
    assert_clean("sys/ioctl.rs", "fn f() { unsafe { nix::libc::sync() } }");
    assert_clean("block/file.rs", "#![allow(unsafe_code)]");
}

#[test]
fn printing_is_for_frontends() {
    assert_caught(
        "ops/backup.rs",
        "fn f() { println!(\"x\"); } // HERE",
        "println!",
    );
    assert_caught(
        "image/writer.rs",
        "fn f() { std::eprint!(\"x\"); } // HERE",
        "eprint!",
    );
    assert_caught("image/writer.rs", "fn f() { dbg!(1); } // HERE", "dbg!");
    assert_clean("cli/mod.rs", "fn f() { println!(\"x\"); }");
    assert_clean("main.rs", "fn main() { eprintln!(\"x\"); }");
    assert_clean(
        "block/x.rs",
        "#[cfg(test)]\nmod tests { fn f() { println!(); } }",
    );
    assert_clean("block/x.rs", "#[cfg(test)] fn f() { println!(); }");
    let after = "#[cfg(test)]\nmod tests { fn f() {} }\nfn g() { println!(); } // HERE";
    assert_caught("block/x.rs", after, "println!");
    let not_only = "#[cfg(not(test))]\nmod m { fn f() { println!(); } } // HERE";
    assert_caught("block/x.rs", not_only, "println!");
    assert_clean("block/x.rs", "fn println(x: u8) -> bool { println != 3 }");
}

#[test]
fn clock_environment_and_chance_are_parameters_below_ops() {
    for text in [
        "fn f() { let t = Instant::now(); } // HERE",
        "fn f() { let t = std::time::SystemTime::now(); } // HERE",
        "fn f() { g(jiff::Timestamp::now) } // HERE",
        "fn f() { let t = Zoned::now(); } // HERE",
        "fn f() { let id = uuid::Uuid::new_v4(); } // HERE",
        "use std::env; // HERE",
        "use std::{fs, env::temp_dir}; // HERE",
        "fn f() { let x: u8 = rand::random(); } // HERE",
        "fn f(t: Instant) { t.elapsed(); } // HERE",
        "use std::time::Instant as Clock; // HERE",
    ] {
        let found = says("pipeline/work.rs", text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].starts_with("1: "), "{text}: {found:?}");
        assert_clean("ops/backup.rs", text);
        assert_clean("cli/progress.rs", text);
    }
    assert_clean(
        "chain/x.rs",
        "#[cfg(test)]\nmod t { fn f() { Instant::now(); } }",
    );
    assert_clean(
        "chain/x.rs",
        "use std::time::{Duration, Instant}; const V: &str = env!(\"X\");",
    );
}

#[test]
fn only_the_guard_opens_for_writing() {
    let text = "fn f() { open(p, Access::WriteExclusive); } // HERE";
    assert_caught("block/file/target.rs", text, "WriteExclusive");
    assert_caught("ops/restore.rs", text, "WriteExclusive");
    assert_caught("device/inventory.rs", text, "WriteExclusive");
    assert_clean("device/guard.rs", text);
    assert_clean("device/guard/permit.rs", text);
    assert_clean("sys/open.rs", text);
    let test = format!("#[cfg(test)]\nmod tests {{\n{text}\n}}");
    assert_clean("block/file/target.rs", &test);
    assert_caught("ops/restore.rs", &test, "WriteExclusive");
}

#[test]
fn a_module_for_tests_in_a_file_of_its_own_is_known() {
    let scan = Scan::of(
        "block/mod.rs",
        "#[cfg(test)]\npub(crate) mod contract;\nmod file;",
        false,
    );
    assert_eq!(scan.test_modules, ["contract"]);
    let printing = "fn f() { println!(); }";
    assert_eq!(Scan::of("block/contract.rs", printing, true).findings, []);
    assert_eq!(
        Scan::of("block/contract.rs", printing, false)
            .findings
            .len(),
        1
    );
}
