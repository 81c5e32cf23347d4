//! A container's side of its links: addresses and the default route, configured and observed from inside its network
//! namespace, without an async runtime (a monitor has none, and a worker thread of one must never change namespace).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_core::Emitable;
use rtnetlink::packet_route::link::LinkMessage;

use super::link::{Ipv6, ObservedLink, address_message, change, default_route, link_local, raise, silence};
use super::links::list_links;
use super::netlink::{Batch, Family, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NetlinkError, Request, Socket};
use super::route::{ObservedRoute, list_routes};
use super::sysctl::{SysctlError, Sysctls};

const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
/// The loopback link has this index in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// What went wrong inside a network namespace.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("cannot configure the links of the namespace")]
    Configure { source: NetlinkError },
    #[error("cannot keep router advertisements from `{name}`")]
    Advertisements { name: String, source: SysctlError },
    #[error("cannot list what the namespace holds")]
    Observe { source: NetlinkError },
    #[error("the namespace has no link `{name}`")]
    NoLink { name: String },
    #[error("cannot enter the network namespace")]
    Enter { source: Errno },
    #[error("cannot start a thread for the network namespace")]
    Thread { source: std::io::Error },
    #[error("the thread in the network namespace panicked")]
    Panicked,
}

/// One link of a container as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointConfig {
    /// The link's name inside, such as `eth0`.
    pub name: String,
    pub address: Ipv4Net,
    /// Where the default route leads, if it leads by this link.
    pub gateway: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub address6: Option<Ipv6Net>,
    pub gateway6: Option<Ipv6Addr>,
}

impl EndpointConfig {
    fn addresses(&self) -> impl Iterator<Item = IpNet> {
        [Some(IpNet::V4(self.address)), self.address6.map(IpNet::V6)].into_iter().flatten()
    }

    fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        [self.gateway.map(IpAddr::V4), self.gateway6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// What a container's network namespace holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedEndpoint {
    pub links: Vec<ObservedLink>,
    /// The default routes of the main table.
    pub default_routes: Vec<DefaultRoute>,
}

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// `None` for a route straight onto a link.
    pub gateway: Option<IpAddr>,
    /// The name of the link.
    pub interface: String,
}

/// One way in which a namespace is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointDifference {
    #[error("loopback is down")]
    LoopbackDown,
    #[error("link `{name}` is missing")]
    LinkMissing { name: String },
    #[error("link `{name}` is down")]
    LinkDown { name: String },
    #[error("link `{name}` lacks the address {address}")]
    AddressMissing { name: String, address: IpNet },
    #[error("the default route by {gateway} on `{name}` is missing")]
    RouteMissing { name: String, gateway: IpAddr },
}

/// Puts loopback up in the calling thread's network namespace.
pub fn loopback_up() -> Result<(), EndpointError> {
    let socket = Socket::open(Family::Route).map_err(|source| EndpointError::Configure { source })?;
    let mut batch = Batch::new();
    push_loopback(&mut batch);
    socket.transact(&batch).map_err(|source| EndpointError::Configure { source })
}

/// Configures the calling thread's network namespace: loopback and each link up, addresses, default route, in one send.
/// What is already so stays so: it is also the repair.
pub fn configure_endpoint(endpoints: &[EndpointConfig]) -> Result<(), EndpointError> {
    let socket = Socket::open(Family::Route).map_err(|source| EndpointError::Configure { source })?;
    let links = if endpoints.is_empty() {
        Vec::new()
    } else {
        list_links(&socket).map_err(|source| EndpointError::Observe { source })?
    };
    let ipv6 = Ipv6::probe();
    let mut batch = Batch::new();
    push_loopback(&mut batch);
    for endpoint in endpoints {
        let link = links
            .iter()
            .find(|link| link.name == endpoint.name)
            .ok_or_else(|| EndpointError::NoLink { name: endpoint.name.clone() })?;
        if endpoint.address6.is_some() {
            let name = &endpoint.name;
            let failed = |source| EndpointError::Advertisements { name: name.clone(), source };
            Sysctls::default().ignore_advertisements(name).map_err(failed)?;
        }
        push_endpoint(&mut batch, endpoint, link, ipv6);
    }
    socket.transact(&batch).map_err(|source| EndpointError::Configure { source })
}

/// Reads back what the calling thread's network namespace holds.
pub fn observe_endpoint() -> Result<ObservedEndpoint, EndpointError> {
    let observe = |source| EndpointError::Observe { source };
    let socket = Socket::open(Family::Route).map_err(observe)?;
    let links = list_links(&socket).map_err(observe)?;
    let routes = list_routes(&socket).map_err(observe)?;
    let default_routes = routes
        .into_iter()
        .filter(|route| route.destination.prefix_len() == 0 && route.table == ObservedRoute::MAIN_TABLE)
        .filter_map(|route| {
            let interface = links.iter().find(|link| link.index == route.interface_index)?.name.clone();
            Some(DefaultRoute { gateway: route.gateway, interface })
        })
        .collect();
    Ok(ObservedEndpoint { links, default_routes })
}

/// How `observed` differs from what was declared, on declared fields only.
pub fn endpoint_differences(declared: &[EndpointConfig], observed: &ObservedEndpoint) -> Vec<EndpointDifference> {
    let mut differences = Vec::new();
    if !observed.links.iter().any(|link| link.index == LOOPBACK_INDEX && link.up) {
        differences.push(EndpointDifference::LoopbackDown);
    }
    for endpoint in declared {
        let name = || endpoint.name.clone();
        let Some(link) = observed.links.iter().find(|link| link.name == endpoint.name) else {
            differences.push(EndpointDifference::LinkMissing { name: name() });
            continue;
        };
        if !link.up {
            differences.push(EndpointDifference::LinkDown { name: name() });
        }
        let missing = endpoint.addresses().filter(|address| !link.addresses.contains(address));
        differences.extend(missing.map(|address| EndpointDifference::AddressMissing { name: name(), address }));
        for gateway in endpoint.gateways() {
            let wanted = DefaultRoute { gateway: Some(gateway), interface: name() };
            if !observed.default_routes.contains(&wanted) {
                differences.push(EndpointDifference::RouteMissing { name: name(), gateway });
            }
        }
    }
    differences
}

/// Runs `work` in the network namespace `netns`, on a thread of its own that ends with it, so that the caller's thread
/// never changes namespace.
pub fn in_netns<T: Send>(netns: OwnedFd, work: impl FnOnce() -> T + Send) -> Result<T, EndpointError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, move || {
                setns(&netns, CloneFlags::CLONE_NEWNET).map_err(|source| EndpointError::Enter { source })?;
                Ok(work())
            })
            .map_err(|source| EndpointError::Thread { source })?;
        thread.join().unwrap_or(Err(EndpointError::Panicked))
    })
}

fn push_loopback(batch: &mut Batch) {
    let mut message = change(LOOPBACK_INDEX);
    raise(&mut message);
    push_link(batch, &message, "put loopback up");
}

fn push_endpoint(batch: &mut Batch, endpoint: &EndpointConfig, link: &ObservedLink, ipv6: Ipv6) {
    let name = &endpoint.name;
    // Before the link is up, or the kernel would have made its address already.
    if let Some(message) = silence(link.index, link.mtu, ipv6) {
        push_link(batch, &message, &format!("keep `{name}` from making addresses"));
    }
    for address in endpoint.addresses().chain(endpoint.address6.map(|address| link_local(address).into())) {
        let what = format!("give `{name}` the address {address}");
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let request = Request { kind: RTM_NEWADDR, flags, what: &what };
        batch.push(&request, |bytes| emit(bytes, &address_message(link.index, address)));
    }
    let mut message = change(link.index);
    raise(&mut message);
    push_link(batch, &message, &format!("put `{name}` up"));
    for gateway in endpoint.gateways() {
        let what = format!("lead the default route of `{name}` by {gateway}");
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let request = Request { kind: RTM_NEWROUTE, flags, what: &what };
        batch.push(&request, |bytes| emit(bytes, &default_route(link.index, gateway)));
    }
}

fn push_link(batch: &mut Batch, message: &LinkMessage, what: &str) {
    let request = Request { kind: RTM_SETLINK, flags: NLM_F_ACK, what };
    batch.push(&request, |bytes| emit(bytes, message));
}

fn emit(bytes: &mut Vec<u8>, message: &impl Emitable) {
    let start = bytes.len();
    bytes.resize(start + message.buffer_len(), 0);
    message.emit(&mut bytes[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, addresses: &[&str]) -> ObservedLink {
        ObservedLink {
            index,
            name: name.into(),
            alias: None,
            kind: String::new(),
            up: true,
            carrier: true,
            mtu: 1500,
            master: None,
            mac: None,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn declared() -> Vec<EndpointConfig> {
        vec![EndpointConfig {
            name: "eth0".into(),
            address: "10.70.0.2/26".parse().unwrap(),
            gateway: Some("10.70.0.1".parse().unwrap()),
            address6: Some("fd12::2/64".parse().unwrap()),
            gateway6: Some("fd12::1".parse().unwrap()),
        }]
    }

    #[test]
    fn each_fault_of_a_namespace_is_named() {
        let route = |gateway: &str| DefaultRoute { gateway: Some(gateway.parse().unwrap()), interface: "eth0".into() };
        let mut observed = ObservedEndpoint {
            links: vec![link(1, "lo", &["127.0.0.1/8"]), link(2, "eth0", &["10.70.0.2/26", "fd12::2/64"])],
            default_routes: vec![route("10.70.0.1"), route("fd12::1")],
        };
        assert_eq!(endpoint_differences(&declared(), &observed), []);
        observed.links[0].up = false;
        observed.links[1].up = false;
        observed.links[1].addresses.clear();
        observed.default_routes.clear();
        let texts: Vec<_> = endpoint_differences(&declared(), &observed).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "loopback is down",
                "link `eth0` is down",
                "link `eth0` lacks the address 10.70.0.2/26",
                "link `eth0` lacks the address fd12::2/64",
                "the default route by 10.70.0.1 on `eth0` is missing",
                "the default route by fd12::1 on `eth0` is missing"
            ]
        );
        observed.links.clear();
        assert!(
            endpoint_differences(&declared(), &observed)
                .contains(&EndpointDifference::LinkMissing { name: "eth0".into() })
        );
    }
}
