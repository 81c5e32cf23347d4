//! Which port of the host leads to which port of a container, and what may reach a bridge at all: a pure table, and the
//! nftables objects that carry it out.
//!
//! A published port is an element of a map, never a rule of its own: lookups take the same time for one port as for a
//! thousand, and moving a port is the change of one element. The number of rules depends on the bridges only.
//!
//! A port with several targets has an element for each of [`TURNS`] turns instead, dealt out among the targets; new
//! connections take the turns one after the other. A service is an address of a bridge that leads to containers on it in
//! the same way, whatever the port.
//!
//! | chain | holds |
//! |---|---|
//! | `guard` | drops what comes from outside and claims to go to, or to come from, 127.0.0.0/8 |
//! | `input` | drops what comes by another way to a bridge's own addresses, its gateway's and its services' |
//! | `forward` | lets answers, published ports and neighbours on one bridge pass, and drops all else that goes to a bridge |
//! | `prerouting` | translates published ports for what comes from outside and from containers, never those of loopback; and the addresses of services for what comes from their bridge |
//! | `output` | the same for the host itself, with those of loopback |
//! | `postrouting` | masquerades what leaves a bridge's subnet, what the host sends from loopback, and hairpins |
//!
//! IPv6 has the same rules and maps of its own, whose names end in 6. Its loopback needs no guard: the kernel itself drops
//! what comes by a wire and bears `::1`.
//!
//! What is left alone: containers may reach services of the host on the host's own addresses, and an `accept` here does
//! not overrule a `drop` in another table.

mod shut;
mod spread;
mod words;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use self::shut::{SHUT_TABLE, SHUT_TABLE6, shut, shut6};
pub use self::spread::{SERVICES, SERVICES6, SPREAD, TURNS};
use self::spread::{Share, service_rule, spread_of};
use self::words::{
    ANSWERING, CT_STATE, CT_STATUS, DESTINATION_ADDRESS, DESTINATION_PORT, DESTINATION_TRANSLATED, EQUAL,
    FIB_ADDRESS_TYPE, FIB_DESTINATION, FIRST, Family, Field, LOOPBACK_INDEX, Maps, MetaKey, NAT_DESTINATION,
    NETWORK_HEADER, NF_ACCEPT, NF_DROP, RTN_LOCAL, SECOND, SOURCE_ADDRESS, UNEQUAL, after, compare, ct, in_set,
    in_subnet, interface_bytes, mask, masquerade, meta, named, next_turn, octets, payload, verdict,
};
use super::link::BridgeSpec;
use super::nft::{
    BaseChain, Chain, Expression, FieldType, FieldTypes, Hook, Inverted, Policy, Register, Rule, Ruleset, Set,
};

/// What one owner publishes, and the bridges that it is published from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatTable {
    pub bridges: Vec<NatBridge>,
    /// Several of one bind, host port and protocol share the connections.
    pub mappings: Vec<NatPortMapping>,
    /// Several of one bridge and address share the connections.
    pub services: Vec<NatService>,
}

/// An address on a bridge that leads to one of the containers on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NatService {
    /// The bridge's interface.
    pub ifname: String,
    /// One of the bridge's own addresses, beside its gateway.
    pub address: IpAddr,
    /// Of the same protocol.
    pub target: IpAddr,
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
            let (names, address) = (family.maps(), family.address_type());
            let gateways =
                self.bridges.iter().filter_map(|bridge| Some((&bridge.ifname, bridge.gateway_in(family)?.addr())));
            let services = self.services.iter().map(|service| (&service.ifname, service.address));
            let own: BTreeSet<(&String, IpAddr)> =
                gateways.chain(services).filter(|(_, address)| Family::of(*address) == family).collect();
            sets.extend(self.maps(family));
            sets.push(set(names.gateways, &[address], own.iter().map(|(_, address)| octets(*address)).collect()));
            let own = own.iter().map(|(name, address)| [&interface_bytes(name)[..], &octets(*address)].concat());
            sets.push(set(names.own_gateway, &[InterfaceName, address], own.collect()));
        }
        sets
    }

    /// The maps of published ports and of services.
    fn maps(&self, family: Family) -> Vec<Set> {
        use FieldType::{InterfaceName, Port, Protocol, Turn};
        let (names, address) = (family.maps(), family.address_type());
        let map = |name: &str, key: &[FieldType], value: &[FieldType], elements| Set {
            name: name.to_owned(),
            key: FieldTypes::of(key),
            value: Some(FieldTypes::of(value)),
            flags: 0,
            elements,
        };
        let by_address: &[FieldType] = &[address, Protocol, Port];
        let by_port: &[FieldType] = &[Protocol, Port];
        let mut maps = Vec::new();
        for (name, key) in [(names.address, by_address), (names.loopback, by_address), (names.public, by_port)] {
            let ([spread, spread_ports], [turns, ports]) = (spread_of(name), self.shared(name));
            maps.push(map(name, key, &[address, Port], self.single(name)));
            maps.push(map(spread, &[key, &[Turn]].concat(), &[address], turns));
            maps.push(map(spread_ports, key, &[Port], ports));
        }
        let services = self.service_turns(family);
        maps.push(map(names.services, &[InterfaceName, address, Turn], &[address], services));
        maps
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

fn port_rules(family: Family) -> Vec<Rule> {
    let Maps { address, loopback, public, .. } = family.maps();
    let lookup =
        |set: &str, key| Expression::Lookup { set: set.to_owned(), key, into: Some(key), inverted: Inverted::No };
    let rule = |chain: &str, map: &'static str, share: Share| {
        let mut expressions = family.is_it().to_vec();
        // A loopback address is always the host's own. Of others only those that are: a packet on its way through the host
        // to someone else is not ours to lead astray.
        if map != loopback {
            expressions.extend([
                Expression::Fib { result: FIB_ADDRESS_TYPE, flags: FIB_DESTINATION, into: FIRST },
                compare(EQUAL, &RTN_LOCAL.to_ne_bytes()),
            ]);
        }
        // What a port is called in its map, from a register on. Gives the register behind it.
        let key = |expressions: &mut Vec<Expression>, at: Register| {
            let mut next = at;
            if map != public {
                expressions.push(payload(family.destination(), at));
                next = after(at, family.address_words());
            }
            expressions.push(Expression::Meta { key: MetaKey::TransportProtocol as u32, into: next });
            next = after(next, 1);
            expressions.push(payload(DESTINATION_PORT, next));
            after(next, 1)
        };
        let turn = key(&mut expressions, FIRST);
        let (name, port) = match share {
            Share::One => {
                expressions.push(lookup(map, FIRST));
                (map, after(FIRST, family.address_words()))
            }
            Share::Many => {
                let [spread, spread_ports] = spread_of(map);
                expressions.extend([next_turn(turn), lookup(spread, FIRST)]);
                key(&mut expressions, SECOND);
                expressions.push(lookup(spread_ports, SECOND));
                (spread, SECOND)
            }
        };
        let family = family.number().into();
        expressions.push(Expression::Nat { kind: NAT_DESTINATION, family, address: FIRST, port, flags: 0 });
        named(chain, &format!("ports in {name}"), expressions)
    };
    let mut rules = Vec::new();
    for share in [Share::One, Share::Many] {
        rules.extend([address, public].map(|map| rule(PREROUTING, map, share)));
        rules.extend([loopback, address, public].map(|map| rule(OUTPUT, map, share)));
    }
    rules.push(service_rule(family));
    rules
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
        NatTable { bridges: vec![bridge("front")], mappings: mappings.into(), ..NatTable::default() }.ruleset()
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
    fn a_port_of_several_is_dealt_out_among_them() {
        let target = |last| Ipv4Addr::new(10, 70, 0, last);
        let mappings =
            [2, 3, 4].map(|last| NatPortMapping { target: (target(last).into(), 80), ..tcp(NatBind::Public, 80) });
        let ruleset = ruleset(&mappings);
        let set = |name: &str| ruleset.sets.iter().find(|set| set.name == name).unwrap();
        assert!(set(PUBLIC_PORTS).elements.is_empty());
        let spread = &set("public_spread").elements;
        assert_eq!(spread.len(), TURNS as usize);
        let share = |last| spread.values().filter(|value| value[..] == target(last).octets()).count();
        assert_eq!([share(2), share(3), share(4)], [86, 85, 85]);
        let ports = &set("public_spread_ports").elements;
        assert_eq!(ports.values().collect::<Vec<_>>(), [&[0, 80]]);
    }

    #[test]
    fn a_service_is_known_on_its_own_bridge_alone() {
        let service = |address: &str, target: &str| NatService {
            ifname: "br-front".into(),
            address: address.parse().unwrap(),
            target: target.parse().unwrap(),
        };
        let services = [("10.70.0.62", "10.70.0.2"), ("10.70.0.62", "10.70.0.3"), ("fd12::3e", "fd12::2")];
        let services = services.map(|(address, target)| service(address, target)).to_vec();
        let ruleset = NatTable { bridges: vec![bridge("front")], services, ..NatTable::default() }.ruleset();
        let set = |name: &str| ruleset.sets.iter().find(|set| set.name == name).unwrap();
        let turns = set(SERVICES);
        assert_eq!(turns.elements.len(), TURNS as usize);
        let (key, value) = turns.elements.iter().next().unwrap();
        assert_eq!(turns.key.describe(key), "br-front 10.70.0.62 0");
        assert_eq!(turns.value.unwrap().describe(value), "10.70.0.2");
        let (key, value) = set(SERVICES6).elements.iter().next().unwrap();
        assert_eq!(set(SERVICES6).key.describe(key), "br-front fd12::3e 0");
        assert_eq!(set(SERVICES6).value.unwrap().describe(value), "fd12::2");
        for name in ["gateways", "own_gateway", "gateways6", "own_gateway6"] {
            assert_eq!(set(name).elements.len(), 2, "guarded as the gateway is: {name}");
        }
    }

    #[test]
    fn a_rule_is_named_after_the_bridge_that_people_know() {
        let names: Vec<_> = ruleset(&[]).rules.into_iter().map(|rule| rule.name).collect();
        assert!(names.contains(&"masquerade of bridge front".to_owned()), "{names:?}");
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(
            unique.len() + 8,
            names.len(),
            "only the eight maps looked up in two chains share a name: {names:?}"
        );
    }
}
