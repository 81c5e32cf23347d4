//! Subnets and addresses: chosen once, kept for as long as the kernel holds them, and the same again after that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};

/// Why there is no address to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "no free subnet is left for bridge `{bridge}`: every /{prefix} of 10.64.0.0/10, 172.16.0.0/12 and 192.168.0.0/16 \
         overlaps a route or another stack"
    )]
    NoSubnet { bridge: String, prefix: u8 },
    #[error("no free IPv6 subnet is left for bridge `{bridge}`: routes have all of fd00::/8 that was tried")]
    NoSubnet6 { bridge: String },
    #[error("subnet {subnet} of bridge `{bridge}` has {room} addresses for containers, and {wanted} are needed")]
    SubnetFull { bridge: String, subnet: Ipv4Net, room: usize, wanted: usize },
}

/// Chosen subnets are cut from the first of these that has one: the part of 10.0.0.0/8 that VPNs and home routers like
/// least, then what is left where a VPN routes all of it.
const POOLS: [(Ipv4Addr, u8); 3] =
    [(Ipv4Addr::new(10, 64, 0, 0), 10), (Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(192, 168, 0, 0), 16)];
/// 61 containers a bridge; small, so that many stacks find room beside a host's own routes.
const PREFIX: u8 = 26;

/// A free subnet for a bridge. The search begins at a place that the names decide, so that the same stack gets the same
/// subnet again after a `down`.
pub fn choose_subnet(stack: &str, bridge: &str, taken: &[IpNet]) -> Result<Ipv4Net, AddressError> {
    let hash = Sha256::digest(format!("{stack}/{bridge}"));
    let start = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    let free = |subnet: &Ipv4Net| !taken.iter().any(|other| overlap(&IpNet::V4(*subnet), other));
    POOLS
        .into_iter()
        .find_map(|pool| subnets_of(pool, start).find(free))
        .ok_or(AddressError::NoSubnet { bridge: bridge.into(), prefix: PREFIX })
}

/// An IPv6 subnet for a bridge, of the range for local use (RFC 4193). The names decide it, so that the same stack gets the
/// same one again; where a route has that one, they decide another.
pub fn choose_subnet6(stack: &str, bridge: &str, taken: &[IpNet]) -> Result<Ipv6Net, AddressError> {
    /// Of 2^56 subnets, so many in a row are not taken by chance.
    const TRIES: u32 = 256;
    let nth = |turn: u32| {
        let hash = Sha256::digest(format!("{stack}/{bridge}/ipv6/{turn}"));
        let mut bytes = [0; 16];
        bytes[0] = 0xfd;
        bytes[1..8].copy_from_slice(&hash[..7]);
        Ipv6Net::new_assert(Ipv6Addr::from(bytes), 64)
    };
    (0..TRIES)
        .map(nth)
        .find(|subnet| !taken.iter().any(|other| overlap(&IpNet::V6(*subnet), other)))
        .ok_or(AddressError::NoSubnet6 { bridge: bridge.into() })
}

/// The address in an IPv6 subnet that has the number which `address` has in its IPv4 subnet.
pub(super) fn beside(address: Ipv4Addr, subnet: Ipv4Net, subnet6: Ipv6Net) -> Ipv6Net {
    let number = u32::from(address) - u32::from(subnet.network());
    Ipv6Net::new_assert(Ipv6Addr::from(u128::from(subnet6.network()) + u128::from(number)), subnet6.prefix_len())
}

/// All subnets of a pool, beginning with the one at `start`.
fn subnets_of((base, length): (Ipv4Addr, u8), start: u32) -> impl Iterator<Item = Ipv4Net> {
    let count = 1u32 << (PREFIX - length);
    (0..count).map(move |step| {
        let index = (start % count + step) % count;
        Ipv4Net::new_assert(Ipv4Addr::from(u32::from(base) + (index << (32 - PREFIX))), PREFIX)
    })
}

/// Whether two subnets share an address. A default route shares nothing: it says where everything else goes.
pub(super) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    b.prefix_len() > 0 && (a.contains(&b.network()) || b.contains(&a.network()))
}

/// One address for each of `wanted`, in order. `kept` addresses stay where they still fit; the rest take the lowest free
/// ones. The subnet's first address is the gateway's.
pub fn hand_out(
    bridge: &str,
    subnet: Ipv4Net,
    wanted: &[String],
    kept: &BTreeMap<String, Ipv4Addr>,
) -> Result<BTreeMap<String, Ipv4Addr>, AddressError> {
    let room = room_of(subnet);
    if wanted.len() > room {
        return Err(AddressError::SubnetFull { bridge: bridge.into(), subnet, room, wanted: wanted.len() });
    }
    let gateway = gateway_of(subnet);
    let usable = |address: &Ipv4Addr| {
        subnet.contains(address)
            && *address != subnet.network()
            && *address != subnet.broadcast()
            && *address != gateway
    };
    let mut given: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
    let mut used = BTreeSet::from([gateway]);
    for name in wanted {
        if let Some(address) = kept.get(name).filter(|address| usable(address))
            && used.insert(*address)
        {
            given.insert(name.clone(), *address);
        }
    }
    // An address that somebody else still holds is not free, although nobody wanted it kept.
    used.extend(kept.values());
    let mut free = subnet.hosts().filter(|address| !used.contains(address));
    let mut reused = kept
        .values()
        .filter(|address| usable(address) && !given.values().any(|a| a == *address))
        .copied()
        .collect::<Vec<_>>();
    for name in wanted {
        if !given.contains_key(name) {
            let address = free.next().or_else(|| reused.pop()).ok_or_else(|| AddressError::SubnetFull {
                bridge: bridge.into(),
                subnet,
                room,
                wanted: wanted.len(),
            })?;
            given.insert(name.clone(), address);
        }
    }
    Ok(given)
}

/// How many addresses a subnet has besides its own two and the gateway's.
pub(super) fn room_of(subnet: Ipv4Net) -> usize {
    (1usize << (32 - u32::from(subnet.prefix_len()))).saturating_sub(3)
}

/// The bridge's own address: the subnet's first.
pub(super) fn gateway_of(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("c{i}")).collect()
    }

    #[test]
    fn the_same_stack_gets_the_same_subnet_again() {
        let first = choose_subnet("shop", "front", &[]).unwrap();
        assert_eq!(first, choose_subnet("shop", "front", &[net("192.168.0.0/16"), net("0.0.0.0/0")]).unwrap());
        assert_eq!(first.prefix_len(), 26);
    }

    #[test]
    fn a_route_s_subnet_is_left_alone() {
        let first = choose_subnet("shop", "front", &[]).unwrap();
        let second = choose_subnet("shop", "front", &[first.into()]).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn an_ipv6_subnet_is_local_stays_the_same_and_leaves_routes_alone() {
        let first = choose_subnet6("shop", "front", &[net("::/0")]).unwrap();
        assert_eq!(first, choose_subnet6("shop", "front", &[]).unwrap());
        assert!(net::<Ipv6Net>("fd00::/8").contains(&first));
        assert_ne!(first, choose_subnet6("shop", "front", &[first.into()]).unwrap());
        assert!(choose_subnet6("shop", "front", &[net("fc00::/7")]).is_err());
    }

    #[test]
    fn an_ipv6_address_has_the_number_of_the_ipv4_address() {
        let at = beside("10.70.0.69".parse().unwrap(), net("10.70.0.64/26"), net("fd12::/64"));
        assert_eq!(at, net("fd12::5/64"));
    }

    #[test]
    fn where_all_of_one_range_is_routed_another_is_chosen() {
        let choose =
            |taken: &[&str]| choose_subnet("shop", "front", &taken.iter().map(|text| net(text)).collect::<Vec<_>>());
        assert!(net::<Ipv4Net>("10.64.0.0/10").contains(&choose(&["10.0.0.0/10"]).unwrap()));
        assert!(net::<Ipv4Net>("172.16.0.0/12").contains(&choose(&["10.0.0.0/8"]).unwrap()));
        assert!(net::<Ipv4Net>("192.168.0.0/16").contains(&choose(&["10.0.0.0/8", "172.16.0.0/12"]).unwrap()));
        let all = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
        assert!(matches!(choose(&all), Err(AddressError::NoSubnet { .. })));
    }

    #[test]
    fn the_gateway_comes_first_and_containers_follow_in_order() {
        let given = hand_out("b", net("10.70.0.0/29"), &names(5), &BTreeMap::new()).unwrap();
        let list: Vec<String> = names(5).iter().map(|n| given[n].to_string()).collect();
        assert_eq!(list, ["10.70.0.2", "10.70.0.3", "10.70.0.4", "10.70.0.5", "10.70.0.6"]);
    }

    #[test]
    fn what_runs_keeps_its_address_when_others_come_before_it() {
        let kept = BTreeMap::from([("c2".to_string(), Ipv4Addr::new(10, 70, 0, 2))]);
        let given = hand_out("b", net("10.70.0.0/26"), &names(3), &kept).unwrap();
        assert_eq!(given["c2"], Ipv4Addr::new(10, 70, 0, 2));
        assert_eq!(given["c0"], Ipv4Addr::new(10, 70, 0, 3));
    }

    #[test]
    fn an_address_outside_a_changed_subnet_is_not_kept() {
        let kept = BTreeMap::from([("c0".to_string(), Ipv4Addr::new(10, 70, 0, 2))]);
        let given = hand_out("b", net("10.71.0.0/26"), &names(1), &kept).unwrap();
        assert_eq!(given["c0"], Ipv4Addr::new(10, 71, 0, 2));
    }

    #[test]
    fn a_full_subnet_says_how_much_room_it_has() {
        let error = hand_out("b", net("10.70.0.0/29"), &names(6), &BTreeMap::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "subnet 10.70.0.0/29 of bridge `b` has 5 addresses for containers, and 6 are needed"
        );
    }
}
