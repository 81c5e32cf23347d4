//! Patterns of paths: those of `COPY`, and of `.dockerignore` with `**` and `!` (Dockerfile reference,
//! "`.dockerignore` file"; Go's `filepath.Match`).

/// What is left out of a context.
#[derive(Clone, Debug, Default)]
pub(super) struct Ignore {
    /// In order; the last that matches decides.
    patterns: Vec<(Vec<String>, Verdict)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    LeftOut,
    Kept,
}

impl Ignore {
    pub(super) fn new(lines: &[String]) -> Self {
        let pattern = |line: &String| {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                return None;
            }
            let (text, verdict) = match line.strip_prefix('!') {
                Some(text) => (text.trim(), Verdict::Kept),
                None => (line, Verdict::LeftOut),
            };
            let parts: Vec<String> = components(text).map(str::to_owned).collect();
            (!parts.is_empty()).then_some((parts, verdict))
        };
        Self { patterns: lines.iter().filter_map(pattern).collect() }
    }

    /// Whether `path`, relative to the context, is left out: it or a folder above it.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        let parts: Vec<&str> = components(path).collect();
        let mut out = false;
        for (pattern, verdict) in &self.patterns {
            let pattern: Vec<&str> = pattern.iter().map(String::as_str).collect();
            if (1..=parts.len()).any(|length| matches(&pattern, &parts[..length])) {
                out = *verdict == Verdict::LeftOut;
            }
        }
        out
    }

    /// Whether something below a folder that is left out may be kept.
    pub(super) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|(_, verdict)| *verdict == Verdict::Kept)
    }
}

pub(super) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !matches!(*part, "" | "."))
}

/// Whether a text holds characters of patterns.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whole paths by their components; `**` stands for any number of them.
pub(super) fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|skip| matches(rest, &path[skip..])),
        ([first, rest @ ..], [name, names @ ..]) => {
            let (first, name): (Vec<char>, Vec<char>) = (first.chars().collect(), name.chars().collect());
            matches_name(&first, &name) && matches(rest, names)
        }
        _ => false,
    }
}

fn matches_name(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=name.len()).any(|skip| matches_name(rest, &name[skip..])),
        (['?', rest @ ..], [_, names @ ..]) => matches_name(rest, names),
        (['[', rest @ ..], [c, names @ ..]) => match class(rest, *c) {
            Some((true, rest)) => matches_name(rest, names),
            _ => false,
        },
        (['\\', literal, rest @ ..], [c, names @ ..]) => literal == c && matches_name(rest, names),
        ([literal, rest @ ..], [c, names @ ..]) => literal == c && matches_name(rest, names),
        _ => false,
    }
}

/// `a-z]…` after its bracket: whether `c` is in it, and what follows. `None`: it is not closed.
fn class(pattern: &[char], c: char) -> Option<(bool, &[char])> {
    let (negated, mut rest) = match pattern {
        ['^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    loop {
        match rest {
            [']', after @ ..] => return Some((found != negated, after)),
            [low, '-', high, after @ ..] if *high != ']' => {
                found |= (*low..=*high).contains(&c);
                rest = after;
            }
            [one, after @ ..] => {
                found |= *one == c;
                rest = after;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &[&str], path: &str, out: bool) {
        let lines: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
        assert_eq!(Ignore::new(&lines).leaves_out(path), out, "{lines:?} {path}");
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        check(&["*.md"], "README.md", true);
        check(&["*.md"], "doc/README.md", false);
        check(&["**/*.md"], "doc/deep/README.md", true);
        check(&["**/*.md"], "README.md", true);
        check(&["target"], "target/debug/x", true);
        check(&["/target/"], "target/x", true);
        check(&["*", "!src"], "src/main.c", false);
        check(&["*", "!src", "src/*.o"], "src/main.o", true);
        check(&["# x", "", "a?[b-d]"], "axc", true);
        check(&["a?[^b-d]"], "axc", false);
        check(&["doc/**"], "doc/a/b", true);
        check(&["."], "anything", false);
    }
}
