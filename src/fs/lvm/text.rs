//! The text that LVM2 describes a volume group in: sections of named values, parsed within limits.
//!
//! Source: LVM2's `lvm.conf(5)` for the syntax, `libdm/libdm-config.c` for what it leaves open.

use super::super::doubt::{Doubt, ensure};

/// Sections and lists may lie this deep in one another; LVM2 itself writes at most five.
const MAX_DEPTH: u32 = 8;
/// So many values may there be: some ten thousand logical volumes.
const MAX_VALUES: u32 = 200_000;

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'t> {
    Number(u64),
    /// Without its quotes, escapes left as they are: no name that is compared has any.
    Text(&'t str),
    /// A number that is none of those LVM2 counts with: negative or with a fraction.
    Other,
    List(Vec<Value<'t>>),
    Section(Section<'t>),
}

/// Named values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Section<'t> {
    entries: Vec<(&'t str, Value<'t>)>,
}

impl<'t> Section<'t> {
    /// All of `text`.
    ///
    /// # Errors
    /// A doubt when it does not follow the syntax, a name comes twice, or it passes a limit.
    pub(super) fn parse(text: &'t str) -> Result<Section<'t>, Doubt> {
        let mut parser = Parser {
            text,
            at: 0,
            values: 0,
        };
        let section = parser.section(0)?;
        match parser.token()? {
            Token::End => Ok(section),
            _ => Err(parser.wrong("something else than a name")),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value<'t>> {
        let found = self.entries.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> Result<u64, Doubt> {
        match self.get(name) {
            Some(Value::Number(n)) => Ok(*n),
            _ => Err(missing(name)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&'t str, Doubt> {
        match self.get(name) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(missing(name)),
        }
    }

    pub(super) fn list(&self, name: &str) -> Result<&[Value<'t>], Doubt> {
        match self.get(name) {
            Some(Value::List(list)) => Ok(list),
            _ => Err(missing(name)),
        }
    }

    /// The words of a list of texts; none when the name is not there.
    pub(super) fn words(&self, name: &str) -> Result<Vec<&'t str>, Doubt> {
        if self.get(name).is_none() {
            return Ok(Vec::new());
        }
        let word = |value: &Value<'t>| match value {
            Value::Text(text) => Ok(*text),
            _ => Err(missing(name)),
        };
        self.list(name)?.iter().map(word).collect()
    }

    /// The sections in it, by name.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&'t str, &Section<'t>)> {
        self.entries.iter().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((*name, section)),
            _ => None,
        })
    }

    /// Hands every text in it, however deep, to `each`, but not the value named `but`.
    pub(super) fn each_text(&self, but: &str, each: &mut impl FnMut(&'t str)) {
        for (name, value) in &self.entries {
            if *name != but {
                value.each_text(but, each);
            }
        }
    }
}

impl<'t> Value<'t> {
    /// The recursion is as deep as the parser allowed.
    fn each_text(&self, but: &str, each: &mut impl FnMut(&'t str)) {
        match self {
            Value::Text(text) => each(text),
            Value::List(list) => list.iter().for_each(|v| v.each_text(but, each)),
            Value::Section(section) => section.each_text(but, each),
            Value::Number(_) | Value::Other => {}
        }
    }
}

fn missing(name: &str) -> Doubt {
    Doubt::new(format!(
        "its volume group's description lacks a sensible \"{name}\""
    ))
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'t> {
    /// A name or a number.
    Word(&'t str),
    Quoted(&'t str),
    Sign(char),
    End,
}

struct Parser<'t> {
    text: &'t str,
    /// Byte at which the next token begins; a boundary of characters.
    at: usize,
    values: u32,
}

impl<'t> Parser<'t> {
    fn wrong(&self, what: &str) -> Doubt {
        Doubt::new(format!(
            "its volume group's description cannot be read: {what} before byte {}",
            self.at
        ))
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Values up to the sign that ends a section, which is left, or the end of the text.
    fn section(&mut self, depth: u32) -> Result<Section<'t>, Doubt> {
        ensure(depth < MAX_DEPTH, || {
            self.wrong_text("sections too deep in one another")
        })?;
        let mut entries = Vec::new();
        loop {
            let before = self.at;
            let Token::Word(name) = self.token()? else {
                self.at = before;
                break;
            };
            let value = match self.token()? {
                Token::Sign('=') => self.value(depth + 1)?,
                Token::Sign('{') => {
                    let section = self.section(depth + 1)?;
                    if self.token()? != Token::Sign('}') {
                        return Err(self.wrong("a section without its end"));
                    }
                    Value::Section(section)
                }
                _ => return Err(self.wrong("a name without a value")),
            };
            self.count()?;
            entries.push((name, value));
        }
        let mut names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(self.wrong(&format!("the name \"{}\" twice", pair[0]))),
            None => Ok(Section { entries }),
        }
    }

    fn value(&mut self, depth: u32) -> Result<Value<'t>, Doubt> {
        ensure(depth < MAX_DEPTH, || {
            self.wrong_text("lists too deep in one another")
        })?;
        match self.token()? {
            Token::Word(word) => Ok(word.parse().map_or(Value::Other, Value::Number)),
            Token::Quoted(text) => Ok(Value::Text(text)),
            Token::Sign('[') => self.list(depth),
            _ => Err(self.wrong("a name without a value")),
        }
    }

    fn list(&mut self, depth: u32) -> Result<Value<'t>, Doubt> {
        let mut values = Vec::new();
        loop {
            let before = self.at;
            if self.token()? == Token::Sign(']') {
                return Ok(Value::List(values));
            }
            self.at = before;
            values.push(self.value(depth + 1)?);
            self.count()?;
            match self.token()? {
                Token::Sign(',') => {}
                Token::Sign(']') => return Ok(Value::List(values)),
                _ => return Err(self.wrong("a list without its end")),
            }
        }
    }

    fn count(&mut self) -> Result<(), Doubt> {
        self.values += 1;
        ensure(self.values <= MAX_VALUES, || {
            self.wrong_text("more values than any has")
        })
    }

    fn wrong_text(&self, what: &str) -> String {
        format!(
            "its volume group's description cannot be read: {what} before byte {}",
            self.at
        )
    }

    fn token(&mut self) -> Result<Token<'t>, Doubt> {
        self.skip_blanks();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if first == '"' || first == '\'' {
            return self.quoted(first);
        }
        if "={}[],".contains(first) {
            self.at += first.len_utf8();
            return Ok(Token::Sign(first));
        }
        let len = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.wrong(&format!("the character {first:?}")));
        }
        self.at += len;
        Ok(Token::Word(rest.get(..len).unwrap_or_default()))
    }

    /// What lies between two `quote`s; a backslash takes its next character along.
    fn quoted(&mut self, quote: char) -> Result<Token<'t>, Doubt> {
        let rest = self.rest();
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
            } else if c == '\\' && quote == '"' {
                escaped = true;
            } else if c == quote {
                self.at += at + c.len_utf8();
                return Ok(Token::Quoted(rest.get(1..at).unwrap_or_default()));
            }
        }
        Err(self.wrong("a text without its end"))
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let inner = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
            self.at += rest.len() - inner.len();
            if !inner.starts_with('#') {
                return;
            }
            self.at += inner.find('\n').unwrap_or(inner.len());
        }
    }
}

/// What names and numbers are made of.
fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-+./:@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lvm_writes_is_read() {
        let text = "# LVM\nvg0 {\n\tid = \"a-b\"\t# an id\n\tn = 8192\n\tflags = []\n\
                    \tpv0 { s = [\"pv0\", 3,\n \"pv1\", 4] }\n}\n\
                    description = \"say \\\"}\\\" \\\\\"\nfloat = 1.5\n";
        let all = Section::parse(text).unwrap();
        let (name, group) = all.sections().next().unwrap();
        assert_eq!((name, group.number("n").unwrap()), ("vg0", 8192));
        assert_eq!(group.text("id").unwrap(), "a-b");
        assert_eq!(group.words("flags").unwrap(), Vec::<&str>::new());
        let (_, inner) = group.sections().next().unwrap();
        let list = inner.list("s").unwrap();
        assert_eq!(list[2..], [Value::Text("pv1"), Value::Number(4)]);
        assert_eq!(all.get("float"), Some(&Value::Other));
        assert!(all.text("description").unwrap().contains('}'));
        let mut texts = Vec::new();
        group.each_text("id", &mut |t| texts.push(t));
        assert_eq!(texts, ["pv0", "pv1"]);
        assert!(group.number("id").is_err());
        assert!(group.words("n").is_err());
    }

    #[test]
    fn what_is_not_its_syntax_is_a_doubt() {
        for text in [
            "a {",
            "a = ",
            "a = [1",
            "a = \"x",
            "a",
            "a = 1 }",
            "= 1",
            "a = 1 a = 2",
            "a = [1 2]",
            "a = \u{1}",
            "{ }",
            "a { } a { }",
            "a = \0",
            "a = 1 \"b\"",
            "ä = 1",
        ] {
            assert!(Section::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn depth_and_number_are_limited() {
        let deep = |n: usize| format!("a = {}{}", "[".repeat(n), "]".repeat(n));
        assert!(Section::parse(&deep(6)).is_ok());
        assert!(Section::parse(&deep(100_000)).is_err());
        assert!(Section::parse(&"a { ".repeat(100_000)).is_err());
        let many = format!("a = [{}]", "1,".repeat(200_001));
        assert!(Section::parse(&many).is_err());
    }
}
