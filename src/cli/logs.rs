//! `stack logs`: what containers wrote, and what they go on to write.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::args::{FileArg, Global, LogsArgs};
use super::context::{failed, file_path, load};
use super::exit::Exit;
use super::style::{DIM, paint};
use crate::model::Name;
use crate::monitor::log::reader::{From, LogReader, LogWatch};
use crate::monitor::log::{Record, Stream};
use crate::plan::{generations, instances};

pub fn run(global: &Global, args: &LogsArgs) -> ExitCode {
    logs(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

/// One container's log, as it is read.
struct Source {
    instance: String,
    reader: LogReader,
}

fn logs(global: &Global, args: &LogsArgs) -> Result<(), Exit> {
    let stack =
        load(&file_path(None, &FileArg { file: args.file.clone(), profiles: args.profiles.clone() }), &args.profiles)?;
    let known: Vec<String> = stack.containers.iter().flat_map(|(name, container)| instances(name, container)).collect();
    let folder = global.data_dir.join("logs").join(stack.name.as_str());
    // Where one took over from another, each has written a part of it.
    let of_both = |slot: String| {
        let written: Vec<String> = generations(&slot).into_iter().filter(|name| folder.join(name).exists()).collect();
        if written.is_empty() { vec![slot] } else { written }
    };
    let wanted: Vec<String> = chosen(&known, &args.names, &stack.name)?.into_iter().flat_map(of_both).collect();
    let width = wanted.iter().map(String::len).max().unwrap_or(0);
    let from = args.tail.map_or(From::Oldest, From::Last);
    let mut sources = Vec::new();
    let mut watches = Vec::new();
    for instance in wanted {
        let folder = folder.join(&instance);
        if args.follow {
            // Before the first read, so that nothing written in between goes unnoticed.
            watches.push(LogWatch::open(&folder).map_err(|error| failed(&error.to_string(), &[]))?);
        }
        let reader = LogReader::open(&folder, from).map_err(|error| failed(&error.to_string(), &[]))?;
        sources.push(Source { instance, reader });
    }
    loop {
        show(&mut sources, args, width)?;
        if !args.follow {
            return Ok(());
        }
        let mut fds: Vec<PollFd> = watches.iter().map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::NONE).map_err(|error| failed(&error.to_string(), &[]))?;
        for watch in &watches {
            watch.clear();
        }
    }
}

/// The instances that names stand for: of themselves, or of all replicas.
pub fn chosen(known: &[String], names: &[String], stack: &Name) -> Result<Vec<String>, Exit> {
    if names.is_empty() {
        return Ok(known.to_vec());
    }
    let mut wanted = Vec::new();
    for name in names {
        let is_instance = |instance: &&String| {
            *instance == name || instance.strip_prefix(name.as_str()).is_some_and(is_replica_number)
        };
        let matching: Vec<String> = known.iter().filter(is_instance).cloned().collect();
        if matching.is_empty() {
            let hint = format!("{stack} has {}", known.join(", "));
            return Err(failed(&format!("there is no container `{name}`"), &[&hint]));
        }
        wanted.extend(matching);
    }
    Ok(wanted)
}

fn is_replica_number(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Prints what there is now, of all containers in the order of time.
fn show(sources: &mut [Source], args: &LogsArgs, width: usize) -> Result<(), Exit> {
    let mut records: Vec<(String, Record)> = Vec::new();
    for source in sources.iter_mut() {
        while let Some(record) = source.reader.next_record().map_err(|error| failed(&error.to_string(), &[]))? {
            records.push((source.instance.clone(), record));
            if records.len() >= AT_ONCE {
                break;
            }
        }
    }
    if records.is_empty() {
        return Ok(());
    }
    records.sort_by_key(|(_, record)| record.time);
    let many = sources.len() > 1;
    let mut out = anstream::stdout().lock();
    for (instance, record) in &records {
        let written = match args.json {
            true => write_json(&mut out, instance, record),
            false => write_line(&mut out, many.then(|| format!("{instance:width$}")), record, args),
        };
        match written {
            // Whoever reads has had enough, as `head` does.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Exit::Ok),
            Err(error) => return Err(failed(&error.to_string(), &[])),
            Ok(()) => {}
        }
    }
    drop(out);
    match records.len() >= AT_ONCE {
        true => show(sources, args, width),
        false => Ok(()),
    }
}

/// So many records are sorted and printed at once.
const AT_ONCE: usize = 10_000;

fn write_json(out: &mut impl Write, instance: &str, record: &Record) -> io::Result<()> {
    let document = serde_json::json!({
        "container": instance,
        "time": record.time.to_string(),
        "stream": stream(record),
        "text": String::from_utf8_lossy(&record.text),
    });
    writeln!(out, "{document}")
}

fn write_line(out: &mut impl Write, name: Option<String>, record: &Record, args: &LogsArgs) -> io::Result<()> {
    if let Some(name) = name {
        write!(out, "{} ", paint(DIM, format!("{name} |")))?;
    }
    if args.timestamps {
        write!(out, "{} ", paint(DIM, record.time))?;
    }
    out.write_all(&record.text)?;
    out.write_all(b"\n")
}

fn stream(record: &Record) -> &'static str {
    match record.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Stack => "stack",
    }
}
