//! Containers: made, made again, or changed while they run.

use super::{Differ, Draft, root_cgroup};
use crate::model::{Condition, Limits, OnChange, Place, Restart, Run};
use crate::plan::{DesiredContainer, DnsSpec, Endpoint, Kind, LiveSpec, ResourceId, generations, slot_of};
use crate::reconcile::actual::{ActualContainer, Change, Phase, StoredContainer};
use crate::reconcile::changes::{changes_between, hosts_text};
use crate::reconcile::step::{Action, AdjustContainer, Reactions, Verb};

impl Differ<'_> {
    /// Containers that are wanted, each after those that it waits for.
    pub(super) fn containers(&mut self) {
        let mut waiting: Vec<&DesiredContainer> = self.desired.containers.values().collect();
        while !waiting.is_empty() {
            let ready = waiting
                .iter()
                .position(|c| !c.after.iter().any(|(other, _)| waiting.iter().any(|w| w.instance == *other)))
                .unwrap_or(0);
            let container = waiting.remove(ready);
            self.container(container);
        }
    }

    fn container(&mut self, wanted: &DesiredContainer) {
        let held = self.actual.containers.get(&wanted.instance);
        let draft = match held {
            _ if wanted.update.takes_over.is_some() => Some(self.taking_over(wanted)),
            None => Some(self.new_container(wanted)),
            Some(held) => self.changed_container(wanted, held),
        };
        let told_again =
            matches!(&draft, Some(Draft { action: Action::AdjustContainer(a), .. }) if a.reactions.restart);
        let Some(draft) = draft else {
            self.unchanged += 1;
            return;
        };
        let starts = matches!(draft.verb, Verb::Create | Verb::Replace | Verb::Restart)
            || matches!(draft.action, Action::ReplaceContainer(_) | Action::RollContainer(_));
        let starts = starts && !told_again;
        let replaces = matches!(draft.action, Action::ReplaceContainer(_) | Action::RollContainer(_));
        let runs = held.is_some_and(|held| matches!(held.phase, Phase::Running));
        let mut needs = vec![root_cgroup(), ResourceId::new(Kind::Image, &wanted.spec.image.name)];
        if let Some((branch, _)) = wanted.spec.cgroup.split_once(".branch/") {
            needs.push(ResourceId::new(Kind::Cgroup, branch));
        }
        needs.extend(wanted.spec.endpoints.iter().map(|e| ResourceId::new(Kind::Bridge, &e.bridge)));
        needs.extend(wanted.live.dns.iter().map(|_| ResourceId::new(Kind::Resolver, "")));
        needs.extend(wanted.spec.volumes.iter().map(|v| ResourceId::new(Kind::Volume, v.volume.as_str())));
        needs.extend(wanted.after.iter().map(|(other, _)| ResourceId::new(Kind::Container, other)));
        needs.extend(self.who_holds_its_addresses(wanted));
        needs.extend(generations(slot_of(&wanted.instance)).map(|name| ResourceId::new(Kind::Container, name)));
        needs.push(ResourceId::new(Kind::Nat, ""));
        let id = self.push(draft, &needs);
        // Whoever waits for its place waits for this.
        self.index.insert(ResourceId::new(Kind::Container, &wanted.instance), id);
        if starts {
            self.steps[id].until = wanted.after.clone();
        }
        if told_again {
            self.steps[id].interruption = Some("its process is stopped and started again".into());
        }
        if replaces {
            self.tell_of_replacement(id, wanted, runs);
        }
    }

    /// An address is free when the container that has it is gone.
    fn who_holds_its_addresses(&self, wanted: &DesiredContainer) -> Vec<ResourceId> {
        let mine = |address| wanted.spec.endpoints.iter().any(|mine| mine.address == address);
        self.actual
            .containers
            .iter()
            .filter(|(name, held)| {
                **name != wanted.instance
                    && held.stored.iter().flat_map(|s| &s.spec.endpoints).any(|theirs| mine(theirs.address))
            })
            .map(|(name, _)| ResourceId::new(Kind::Container, name))
            .collect()
    }

    fn new_container(&self, wanted: &DesiredContainer) -> Draft {
        let resource = ResourceId::new(Kind::Container, slot_of(&wanted.instance));
        Draft::new(resource, Verb::Create, "new", Action::CreateContainer(Box::new(wanted.clone())))
            .origin(format!("container.{}", wanted.container))
    }

    fn changed_container(&self, wanted: &DesiredContainer, held: &ActualContainer) -> Option<Draft> {
        let again = |verb, why: String, changes| {
            let resource = ResourceId::new(Kind::Container, slot_of(&wanted.instance));
            let action = Action::ReplaceContainer(Box::new(wanted.clone()));
            Some(
                Draft::new(resource, verb, why, action)
                    .changes(changes)
                    .origin(format!("container.{}", wanted.container)),
            )
        };
        let Some(label) = &held.label else {
            return again(Verb::Repair, "was not finished".into(), vec![]);
        };
        let ended_well = matches!(held.phase, Phase::Exited { code: 0 });
        if ended_well && wanted.live.job == Some(Run::Once) && stays_in_branch(held, wanted) {
            return self.adjusted_container(wanted, held);
        }
        if label.digest != wanted.digest() {
            let changes = match &held.stored {
                Some(stored) => self.spec_changes(stored, wanted),
                None => vec![],
            };
            return again(Verb::Replace, replace_reason(&changes), changes);
        }
        match &held.phase {
            Phase::Running | Phase::Restarting => {}
            Phase::Exited { code: 0 } if self.desired.jobs && wanted.live.job == Some(Run::Always) => {
                return again(Verb::Restart, "runs at each `up`".into(), vec![]);
            }
            Phase::Exited { code: 0 } if wanted.live.restart != Restart::Always => {}
            Phase::Exited { code } => return again(Verb::Restart, exit_reason(*code), vec![]),
            Phase::Stopping => return again(Verb::Repair, "it is being stopped".into(), vec![]),
            Phase::Lost { what } => return again(Verb::Repair, (*what).into(), vec![]),
            Phase::Leftover => return again(Verb::Repair, "nothing of it runs".into(), vec![]),
        }
        self.adjusted_container(wanted, held)
    }

    pub(super) fn spec_changes(&self, stored: &StoredContainer, wanted: &DesiredContainer) -> Vec<Change> {
        let mut changes = changes_between(&stored.spec, &wanted.spec);
        for change in &mut changes {
            change.place = self.place_of_spec_field(wanted, &change.field);
        }
        changes
    }

    fn place_of_spec_field(&self, wanted: &DesiredContainer, field: &str) -> Option<Place> {
        let key = match field.split(['.', '[']).next().unwrap_or(field) {
            "args" => "command",
            "endpoints" => "bridge",
            "volumes" => "volume",
            "mounts" => "mount",
            "secrets" => "secret",
            "ulimits" => "ulimit",
            "sysctls" => "sysctl",
            "env" => field,
            other => other,
        };
        self.desired.origins.place(&format!("container.{}.{key}", wanted.container))
    }

    /// What can be written into the running container.
    fn adjusted_container(&self, wanted: &DesiredContainer, held: &ActualContainer) -> Option<Draft> {
        let origin = format!("container.{}", wanted.container);
        let stored = held.stored.as_ref();
        let limits = self.limit_changes(&held.limits, &wanted.live.limits, &origin);
        let mut settings = match stored {
            Some(stored) => settings_changes(&stored.live, &wanted.live),
            None => vec![Change { field: "bundle".into(), from: None, to: Some("complete".into()), place: None }],
        };
        for change in &mut settings {
            let key = change.field.split('.').next().unwrap_or_default().replace("_ms", "").replace("job", "run");
            change.place = self.desired.origins.place(&format!("{origin}.{key}"));
        }
        settings.extend(stored.and_then(|stored| order_change(&stored.after, &wanted.after)));
        let mut hosts = hosts_changes(held.hosts.as_deref(), &hosts_text(&wanted.live.hosts));
        hosts.extend(resolv_conf_change(held.resolv_conf.as_deref(), wanted.live.dns.as_ref()));
        // A container that has ended has no links, and needs none.
        let links = match held.phase {
            Phase::Running | Phase::Restarting => link_changes(wanted, held),
            _ => vec![],
        };
        let (contents, reactions) = content_changes(wanted, held);
        if limits.is_empty() && settings.is_empty() && hosts.is_empty() && links.is_empty() && contents.is_empty() {
            return None;
        }
        // Where the last wish was the same as this one, somebody else changed it.
        let same_wish = stored
            .is_some_and(|stored| stored.live == wanted.live && order_change(&stored.after, &wanted.after).is_none());
        let (verb, why) = match (same_wish, contents.first()) {
            (true, _) => (Verb::Repair, "changed outside stack".into()),
            (false, Some(change)) if reactions.restart => (Verb::Restart, format!("{} changed", change.field)),
            (false, Some(change)) if !reactions.is_empty() => (Verb::Reload, format!("{} changed", change.field)),
            (false, _) => (Verb::Live, "settings differ".into()),
        };
        let action = Action::AdjustContainer(Box::new(AdjustContainer {
            desired: wanted.clone(),
            limits: !limits.is_empty(),
            settings: !settings.is_empty(),
            hosts: !hosts.is_empty(),
            links: links.iter().map(|(bridge, _)| bridge.clone()).collect(),
            contents: contents.iter().map(|change| content_target(&change.field).into()).collect(),
            reactions,
        }));
        let changes: Vec<Change> = limits
            .into_iter()
            .chain(settings)
            .chain(hosts)
            .chain(contents)
            .chain(links.into_iter().map(|(_, c)| c))
            .collect();
        let resource = ResourceId::new(Kind::Container, slot_of(&wanted.instance));
        Some(Draft::new(resource, verb, why, action).changes(changes).origin(origin))
    }
}

/// A branch that goes takes the label of what ran in it along.
fn stays_in_branch(held: &ActualContainer, wanted: &DesiredContainer) -> bool {
    held.stored.as_ref().is_none_or(|stored| stored.spec.cgroup == wanted.spec.cgroup)
}

pub(super) fn replace_reason(changes: &[Change]) -> String {
    match changes {
        [] => "made from another spec".into(),
        [one] => format!("{} changed", one.field),
        [first, rest @ ..] => format!("{} and {} more changed", first.field, rest.len()),
    }
}

fn exit_reason(code: i32) -> String {
    match code {
        129.. => match nix::sys::signal::Signal::try_from(code - 128) {
            Ok(signal) => format!("ended by {signal}"),
            Err(_) => format!("ended with status {code}"),
        },
        _ => format!("ended with status {code}"),
    }
}

/// Settings that the container's monitor is told of.
fn settings_changes(held: &LiveSpec, wanted: &LiveSpec) -> Vec<Change> {
    let strip = |live: &LiveSpec| LiveSpec {
        limits: Limits::default(),
        hosts: vec![],
        dns: None,
        contents: vec![],
        ..live.clone()
    };
    let mut changes = changes_between(&strip(held), &strip(wanted));
    // Kept for the next change of the file; nothing is told now.
    for new in &wanted.contents {
        let old = held.contents.iter().find(|old| old.target == new.target);
        if old.is_some_and(|old| old.on_change != new.on_change) {
            changes.push(Change {
                field: format!("on_change of {}", new.target),
                from: old.map(|old| reaction_words(&old.on_change)),
                to: Some(reaction_words(&new.on_change)),
                place: None,
            });
        }
    }
    changes
}

fn reaction_words(reaction: &OnChange) -> String {
    match reaction {
        OnChange::None => "none".into(),
        OnChange::Restart => "restart".into(),
        OnChange::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
            Ok(signal) => format!("signal:{}", signal.as_str().trim_start_matches("SIG")),
            Err(_) => format!("signal:{number}"),
        },
        OnChange::Exec(command) => format!("exec:{}", command.join(" ")),
    }
}

/// Files that hold something else than they should, and what the container is told of it. What the bundle keeps of the last
/// wish counts too: a run that wrote a file and died had told nobody yet.
fn content_changes(wanted: &DesiredContainer, held: &ActualContainer) -> (Vec<Change>, Reactions) {
    let (mut changes, mut reactions) = (Vec::new(), Reactions::default());
    for new in &wanted.live.contents {
        let told = held.stored.iter().flat_map(|stored| &stored.live.contents).find(|old| old.target == new.target);
        let written = held.contents.get(&new.target);
        if written == Some(&new.content) && told.is_some_and(|old| old.content == new.content) {
            continue;
        }
        let short = |hash: &String| format!("(content {}…)", hash.get(..6).unwrap_or(hash));
        changes.push(Change {
            field: format!("{CONTENT}{}", new.target),
            from: written.map(short),
            to: Some(short(&new.content)),
            place: None,
        });
        // A container that has ended reads it when it starts.
        if matches!(held.phase, Phase::Running | Phase::Restarting) {
            reactions.add(&new.on_change);
        }
    }
    (changes, reactions)
}

const CONTENT: &str = "content of ";

fn content_target(field: &str) -> &str {
    field.strip_prefix(CONTENT).unwrap_or(field)
}

/// Another order restarts nothing; it is kept for the next `down`, which goes the way back.
fn order_change(held: &[(String, Condition)], wanted: &[(String, Condition)]) -> Option<Change> {
    let words = |after: &[(String, Condition)]| {
        let words: Vec<String> =
            after.iter().map(|(name, condition)| format!("{} {condition:?}", slot_of(name))).collect();
        (!words.is_empty()).then(|| words.join(", ").to_lowercase())
    };
    let change = || Change { field: "after".into(), from: words(held), to: words(wanted), place: None };
    (words(held) != words(wanted)).then(change)
}

fn hosts_changes(held: Option<&str>, wanted: &str) -> Vec<Change> {
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_string).collect() };
    let (held, wanted) = (lines(held.unwrap_or_default()), lines(wanted));
    let change = |from: Option<&String>, to: Option<&String>| Change {
        field: "/etc/hosts".into(),
        from: from.cloned(),
        to: to.cloned(),
        place: None,
    };
    let gone = held.iter().filter(|line| !wanted.contains(line)).map(|line| change(Some(line), None));
    let new = wanted.iter().filter(|line| !held.contains(line)).map(|line| change(None, Some(line)));
    gone.chain(new).collect()
}

/// Whom it asks, and nobody else. What the host's file adds to that was right when the container was made.
fn resolv_conf_change(held: Option<&str>, wanted: Option<&DnsSpec>) -> Option<Change> {
    let wanted = wanted?.server.to_string();
    let lines = held.unwrap_or_default().lines().map(str::split_whitespace);
    let servers = lines.filter_map(|mut words| (words.next() == Some("nameserver")).then(|| words.next()).flatten());
    let held = servers.collect::<Vec<_>>().join(" ");
    (held != wanted).then(|| Change {
        field: "/etc/resolv.conf nameserver".into(),
        from: (!held.is_empty()).then_some(held),
        to: Some(wanted),
        place: None,
    })
}

fn link_changes(wanted: &DesiredContainer, held: &ActualContainer) -> Vec<(String, Change)> {
    let state = |endpoint: &Endpoint| match held.links.iter().find(|link| link.bridge == endpoint.bridge) {
        None => "missing",
        Some(link) if !link.up => "down",
        Some(link) if !link.attached => "not on its bridge",
        Some(link) if !link.carrier => "down in the container",
        Some(_) => "up",
    };
    wanted
        .spec
        .endpoints
        .iter()
        .filter(|endpoint| state(endpoint) != "up")
        .map(|endpoint| {
            let change = Change {
                field: format!("link {} on bridge {}", endpoint.interface, endpoint.bridge),
                from: Some(state(endpoint).into()),
                to: Some("up".into()),
                place: None,
            };
            (endpoint.bridge.clone(), change)
        })
        .collect()
}
