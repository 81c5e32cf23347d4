//! Sizes, processor shares and durations as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("`{0}` is no size; write a number and a unit, such as \"512MiB\"")]
    Size(String),
    #[error("`{0}` could mean powers of 1000 or of 1024; write \"{1}iB\" or \"{1}B\"")]
    Ambiguous(String, String),
    #[error("`{0}` has no unit; write \"{0}B\" for bytes, or a unit such as \"MiB\"")]
    NoUnit(String),
    #[error("`{0}` is no duration; write one such as \"1s\", \"500ms\" or \"1m30s\"")]
    Duration(String),
    #[error("`{0}` is too large")]
    TooLarge(String),
    #[error("`{0}` is no number of processors; write one such as 0.5 or 2")]
    Cpus(String),
}

/// A number of bytes. Written with a unit that cannot be misread: `B`, `kB MB GB TB` (1000), `KiB MiB GiB TiB` (1024).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let digits_end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = (&text[..digits_end], text[digits_end..].trim());
        let value: f64 = number.parse().map_err(|_| UnitError::Size(text.into()))?;
        if unit.is_empty() {
            return Err(UnitError::NoUnit(text.into()));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let letter = unit.to_ascii_uppercase();
            let known = matches!(letter.as_str(), "K" | "M" | "G" | "T");
            return Err(match known {
                true => UnitError::Ambiguous(text.into(), format!("{number}{letter}")),
                false => UnitError::Size(text.into()),
            });
        };
        let bytes = value * *factor as f64;
        if !(0.0..=(1u64 << 53) as f64).contains(&bytes) {
            return Err(UnitError::TooLarge(text.into()));
        }
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = UNITS[..4]
            .iter()
            .rev()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        f.pad(&format!("{}{name}", self.0 / factor))
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A share of processor time, in thousandths of one processor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cpus {
    pub millis: u32,
}

impl Cpus {
    /// The smallest quota that the kernel takes at a period of 100 ms: 1 ms, a hundredth of a processor.
    pub const MIN: Cpus = Cpus { millis: 10 };

    /// From a number of processors, 0.01 to 4096.
    pub fn from_float(cpus: f64) -> Result<Self, UnitError> {
        let millis = (cpus * 1000.0).round();
        if !(f64::from(Self::MIN.millis)..=4_096_000.0).contains(&millis) {
            return Err(UnitError::Cpus(cpus.to_string()));
        }
        Ok(Self { millis: millis as u32 })
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}", f64::from(self.millis) / 1000.0))
    }
}

impl fmt::Debug for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A duration such as `1s`, `500ms`, `1m30s`; not negative, at most a year.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| UnitError::Duration(text.into()))?;
    let duration = Duration::try_from(span).map_err(|_| UnitError::Duration(text.into()))?;
    match duration <= Duration::from_secs(365 * 86_400) {
        true => Ok(duration),
        false => Err(UnitError::TooLarge(text.into())),
    }
}

/// How long ago something was: a duration that may begin with weeks or days, such as `30d`, `2w` or `1d12h`.
pub fn parse_age(text: &str) -> Result<Duration, UnitError> {
    let (mut rest, mut age) = (text, Duration::ZERO);
    for (unit, seconds) in [('w', 7 * 86_400), ('d', 86_400)] {
        if let Some((number, after)) = rest.split_once(unit) {
            let number: u32 = number.parse().map_err(|_| UnitError::Duration(text.into()))?;
            age += Duration::from_secs(u64::from(number) * seconds);
            rest = after;
        }
    }
    if rest.is_empty() && rest.len() < text.len() {
        return Ok(age);
    }
    parse_duration(rest).map(|duration| age + duration).map_err(|_| UnitError::Duration(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_carry_a_unit_that_cannot_be_misread() {
        let check = |text: &str, bytes: u64| assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        check("512MiB", 512 << 20);
        check("1.5GiB", 3 << 29);
        check("1kB", 1000);
        check("10 MB", 10_000_000);
        check("64B", 64);
        assert!(matches!("512M".parse::<ByteSize>(), Err(UnitError::Ambiguous(_, to)) if to == "512M"));
        assert!(matches!("512".parse::<ByteSize>(), Err(UnitError::NoUnit(_))));
        assert!(matches!("-1MiB".parse::<ByteSize>(), Err(UnitError::Size(_))));
        assert!(matches!("99999999TiB".parse::<ByteSize>(), Err(UnitError::TooLarge(_))));
    }

    #[test]
    fn a_size_is_shown_in_the_largest_unit_that_keeps_it_whole() {
        assert_eq!(ByteSize(512 << 20).to_string(), "512MiB");
        assert_eq!(ByteSize(1000).to_string(), "1000B");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    #[test]
    fn durations_are_bounded_and_need_a_unit() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["90", "-1s", "soon", ""] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages_may_be_days_and_weeks() {
        for (text, hours) in [("30d", 720), ("2w", 336), ("1w1d2h", 194), ("12h", 12), ("0d", 0)] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(hours * 3600)), "{text}");
        }
        for bad in ["", "30", "d", "1d1", "x1d", "-1d", "1d1w"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }
}
