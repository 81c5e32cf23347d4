//! `[bridge.NAME]`.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::literal::Text;
use crate::file::source::{At, Span};
use crate::file::walk::{Reader, Section};
use crate::model::{Bridge, IPV6_MIN_MTU};

pub(in crate::file) struct BridgeSheet {
    pub bridge: Bridge,
    pub subnet_span: Option<Span>,
    pub subnet6_span: Option<Span>,
}

/// The longest and the shortest prefix: five addresses for containers, and the private range 192.168.0.0/16.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=29;
/// Every IPv4 host takes packets of 576 bytes (RFC 791); a link's own limit is 65535.
const MTUS: std::ops::RangeInclusive<u64> = 576..=65535;
/// The range for local use, with the bit that says that nobody assigned it.
const UNIQUE_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0);
/// A container has the same number in its IPv6 subnet as in the IPv4 one, which has at most 16 bits.
const PREFIXES6: std::ops::RangeInclusive<u8> = 64..=112;
/// RFC 1918, and the shared space of RFC 6598.
const PRIVATE: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];

pub(super) fn read(reader: &mut Reader, section: &Section) -> BridgeSheet {
    let text = reader.text(section.get("subnet"));
    let subnet_span = text.as_ref().map(|text| text.span.clone());
    let subnet = text.and_then(|text| match subnet(&text) {
        Ok(subnet) => Some(subnet),
        Err(draft) => {
            reader.push(*draft);
            None
        }
    });
    let mtu = reader.integer(section.get("mtu"), MTUS);
    let ipv6 = reader.boolean(section.get("ipv6"));
    let subnet6 = reader.text(section.get("subnet6")).and_then(|text| match subnet6(&text, ipv6) {
        Ok(subnet) => Some(At::new(subnet, text.span)),
        Err(draft) => {
            reader.push(*draft);
            None
        }
    });
    if let (Some(mtu), Some(wanted)) = (mtu.as_ref().filter(|mtu| mtu.value < IPV6_MIN_MTU.into()), section.get("ipv6"))
        && ipv6 == Some(true)
    {
        let message = format!("IPv6 needs an MTU of {IPV6_MIN_MTU}, and {} is asked for", mtu.value);
        let draft = Draft::error(code::BAD_SUBNET, &mtu.span, message).other(&wanted.span(), "IPv6 is asked for");
        reader.push(draft.help(format!("write `mtu = {IPV6_MIN_MTU}`, or `ipv6 = false`")));
    }
    let bridge = Bridge {
        subnet,
        subnet6: subnet6.as_ref().map(|at| at.value),
        ipv6: ipv6.unwrap_or(true),
        internal: reader.boolean(section.get("internal")).unwrap_or(false),
        mtu: mtu.map(|mtu| mtu.value as u32),
    };
    BridgeSheet { bridge, subnet_span, subnet6_span: subnet6.map(|at| at.span) }
}

fn subnet6(text: &Text, ipv6: Option<bool>) -> Result<Ipv6Net, Box<Draft>> {
    let value = &text.value;
    let bad = |message: String| Draft::error(code::BAD_SUBNET, &text.span, message);
    let example = "write for example \"fd12:3456:789a:1::/64\", or leave it out and one is chosen";
    if ipv6 == Some(false) {
        return Err(Box::new(bad("`subnet6` contradicts `ipv6 = false`".into()).help("leave out one of them")));
    }
    let Ok(net) = value.parse::<Ipv6Net>() else {
        return Err(Box::new(bad(format!("`{value}` is no IPv6 subnet")).help(example)));
    };
    if !PREFIXES6.contains(&net.prefix_len()) {
        let (from, to) = (PREFIXES6.start(), PREFIXES6.end());
        let draft = bad(format!("the prefix length must be from {from} to {to}, not {}", net.prefix_len()));
        return Err(Box::new(draft.help("a link has a /64")));
    }
    if net.trunc() != net {
        let draft = bad(format!("`{value}` is an address within a subnet, not the subnet"));
        return Err(Box::new(draft.label("bits of the host part are set").help(format!("write \"{}\"", net.trunc()))));
    }
    if !Ipv6Net::new_assert(UNIQUE_LOCAL, 8).contains(&net) {
        let draft = bad(format!("`{value}` is not a private subnet"));
        return Err(Box::new(draft.help("private is fd00::/8 (RFC 4193)")));
    }
    Ok(net)
}

fn subnet(text: &Text) -> Result<Ipv4Net, Box<Draft>> {
    let value = &text.value;
    let bad = |message: String| Draft::error(code::BAD_SUBNET, &text.span, message);
    if value.contains(':') {
        return Err(Box::new(
            Draft::error(code::BAD_SUBNET, &text.span, "`subnet` is the IPv4 subnet").help("write it as `subnet6`"),
        ));
    }
    let Some((address, prefix)) = value.split_once('/') else {
        let draft = bad(format!("`{value}` has no prefix length"));
        let address = value.parse::<Ipv4Addr>().ok();
        return Err(Box::new(draft.maybe_help(address.map(|address| format!("write for example \"{address}/24\"")))));
    };
    let parsed = address.parse::<Ipv4Addr>().ok().zip(prefix.parse::<u8>().ok());
    let Some(net) = parsed.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()) else {
        return Err(Box::new(bad(format!("`{value}` is no IPv4 subnet")).help("write for example \"10.70.0.0/24\"")));
    };
    if !PREFIXES.contains(&net.prefix_len()) {
        let (from, to) = (PREFIXES.start(), PREFIXES.end());
        let mut draft = bad(format!("the prefix length must be from {from} to {to}, not {}", net.prefix_len()));
        draft.span = text.piece(prefix);
        return Err(Box::new(draft.help("/26 has room for 61 containers, /29 for 5")));
    }
    if net.trunc() != net {
        let draft = bad(format!("`{value}` is an address within a subnet, not the subnet"));
        return Err(Box::new(draft.label("bits of the host part are set").help(format!("write \"{}\"", net.trunc()))));
    }
    let private = PRIVATE.iter().filter_map(|(address, prefix)| Ipv4Net::new(*address, *prefix).ok());
    if !private.into_iter().any(|range| range.contains(&net)) {
        let draft = bad(format!("`{value}` is not a private subnet"));
        let ranges = "private are 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 and 100.64.0.0/10";
        return Err(Box::new(draft.label("the host would no longer reach these addresses elsewhere").help(ranges)));
    }
    Ok(net)
}
