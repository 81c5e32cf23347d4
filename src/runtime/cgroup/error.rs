//! What can fail with control groups, each with the group or file and the value it was about.

use std::path::PathBuf;

use super::{CgroupPath, Controller};

/// Why something about control groups failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write `{value}` to `{}`", path.display())]
    Write { path: PathBuf, value: String, source: std::io::Error },
    #[error("`{}` is longer than the {limit} bytes that are read", path.display())]
    TooLong { path: PathBuf, limit: usize },
    #[error("`{}` holds `{text}`, which is not what the kernel documents", path.display())]
    Malformed { path: PathBuf, text: String },
    #[error("no control groups are mounted at or below `{}`", root.display())]
    NotMounted { root: PathBuf },
    #[error("cannot make the group `{}`", path.display())]
    Create { path: PathBuf, source: std::io::Error },
    #[error("cannot remove the group `{}`", path.display())]
    Remove { path: PathBuf, source: std::io::Error },
    #[error("the controller `{controller}`, needed for `{limit}` of `{group}`, is not available on this host")]
    MissingController { controller: Controller, limit: &'static str, group: CgroupPath },
    #[error("cannot pass the controllers `{controllers}` on to the groups below `{}`", path.display())]
    Enable { path: PathBuf, controllers: String, source: std::io::Error },
    /// On v2 a group with controllers for its children may hold no processes itself (`cgroups(7)`, "no internal
    /// processes"). Also met where the mounted root is no real root, as inside a container.
    #[error("`{}` holds processes itself, so that no groups with limits can be made below it", path.display())]
    InternalProcesses { path: PathBuf },
    #[error("this kernel keeps no account of swap for groups, so that `swap` of `{group}` cannot be limited")]
    NoSwapAccounting { group: CgroupPath },
    /// v1 only limits the sum of memory and swap.
    #[error("`swap` of `{group}` needs a limit on memory beside it: cgroup v1 limits only the sum of both")]
    SwapWithoutMemory { group: CgroupPath },
    #[error("`{limit}` of `{group}` is {value}; it must lie between {low} and {high}")]
    OutOfRange { limit: &'static str, group: CgroupPath, value: u64, low: u64, high: u64 },
    /// v1 refuses what v2 would just not grant: a child with more processor time than its parent.
    #[error(
        "the processor time of `{group}` clashes with its parent's or its children's: on cgroup v1 no group may have more than the one above it"
    )]
    CpuAboveParent { group: CgroupPath, source: std::io::Error },
    /// What was below the limit was reclaimed and is not brought back; nothing was killed.
    #[error(
        "`{group}` uses {usage} bytes of memory, and could not give back enough for a limit of {limit} bytes; the old limit stays"
    )]
    MemoryInUse { group: CgroupPath, limit: u64, usage: u64 },
    /// cgroup v1 has nothing of the kind.
    #[error("`{limit}` of `{group}` needs cgroup v2; this host limits {controller} by v1")]
    NeedsV2 { limit: &'static str, group: CgroupPath, controller: Controller },
    #[error("`{group}` still holds processes after {waited_ms} ms: {pids:?}")]
    StillPopulated { group: CgroupPath, waited_ms: u64, pids: Vec<u32> },
    #[error("the label `{label}` of `{group}` is longer than {limit} bytes")]
    LabelTooLong { group: CgroupPath, label: String, limit: usize },
    #[error("cannot set the label of `{group}`")]
    Label { group: CgroupPath, source: std::io::Error },
    #[error("cannot send SIGKILL to process {pid} of `{group}`")]
    Kill { group: CgroupPath, pid: u32, source: std::io::Error },
    #[error("the groups below `{group}` are nested deeper than {limit} levels")]
    TooDeep { group: CgroupPath, limit: usize },
}
