//! A container as the stack file says it.

use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{ByteSize, Cpus, ImageSource, IoLimit, Name, PortMap, Pull};

#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub image: ImageUse,
    /// Replaces the image's entry point, and clears its command as the field's tools do.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    pub workdir: Option<String>,
    pub user: Option<UserSpec>,
    /// `None`: the instance's name.
    pub hostname: Option<String>,
    /// `env_file` first, then `env`; the image's own come before both.
    pub env: IndexMap<String, String>,
    /// Files that variables were read from, absolute; for who waits for them to change.
    pub env_files: Vec<PathBuf>,
    /// What `stack watch` does for it.
    pub watch: Vec<WatchRule>,
    /// In the file's order. Empty: loopback only.
    pub bridges: Vec<Name>,
    /// One of `bridges`. `None`: the first that is not internal.
    pub gateway: Option<Name>,
    pub cgroup: Option<Name>,
    pub limits: Limits,
    pub volumes: Vec<VolumeUse>,
    pub mounts: Vec<MountUse>,
    /// Single files that the container gets a copy of.
    pub files: Vec<ConfigFile>,
    pub secrets: Vec<Secret>,
    pub ports: Vec<PortMap>,
    pub after: IndexMap<Name, Condition>,
    /// At least 1.
    pub replicas: u32,
    /// When a container that is to end runs again; `None`: it is to go on running.
    pub job: Option<Run>,
    pub restart: Restart,
    pub health: Option<Health>,
    pub seccomp: Seccomp,
    pub read_only: bool,
    /// Names as `NET_ADMIN`, without `CAP_`; `ALL` is written out.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: IndexMap<String, String>,
    /// A signal's number. `None`: the image's, or SIGTERM.
    pub stop_signal: Option<i32>,
    pub stop_timeout: Duration,
    /// Whether an init of ours is PID 1.
    pub init: bool,
    pub labels: IndexMap<String, String>,
    pub log: LogLimits,
    /// From -1000 to 1000, above the host's own: who is killed first when the host runs out of memory.
    pub oom_score_adj: Option<i16>,
}

/// `[[container.NAME.watch]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRule {
    /// An absolute path of the host, a folder or a file.
    pub path: PathBuf,
    /// Patterns in the form of gitignore(5), relative to it.
    pub ignore: Vec<String>,
    /// Where `sync` brings the files; none for other actions.
    pub target: Option<String>,
    pub action: WatchAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchAction {
    /// Files are brought into the running container.
    Sync,
    /// The container's image is made or read again, and the container where that is another one.
    Rebuild,
    /// The container is told.
    Tell(OnChange),
}

impl Container {
    /// Whether some change of a file has a command run in it.
    pub fn runs_commands(&self) -> bool {
        let secrets = self.secrets.iter().filter_map(|secret| secret.on_change.as_ref());
        let mut reactions = secrets.chain(self.files.iter().map(|file| &file.on_change));
        reactions.any(|reaction| matches!(reaction, OnChange::Exec(_)))
    }
}

/// What `image = …` named: an `[image]` table, or a source written in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// As it is written in the file.
    pub written: String,
    pub source: ImageSource,
    pub pull: Pull,
}

/// `user = "name"`, `"name:group"`, `"1000"`, `"1000:1000"`; looked up in the image's own files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    pub user: String,
    pub group: Option<String>,
}

/// Limits of a branch or of a container. All of them are written into the running kernel when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Hard limit.
    pub memory: Option<ByteSize>,
    /// Protected from reclaim.
    pub memory_low: Option<ByteSize>,
    /// Above it the container is slowed down and its memory reclaimed; nothing is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<ByteSize>,
    /// Swap that may be used beside `memory`.
    pub swap: Option<ByteSize>,
    /// Processor time, a hard limit.
    pub cpu: Option<Cpus>,
    /// Microseconds of `cpu` that may be saved up and spent in one period of 100 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_burst_us: Option<u64>,
    /// Lists such as `0-3,8`, in the kernel's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// Share against siblings, 1 to 10000, 100 unless told.
    pub cpu_weight: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u64>,
    pub io: Vec<IoLimit>,
}

/// `volume = ["data:/var/lib/data:ro"]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeUse {
    pub volume: Name,
    /// An absolute path in the container.
    pub target: String,
    pub read_only: bool,
}

/// `mount = [{ bind = "./src", target = "/src", ro = true }, { tmpfs = "64MiB", target = "/tmp" }]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountUse {
    pub source: MountSource,
    pub target: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// An absolute path of the host that exists.
    Bind(PathBuf),
    Tmpfs {
        size: ByteSize,
        /// Permission bits, 0o1777 unless told.
        mode: u32,
    },
}

/// A single file of the host whose content is followed: the container sees a copy, which is written anew when the file
/// changes, whatever way an editor saves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// An absolute path of the host that exists.
    pub file: PathBuf,
    pub target: String,
    pub on_change: OnChange,
}

/// What a running container is told of a file's new content, once it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// Nothing: it looks by itself.
    None,
    /// Its process is started again, in the same container.
    Restart,
    /// A signal's number, sent to its PID 1.
    Signal(i32),
    /// A program and its arguments, run in it.
    Exec(Vec<String>),
}

/// A file whose content is shown to the container and to nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// An absolute path of the host that exists.
    pub file: PathBuf,
    pub target: String,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits, 0o400 unless told.
    pub mode: u32,
    /// `None`: another content makes a new container.
    pub on_change: Option<OnChange>,
}

/// What another container must have reached before this one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    Started,
    Healthy,
    /// Ended with status 0.
    Completed,
}

/// When a job that has ended with status 0 runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Run {
    /// Never.
    Once,
    /// When what it is made from has changed.
    OnChange,
    /// At each `up`.
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    No,
    Always,
    /// At a status other than 0, at most so many times in a row where a number is given.
    OnFailure {
        max_retries: Option<u32>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in a row until the container counts as unhealthy; at least 1.
    pub retries: u32,
    /// After a start, how long failures do not count.
    pub start_period: Duration,
    pub on_failure: HealthAction,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// Run in the container; status 0 is healthy.
    Exec { command: Vec<String> },
    /// A connection that is accepted is healthy.
    Tcp { port: u16 },
    /// A status from 200 to 399 is healthy.
    Http { port: u16, path: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthAction {
    /// Only say so.
    None,
    Restart,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seccomp {
    Default,
    Unconfined,
    /// A profile file in docker's JSON; an absolute path that exists.
    File(PathBuf),
}

/// `ulimit = { nofile = 65536, core = [0, 0] }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Lower case and without `RLIMIT_`, such as `nofile`.
    pub resource: String,
    pub soft: u64,
    pub hard: u64,
}

/// How much of a container's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Of one file.
    pub size: ByteSize,
    /// How many files, the current one included; at least 1.
    pub files: u32,
}
