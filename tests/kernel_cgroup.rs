//! Control groups on the real kernel: each test in a branch of its own in every hierarchy, removed afterwards.
//! Needs root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stack::runtime::cgroup::{
    Cgroup, CgroupError, CgroupLimits, CgroupPath, Controller, CpuBandwidth, Hierarchies, IoDeviceLimit, ProbeRoots,
    Version,
};

/// Longest wait for something that the kernel does at once; the emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);
const MIB: u64 = 1024 * 1024;

/// A branch of the tree, gone when dropped, whatever the test did.
struct Branch {
    hierarchies: Hierarchies,
    path: CgroupPath,
}

impl Branch {
    fn new() -> Self {
        Self::in_hierarchies(Hierarchies::probe(Path::new("/sys/fs/cgroup")).unwrap())
    }

    fn in_hierarchies(hierarchies: Hierarchies) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = CgroupPath::new(format!("stack-test-{}-{number}", std::process::id())).unwrap();
        Self { hierarchies, path }
    }

    fn group(&self, name: &str) -> Cgroup {
        Cgroup::create(&self.hierarchies, &self.path.join(name).unwrap()).unwrap()
    }

    fn version_of(&self, controller: Controller) -> Option<Version> {
        self.hierarchies.of(controller).map(|hierarchy| hierarchy.version)
    }

    /// The directory of the group `name` in the hierarchy of `controller`.
    fn dir(&self, controller: Controller, name: &str) -> PathBuf {
        self.hierarchies.of(controller).unwrap().mount_point.join(&self.path).join(name)
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        if let Ok(Some(group)) = Cgroup::open(&self.hierarchies, &self.path) {
            let _ = group.kill();
        }
        let removed = self.hierarchies.remove_tree(&self.path);
        if !std::thread::panicking() {
            removed.unwrap();
            for hierarchy in self.hierarchies.list() {
                assert!(!hierarchy.mount_point.join(&self.path).exists(), "left behind in {hierarchy:?}");
            }
        }
    }
}

/// A process in a group, killed and reaped when dropped.
struct Process(Child);

impl Process {
    /// Runs `script` in `group`, and only starts it once it is there.
    fn run(group: &Cgroup, script: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("read go; {script}")]).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = shell.spawn().unwrap();
        for file in group.procs_files() {
            std::fs::write(&file, child.id().to_string()).unwrap();
        }
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks until `found` gives something.
fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "no {what} after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Says why a test has nothing to do here.
fn skipped(why: &str) {
    println!("skipped: {why}");
}

/// A disk that can be limited.
fn disk() -> Option<(u32, u32)> {
    let disks = std::fs::read_dir("/sys/block").ok()?;
    let numbers = disks.flatten().filter_map(|disk| std::fs::read_to_string(disk.path().join("dev")).ok());
    // 7 is loop, 1 is ram.
    let parsed = numbers.filter_map(|number| {
        let (major, minor) = number.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    });
    parsed.into_iter().find(|(major, _)| !matches!(major, 1 | 7))
}

fn full_limits(branch: &Branch) -> CgroupLimits {
    let has = |controller| branch.version_of(controller).is_some();
    let memory = has(Controller::Memory);
    let device = disk().filter(|_| has(Controller::Io));
    CgroupLimits {
        memory_max: memory.then_some(64 * MIB + 1),
        memory_low: memory.then_some(16 * MIB + 4095),
        swap_max: (memory && branch.hierarchies.swap_accounting()).then_some(32 * MIB + 17),
        cpu: has(Controller::Cpu).then_some(CpuBandwidth { quota_us: 30_000, period_us: 20_000 }),
        memory_high: (branch.version_of(Controller::Memory) == Some(Version::V2)).then_some(48 * MIB),
        cpu_burst_us: has(Controller::Cpu).then_some(20_000),
        cpuset_cpus: (branch.version_of(Controller::Cpuset) == Some(Version::V2)).then_some("0".into()),
        cpuset_mems: None,
        cpu_weight: has(Controller::Cpu).then_some(333),
        pids_max: has(Controller::Pids).then_some(77),
        io: device
            .map(|(major, minor)| IoDeviceLimit {
                major,
                minor,
                rbps: Some(3 * MIB),
                wiops: Some(500),
                ..IoDeviceLimit::default()
            })
            .into_iter()
            .collect(),
    }
}

#[test]
fn what_is_set_is_what_the_kernel_holds() {
    let branch = Branch::new();
    let group = branch.group("web");
    assert_eq!(group.limits().unwrap(), CgroupLimits::default(), "a fresh group is unlimited");

    let limits = full_limits(&branch);
    group.set_limits(&limits).unwrap();
    let held = group.limits().unwrap();
    assert_eq!(held, limits.as_kernel_would_hold(&branch.hierarchies));
    if limits.memory_max.is_some() {
        assert_eq!(held.memory_max, Some(64 * MIB));
    }

    // Everything raised, lowered, and taken away again, in that order.
    let raised = CgroupLimits {
        memory_max: limits.memory_max.map(|bytes| bytes * 4),
        swap_max: limits.swap_max.map(|bytes| bytes * 4),
        cpu: limits.cpu.map(|_| CpuBandwidth { quota_us: 400_000, period_us: 100_000 }),
        cpu_weight: limits.cpu_weight.map(|_| 10_000),
        pids_max: limits.pids_max.map(|_| 0),
        io: limits.io.iter().map(|limit| IoDeviceLimit { rbps: None, wbps: Some(MIB), ..*limit }).collect(),
        ..limits.clone()
    };
    let no_swap = CgroupLimits { swap_max: limits.swap_max.map(|_| 0), cpu_weight: None, ..limits.clone() };
    // A burst that the lower quota could not hold.
    let lower = CpuBandwidth { quota_us: 10_000, period_us: 20_000 };
    let lower =
        CgroupLimits { cpu: limits.cpu.map(|_| lower), cpu_burst_us: limits.cpu.map(|_| 9_000), ..limits.clone() };
    for wanted in [raised, no_swap, lower, limits, CgroupLimits::default()] {
        group.set_limits(&wanted).unwrap();
        assert_eq!(group.limits().unwrap(), wanted.as_kernel_would_hold(&branch.hierarchies), "after {wanted:?}");
    }
}

#[test]
fn a_value_changed_behind_our_back_is_seen_and_put_right() {
    let branch = Branch::new();
    let group = branch.group("web");
    let Some(version) = branch.version_of(Controller::Memory) else { return skipped("no memory controller") };
    let limits = CgroupLimits { memory_max: Some(64 * MIB), pids_max: Some(9), ..CgroupLimits::default() };
    group.set_limits(&limits).unwrap();
    let file = if version == Version::V1 { "memory.limit_in_bytes" } else { "memory.max" };
    std::fs::write(branch.dir(Controller::Memory, "web").join(file), (128 * MIB).to_string()).unwrap();
    let again = Cgroup::open(&branch.hierarchies, group.path()).unwrap().unwrap();
    assert_eq!(again.limits().unwrap().memory_max, Some(128 * MIB));
    again.set_limits(&limits).unwrap();
    assert_eq!(again.limits().unwrap(), limits);
}

#[test]
fn preparing_joins_moves_nobody() {
    let before = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    Hierarchies::probe(Path::new("/sys/fs/cgroup")).unwrap().prepare_joins().unwrap();
    assert_eq!(std::fs::read_to_string("/proc/self/cgroup").unwrap(), before);
}

#[test]
fn a_label_stays_as_long_as_the_group() {
    let branch = Branch::new();
    let group = branch.group("web");
    assert_eq!(group.label().unwrap(), None);
    let label = "v1 shop cgroup/web 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    group.set_label(label).unwrap();
    let again = Cgroup::open(&branch.hierarchies, group.path()).unwrap().unwrap();
    assert_eq!(again.label().unwrap().as_deref(), Some(label));
    group.set_label("v1 shop cgroup/web short").unwrap();
    assert_eq!(again.label().unwrap().as_deref(), Some("v1 shop cgroup/web short"));
    assert!(matches!(group.set_label(&"x".repeat(2000)), Err(CgroupError::LabelTooLong { .. })));
}

#[test]
fn killing_reaches_every_process_and_removal_waits_for_them() {
    let branch = Branch::new();
    let group = branch.group("web");
    let mut process = Process::run(&group, "sleep 1000 & sleep 1000 & wait");
    wait_for("three processes", || (group.procs().unwrap().len() == 3).then_some(()));
    assert_eq!(group.pids_current().unwrap().unwrap_or(3), 3);
    group.kill().unwrap();
    // Reaped only while removal waits: a process that has ended but was not reaped is no longer in the way.
    group.remove().unwrap();
    assert!(!process.0.wait().unwrap().success());
    assert!(Cgroup::open(&branch.hierarchies, &branch.path.join("web").unwrap()).unwrap().is_none());
}

#[test]
fn a_tree_goes_with_what_containers_made_below() {
    let branch = Branch::new();
    branch.group("backend/web");
    branch.group("backend/db");
    for hierarchy in branch.hierarchies.list() {
        std::fs::create_dir_all(hierarchy.mount_point.join(&branch.path).join("backend/web/inner/most")).unwrap();
    }
    let backend = Cgroup::open(&branch.hierarchies, &branch.path.join("backend").unwrap()).unwrap().unwrap();
    assert_eq!(backend.children().unwrap(), ["db", "web"]);
    assert!(!branch.hierarchies.remove_if_empty(backend.path()).unwrap(), "it has children");
    branch.hierarchies.remove_tree(backend.path()).unwrap();
    branch.hierarchies.remove_tree(backend.path()).unwrap();
    assert!(branch.hierarchies.remove_if_empty(&branch.path).unwrap());
}

#[test]
fn a_group_that_lost_a_part_is_incomplete_until_it_is_made_again() {
    let branch = Branch::new();
    let group = branch.group("web");
    assert!(group.is_complete());
    if branch.hierarchies.is_unified() {
        return skipped("one hierarchy has no parts");
    }
    std::fs::remove_dir(branch.dir(Controller::Memory, "web")).unwrap();
    let part = Cgroup::open(&branch.hierarchies, group.path()).unwrap().unwrap();
    assert!(!part.is_complete());
    assert!(part.limits().is_ok());
    assert!(branch.group("web").is_complete());
}

#[test]
fn an_oom_kill_is_counted_for_the_group() {
    let branch = Branch::new();
    let group = branch.group("hog");
    if branch.version_of(Controller::Memory).is_none() {
        return skipped("no memory controller");
    }
    let swap_max = branch.hierarchies.swap_accounting().then_some(0);
    group.set_limits(&CgroupLimits { memory_max: Some(16 * MIB), swap_max, ..CgroupLimits::default() }).unwrap();
    assert_eq!(group.memory().oom().unwrap().unwrap().kills, 0);
    // `tail` keeps the last line, which never ends.
    let mut hog = Process::run(&group, "exec tail /dev/zero");
    let status = hog.0.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let event = group.memory().oom().unwrap().unwrap();
    assert_eq!((event.kills, &event.group), (1, group.path()));
    // On v1 the limit on memory and swap together is met first, and new kernels do not count that.
    assert!(event.limit_hits > 0 || branch.version_of(Controller::Memory) == Some(Version::V1));
    // From Linux 5.19 on v2.
    if let Some(peak) = group.memory().peak().unwrap() {
        assert!((8 * MIB..=16 * MIB).contains(&peak), "peak {peak}");
    }
}

#[test]
fn memory_in_use_is_counted_by_kind() {
    let branch = Branch::new();
    let group = branch.group("web");
    if branch.version_of(Controller::Memory).is_none() {
        return skipped("no memory controller");
    }
    // The shell keeps 4 MiB in a variable.
    let _process = Process::run(&group, "x=$(head -c 4194304 /dev/zero | tr '\\0' x); sleep 1000");
    wait_for("4 MiB of anonymous memory", || {
        let stat = group.memory().stat().unwrap().unwrap();
        (stat.anon >= 4 * MIB && stat.by_name.len() > 10).then_some(())
    });
    assert!(group.memory().usage().unwrap().unwrap() >= 4 * MIB);
}

#[test]
fn a_quota_throttles_and_is_counted() {
    let branch = Branch::new();
    let group = branch.group("busy");
    if branch.version_of(Controller::Cpu).is_none() {
        return skipped("no cpu controller");
    }
    let cpu = Some(CpuBandwidth { quota_us: 2_000, period_us: 20_000 });
    group.set_limits(&CgroupLimits { cpu, ..CgroupLimits::default() }).unwrap();
    let _process = Process::run(&group, "while :; do :; done");
    let stats = wait_for("throttling", || {
        let stats = group.cpu().bandwidth().unwrap();
        (stats.throttled_periods > 3).then_some(stats)
    });
    assert!(stats.periods >= stats.throttled_periods && stats.throttled > Duration::ZERO, "{stats:?}");
    assert!(group.cpu().usage().unwrap().unwrap() > Duration::from_millis(1));
}

#[test]
fn what_the_host_lacks_is_refused_by_name_before_anything_is_written() {
    // A v2 tree without controllers is what hybrid hosts have beside v1, and what a delegation may look like.
    let folder = tempfile::tempdir().unwrap();
    let Some(v2) = filtered_mountinfo(folder.path(), |line| line.contains(" - cgroup2 ")) else {
        return skipped("no v2 tree");
    };
    let branch = Branch::in_hierarchies(v2);
    if branch.version_of(Controller::Pids).is_some() {
        return skipped("the v2 tree has controllers");
    }
    let group = branch.group("web");
    let error = group.set_limits(&CgroupLimits { pids_max: Some(5), ..CgroupLimits::default() }).unwrap_err();
    let text = format!("the controller `pids`, needed for `pids` of `{}`, is not available on this host", group.path());
    assert_eq!(error.to_string(), text);
    assert_eq!(group.limits().unwrap(), CgroupLimits::default());
}

#[test]
fn v1_alone_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let Some(v1) = filtered_mountinfo(folder.path(), |line| line.contains(" - cgroup ")) else {
        return skipped("no v1 hierarchies");
    };
    let branch = Branch::in_hierarchies(v1);
    assert_eq!(branch.hierarchies.anchor().version, Version::V1);
    let group = branch.group("web/one");
    let limits = full_limits(&branch);
    group.set_limits(&limits).unwrap();
    assert_eq!(group.limits().unwrap(), limits.as_kernel_would_hold(&branch.hierarchies));
    group.set_label("v1 label").unwrap();
    assert_eq!(group.label().unwrap().as_deref(), Some("v1 label"));

    // Killed and removed without cgroup.kill and cgroup.events, from the group above.
    let mut process = Process::run(&group, "sleep 1000 & sleep 1000 & wait");
    wait_for("three processes", || (group.procs().unwrap().len() == 3).then_some(()));
    assert!(group.cpu().usage().unwrap().is_some());
    let above = Cgroup::open(&branch.hierarchies, &branch.path.join("web").unwrap()).unwrap().unwrap();
    assert!(!above.wait_empty(Duration::from_millis(5)).unwrap());
    above.kill().unwrap();
    let reaper = std::thread::spawn(move || process.0.wait());
    branch.hierarchies.remove_tree(above.path()).unwrap();
    assert!(!reaper.join().unwrap().unwrap().success());
}

#[test]
fn swap_needs_memory_beside_it_on_v1_only() {
    let branch = Branch::new();
    let group = branch.group("web");
    let limits = CgroupLimits { swap_max: Some(MIB), ..CgroupLimits::default() };
    match (branch.version_of(Controller::Memory), branch.hierarchies.swap_accounting()) {
        (None, _) => skipped("no memory controller"),
        (_, false) => assert!(matches!(group.set_limits(&limits), Err(CgroupError::NoSwapAccounting { .. }))),
        (Some(Version::V1), true) => {
            assert!(matches!(group.set_limits(&limits), Err(CgroupError::SwapWithoutMemory { .. })));
        }
        (Some(Version::V2), true) => group.set_limits(&limits).unwrap(),
    }
}

#[test]
fn a_child_with_more_processor_than_its_parent_is_told_from_other_failures_on_v1() {
    let branch = Branch::new();
    if branch.version_of(Controller::Cpu).is_none() {
        return skipped("no cpu controller");
    }
    let (parent, child) = (branch.group("backend"), branch.group("backend/web"));
    let cpu =
        |quota_us| CgroupLimits { cpu: Some(CpuBandwidth { quota_us, period_us: 50_000 }), ..CgroupLimits::default() };
    parent.set_limits(&cpu(20_000)).unwrap();
    let result = child.set_limits(&cpu(40_000));
    match branch.version_of(Controller::Cpu) {
        Some(Version::V1) => {
            assert!(matches!(result, Err(CgroupError::CpuAboveParent { .. })), "{result:?}");
            assert_eq!(child.limits().unwrap().cpu, None, "the old limit is put back");
            child.set_limits(&cpu(10_000)).unwrap();
        }
        _ => result.unwrap(),
    }
}

#[test]
fn groups_are_made_while_others_remove_the_parent() {
    let branch = Branch::new();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let branch = &branch;
            scope.spawn(move || {
                for round in 0..25 {
                    let group = branch.group(&format!("shared/w{worker}-{round}"));
                    assert!(group.is_complete());
                    group.remove().unwrap();
                    branch.hierarchies.remove_if_empty(&branch.path.join("shared").unwrap()).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_group_with_processes_of_its_own_can_have_none_below_on_v2() {
    let branch = Branch::new();
    if !branch.hierarchies.is_unified() {
        return skipped("the v2 tree has no controllers here");
    }
    let group = branch.group("web");
    let _process = Process::run(&group, "sleep 1000");
    let inner = branch.path.join("web/inner").unwrap();
    let error = Cgroup::create(&branch.hierarchies, &inner).unwrap_err();
    assert!(matches!(error, CgroupError::InternalProcesses { ref path } if path.ends_with("web")), "{error:?}");
    assert_eq!(group.children().unwrap(), Vec::<String>::new(), "what was made is taken back");
}

/// The hierarchies whose lines of the mount table `keep` lets through; `None` if there are none.
fn filtered_mountinfo(folder: &Path, keep: impl Fn(&str) -> bool) -> Option<Hierarchies> {
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let kept: String = all.lines().filter(|line| keep(line)).map(|line| format!("{line}\n")).collect();
    let mountinfo = folder.join("mountinfo");
    std::fs::write(&mountinfo, kept).unwrap();
    let roots = ProbeRoots { sys_fs_cgroup: "/sys/fs/cgroup".into(), mountinfo };
    Hierarchies::probe_in(&roots).ok()
}
