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
//! | `input` | drops what comes by another way to a bridge's gateway address |
//! | `forward` | lets answers, published ports and neighbours on one bridge pass, and drops all else that goes to a bridge |
//! | `prerouting` | translates published ports for what comes from outside and from containers, never those of loopback; and the addresses of services for what comes from their bridge |
//! | `output` | the same for the host itself, with those of loopback |
//! | `postrouting` | masquerades what leaves a bridge's subnet, what the host sends from loopback, and hairpins |
//!
//! What is left alone: containers may reach services of the host on the host's own addresses, and an `accept` here does
//! not overrule a `drop` in another table.

mod expression;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use self::expression::{
    ANSWERING, CT_STATE, CT_STATUS, DESTINATION_ADDRESS, DESTINATION_PORT, DESTINATION_TRANSLATED, EQUAL,
    FIB_ADDRESS_TYPE, FIB_DESTINATION, FIRST, FOURTH_WORD, Field, IPV4, LOOPBACK_INDEX, MetaKey, NAT_DESTINATION,
    NETWORK_HEADER, NF_ACCEPT, NF_DROP, RTN_LOCAL, SECOND, SECOND_WORD, SIXTH_WORD, SOURCE_ADDRESS, THIRD_WORD,
    UNEQUAL, compare, ct, in_set, in_subnet, interface_bytes, is_ipv4, mask, masquerade, meta, named, next_turn,
    numbers, payload, verdict,
};
use super::link::BridgeSpec;
use super::nft::{BaseChain, Chain, Expression, FieldType, FieldTypes, Hook, Inverted, Policy, Rule, Ruleset, Set};

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
    pub address: Ipv4Addr,
    pub target: Ipv4Addr,
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
}

impl NatBridge {
    /// The bridge that `spec` declares, under the name that people call it by.
    pub fn of(name: &str, spec: &BridgeSpec) -> Self {
        let (subnet, gateway) = (spec.address.trunc(), spec.address.addr());
        Self { name: name.to_owned(), ifname: spec.name.clone(), subnet, gateway }
    }
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NatPortMapping {
    pub bind: NatBind,
    pub host_port: u16,
    pub protocol: NatProtocol,
    /// The container's address and port.
    pub target: (Ipv4Addr, u16),
}

/// From where a published port is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NatBind {
    /// 127.0.0.1: the host itself and nobody else.
    Loopback,
    /// One address of the host; within 127.0.0.0/8 the host itself and nobody else.
    Address(Ipv4Addr),
    /// Every address of the host, those it gets later included.
    Public,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NatProtocol {
    Tcp,
    Udp,
}

impl NatProtocol {
    /// The number in the IP header (`IPPROTO_*`).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// The map of ports that are bound to an address outside of 127.0.0.0/8.
pub const ADDRESS_PORTS: &str = "address_ports";
/// The map of ports that are bound to an address within 127.0.0.0/8.
pub const LOOPBACK_PORTS: &str = "loopback_ports";
/// The map of ports that are published on all addresses.
pub const PUBLIC_PORTS: &str = "public_ports";
/// The maps of ports that several targets share, one for each of the maps above.
pub const SPREAD: [(&str, &str); 3] =
    [(ADDRESS_PORTS, "address_spread"), (LOOPBACK_PORTS, "loopback_spread"), (PUBLIC_PORTS, "public_spread")];
/// The map of services.
pub const SERVICES: &str = "services";
/// How many turns are dealt out among the targets of a port or service. As many targets at most get any.
pub const TURNS: u32 = 256;
const BRIDGES: &str = "bridges";
const SAME_BRIDGE: &str = "same_bridge";
const GATEWAYS: &str = "gateways";
const OWN_GATEWAY: &str = "own_gateway";

impl NatPortMapping {
    /// The map that holds this port, its key and its value there.
    pub fn element(&self) -> (&'static str, Vec<u8>, Vec<u8>) {
        let mut value = self.target.0.octets().to_vec();
        value.extend(padded_port(self.target.1));
        let mut key = Vec::with_capacity(12);
        let map = match self.bind.address() {
            None => PUBLIC_PORTS,
            Some(address) => {
                key.extend(address.octets());
                if address.is_loopback() { LOOPBACK_PORTS } else { ADDRESS_PORTS }
            }
        };
        key.extend([self.protocol.number(), 0, 0, 0]);
        key.extend(padded_port(self.host_port));
        (map, key, value)
    }
}

impl NatBind {
    /// The address; none for all of them.
    pub fn address(self) -> Option<Ipv4Addr> {
        match self {
            Self::Loopback => Some(Ipv4Addr::LOCALHOST),
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
        rules.extend(forward_rules());
        rules.extend(port_rules());
        rules.push(loopback_masquerade());
        for bridge in &self.bridges {
            rules.push(bridge_masquerade(bridge));
            rules.push(bridge_hairpin(bridge));
        }
        Ruleset { chains: chains(), sets: self.sets(), rules }
    }

    fn sets(&self) -> Vec<Set> {
        use FieldType::{InterfaceName, Ipv4Address, Port, Protocol, Turn};
        let target = FieldTypes::of(&[Ipv4Address, Port]);
        let by_address = FieldTypes::of(&[Ipv4Address, Protocol, Port]);
        let map = |name: &str, key| Set {
            name: name.to_owned(),
            key,
            value: Some(target),
            flags: 0,
            elements: self.ports(name),
        };
        let set = |name: &str, fields: &[FieldType], element: fn(&NatBridge) -> Vec<u8>| Set {
            name: name.to_owned(),
            key: FieldTypes::of(fields),
            value: None,
            flags: 0,
            elements: self.bridges.iter().map(|bridge| (element(bridge), Vec::new())).collect(),
        };
        let gateways = self.bridges.iter().map(|bridge| (bridge.ifname.as_str(), bridge.gateway));
        let services = self.services.iter().map(|service| (service.ifname.as_str(), service.address));
        let own: BTreeSet<(&str, Ipv4Addr)> = gateways.chain(services).collect();
        let spread_by_address = FieldTypes::of(&[Ipv4Address, Protocol, Port, Turn]);
        let services = Set {
            name: SERVICES.to_owned(),
            key: FieldTypes::of(&[InterfaceName, Ipv4Address, Turn]),
            value: Some(FieldTypes::of(&[Ipv4Address])),
            flags: 0,
            elements: self.service_turns(),
        };
        vec![
            map(ADDRESS_PORTS, by_address),
            map(LOOPBACK_PORTS, by_address),
            map(PUBLIC_PORTS, FieldTypes::of(&[Protocol, Port])),
            map(spread_of(ADDRESS_PORTS), spread_by_address),
            map(spread_of(LOOPBACK_PORTS), spread_by_address),
            map(spread_of(PUBLIC_PORTS), FieldTypes::of(&[Protocol, Port, Turn])),
            services,
            set(BRIDGES, &[InterfaceName], |bridge| interface_bytes(&bridge.ifname).to_vec()),
            set(SAME_BRIDGE, &[InterfaceName, InterfaceName], |bridge| [interface_bytes(&bridge.ifname); 2].concat()),
            Set {
                elements: own.iter().map(|(_, address)| (address.octets().to_vec(), Vec::new())).collect(),
                ..set(GATEWAYS, &[Ipv4Address], |_| Vec::new())
            },
            Set {
                elements: own
                    .iter()
                    .map(|(ifname, address)| ([&interface_bytes(ifname)[..], &address.octets()].concat(), Vec::new()))
                    .collect(),
                ..set(OWN_GATEWAY, &[InterfaceName, Ipv4Address], |_| Vec::new())
            },
        ]
    }

    /// What ports lead to, those of one target in a map of their own.
    fn ports(&self, map: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut by_key: BTreeMap<(&str, Vec<u8>), Vec<Vec<u8>>> = BTreeMap::new();
        for (single, key, value) in self.mappings.iter().map(NatPortMapping::element) {
            by_key.entry((single, key)).or_default().push(value);
        }
        let mut elements = BTreeMap::new();
        for ((single, key), values) in by_key {
            match values.len() {
                1 if single == map => elements.extend(values.into_iter().map(|value| (key.clone(), value))),
                2.. if spread_of(single) == map => elements.extend(deal(&key, &values)),
                _ => {}
            }
        }
        elements
    }

    fn service_turns(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut by_key: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for service in &self.services {
            let key = [&interface_bytes(&service.ifname)[..], &service.address.octets()].concat();
            by_key.entry(key).or_default().push(service.target.octets().to_vec());
        }
        by_key.iter().flat_map(|(key, values)| deal(key, values)).collect()
    }
}

/// The map of shared ports that belongs to a map of ports.
fn spread_of(map: &str) -> &'static str {
    SPREAD.iter().find(|(single, _)| *single == map).map_or("", |(_, spread)| spread)
}

/// The turns dealt out among values, as elements.
fn deal<'a>(key: &'a [u8], values: &'a [Vec<u8>]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + 'a {
    (0..TURNS).zip(values.iter().cycle()).map(move |(turn, value)| ([key, &turn.to_ne_bytes()].concat(), value.clone()))
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
        rule.extend(is_ipv4());
        // The first byte says it all: a /8.
        rule.extend([
            payload(Field { base: NETWORK_HEADER, offset, length: 1 }, FIRST),
            compare(EQUAL, &[127]),
            verdict(NF_DROP),
        ]);
        named(GUARD, name, rule)
    };
    let mut gateway = vec![ct(CT_STATE), mask(&ANSWERING.to_ne_bytes()), compare(EQUAL, &[0; 4])];
    gateway.extend([meta(MetaKey::InterfaceIndex), compare(UNEQUAL, &LOOPBACK_INDEX.to_ne_bytes())]);
    gateway.extend(is_ipv4());
    gateway.extend([payload(DESTINATION_ADDRESS, FIRST), in_set(GATEWAYS, Inverted::No)]);
    gateway.extend([
        meta(MetaKey::InterfaceName),
        payload(DESTINATION_ADDRESS, SECOND),
        in_set(OWN_GATEWAY, Inverted::Yes),
    ]);
    gateway.push(verdict(NF_DROP));
    vec![
        guard("loopback guard: destination", DESTINATION_ADDRESS.offset),
        guard("loopback guard: source", SOURCE_ADDRESS.offset),
        named(INPUT, "gateway guard", gateway),
    ]
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
    vec![
        named(FORWARD, "answers pass", flag(CT_STATE, ANSWERING)),
        named(FORWARD, "published ports pass", flag(CT_STATUS, DESTINATION_TRANSLATED)),
        named(FORWARD, "neighbours on one bridge pass", same_bridge),
        named(FORWARD, "nothing else enters a bridge", unpublished),
    ]
}

fn port_rules() -> Vec<Rule> {
    let rule = |chain: &str, single: &str, share: Share| {
        let map = if share == Share::Many { spread_of(single) } else { single };
        let mut expressions = is_ipv4().to_vec();
        let mut registers = [FIRST, SECOND_WORD, THIRD_WORD, FOURTH_WORD].into_iter();
        let mut next = || registers.next().unwrap_or(FOURTH_WORD);
        // An address in 127.0.0.0/8 is always the host's own. Of others only those that are: a packet on its way through
        // the host to someone else is not ours to lead astray.
        if single != LOOPBACK_PORTS {
            expressions.extend([
                Expression::Fib { result: FIB_ADDRESS_TYPE, flags: FIB_DESTINATION, into: FIRST },
                compare(EQUAL, &RTN_LOCAL.to_ne_bytes()),
            ]);
        }
        if single != PUBLIC_PORTS {
            expressions.push(payload(DESTINATION_ADDRESS, next()));
        }
        expressions.push(Expression::Meta { key: MetaKey::TransportProtocol as u32, into: next() });
        expressions.push(payload(DESTINATION_PORT, next()));
        if share == Share::Many {
            expressions.push(next_turn(next()));
        }
        expressions.push(Expression::Lookup {
            set: map.to_owned(),
            key: FIRST,
            into: Some(FIRST),
            inverted: Inverted::No,
        });
        expressions.push(Expression::Nat {
            kind: NAT_DESTINATION,
            family: IPV4.into(),
            address: FIRST,
            port: SECOND_WORD,
            flags: 0,
        });
        named(chain, &format!("ports in {map}"), expressions)
    };
    let shares = [Share::One, Share::Many];
    let chain = |chain: &'static str, maps: &'static [&str]| {
        shares.into_iter().flat_map(move |share| maps.iter().map(move |map| (chain, *map, share)))
    };
    let mut rules: Vec<Rule> =
        chain(PREROUTING, &[ADDRESS_PORTS, PUBLIC_PORTS]).map(|(chain, map, share)| rule(chain, map, share)).collect();
    rules.push(service_rule());
    let output = chain(OUTPUT, &[LOOPBACK_PORTS, ADDRESS_PORTS, PUBLIC_PORTS]);
    rules.extend(output.map(|(chain, map, share)| rule(chain, map, share)));
    rules
}

/// How many targets the ports of a map have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    One,
    Many,
}

/// The address alone is translated: a service has all the ports that its containers have.
fn service_rule() -> Rule {
    let mut rule = is_ipv4().to_vec();
    rule.push(meta(MetaKey::InterfaceName));
    rule.push(payload(DESTINATION_ADDRESS, SECOND));
    rule.push(next_turn(SIXTH_WORD));
    let inverted = Inverted::No;
    rule.push(Expression::Lookup { set: SERVICES.to_owned(), key: FIRST, into: Some(FIRST), inverted });
    // As the kernel shows it: an address as a range of one, and that there is one (`NF_NAT_RANGE_MAP_IPS`).
    let attributes = [(1, NAT_DESTINATION), (2, IPV4.into()), (3, FIRST), (4, FIRST), (7, 1)];
    rule.push(Expression::Foreign { name: "nat".into(), attributes: numbers(&attributes) });
    named(PREROUTING, "services", rule)
}

fn loopback_masquerade() -> Rule {
    let mut rule = is_ipv4().to_vec();
    rule.extend([payload(Field { length: 1, ..SOURCE_ADDRESS }, FIRST), compare(EQUAL, &[127])]);
    rule.extend([meta(MetaKey::OutInterfaceName), in_set(BRIDGES, Inverted::No), masquerade()]);
    named(POSTROUTING, "masquerade of loopback", rule)
}

fn bridge_masquerade(bridge: &NatBridge) -> Rule {
    let mut rule = is_ipv4().to_vec();
    rule.extend(in_subnet(SOURCE_ADDRESS, bridge.subnet));
    rule.extend([meta(MetaKey::OutInterfaceName), compare(UNEQUAL, &interface_bytes(&bridge.ifname))]);
    // The host speaking to itself from its gateway address leaves nothing.
    rule.extend([meta(MetaKey::OutInterfaceIndex), compare(UNEQUAL, &LOOPBACK_INDEX.to_ne_bytes())]);
    rule.push(masquerade());
    named(POSTROUTING, &format!("masquerade of bridge {}", bridge.name), rule)
}

/// A container that asks for a published port of a neighbour, or of its own, must get the answer by the host, which
/// translates it back; were the source kept, the neighbour would answer directly.
fn bridge_hairpin(bridge: &NatBridge) -> Rule {
    let mut rule = is_ipv4().to_vec();
    rule.extend([ct(CT_STATUS), mask(&DESTINATION_TRANSLATED.to_ne_bytes()), compare(UNEQUAL, &[0; 4])]);
    rule.extend(in_subnet(SOURCE_ADDRESS, bridge.subnet));
    rule.extend(in_subnet(DESTINATION_ADDRESS, bridge.subnet));
    rule.extend([meta(MetaKey::OutInterfaceName), compare(EQUAL, &interface_bytes(&bridge.ifname)), masquerade()]);
    named(POSTROUTING, &format!("hairpin of bridge {}", bridge.name), rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 70, 0, 2), 80);

    fn bridge(name: &str) -> NatBridge {
        NatBridge {
            name: name.into(),
            ifname: format!("br-{name}"),
            subnet: "10.70.0.0/26".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 70, 0, 1),
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
        let address = Ipv4Addr::new(127, 3, 2, 1);
        check(tcp(NatBind::Address(address), 8080), &["output"], "127.3.2.1 tcp 8080 → 10.70.0.2 80");
    }

    #[test]
    fn an_open_port_is_known_to_all() {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        check(tcp(NatBind::Address(address), 443), &["prerouting", "output"], "192.0.2.1 tcp 443 → 10.70.0.2 80");
        let udp = NatPortMapping { protocol: NatProtocol::Udp, ..tcp(NatBind::Public, 53) };
        check(udp, &["prerouting", "output"], "udp 53 → 10.70.0.2 80");
    }

    #[test]
    fn ports_are_elements_and_never_rules() {
        let many: Vec<_> = (1..=1000).map(|port| tcp(NatBind::Public, port)).collect();
        assert_eq!(ruleset(&many).rules, ruleset(&[]).rules);
    }

    #[test]
    fn a_port_of_several_is_dealt_out_among_them() {
        let target = |last| (Ipv4Addr::new(10, 70, 0, last), 80);
        let mappings = [2, 3, 4].map(|last| NatPortMapping { target: target(last), ..tcp(NatBind::Public, 80) });
        let ruleset = ruleset(&mappings);
        let set = |name: &str| ruleset.sets.iter().find(|set| set.name == name).unwrap();
        assert!(set(PUBLIC_PORTS).elements.is_empty());
        let spread = &set("public_spread").elements;
        assert_eq!(spread.len(), TURNS as usize);
        let share = |last| spread.values().filter(|value| value[..4] == target(last).0.octets()).count();
        assert_eq!([share(2), share(3), share(4)], [86, 85, 85]);
    }

    #[test]
    fn a_service_is_known_on_its_own_bridge_alone() {
        let service = |address: [u8; 4], last| NatService {
            ifname: "br-front".into(),
            address: address.into(),
            target: Ipv4Addr::new(10, 70, 0, last),
        };
        let services = vec![service([10, 70, 0, 62], 2), service([10, 70, 0, 62], 3)];
        let ruleset = NatTable { bridges: vec![bridge("front")], services, ..NatTable::default() }.ruleset();
        let set = |name: &str| ruleset.sets.iter().find(|set| set.name == name).unwrap();
        let turns = set(SERVICES);
        assert_eq!(turns.elements.len(), TURNS as usize);
        let (key, value) = turns.elements.iter().next().unwrap();
        assert_eq!(turns.key.describe(key), "br-front 10.70.0.62 0");
        assert_eq!(turns.value.unwrap().describe(value), "10.70.0.2");
        assert_eq!(set(GATEWAYS).elements.len(), 2, "guarded as the gateway is");
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
