//! Faults of the TOML itself, and what can be said beside them.

use std::collections::HashSet;

use super::code;
use super::diagnostic::{Draft, Severity};
use super::source::Source;

/// The parser's faults, with those of `drafts` that do not hang on what the faults took away.
///
/// A broken line leaves keys out and values unfinished: what is missing, and what lies on such a line, is not told.
pub(super) fn merge(source: &Source, faults: &[toml::de::Error], drafts: Vec<Draft>) -> Vec<Draft> {
    let mut broken_lines = HashSet::new();
    let mut merged = Vec::new();
    for fault in faults {
        let span = fault.span().unwrap_or_default();
        let (line, _) = source.position(span.start);
        // Faults that follow from the first of their line say nothing new.
        if broken_lines.insert(line) {
            merged.push(syntax_draft(source, fault));
        }
    }
    let told = |draft: &Draft| {
        let stands_alone = !matches!(draft.code, code::MISSING_KEY | code::KEY_CHOICE | code::UNKNOWN_REFERENCE);
        let (first, last) = (source.position(draft.span.start).0, source.position(draft.span.end).0);
        draft.severity == Severity::Error && stands_alone && !(first..=last).any(|line| broken_lines.contains(&line))
    };
    merged.extend(drafts.into_iter().filter(told));
    merged
}

fn syntax_draft(source: &Source, fault: &toml::de::Error) -> Draft {
    let span = source.clamp(&fault.span().unwrap_or_default());
    let message = fault.message();
    if message == "duplicate key" {
        let key = &source.shown[span.clone()];
        let draft = Draft::error(code::DUPLICATE_KEY, &span, format!("`{key}` is written twice"));
        return draft.help("keep one of the two");
    }
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    };
    let draft = Draft::error(code::SYNTAX, &span, format!("this is not TOML: {what}"));
    let draft = match expected {
        Some("nothing") | None => draft,
        Some(expected) => draft.label(format!("expected {expected}")),
    };
    let rest = source.shown[span.start..].lines().next().unwrap_or_default();
    let unquoted = what.contains("quoted") || what.contains("string");
    draft.maybe_help(unquoted.then(|| {
        format!(
            "a text stands in quotes: {:?}",
            rest.split(['#', ',']).next().unwrap_or_default().trim().trim_matches('"')
        )
    }))
}
