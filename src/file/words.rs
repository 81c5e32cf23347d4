//! Words of diagnostics: near spellings, lists, proposals.

use crate::model::Name;

/// `"a", "b" or "c"`.
pub(super) fn quoted_list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("\"{one}\""),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|word| format!("\"{word}\"")).collect();
            format!("{} or \"{last}\"", first.join(", "))
        }
    }
}

/// The spelling that `word` is most likely a slip of.
pub(super) fn nearest<'w>(word: &str, candidates: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let lower = word.to_lowercase();
    let score = |candidate: &&str| {
        let other = candidate.to_lowercase();
        let related = other.len() > 2 && lower.len() > 2 && (lower.starts_with(&other) || other.starts_with(&lower));
        let similar = strsim::jaro_winkler(&lower, &other);
        let edits = strsim::damerau_levenshtein(&lower, &other);
        let close = edits <= 1 + lower.len() / 4 || (related && similar > 0.85);
        close.then_some((edits, (similar * 1000.0) as i64))
    };
    let scored = candidates.filter_map(|candidate| Some((score(&candidate)?, candidate)));
    scored.min_by_key(|((edits, similar), candidate)| (*edits, -*similar, *candidate)).map(|(_, candidate)| candidate)
}

/// `text` made into a name, where something is left of it.
pub(super) fn proposed_name(text: &str) -> Option<String> {
    let replace = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '-',
    };
    let replaced: String = text.chars().map(replace).collect();
    let trimmed = replaced.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let cut = trimmed.get(..trimmed.len().min(Name::MAX))?.trim_end_matches('-');
    Name::new(cut).is_ok().then(|| cut.to_owned())
}

/// Words in lines of bounded width.
pub(super) fn wrapped(lead: &str, words: &[&str]) -> String {
    const WIDTH: usize = 90;
    let mut lines = vec![lead.to_owned()];
    for (index, word) in words.iter().enumerate() {
        let comma = if index + 1 < words.len() { "," } else { "" };
        if lines.last().is_some_and(|line| line.len() + word.len() + 2 > WIDTH) {
            lines.push(String::new());
        }
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() && !line.ends_with(' ') {
            line.push(' ');
        }
        line.push_str(word);
        line.push_str(comma);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_spelling_is_a_slip_away() {
        let near = |word| nearest(word, ["memory", "memory_low", "mount", "restart", "cpu", "cpu_weight"].into_iter());
        assert_eq!(near("memmory"), Some("memory"));
        assert_eq!(near("Memory"), Some("memory"));
        assert_eq!(near("mounts"), Some("mount"));
        assert_eq!(near("cpu_wieght"), Some("cpu_weight"));
        assert_eq!(near("banana"), None);
        assert_eq!(near(""), None);
    }

    #[test]
    fn a_name_is_proposed_where_one_is_near() {
        assert_eq!(proposed_name("My_Shop").as_deref(), Some("my-shop"));
        assert_eq!(proposed_name("1web-").as_deref(), Some("web"));
        assert_eq!(proposed_name("ü"), None);
        assert_eq!(proposed_name("é42x").as_deref(), Some("x"));
    }
}
