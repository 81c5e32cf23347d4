//! Waits until a container has reached a condition: told by the kernel when its status changes, never by polling.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use super::LinuxHost;
use crate::model::Condition;
use crate::monitor::client::{Found, read_status};
use crate::monitor::status::{HealthState, State, Status};
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::sys::async_fd::readable;

/// Nobody waits longer for a container to become healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(600);
/// Nobody waits longer for a container to complete.
const COMPLETED_WITHIN: Duration = Duration::from_secs(6 * 3600);
/// Beyond its time to stop, nobody waits longer for a process that is started again.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// So many of a container's last lines explain why it did not come so far.
const TAIL: usize = 10;

/// What a person can wait for; a [`Condition`] is what a container waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Its health probe passes.
    Healthy,
    /// Its program runs.
    Started,
    /// Its program has ended with status 0, and is not started again.
    Completed,
    /// It does not run, and is not started again.
    Stopped,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Awaited::Healthy => word(Condition::Healthy),
            Awaited::Started => word(Condition::Started),
            Awaited::Completed => word(Condition::Completed),
            Awaited::Stopped => "stopped",
        })
    }
}

/// What a status says of a condition.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Reached,
    NotYet,
    Never(String),
}

impl LinuxHost {
    pub(super) async fn wait_until(&self, instance: &str, condition: Condition) -> Result<(), HostError> {
        let (awaited, within) = match condition {
            // Its own step has started it.
            Condition::Started => return Ok(()),
            Condition::Healthy => (Awaited::Healthy, HEALTHY_WITHIN),
            Condition::Completed => (Awaited::Completed, COMPLETED_WITHIN),
        };
        match tokio::time::timeout(within, self.wait_for(instance, awaited)).await {
            Ok(result) => result,
            Err(_) => Err(HostError::Said(format!("`{instance}` did not become {} in {within:?}", word(condition)))),
        }
    }

    /// The same, and at its first end the wait is over, although its restart policy may start it again: what dies while it
    /// is tried out is not what is to take over.
    pub(super) async fn reached_at_first_try(&self, instance: &str, condition: Condition) -> Result<(), HostError> {
        let fails = self.watch(instance, |found| first_fault(found, instance));
        tokio::select! {
            reached = self.wait_until(instance, condition) => reached,
            failed = fails => failed,
        }
    }

    /// Waits for so long, and fails as soon as the instance ends or is unhealthy.
    pub(super) async fn stays_well(&self, instance: &str, within: Duration) -> Result<(), HostError> {
        if within.is_zero() {
            return Ok(());
        }
        let fails = self.watch(instance, |found| first_fault(found, instance));
        tokio::time::timeout(within, fails).await.unwrap_or(Ok(()))
    }

    /// Does what has an instance's process started again, and waits until another one runs. `patience` is the time that
    /// the one which runs now has to stop.
    pub(super) async fn runs_anew(
        &self,
        instance: &str,
        patience: Duration,
        ask: impl FnOnce() -> Result<(), HostError>,
    ) -> Result<(), HostError> {
        let bundle = self.bundle(instance);
        let doing = || format!("watch `{}`", bundle.display());
        let changes = watch_folder(&bundle).doing(doing)?;
        let before = status_in(&read_status(&bundle).doing(doing)?).and_then(Status::init);
        ask()?;
        let started = async {
            loop {
                let found = read_status(&bundle).doing(doing)?;
                let Some(status) = status_in(&found) else {
                    return Err(HostError::Said(format!("`{instance}` has no status any more")));
                };
                match (status.state, status.init()) {
                    (State::Running, Some(init)) if Some(init) != before => return Ok(()),
                    (State::Exited, _) => {
                        let message = format!("`{instance}` was not started again: it ended {}", ending(status));
                        return Err(HostError::Condition { message, tail: self.last_lines(instance, TAIL) });
                    }
                    _ => {}
                }
                let mut ready = changes.readable().await.doing(doing)?;
                drain(changes.get_ref());
                ready.clear_ready();
            }
        };
        match tokio::time::timeout(patience + STARTED_WITHIN, started).await {
            Ok(result) => result,
            Err(_) => {
                Err(HostError::Said(format!("`{instance}` was not started again in {:?}", patience + STARTED_WITHIN)))
            }
        }
    }

    /// Waits without a bound until an instance has come to a state, or cannot come there any more.
    pub async fn wait_for(&self, instance: &str, awaited: Awaited) -> Result<(), HostError> {
        self.watch(instance, |found| answer(found, instance, awaited)).await
    }

    async fn watch(&self, instance: &str, answer: impl Fn(&Found) -> Answer) -> Result<(), HostError> {
        let bundle = self.bundle(instance);
        let doing = || format!("watch `{}`", bundle.display());
        let changes = match watch_folder(&bundle) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.doing(doing)?),
        };
        loop {
            let found = match &changes {
                Some(_) => read_status(&bundle).doing(doing)?,
                None => Found::Nothing,
            };
            match answer(&found) {
                Answer::Reached => return Ok(()),
                Answer::NotYet => {}
                Answer::Never(message) => {
                    return Err(HostError::Condition { message, tail: self.last_lines(instance, TAIL) });
                }
            }
            let Some(changes) = &changes else { unreachable!("what is not there is an answer") };
            let mut ready = changes.readable().await.doing(doing)?;
            drain(changes.get_ref());
            ready.clear_ready();
        }
    }
}

fn watch_folder(folder: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    // A status is replaced by rename. Its monitor's end shows in the last status that it writes.
    inotify::add_watch(&changes, folder, inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE_SELF)?;
    readable(changes)
}

/// Takes what is waiting; what it says is of no interest, only that there was something.
fn drain(changes: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(changes, &mut buffer);
    while reader.next().is_ok() {}
}

fn status_in(found: &Found) -> Option<&Status> {
    match found {
        Found::Nothing => None,
        Found::Watched(status) | Found::Ended(status) | Found::Abandoned(status) => Some(status),
    }
}

fn answer(found: &Found, instance: &str, awaited: Awaited) -> Answer {
    let status = match (found, awaited) {
        (Found::Watched(status) | Found::Ended(status), _) => status,
        (_, Awaited::Stopped) => return Answer::Reached,
        (Found::Nothing, _) => return Answer::Never(format!("`{instance}` does not run")),
        (Found::Abandoned(_), _) => return Answer::Never(format!("`{instance}` has lost its monitor")),
    };
    match awaited {
        Awaited::Started => started(status, instance),
        Awaited::Healthy => healthy(status, instance),
        Awaited::Completed => completed(status, instance),
        Awaited::Stopped if status.state == State::Exited => Answer::Reached,
        Awaited::Stopped => Answer::NotYet,
    }
}

fn started(status: &Status, instance: &str) -> Answer {
    match status.state {
        State::Running => Answer::Reached,
        State::Created | State::Restarting => Answer::NotYet,
        State::Exited => Answer::Never(format!("`{instance}` ended {}", ending(status))),
    }
}

/// Never reached; what it says is why an instance that is tried out is not good.
fn first_fault(found: &Found, instance: &str) -> Answer {
    let status = match found {
        Found::Watched(status) | Found::Ended(status) => status,
        Found::Nothing => return Answer::Never(format!("`{instance}` does not run")),
        Found::Abandoned(_) => return Answer::Never(format!("`{instance}` has lost its monitor")),
    };
    match status.state {
        State::Exited | State::Restarting => Answer::Never(format!("`{instance}` ended {}", ending(status))),
        _ if status.restarts > 0 => Answer::Never(format!("`{instance}` ended and was started again")),
        _ if status.health == HealthState::Unhealthy => healthy(status, instance),
        _ => Answer::NotYet,
    }
}

fn healthy(status: &Status, instance: &str) -> Answer {
    match (status.health, status.state) {
        (HealthState::Healthy, _) => Answer::Reached,
        (HealthState::Unhealthy, _) => {
            let probe = status.last_probe.as_ref().map_or(String::new(), |probe| format!(": {}", probe.text));
            Answer::Never(format!("`{instance}` is unhealthy{probe}"))
        }
        (_, State::Exited) => Answer::Never(format!("`{instance}` ended {}", ending(status))),
        _ => Answer::NotYet,
    }
}

fn completed(status: &Status, instance: &str) -> Answer {
    match (status.state, status.exit_code) {
        (State::Exited, Some(0)) => Answer::Reached,
        (State::Exited, _) => Answer::Never(format!("`{instance}` ended {}", ending(status))),
        _ => Answer::NotYet,
    }
}

fn ending(status: &Status) -> String {
    match (status.exit_code, status.signal, &status.note) {
        (Some(code), ..) => format!("with status {code}"),
        (_, Some(signal), _) => format!("by signal {signal}"),
        (.., Some(note)) => format!("before it ran: {note}"),
        _ => "before it ran".into(),
    }
}

fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Started => "started",
        Condition::Healthy => "healthy",
        Condition::Completed => "completed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::policy::Exit;
    use crate::monitor::status::ProcessId;

    fn status(state: State, exit: Option<Exit>, health: HealthState) -> Status {
        let mut status = Status::created(ProcessId { pid: 1, start: 1 });
        (status.state, status.health) = (state, health);
        status.set_exit(exit);
        status
    }

    /// The answers to "started", "healthy", "completed" and "stopped": reached, not yet, never.
    fn check(found: &Found, expected: &str) {
        let states = [Awaited::Started, Awaited::Healthy, Awaited::Completed, Awaited::Stopped];
        let letters = states.map(|awaited| match answer(found, "web", awaited) {
            Answer::Reached => 'R',
            Answer::NotYet => '.',
            Answer::Never(_) => '!',
        });
        assert_eq!(letters.iter().collect::<String>(), expected, "{found:?}");
    }

    #[test]
    fn every_state_answers_every_question() {
        use HealthState::{Healthy, Starting, Unhealthy};
        check(&Found::Nothing, "!!!R");
        check(&Found::Watched(status(State::Created, None, Starting)), "....");
        check(&Found::Watched(status(State::Running, None, Starting)), "R...");
        check(&Found::Watched(status(State::Running, None, Healthy)), "RR..");
        check(&Found::Watched(status(State::Running, None, Unhealthy)), "R!..");
        check(&Found::Watched(status(State::Restarting, Some(Exit::Code(1)), Starting)), "....");
        check(&Found::Ended(status(State::Exited, Some(Exit::Code(0)), Starting)), "!!RR");
        check(&Found::Ended(status(State::Exited, Some(Exit::Signal(9)), Starting)), "!!!R");
        check(&Found::Abandoned(status(State::Running, None, Healthy)), "!!!R");
    }
}
