//! What several share: a port or a service has an element for each of [`TURNS`] turns, dealt out among its targets.

use std::collections::BTreeMap;

use super::words::{
    FIRST, Family, MetaKey, NAT_DESTINATION, SECOND, interface_bytes, meta, named, next_turn, numbers, octets, payload,
};
use super::{
    ADDRESS_PORTS, ADDRESS_PORTS6, LOOPBACK_PORTS, LOOPBACK_PORTS6, NatTable, PREROUTING, PUBLIC_PORTS, PUBLIC_PORTS6,
};
use crate::runtime::net::nft::{Expression, Inverted, Rule};

/// The maps of ports that several targets share, one for each of the maps above.
pub const SPREAD: [(&str, &str); 6] = [
    (ADDRESS_PORTS, "address_spread"),
    (LOOPBACK_PORTS, "loopback_spread"),
    (PUBLIC_PORTS, "public_spread"),
    (ADDRESS_PORTS6, "address_spread6"),
    (LOOPBACK_PORTS6, "loopback_spread6"),
    (PUBLIC_PORTS6, "public_spread6"),
];
/// The map of services.
pub const SERVICES: &str = "services";
/// The map of services at IPv6 addresses.
pub const SERVICES6: &str = "services6";
/// How many turns are dealt out among the targets of a port or service. As many targets at most get any.
pub const TURNS: u32 = 256;

/// How many targets the ports of a map have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    One,
    Many,
}

/// The map of shared ports that belongs to a map of ports.
pub(super) fn spread_of(map: &str) -> &'static str {
    SPREAD.iter().find(|(single, _)| *single == map).map_or("", |(_, spread)| spread)
}

/// The turns dealt out among values, as elements.
pub(super) fn deal<'a>(key: &'a [u8], values: &'a [Vec<u8>]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + 'a {
    (0..TURNS).zip(values.iter().cycle()).map(move |(turn, value)| ([key, &turn.to_ne_bytes()].concat(), value.clone()))
}

impl NatTable {
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
    rule.push(next_turn(family.after_both()));
    let (set, inverted) = (family.maps().services.to_owned(), Inverted::No);
    rule.push(Expression::Lookup { set, key: FIRST, into: Some(FIRST), inverted });
    // As the kernel shows it: an address as a range of one, and that there is one (`NF_NAT_RANGE_MAP_IPS`).
    let attributes = [(1, NAT_DESTINATION), (2, family.number().into()), (3, FIRST), (4, FIRST), (7, 1)];
    rule.push(Expression::Foreign { name: "nat".into(), attributes: numbers(&attributes) });
    named(PREROUTING, family.maps().services, rule)
}
