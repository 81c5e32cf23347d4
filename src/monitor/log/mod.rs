//! What a container wrote to stdout and stderr, kept in bounded files.
//!
//! The directory holds `current.log` and, once that grew over its limit, `1.log` (the newest of the old), `2.log` and
//! so on; there are never more files than the limit says. Each line is one record, in the form that Kubernetes' CRI
//! gives to logs, so that collectors of the field read it:
//!
//! ```text
//! 2026-01-02T03:04:05.000000006Z stdout F text of a whole line
//! 2026-01-02T03:04:05.000000007Z stderr P beginning of a line that goes on in the next record of the stream
//! 2026-01-02T03:04:05.000000008Z stack F restarted after exit status 1
//! ```
//!
//! `F` is a full line or the end of one, `P` a part whose line end was not there yet when it was written: output shows
//! up at once, and a line may be of any length. The stream `stack` carries the monitor's own remarks.
//! [`writer`] is the monitor's side, [`reader`] that of `stack logs`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

pub mod reader;
pub mod writer;

/// The file that is being written.
pub const CURRENT: &str = "current.log";
/// The longest text of one record, in bytes.
pub const MAX_TEXT: usize = 16 << 10;
/// The longest line of a log file: the text and what stands before it.
const MAX_LINE: usize = MAX_TEXT + 64;

/// Where a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
    /// The monitor itself.
    Stack,
}

/// One line of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub time: Timestamp,
    pub stream: Stream,
    pub ending: Ending,
    /// Bytes as the container wrote them, without the line's end.
    pub text: Vec<u8>,
}

/// Whether a record ends its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Full,
    Partial,
}

impl Stream {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Stack => "stack",
        }
    }
}

impl Record {
    /// Reads a line without its end. `None`: it is no record, such as one torn by a power cut.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            b"stack" => Stream::Stack,
            _ => return None,
        };
        let ending = match fields.next()? {
            b"F" => Ending::Full,
            b"P" => Ending::Partial,
            _ => return None,
        };
        Some(Self { time, stream, ending, text: fields.next()?.to_vec() })
    }
}

/// Appends one line to `out`.
fn format(out: &mut Vec<u8>, time: &str, stream: Stream, ending: Ending, text: &[u8]) {
    out.extend_from_slice(time.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.as_str().as_bytes());
    out.extend_from_slice(match ending {
        Ending::Full => b" F ",
        Ending::Partial => b" P ",
    });
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// The file that was current `age` rotations ago.
fn file_of_age(dir: &Path, age: u32) -> PathBuf {
    match age {
        0 => dir.join(CURRENT),
        _ => dir.join(format!("{age}.log")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_time_a_stream_an_ending_and_the_bytes_as_they_were() {
        let line = b"2026-01-02T03:04:05.000000006Z stderr P  two  spaces \xff";
        let record = Record::parse(line).unwrap();
        assert_eq!((record.stream, record.ending), (Stream::Stderr, Ending::Partial));
        assert_eq!(record.text, b" two  spaces \xff");
        let mut out = Vec::new();
        let time = format!("{:.9}", record.time);
        format(&mut out, &time, record.stream, record.ending, &record.text);
        assert_eq!(out.strip_suffix(b"\n"), Some(&line[..]));
    }

    #[test]
    fn an_empty_text_is_a_record_and_a_torn_line_is_none() {
        assert_eq!(Record::parse(b"2026-01-02T03:04:05Z stdout F ").unwrap().text, b"");
        for torn in ["", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z stdout F", "3:04 stdout F x", "x y z w"] {
            assert_eq!(Record::parse(torn.as_bytes()), None, "{torn}");
        }
    }
}
