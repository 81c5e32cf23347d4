//! Pressure stall information (`Documentation/accounting/psi.rst`): how much time is lost to want of something.

use super::{Cgroup, CgroupError, Version};

/// What is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Cpu,
    Memory,
    Io,
}

/// Time lost by at least one task (`some`) and by all at once (`full`).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    pub some: Stall,
    /// Zero where the kernel does not tell it, as for processors before Linux 5.13.
    pub full: Stall,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stall {
    /// Percent of the last 10, 60 and 300 seconds.
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    /// Microseconds since the group was made.
    pub total_us: u64,
}

impl Pressure {
    fn parse(text: &str) -> Option<Self> {
        let line = |kind: &str| {
            let mut fields = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?.split(' ');
            let mut next = |key: &str| fields.next()?.strip_prefix(key)?.strip_prefix('=');
            let mut average = |key| next(key)?.parse().ok();
            let (avg10, avg60, avg300) = (average("avg10")?, average("avg60")?, average("avg300")?);
            Some(Stall { avg10, avg60, avg300, total_us: next("total")?.parse().ok()? })
        };
        Some(Self { some: line("some")?, full: line("full").unwrap_or_default() })
    }
}

impl Cgroup {
    /// What the group's tasks lose to want of `resource`. `None` where the kernel does not tell: on v1 alone, built
    /// without PSI, or booted with `psi=0`.
    pub fn pressure(&self, resource: Resource) -> Result<Option<Pressure>, CgroupError> {
        let (version, dir) = self.anchor_dir();
        if version == Version::V1 {
            return Ok(None);
        }
        let file = match resource {
            Resource::Cpu => "cpu.pressure",
            Resource::Memory => "memory.pressure",
            Resource::Io => "io.pressure",
        };
        match dir.read_optional(file) {
            Ok(Some(text)) => Pressure::parse(&text).map(Some).ok_or_else(|| dir.malformed(file, &text)),
            Ok(None) => Ok(None),
            // Built in, and switched off.
            Err(CgroupError::Read { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read_and_full_may_be_missing() {
        let some = "some avg10=1.50 avg60=0.25 avg300=0.00 total=8123\n";
        let pressure = Pressure::parse(&format!("{some}full avg10=0.50 avg60=0.00 avg300=0.00 total=99\n")).unwrap();
        assert_eq!((pressure.some.avg10, pressure.some.avg60, pressure.some.total_us), (1.5, 0.25, 8123));
        assert_eq!((pressure.full.avg10, pressure.full.total_us), (0.5, 99));
        assert_eq!(Pressure::parse(some).unwrap().full, Stall::default());
        assert_eq!(Pressure::parse("something else\n"), None);
    }
}
