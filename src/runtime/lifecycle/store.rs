//! The state directory: one directory for each container, named by its id, with what later commands need to know.
//!
//! | file | what it is |
//! |---|---|
//! | `state.json` | [`Record`]: written last, by rename; without it the container's making was interrupted |
//! | `config.json` | the configuration as it was when the container was created |
//! | `start.sock` | where the container's process waits for its start; gone once it was started |

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::runtime::oci::{OciConfig, OciContainer, OciError, OciLifecycleState};

use super::cgroups::ContainerCgroups;
use super::resources::CgroupVersion;

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
pub const START: &str = "start.sock";
/// Of any document that is read.
pub const DOCUMENT_LIMIT: u64 = 16 << 20;
/// As the field's runtimes have it.
const ID_LIMIT: usize = 1024;

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("`{id}` is no id of a container: letters, digits and `_+-.` make one")]
    Id { id: String },
    #[error("a container `{id}` exists already")]
    Exists { id: String },
    #[error("container `{id}` does not exist")]
    NotFound { id: String },
    #[error("cannot make `{}`", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("`{}` is larger than {DOCUMENT_LIMIT} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot understand `{}`", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("cannot use `{}`", path.display())]
    Config { path: PathBuf, source: Box<OciError> },
    #[error("cannot remove `{}`", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// Where all containers of one state root are.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What is known of a created container. The names are those of the field's `state.json`, which other programs read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub init_process_pid: i32,
    /// In clock ticks since boot: field 22 of proc(5)'s stat.
    pub init_process_start: u64,
    /// RFC 3339.
    pub created: String,
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    pub namespace_paths: BTreeMap<String, PathBuf>,
    #[serde(default)]
    pub rootless: bool,
    #[serde(default)]
    pub external_descriptors: Vec<String>,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Directories that were made for the container.
    pub made_cgroups: Vec<PathBuf>,
    pub cgroup_version: u8,
    /// The unit, where systemd makes the cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What the process does once it is started, for messages, and the number of the first of these steps.
    pub steps: Vec<String>,
    pub first_step: u16,
}

impl Record {
    pub fn cgroups(&self) -> ContainerCgroups {
        let version = if self.cgroup_version == 2 { CgroupVersion::V2 } else { CgroupVersion::V1 };
        ContainerCgroups { version, paths: self.cgroup_paths.clone() }
    }

    /// The state document (runtime-spec runtime.md, "State").
    pub fn state(&self, status: OciLifecycleState) -> OciContainer {
        let alive = matches!(status, OciLifecycleState::Created | OciLifecycleState::Running);
        OciContainer {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: alive.then_some(self.init_process_pid),
            bundle: self.bundle.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

impl Store {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Claim an id: make its directory, which is nobody else's to look into.
    pub fn claim(&self, id: &str) -> Result<Place, StoreError> {
        let path = self.path(id)?;
        let make = |path: &Path, recursive| DirBuilder::new().mode(0o700).recursive(recursive).create(path);
        let made = make(&path, false).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => make(&self.root, true).and_then(|()| make(&path, false)),
            _ => Err(error),
        });
        match made {
            Ok(()) => Ok(Place { path }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::Exists { id: id.to_owned() }),
            Err(source) => Err(StoreError::Make { path, source }),
        }
    }

    pub fn find(&self, id: &str) -> Result<Place, StoreError> {
        let path = self.path(id)?;
        if path.is_dir() { Ok(Place { path }) } else { Err(StoreError::NotFound { id: id.to_owned() }) }
    }

    /// All containers, by id.
    pub fn list(&self) -> Result<Vec<Place>, StoreError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StoreError::Read { path: self.root.clone(), source }),
        };
        let mut places: Vec<Place> =
            entries.flatten().map(|entry| Place { path: entry.path() }).filter(|place| place.path.is_dir()).collect();
        places.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(places)
    }

    fn path(&self, id: &str) -> Result<PathBuf, StoreError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id.len() > ID_LIMIT || matches!(id, "." | "..") || !id.chars().all(fine) {
            return Err(StoreError::Id { id: id.to_owned() });
        }
        Ok(self.root.join(id))
    }
}

/// One container's directory.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn start_socket(&self) -> PathBuf {
        self.path.join(START)
    }

    /// `None`: the container is being created, or was when it was interrupted.
    pub fn record(&self) -> Result<Option<Record>, StoreError> {
        let path = self.path.join(RECORD);
        match read_document(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|source| StoreError::Damaged { path, source })
            }
            Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn save(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.path.join(RECORD);
        let unfinished = self.path.join("state.json.new");
        let failed = |source| StoreError::Write { path: path.clone(), source };
        let text = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
        fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, &path)).map_err(failed)
    }

    pub fn save_config(&self, json: &[u8]) -> Result<(), StoreError> {
        let path = self.path.join(CONFIG);
        fs::write(&path, json).map_err(|source| StoreError::Write { path, source })
    }

    pub fn config(&self) -> Result<OciConfig, StoreError> {
        let path = self.path.join(CONFIG);
        parse_config(&read_document(&path)?, path)
    }

    pub fn remove(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| StoreError::Remove { path: self.path.clone(), source }),
        }
    }
}

pub fn parse_config(json: &[u8], path: PathBuf) -> Result<OciConfig, StoreError> {
    OciConfig::parse(json).map_err(|source| StoreError::Config { path, source: Box::new(source) })
}

/// A whole file, with a bound.
pub fn read_document(path: &Path) -> Result<Vec<u8>, StoreError> {
    let failed = |source| StoreError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(StoreError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_claimed_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("a/b"));
        let place = store.claim("web-1").unwrap();
        assert!(matches!(store.claim("web-1"), Err(StoreError::Exists { .. })));
        assert!(place.record().unwrap().is_none());
        place.remove().unwrap();
        assert!(matches!(store.find("web-1"), Err(StoreError::NotFound { .. })));
    }

    #[test]
    fn an_id_is_no_path() {
        let store = Store::new("/nonexistent".into());
        for wrong in ["", ".", "..", "a/b", "/a", "a b", "a\n", "ä"] {
            assert!(matches!(store.find(wrong), Err(StoreError::Id { .. })), "{wrong:?}");
        }
    }
}
