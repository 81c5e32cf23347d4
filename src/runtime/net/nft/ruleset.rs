//! An nftables table as a value: chains, maps and sets, rules made of expressions. What is wished for and what the
//! kernel holds are the same type, so that they can be compared.
//!
//! Expressions are those of the kernel's register machine (`linux/netfilter/nf_tables.h`): each loads something into a
//! register, compares one, looks one up, or ends with a verdict or a translation.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The content of one table of family `inet`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub chains: Vec<Chain>,
    pub sets: Vec<Set>,
    /// In order within each chain.
    pub rules: Vec<Rule>,
}

/// A chain, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// Where the kernel enters it; `None` for a chain that only rules jump to.
    pub base: Option<BaseChain>,
}

/// Where and when a chain is entered, and what becomes of a packet that it lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// `filter` or `nat`; a text because a stranger's chain may be of any type.
    pub kind: String,
    /// `NF_INET_*`.
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
    pub policy: Policy,
}

/// The place in a packet's way (`NF_INET_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    /// Any other, by number.
    Other(u32),
}

impl Hook {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
            Self::Other(number) => number,
        }
    }

    pub(super) fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Prerouting,
            1 => Self::Input,
            2 => Self::Forward,
            3 => Self::Output,
            4 => Self::Postrouting,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prerouting => f.write_str("prerouting"),
            Self::Input => f.write_str("input"),
            Self::Forward => f.write_str("forward"),
            Self::Output => f.write_str("output"),
            Self::Postrouting => f.write_str("postrouting"),
            Self::Other(number) => write!(f, "hook {number}"),
        }
    }
}

/// What becomes of a packet that no rule of a base chain decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Accept,
    Drop,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        })
    }
}

/// A type of a key's or a value's field, as the `nft` program numbers them; the kernel only keeps the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Ipv4Address,
    Ipv6Address,
    /// A transport protocol, such as 6 for TCP.
    Protocol,
    Port,
    InterfaceName,
    /// A number of 32 bits below [`TURNS`], in the host's order.
    Turn,
}

/// What a [`FieldType::Turn`] counts to.
pub const TURNS: u32 = 256;

impl FieldType {
    const ALL: [Self; 6] =
        [Self::Ipv4Address, Self::Ipv6Address, Self::Protocol, Self::Port, Self::InterfaceName, Self::Turn];

    fn number(self) -> u32 {
        match self {
            Self::Ipv4Address => 7,
            Self::Ipv6Address => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::InterfaceName => 41,
            // A plain integer, whose width the user data of a set must tell.
            Self::Turn => 4,
        }
    }

    /// The bytes that a field takes, each padded to whole registers of four.
    fn bytes(self) -> usize {
        match self {
            Self::Ipv4Address | Self::Protocol | Self::Port | Self::Turn => 4,
            Self::Ipv6Address => 16,
            Self::InterfaceName => INTERFACE_NAME_BYTES,
        }
    }
}

/// The bytes of fields that follow each other. One that stands alone is not padded.
fn bytes_of(fields: &[FieldType]) -> Vec<usize> {
    match fields {
        [FieldType::Port] => vec![2],
        [FieldType::Protocol] => vec![1],
        _ => fields.iter().map(|field| field.bytes()).collect(),
    }
}

/// `IFNAMSIZ`: an interface's name in a register, padded with zeroes.
pub(super) const INTERFACE_NAME_BYTES: usize = 16;
/// Bits per field in the type number of a concatenation.
const TYPE_BITS: u32 = 6;

/// The type of a key or of a value: fields that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldTypes {
    /// The concatenated type number.
    pub number: u32,
    /// Bytes.
    pub length: u32,
}

impl FieldTypes {
    pub fn of(fields: &[FieldType]) -> Self {
        Self {
            number: fields.iter().fold(0, |number, field| number << TYPE_BITS | field.number()),
            length: bytes_of(fields).iter().sum::<usize>() as u32,
        }
    }

    pub(super) fn fields(self) -> Option<Vec<FieldType>> {
        let mut fields = Vec::new();
        let mut rest = self.number;
        while rest != 0 {
            let number = rest & ((1 << TYPE_BITS) - 1);
            fields.insert(0, FieldType::ALL.into_iter().find(|field| field.number() == number)?);
            rest >>= TYPE_BITS;
        }
        (bytes_of(&fields).iter().sum::<usize>() == self.length as usize).then_some(fields)
    }

    /// A value of this type in words, such as `127.0.0.1 tcp 8080`; in hexadecimal where it is of no type of ours.
    pub fn describe(self, bytes: &[u8]) -> String {
        let whole = bytes.len() == self.length as usize;
        let Some(fields) = self.fields().filter(|_| whole) else {
            return bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        };
        let mut rest = bytes;
        let widths = bytes_of(&fields);
        let words = fields.into_iter().zip(widths).map(|(field, width)| {
            let (value, tail) = rest.split_at(width);
            rest = tail;
            match field {
                FieldType::Ipv4Address => Ipv4Addr::new(value[0], value[1], value[2], value[3]).to_string(),
                FieldType::Ipv6Address => {
                    <[u8; 16]>::try_from(value).map(Ipv6Addr::from).map_or_else(|_| "?".into(), |a| a.to_string())
                }
                FieldType::Protocol => match value[0] {
                    6 => "tcp".to_owned(),
                    17 => "udp".to_owned(),
                    132 => "sctp".to_owned(),
                    other => format!("protocol {other}"),
                },
                FieldType::Port => u16::from_be_bytes([value[0], value[1]]).to_string(),
                FieldType::Turn => u32::from_ne_bytes([value[0], value[1], value[2], value[3]]).to_string(),
                FieldType::InterfaceName => {
                    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
                }
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A set, or a map if it has a value type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub key: FieldTypes,
    pub value: Option<FieldTypes>,
    /// `NFT_SET_*` flags but `NFT_SET_MAP`, which is [`Set::value`]. Ours have none.
    pub flags: u32,
    /// From key to value, in the bytes of the registers. A set's values are empty.
    pub elements: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub chain: String,
    /// What it is for, in words; it stands in the rule as its comment. Empty for a stranger's rule without one.
    pub name: String,
    pub expressions: Vec<Expression>,
}

/// A register: the number under which the kernel shows it. The four-byte registers 1, 9, 10, 11 make up the first
/// sixteen-byte one, 1; 2, 13, 14, 15 the second, 2.
pub type Register = u32;

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads what the kernel knows of a packet (`NFT_META_*`).
    Meta { key: u32, into: Register },
    /// Loads bytes of the packet (`NFT_PAYLOAD_*_HEADER`).
    Payload { base: u32, offset: u32, length: u32, into: Register },
    /// Loads what the connection tracker knows (`NFT_CT_*`).
    Ct { key: u32, into: Register },
    /// Loads a result of the routing table (`NFT_FIB_RESULT_*`, `NFTA_FIB_F_*`).
    Fib { result: u32, flags: u32, into: Register },
    /// `into = (from & mask) ^ xor`.
    Bitwise { from: Register, into: Register, mask: Vec<u8>, xor: Vec<u8> },
    /// Goes on only if the comparison holds (`NFT_CMP_*`: 0 equal, 1 unequal).
    Compare { operation: u32, register: Register, value: Vec<u8> },
    /// Goes on only if the key is in the set (or not, if inverted); a map's value is loaded.
    Lookup { set: String, key: Register, into: Option<Register>, inverted: Inverted },
    /// Ends with a verdict.
    Verdict { code: u32, chain: Option<String> },
    /// Translates the destination (`NFT_NAT_DNAT` 1) or source (0) to the address and port in the registers.
    Nat { kind: u32, family: u32, address: Register, port: Register, flags: u32 },
    /// Translates the source to the address of the link that the packet leaves by; its attributes as they came.
    Masquerade { attributes: Vec<u8> },
    /// An expression for which there is no form here, by the bytes of its attributes.
    Foreign { name: String, attributes: Vec<u8> },
}

/// Whether a lookup asks for absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inverted {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_in_words() {
        let types = FieldTypes::of(&[FieldType::Ipv4Address, FieldType::Protocol, FieldType::Port]);
        assert_eq!((types.number, types.length), (7 << 12 | 12 << 6 | 13, 12));
        assert_eq!(types.describe(&[192, 0, 2, 1, 17, 0, 0, 0, 0, 53, 0, 0]), "192.0.2.1 udp 53");
        let name = FieldTypes::of(&[FieldType::InterfaceName]);
        assert_eq!(name.describe(b"eth0\0\0\0\0\0\0\0\0\0\0\0\0"), "eth0");
    }

    #[test]
    fn bytes_of_no_type_of_ours_are_told_as_they_are() {
        assert_eq!(FieldTypes { number: 1, length: 2 }.describe(&[0xab, 1]), "ab01");
        assert_eq!(FieldTypes::of(&[FieldType::Port]).describe(&[1]), "01");
    }
}
