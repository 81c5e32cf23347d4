//! What `--repair` puts right, and when. Pure: it is handed plans and times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::reconcile::{Plan, Step, Verb};

/// A resource that has to be repaired again soon after is left alone for so long, and twice as long each further time.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// No resource is left alone for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// What was not repaired for so long begins anew.
const FORGOTTEN: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Patient {
    repaired: Instant,
    times: u32,
    /// Whether it was said that it is left alone.
    said: bool,
}

/// What is known of earlier repairs.
#[derive(Debug, Default)]
pub struct Repairs {
    patients: BTreeMap<String, Patient>,
}

/// What to do about a plan that nobody asked for.
#[derive(Debug, Default)]
pub struct Decision {
    /// The part of the plan to carry out.
    pub plan: Option<Plan>,
    /// Resources that are left alone from now on, and for how long.
    pub paused: Vec<(String, Duration)>,
}

impl Repairs {
    /// Decides which steps of a plan are carried out now.
    ///
    /// What has ended by itself was changed by nobody, and is its restart policy's business, so it stays as it is.
    pub fn decide(&mut self, plan: &Plan, now: Instant) -> Decision {
        self.patients
            .retain(|_, patient| now.saturating_duration_since(patient.repaired) < FORGOTTEN.max(pause(patient.times)));
        let mut decision = Decision::default();
        let mut left: BTreeSet<usize> = BTreeSet::new();
        for step in &plan.steps {
            let name = step.resource.to_string();
            let waits = match self.patients.get_mut(&name) {
                Some(patient) if now.saturating_duration_since(patient.repaired) < pause(patient.times) => {
                    if !patient.said {
                        patient.said = true;
                        decision.paused.push((name, pause(patient.times)));
                    }
                    true
                }
                _ => false,
            };
            if waits || ended_by_itself(step) || step.after.iter().any(|need| left.contains(need)) {
                left.insert(step.id);
            }
        }
        for step in plan.steps.iter().filter(|step| !left.contains(&step.id)) {
            let new = Patient { repaired: now, times: 0, said: false };
            let patient = self.patients.entry(step.resource.to_string()).or_insert(new);
            *patient = Patient { repaired: now, times: patient.times.saturating_add(1), said: false };
        }
        decision.plan = Some(plan.without(&left)).filter(|plan| !plan.is_empty());
        decision
    }
}

fn ended_by_itself(step: &Step) -> bool {
    step.verb == Verb::Restart
}

/// How long a resource is left alone after so many repairs. One that holds is no reason to wait.
fn pause(times: u32) -> Duration {
    match times {
        0 | 1 => Duration::ZERO,
        n => FIRST_PAUSE.saturating_mul(1 << (n - 2).min(16)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use crate::plan::{Kind, ResourceId};
    use crate::reconcile::Action;

    fn plan(steps: &[(&str, Verb, &[usize])]) -> Plan {
        let step = |(id, (name, verb, after)): (usize, &(&str, Verb, &[usize]))| Step {
            id,
            resource: ResourceId::new(Kind::Container, *name),
            verb: *verb,
            why: String::new(),
            place: None,
            changes: vec![],
            interruption: None,
            after: after.to_vec(),
            until: vec![],
            action: Action::RemoveNat,
        };
        let steps = steps.iter().enumerate().map(step).collect();
        Plan { stack: Name::new("shop").unwrap(), notes: vec![], steps, unchanged: 0, exposure: Default::default() }
    }

    fn names(decision: &Decision) -> Vec<String> {
        let steps = decision.plan.iter().flat_map(|plan| &plan.steps);
        steps.map(|step| step.resource.name.clone()).collect()
    }

    #[test]
    fn what_ended_by_itself_is_left_and_so_is_what_hangs_on_it() {
        let plan = plan(&[("job", Verb::Restart, &[]), ("web", Verb::Repair, &[]), ("api", Verb::Create, &[0, 1])]);
        let decision = Repairs::default().decide(&plan, Instant::now());
        assert_eq!(names(&decision), ["web"]);
        assert_eq!(decision.plan.unwrap().steps[0].id, 0);
    }

    #[test]
    fn what_does_not_hold_is_repaired_ever_more_seldom_and_that_is_said_once() {
        let (mut repairs, begun) = (Repairs::default(), Instant::now());
        let plan = plan(&[("web", Verb::Repair, &[])]);
        let (mut repaired, mut said) = (0, 0);
        for second in 0..600 {
            let decision = repairs.decide(&plan, begun + Duration::from_secs(second));
            repaired += names(&decision).len();
            said += decision.paused.len();
        }
        // At 0, 1, 31, 91, 211 and 451 s.
        assert_eq!((repaired, said), (6, 5));
    }

    #[test]
    fn one_that_does_not_hold_keeps_nobody_else_waiting() {
        let (mut repairs, now) = (Repairs::default(), Instant::now());
        let both = plan(&[("web", Verb::Repair, &[]), ("db", Verb::Repair, &[])]);
        let web = plan(&[("web", Verb::Repair, &[])]);
        repairs.decide(&web, now);
        repairs.decide(&web, now);
        assert_eq!(names(&repairs.decide(&both, now)), ["db"]);
    }
}
