//! Forwarding, bridges, and the table that says where ports and services lead.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::updates::leads_where_it_should;
use super::{Differ, Draft};
use crate::model::PortMap;
use crate::plan::{DesiredBridge, DesiredNat, Kind, ResourceId, digest_of};
use crate::reconcile::actual::{ActualBridge, Change};
use crate::reconcile::step::{Action, Verb};

impl Differ<'_> {
    pub(super) fn forwarding(&mut self) {
        match (self.desired.forwarding, self.actual.forwarding) {
            (true, false) => {
                let resource = ResourceId::new(Kind::Sysctl, "net.ipv4.ip_forward");
                let change = Change {
                    field: "net.ipv4.ip_forward".into(),
                    from: Some("0".into()),
                    to: Some("1".into()),
                    place: None,
                };
                let why = "bridges need the host to forward packets";
                let shut = self.actual.other_links.clone();
                let changes = std::iter::once(change).chain(shut_change(&shut)).collect();
                let action = Action::EnableForwarding { shut };
                self.push(Draft::new(resource, Verb::Live, why, action).changes(changes), &[]);
            }
            (true, true) => self.unchanged += 1,
            (false, _) => {}
        }
        match (self.desired.forwarding6, self.actual.forwarding6) {
            (true, false) => self.forwarding6(),
            (true, true) => self.unchanged += 1,
            (false, _) => {}
        }
    }

    fn forwarding6(&mut self) {
        let field = "net.ipv6.conf.all.forwarding";
        let change = |field: String, from: &str, to: &str| Change {
            field,
            from: Some(from.into()),
            to: Some(to.into()),
            place: None,
        };
        let mut changes = vec![change(field.into(), "0", "1")];
        let advised = self.actual.advised.clone();
        changes.extend(advised.iter().map(|link| change(format!("net.ipv6.conf.{link}.accept_ra"), "1", "2")));
        let why = "bridges need the host to forward packets";
        let shut = self.actual.other_links.clone();
        changes.extend(shut_change(&shut));
        let action = Action::EnableForwarding6 { shut, advised };
        self.push(Draft::new(ResourceId::new(Kind::Sysctl, field), Verb::Live, why, action).changes(changes), &[]);
    }

    pub(super) fn bridges(&mut self) {
        for (name, bridge) in &self.desired.bridges {
            let resource = ResourceId::new(Kind::Bridge, name.as_str());
            // One that was not finished goes by the name of its link.
            let held = self.actual.bridges.get(name.as_str()).or_else(|| self.actual.bridges.get(&bridge.ifname));
            let Some(held) = held else {
                let action = Action::CreateBridge { name: name.to_string(), bridge: bridge.clone() };
                let address = |address: String, key: &str| Change {
                    field: "address".into(),
                    from: None,
                    to: Some(address),
                    place: self.desired.origins.place(&format!("bridge.{name}.{key}")),
                };
                let mut changes = vec![address(bridge.gateway.to_string(), "subnet")];
                changes.extend(bridge.gateway6.map(|gateway6| address(gateway6.to_string(), "subnet6")));
                self.push(Draft::new(resource, Verb::Create, "new", action).changes(changes), &[]);
                continue;
            };
            let changes = self.bridge_changes(name.as_str(), held, bridge);
            let (verb, why) = match (held.labelled, changes.is_empty()) {
                (true, true) => {
                    self.unchanged += 1;
                    continue;
                }
                (true, false) => (Verb::Live, "differs"),
                (false, _) => (Verb::Repair, "was not finished"),
            };
            let action = Action::AdjustBridge { name: name.to_string(), bridge: bridge.clone() };
            self.push(Draft::new(resource, verb, why, action).changes(changes), &[]);
        }
    }

    fn bridge_changes(&self, name: &str, held: &ActualBridge, wanted: &DesiredBridge) -> Vec<Change> {
        let words = |services: &BTreeSet<IpAddr>| {
            let words = services.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            Some(words).filter(|words| !words.is_empty())
        };
        let fields = [
            ("services", words(&held.services), words(&wanted.service_addresses()), ""),
            ("address", held.address.map(|a| a.to_string()), Some(wanted.gateway.to_string()), "subnet"),
            ("IPv6 address", held.address6.map(|a| a.to_string()), wanted.gateway6.map(|a| a.to_string()), "subnet6"),
            ("mtu", Some(held.mtu.to_string()), Some(wanted.mtu.to_string()), "mtu"),
            ("state", Some(up_or_down(held.up)), Some(up_or_down(true)), ""),
            ("sysctls", Some(set_or_not(held.switches)), Some(set_or_not(true)), ""),
        ];
        fields
            .into_iter()
            .filter(|(_, from, to, _)| from != to)
            .map(|(field, from, to, key)| Change {
                field: field.into(),
                from,
                to,
                place: self.desired.origins.place(&format!("bridge.{name}.{key}")),
            })
            .collect()
    }

    pub(super) fn nat(&mut self) {
        let Some(nat) = self.nat_for_now() else { return };
        let nat = &nat;
        let resource = ResourceId::new(Kind::Nat, "");
        let wanted = self.facts.nat_parts(nat);
        let empty = BTreeMap::new();
        let held = self.actual.nat.as_ref().map_or(&empty, |table| &table.parts);
        let changes = self.nat_changes(nat, held, &wanted);
        let (verb, why) = match &self.actual.nat {
            None => (Verb::Create, "new"),
            Some(table) => match (&table.label, changes.is_empty()) {
                // Where one container took over from another, elements changed and the label did not.
                (Some(_), true) => {
                    self.unchanged += 1;
                    return;
                }
                (Some(label), _) if label.digest == digest_of(&wanted) || table.told.as_ref() == Some(nat) => {
                    (Verb::Repair, "changed outside stack")
                }
                (Some(_), _) => (Verb::Live, "ports or bridges differ"),
                (None, _) => (Verb::Repair, "was not made by stack"),
            },
        };
        let bridges: Vec<ResourceId> =
            self.desired.bridges.keys().map(|name| ResourceId::new(Kind::Bridge, name.as_str())).collect();
        let draft = Draft::new(resource, verb, why, Action::WriteNat(nat.clone()));
        self.push(draft.changes(changes), &bridges);
    }

    fn nat_changes(
        &self,
        nat: &DesiredNat,
        held: &BTreeMap<String, String>,
        wanted: &BTreeMap<String, String>,
    ) -> Vec<Change> {
        let place = |field: &str| {
            let is_it = |port: &PortMap| field.ends_with(&format!(":{}/{}", port.host_port, port.protocol));
            let target = nat.ports.iter().find(|target| is_it(&target.port))?;
            let container = &self.desired.containers.get(&target.instance)?.container;
            self.desired.origins.place(&format!("container.{container}.port"))
        };
        let is_new = self.actual.nat.is_none();
        let fields: BTreeSet<&String> = held.keys().chain(wanted.keys()).collect();
        fields
            .into_iter()
            // Of a table that is made anew only the ports are worth a line each.
            .filter(|field| !is_new || field.starts_with("port "))
            .filter(|field| !leads_where_it_should(held.get(*field), wanted.get(*field)))
            .map(|field| Change {
                field: field.clone(),
                from: held.get(field).cloned(),
                to: wanted.get(field).cloned(),
                place: field.starts_with("port ").then(|| place(field)).flatten(),
            })
            .collect()
    }
}

/// That a host which forwarded nothing goes on so between its other links.
fn shut_change(links: &[String]) -> Option<Change> {
    let to = Some(format!("stays off, by a table of its own: {}", links.join(", ")));
    let field = "forwarding between other links".into();
    (!links.is_empty()).then_some(Change { field, from: Some("off".into()), to, place: None })
}

fn up_or_down(up: bool) -> String {
    if up { "up" } else { "down" }.into()
}

fn set_or_not(set: bool) -> String {
    if set { "set" } else { "not set" }.into()
}
