//! The runtime core, a library of its own that knows no stacks: images, layers, cgroups, links, NAT, seccomp,
//! containers. It uses nothing of the house but itself.

pub mod cgroup;
pub mod container;
pub mod image;
mod kernel_log;
pub mod lifecycle;
pub mod net;
pub mod oci;
pub mod overlay;
pub mod seccomp;
pub mod sys;
