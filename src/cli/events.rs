//! `stack events`: what was done to a stack, and what is done to it from now on.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::args::{EventsArgs, Global};
use super::context::{DEFAULT_FILE, failed, load};
use super::exit::Exit;
use super::style::{BAD, BOLD, DIM, paint};
use crate::model::Name;
use crate::monitor::log::reader::LogWatch;
use crate::reconcile::{Actor, EventLog, EventRecord, EventTail};

pub fn run(global: &Global, args: &EventsArgs) -> ExitCode {
    events(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

fn events(global: &Global, args: &EventsArgs) -> Result<(), Exit> {
    let stack = match &args.name {
        Some(name) => Name::new(name.as_str()).map_err(|error| failed(&error.to_string(), &[]))?,
        None => load(args.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE)), &args.profiles)?.name,
    };
    let log = EventLog::of(&global.data_dir, stack.as_str());
    let cannot = |what: &str| {
        let what = format!("cannot {what} `{}`", log.path().display());
        move |error: io::Error| failed(&format!("{what}: {error}"), &[])
    };
    // Before the first read, so that nothing written in between goes unnoticed.
    let watch = match args.follow {
        true => {
            let folder = log.make_folder().map_err(cannot("follow"))?;
            Some(LogWatch::open(folder).map_err(|error| failed(&error.to_string(), &[]))?)
        }
        false => None,
    };
    let mut tail = EventTail::of(log.clone());
    let mut records = tail.next_records().map_err(cannot("read"))?;
    if let Some(count) = args.tail {
        records.drain(..records.len().saturating_sub(count));
    }
    if records.is_empty() && !args.follow && !args.json {
        anstream::println!("{}", paint(DIM, format!("nothing was ever done to {stack} here")));
    }
    loop {
        show(&records, args.json)?;
        let Some(watch) = &watch else { return Ok(()) };
        poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)
            .map_err(|error| failed(&error.to_string(), &[]))?;
        watch.clear();
        records = tail.next_records().map_err(cannot("read"))?;
    }
}

fn show(records: &[EventRecord], json: bool) -> Result<(), Exit> {
    let mut out = anstream::stdout().lock();
    let mut write = || {
        for record in records {
            match json {
                true => {
                    serde_json::to_writer(&mut out, record)?;
                    writeln!(out)?;
                }
                false => writeln!(out, "{}", line(record))?,
            }
        }
        out.flush()
    };
    match write() {
        // Whoever reads has had enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Exit::Ok),
        Err(error) => Err(failed(&error.to_string(), &[])),
        Ok(()) => Ok(()),
    }
}

/// `2026-01-02T03:04:05Z  up      container web  replace  env.LEVEL changed  stack.toml:12  120 ms`.
fn line(record: &EventRecord) -> String {
    let time = record.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let by = match record.by {
        Actor::Up => "up",
        Actor::Down => "down",
        Actor::Watch => "watch",
        Actor::Repair => "repair",
    };
    let resource = if record.resource.is_empty() { "stack" } else { &record.resource };
    let mut text = format!("{}  {by:6}  {}  {}  {}", paint(DIM, time), paint(BOLD, resource), record.verb, record.why);
    let fields = record.fields.join(" ");
    let place = record.place.clone().unwrap_or_default();
    let took = record.took_ms.map(|took| format!("{took} ms")).unwrap_or_default();
    for part in [fields, place, took].into_iter().filter(|part| !part.is_empty()) {
        text += &format!("  {}", paint(DIM, part));
    }
    if let Some(error) = &record.error {
        text += &format!("  {} {error}", paint(BAD, "failed:"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_all_that_is_known() {
        let mut record = EventRecord::now(Actor::Repair, "", "paused", "it does not stay repaired");
        record.time = "2026-01-02T03:04:05.9Z".parse().unwrap();
        let plain = |record: &EventRecord| anstream::adapter::strip_str(&line(record)).to_string();
        assert_eq!(plain(&record), "2026-01-02T03:04:05Z  repair  stack  paused  it does not stay repaired");
        record.resource = "container web".into();
        record.fields = vec!["env.LEVEL".into()];
        record.place = Some("stack.toml:12".into());
        record.took_ms = Some(120);
        record.error = Some("no space".into());
        let text = plain(&record);
        assert!(text.ends_with("env.LEVEL  stack.toml:12  120 ms  failed: no space"), "{text}");
    }
}
