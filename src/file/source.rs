//! The texts of a stack: positions in them, and the copy of them that may be shown.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of the text, from and up to.
pub(super) type Span = Range<usize>;

/// A value and where it is written.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T> At<T> {
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// The texts that a stack is written in, one after another: that of the named file, then those that it includes. Bytes count
/// through all of them, so that a span alone says the file.
#[derive(Debug)]
pub(super) struct Texts {
    /// With a byte between two files that belongs to the first.
    pub text: String,
    parts: Vec<Part>,
}

/// One of the files.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// As the file is called in messages.
    pub name: String,
    /// Where relative paths begin that are written in it.
    pub folder: PathBuf,
    /// Its first byte.
    pub start: usize,
}

impl Texts {
    pub fn new(name: &str, folder: &Path, text: &str) -> Self {
        Self {
            text: text.to_owned(),
            parts: vec![Part { name: name.to_owned(), folder: folder.to_path_buf(), start: 0 }],
        }
    }

    /// Takes one more file; answers with its first byte.
    pub fn add(&mut self, name: String, folder: PathBuf, text: &str) -> usize {
        self.text.push('\n');
        let start = self.text.len();
        self.text.push_str(text);
        self.parts.push(Part { name, folder, start });
        start
    }

    /// The file that a byte lies in.
    pub fn part(&self, byte: usize) -> &Part {
        &self.parts[self.parts.partition_point(|part| part.start <= byte) - 1]
    }

    /// The line of a byte in its file, from 1.
    pub fn line(&self, byte: usize) -> u32 {
        let byte = byte.min(self.text.len());
        self.text[self.part(byte).start..byte].matches('\n').count() as u32 + 1
    }
}

/// The texts as they are shown, and the positions in them.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// What is shown of the texts: the same bytes, with literals that look like secrets covered by `*`.
    pub shown: String,
    parts: Vec<Part>,
    line_starts: Vec<usize>,
}

/// Words in a key's name that say its literal is nobody's business.
const SECRET_WORDS: [&str; 7] = ["password", "passwd", "passphrase", "secret", "token", "api_key", "private_key"];

impl Source {
    /// Of one file.
    pub fn new(name: &str, text: &str) -> Self {
        Self::of(&Texts::new(name, Path::new(""), text))
    }

    pub fn of(texts: &Texts) -> Self {
        let line_starts = std::iter::once(0).chain(texts.text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let ends = texts.parts.iter().skip(1).map(|part| part.start).chain([texts.text.len()]);
        // Each by itself: what one file leaves open must not reach into the next.
        let shown =
            texts.parts.iter().zip(ends).map(|(part, end)| cover_secrets(&texts.text[part.start..end])).collect();
        Self { shown, parts: texts.parts.clone(), line_starts }
    }

    /// The file that a byte lies in, by its place among all.
    pub fn file(&self, byte: usize) -> usize {
        self.parts.partition_point(|part| part.start <= byte) - 1
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|part| part.name.as_str())
    }

    pub fn name(&self, file: usize) -> &str {
        &self.parts[file].name
    }

    /// The bytes of a file.
    pub fn range(&self, file: usize) -> Span {
        // The byte between two files is no part of either's text.
        let end = self.parts.get(file + 1).map_or(self.shown.len(), |next| next.start - 1);
        self.parts[file].start..end
    }

    /// The line that a byte lies in, counted from 1 through all files.
    pub fn row(&self, byte: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= self.floor(byte))
    }

    /// Line and column of a byte in its file, both from 1; columns count characters.
    pub fn position(&self, byte: usize) -> (u32, u32) {
        let byte = self.floor(byte);
        let row = self.row(byte);
        let before = self.row(self.parts[self.file(byte)].start) - 1;
        let column = self.shown[self.line_starts[row - 1]..byte].chars().count() + 1;
        ((row - before) as u32, column as u32)
    }

    /// The line that a byte lies in, without its end.
    pub fn line_at(&self, byte: usize) -> &str {
        self.shown[self.line_starts[self.row(byte) - 1]..].lines().next().unwrap_or_default()
    }

    /// Where the next line begins that opens a table, or the file ends.
    pub fn next_header(&self, byte: usize) -> usize {
        let end = self.range(self.file(byte)).end;
        let opens =
            |start: &&usize| **start > byte && self.shown[**start..].trim_start_matches([' ', '\t']).starts_with('[');
        self.line_starts.iter().find(opens).copied().unwrap_or(end).min(end)
    }

    /// Where what is written at `byte` is written first: the same header, or `key` earlier in the same table.
    pub fn first_writing(&self, byte: usize, key: &str) -> Option<Span> {
        let here = self.line_at(byte).trim();
        let first = self.row(self.parts[self.file(byte)].start);
        let mut found = None;
        for start in self.line_starts[first - 1..self.row(byte) - 1].iter().rev() {
            let text = self.shown[*start..].lines().next().unwrap_or_default();
            let blanks = text.len() - text.trim_start().len();
            let text = text.trim();
            let same_key = text.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
            match (here.starts_with('['), text.starts_with('[')) {
                (true, _) if text == here => found = Some(start + blanks..start + blanks + text.len()),
                (false, true) => break,
                (false, false) if same_key => found = Some(start + blanks..start + blanks + key.len()),
                _ => {}
            }
        }
        found
    }

    /// The nearest character boundary at or before `byte`, within the text.
    pub fn floor(&self, byte: usize) -> usize {
        let mut byte = byte.min(self.shown.len());
        while !self.shown.is_char_boundary(byte) {
            byte -= 1;
        }
        byte
    }

    /// `span` made to lie on characters of the text.
    pub fn clamp(&self, span: &Span) -> Span {
        let start = self.floor(span.start);
        start..self.floor(span.end).max(start)
    }
}

/// The text with the literal after `PASSWORD =` and the like covered, byte for byte, so that positions stay.
///
/// Works on the text and not on the parsed table, because a file that does not parse is shown as well.
fn cover_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let (before, after) = rest.split_at(equals + 1);
        shown.push_str(before);
        rest = after;
        let literal = rest.trim_start_matches([' ', '\t']);
        if !names_a_secret(&before[..equals]) {
            continue;
        }
        let Some(range) = literal_range(literal) else { continue };
        let hidden = &literal[range.clone()];
        if is_one_variable(hidden) {
            continue;
        }
        let blanks = rest.len() - literal.len();
        shown.push_str(&rest[..blanks + range.start]);
        for c in hidden.chars() {
            match c {
                '\n' | '\r' => shown.push(c),
                _ => shown.extend(std::iter::repeat_n('*', c.len_utf8())),
            }
        }
        rest = &rest[blanks + range.end..];
    }
    shown.push_str(rest);
    shown
}

/// Whether the key that ends `before` is called like a secret; `…_FILE` names a file and is none.
pub(super) fn names_a_secret(before: &str) -> bool {
    let before = before.trim_end_matches([' ', '\t', '"', '\'']);
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let start = before.rfind(|c| !is_key(c)).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let key = before[start..].to_ascii_lowercase();
    let named = SECRET_WORDS.iter().any(|word| key.replace('-', "_").contains(word)) || key.ends_with("_key");
    named && !key.ends_with("_file") && !key.ends_with("_path")
}

/// What lies between the quotes that open `text`, up to the end of the text where they do not close.
fn literal_range(text: &str) -> Option<Span> {
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| text.starts_with(quote))?;
    let inner = &text[quote.len()..];
    let escapes = quote.starts_with('"');
    let mut skip = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if skip => skip = false,
            '\\' if escapes => skip = true,
            '\n' if quote.len() == 1 => return Some(quote.len()..quote.len() + at),
            _ if inner[at..].starts_with(quote) => return Some(quote.len()..quote.len() + at),
            _ => {}
        }
    }
    Some(quote.len()..text.len())
}

/// Whether the literal is nothing but `${VAR}`, which says nothing about the value.
fn is_one_variable(literal: &str) -> bool {
    let inner = literal.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    inner.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_characters_from_one() {
        let source = Source::new("f", "a = 1\nü = \"ö\"\n");
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(6), (2, 1));
        assert_eq!(source.position(8), (2, 2), "the byte after the two of `ü`");
        assert_eq!(source.position(7), (2, 1), "in the middle of a character");
        assert_eq!(source.position(999).0, 3);
        assert_eq!(Source::new("f", "").position(5), (1, 1));
    }

    #[test]
    fn positions_are_those_of_the_file_that_a_byte_lies_in() {
        let mut texts = Texts::new("a", Path::new("/x"), "a = 1\nTOKEN = \"open\n[t]");
        let start = texts.add("b".into(), "/y".into(), "b = 2\n[t]\n");
        let source = Source::of(&texts);
        assert_eq!(source.position(start - 1), (3, 4), "the end of the first file");
        assert_eq!((source.file(start - 1), source.file(start)), (0, 1));
        assert_eq!(source.position(start + 6), (2, 1));
        assert_eq!((texts.line(start + 6), texts.part(start + 6).folder.as_path()), (2, Path::new("/y")));
        assert_eq!(&source.shown[source.range(1)], "b = 2\n[t]\n", "an open literal covers its own file alone");
        assert_eq!(source.first_writing(start + 6, "t"), None, "in another file");
        assert_eq!(source.next_header(start + 7), source.shown.len());
    }

    fn check_cover(text: &str, shown: &str) {
        let covered = cover_secrets(text);
        assert_eq!(covered, shown);
        assert_eq!(covered.len(), text.len());
    }

    #[test]
    fn literals_of_secrets_are_covered() {
        check_cover(r#"DB_PASSWORD = "hunter2""#, r#"DB_PASSWORD = "*******""#);
        check_cover(r#"env = { API_TOKEN = 'abc', A = "b" }"#, r#"env = { API_TOKEN = '***', A = "b" }"#);
        check_cover(r#""db-password" = "a\"b" # x"#, r#""db-password" = "****" # x"#);
        check_cover("SECRET=\"\"\"\na\nü\"\"\"\nB=1", "SECRET=\"\"\"\n*\n**\"\"\"\nB=1");
        check_cover("TOKEN = \"open\nB = 1", "TOKEN = \"****\nB = 1");
        check_cover("TOKEN = \"${A:-open}\"", "TOKEN = \"**********\"");
    }

    #[test]
    fn other_literals_are_shown() {
        for text in [r#"PG_PASSWORD_FILE = "/run/x""#, r#"PASSWORD = "${DB_PASSWORD}""#, r#"secret = [{ file = "a" }]"#]
        {
            check_cover(text, text);
        }
    }
}
