//! Hardware addresses for links of ours.

use std::net::Ipv4Addr;

/// The address of a container's end of a veth pair: locally administered, unicast, and the same for the same IPv4
/// address (`0a:58` and its four bytes). A container that is replaced under its old address thus leaves no peer with a
/// stale neighbour entry.
pub fn generate_veth_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_local_and_unicast_and_stable() {
        let mac = generate_veth_mac(Ipv4Addr::new(10, 70, 0, 2));
        assert_eq!(mac, [0x0a, 0x58, 10, 70, 0, 2]);
        assert_eq!(mac[0] & 0b11, 0b10, "locally administered, not a group");
    }
}
