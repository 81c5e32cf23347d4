//! Published ports: which address and port of the host leads to which port of a container.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// On which of the host's addresses a port is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortBind {
    /// One address. A port written without an address is bound to 127.0.0.1.
    Address(IpAddr),
    /// Every address that the host has, of IPv4 and IPv6.
    Public,
}

/// One published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMap {
    pub bind: PortBind,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

impl PortMap {
    /// Whether both ask for the same port of the same address.
    pub fn clashes_with(&self, other: &PortMap) -> bool {
        let overlap = match (self.bind, other.bind) {
            (PortBind::Address(a), PortBind::Address(b)) => a == b,
            _ => true,
        };
        overlap && self.host_port == other.host_port && self.protocol == other.protocol
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

impl fmt::Display for PortBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortBind::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            PortBind::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            PortBind::Public => f.write_str("public"),
        }
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}/{}", self.bind, self.host_port, self.container_port, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(bind: PortBind, protocol: Protocol) -> PortMap {
        PortMap { bind, host_port: 80, container_port: 8080, protocol }
    }

    #[test]
    fn public_clashes_with_every_address_of_the_same_protocol() {
        let loopback = port(PortBind::Address("127.0.0.1".parse().unwrap()), Protocol::Tcp);
        let lan = port(PortBind::Address("192.0.2.1".parse().unwrap()), Protocol::Tcp);
        assert!(port(PortBind::Public, Protocol::Tcp).clashes_with(&loopback));
        assert!(!port(PortBind::Public, Protocol::Udp).clashes_with(&loopback));
        assert!(!lan.clashes_with(&loopback));
    }
}
