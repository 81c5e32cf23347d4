//! Faults that show only across tables: references that lead nowhere, and things that exclude each other.

mod network;
mod order;
mod reference;

use super::code;
use super::diagnostic::Draft;
use super::table::Document;

/// All faults across the tables of a document.
pub(super) fn check(document: &Document) -> Vec<Draft> {
    let mut drafts = Vec::new();
    reference::check(document, &mut drafts);
    order::check(document, &mut drafts);
    network::check(document, &mut drafts);
    instance_names(document, &mut drafts);
    limits(document, &mut drafts);
    drafts
}

/// `web` with two replicas runs as `web-1` and `web-2`: no other container may be called so, and each must be a name.
fn instance_names(document: &Document, drafts: &mut Vec<Draft>) {
    let containers = &document.containers.tables;
    for (name, sheet) in containers {
        let replicas = sheet.value.container.replicas;
        let Some(span) = sheet.value.replicas.as_ref().filter(|_| replicas > 1) else { continue };
        let longest = format!("{name}-{replicas}");
        if let Err(fault) = crate::model::Name::new(longest) {
            let message = format!("an instance would have no name: {fault}");
            drafts.push(Draft::error(code::BAD_NAME, span, message).other(&sheet.span, "the container's name"));
        }
        for (other, other_sheet) in containers {
            let number = other.as_str().strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('-'));
            let number = number.filter(|number| !number.starts_with('0')).and_then(|number| number.parse::<u32>().ok());
            if number.is_some_and(|number| (1..=replicas).contains(&number)) {
                let message = format!("two containers would be called `{other}`");
                let draft = Draft::error(code::NAME_CLASH, &other_sheet.span, message);
                let reason = format!("`{name}` runs as `{name}-1` to `{name}-{replicas}`");
                drafts.push(draft.other(span, reason).help("rename one of the two"));
            }
        }
    }
}

/// A hard limit above that of the branch is never reached.
fn limits(document: &Document, drafts: &mut Vec<Draft>) {
    for sheet in document.containers.tables.values() {
        let container = &sheet.value;
        let branch = container.cgroup.as_ref().and_then(|name| document.cgroups.tables.get(name.value.as_str()));
        let Some(branch) = branch else { continue };
        let (own, shared) = (&container.container.limits, &branch.value.limits);
        let memory = own.memory.zip(shared.memory).filter(|(own, shared)| own > shared);
        let cpu = own.cpu.zip(shared.cpu).filter(|(own, shared)| own > shared);
        let memory = memory.map(|(own, shared)| ("memory", own.to_string(), shared.to_string()));
        let cpu = cpu.map(|(own, shared)| ("cpu", own.to_string(), shared.to_string()));
        let spans = [
            (memory, &container.memory_span, &branch.value.memory_span),
            (cpu, &container.cpu_span, &branch.value.cpu_span),
        ];
        for (excess, own_span, shared_span) in spans {
            let (Some((key, own, shared)), Some(own_span), Some(shared_span)) = (excess, own_span, shared_span) else {
                continue;
            };
            let message = format!("`{key}` is above that of the container's cgroup: {own} of {shared}");
            let draft = Draft::warning(code::POINTLESS_LIMIT, own_span, message).label("never reached");
            drafts.push(draft.other(shared_span, "all of the cgroup's containers share this"));
        }
    }
}
