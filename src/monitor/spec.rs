//! What a monitor is told about its container: `monitor.json` in the bundle directory.
//!
//! What the container itself is made of stands in `config.json` beside it; this file holds only what the monitor does
//! around it. Some of it is live: a monitor that gets SIGHUP reads the file again (see [`MonitorSpec::take_live`]).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{Health, LogLimits, Restart};

/// The spec's name in the bundle directory.
pub const SPEC_FILE: &str = "monitor.json";
/// The OCI configuration's name in the bundle directory.
pub const CONFIG_FILE: &str = "config.json";
/// No file of a bundle may be longer, in bytes.
pub const MAX_BUNDLE_FILE: u64 = 4 << 20;

/// Why a file of a bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` is longer than {max} bytes", max = MAX_BUNDLE_FILE)]
    TooLong { path: PathBuf },
    #[error("`{path}` does not hold what it should")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("cannot write `{path}`")]
    Write { path: PathBuf, source: io::Error },
}

/// Everything that a monitor does around its container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorSpec {
    /// The container's name in its stack, such as `web-1`; for messages.
    pub instance: String,
    /// What becomes the container's `/`.
    pub rootfs: RootfsSpec,
    /// `cgroup.procs` of the container, one of each hierarchy in use.
    pub cgroup_procs: Vec<PathBuf>,
    /// `cgroup.procs` of the group that monitors live in; empty: the monitor stays where `up` ran.
    pub monitor_cgroup_procs: Vec<PathBuf>,
    /// Where the cgroup hierarchies are mounted, such as `/sys/fs/cgroup`.
    pub cgroup_root: PathBuf,
    /// The container's group below it, such as `stack/shop/web-1`: for the count of its OOM kills.
    pub cgroup: String,
    /// Whether the container has a network namespace of its own (`false`: the host's).
    pub own_netns: bool,
    /// Whether others answer to the same ports and name, so that the host's table must be told when this one serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares: bool,
    /// Whether an init of ours is PID 1.
    pub init: bool,
    /// Live.
    pub restart: Restart,
    /// Live.
    pub health: Option<Health>,
    /// Where the container's output is kept; the directory is created when it is missing.
    pub log_dir: PathBuf,
    /// Live.
    pub log: LogLimits,
    /// A signal's number, real-time ones included. Live.
    pub stop_signal: i32,
    /// From the stop signal to SIGKILL. Live.
    pub stop_timeout_ms: u64,
    /// Another value than the last one asks for the container's process to be started again. Live.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epoch: String,
}

/// What becomes the container's `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum RootfsSpec {
    /// Layers, the top one first, below a writable directory of the container's own.
    Overlay { lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// A directory as it is.
    Dir(PathBuf),
}

impl MonitorSpec {
    /// Reads the spec of a bundle.
    pub fn load(bundle: &Path) -> Result<Self, BundleError> {
        read_json(&bundle.join(SPEC_FILE))
    }

    /// Publishes the spec in a bundle by rename, so that a monitor never reads half of one.
    pub fn save(&self, bundle: &Path) -> Result<(), BundleError> {
        write_json(&bundle.join(SPEC_FILE), self)
    }

    /// Takes over what may change while the container runs; the rest stays as the container was made.
    pub fn take_live(&mut self, new: MonitorSpec) {
        self.restart = new.restart;
        self.health = new.health;
        self.log = new.log;
        self.stop_signal = new.stop_signal;
        self.stop_timeout_ms = new.stop_timeout_ms;
        self.epoch = new.epoch;
    }

    pub fn stop_timeout(&self) -> Duration {
        Duration::from_millis(self.stop_timeout_ms)
    }
}

/// Reads a bounded JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, BundleError> {
    let failed = |source| BundleError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_BUNDLE_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BUNDLE_FILE {
        return Err(BundleError::TooLong { path: path.to_owned() });
    }
    serde_json::from_slice(&bytes).map_err(|source| BundleError::Parse { path: path.to_owned(), source })
}

/// Replaces a JSON file by rename. There is no fsync: bundles live on a tmpfs and do not outlive the kernel.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), BundleError> {
    let failed = |source| BundleError::Write { path: path.to_owned(), source };
    let bytes = serde_json::to_vec(value).map_err(|e| failed(e.into()))?;
    let mut new = path.to_owned();
    new.as_mut_os_string().push(".new");
    std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ByteSize, HealthAction, Probe};

    fn spec() -> MonitorSpec {
        MonitorSpec {
            instance: "web-1".into(),
            rootfs: RootfsSpec::Dir("/srv/root".into()),
            cgroup_procs: vec![],
            monitor_cgroup_procs: vec![],
            cgroup_root: "/sys/fs/cgroup".into(),
            cgroup: "stack/shop/web-1".into(),
            own_netns: true,
            shares: false,
            init: true,
            restart: Restart::No,
            health: None,
            log_dir: "/var/log/web-1".into(),
            log: LogLimits { size: ByteSize(1 << 20), files: 3 },
            stop_signal: 15,
            stop_timeout_ms: 10_000,
            epoch: String::new(),
        }
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec();
        spec.restart = Restart::OnFailure { max_retries: Some(3) };
        spec.health = Some(Health {
            probe: Probe::Http { port: 80, path: "/healthz".into() },
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            retries: 3,
            start_period: Duration::ZERO,
            on_failure: HealthAction::Restart,
        });
        spec.save(dir.path()).unwrap();
        assert_eq!(MonitorSpec::load(dir.path()).unwrap(), spec);
        assert!(!dir.path().join("monitor.json.new").exists());
    }

    #[test]
    fn only_live_settings_change_under_a_running_container() {
        let mut running = spec();
        let mut new = spec();
        new.restart = Restart::Always;
        new.stop_timeout_ms = 1;
        new.own_netns = false;
        new.rootfs = RootfsSpec::Dir("/elsewhere".into());
        running.take_live(new);
        assert_eq!((running.restart, running.stop_timeout_ms), (Restart::Always, 1));
        assert_eq!((running.own_netns, running.rootfs), (true, RootfsSpec::Dir("/srv/root".into())));
    }

    #[test]
    fn a_missing_spec_is_an_error_that_names_it() {
        let error = MonitorSpec::load(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/nonexistent/monitor.json`");
    }
}
