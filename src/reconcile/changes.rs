//! What changed between two specs, leaf by leaf.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::actual::Change;
use crate::plan::HostsLine;

/// The leaves in which two values of one type differ, by their dotted paths. Hashes of secrets are never shown.
pub fn changes_between<T: Serialize>(from: &T, to: &T) -> Vec<Change> {
    let value = |spec: &T| serde_json::to_value(spec).unwrap_or(Value::Null);
    let mut changes = Vec::new();
    compare(String::new(), Some(&value(from)), Some(&value(to)), &mut changes);
    changes
}

fn compare(path: String, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Change>) {
    if from == to {
        return;
    }
    let join = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    let as_map = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    match (as_map(from), as_map(to)) {
        (Some(a), Some(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                compare(join(key), a.get(key), b.get(key), changes);
            }
        }
        _ => changes.push(Change { field: path.clone(), from: show(&path, from), to: show(&path, to), place: None }),
    }
}

fn show(path: &str, value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::Array(items) if path == "secrets" => Some(secret_targets(items)),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let words: Vec<String> =
                items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_string)).collect();
            Some(words.join(" "))
        }
        other => Some(other.to_string()),
    }
}

/// Secrets are named by where they go, and by a few digits of their keyed hash, which tell two contents apart.
fn secret_targets(items: &[Value]) -> String {
    let mut out = String::new();
    for item in items {
        let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default();
        let content: String = text("content").chars().take(6).collect();
        let _ = write!(out, "{}{} (content {content}…)", if out.is_empty() { "" } else { ", " }, text("target"));
    }
    out
}

/// The text of a container's `/etc/hosts`.
pub fn hosts_text(lines: &[HostsLine]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for line in lines {
        let _ = writeln!(text, "{} {}", line.address, line.names.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_the_leaf_that_changed_is_named() {
        let spec = |value: &'static str| BTreeMap::from([("env", BTreeMap::from([("A", "1"), ("B", value)]))]);
        let changes = changes_between(&spec("2"), &spec("3"));
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].field.as_str(), changes[0].from.as_deref()), ("env.B", Some("2")));
    }

    #[test]
    fn a_key_that_appears_has_no_before() {
        let from = BTreeMap::from([("A", "1")]);
        let to = BTreeMap::from([("A", "1"), ("B", "2")]);
        let changes = changes_between(&from, &to);
        assert_eq!(changes, [Change { field: "B".into(), from: None, to: Some("2".into()), place: None }]);
    }
}
