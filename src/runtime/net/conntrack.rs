//! Flows that the connection tracker remembers. A translation is chosen with the first packet of a flow and kept as long
//! as packets come; a UDP client that never falls silent would thus go on sending to where a port led before.
//!
//! TCP connections are left alone: they end by themselves, and until then belong to whom they were opened with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nat::{NatPortMapping, NatProtocol};
use super::netlink::{Batch, Family, NLM_F_ACK, NetlinkError, Request, Socket, attribute};

use super::links::list_links;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*`.
pub(super) const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
pub(super) const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Forgets the UDP flows that were addressed to these published ports; see `Nft::forget_udp_flows`. `socket` speaks to
/// netfilter.
pub(super) fn forget_udp_flows(socket: &Socket, mappings: &[NatPortMapping]) -> Result<usize, NetlinkError> {
    let mappings: Vec<_> = mappings.iter().filter(|mapping| mapping.protocol == NatProtocol::Udp).collect();
    if mappings.is_empty() {
        return Ok(0);
    }
    let own = own_addresses()?;
    let request = Request { kind: CT_GET, flags: 0, what: "list the tracked flows" };
    let doomed: Vec<Flow> = socket.dump(
        &request,
        |bytes| push_head(bytes, AF_UNSPEC),
        |flows: &mut Vec<_>, payload| {
            let flow = read_flow(payload);
            flows.extend(flow.filter(|flow| mappings.iter().any(|mapping| flow.concerns(mapping, &own))));
        },
    )?;
    forget(socket, doomed.iter().map(|flow| (flow.sent_to.0, &flow.identity[..])))
}

/// Forgets flows, each told by an address of it and its identity, and counts those that were still there.
pub(super) fn forget<'a>(
    socket: &Socket,
    flows: impl IntoIterator<Item = (IpAddr, &'a [u8])>,
) -> Result<usize, NetlinkError> {
    let mut forgotten = 0;
    for (address, identity) in flows {
        let mut batch = Batch::new();
        batch.push(&Request { kind: CT_DELETE, flags: NLM_F_ACK, what: "forget a flow" }, |bytes| {
            push_head(bytes, if address.is_ipv4() { AF_INET } else { AF_INET6 });
            bytes.extend(identity);
        });
        match socket.transact(&batch) {
            Ok(()) => forgotten += 1,
            // It ended by itself meanwhile.
            Err(error) if error.errno() == Some(nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}

fn own_addresses() -> Result<Vec<IpAddr>, NetlinkError> {
    let links = list_links(&Socket::open(Family::Route)?)?;
    Ok(links.iter().flat_map(|link| &link.addresses).map(|net| net.addr()).collect())
}

/// `struct nfgenmsg`.
pub(super) fn push_head(bytes: &mut Vec<u8>, family: u8) {
    bytes.extend([family, 0, 0, 0]);
}

/// A tracked UDP flow.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    /// Where the first packet was sent to.
    sent_to: End,
    /// Who answers: the same, unless the destination was translated.
    answered_by: End,
    /// The attributes by which the kernel finds it again, as it gave them.
    identity: Vec<u8>,
}

impl Flow {
    fn concerns(&self, mapping: &NatPortMapping, own: &[IpAddr]) -> bool {
        let address = mapping.bind.address();
        let sent_here = self.sent_to.1 == mapping.host_port && address.is_none_or(|address| address == self.sent_to.0);
        let untranslated = self.answered_by == self.sent_to && own.contains(&self.sent_to.0);
        sent_here && (self.answered_by == mapping.target || untranslated)
    }
}

fn read_flow(payload: &[u8]) -> Option<Flow> {
    const HEAD_BYTES: usize = 4;
    let rest = payload.get(HEAD_BYTES..)?;
    let original = attribute(rest, CTA_TUPLE_ORIG)?;
    let (_, sent_to) = read_tuple(original)?;
    let (answered_by, _) = read_tuple(attribute(rest, CTA_TUPLE_REPLY)?)?;
    Some(Flow { sent_to, answered_by, identity: identity(rest) })
}

/// What of a flow's attributes the kernel finds it again by, as it gave them.
pub(super) fn identity(attributes: &[u8]) -> Vec<u8> {
    let mut identity = Vec::new();
    for (kind, nested) in [(CTA_TUPLE_ORIG, Nested::Yes), (CTA_ID, Nested::No), (CTA_ZONE, Nested::No)] {
        if let Some(value) = attribute(attributes, kind) {
            push_attribute(&mut identity, kind, nested, value);
        }
    }
    identity
}

enum Nested {
    Yes,
    No,
}

fn push_attribute(bytes: &mut Vec<u8>, kind: u16, nested: Nested, value: &[u8]) {
    const NLA_F_NESTED: u16 = 0x8000;
    let flag = if matches!(nested, Nested::Yes) { NLA_F_NESTED } else { 0 };
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend((kind | flag).to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One end of a flow.
type End = (IpAddr, u16);

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
/// The attributes of a tuple's source and destination among the IPv4 addresses; those of IPv6 come after both.
pub(super) const SOURCE: u16 = 1;
pub(super) const DESTINATION: u16 = 2;
const TO_IPV6: u16 = 2;

/// An address of a tuple.
pub(super) fn tuple_address(tuple: &[u8], which: u16) -> Option<IpAddr> {
    let addresses = attribute(tuple, CTA_TUPLE_IP)?;
    Some(match attribute(addresses, which) {
        Some(bytes) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        None => Ipv6Addr::from(<[u8; 16]>::try_from(attribute(addresses, which + TO_IPV6)?).ok()?).into(),
    })
}

/// The number of a tuple's transport protocol.
pub(super) fn tuple_protocol(tuple: &[u8]) -> Option<u8> {
    attribute(attribute(tuple, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?.first().copied()
}

/// Source and destination of a tuple, if it is UDP.
fn read_tuple(tuple: &[u8]) -> Option<(End, End)> {
    const SOURCE_PORT: u16 = 2;
    const DESTINATION_PORT: u16 = 3;
    if tuple_protocol(tuple)? != NatProtocol::Udp.number() {
        return None;
    }
    let ports = attribute(tuple, CTA_TUPLE_PROTO)?;
    let end = |address, port| {
        let port = <[u8; 2]>::try_from(attribute(ports, port)?).ok()?;
        Some((tuple_address(tuple, address)?, u16::from_be_bytes(port)))
    };
    Some((end(SOURCE, SOURCE_PORT)?, end(DESTINATION, DESTINATION_PORT)?))
}

#[cfg(test)]
mod tests {
    use super::super::nat::NatBind;
    use super::*;

    const TARGET: End = (IpAddr::V4(Ipv4Addr::new(10, 70, 0, 2)), 53);
    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn check(bind: NatBind, sent_to: End, answered_by: End) -> bool {
        let mapping = NatPortMapping { bind, host_port: 5353, protocol: NatProtocol::Udp, target: TARGET };
        Flow { sent_to, answered_by, identity: Vec::new() }.concerns(&mapping, &[HOST])
    }

    #[test]
    fn a_flow_to_the_target_is_concerned() {
        assert!(check(NatBind::Public, (HOST, 5353), TARGET));
        assert!(check(NatBind::Address(HOST), (HOST, 5353), TARGET));
        assert!(!check(NatBind::Loopback, (HOST, 5353), TARGET), "another address of the host");
        assert!(!check(NatBind::Public, (HOST, 5354), TARGET), "another port");
    }

    #[test]
    fn a_flow_from_before_the_port_was_published_is_concerned() {
        assert!(check(NatBind::Public, (HOST, 5353), (HOST, 5353)));
    }

    #[test]
    fn a_flow_on_its_way_through_the_host_is_not() {
        let elsewhere = (IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), 5353);
        assert!(!check(NatBind::Public, elsewhere, elsewhere));
    }
}
