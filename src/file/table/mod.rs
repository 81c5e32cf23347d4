//! The tables of a stack file, one file per kind, read into the nouns of the model with their places beside them.

mod bridge;
pub(super) mod build;
mod container;
mod env;
mod health;
mod image;
mod kernel;
mod limits;
mod port;
mod reaction;
mod storage;
mod user;
mod watch;

use std::collections::HashSet;

use indexmap::IndexMap;
use toml::de::{DeTable, DeValue};

pub(super) use bridge::BridgeSheet;
pub(super) use container::ContainerSheet;
pub(super) use limits::LimitsSheet;

use super::code;
use super::diagnostic::Draft;
use super::keys::{BRIDGE, CGROUP, CONTAINER, IMAGE, Kind, TOP, VOLUME};
use super::source::{At, Span};
use super::walk::{Reader, Section};
use crate::model::{Image, Name, Volume};

/// Everything that a file says, before its references are checked.
pub(super) struct Document {
    pub name: Option<Name>,
    /// `None` for an image whose source is faulty.
    pub images: Named<Option<Image>>,
    pub bridges: Named<BridgeSheet>,
    pub cgroups: Named<LimitsSheet>,
    pub volumes: Named<Volume>,
    pub containers: Named<ContainerSheet>,
    /// Containers of profiles that were not chosen.
    pub absent: IndexMap<Name, At<ContainerSheet>>,
}

impl Document {
    /// The profiles that containers name.
    pub fn profiles(&self) -> Vec<String> {
        let profiles = self.containers.tables.values().flat_map(|sheet| &sheet.value.profiles);
        profiles.map(|profile| profile.value.clone()).collect()
    }

    /// Sets aside the containers that are there only with profiles other than the chosen ones.
    pub fn leave_out(&mut self, chosen: &[String]) {
        let is_there = |sheet: &ContainerSheet| {
            sheet.profiles.is_empty() || sheet.profiles.iter().any(|profile| chosen.contains(&profile.value))
        };
        let all = std::mem::take(&mut self.containers.tables);
        (self.containers.tables, self.absent) = all.into_iter().partition(|(_, sheet)| is_there(&sheet.value));
    }
}

/// The tables of one kind by their names; the span is the name's own.
pub(super) struct Named<T> {
    pub tables: IndexMap<Name, At<T>>,
    /// Names that are written and cannot be used, so that a reference to one is not told as a second fault.
    pub faulty: HashSet<String>,
}

impl<T> Named<T> {
    fn new() -> Self {
        Self { tables: IndexMap::new(), faulty: HashSet::new() }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(Name::as_str)
    }

    /// Whether a reference to `name` leads somewhere, be it to something faulty.
    pub fn knows(&self, name: &str) -> bool {
        self.tables.contains_key(name) || self.faulty.contains(name)
    }
}

/// Reads the whole document.
pub(super) fn read(reader: &mut Reader, root: &DeTable) -> Document {
    let top = reader.section(&TOP, "the stack file".into(), 0..0, root);
    let name = reader.required(&top, "name").and_then(|item| {
        let text = reader.text(Some(item))?;
        reader.name(&text.value, &text.span, "the stack's name")
    });
    let mut images = named(reader, &top, &IMAGE, |reader, section| image::read(reader, &section));
    build::link(reader, &mut images);
    let bridges = named(reader, &top, &BRIDGE, |reader, section| bridge::read(reader, &section));
    let cgroups = named(reader, &top, &CGROUP, |reader, section| limits::read(reader, &section));
    let volumes = named(reader, &top, &VOLUME, |_, _| Volume {});
    let containers = named(reader, &top, &CONTAINER, |reader, section| container::read(reader, &section, &images));
    Document { name, images, bridges, cgroups, volumes, containers, absent: IndexMap::new() }
}

/// Reads every `[kind.NAME]`.
fn named<'t, T>(
    reader: &mut Reader,
    top: &Section<'t>,
    kind: &'static Kind,
    mut read: impl FnMut(&mut Reader, Section<'t>) -> T,
) -> Named<T> {
    let mut named = Named::new();
    let what = kind.header.trim_start_matches('[').split('.').next().unwrap_or_default();
    let item = top.get(what);
    let mut nameless_told = false;
    for entry in reader.entries(item.as_ref()) {
        let DeValue::Table(table) = entry.value.get_ref() else {
            // `[container]` with keys right below it is one slip, however many keys there are.
            if !std::mem::replace(&mut nameless_told, true) {
                reader.push(no_table(what, &entry.name, &entry.name_span));
            }
            named.faulty.insert(entry.name);
            continue;
        };
        let section = reader.section(kind, format!("[{what}.{}]", entry.name), entry.name_span.clone(), table);
        let value = read(reader, section);
        match reader.name(&entry.name, &entry.name_span, &format!("the {what}'s name")) {
            Some(name) => {
                named.tables.insert(name, At::new(value, entry.name_span));
            }
            None => {
                named.faulty.insert(entry.name);
            }
        }
    }
    named
}

/// `[container]` with `image = …` right below it, where `[container.web]` was meant.
fn no_table(what: &str, name: &str, span: &Span) -> Draft {
    let draft = Draft::error(code::WRONG_TYPE, span, format!("`{name}` in [{what}] must be a table of its own"));
    draft.help(format!("give each {what} a name: `[{what}.NAME]`, with its keys below"))
}
