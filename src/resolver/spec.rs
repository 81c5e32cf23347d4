//! What lies in a resolver's folder: what it is to know, and which processes it is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::monitor::spec::{BundleError, read_json, write_json};
use crate::monitor::status::ProcessId;
use crate::plan::Zone;

/// The spec's name in the folder. It is read again when another one is put in its place.
pub const SPEC_FILE: &str = "resolver.json";
const PROCESSES_FILE: &str = "processes.json";

/// Everything that a resolver is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolverSpec {
    pub zone: Zone,
    /// The file that names the host's servers.
    pub resolv_conf: PathBuf,
    /// `cgroup.procs` of the group that it lives in.
    pub cgroup_procs: Vec<PathBuf>,
}

/// The processes of a resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processes {
    pub keeper: Process,
    /// The one that answers; `None` while it is about to be started again.
    pub server: Option<Process>,
}

/// One process for ever, as [`ProcessId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    pub start: u64,
}

impl ResolverSpec {
    pub fn load(folder: &Path) -> Result<Self, BundleError> {
        read_json(&folder.join(SPEC_FILE))
    }

    /// Publishes the spec by rename.
    pub fn save(&self, folder: &Path) -> Result<(), BundleError> {
        write_json(&folder.join(SPEC_FILE), self)
    }
}

impl Processes {
    /// `None`: none was ever started, or what is there cannot be read.
    pub fn load(folder: &Path) -> Option<Self> {
        read_json(&folder.join(PROCESSES_FILE)).ok()
    }

    pub fn save(&self, folder: &Path) -> Result<(), BundleError> {
        write_json(&folder.join(PROCESSES_FILE), self)
    }
}

impl Process {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Self> {
        ProcessId::of(pid).map(|id| Process { pid, start: id.start })
    }

    pub fn id(self) -> ProcessId {
        ProcessId { pid: self.pid, start: self.start }
    }
}
