//! Which port of the host leads to which port of a container, and what may reach a bridge at all: a pure table, and the
//! nftables objects that carry it out.
//!
//! A published port is an element of a map, never a rule of its own: lookups take the same time for one port as for a
//! thousand, and moving a port is the change of one element. The number of rules depends on the bridges only.
//!
//! | chain | holds |
//! |---|---|
//! | `guard` | drops what comes from outside and claims to go to, or to come from, 127.0.0.0/8 |
//! | `input` | drops what comes by another way to a bridge's gateway address |
//! | `forward` | lets answers, published ports and neighbours on one bridge pass, and drops all else that goes to a bridge |
//! | `prerouting` | translates published ports for what comes from outside and from containers; never those of loopback |
//! | `output` | the same for the host itself, with those of loopback |
//! | `postrouting` | masquerades what leaves a bridge's subnet, what the host sends from loopback, and hairpins |
//!
//! IPv6 has the same rules and maps of its own, whose names end in 6. Its loopback needs no guard: the kernel itself drops
//! what comes by a wire and bears `::1`.
//!
//! What is left alone: containers may reach services of the host on the host's own addresses, and an `accept` here does
//! not overrule a `drop` in another table.

mod shut;
mod words;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use self::shut::{SHUT_TABLE, SHUT_TABLE6, shut, shut6};
use self::words::{
    ANSWERING, CT_STATE, CT_STATUS, DESTINATION_ADDRESS, DESTINATION_PORT, DESTINATION_TRANSLATED, EQUAL,
    FIB_ADDRESS_TYPE, FIB_DESTINATION, FIRST, Family, Field, LOOPBACK_INDEX, Maps, MetaKey, NAT_DESTINATION,
    NETWORK_HEADER, NF_ACCEPT, NF_DROP, RTN_LOCAL, SECOND, SECOND_WORD, SOURCE_ADDRESS, UNEQUAL, compare, ct, in_set,
    in_subnet, interface_bytes, mask, masquerade, meta, named, octets, payload, verdict,
};
use super::link::BridgeSpec;
use super::nft::{BaseChain, Chain, Expression, FieldType, FieldTypes, Hook, Inverted, Policy, Rule, Ruleset, Set};

/// What one owner publishes, and the bridges that it is published from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatTable {
    pub bridges: Vec<NatBridge>,
    pub mappings: Vec<NatPortMapping>,
}

/// A bridge whose containers reach out through masquerade and are reached through published ports only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatBridge {
    /// What people call it; it stands in the names of its rules.
    pub name: String,
    /// The interface's name.
    pub ifname: String,
    pub subnet: Ipv4Net,
    /// The host's own address on it.
    pub gateway: Ipv4Addr,
    /// The host's own IPv6 address on it, with the prefix of its subnet.
    pub gateway6: Option<Ipv6Net>,
    /// Whether no way leads out of it or in: nothing is forwarded but from one of its containers to another.
    pub internal: bool,
}

impl NatBridge {
    /// The bridge that `spec` declares, under the name that people call it by.
    pub fn of(name: &str, spec: &BridgeSpec) -> Self {
        let (subnet, gateway) = (spec.address.trunc(), spec.address.addr());
        Self {
            name: name.to_owned(),
            ifname: spec.name.clone(),
            subnet,
            gateway,
            gateway6: spec.address6,
            internal: false,
        }
    }

    /// The host's address on it and the subnet, if it has the protocol.
    fn gateway_in(&self, family: Family) -> Option<IpNet> {
        match family {
            Family::V4 => Ipv4Net::new(self.gateway, self.subnet.prefix_len()).ok().map(IpNet::V4),
            Family::V6 => self.gateway6.map(IpNet::V6),
        }
    }
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NatPortMapping {
    pub bind: NatBind,
    pub host_port: u16,
    pub protocol: NatProtocol,
    /// The container's address and port. Its protocol decides which packets are meant: those of IPv4 never lead to an IPv6
    /// address, nor the other way round.
    pub target: (IpAddr, u16),
}

/// From where a published port is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NatBind {
    /// 127.0.0.1: the host itself and nobody else.
    Loopback,
    /// One address of the host; within 127.0.0.0/8, and at `::1`, the host itself and nobody else.
    Address(IpAddr),
    /// Every address of the host of the target's protocol, those it gets later included.
    Public,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NatProtocol {
    Tcp,
    Udp,
    Sctp,
}

impl NatProtocol {
    /// The number in the IP header (`IPPROTO_*`).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// The map of ports that are bound to an address outside of 127.0.0.0/8.
pub const ADDRESS_PORTS: &str = "address_ports";
/// The map of ports that are bound to an address within 127.0.0.0/8.
pub const LOOPBACK_PORTS: &str = "loopback_ports";
/// The map of ports that are published on all addresses.
pub const PUBLIC_PORTS: &str = "public_ports";
/// The map of ports that are bound to an IPv6 address other than `::1`.
pub const ADDRESS_PORTS6: &str = "address_ports6";
/// The map of ports that are bound to `::1`.
pub const LOOPBACK_PORTS6: &str = "loopback_ports6";
/// The map of ports that are published on all IPv6 addresses.
pub const PUBLIC_PORTS6: &str = "public_ports6";
const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal_bridges";
const SAME_BRIDGE: &str = "same_bridge";

impl NatPortMapping {
    /// The map that holds this port, its key and its value there.
    pub fn element(&self) -> (&'static str, Vec<u8>, Vec<u8>) {
        let family = Family::of(self.target.0);
        let mut value = octets(self.target.0);
        value.extend(padded_port(self.target.1));
        let mut key = Vec::with_capacity(24);
        let map = match self.bind.address() {
            None => family.maps().public,
            Some(address) => {
                key.extend(octets(address));
                if address.is_loopback() { family.maps().loopback } else { family.maps().address }
            }
        };
        key.extend([self.protocol.number(), 0, 0, 0]);
        key.extend(padded_port(self.host_port));
        (map, key, value)
    }
}

impl NatBind {
    /// The address; none for all of them.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::Loopback => Some(Ipv4Addr::LOCALHOST.into()),
            Self::Address(address) => Some(address),
            Self::Public => None,
        }
    }
}

/// A port in a register of its own.
fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

impl NatTable {
    /// The nftables objects that carry the table out.
    pub fn ruleset(&self) -> Ruleset {
        let mut rules = guard_rules();
        rules.extend(Family::BOTH.map(gateway_guard));
        rules.extend(forward_rules());
        rules.extend(Family::BOTH.into_iter().flat_map(port_rules));
        rules.extend(Family::BOTH.map(loopback_masquerade));
        for (bridge, family) in self.bridges.iter().flat_map(|bridge| Family::BOTH.map(|family| (bridge, family))) {
            let Some(gateway) = bridge.gateway_in(family) else { continue };
            rules.push(bridge_masquerade(bridge, family, gateway.trunc()));
            rules.push(bridge_hairpin(bridge, family, gateway.trunc()));
        }
        let chains = chains();
        // As the kernel lists them: chain by chain.
        rules.sort_by_key(|rule| chains.iter().position(|chain| chain.name == rule.chain));
        Ruleset { chains, sets: self.sets(), rules }
    }

    fn sets(&self) -> Vec<Set> {
        use FieldType::InterfaceName;
        let set = |name: &str, fields: &[FieldType], elements: Vec<Vec<u8>>| Set {
            name: name.to_owned(),
            key: FieldTypes::of(fields),
            value: None,
            flags: 0,
            elements: elements.into_iter().map(|key| (key, Vec::new())).collect(),
        };
        let ifname = |bridge: &NatBridge| interface_bytes(&bridge.ifname).to_vec();
        let each =
            |element: fn(Vec<u8>) -> Vec<u8>| self.bridges.iter().map(|bridge| element(ifname(bridge))).collect();
        let internal = self.bridges.iter().filter(|bridge| bridge.internal).map(ifname).collect();
        let mut sets = vec![
            set(INTERNAL, &[InterfaceName], internal),
            set(BRIDGES, &[InterfaceName], each(|name| name)),
            set(SAME_BRIDGE, &[InterfaceName, InterfaceName], each(|name| [&name[..], &name].concat())),
        ];
        for family in Family::BOTH {
            let address = family.address_type();
            let gateways = |element: fn(Vec<u8>, Vec<u8>) -> Vec<u8>| {
                let held = self.bridges.iter().filter_map(|bridge| Some((bridge, bridge.gateway_in(family)?)));
                held.map(|(bridge, gateway)| element(ifname(bridge), octets(gateway.addr()))).collect()
            };
            sets.extend(self.maps(family));
            sets.push(set(family.maps().gateways, &[address], gateways(|_, gateway| gateway)));
            let own = gateways(|name, gateway| [name, gateway].concat());
            sets.push(set(family.maps().own_gateway, &[InterfaceName, address], own));
        }
        sets
    }

    /// The maps of published ports.
    fn maps(&self, family: Family) -> [Set; 3] {
        use FieldType::{Port, Protocol};
        let (names, address) = (family.maps(), family.address_type());
        let by_address = FieldTypes::of(&[address, Protocol, Port]);
        let map = |name: &str, key| Set {
            name: name.to_owned(),
            key,
            value: Some(FieldTypes::of(&[address, Port])),
            flags: 0,
            elements: self.ports(name),
        };
        let public = map(names.public, FieldTypes::of(&[Protocol, Port]));
        [map(names.address, by_address), map(names.loopback, by_address), public]
    }

    fn ports(&self, map: &str) -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
        let elements = self.mappings.iter().map(NatPortMapping::element);
        elements.filter(|(name, ..)| *name == map).map(|(_, key, value)| (key, value)).collect()
    }
}

const GUARD: &str = "guard";
const INPUT: &str = "input";
const FORWARD: &str = "forward";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";

fn chains() -> Vec<Chain> {
    let chain = |name: &str, kind: &str, hook, priority| Chain {
        name: name.to_owned(),
        base: Some(BaseChain { kind: kind.to_owned(), hook, priority, policy: Policy::Accept }),
    };
    // The priorities that the `nft` program calls raw, filter, dstnat and srcnat.
    vec![
        chain(GUARD, "filter", Hook::Prerouting, -300),
        chain(INPUT, "filter", Hook::Input, 0),
        chain(FORWARD, "filter", Hook::Forward, 0),
        chain(PREROUTING, "nat", Hook::Prerouting, -100),
        chain(OUTPUT, "nat", Hook::Output, -100),
        chain(POSTROUTING, "nat", Hook::Postrouting, 100),
    ]
}

/// Publishing on loopback needs `route_localnet` on the bridge, which takes away the kernel's own refusal of packets
/// that carry loopback addresses on a wire: this refusal takes its place, on every link. It comes before connection
/// tracking, so answers that are about to be translated back to 127.0.0.1 do not have that address yet.
fn guard_rules() -> Vec<Rule> {
    let guard = |name: &str, offset| {
        let mut rule = vec![meta(MetaKey::InterfaceIndex), compare(UNEQUAL, &LOOPBACK_INDEX.to_ne_bytes())];
        rule.extend(Family::V4.is_it());
        // The first byte says it all: a /8.
        rule.extend([
            payload(Field { base: NETWORK_HEADER, offset, length: 1 }, FIRST),
            compare(EQUAL, &[127]),
            verdict(NF_DROP),
        ]);
        named(GUARD, name, rule)
    };
    vec![
        guard("loopback guard: destination", DESTINATION_ADDRESS.offset),
        guard("loopback guard: source", SOURCE_ADDRESS.offset),
    ]
}

/// A bridge's gateway address is for its own containers and for the host.
fn gateway_guard(family: Family) -> Rule {
    let mut gateway = vec![ct(CT_STATE), mask(&ANSWERING.to_ne_bytes()), compare(EQUAL, &[0; 4])];
    gateway.extend([meta(MetaKey::InterfaceIndex), compare(UNEQUAL, &LOOPBACK_INDEX.to_ne_bytes())]);
    gateway.extend(family.is_it());
    gateway.extend([payload(family.destination(), FIRST), in_set(family.maps().gateways, Inverted::No)]);
    gateway.extend([
        meta(MetaKey::InterfaceName),
        payload(family.destination(), SECOND),
        in_set(family.maps().own_gateway, Inverted::Yes),
    ]);
    gateway.push(verdict(NF_DROP));
    named(INPUT, &format!("gateway guard{}", family.suffix()), gateway)
}

fn forward_rules() -> Vec<Rule> {
    let flag = |key, bits: u32| vec![ct(key), mask(&bits.to_ne_bytes()), compare(UNEQUAL, &[0; 4]), verdict(NF_ACCEPT)];
    let same_bridge = vec![
        meta(MetaKey::InterfaceName),
        Expression::Meta { key: MetaKey::OutInterfaceName as u32, into: SECOND },
        in_set(SAME_BRIDGE, Inverted::No),
        verdict(NF_ACCEPT),
    ];
    let unpublished = vec![meta(MetaKey::OutInterfaceName), in_set(BRIDGES, Inverted::No), verdict(NF_DROP)];
    let at_internal = |key| vec![meta(key), in_set(INTERNAL, Inverted::No), verdict(NF_DROP)];
    vec![
        named(FORWARD, "neighbours on one bridge pass", same_bridge),
        named(FORWARD, "nothing leaves an internal bridge", at_internal(MetaKey::InterfaceName)),
        named(FORWARD, "nothing enters an internal bridge", at_internal(MetaKey::OutInterfaceName)),
        named(FORWARD, "answers pass", flag(CT_STATE, ANSWERING)),
        named(FORWARD, "published ports pass", flag(CT_STATUS, DESTINATION_TRANSLATED)),
        named(FORWARD, "nothing else enters a bridge", unpublished),
    ]
}

fn port_rules(family: Family) -> [Rule; 5] {
    let Maps { address, loopback, public, .. } = family.maps();
    let rule = |chain: &str, map: &str| {
        let mut expressions = family.is_it().to_vec();
        // A loopback address is always the host's own. Of others only those that are: a packet on its way through the host
        // to someone else is not ours to lead astray.
        if map != loopback {
            expressions.extend([
                Expression::Fib { result: FIB_ADDRESS_TYPE, flags: FIB_DESTINATION, into: FIRST },
                compare(EQUAL, &RTN_LOCAL.to_ne_bytes()),
            ]);
        }
        let [protocol, port] = if map == public { [FIRST, SECOND_WORD] } else { family.after_address() };
        if map != public {
            expressions.push(payload(family.destination(), FIRST));
        }
        expressions.push(Expression::Meta { key: MetaKey::TransportProtocol as u32, into: protocol });
        expressions.push(payload(DESTINATION_PORT, port));
        expressions.push(Expression::Lookup {
            set: map.to_owned(),
            key: FIRST,
            into: Some(FIRST),
            inverted: Inverted::No,
        });
        let [port, _] = family.after_address();
        let family = family.number().into();
        expressions.push(Expression::Nat { kind: NAT_DESTINATION, family, address: FIRST, port, flags: 0 });
        named(chain, &format!("ports in {map}"), expressions)
    };
    [
        rule(PREROUTING, address),
        rule(PREROUTING, public),
        rule(OUTPUT, loopback),
        rule(OUTPUT, address),
        rule(OUTPUT, public),
    ]
}

fn loopback_masquerade(family: Family) -> Rule {
    let mut rule = family.is_it().to_vec();
    match family {
        Family::V4 => {
            rule.extend([payload(Field { length: 1, ..SOURCE_ADDRESS }, FIRST), compare(EQUAL, &[127])]);
        }
        Family::V6 => {
            rule.extend([payload(family.source(), FIRST), compare(EQUAL, &Ipv6Addr::LOCALHOST.octets())]);
        }
    }
    rule.extend([meta(MetaKey::OutInterfaceName), in_set(BRIDGES, Inverted::No), masquerade()]);
    named(POSTROUTING, &format!("masquerade of loopback{}", family.suffix()), rule)
}

fn bridge_masquerade(bridge: &NatBridge, family: Family, subnet: IpNet) -> Rule {
    let mut rule = family.is_it().to_vec();
    rule.extend(in_subnet(family.source(), subnet));
    rule.extend([meta(MetaKey::OutInterfaceName), compare(UNEQUAL, &interface_bytes(&bridge.ifname))]);
    // The host speaking to itself from its gateway address leaves nothing.
    rule.extend([meta(MetaKey::OutInterfaceIndex), compare(UNEQUAL, &LOOPBACK_INDEX.to_ne_bytes())]);
    rule.push(masquerade());
    named(POSTROUTING, &format!("masquerade of bridge {}{}", bridge.name, family.suffix()), rule)
}

/// A container that asks for a published port of a neighbour, or of its own, must get the answer by the host, which
/// translates it back; were the source kept, the neighbour would answer directly.
fn bridge_hairpin(bridge: &NatBridge, family: Family, subnet: IpNet) -> Rule {
    let mut rule = family.is_it().to_vec();
    rule.extend([ct(CT_STATUS), mask(&DESTINATION_TRANSLATED.to_ne_bytes()), compare(UNEQUAL, &[0; 4])]);
    rule.extend(in_subnet(family.source(), subnet));
    rule.extend(in_subnet(family.destination(), subnet));
    rule.extend([meta(MetaKey::OutInterfaceName), compare(EQUAL, &interface_bytes(&bridge.ifname)), masquerade()]);
    named(POSTROUTING, &format!("hairpin of bridge {}{}", bridge.name, family.suffix()), rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(10, 70, 0, 2)), 80);

    fn bridge(name: &str) -> NatBridge {
        NatBridge {
            name: name.into(),
            ifname: format!("br-{name}"),
            subnet: "10.70.0.0/26".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 70, 0, 1),
            gateway6: Some("fd12::1/64".parse().unwrap()),
            internal: false,
        }
    }

    fn tcp(bind: NatBind, host_port: u16) -> NatPortMapping {
        NatPortMapping { bind, host_port, protocol: NatProtocol::Tcp, target: WEB }
    }

    fn ruleset(mappings: &[NatPortMapping]) -> Ruleset {
        NatTable { bridges: vec![bridge("front")], mappings: mappings.into() }.ruleset()
    }

    /// The chains that lead to a map, and what the map says.
    fn check(mapping: NatPortMapping, chains: &[&str], element: &str) {
        let ruleset = ruleset(&[mapping]);
        let filled: Vec<_> =
            ruleset.sets.iter().filter(|set| set.value.is_some() && !set.elements.is_empty()).collect();
        let [map] = filled[..] else { panic!("one map holds the port: {filled:?}") };
        let (key, value) = map.elements.iter().next().unwrap();
        assert_eq!(format!("{} → {}", map.key.describe(key), map.value.unwrap().describe(value)), element);
        let looks_up = |rule: &&Rule| {
            rule.expressions.iter().any(|e| matches!(e, Expression::Lookup { set, .. } if *set == map.name))
        };
        let found: Vec<_> = ruleset.rules.iter().filter(looks_up).map(|rule| rule.chain.as_str()).collect();
        assert_eq!(found, chains);
    }

    #[test]
    fn a_loopback_port_is_known_to_the_host_alone() {
        check(tcp(NatBind::Loopback, 8080), &["output"], "127.0.0.1 tcp 8080 → 10.70.0.2 80");
        let address = IpAddr::V4(Ipv4Addr::new(127, 3, 2, 1));
        check(tcp(NatBind::Address(address), 8080), &["output"], "127.3.2.1 tcp 8080 → 10.70.0.2 80");
    }

    #[test]
    fn an_open_port_is_known_to_all() {
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        check(tcp(NatBind::Address(address), 443), &["prerouting", "output"], "192.0.2.1 tcp 443 → 10.70.0.2 80");
        let udp = NatPortMapping { protocol: NatProtocol::Udp, ..tcp(NatBind::Public, 53) };
        check(udp, &["prerouting", "output"], "udp 53 → 10.70.0.2 80");
    }

    #[test]
    fn an_ipv6_port_is_in_maps_of_its_own() {
        let target = ("fd12::2".parse().unwrap(), 80);
        let at = |bind| NatPortMapping { target, ..tcp(bind, 443) };
        let bind = |text: &str| NatBind::Address(text.parse().unwrap());
        check(at(NatBind::Public), &["prerouting", "output"], "tcp 443 → fd12::2 80");
        check(at(bind("2001:db8::1")), &["prerouting", "output"], "2001:db8::1 tcp 443 → fd12::2 80");
        check(at(bind("::1")), &["output"], "::1 tcp 443 → fd12::2 80");
    }

    #[test]
    fn ports_are_elements_and_never_rules() {
        let many: Vec<_> = (1..=1000).map(|port| tcp(NatBind::Public, port)).collect();
        assert_eq!(ruleset(&many).rules, ruleset(&[]).rules);
    }

    #[test]
    fn a_rule_is_named_after_the_bridge_that_people_know() {
        let names: Vec<_> = ruleset(&[]).rules.into_iter().map(|rule| rule.name).collect();
        assert!(names.contains(&"masquerade of bridge front".to_owned()), "{names:?}");
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len() + 4, names.len(), "only the four maps looked up in two chains share a name: {names:?}");
    }
}
