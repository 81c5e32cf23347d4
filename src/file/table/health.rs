//! `health = { … }` of a container.

use std::time::Duration;

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::keys::HEALTH;
use crate::file::source::At;
use crate::file::table::limits::quantity;
use crate::file::walk::{Item, Reader, Section};
use crate::model::{Health, HealthAction, Probe, parse_duration};

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
const MAX_RETRIES: u64 = 1000;
/// Probes that follow each other faster than this measure the prober.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
const PORTS: std::ops::RangeInclusive<u64> = 1..=65535;

pub(super) fn read(reader: &mut Reader, item: Option<Item>) -> Option<Health> {
    let section = reader.table(&HEALTH, item)?;
    let probe = probe(reader, &section);
    let interval = duration(reader, section.get("interval"), MIN_INTERVAL);
    let timeout = duration(reader, section.get("timeout"), Duration::from_millis(1));
    let retries = reader.integer(section.get("retries"), 1..=MAX_RETRIES);
    let start_period = duration(reader, section.get("start_period"), Duration::ZERO);
    let actions = [("none", HealthAction::None), ("restart", HealthAction::Restart)];
    let on_failure = reader.choice(section.get("on_failure"), &actions);
    Some(Health {
        probe: probe?,
        interval: interval.map_or(INTERVAL, |at| at.value),
        timeout: timeout.map_or(TIMEOUT, |at| at.value),
        retries: retries.map_or(RETRIES, |at| at.value as u32),
        start_period: start_period.map_or(Duration::ZERO, |at| at.value),
        on_failure: on_failure.unwrap_or(HealthAction::None),
    })
}

fn probe(reader: &mut Reader, section: &Section) -> Option<Probe> {
    let written: Vec<Item> = ["exec", "tcp", "http"].into_iter().filter_map(|kind| section.get(kind)).collect();
    match &written[..] {
        [one] => probe_of(reader, section, one.key.name),
        [] if ["exec", "tcp", "http"].iter().any(|kind| section.meant(kind)) => None,
        [] => {
            let message = format!("{} says no way to probe", section.title);
            let draft = Draft::error(code::KEY_CHOICE, &section.span, message);
            reader.push(
                draft.help("add `exec = [\"program\"]`, `tcp = 5432`, or `http = \"/healthz\"` with `port = 80`"),
            );
            None
        }
        [first, second, ..] => {
            let message =
                format!("{} probes in two ways, `{}` and `{}`", section.title, first.key.name, second.key.name);
            let draft =
                Draft::error(code::KEY_CHOICE, &second.key_span, message).other(&first.key_span, "the other way");
            reader.push(draft.help("keep one of `exec`, `tcp` and `http`"));
            None
        }
    }
}

fn probe_of(reader: &mut Reader, section: &Section, kind: &str) -> Option<Probe> {
    if kind == "http" {
        return http(reader, section);
    }
    if let Some(port) = section.get("port") {
        let message = format!("`port` goes with `http`, not with `{kind}`");
        let draft = Draft::error(code::KEY_CHOICE, &port.key_span, message);
        reader.push(draft.maybe_help((kind == "tcp").then_some("write the port itself: `tcp = 5432`")));
    }
    match kind {
        "exec" => exec(reader, section),
        _ => reader.integer(section.get("tcp"), PORTS).map(|at| Probe::Tcp { port: at.value as u16 }),
    }
}

fn exec(reader: &mut Reader, section: &Section) -> Option<Probe> {
    let item = section.get("exec")?;
    let span = item.span();
    let command: Vec<String> = reader.texts(Some(item))?.into_iter().map(|text| text.value).collect();
    match command.first().map(String::as_str) {
        Some("CMD" | "CMD-SHELL" | "NONE") => {
            let draft = Draft::error(code::FOREIGN_SPELLING, &span, "`exec` begins with the program itself");
            reader.push(draft.help("leave `CMD` out; for `CMD-SHELL` write `exec = [\"sh\", \"-c\", \"…\"]`"));
            None
        }
        None | Some("") => {
            let draft = Draft::error(code::BAD_TEXT, &span, "`exec` names no program");
            reader.push(draft.help("for example `exec = [\"pg_isready\"]`"));
            None
        }
        Some(_) => Some(Probe::Exec { command }),
    }
}

fn http(reader: &mut Reader, section: &Section) -> Option<Probe> {
    let port = reader.required(section, "port");
    let port = reader.integer(port, PORTS);
    let path = reader.text(section.get("http"))?;
    let value = &path.value;
    if !value.starts_with('/') {
        let draft = Draft::error(
            code::BAD_TEXT,
            &path.span,
            format!("`http` must be a path that begins with `/`, not `{value}`"),
        );
        let rest = value.split_once("://").map_or(value.as_str(), |(_, rest)| rest);
        let proposal = rest.split_once('/').map_or("/healthz".to_owned(), |(_, path)| format!("/{path}"));
        reader.push(draft.help(format!("write `http = \"{proposal}\"` and the port as `port = 80`")));
        return None;
    }
    if value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let draft = Draft::error(code::BAD_TEXT, &path.span, "a path of `http` holds no blanks");
        reader.push(draft.help("write `%20` for a blank"));
        return None;
    }
    Some(Probe::Http { port: port?.value as u16, path: path.value })
}

/// A duration of at least `least`.
pub(super) fn duration(reader: &mut Reader, item: Option<Item>, least: Duration) -> Option<At<Duration>> {
    let name = item.as_ref()?.key.name;
    let text = reader.text(item)?;
    let duration = quantity(reader, &text, parse_duration(&text.value))?;
    if duration < least {
        let message = format!("`{name}` must be at least {}ms, not {}ms", least.as_millis(), duration.as_millis());
        reader.push(Draft::error(code::OUT_OF_RANGE, &text.span, message));
        return None;
    }
    Some(At::new(duration, text.span))
}
