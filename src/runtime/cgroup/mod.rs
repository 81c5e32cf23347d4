//! Control groups: where they are mounted, limits, labels, counters, killing and removal; v2 and v1 behind one
//! interface.
//!
//! Reading order: [`Hierarchies`] finds out once which controller is mounted where; [`CgroupPath`] names a group in
//! all of them; [`Cgroup`] is such a group, open; [`CgroupLimits`] is what it may use. The counters are read through
//! [`CgroupMemoryController`] and [`CgroupCpuController`].
//!
//! Three kinds of hosts are served: *pure v2* (one hierarchy), *hybrid* (controllers on v1 beside a v2 tree without
//! controllers) and *v1 only*. One hierarchy is the **anchor**: v2 wherever it is mounted, else the first of v1. A group
//! exists if its directory exists there; its label and `cgroup.kill` are there. The anchor's directory is made first and
//! removed last, so that a group whose making was interrupted is always found again.
//!
//! What processes a group is for, how groups nest and when they go is the caller's business.

mod cpu;
mod error;
mod files;
mod group;
mod hierarchy;
mod io;
mod limits;
mod memory;
mod oom;
mod path;
mod pressure;
mod removal;
mod v1;
mod v2;

pub use cpu::{
    CPU_PERIOD_DEFAULT_US, CgroupCpuController, CpuBandwidth, CpuBandwidthStats, WEIGHT_DEFAULT, kernel_shares,
    shares_from_weight, weight_from_kernel_shares, weight_from_shares,
};
pub use error::CgroupError;
pub use group::Cgroup;
pub use hierarchy::{Controller, Hierarchies, Hierarchy, ProbeRoots, Version};
pub use io::IoDeviceLimit;
pub use limits::CgroupLimits;
pub use memory::{CgroupMemoryController, MemoryStat, OomEvent};
pub use oom::{OomKill, OomWatch, logged_kills};
pub use path::{CgroupPath, CgroupPathError};
pub use pressure::{Pressure, Resource, Stall};
