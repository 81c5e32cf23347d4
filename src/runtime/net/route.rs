//! The routes of a network namespace, for the choice of a subnet that is free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;

use super::links::list_links;
use super::netlink::{Family, NetlinkError, Request, Socket, attributes, u32_at};

const RTM_GETROUTE: u16 = 26;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A route with the name of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    /// Empty for a route without a link (blackhole, multipath).
    pub interface: String,
}

/// The routes of all tables of the calling thread's network namespace, the default routes left out: they overlap
/// every subnet and clash with none. Addresses of the host itself (type local, broadcast) and those that only hold on one
/// link (fe80::/10, multicast) are left out too.
pub fn routes() -> Result<Vec<Route>, NetlinkError> {
    let socket = Socket::open(Family::Route)?;
    let routes = list_routes(&socket)?;
    let links = list_links(&socket)?;
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    Ok(routes
        .into_iter()
        .filter(|route| route.destination.prefix_len() > 0 && !is_of_one_link(&route.destination))
        .map(|route| Route {
            destination: route.destination,
            interface: name(route.interface_index).unwrap_or_default(),
        })
        .collect())
}

fn is_of_one_link(destination: &IpNet) -> bool {
    matches!(destination.addr(), IpAddr::V6(address) if address.is_unicast_link_local() || address.is_multicast())
}

/// A route as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObservedRoute {
    pub destination: IpNet,
    pub gateway: Option<IpAddr>,
    /// Zero for a route without a link.
    pub interface_index: u32,
    pub table: u32,
}

impl ObservedRoute {
    pub const MAIN_TABLE: u32 = 254;
}

pub(super) fn list_routes(socket: &Socket) -> Result<Vec<ObservedRoute>, NetlinkError> {
    let request = Request { kind: RTM_GETROUTE, flags: 0, what: "list the routes" };
    let mut all: Vec<ObservedRoute> = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let fill = |bytes: &mut Vec<u8>| {
            bytes.push(family);
            bytes.extend([0; 11]);
        };
        let found = socket.dump(&request, fill, |routes: &mut Vec<_>, payload| routes.extend(read_route(payload)));
        match found {
            Ok(routes) => all.extend(routes),
            // A kernel without IPv6 has nobody who lists its routes.
            Err(error) if family == AF_INET6 && error.errno() == Some(Errno::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
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
    let unspecified: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    if matches!(kind, RTN_LOCAL | RTN_BROADCAST | RTN_MULTICAST) {
        return None;
    }
    let mut route = ObservedRoute {
        destination: IpNet::new(unspecified, prefix_length).ok()?,
        gateway: None,
        interface_index: 0,
        table: table.into(),
    };
    let address = |value: &[u8]| -> Option<IpAddr> {
        match <[u8; 4]>::try_from(value) {
            Ok(bytes) => Some(Ipv4Addr::from(bytes).into()),
            Err(_) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        }
    };
    for (kind, value) in attributes(&payload[INFO_BYTES..]) {
        match kind {
            RTA_DST => route.destination = IpNet::new(address(value)?, prefix_length).ok()?,
            RTA_OIF => route.interface_index = u32_at(value, 0)?,
            RTA_GATEWAY => route.gateway = address(value),
            RTA_TABLE => route.table = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(route)
}
