//! Holds what should be against what is, field by field, and makes the plan. Decides everything, does nothing.

mod containers;
mod network;
mod resolver;
mod updates;

use std::collections::BTreeMap;

use super::actual::{Actual, ActualContainer, ActualRoot, Change, KernelLimits};
use super::exposure;
use super::preflight::preflight;
use super::step::{Action, LinksOf, Plan, Step, Verb};
use crate::model::{Limits, Name};
use crate::plan::{Desired, DesiredBridge, DesiredNat, Kind, ResourceId, slot_of};

/// What only a host can tell of a wish: how its kernel would hold it. Pure, and the same at every call.
pub trait HostFacts {
    /// The limits as the kernel's files will have them.
    fn kernel_limits(&self, limits: &Limits) -> KernelLimits;
    /// The parts of the stack's nftables table, by name.
    fn nat_parts(&self, nat: &DesiredNat) -> BTreeMap<String, String>;
}

/// The least that makes `actual` what `desired` says. `volumes` says whether volumes that nobody wants are removed.
pub fn diff(desired: &Desired, actual: &Actual, facts: &dyn HostFacts, volumes: Volumes) -> Plan {
    let mut differ = Differ {
        desired,
        actual,
        facts,
        volumes,
        steps: Vec::new(),
        index: BTreeMap::new(),
        replaced: BTreeMap::new(),
        unchanged: 0,
    };
    differ.removed_ports_first();
    differ.containers_that_go();
    differ.forwarding();
    differ.root();
    differ.branches();
    differ.volumes();
    differ.images();
    differ.bridges();
    differ.nat();
    differ.resolver();
    differ.containers();
    differ.what_nothing_hangs_on_any_more();
    let exposure = exposure::of_plan(desired, actual, facts, &differ.steps);
    let notes = desired.notes.iter().cloned().chain(preflight(&differ.steps, actual)).collect();
    Plan { stack: desired.stack.clone(), steps: differ.steps, exposure, notes, unchanged: differ.unchanged }
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
    /// Steps that replace instances of a container, with the instances, in order.
    replaced: BTreeMap<Name, Vec<(usize, String)>>,
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
            order: None,
            dependents: Vec::new(),
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
        let taken_over = |name: &str| {
            self.desired.containers.values().any(|container| container.update.takes_over.as_deref() == Some(name))
        };
        let mut going: Vec<(&String, &ActualContainer)> = self
            .actual
            .containers
            .iter()
            .filter(|(name, _)| !self.desired.containers.contains_key(*name) && !taken_over(name))
            .collect();
        // A container may go when nobody that is still to go was started after it. What is left in a circle, as broken
        // bundles could claim, goes in the order of its names.
        while !going.is_empty() {
            let needed = |name: &str| {
                going.iter().any(|(other, container)| {
                    *other != name
                        && container
                            .stored
                            .iter()
                            .flat_map(|stored| &stored.after)
                            .any(|(needs, _)| slot_of(needs) == slot_of(name))
                })
            };
            let next = going.iter().position(|(name, _)| !needed(name)).unwrap_or(0);
            let (name, _) = going.remove(next);
            let dependents: Vec<ResourceId> = self
                .actual
                .containers
                .iter()
                .filter(|(_, other)| {
                    other.stored.iter().flat_map(|s| &s.after).any(|(needs, _)| slot_of(needs) == slot_of(name))
                })
                .map(|(other, _)| ResourceId::new(Kind::Container, other))
                .collect();
            let stays = self.desired.containers.keys().any(|wanted| slot_of(wanted) == slot_of(name));
            let why = if stays { "another is in its place" } else { self.not_wanted() };
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

    /// The resolver, bridges, branches and the stack's cgroup go when no container is left on them.
    fn what_nothing_hangs_on_any_more(&mut self) {
        let containers: Vec<ResourceId> = self.index.keys().filter(|id| id.kind == Kind::Container).cloned().collect();
        self.resolver_goes(&containers);
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
            needs.extend(self.index.keys().filter(|id| matches!(id.kind, Kind::Cgroup | Kind::Resolver)).cloned());
            let draft = Draft::new(root_cgroup(), Verb::Destroy, self.not_wanted(), Action::RemoveRoot);
            self.push(draft, &needs);
        }
    }
}

fn root_cgroup() -> ResourceId {
    ResourceId::new(Kind::Cgroup, "/")
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
