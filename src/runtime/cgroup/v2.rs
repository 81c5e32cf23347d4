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
    limits.memory_high = read_max(dir, "memory.high")?.and_then(pages);
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
    limits.cpu_burst_us = read_max(dir, "cpu.max.burst")?.filter(|burst| *burst > 0);
    limits.cpu_weight = read_max(dir, "cpu.weight")?;
    Ok(())
}

/// Fills in what the cpuset controller holds; empty is what the groups above have.
pub fn read_cpuset(dir: &GroupDir, limits: &mut CgroupLimits) -> Result<(), CgroupError> {
    let list = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    limits.cpuset_cpus = list(dir.read_optional("cpuset.cpus")?);
    limits.cpuset_mems = list(dir.read_optional("cpuset.mems")?);
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

/// Writes what differs between `old` and `new`.
///
/// The kernel meets a `memory.max` below what is in use by reclaim, then by killing. So the memory is reclaimed first;
/// where that does not suffice the limit is refused, as v1 does.
pub fn write_memory(
    dir: &GroupDir,
    group: &CgroupPath,
    (old, new): (&CgroupLimits, &CgroupLimits),
) -> Result<(), CgroupError> {
    // Protection and swap first: lowering `memory.max` may reclaim, and should do so under the new rules.
    if old.memory_low != new.memory_low {
        dir.write("memory.low", &new.memory_low.unwrap_or(0).to_string())?;
    }
    if old.swap_max != new.swap_max {
        dir.write("memory.swap.max", &or_max(new.swap_max))?;
    }
    if old.memory_max != new.memory_max {
        let below = |limit: &u64| read_max(dir, "memory.current").is_ok_and(|usage| usage > Some(*limit));
        if let Some(limit) = new.memory_max.filter(below) {
            reclaim_to(dir, group, limit, old.memory_high)?;
        }
        dir.write("memory.max", &or_max(new.memory_max))?;
    }
    if old.memory_high != new.memory_high {
        dir.write("memory.high", &or_max(new.memory_high))?;
    }
    Ok(())
}

/// Lets the group give memory back until it uses no more than `limit`: writing `memory.high` reclaims, and does not
/// kill. `high` is what stands there, and stands there again afterwards.
fn reclaim_to(dir: &GroupDir, group: &CgroupPath, limit: u64, high: Option<u64>) -> Result<(), CgroupError> {
    dir.write("memory.high", &limit.to_string())?;
    let usage = read_max(dir, "memory.current")?.unwrap_or(0);
    // Reclaim counts in batches: what is above by a little, the limit itself takes off.
    let fits = usage <= limit.saturating_add(RECLAIM_SLACK);
    dir.write("memory.high", &or_max(high))?;
    if fits { Ok(()) } else { Err(CgroupError::MemoryInUse { group: group.clone(), limit, usage }) }
}

/// Bytes: a batch of pages of each of a few processors (`MEMCG_CHARGE_BATCH` is 64 pages).
const RECLAIM_SLACK: u64 = 1024 * 1024;

/// Writes what differs between `old` and `new`.
pub fn write_cpu(dir: &GroupDir, old: &CgroupLimits, new: &CgroupLimits) -> Result<(), CgroupError> {
    // A burst may not be above the quota at any moment.
    let moves_burst = old.cpu != new.cpu || old.cpu_burst_us != new.cpu_burst_us;
    if moves_burst && old.cpu_burst_us.is_some() {
        dir.write("cpu.max.burst", "0")?;
    }
    if old.cpu != new.cpu {
        let value = new.cpu.map_or("max 100000".into(), |cpu| format!("{} {}", cpu.quota_us, cpu.period_us));
        dir.write("cpu.max", &value)?;
    }
    if let Some(burst) = new.cpu_burst_us.filter(|_| moves_burst) {
        dir.write("cpu.max.burst", &burst.to_string())?;
    }
    if old.cpu_weight != new.cpu_weight {
        dir.write("cpu.weight", &new.cpu_weight.unwrap_or(super::WEIGHT_DEFAULT).to_string())?;
    }
    Ok(())
}

/// Writes what differs between `old` and `new`; an empty list takes the limit away.
pub fn write_cpuset(dir: &GroupDir, old: &CgroupLimits, new: &CgroupLimits) -> Result<(), CgroupError> {
    let lists =
        [("cpuset.cpus", &old.cpuset_cpus, &new.cpuset_cpus), ("cpuset.mems", &old.cpuset_mems, &new.cpuset_mems)];
    for (file, old, new) in lists {
        if old != new {
            dir.write(file, new.as_deref().unwrap_or("\n"))?;
        }
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
