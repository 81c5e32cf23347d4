//! What switching on forwarding would open beside our bridges, kept shut: a host that forwarded nothing goes on forwarding
//! nothing from one of its other links to another.

use super::words::{Family, MetaKey, NF_DROP, in_set, interface_bytes, meta, named, verdict};
use crate::runtime::net::nft::{BaseChain, Chain, FieldType, FieldTypes, Hook, Inverted, Policy, Ruleset, Set};

/// The table that keeps IPv4 shut.
pub const SHUT_TABLE: &str = "stack-forwarding-ipv4";
/// The table that keeps IPv6 shut.
pub const SHUT_TABLE6: &str = "stack-forwarding-ipv6";

/// Drops IPv4 packets on their way from one of `links` to another. Links that come later are not in it: who makes them, as
/// docker and libvirt do, has rules of his own for them.
pub fn shut(links: &[String]) -> Ruleset {
    table(Family::V4, links)
}

/// The same for IPv6.
pub fn shut6(links: &[String]) -> Ruleset {
    table(Family::V6, links)
}

fn table(family: Family, links: &[String]) -> Ruleset {
    const LINKS: &str = "links";
    const CHAIN: &str = "forward";
    let base = BaseChain { kind: "filter".into(), hook: Hook::Forward, priority: 0, policy: Policy::Accept };
    let mut rule = family.is_it().to_vec();
    for key in [MetaKey::InterfaceName, MetaKey::OutInterfaceName] {
        rule.extend([meta(key), in_set(LINKS, Inverted::No)]);
    }
    rule.push(verdict(NF_DROP));
    Ruleset {
        chains: vec![Chain { name: CHAIN.into(), base: Some(base) }],
        sets: vec![Set {
            name: LINKS.into(),
            key: FieldTypes::of(&[FieldType::InterfaceName]),
            value: None,
            flags: 0,
            elements: links.iter().map(|link| (interface_bytes(link).to_vec(), Vec::new())).collect(),
        }],
        rules: vec![named(CHAIN, "not forwarded before stack needed forwarding", rule)],
    }
}
