//! The nouns of a stack: what a checked stack file says, with no spelling left to judge. No I/O.

pub mod build;
mod container;
mod cpulist;
mod name;
mod port;
mod reference;
mod stack;
mod unit;

pub use build::Build;
pub use container::{
    Condition, ConfigFile, Container, Health, HealthAction, ImageUse, Limits, LogLimits, MountSource, MountUse,
    OnChange, Probe, Restart, Run, Seccomp, Secret, Ulimit, UserSpec, VolumeUse, WatchAction, WatchRule,
};
pub use cpulist::{CpuList, CpuListError};
pub use name::{Name, NameError};
pub use port::{PortBind, PortMap, Protocol};
pub use reference::ImageReference;
pub use stack::{
    Bridge, CgroupBranch, IPV6_MIN_MTU, Image, ImageSource, IoLimit, Line, Origins, Place, Pull, Stack, Volume,
};
pub use unit::{ByteSize, Cpus, UnitError, parse_age, parse_duration};
