//! Typed reading of a TOML table that records every fault and goes on.
//!
//! A getter answers `None` both for "not written" and for "written wrong"; in the second case the fault is recorded,
//! and a file with recorded errors never becomes a stack.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::code;
use super::compose;
use super::diagnostic::{Diagnostics, Draft};
use super::interpolate::{FaultKind, interpolate};
use super::keys::{KINDS, Key, Kind};
use super::literal::{Text, raw_range};
use super::source::{At, Span, Texts};
use super::surroundings::{FileKind, Surroundings};
use super::words::{nearest, proposed_name, quoted_list, wrapped};
use crate::model::{Name, NameError};

/// What the reading of a stack goes through: its texts, what is around them, and the faults so far.
pub(super) struct Reader<'s> {
    pub written: Texts,
    pub surroundings: &'s Surroundings<'s>,
    pub drafts: Vec<Draft>,
    /// What is wrong with other files that it names.
    pub foreign: Vec<Diagnostics>,
    /// Names of images that builds rest on.
    pub bases: Vec<At<String>>,
}

/// A table whose keys are known, with its unknown ones already told.
pub(super) struct Section<'t> {
    /// For messages: `[container.web]`, or `health` of it.
    pub title: String,
    /// What to underline when something is missing in it.
    pub span: Span,
    kind: &'static Kind,
    table: &'t DeTable<'t>,
    /// Keys that wrong ones in it were written for: told once, and not as missing as well.
    meant: Vec<&'static str>,
}

/// A value under a key, or one of a list under that key.
#[derive(Clone)]
pub(super) struct Item<'t> {
    pub key: &'static Key,
    pub title: String,
    pub key_span: Span,
    pub value: &'t Spanned<DeValue<'t>>,
}

/// A value under a key that the file chose, such as a variable's name.
pub(super) struct Entry<'t> {
    pub name: String,
    pub name_span: Span,
    pub value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Section<'t> {
    pub fn get(&self, name: &str) -> Option<Item<'t>> {
        let key = self.kind.key(name)?;
        let (found, value) = self.table.get_key_value(name)?;
        Some(Item { key, title: self.title.clone(), key_span: found.span(), value })
    }

    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Whether a wrong key of the section was told to be better written as `name`.
    pub fn meant(&self, name: &str) -> bool {
        self.meant.contains(&name)
    }
}

impl Item<'_> {
    pub fn span(&self) -> Span {
        self.value.span()
    }
}

impl<'s> Reader<'s> {
    pub fn push(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }

    /// Opens a table whose keys are those of `kind`, and tells every other key in it.
    pub fn section<'t>(
        &mut self,
        kind: &'static Kind,
        title: String,
        span: Span,
        table: &'t DeTable<'t>,
    ) -> Section<'t> {
        let mut meant = Vec::new();
        for (key, _) in table {
            if kind.key(key.get_ref()).is_none() {
                meant.extend(self.unknown_key(kind, &title, key));
            }
        }
        Section { title, span, kind, table, meant }
    }

    /// Tells an unknown key; answers with the keys that were meant by it.
    fn unknown_key(&mut self, kind: &Kind, title: &str, key: &Spanned<impl AsRef<str>>) -> Vec<&'static str> {
        let (name, span) = (key.get_ref().as_ref(), key.span());
        let hinted = |hint: &str| {
            let names = kind.keys.iter().map(|key| key.name);
            names.filter(|name| hint.contains(&format!("`{name} = "))).collect()
        };
        if let Some((_, today)) = kind.later.iter().find(|(later, _)| *later == name) {
            let message = format!("`{name}` in {title} is not supported yet");
            self.push(Draft::error(code::NOT_YET, &span, message).help(*today));
            return hinted(today);
        }
        if let Some(hint) = compose::hint(kind, name) {
            let message = format!("`{name}` in {title} is not a key of stack files");
            let draft = Draft::error(code::FOREIGN_SPELLING, &span, message).label("known from other tools");
            self.push(draft.help(hint));
            return hinted(hint);
        }
        let mut draft = Draft::error(code::UNKNOWN_KEY, &span, format!("unknown key `{name}` in {title}"));
        let names: Vec<&'static str> = kind.keys.iter().map(|key| key.name).collect();
        let near = kind.key(nearest(name, names.iter().copied()).unwrap_or_default());
        if let Some(key) = near {
            draft = draft.label(format!("did you mean `{}`?", key.name)).help(key.in_use());
        } else if let Some(home) = KINDS.iter().find(|other| other.key(name).is_some()) {
            draft = draft.label(format!("belongs in {}", home.header));
            if home.header.starts_with("the top") {
                draft = draft.help("keys of the top stand before the first [table] of the file");
            }
        }
        let allowed = match names.is_empty() {
            true => format!("{title} takes no keys"),
            false => wrapped("allowed here: ", &names),
        };
        self.push(draft.help(allowed));
        near.map(|key| key.name).into_iter().collect()
    }

    /// The value of a key that must be there.
    pub fn required<'t>(&mut self, section: &Section<'t>, name: &str) -> Option<Item<'t>> {
        let found = section.get(name);
        if let (None, Some(key)) = (&found, section.kind.key(name))
            && !section.meant(name)
        {
            let message = format!("{} has no `{name}`", section.title);
            let draft = Draft::error(code::MISSING_KEY, &section.span, message);
            self.push(draft.help(format!("add `{} = {}`", key.name, key.example)));
        }
        found
    }

    /// Tells that `value`, which is the item's or one of its list, has another type than the key wants.
    pub fn wrong_type(&mut self, item: &Item, value: &Spanned<DeValue>) {
        let (key, found) = (item.key, type_name(value.get_ref()));
        let whole = value.span() == item.span();
        let message = match key.wants.strip_prefix("a list of ") {
            Some(items) if !whole => {
                format!("every item of `{}` must be a {}, not {found}", key.name, &items[..items.len() - 1])
            }
            _ => format!("`{}` must be {}, not {found}", key.name, key.wants),
        };
        let listed = match value.get_ref() {
            DeValue::String(string) if whole && key.wants == "a list of strings" => Some(as_list(key, string)),
            _ => None,
        };
        let draft = Draft::error(code::WRONG_TYPE, &value.span(), message).label(found);
        self.push(draft.help(listed.unwrap_or_else(|| key.in_use())));
    }

    pub fn boolean(&mut self, item: Option<Item>) -> Option<bool> {
        let item = item?;
        let found = item.value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(&item, item.value);
        }
        found
    }

    pub fn integer(&mut self, item: Option<Item>, range: RangeInclusive<u64>) -> Option<At<u64>> {
        let item = item?;
        let Some(integer) = item.value.get_ref().as_integer() else {
            self.wrong_type(&item, item.value);
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => Some(At::new(number, item.span())),
            _ => {
                let (from, to) = (range.start(), range.end());
                let message = format!("`{}` must be from {from} to {to}, not {integer}", item.key.name);
                self.push(Draft::error(code::OUT_OF_RANGE, &item.span(), message));
                None
            }
        }
    }

    /// A number of any kind.
    pub fn number(&mut self, item: Option<Item>) -> Option<At<f64>> {
        let item = item?;
        let parsed = match item.value.get_ref() {
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64),
            DeValue::Float(float) => float.as_str().parse().ok(),
            _ => None,
        };
        if parsed.is_none() {
            self.wrong_type(&item, item.value);
        }
        parsed.map(|number| At::new(number, item.span()))
    }

    /// A string with its variables replaced.
    pub fn text(&mut self, item: Option<Item>) -> Option<Text> {
        let item = item?;
        self.text_of(&item, item.value)
    }

    /// A list of strings; faulty ones are told and left out.
    pub fn texts(&mut self, item: Option<Item>) -> Option<Vec<Text>> {
        let item = item?;
        let values = self.list(&item)?;
        Some(values.into_iter().filter_map(|value| self.text_of(&item, value)).collect())
    }

    pub fn list<'t>(&mut self, item: &Item<'t>) -> Option<Vec<&'t Spanned<DeValue<'t>>>> {
        match item.value.get_ref() {
            DeValue::Array(array) => Some(array.iter().collect()),
            _ => {
                self.wrong_type(item, item.value);
                None
            }
        }
    }

    fn text_of(&mut self, item: &Item, value: &Spanned<DeValue>) -> Option<Text> {
        match value.get_ref() {
            DeValue::String(string) => self.replaced(string, value.span()),
            _ => {
                self.wrong_type(item, value);
                None
            }
        }
    }

    /// The text of a string of the file, once its variables are replaced.
    pub fn replaced(&mut self, string: &str, span: Span) -> Option<Text> {
        let raw = self.written.text.get(span.clone()).unwrap_or_default().to_owned();
        let variables = self.surroundings.variables;
        match interpolate(string, &|name| variables.get(name).map(String::as_str)) {
            Ok(value) if value.contains('\0') => {
                let message = "a string cannot hold the character U+0000";
                self.push(Draft::error(code::BAD_CHARACTER, &span, message).label("holds U+0000"));
                None
            }
            Ok(value) => Some(Text::new(value, &raw, span)),
            Err(faults) => {
                for fault in faults {
                    let within = raw_range(&raw, string, fault.range);
                    let at = within.map_or(span.clone(), |within| span.start + within.start..span.start + within.end);
                    self.push(variable_fault(fault.kind, &at, variables));
                }
                None
            }
        }
    }

    /// Opens the table under a key.
    pub fn table<'t>(&mut self, kind: &'static Kind, item: Option<Item<'t>>) -> Option<Section<'t>> {
        let item = item?;
        let title = format!("`{}` of {}", item.key.name, item.title);
        match item.value.get_ref() {
            DeValue::Table(table) => Some(self.section(kind, title, item.key_span, table)),
            _ => {
                self.wrong_type(&item, item.value);
                None
            }
        }
    }

    /// Opens every table of the list under a key.
    pub fn tables<'t>(&mut self, kind: &'static Kind, item: Option<Item<'t>>) -> Vec<Section<'t>> {
        let Some(item) = item else { return Vec::new() };
        let title = format!("`{}` of {}", item.key.name, item.title);
        let values = self.list(&item).unwrap_or_default();
        let mut sections = Vec::new();
        for value in values {
            match value.get_ref() {
                DeValue::Table(table) => sections.push(self.section(kind, title.clone(), value.span(), table)),
                _ => self.wrong_type(&item, value),
            }
        }
        sections
    }

    /// The entries of a table whose keys the file chooses.
    pub fn entries<'t>(&mut self, item: Option<&Item<'t>>) -> Vec<Entry<'t>> {
        let Some(item) = item else { return Vec::new() };
        match item.value.get_ref() {
            DeValue::Table(table) => entries(table),
            _ => {
                self.wrong_type(item, item.value);
                Vec::new()
            }
        }
    }

    /// As `entries`, with `a.b = 1` and `a = { b = 1 }` read as the name `a.b`.
    pub fn dotted_entries<'t>(&mut self, item: Option<&Item<'t>>) -> Vec<Entry<'t>> {
        let mut flat = Vec::new();
        let mut open = self.entries(item);
        open.reverse();
        while let Some(entry) = open.pop() {
            match entry.value.get_ref() {
                DeValue::Table(table) => {
                    let inner = entries(table).into_iter().rev().map(|inner| Entry {
                        name: format!("{}.{}", entry.name, inner.name),
                        // From the first part to the last where they stand on one line in order.
                        name_span: entry.name_span.start.min(inner.name_span.start)..inner.name_span.end,
                        ..inner
                    });
                    open.extend(inner);
                }
                _ => flat.push(entry),
            }
        }
        flat
    }

    /// A string, number or boolean as text.
    pub fn scalar(&mut self, item: &Item, entry: &Entry) -> Option<String> {
        match entry.value.get_ref() {
            DeValue::String(string) => self.replaced(string, entry.value.span()).map(|text| text.value),
            DeValue::Integer(integer) => {
                let number = i128::from_str_radix(integer.as_str(), integer.radix());
                Some(number.map_or_else(|_| integer.as_str().to_owned(), |number| number.to_string()))
            }
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            DeValue::Boolean(boolean) => Some(boolean.to_string()),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                let found = type_name(entry.value.get_ref());
                let (key, name) = (item.key, &entry.name);
                let message =
                    format!("`{name}` in `{}` must be a string, a number or a boolean, not {found}", key.name);
                let draft = Draft::error(code::WRONG_TYPE, &entry.value.span(), message).label(found);
                self.push(draft.help(key.in_use()));
                None
            }
        }
    }

    pub fn name(&mut self, text: &str, span: &Span, what: &str) -> Option<Name> {
        let fault = match Name::new(text) {
            Ok(name) => return Some(name),
            Err(fault) => fault,
        };
        let proposal = proposed_name(text);
        let draft = {
            let fault = fault.to_string();
            // The rule that some of the texts end with stands below all of them.
            let why = fault.split_once("; ").map_or(fault.as_str(), |(why, _)| why);
            Draft::error(code::BAD_NAME, span, format!("{what} cannot be used: {why}"))
        };
        let draft = match (&fault, &proposal) {
            (NameError::Empty, _) | (_, None) => draft,
            (_, Some(proposal)) => draft.label(format!("`{proposal}` would do")),
        };
        let rule = format!("a name is 1 to {} of a-z, 0-9 and `-`, and begins with a letter", Name::MAX);
        self.push(draft.help(rule));
        None
    }

    /// One of `choices` by its spelling.
    pub fn choice<T: Copy>(&mut self, item: Option<Item>, choices: &[(&'static str, T)]) -> Option<T> {
        let name = item.as_ref()?.key.name;
        let text = self.text(item)?;
        if let Some((_, choice)) = choices.iter().find(|(spelling, _)| *spelling == text.value) {
            return Some(*choice);
        }
        let spellings: Vec<&str> = choices.iter().map(|(spelling, _)| *spelling).collect();
        self.push(bad_choice(name, &text, &spellings));
        None
    }

    /// What is written at `span` as an absolute path.
    pub fn path(&self, written: &str, span: &Span) -> PathBuf {
        self.written.part(span.start).folder.join(written).components().collect()
    }

    /// The absolute path of a file of the host that must be there.
    pub fn host_file(&mut self, written: &str, span: &Span, wanted: &[FileKind]) -> Option<PathBuf> {
        if written.is_empty() {
            self.push(Draft::error(code::NO_SUCH_FILE, span, "a path cannot be empty"));
            return None;
        }
        let path = self.path(written, span);
        let found = match self.surroundings.files.kind(&path) {
            Ok(found) => found,
            Err(fault) => {
                let message = match fault.kind() {
                    std::io::ErrorKind::NotFound => format!("`{written}` does not exist"),
                    _ => format!("`{written}` cannot be looked at: {fault}"),
                };
                let help = match written {
                    _ if written.starts_with('~') => Some("`~` stands for itself; write `${HOME}`"),
                    _ if Path::new(written).is_relative() => {
                        Some("relative paths begin at the folder of the file that they are written in")
                    }
                    _ => None,
                };
                self.push(Draft::error(code::NO_SUCH_FILE, span, message).maybe_help(help));
                return None;
            }
        };
        if !wanted.contains(&found) {
            let wanted: Vec<&str> = wanted.iter().map(|kind| kind.describe()).collect();
            let message = format!("`{written}` is {}, not {}", found.describe(), wanted.join(" or "));
            self.push(Draft::error(code::NO_SUCH_FILE, span, message));
            return None;
        }
        Some(path)
    }
}

/// How a string stands as the list that the key wants: a command by its words.
fn as_list(key: &Key, string: &str) -> String {
    let words: Vec<&str> = match key.name {
        "command" | "entrypoint" | "exec" => string.split_whitespace().collect(),
        _ => vec![string],
    };
    match string.contains(['"', '\'', '\\', '\n']) {
        true => key.in_use(),
        false => format!("write it as a list: `{} = [\"{}\"]`", key.name, words.join("\", \"")),
    }
}

fn entries<'t>(table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let entry = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'t>>)| {
        let name: &std::borrow::Cow<str> = key.get_ref();
        Entry { name: name.to_string(), name_span: key.span(), value }
    };
    table.iter().map(entry).collect()
}

fn variable_fault(kind: FaultKind, at: &Span, variables: &HashMap<String, String>) -> Draft {
    let bad = |message: String| Draft::error(code::BAD_VARIABLE, at, message);
    match kind {
        FaultKind::Unset(name) => {
            let draft = Draft::error(code::UNSET_VARIABLE, at, format!("the variable `{name}` is not set"));
            let near = nearest(&name, variables.keys().map(String::as_str));
            let draft = match near {
                Some(near) => draft.label(format!("`{near}` is set")),
                None => draft.label("not set"),
            };
            draft.help(format!("set it, or give a default: `${{{name}:-default}}`"))
        }
        FaultKind::Unclosed => bad("`${` has no `}`".into()).help("write `$$` for a `$` of its own"),
        FaultKind::BadName(name) => bad(format!("`${{{name}}}` names no variable"))
            .help("a name is made of letters, digits and `_`; write `$${` for a `${` of its own"),
        FaultKind::BadOperator { name, operator } => {
            bad(format!("`{operator}` after a variable's name is not supported; only `:-` is"))
                .help(format!("write `${{{name}}}`, which must be set, or `${{{name}:-default}}`"))
        }
        FaultKind::NoBraces(name) => bad(format!("`${name}` is neither a variable nor plain text"))
            .help(format!("write `${{{name}}}` for the variable, or `$${name}` for the text `${name}`")),
        FaultKind::TooDeep => bad("too many defaults within defaults".into()),
    }
}

pub(super) fn bad_choice(key: &str, text: &Text, spellings: &[&str]) -> Draft {
    let draft = Draft::error(code::BAD_CHOICE, &text.span, format!("`{key}` cannot be `{}`", text.value));
    let draft = match nearest(&text.value, spellings.iter().copied()) {
        Some(near) => draft.label(format!("did you mean \"{near}\"?")),
        None => draft,
    };
    draft.help(format!("allowed: {}", quoted_list(spellings)))
}

pub(super) fn type_name(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
