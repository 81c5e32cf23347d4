//! TOML's trees, changed as values: one laid over another, with every span kept.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::code;
use super::diagnostic::Draft;
use super::source::Span;
use super::walk::type_name;
use super::words::nearest;

/// The table with all its spans `by` bytes later.
pub(super) fn shifted(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    let later = |span: Span| span.start + by..span.end + by;
    let entry =
        |(key, value): (Spanned<_>, _)| (Spanned::new(later(key.span()), key.into_inner()), shifted_value(value, by));
    table.into_iter().map(entry).collect()
}

fn shifted_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let inner = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shifted(table, by)),
        DeValue::Array(array) => DeValue::Array(list(array.into_iter().map(|item| shifted_value(item, by)))),
        scalar => scalar,
    };
    Spanned::new(span.start + by..span.end + by, inner)
}

fn list<'t>(items: impl IntoIterator<Item = Spanned<DeValue<'t>>>) -> DeArray<'t> {
    let mut array = DeArray::new();
    items.into_iter().for_each(|item| array.push(item));
    array
}

/// The words by which an override changes a list.
const CHANGES: [&str; 3] = ["replace", "append", "remove"];

/// Lays `over` over `base`, which is called `title` in messages. Tables are merged key by key; `remove = ["KEY"]` in one takes
/// keys away, and `{ replace = { … } }` alone stands for the whole table. What else is there is replaced, but a list by
/// `{ append = […] }` or `{ remove = […] }` is changed.
pub(super) fn lay<'t>(base: &mut DeTable<'t>, over: DeTable<'t>, title: &str, drafts: &mut Vec<Draft>) {
    for (key, value) in over {
        let name = key.get_ref().to_string();
        if let ("remove", DeValue::Array(names)) = (name.as_str(), value.get_ref()) {
            take_keys(base, names, title, drafts);
            continue;
        }
        let inner = if title.is_empty() { name.clone() } else { format!("{title}.{name}") };
        let span = value.span();
        match (base.get_mut(name.as_str()).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(_)), DeValue::Table(mut whole)) if is_whole(&whole) => {
                whole.remove("replace").into_iter().for_each(|value| put(base, key.clone(), value));
            }
            (Some(DeValue::Table(held)), DeValue::Table(over)) => lay(held, over, &inner, drafts),
            (Some(DeValue::Array(held)), DeValue::Table(change)) => change_list(held, change, &inner, drafts),
            (None, DeValue::Table(change)) if is_change(&change) => {
                let mut fresh = DeArray::new();
                change_list(&mut fresh, change, &inner, drafts);
                put(base, key, Spanned::new(span, DeValue::Array(fresh)));
            }
            (None, DeValue::Table(over)) => {
                let mut fresh = DeTable::new();
                lay(&mut fresh, over, &inner, drafts);
                put(base, key, Spanned::new(span, DeValue::Table(fresh)));
            }
            (_, value) => put(base, key, Spanned::new(span, value)),
        }
    }
}

/// `{ replace = { … } }`.
fn is_whole(table: &DeTable) -> bool {
    table.len() == 1 && matches!(table.get("replace").map(Spanned::get_ref), Some(DeValue::Table(_)))
}

/// Whether a table has a list's changes and nothing else.
fn is_change(table: &DeTable) -> bool {
    let is_one = |(key, value): (&Spanned<_>, &Spanned<DeValue>)| {
        let key: &std::borrow::Cow<str> = key.get_ref();
        CHANGES.contains(&key.as_ref()) && matches!(value.get_ref(), DeValue::Array(_))
    };
    !table.is_empty() && table.iter().all(is_one)
}

/// Puts a value where the key stands, or at the end, with its own place and not that of the key before.
fn put<'t>(table: &mut DeTable<'t>, key: Spanned<toml::de::DeString<'t>>, value: Spanned<DeValue<'t>>) {
    if !table.contains_key(key.get_ref().as_ref()) {
        table.insert(key, value);
        return;
    }
    let mut fresh = Some((key, value));
    let held = std::mem::take(table).into_iter();
    *table = held
        .map(|(key, value)| match fresh.take_if(|(name, _)| *name.get_ref() == *key.get_ref()) {
            Some(fresh) => fresh,
            None => (key, value),
        })
        .collect();
}

fn take_keys(base: &mut DeTable, names: &DeArray, title: &str, drafts: &mut Vec<Draft>) {
    for item in names {
        let DeValue::String(name) = item.get_ref() else {
            drafts.push(of_type(item, "every item of `remove` must be a string"));
            continue;
        };
        if base.remove(name.as_ref()).is_none() {
            let held: Vec<String> = base.keys().map(|key| key.get_ref().to_string()).collect();
            drafts.push(not_there(
                &item.span(),
                &format!("`{name}`"),
                title,
                nearest(name, held.iter().map(String::as_str)),
            ));
        }
    }
}

fn change_list<'t>(held: &mut DeArray<'t>, change: DeTable<'t>, title: &str, drafts: &mut Vec<Draft>) {
    let mut whole: Vec<Spanned<DeValue>> = std::mem::replace(held, DeArray::new()).into_iter().collect();
    for (key, value) in change {
        let word = key.get_ref().to_string();
        if !CHANGES.contains(&word.as_str()) {
            let message = format!("`{word}` does not change the list `{title}`");
            let draft = Draft::error(code::UNKNOWN_KEY, &key.span(), message);
            let draft = match nearest(&word, CHANGES.iter().copied()) {
                Some(near) => draft.label(format!("did you mean `{near}`?")),
                None => draft,
            };
            drafts.push(draft.help("write a list to replace it, or `{ append = […], remove = […] }` to change it"));
            continue;
        }
        let fault = of_type(&value, &format!("`{word}` of a list must be a list"));
        let DeValue::Array(items) = value.into_inner() else {
            drafts.push(fault);
            continue;
        };
        match word.as_str() {
            "append" => whole.extend(items),
            "replace" => whole = items.into_iter().collect(),
            _ => {
                for item in items {
                    match whole.iter().position(|one| same(one.get_ref(), item.get_ref())) {
                        Some(index) => drop(whole.remove(index)),
                        None => {
                            let texts = whole.iter().filter_map(|one| one.get_ref().as_str());
                            let wanted = item.get_ref().as_str();
                            let what = wanted.map_or("this".to_owned(), |text| format!("`{text}`"));
                            let near = wanted.and_then(|text| nearest(text, texts));
                            drafts.push(not_there(&item.span(), &what, title, near));
                        }
                    }
                }
            }
        }
    }
    *held = list(whole);
}

fn of_type(value: &Spanned<DeValue>, wants: &str) -> Draft {
    let found = type_name(value.get_ref());
    Draft::error(code::WRONG_TYPE, &value.span(), format!("{wants}, not {found}")).label(found)
}

fn not_there(span: &Span, what: &str, title: &str, near: Option<&str>) -> Draft {
    let from = if title.is_empty() { "the stack file".to_owned() } else { format!("`{title}`") };
    let message = format!("{what} cannot be removed from {from}: it is not in it");
    let draft = Draft::error(code::NOTHING_TO_REMOVE, span, message);
    match near {
        Some(near) => draft.label(format!("did you mean `{near}`?")),
        None => draft,
    }
}

/// Whether two values say the same, wherever they stand.
fn same(one: &DeValue, other: &DeValue) -> bool {
    match (one, other) {
        (DeValue::String(one), DeValue::String(other)) => one == other,
        (DeValue::Boolean(one), DeValue::Boolean(other)) => one == other,
        (DeValue::Integer(one), DeValue::Integer(other)) => one.to_string() == other.to_string(),
        (DeValue::Float(one), DeValue::Float(other)) => one.to_string() == other.to_string(),
        (DeValue::Array(one), DeValue::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other.iter()).all(|(one, other)| same(one.get_ref(), other.get_ref()))
        }
        (DeValue::Table(one), DeValue::Table(other)) => {
            let has = |(key, value): (&Spanned<toml::de::DeString>, &Spanned<DeValue>)| {
                other.get(key.get_ref().as_ref()).is_some_and(|other| same(value.get_ref(), other.get_ref()))
            };
            one.len() == other.len() && one.iter().all(has)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::syntax;
    use super::*;

    /// `over` laid over `base`, as TOML's values, and how many faults were told.
    fn laid(base: &str, over: &str) -> (toml::Table, usize) {
        let mut drafts = Vec::new();
        let (mut tree, over) = (syntax::parse(base, 0).0, syntax::parse(over, 1000).0);
        lay(&mut tree, over, "", &mut drafts);
        (plain(&tree), drafts.len())
    }

    fn plain(table: &DeTable) -> toml::Table {
        table.iter().map(|(key, value)| (key.get_ref().to_string(), plain_value(value.get_ref()))).collect()
    }

    fn plain_value(value: &DeValue) -> toml::Value {
        match value {
            DeValue::String(text) => toml::Value::String(text.to_string()),
            DeValue::Integer(number) => toml::Value::Integer(number.as_str().parse().expect("a number")),
            DeValue::Boolean(boolean) => toml::Value::Boolean(*boolean),
            DeValue::Array(array) => toml::Value::Array(array.iter().map(|item| plain_value(item.get_ref())).collect()),
            DeValue::Table(table) => toml::Value::Table(plain(table)),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check(base: &str, over: &str, expected: &str) {
        assert_eq!(laid(base, over), (expected.parse().expect("TOML"), 0));
    }

    #[test]
    fn tables_are_merged_and_scalars_replaced() {
        check(
            "[c]\nenv = { A = 1, B = 2 }\nx = 'y'",
            "c = { env = { B = 3, C = 4 } }",
            "[c]\nenv = { A = 1, B = 3, C = 4 }\nx = 'y'",
        );
        check("[c]\nx = 'y'", "[d.e]\nf = 1", "[c]\nx = 'y'\n[d.e]\nf = 1");
    }

    #[test]
    fn lists_are_replaced_unless_changed() {
        check("l = [1, 2]", "l = [3]", "l = [3]");
        check("l = [1, 2]", "l = { append = [3], remove = [1] }", "l = [2, 3]");
        check("l = [1, 2]", "l = { replace = [4] }", "l = [4]");
        check("l = [{ a = 1 }, { a = 2 }]", "l = { remove = [{ a = 2 }] }", "l = [{ a = 1 }]");
        check("a = 1", "l = { append = [3] }", "a = 1\nl = [3]");
    }

    #[test]
    fn keys_are_removed_and_tables_replaced_where_that_is_written() {
        check("[c]\na = 1\nb = 2", "[c]\nremove = ['a']", "[c]\nb = 2");
        check("env = { A = 1, B = 2 }", "env = { remove = ['A'], C = 3 }", "env = { B = 2, C = 3 }");
        check("env = { A = 1, B = 2 }", "env = { replace = { C = 3 } }", "env = { C = 3 }");
    }

    #[test]
    fn what_is_not_there_cannot_be_removed() {
        assert_eq!(laid("l = ['aa']", "l = { remove = ['ab'] }").1, 1);
        assert_eq!(laid("[c]", "[c]\nremove = ['x', 1]").1, 2);
        assert_eq!(laid("l = [1]", "l = { add = [2] }").1, 1);
        assert_eq!(laid("l = [1]", "l = { append = 2 }").1, 1);
    }

    #[test]
    fn a_replaced_value_has_its_own_place_and_the_old_ones_rank() {
        let (mut tree, over) = (syntax::parse("a = 1\nb = 2", 0).0, syntax::parse("a = 3", 100).0);
        lay(&mut tree, over, "", &mut Vec::new());
        let keys: Vec<(String, usize)> = tree.keys().map(|key| (key.get_ref().to_string(), key.span().start)).collect();
        assert_eq!(keys, [("a".to_owned(), 100), ("b".to_owned(), 6)]);
    }
}
