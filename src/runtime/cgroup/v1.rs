//! The files of cgroup v1 (`Documentation/admin-guide/cgroup-v1/`), one function per controller and direction.

use std::collections::BTreeMap;

use super::cpu::{CPU_PERIOD_DEFAULT_US, kernel_shares, weight_from_kernel_shares};
use super::files::GroupDir;
use super::io::{IoDeviceLimit, IoField, normalised, parse_v1};
use super::limits::pages;
use super::{CgroupError, CgroupLimits, CgroupPath, CpuBandwidth, WEIGHT_DEFAULT};

const LIMIT: &str = "memory.limit_in_bytes";
const SOFT_LIMIT: &str = "memory.soft_limit_in_bytes";
/// Memory and swap together. Absent where the kernel keeps no account of swap.
pub const MEMORY_AND_SWAP: &str = "memory.memsw.limit_in_bytes";
const QUOTA: &str = "cpu.cfs_quota_us";
const PERIOD: &str = "cpu.cfs_period_us";
/// From Linux 5.14 on.
const BURST: &str = "cpu.cfs_burst_us";
const SHARES: &str = "cpu.shares";

/// Fills in what the memory controller holds; swap is what the sum allows beyond memory.
pub fn read_memory(dir: &GroupDir, limits: &mut CgroupLimits) -> Result<(), CgroupError> {
    limits.memory_max = read_bytes(dir, LIMIT)?;
    limits.memory_low = read_bytes(dir, SOFT_LIMIT)?.filter(|bytes| *bytes > 0);
    limits.swap_max = match limits.memory_max {
        Some(memory) => read_bytes(dir, MEMORY_AND_SWAP)?.map(|sum| sum.saturating_sub(memory)),
        None => None,
    };
    Ok(())
}

/// Fills in what the cpu controller holds; an unlimited quota hides its period.
pub fn read_cpu(dir: &GroupDir, limits: &mut CgroupLimits) -> Result<(), CgroupError> {
    limits.cpu = match read_number::<i64>(dir, QUOTA)? {
        // Negative: unlimited.
        Some(quota) if quota >= 0 => {
            let period_us = read_number(dir, PERIOD)?.unwrap_or(CPU_PERIOD_DEFAULT_US);
            Some(CpuBandwidth { quota_us: quota.unsigned_abs(), period_us })
        }
        _ => None,
    };
    limits.cpu_burst_us = read_number(dir, BURST)?.filter(|burst| *burst > 0);
    limits.cpu_weight = read_number(dir, SHARES)?.map(weight_from_kernel_shares);
    Ok(())
}

/// Fills in what the blkio controller holds.
pub fn read_io(dir: &GroupDir, limits: &mut CgroupLimits) -> Result<(), CgroupError> {
    let mut devices = BTreeMap::new();
    for field in IoField::ALL {
        if let Some(text) = dir.read_optional(field.v1_file())? {
            parse_v1(&text, field, &mut devices).ok_or_else(|| dir.malformed(field.v1_file(), &text))?;
        }
    }
    limits.io = normalised(&devices.into_values().collect::<Vec<IoDeviceLimit>>());
    Ok(())
}

/// Bytes, `None` if unlimited or the file does not exist.
fn read_bytes(dir: &GroupDir, name: &str) -> Result<Option<u64>, CgroupError> {
    Ok(read_number(dir, name)?.and_then(pages))
}

fn read_number<N: std::str::FromStr>(dir: &GroupDir, name: &str) -> Result<Option<N>, CgroupError> {
    match dir.read_optional(name)? {
        Some(text) => text.trim_end().parse().map(Some).map_err(|_| dir.malformed(name, &text)),
        None => Ok(None),
    }
}

/// Writes what differs between `old` and `new`.
///
/// The kernel holds memory ≤ memory + swap at every moment: where the sum grows it goes first, where it shrinks it
/// goes last.
pub fn write_memory(
    dir: &GroupDir,
    group: &CgroupPath,
    (old, new): (&CgroupLimits, &CgroupLimits),
) -> Result<(), CgroupError> {
    if old.memory_low != new.memory_low {
        dir.write(SOFT_LIMIT, &or_minus_one(new.memory_low))?;
    }
    let sum = |limits: &CgroupLimits| limits.memory_max.zip(limits.swap_max).map(|(memory, swap)| memory + swap);
    let (old_sum, new_sum) = (sum(old), sum(new));
    let write_sum = || match old_sum == new_sum {
        true => Ok(()),
        false => write_bytes(dir, group, MEMORY_AND_SWAP, new_sum),
    };
    let write_memory = || match old.memory_max == new.memory_max {
        true => Ok(()),
        false => write_bytes(dir, group, LIMIT, new.memory_max),
    };
    if new_sum.unwrap_or(u64::MAX) >= old_sum.unwrap_or(u64::MAX) {
        write_sum()?;
        write_memory()
    } else {
        write_memory()?;
        write_sum()
    }
}

fn write_bytes(dir: &GroupDir, group: &CgroupPath, name: &str, bytes: Option<u64>) -> Result<(), CgroupError> {
    let value = or_minus_one(bytes);
    dir.write_raw(name, &value).map_err(|source| match (source.raw_os_error(), bytes) {
        // v1 reclaims a while, then gives up and keeps the old limit.
        (Some(libc::EBUSY), Some(limit)) => {
            let usage = read_number(dir, "memory.usage_in_bytes").ok().flatten().unwrap_or(0);
            CgroupError::MemoryInUse { group: group.clone(), limit, usage }
        }
        _ => CgroupError::Write { path: dir.path().join(name), value, source },
    })
}

/// Writes what differs between `old` and `new`.
pub fn write_cpu(
    dir: &GroupDir,
    group: &CgroupPath,
    (old, new): (&CgroupLimits, &CgroupLimits),
) -> Result<(), CgroupError> {
    // A burst may not be above the quota at any moment.
    let moves_burst = old.cpu != new.cpu || old.cpu_burst_us != new.cpu_burst_us;
    if moves_burst && old.cpu_burst_us.is_some() {
        dir.write(BURST, "0")?;
    }
    if old.cpu != new.cpu {
        write_bandwidth(dir, new.cpu).map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL) => CgroupError::CpuAboveParent { group: group.clone(), source },
            _ => CgroupError::Write { path: dir.path().join(QUOTA), value: format!("{:?}", new.cpu), source },
        })?;
    }
    if let Some(burst) = new.cpu_burst_us.filter(|_| moves_burst) {
        dir.write(BURST, &burst.to_string())?;
    }
    if old.cpu_weight != new.cpu_weight {
        dir.write(SHARES, &kernel_shares(new.cpu_weight.unwrap_or(WEIGHT_DEFAULT)).to_string())?;
    }
    Ok(())
}

/// Quota and period are two files, and the kernel checks each write against the groups above and below. So where the
/// period changes, the quota is lifted for the moment between; if the new one is refused, the old one is put back.
fn write_bandwidth(dir: &GroupDir, new: Option<CpuBandwidth>) -> std::io::Result<()> {
    let Some(new) = new else { return dir.write_raw(QUOTA, "-1") };
    let period = dir.read_optional(PERIOD).ok().flatten().unwrap_or_default();
    if period.trim_end() == new.period_us.to_string() {
        return dir.write_raw(QUOTA, &new.quota_us.to_string());
    }
    let quota = dir.read_optional(QUOTA).ok().flatten().unwrap_or_default();
    dir.write_raw(QUOTA, "-1")?;
    let written = dir
        .write_raw(PERIOD, &new.period_us.to_string())
        .and_then(|()| dir.write_raw(QUOTA, &new.quota_us.to_string()));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = dir.write_raw(PERIOD, period.trim_end());
        let _ = dir.write_raw(QUOTA, quota.trim_end());
    }
    written
}

/// Writes what differs between `old` and `new`, one write per device and field; 0 takes a limit away.
pub fn write_io(dir: &GroupDir, old: &CgroupLimits, new: &CgroupLimits) -> Result<(), CgroupError> {
    let devices = |limits: &CgroupLimits| -> BTreeMap<(u32, u32), IoDeviceLimit> {
        limits.io.iter().map(|limit| ((limit.major, limit.minor), *limit)).collect()
    };
    let (old, new) = (devices(old), devices(new));
    let mut all: Vec<_> = old.keys().chain(new.keys()).copied().collect();
    all.sort_unstable();
    all.dedup();
    for device in all {
        for field in IoField::ALL {
            let value = |limits: &BTreeMap<_, IoDeviceLimit>| limits.get(&device).and_then(|limit| limit.get(field));
            if value(&old) != value(&new) {
                let (major, minor) = device;
                dir.write(field.v1_file(), &format!("{major}:{minor} {}", value(&new).unwrap_or(0)))?;
            }
        }
    }
    Ok(())
}

fn or_minus_one(limit: Option<u64>) -> String {
    limit.map_or("-1".into(), |value| value.to_string())
}
