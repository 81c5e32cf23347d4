//! What containers use, read from the kernel at one moment.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use super::LinuxHost;
use crate::reconcile::actual::{Actual, ActualContainer};
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::cgroup::{Cgroup, CgroupPath, Resource};

/// What one container uses. `None`: this host does not count it.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    pub name: String,
    /// When it was read.
    #[serde(skip)]
    pub at: Instant,
    /// Microseconds of processor time since the container's group was made.
    pub cpu_us: Option<u64>,
    /// Microseconds of quota in each microsecond, as processors: the least of its own and those above it.
    pub cpu_limit: Option<f64>,
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub cpu_throttled_us: u64,
    /// Bytes, the page cache included.
    pub memory: Option<u64>,
    /// The least limit of its own and those above it; `None`: the host's memory is the limit.
    pub memory_limit: Option<u64>,
    pub memory_peak: Option<u64>,
    pub anon: Option<u64>,
    pub file: Option<u64>,
    pub swap: Option<u64>,
    pub oom_kills: u64,
    pub pids: Option<u64>,
    pub pids_limit: Option<u64>,
    /// Percent of the last ten seconds in which some task waited.
    pub cpu_pressure: Option<f64>,
    pub memory_pressure: Option<f64>,
    pub io_pressure: Option<f64>,
    /// Bytes that the container received and sent on all its bridges since it started.
    pub net_received: u64,
    pub net_sent: u64,
    pub restarts: u32,
}

impl LinuxHost {
    /// What the containers that `actual` saw running use now. One that ended meanwhile is left out.
    pub fn usage(&self, actual: &Actual) -> Result<Vec<Usage>, HostError> {
        let path = "/proc/self/net/dev";
        let links = counters(&std::fs::read_to_string(path).doing(|| format!("read `{path}`"))?);
        let mut all = Vec::new();
        for (instance, container) in &actual.containers {
            let Some(stored) = container.stored.as_ref().filter(|_| container.run.pid.is_some()) else { continue };
            let path = self.cgroup_path(&stored.spec.cgroup)?;
            let Some(group) = self.open_cgroup(&path)? else { continue };
            all.push(self.usage_of(instance, container, &group, &links).doing(|| format!("read cgroup `{path}`"))?);
        }
        Ok(all)
    }

    fn usage_of(
        &self,
        instance: &str,
        container: &ActualContainer,
        group: &Cgroup,
        links: &BTreeMap<String, (u64, u64)>,
    ) -> Result<Usage, crate::runtime::cgroup::CgroupError> {
        let (memory, cpu) = (group.memory(), group.cpu());
        let (stat, bandwidth, limits) = (memory.stat()?, cpu.bandwidth()?, group.limits()?);
        let (mut memory_limit, mut cpu_limit) = (limits.memory_max, limits.cpu.map(|cpu| cpu.processors()));
        for above in std::iter::successors(group.path().parent(), CgroupPath::parent) {
            let Some(limits) = Cgroup::open(&self.hierarchies, &above)?.map(|group| group.limits()).transpose()? else {
                continue;
            };
            memory_limit = memory_limit.into_iter().chain(limits.memory_max).min();
            cpu_limit = cpu_limit.into_iter().chain(limits.cpu.map(|cpu| cpu.processors())).reduce(f64::min);
        }
        let pressure = |resource| Ok(group.pressure(resource)?.map(|pressure| pressure.some.avg10));
        let of_links = container.links.iter().filter_map(|link| links.get(&link.ifname));
        // What the host's end receives is what the container sent.
        let (net_sent, net_received) = of_links.fold((0, 0), |(sent, got), (rx, tx)| (sent + rx, got + tx));
        Ok(Usage {
            name: instance.into(),
            at: Instant::now(),
            cpu_us: cpu.usage()?.map(micros),
            cpu_limit,
            cpu_periods: bandwidth.periods,
            cpu_throttled_periods: bandwidth.throttled_periods,
            cpu_throttled_us: micros(bandwidth.throttled),
            memory: memory.usage()?,
            memory_limit,
            memory_peak: memory.peak()?,
            anon: stat.as_ref().map(|stat| stat.anon),
            file: stat.as_ref().map(|stat| stat.file),
            swap: stat.as_ref().map(|stat| stat.swap),
            oom_kills: container.run.oom_kills,
            pids: group.pids_current()?,
            pids_limit: limits.pids_max,
            cpu_pressure: pressure(Resource::Cpu)?,
            memory_pressure: pressure(Resource::Memory)?,
            io_pressure: pressure(Resource::Io)?,
            net_received,
            net_sent,
            restarts: container.run.restarts,
        })
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Bytes received and sent of each link, from `/proc/net/dev` (proc_pid_net(5)).
fn counters(text: &str) -> BTreeMap<String, (u64, u64)> {
    let link = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let mut numbers = numbers.split_ascii_whitespace();
        let received = numbers.next()?.parse().ok()?;
        Some((name.trim().to_owned(), (received, numbers.nth(7)?.parse().ok()?)))
    };
    text.lines().filter_map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_past_their_heads() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n\
            lo: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\nstvab:9000 7 0 0 0 0 0 0 80 1 0 0 0 0 0 0\n";
        let links = counters(text);
        assert_eq!((links["lo"], links["stvab"], links.len()), ((1, 3), (9000, 80), 2));
    }
}
