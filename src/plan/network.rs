//! Bridges and addresses, decided: who is where, who is called how, and where ports and services lead.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use indexmap::IndexMap;
use ipnet::Ipv4Net;

use super::address::room_of;
use super::desire::Names;
use super::generation::order_of;
use super::{
    ContainerSpec, DesireError, DesiredBridge, DesiredNat, Endpoint, HostsLine, Kept, Order, PortTarget, ServiceTarget,
    choose_subnet, hand_out, instances,
};
use crate::model::{Container, Name, PortMap, Stack};

/// What is decided about bridges and addresses, for the containers on them.
pub(super) struct Network<'a> {
    pub bridges: &'a IndexMap<Name, DesiredBridge>,
    /// By bridge, then by instance.
    pub addresses: &'a ByBridge,
    /// By bridge, then by container.
    pub services: &'a ByBridge,
    pub names: &'a Names,
}

pub(super) type ByBridge = BTreeMap<String, BTreeMap<String, Ipv4Addr>>;

pub(super) struct Addresses {
    pub of_instances: ByBridge,
    pub of_services: ByBridge,
}

/// Whether peers call a container by an address that outlives its instances: where there are several, or where another one
/// may take its place while it runs.
fn is_service(container: &Container) -> bool {
    container.replicas > 1 || order_of(container) == Order::StartFirst
}

/// What stands before a service's name where addresses are handed out; no instance is called so.
const SERVICE: &str = "service ";

pub(super) fn decide_subnets(stack: &Stack, kept: &Kept) -> Result<BTreeMap<String, Ipv4Net>, DesireError> {
    let mut subnets = BTreeMap::new();
    for (name, bridge) in &stack.bridges {
        let Some(subnet) = bridge.subnet else { continue };
        let clash = kept.routes.iter().find(|(route, _)| {
            route.prefix_len() > 0 && (route.contains(&subnet.network()) || subnet.contains(&route.network()))
        });
        if let Some((route, link)) = clash {
            return Err(DesireError::SubnetTaken { bridge: name.clone(), subnet, route: *route, link: link.clone() });
        }
        subnets.insert(name.to_string(), subnet);
    }
    for (name, bridge) in &stack.bridges {
        if bridge.subnet.is_some() {
            continue;
        }
        let taken: Vec<Ipv4Net> = kept.routes.iter().map(|(net, _)| *net).chain(subnets.values().copied()).collect();
        let held = kept.subnets.get(name.as_str()).copied();
        let subnet = match held.filter(|subnet| !subnets.values().any(|other| other == subnet)) {
            Some(subnet) => subnet,
            None => choose_subnet(stack.name.as_str(), name.as_str(), &taken)?,
        };
        subnets.insert(name.to_string(), subnet);
    }
    Ok(subnets)
}

pub(super) fn decide_addresses(
    stack: &Stack,
    subnets: &BTreeMap<String, Ipv4Net>,
    kept: &Kept,
    names: &Names,
) -> Result<Addresses, DesireError> {
    let none = BTreeMap::new();
    let (mut of_instances, mut of_services) = (ByBridge::new(), ByBridge::new());
    for (bridge, subnet) in subnets {
        let joined = || stack.containers.iter().filter(|(_, c)| c.bridges.iter().any(|b| b.as_str() == bridge));
        let mut wanted: Vec<String> = joined()
            .flat_map(|(name, container)| instances(name, container))
            .map(|slot| names[&slot].clone())
            .collect();
        let mut held = kept.addresses.get(bridge).unwrap_or(&none).clone();
        let services = kept.services.get(bridge).unwrap_or(&none);
        held.extend(services.iter().map(|(name, address)| (format!("{SERVICE}{name}"), *address)));
        // Containers come first: a service that finds no room is called by the addresses of its instances.
        let going = held.keys().filter(|name| !wanted.contains(name) && !name.starts_with(SERVICE)).count();
        let room = room_of(*subnet).saturating_sub(wanted.len() + going);
        wanted.extend(joined().filter(|(_, c)| is_service(c)).map(|(name, _)| format!("{SERVICE}{name}")).take(room));
        let given = hand_out(bridge, *subnet, &wanted, &held)?;
        let (services, containers): (Vec<_>, Vec<_>) =
            given.into_iter().partition(|(name, _)| name.starts_with(SERVICE));
        of_instances.insert(bridge.clone(), containers.into_iter().collect());
        let named = |(name, address): (String, Ipv4Addr)| (name[SERVICE.len()..].to_owned(), address);
        of_services.insert(bridge.clone(), services.into_iter().map(named).collect());
    }
    Ok(Addresses { of_instances, of_services })
}

pub(super) fn endpoints(container: &Container, instance: &str, network: &Network) -> Vec<Endpoint> {
    container
        .bridges
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let bridge = &network.bridges[name];
            Endpoint {
                bridge: name.to_string(),
                interface: format!("eth{index}"),
                address: network.addresses[name.as_str()][instance],
                prefix: bridge.gateway.prefix_len(),
                gateway: (index == 0).then(|| bridge.gateway.addr()),
                mtu: bridge.mtu,
            }
        })
        .collect()
}

/// Who can be called by name on the bridges that this instance is on: itself at its own address, a service at the address
/// that outlives its instances, replicas each at its own too, and every other container at its own.
pub(super) fn hosts(stack: &Stack, spec: &ContainerSpec, instance: &str, network: &Network) -> Vec<HostsLine> {
    let mut lines = Vec::new();
    for endpoint in &spec.endpoints {
        let bridge = &endpoint.bridge;
        for (name, container) in &stack.containers {
            if !container.bridges.iter().any(|joined| joined.as_str() == bridge) {
                continue;
            }
            let service = network.services[bridge].get(name.as_str());
            let slots = instances(name, container);
            let is_own = slots.iter().any(|slot| network.names[slot] == instance);
            // Its own name leads a container to itself: programs listen on the address of their host name.
            if let Some(address) = service.filter(|_| slots.len() > 1 || !is_own) {
                lines.push(HostsLine { address: *address, names: vec![name.to_string()] });
            }
            for slot in slots {
                let other = &network.names[&slot];
                let mut names = Vec::new();
                if slot != name.as_str() || service.is_none() || other == instance {
                    names.push(slot.clone());
                }
                if slot != name.as_str() && service.is_none() {
                    names.push(name.to_string());
                }
                if other == instance && spec.hostname != slot {
                    names.push(spec.hostname.clone());
                }
                if !names.is_empty() {
                    lines.push(HostsLine { address: network.addresses[bridge][other], names });
                }
            }
        }
    }
    if spec.endpoints.is_empty() {
        lines.push(HostsLine { address: Ipv4Addr::LOCALHOST, names: vec![spec.hostname.clone()] });
    }
    lines
}

pub(super) fn desire_nat(stack: &Stack, network: &Network) -> DesiredNat {
    let (mut ports, mut services) = (Vec::new(), Vec::new());
    for (name, container) in &stack.containers {
        let instances: Vec<&String> = instances(name, container).iter().map(|slot| &network.names[slot]).collect();
        for (place, bridge) in container.bridges.iter().enumerate() {
            for instance in &instances {
                let target = network.addresses[bridge.as_str()][*instance];
                if place == 0 {
                    let published =
                        |port: &PortMap| PortTarget { instance: (*instance).clone(), port: *port, address: target };
                    ports.extend(container.ports.iter().map(published));
                }
                services.extend(network.services[bridge.as_str()].get(name.as_str()).map(|address| ServiceTarget {
                    service: name.to_string(),
                    bridge: bridge.to_string(),
                    address: *address,
                    instance: (*instance).clone(),
                    target,
                }));
            }
        }
    }
    let bridges = network.bridges.iter().map(|(name, bridge)| (name.to_string(), bridge.clone())).collect();
    DesiredNat { bridges, ports, services }
}
