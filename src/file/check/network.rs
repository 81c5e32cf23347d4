//! Ports of the host and addresses of bridges: each can be given out once.

use ipnet::{Ipv4Net, Ipv6Net};

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::source::{At, Span};
use crate::file::table::Document;
use crate::model::{IPV6_MIN_MTU, Name, PortBind, PortMap};

pub(super) fn check(document: &Document, drafts: &mut Vec<Draft>) {
    host_ports(document, drafts);
    gateways(document, drafts);
    unreachable_ports(document, drafts);
    subnets(document, drafts);
    subnets6(document, drafts);
    ipv6_ports(document, drafts);
    room(document, drafts);
}

fn host_ports(document: &Document, drafts: &mut Vec<Draft>) {
    let mut seen: Vec<(&Name, &At<PortMap>)> = Vec::new();
    for (name, sheet) in &document.containers.tables {
        for port in &sheet.value.ports {
            if let Some((owner, first)) = seen.iter().find(|(_, first)| first.value.clashes_with(&port.value)) {
                let (number, protocol) = (port.value.host_port, port.value.protocol);
                let message = match owner == &name {
                    true => format!("`{name}` publishes port {number}/{protocol} of the host twice"),
                    false => format!("`{owner}` and `{name}` both publish port {number}/{protocol} of the host"),
                };
                let draft = Draft::error(code::PORT_CLASH, &port.span, message);
                let draft = draft
                    .label(format!("on {}", port.value.bind))
                    .other(&first.span, format!("on {}", first.value.bind));
                drafts.push(draft.help("give one of them another port, or each its own address"));
            }
            seen.push((name, port));
        }
    }
}

/// A way out leads by one of the container's own bridges, and not by an internal one.
fn gateways(document: &Document, drafts: &mut Vec<Draft>) {
    for (name, sheet) in &document.containers.tables {
        let Some(gateway) = &sheet.value.gateway else { continue };
        if !sheet.value.bridges.iter().any(|bridge| bridge.value == gateway.value) {
            let message = format!("`{name}` is not on the bridge `{}`", gateway.value);
            let draft = Draft::error(code::UNKNOWN_REFERENCE, &gateway.span, message);
            drafts.push(draft.help("name one of its own `bridge`s, or leave `gateway` out for the first"));
        } else if let Some(internal) = internal(document, &gateway.value) {
            let message = format!("no way leads out by the internal bridge `{}`", gateway.value);
            let draft = Draft::error(code::BAD_CHOICE, &gateway.span, message);
            drafts.push(draft.other(internal, "has `internal = true`"));
        }
    }
}

/// The bridge's place, if there is one of that name and it is internal.
fn internal<'a>(document: &'a Document, name: &str) -> Option<&'a Span> {
    let (_, at) = document.bridges.tables.iter().find(|(bridge, _)| bridge.as_str() == name)?;
    at.value.bridge.internal.then_some(&at.span)
}

fn unreachable_ports(document: &Document, drafts: &mut Vec<Draft>) {
    for (name, sheet) in &document.containers.tables {
        let Some(port) = sheet.value.ports.first() else { continue };
        if sheet.value.bridges.is_empty() {
            let message = format!("`{name}` publishes a port, but no bridge leads to it");
            let draft =
                Draft::error(code::PORT_WITHOUT_BRIDGE, &port.span, message).other(&sheet.span, "has no `bridge`");
            drafts.push(match document.bridges.names().next() {
                Some(bridge) => draft.help(format!("add `bridge = [\"{bridge}\"]`")),
                None => draft.help("add a table `[bridge.front]`, and `bridge = [\"front\"]` here"),
            });
        }
        let inner = sheet.value.bridges.first().and_then(|bridge| internal(document, &bridge.value));
        if let Some(inner) =
            inner.filter(|_| sheet.value.bridges.iter().all(|b| internal(document, &b.value).is_some()))
        {
            let message = format!("`{name}` publishes a port, and no way leads in by an internal bridge");
            let draft = Draft::error(code::PORT_WITHOUT_BRIDGE, &port.span, message);
            drafts.push(draft.other(inner, "has `internal = true`").help("add a bridge that is not internal"));
        }
        if let Some(replicas) = sheet.value.replicas.as_ref().filter(|_| sheet.value.container.replicas > 1) {
            let message = "`port` on a container with several replicas is not supported yet";
            let draft = Draft::error(code::NOT_YET, &port.span, message).other(replicas, "several replicas");
            drafts.push(draft.help("publish the port of one container that reaches the replicas by name"));
        }
    }
}

fn subnets(document: &Document, drafts: &mut Vec<Draft>) {
    let mut seen: Vec<(&Name, Ipv4Net, Span)> = Vec::new();
    for (name, sheet) in &document.bridges.tables {
        let (Some(subnet), Some(span)) = (sheet.value.bridge.subnet, &sheet.value.subnet_span) else { continue };
        for (other, taken, taken_span) in &seen {
            if taken.contains(&subnet) || subnet.contains(taken) {
                let message = format!("the subnets of `{other}` and `{name}` overlap");
                let draft = Draft::error(code::SUBNET_OVERLAP, span, message).label(subnet.to_string());
                let draft = draft.other(taken_span, format!("{taken}"));
                drafts.push(draft.help("leave `subnet` out, and a free one is chosen"));
            }
        }
        seen.push((name, subnet, span.clone()));
    }
}

fn subnets6(document: &Document, drafts: &mut Vec<Draft>) {
    let mut seen: Vec<(&Name, Ipv6Net, &Span)> = Vec::new();
    for (name, sheet) in &document.bridges.tables {
        let (Some(subnet), Some(span)) = (sheet.value.bridge.subnet6, &sheet.value.subnet6_span) else { continue };
        for (other, taken, taken_span) in &seen {
            if taken.contains(&subnet) || subnet.contains(taken) {
                let message = format!("the IPv6 subnets of `{other}` and `{name}` overlap");
                let draft = Draft::error(code::SUBNET_OVERLAP, span, message).label(subnet.to_string());
                let draft = draft.other(taken_span, format!("{taken}"));
                drafts.push(draft.help("leave `subnet6` out, and a free one is chosen"));
            }
        }
        seen.push((name, subnet, span));
    }
}

/// A port on an IPv6 address leads to a container's IPv6 address, which the bridge of its way out gives it.
fn ipv6_ports(document: &Document, drafts: &mut Vec<Draft>) {
    for (name, sheet) in &document.containers.tables {
        let is_ipv6 = |port: &&At<PortMap>| matches!(port.value.bind, PortBind::Address(address) if address.is_ipv6());
        let Some(port) = sheet.value.ports.iter().find(is_ipv6) else { continue };
        let outward = sheet.value.bridges.iter().find(|bridge| internal(document, &bridge.value).is_none());
        let Some(bridge) = sheet.value.gateway.as_ref().or(outward) else { continue };
        let Some((_, first)) = document.bridges.tables.iter().find(|(name, _)| name.as_str() == bridge.value) else {
            continue;
        };
        let mtu = first.value.bridge.mtu.unwrap_or(u32::MAX);
        if !first.value.bridge.ipv6 || mtu < IPV6_MIN_MTU {
            let message = format!("`{name}` has no IPv6 address for a port on {} to lead to", port.value.bind);
            let draft = Draft::error(code::PORT_WITHOUT_BRIDGE, &port.span, message);
            let why = if first.value.bridge.ipv6 { "its MTU is too small for IPv6" } else { "has `ipv6 = false`" };
            drafts.push(draft.other(&first.span, why).help("publish the port on an IPv4 address or `public`"));
        }
    }
}

/// The subnet's first, its last and the gateway's address are not for containers.
const RESERVED: u64 = 3;

fn room(document: &Document, drafts: &mut Vec<Draft>) {
    for (name, sheet) in &document.bridges.tables {
        let (Some(subnet), Some(span)) = (sheet.value.bridge.subnet, &sheet.value.subnet_span) else { continue };
        let room = (1u64 << (32 - subnet.prefix_len())) - RESERVED;
        let joined = document.containers.tables.values().map(|container| &container.value);
        let users = joined.filter(|sheet| sheet.bridges.iter().any(|bridge| bridge.value == name.as_str()));
        let wanted: u64 = users.map(|sheet| u64::from(sheet.container.replicas)).sum();
        if wanted <= room {
            continue;
        }
        let message = format!("{subnet} has room for {room} containers, and {wanted} are on `{name}`");
        let prefix = 32 - (wanted + RESERVED).next_power_of_two().trailing_zeros();
        let draft = Draft::error(code::SUBNET_TOO_SMALL, span, message).label(format!("room for {room}"));
        let proposal = Ipv4Net::new(subnet.network(), prefix as u8).map(|net| net.trunc());
        drafts.push(draft.maybe_help(proposal.ok().map(|net| format!("for example `subnet = \"{net}\"`"))));
    }
}
