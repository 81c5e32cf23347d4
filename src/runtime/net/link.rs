//! Links as values: what is wished for, what the kernel holds, and the messages in between. Nothing here speaks to the
//! kernel; that is left to `links` and `endpoint`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use rtnetlink::packet_route::AddressFamily as RouteFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::mac::generate_veth_mac;
use super::netlink::{attribute, attributes, text_of, u32_at};

/// The longest name of an interface, in bytes (`IFNAMSIZ` less its NUL).
pub const MAX_INTERFACE_NAME: usize = 15;
/// The longest alias of an interface, in bytes (`IFALIASZ` less its NUL).
pub const MAX_ALIAS: usize = 255;
/// Below this MTU the kernel gives a link no IPv6 at all, and refuses settings for it.
pub const IPV6_MIN_MTU: u32 = 1280;
/// `ARPHRD_ETHER` and the like stand in the header; `IFF_UP` is all we read of its flags.
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;

/// A bridge as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    pub name: String,
    /// The gateway's address with the length of the subnet's prefix.
    pub address: Ipv4Net,
    /// The same for IPv6. The MTU must be 1280 at least with it.
    pub address6: Option<Ipv6Net>,
    /// Bytes.
    pub mtu: u32,
    /// The label; it is written last, so that a bridge without it is known to be unfinished.
    pub alias: String,
}

/// A veth pair as it is to be: one end a port of a bridge, the peer in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethSpec {
    pub host_name: String,
    /// The label of the host's end, written last.
    pub alias: String,
    pub bridge_index: u32,
    /// Bytes, of both ends.
    pub mtu: u32,
    /// The peer's name in its namespace, such as `eth0`.
    pub peer_name: String,
    pub peer_mac: [u8; 6],
    /// A process in whose network namespace the peer is created.
    pub netns_pid: u32,
}

/// A link as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedLink {
    pub index: u32,
    pub name: String,
    pub alias: Option<String>,
    /// `bridge`, `veth`, …; empty for links without a kind, such as `lo` or a network card.
    pub kind: String,
    pub up: bool,
    /// Whether the other end of a veth pair is up too (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Bytes.
    pub mtu: u32,
    /// The index of the bridge whose port it is.
    pub master: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub addresses: Vec<IpNet>,
}

/// Whether this kernel has IPv6 at all; settings for it are refused where it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ipv6 {
    Present,
    Absent,
}

impl Ipv6 {
    pub fn probe() -> Self {
        match socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) {
            Ok(_) => Self::Present,
            Err(_) => Self::Absent,
        }
    }

    /// No address of its own making: one that nobody declared is a way in that nobody declared.
    fn silence(self, mtu: u32) -> Option<LinkAttribute> {
        (self == Self::Present && mtu >= IPV6_MIN_MTU).then(|| {
            let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
        })
    }
}

/// A new bridge: name and kind only; see [`finish_bridge`] for why the rest comes second.
///
/// Spanning tree is off and a port forwards at once. The address of the device is fixed, else it would change with the
/// ports and leave every container with a stale neighbour entry.
pub(super) fn create_bridge(spec: &BridgeSpec) -> LinkMessage {
    let mut message = LinkMessage::default();
    let settings = vec![InfoBridge::StpState(BridgeStpState::Disabled), InfoBridge::ForwardDelay(0)];
    message.attributes = vec![
        LinkAttribute::IfName(spec.name.clone()),
        LinkAttribute::Address(generate_veth_mac(spec.address.addr()).to_vec()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(settings))]),
    ];
    message
}

/// MTU, silence on IPv6, label and up, by index. The MTU is set here and not at creation: only a change of it tells the
/// kernel that it is ours, otherwise the bridge follows its ports and falls back to 1500 with the last of them.
pub(super) fn finish_bridge(index: u32, spec: &BridgeSpec, ipv6: Ipv6) -> LinkMessage {
    let mut message = change(index);
    message.attributes = vec![LinkAttribute::Mtu(spec.mtu), LinkAttribute::IfAlias(spec.alias.clone())];
    message.attributes.extend(ipv6.silence(spec.mtu));
    raise(&mut message);
    message
}

/// What of [`finish_bridge`] comes before its IPv6 addresses.
pub(super) fn raise_bridge(index: u32, spec: &BridgeSpec, ipv6: Ipv6) -> LinkMessage {
    let mut message = change(index);
    message.attributes = vec![LinkAttribute::Mtu(spec.mtu)];
    message.attributes.extend(ipv6.silence(spec.mtu));
    raise(&mut message);
    message
}

/// A new veth pair, complete but for what the kernel takes only afterwards ([`finish_veth`]).
pub(super) fn create_veth(spec: &VethSpec) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(spec.peer_name.clone()),
        LinkAttribute::Address(spec.peer_mac.to_vec()),
        LinkAttribute::Mtu(spec.mtu),
        LinkAttribute::NetNsPid(spec.netns_pid),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(spec.host_name.clone()),
        LinkAttribute::Mtu(spec.mtu),
        LinkAttribute::Controller(spec.bridge_index),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    message
}

/// Label, hairpin mode, silence on IPv6 and up, by name.
///
/// Hairpin mode lets a frame leave by the port that it came in by. A container that asks for its own published port
/// needs it where the kernel filters bridged frames (`bridge-nf-call-iptables`) and translates them inside the bridge.
pub(super) fn finish_veth(spec: &VethSpec, ipv6: Ipv6) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(spec.host_name.clone()),
        LinkAttribute::IfAlias(spec.alias.clone()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]),
    ];
    message.attributes.extend(ipv6.silence(spec.mtu));
    raise(&mut message);
    message
}

/// A change of the link with that index; attributes are added by the caller.
pub(super) fn change(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// Silence on IPv6 alone, by index, if there is anything to silence.
pub(super) fn silence(index: u32, mtu: u32, ipv6: Ipv6) -> Option<LinkMessage> {
    let attribute = ipv6.silence(mtu)?;
    let mut message = change(index);
    message.attributes = vec![attribute];
    Some(message)
}

pub(super) fn raise(message: &mut LinkMessage) {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
}

/// An address of a link. One of IPv6 is in use at once: whoever hands the addresses out gives none twice, so the kernel
/// need not ask the link for a second (RFC 4862 5.4), which takes it a second.
pub(super) fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.prefix_len = address.prefix_len();
    message.header.scope = rtnetlink::packet_route::address::AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    match address {
        IpNet::V4(address) => {
            message.header.family = RouteFamily::Inet;
            if address.prefix_len() < 31 {
                message.attributes.push(AddressAttribute::Broadcast(address.broadcast()));
            }
        }
        IpNet::V6(_) => {
            message.header.family = RouteFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    message
}

/// The link-local address that stands beside a declared IPv6 address: the kernel asks its neighbours from it when it
/// forwards, and when it makes sure of one that it knows. The last four bytes are the same.
pub(super) fn link_local(address: Ipv6Net) -> Ipv6Net {
    let [.., a, b] = address.addr().segments();
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, a, b), 64)
}

/// The default route through a gateway, in the main table.
pub(super) fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    let gateway = match gateway {
        IpAddr::V4(gateway) => {
            message.header.address_family = RouteFamily::Inet;
            RouteAddress::Inet(gateway)
        }
        IpAddr::V6(gateway) => {
            message.header.address_family = RouteFamily::Inet6;
            RouteAddress::Inet6(gateway)
        }
    };
    message.attributes = vec![RouteAttribute::Gateway(gateway), RouteAttribute::Oif(index)];
    message
}

/// A second way to `::1`, for packets that a bridge brings: answers to what the host sent to a port on `[::1]`, which the
/// connection tracker has translated back before they are routed. The kernel routes loopback addresses by the link
/// that a packet came in by. What bears `::1` on the wire is dropped earlier.
pub(super) fn loopback_by(index: u32) -> RouteMessage {
    /// Behind the kernel's own, which has 0. Each bridge has another one: routes of one are alternatives to each other.
    const PRIORITY: u32 = 4096;
    let mut message = RouteMessage::default();
    message.header.address_family = RouteFamily::Inet6;
    message.header.destination_prefix_length = 128;
    message.header.table = RT_TABLE_LOCAL;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Local;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6(Ipv6Addr::LOCALHOST)),
        RouteAttribute::Oif(index),
        RouteAttribute::Priority(PRIORITY.saturating_add(index)),
    ];
    message
}

const RT_TABLE_LOCAL: u8 = 255;

/// Reads an `RTM_NEWLINK`: only what [`ObservedLink`] holds, because a link's full description is a kilobyte and more.
pub(super) fn read_link(payload: &[u8]) -> Option<ObservedLink> {
    const INFO_BYTES: usize = 16;
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_MASTER: u16 = 10;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_IFALIAS: u16 = 20;
    const IFLA_INFO_KIND: u16 = 1;
    let mut link = ObservedLink {
        index: u32_at(payload, 4)?,
        name: String::new(),
        alias: None,
        kind: String::new(),
        up: u32_at(payload, 8)? & IFF_UP != 0,
        carrier: u32_at(payload, 8)? & IFF_LOWER_UP != 0,
        mtu: 0,
        master: None,
        mac: None,
        addresses: Vec::new(),
    };
    for (kind, value) in attributes(payload.get(INFO_BYTES..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_IFNAME => link.name = text_of(value)?,
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => link.kind = attribute(value, IFLA_INFO_KIND).and_then(text_of).unwrap_or_default(),
            IFLA_IFALIAS => link.alias = text_of(value),
            _ => {}
        }
    }
    Some(link)
}

/// Reads an `RTM_NEWADDR`: the link's index and the address.
pub(super) fn read_address(payload: &[u8]) -> Option<(u32, IpNet)> {
    const INFO_BYTES: usize = 8;
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let prefix_length = *payload.get(1)?;
    let index = u32_at(payload, 4)?;
    let rest = payload.get(INFO_BYTES..)?;
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL.
    let value = attribute(rest, IFA_LOCAL).or_else(|| attribute(rest, IFA_ADDRESS))?;
    let address = match value.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => return None,
    };
    Some((index, IpNet::new(address, prefix_length).ok()?))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::Emitable;

    use super::*;

    fn emitted(message: &LinkMessage) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn bridge() -> BridgeSpec {
        BridgeSpec {
            name: "br-front".into(),
            address: "10.70.0.1/26".parse().unwrap(),
            address6: None,
            mtu: 1450,
            alias: "v1 shop bridge/front 00".into(),
        }
    }

    #[test]
    fn a_bridge_has_its_name_first_and_its_label_last() {
        let first = read_link(&emitted(&create_bridge(&bridge()))).unwrap();
        assert_eq!((first.name.as_str(), first.kind.as_str(), first.alias), ("br-front", "bridge", None));
        assert_eq!(first.mac, Some(generate_veth_mac("10.70.0.1".parse().unwrap())));
        let last = read_link(&emitted(&finish_bridge(7, &bridge(), Ipv6::Present))).unwrap();
        assert_eq!((last.index, last.mtu, last.up), (7, 1450, true));
        assert_eq!(last.alias.as_deref(), Some("v1 shop bridge/front 00"));
    }

    #[test]
    fn a_small_mtu_is_not_spoken_to_about_ipv6() {
        assert_eq!(Ipv6::Present.silence(1279), None);
        assert!(Ipv6::Present.silence(1280).is_some());
        assert_eq!(Ipv6::Absent.silence(1500), None);
    }

    #[test]
    fn a_link_local_address_ends_as_the_declared_one() {
        assert_eq!(link_local("fd12:3::a0:5/64".parse().unwrap()), "fe80::a0:5/64".parse().unwrap());
    }

    #[test]
    fn a_cut_link_message_is_no_link() {
        assert_eq!(read_link(&[0; 11]), None);
        assert_eq!(read_address(&[2, 24, 0]), None);
    }
}
