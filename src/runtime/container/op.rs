//! The operations between `clone` and `exec`, as data: each holds all the memory that it will need. Doing them is
//! `perform`'s, deciding on them `compile`'s.

use std::ffi::CString;
use std::fmt;

use crate::runtime::seccomp::{self, LinuxSeccomp, SeccompError};
use crate::runtime::sys::{CapabilityBits, Errno, ExecStrings, MountAttributes, SeccompFilterFlags, SockFilter};

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
    RootFromOverlay(OverlayRoot),
    /// Attach the root to be, over the host's root, where path look-ups by the host's names do not see it.
    AttachRoot,
    Mount(Box<MountOp>),
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
    Pivot,
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
    Execute(Execution),
}

/// An overlay as fsconfig wants it.
#[derive(Debug)]
pub struct OverlayRoot {
    /// The topmost first.
    pub lower: Vec<CString>,
    pub upper: CString,
    pub work: CString,
}

#[derive(Debug)]
pub struct MountOp {
    pub source: MountSource,
    /// Below the root to be, without a slash in front.
    pub target: CString,
    pub target_kind: TargetKind,
    /// The root of this mount is needed later on.
    pub keep: KeptMount,
}

#[derive(Debug)]
pub enum MountSource {
    Filesystem(Filesystem),
    Bind(Bind),
}

#[derive(Debug)]
pub struct Filesystem {
    pub kind: CString,
    /// `None`: a flag.
    pub parameters: Vec<(CString, Option<CString>)>,
    /// `MOUNT_ATTR_*`.
    pub attributes: u32,
}

#[derive(Debug)]
pub struct Bind {
    /// A path of the host.
    pub path: CString,
    /// `AT_RECURSIVE`, or 0.
    pub depth: i32,
    pub attributes: MountAttributes,
    pub recursive: MountAttributes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    Directory,
    /// No symbolic link on the way to it, and looked up again after the mount: for procfs and sysfs, which everything
    /// that protects the host builds on.
    RealDirectory,
    /// A file or a directory, as the source is.
    LikeSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptMount {
    No,
    Proc,
    Dev,
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
            Self::RootFromDirectory { path: directory } => write!(formatter, "take `{}` as root", path(directory)),
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
