//! What the names of a stack stand for: the part of the wish that its resolver answers from.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use indexmap::IndexMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::network::ByBridge;
use super::{ContainerSpec, DesiredBridge, DesiredContainer, Endpoint, slot_of};
use crate::model::Name;

/// The names of one stack. Which of its instances are well is not in it: that changes by the minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// The domain of all names, and where short ones are looked up.
    pub stack: Name,
    pub bridges: Vec<ZoneBridge>,
    pub instances: Vec<ZoneInstance>,
    /// Containers that are called by addresses which outlive their instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ZoneService>,
}

/// A container of the file, and its own addresses on bridges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneService {
    pub container: Name,
    pub places: Vec<ZonePlace>,
}

/// A bridge on whose gateway addresses names are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneBridge {
    pub name: String,
    pub gateway: Ipv4Net,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Net>,
    /// Whether who is on it may learn names from outside.
    pub leads_out: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneInstance {
    /// Such as `web-2` or `web-2.1`; it is called by its place's name.
    pub instance: String,
    /// Such as `web`.
    pub container: Name,
    pub places: Vec<ZonePlace>,
}

/// An instance's addresses on one bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonePlace {
    pub bridge: String,
    pub addresses: Vec<IpAddr>,
}

/// What a container's `/etc/resolv.conf` says before what the host's says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSpec {
    pub server: Ipv4Addr,
    pub search: Name,
}

impl Zone {
    /// `None`: nobody is on a bridge.
    pub(super) fn of(
        stack: &Name,
        bridges: &IndexMap<Name, DesiredBridge>,
        containers: &IndexMap<String, DesiredContainer>,
        services: &ByBridge,
    ) -> Option<Self> {
        let instances: Vec<ZoneInstance> = containers
            .values()
            .filter(|container| !container.spec.endpoints.is_empty())
            .map(|container| ZoneInstance::of(&container.instance, &container.container, &container.spec))
            .collect();
        let mut names: Vec<&Name> = instances.iter().map(|instance| &instance.container).collect();
        names.dedup();
        let place = |bridge: &Name, name: &Name| {
            let address = services.get(bridge.as_str())?.get(name.as_str())?;
            Some(ZonePlace { bridge: bridge.to_string(), addresses: bridges[bridge].both(*address).collect() })
        };
        let places =
            |name: &Name| -> Vec<ZonePlace> { bridges.keys().filter_map(|bridge| place(bridge, name)).collect() };
        let services: Vec<ZoneService> = names
            .into_iter()
            .map(|name| ZoneService { container: name.clone(), places: places(name) })
            .filter(|service| !service.places.is_empty())
            .collect();
        let bridges = bridges
            .iter()
            .map(|(name, bridge)| ZoneBridge {
                name: name.to_string(),
                gateway: bridge.gateway,
                gateway6: bridge.gateway6,
                leads_out: !bridge.internal,
            })
            .collect();
        (!instances.is_empty()).then(|| Zone { stack: stack.clone(), bridges, instances, services })
    }

    /// The same with instance `to`, as `other` has it, in the place of `from`.
    pub fn moved(&self, from: &str, to: &str, other: &Zone) -> Zone {
        let taken = other.instances.iter().find(|one| one.instance == to);
        let place = if self.has(from) { from } else { to };
        let mut zone = self.clone();
        zone.instances.retain(|one| one.instance == place || one.instance != to);
        match zone.instances.iter().position(|one| one.instance == place) {
            Some(place) => drop(zone.instances.splice(place..=place, taken.cloned())),
            None => zone.instances.extend(taken.cloned()),
        }
        zone
    }

    pub fn has(&self, instance: &str) -> bool {
        self.instances.iter().any(|one| one.instance == instance)
    }

    /// Every name with its addresses, for people to read.
    pub fn names(&self) -> BTreeMap<String, String> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for instance in &self.instances {
            let addresses: Vec<String> =
                instance.places.iter().flat_map(|place| &place.addresses).map(IpAddr::to_string).collect();
            let place = slot_of(&instance.instance);
            names.entry(place.to_owned()).or_default().extend(addresses.iter().cloned());
            if place != instance.container.as_str() {
                names.entry(instance.container.to_string()).or_default().extend(addresses);
            }
        }
        for service in &self.services {
            let addresses = service.places.iter().flat_map(|place| &place.addresses).map(IpAddr::to_string);
            names.insert(service.container.to_string(), addresses.collect());
        }
        names.into_iter().map(|(name, addresses)| (name, addresses.join(" "))).collect()
    }
}

impl ZoneInstance {
    /// An instance that was, or will be, made from a spec.
    pub fn of(instance: &str, container: &Name, spec: &ContainerSpec) -> Self {
        let place = |endpoint: &Endpoint| ZonePlace {
            bridge: endpoint.bridge.clone(),
            addresses: endpoint.addresses().collect(),
        };
        let places = spec.endpoints.iter().map(place).collect();
        ZoneInstance { instance: instance.into(), container: container.clone(), places }
    }
}

impl ZoneBridge {
    /// Where it is asked: its gateway addresses with their subnets.
    pub fn gateways(&self) -> impl Iterator<Item = IpNet> {
        [Some(IpNet::V4(self.gateway)), self.gateway6.map(IpNet::V6)].into_iter().flatten()
    }

    pub fn holds(&self, address: IpAddr) -> bool {
        self.gateways().any(|net| net.contains(&address))
    }
}
