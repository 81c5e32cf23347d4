//! Carries a plan out: every step as soon as those it waits for are done. It has no opinion of its own.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;

use super::host::{Host, HostError};
use super::step::{Plan, Step};

/// What happens while a plan is carried out, for whoever watches.
pub enum Event<'a> {
    Started(&'a Step),
    Done(&'a Step, Duration),
    Failed(&'a Step, &'a HostError),
    /// Left out, because the step at this place in the plan did not succeed.
    Skipped(&'a Step, usize),
}

/// How a plan ended.
#[derive(Debug, Default)]
pub struct Report {
    /// Places in the plan of the steps that succeeded, in the order in which they did.
    pub done: Vec<usize>,
    pub failed: Vec<Failure>,
    /// Steps that hung on a failed one, and the failed one they hung on.
    pub skipped: Vec<(usize, usize)>,
    /// Whether the user asked to stop before the end.
    pub interrupted: bool,
}

#[derive(Debug)]
pub struct Failure {
    pub step: usize,
    pub error: HostError,
}

/// How many steps are under way at once. Bounded, because each may hold descriptors and a thread.
const AT_ONCE: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
    /// It, or the step named, failed.
    Lost(usize),
}

/// Carries out `plan` on `host`. When `interrupt` resolves, no further step begins, and those that only wait are dropped;
/// steps under way are finished, so that no object is left half made.
pub async fn execute<H: Host>(
    plan: &Plan,
    host: &H,
    interrupt: impl Future<Output = ()>,
    mut watch: impl FnMut(Event),
) -> Report {
    let mut report = Report::default();
    let mut states = vec![State::Waiting; plan.steps.len()];
    let mut running = FuturesUnordered::new();
    let stop = tokio::sync::watch::channel(false);
    let mut interrupt = Box::pin(interrupt);
    loop {
        skip_what_hangs_on_failures(plan, &mut states, &mut report, &mut watch);
        if !report.interrupted {
            for step in &plan.steps {
                let ready = states[step.id] == State::Waiting
                    && running.len() < AT_ONCE
                    && step.after.iter().all(|need| states[*need] == State::Done);
                if ready {
                    states[step.id] = State::Running;
                    watch(Event::Started(step));
                    running.push(run(step, host, stop.1.clone()));
                }
            }
        }
        if running.is_empty() {
            return report;
        }
        let next = match report.interrupted {
            true => running.next().await,
            false => match select(running.next(), &mut interrupt).await {
                Either::Left((next, _)) => next,
                Either::Right(((), _)) => {
                    report.interrupted = true;
                    let _ = stop.0.send(true);
                    continue;
                }
            },
        };
        let Some((id, took, result)) = next else { continue };
        match result {
            Ok(Outcome::Done) => {
                states[id] = State::Done;
                report.done.push(id);
                watch(Event::Done(&plan.steps[id], took));
            }
            Ok(Outcome::Dropped) => states[id] = State::Waiting,
            Err(error) => {
                states[id] = State::Lost(id);
                watch(Event::Failed(&plan.steps[id], &error));
                report.failed.push(Failure { step: id, error });
            }
        }
    }
}

enum Outcome {
    Done,
    /// It still waited for others when the user asked to stop.
    Dropped,
}

async fn run<H: Host>(
    step: &Step,
    host: &H,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> (usize, Duration, Result<Outcome, HostError>) {
    let begun = Instant::now();
    for (instance, condition) in &step.until {
        let reached = Box::pin(host.reached(instance, *condition));
        let stopped = Box::pin(stop.wait_for(|stop| *stop));
        match select(reached, stopped).await {
            Either::Left((Ok(()), _)) => {}
            Either::Left((Err(error), _)) => return (step.id, begun.elapsed(), Err(error)),
            Either::Right(_) => return (step.id, begun.elapsed(), Ok(Outcome::Dropped)),
        }
    }
    let result = host.apply(&step.action).await.map(|()| Outcome::Done);
    (step.id, begun.elapsed(), result)
}

fn skip_what_hangs_on_failures(plan: &Plan, states: &mut [State], report: &mut Report, watch: &mut impl FnMut(Event)) {
    // Steps stand in an order in which they can be done: one pass reaches everything downstream.
    for step in &plan.steps {
        if states[step.id] != State::Waiting {
            continue;
        }
        let lost = step.after.iter().find_map(|need| match states[*need] {
            State::Lost(cause) => Some(cause),
            _ => None,
        });
        if let Some(cause) = lost {
            states[step.id] = State::Lost(cause);
            report.skipped.push((step.id, cause));
            watch(Event::Skipped(step, cause));
        }
    }
}

impl Report {
    pub fn succeeded(&self) -> bool {
        self.failed.is_empty() && self.skipped.is_empty() && !self.interrupted
    }
}
