//! Names that lead to a table, and tables that nothing leads to.

use std::collections::HashSet;

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::source::At;
use crate::file::table::build::named_in;
use crate::file::table::{Document, Named};
use crate::file::words::nearest;
use crate::model::{Image, ImageSource};

pub(super) fn check(document: &Document, drafts: &mut Vec<Draft>) {
    let mut used: [HashSet<&str>; 4] = Default::default();
    // What only containers of other profiles use is used.
    for sheet in document.containers.tables.values().chain(document.absent.values()) {
        let sheet = &sheet.value;
        for bridge in &sheet.bridges {
            used[0].insert(&bridge.value);
            resolve("bridge", bridge, &document.bridges, drafts);
        }
        if let Some(cgroup) = &sheet.cgroup {
            used[1].insert(&cgroup.value);
            resolve("cgroup", cgroup, &document.cgroups, drafts);
        }
        for volume in &sheet.volumes {
            used[2].insert(&volume.value);
            resolve("volume", volume, &document.volumes, drafts);
        }
        let waits = sheet.after.iter().filter(|wait| !document.absent.contains_key(wait.container.value.as_str()));
        for wait in waits {
            resolve("container", &wait.container, &document.containers, drafts);
        }
        used[3].extend(sheet.image_name.as_deref());
    }
    absent_waits(document, drafts);
    for image in document.images.tables.values() {
        if let Some(Image { source: ImageSource::Build(build), .. }) = &image.value {
            used[3].extend(named_in(build));
        }
    }
    unused("bridge", &document.bridges, &used[0], drafts);
    unused("cgroup", &document.cgroups, &used[1], drafts);
    unused("volume", &document.volumes, &used[2], drafts);
    unused("image", &document.images, &used[3], drafts);
}

/// A container that is there cannot wait for one that is not.
fn absent_waits(document: &Document, drafts: &mut Vec<Draft>) {
    for (name, sheet) in &document.containers.tables {
        for wait in &sheet.value.after {
            let awaited = &wait.container;
            let Some((other, profile)) = document
                .absent
                .get(awaited.value.as_str())
                .and_then(|other| Some((other, other.value.profiles.first()?)))
            else {
                continue;
            };
            let message = format!("`{name}` waits for `{}`, which is not there without its profile", awaited.value);
            let draft = Draft::error(code::UNKNOWN_REFERENCE, &awaited.span, message);
            let draft = draft.other(&profile.span, "its profile").other(&other.span, "defined here");
            let whole = format!("choose it with `--profile {}`", profile.value);
            drafts
                .push(draft.help(format!("{whole}, or wait for it in [override.{}.container.{name}]", profile.value)));
        }
    }
}

fn resolve<T>(kind: &str, reference: &At<String>, named: &Named<T>, drafts: &mut Vec<Draft>) {
    let name = &reference.value;
    if named.knows(name) {
        return;
    }
    let draft = Draft::error(code::UNKNOWN_REFERENCE, &reference.span, format!("there is no [{kind}.{name}]"));
    drafts.push(match nearest(name, named.names()) {
        Some(near) => draft.label(format!("did you mean `{near}`?")).other(&named.tables[near].span, "defined here"),
        None => {
            let names: Vec<String> = named.names().map(|name| format!("`{name}`")).collect();
            let draft = draft.label("defined nowhere");
            match names.is_empty() {
                false => draft.help(format!("defined are {}", names.join(", "))),
                true if kind == "container" => draft,
                true => draft.help(format!("add a table `[{kind}.{name}]`")),
            }
        }
    });
}

fn unused<T>(kind: &str, named: &Named<T>, used: &HashSet<&str>, drafts: &mut Vec<Draft>) {
    for (name, table) in &named.tables {
        if !used.contains(name.as_str()) {
            let message = format!("no container uses [{kind}.{name}]");
            drafts.push(Draft::warning(code::UNUSED, &table.span, message));
        }
    }
}
