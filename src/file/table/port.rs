//! `port = ["8080:80"]`.

use std::net::{Ipv4Addr, Ipv6Addr};

use toml::de::DeValue;

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::literal::Text;
use crate::file::source::At;
use crate::file::walk::{Reader, Section};
use crate::model::{PortBind, PortMap, Protocol};

const FORMS: &str = "forms are \"8080:80\" (on 127.0.0.1), \"192.0.2.1:8080:80\", \"[2001:db8::1]:8080:80\" and \
                     \"public:8080:80\", with \"/udp\" or \"/sctp\" after them";

/// A longer range would be a mistake more often than not, and each port of it is told in plans.
const MAX_RANGE: usize = 4096;

pub(super) fn read(reader: &mut Reader, section: &Section) -> Vec<At<PortMap>> {
    let Some(item) = section.get("port") else { return Vec::new() };
    let mut ports = Vec::new();
    for value in reader.list(&item).unwrap_or_default() {
        let text = match value.get_ref() {
            DeValue::String(string) => reader.replaced(string, value.span()),
            DeValue::Integer(integer) => Some(Text::new(integer.to_string(), "", value.span())),
            _ => {
                reader.wrong_type(&item, value);
                None
            }
        };
        let Some(text) = text else { continue };
        match port_maps(&text) {
            Ok(maps) => ports.extend(maps.into_iter().map(|map| At::new(map, text.span.clone()))),
            Err(draft) => reader.push(*draft),
        }
    }
    ports
}

fn port_maps(text: &Text) -> Result<Vec<PortMap>, Box<Draft>> {
    let bad = |message: String| Box::new(Draft::error(code::BAD_PORT, &text.span, message).help(FORMS));
    if text.value.is_empty() {
        return Err(bad("an empty string is no published port".into()));
    }
    let (ports, protocol) = match text.value.split_once('/') {
        Some((ports, protocol)) => (ports, self::protocol(text, protocol)?),
        None => (text.value.as_str(), Protocol::Tcp),
    };
    let (address, ports) = match ports.strip_prefix('[').map(|rest| rest.split_once("]:")) {
        Some(Some((address, ports))) => (Some(address), ports),
        Some(None) => return Err(bad(format!("`{}` has no `]:` after its IPv6 address", text.value))),
        None => (None, ports),
    };
    if address.is_none() && ports.matches(':').count() > 2 {
        let draft = bad(format!("`{}` is no published port", text.value));
        return Err(Box::new(draft.label("an IPv6 address stands in brackets: \"[2001:db8::1]:8080:80\"")));
    }
    let parts: Vec<&str> = ports.split(':').collect();
    let loopback = PortBind::Address(Ipv4Addr::LOCALHOST.into());
    let (bind, host, container) = match (address, &parts[..]) {
        (Some(address), [both]) => (bind6(text, address)?, *both, *both),
        (Some(address), [host, container]) => (bind6(text, address)?, *host, *container),
        (None, [both]) => (loopback, *both, *both),
        (None, [host, container]) => (loopback, *host, *container),
        (None, [bind, host, container]) => (self::bind(text, bind)?, *host, *container),
        _ => return Err(bad(format!("`{}` is no published port", text.value))),
    };
    if address.is_none() && parts.len() == 2 && (host == "public" || host.parse::<Ipv4Addr>().is_ok()) {
        let draft = bad(format!("`{}` names an address and one port", text.value));
        return Err(Box::new(draft.label(format!("did you mean \"{host}:{container}:{container}\"?"))));
    }
    let (host, container) = (range(text, host)?, range(text, container)?);
    if host.len() != container.len() {
        let message = format!("{} ports of the host cannot lead to {} of the container", host.len(), container.len());
        return Err(bad(message));
    }
    let pairs = host.zip(container);
    Ok(pairs.map(|(host_port, container_port)| PortMap { bind, host_port, container_port, protocol }).collect())
}

fn protocol(text: &Text, written: &str) -> Result<Protocol, Box<Draft>> {
    match written {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => {
            let draft = Draft::error(code::BAD_PORT, &text.piece(written), format!("`{written}` is no protocol"));
            Err(Box::new(draft.help("allowed: \"tcp\", \"udp\" or \"sctp\"")))
        }
    }
}

fn bind(text: &Text, written: &str) -> Result<PortBind, Box<Draft>> {
    let bad = |message: String| Draft::error(code::BAD_PORT, &text.piece(written), message);
    match (written, written.parse::<Ipv4Addr>()) {
        ("public", _) => Ok(PortBind::Public),
        (_, Ok(Ipv4Addr::UNSPECIFIED)) => {
            let draft = bad("`0.0.0.0` means every address of the host".into());
            Err(Box::new(draft.label("write `public`").help("`public` opens the port to the network")))
        }
        (_, Ok(address)) if address.is_multicast() || address.is_broadcast() => {
            Err(Box::new(bad(format!("`{address}` cannot be an address of the host"))))
        }
        (_, Ok(address)) => Ok(PortBind::Address(address.into())),
        ("localhost", _) => {
            Err(Box::new(bad("`localhost` is a name, not an address".into()).label("write `127.0.0.1`")))
        }
        ("", _) => Err(Box::new(bad("the address before the first colon is missing".into()).help(FORMS))),
        _ => Err(Box::new(bad(format!("`{written}` is neither an IPv4 address nor `public`")).help(FORMS))),
    }
}

fn bind6(text: &Text, written: &str) -> Result<PortBind, Box<Draft>> {
    let bad = |message: String| Draft::error(code::BAD_PORT, &text.piece(written), message);
    match written.parse::<Ipv6Addr>() {
        Ok(Ipv6Addr::UNSPECIFIED) => {
            let draft = bad("`::` means every address of the host".into());
            Err(Box::new(draft.label("write `public`").help("`public` opens the port to the network")))
        }
        Ok(address) if address.is_multicast() || address.is_unicast_link_local() => {
            let label = "an address of one link says too little";
            Err(Box::new(bad(format!("a port cannot be published on `{address}`")).label(label)))
        }
        Ok(address) if address.to_ipv4_mapped().is_some() => {
            Err(Box::new(bad(format!("`{address}` is an IPv4 address in disguise")).help("write it without brackets")))
        }
        Ok(address) => Ok(PortBind::Address(address.into())),
        Err(_) => Err(Box::new(bad(format!("`{written}` is no IPv6 address")).help(FORMS))),
    }
}

/// One port, or `8000-8010`.
fn range(text: &Text, written: &str) -> Result<std::ops::RangeInclusive<u16>, Box<Draft>> {
    let Some((first, last)) = written.split_once('-') else {
        return number(text, written).map(|port| port..=port);
    };
    let (first, last) = (number(text, first)?, number(text, last)?);
    if first > last {
        let draft = Draft::error(code::BAD_PORT, &text.piece(written), format!("`{written}` runs backwards"));
        return Err(Box::new(draft.help(format!("write \"{last}-{first}\""))));
    }
    if usize::from(last - first) >= MAX_RANGE {
        let message = format!("`{written}` are more than {MAX_RANGE} ports");
        return Err(Box::new(Draft::error(code::BAD_PORT, &text.piece(written), message)));
    }
    Ok(first..=last)
}

fn number(text: &Text, written: &str) -> Result<u16, Box<Draft>> {
    let digits = !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit());
    match written.parse::<u16>() {
        Ok(number) if digits && number > 0 => Ok(number),
        _ if digits => {
            let message = format!("a port is from 1 to 65535, not {written}");
            Err(Box::new(Draft::error(code::BAD_PORT, &text.piece(written), message)))
        }
        _ => {
            let message = match written {
                "" => format!("a port is missing in `{}`", text.value),
                _ => format!("`{written}` is no port"),
            };
            Err(Box::new(Draft::error(code::BAD_PORT, &text.piece(written), message).help(FORMS)))
        }
    }
}
