//! Faults of the TOML itself, and what can be said beside them.

use std::collections::HashSet;

use toml::de::DeTable;

use super::code;
use super::diagnostic::{Draft, Severity};
use super::source::{Source, Span};
use super::tree;

/// What the parser says of a text.
#[derive(Debug)]
pub(super) struct Fault {
    message: String,
    span: Span,
}

/// As much of a text as can be read, with what is wrong with it; its first byte is `start` among all texts.
pub(super) fn parse(text: &str, start: usize) -> (DeTable<'_>, Vec<Fault>) {
    let (root, faults) = DeTable::parse_recoverable(text);
    let fault = |fault: toml::de::Error| {
        let span = fault.span().unwrap_or_default();
        Fault { message: fault.message().to_owned(), span: span.start + start..span.end + start }
    };
    let root = root.into_inner();
    let root = if start == 0 { root } else { tree::shifted(root, start) };
    (root, faults.into_iter().map(fault).collect())
}

/// The parser's faults, with those of `drafts` that do not hang on what the faults took away.
///
/// A broken line leaves keys out and values unfinished: what is missing, and what lies on such a line, is not told.
pub(super) fn merge(source: &Source, faults: &[Fault], drafts: Vec<Draft>) -> Vec<Draft> {
    let mut broken_lines = HashSet::new();
    let mut merged = Vec::new();
    // A table written twice repeats its keys, and they lie in its second writing.
    let mut doubled: Option<Span> = None;
    let mut string_is_open = false;
    let mut ordered: Vec<&Fault> = faults.iter().collect();
    // An open string swallows what would have closed the list or table around it: of a line's faults it is the first.
    ordered.sort_by_key(|fault| (source.row(fault.span.start), !is_open_string(fault), fault.span.start));
    for fault in ordered {
        let span = fault.span.clone();
        let line = source.row(span.start);
        let repeats = doubled.as_ref().is_some_and(|table| table.contains(&span.start));
        let follows =
            repeats || (string_is_open && AFTER_OPEN_STRING.iter().any(|start| fault.message.starts_with(start)));
        // Faults that follow from the first of their line say nothing new.
        if !broken_lines.insert(line) || follows {
            continue;
        }
        if fault.message == DUPLICATE && source.line_at(span.start).trim_start().starts_with('[') {
            doubled = Some(span.end..source.next_header(span.end));
        }
        let in_list = source.line_at(span.start).split_once('=').is_some_and(|(_, value)| value.contains(['[', '{']));
        string_is_open |= is_open_string(fault) && in_list;
        merged.push(syntax_draft(source, fault));
    }
    let told = |draft: &Draft| {
        let stands_alone = !matches!(draft.code, code::MISSING_KEY | code::KEY_CHOICE | code::UNKNOWN_REFERENCE);
        let (first, last) = (source.row(draft.span.start), source.row(draft.span.end));
        draft.severity == Severity::Error && stands_alone && !(first..=last).any(|line| broken_lines.contains(&line))
    };
    merged.extend(drafts.into_iter().filter(told));
    merged
}

/// What the parser says of the lines that an open string made part of its list or inline table.
const AFTER_OPEN_STRING: [&str; 4] =
    ["missing comma between array elements", "unexpected `=` in array", "unclosed array", "unclosed inline table"];

fn is_open_string(fault: &Fault) -> bool {
    ["invalid basic string, expected `\"`", "invalid literal string, expected `'`"].contains(&fault.message.as_str())
}

/// The parser's words for a second writing.
const DUPLICATE: &str = "duplicate key";

fn syntax_draft(source: &Source, fault: &Fault) -> Draft {
    let span = source.clamp(&fault.span);
    let message = fault.message.as_str();
    if message == DUPLICATE {
        return duplicate(source, &span);
    }
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    };
    let error = |message: &str| Draft::error(code::SYNTAX, &span, message);
    match (what, expected) {
        _ if is_open_string(fault) => error("this string is not closed").label("a quote is missing before this"),
        ("string values must be quoted", _) => {
            let word = &source.shown[span.clone()];
            error("a string must stand in quotes").help(format!("write \"{word}\""))
        }
        ("missing comma between array elements", _) => {
            error("a comma is missing in a list").help("or the list before this is not closed: add `]` to it")
        }
        (_, Some("nothing") | None) => error(&format!("this is not TOML: {what}")),
        (_, Some(expected)) => error(&format!("this is not TOML: {what}")).label(format!("expected {expected}")),
    }
}

/// Points at the first writing as well, where it is found in the text: the parser does not tell it.
fn duplicate(source: &Source, span: &Span) -> Draft {
    let key = &source.shown[span.clone()];
    let line = source.line_at(span.start).trim();
    let draft = match line.starts_with('[') {
        true => Draft::error(code::DUPLICATE_KEY, span, format!("the table {line} is written twice")),
        false => Draft::error(code::DUPLICATE_KEY, span, format!("`{key}` is written twice")),
    };
    match source.first_writing(span.start, key) {
        Some(first) => draft.label("again").other(&first, "first here"),
        None => draft,
    }
    .help("keep one of the two")
}
