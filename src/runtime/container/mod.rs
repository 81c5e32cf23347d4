//! Containers: from a `config.json` to a running process, and further processes inside.
//!
//! ```text
//! OciConfig + Surroundings ──compile──→ Program (a list of operations, all memory in place)      decides
//! Program ──create──→ Created (cloned, waits at its gate) ──start──→ Spawned                      does
//!                     └─ child: operations one by one, exec; a few bytes on a pipe where it stops
//! ```
//!
//! Between clone and exec nothing allocates, locks or formats: see `perform`, `rootfs`, `below` and `init`. What is in the
//! container's root belongs to an attacker. It is reached by descriptors below the root only.
//! Cgroups, networks, images and seccomp profiles are made by others and handed in ([`Surroundings`]).

pub mod below;
mod capability;
mod compile;
mod compile_linux;
mod compile_mounts;
mod compile_process;
mod console;
mod copy_up;
pub mod defaults;
pub mod detached;
mod exec;
mod exec_detached;
mod hook;
mod idmap;
mod init;
mod joined;
mod labels;
mod mount_options;
mod notify;
mod op;
mod op_mount;
mod perform;
mod perform_detached;
mod protect;
mod rootfs;
mod spawn;
mod stdio;
mod supported;
mod surroundings;
mod sysctl;
mod terminal;
pub mod user;

pub use below::{Links, NodeKind, open_below, open_or_make};
pub use capability::{capability_names, capability_number, capability_set};
pub use compile::{CompileError, Program};
pub use compile_linux::{id_map_text, number_list};
pub use compile_process::{ProcessSettings, resource_number};
pub use console::{receive_terminal, send_descriptors};
pub use exec::{ExecError, ExecProgram, ExecSpec, Executed, exec, exec_notifying};
pub use exec_detached::{ExecDetachment, OwnNamespace};
pub use hook::{HookProgram, PID_PLACE, StatePid};
pub use init::serve as serve_process;
pub use labels::SecurityModules;
pub use mount_options::{BindDepth, FilesystemOption, MountOptions, UnsupportedOption, sort_options};
pub use notify::SeccompAgent;
pub use op::{Credentials, SeccompProgram};
pub use protect::{ProtectError, executable_is_protected, protected_executable, reexec_protected};
pub use spawn::{Created, SpawnError, Spawned, create, spawn, wait};
pub use stdio::Stdio;
pub use surroundings::{CgroupHierarchy, CgroupView, NetworkOrigin, Rootfs, Surroundings};
pub use terminal::{Terminal, TerminalError, TerminalSize};
