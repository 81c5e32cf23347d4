//! One container takes the place of another: which comes first, where ports lead meanwhile, how many replicas at once.

use std::net::IpAddr;

use super::containers::replace_reason;
use super::{Differ, Draft};
use crate::model::Condition;
use crate::plan::{DesiredContainer, DesiredNat, Kind, Order, ResourceId, Zone, ZoneInstance, slot_of};
use crate::reconcile::actual::StoredContainer;
use crate::reconcile::step::{Action, Roll, Verb};

/// Whether a part of the table is as it should be. A port or service that several share leads to those that are well: to
/// any of them, but to nobody else.
pub(super) fn leads_where_it_should(held: Option<&String>, wanted: Option<&String>) -> bool {
    let (Some(held), Some(wanted)) = (held, wanted) else { return held == wanted };
    let wanted: Vec<&str> = wanted.split(", ").collect();
    match wanted.len() {
        1 => held == wanted[0],
        _ => held.split(", ").all(|target| wanted.contains(&target)),
    }
}

impl Differ<'_> {
    /// What ports and services should lead to until containers take over in steps of their own: there, still to the old
    /// ones.
    pub(super) fn nat_for_now(&self) -> Option<DesiredNat> {
        let mut nat = self.desired.nat.clone()?;
        let told = self.actual.nat.as_ref().and_then(|nat| nat.told.as_ref());
        for container in self.desired.containers.values() {
            let Some(old) = &container.update.takes_over else { continue };
            let before = match told.filter(|told| told.leads_to(old) || told.leads_to(&container.instance)) {
                // It has taken over, and what is left is to take the old one away.
                Some(told) if !told.leads_to(old) => continue,
                Some(told) => told.clone(),
                None => self.with_addresses_of(old, container, &nat),
            };
            let place = nat.ports.iter().position(|port| port.instance == container.instance);
            nat = nat.moved(&container.instance, old, &before);
            // Kept in the file's order, which says nothing but makes what was told comparable.
            if let Some(place) = place {
                let count = nat.ports.iter().filter(|port| port.instance == *old).count();
                let moved: Vec<_> = nat.ports.drain(nat.ports.len() - count..).collect();
                nat.ports.splice(place..place, moved);
            }
        }
        Some(nat)
    }

    /// What names stand for until then: places of which one takes over from another have the old one's addresses.
    pub(super) fn zone_for_now(&self) -> Option<Zone> {
        let mut zone = self.desired.resolver.clone()?;
        let told = self.actual.resolver.as_ref().and_then(|resolver| resolver.zone.as_ref());
        for container in self.desired.containers.values() {
            let Some(old) = &container.update.takes_over else { continue };
            let has_taken_over = told.is_some_and(|told| told.has(&container.instance) && !told.has(old));
            let held = self.actual.containers.get(old).and_then(|held| held.stored.as_ref());
            let Some(held) = held.filter(|_| !has_taken_over) else { continue };
            for place in zone.instances.iter_mut().filter(|one| one.instance == container.instance) {
                *place = ZoneInstance::of(old, &container.container, &held.spec);
            }
        }
        Some(zone)
    }

    /// The targets of an instance as they would be for the old one.
    fn with_addresses_of(&self, old: &str, new: &DesiredContainer, nat: &DesiredNat) -> DesiredNat {
        let held = self.actual.containers.get(old).and_then(|held| held.stored.as_ref());
        let address = |address: IpAddr| {
            let mut mine = new.spec.endpoints.iter();
            let bridge = mine.find(|mine| mine.addresses().any(|mine| mine == address)).map(|mine| &mine.bridge);
            let theirs = held.iter().flat_map(|held| &held.spec.endpoints).find(|their| Some(&their.bridge) == bridge);
            let same_protocol = |their: &IpAddr| their.is_ipv4() == address.is_ipv4();
            theirs.and_then(|their| their.addresses().find(same_protocol)).unwrap_or(address)
        };
        let mut before = nat.clone();
        for port in before.ports.iter_mut().filter(|port| port.instance == new.instance) {
            (port.instance, port.address) = (old.to_owned(), address(port.address));
        }
        for service in before.services.iter_mut().filter(|service| service.instance == new.instance) {
            (service.instance, service.target) = (old.to_owned(), address(service.target));
        }
        before
    }

    /// The step in which an instance takes over from one that runs.
    pub(super) fn taking_over(&self, wanted: &DesiredContainer) -> Draft {
        let old = wanted.update.takes_over.clone().unwrap_or_default();
        let stored = self.actual.containers.get(&old).and_then(|held| held.stored.as_ref());
        let changes = stored.map(|stored| self.spec_changes(&in_place_of(stored, wanted), wanted)).unwrap_or_default();
        let begun = self.actual.containers.contains_key(&wanted.instance);
        let why = match (begun, changes.is_empty()) {
            (true, true) => "its replacement was not finished".to_owned(),
            _ => replace_reason(&changes),
        };
        let (nat, zone) = (self.desired.nat.clone(), self.desired.resolver.clone());
        let roll = Roll { desired: wanted.clone(), old, nat, zone };
        let resource = ResourceId::new(Kind::Container, slot_of(&wanted.instance));
        Draft::new(resource, Verb::Replace, why, Action::RollContainer(Box::new(roll)))
            .changes(changes)
            .origin(format!("container.{}", wanted.container))
    }

    /// Says in which order, why, what is noticed of it and who hangs on it; and lets replicas take their turns.
    pub(super) fn tell_of_replacement(&mut self, id: usize, wanted: &DesiredContainer, runs: bool) {
        let update = &wanted.update;
        match (&update.takes_over, update.order) {
            (Some(old), _) => {
                let ready = match wanted.live.health {
                    Some(_) => "is healthy".to_owned(),
                    None => format!("has run for {:?}", update.monitor),
                };
                self.steps[id].order = Some(format!(
                    "start-first: `{}` takes over from `{old}` when it {ready}; then `{old}` has {:?} for its last \
                     connections; no interruption",
                    wanted.instance, update.drain
                ));
            }
            (None, Order::StopFirst(reason)) if runs => {
                let timeout = std::time::Duration::from_millis(wanted.live.stop_timeout_ms);
                self.steps[id].interruption = Some(format!(
                    "stopped first, then started: {reason}; interrupted for its stop (at most {timeout:?}) and its start"
                ));
            }
            (None, _) => {}
        }
        self.steps[id].dependents = self
            .desired
            .containers
            .values()
            .filter(|other| other.after.iter().any(|(needs, _)| *needs == wanted.instance))
            .map(|other| slot_of(&other.instance).to_owned())
            .collect();
        let turns = self.replaced.entry(wanted.container.clone()).or_default();
        let parallel = update.parallel as usize;
        if let Some((before, instance)) = turns.len().checked_sub(parallel).and_then(|place| turns.get(place)) {
            self.steps[id].after.push(*before);
            if wanted.live.health.is_some() {
                self.steps[id].until.push((instance.clone(), Condition::Healthy));
            }
        }
        turns.push((id, wanted.instance.clone()));
    }
}

/// The old container as if it had the new one's address and group: that these differ is how one takes over and not why.
fn in_place_of(stored: &StoredContainer, wanted: &DesiredContainer) -> StoredContainer {
    let mut stored = stored.clone();
    if slot_of(&stored.spec.cgroup) == slot_of(&wanted.spec.cgroup) {
        stored.spec.cgroup = wanted.spec.cgroup.clone();
    }
    for (held, wanted) in stored.spec.endpoints.iter_mut().zip(&wanted.spec.endpoints) {
        if held.bridge == wanted.bridge && held.prefix == wanted.prefix {
            held.address = wanted.address;
            if held.address6.map(|net| net.trunc()) == wanted.address6.map(|net| net.trunc()) {
                held.address6 = wanted.address6;
            }
        }
    }
    stored
}
