//! Connections that still lead to a container which is to go: how many there are, and the datagram flows that must be
//! led elsewhere.
//!
//! A connection is led to where its first packet went for as long as it lives. What leads elsewhere now is therefore
//! followed by new connections alone; the old container has lost its last one when the connection tracker has.

use std::net::IpAddr;

use super::conntrack::{
    AF_UNSPEC, CT_GET, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, DESTINATION, SOURCE, forget, identity, push_head,
    tuple_address, tuple_protocol,
};
use super::nat::NatProtocol;
use super::netlink::{Family, NetlinkError, Request, Socket, attribute};

const CTA_PROTOINFO: u16 = 4;
/// `TCP_CONNTRACK_TIME_WAIT`; this state and those after it are of connections that both sides have closed.
const TIME_WAIT: u8 = 7;

/// The connection tracker of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Flows {
    socket: Socket,
}

/// A tracked flow of which one end is a container's address.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    protocol: u8,
    /// Who began it.
    from: IpAddr,
    /// Whom it was addressed to.
    to: IpAddr,
    /// Who answers; another than `to` where the destination was translated.
    answered_by: IpAddr,
    /// TCP's state, as the connection tracker numbers them.
    state: Option<u8>,
    /// The attributes by which the kernel finds it again.
    identity: Vec<u8>,
}

impl Flow {
    fn is_open_connection_to(&self, address: IpAddr) -> bool {
        let led = self.answered_by == address && self.to != address;
        led && self.protocol != NatProtocol::Udp.number()
            && self.state.is_none_or(|state| (1..TIME_WAIT).contains(&state))
    }

    /// Answers of a container whose flow was forgotten while they were under way begin a flow of their own, which would
    /// lead the client's next datagram back to it.
    fn is_datagram_flow_of(&self, address: IpAddr) -> bool {
        self.protocol == NatProtocol::Udp.number() && (self.answered_by == address || self.from == address)
    }
}

impl Flows {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Family::Netfilter)? })
    }

    /// How many connections that were led to this address are not closed yet. Datagrams are none, and those that were
    /// addressed to it directly are not counted: nobody can take them over.
    pub fn open_connections(&self, address: IpAddr) -> Result<usize, NetlinkError> {
        Ok(self.list(|flow| flow.is_open_connection_to(address))?.len())
    }

    /// Forgets the UDP flows of this address, so that the next datagram of each is looked up anew. Returns how many.
    pub fn forget_datagrams(&self, address: IpAddr) -> Result<usize, NetlinkError> {
        let flows = self.list(|flow| flow.is_datagram_flow_of(address))?;
        forget(&self.socket, flows.iter().map(|flow| (flow.to, &flow.identity[..])))
    }

    fn list(&self, wanted: impl Fn(&Flow) -> bool) -> Result<Vec<Flow>, NetlinkError> {
        let request = Request { kind: CT_GET, flags: 0, what: "list the tracked flows" };
        self.socket.dump(
            &request,
            |bytes| push_head(bytes, AF_UNSPEC),
            |flows: &mut Vec<_>, payload| {
                flows.extend(read_flow(payload).filter(|flow| wanted(flow)));
            },
        )
    }
}

fn read_flow(payload: &[u8]) -> Option<Flow> {
    const HEAD_BYTES: usize = 4;
    const CTA_PROTOINFO_TCP: u16 = 1;
    const CTA_PROTOINFO_TCP_STATE: u16 = 1;
    let rest = payload.get(HEAD_BYTES..)?;
    let original = attribute(rest, CTA_TUPLE_ORIG)?;
    let state = attribute(rest, CTA_PROTOINFO)
        .and_then(|info| attribute(info, CTA_PROTOINFO_TCP))
        .and_then(|tcp| attribute(tcp, CTA_PROTOINFO_TCP_STATE))
        .and_then(|state| state.first().copied());
    Some(Flow {
        protocol: tuple_protocol(original)?,
        from: tuple_address(original, SOURCE)?,
        to: tuple_address(original, DESTINATION)?,
        answered_by: tuple_address(attribute(rest, CTA_TUPLE_REPLY)?, SOURCE)?,
        state,
        identity: identity(rest),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OLD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 70, 0, 2));

    fn flow(protocol: u8, from: IpAddr, to: IpAddr, state: Option<u8>) -> Flow {
        let answered_by = if to == HOST { OLD } else { to };
        Flow { protocol, from, to, answered_by, state, identity: vec![] }
    }

    #[test]
    fn a_connection_is_open_until_both_sides_have_closed_it() {
        for (state, open) in [(1, true), (3, true), (6, true), (7, false), (8, false)] {
            assert_eq!(flow(6, CLIENT, HOST, Some(state)).is_open_connection_to(OLD), open, "state {state}");
        }
        assert!(!flow(17, CLIENT, HOST, None).is_open_connection_to(OLD), "datagrams are led elsewhere instead");
        assert!(!flow(6, CLIENT, OLD, Some(3)).is_open_connection_to(OLD), "a probe from the host itself");
    }

    #[test]
    fn datagrams_to_and_from_a_container_are_its_flows() {
        assert!(flow(17, CLIENT, HOST, None).is_datagram_flow_of(OLD));
        assert!(flow(17, OLD, CLIENT, None).is_datagram_flow_of(OLD));
        assert!(!flow(6, CLIENT, HOST, Some(3)).is_datagram_flow_of(OLD));
        assert!(!flow(17, CLIENT, CLIENT, None).is_datagram_flow_of(OLD));
    }
}
