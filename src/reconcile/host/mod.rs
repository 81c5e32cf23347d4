//! What a host does for the reconciler: it is looked at, and it carries out one step at a time.

mod linux;

use std::error::Error;

use super::actual::Actual;
use super::diff::HostFacts;
use super::execute::Event;
use super::step::Action;
use crate::model::{Condition, Name, Stack};
use crate::plan::Resolved;

pub use linux::{
    Awaited, Brought, ExecFailure, ExecWish, Given, LinuxHost, LockError, Renewal, Roots, StackLock, SyncWish, Synced,
    Usage, labels, turn,
};
pub use linux::{BuildWatch, Rebuild, capacity};

/// A host that holds stacks. There are two: [`LinuxHost`], and one in the tests that can die after any half-step.
pub trait Host: HostFacts {
    /// Reads what has to be known of a stack's files before anything can be desired. Changes nothing.
    fn resolve(&self, stack: &Stack) -> Result<Resolved, HostError>;

    /// Looks at everything that belongs to `stack`. Changes nothing.
    fn observe(&self, stack: &Name) -> impl Future<Output = Result<Actual, HostError>>;

    /// Carries out one step. Everything it needs is in the action; a step that was cut short can be done again.
    fn apply(&self, action: &Action) -> impl Future<Output = Result<(), HostError>>;

    /// Keeps what was done. A host without a log forgets it.
    fn record(&self, _event: &Event<'_>) {}

    /// Waits until an instance has reached a condition, or cannot reach it any more.
    fn reached(&self, instance: &str, condition: Condition) -> impl Future<Output = Result<(), HostError>>;
}

/// Says what was being done when something failed, as in "cannot make bridge `front`".
pub trait Doing<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, HostError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, HostError> {
        self.map_err(|source| HostError::Doing { doing: what().into(), source: source.into() })
    }
}

/// What a host could not do, and why.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("cannot {doing}")]
    Doing { doing: String, source: Box<dyn Error + Send + Sync> },
    #[error("{0}")]
    Said(String),
    /// A container did not come to what another waits for; `tail` are its last lines.
    #[error("{message}")]
    Condition { message: String, tail: Vec<String> },
}

impl HostError {
    /// The whole chain of causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}
