//! What happens, while it happens: a line a step where standard error is a terminal, failures everywhere.

use std::io::IsTerminal;
use std::time::Duration;

use super::style::{BAD, DIM, GOOD, WARN, paint};
use crate::reconcile::{Event, HostError, Plan};

/// Shows the events of one plan.
pub struct Progress {
    shown: bool,
    total: usize,
    done: usize,
    /// Of the longest resource, in characters.
    width: usize,
}

impl Progress {
    pub fn new(plan: &Plan) -> Self {
        let width = plan.steps.iter().map(|step| step.resource.to_string().chars().count()).max().unwrap_or(0);
        Progress { shown: std::io::stderr().is_terminal(), total: plan.steps.len(), done: 0, width }
    }

    pub fn event(&mut self, event: &Event) {
        let width = self.width;
        match event {
            Event::Started(_) => {}
            Event::Done(step, took) => {
                self.done += 1;
                if self.shown {
                    let digits = self.total.to_string().len();
                    let count = format!("[{:digits$}/{}]", self.done, self.total);
                    let took = paint(DIM, format!("{:>9}", duration(*took)));
                    let resource = step.resource.to_string();
                    anstream::eprintln!("{} {} {resource:width$} {took}", paint(GOOD, "✓"), paint(DIM, count));
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

/// Milliseconds as long as they are few.
pub fn duration(took: Duration) -> String {
    match took < TEN_SECONDS {
        true => format!("{:.0} ms", took.as_secs_f64() * 1000.0),
        false => format!("{:.0} s", took.as_secs_f64()),
    }
}

const TEN_SECONDS: Duration = Duration::from_secs(10);

/// The last lines of a container that a failure is about.
pub fn tail(error: &HostError) {
    if let HostError::Condition { tail, .. } = error {
        for line in tail {
            anstream::eprintln!("  {} {line}", paint(DIM, "|"));
        }
    }
}
