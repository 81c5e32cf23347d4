//! Ports of the host and addresses of bridges: each can be given out once.

use ipnet::Ipv4Net;

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::source::{At, Span};
use crate::file::table::Document;
use crate::model::{Name, PortMap};

pub(super) fn check(document: &Document, drafts: &mut Vec<Draft>) {
    host_ports(document, drafts);
    unreachable_ports(document, drafts);
    subnets(document, drafts);
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
