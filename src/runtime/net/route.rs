//! The routes of a network namespace, for the choice of a subnet that is free.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::links::list_links;
use super::netlink::{Family, NetlinkError, Request, Socket, attributes, u32_at};

const RTM_GETROUTE: u16 = 26;
const AF_INET: u8 = 2;

/// An IPv4 route with the name of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: Ipv4Net,
    /// Empty for a route without a link (blackhole, multipath).
    pub interface: String,
}

/// The IPv4 routes of all tables of the calling thread's network namespace, the default routes left out: they overlap
/// every subnet and clash with none. Addresses of the host itself (type local, broadcast) are left out too.
pub fn routes() -> Result<Vec<Route>, NetlinkError> {
    let socket = Socket::open(Family::Route)?;
    let routes = list_routes(&socket)?;
    let links = list_links(&socket)?;
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    Ok(routes
        .into_iter()
        .filter(|route| route.destination.prefix_len() > 0)
        .map(|route| Route {
            destination: route.destination,
            interface: name(route.interface_index).unwrap_or_default(),
        })
        .collect())
}

/// An IPv4 route as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObservedRoute {
    pub destination: Ipv4Net,
    pub gateway: Option<Ipv4Addr>,
    /// Zero for a route without a link.
    pub interface_index: u32,
    pub table: u32,
}

impl ObservedRoute {
    pub const MAIN_TABLE: u32 = 254;
}

pub(super) fn list_routes(socket: &Socket) -> Result<Vec<ObservedRoute>, NetlinkError> {
    let request = Request { kind: RTM_GETROUTE, flags: 0, what: "list the routes" };
    let fill = |bytes: &mut Vec<u8>| {
        bytes.push(AF_INET);
        bytes.extend([0; 11]);
    };
    socket.dump(&request, fill, |routes: &mut Vec<_>, payload| routes.extend(read_route(payload)))
}

fn read_route(payload: &[u8]) -> Option<ObservedRoute> {
    const INFO_BYTES: usize = 12;
    const RTN_LOCAL: u8 = 2;
    const RTN_BROADCAST: u8 = 3;
    const RTN_MULTICAST: u8 = 5;
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_TABLE: u16 = 15;
    let head = payload.get(..INFO_BYTES)?;
    let (family, prefix_length, table, kind) = (head[0], head[1], head[4], head[7]);
    if family != AF_INET || matches!(kind, RTN_LOCAL | RTN_BROADCAST | RTN_MULTICAST) {
        return None;
    }
    let mut route = ObservedRoute {
        destination: Ipv4Net::new(Ipv4Addr::UNSPECIFIED, prefix_length).ok()?,
        gateway: None,
        interface_index: 0,
        table: table.into(),
    };
    let address = |value: &[u8]| Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?));
    for (kind, value) in attributes(&payload[INFO_BYTES..]) {
        match kind {
            RTA_DST => route.destination = Ipv4Net::new(address(value)?, prefix_length).ok()?,
            RTA_OIF => route.interface_index = u32_at(value, 0)?,
            RTA_GATEWAY => route.gateway = address(value),
            RTA_TABLE => route.table = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(route)
}
