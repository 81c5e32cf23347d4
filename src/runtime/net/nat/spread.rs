//! What several share: a port or a service has an element for each of [`TURNS`] turns, dealt out among its targets.

use std::collections::BTreeMap;

use super::words::{
    FIRST, Family, MetaKey, NAT_DESTINATION, SECOND, after, interface_bytes, meta, named, next_turn, numbers, octets,
    payload,
};
use super::{
    ADDRESS_PORTS, ADDRESS_PORTS6, LOOPBACK_PORTS, LOOPBACK_PORTS6, NatPortMapping, NatTable, PREROUTING, PUBLIC_PORTS,
    PUBLIC_PORTS6,
};
/// How many turns are dealt out among the targets of a port or service. As many targets at most get any.
pub use crate::runtime::net::nft::TURNS;
use crate::runtime::net::nft::{Expression, Inverted, Rule};

/// For each map of ports those of the ports that several targets share: which turn leads to which address, and which port it
/// is there. They are two, because the `nft` program takes no map back in which a turn leads to a port.
pub const SPREAD: [(&str, &str, &str); 6] = [
    (ADDRESS_PORTS, "address_spread", "address_spread_ports"),
    (LOOPBACK_PORTS, "loopback_spread", "loopback_spread_ports"),
    (PUBLIC_PORTS, "public_spread", "public_spread_ports"),
    (ADDRESS_PORTS6, "address_spread6", "address_spread_ports6"),
    (LOOPBACK_PORTS6, "loopback_spread6", "loopback_spread_ports6"),
    (PUBLIC_PORTS6, "public_spread6", "public_spread_ports6"),
];
/// The map of services.
pub const SERVICES: &str = "services";
/// The map of services at IPv6 addresses.
pub const SERVICES6: &str = "services6";
/// A port in a register of its own.
const PORT_BYTES: usize = 4;

/// How many targets the ports of a map have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    One,
    Many,
}

/// The maps of shared ports that belong to a map of ports.
pub(super) fn spread_of(map: &str) -> [&'static str; 2] {
    SPREAD.iter().find(|(single, ..)| *single == map).map_or(["", ""], |(_, turns, ports)| [*turns, *ports])
}

/// The turns dealt out among values, as elements.
fn deal<'a>(key: &'a [u8], values: &'a [Vec<u8>]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + 'a {
    (0..TURNS).zip(values.iter().cycle()).map(move |(turn, value)| ([key, &turn.to_ne_bytes()].concat(), value.clone()))
}

impl NatTable {
    /// What the ports of a map lead to: address and port, by their key there.
    fn targets(&self, map: &str) -> BTreeMap<Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>> {
        let mut by_key: BTreeMap<Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>> = BTreeMap::new();
        for (_, key, mut address) in self.mappings.iter().map(NatPortMapping::element).filter(|(name, ..)| *name == map)
        {
            let port = address.split_off(address.len() - PORT_BYTES);
            by_key.entry(key).or_default().push((address, port));
        }
        by_key
    }

    /// The ports of a map that have one target.
    pub(super) fn single(&self, map: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let single = self.targets(map).into_iter().filter(|(_, targets)| targets.len() == 1);
        single
            .flat_map(|(key, targets)| targets.into_iter().map(move |(a, p)| (key.clone(), [a, p].concat())))
            .collect()
    }

    /// The turns of those that have several, and the ports there.
    pub(super) fn shared(&self, map: &str) -> [BTreeMap<Vec<u8>, Vec<u8>>; 2] {
        let (mut turns, mut ports) = (BTreeMap::new(), BTreeMap::new());
        for (key, targets) in self.targets(map).into_iter().filter(|(_, targets)| targets.len() > 1) {
            let (addresses, there): (Vec<_>, Vec<_>) = targets.into_iter().unzip();
            turns.extend(deal(&key, &addresses));
            // Alone it is not padded.
            ports.extend(there.into_iter().take(1).map(|port| (key.clone(), port[..2].to_vec())));
        }
        [turns, ports]
    }

    pub(super) fn service_turns(&self, family: Family) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut by_key: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for service in self.services.iter().filter(|service| Family::of(service.address) == family) {
            let key = [&interface_bytes(&service.ifname)[..], &octets(service.address)].concat();
            by_key.entry(key).or_default().push(octets(service.target));
        }
        by_key.iter().flat_map(|(key, values)| deal(key, values)).collect()
    }
}

/// The address alone is translated: a service has all the ports that its containers have.
pub(super) fn service_rule(family: Family) -> Rule {
    let mut rule = family.is_it().to_vec();
    rule.push(meta(MetaKey::InterfaceName));
    rule.push(payload(family.destination(), SECOND));
    rule.push(next_turn(after(SECOND, family.address_words())));
    let (set, inverted) = (family.maps().services.to_owned(), Inverted::No);
    rule.push(Expression::Lookup { set, key: FIRST, into: Some(FIRST), inverted });
    // As the kernel shows it: an address as a range of one, and that there is one (`NF_NAT_RANGE_MAP_IPS`).
    let attributes = [(1, NAT_DESTINATION), (2, family.number().into()), (3, FIRST), (4, FIRST), (7, 1)];
    rule.push(Expression::Foreign { name: "nat".into(), attributes: numbers(&attributes) });
    named(PREROUTING, family.maps().services, rule)
}
