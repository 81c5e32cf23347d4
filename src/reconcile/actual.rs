//! What the host really holds of one stack, as [`super::Host::observe`] read it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use indexmap::IndexMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::model::{Condition, Name, Place};
use crate::plan::{
    Capacity, ContainerSpec, DesiredContainer, DesiredNat, Held, Kept, Label, LiveSpec, Zone, generations, slot_of,
};

/// Limits as the kernel's files have them, by the kernel's own names, such as `memory.max` → `536870912`.
pub type KernelLimits = IndexMap<&'static str, String>;

/// What one look at the host found.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    /// What the host has; `None`: it cannot be told.
    pub capacity: Option<Capacity>,
    /// `net.ipv4.ip_forward`.
    pub forwarding: bool,
    /// The host's links but for loopback and those of stacks.
    pub other_links: Vec<String>,
    /// Whether links of the host can have IPv6.
    pub ipv6: bool,
    /// `net.ipv6.conf.all.forwarding`.
    pub forwarding6: bool,
    /// Links that would no longer heed router advertisements if the host forwarded IPv6; empty where it does already.
    pub advised: Vec<String>,
    /// The stack's own cgroup.
    pub root: ActualRoot,
    /// Branches of the stack's cgroup.
    pub cgroups: BTreeMap<String, ActualCgroup>,
    pub volumes: BTreeSet<String>,
    /// How many layers of each desired image are not unpacked; images that have all are not in it.
    pub missing_layers: BTreeMap<String, usize>,
    /// Bytes that those layers take at least, by image; those of which nothing is known are not in it.
    pub missing_bytes: BTreeMap<String, u64>,
    /// Why desired images have to be built; those that need not are not in it.
    pub unbuilt: BTreeMap<String, String>,
    pub bridges: BTreeMap<String, ActualBridge>,
    pub nat: Option<ActualNat>,
    pub resolver: Option<ActualResolver>,
    pub containers: BTreeMap<String, ActualContainer>,
    /// The host's routes but for those of the stack's own bridges.
    pub routes: Vec<(IpNet, String)>,
}

/// How much there is of the stack's own cgroup and of the one of its monitors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActualRoot {
    #[default]
    Nothing,
    /// Some of it: making or removing it was not finished.
    Unfinished,
    Finished,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActualCgroup {
    /// Whether it carries our label: without it, its making was not finished.
    pub labelled: bool,
    pub limits: KernelLimits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActualBridge {
    pub ifname: String,
    /// Without it, its making was not finished.
    pub labelled: bool,
    pub up: bool,
    pub mtu: u32,
    pub address: Option<Ipv4Net>,
    pub address6: Option<Ipv6Net>,
    /// Single addresses beside these, those of services.
    pub services: BTreeSet<IpAddr>,
    /// Whether `route_localnet`, which ports on 127.0.0.1 need, is on and the switches of IPv6 are as the address wants.
    pub switches: bool,
}

/// The stack's nftables table as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActualNat {
    pub label: Option<Label>,
    /// The published ports and rules that it holds, by name, each with its value.
    pub parts: BTreeMap<String, String>,
    /// What it was last told to lead to, healthy or not. For those who change elements of it; it decides nothing about
    /// what the table should be.
    pub told: Option<DesiredNat>,
}

/// The stack's resolver, or what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActualResolver {
    /// What it was last told.
    pub zone: Option<Zone>,
    pub runs: bool,
}

#[derive(Clone, Debug)]
pub struct ActualContainer {
    /// From its cgroup. `None`: its making was not finished.
    pub label: Option<Label>,
    /// Its bundle's copy of what it was made from. Explains, never decides.
    pub stored: Option<StoredContainer>,
    pub limits: KernelLimits,
    pub phase: Phase,
    pub health: HealthState,
    pub links: Vec<ActualLink>,
    /// The text of its `/etc/hosts`.
    pub hosts: Option<String>,
    /// The text of its `/etc/resolv.conf`.
    pub resolv_conf: Option<String>,
    /// Keyed hashes of what its live files and secrets hold, by where it sees them.
    pub contents: BTreeMap<String, String>,
    pub run: RunFacts,
}

/// What is known of a container's run, for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunFacts {
    pub pid: Option<i32>,
    pub monitor: Option<i32>,
    pub restarts: u32,
    pub oom_kills: u64,
    /// The last of them, in words.
    pub last_oom: Option<String>,
    /// Seconds since the epoch.
    pub started_at: Option<i64>,
    pub last_probe: Option<String>,
}

/// The host's end of one of a container's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActualLink {
    pub bridge: String,
    pub ifname: String,
    pub up: bool,
    /// Whether the container's end is up too.
    pub carrier: bool,
    /// Whether it hangs on its bridge.
    pub attached: bool,
}

/// What a bundle keeps of the container it was made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredContainer {
    pub container: Name,
    pub spec: ContainerSpec,
    pub live: LiveSpec,
    pub after: Vec<(String, Condition)>,
}

impl From<&DesiredContainer> for StoredContainer {
    fn from(desired: &DesiredContainer) -> Self {
        StoredContainer {
            container: desired.container.clone(),
            spec: desired.spec.clone(),
            live: desired.live.clone(),
            after: desired.after.clone(),
        }
    }
}

/// How far a container's process has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum Phase {
    /// There is a cgroup, a link or a bundle, and no process that belongs to it.
    Leftover,
    Running,
    /// Its monitor waits before it starts it again.
    Restarting,
    /// It ended and its monitor let it be. `code` is 128 + the signal's number where a signal ended it.
    Exited {
        code: i32,
    },
    /// Its monitor was told to stop it, and waits for its end.
    Stopping,
    /// Monitor or container were taken away from outside.
    Lost {
        what: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// It has no health probe.
    None,
    Starting,
    Healthy,
    Unhealthy,
}

impl Actual {
    /// The container in a place that the file calls so, whichever of its two names that has.
    pub fn container_in(&self, place: &str) -> Option<(&String, &ActualContainer)> {
        let by_turns = || generations(slot_of(place)).into_iter();
        self.containers
            .get_key_value(place)
            .or_else(|| by_turns().find_map(|name| self.containers.get_key_value(&name)))
    }

    /// What a new plan should leave where it is.
    pub fn kept(&self) -> Kept {
        let mut addresses: BTreeMap<String, BTreeMap<String, Ipv4Addr>> = BTreeMap::new();
        for (instance, container) in &self.containers {
            for endpoint in container.stored.iter().flat_map(|stored| &stored.spec.endpoints) {
                addresses.entry(endpoint.bridge.clone()).or_default().insert(instance.clone(), endpoint.address);
            }
        }
        let ours = || self.bridges.iter().filter(|(_, bridge)| bridge.labelled);
        let subnets = ours().filter_map(|(name, bridge)| Some((name.clone(), bridge.address?.trunc()))).collect();
        let subnets6 = ours().filter_map(|(name, bridge)| Some((name.clone(), bridge.address6?.trunc()))).collect();
        let told = self.nat.as_ref().and_then(|nat| nat.told.as_ref());
        let mut services: BTreeMap<String, BTreeMap<String, Ipv4Addr>> = BTreeMap::new();
        for target in told.iter().flat_map(|told| &told.services) {
            // The IPv6 address follows from the other.
            let IpAddr::V4(address) = target.address else { continue };
            services.entry(target.bridge.clone()).or_default().insert(target.service.clone(), address);
        }
        let held = |(instance, container): (&String, &ActualContainer)| {
            let held = Held {
                digest: container.label.as_ref().map(|label| label.digest.clone()),
                runs: matches!(container.phase, Phase::Running | Phase::Restarting),
                serves: told.is_some_and(|told| told.leads_to(instance)),
            };
            (instance.clone(), held)
        };
        let instances = self.containers.iter().map(held).collect();
        let (ipv6, routes, capacity) = (self.ipv6, self.routes.clone(), self.capacity);
        Kept { subnets, subnets6, ipv6, addresses, services, instances, routes, capacity }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Phase::Leftover => f.write_str("leftover"),
            Phase::Running => f.write_str("running"),
            Phase::Restarting => f.write_str("restarting"),
            Phase::Exited { code } => write!(f, "exited ({code})"),
            Phase::Lost { what } => write!(f, "lost ({what})"),
            Phase::Stopping => f.write_str("stopping"),
        }
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            HealthState::None => "-",
            HealthState::Starting => "starting",
            HealthState::Healthy => "healthy",
            HealthState::Unhealthy => "unhealthy",
        })
    }
}

/// A value that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// In the kernel's or the stack file's terms, such as `memory.max` or `env.KEY`.
    pub field: String,
    /// `None`: there is no such thing now.
    pub from: Option<String>,
    /// `None`: there should be no such thing.
    pub to: Option<String>,
    pub place: Option<Place>,
}
