//! Writes a container's output into its log files. It never blocks the container: what the disk does not take is
//! dropped, counted, and said in the log as soon as there is room.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::model::LogLimits;

use super::{Ending, MAX_LINE, MAX_TEXT, Stream, file_of_age, format};

/// More old files than this are never looked for.
pub const MOST_FILES: u32 = 1000;
/// Programs write secrets into their output, so that it is not everybody's to read.
const FILE_MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;
/// Lines are gathered up to this many bytes before they are written.
const GATHER: usize = 16 << 10;

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot make the log directory `{path}`")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot open the log `{path}`")]
    Open { path: PathBuf, source: io::Error },
}

/// The log of one container.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    limits: LogLimits,
    /// `None` after a new file could not be made; tried again with each write.
    file: Option<File>,
    /// The length of the current file.
    length: u64,
    /// Lines not yet written; empty between calls.
    gathered: Vec<u8>,
    dropped: u64,
    /// Of `dropped`, what the log itself does not tell of yet.
    untold: u64,
}

impl LogWriter {
    /// Opens the log in `dir`, which is made when it is missing, and goes on where an earlier monitor left off.
    pub fn open(dir: &Path, limits: LogLimits) -> Result<Self, LogError> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(dir)
            .map_err(|source| LogError::Directory { path: dir.to_owned(), source })?;
        let path = file_of_age(dir, 0);
        let (file, length) = open_current(&path).map_err(|source| LogError::Open { path, source })?;
        let dir = dir.to_owned();
        Ok(Self { dir, limits, file: Some(file), length, gathered: Vec::new(), dropped: 0, untold: 0 })
    }

    /// Bytes of log lines that were dropped since the log was opened.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes new limits. Files that they leave no room for go at once.
    pub fn set_limits(&mut self, limits: LogLimits) {
        let before = self.limits.files;
        self.limits = limits;
        for age in limits.files.max(1)..before.min(MOST_FILES) {
            // Best effort: a file that is not there is what is wanted.
            let _ = fs::remove_file(file_of_age(&self.dir, age));
        }
    }

    /// Keeps what was just read of a stream: a record for each line, and one for a beginning without its end.
    pub fn output(&mut self, stream: Stream, bytes: &[u8]) {
        let time = format!("{:.9}", Timestamp::now());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, last) = match line.strip_suffix(b"\n") {
                Some(text) => (text, Ending::Full),
                None => (line, Ending::Partial),
            };
            while text.len() > MAX_TEXT {
                self.gather(&time, stream, Ending::Partial, &text[..MAX_TEXT]);
                text = &text[MAX_TEXT..];
            }
            self.gather(&time, stream, last, text);
        }
        self.write_gathered();
    }

    /// Keeps a remark of the monitor's own.
    pub fn remark(&mut self, text: &str) {
        let line = text.replace('\n', " ");
        self.output(Stream::Stack, format!("{line}\n").as_bytes());
    }

    fn gather(&mut self, time: &str, stream: Stream, ending: Ending, text: &[u8]) {
        let line = time.len() + text.len() + MAX_LINE - MAX_TEXT;
        let full = self.length + (self.gathered.len() + line) as u64 > self.limits.size.0;
        if full && self.length + self.gathered.len() as u64 > 0 {
            self.write_gathered();
            self.rotate();
        } else if self.gathered.len() + line > GATHER {
            self.write_gathered();
        }
        format(&mut self.gathered, time, stream, ending, text);
    }

    fn write_gathered(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let mut lines = std::mem::take(&mut self.gathered);
        if self.untold > 0 {
            self.tell_of_dropped();
        }
        if self.append(&lines).is_err() {
            self.dropped = self.dropped.saturating_add(lines.len() as u64);
            self.untold = self.untold.saturating_add(lines.len() as u64);
        }
        lines.clear();
        self.gathered = lines;
    }

    fn tell_of_dropped(&mut self) {
        let mut remark = Vec::new();
        let text = format!("{} bytes of log were dropped: the disk took no more", self.untold);
        format(&mut remark, &format!("{:.9}", Timestamp::now()), Stream::Stack, Ending::Full, text.as_bytes());
        if self.append(&remark).is_ok() {
            self.untold = 0;
        }
    }

    /// Appends whole lines or nothing: a part that a full disk took is cut off again, so that no line is torn.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let (file, length) = open_current(&file_of_age(&self.dir, 0))?;
            (self.file, self.length) = (Some(file), length);
        }
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        match file.write_all(lines) {
            Ok(()) => self.length += lines.len() as u64,
            Err(error) => {
                let _ = file.set_len(self.length);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Moves each file one age on; the oldest goes. Renames take no room, so a full disk does not stop them.
    fn rotate(&mut self) {
        self.file = None;
        self.length = 0;
        let files = self.limits.files.clamp(1, MOST_FILES);
        if files == 1 {
            let _ = fs::remove_file(file_of_age(&self.dir, 0));
        }
        for age in (1..files).rev() {
            let _ = fs::rename(file_of_age(&self.dir, age - 1), file_of_age(&self.dir, age));
        }
    }
}

/// Opens the current file for appending and gives its length. A last line torn by a crash is ended.
fn open_current(path: &Path) -> io::Result<(File, u64)> {
    let mut file = File::options().read(true).append(true).create(true).mode(FILE_MODE).open(path)?;
    let mut length = file.metadata()?.len();
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length += 1;
        }
    }
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::super::{CURRENT, Record};
    use super::*;
    use crate::model::ByteSize;

    fn open(dir: &Path, size: u64, files: u32) -> LogWriter {
        LogWriter::open(dir, LogLimits { size: ByteSize(size), files }).unwrap()
    }

    /// The records of a file: stream, whether it is whole, text.
    fn records(path: &Path) -> Vec<(&'static str, bool, String)> {
        let bytes = fs::read(path).unwrap();
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"));
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let record = |line| Record::parse(line).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(line)));
        lines.map(record).map(|r| (r.stream.as_str(), r.ending == Ending::Full, lossy(&r.text))).collect()
    }

    fn lossy(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn each_line_is_a_record_and_a_beginning_is_not_held_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(&dir.path().join("a/b"), 1 << 20, 1);
        log.output(Stream::Stdout, b"one\n\ntwo\nthr");
        log.output(Stream::Stderr, b"oops\n");
        log.output(Stream::Stdout, b"ee\n");
        let seen = records(&dir.path().join("a/b/current.log"));
        let expected = [
            ("stdout", true, "one"),
            ("stdout", true, ""),
            ("stdout", true, "two"),
            ("stdout", false, "thr"),
            ("stderr", true, "oops"),
            ("stdout", true, "ee"),
        ];
        assert_eq!(seen, expected.map(|(stream, whole, text)| (stream, whole, text.to_owned())));
    }

    #[test]
    fn a_line_longer_than_a_record_goes_on_in_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 1 << 20, 1);
        log.output(Stream::Stdout, &[vec![b'x'; MAX_TEXT * 2 + 5], vec![b'\n']].concat());
        let seen = records(&dir.path().join(CURRENT));
        let lengths: Vec<_> = seen.iter().map(|(_, whole, text)| (*whole, text.len())).collect();
        assert_eq!(lengths, [(false, MAX_TEXT), (false, MAX_TEXT), (true, 5)]);
    }

    #[test]
    fn there_are_never_more_files_or_bytes_than_the_limit_says() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 500, 3);
        for number in 0..100 {
            log.output(Stream::Stdout, format!("line {number}\n").as_bytes());
            let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
            assert!(files.len() <= 3);
            assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 500));
        }
        let mut seen = Vec::new();
        for name in ["2.log", "1.log", CURRENT] {
            seen.extend(records(&dir.path().join(name)).into_iter().map(|(.., text)| text));
        }
        let expected: Vec<_> = (100 - seen.len()..100).map(|number| format!("line {number}")).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn output_is_not_everybodys_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        open(&dir.path().join("log"), 1 << 20, 1).remark("x");
        for name in ["log", "log/current.log"] {
            assert_eq!(fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o007, 0, "{name}");
        }
    }

    #[test]
    fn one_file_starts_anew_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 300, 1);
        for number in 0..50 {
            log.output(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(records(&dir.path().join(CURRENT)).last().unwrap().2, "line 49");
    }

    #[test]
    fn one_burst_is_spread_over_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 1000, 4);
        let burst: String = (0..20).map(|number| format!("line {number}\n")).collect();
        log.output(Stream::Stdout, burst.as_bytes());
        assert!(fs::metadata(dir.path().join(CURRENT)).unwrap().len() <= 1000);
        assert!(dir.path().join("1.log").exists());
    }

    #[test]
    fn a_later_monitor_goes_on_in_the_same_file_and_ends_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), 1 << 20, 1).output(Stream::Stdout, b"before\n");
        let path = dir.path().join(CURRENT);
        File::options().append(true).open(&path).unwrap().write_all(b"2026-01-0").unwrap();
        open(dir.path(), 1 << 20, 1).remark("two\nlines");
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "2026-01-0");
        assert!(lines[0].ends_with(" stdout F before") && lines[2].ends_with(" stack F two lines"));
    }

    #[test]
    fn fewer_files_are_allowed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 200, 5);
        for number in 0..40 {
            log.output(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
        log.set_limits(LogLimits { size: ByteSize(200), files: 2 });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_the_disk_refuses_is_counted_and_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 1 << 20, 2);
        // /dev/full refuses each write with ENOSPC, as a full disk does.
        log.file = Some(File::options().write(true).open("/dev/full").unwrap());
        log.output(Stream::Stdout, b"lost\n");
        assert!(log.dropped() > 0);
        log.file = None;
        log.output(Stream::Stdout, b"kept\n");
        let texts: Vec<_> = records(&dir.path().join(CURRENT)).into_iter().map(|(.., text)| text).collect();
        let told = format!("{} bytes of log were dropped: the disk took no more", log.dropped());
        assert_eq!(texts, [told, "kept".to_owned()]);
    }
}
