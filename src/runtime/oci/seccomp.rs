//! Seccomp as a `config.json` has it (runtime-spec config-linux.md, "Seccomp"): the seccomp room's own types.

pub use crate::runtime::seccomp::{LinuxSeccomp, SeccompArgument, SeccompOperator, SeccompSyscall};
