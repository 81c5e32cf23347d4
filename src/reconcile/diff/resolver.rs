//! The stack's resolver: started, told of other names, taken away.

use super::{Differ, Draft, root_cgroup};
use crate::plan::{Kind, ResourceId, Zone};
use crate::reconcile::actual::Change;
use crate::reconcile::step::{Action, Verb};

impl Differ<'_> {
    pub(super) fn resolver(&mut self) {
        let Some(zone) = &self.zone_for_now() else { return };
        let held = self.actual.resolver.as_ref();
        let told = held.and_then(|held| held.zone.as_ref());
        let (verb, why) = match held {
            None => (Verb::Create, "new"),
            Some(held) if !held.runs => (Verb::Repair, "does not run"),
            Some(_) if told == Some(zone) => {
                self.unchanged += 1;
                return;
            }
            Some(_) => (Verb::Live, "names or bridges differ"),
        };
        // Of one that is made anew the names go without saying.
        let changes = told.map(|told| changes(told, zone)).unwrap_or_default();
        let mut needs = vec![root_cgroup(), ResourceId::new(Kind::Nat, "")];
        needs.extend(self.desired.bridges.keys().map(|name| ResourceId::new(Kind::Bridge, name.as_str())));
        let draft = Draft::new(ResourceId::new(Kind::Resolver, ""), verb, why, Action::RunResolver(zone.clone()));
        self.push(draft.changes(changes), &needs);
    }

    /// After those that ask it.
    pub(super) fn resolver_goes(&mut self, containers: &[ResourceId]) {
        if self.desired.resolver.is_none() && self.actual.resolver.is_some() {
            let why = self.not_wanted();
            let resource = ResourceId::new(Kind::Resolver, "");
            self.push(Draft::new(resource, Verb::Destroy, why, Action::RemoveResolver), containers);
        }
    }
}

fn changes(held: &Zone, wanted: &Zone) -> Vec<Change> {
    let fields = |zone: &Zone| {
        let mut fields = zone.names();
        for bridge in &zone.bridges {
            let addresses: Vec<String> = bridge.gateways().map(|net| net.addr().to_string()).collect();
            fields.insert(format!("bridge {}", bridge.name), addresses.join(" "));
        }
        fields
    };
    let (held, wanted) = (fields(held), fields(wanted));
    let names: std::collections::BTreeSet<&String> = held.keys().chain(wanted.keys()).collect();
    names
        .into_iter()
        .filter(|name| held.get(*name) != wanted.get(*name))
        .map(|name| Change {
            field: name.clone(),
            from: held.get(name).cloned(),
            to: wanted.get(name).cloned(),
            place: None,
        })
        .collect()
}
