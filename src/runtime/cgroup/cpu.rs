//! Processor time: weight and shares, quota and period, throttling.

use std::time::Duration;

use super::files::keyed;
use super::{Cgroup, CgroupError, Controller, Version};

/// The period that a group has if none is set, in microseconds.
pub const CPU_PERIOD_DEFAULT_US: u64 = 100_000;
/// The kernel's bounds on the period (`kernel/sched/core.c`: 1 ms to 1 s), in microseconds.
pub const CPU_PERIOD_RANGE_US: (u64, u64) = (1_000, 1_000_000);
/// The kernel's bounds on the quota: 1 ms, and what fits 44 bits (`MAX_BW`), in microseconds.
pub const CPU_QUOTA_RANGE_US: (u64, u64) = (1_000, (1 << 44) - 1);
/// `cpu.weight` of a group if none is set.
pub const WEIGHT_DEFAULT: u64 = 100;
/// Bounds of `cpu.weight`.
pub const WEIGHT_RANGE: (u64, u64) = (1, 10_000);
/// Bounds of `cpu.shares`; the kernel moves what lies outside to the nearest.
pub const SHARES_RANGE: (u64, u64) = (2, 262_144);

/// A hard limit: `quota_us` microseconds of processor time in every `period_us` microseconds. 1.5 processors are
/// 150,000 of 100,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CpuBandwidth {
    pub quota_us: u64,
    pub period_us: u64,
}

impl CpuBandwidth {
    /// `processors` processors in the default period, rounded to a microsecond, at least the kernel's least quota.
    pub fn from_processors(processors: f64) -> Self {
        let quota_us = (processors * CPU_PERIOD_DEFAULT_US as f64).round() as u64;
        Self { quota_us: quota_us.max(CPU_QUOTA_RANGE_US.0), period_us: CPU_PERIOD_DEFAULT_US }
    }

    /// As a number of processors.
    pub fn processors(self) -> f64 {
        self.quota_us as f64 / self.period_us as f64
    }
}

/// `cpu.shares` (2..=262144, default 1024) as `cpu.weight` (1..=10000, default 100), by the formula that the OCI
/// runtimes agreed on in 2025: quadratic in the logarithm, through (2, 1), (1024, 100) and (262144, 10000). It places
/// default on default, which the straight line used before did not (it gave 39). 0 is "not set" and gives the default.
pub fn weight_from_shares(shares: u64) -> u64 {
    match shares {
        0 => WEIGHT_DEFAULT,
        shares if shares <= SHARES_RANGE.0 => WEIGHT_RANGE.0,
        shares if shares >= SHARES_RANGE.1 => WEIGHT_RANGE.1,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            (10f64.powf(exponent).ceil() as u64).clamp(WEIGHT_RANGE.0, WEIGHT_RANGE.1)
        }
    }
}

/// The fewest `cpu.shares` that [`weight_from_shares`] turns into `weight` (or, where it skips that one, into the next
/// above). 0 gives the default of 1024.
pub fn shares_from_weight(weight: u64) -> u64 {
    if weight == 0 {
        return 1024;
    }
    let (mut low, mut high) = SHARES_RANGE;
    while low < high {
        let middle = low + (high - low) / 2;
        match weight_from_shares(middle) >= weight {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

/// The `cpu.shares` with which v1 treats a group exactly as v2 does with `weight`: the scheduler of both counts in
/// 1024ths of the default (`cpu_weight_write_u64`). Groups keep their proportions: 200 is twice 100 on either.
/// [`shares_from_weight`] does not have this property; it is for documents that were written in shares.
pub fn kernel_shares(weight: u64) -> u64 {
    let weight = weight.clamp(WEIGHT_RANGE.0, WEIGHT_RANGE.1);
    (weight * 1024 + WEIGHT_DEFAULT / 2) / WEIGHT_DEFAULT
}

/// The weight that `shares` amount to in the scheduler; the inverse of [`kernel_shares`].
pub fn weight_from_kernel_shares(shares: u64) -> u64 {
    ((shares.min(SHARES_RANGE.1) * WEIGHT_DEFAULT + 512) / 1024).clamp(WEIGHT_RANGE.0, WEIGHT_RANGE.1)
}

/// Counters of a quota (`cpu.stat`), since the group was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuBandwidthStats {
    /// Periods in which the group had something to run.
    pub periods: u64,
    /// Periods in which it ran out of quota.
    pub throttled_periods: u64,
    /// Time its tasks had to wait for the next period, summed over processors.
    pub throttled: Duration,
    /// Periods in which it used what was left over from earlier ones.
    pub bursts: u64,
    /// Time used beyond the quota in those.
    pub burst: Duration,
}

/// A group's processor time: reading what it used and how it was throttled.
#[derive(Debug, Clone, Copy)]
pub struct CgroupCpuController<'a> {
    group: &'a Cgroup,
}

impl<'a> CgroupCpuController<'a> {
    pub(super) fn new(group: &'a Cgroup) -> Self {
        Self { group }
    }

    /// Processor time used by the group and all below it. `None` where nothing counts it.
    pub fn usage(&self) -> Result<Option<Duration>, CgroupError> {
        let (version, anchor) = self.group.anchor_dir();
        if version == Version::V2 {
            let text = anchor.read_optional("cpu.stat")?;
            return Ok(text.and_then(|text| keyed(&text, "usage_usec")).map(Duration::from_micros));
        }
        let Some((_, dir)) = self.group.dir_of(Controller::Cpuacct) else { return Ok(None) };
        let Some(text) = dir.read_optional("cpuacct.usage")? else { return Ok(None) };
        let used = text.trim().parse().map_err(|_| dir.malformed("cpuacct.usage", &text))?;
        Ok(Some(Duration::from_nanos(used)))
    }

    /// How often and how long the quota held the group back. All zero where the controller is not available.
    pub fn bandwidth(&self) -> Result<CpuBandwidthStats, CgroupError> {
        let Some((version, dir)) = self.group.dir_of(Controller::Cpu) else { return Ok(CpuBandwidthStats::default()) };
        let text = dir.read_optional("cpu.stat")?.unwrap_or_default();
        Ok(match version {
            Version::V1 => stats(&text, ("throttled_time", "burst_time"), Duration::from_nanos),
            Version::V2 => stats(&text, ("throttled_usec", "burst_usec"), Duration::from_micros),
        })
    }
}

/// `cpu.stat`: v1 and v2 differ in the names of the two times and in their unit.
fn stats(text: &str, times: (&str, &str), unit: fn(u64) -> Duration) -> CpuBandwidthStats {
    let count = |key| keyed(text, key).unwrap_or(0);
    CpuBandwidthStats {
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled: unit(count(times.0)),
        bursts: count("nr_bursts"),
        burst: unit(count(times.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_through_the_three_agreed_points() {
        for (shares, weight) in [(0, 100), (1, 1), (2, 1), (3, 2), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
            assert_eq!(weight_from_shares(shares), weight, "{shares} shares");
        }
    }

    #[test]
    fn weights_become_shares_and_the_same_weights_again() {
        assert_eq!([0, 1, 100, u64::MAX].map(shares_from_weight), [1024, 2, 1012, 262_144]);
        for weight in 1..=10_000 {
            let shares = shares_from_weight(weight);
            assert!(weight_from_shares(shares) >= weight);
            assert!(shares == 2 || weight_from_shares(shares - 1) < weight, "{shares} are not the fewest for {weight}");
        }
        for weight in [1, 2, 50, 100, 1_000, 9_999, 10_000] {
            assert_eq!(weight_from_shares(shares_from_weight(weight)), weight);
        }
    }

    #[test]
    fn the_kernels_own_proportions_survive_v1() {
        assert_eq!([kernel_shares(1), kernel_shares(100), kernel_shares(10_000)], [10, 1024, 102_400]);
        for weight in 1..=10_000 {
            assert_eq!(weight_from_kernel_shares(kernel_shares(weight)), weight);
        }
        assert_eq!([weight_from_kernel_shares(2), weight_from_kernel_shares(262_144)], [1, 10_000]);
    }

    #[test]
    fn both_forms_of_cpu_stat_are_read() {
        let v1 = "nr_periods 9\nnr_throttled 3\nthrottled_time 5000000\nnr_bursts 1\nburst_time 2000\n";
        let v2 = "usage_usec 77\nnr_periods 9\nnr_throttled 3\nthrottled_usec 5000\nnr_bursts 1\nburst_usec 2\n";
        let expected = CpuBandwidthStats {
            periods: 9,
            throttled_periods: 3,
            throttled: Duration::from_millis(5),
            bursts: 1,
            burst: Duration::from_micros(2),
        };
        assert_eq!(stats(v1, ("throttled_time", "burst_time"), Duration::from_nanos), expected);
        assert_eq!(stats(v2, ("throttled_usec", "burst_usec"), Duration::from_micros), expected);
        assert_eq!(stats("usage_usec 1\n", ("a", "b"), Duration::from_micros), CpuBandwidthStats::default());
    }

    #[test]
    fn processors_are_counted_in_the_default_period() {
        assert_eq!(CpuBandwidth::from_processors(1.5), CpuBandwidth { quota_us: 150_000, period_us: 100_000 });
        assert_eq!(CpuBandwidth::from_processors(0.0001).quota_us, 1_000);
    }
}
