//! What a group may use, as a value; and as the kernel would hold it.

use super::cpu::{CPU_PERIOD_RANGE_US, CPU_QUOTA_RANGE_US, WEIGHT_DEFAULT, WEIGHT_RANGE};
use super::io::{IoDeviceLimit, IoField, normalised};
use super::{CgroupError, CgroupPath, Controller, CpuBandwidth, Hierarchies, Version};

/// Limits of one group. `None` is "no limit" (for the weight: the default of 100).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CgroupLimits {
    /// Bytes. Reaching it means reclaim, then an OOM kill in the group.
    pub memory_max: Option<u64>,
    /// Bytes that reclaim should leave to the group. On v2 (`memory.low`) this protects memory below it. v1 has no
    /// protection and gets the nearest it has, `memory.soft_limit_in_bytes`: under global pressure groups are pushed
    /// back to it first; a group below it is spared only as long as others are above theirs.
    pub memory_low: Option<u64>,
    /// Bytes above which the group is slowed down and its memory reclaimed, without anything being killed
    /// (`memory.high`). v2 only.
    pub memory_high: Option<u64>,
    /// Bytes of swap, without memory, as v2 counts. v1 limits the sum, so there it needs `memory_max` beside it.
    pub swap_max: Option<u64>,
    /// Hard limit on processor time.
    pub cpu: Option<CpuBandwidth>,
    /// Microseconds of quota that are saved up while unused and may be spent on top of it in one period; 0 is none. At
    /// most the quota, and useless without one.
    pub cpu_burst_us: Option<u64>,
    /// Processors that the group may run on (`cpuset.cpus`), and memory nodes that it gets memory from: lists as the
    /// kernel prints them, such as `0-3,8`. v2 only.
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// Share under contention, 1..=10000, default 100. v1 gets the `cpu.shares` that the scheduler treats the same.
    pub cpu_weight: Option<u64>,
    /// Most processes and threads; 0 is a limit of none.
    pub pids_max: Option<u64>,
    /// Limits on block devices; [`CgroupLimits::as_kernel_would_hold`] orders them by device number.
    pub io: Vec<IoDeviceLimit>,
}

impl CgroupLimits {
    /// These limits as [`Cgroup::limits`](super::Cgroup::limits) gives them back once written: memory rounded down to
    /// pages, beyond the kernel's counters unlimited, default weight and empty io limits as none.
    pub fn as_kernel_would_hold(&self, hierarchies: &Hierarchies) -> Self {
        self.normalised(hierarchies.of(Controller::Memory).map_or(Version::V2, |hierarchy| hierarchy.version))
    }

    /// As [`as_kernel_would_hold`](Self::as_kernel_would_hold), for the memory controller's version.
    pub(super) fn normalised(&self, memory: Version) -> Self {
        let memory_max = self.memory_max.and_then(pages);
        let swap_max = self.swap_max.and_then(pages);
        // v1 keeps the sum: where it does not fit the counter, neither is limited.
        let sum_fits = |swap: &u64| memory == Version::V2 || memory_max.is_none_or(|max| pages(max + swap).is_some());
        Self {
            memory_max,
            memory_low: self.memory_low.and_then(pages).filter(|bytes| *bytes > 0),
            memory_high: self.memory_high.and_then(pages),
            swap_max: swap_max.filter(sum_fits),
            cpu: self.cpu,
            cpu_burst_us: self.cpu_burst_us.filter(|burst| *burst > 0),
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            cpu_weight: self.cpu_weight.filter(|weight| *weight != WEIGHT_DEFAULT),
            pids_max: self.pids_max,
            io: normalised(&self.io),
        }
    }

    /// Refuses what the kernel would refuse, before anything is written.
    pub(super) fn check(&self, group: &CgroupPath) -> Result<(), CgroupError> {
        let within = |limit, value, (low, high)| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(CgroupError::OutOfRange { limit, group: group.clone(), value, low, high }),
        };
        if let Some(cpu) = self.cpu {
            within("cpu quota", cpu.quota_us, CPU_QUOTA_RANGE_US)?;
            within("cpu period", cpu.period_us, CPU_PERIOD_RANGE_US)?;
        }
        if let Some(burst) = self.cpu_burst_us.filter(|burst| *burst > 0) {
            within("cpu burst", burst, (0, self.cpu.map_or(0, |cpu| cpu.quota_us)))?;
        }
        if let Some(weight) = self.cpu_weight {
            within("cpu weight", weight, WEIGHT_RANGE)?;
        }
        if let Some(pids) = self.pids_max {
            within("pids", pids, (0, PIDS_HIGHEST))?;
        }
        for device in &self.io {
            for value in IoField::ALL.into_iter().filter_map(|field| device.get(field)) {
                within("io", value, (1, u64::MAX))?;
            }
        }
        Ok(())
    }

    /// The controllers that these limits cannot do without, each with the name of the limit.
    pub(super) fn needs(&self) -> impl Iterator<Item = (Controller, &'static str)> {
        [
            (self.memory_max.is_some(), Controller::Memory, "memory"),
            (self.memory_low.is_some(), Controller::Memory, "memory_low"),
            (self.memory_high.is_some(), Controller::Memory, "memory_high"),
            (self.swap_max.is_some(), Controller::Memory, "swap"),
            (self.cpu.is_some(), Controller::Cpu, "cpu"),
            (self.cpu_burst_us.is_some(), Controller::Cpu, "cpu_burst"),
            (self.cpuset_cpus.is_some(), Controller::Cpuset, "cpuset"),
            (self.cpuset_mems.is_some(), Controller::Cpuset, "cpuset_mems"),
            (self.cpu_weight.is_some(), Controller::Cpu, "cpu_weight"),
            (self.pids_max.is_some(), Controller::Pids, "pids"),
            (!self.io.is_empty(), Controller::Io, "io"),
        ]
        .into_iter()
        .filter_map(|(is_set, controller, limit)| is_set.then_some((controller, limit)))
    }
}

/// `PID_MAX_LIMIT` of 64-bit kernels, what `pids.max` takes at most.
const PIDS_HIGHEST: u64 = 4 * 1024 * 1024;

/// `bytes` as the kernel's page counter keeps them: whole pages, and `None` (unlimited) from `PAGE_COUNTER_MAX` on.
pub(super) fn pages(bytes: u64) -> Option<u64> {
    let size = page_size();
    let rounded = bytes / size * size;
    (rounded < i64::MAX as u64 / size * size).then_some(rounded)
}

/// Bytes of a page; 4096 should the system not tell.
fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_held_in_pages_and_beyond_the_counter_not_at_all() {
        let size = page_size();
        assert_eq!(pages(10 * size + 1), Some(10 * size));
        assert_eq!(pages(size - 1), Some(0));
        assert_eq!(pages(u64::MAX), None);
        assert_eq!(pages(9_223_372_036_854_771_712), None);
    }

    #[test]
    fn a_default_is_no_limit() {
        let limits = CgroupLimits { cpu_weight: Some(100), memory_low: Some(0), ..CgroupLimits::default() };
        assert_eq!(limits.normalised(Version::V1), CgroupLimits::default());
        let none_left = CgroupLimits { pids_max: Some(0), swap_max: Some(0), ..CgroupLimits::default() };
        assert_eq!(none_left.normalised(Version::V2), none_left);
    }

    #[test]
    fn v1_holds_no_sum_beyond_its_counter() {
        let limits = CgroupLimits { memory_max: Some(1 << 62), swap_max: Some(1 << 62), ..CgroupLimits::default() };
        assert_eq!(limits.normalised(Version::V1).swap_max, None);
        assert_eq!(limits.normalised(Version::V2).swap_max, Some(1 << 62));
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_with_its_bounds() {
        let group = CgroupPath::new("stack/web").unwrap();
        let cpu = |quota_us, period_us| CgroupLimits {
            cpu: Some(CpuBandwidth { quota_us, period_us }),
            ..CgroupLimits::default()
        };
        assert!(cpu(1_000, 1_000_000).check(&group).is_ok());
        let error = cpu(999, 100_000).check(&group).unwrap_err().to_string();
        assert!(error.starts_with("`cpu quota` of `stack/web` is 999; it must lie between 1000 and"), "{error}");
        assert!(cpu(1_000, 1_000_001).check(&group).is_err());
        let weight = |weight| CgroupLimits { cpu_weight: Some(weight), ..CgroupLimits::default() };
        assert!(weight(0).check(&group).is_err() && weight(10_001).check(&group).is_err());
        let device = IoDeviceLimit { rbps: Some(0), ..IoDeviceLimit::default() };
        assert!(CgroupLimits { io: vec![device], ..CgroupLimits::default() }.check(&group).is_err());
    }
}
