//! Two containers of one place: while one takes over from another, both are there, under two names.
//!
//! A container's place is called as the file says, `web` or `web-2`. Its instances are called `web` and `web.1` by turns. Which of
//! them is the wanted one, the host's own labels say: the one that was made from the wanted spec. Nothing else keeps it in
//! mind, so that a run that was killed half-way is gone on with by the next.

use std::collections::BTreeMap;

use super::Order;
use crate::model::{Container, MountSource, UpdateOrder};

/// What the second of two instances has behind its place's name. No name of a stack file holds a dot.
const SECOND: &str = ".1";

/// An instance that the host holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Of the spec it was made from; none where its making was not finished.
    pub digest: Option<String>,
    pub runs: bool,
    /// Whether published ports or the service's name lead to it.
    pub serves: bool,
}

/// The place that an instance takes.
pub fn slot_of(instance: &str) -> &str {
    instance.strip_suffix(SECOND).unwrap_or(instance)
}

/// Both names that instances of a place can have.
pub fn generations(slot: &str) -> [String; 2] {
    [slot.to_owned(), format!("{slot}{SECOND}")]
}

/// Which instance of a place is wanted, and which one it takes over from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub instance: String,
    pub takes_over: Option<String>,
}

/// Decides about a place whose wanted digests are `wanted`, one for each name that is held.
pub(super) fn choose(
    slot: &str,
    order: Order,
    held: &BTreeMap<String, Held>,
    wanted: &BTreeMap<String, String>,
) -> Choice {
    let names = generations(slot);
    let held_here: Vec<(&String, &Held)> = names.iter().filter_map(|name| Some((name, held.get(name)?))).collect();
    let runs = |name: &String| held.get(name).is_some_and(|held| held.runs && held.digest.is_some());
    let other = |name: &String| names.iter().find(|other| *other != name).cloned().unwrap_or_default();
    let takes_over = |name: &String| Some(other(name)).filter(runs).filter(|_| order == Order::StartFirst);
    let fits = |(name, held): &&(&String, &Held)| held.digest.is_some() && held.digest.as_ref() == wanted.get(*name);
    let fitting = held_here.iter().filter(fits).max_by_key(|(_, held)| (held.serves, held.runs));
    if let Some((name, _)) = fitting {
        return Choice { instance: (*name).clone(), takes_over: takes_over(name) };
    }
    // The one that people are served by; else one that runs; else whatever is left of one.
    let old = held_here.iter().max_by_key(|(name, held)| (runs(name), held.serves));
    match old {
        Some((old, _)) if order == Order::StartFirst && runs(old) => {
            Choice { instance: other(old), takes_over: Some((*old).clone()) }
        }
        Some((old, _)) => Choice { instance: (*old).clone(), takes_over: None },
        None => Choice { instance: slot.to_owned(), takes_over: None },
    }
}

/// Which comes first when a container is replaced: the new one, where nothing stands against it.
pub(super) fn order_of(container: &Container) -> Order {
    let written = container.update.order;
    let writes = container.volumes.iter().any(|volume| !volume.read_only)
        || container.mounts.iter().any(|mount| !mount.read_only && matches!(mount.source, MountSource::Bind(_)));
    let asked = written == Some(UpdateOrder::StartFirst);
    match () {
        () if written == Some(UpdateOrder::StopFirst) => Order::StopFirst("`update = \"stop-first\"`"),
        // Several replicas write to it at once already.
        () if writes && container.replicas < 2 => Order::StopFirst("two would write to one volume or folder"),
        () if container.job.is_some() => Order::StopFirst("it is to end, and nothing is led to it"),
        () if asked => Order::StartFirst,
        () if container.bridges.is_empty() => {
            Order::StopFirst("no bridge leads to it, so nothing can be led elsewhere")
        }
        () if container.health.is_none() => Order::StopFirst("no `health` tells when a new one is ready"),
        () => Order::StartFirst,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "new";

    fn held(digest: Option<&str>, runs: bool, serves: bool) -> Held {
        Held { digest: digest.map(str::to_owned), runs, serves }
    }

    /// What is chosen for `web`, wanted under the digest `new`.
    fn check(order: Order, web: Option<Held>, second: Option<Held>, instance: &str, takes_over: Option<&str>) {
        let held: BTreeMap<String, Held> =
            generations("web").into_iter().zip([web, second]).filter_map(|(name, held)| Some((name, held?))).collect();
        let wanted = held.keys().map(|name| (name.clone(), NEW.to_owned())).collect();
        let choice = choose("web", order, &held, &wanted);
        assert_eq!((choice.instance.as_str(), choice.takes_over.as_deref()), (instance, takes_over), "{held:?}");
    }

    #[test]
    fn names_alternate() {
        check(Order::StartFirst, None, None, "web", None);
        check(Order::StartFirst, Some(held(Some("old"), true, true)), None, "web.1", Some("web"));
        check(Order::StartFirst, None, Some(held(Some("old"), true, true)), "web", Some("web.1"));
        check(Order::StartFirst, None, Some(held(Some(NEW), true, true)), "web.1", None);
    }

    #[test]
    fn what_was_begun_is_gone_on_with() {
        let old = || Some(held(Some("old"), true, true));
        check(Order::StartFirst, old(), Some(held(None, false, false)), "web.1", Some("web"));
        check(Order::StartFirst, old(), Some(held(Some(NEW), true, false)), "web.1", Some("web"));
        check(Order::StartFirst, old(), Some(held(Some("between"), true, false)), "web.1", Some("web"));
    }

    #[test]
    fn the_old_one_stays_when_it_is_wanted_again() {
        let second = Some(held(Some("regretted"), true, false));
        check(Order::StartFirst, Some(held(Some(NEW), true, true)), second, "web", Some("web.1"));
    }

    #[test]
    fn what_does_not_run_needs_no_other_beside_it() {
        check(Order::StartFirst, Some(held(Some("old"), false, true)), None, "web", None);
        check(Order::StartFirst, None, Some(held(Some("old"), false, true)), "web.1", None);
    }

    #[test]
    fn stop_first_keeps_the_name() {
        let order = Order::StopFirst("because");
        check(order, Some(held(Some("old"), true, true)), None, "web", None);
        check(order, None, Some(held(Some("old"), true, true)), "web.1", None);
    }
}
