//! `port = ["8080:80"]`.

use std::net::Ipv4Addr;

use toml::de::DeValue;

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::literal::Text;
use crate::file::source::At;
use crate::file::walk::{Reader, Section};
use crate::model::{PortBind, PortMap, Protocol};

const FORMS: &str = "forms are \"8080:80\" (on 127.0.0.1), \"192.0.2.1:8080:80\" and \"public:8080:80\", with \"/udp\" after \
                     them for UDP";

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
        match port_map(&text) {
            Ok(map) => ports.push(At::new(map, text.span)),
            Err(draft) => reader.push(*draft),
        }
    }
    ports
}

fn port_map(text: &Text) -> Result<PortMap, Box<Draft>> {
    let bad = |message: String| Box::new(Draft::error(code::BAD_PORT, &text.span, message).help(FORMS));
    if text.value.is_empty() {
        return Err(bad("an empty string is no published port".into()));
    }
    let (ports, protocol) = match text.value.split_once('/') {
        Some((ports, protocol)) => (ports, self::protocol(text, protocol)?),
        None => (text.value.as_str(), Protocol::Tcp),
    };
    if ports.contains(['[', ']']) || ports.matches(':').count() > 2 {
        let message = format!("a port on an IPv6 address (`{}`) is not supported yet", text.value);
        return Err(Box::new(
            Draft::error(code::NOT_YET, &text.span, message).help("write an IPv4 address or `public`"),
        ));
    }
    let parts: Vec<&str> = ports.split(':').collect();
    let (bind, host, container) = match parts[..] {
        [both] => (PortBind::Address(Ipv4Addr::LOCALHOST), both, both),
        [host, container] => (PortBind::Address(Ipv4Addr::LOCALHOST), host, container),
        [bind, host, container] => (self::bind(text, bind)?, host, container),
        _ => return Err(bad(format!("`{}` is no published port", text.value))),
    };
    if parts.len() == 2 && (host == "public" || host.parse::<Ipv4Addr>().is_ok()) {
        let draft = bad(format!("`{}` names an address and one port", text.value));
        return Err(Box::new(draft.label(format!("did you mean \"{host}:{container}:{container}\"?"))));
    }
    let map = PortMap { bind, host_port: number(text, host)?, container_port: number(text, container)?, protocol };
    Ok(map)
}

fn protocol(text: &Text, written: &str) -> Result<Protocol, Box<Draft>> {
    match written {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Err(Box::new(Draft::error(code::NOT_YET, &text.piece(written), "`sctp` is not supported yet"))),
        _ => {
            let draft = Draft::error(code::BAD_PORT, &text.piece(written), format!("`{written}` is no protocol"));
            Err(Box::new(draft.help("allowed: \"tcp\" or \"udp\"")))
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
        (_, Ok(address)) => Ok(PortBind::Address(address)),
        ("localhost", _) => {
            Err(Box::new(bad("`localhost` is a name, not an address".into()).label("write `127.0.0.1`")))
        }
        ("", _) => Err(Box::new(bad("the address before the first colon is missing".into()).help(FORMS))),
        _ => Err(Box::new(bad(format!("`{written}` is neither an IPv4 address nor `public`")).help(FORMS))),
    }
}

fn number(text: &Text, written: &str) -> Result<u16, Box<Draft>> {
    if let Some((first, last)) = written.split_once('-')
        && first.parse::<u16>().is_ok()
        && last.parse::<u16>().is_ok()
    {
        let draft = Draft::error(code::NOT_YET, &text.piece(written), "a range of ports is not supported yet");
        return Err(Box::new(draft.help("list each port of it")));
    }
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
