//! `stack why`: one resource on one screen: what it is, what would be done to it and why, and what is wrong with it.

use std::fmt::Write;
use std::process::ExitCode;

use jiff::Timestamp;

use super::args::{Global, WhyArgs};
use super::context::{failed, file_path, host, load, road_failed, wait_for};
use super::exit::Exit;
use super::show::{JSON_VERSION, change_line};
use super::style::{BAD, BOLD, DIM, GOOD, WARN, of_verb, paint};
use crate::model::{Name, Stack};
use crate::plan::{Kind, ResourceId, generations, graph, slot_of};
use crate::reconcile::why::{Evidence, Explanation, Known, StepName, explain, meant};
use crate::reconcile::{LinuxHost, Looked, Step, Wish, look};

pub fn run(global: &Global, args: &WhyArgs) -> ExitCode {
    why(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

fn why(global: &Global, args: &WhyArgs) -> Result<(), Exit> {
    let stack = load(&file_path(None, &args.file), &args.file.profiles)?;
    let host = host(global, &stack.name)?;
    let looked = wait_for(look(&host, &Wish::Stack(&stack)))?.map_err(|error| road_failed(&error))?;
    let explanations = explanations(&host, &stack, &looked, &args.name);
    if explanations.is_empty() {
        let hint = format!("{} has {}", stack.name, names(&stack));
        return Err(failed(&format!("there is no `{}`", args.name), &[&hint]));
    }
    match args.json {
        true => anstream::println!("{:#}", json(&stack.name, &explanations)),
        false => {
            let screens: Vec<String> = explanations.iter().map(screen).collect();
            anstream::print!("{}", screens.join("\n"));
        }
    }
    Ok(())
}

fn explanations(host: &LinuxHost, stack: &Stack, looked: &Looked, name: &str) -> Vec<Explanation> {
    let graph = graph(stack);
    let events = host.events().read().unwrap_or_default();
    let known =
        Known { actual: &looked.actual, plan: &looked.plan, graph: &graph, events: &events, now: Timestamp::now() };
    let explained = |id: ResourceId| {
        let held = looked.actual.container_in(&id.name);
        let evidence = match (id.kind, held) {
            (Kind::Container, Some((instance, container))) => host.evidence(instance, Some(container)),
            (Kind::Container, None) => host.evidence(&id.name, None),
            _ => Evidence::default(),
        };
        explain(&id, place(&id, looked), &known, &evidence)
    };
    meant(name, &graph, &looked.actual).into_iter().map(explained).collect()
}

/// Where the file asks for it.
fn place(id: &ResourceId, looked: &Looked) -> Option<crate::model::Place> {
    let name = match id.kind {
        Kind::Container => {
            let wanted = generations(slot_of(&id.name)).into_iter();
            wanted.into_iter().find_map(|name| looked.desired.containers.get(&name))?.container.as_str()
        }
        Kind::Bridge | Kind::Cgroup | Kind::Volume | Kind::Image => &id.name,
        Kind::Sysctl | Kind::Nat | Kind::Veth | Kind::Resolver => return None,
    };
    looked.desired.origins.place(&format!("{}.{name}", id.kind))
}

fn names(stack: &Stack) -> String {
    let containers = stack.containers.keys().map(Name::as_str);
    let bridges = stack.bridges.keys().map(Name::as_str);
    let others = stack.volumes.keys().chain(stack.cgroups.keys()).map(Name::as_str);
    containers.chain(bridges).chain(others).collect::<Vec<_>>().join(", ")
}

fn json(stack: &Name, explanations: &[Explanation]) -> serde_json::Value {
    serde_json::json!({ "version": JSON_VERSION, "stack": stack, "resources": explanations })
}

/// One resource as text.
fn screen(one: &Explanation) -> String {
    let place = one.place.as_ref().map_or(String::new(), |place| format!("   {}", paint(DIM, place)));
    let style = if one.well { GOOD } else { BAD };
    let mut out = format!("{}  {}{place}\n", paint(BOLD, &one.resource), paint(style, &one.now));
    for step in &one.steps {
        step_lines(step, &mut out);
    }
    for step in &one.before {
        let _ = writeln!(out, "      {}", paint(DIM, format!("after {}", step_words(step))));
    }
    if one.steps.is_empty() && one.well {
        let _ = writeln!(out, "  nothing is to be done: it is as the file says");
    }
    if one.steps.is_empty() && !one.well {
        let _ = writeln!(out, "  `up` would change nothing of it: it is made as the file says");
    }
    list("known", one.findings.iter().map(|finding| format!("{:9} {}", finding.about, finding.text)), &mut out);
    let waits = one.waits_for.iter().map(|wait| {
        let condition = format!("{:?}", wait.condition).to_lowercase();
        let reached = if wait.reached { paint(GOOD, "reached") } else { paint(WARN, "not yet") };
        format!("{} {condition}: {reached} ({})", wait.instance, wait.now)
    });
    list("waits for", waits, &mut out);
    let dependents = one.dependents.iter().map(|dependent| match &dependent.step {
        Some(step) => step_words(step),
        None => format!("{} stays as it is", dependent.resource),
    });
    list("what hangs on it", dependents, &mut out);
    list("last lines", one.last_lines.iter().cloned(), &mut out);
    let events = one.events.iter().map(|event| {
        let error = event.error.as_ref().map_or(String::new(), |error| format!(" {}", paint(BAD, error)));
        let place = event.place.as_ref().map_or(String::new(), |place| format!("   {}", paint(DIM, place)));
        format!("{} {:?} {} {}{error}{place}", paint(DIM, seconds(event.time)), event.by, event.verb, event.why)
    });
    list("last events", events, &mut out);
    out
}

fn seconds(time: Timestamp) -> impl std::fmt::Display {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn step_lines(step: &Step, out: &mut String) {
    let place = step.place.as_ref().map_or(String::new(), |place| format!("   {}", paint(DIM, place)));
    let verb = paint(of_verb(step.verb), format!("{} {}", step.verb.symbol().trim(), step.verb));
    let _ = writeln!(out, "  {verb}  {}{place}", step.why);
    let width = step.changes.iter().map(|change| change.field.chars().count()).max().unwrap_or(0);
    for change in &step.changes {
        let _ = writeln!(out, "      {}", change_line(change, width));
    }
    if let Some(interruption) = &step.interruption {
        let _ = writeln!(out, "      {}", paint(WARN, interruption));
    }
}

fn step_words(step: &StepName) -> String {
    format!("{} {}: {}", step.resource, step.verb, step.why)
}

/// A heading and its lines; nothing where there are none.
fn list(heading: &str, lines: impl Iterator<Item = String>, out: &mut String) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        let _ = writeln!(out, "  {}", paint(DIM, format!("{heading}:")));
    }
    for line in lines {
        let _ = writeln!(out, "      {line}");
    }
}
