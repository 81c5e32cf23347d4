//! A Dockerfile's text as instructions: directives, comments, continued lines and heredocs are dealt with here; what an
//! instruction says is not judged (Dockerfile reference, "Format", "Parser directives", "Here-Documents").

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::source::Span;
use crate::model::build::Heredoc;

/// One instruction as it is written.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// In upper case.
    pub keyword: String,
    /// What follows it, its lines joined.
    pub rest: String,
    pub heredocs: Vec<Heredoc>,
    /// The first of its lines, from 1.
    pub number: u32,
    pub span: Span,
}

pub(super) struct Lines {
    pub list: Vec<Line>,
    pub escape: char,
    pub faults: Vec<Draft>,
}

/// A line of the text without its end, and where it is.
#[derive(Clone, Copy)]
struct Raw<'t> {
    text: &'t str,
    start: usize,
}

impl Raw<'_> {
    fn span(&self) -> Span {
        let blanks = self.text.len() - self.text.trim_start().len();
        self.start + blanks..self.start + self.text.trim_end().len().max(blanks)
    }

    fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }
}

pub(super) fn read(text: &str) -> Lines {
    let mut start = 0;
    let mut raw = Vec::new();
    for line in text.split_inclusive('\n') {
        raw.push(Raw { text: line.trim_end_matches(['\n', '\r']), start });
        start += line.len();
    }
    let mut lines = Lines { list: Vec::new(), escape: '\\', faults: Vec::new() };
    let mut at = lines.directives(&raw);
    while at < raw.len() {
        let line = &raw[at];
        if line.text.trim().is_empty() || line.is_comment() {
            at += 1;
            continue;
        }
        at = lines.instruction(&raw, at);
    }
    lines
}

impl Lines {
    /// `# key=value` before everything else. Answers with the first line that is none.
    fn directives(&mut self, raw: &[Raw]) -> usize {
        for (at, line) in raw.iter().enumerate() {
            let directive = line.text.trim().strip_prefix('#').and_then(|rest| rest.split_once('='));
            let Some((key, value)) = directive else { return at };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match (key.as_str(), value) {
                ("escape", "\\" | "`") => self.escape = if value == "`" { '`' } else { '\\' },
                ("escape", _) => {
                    let message = format!("`{value}` cannot be the escape character");
                    let draft = Draft::error(code::BAD_INSTRUCTION, &line.span(), message);
                    self.faults.push(draft.help("it is `\\`, or with `# escape=`` ` ``"));
                }
                // Which front end docker would load: there is one here.
                ("syntax" | "check", _) => {}
                _ => return at,
            }
        }
        raw.len()
    }

    /// One instruction from line `first` on. Answers with the line after it.
    fn instruction(&mut self, raw: &[Raw], first: usize) -> usize {
        let mut joined = String::new();
        let mut at = first;
        let mut end = raw[first].span().end;
        while at < raw.len() {
            let line = &raw[at];
            at += 1;
            // Comments and empty lines within an instruction are no part of it.
            if at - 1 > first && (line.is_comment() || line.text.trim().is_empty()) {
                continue;
            }
            end = line.span().end;
            let trimmed = line.text.trim_end();
            match trimmed.strip_suffix(self.escape) {
                Some(part) => joined.push_str(part),
                None => {
                    joined.push_str(if at - 1 == first { trimmed } else { line.text });
                    break;
                }
            }
        }
        let joined = joined.trim();
        let (keyword, rest) = joined.split_once(|c: char| c.is_whitespace()).unwrap_or((joined, ""));
        let keyword = keyword.to_ascii_uppercase();
        let rest = rest.trim().to_owned();
        let mut heredocs = Vec::new();
        if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for word in heredoc_words(&rest) {
                match heredoc(raw, at, &word) {
                    Some((heredoc, next)) => {
                        heredocs.push(heredoc);
                        at = next;
                    }
                    None => {
                        let message = format!("the heredoc `{}` is not closed", word.name);
                        let draft = Draft::error(code::BAD_INSTRUCTION, &raw[first].span(), message);
                        self.faults.push(draft.help(format!("end it by a line that is `{}` alone", word.name)));
                        at = raw.len();
                    }
                }
            }
        }
        // One line is shown of an instruction that has many.
        let span = raw[first].span().start..if at - first > 1 { raw[first].span().end } else { end };
        self.list.push(Line { keyword, rest, heredocs, number: first as u32 + 1, span });
        at
    }
}

struct HeredocWord {
    name: String,
    strips_tabs: bool,
    expands: bool,
}

/// The `<<NAME`, `<<-NAME` and `<<"NAME"` of a command, outside of quotes.
fn heredoc_words(rest: &str) -> Vec<HeredocWord> {
    let mut words = Vec::new();
    let mut quote = None;
    let mut at = 0;
    let bytes = rest.as_bytes();
    while at < bytes.len() {
        match (bytes[at], quote) {
            (c @ (b'\'' | b'"'), None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (b'<', None) if rest[at..].starts_with("<<<") => at += 2,
            (b'<', None) if rest[at..].starts_with("<<") => {
                let mut tail = &rest[at + 2..];
                let strips_tabs = tail.starts_with('-');
                tail = tail.strip_prefix('-').unwrap_or(tail);
                let mark = tail.chars().next().filter(|c| matches!(c, '\'' | '"'));
                let inner = mark.map_or(tail, |mark| &tail[mark.len_utf8()..]);
                let length = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
                let name = &inner[..length];
                let closed = mark.is_none_or(|mark| inner[length..].starts_with(mark));
                if closed && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    words.push(HeredocWord { name: name.to_owned(), strips_tabs, expands: mark.is_none() });
                }
                at = rest.len() - inner.len() + length + usize::from(mark.is_some() && closed);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    words
}

fn heredoc(raw: &[Raw], from: usize, word: &HeredocWord) -> Option<(Heredoc, usize)> {
    let mut content = String::new();
    for (offset, line) in raw[from..].iter().enumerate() {
        let text = if word.strips_tabs { line.text.trim_start_matches('\t') } else { line.text };
        if text == word.name {
            let heredoc = Heredoc { name: word.name.clone(), content, expands: word.expands };
            return Some((heredoc, from + offset + 1));
        }
        content.push_str(text);
        content.push('\n');
    }
    None
}

/// The words of a text: split at blanks outside of quotes, with their quotes kept.
pub(super) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if quote.is_none() && c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            c if c == escape && quote != Some('\'') => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            '\'' | '"' if quote.is_none() => quote = Some(c),
            c if quote == Some(c) => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let lines = read(text);
        assert!(lines.faults.is_empty(), "{:?}", lines.faults);
        let found: Vec<String> = lines
            .list
            .iter()
            .map(|line| {
                let docs: String =
                    line.heredocs.iter().map(|doc| format!(" <{}:{:?}>", doc.name, doc.content)).collect();
                format!("{} {} {}{docs}", line.number, line.keyword, line.rest)
            })
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn continued_lines_are_joined_and_comments_left_out() {
        check("FROM a\n# c\n\nrun b \\\n  # c\n\n  && d\nUSER x", &["1 FROM a", "4 RUN b   && d", "8 USER x"]);
        check("# escape=`\nRUN a\\b `\n c", &["2 RUN a\\b  c"]);
        check("# syntax=docker/dockerfile:1\nFROM a\r\n", &["2 FROM a"]);
        check("FROM a\n# escape=`\nRUN x\\\ny", &["1 FROM a", "3 RUN xy"]);
    }

    #[test]
    fn heredocs_belong_to_their_instruction() {
        check("RUN <<EOF\na\n\tb\nEOF\nUSER x", &["1 RUN <<EOF <EOF:\"a\\n\\tb\\n\">", "5 USER x"]);
        check("RUN <<-E\n\ta\n\tE\n", &["1 RUN <<-E <E:\"a\\n\">"]);
        check("COPY <<a <<'b' /x/\n1\na\n2\nb", &["1 COPY <<a <<'b' /x/ <a:\"1\\n\"> <b:\"2\\n\">"]);
        check("RUN cat <<<x && echo '<<no'", &["1 RUN cat <<<x && echo '<<no'"]);
        check("ENV a=<<b", &["1 ENV a=<<b"]);
        assert_eq!(read("RUN <<EOF\nx").faults.len(), 1);
    }

    #[test]
    fn words_keep_their_quotes() {
        assert_eq!(words(r#"a "b c" d\ e f='g h' "#, '\\'), ["a", "\"b c\"", "d\\ e", "f='g h'"]);
    }
}
