//! Containers as the OCI runtime specification has them: created by one command, started by another, found again by their id in a
//! state directory (runtime-spec runtime.md).
//!
//! ```text
//! create ─→ created ─start→ running ⇄ paused ─(the process ends)→ stopped ─delete→ gone
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `create`, `start`, `end` | the operations: hooks in their order, and nothing left behind by what fails |
//! | `exec` | further processes |
//! | `store` | the state directory |
//! | `resctrl` | shares of the cache |
//! | `cgroups`, `resources`, `devices` | a container's cgroups, and a configuration's limits as writes |
//! | `systemd` | cgroups that systemd makes |

mod cgroups;
mod create;
mod devices;
mod end;
mod exec;
mod process;
mod resctrl;
mod resources;
mod start;
mod store;
mod systemd;

use std::path::PathBuf;

use thiserror::Error;

use crate::runtime::container::{CompileError, ExecError, SpawnError, TerminalError};
use crate::runtime::oci::{OciContainer, OciLifecycleState, OciResources};
use crate::runtime::seccomp::SeccompError;

pub use cgroups::{CgroupsError, ContainerCgroups, Frozen, HostCgroups};
pub use create::{CgroupManager, CreateOptions, create};
pub use end::{Forced, delete, destroy, kill, kill_all};
pub use exec::{ExecOptions, IgnorePaused, Running, exec};
pub use process::{ConsoleSocket, check_preserved, write_pid_file};
pub use resources::CgroupVersion;
use resources::completed;
pub use start::start;
pub use store::{Place, Record, Store, StoreError, read_document};

#[derive(Debug, Error)]
pub enum LifecycleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Cgroups(#[from] CgroupsError),
    #[error("cannot use the configuration")]
    Compile { source: CompileError },
    #[error("`linux.seccomp` of the configuration cannot be compiled")]
    Seccomp { source: SeccompError },
    #[error("cannot reach the seccomp agent at `{}`", path.display())]
    SeccompAgent { path: PathBuf, source: std::io::Error },
    #[error("`{path}` of the configuration {fault}")]
    Invalid { path: &'static str, fault: String },
    #[error("cannot make the container's process")]
    Spawn { source: SpawnError },
    #[error("cannot run the process in the container")]
    Exec { source: ExecError },
    #[error("cannot give the container its network device")]
    Device { source: crate::runtime::net::DeviceError },
    #[error("hook `{hook}` {fault}")]
    Hook { hook: String, fault: String },
    #[error("cannot {what}")]
    System { what: String, source: std::io::Error },
    #[error("cannot make the container's terminal")]
    Terminal { source: TerminalError },
    #[error("the process has a terminal: `--console-socket` says who gets it")]
    NoConsoleSocket,
    #[error("`--console-socket` is for processes with a terminal, and this one has none")]
    NoTerminal,
    #[error("descriptor {number} of `--preserve-fds` is not open")]
    NotOpen { number: u32 },
    #[error("container `{id}` is {status}: cannot {verb} it")]
    WrongState { id: String, status: &'static str, verb: &'static str },
    #[error("container `{id}` has no process to start: `process` is missing in its configuration")]
    NoProcess { id: String },
}

impl LifecycleError {
    /// As the field has it: 127 the program is not there, 126 it cannot be executed.
    pub fn exec_exit_code(&self) -> Option<i32> {
        match self {
            Self::Exec { source } => Some(source.exit_code()),
            Self::Spawn { source } => Some(source.exit_code()),
            _ => None,
        }
    }

    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        |source| Self::System { what, source }
    }
}

/// What a container is like now; `paused` is beyond the specification, as in the field's runtimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }

    fn in_state(self) -> OciLifecycleState {
        match self {
            Self::Creating => OciLifecycleState::Creating,
            Self::Created => OciLifecycleState::Created,
            Self::Running | Self::Paused => OciLifecycleState::Running,
            Self::Stopped => OciLifecycleState::Stopped,
        }
    }
}

/// A container that was found in the state directory.
#[derive(Debug)]
pub struct Container {
    pub place: Place,
    pub record: Record,
    pub status: Status,
}

impl Container {
    pub fn find(store: &Store, id: &str) -> Result<Self, LifecycleError> {
        let place = store.find(id)?;
        Self::at(place)?.ok_or_else(|| StoreError::NotFound { id: id.to_owned() }.into())
    }

    /// `None`: it is being created.
    pub fn at(place: Place) -> Result<Option<Self>, LifecycleError> {
        let Some(record) = place.record()? else { return Ok(None) };
        let alive = process::started_at(record.init_process_pid) == Some(record.init_process_start);
        let status = match (alive, place.start_socket().exists()) {
            (false, _) => Status::Stopped,
            (true, true) => Status::Created,
            (true, false) if record.cgroups().is_frozen() => Status::Paused,
            (true, false) => Status::Running,
        };
        Ok(Some(Self { place, record, status }))
    }

    /// The state document, as hooks get it and `state` prints more of it.
    pub fn state(&self) -> OciContainer {
        self.record.state(self.status.in_state())
    }

    fn refuse(&self, verb: &'static str) -> LifecycleError {
        LifecycleError::WrongState { id: self.record.id.clone(), status: self.status.name(), verb }
    }

    /// Stop all its processes where they are, or let them go on.
    pub fn freeze(&self, frozen: Frozen) -> Result<(), LifecycleError> {
        match (frozen, self.status) {
            (Frozen::Yes, Status::Running | Status::Created) | (Frozen::No, Status::Paused) => {
                Ok(self.record.cgroups().freeze(frozen)?)
            }
            (Frozen::Yes, _) => Err(self.refuse("pause")),
            (Frozen::No, _) => Err(self.refuse("resume")),
        }
    }

    /// Apply other limits.
    pub fn update(&self, resources: &OciResources) -> Result<(), LifecycleError> {
        let groups = self.record.cgroups();
        let now = |controller, file| groups.text(controller, file).unwrap_or_default();
        let resources = match groups.version {
            CgroupVersion::V1 => resources.clone(),
            CgroupVersion::V2 => completed(resources, &now("cpu", "cpu.max"), &now("memory", "memory.max")),
        };
        groups.apply(&resources)?;
        if let Some(unit) = &self.record.scope {
            systemd::set_limits(unit, &resources)?;
        }
        Ok(())
    }

    pub fn root_directory(&self) -> PathBuf {
        self.record.rootfs.clone()
    }
}
