//! The files of cgroup v2 (`Documentation/admin-guide/cgroup-v2.rst`), one function per controller and direction.

use super::files::{GroupDir, VALUE_LIMIT, is_gone};
use super::io::{IoDeviceLimit, parse_v2};
use super::limits::pages;
use super::{CgroupError, CgroupLimits, CgroupPath, Controller, CpuBandwidth, Hierarchy};

/// Sees to it that the groups directly below the parent of `path` have `hierarchy`'s controllers, by turning them on
/// from the root down. All parents must exist.
///
/// A controller can only be on where it is on in the group above, so one look at the nearest parent tells in the
/// ordinary case that nothing is to do.
pub fn enable_controllers(hierarchy: &Hierarchy, path: &CgroupPath) -> Result<(), CgroupError> {
    let wanted: Vec<Controller> = hierarchy.controllers.iter().copied().filter(|one| one.is_enabled_below()).collect();
    let parents: Vec<CgroupPath> = std::iter::successors(path.parent(), CgroupPath::parent).collect();
    let nearest = parents.first().map_or(hierarchy.mount_point.clone(), |parent| hierarchy.mount_point.join(parent));
    if wanted.is_empty() || missing(&nearest, &wanted)?.is_empty() {
        return Ok(());
    }
    let below_root = parents.iter().rev().map(|parent| hierarchy.mount_point.join(parent));
    for group in std::iter::once(hierarchy.mount_point.clone()).chain(below_root) {
        let missing = missing(&group, &wanted)?;
        if !missing.is_empty() {
            enable(&group, &missing)?;
        }
    }
    Ok(())
}

/// Those of `wanted` that the group at `path` does not pass on, as a request: `+memory +pids`.
fn missing(path: &std::path::Path, wanted: &[Controller]) -> Result<String, CgroupError> {
    let gone = || std::io::Error::from_raw_os_error(libc::ENOENT);
    let dir = GroupDir::open(path.into())?.ok_or_else(|| CgroupError::Read { path: path.into(), source: gone() })?;
    let enabled = dir.read("cgroup.subtree_control", VALUE_LIMIT)?;
    let is_missing = |one: &&Controller| !enabled.split_whitespace().any(|name| name == one.name());
    let requests: Vec<String> = wanted.iter().filter(is_missing).map(|one| format!("+{one}")).collect();
    Ok(requests.join(" "))
}

fn enable(path: &std::path::Path, request: &str) -> Result<(), CgroupError> {
    let file = path.join("cgroup.subtree_control");
    std::fs::write(&file, request).map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => CgroupError::InternalProcesses { path: path.into() },
        _ => CgroupError::Enable { path: path.into(), controllers: request.replace('+', ""), source },
    })
}

/// Fills in what the memory controller holds.
pub fn read_memory(dir: &GroupDir, limits: &mut CgroupLimits) -> Result<(), CgroupError> {
    limits.memory_max = read_max(dir, "memory.max")?.and_then(pages);
    limits.memory_low = match dir.read_optional("memory.low")? {
        Some(text) => parse_max(dir, "memory.low", &text)?.and_then(pages).filter(|bytes| *bytes > 0),
        None => None,
    };
    limits.swap_max = read_max(dir, "memory.swap.max")?.and_then(pages);
    Ok(())
}

/// Fills in what the cpu controller holds; an unlimited quota hides its period.
pub fn read_cpu(dir: &GroupDir, limits: &mut CgroupLimits) -> Result<(), CgroupError> {
    if let Some(text) = dir.read_optional("cpu.max")? {
        let malformed = || dir.malformed("cpu.max", &text);
        let (quota, period) = text.trim_end().split_once(' ').ok_or_else(malformed)?;
        let period_us = period.parse().map_err(|_| malformed())?;
        limits.cpu = match quota {
            "max" => None,
            quota => Some(CpuBandwidth { quota_us: quota.parse().map_err(|_| malformed())?, period_us }),
        };
    }
    limits.cpu_weight = read_max(dir, "cpu.weight")?;
    Ok(())
}

/// Fills in what the io controller holds.
pub fn read_io(dir: &GroupDir, limits: &mut CgroupLimits) -> Result<(), CgroupError> {
    if let Some(text) = dir.read_optional("io.max")? {
        limits.io = parse_v2(&text).ok_or_else(|| dir.malformed("io.max", &text))?;
    }
    Ok(())
}

/// A file with a number or `max`; `None` for `max` and where the file does not exist. `pids.max` of v1 has the same form.
pub fn read_max(dir: &GroupDir, name: &str) -> Result<Option<u64>, CgroupError> {
    match dir.read_optional(name)? {
        Some(text) => parse_max(dir, name, &text),
        None => Ok(None),
    }
}

fn parse_max(dir: &GroupDir, name: &str, text: &str) -> Result<Option<u64>, CgroupError> {
    match text.trim_end() {
        "max" => Ok(None),
        number => number.parse().map(Some).map_err(|_| dir.malformed(name, text)),
    }
}

/// Writes what differs between `old` and `new`. Raising comes before lowering needs no care here: v2 takes any order.
pub fn write_memory(dir: &GroupDir, old: &CgroupLimits, new: &CgroupLimits) -> Result<(), CgroupError> {
    // Protection and swap first: lowering `memory.max` may reclaim, and should do so under the new rules.
    if old.memory_low != new.memory_low {
        dir.write("memory.low", &new.memory_low.unwrap_or(0).to_string())?;
    }
    if old.swap_max != new.swap_max {
        dir.write("memory.swap.max", &or_max(new.swap_max))?;
    }
    if old.memory_max != new.memory_max {
        dir.write("memory.max", &or_max(new.memory_max))?;
    }
    Ok(())
}

/// Writes what differs between `old` and `new`.
pub fn write_cpu(dir: &GroupDir, old: &CgroupLimits, new: &CgroupLimits) -> Result<(), CgroupError> {
    if old.cpu != new.cpu {
        let value = new.cpu.map_or("max 100000".into(), |cpu| format!("{} {}", cpu.quota_us, cpu.period_us));
        dir.write("cpu.max", &value)?;
    }
    if old.cpu_weight != new.cpu_weight {
        dir.write("cpu.weight", &new.cpu_weight.unwrap_or(super::WEIGHT_DEFAULT).to_string())?;
    }
    Ok(())
}

/// Writes what differs between `old` and `new`, one write per device.
pub fn write_io(dir: &GroupDir, old: &CgroupLimits, new: &CgroupLimits) -> Result<(), CgroupError> {
    let is_kept = |gone: &&IoDeviceLimit| new.io.iter().any(|one| (one.major, one.minor) == (gone.major, gone.minor));
    for gone in old.io.iter().filter(|limit| !is_kept(limit)) {
        let unlimited = IoDeviceLimit { major: gone.major, minor: gone.minor, ..IoDeviceLimit::default() };
        dir.write("io.max", &unlimited.v2_line())?;
    }
    for limit in new.io.iter().filter(|limit| !old.io.contains(limit)) {
        dir.write("io.max", &limit.v2_line())?;
    }
    Ok(())
}

/// Writes `pids.max`, the same on v1.
pub fn write_pids(dir: &GroupDir, old: &CgroupLimits, new: &CgroupLimits) -> Result<(), CgroupError> {
    if old.pids_max != new.pids_max {
        dir.write("pids.max", &or_max(new.pids_max))?;
    }
    Ok(())
}

/// The group has the file; false also where the controller is not on.
pub fn has(dir: &GroupDir, name: &str) -> bool {
    !matches!(dir.open_file(name), Err(error) if is_gone(&error))
}

fn or_max(limit: Option<u64>) -> String {
    limit.map_or("max".into(), |value| value.to_string())
}
