//! What was done to a stack, when, and why: one JSON object a line, appended to `<data>/events/<stack>.jsonl`.
//!
//! For people and their tools; nothing is ever decided by it. It is bounded: at [`MAX_LOG`] bytes the file becomes the older
//! one, in the place of the one before. Names of fields are kept, values are not: they may be anybody's secret.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A log grows no longer, in bytes; as much again is kept of the one before.
pub const MAX_LOG: u64 = 1 << 20;
/// A text of an event is cut here, in bytes.
const MAX_TEXT: usize = 2048;

/// One thing that was done, or that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    #[serde(with = "super::status::rfc3339_text")]
    pub time: Timestamp,
    pub by: Actor,
    /// `container web`, `nat`, `bridge front`; empty: the stack as a whole.
    pub resource: String,
    /// A plan's verb, or what happened: `sync`, `paused`, `invalid`.
    pub verb: String,
    pub why: String,
    /// Fields that differed, such as `env.LEVEL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// `stack.toml:14`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Who did it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    #[default]
    Up,
    Down,
    Watch,
    /// `watch --repair`.
    Repair,
}

/// The log of one stack.
#[derive(Clone, Debug)]
pub struct EventLog {
    path: PathBuf,
}

impl EventRecord {
    /// An event of this moment.
    pub fn now(by: Actor, resource: impl Into<String>, verb: impl Into<String>, why: impl Into<String>) -> Self {
        EventRecord {
            time: Timestamp::now(),
            by,
            resource: resource.into(),
            verb: verb.into(),
            why: shorten(why.into()),
            fields: vec![],
            place: None,
            took_ms: None,
            error: None,
        }
    }
}

impl EventLog {
    /// `data` is the data directory.
    pub fn of(data: &Path, stack: &str) -> Self {
        EventLog { path: data.join("events").join(format!("{stack}.jsonl")) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one event. Runs of the same stack keep each other from losing lines by a lock on the file.
    pub fn append(&self, record: &EventRecord) -> io::Result<()> {
        let mut record = record.clone();
        record.error = record.error.map(shorten);
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        let file = self.open()?;
        file.lock()?;
        let mut file = match file.metadata()?.len() + line.len() as u64 > MAX_LOG {
            false => file,
            true => {
                fs::rename(&self.path, self.older())?;
                self.open()?
            }
        };
        file.write_all(&line)
    }

    /// All events that are kept, the oldest first. A line that is none is passed over.
    pub fn read(&self) -> io::Result<Vec<EventRecord>> {
        EventTail::of(self.clone()).next_records()
    }

    /// Makes the folder that all logs are in, and says where it is: for whoever watches it.
    pub fn make_folder(&self) -> io::Result<&Path> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(folder)
    }

    fn open(&self) -> io::Result<File> {
        self.make_folder()?;
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("jsonl.1")
    }
}

/// Reads a log from its beginning, and what is appended later at each further call.
#[derive(Debug)]
pub struct EventTail {
    log: EventLog,
    /// The file that was read last, how far, and the line that had no end yet.
    at: Option<(File, Vec<u8>)>,
}

impl EventTail {
    pub fn of(log: EventLog) -> Self {
        EventTail { log, at: None }
    }

    /// The events that came since the last call, the oldest first. A line that is none is passed over.
    pub fn next_records(&mut self) -> io::Result<Vec<EventRecord>> {
        let mut records = Vec::new();
        // Opened before the rest of the one before is read: what is appended after a change of files is in the new one.
        let newest = open_if_there(&self.log.path)?;
        if self.at.is_none() {
            self.at = open_if_there(&self.log.older())?.map(|file| (file, vec![]));
        }
        self.read_on(&mut records)?;
        if let Some(newest) = newest
            && !self.reads(&newest)?
        {
            self.at = Some((newest, vec![]));
            self.read_on(&mut records)?;
        }
        Ok(records)
    }

    fn reads(&self, file: &File) -> io::Result<bool> {
        let Some((read, _)) = &self.at else { return Ok(false) };
        let (one, other) = (read.metadata()?, file.metadata()?);
        Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
    }

    fn read_on(&mut self, records: &mut Vec<EventRecord>) -> io::Result<()> {
        let Some((file, begun)) = &mut self.at else { return Ok(()) };
        file.take(2 * MAX_LOG).read_to_end(begun)?;
        let whole = begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = begun.split_off(whole);
        let lines = std::mem::replace(begun, rest);
        records.extend(lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
        Ok(())
    }
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn shorten(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_in_its_order_and_the_log_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::of(folder.path(), "shop");
        assert_eq!(log.read().unwrap(), []);
        for number in 0..1500 {
            let mut record = EventRecord::now(Actor::Repair, "nat", "repair", format!("{number}"));
            record.error = Some("x".repeat(9000));
            log.append(&record).unwrap();
        }
        let found = log.read().unwrap();
        let numbers: Vec<usize> = found.iter().map(|record| record.why.parse().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&1499));
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1) && numbers.len() > 400, "{}", numbers.len());
        let size: u64 =
            fs::read_dir(folder.path().join("events")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 2 * MAX_LOG, "{size}");
    }

    #[test]
    fn a_torn_line_does_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::of(folder.path(), "shop");
        let record = EventRecord::now(Actor::Up, "container web", "create", "new");
        log.append(&record).unwrap();
        OpenOptions::new().append(true).open(log.path()).unwrap().write_all(b"{\"time\":\"20\n").unwrap();
        log.append(&record).unwrap();
        assert_eq!(log.read().unwrap(), [record.clone(), record]);
    }

    #[test]
    fn who_follows_a_log_gets_each_event_once_also_across_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let log = EventLog::of(folder.path(), "shop");
        let mut tail = EventTail::of(log.clone());
        assert_eq!(tail.next_records().unwrap(), []);
        let mut seen = Vec::new();
        for number in 0..1500 {
            let mut record = EventRecord::now(Actor::Up, "nat", "repair", format!("{number}"));
            record.error = Some("x".repeat(2000));
            log.append(&record).unwrap();
            if number % 7 == 0 {
                seen.extend(tail.next_records().unwrap());
            }
        }
        seen.extend(tail.next_records().unwrap());
        let numbers: Vec<usize> = seen.iter().map(|record| record.why.parse().unwrap()).collect();
        assert_eq!(numbers, (0..1500).collect::<Vec<_>>());
    }
}
