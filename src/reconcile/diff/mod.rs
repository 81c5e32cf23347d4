//! Holds what should be against what is, field by field, and makes the plan. Decides everything, does nothing.

mod containers;

use std::collections::BTreeMap;

use super::actual::{Actual, ActualBridge, ActualContainer, ActualRoot, Change, KernelLimits};
use super::exposure;
use super::step::{Action, LinksOf, Plan, Step, Verb};
use crate::model::{Limits, Name, PortMap};
use crate::plan::{Desired, DesiredBridge, DesiredNat, Kind, ResourceId};

/// What only a host can tell of a wish: how its kernel would hold it. Pure, and the same at every call.
pub trait HostFacts {
    /// The limits as the kernel's files will have them.
    fn kernel_limits(&self, limits: &Limits) -> KernelLimits;
    /// The parts of the stack's nftables table, by name.
    fn nat_parts(&self, nat: &DesiredNat) -> BTreeMap<String, String>;
}

/// The least that makes `actual` what `desired` says. `volumes` says whether volumes that nobody wants are removed.
pub fn diff(desired: &Desired, actual: &Actual, facts: &dyn HostFacts, volumes: Volumes) -> Plan {
    let mut differ =
        Differ { desired, actual, facts, volumes, steps: Vec::new(), index: BTreeMap::new(), unchanged: 0 };
    differ.removed_ports_first();
    differ.containers_that_go();
    differ.forwarding();
    differ.root();
    differ.branches();
    differ.volumes();
    differ.images();
    differ.bridges();
    differ.nat();
    differ.containers();
    differ.what_nothing_hangs_on_any_more();
    Plan {
        stack: desired.stack.clone(),
        exposure: exposure::of_plan(desired, actual, facts, &differ.steps),
        steps: differ.steps,
        notes: desired.notes.clone(),
        unchanged: differ.unchanged,
    }
}

/// What becomes of volumes that are not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// Data is only ever removed when it is asked for by name.
    Keep,
    Remove,
}

struct Differ<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    facts: &'a dyn HostFacts,
    volumes: Volumes,
    steps: Vec<Step>,
    /// The last step on each resource.
    index: BTreeMap<ResourceId, usize>,
    unchanged: usize,
}

/// A step but for its place in the plan.
struct Draft {
    resource: ResourceId,
    verb: Verb,
    why: String,
    /// The dotted path of the table or key of the stack file that asks for it.
    origin: String,
    changes: Vec<Change>,
    action: Action,
}

impl Draft {
    fn new(resource: ResourceId, verb: Verb, why: impl Into<String>, action: Action) -> Self {
        let origin = match resource.kind {
            Kind::Cgroup | Kind::Bridge | Kind::Volume | Kind::Image | Kind::Container => {
                format!("{}.{}", resource.kind, resource.name)
            }
            _ => String::new(),
        };
        Draft { resource, verb, why: why.into(), origin, changes: Vec::new(), action }
    }

    fn changes(mut self, changes: Vec<Change>) -> Self {
        self.changes = changes;
        self
    }

    fn origin(mut self, origin: String) -> Self {
        self.origin = origin;
        self
    }
}

impl Differ<'_> {
    fn push(&mut self, draft: Draft, needs: &[ResourceId]) -> usize {
        let id = self.steps.len();
        let mut after: Vec<usize> = needs.iter().filter_map(|need| self.index.get(need).copied()).collect();
        after.sort_unstable();
        after.dedup();
        self.index.insert(draft.resource.clone(), id);
        let place = match draft.verb {
            Verb::Destroy => None,
            _ => self.desired.origins.place(&draft.origin),
        };
        self.steps.push(Step {
            id,
            resource: draft.resource,
            verb: draft.verb,
            why: draft.why,
            place,
            changes: draft.changes,
            interruption: None,
            after,
            until: Vec::new(),
            action: draft.action,
        });
        id
    }

    /// With nothing desired the table goes first, so that no port leads to a container that is being stopped.
    fn removed_ports_first(&mut self) {
        if self.desired.nat.is_none() && self.actual.nat.is_some() {
            let why = self.not_wanted();
            self.push(Draft::new(ResourceId::new(Kind::Nat, ""), Verb::Destroy, why, Action::RemoveNat), &[]);
        }
    }

    fn not_wanted(&self) -> &'static str {
        match self.desired.is_nothing() {
            true => "down",
            false => "not in the file",
        }
    }

    /// Containers that nobody wants, those that others wait for last.
    fn containers_that_go(&mut self) {
        let mut going: Vec<(&String, &ActualContainer)> =
            self.actual.containers.iter().filter(|(name, _)| !self.desired.containers.contains_key(*name)).collect();
        // A container may go when nobody that is still to go was started after it. What is left in a circle, as broken
        // bundles could claim, goes in the order of its names.
        while !going.is_empty() {
            let needed = |name: &str| {
                going.iter().any(|(other, container)| {
                    *other != name
                        && container.stored.iter().flat_map(|stored| &stored.after).any(|(needs, _)| needs == name)
                })
            };
            let next = going.iter().position(|(name, _)| !needed(name)).unwrap_or(0);
            let (name, _) = going.remove(next);
            let dependents: Vec<ResourceId> = self
                .actual
                .containers
                .iter()
                .filter(|(_, other)| other.stored.iter().flat_map(|s| &s.after).any(|(needs, _)| needs == name))
                .map(|(other, _)| ResourceId::new(Kind::Container, other))
                .collect();
            let why = self.not_wanted();
            let action = Action::RemoveContainer { instance: name.clone(), links: self.links_of(name) };
            let draft = Draft::new(ResourceId::new(Kind::Container, name), Verb::Destroy, why, action);
            self.push(draft, &dependents);
        }
    }

    fn links_of(&self, instance: &str) -> LinksOf {
        let stays = |bridge: &String| {
            !self.actual.bridges.contains_key(bridge) || self.desired.bridges.contains_key(bridge.as_str())
        };
        let links = self.actual.containers.get(instance).map(|container| container.links.as_slice());
        match links.unwrap_or_default().iter().any(|link| stays(&link.bridge)) {
            true => LinksOf::Deleted,
            false => LinksOf::LeftToBridges,
        }
    }

    fn forwarding(&mut self) {
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

    fn wants_root(&self) -> bool {
        !self.desired.containers.is_empty() || !self.desired.cgroups.is_empty()
    }

    fn root(&mut self) {
        let (verb, why) = match (self.wants_root(), self.actual.root) {
            (true, ActualRoot::Nothing) => (Verb::Create, "new"),
            (true, ActualRoot::Unfinished) => (Verb::Repair, "was not finished"),
            (true, ActualRoot::Finished) => {
                self.unchanged += 1;
                return;
            }
            (false, _) => return,
        };
        // No line of the file asks for it alone.
        self.push(Draft::new(root_cgroup(), verb, why, Action::CreateRoot).origin(String::new()), &[]);
    }

    fn branches(&mut self) {
        for (name, limits) in &self.desired.cgroups {
            let resource = ResourceId::new(Kind::Cgroup, name.as_str());
            let action = Action::CreateBranch { name: name.to_string(), limits: limits.clone() };
            match self.actual.cgroups.get(name.as_str()) {
                None => {
                    self.push(Draft::new(resource, Verb::Create, "new", action), &[root_cgroup()]);
                }
                Some(held) if !held.labelled => {
                    self.push(Draft::new(resource, Verb::Repair, "was not finished", action), &[root_cgroup()]);
                }
                Some(held) => {
                    let origin = format!("cgroup.{name}");
                    let changes = self.limit_changes(&held.limits, limits, &origin);
                    if changes.is_empty() {
                        self.unchanged += 1;
                        continue;
                    }
                    let action = Action::LimitBranch { name: name.to_string(), limits: limits.clone() };
                    let draft = Draft::new(resource, Verb::Live, "limits differ", action);
                    self.push(draft.changes(changes), &[root_cgroup()]);
                }
            }
        }
    }

    fn volumes(&mut self) {
        for name in &self.desired.volumes {
            if self.actual.volumes.contains(name.as_str()) {
                self.unchanged += 1;
                continue;
            }
            let action = Action::CreateVolume { name: name.to_string() };
            self.push(Draft::new(ResourceId::new(Kind::Volume, name.as_str()), Verb::Create, "new", action), &[]);
        }
        if self.volumes == Volumes::Keep {
            return;
        }
        let going: Vec<ResourceId> = self.index.keys().filter(|id| id.kind == Kind::Container).cloned().collect();
        for name in &self.actual.volumes {
            if !self.desired.volumes.contains(name.as_str()) {
                let action = Action::RemoveVolume { name: name.clone() };
                let resource = ResourceId::new(Kind::Volume, name);
                self.push(Draft::new(resource, Verb::Destroy, "asked for", action), &going);
            }
        }
    }

    fn images(&mut self) {
        for name in self.desired.images.keys() {
            if let Some(why) = self.actual.unbuilt.get(name) {
                let action = Action::BuildImage { name: name.clone() };
                let why = format!("to build: {why}");
                self.push(Draft::new(ResourceId::new(Kind::Image, name), Verb::Create, why, action), &[]);
                continue;
            }
            let Some(count) = self.actual.missing_layers.get(name) else {
                self.unchanged += 1;
                continue;
            };
            let why = match count {
                1 => "1 layer is not unpacked".to_string(),
                n => format!("{n} layers are not unpacked"),
            };
            let action = Action::UnpackImage { name: name.clone() };
            self.push(Draft::new(ResourceId::new(Kind::Image, name), Verb::Create, why, action), &[]);
        }
    }

    fn bridges(&mut self) {
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
        let fields = [
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

    fn nat(&mut self) {
        let Some(nat) = &self.desired.nat else { return };
        let resource = ResourceId::new(Kind::Nat, "");
        let wanted = self.facts.nat_parts(nat);
        let empty = BTreeMap::new();
        let held = self.actual.nat.as_ref().map_or(&empty, |table| &table.parts);
        let changes = self.nat_changes(nat, held, &wanted);
        let (verb, why) = match &self.actual.nat {
            None => (Verb::Create, "new"),
            Some(table) => match (&table.label, changes.is_empty()) {
                (Some(label), true) if label.digest == crate::plan::digest_of(&wanted) => {
                    self.unchanged += 1;
                    return;
                }
                (Some(label), _) if label.digest == crate::plan::digest_of(&wanted) => {
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
        let fields: std::collections::BTreeSet<&String> = held.keys().chain(wanted.keys()).collect();
        fields
            .into_iter()
            // Of a table that is made anew only the ports are worth a line each.
            .filter(|field| !is_new || field.starts_with("port "))
            .filter(|field| held.get(*field) != wanted.get(*field))
            .map(|field| Change {
                field: field.clone(),
                from: held.get(field).cloned(),
                to: wanted.get(field).cloned(),
                place: field.starts_with("port ").then(|| place(field)).flatten(),
            })
            .collect()
    }

    fn limit_changes(&self, held: &KernelLimits, wanted: &Limits, origin: &str) -> Vec<Change> {
        let wanted = self.facts.kernel_limits(wanted);
        wanted
            .iter()
            .filter(|(field, to)| held.get(*field) != Some(to))
            .map(|(field, to)| Change {
                field: (*field).into(),
                from: held.get(field).cloned(),
                to: Some(to.clone()),
                place: self.desired.origins.place(&format!("{origin}.{}", limit_key(field))),
            })
            .collect()
    }

    /// Bridges, branches and the stack's cgroup go when no container is left on them.
    fn what_nothing_hangs_on_any_more(&mut self) {
        let containers: Vec<ResourceId> = self.index.keys().filter(|id| id.kind == Kind::Container).cloned().collect();
        for (name, held) in &self.actual.bridges {
            let wanted = |(wanted, bridge): (&Name, &DesiredBridge)| {
                wanted.as_str() == name || (!held.labelled && bridge.ifname == held.ifname)
            };
            if !self.desired.bridges.iter().any(wanted) {
                let action = Action::RemoveBridge { name: name.clone(), ifname: held.ifname.clone() };
                let why = self.not_wanted();
                self.push(Draft::new(ResourceId::new(Kind::Bridge, name), Verb::Destroy, why, action), &containers);
            }
        }
        for name in self.actual.cgroups.keys() {
            if !self.desired.cgroups.contains_key(name.as_str()) {
                let action = Action::RemoveBranch { name: name.clone() };
                let why = self.not_wanted();
                self.push(Draft::new(ResourceId::new(Kind::Cgroup, name), Verb::Destroy, why, action), &containers);
            }
        }
        if self.actual.root != ActualRoot::Nothing && !self.wants_root() {
            let mut needs = containers;
            needs.extend(self.index.keys().filter(|id| id.kind == Kind::Cgroup).cloned());
            let draft = Draft::new(root_cgroup(), Verb::Destroy, self.not_wanted(), Action::RemoveRoot);
            self.push(draft, &needs);
        }
    }
}

fn root_cgroup() -> ResourceId {
    ResourceId::new(Kind::Cgroup, "/")
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

/// The stack file's key for a limit of the kernel.
fn limit_key(field: &str) -> &str {
    match field {
        "memory.max" => "memory",
        "memory.low" => "memory_low",
        "memory.high" => "memory_high",
        "memory.swap.max" => "swap",
        "cpu.max" => "cpu",
        "cpu.max.burst" => "cpu_burst",
        "cpu.weight" => "cpu_weight",
        "cpuset.cpus" => "cpuset",
        "cpuset.mems" => "cpuset_mems",
        "pids.max" => "pids",
        "io.max" => "io",
        other => other,
    }
}
