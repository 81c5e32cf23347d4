//! Plans and containers as text.

use std::fmt::Write;

use super::context::DEFAULT_FILE;
use super::style::{BAD, BOLD, DIM, GOOD, WARN, of_verb, paint};
use crate::reconcile::{Change, Exposure, Plan, Reach, Step, Verb, Way};

/// How a plan is headed and how it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tense {
    /// `diff`: what `up` would do.
    Would,
    /// `up` and `down`: what is done now.
    Does,
}

/// The plan, a line a step with its changes under it.
pub fn plan(plan: &Plan, file: &str, tense: Tense) -> String {
    let mut out = format!("{} {}   {}\n", paint(BOLD, "stack"), paint(BOLD, &plan.stack), paint(DIM, file));
    if plan.is_empty() {
        let _ = writeln!(out, "{}", paint(GOOD, in_sync(plan.unchanged)));
        return out;
    }
    out.push('\n');
    let width = plan.steps.iter().map(|step| step.resource.to_string().chars().count()).max().unwrap_or(0);
    for step in &plan.steps {
        step_lines(step, width, &mut out);
    }
    for note in &plan.notes {
        let _ = writeln!(out, "\n{}", paint(WARN, format!("note: {note}")));
    }
    exposure_lines(&plan.exposure, &mut out);
    let _ = writeln!(out, "\n{}", totals(plan));
    if tense == Tense::Would {
        let _ = writeln!(out, "{}", paint(DIM, format!("apply: stack up{}", named(file))));
    }
    out
}

fn in_sync(unchanged: usize) -> String {
    match unchanged {
        0 => "in sync: nothing of it is here, and nothing is wanted".into(),
        1 => "in sync: 1 resource is as it should be".into(),
        n => format!("in sync: {n} resources are as they should be"),
    }
}

/// The file as an argument; none where it is the one that is read anyway.
fn named(file: &str) -> String {
    match file {
        DEFAULT_FILE => String::new(),
        other => format!(" {other}"),
    }
}

fn step_lines(step: &Step, width: usize, out: &mut String) {
    let style = of_verb(step.verb);
    let resource = step.resource.to_string();
    let place = step.place.as_ref().map_or(String::new(), |place| format!("   {}", paint(DIM, place)));
    let _ = writeln!(
        out,
        "{} {resource:width$}  {} {}{place}",
        paint(style, step.verb.symbol()),
        // Padded before it is painted: the bytes of a colour take no room.
        paint(style, format!("{:8}", step.verb.to_string())),
        step.why
    );
    let field_width = step.changes.iter().map(|change| change.field.chars().count()).max().unwrap_or(0);
    for change in &step.changes {
        let _ = writeln!(out, "      {}", change_line(change, field_width));
    }
    if let Some(interruption) = &step.interruption {
        let _ = writeln!(out, "      {}", paint(WARN, interruption));
    }
    for (instance, condition) in &step.until {
        let word = format!("{condition:?}").to_lowercase();
        let _ = writeln!(out, "      {}", paint(DIM, format!("waits until {instance} is {word}")));
    }
}

/// What becomes reachable, and what no longer is.
fn exposure_lines(exposure: &Exposure, out: &mut String) {
    if exposure.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", paint(BOLD, "Exposure"));
    let leads = |way: &Way| format!("{}:{}", way.container.as_deref().unwrap_or("?"), way.container_port);
    let ways = || exposure.opened.iter().chain(&exposure.closed);
    let width = ways().map(|way| way.port.chars().count()).max().unwrap_or(0);
    let leads_width = ways().map(|way| leads(way).chars().count()).max().unwrap_or(0);
    for (sign, word, ways) in [("+", "reachable from", &exposure.opened), ("-", "no longer from", &exposure.closed)] {
        for way in ways {
            let style = match (sign, way.from) {
                ("-", _) => DIM,
                (_, Reach::ThisMachine) => GOOD,
                (_, _) => WARN,
            };
            let (port, leads) = (&way.port, leads(way));
            let _ = writeln!(out, "  {} {port:width$} → {leads:leads_width$}  {word} {}", paint(style, sign), way.from);
        }
    }
}

pub fn change_line(change: &Change, width: usize) -> String {
    let place = change.place.as_ref().map_or(String::new(), |place| format!("   {}", paint(DIM, place)));
    let field = format!("{:width$}", change.field);
    match (&change.from, &change.to) {
        (None, Some(to)) => format!("{field}  {} {to}{place}", paint(GOOD, "+")),
        (Some(from), None) => format!("{field}  {} {from}{place}", paint(BAD, "-")),
        (Some(from), Some(to)) => format!("{field}  {from} {} {to}{place}", paint(DIM, "→")),
        (None, None) => format!("{field}{place}"),
    }
}

fn totals(plan: &Plan) -> String {
    let verbs = [Verb::Create, Verb::Live, Verb::Reload, Verb::Repair, Verb::Restart, Verb::Replace, Verb::Destroy];
    let counts: Vec<String> = verbs
        .iter()
        .map(|verb| (verb, plan.steps.iter().filter(|step| step.verb == *verb).count()))
        .filter(|(_, count)| *count > 0)
        .map(|(verb, count)| format!("{count} {verb}"))
        .collect();
    let changes = match plan.steps.len() {
        1 => "1 change".to_string(),
        n => format!("{n} changes"),
    };
    format!("{changes}: {}; {} unchanged", counts.join(", "), plan.unchanged)
}

/// A table whose columns are as wide as their widest cell. The first row is its head.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let line = cells.join("  ");
        let line = line.trim_end();
        let _ = match index {
            0 => writeln!(out, "{}", paint(DIM, line)),
            _ => writeln!(out, "{line}"),
        };
    }
    out
}

/// The version of the JSON documents that tell of plans and of what runs. It grows when a field goes or changes its meaning.
pub const JSON_VERSION: u32 = 1;

/// A plan as data.
pub fn plan_json(plan: &Plan) -> serde_json::Value {
    serde_json::json!({
        "version": JSON_VERSION,
        "stack": plan.stack,
        "in_sync": plan.is_empty(),
        "unchanged": plan.unchanged,
        "notes": plan.notes,
        "exposure": plan.exposure,
        "steps": plan.steps,
    })
}
