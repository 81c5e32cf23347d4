//! What a plan opens and what it closes: which ports become reachable, and from where, that were not before. Held against
//! the nftables table that the kernel has, not against an earlier file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::actual::Actual;
use super::diff::HostFacts;
use super::step::Step;
use crate::plan::{ContainerSpec, Desired, Kind};

/// What becomes reachable by a plan, and what no longer is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exposure {
    pub opened: Vec<Way>,
    pub closed: Vec<Way>,
}

/// A way in from outside of the stack's containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    pub from: Reach,
    /// As a stack file has it: `public:443/tcp`, or `public:8000-8010/tcp`.
    pub port: String,
    /// The container of the file; `None` where no one knows whose the address is.
    pub container: Option<String>,
    /// The port there, or the first and last of them.
    pub container_port: String,
}

/// Who reaches a way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Whoever reaches any address of this machine, of both protocols or of one.
    Anywhere(Protocols),
    /// Whoever reaches this address of it.
    Address(IpAddr),
    /// Its own processes.
    ThisMachine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocols {
    Both,
    Ipv4,
    Ipv6,
}

impl Exposure {
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty()
    }

    /// Whether other machines may reach something that they could not reach before.
    pub fn opens_to_others(&self) -> bool {
        self.opened.iter().any(|way| way.from != Reach::ThisMachine)
    }
}

/// One port as the table has it. Ports of one container that follow each other are told together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Hole {
    bind: Bind,
    protocol: String,
    container: Option<String>,
    host_port: u16,
    container_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bind {
    Public(Protocols),
    Address(IpAddr),
}

/// What a plan of these steps opens and closes. Ports are reachable by the table alone: where that stays, so do they.
pub(super) fn of_plan(desired: &Desired, actual: &Actual, facts: &dyn HostFacts, steps: &[Step]) -> Exposure {
    if !steps.iter().any(|step| step.resource.kind == Kind::Nat) {
        return Exposure::default();
    }
    let wanted = desired.nat.as_ref().map(|nat| facts.nat_parts(nat)).unwrap_or_default();
    let specs = desired.containers.values().map(|container| (container.container.as_str(), &container.spec));
    let after = holes(&wanted, &owners(specs));
    let stored = actual.containers.values().filter_map(|container| container.stored.as_ref());
    let specs = stored.map(|stored| (stored.container.as_str(), &stored.spec));
    let before = match &actual.nat {
        // A dormant table leads nowhere.
        Some(table) if !table.parts.contains_key("table") => holes(&table.parts, &owners(specs)),
        _ => Vec::new(),
    };
    Exposure { opened: beyond(&after, &before), closed: beyond(&before, &after) }
}

/// Whose each address is.
fn owners<'a>(specs: impl Iterator<Item = (&'a str, &'a ContainerSpec)>) -> BTreeMap<IpAddr, &'a str> {
    specs
        .flat_map(|(name, spec)| {
            let addresses = spec.endpoints.iter().flat_map(|endpoint| {
                [Some(endpoint.address.into()), endpoint.address6.map(|net| IpAddr::V6(net.addr()))]
            });
            addresses.flatten().map(move |address| (address, name))
        })
        .collect()
}

fn holes(parts: &BTreeMap<String, String>, owners: &BTreeMap<IpAddr, &str>) -> Vec<Hole> {
    let mut holes: Vec<Hole> = parts
        .iter()
        .filter_map(|(name, targets)| {
            let (end, protocol) = name.strip_prefix("port ")?.rsplit_once('/')?;
            let (bind, host_port) = end.rsplit_once(':')?;
            let bind = match bind {
                "public" => Bind::Public(Protocols::Ipv4),
                "[::]" => Bind::Public(Protocols::Ipv6),
                address => Bind::Address(address.trim_matches(['[', ']']).parse().ok()?),
            };
            // Where several share a port, they are instances of one container.
            let target = targets.split([',', ' ']).next()?.parse::<SocketAddr>().ok()?;
            Some(Hole {
                bind,
                protocol: protocol.into(),
                container: owners.get(&target.ip()).map(|name| name.to_string()),
                host_port: host_port.parse().ok()?,
                container_port: target.port(),
            })
        })
        .collect();
    holes.sort();
    holes
}

/// What of `these` is not reachable by `those`, in few lines.
fn beyond(these: &[Hole], those: &[Hole]) -> Vec<Way> {
    let mut ways: Vec<(Hole, u16)> = Vec::new();
    let new: Vec<&Hole> = these.iter().filter(|hole| !those.iter().any(|other| other.covers(hole))).collect();
    for hole in &new {
        let hole = match hole.bind {
            Bind::Public(Protocols::Ipv6) if new.contains(&&hole.public(Protocols::Ipv4)) => continue,
            Bind::Public(Protocols::Ipv4) if new.contains(&&hole.public(Protocols::Ipv6)) => {
                hole.public(Protocols::Both)
            }
            _ => (*hole).clone(),
        };
        match ways.last_mut() {
            Some((first, length)) if hole.follows(first, *length) => *length += 1,
            _ => ways.push((hole, 1)),
        }
    }
    let mut ways: Vec<Way> = ways.into_iter().map(|(first, length)| first.way(length)).collect();
    ways.sort_by_key(|way| way.from);
    ways
}

impl Hole {
    /// Whether who reaches `other` reaches the same by this one.
    fn covers(&self, other: &Hole) -> bool {
        let wider = match (self.bind, other.bind) {
            (Bind::Public(Protocols::Ipv4), Bind::Address(address)) => address.is_ipv4(),
            (Bind::Public(Protocols::Ipv6), Bind::Address(address)) => address.is_ipv6(),
            (mine, theirs) => mine == theirs,
        };
        wider && *self == Hole { bind: self.bind, ..other.clone() }
    }

    fn public(&self, protocols: Protocols) -> Hole {
        Hole { bind: Bind::Public(protocols), ..self.clone() }
    }

    /// Whether it is the next one of a run of `length` ports.
    fn follows(&self, first: &Hole, length: u16) -> bool {
        let next = |port: u16| port.checked_add(length);
        let (host_port, container_port) = (next(first.host_port), next(first.container_port));
        host_port
            .zip(container_port)
            .is_some_and(|(host_port, container_port)| *self == Hole { host_port, container_port, ..first.clone() })
    }

    fn way(&self, length: u16) -> Way {
        let ports = |first: u16| match length {
            1 => first.to_string(),
            _ => format!("{first}-{}", first + (length - 1)),
        };
        let (from, bind) = match self.bind {
            Bind::Public(protocols) => (Reach::Anywhere(protocols), "public".to_string()),
            Bind::Address(address) if address.is_loopback() => (Reach::ThisMachine, written(address)),
            Bind::Address(address) => (Reach::Address(address), written(address)),
        };
        Way {
            from,
            port: format!("{bind}:{}/{}", ports(self.host_port), self.protocol),
            container: self.container.clone(),
            container_port: ports(self.container_port),
        }
    }
}

/// An address as it stands before a port.
fn written(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reach::Anywhere(Protocols::Both) => f.write_str("anywhere"),
            Reach::Anywhere(Protocols::Ipv4) => f.write_str("anywhere by IPv4"),
            Reach::Anywhere(Protocols::Ipv6) => f.write_str("anywhere by IPv6"),
            Reach::Address(address) => write!(f, "who reaches {address}"),
            Reach::ThisMachine => f.write_str("this machine"),
        }
    }
}

impl Serialize for Reach {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Reach::Address(address) => serializer.collect_str(address),
            other => serializer.collect_str(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is opened and what is closed between two tables, where 10.0.0.2 and fd12::2 are `web`'s and 10.0.0.3 is `db`'s.
    fn check(before: &[(&str, &str)], after: &[(&str, &str)], opened: &[&str], closed: &[&str]) {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let owners =
            BTreeMap::from([(address("10.0.0.2"), "web"), (address("fd12::2"), "web"), (address("10.0.0.3"), "db")]);
        let table = |parts: &[(&str, &str)]| {
            let parts = parts.iter().map(|(name, to)| (format!("port {name}"), to.to_string()));
            holes(&parts.chain([("chain forward".into(), "filter".into())]).collect(), &owners)
        };
        let (before, after) = (table(before), table(after));
        let words = |ways: Vec<Way>| -> Vec<String> {
            let container = |way: &Way| way.container.clone().unwrap_or_else(|| "?".into());
            ways.iter()
                .map(|way| format!("{} {}:{} {}", way.port, container(way), way.container_port, way.from))
                .collect()
        };
        assert_eq!(words(beyond(&after, &before)), opened, "opened");
        assert_eq!(words(beyond(&before, &after)), closed, "closed");
    }

    const WEB: &str = "10.0.0.2:80";
    const WEB6: &str = "[fd12::2]:80";

    #[test]
    fn who_reaches_a_new_port_is_told() {
        check(&[], &[("127.0.0.1:80/tcp", WEB)], &["127.0.0.1:80/tcp web:80 this machine"], &[]);
        check(&[], &[("[::1]:80/tcp", WEB6)], &["[::1]:80/tcp web:80 this machine"], &[]);
        check(&[], &[("192.0.2.1:80/tcp", WEB)], &["192.0.2.1:80/tcp web:80 who reaches 192.0.2.1"], &[]);
        check(&[], &[("public:80/tcp", WEB), ("[::]:80/tcp", WEB6)], &["public:80/tcp web:80 anywhere"], &[]);
        check(&[], &[("public:80/tcp", WEB)], &["public:80/tcp web:80 anywhere by IPv4"], &[]);
    }

    #[test]
    fn what_stays_is_no_change() {
        check(&[("public:80/tcp", WEB)], &[("public:80/tcp", WEB)], &[], &[]);
        // Another instance of the same container, one of several that take turns.
        check(&[("public:80/tcp", WEB)], &[("public:80/tcp", "10.0.0.2:80, 10.0.0.9:80")], &[], &[]);
    }

    #[test]
    fn a_wider_port_covers_a_narrower_one() {
        let (narrow, wide) = ([("127.0.0.1:80/tcp", WEB)], [("public:80/tcp", WEB)]);
        check(&narrow, &wide, &["public:80/tcp web:80 anywhere by IPv4"], &[]);
        check(&wide, &narrow, &[], &["public:80/tcp web:80 anywhere by IPv4"]);
        check(
            &[("[::1]:80/tcp", WEB6)],
            &wide,
            &["public:80/tcp web:80 anywhere by IPv4"],
            &["[::1]:80/tcp web:80 this machine"],
        );
    }

    #[test]
    fn the_other_protocol_is_one_way_more() {
        let both = [("public:80/tcp", WEB), ("[::]:80/tcp", WEB6)];
        check(&both[..1], &both, &["public:80/tcp web:80 anywhere by IPv6"], &[]);
    }

    #[test]
    fn a_port_that_leads_elsewhere_opens_what_it_leads_to() {
        let to = |target| [("public:80/tcp", target)];
        let web = "public:80/tcp web:80 anywhere by IPv4";
        check(&to(WEB), &to("10.0.0.3:80"), &["public:80/tcp db:80 anywhere by IPv4"], &[web]);
        check(&to(WEB), &to("10.0.0.2:81"), &["public:80/tcp web:81 anywhere by IPv4"], &[web]);
        check(&to("10.9.9.9:80"), &to(WEB), &[web], &["public:80/tcp ?:80 anywhere by IPv4"]);
    }

    #[test]
    fn ports_that_follow_each_other_are_one_line() {
        let ports = [
            ("127.0.0.1:8000/udp", "10.0.0.2:53"),
            ("127.0.0.1:8001/udp", "10.0.0.2:54"),
            ("127.0.0.1:8003/udp", "10.0.0.2:56"),
        ];
        let lines = ["127.0.0.1:8000-8001/udp web:53-54 this machine", "127.0.0.1:8003/udp web:56 this machine"];
        check(&[], &ports, &lines, &[]);
    }

    #[test]
    fn only_what_others_reach_is_denied() {
        let way = |from| Way { from, port: "80/tcp".into(), container: None, container_port: "80".into() };
        let opens = |from| Exposure { opened: vec![way(from)], closed: vec![way(Reach::Anywhere(Protocols::Both))] };
        assert!(!opens(Reach::ThisMachine).opens_to_others());
        assert!(opens(Reach::Address("192.0.2.1".parse().unwrap())).opens_to_others());
        assert!(opens(Reach::Anywhere(Protocols::Ipv6)).opens_to_others());
    }
}
