//! Configurations of others ask for more of Linux than those of ours: joined namespaces, user namespaces, propagation, devices,
//! scheduling. As operations. Pure.

use std::fmt::Write as _;
use std::path::Path;

use crate::runtime::oci::{
    OciDevice, OciDeviceKind, OciIdMapping, OciIoPriorityClass, OciLinuxConfig, OciNamespaceKind, OciPersonalityDomain,
    OciProcess, OciRootfsPropagation,
};
use crate::runtime::sys::{NamespaceFlags, SchedulerAttributes};

use super::compile::{CompileError, below_root, c_path};
use super::compile_mounts::CompiledMounts;
use super::defaults;
use super::detached::{MakerNamespace, MakerNamespaces};
use super::op::{JoinedNamespace, MountSource, NodeAt, NodeType, SetupOp};
use super::perform_detached::MAX_SOURCES;

/// The namespaces with a path that the process joins itself: after its cgroups, and with the host's names until then. The
/// others are joined by its maker.
pub fn namespaces(ops: &mut Vec<SetupOp>, linux: &OciLinuxConfig) -> Result<(), CompileError> {
    let order = [(OciNamespaceKind::Cgroup, NamespaceFlags::CGROUP), (OciNamespaceKind::Mount, NamespaceFlags::MOUNT)];
    let mut joined = Vec::new();
    for (kind, flag) in order {
        if let Some(path) = linux.namespace(kind).and_then(|namespace| namespace.path.as_deref()) {
            joined.push(JoinedNamespace { path: c_path("linux.namespaces", path)?, kind: flag });
        }
    }
    if !joined.is_empty() {
        ops.push(SetupOp::JoinNamespaces(joined));
    }
    Ok(())
}

pub fn maker_namespaces(linux: &OciLinuxConfig) -> MakerNamespaces {
    let path = |kind| linux.namespace(kind).and_then(|namespace| namespace.path.clone());
    let joined = [
        (OciNamespaceKind::Pid, "pid", NamespaceFlags::PID),
        (OciNamespaceKind::Time, "time", NamespaceFlags::TIME),
        (OciNamespaceKind::Network, "net", NamespaceFlags::NETWORK),
        (OciNamespaceKind::Ipc, "ipc", NamespaceFlags::IPC),
        (OciNamespaceKind::Uts, "uts", NamespaceFlags::UTS),
    ];
    let joined = joined.into_iter().filter_map(|(kind, file, flag)| {
        Some(MakerNamespace { path: path(kind)?, own: format!("/proc/self/ns/{file}").into(), kind: flag })
    });
    let new_time = linux.namespace(OciNamespaceKind::Time).is_some_and(|namespace| namespace.path.is_none());
    let offsets = || {
        linux.time_offsets.iter().fold(String::new(), |mut text, (clock, offset)| {
            let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
            text
        })
    };
    MakerNamespaces {
        joined: joined.collect(),
        user: path(OciNamespaceKind::User),
        new_time: new_time.then(offsets),
        id_mapped: Vec::new(),
    }
}

/// One that is the host's is not named here any more.
pub fn has_user_namespace(linux: &OciLinuxConfig) -> bool {
    linux.namespace(OciNamespaceKind::User).is_some()
}

/// The root of the user namespace is nobody to the host: it cannot reach what binds start from.
pub fn become_root(ops: &mut Vec<SetupOp>, mounts: &CompiledMounts) -> Result<(), CompileError> {
    let binds: Vec<_> = mounts
        .ops
        .iter()
        .filter_map(|op| match op {
            SetupOp::Mount(mount) => match &mount.source {
                MountSource::Bind(bind) => bind.prepared.is_none().then(|| bind.clone()),
                MountSource::Filesystem(_) => None,
            },
            _ => None,
        })
        .collect();
    if binds.len() > MAX_SOURCES {
        return Err(CompileError::invalid("mounts", format!("has more than {MAX_SOURCES} binds in a user namespace")));
    }
    ops.extend([SetupOp::OpenSources(binds), SetupOp::BecomeRoot]);
    Ok(())
}

/// As `uid_map` and `gid_map` want them: user_namespaces(7).
pub fn id_map_text(mappings: &[OciIdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, OciIdMapping { container_id, host_id, size }| {
        let _ = writeln!(text, "{container_id} {host_id} {size}");
        text
    })
}

pub fn loopback(ops: &mut Vec<SetupOp>, linux: &OciLinuxConfig) {
    if linux.namespace(OciNamespaceKind::Network).is_some_and(|namespace| namespace.path.is_none()) {
        ops.push(SetupOp::LoopbackUp);
    }
}

fn flag_of(propagation: OciRootfsPropagation) -> (u64, i32) {
    match propagation {
        OciRootfsPropagation::Shared => (libc::MS_SHARED, 0),
        OciRootfsPropagation::Slave => (libc::MS_SLAVE, 0),
        OciRootfsPropagation::Private => (libc::MS_PRIVATE, 0),
        OciRootfsPropagation::Unbindable => (libc::MS_UNBINDABLE, 0),
        OciRootfsPropagation::Rshared => (libc::MS_SHARED, libc::AT_RECURSIVE),
        OciRootfsPropagation::Rslave => (libc::MS_SLAVE, libc::AT_RECURSIVE),
        OciRootfsPropagation::Rprivate => (libc::MS_PRIVATE, libc::AT_RECURSIVE),
        OciRootfsPropagation::Runbindable => (libc::MS_UNBINDABLE, libc::AT_RECURSIVE),
    }
}

/// Mounts that want to hear of the host's, or be heard there, must be copies of ones that still do.
pub fn propagation(ops: &mut Vec<SetupOp>, linux: &OciLinuxConfig, mounts: &CompiledMounts) {
    let root = linux.rootfs_propagation.map(flag_of).map_or(0, |(flag, _)| flag);
    let binds = mounts.ops.iter().filter_map(|op| match op {
        SetupOp::Mount(mount) => match &mount.source {
            MountSource::Bind(bind) => Some(bind),
            MountSource::Filesystem(_) => None,
        },
        _ => None,
    });
    let wanted = |flag| binds.clone().flat_map(|bind| &bind.propagation).any(|(one, _)| *one == flag);
    let flag = if root == libc::MS_SHARED {
        // As they are: those that are shared on the host stay so.
        return ops.push(SetupOp::Propagate { flag: libc::MS_SHARED });
    } else if root == libc::MS_SLAVE || wanted(libc::MS_SLAVE) || wanted(libc::MS_SHARED) {
        libc::MS_SLAVE
    } else {
        libc::MS_PRIVATE
    };
    ops.push(SetupOp::Propagate { flag });
}

pub fn root_propagation(ops: &mut Vec<SetupOp>, linux: &OciLinuxConfig) {
    if let Some((flag, depth)) = linux.rootfs_propagation.map(flag_of)
        && flag != libc::MS_PRIVATE
    {
        ops.push(SetupOp::PropagateRoot { flag, depth });
    }
}

/// Those beyond the ones that every container has.
pub fn devices(ops: &mut Vec<SetupOp>, linux: &OciLinuxConfig, in_user_namespace: bool) -> Result<(), CompileError> {
    for (index, device) in linux.devices.iter().enumerate().filter(|(_, device)| !is_default(device)) {
        let place = format!("linux.devices[{index}]");
        let path = below_root(&place, &device.path)?;
        let path = Path::new(path.to_str().unwrap_or_default());
        let number = |number: Option<i64>| {
            u32::try_from(number.unwrap_or(0)).map_err(|_| CompileError::invalid(&place, "has a number out of range"))
        };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let kind = match device.kind {
            OciDeviceKind::Block => NodeType::Block,
            OciDeviceKind::Character => NodeType::Character,
            OciDeviceKind::Fifo => NodeType::Fifo,
        };
        let bound = in_user_namespace && kind != NodeType::Fifo;
        ops.push(SetupOp::MakeNode(Box::new(NodeAt {
            directory: directory.map(|path| c_path(&place, path)).transpose()?,
            name: c_path(&place, path.file_name().unwrap_or_default().as_ref())?,
            kind,
            major: number(device.major)?,
            minor: number(device.minor)?,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
            host_path: bound.then(|| c_path(&place, device.path.as_ref())).transpose()?,
        })));
    }
    Ok(())
}

/// Whether every container has it.
pub fn is_default(device: &OciDevice) -> bool {
    // The multiplexer is a link to the container's own.
    if device.path == "/dev/ptmx" {
        return true;
    }
    defaults::DEVICES.iter().any(|known| {
        device.path.strip_prefix("/dev/") == Some(known.name)
            && device.major == Some(known.major.into())
            && device.minor == Some(known.minor.into())
    })
}

/// Before privileges go: some of these take one.
pub fn scheduling(ops: &mut Vec<SetupOp>, process: &OciProcess, linux: &OciLinuxConfig) -> Result<(), CompileError> {
    process_scheduling(ops, process)?;
    if let Some(personality) = &linux.personality {
        const PER_LINUX32: u64 = 8;
        if let Some(flag) = personality.flags.first() {
            // The specification has none so far.
            return Err(CompileError::invalid("linux.personality.flags[0]", format!("is `{flag}`, which is unknown")));
        }
        let domain = if personality.domain == OciPersonalityDomain::Linux32 { PER_LINUX32 } else { 0 };
        ops.push(SetupOp::SetPersonality { domain });
    }
    if let Some(policy) = &linux.memory_policy {
        let mode = memory_mode(&policy.mode)
            .ok_or_else(|| CompileError::invalid("linux.memoryPolicy.mode", format!("is `{}`", policy.mode)))?;
        let flags = policy.flags.iter().try_fold(0, |all, flag| {
            let bit = match flag.as_str() {
                "MPOL_F_STATIC_NODES" => 1 << 15,
                "MPOL_F_RELATIVE_NODES" => 1 << 14,
                "MPOL_F_NUMA_BALANCING" => 1 << 13,
                _ => return Err(CompileError::invalid("linux.memoryPolicy.flags", format!("names `{flag}`"))),
            };
            Ok(all | bit)
        })?;
        let nodes = number_list("linux.memoryPolicy.nodes", &policy.nodes)?;
        ops.push(SetupOp::SetMemoryPolicy { mode: mode | flags, nodes });
    }
    Ok(())
}

/// What a process may ask for, the container's first or a later one.
pub fn process_scheduling(ops: &mut Vec<SetupOp>, process: &OciProcess) -> Result<(), CompileError> {
    if let Some(priority) = &process.io_priority {
        if !(0..=7).contains(&priority.priority) {
            return Err(CompileError::invalid("process.ioPriority.priority", "is outside of 0 to 7"));
        }
        let class = match priority.class {
            OciIoPriorityClass::RealTime => 1,
            OciIoPriorityClass::BestEffort => 2,
            OciIoPriorityClass::Idle => 3,
        };
        ops.push(SetupOp::SetIoPriority { class, level: priority.priority as u32 });
    }
    if let Some(scheduler) = &process.scheduler {
        const POLICIES: [(&str, u32); 7] = [
            ("SCHED_OTHER", 0),
            ("SCHED_FIFO", 1),
            ("SCHED_RR", 2),
            ("SCHED_BATCH", 3),
            ("SCHED_ISO", 4),
            ("SCHED_IDLE", 5),
            ("SCHED_DEADLINE", 6),
        ];
        const FLAGS: [(&str, u64); 7] = [
            ("SCHED_FLAG_RESET_ON_FORK", 0x01),
            ("SCHED_FLAG_RECLAIM", 0x02),
            ("SCHED_FLAG_DL_OVERRUN", 0x04),
            ("SCHED_FLAG_KEEP_POLICY", 0x08),
            ("SCHED_FLAG_KEEP_PARAMS", 0x10),
            ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
            ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
        ];
        let named =
            |what: &str, name: &str| CompileError::invalid(format!("process.scheduler.{what}"), format!("is `{name}`"));
        let policy = POLICIES.iter().find(|(name, _)| *name == scheduler.policy);
        let flags = scheduler.flags.iter().try_fold(0, |all, flag| {
            let found = FLAGS.iter().find(|(name, _)| name == flag);
            found.map(|(_, bit)| all | bit).ok_or_else(|| named("flags", flag))
        })?;
        ops.push(SetupOp::SetScheduler(SchedulerAttributes {
            size: 0,
            policy: policy.ok_or_else(|| named("policy", &scheduler.policy))?.1,
            flags,
            nice: scheduler.nice.unwrap_or(0),
            priority: u32::try_from(scheduler.priority.unwrap_or(0)).map_err(|_| named("priority", "negative"))?,
            runtime: scheduler.runtime.unwrap_or(0),
            deadline: scheduler.deadline.unwrap_or(0),
            period: scheduler.period.unwrap_or(0),
        }));
    }
    Ok(())
}

fn memory_mode(name: &str) -> Option<i32> {
    const MODES: [&str; 7] = [
        "MPOL_DEFAULT",
        "MPOL_PREFERRED",
        "MPOL_BIND",
        "MPOL_INTERLEAVE",
        "MPOL_LOCAL",
        "MPOL_PREFERRED_MANY",
        "MPOL_WEIGHTED_INTERLEAVE",
    ];
    MODES.iter().position(|known| *known == name).map(|index| index as i32)
}

/// The kernel has no more processors, nor nodes.
pub const MOST_PROCESSORS: usize = 8192;

/// A list such as `0-3,7` as bits.
pub fn number_list(path: &str, text: &str) -> Result<Vec<u64>, CompileError> {
    let mut bits: Vec<u64> = Vec::new();
    let wrong = || CompileError::invalid(path, format!("is `{text}`, which is no list such as `0-3,7`"));
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number =
            |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < MOST_PROCESSORS).ok_or_else(wrong);
        for number in number(first)?..=number(last)? {
            let word = number / 64;
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            if let Some(word) = bits.get_mut(word) {
                *word |= 1 << (number % 64);
            }
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_bits() {
        assert_eq!(number_list("x", "0-3,7").unwrap(), [0b1000_1111]);
        assert_eq!(number_list("x", "64").unwrap(), [0, 1]);
        assert_eq!(number_list("x", "").unwrap(), [0_u64; 0]);
        for wrong in ["a", "1-", "-1", "9999999"] {
            assert!(number_list("x", wrong).is_err(), "{wrong}");
        }
    }
}
