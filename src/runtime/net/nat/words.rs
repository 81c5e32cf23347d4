//! The words that the table's rules are made of: fields of packets, comparisons, verdicts, and what of them is IPv4's and
//! what IPv6's.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    ADDRESS_PORTS, ADDRESS_PORTS6, LOOPBACK_PORTS, LOOPBACK_PORTS6, PUBLIC_PORTS, PUBLIC_PORTS6, SERVICES, SERVICES6,
    TURNS,
};
use crate::runtime::net::nft::{Expression, FieldType, Inverted, Register, Rule};

pub(super) const NF_DROP: u32 = 0;
pub(super) const NF_ACCEPT: u32 = 1;
/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`.
pub(super) const EQUAL: u32 = 0;
pub(super) const UNEQUAL: u32 = 1;
/// The loopback link has this index in every network namespace.
pub(super) const LOOPBACK_INDEX: u32 = 1;
/// The conntrack states established and related, as `NFT_CT_STATE` shows them.
pub(super) const ANSWERING: u32 = 0b110;
/// `IPS_DST_NAT`.
pub(super) const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// The first and the second register of sixteen bytes (`NFT_REG_1`, `NFT_REG_2`).
pub(super) const FIRST: Register = 1;
pub(super) const SECOND: Register = 2;

/// The register that follows `words` times four bytes behind another, as the kernel shows it: by the number of sixteen bytes
/// where it begins such.
pub(super) fn after(register: Register, words: Register) -> Register {
    /// `NFT_REG32_00`, the first four bytes of `NFT_REG_1`.
    const FIRST_WORD: Register = 8;
    const WORDS: Register = 4;
    let place = if register < FIRST_WORD { (register - FIRST) * WORDS } else { register - FIRST_WORD } + words;
    if place % WORDS == 0 { FIRST + place / WORDS } else { FIRST_WORD + place }
}

/// A network protocol, with what of the rules is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// The names of the maps and sets of one network protocol.
pub(super) struct Maps {
    pub address: &'static str,
    pub loopback: &'static str,
    pub public: &'static str,
    pub gateways: &'static str,
    pub own_gateway: &'static str,
    pub services: &'static str,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    pub fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    /// What the names of its rules end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => ", IPv6",
        }
    }

    pub fn maps(self) -> Maps {
        match self {
            Self::V4 => Maps {
                address: ADDRESS_PORTS,
                loopback: LOOPBACK_PORTS,
                public: PUBLIC_PORTS,
                gateways: "gateways",
                own_gateway: "own_gateway",
                services: SERVICES,
            },
            Self::V6 => Maps {
                address: ADDRESS_PORTS6,
                loopback: LOOPBACK_PORTS6,
                public: PUBLIC_PORTS6,
                gateways: "gateways6",
                own_gateway: "own_gateway6",
                services: SERVICES6,
            },
        }
    }

    pub fn address_type(self) -> FieldType {
        match self {
            Self::V4 => FieldType::Ipv4Address,
            Self::V6 => FieldType::Ipv6Address,
        }
    }

    pub fn source(self) -> Field {
        match self {
            Self::V4 => SOURCE_ADDRESS,
            Self::V6 => Field { base: NETWORK_HEADER, offset: 8, length: 16 },
        }
    }

    pub fn destination(self) -> Field {
        match self {
            Self::V4 => DESTINATION_ADDRESS,
            Self::V6 => Field { base: NETWORK_HEADER, offset: 24, length: 16 },
        }
    }

    /// Registers of four bytes that an address takes.
    pub fn address_words(self) -> Register {
        match self {
            Self::V4 => 1,
            Self::V6 => 4,
        }
    }

    /// In a table of family `inet` the headers of both protocols pass; an offset means nothing before this.
    pub fn is_it(self) -> [Expression; 2] {
        [meta(MetaKey::NetworkProtocol), compare(EQUAL, &[self.number()])]
    }
}

/// What the kernel knows of a packet besides its bytes (`NFT_META_*`).
#[derive(Clone, Copy)]
pub(super) enum MetaKey {
    InterfaceIndex = 4,
    OutInterfaceIndex = 5,
    InterfaceName = 6,
    OutInterfaceName = 7,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

/// A run of bytes in one of a packet's headers.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub base: u32,
    pub offset: u32,
    pub length: u32,
}

pub(super) const NETWORK_HEADER: u32 = 1;
pub(super) const TRANSPORT_HEADER: u32 = 2;
pub(super) const SOURCE_ADDRESS: Field = Field { base: NETWORK_HEADER, offset: 12, length: 4 };
pub(super) const DESTINATION_ADDRESS: Field = Field { base: NETWORK_HEADER, offset: 16, length: 4 };
/// At the same place in TCP, UDP and SCTP.
pub(super) const DESTINATION_PORT: Field = Field { base: TRANSPORT_HEADER, offset: 2, length: 2 };
/// `NFT_CT_STATE`, `NFT_CT_STATUS`.
pub(super) const CT_STATE: u32 = 0;
pub(super) const CT_STATUS: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`, `RTN_LOCAL`.
pub(super) const FIB_ADDRESS_TYPE: u32 = 3;
pub(super) const FIB_DESTINATION: u32 = 2;
pub(super) const RTN_LOCAL: u32 = 2;
/// `NFT_NAT_DNAT`.
pub(super) const NAT_DESTINATION: u32 = 1;

pub(super) fn named(chain: &str, name: &str, expressions: Vec<Expression>) -> Rule {
    Rule { chain: chain.to_owned(), name: name.to_owned(), expressions }
}

pub(super) fn meta(key: MetaKey) -> Expression {
    Expression::Meta { key: key as u32, into: FIRST }
}

pub(super) fn ct(key: u32) -> Expression {
    Expression::Ct { key, into: FIRST }
}

pub(super) fn payload(field: Field, into: Register) -> Expression {
    Expression::Payload { base: field.base, offset: field.offset, length: field.length, into }
}

pub(super) fn compare(operation: u32, value: &[u8]) -> Expression {
    Expression::Compare { operation, register: FIRST, value: value.to_vec() }
}

pub(super) fn mask(mask: &[u8]) -> Expression {
    Expression::Bitwise { from: FIRST, into: FIRST, mask: mask.to_vec(), xor: vec![0; mask.len()] }
}

pub(super) fn in_set(set: &str, inverted: Inverted) -> Expression {
    Expression::Lookup { set: set.to_owned(), key: FIRST, into: None, inverted }
}

pub(super) fn verdict(code: u32) -> Expression {
    Expression::Verdict { code, chain: None }
}

pub(super) fn masquerade() -> Expression {
    Expression::Masquerade { attributes: Vec::new() }
}

pub(super) fn in_subnet(field: Field, subnet: IpNet) -> [Expression; 3] {
    [payload(field, FIRST), mask(&octets(subnet.netmask())), compare(EQUAL, &octets(subnet.network()))]
}

/// An interface's name as it stands in a register; a longer one is cut, as no interface can have it.
pub(super) fn interface_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(bytes.len() - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Counts the turns (`NFTA_NG_DREG`, `_MODULUS`, `_TYPE` incremental, `_OFFSET`).
pub(super) fn next_turn(into: Register) -> Expression {
    let attributes = numbers(&[(1, into), (2, TURNS), (3, 0), (4, 0)]);
    Expression::Foreign { name: "numgen".into(), attributes }
}

/// Attributes of 32 bits, as they stand in a message.
pub(super) fn numbers(attributes: &[(u16, u32)]) -> Vec<u8> {
    let one =
        |(kind, value): &(u16, u32)| [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_be_bytes()].concat();
    attributes.iter().flat_map(one).collect()
}
