//! What a container is made from, as plain data: the part that makes a new container when it changes, and the part that
//! is written into the running one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use indexmap::IndexMap;
use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{Health, Limits, LogLimits, MountUse, OnChange, Restart, Run, Ulimit, UserSpec, VolumeUse};

/// The part of a container that cannot change without a new one. Its digest is in the container's label; a copy lies in
/// its bundle and explains what changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub image: ImageIdentity,
    pub args: Vec<String>,
    pub env: IndexMap<String, String>,
    pub workdir: String,
    pub user: Option<UserSpec>,
    pub hostname: String,
    /// Below the stack's own cgroup, such as `web` or `backend.branch/web`.
    pub cgroup: String,
    pub endpoints: Vec<Endpoint>,
    pub volumes: Vec<VolumeUse>,
    pub mounts: Vec<MountUse>,
    /// Files that it gets copies of; what is in them is live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSpec>,
    pub secrets: Vec<SecretSpec>,
    pub read_only: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: IndexMap<String, String>,
    pub stop_signal: i32,
    pub init: bool,
    pub labels: IndexMap<String, String>,
    pub seccomp: SeccompSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentity {
    /// As the stack file wrote it.
    pub name: String,
    /// What it stood for: a digest, or a folder's identity.
    pub id: String,
}

/// One of a container's places on a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub bridge: String,
    /// `eth0`, `eth1`, … in the file's order.
    pub interface: String,
    pub address: Ipv4Addr,
    pub prefix: u8,
    /// Only on the one that is the way out.
    pub gateway: Option<Ipv4Addr>,
    /// On a bridge that carries IPv6. The last bytes are those of the IPv4 address within its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Net>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    pub mtu: u32,
}

/// A secret as the spec knows it: where it goes, and a keyed hash of what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSpec {
    pub file: PathBuf,
    pub target: String,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// The content's hash under a key that never leaves the host: says whether it changed, and nothing else. Empty where
    /// the content is live.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
}

/// A file of the host and where its copy is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    pub file: PathBuf,
    pub target: String,
}

/// What a file that can be written anew under a running container should hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentSpec {
    /// Of one of the container's files or secrets.
    pub target: String,
    /// Keyed, as in [`SecretSpec`].
    pub content: String,
    pub on_change: OnChange,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompSpec {
    Default,
    Unconfined,
    File { path: PathBuf, digest: String },
}

/// The part that is written into the running container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveSpec {
    pub limits: Limits,
    /// For containers that are to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Run>,
    pub restart: Restart,
    pub health: Option<Health>,
    pub log: LogLimits,
    pub stop_timeout_ms: u64,
    /// The names that the container can call others by.
    pub hosts: Vec<HostsLine>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<ContentSpec>,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsLine {
    pub address: IpAddr,
    pub names: Vec<String>,
}

/// The digest of a spec: of its JSON text, half a SHA-256, in hexadecimal.
pub fn digest_of<T: Serialize>(spec: &T) -> String {
    let text = serde_json::to_vec(spec).expect("a spec has no map with keys that are not text");
    Sha256::digest(&text)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
