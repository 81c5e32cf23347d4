//! From a place in a string's value back to the place in the file, through quotes and escapes.

use std::ops::Range;

use super::source::Span;

/// A string of the file, its variables replaced.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub value: String,
    /// The whole literal, quotes included.
    pub span: Span,
    /// Where in the file the value's first byte is, if the value stands there byte for byte.
    start: Option<usize>,
}

impl Text {
    /// `raw` is the literal as it stands in the file at `span`; `value` what it came to.
    pub fn new(value: String, raw: &str, span: Span) -> Self {
        let quote = opening_quote(raw);
        let verbatim = raw.get(quote..quote + value.len()) == Some(value.as_str());
        let start = verbatim.then_some(span.start + quote);
        Self { value, span, start }
    }

    /// Where `range` of the value is written; the whole literal where that cannot be told.
    pub fn part(&self, range: Range<usize>) -> Span {
        match self.start {
            Some(start) if !range.is_empty() => start + range.start..start + range.end,
            _ => self.span.clone(),
        }
    }

    /// Where `piece`, a slice of the value, is written.
    pub fn piece(&self, piece: &str) -> Span {
        let base = self.value.as_ptr() as usize;
        let at = (piece.as_ptr() as usize).wrapping_sub(base);
        match at.checked_add(piece.len()).is_some_and(|end| end <= self.value.len()) {
            true => self.part(at..at + piece.len()),
            false => self.span.clone(),
        }
    }
}

/// Where byte `range` of a literal's decoded value lies, counted from the literal's start; `None` if it cannot be told.
pub(super) fn raw_range(raw: &str, decoded: &str, range: Range<usize>) -> Option<Range<usize>> {
    let (text, offsets) = decode(raw)?;
    if text != decoded {
        return None;
    }
    Some(*offsets.get(range.start)?..*offsets.get(range.end)?)
}

fn opening_quote(raw: &str) -> usize {
    match raw {
        _ if raw.starts_with("\"\"\"") || raw.starts_with("'''") => {
            let rest = &raw[3..];
            3 + if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with('\n')) }
        }
        _ => 1,
    }
}

/// The literal's value, and for each byte of it (and its end) where in `raw` it comes from.
fn decode(raw: &str) -> Option<(String, Vec<usize>)> {
    let open = opening_quote(raw);
    let close = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
    let end = raw.len().checked_sub(close).filter(|end| *end >= open)?;
    let body = raw.get(open..end)?;
    let (mut text, mut offsets) = (String::new(), Vec::new());
    let mut at = 0;
    while let Some(c) = body[at..].chars().next() {
        let (decoded, length) = match c {
            '\\' if raw.starts_with('"') => escape(&body[at..])?,
            _ => (Some(c), c.len_utf8()),
        };
        if let Some(decoded) = decoded {
            text.push(decoded);
            offsets.extend(std::iter::repeat_n(open + at, decoded.len_utf8()));
        }
        at += length;
    }
    offsets.push(end);
    Some((text, offsets))
}

/// The character that the escape at the start of `text` stands for, and the escape's length.
fn escape(text: &str) -> Option<(Option<char>, usize)> {
    let code = |digits: usize| {
        let number = u32::from_str_radix(text.get(2..2 + digits)?, 16).ok()?;
        Some((Some(char::from_u32(number)?), 2 + digits))
    };
    let simple = |c| Some((Some(c), 2));
    match text[1..].chars().next()? {
        'b' => simple('\u{8}'),
        't' => simple('\t'),
        'n' => simple('\n'),
        'f' => simple('\u{c}'),
        'r' => simple('\r'),
        'e' => simple('\u{1b}'),
        c @ ('"' | '\\') => simple(c),
        'x' => code(2),
        'u' => code(4),
        'U' => code(8),
        // A backslash at a line's end swallows it and the blanks that the next lines begin with.
        c if c.is_ascii_whitespace() => Some((None, text.len() - text[1..].trim_start().len())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, decoded: &str, piece: &str, expected: &str) {
        let at = decoded.find(piece).expect("a piece of the text");
        let range = raw_range(raw, decoded, at..at + piece.len()).expect("a range");
        assert_eq!(&raw[range], expected, "{raw}");
    }

    #[test]
    fn a_piece_is_found_behind_escapes() {
        check(r#""a${B}""#, "a${B}", "${B}", "${B}");
        check(r#""\t\u00e9${B}x""#, "\té${B}x", "${B}", "${B}");
        check(r"'\t${B}'", r"\t${B}", "${B}", "${B}");
        check("\"\"\"\n  a ${B}\"\"\"", "  a ${B}", "${B}", "${B}");
        check("\"\"\"a \\\n   ${B}\"\"\"", "a ${B}", "${B}", "${B}");
        check(r#""\u0024{B}""#, "${B}", "${B}", r"\u0024{B}");
    }

    #[test]
    fn what_cannot_be_traced_is_not_guessed() {
        assert_eq!(raw_range("\"a\"", "b", 0..1), None);
        assert_eq!(raw_range("\"", "", 0..0), None);
        assert_eq!(raw_range(r#""\q""#, "q", 0..1), None);
    }

    #[test]
    fn a_text_knows_the_place_of_its_pieces() {
        let text = Text::new("80:90".into(), "\"80:90\"", 10..17);
        assert_eq!(text.part(3..5), 14..16);
        assert_eq!(text.piece(&text.value[..2]), 11..13);
        assert_eq!(text.piece("elsewhere"), 10..17);
        assert_eq!(Text::new("a".into(), "\"${A}\"", 0..6).part(0..1), 0..6, "replaced text stands nowhere");
    }
}
