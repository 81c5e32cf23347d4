//! Which question has which answer: pure. It takes the stack's names, who asks and who is well.
//!
//! | question | answer |
//! |---|---|
//! | `web`, `web.shop` | the instances of container `web` that are well; of one that another takes over from while it runs, the address that outlives both |
//! | `web-2`, `web-2.shop` | that instance |
//! | `_80._tcp.web`, `_80._tcp.web.shop` (SRV) | its instances by name, with the port that was asked for |
//! | `2.0.70.10.in-addr.arpa` (PTR) | `web-2.shop` |
//! | `localhost` | loopback (RFC 6761, 6.3) |
//!
//! Who asks sees the instances on the bridges that it is on. All else in the stack's domain, and all else in its subnets,
//! does not exist, and is asked of nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plan::{Zone, ZoneBridge, ZoneInstance, ZonePlace, ZoneService, generations, slot_of};

/// Types of records by their numbers (RFC 1035, 3.2.2; RFC 3596; RFC 2782).
pub const A: u16 = 1;
pub const SOA: u16 = 6;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const ANY: u16 = 255;

/// What is known of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Addresses(Vec<IpAddr>),
    /// A name.
    Pointer(String),
    /// Names of hosts, each with its addresses; all serve on this port.
    Services {
        port: u16,
        targets: Vec<(String, Vec<IpAddr>)>,
    },
    /// The zone itself.
    Authority,
    /// There is such a name, with nothing of the kind asked for.
    NoData,
    /// There is no such name.
    NoName,
    /// It is none of the stack's business.
    Elsewhere,
}

/// The names as one asker sees them.
pub struct View<'a> {
    zone: &'a Zone,
    /// The bridges that the asker is on; the one that it asks by first.
    bridges: Vec<&'a ZoneBridge>,
    serves: &'a dyn Fn(&str) -> bool,
}

impl<'a> View<'a> {
    /// What `asker` sees; `serves` says which instances are well. `None`: it is on no bridge of this stack.
    pub fn of(zone: &'a Zone, asker: IpAddr, serves: &'a dyn Fn(&str) -> bool) -> Option<Self> {
        let near = zone.bridges.iter().find(|bridge| bridge.holds(asker))?;
        let is_asker = |instance: &&ZoneInstance| instance.places.iter().any(|place| place.addresses.contains(&asker));
        let places = zone.instances.iter().find(is_asker).map(|instance| instance.places.as_slice());
        let others = places.unwrap_or_default().iter().filter(|place| place.bridge != near.name);
        let others = others.filter_map(|place| zone.bridges.iter().find(|bridge| bridge.name == place.bridge));
        Some(View { zone, bridges: std::iter::once(near).chain(others).collect(), serves })
    }

    /// Whether the asker may learn names from outside.
    pub fn leads_out(&self) -> bool {
        self.bridges.iter().any(|bridge| bridge.leads_out)
    }

    /// `labels` are in lower case, without the root's. `turn` shifts the order, so that instances take turns.
    pub fn answer(&self, labels: &[&str], kind: u16, turn: usize) -> Answer {
        if labels.last() == Some(&"localhost") {
            return local(kind);
        }
        if let Some(address) = reversed(labels) {
            return self.pointer(address, kind);
        }
        let stack = self.zone.stack.as_str().to_ascii_lowercase();
        let (below, inside) = match labels {
            [below @ .., last] if *last == stack && !(below.is_empty() && self.known(last)) => (below, true),
            _ => (labels, false),
        };
        let found = match below {
            [] if inside => return if matches!(kind, SOA | ANY) { Answer::Authority } else { Answer::NoData },
            [name] => self.called(name).map(|hosts| addresses_of(&hosts, kind, turn)),
            [port, protocol, name] => self.called(name).and_then(|hosts| services(&hosts, port, protocol, kind, turn)),
            _ => None,
        };
        match (found, below) {
            (Some(answer), _) => answer,
            (None, _) if inside => Answer::NoName,
            // Of the stack, but not to be seen by the one who asks.
            (None, [name]) if self.known(name) => Answer::NoName,
            (None, _) => Answer::Elsewhere,
        }
    }

    /// Who has a name: instances by their own addresses; but a container of one instance that may be replaced by another
    /// while it runs, and replicas of which none is well, by the address that outlives them. `None`: there is no such name.
    fn called(&self, name: &str) -> Option<Vec<(String, Vec<IpAddr>)>> {
        let hosts = self.hosts(name)?;
        let is_place = self.zone.instances.iter().any(|one| slot_of(&one.instance).eq_ignore_ascii_case(name));
        let nobody = hosts.iter().all(|(_, addresses)| addresses.is_empty());
        Some(if is_place || nobody { self.service(name).unwrap_or(hosts) } else { hosts })
    }

    /// A service at those of its addresses that the asker reaches; at none where no instance is well. `None`: the name is
    /// no service's.
    fn service(&self, name: &str) -> Option<Vec<(String, Vec<IpAddr>)>> {
        let service =
            self.zone.services.iter().find(|service| service.container.as_str().eq_ignore_ascii_case(name))?;
        let full = format!("{}.{}", service.container, self.zone.stack);
        let addresses = if self.is_served(service) { self.reached(&service.places) } else { Vec::new() };
        Some(vec![(full, addresses)])
    }

    /// While one takes over from another, either may be the one that serves.
    fn is_served(&self, service: &ZoneService) -> bool {
        let instances = self.zone.instances.iter().filter(|instance| instance.container == service.container);
        instances.flat_map(|one| generations(slot_of(&one.instance))).any(|name| (self.serves)(&name))
    }

    fn reached(&self, places: &[ZonePlace]) -> Vec<IpAddr> {
        let near = self.bridges.iter().filter_map(|bridge| places.iter().find(|place| place.bridge == bridge.name));
        near.flat_map(|place| place.addresses.iter().copied()).collect()
    }

    fn known(&self, name: &str) -> bool {
        self.zone.instances.iter().any(|instance| is_called(instance, name))
    }

    /// The instances of a name that the asker shares a bridge with, and those of their addresses that it reaches, nearest
    /// first; no addresses where the instance is not well. `None`: there is no such name.
    fn hosts(&self, name: &str) -> Option<Vec<(String, Vec<IpAddr>)>> {
        let mut hosts = Vec::new();
        for instance in self.zone.instances.iter().filter(|instance| is_called(instance, name)) {
            let addresses = self.reached(&instance.places);
            if addresses.is_empty() {
                continue;
            }
            let well = (self.serves)(&instance.instance);
            let full = format!("{}.{}", slot_of(&instance.instance), self.zone.stack);
            hosts.push((full, if well { addresses } else { Vec::new() }));
        }
        (!hosts.is_empty()).then_some(hosts)
    }

    fn pointer(&self, address: IpAddr, kind: u16) -> Answer {
        if !self.zone.bridges.iter().any(|bridge| bridge.holds(address)) {
            return Answer::Elsewhere;
        }
        let seen = |places: &[ZonePlace]| self.reached(places).contains(&address);
        let instance = self.zone.instances.iter().find(|instance| seen(&instance.places));
        let service = || self.zone.services.iter().find(|service| seen(&service.places));
        let name = instance.map(|one| slot_of(&one.instance)).or_else(|| Some(service()?.container.as_str()));
        match name {
            Some(name) if matches!(kind, PTR | ANY) => Answer::Pointer(format!("{name}.{}", self.zone.stack)),
            Some(_) => Answer::NoData,
            None => Answer::NoName,
        }
    }
}

fn is_called(instance: &ZoneInstance, name: &str) -> bool {
    slot_of(&instance.instance).eq_ignore_ascii_case(name) || instance.container.as_str().eq_ignore_ascii_case(name)
}

fn is_asked_for(address: &IpAddr, kind: u16) -> bool {
    match kind {
        A => address.is_ipv4(),
        AAAA => address.is_ipv6(),
        kind => kind == ANY,
    }
}

fn addresses_of(hosts: &[(String, Vec<IpAddr>)], kind: u16, turn: usize) -> Answer {
    let shifted = hosts.iter().cycle().skip(turn % hosts.len()).take(hosts.len());
    let found: Vec<IpAddr> =
        shifted.flat_map(|(_, addresses)| addresses).filter(|address| is_asked_for(address, kind)).copied().collect();
    some_or_no_data(found)
}

fn some_or_no_data(found: Vec<IpAddr>) -> Answer {
    if found.is_empty() { Answer::NoData } else { Answer::Addresses(found) }
}

/// `_80._tcp.web`: the port is the one that is asked for, for what else an instance listens on nobody knows.
fn services(hosts: &[(String, Vec<IpAddr>)], port: &str, protocol: &str, kind: u16, turn: usize) -> Option<Answer> {
    let port: u16 = port.strip_prefix('_')?.parse().ok().filter(|port| *port != 0)?;
    matches!(protocol, "_tcp" | "_udp" | "_sctp").then_some(())?;
    let shifted = hosts.iter().cycle().skip(turn % hosts.len()).take(hosts.len());
    let targets: Vec<(String, Vec<IpAddr>)> = shifted.filter(|(_, addresses)| !addresses.is_empty()).cloned().collect();
    Some(match targets.is_empty() || !matches!(kind, SRV | ANY) {
        true => Answer::NoData,
        false => Answer::Services { port, targets },
    })
}

fn local(kind: u16) -> Answer {
    let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    some_or_no_data(both.into_iter().filter(|address| is_asked_for(address, kind)).collect())
}

/// The address whose reverse name this is: RFC 1035, 3.5; RFC 3596, 2.5.
fn reversed(labels: &[&str]) -> Option<IpAddr> {
    match labels {
        [d, c, b, a, "in-addr", "arpa"] => format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let mut bits: u128 = 0;
            for nibble in nibbles.iter().rev() {
                let digit = (nibble.len() == 1).then(|| u128::from_str_radix(nibble, 16).ok()).flatten()?;
                bits = bits << 4 | digit;
            }
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use crate::plan::ZonePlace;

    /// `web` twice on `front`, `db` on `back`, `proxy` on both, `core` as a container whose name is a domain's.
    fn zone() -> Zone {
        let bridge = |name: &str, net: &str, net6: Option<&str>, leads_out| ZoneBridge {
            name: name.into(),
            gateway: net.parse().unwrap(),
            gateway6: net6.map(|net| net.parse().unwrap()),
            leads_out,
        };
        let instance = |instance: &str, container: &str, places: &[(&str, &[&str])]| ZoneInstance {
            instance: instance.into(),
            container: Name::new(container).unwrap(),
            places: places
                .iter()
                .map(|(bridge, addresses)| ZonePlace {
                    bridge: (*bridge).into(),
                    addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                })
                .collect(),
        };
        Zone {
            stack: Name::new("shop").unwrap(),
            bridges: vec![
                bridge("front", "10.70.0.1/26", Some("fd12::1/64"), true),
                bridge("back", "10.71.0.1/26", None, false),
            ],
            instances: vec![
                instance("web-1", "web", &[("front", &["10.70.0.2", "fd12::2"])]),
                instance("web-2", "web", &[("front", &["10.70.0.3", "fd12::3"])]),
                instance("db", "db", &[("back", &["10.71.0.2"])]),
                instance("proxy", "proxy", &[("back", &["10.71.0.3"]), ("front", &["10.70.0.4", "fd12::4"])]),
            ],
            services: vec![],
        }
    }

    const WEB: &str = "10.70.0.2";
    const DB: &str = "10.71.0.2";
    const PROXY: &str = "10.71.0.3";

    fn ask(asker: &str, name: &str, kind: u16, ill: &[&str]) -> Answer {
        let zone = zone();
        let serves = |instance: &str| !ill.contains(&instance);
        let labels: Vec<&str> = name.split('.').filter(|label| !label.is_empty()).collect();
        View::of(&zone, asker.parse().unwrap(), &serves).unwrap().answer(&labels, kind, 0)
    }

    /// A question by someone, and its answer, in words.
    #[track_caller]
    fn check(asker: &str, name: &str, kind: u16, expected: &str) {
        check_with(asker, name, kind, &[], expected);
    }

    #[track_caller]
    fn check_with(asker: &str, name: &str, kind: u16, ill: &[&str], expected: &str) {
        let words = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
        let text = match ask(asker, name, kind, ill) {
            Answer::Addresses(addresses) => words(&addresses),
            Answer::Pointer(name) => name,
            Answer::Services { port, targets } => {
                let one = |(name, addresses): &(String, Vec<IpAddr>)| format!("{name}:{port} {}", words(addresses));
                targets.iter().map(one).collect::<Vec<_>>().join(", ")
            }
            other => format!("{other:?}"),
        };
        assert_eq!(text, expected, "{name} ({kind}) asked by {asker}");
    }

    #[test]
    fn a_container_s_name_is_all_its_instances_short_or_in_full() {
        for name in ["web", "web.shop"] {
            check(WEB, name, A, "10.70.0.2 10.70.0.3");
            check(WEB, name, AAAA, "fd12::2 fd12::3");
        }
        check(WEB, "web-2.shop", A, "10.70.0.3");
        check(WEB, "web-2", AAAA, "fd12::3");
        check(DB, "db", ANY, "10.71.0.2");
    }

    #[test]
    fn an_address_that_outlives_instances_is_what_their_name_stands_for() {
        let mut zone = zone();
        let service = |name: &str, addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let places = vec![ZonePlace { bridge: "front".into(), addresses }];
            ZoneService { container: Name::new(name).unwrap(), places }
        };
        zone.services = vec![service("web", &["10.70.0.60", "fd12::3c"]), service("proxy", &["10.70.0.61"])];
        // Some are replaced: these have the other of their two names.
        zone.instances[1].instance = "web-2.1".into();
        zone.instances[3].instance = "proxy.1".into();
        let ask = |name: &str, kind, well: &[&str]| {
            let serves = |instance: &str| well.contains(&instance);
            let labels: Vec<&str> = name.split('.').collect();
            match View::of(&zone, WEB.parse().unwrap(), &serves).unwrap().answer(&labels, kind, 0) {
                Answer::Addresses(addresses) => addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
                Answer::Services { targets, .. } => {
                    targets.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
                }
                Answer::Pointer(name) => name,
                other => format!("{other:?}"),
            }
        };
        // The new one does not serve yet, and the old one does.
        assert_eq!(ask("proxy", A, &["proxy"]), "10.70.0.61");
        assert_eq!(ask("_80._tcp.proxy", SRV, &["proxy"]), "proxy.shop");
        assert_eq!(ask("proxy", A, &[]), "NoData");
        assert_eq!(ask("61.0.70.10.in-addr.arpa", PTR, &[]), "proxy.shop");
        // Replicas are told one by one while one is well.
        assert_eq!(ask("web", A, &["web-1", "web-2.1"]), "10.70.0.2 10.70.0.3");
        assert_eq!(ask("web.shop", AAAA, &["web-2"]), "fd12::3c");
        assert_eq!(ask("web-2", A, &["web-2.1"]), "10.70.0.3");
        assert_eq!(ask("3.0.70.10.in-addr.arpa", PTR, &[]), "web-2.shop");
    }

    #[test]
    fn instances_take_turns() {
        let zone = zone();
        let view = View::of(&zone, WEB.parse().unwrap(), &|_| true).unwrap();
        let first = |turn| match view.answer(&["web"], A, turn) {
            Answer::Addresses(addresses) => addresses[0].to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!([first(0), first(1), first(2)], ["10.70.0.2", "10.70.0.3", "10.70.0.2"]);
    }

    #[test]
    fn who_is_not_well_is_not_named() {
        check_with(WEB, "web", A, &["web-1"], "10.70.0.3");
        check_with(WEB, "web-1", A, &["web-1"], "NoData");
        check_with(WEB, "web", A, &["web-1", "web-2"], "NoData");
        check_with(WEB, "_80._tcp.web", SRV, &["web-1"], "web-2.shop:80 10.70.0.3 fd12::3");
    }

    #[test]
    fn no_such_name_and_nothing_of_this_kind_are_two_answers() {
        check(WEB, "nobody.shop", A, "NoName");
        check(WEB, "x.web.shop", A, "NoName");
        check(DB, "db.shop", AAAA, "NoData");
        check(WEB, "web.shop", 16, "NoData");
        check(WEB, "shop", A, "NoData");
        check(WEB, "shop", SOA, "Authority");
    }

    #[test]
    fn each_sees_the_bridges_that_it_is_on() {
        check(WEB, "db", A, "NoName");
        check(WEB, "db.shop", A, "NoName");
        check(DB, "web.shop", A, "NoName");
        check(PROXY, "web", A, "10.70.0.2 10.70.0.3");
        check(PROXY, "proxy", A, "10.71.0.3 10.70.0.4");
        check("10.70.0.4", "proxy", A, "10.70.0.4 10.71.0.3");
        // The host itself, on the gateway address.
        check("10.71.0.1", "proxy", A, "10.71.0.3");
    }

    #[test]
    fn replicas_are_found_as_services_at_the_port_that_is_asked_for() {
        let both = "web-1.shop:80 10.70.0.2 fd12::2, web-2.shop:80 10.70.0.3 fd12::3";
        check(WEB, "_80._tcp.web.shop", SRV, both);
        check(WEB, "_80._tcp.web", SRV, both);
        check(WEB, "_80._tcp.web", A, "NoData");
        for wrong in ["_0._tcp.web.shop", "_80._icmp.web.shop", "80._tcp.web.shop", "_80._tcp.nobody.shop"] {
            check(WEB, wrong, SRV, "NoName");
        }
    }

    #[test]
    fn addresses_have_names_and_unknown_ones_of_ours_are_asked_of_nobody() {
        check(WEB, "3.0.70.10.in-addr.arpa", PTR, "web-2.shop");
        let nibbles = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.1.d.f.ip6.arpa";
        check(WEB, nibbles, PTR, "web-2.shop");
        check(WEB, "9.0.70.10.in-addr.arpa", PTR, "NoName");
        check(WEB, "2.0.71.10.in-addr.arpa", PTR, "NoName");
        check(WEB, "3.0.70.10.in-addr.arpa", A, "NoData");
        check(WEB, "1.2.0.192.in-addr.arpa", PTR, "Elsewhere");
    }

    #[test]
    fn all_else_is_asked_elsewhere() {
        for name in ["example.org", "web.example.org", "db.other", "printer", "", "example.db", "_80._tcp.example"] {
            check(WEB, name, A, "Elsewhere");
        }
        check(WEB, "localhost", A, "127.0.0.1");
        check(WEB, "x.localhost", AAAA, "::1");
        check(WEB, "localhost", SRV, "NoData");
    }

    #[test]
    fn nobody_else_sees_anything_and_closed_bridges_lead_nowhere() {
        let zone = zone();
        assert!(View::of(&zone, "192.0.2.7".parse().unwrap(), &|_| true).is_none());
        let leads_out = |asker: &str| View::of(&zone, asker.parse().unwrap(), &|_| true).unwrap().leads_out();
        assert_eq!([leads_out(WEB), leads_out(DB), leads_out(PROXY)], [true, false, true]);
    }
}
