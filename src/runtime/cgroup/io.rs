//! Limits on block devices: `io.max` of v2, `blkio.throttle.*` of v1.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Bandwidth and operations per second that a group may have of one block device. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct IoDeviceLimit {
    pub major: u32,
    pub minor: u32,
    /// Bytes read per second.
    pub rbps: Option<u64>,
    /// Bytes written per second.
    pub wbps: Option<u64>,
    /// Reads per second; the kernel counts in 32 bits.
    pub riops: Option<u64>,
    /// Writes per second; the kernel counts in 32 bits.
    pub wiops: Option<u64>,
}

/// What is limited of a device: v2's key and v1's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoField {
    ReadBytes,
    WriteBytes,
    ReadOperations,
    WriteOperations,
}

impl IoField {
    pub const ALL: [Self; 4] = [Self::ReadBytes, Self::WriteBytes, Self::ReadOperations, Self::WriteOperations];

    /// The key in `io.max`.
    pub fn v2_key(self) -> &'static str {
        match self {
            Self::ReadBytes => "rbps",
            Self::WriteBytes => "wbps",
            Self::ReadOperations => "riops",
            Self::WriteOperations => "wiops",
        }
    }

    /// The file of v1's blkio controller.
    pub fn v1_file(self) -> &'static str {
        match self {
            Self::ReadBytes => "blkio.throttle.read_bps_device",
            Self::WriteBytes => "blkio.throttle.write_bps_device",
            Self::ReadOperations => "blkio.throttle.read_iops_device",
            Self::WriteOperations => "blkio.throttle.write_iops_device",
        }
    }

    /// The value from which on the kernel sees no limit (`blk-throttle.c`).
    fn unlimited(self) -> u64 {
        match self {
            Self::ReadBytes | Self::WriteBytes => u64::MAX,
            Self::ReadOperations | Self::WriteOperations => u64::from(u32::MAX),
        }
    }
}

impl IoDeviceLimit {
    /// The limit on `field`.
    pub fn get(&self, field: IoField) -> Option<u64> {
        match field {
            IoField::ReadBytes => self.rbps,
            IoField::WriteBytes => self.wbps,
            IoField::ReadOperations => self.riops,
            IoField::WriteOperations => self.wiops,
        }
    }

    fn set(&mut self, field: IoField, value: Option<u64>) {
        let place = match field {
            IoField::ReadBytes => &mut self.rbps,
            IoField::WriteBytes => &mut self.wbps,
            IoField::ReadOperations => &mut self.riops,
            IoField::WriteOperations => &mut self.wiops,
        };
        *place = value;
    }

    /// `254:0 rbps=1048576 wbps=max riops=max wiops=max`, all keys, so that none keeps an old value.
    pub fn v2_line(&self) -> String {
        let mut line = format!("{}:{}", self.major, self.minor);
        for field in IoField::ALL {
            let value = self.get(field).map_or("max".into(), |value| value.to_string());
            let _ = write!(line, " {}={value}", field.v2_key());
        }
        line
    }
}

/// `limits` as the kernel shows them again: by device number, the last one of a device counts, what limits nothing
/// is left out.
pub fn normalised(limits: &[IoDeviceLimit]) -> Vec<IoDeviceLimit> {
    let mut devices = BTreeMap::new();
    for limit in limits {
        let mut limit = *limit;
        for field in IoField::ALL {
            limit.set(field, limit.get(field).filter(|value| *value < field.unlimited()));
        }
        devices.insert((limit.major, limit.minor), limit);
    }
    devices.into_values().filter(|limit| IoField::ALL.iter().any(|field| limit.get(*field).is_some())).collect()
}

/// Reads `io.max`; `None` if a line is not as documented.
pub fn parse_v2(text: &str) -> Option<Vec<IoDeviceLimit>> {
    let mut limits = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let mut limit = IoDeviceLimit { major, minor, ..IoDeviceLimit::default() };
        for word in words {
            let (key, value) = word.split_once('=')?;
            // A key that a newer kernel adds is no limit of ours.
            let Some(field) = IoField::ALL.into_iter().find(|field| field.v2_key() == key) else { continue };
            limit.set(field, if value == "max" { None } else { Some(value.parse().ok()?) });
        }
        limits.push(limit);
    }
    Some(normalised(&limits))
}

/// Adds what `text` of the v1 file for `field` says to `devices`; `None` if a line is not as documented.
pub fn parse_v1(text: &str, field: IoField, devices: &mut BTreeMap<(u32, u32), IoDeviceLimit>) -> Option<()> {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let value = words.next()?.parse().ok()?;
        let empty = IoDeviceLimit { major, minor, ..IoDeviceLimit::default() };
        devices.entry((major, minor)).or_insert(empty).set(field, Some(value));
    }
    Some(())
}

fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: IoDeviceLimit =
        IoDeviceLimit { major: 254, minor: 0, rbps: Some(1 << 20), wbps: None, riops: None, wiops: Some(100) };

    #[test]
    fn a_line_of_io_max_reads_back_as_it_was_written() {
        assert_eq!(DISK.v2_line(), "254:0 rbps=1048576 wbps=max riops=max wiops=100");
        assert_eq!(parse_v2(&DISK.v2_line()), Some(vec![DISK]));
        assert_eq!(parse_v2(""), Some(vec![]));
        assert_eq!(parse_v2("8:0 rbps=1 new=7\n").unwrap().len(), 1);
        assert_eq!(parse_v2("sda rbps=1"), None);
    }

    #[test]
    fn the_files_of_v1_make_one_limit_per_device() {
        let mut devices = BTreeMap::new();
        parse_v1("254:0 1048576\n8:16 5\n", IoField::ReadBytes, &mut devices).unwrap();
        parse_v1("254:0 100\n", IoField::WriteOperations, &mut devices).unwrap();
        assert_eq!(devices[&(254, 0)], DISK);
        assert_eq!(devices[&(8, 16)].rbps, Some(5));
        assert_eq!(parse_v1("Total 5", IoField::ReadBytes, &mut devices), None);
    }

    #[test]
    fn what_limits_nothing_is_left_out() {
        let idle = IoDeviceLimit { major: 1, rbps: Some(u64::MAX), riops: Some(u64::MAX), ..IoDeviceLimit::default() };
        let later = IoDeviceLimit { rbps: Some(7), ..DISK };
        assert_eq!(normalised(&[DISK, idle, later]), vec![later]);
    }
}
