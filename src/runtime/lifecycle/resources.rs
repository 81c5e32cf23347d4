//! `linux.resources` of a configuration as writes to files of cgroups, for both versions (runtime-spec config-linux.md, "Control
//! groups"). Pure.

use crate::runtime::oci::{OciBlockIo, OciCpu, OciMemory, OciResources, OciThrottleDevice};

/// One write to a file of a container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupWrite {
    /// As version 1 names the hierarchy.
    pub controller: &'static str,
    pub file: String,
    pub value: String,
    pub place: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    V1,
    V2,
}

#[derive(Debug, Default)]
struct Writes(Vec<CgroupWrite>);

impl Writes {
    fn add(&mut self, (controller, file): (&'static str, &str), value: impl ToString, place: &'static str) {
        self.0.push(CgroupWrite { controller, file: file.to_owned(), value: value.to_string(), place });
    }
}

/// What to write, in order. Resources that are not named are left alone.
pub fn writes(resources: &OciResources, version: CgroupVersion) -> Result<Vec<CgroupWrite>, String> {
    let mut writes = Writes::default();
    if let Some(cpu) = &resources.cpu {
        match version {
            CgroupVersion::V1 => cpu_v1(&mut writes, cpu),
            CgroupVersion::V2 => cpu_v2(&mut writes, cpu),
        }
    }
    if let Some(memory) = &resources.memory {
        match version {
            CgroupVersion::V1 => memory_v1(&mut writes, memory),
            CgroupVersion::V2 => memory_v2(&mut writes, memory)?,
        }
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit) {
        writes.add(("pids", "pids.max"), or_max(limit), "pids.limit");
    }
    if let Some(io) = &resources.block_io {
        match version {
            CgroupVersion::V1 => io_v1(&mut writes, io),
            CgroupVersion::V2 => io_v2(&mut writes, io),
        }
    }
    for huge in &resources.hugepage_limits {
        let end = if version == CgroupVersion::V1 { "limit_in_bytes" } else { "max" };
        let file = format!("hugetlb.{}.{end}", huge.page_size);
        writes.add(("hugetlb", &file), huge.limit, "hugepageLimits");
    }
    if let Some(network) = resources.network.as_ref().filter(|_| version == CgroupVersion::V1) {
        if let Some(class) = network.class_id {
            writes.add(("net_cls", "net_cls.classid"), class, "network.classID");
        }
        for priority in &network.priorities {
            let line = format!("{} {}", priority.name, priority.priority);
            writes.add(("net_prio", "net_prio.ifpriomap"), line, "network.priorities");
        }
    }
    for (device, limit) in &resources.rdma {
        let part = |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        let line =
            format!("{device}{}{}", part("hca_handle", limit.hca_handles), part("hca_object", limit.hca_objects));
        writes.add(("rdma", "rdma.max"), line, "rdma");
    }
    for (key, value) in &resources.unified {
        if version == CgroupVersion::V1 {
            return Err("`linux.resources.unified` needs cgroup version 2".to_owned());
        }
        if key.is_empty() || key.contains('/') || key == "." || key == ".." {
            return Err(format!("`linux.resources.unified` names `{key}`, which is no file of a cgroup"));
        }
        writes.add(("", key), value, "unified");
    }
    Ok(writes.0)
}

/// With what is now in `cpu.max` and `memory.max`, where version 2 has together what is asked for apart.
pub fn completed(resources: &OciResources, cpu_max: &str, memory_max: &str) -> OciResources {
    let mut resources = resources.clone();
    let mut now = cpu_max.split_whitespace();
    let (quota, period) = (now.next(), now.next());
    if let Some(cpu) = &mut resources.cpu {
        let asked = (cpu.quota.filter(|quota| *quota != 0), cpu.period.filter(|period| *period > 0));
        match asked {
            (None, Some(_)) => cpu.quota = quota.map(|quota| quota.parse().unwrap_or(-1)),
            (Some(_), None) => cpu.period = period.and_then(|period| period.parse().ok()),
            _ => {}
        }
    }
    if let Some(memory) = &mut resources.memory
        && memory.swap.is_some_and(|swap| swap > 0)
        && memory.limit.is_none_or(|limit| limit == 0)
    {
        memory.limit = memory_max.trim().parse().ok();
    }
    resources
}

fn or_max(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

fn cpu_v1(writes: &mut Writes, cpu: &OciCpu) {
    if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
        writes.add(("cpu", "cpu.shares"), shares, "cpu.shares");
    }
    if let Some(period) = cpu.period.filter(|period| *period > 0) {
        writes.add(("cpu", "cpu.cfs_period_us"), period, "cpu.period");
    }
    if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
        writes.add(("cpu", "cpu.cfs_quota_us"), quota, "cpu.quota");
    }
    if let Some(burst) = cpu.burst {
        writes.add(("cpu", "cpu.cfs_burst_us"), burst, "cpu.burst");
    }
    if let Some(period) = cpu.realtime_period.filter(|period| *period > 0) {
        writes.add(("cpu", "cpu.rt_period_us"), period, "cpu.realtimePeriod");
    }
    if let Some(runtime) = cpu.realtime_runtime.filter(|runtime| *runtime != 0) {
        writes.add(("cpu", "cpu.rt_runtime_us"), runtime, "cpu.realtimeRuntime");
    }
    cpu_both(writes, cpu);
}

fn cpu_both(writes: &mut Writes, cpu: &OciCpu) {
    if let Some(idle) = cpu.idle {
        writes.add(("cpu", "cpu.idle"), idle, "cpu.idle");
    }
    let sets = [("cpuset.cpus", &cpu.cpus, "cpu.cpus"), ("cpuset.mems", &cpu.mems, "cpu.mems")];
    for (file, list, place) in sets {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            writes.add(("cpuset", file), list, place);
        }
    }
}

fn cpu_v2(writes: &mut Writes, cpu: &OciCpu) {
    if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
        writes.add(("cpu", "cpu.weight"), weight_of_shares(shares), "cpu.shares");
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    match (quota, cpu.period.filter(|period| *period > 0)) {
        (None, None) => {}
        (quota, None) => writes.add(("cpu", "cpu.max"), or_max(quota.unwrap_or(-1)), "cpu.quota"),
        (quota, Some(period)) => {
            writes.add(("cpu", "cpu.max"), format!("{} {period}", or_max(quota.unwrap_or(-1))), "cpu.quota");
        }
    }
    if let Some(burst) = cpu.burst {
        writes.add(("cpu", "cpu.max.burst"), burst, "cpu.burst");
    }
    cpu_both(writes, cpu);
}

/// Shares of version 1 (2 to 262144, 1024 being usual) as a weight of version 2 (1 to 10000, 100 being usual): the formula that
/// maps the ends and the usual value onto each other.
pub fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil() as u64
}

fn memory_v1(writes: &mut Writes, memory: &OciMemory) {
    let limit = memory.limit.filter(|limit| *limit != 0);
    // Memory and swap together may not be below memory alone, at no moment.
    match (limit, memory.swap.filter(|swap| *swap != 0)) {
        (Some(-1), swap) => {
            writes.add(("memory", "memory.memsw.limit_in_bytes"), swap.unwrap_or(-1), "memory.swap");
            writes.add(("memory", "memory.limit_in_bytes"), -1, "memory.limit");
        }
        (limit, swap) => {
            if let Some(limit) = limit {
                writes.add(("memory", "memory.limit_in_bytes"), limit, "memory.limit");
            }
            if let Some(swap) = swap {
                writes.add(("memory", "memory.memsw.limit_in_bytes"), swap, "memory.swap");
            }
        }
    }
    if let Some(reservation) = memory.reservation.filter(|reservation| *reservation != 0) {
        writes.add(("memory", "memory.soft_limit_in_bytes"), reservation, "memory.reservation");
    }
    if let Some(swappiness) = memory.swappiness {
        writes.add(("memory", "memory.swappiness"), swappiness, "memory.swappiness");
    }
    if memory.disable_oom_killer == Some(true) {
        writes.add(("memory", "memory.oom_control"), 1, "memory.disableOOMKiller");
    }
}

fn memory_v2(writes: &mut Writes, memory: &OciMemory) -> Result<(), String> {
    let limit = memory.limit.filter(|limit| *limit != 0);
    if let Some(swap) = swap_alone(memory)? {
        writes.add(("memory", "memory.swap.max"), or_max(swap), "memory.swap");
    }
    if let Some(limit) = limit {
        writes.add(("memory", "memory.max"), or_max(limit), "memory.limit");
    }
    if let Some(reservation) = memory.reservation.filter(|reservation| *reservation != 0) {
        writes.add(("memory", "memory.low"), or_max(reservation), "memory.reservation");
    }
    Ok(())
}

/// The limit of swap, where the specification has one of both together. Below 0: none.
pub fn swap_alone(memory: &OciMemory) -> Result<Option<i64>, String> {
    let limit = memory.limit.filter(|limit| *limit != 0);
    match (memory.swap.filter(|swap| *swap != 0), limit) {
        (None, Some(-1)) | (Some(-1), _) => Ok(Some(-1)),
        (None, _) => Ok(None),
        (Some(swap), Some(limit)) if limit > 0 && swap >= limit => Ok(Some(swap - limit)),
        _ => Err("`linux.resources.memory.swap` is below the limit, or without one".to_owned()),
    }
}

fn io_v1(writes: &mut Writes, io: &OciBlockIo) {
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        writes.add(("blkio", "blkio.weight"), weight, "blockIO.weight");
    }
    if let Some(weight) = io.leaf_weight.filter(|weight| *weight != 0) {
        writes.add(("blkio", "blkio.leaf_weight"), weight, "blockIO.leafWeight");
    }
    for device in &io.weight_device {
        if let Some(weight) = device.weight {
            let line = format!("{}:{} {weight}", device.major, device.minor);
            writes.add(("blkio", "blkio.weight_device"), line, "blockIO.weightDevice");
        }
        if let Some(weight) = device.leaf_weight {
            let line = format!("{}:{} {weight}", device.major, device.minor);
            writes.add(("blkio", "blkio.leaf_weight_device"), line, "blockIO.weightDevice");
        }
    }
    for (file, _, devices) in throttles(io) {
        for device in devices {
            let line = format!("{}:{} {}", device.major, device.minor, device.rate);
            writes.add(("blkio", file), line, "blockIO.throttle");
        }
    }
}

/// 10 to 1000 onto 1 to 10000.
pub fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).max(10) - 10) * 9999 / 990
}

fn io_v2(writes: &mut Writes, io: &OciBlockIo) {
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        writes.add(("blkio", "io.weight"), io_weight(weight), "blockIO.weight");
    }
    for (_, key, devices) in throttles(io) {
        for device in devices {
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            writes.add(
                ("blkio", "io.max"),
                format!("{}:{} {key}={rate}", device.major, device.minor),
                "blockIO.throttle",
            );
        }
    }
}

fn throttles(io: &OciBlockIo) -> [(&'static str, &'static str, &[OciThrottleDevice]); 4] {
    [
        ("blkio.throttle.read_bps_device", "rbps", &io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", "wbps", &io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", "riops", &io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", "wiops", &io.throttle_write_iops_device),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, version: CgroupVersion, expected: &[&str]) {
        let resources: OciResources = serde_json::from_str(json).unwrap();
        let lines: Vec<String> = writes(&resources, version)
            .unwrap()
            .into_iter()
            .map(|write| format!("{}={}", write.file, write.value))
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn memory_and_swap_are_one_number_in_version_one_and_two_in_version_two() {
        let json = r#"{"memory":{"limit":1048576,"swap":3145728}}"#;
        check(json, CgroupVersion::V1, &["memory.limit_in_bytes=1048576", "memory.memsw.limit_in_bytes=3145728"]);
        check(json, CgroupVersion::V2, &["memory.swap.max=2097152", "memory.max=1048576"]);
    }

    #[test]
    fn a_limit_of_no_processes_is_one_and_minus_one_is_none() {
        check(r#"{"pids":{"limit":0}}"#, CgroupVersion::V2, &["pids.max=0"]);
        check(r#"{"pids":{"limit":-1}}"#, CgroupVersion::V1, &["pids.max=max"]);
    }

    #[test]
    fn an_update_keeps_the_half_that_it_does_not_name() {
        let check = |json: &str, expected: &[&str]| {
            let asked: OciResources = serde_json::from_str(json).unwrap();
            let resources = serde_json::to_string(&completed(&asked, "50000 100000\n", "1000\n")).unwrap();
            super::tests::check(&resources, CgroupVersion::V2, expected);
        };
        check(r#"{"cpu":{"period":200000}}"#, &["cpu.max=50000 200000"]);
        check(r#"{"cpu":{"quota":-1}}"#, &["cpu.max=max 100000"]);
        check(r#"{"memory":{"swap":1500}}"#, &["memory.swap.max=500", "memory.max=1000"]);
        check(r#"{"memory":{"swap":-1}}"#, &["memory.swap.max=max"]);
        check(r#"{"pids":{"limit":5}}"#, &["pids.max=5"]);
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 100, 10_000]);
        check(r#"{"cpu":{"quota":50000,"period":100000}}"#, CgroupVersion::V2, &["cpu.max=50000 100000"]);
        check(r#"{"cpu":{"quota":-1}}"#, CgroupVersion::V2, &["cpu.max=max"]);
    }

    #[test]
    fn unknown_files_of_version_two_are_written_and_version_one_has_none() {
        let json = r#"{"unified":{"memory.high":"5","new.file":"x"}}"#;
        check(json, CgroupVersion::V2, &["memory.high=5", "new.file=x"]);
        let resources: OciResources = serde_json::from_str(json).unwrap();
        assert!(writes(&resources, CgroupVersion::V1).is_err());
        let outside: OciResources = serde_json::from_str(r#"{"unified":{"../memory.max":"5"}}"#).unwrap();
        assert!(writes(&outside, CgroupVersion::V2).is_err());
    }
}
