//! TOML text to a checked `Stack`, or to diagnostics with the place, the cause and the cure.
//!
//! In order: `source` keeps the text, `walk` reads tables by the lists in `keys`, `table` makes nouns of them, `check`
//! looks across tables. All faults of a file come out of one run. What is at the end of a path is looked at through
//! [`Surroundings`], so that a text can be judged anywhere.

mod check;
mod code;
mod compose;
mod diagnostic;
mod interpolate;
mod keys;
mod literal;
mod source;
mod surroundings;
mod syntax;
mod table;
mod walk;

use std::collections::HashMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

pub use code::Code;
pub use diagnostic::{Diagnostic, Diagnostics, Look, Marked, Severity};
pub use surroundings::{FileKind, Files, HostFiles, Surroundings};

use source::Source;
use table::Document;
use walk::Reader;

use crate::model::{CgroupBranch, Name, Origins, Stack};

/// The most that a stack file may hold: a hundred times what a thousand containers take.
const MAX_FILE: u64 = 16 << 20;

/// What a file came to: a stack unless there are errors, and all that is to be said about it.
#[derive(Debug)]
pub struct Examined {
    pub stack: Option<Stack>,
    pub diagnostics: Diagnostics,
}

/// Reads the stack file at `path`; its relative paths begin at its own folder. Warnings are dropped: see [`examine`].
pub fn load(path: &Path, env: &HashMap<String, String>) -> Result<Stack, Diagnostics> {
    into_result(examine(path, env))
}

/// Judges a text that is called `name`. Warnings are dropped: see [`examine_text`].
pub fn parse(name: &str, text: &str, surroundings: &Surroundings) -> Result<Stack, Diagnostics> {
    into_result(examine_text(name, text, surroundings))
}

/// As [`load`], with the warnings of a file that can be used.
pub fn examine(path: &Path, env: &HashMap<String, String>) -> Examined {
    let name = path.display().to_string();
    let unreadable = |why: String| Examined { stack: None, diagnostics: Diagnostics::unreadable(&name, why) };
    let content = match HostFiles.kind(path) {
        Ok(FileKind::Folder) => return unreadable("it is a folder, not a stack file".into()),
        Ok(_) => HostFiles.read(path, MAX_FILE),
        Err(fault) => Err(fault),
    };
    let content = match content {
        Ok(content) => content,
        Err(fault) => return unreadable(format!("the stack file cannot be read: {fault}")),
    };
    let text = match String::from_utf8(content) {
        Ok(text) => text,
        Err(fault) => {
            let line =
                fault.as_bytes()[..fault.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            return unreadable(format!("the stack file is not UTF-8 (line {})", line + 1));
        }
    };
    let folder = match std::path::absolute(path) {
        Ok(absolute) => absolute.parent().map(Path::to_path_buf).unwrap_or_default(),
        Err(fault) => return unreadable(format!("the folder of the stack file cannot be told: {fault}")),
    };
    examine_text(&name, &text, &Surroundings { variables: env, folder, files: &HostFiles })
}

/// As [`parse`], with the warnings of a text that can be used.
pub fn examine_text(name: &str, text: &str, surroundings: &Surroundings) -> Examined {
    let source = Source::new(name, text);
    let (root, faults) = DeTable::parse_recoverable(text);
    let broken = !faults.is_empty();
    let root = root.into_inner();
    let mut reader = Reader { text, source: &source, surroundings, drafts: Vec::new() };
    let document = table::read(&mut reader, &root);
    let mut drafts = reader.drafts;
    match broken {
        false => drafts.extend(check::check(&document)),
        true => drafts = syntax::merge(&source, &faults, drafts),
    }
    let errors = drafts.iter().any(|draft| draft.severity == Severity::Error);
    let stack = (!errors).then(|| origins(&source, &root)).and_then(|origins| stack(document, origins));
    Examined { stack, diagnostics: Diagnostics::new(source, drafts) }
}

fn into_result(examined: Examined) -> Result<Stack, Diagnostics> {
    examined.stack.ok_or(examined.diagnostics)
}

/// The document as a stack; `None` only where a fault has been told.
fn stack(document: Document, origins: Origins) -> Option<Stack> {
    let images = document.images.tables.into_iter().map(|(name, at)| Some((name, at.value?)));
    Some(Stack {
        name: document.name?,
        images: images.collect::<Option<_>>()?,
        bridges: document.bridges.tables.into_iter().map(|(name, at)| (name, at.value.bridge)).collect(),
        cgroups: document.cgroups.tables.into_iter().map(branch).collect(),
        volumes: document.volumes.tables.into_iter().map(|(name, at)| (name, at.value)).collect(),
        containers: document.containers.tables.into_iter().map(|(name, at)| (name, at.value.container)).collect(),
        origins,
    })
}

fn branch((name, at): (Name, source::At<table::LimitsSheet>)) -> (Name, CgroupBranch) {
    (name, CgroupBranch { limits: at.value.limits })
}

/// The line of every key and of every item of a list, by its dotted path; `container.web.port.0` is the first port.
fn origins(source: &Source, root: &DeTable) -> Origins {
    let mut origins = Origins { file: source.name.clone(), lines: HashMap::new() };
    table_origins(source, root, "", &mut origins);
    origins
}

fn table_origins(source: &Source, table: &DeTable, path: &str, origins: &mut Origins) {
    for (key, value) in table {
        let path = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        origins.lines.insert(path.clone(), source.position(key.span().start).0);
        value_origins(source, value.get_ref(), &path, origins);
    }
}

fn value_origins(source: &Source, value: &DeValue, path: &str, origins: &mut Origins) {
    match value {
        DeValue::Table(table) => table_origins(source, table, path, origins),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                let path = format!("{path}.{index}");
                origins.lines.insert(path.clone(), source.position(item.span().start).0);
                value_origins(source, item.get_ref(), &path, origins);
            }
        }
        _ => {}
    }
}
