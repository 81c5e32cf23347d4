//! Bridges and addresses, decided: who is where, who is called how, and where ports and services lead.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use indexmap::IndexMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::address::{overlap, room_of};
use super::desire::Names;
use super::generation::order_of;
use super::{
    ContainerSpec, DesireError, DesiredBridge, DesiredNat, Endpoint, HostsLine, Kept, Order, PortTarget, ServiceTarget,
    choose_subnet, choose_subnet6, hand_out, instances, promises,
};
use crate::model::{Bridge, Container, IPV6_MIN_MTU, Name, PortBind, PortMap, Stack};

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
        free_of_routes(name, subnet.into(), kept)?;
        subnets.insert(name.to_string(), subnet);
    }
    for (name, bridge) in &stack.bridges {
        if bridge.subnet.is_some() {
            continue;
        }
        let ours = subnets.values().map(|subnet| IpNet::V4(*subnet));
        let taken: Vec<IpNet> = kept.routes.iter().map(|(net, _)| *net).chain(ours).collect();
        let held = kept.subnets.get(name.as_str()).copied();
        let subnet = match held.filter(|subnet| !subnets.values().any(|other| other == subnet)) {
            Some(subnet) => subnet,
            None => choose_subnet(stack.name.as_str(), name.as_str(), &taken)?,
        };
        subnets.insert(name.to_string(), subnet);
    }
    Ok(subnets)
}

/// An error names the route that a subnet of the file overlaps.
fn free_of_routes(bridge: &Name, subnet: IpNet, kept: &Kept) -> Result<(), DesireError> {
    match kept.routes.iter().find(|(route, _)| overlap(&subnet, route)) {
        None => Ok(()),
        Some((route, link)) => {
            Err(DesireError::SubnetTaken { bridge: bridge.clone(), subnet, route: *route, link: link.clone() })
        }
    }
}

/// Bytes; the kernel's own choice unless told.
pub(super) fn mtu(bridge: &Bridge) -> u32 {
    bridge.mtu.unwrap_or(1500)
}

/// Whether the file wants IPv6 on it; whether the host has it is another matter.
fn wants_ipv6(bridge: &Bridge) -> bool {
    bridge.ipv6 && mtu(bridge) >= IPV6_MIN_MTU
}

/// IPv6 subnets of the bridges that carry it.
pub(super) fn decide_subnets6(stack: &Stack, kept: &Kept) -> Result<BTreeMap<String, Ipv6Net>, DesireError> {
    let mut subnets = BTreeMap::new();
    if !kept.ipv6 {
        return Ok(subnets);
    }
    for (name, bridge) in stack.bridges.iter().filter(|(_, bridge)| wants_ipv6(bridge)) {
        let subnet = match (bridge.subnet6, kept.subnets6.get(name.as_str())) {
            (Some(subnet), _) => {
                free_of_routes(name, subnet.into(), kept)?;
                subnet
            }
            (None, Some(held)) if held.prefix_len() == 64 => *held,
            (None, _) => {
                let taken: Vec<IpNet> = kept.routes.iter().map(|(net, _)| *net).collect();
                choose_subnet6(stack.name.as_str(), name.as_str(), &taken)?
            }
        };
        subnets.insert(name.to_string(), subnet);
    }
    Ok(subnets)
}

pub(super) fn notes(stack: &Stack, kept: &Kept) -> Vec<String> {
    let without = !kept.ipv6 && stack.bridges.values().any(wants_ipv6);
    let note =
        "this host has no IPv6 (none in its kernel, or net.ipv6.conf.all.disable_ipv6 is 1): bridges carry IPv4 alone";
    let promises = kept.capacity.map(|capacity| promises(stack, &capacity)).unwrap_or_default();
    without.then(|| note.to_string()).into_iter().chain(promises).collect()
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

pub(super) fn endpoints(
    container: &Container,
    way_out: Option<&Name>,
    instance: &str,
    network: &Network,
) -> Vec<Endpoint> {
    container
        .bridges
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let bridge = &network.bridges[name];
            let address = network.addresses[name.as_str()][instance];
            Endpoint {
                bridge: name.to_string(),
                interface: format!("eth{index}"),
                address,
                prefix: bridge.gateway.prefix_len(),
                gateway: (way_out == Some(name)).then(|| bridge.gateway.addr()),
                address6: bridge.address6(address),
                gateway6: bridge.gateway6.filter(|_| way_out == Some(name)).map(|gateway| gateway.addr()),
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
        let lines_of = |address: Ipv4Addr, names: &[String]| -> Vec<HostsLine> {
            let both = network.bridges[bridge.as_str()].both(address);
            both.map(|address| HostsLine { address, names: names.to_vec() }).collect()
        };
        for (name, container) in &stack.containers {
            if !container.bridges.iter().any(|joined| joined.as_str() == bridge) {
                continue;
            }
            let service = network.services[bridge].get(name.as_str());
            let slots = instances(name, container);
            let is_own = slots.iter().any(|slot| network.names[slot] == instance);
            // Its own name leads a container to itself: programs listen on the address of their host name.
            if let Some(address) = service.filter(|_| slots.len() > 1 || !is_own) {
                lines.extend(lines_of(*address, &[name.to_string()]));
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
                    lines.extend(lines_of(network.addresses[bridge][other], &names));
                }
            }
        }
    }
    if spec.endpoints.is_empty() {
        lines.push(HostsLine { address: Ipv4Addr::LOCALHOST.into(), names: vec![spec.hostname.clone()] });
    }
    lines
}

pub(super) fn desire_nat(stack: &Stack, network: &Network) -> Result<DesiredNat, DesireError> {
    let (mut ports, mut services) = (Vec::new(), Vec::new());
    for (name, container) in &stack.containers {
        let way_in = stack.way_out(container);
        let instances: Vec<&String> = instances(name, container).iter().map(|slot| &network.names[slot]).collect();
        for bridge in &container.bridges {
            let (desired, service) = (&network.bridges[bridge], network.services[bridge.as_str()].get(name.as_str()));
            for instance in &instances {
                let targets: Vec<IpAddr> = desired.both(network.addresses[bridge.as_str()][*instance]).collect();
                for port in container.ports.iter().filter(|_| way_in == Some(bridge)) {
                    let reached: Vec<IpAddr> = targets.iter().copied().filter(|to| leads_to(port, *to)).collect();
                    if reached.is_empty() {
                        return Err(DesireError::NoIpv6 { container: name.clone(), port: *port });
                    }
                    let target = |address| PortTarget { instance: (*instance).clone(), port: *port, address };
                    ports.extend(reached.into_iter().map(target));
                }
                let addresses = service.into_iter().flat_map(|address| desired.both(*address));
                services.extend(addresses.zip(&targets).map(|(address, target)| ServiceTarget {
                    service: name.to_string(),
                    bridge: bridge.to_string(),
                    address,
                    instance: (*instance).clone(),
                    target: *target,
                }));
            }
        }
    }
    let bridges = network.bridges.iter().map(|(name, bridge)| (name.to_string(), bridge.clone())).collect();
    Ok(DesiredNat { bridges, ports, services })
}

/// Whether what comes to a published port can be led to an address of this protocol.
fn leads_to(port: &PortMap, target: IpAddr) -> bool {
    match port.bind {
        PortBind::Address(address) => address.is_ipv4() == target.is_ipv4(),
        PortBind::Public => true,
    }
}
