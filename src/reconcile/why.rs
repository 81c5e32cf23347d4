//! Why a resource is as it is: what it is now, what would be done to it and what hangs on that, and where a container is
//! not well, all that is known of it. Pure; what it is made from was read before.

mod words;

use jiff::Timestamp;
use serde::Serialize;

use super::actual::{Actual, ActualContainer, HealthState, Phase};
use super::step::{Plan, Step, Verb};
use crate::model::{Condition, Place, Restart, Stack};
use crate::monitor::events::EventRecord;
use crate::monitor::status::Status;
use crate::plan::{Graph, Kind, ResourceId, instances, slot_of};

/// So many of the last events are told.
const EVENTS: usize = 5;

/// What was read of one container beside the look at the host. Empty for what is no container.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What its monitor said last.
    pub status: Option<Status>,
    /// System calls that its filter denied, in words.
    pub denied: Vec<String>,
    /// The last lines of its log.
    pub last_lines: Vec<String>,
}

/// Everything that an explanation is made from.
pub struct Known<'a> {
    pub actual: &'a Actual,
    pub plan: &'a Plan,
    pub graph: &'a Graph,
    /// Of the whole stack, the oldest first.
    pub events: &'a [EventRecord],
    pub now: Timestamp,
}

/// One resource, explained.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    pub resource: ResourceId,
    /// The line of the stack file that asks for it.
    pub place: Option<Place>,
    /// What it is now, in words.
    pub now: String,
    pub well: bool,
    /// What would be done to it.
    pub steps: Vec<Step>,
    /// Steps on other resources that those wait for.
    pub before: Vec<StepName>,
    /// What needs it, directly or through others.
    pub dependents: Vec<Dependent>,
    pub findings: Vec<Finding>,
    /// What it must not start without.
    pub waits_for: Vec<Wait>,
    /// Of a container that is not well.
    pub last_lines: Vec<String>,
    pub events: Vec<EventRecord>,
}

/// A step in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepName {
    pub resource: ResourceId,
    pub verb: Verb,
    pub why: String,
}

/// What hangs on a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dependent {
    pub resource: ResourceId,
    /// What becomes of it; `None`: nothing.
    pub step: Option<StepName>,
}

/// Something that is known, and what it is about: `exit`, `memory`, `restarts`, `probe`, `seccomp`, `monitor`, `log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub about: &'static str,
    pub text: String,
}

/// A condition of `after`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    pub instance: String,
    pub condition: Condition,
    pub reached: bool,
    /// What the other is now.
    pub now: String,
}

/// The resources that a name means: `web` is a container, its replicas, a bridge, whatever has that name; `bridge.web` is
/// one of them. Containers first.
pub fn meant(name: &str, graph: &Graph, actual: &Actual) -> Vec<ResourceId> {
    let there = |kind, name: &String| ResourceId::new(kind, name.as_str());
    let mut all: Vec<ResourceId> = graph.nodes.iter().map(|node| node.id.clone()).collect();
    all.extend(actual.containers.keys().map(|name| ResourceId::new(Kind::Container, slot_of(name))));
    all.extend(actual.bridges.keys().map(|name| there(Kind::Bridge, name)));
    all.extend(actual.cgroups.keys().map(|name| there(Kind::Cgroup, name)));
    all.extend(actual.volumes.iter().map(|name| there(Kind::Volume, name)));
    all.sort_by(|a, b| (a.kind != Kind::Container, a).cmp(&(b.kind != Kind::Container, b)));
    all.dedup();
    let is_meant =
        |id: &ResourceId| match name.split_once('.').and_then(|(kind, name)| Some((kind.parse().ok()?, name))) {
            Some((kind, name)) => id.kind == kind && names(name, id),
            None => names(name, id) || (id.kind == Kind::Nat && name == "nat"),
        };
    let meant = all.into_iter().filter(is_meant).collect();
    exact_first(name, meant)
}

/// `web` is the container `web` where there is one, and `web-1`, `web-2` else.
fn exact_first(name: &str, meant: Vec<ResourceId>) -> Vec<ResourceId> {
    let name = name.rsplit('.').next().unwrap_or(name);
    let has_exact = meant.iter().any(|id| id.kind == Kind::Container && id.name == name);
    meant.into_iter().filter(|id| id.kind != Kind::Container || !has_exact || id.name == name).collect()
}

fn names(name: &str, id: &ResourceId) -> bool {
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    let is_replica = || id.name.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(is_number);
    id.name == name || (id.kind == Kind::Container && is_replica())
}

/// Puts together what is known of one resource.
pub fn explain(id: &ResourceId, place: Option<Place>, known: &Known, evidence: &Evidence) -> Explanation {
    let held = known.actual.container_in(&id.name).filter(|_| id.kind == Kind::Container);
    let container = held.map(|(_, container)| container);
    let steps: Vec<Step> = known.plan.steps.iter().filter(|step| step.resource == *id).cloned().collect();
    let ill = match id.kind {
        Kind::Container => container.map_or(Some(NOT_THERE.into()), ailment),
        _ => None,
    };
    let well = ill.is_none() && (id.kind == Kind::Container || steps.is_empty());
    let events = known.events.iter().filter(|event| slot_of(&event.resource) == id.to_string());
    let events: Vec<EventRecord> = events.cloned().collect();
    Explanation {
        place,
        now: words::now(id, known),
        well,
        before: before(&steps, known.plan),
        dependents: dependents(id, known),
        findings: words::findings(evidence, known.now),
        waits_for: waits(id, known),
        last_lines: if ill.is_some() { evidence.last_lines.clone() } else { vec![] },
        events: events[events.len().saturating_sub(EVENTS)..].to_vec(),
        steps,
        resource: id.clone(),
    }
}

const NOT_THERE: &str = "not there";

/// What is wrong with a container; `None`: nothing. One that ended well and is not to be started again is well.
pub fn ailment(container: &ActualContainer) -> Option<String> {
    let restart = container.stored.as_ref().map(|stored| stored.live.restart);
    match (&container.phase, container.health) {
        (Phase::Running, HealthState::None | HealthState::Healthy) => None,
        (Phase::Running, HealthState::Starting) => Some("not healthy yet".into()),
        (Phase::Running, HealthState::Unhealthy) => Some(match &container.run.last_probe {
            Some(probe) if !probe.trim().is_empty() => format!("unhealthy: {}", first_line(probe)),
            _ => "unhealthy".into(),
        }),
        (Phase::Exited { code: 0 }, _) if restart != Some(Restart::Always) => None,
        (phase, _) => Some(phase.to_string()),
    }
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

/// What is wrong with a stack, a text a container; with its file, what is missing too.
pub fn ailments(stack: Option<&Stack>, actual: &Actual) -> Vec<String> {
    let wanted = stack.iter().flat_map(|stack| &stack.containers).flat_map(|(name, one)| instances(name, one));
    let missing = wanted.filter(|place| actual.container_in(place).is_none());
    let missing = missing.map(|instance| format!("{instance} is {NOT_THERE}"));
    let ill = actual.containers.iter().filter_map(|(name, one)| Some(format!("{name} is {}", ailment(one)?)));
    missing.chain(ill).collect()
}

fn name_of(step: &Step) -> StepName {
    StepName { resource: step.resource.clone(), verb: step.verb, why: step.why.clone() }
}

fn before(steps: &[Step], plan: &Plan) -> Vec<StepName> {
    let mut ids: Vec<usize> = steps.iter().flat_map(|step| step.after.iter().copied()).collect();
    ids.sort_unstable();
    ids.dedup();
    let own = |id: &usize| steps.iter().any(|step| step.id == *id);
    ids.iter().filter(|id| !own(id)).filter_map(|id| plan.steps.get(*id)).map(name_of).collect()
}

/// Everything from which a way leads to it, nearest first.
fn dependents(id: &ResourceId, known: &Known) -> Vec<Dependent> {
    let Some(start) = known.graph.nodes.iter().position(|node| node.id == *id) else { return vec![] };
    let mut found = vec![start];
    let mut next = 0;
    while let Some(to) = found.get(next).copied() {
        let from = known.graph.edges.iter().filter(|edge| edge.to == to).map(|edge| edge.from);
        let new: Vec<usize> = from.filter(|from| !found.contains(from)).collect();
        new.into_iter().for_each(|from| {
            if !found.contains(&from) {
                found.push(from)
            }
        });
        next += 1;
    }
    let dependent = |place: &usize| {
        let resource = known.graph.nodes[*place].id.clone();
        let step = known.plan.steps.iter().find(|step| step.resource == resource).map(name_of);
        Dependent { resource, step }
    };
    found[1..].iter().map(dependent).collect()
}

fn waits(id: &ResourceId, known: &Known) -> Vec<Wait> {
    let Some(from) = known.graph.nodes.iter().position(|node| node.id == *id) else { return vec![] };
    let edges = known.graph.edges.iter().filter(|edge| edge.from == from);
    edges.filter_map(|edge| Some(wait(&known.graph.nodes[edge.to].id.name, edge.condition?, known.actual))).collect()
}

fn wait(instance: &str, condition: Condition, actual: &Actual) -> Wait {
    let container = actual.container_in(instance).map(|(_, container)| container);
    let reached = container.is_some_and(|one| match condition {
        Condition::Started => matches!(one.phase, Phase::Running | Phase::Restarting | Phase::Exited { code: 0 }),
        Condition::Healthy => one.phase == Phase::Running && one.health == HealthState::Healthy,
        Condition::Completed => one.phase == Phase::Exited { code: 0 },
    });
    Wait { instance: instance.into(), condition, reached, now: words::container(container) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use crate::monitor::events::Actor;
    use crate::monitor::policy::Exit;
    use crate::monitor::status::{ProbeReport, ProcessId, State};
    use crate::reconcile::actual::{ActualBridge, RunFacts};
    use crate::reconcile::step::Action;

    const FILE: &str = "name = 'shop'\n[bridge.front]\n[image.app]\nfrom = 'host:'\n\
        [container.db]\nimage = 'host:'\ncommand = ['x']\nhealth = { exec = ['x'] }\n\
        [container.web]\nimage = 'app'\ncommand = ['x']\nbridge = ['front']\nafter = { db = 'healthy' }\n\
        [container.page]\nimage = 'host:'\ncommand = ['x']\nafter = { web = 'started' }\n";

    fn stack() -> Stack {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stack.toml");
        std::fs::write(&path, FILE).unwrap();
        let examined = crate::file::examine(&path, &std::collections::HashMap::new(), &[]);
        examined.stack.unwrap_or_else(|| panic!("{}", examined.diagnostics.render(crate::file::Look::Plain)))
    }

    fn container(phase: Phase, health: HealthState) -> ActualContainer {
        ActualContainer {
            label: None,
            stored: None,
            limits: Default::default(),
            phase,
            health,
            links: vec![],
            hosts: None,
            resolv_conf: None,
            contents: Default::default(),
            run: RunFacts::default(),
        }
    }

    fn actual(containers: &[(&str, Phase, HealthState)]) -> Actual {
        let mut actual = Actual::default();
        for (name, phase, health) in containers {
            actual.containers.insert((*name).into(), container(phase.clone(), *health));
        }
        actual
    }

    fn step(id: usize, resource: ResourceId, verb: Verb, why: &str, after: Vec<usize>) -> Step {
        let action = Action::RemoveNat;
        let (place, changes, interruption, until) = (None, vec![], None, vec![]);
        let (order, dependents) = (None, vec![]);
        Step {
            id,
            resource,
            verb,
            why: why.into(),
            place,
            changes,
            interruption,
            order,
            dependents,
            after,
            until,
            action,
        }
    }

    fn explained(name: &str, actual: &Actual, steps: Vec<Step>, evidence: &Evidence) -> Explanation {
        let graph = crate::plan::graph(&stack());
        let plan = Plan {
            stack: Name::new("shop").unwrap(),
            steps,
            notes: vec![],
            exposure: Default::default(),
            unchanged: 0,
        };
        let events: Vec<EventRecord> =
            (0..9).map(|n| EventRecord::now(Actor::Up, "container web", "restart", format!("{n}"))).collect();
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let known = Known { actual, plan: &plan, graph: &graph, events: &events, now };
        explain(&meant(name, &graph, actual)[0], None, &known, evidence)
    }

    #[test]
    fn a_name_means_a_container_first_and_a_kind_picks_another() {
        let graph = crate::plan::graph(&stack());
        let mut actual =
            actual(&[("api-1", Phase::Running, HealthState::None), ("api-2", Phase::Running, HealthState::None)]);
        let bridge = ActualBridge {
            ifname: "stk0".into(),
            labelled: true,
            up: true,
            mtu: 1500,
            address: None,
            services: Default::default(),
            address6: None,
            switches: true,
        };
        actual.bridges.insert("web".into(), bridge);
        let found = |name| meant(name, &graph, &actual).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("web"), ["container web", "bridge web"]);
        assert_eq!(found("bridge.web"), ["bridge web"]);
        assert_eq!(found("api"), ["container api-1", "container api-2"]);
        assert_eq!(found("nothing"), Vec::<String>::new());
    }

    #[test]
    fn a_change_is_followed_to_what_hangs_on_it() {
        let web = || ResourceId::new(Kind::Container, "web");
        let page = ResourceId::new(Kind::Container, "page");
        let image = ResourceId::new(Kind::Image, "app");
        let steps = vec![
            step(0, image, Verb::Create, "new", vec![]),
            step(1, web(), Verb::Replace, "image.id changed", vec![0]),
            step(2, page, Verb::Replace, "args changed", vec![1]),
        ];
        let runs = [("web", Phase::Running, HealthState::None), ("page", Phase::Running, HealthState::None)];
        let found = explained("web", &actual(&runs), steps.clone(), &Evidence::default());
        assert!(found.well, "it runs; that it will be replaced is no illness");
        assert_eq!((found.steps.len(), found.before[0].resource.to_string()), (1, "image app".to_string()));
        assert_eq!(found.dependents.len(), 1);
        assert_eq!(found.dependents[0].step.as_ref().unwrap().why, "args changed");
        let of_image = explained("image.app", &actual(&runs), steps, &Evidence::default());
        let names: Vec<String> = of_image.dependents.iter().map(|d| d.resource.to_string()).collect();
        assert_eq!(names, ["container web", "container page"]);
        assert!(!of_image.well);
    }

    #[test]
    fn what_a_container_waits_for_is_told_with_how_far_it_is() {
        let found =
            explained("web", &actual(&[("db", Phase::Running, HealthState::Starting)]), vec![], &Evidence::default());
        assert_eq!((found.now.as_str(), found.well), ("not there", false));
        let [wait] = &found.waits_for[..] else { panic!("{:?}", found.waits_for) };
        assert_eq!((wait.instance.as_str(), wait.reached, wait.now.as_str()), ("db", false, "running, starting"));
    }

    #[test]
    fn a_container_that_is_not_well_is_told_with_all_that_is_known() {
        let mut status = Status::created(ProcessId { pid: 1, start: 1 });
        status.state = State::Restarting;
        status.set_exit(Some(Exit::Signal(9)));
        status.restarts = 4;
        status.next_start_at = Some("2026-01-01T00:10:12Z".parse().unwrap());
        status.last_probe = Some(ProbeReport {
            at: Some("2026-01-01T00:09:30Z".parse().unwrap()),
            passed: false,
            took_ms: 31,
            text: "connection refused".into(),
        });
        let denied = vec!["`mount` by `sh` (process 7): kill the process".to_string()];
        let evidence = Evidence { status: Some(status), denied, last_lines: vec!["oh".into()] };
        let ill = actual(&[("web", Phase::Restarting, HealthState::None)]);
        let found = explained("web", &ill, vec![], &evidence);
        let texts: Vec<(&str, &str)> = found.findings.iter().map(|f| (f.about, f.text.as_str())).collect();
        assert_eq!(
            texts,
            [
                ("exit", "its last run was ended by SIGKILL: killed from outside, or by the kernel"),
                ("restarts", "started again 4 times by its monitor; the next start is due in 12s"),
                ("probe", "the last one failed 30s ago after 31 ms: connection refused"),
                ("seccomp", "`mount` by `sh` (process 7): kill the process"),
            ]
        );
        assert_eq!((found.last_lines.len(), found.events.len()), (1, EVENTS));
        assert_eq!(found.events[EVENTS - 1].why, "8");
        let well = explained("web", &actual(&[("web", Phase::Running, HealthState::None)]), vec![], &evidence);
        assert!(well.last_lines.is_empty() && well.well);
    }

    #[test]
    fn a_stack_is_well_only_if_all_of_it_runs_and_is_healthy() {
        let all = |phase: Phase, health| {
            actual(&[
                ("db", Phase::Running, HealthState::Healthy),
                ("web", phase, health),
                ("page", Phase::Running, HealthState::None),
            ])
        };
        let stack = stack();
        let check = |actual: &Actual| ailments(Some(&stack), actual);
        assert_eq!(check(&all(Phase::Running, HealthState::None)), Vec::<String>::new());
        assert_eq!(check(&all(Phase::Exited { code: 0 }, HealthState::None)), Vec::<String>::new());
        assert_eq!(check(&all(Phase::Exited { code: 137 }, HealthState::None)), ["web is exited (137)"]);
        assert_eq!(check(&all(Phase::Running, HealthState::Starting)), ["web is not healthy yet"]);
        assert_eq!(check(&all(Phase::Restarting, HealthState::None)), ["web is restarting"]);
        let mut sick = all(Phase::Running, HealthState::Unhealthy);
        sick.containers.get_mut("web").unwrap().run.last_probe = Some("refused\nmore".into());
        assert_eq!(check(&sick), ["web is unhealthy: refused"]);
        assert_eq!(check(&actual(&[])), ["db is not there", "web is not there", "page is not there"]);
        assert_eq!(ailments(None, &actual(&[])), Vec::<String>::new());
    }
}
