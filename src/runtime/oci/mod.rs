//! The documents of the OCI runtime specification, version 1.3, for Linux: `config.json`, its checks, and the life of a container.
//!
//! Properties that the specification does not name are ignored, as it demands; values that it does not allow are refused
//! with their JSON path. The types hold every field of the specification. What is done about a field, and which ones are
//! not supported yet, is the container room's: it refuses what it cannot do and ignores nothing.

mod config;
mod lifecycle;
mod linux;
mod process;
mod resources;
mod seccomp;
mod validate;

pub use config::{OciConfig, OciHook, OciHooks, OciMount, OciRoot};
pub use lifecycle::{OciContainer, OciContainerProcessState, OciLifecycleState, OciOperation};
pub use linux::{
    OciDevice, OciDeviceKind, OciIdMapping, OciIntelRdt, OciLinuxConfig, OciMemoryPolicy, OciNamespace,
    OciNamespaceKind, OciNetDevice, OciPersonality, OciPersonalityDomain, OciRootfsPropagation, OciTimeOffset,
};
pub use process::{
    OciCapabilities, OciConsoleSize, OciCpuAffinity, OciIoPriority, OciIoPriorityClass, OciProcess, OciRlimit,
    OciScheduler, OciUser,
};
pub use resources::{
    OciBlockIo, OciCpu, OciDeviceRule, OciHugepageLimit, OciInterfacePriority, OciMemory, OciNetwork, OciPids, OciRdma,
    OciResources, OciThrottleDevice, OciWeightDevice,
};
pub use seccomp::{LinuxSeccomp, SeccompArgument, SeccompOperator, SeccompSyscall};
pub use validate::OciError;

/// The version of the specification that is implemented.
pub const OCI_VERSION: &str = "1.3.0";
