//! The operations between `clone` and `exec`, as data: each holds all the memory that it will need. Doing them is
//! `perform`'s, deciding on them `compile`'s.

use std::ffi::CString;
use std::fmt;

use crate::runtime::seccomp::{self, LinuxSeccomp, SeccompError};
use crate::runtime::sys::{CapabilityBits, Errno, ExecStrings, SchedulerAttributes, SeccompFilterFlags, SockFilter};

use super::hook::HookProgram;
pub use super::op_mount::{
    Bind, Contents, Filesystem, IdMap, IdMappedBind, KeptMount, MountOp, MountSource, OverlayRoot, Remount, TargetKind,
};

/// One thing that a container's process does before it becomes the program, in order.
#[derive(Debug)]
pub enum SetupOp {
    /// The kernel kills the process when its parent thread dies.
    DieWithParent,
    NotDumpable,
    NewSession,
    NewKeyring,
    /// Join by writing `0` to a `cgroup.procs`.
    JoinCgroup {
        procs: CString,
    },
    /// After the cgroups are joined: they become the roots that the container sees.
    NewCgroupNamespace,
    AdjustOomScore {
        value: CString,
    },
    SetHostname {
        name: String,
    },
    SetDomainname {
        name: String,
    },
    /// Nothing that is mounted from here on reaches the host, or comes from it.
    MakeMountsPrivate,
    /// A detached copy of the directory's mount becomes the root to be.
    RootFromDirectory {
        path: CString,
    },
    /// The same with the devices that are in it.
    RootFromTree {
        path: CString,
    },
    RootFromOverlay(OverlayRoot),
    /// Attach the root to be, over the host's root, where path look-ups by the host's names do not see it.
    AttachRoot,
    Mount(Box<MountOp>),
    Remount(Box<Remount>),
    /// Open `/dev` of the root to be, made if it is not there.
    OpenDev,
    MakeDevice(DeviceNode),
    /// Where `/dev` is not a filesystem of ours: the host's device, mounted on a file.
    BindDevice(DeviceNode),
    LinkInDev {
        name: CString,
        target: CString,
    },
    /// A procfs that is mounted nowhere, for containers whose own has none.
    OpenPrivateProc,
    WriteSysctl {
        /// Below procfs, such as `sys/net/core/somaxconn`.
        path: CString,
        value: String,
    },
    /// The working directory, if it is not there. A root that cannot be written to is left as it is.
    MakeDirectory {
        path: CString,
    },
    /// Absent paths are skipped.
    MakeReadOnly {
        path: CString,
    },
    /// The mount that is at this path, and none below it.
    SealMount {
        path: CString,
    },
    /// Absent paths are skipped.
    Mask {
        path: CString,
    },
    MakeRootReadOnly,
    /// How mounts made elsewhere and here reach each other: for the host's mounts, seen from the new mount namespace.
    Propagate {
        flag: u64,
    },
    /// The same for the root, once it is the root.
    PropagateRoot {
        flag: u64,
        depth: i32,
    },
    /// All are opened before the first is entered: afterwards they may be out of reach.
    JoinNamespaces(Vec<JoinedNamespace>),
    /// In a new user namespace: its root, once its ids are mapped.
    BecomeRoot,
    /// The sources of all binds, as long as the process is who the host knows.
    OpenSources(Vec<Bind>),
    LoopbackUp,
    MakeNode(Box<NodeAt>),
    RunHook(HookProgram),
    EnterRoot,
    Pivot,
    SetPersonality {
        domain: u64,
    },
    SetScheduler(SchedulerAttributes),
    SetIoPriority {
        class: u32,
        level: u32,
    },
    SetMemoryPolicy {
        mode: i32,
        nodes: Vec<u64>,
    },
    SetAffinity {
        processors: Vec<u64>,
    },
    /// Whether the program is there at all, told at creation and not at the start.
    FindProgram {
        candidates: Vec<CString>,
        name: String,
    },
    /// For the next exec: AppArmor's profile.
    WriteLabel {
        path: CString,
        value: String,
    },
    LimitResource(ResourceLimit),
    NoNewPrivileges,
    InstallSeccomp(SeccompProgram),
    /// Keep only these in the bounding set.
    BoundCapabilities {
        keep: CapabilityBits,
        last: u32,
    },
    SetUser(Credentials),
    SetCapabilities(CapabilitySets),
    SetUmask {
        mask: u32,
    },
    EnterDirectory {
        path: CString,
    },
    TakeTerminal,
    CloseOnExec,
    /// As `CloseOnExec`, for programs that get more than the standard three.
    CloseOnExecFrom {
        first: u32,
    },
    Execute(Execution),
}

#[derive(Debug)]
pub struct JoinedNamespace {
    pub path: CString,
    /// `CLONE_NEW*`, which the file must be of.
    pub kind: u64,
}

/// A device or a fifo anywhere in the container.
#[derive(Debug)]
pub struct NodeAt {
    /// Below the root to be.
    pub directory: Option<CString>,
    pub name: CString,
    pub kind: NodeType,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Where nodes cannot be made: the host's, to be mounted.
    pub host_path: Option<CString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeType {
    Block,
    Character,
    Fifo,
}

#[derive(Debug)]
pub struct DeviceNode {
    pub name: CString,
    /// On the host.
    pub host_path: CString,
    pub major: u32,
    pub minor: u32,
}

#[derive(Clone, Debug)]
pub struct ResourceLimit {
    /// As the configuration names it.
    pub name: String,
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// A compiled seccomp filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeccompProgram {
    pub filter: Vec<SockFilter>,
    pub flags: SeccompFilterFlags,
}

impl SeccompProgram {
    /// Compiles a configuration's section.
    pub fn compile(section: &LinuxSeccomp) -> Result<Self, SeccompError> {
        let filter = seccomp::compile(section)?.filter;
        Ok(Self { filter: filter.instructions, flags: SeccompFilterFlags(filter.flags.0) })
    }

    /// Whether calls are put before an agent.
    pub fn notifies(&self) -> bool {
        self.flags.0 & seccomp::SeccompFlags::NEW_LISTENER != 0
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What the process asks to hold; it gets what of it the caller holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    pub effective: CapabilityBits,
    pub permitted: CapabilityBits,
    pub inheritable: CapabilityBits,
    pub ambient: CapabilityBits,
}

#[derive(Debug)]
pub struct Execution {
    /// Tried in order.
    pub candidates: Vec<CString>,
    pub arguments: ExecStrings,
    pub environment: ExecStrings,
    /// For messages.
    pub name: String,
}

impl fmt::Display for SetupOp {
    /// What the operation does, so that `: permission denied` can follow.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &CString| path.to_string_lossy().into_owned();
        match self {
            Self::DieWithParent => write!(formatter, "tie the process to its parent"),
            Self::NotDumpable => write!(formatter, "hide the process from debuggers"),
            Self::NewSession => write!(formatter, "start a session"),
            Self::NewKeyring => write!(formatter, "start a session keyring"),
            Self::JoinCgroup { procs } => write!(formatter, "join the cgroup by `{}`", path(procs)),
            Self::NewCgroupNamespace => write!(formatter, "make a cgroup namespace"),
            Self::AdjustOomScore { value } => write!(formatter, "set the OOM score to {}", path(value)),
            Self::SetHostname { name } => write!(formatter, "set the host name `{name}`"),
            Self::SetDomainname { name } => write!(formatter, "set the domain name `{name}`"),
            Self::MakeMountsPrivate => write!(formatter, "make the mounts private"),
            Self::RootFromDirectory { path: directory } | Self::RootFromTree { path: directory } => {
                write!(formatter, "take `{}` as root", path(directory))
            }
            Self::RootFromOverlay(overlay) => {
                write!(formatter, "mount the layers of the root over `{}`", path(&overlay.upper))
            }
            Self::AttachRoot => write!(formatter, "attach the root"),
            Self::Mount(mount) => {
                let source = match &mount.source {
                    MountSource::Filesystem(filesystem) => path(&filesystem.kind),
                    MountSource::Bind(bind) => format!("`{}`", path(&bind.path)),
                };
                write!(formatter, "mount {source} on `/{}`", path(&mount.target))
            }
            Self::Remount(mount) => write!(formatter, "change the mount at `/{}`", path(&mount.target)),
            Self::OpenDev => write!(formatter, "open `/dev`"),
            Self::MakeDevice(node) | Self::BindDevice(node) => write!(formatter, "make `/dev/{}`", path(&node.name)),
            Self::LinkInDev { name, .. } => write!(formatter, "link `/dev/{}`", path(name)),
            Self::OpenPrivateProc => write!(formatter, "make a private procfs"),
            Self::WriteSysctl { path: name, value } => write!(formatter, "write `{value}` to `/proc/{}`", path(name)),
            Self::MakeDirectory { path: name } => write!(formatter, "make the directory `/{}`", path(name)),
            Self::MakeReadOnly { path: name } | Self::SealMount { path: name } => {
                write!(formatter, "make `/{}` read-only", path(name))
            }
            Self::Mask { path: name } => write!(formatter, "mask `/{}`", path(name)),
            Self::MakeRootReadOnly => write!(formatter, "make the root read-only"),
            Self::Propagate { .. } => write!(formatter, "set the propagation of the mounts"),
            Self::PropagateRoot { .. } => write!(formatter, "set the propagation of the root"),
            Self::JoinNamespaces(list) => {
                write!(formatter, "join the namespaces")?;
                list.iter().try_for_each(|namespace| write!(formatter, " `{}`", path(&namespace.path)))
            }
            Self::BecomeRoot => write!(formatter, "become root of the user namespace"),
            Self::OpenSources(_) => write!(formatter, "open the sources of the mounts"),
            Self::LoopbackUp => write!(formatter, "bring the loopback interface up"),
            Self::MakeNode(node) => write!(formatter, "make the device `{}`", path(&node.name)),
            Self::RunHook(hook) => write!(formatter, "run the hook `{}`", hook.name()),
            Self::EnterRoot => write!(formatter, "enter the root"),
            Self::FindProgram { name, .. } => write!(formatter, "execute `{name}`"),
            Self::SetPersonality { .. } => write!(formatter, "set the personality"),
            Self::SetScheduler(_) => write!(formatter, "set the scheduler"),
            Self::SetIoPriority { .. } => write!(formatter, "set the I/O priority"),
            Self::SetMemoryPolicy { .. } => write!(formatter, "set the memory policy"),
            Self::SetAffinity { .. } => write!(formatter, "bind the process to processors"),
            Self::WriteLabel { value, .. } => write!(formatter, "set the security label `{value}`"),
            Self::CloseOnExecFrom { .. } => write!(formatter, "close the descriptors"),
            Self::Pivot => write!(formatter, "change the root"),
            Self::LimitResource(limit) => {
                write!(formatter, "set {} to {} (hard {})", limit.name, Limit(limit.soft), Limit(limit.hard))
            }
            Self::NoNewPrivileges => write!(formatter, "forbid new privileges"),
            Self::InstallSeccomp(program) => {
                write!(formatter, "install the seccomp filter of {} instructions", program.filter.len())
            }
            Self::BoundCapabilities { .. } => write!(formatter, "bound the capabilities"),
            Self::SetUser(user) => write!(formatter, "become user {} of group {}", user.uid, user.gid),
            Self::SetCapabilities(_) => write!(formatter, "set the capabilities"),
            Self::SetUmask { mask } => write!(formatter, "set the umask {mask:03o}"),
            Self::EnterDirectory { path: directory } => write!(formatter, "enter the directory `{}`", path(directory)),
            Self::TakeTerminal => write!(formatter, "take the terminal"),
            Self::CloseOnExec => write!(formatter, "close the descriptors"),
            Self::Execute(execution) => write!(formatter, "execute `{}`", execution.name),
        }
    }
}

struct Limit(u64);

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == u64::MAX { write!(formatter, "unlimited") } else { write!(formatter, "{}", self.0) }
    }
}

/// Where inside an operation it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    Whole = 0,
    Source = 1,
    Target = 2,
    Attach = 3,
    /// What was asked for is not what is there.
    Verify = 4,
    /// The target lies in a procfs.
    TargetInProc = 5,
}

impl Part {
    pub fn from_byte(byte: u8) -> Self {
        [Self::Whole, Self::Source, Self::Target, Self::Attach, Self::Verify, Self::TargetInProc]
            .into_iter()
            .find(|part| *part as u8 == byte)
            .unwrap_or(Self::Whole)
    }

    /// To put between the operation and the error; empty if there is nothing to add.
    pub fn words(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Source => ": its source",
            Self::Target => ": its target",
            Self::Attach => ": attaching it",
            Self::Verify => ": it is not what it should be",
            Self::TargetInProc => ": its target lies in a procfs",
        }
    }
}

/// Why an operation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub part: Part,
    pub errno: Errno,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self { part: Part::Whole, errno }
    }
}

/// Where set-up stopped: a few bytes on a pipe, put into words by the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    pub op: u16,
    pub fault: Fault,
}

impl Stopped {
    pub const SIZE: usize = 8;

    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let [low, high] = self.op.to_le_bytes();
        let [a, b, c, d] = self.fault.errno.raw_os_error().to_le_bytes();
        [low, high, self.fault.part as u8, 0, a, b, c, d]
    }

    pub fn from_bytes([low, high, part, _, a, b, c, d]: [u8; Self::SIZE]) -> Self {
        Self {
            op: u16::from_le_bytes([low, high]),
            fault: Fault {
                part: Part::from_byte(part),
                errno: Errno::from_raw_os_error(i32::from_le_bytes([a, b, c, d])),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_survives_the_pipe() {
        let stopped = Stopped { op: 517, fault: Fault { part: Part::Verify, errno: Errno::XDEV } };
        assert_eq!(Stopped::from_bytes(stopped.to_bytes()), stopped);
    }
}
