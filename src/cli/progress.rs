//! What happens, while it happens: a line a step where standard error is a terminal, failures everywhere.

use std::io::IsTerminal;

use super::style::{BAD, DIM, GOOD, WARN, paint};
use crate::reconcile::{Event, HostError, Plan};

/// Shows the events of one plan.
pub struct Progress {
    shown: bool,
    total: usize,
    done: usize,
}

impl Progress {
    pub fn new(plan: &Plan) -> Self {
        Progress { shown: std::io::stderr().is_terminal(), total: plan.steps.len(), done: 0 }
    }

    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Started(_) => {}
            Event::Done(step, took) => {
                self.done += 1;
                if self.shown {
                    let count = format!("[{}/{}]", self.done, self.total);
                    let took = paint(DIM, format!("{:.0} ms", took.as_secs_f64() * 1000.0));
                    anstream::eprintln!("{} {} {} {took}", paint(GOOD, "✓"), paint(DIM, count), step.resource);
                }
            }
            Event::Failed(step, error) => {
                anstream::eprintln!("{} {}: {}", paint(BAD, "error:"), step.resource, error.chain());
                tail(error);
            }
            Event::Skipped(step, cause) => {
                if self.shown {
                    let why = paint(DIM, format!("left out, because step {} failed", cause + 1));
                    anstream::eprintln!("{} {} {why}", paint(WARN, "-"), step.resource);
                }
            }
        }
    }
}

fn tail(error: &HostError) {
    if let HostError::Condition { tail, .. } = error {
        for line in tail {
            anstream::eprintln!("  {} {line}", paint(DIM, "|"));
        }
    }
}
