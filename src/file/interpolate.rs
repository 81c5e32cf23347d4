//! `${VAR}`, `${VAR:-default}` and `$$` in the strings of a stack file.
//!
//! Stricter than the shell and than docker compose: an unset variable is a fault and never an empty text, and `$NAME`
//! without braces is a fault, because it is a variable for some readers and literal text for others.

use std::ops::Range;

/// Why a `$` could not be replaced, and the bytes of the text that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub range: Range<usize>,
    pub kind: FaultKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// `${NAME}` and no such variable.
    Unset(String),
    /// `${` without its `}`.
    Unclosed,
    /// `${}` or `${1}`.
    BadName(String),
    /// `${NAME?…}` and other operators of the shell.
    BadOperator { name: String, operator: String },
    /// `$NAME`.
    NoBraces(String),
    /// Defaults within defaults, deeper than anybody means.
    TooDeep,
}

/// Defaults that hold defaults that hold …
const MAX_DEPTH: usize = 8;

/// Replaces the variables of `text`; `lookup` answers with a variable's value if it is set.
///
/// The default after `:-` counts when the variable is unset or empty, as in the shell. Values are not looked at again.
pub fn interpolate<'v>(text: &str, lookup: &dyn Fn(&str) -> Option<&'v str>) -> Result<String, Vec<Fault>> {
    let mut state = State { text, lookup, faults: Vec::new() };
    let replaced = state.replace(0..text.len(), 0);
    match state.faults.is_empty() {
        true => Ok(replaced),
        false => Err(state.faults),
    }
}

struct State<'t, 'l, 'v> {
    text: &'t str,
    lookup: &'l dyn Fn(&str) -> Option<&'v str>,
    faults: Vec<Fault>,
}

impl State<'_, '_, '_> {
    fn fault(&mut self, range: Range<usize>, kind: FaultKind) {
        self.faults.push(Fault { range, kind });
    }

    fn replace(&mut self, range: Range<usize>, depth: usize) -> String {
        let mut out = String::new();
        if depth > MAX_DEPTH {
            self.fault(range, FaultKind::TooDeep);
            return out;
        }
        let mut at = range.start;
        while let Some(dollar) = self.text[at..range.end].find('$').map(|found| at + found) {
            out.push_str(&self.text[at..dollar]);
            let after = &self.text[dollar + 1..range.end];
            at = match after.chars().next() {
                Some('$') => {
                    out.push('$');
                    dollar + 2
                }
                Some('{') => self.braced(dollar..range.end, depth, &mut out),
                Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                    let end = dollar + 1 + name_length(after);
                    self.fault(dollar..end, FaultKind::NoBraces(self.text[dollar + 1..end].to_owned()));
                    end
                }
                _ => {
                    out.push('$');
                    dollar + 1
                }
            };
        }
        out.push_str(&self.text[at..range.end]);
        out
    }

    /// Reads the `${…}` that `range` begins with; answers where it ends.
    fn braced(&mut self, range: Range<usize>, depth: usize, out: &mut String) -> usize {
        let Some(close) = closing_brace(&self.text[range.clone()]).map(|found| range.start + found) else {
            self.fault(range.clone(), FaultKind::Unclosed);
            return range.end;
        };
        let whole = range.start..close + 1;
        let inner = &self.text[range.start + 2..close];
        let (name, operator) = inner.split_at(name_length(inner));
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            self.fault(whole.clone(), FaultKind::BadName(inner.to_owned()));
            return whole.end;
        }
        let value = (self.lookup)(name);
        match (operator.strip_prefix(":-"), value) {
            (None, Some(value)) if operator.is_empty() => out.push_str(value),
            (None, None) if operator.is_empty() => self.fault(whole.clone(), FaultKind::Unset(name.to_owned())),
            (None, _) => {
                let operator = operator.chars().take(2).take_while(|c| !c.is_alphanumeric()).collect();
                self.fault(whole.clone(), FaultKind::BadOperator { name: name.to_owned(), operator });
            }
            (Some(_), Some(value)) if !value.is_empty() => out.push_str(value),
            (Some(default), _) => {
                let replaced = self.replace(close - default.len()..close, depth + 1);
                out.push_str(&replaced);
            }
        }
        whole.end
    }
}

fn name_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// Where the `}` that belongs to the `${` at the start of `text` is; a default may hold `${…}` of its own.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0usize;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => open += 1,
            '}' => open = open.saturating_sub(1),
            _ => {}
        }
        if c == '}' && open == 0 {
            return Some(at);
        }
        previous = if c == '$' && previous == '$' { ' ' } else { c };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        match name {
            "A" => Some("1"),
            "EMPTY" => Some(""),
            "TRAP" => Some("${A}$$"),
            _ => None,
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(interpolate(text, &lookup).as_deref(), Ok(expected), "{text}");
    }

    fn check_fault(text: &str, range: Range<usize>, kind: FaultKind) {
        assert_eq!(interpolate(text, &lookup), Err(vec![Fault { range, kind }]), "{text}");
    }

    #[test]
    fn variables_are_replaced_once() {
        check("", "");
        check("plain", "plain");
        check("x${A}y${A}", "x1y1");
        check("${EMPTY}", "");
        check("${TRAP}", "${A}$$");
    }

    #[test]
    fn a_default_counts_for_unset_and_empty() {
        check("${B:-x}", "x");
        check("${EMPTY:-x}", "x");
        check("${A:-x}", "1");
        check("${B:-}", "");
        check("${B:-${A}/${C:-z}}", "1/z");
        check("${B:-a b:-c}", "a b:-c");
        check("${B:-{}}", "{}");
    }

    #[test]
    fn a_dollar_that_starts_no_name_is_itself() {
        check("$$", "$");
        check("$$A $${A}", "$A ${A}");
        check("^a$", "^a$");
        check("$(id) $1 $? $", "$(id) $1 $? $");
    }

    #[test]
    fn faults_say_where() {
        check_fault("a${B}", 1..5, FaultKind::Unset("B".into()));
        check_fault("a${B", 1..4, FaultKind::Unclosed);
        check_fault("${}", 0..3, FaultKind::BadName("".into()));
        check_fault("${1}", 0..4, FaultKind::BadName("1".into()));
        check_fault("$HOME/x", 0..5, FaultKind::NoBraces("HOME".into()));
        check_fault("${A:?no}", 0..8, FaultKind::BadOperator { name: "A".into(), operator: ":?".into() });
        check_fault("${A-x}", 0..6, FaultKind::BadOperator { name: "A".into(), operator: "-".into() });
        check_fault("${B:-${C}}", 5..9, FaultKind::Unset("C".into()));
    }

    #[test]
    fn every_fault_of_a_text_is_told() {
        assert_eq!(interpolate("${X} ${Y} $Z", &lookup).unwrap_err().len(), 3);
    }

    #[test]
    fn depth_is_bounded() {
        let text = "${B:-".repeat(5000) + &"}".repeat(5000);
        assert!(matches!(&interpolate(&text, &lookup).unwrap_err()[..], [Fault { kind: FaultKind::TooDeep, .. }]));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_judged_and_faults_lie_in_it(text in "([${}:\\-A-C_é ]|\\PC){0,40}") {
            match interpolate(&text, &lookup) {
                Ok(replaced) => proptest::prop_assert!(text.contains('$') || replaced == text),
                Err(faults) => {
                    for fault in faults {
                        proptest::prop_assert!(text.get(fault.range).is_some());
                    }
                }
            }
        }

        #[test]
        fn doubled_dollars_are_the_text_itself(text in "\\PC{0,40}") {
            proptest::prop_assert_eq!(interpolate(&text.replace('$', "$$"), &lookup), Ok(text));
        }
    }
}
