//! Pax extended header records: `LENGTH KEY=VALUE\n` (POSIX.1 `pax`, "pax Extended Header").

use super::TarTime;
use super::sparse::PaxSparse;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What pax records say about a member; `None` where they say nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct PaxRecords {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<TarTime>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<PaxSparse>,
}

impl PaxRecords {
    /// Adds the records of one extended header, the later winning; `None` where they are malformed.
    pub(super) fn extend(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)?;
            self.set(key, value)?;
            bytes = rest;
        }
        Some(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        // An empty value takes a record back; in extended attributes it is a value.
        let given = !value.is_empty();
        match key {
            b"path" => self.path = optional(given, || name(value))?,
            b"linkpath" => self.linkpath = optional(given, || name(value))?,
            b"size" => self.size = optional(given, || decimal(value))?,
            b"uid" => self.uid = optional(given, || decimal(value))?,
            b"gid" => self.gid = optional(given, || decimal(value))?,
            b"mtime" => self.mtime = optional(given, || time(value))?,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().set(key, value)?;
                }
                if let Some(attribute) = key.strip_prefix(XATTR) {
                    let attribute = name(attribute)?;
                    self.xattrs.retain(|(existing, _)| *existing != attribute);
                    self.xattrs.push((attribute, value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// `Some(None)` where nothing is given, `None` where what is given is wrong.
fn optional<T>(given: bool, parse: impl FnOnce() -> Option<T>) -> Option<Option<T>> {
    if given { parse().map(Some) } else { Some(None) }
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let record = bytes.get(space + 1..length)?;
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    if equals == 0 {
        return None;
    }
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// Names with a NUL mean one thing to us and another to the kernel.
pub(super) fn name(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty() && !value.contains(&0)).then(|| value.to_vec())
}

pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Decimal seconds, perhaps negative, perhaps with a fraction.
fn time(text: &[u8]) -> Option<TarTime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..point])?).ok()?;
    let fraction = text.get(point + 1..).unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'));
    let nanoseconds = (0..9).fold(0, |sum, at| sum * 10 + digit(at));
    Some(match (negative, nanoseconds) {
        (false, _) => TarTime { seconds, nanoseconds },
        (true, 0) => TarTime { seconds: -seconds, nanoseconds },
        (true, _) => TarTime { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Option<PaxRecords> {
        let mut records = PaxRecords::default();
        records.extend(text)?;
        Some(records)
    }

    #[test]
    fn records_are_read_by_length_not_by_line() {
        let records = parse(b"16 path=a\nb=c d\n28 SCHILY.xattr.user.k=\0v\n\0\n11 size=99\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a\nb=c d"[..]));
        assert_eq!(records.size, Some(99));
        assert_eq!(records.xattrs, [(b"user.k".to_vec(), b"\0v\n\0".to_vec())]);
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let records = parse(b"10 path=x\n8 path=\n").unwrap();
        assert_eq!(records.path, None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in [
            &b"x"[..],
            b"8 path=x\n",
            b"9 path=x\n\n",
            b"99 path=x\n",
            b"10 path=x",
            b"5 =x\n",
            b"0 path=x\n",
            b"3 path=x\n",
            b"11 path=a\0\n",
            b"11 size=-1\n",
            b"18446744073709551616 path=x\n",
            b"+10 path=x\n",
        ] {
            assert!(parse(text).is_none(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn times_with_fractions_on_both_sides_of_1970() {
        for (text, seconds, nanoseconds) in [
            (&b"0"[..], 0, 0),
            (b"1700000000.5", 1_700_000_000, 500_000_000),
            (b"1.0000000019", 1, 1),
            (b"-1", -1, 0),
            (b"-1.25", -2, 750_000_000),
        ] {
            assert_eq!(time(text), Some(TarTime { seconds, nanoseconds }), "{}", text.escape_ascii());
        }
        for text in [&b""[..], b".5", b"1.x", b"--1", b"99999999999999999999"] {
            assert_eq!(time(text), None, "{}", text.escape_ascii());
        }
    }
}
