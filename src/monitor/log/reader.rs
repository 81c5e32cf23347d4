//! Reads a container's log over its rotated files, in order, while it is being written: `stack logs`.
//!
//! A reader holds its file open, so a rotation takes nothing away from it: at the end of its file it looks for that
//! file's place among the others by inode, and goes on with the next newer one.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::writer::MOST_FILES;
use super::{Ending, MAX_LINE, Record, file_of_age};

/// A line put together of parts is given out at this length, in bytes, though its end is not there.
pub const MAX_JOINED: usize = 1 << 20;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read the log `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot watch the log directory `{path}`")]
    Watch { path: PathBuf, source: Errno },
}

/// Where in a log to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the oldest record kept.
    Oldest,
    /// With the last so many lines.
    Last(usize),
}

/// Goes through the records of one container.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    /// `None` until there is a file.
    file: Option<BufReader<File>>,
    /// A line whose end was not written yet when the file ended.
    line: Vec<u8>,
    /// Beginnings that wait for their ends, one of each stream at most.
    parts: Vec<Record>,
}

impl LogReader {
    /// Opens the log in `dir`. A log that is not there yet has no records yet.
    pub fn open(dir: &Path, from: From) -> Result<Self, ReadError> {
        let mut reader = Self { dir: dir.to_owned(), file: None, line: Vec::new(), parts: Vec::new() };
        match from {
            From::Oldest => reader.file = reader.oldest_file()?,
            From::Last(count) => reader.seek_last(count)?,
        }
        Ok(reader)
    }

    /// The next line, put together of its parts. `None`: there is none now; later there may be (see [`LogWatch`]).
    pub fn next_record(&mut self) -> Result<Option<Record>, ReadError> {
        while let Some(record) = self.next_part()? {
            if let Some(whole) = self.join(record) {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }

    /// What was begun and not ended, for the one who will read no further.
    pub fn take_unfinished(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.parts)
    }

    fn join(&mut self, record: Record) -> Option<Record> {
        let whole = match self.parts.iter().position(|part| part.stream == record.stream) {
            Some(index) => {
                let mut begun = self.parts.remove(index);
                begun.text.extend_from_slice(&record.text);
                Record { ending: record.ending, ..begun }
            }
            None => record,
        };
        if whole.ending == Ending::Full || whole.text.len() >= MAX_JOINED {
            return Some(whole);
        }
        self.parts.push(whole);
        None
    }

    /// The next record as it stands in the files.
    fn next_part(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            match self.next_line()? {
                Some(line) => match Record::parse(&line) {
                    Some(record) => return Ok(Some(record)),
                    None => continue,
                },
                None if self.go_to_newer_file()? => continue,
                None => return Ok(None),
            }
        }
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        read_line(file, &mut self.line).map_err(|source| ReadError::Read { path: self.dir.clone(), source })
    }

    /// Goes on with the file that follows the one just read to its end. `false`: that was the current one.
    fn go_to_newer_file(&mut self) -> Result<bool, ReadError> {
        let Some(file) = &self.file else {
            self.file = self.oldest_file()?;
            return Ok(self.file.is_some());
        };
        let failed = |source| ReadError::Read { path: self.dir.clone(), source };
        let own = file.get_ref().metadata().map_err(failed)?.ino();
        let files = existing_files(&self.dir)?;
        let next = match files.iter().position(|(inode, _)| *inode == own) {
            Some(last) if last + 1 == files.len() => return Ok(false),
            Some(index) => index + 1,
            // Ours was the oldest and is gone: all that are there are newer.
            None => 0,
        };
        // Written to between our end of file and its renaming? Nothing is written to it after that.
        if file_has_more(self.file.as_mut()).map_err(failed)? {
            return Ok(true);
        }
        let Some((inode, path)) = files.get(next) else { return Ok(false) };
        match File::open(path) {
            // Renamed just now, it is found by its inode the next time round.
            Ok(file) if file.metadata().map_err(failed)?.ino() != *inode => {}
            Ok(file) => {
                self.line.clear();
                self.file = Some(BufReader::new(file));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ReadError::Read { path: path.clone(), source }),
        }
        Ok(true)
    }

    fn oldest_file(&self) -> Result<Option<BufReader<File>>, ReadError> {
        let Some((_, path)) = existing_files(&self.dir)?.into_iter().next() else { return Ok(None) };
        let file = File::open(&path).map_err(|source| ReadError::Read { path, source })?;
        Ok(Some(BufReader::new(file)))
    }

    /// Places the reader before the last `count` lines. It looks at the newest file first and goes back to older ones
    /// only where lines are missing.
    fn seek_last(&mut self, count: usize) -> Result<(), ReadError> {
        let mut missing = count;
        for (_, path) in existing_files(&self.dir)?.into_iter().rev() {
            let failed = |source| ReadError::Read { path: path.clone(), source };
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                file => file.map_err(failed)?,
            };
            let mut file = BufReader::new(file);
            let starts = starts_of_last(&mut file, missing).map_err(failed)?;
            missing -= starts.lines;
            file.seek(SeekFrom::Start(starts.first)).map_err(failed)?;
            self.file = Some(file);
            if missing == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Where the last lines of one file begin.
struct Starts {
    first: u64,
    /// At most as many as were asked for.
    lines: usize,
}

fn starts_of_last(file: &mut BufReader<File>, count: usize) -> io::Result<Starts> {
    let mut starts = VecDeque::new();
    let mut line = Vec::new();
    let (mut offset, mut begins) = (0, 0);
    while let Some(text) = read_line(file, &mut line)? {
        offset += text.len() as u64 + 1;
        // Parts belong to the line that they begin.
        if Record::parse(&text).is_some_and(|record| record.ending == Ending::Full) {
            starts.push_back(begins);
            begins = offset;
        }
        if starts.len() > count {
            starts.pop_front();
        }
    }
    Ok(Starts { first: starts.front().copied().unwrap_or(offset), lines: starts.len() })
}

/// The next line without its end; what stands behind the last line's end stays in `begun` for the next call.
fn read_line(file: &mut BufReader<File>, begun: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        let available = file.fill_buf()?;
        if available.is_empty() {
            return Ok(None);
        }
        let (used, ended) = match available.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (available.len(), false),
        };
        begun.extend_from_slice(&available[..used - usize::from(ended)]);
        file.consume(used);
        // Only a file that is none of ours has longer lines; they are no records then, whatever their rest is.
        if ended || begun.len() > MAX_LINE {
            return Ok(Some(std::mem::take(begun)));
        }
    }
}

fn file_has_more(file: Option<&mut BufReader<File>>) -> io::Result<bool> {
    match file {
        Some(file) => Ok(!file.fill_buf()?.is_empty()),
        None => Ok(false),
    }
}

/// The files that are there, the oldest first, each with its inode. A rotation on the way may show one twice, or leave
/// one place empty for an instant.
fn existing_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, ReadError> {
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    let mut empty_places = 0;
    for age in 0..MOST_FILES {
        let path = file_of_age(dir, age);
        match fs::metadata(&path) {
            Ok(metadata) => {
                files.push((metadata.ino(), path));
                empty_places = 0;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && empty_places == 0 => empty_places = 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(source) => return Err(ReadError::Read { path, source }),
        }
    }
    files.reverse();
    files.dedup_by_key(|(inode, _)| *inode);
    Ok(files)
}

/// Becomes readable when something happened in a log's directory. For poll, or tokio's `AsyncFd`.
#[derive(Debug)]
pub struct LogWatch {
    inotify: Inotify,
}

impl LogWatch {
    /// Watches `dir`. Open it before the reader, so that nothing falls between the two.
    pub fn open(dir: &Path) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Watch { path: dir.to_owned(), source };
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(failed)?;
        let events = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(dir, events | AddWatchFlags::IN_ONLYDIR).map_err(failed)?;
        Ok(Self { inotify })
    }

    /// Takes what happened so far; then the descriptor is readable only when something else happens.
    pub fn clear(&self) {
        // One read takes at most 4 KiB of events; EAGAIN is the end of them.
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
    }
}

impl AsFd for LogWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Stream;
    use super::super::writer::LogWriter;
    use super::*;
    use crate::model::{ByteSize, LogLimits};

    fn writer(dir: &Path, size: u64, files: u32) -> LogWriter {
        LogWriter::open(dir, LogLimits { size: ByteSize(size), files }).unwrap()
    }

    fn texts(reader: &mut LogReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_record().unwrap())
            .map(|record| String::from_utf8_lossy(&record.text).into_owned())
            .collect()
    }

    fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|number| format!("line {number}")).collect()
    }

    fn write(log: &mut LogWriter, range: std::ops::Range<usize>) {
        for line in numbers(range) {
            log.output(Stream::Stdout, format!("{line}\n").as_bytes());
        }
    }

    #[test]
    fn records_come_in_order_over_all_files() {
        let dir = tempfile::tempdir().unwrap();
        write(&mut writer(dir.path(), 300, 100), 0..50);
        assert!(dir.path().join("5.log").exists());
        assert_eq!(texts(&mut LogReader::open(dir.path(), From::Oldest).unwrap()), numbers(0..50));
    }

    #[test]
    fn the_last_lines_may_stand_in_several_files() {
        let dir = tempfile::tempdir().unwrap();
        write(&mut writer(dir.path(), 300, 100), 0..50);
        for count in [0, 1, 7, 20, 50, 99] {
            let seen = texts(&mut LogReader::open(dir.path(), From::Last(count)).unwrap());
            assert_eq!(seen, numbers(50 - count.min(50)..50), "last {count}");
        }
    }

    #[test]
    fn a_follower_loses_nothing_in_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), 300, 100);
        let mut reader = LogReader::open(dir.path(), From::Oldest).unwrap();
        let mut seen = Vec::new();
        for start in (0..60).step_by(15) {
            // Several rotations lie between two reads.
            write(&mut log, start..start + 15);
            seen.extend(texts(&mut reader));
        }
        assert_eq!(seen, numbers(0..60));
    }

    #[test]
    fn a_follower_whose_file_is_gone_goes_on_with_the_oldest_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), 200, 2);
        write(&mut log, 0..1);
        let mut reader = LogReader::open(dir.path(), From::Oldest).unwrap();
        assert_eq!(texts(&mut reader), numbers(0..1));
        write(&mut log, 1..50);
        let seen = texts(&mut reader);
        assert_eq!(seen.last().unwrap(), "line 49");
        assert!(seen.len() < 20);
    }

    #[test]
    fn parts_are_joined_by_stream() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = writer(dir.path(), 1 << 20, 1);
        let mut reader = LogReader::open(dir.path(), From::Oldest).unwrap();
        log.output(Stream::Stdout, b"pass");
        log.output(Stream::Stderr, b"warning\n");
        assert_eq!(texts(&mut reader), ["warning"]);
        log.output(Stream::Stdout, b"word: ");
        assert_eq!(texts(&mut reader), [""; 0]);
        log.output(Stream::Stdout, b"ok\nnext");
        assert_eq!(texts(&mut reader), ["password: ok"]);
        assert_eq!(reader.take_unfinished()[0].text, b"next");
    }

    #[test]
    fn a_log_may_begin_after_its_reader() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = LogReader::open(dir.path(), From::Last(3)).unwrap();
        assert_eq!(texts(&mut reader), [""; 0]);
        write(&mut writer(dir.path(), 1 << 20, 1), 0..2);
        assert_eq!(texts(&mut reader), numbers(0..2));
    }

    #[test]
    fn a_watch_tells_of_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let watch = LogWatch::open(dir.path()).unwrap();
        let readable = |watch: &LogWatch| {
            let mut fds = [rustix::event::PollFd::new(watch, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        };
        assert!(!readable(&watch));
        write(&mut writer(dir.path(), 1 << 20, 1), 0..2);
        assert!(readable(&watch));
        watch.clear();
        assert!(!readable(&watch));
    }
}
