//! `env`, `env_file` and `labels`. No value of a variable ever gets into a message.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::literal::Text;
use crate::file::surroundings::FileKind;
use crate::file::walk::{Reader, Section};

/// The most that an `env_file` may hold; the kernel takes 2 MiB of arguments and variables by default (execve(2)).
const MAX_ENV_FILE: u64 = 1 << 20;

/// The variables of `env_file`, then those of `env`; and the files.
pub(super) fn read(reader: &mut Reader, section: &Section) -> (IndexMap<String, String>, Vec<PathBuf>) {
    let mut variables = IndexMap::new();
    let mut files = Vec::new();
    for written in reader.texts(section.get("env_file")).unwrap_or_default() {
        let Some(path) = reader.host_file(&written.value, &written.span, &[FileKind::File]) else { continue };
        read_file(reader, &written, &path, &mut variables);
        files.push(path);
    }
    variables.extend(self::variables(reader, section));
    (variables, files)
}

/// The variables of `env`.
pub(super) fn variables(reader: &mut Reader, section: &Section) -> IndexMap<String, String> {
    let mut variables = IndexMap::new();
    let item = section.get("env");
    for entry in reader.entries(item.as_ref()) {
        let Some(item) = &item else { continue };
        if let Err(rule) = check_name(&entry.name) {
            let message = match entry.name.as_str() {
                "" => "an empty text is no name of a variable".to_owned(),
                name => format!("`{name}` is no name of a variable"),
            };
            reader.push(Draft::error(code::BAD_ENV, &entry.name_span, message).help(rule));
        }
        if let Some(value) = reader.scalar(item, &entry) {
            variables.insert(entry.name, value);
        }
    }
    variables
}

pub(super) fn labels(reader: &mut Reader, section: &Section) -> IndexMap<String, String> {
    let item = section.get("labels");
    let mut labels = IndexMap::new();
    for entry in reader.dotted_entries(item.as_ref()) {
        let Some(item) = &item else { continue };
        if entry.name.is_empty() || entry.name.contains(|c: char| c.is_control() || c == '=') {
            let draft =
                Draft::error(code::BAD_TEXT, &entry.name_span, format!("`{}` is no key of a label", entry.name));
            reader.push(draft.help("for example `labels = { \"com.example.team\" = \"web\" }`"));
        }
        if let Some(value) = reader.scalar(item, &entry) {
            labels.insert(entry.name, value);
        }
    }
    labels
}

/// Letters, digits, `_`, `.` and `-`: what POSIX allows, and what programs such as Elasticsearch take beside it.
fn check_name(name: &str) -> Result<(), &'static str> {
    let rule = "a name begins with a letter or `_`, and goes on with letters, digits, `_`, `.` and `-`";
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if first && rest { Ok(()) } else { Err(rule) }
}

fn read_file(reader: &mut Reader, written: &Text, path: &Path, variables: &mut IndexMap<String, String>) {
    let bad = |message: String| Draft::error(code::BAD_FILE, &written.span, message);
    let content = match reader.surroundings.files.read(path, MAX_ENV_FILE) {
        Ok(content) => content,
        Err(fault) => return reader.push(bad(format!("`{}` cannot be read: {fault}", written.value))),
    };
    let Ok(content) = String::from_utf8(content) else {
        return reader.push(bad(format!("`{}` is not UTF-8", written.value)));
    };
    for (index, line) in content.lines().enumerate() {
        match env_line(line) {
            Ok(Some((name, value))) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            Ok(None) => {}
            Err(fault) => {
                let message = format!("line {} of `{}` {}", index + 1, written.value, fault.message);
                reader.push(bad(message).maybe_help(fault.help));
            }
        }
    }
}

struct LineFault {
    message: String,
    help: Option<&'static str>,
}

/// One line of an env file: nothing, a comment, or `NAME=value`. Blanks around both and one pair of quotes are taken
/// off; nothing within is replaced.
fn env_line(line: &str) -> Result<Option<(&str, &str)>, LineFault> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let Some((name, value)) = line.split_once('=') else {
        return Err(LineFault {
            message: "has no `=`".into(),
            help: Some("write `NAME=value`; comments begin with `#`"),
        });
    };
    let (name, value) = (name.trim(), value.trim());
    if let Some(rest) = name.strip_prefix("export ") {
        let message = format!("begins with `export`, before `{}`", rest.trim());
        return Err(LineFault { message, help: Some("leave `export` out; the file is not run by a shell") });
    }
    if let Err(rule) = check_name(name) {
        return Err(LineFault { message: "does not begin with the name of a variable".into(), help: Some(rule) });
    }
    if value.contains('\0') {
        return Err(LineFault { message: format!("holds the character U+0000 in `{name}`"), help: None });
    }
    let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else { return Ok(Some((name, value))) };
    match value[1..].strip_suffix(quote) {
        Some(inner) => Ok(Some((name, inner))),
        None => {
            let message = format!("opens a quote in the value of `{name}` and does not close it");
            Err(LineFault { message, help: Some("a value reaches to the end of its line; quotes are not needed") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(&str, &str)>) {
        assert_eq!(env_line(line).map_err(|fault| fault.message), Ok(expected), "{line}");
    }

    #[test]
    fn a_line_is_a_name_and_a_value() {
        check("A=1", Some(("A", "1")));
        check("  A = a b  ", Some(("A", "a b")));
        check("A=", Some(("A", "")));
        check("A=\"x $Y #z\"", Some(("A", "x $Y #z")));
        check("A='x'", Some(("A", "x")));
        check("A=x=y", Some(("A", "x=y")));
        check("A=\"\"", Some(("A", "")));
        check("", None);
        check("# A=1", None);
    }

    #[test]
    fn a_faulty_line_is_told_without_its_value() {
        for line in ["hunter2", "export A=hunter2", "1A=hunter2", "A=\"hunter2", "A=hunter2\0"] {
            let fault = env_line(line).expect_err(line);
            assert!(!fault.message.contains("hunter2"), "{}", fault.message);
        }
    }
}
