//! `[bridge.NAME]`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::literal::Text;
use crate::file::source::Span;
use crate::file::walk::{Reader, Section};
use crate::model::Bridge;

pub(in crate::file) struct BridgeSheet {
    pub bridge: Bridge,
    pub subnet_span: Option<Span>,
}

/// The longest and the shortest prefix: five addresses for containers, and the private range 192.168.0.0/16.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=29;
/// Every IPv4 host takes packets of 576 bytes (RFC 791); a link's own limit is 65535.
const MTUS: std::ops::RangeInclusive<u64> = 576..=65535;
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
    let mtu = reader.integer(section.get("mtu"), MTUS).map(|mtu| mtu.value as u32);
    BridgeSheet { bridge: Bridge { subnet, mtu }, subnet_span }
}

fn subnet(text: &Text) -> Result<Ipv4Net, Box<Draft>> {
    let value = &text.value;
    let bad = |message: String| Draft::error(code::BAD_SUBNET, &text.span, message);
    if value.contains(':') {
        return Err(Box::new(
            Draft::error(code::NOT_YET, &text.span, "an IPv6 subnet is not supported yet").help("bridges carry IPv4"),
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
