//! What the host should hold.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use indexmap::{IndexMap, IndexSet};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::address::beside;
use super::{ContainerSpec, LiveSpec, digest_of};
use crate::model::{Condition, ImageSource, Limits, Name, Origins, PortMap};

/// The kinds of resource that a plan is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Sysctl,
    Cgroup,
    Image,
    Volume,
    Bridge,
    Nat,
    Container,
    /// A container's link; planned with its container, but it carries a label of its own.
    Veth,
}

/// Names one resource of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceId {
    pub kind: Kind,
    pub name: String,
}

/// Everything that one stack should have on the host. Nothing is left to choose.
#[derive(Clone, Debug)]
pub struct Desired {
    pub stack: Name,
    /// Whether packets must be forwarded between bridges and the host's other links.
    pub forwarding: bool,
    /// `net.ipv6.conf.all.forwarding`.
    pub forwarding6: bool,
    /// What the file asks for and this host cannot give, for people to read.
    pub notes: Vec<String>,
    pub cgroups: IndexMap<Name, Limits>,
    pub volumes: IndexSet<Name>,
    /// By the name that containers use.
    pub images: IndexMap<String, ImageSource>,
    pub bridges: IndexMap<Name, DesiredBridge>,
    /// `None`: no bridge, no table.
    pub nat: Option<DesiredNat>,
    /// By instance, such as `web` or `web-2`.
    pub containers: IndexMap<String, DesiredContainer>,
    /// Whether jobs that run at each `up` are to run again.
    pub jobs: bool,
    pub origins: Origins,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredBridge {
    /// The link's name, at most 15 bytes.
    pub ifname: String,
    /// The bridge's own address, and the subnet's prefix.
    pub gateway: Ipv4Net,
    /// The same for IPv6, where it carries that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Net>,
    /// Whether no way leads out of it or in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
    pub mtu: u32,
}

impl DesiredBridge {
    /// The IPv6 address on it of the container that has this IPv4 address.
    pub fn address6(&self, address: Ipv4Addr) -> Option<Ipv6Net> {
        self.gateway6.map(|gateway6| beside(address, self.gateway.trunc(), gateway6.trunc()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNat {
    /// By name.
    pub bridges: Vec<(String, DesiredBridge)>,
    pub ports: Vec<PortTarget>,
}

/// A published port and the container's address it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTarget {
    pub instance: String,
    pub port: PortMap,
    pub address: IpAddr,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DesiredContainer {
    pub instance: String,
    /// The container of the file that this is an instance of.
    pub container: Name,
    pub spec: ContainerSpec,
    pub live: LiveSpec,
    /// Instances that must have reached a condition before this one starts.
    pub after: Vec<(String, Condition)>,
}

impl DesiredContainer {
    pub fn digest(&self) -> String {
        digest_of(&self.spec)
    }
}

impl Desired {
    /// The wish of `down`: nothing at all.
    pub fn nothing(stack: Name) -> Self {
        Desired {
            stack,
            forwarding: false,
            forwarding6: false,
            notes: Vec::new(),
            cgroups: IndexMap::new(),
            volumes: IndexSet::new(),
            images: IndexMap::new(),
            bridges: IndexMap::new(),
            nat: None,
            containers: IndexMap::new(),
            jobs: false,
            origins: Origins::default(),
        }
    }

    /// Whether nothing is wished for.
    pub fn is_nothing(&self) -> bool {
        self.containers.is_empty() && self.bridges.is_empty() && self.cgroups.is_empty() && self.volumes.is_empty()
    }
}

impl ResourceId {
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        ResourceId { kind, name: name.into() }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "{}", self.kind),
            name => write!(f, "{} {name}", self.kind),
        }
    }
}

const KINDS: [(Kind, &str); 8] = [
    (Kind::Sysctl, "sysctl"),
    (Kind::Cgroup, "cgroup"),
    (Kind::Image, "image"),
    (Kind::Volume, "volume"),
    (Kind::Bridge, "bridge"),
    (Kind::Nat, "nat"),
    (Kind::Container, "container"),
    (Kind::Veth, "veth"),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name);
        f.pad(name)
    }
}

impl FromStr for Kind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        KINDS.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind).ok_or(())
    }
}
