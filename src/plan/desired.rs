//! What the host should hold.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::address::beside;
use super::{ContainerSpec, LiveSpec, Zone, digest_of};
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
    Resolver,
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
    /// What names stand for; `None`: nobody is on a bridge.
    pub resolver: Option<Zone>,
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
    /// Addresses of services, which the bridge answers for too; their IPv6 addresses follow from them.
    #[serde(default)]
    pub services: BTreeSet<Ipv4Addr>,
}

impl DesiredBridge {
    /// The IPv6 address on it of the container that has this IPv4 address.
    pub fn address6(&self, address: Ipv4Addr) -> Option<Ipv6Net> {
        self.gateway6.map(|gateway6| beside(address, self.gateway.trunc(), gateway6.trunc()))
    }

    /// Those of both protocols that a container or service with this IPv4 address has.
    pub fn both(&self, address: Ipv4Addr) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(address)), self.address6(address).map(|net| net.addr().into())].into_iter().flatten()
    }

    /// Addresses of services, of both protocols.
    pub fn service_addresses(&self) -> BTreeSet<IpAddr> {
        self.services.iter().flat_map(|address| self.both(*address)).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredNat {
    /// By name.
    pub bridges: Vec<(String, DesiredBridge)>,
    pub ports: Vec<PortTarget>,
    #[serde(default)]
    pub services: Vec<ServiceTarget>,
}

/// A service's address on a bridge, and the address of one of its instances there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTarget {
    /// The container of the file.
    pub service: String,
    pub bridge: String,
    pub address: IpAddr,
    pub instance: String,
    /// Of the same protocol.
    pub target: IpAddr,
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
    pub update: UpdatePlan,
    /// Whether others answer to the same ports and name; those then lead to the ones that are well.
    pub shares: bool,
}

/// How a container is replaced. No part of its spec: it matters only while one takes the place of another.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdatePlan {
    pub order: Order,
    /// The instance that runs in its place until it does.
    pub takes_over: Option<String>,
    /// How long connections of the old one may take to end.
    pub drain: Duration,
    /// How long the new one is watched after it has taken over; without a health check also before.
    pub monitor: Duration,
    /// How many replicas of the container are replaced at once.
    pub parallel: u32,
}

/// Which of two comes first when one container takes the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    StartFirst,
    /// With the reason.
    StopFirst(&'static str),
}

impl DesiredContainer {
    pub fn digest(&self) -> String {
        digest_of(&self.spec)
    }
}

impl DesiredNat {
    /// What ports and services lead to while only some instances serve: to those; and to all where none does, for
    /// trying is better than refusing.
    pub fn served_by(&self, serves: impl Fn(&str) -> bool) -> DesiredNat {
        let mut nat = self.clone();
        let served: HashSet<PortMap> =
            self.ports.iter().filter(|port| serves(&port.instance)).map(|port| port.port).collect();
        nat.ports.retain(|port| !served.contains(&port.port) || serves(&port.instance));
        let key = |service: &ServiceTarget| (service.bridge.clone(), service.address);
        let served: HashSet<_> = self.services.iter().filter(|service| serves(&service.instance)).map(key).collect();
        nat.services.retain(|service| !served.contains(&key(service)) || serves(&service.instance));
        nat
    }

    /// Leads to `to` what led to `from`, with the targets that `other` has for it. All else stays.
    pub fn moved(&self, from: &str, to: &str, other: &DesiredNat) -> DesiredNat {
        let mut nat = self.clone();
        nat.ports.retain(|port| port.instance != from && port.instance != to);
        nat.ports.extend(other.ports.iter().filter(|port| port.instance == to).cloned());
        nat.services.retain(|service| service.instance != from && service.instance != to);
        nat.services.extend(other.services.iter().filter(|service| service.instance == to).cloned());
        nat
    }

    pub fn leads_to(&self, instance: &str) -> bool {
        self.ports.iter().any(|port| port.instance == instance)
            || self.services.iter().any(|service| service.instance == instance)
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
            resolver: None,
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

const KINDS: [(Kind, &str); 9] = [
    (Kind::Sysctl, "sysctl"),
    (Kind::Cgroup, "cgroup"),
    (Kind::Image, "image"),
    (Kind::Volume, "volume"),
    (Kind::Bridge, "bridge"),
    (Kind::Nat, "nat"),
    (Kind::Resolver, "resolver"),
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
