//! The stack's cgroup tree: `<root>/<stack>`, branches `NAME.branch` in it, containers in either, monitors in
//! `.monitors`.

use std::collections::BTreeMap;
use std::os::linux::fs::MetadataExt;
use std::path::PathBuf;

use nix::sys::stat::{major, minor};

use super::LinuxHost;
use crate::model::{IoLimit, Limits};
use crate::plan::{Kind, Label};
use crate::reconcile::actual::{ActualCgroup, ActualRoot, KernelLimits};
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::cgroup::{Cgroup, CgroupLimits, CgroupPath, CpuBandwidth, IoDeviceLimit};

/// A branch's directory ends in this, so that a branch and a container may share a name.
const BRANCH: &str = ".branch";
/// The group of the stack's monitors. Containers' names have no dot.
const MONITORS: &str = ".monitors";
/// Microseconds; the kernel's own default.
const PERIOD: u64 = 100_000;

impl LinuxHost {
    /// The group at `below` in the stack's own; the stack's own where it is empty.
    pub(super) fn cgroup_path(&self, below: &str) -> Result<CgroupPath, HostError> {
        let text = match below {
            "" => format!("{}/{}", self.roots.cgroup, self.stack),
            below => format!("{}/{}/{below}", self.roots.cgroup, self.stack),
        };
        CgroupPath::new(text).doing(|| "name a cgroup")
    }

    pub(super) fn branch_path(&self, name: &str) -> Result<CgroupPath, HostError> {
        self.cgroup_path(&format!("{name}{BRANCH}"))
    }

    /// `cgroup.procs` of the group of monitors. In the first hierarchy alone: it decides whose processes they are, which
    /// is what counts when a session ends; joining more would take longer and limit nothing.
    pub(super) fn monitor_procs(&self) -> Result<Vec<PathBuf>, HostError> {
        let path = self.cgroup_path(MONITORS)?;
        let group = self.open_cgroup(&path)?;
        Ok(group.map(|group| group.procs_files().into_iter().take(1).collect()).unwrap_or_default())
    }

    pub(super) fn open_cgroup(&self, path: &CgroupPath) -> Result<Option<Cgroup>, HostError> {
        Cgroup::open(&self.hierarchies, path).doing(|| format!("open cgroup `{}`", path.as_str()))
    }

    pub(super) fn create_root_cgroup(&self) -> Result<(), HostError> {
        self.create_cgroup(&self.cgroup_path("")?)?;
        self.create_cgroup(&self.cgroup_path(MONITORS)?)?;
        Ok(())
    }

    /// Takes the stack's own group away, and the one of all stacks where it was the last.
    pub(super) fn remove_root_cgroup(&self) -> Result<(), HostError> {
        let doing = || "remove the stack's cgroup";
        self.hierarchies.remove_tree(&self.cgroup_path("")?).doing(doing)?;
        let mut parent = self.cgroup_path("")?.parent();
        while let Some(path) = parent {
            if !self.hierarchies.remove_if_empty(&path).doing(doing)? {
                break;
            }
            parent = path.parent();
        }
        Ok(())
    }

    pub(super) fn create_branch(&self, name: &str, limits: &Limits) -> Result<(), HostError> {
        let group = self.create_cgroup(&self.branch_path(name)?)?;
        self.write_limits(&group, limits)?;
        let digest = crate::plan::digest_of(&name);
        self.label_cgroup(&group, Kind::Cgroup, name, &digest)
    }

    pub(super) fn create_cgroup(&self, path: &CgroupPath) -> Result<Cgroup, HostError> {
        Cgroup::create(&self.hierarchies, path).doing(|| format!("make cgroup `{}`", path.as_str()))
    }

    pub(super) fn write_limits(&self, group: &Cgroup, limits: &Limits) -> Result<(), HostError> {
        group.set_limits(&self.to_kernel(limits)?).doing(|| format!("limit cgroup `{}`", group.path().as_str()))
    }

    pub(super) fn label_cgroup(&self, group: &Cgroup, kind: Kind, name: &str, digest: &str) -> Result<(), HostError> {
        let label = Label { stack: self.stack.clone(), kind, name: name.into(), digest: digest.into() };
        group.set_label(&label.to_string()).doing(|| format!("label cgroup `{}`", group.path().as_str()))
    }

    /// What is in the stack's cgroup: its branches, and the groups of containers, each with where it is below the
    /// stack's own.
    pub(super) fn observe_cgroups(&self) -> Result<FoundCgroups, HostError> {
        let mut found = FoundCgroups::default();
        let path = self.cgroup_path("")?;
        let Some(root) = self.open_cgroup(&path)? else {
            // The group of all stacks goes with the last of them, and is all that can be left then.
            if let Some(parent) = path.parent().map(|path| self.open_cgroup(&path)).transpose()?.flatten()
                && children(&parent)?.is_empty()
            {
                found.root = ActualRoot::Unfinished;
            }
            return Ok(found);
        };
        let monitors = self.open_cgroup(&self.cgroup_path(MONITORS)?)?;
        found.root = match root.is_complete() && monitors.is_some_and(|group| group.is_complete()) {
            true => ActualRoot::Finished,
            false => ActualRoot::Unfinished,
        };
        for child in children(&root)? {
            match child.strip_suffix(BRANCH) {
                Some(branch) => {
                    let Some(group) = self.open_cgroup(&self.branch_path(branch)?)? else { continue };
                    for instance in children(&group)? {
                        found.containers.insert(instance.clone(), format!("{child}/{instance}"));
                    }
                    found.branches.insert(branch.into(), self.observe_branch(&group)?);
                }
                None if child == MONITORS => {}
                None => {
                    found.containers.insert(child.clone(), child);
                }
            }
        }
        Ok(found)
    }

    fn observe_branch(&self, group: &Cgroup) -> Result<ActualCgroup, HostError> {
        let (label, limits) = self.observe_group(group)?;
        // A group that lost a part limits nobody in it.
        Ok(ActualCgroup { labelled: label.is_some() && group.is_complete(), limits })
    }

    pub(super) fn observe_group(&self, group: &Cgroup) -> Result<(Option<Label>, KernelLimits), HostError> {
        let doing = || format!("read cgroup `{}`", group.path().as_str());
        let label = group.label().doing(doing)?.and_then(|text| text.parse().ok());
        let limits = group.limits().doing(doing)?;
        Ok((label, shown(&limits)))
    }

    /// The limits as the kernel will hold them, by the kernel's names.
    pub(super) fn limits_as_held(&self, limits: &Limits) -> KernelLimits {
        match self.to_kernel(limits) {
            Ok(limits) => shown(&limits.as_kernel_would_hold(&self.hierarchies)),
            // A device that is not there is named when the limit is written.
            Err(_) => shown(&self.to_kernel(&Limits { io: vec![], ..limits.clone() }).unwrap_or_default()),
        }
    }

    fn to_kernel(&self, limits: &Limits) -> Result<CgroupLimits, HostError> {
        Ok(CgroupLimits {
            memory_max: limits.memory.map(|size| size.0),
            memory_low: limits.memory_low.map(|size| size.0),
            memory_high: limits.memory_high.map(|size| size.0),
            swap_max: limits.swap.map(|size| size.0),
            cpu: limits
                .cpu
                .map(|cpus| CpuBandwidth { quota_us: u64::from(cpus.millis) * PERIOD / 1000, period_us: PERIOD }),
            cpu_burst_us: limits.cpu_burst_us,
            cpu_weight: limits.cpu_weight.map(u64::from),
            cpuset_cpus: limits.cpuset.clone(),
            cpuset_mems: limits.cpuset_mems.clone(),
            pids_max: limits.pids,
            io: limits.io.iter().map(io_limit).collect::<Result<_, _>>()?,
        })
    }
}

/// What lies in the stack's cgroup.
#[derive(Default)]
pub(super) struct FoundCgroups {
    pub root: ActualRoot,
    pub branches: BTreeMap<String, ActualCgroup>,
    /// By instance: its group, below the stack's own.
    pub containers: BTreeMap<String, String>,
}

fn children(group: &Cgroup) -> Result<Vec<String>, HostError> {
    group.children().doing(|| format!("list cgroup `{}`", group.path().as_str()))
}

fn io_limit(limit: &IoLimit) -> Result<IoDeviceLimit, HostError> {
    let path = &limit.device;
    let device = std::fs::metadata(path).doing(|| format!("read device `{}`", path.display()))?;
    Ok(IoDeviceLimit {
        major: u32::try_from(major(device.st_rdev())).unwrap_or(0),
        minor: u32::try_from(minor(device.st_rdev())).unwrap_or(0),
        rbps: limit.read_bps,
        wbps: limit.write_bps,
        riops: limit.read_iops,
        wiops: limit.write_iops,
    })
}

/// Limits by the names of cgroup v2's files, whatever this host's version calls them.
fn shown(limits: &CgroupLimits) -> KernelLimits {
    let bytes = |value: Option<u64>| value.map_or("max".into(), |n| crate::model::ByteSize(n).to_string());
    let io = limits.io.iter().map(|io| {
        let rate = |value: Option<u64>| value.map_or("max".into(), |n| n.to_string());
        let (rbps, wbps, riops, wiops) = (rate(io.rbps), rate(io.wbps), rate(io.riops), rate(io.wiops));
        format!("{}:{} rbps={rbps} wbps={wbps} riops={riops} wiops={wiops}", io.major, io.minor)
    });
    let io: Vec<String> = io.collect();
    let list = |list: &Option<String>| list.clone().unwrap_or("all".into());
    KernelLimits::from([
        ("memory.max", bytes(limits.memory_max)),
        ("memory.low", limits.memory_low.map_or("0B".into(), |n| crate::model::ByteSize(n).to_string())),
        ("memory.high", bytes(limits.memory_high)),
        ("memory.swap.max", bytes(limits.swap_max)),
        ("cpu.max", limits.cpu.map_or("max".into(), |cpu| format!("{} of {} us", cpu.quota_us, cpu.period_us))),
        ("cpu.max.burst", format!("{} us", limits.cpu_burst_us.unwrap_or(0))),
        ("cpuset.cpus", list(&limits.cpuset_cpus)),
        ("cpuset.mems", list(&limits.cpuset_mems)),
        ("cpu.weight", limits.cpu_weight.unwrap_or(100).to_string()),
        ("pids.max", limits.pids_max.map_or("max".into(), |n| n.to_string())),
        ("io.max", if io.is_empty() { "max".into() } else { io.join(", ") }),
    ])
}
