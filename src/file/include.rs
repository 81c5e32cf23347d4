//! The files that a stack file includes, and the tables of all of them together.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::MAX_FILE;
use super::code;
use super::diagnostic::Draft;
use super::keys::TOP;
use super::literal::Text;
use super::source::Span;
use super::surroundings::FileKind;
use super::syntax::{self, Fault};
use super::walk::{Item, Reader, type_name};

/// A bound for files that include others without end.
const MAX_INCLUDED: usize = 64;

/// The texts of all files, the named one first.
pub(super) struct Collected {
    /// Each with its first byte among all texts.
    texts: Vec<(usize, String)>,
    /// Each file after those that it includes.
    order: Vec<usize>,
    /// Every file that is named in an `include`, be it there or not. Absolute.
    pub included: Vec<PathBuf>,
    /// The files that were read, or tried to be, by their real paths.
    seen: Vec<PathBuf>,
}

/// `[override.NAME]` of one file.
pub(super) struct Override<'t> {
    pub profile: String,
    pub span: Span,
    pub table: DeTable<'t>,
}

/// Reads every file that is included, each once. `text` is the named file's.
pub(super) fn collect(reader: &mut Reader, text: &str) -> Collected {
    let part = reader.written.part(0);
    let own = Path::new(&part.name).file_name().map(|name| part.folder.join(name)).unwrap_or_default();
    let mut collected = Collected {
        texts: vec![(0, text.to_owned())],
        order: vec![],
        included: vec![],
        seen: vec![reader.surroundings.files.real(&own)],
    };
    collected.visit(reader, 0);
    collected
}

impl Collected {
    fn visit(&mut self, reader: &mut Reader, index: usize) {
        let (start, text) = std::mem::take(&mut self.texts[index]);
        // Most files include nothing, and are parsed once.
        if text.contains("include") {
            for path in included(reader, &syntax::parse(&text, start).0) {
                self.include(reader, &path);
            }
        }
        self.texts[index] = (start, text);
        self.order.push(index);
    }

    fn include(&mut self, reader: &mut Reader, written: &Text) {
        let path = reader.path(&written.value, &written.span);
        let real = reader.surroundings.files.real(&path);
        if self.seen.contains(&real) {
            return;
        }
        self.seen.push(real);
        self.included.push(path);
        if self.texts.len() > MAX_INCLUDED {
            let message = format!("more than {MAX_INCLUDED} files are included");
            return reader.push(Draft::error(code::OUT_OF_RANGE, &written.span, message));
        }
        let Some(path) = reader.host_file(&written.value, &written.span, &[FileKind::File]) else { return };
        let text = match reader.surroundings.files.read(&path, MAX_FILE).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                let message = format!("`{}` is not UTF-8", written.value);
                return reader.push(Draft::error(code::BAD_FILE, &written.span, message));
            }
            Err(fault) => {
                let message = format!("`{}` cannot be read: {fault}", written.value);
                return reader.push(Draft::error(code::BAD_FILE, &written.span, message));
            }
        };
        let from = Path::new(&reader.written.part(written.span.start).name).parent().unwrap_or(Path::new(""));
        let name = from.join(&written.value).display().to_string();
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let start = reader.written.add(name, folder, &text);
        self.texts.push((start, text));
        self.visit(reader, self.texts.len() - 1);
    }

    /// The tables of all files, and what is no TOML in them.
    pub fn parse(&self) -> (Vec<DeTable<'_>>, Vec<Fault>) {
        let (trees, faults): (Vec<_>, Vec<_>) =
            self.texts.iter().map(|(start, text)| syntax::parse(text, *start)).unzip();
        (trees, faults.into_iter().flatten().collect())
    }

    /// One table of all, and the overrides in the order in which they hold: those of a file after those of what it includes.
    pub fn join<'t>(&self, reader: &mut Reader, mut trees: Vec<DeTable<'t>>) -> (DeTable<'t>, Vec<Override<'t>>) {
        let overrides = self.order.iter().flat_map(|index| overrides(reader, &mut trees[*index])).collect();
        let mut trees = trees.into_iter();
        let mut root = trees.next().unwrap_or_default();
        root.remove("include");
        for mut tree in trees {
            tree.remove("include");
            // So that a file can be a stack of its own, and a part of another.
            if root.contains_key("name") {
                tree.remove("name");
            }
            tree.into_iter().for_each(|(key, value)| add(reader, &mut root, key, value));
        }
        (root, overrides)
    }
}

fn included(reader: &mut Reader, root: &DeTable) -> Vec<Text> {
    let (Some(key), Some((found, value))) = (TOP.key("include"), root.get_key_value("include")) else {
        return Vec::new();
    };
    let item = Item { key, title: "the stack file".into(), key_span: found.span(), value };
    reader.texts(Some(item)).unwrap_or_default()
}

/// Takes the overrides out of a file's tables.
fn overrides<'t>(reader: &mut Reader, root: &mut DeTable<'t>) -> Vec<Override<'t>> {
    let mut taken = Vec::new();
    let Some(value) = root.remove("override") else { return taken };
    let mut wrong = |span, value: &DeValue| {
        let found = type_name(value);
        let draft = Draft::error(code::WRONG_TYPE, &span, format!("an override must be a table, not {found}"));
        reader.push(draft.help("write it as `[override.dev.container.web]`, with its keys below"));
    };
    let span = value.span();
    match value.into_inner() {
        DeValue::Table(table) => {
            for (key, value) in table {
                match value.into_inner() {
                    DeValue::Table(table) => {
                        taken.push(Override { profile: key.get_ref().to_string(), span: key.span(), table })
                    }
                    other => wrong(key.span(), &other),
                }
            }
        }
        other => wrong(span, &other),
    }
    taken
}

/// Adds what another file says. The same table in two files would leave open which holds.
fn add<'t>(reader: &mut Reader, root: &mut DeTable<'t>, key: Spanned<DeString<'t>>, value: Spanned<DeValue<'t>>) {
    let kind = key.get_ref().to_string();
    let mut twice = |what: String, again: &Spanned<DeString>, first: Span, help: String| {
        let draft = Draft::error(code::DUPLICATE_KEY, &again.span(), format!("{what} is written in two files"));
        reader.push(draft.label("again").other(&first, "first here").help(help));
    };
    let first = root.get_key_value(kind.as_str()).map(|(key, _)| key.span());
    match (root.get_mut(kind.as_str()).map(Spanned::get_mut), value) {
        (Some(DeValue::Table(held)), value) if matches!(value.get_ref(), DeValue::Table(_)) => {
            let DeValue::Table(table) = value.into_inner() else { return };
            for (name, value) in table {
                match held.get_key_value(name.get_ref().as_ref()).map(|(key, _)| key.span()) {
                    Some(first) => {
                        let path = format!("{kind}.{}", name.get_ref());
                        let help = format!("keep one of the two, or write what differs as [override.PROFILE.{path}]");
                        twice(format!("[{path}]"), &name, first, help);
                    }
                    None => drop(held.insert(name, value)),
                }
            }
        }
        (Some(_), _) => twice(format!("`{kind}`"), &key, first.unwrap_or_default(), "keep one of the two".into()),
        (None, value) => drop(root.insert(key, value)),
    }
}
