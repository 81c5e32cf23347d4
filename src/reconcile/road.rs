//! The one road: `up`, `down`, `diff` and repair all go it, and differ only in the wish and in where they stop.

use std::time::{Duration, Instant};

use super::actual::Actual;
use super::diff::{Volumes, diff};
use super::execute::{Event, Report, execute};
use super::host::{Host, HostError};
use super::step::Plan;
use crate::model::{Name, Stack};
use crate::plan::{DesireError, Desired, desire};

/// What is wished for.
pub enum Wish<'a> {
    /// What a stack file says.
    Stack(&'a Stack),
    /// The same, and jobs that run at each `up` are to run again.
    Run(&'a Stack),
    /// Nothing of this stack, whatever file it once came from.
    Nothing { stack: &'a Name, volumes: Volumes },
}

/// Why the road ended early.
#[derive(Debug, thiserror::Error)]
pub enum RoadError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Desire(#[from] DesireError),
}

/// What was seen on the way up to the plan.
pub struct Looked {
    pub desired: Desired,
    pub actual: Actual,
    pub plan: Plan,
    pub timings: Vec<(&'static str, Duration)>,
}

/// What came of a plan.
pub struct Travelled {
    pub report: Report,
    /// What another look after it found still to do.
    pub left: Plan,
    pub actual: Actual,
    pub timings: Vec<(&'static str, Duration)>,
}

/// The first half of the road: looks, and changes nothing.
pub async fn look<H: Host>(host: &H, wish: &Wish<'_>) -> Result<Looked, RoadError> {
    let begun = Instant::now();
    let mut timings = Vec::new();
    let (name, volumes) = match wish {
        Wish::Stack(stack) | Wish::Run(stack) => (&stack.name, Volumes::Keep),
        Wish::Nothing { stack, volumes } => (*stack, *volumes),
    };
    let resolved = match wish {
        Wish::Stack(stack) | Wish::Run(stack) => Some(host.resolve(stack)?),
        Wish::Nothing { .. } => None,
    };
    timings.push(("resolve", begun.elapsed()));
    let begun = Instant::now();
    let actual = host.observe(name).await?;
    timings.push(("observe", begun.elapsed()));
    let begun = Instant::now();
    let desired = match (wish, resolved) {
        (Wish::Stack(stack), Some(resolved)) => desire(stack, &resolved, &actual.kept())?,
        (Wish::Run(stack), Some(resolved)) => Desired { jobs: true, ..desire(stack, &resolved, &actual.kept())? },
        _ => Desired::nothing(name.clone()),
    };
    let plan = diff(&desired, &actual, host, volumes);
    timings.push(("plan", begun.elapsed()));
    Ok(Looked { desired, actual, plan, timings })
}

/// The second half: carries the plan out and looks again.
pub async fn travel<H: Host>(
    host: &H,
    wish: &Wish<'_>,
    looked: Looked,
    interrupt: impl Future<Output = ()>,
    mut watch: impl FnMut(Event),
) -> Result<Travelled, RoadError> {
    let mut timings = looked.timings;
    if looked.plan.is_empty() {
        let report = Report::default();
        return Ok(Travelled { report, left: looked.plan, actual: looked.actual, timings });
    }
    let begun = Instant::now();
    let report = execute(&looked.plan, host, interrupt, |event| {
        host.record(&event);
        watch(event);
    })
    .await;
    timings.push(("execute", begun.elapsed()));
    let begun = Instant::now();
    // What ran at this `up` is not to run at it once more.
    let again = match wish {
        Wish::Run(stack) => look(host, &Wish::Stack(stack)).await?,
        _ => look(host, wish).await?,
    };
    timings.push(("verify", begun.elapsed()));
    Ok(Travelled { report, left: again.plan, actual: again.actual, timings })
}
