//! Waits until a container has reached a condition: told by the kernel when its status changes, never by polling.

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

/// What a status says of a condition.
enum Answer {
    Reached,
    NotYet,
    Never(String),
}

impl LinuxHost {
    pub(super) async fn wait_until(&self, instance: &str, condition: Condition) -> Result<(), HostError> {
        let within = match condition {
            // Its own step has started it.
            Condition::Started => return Ok(()),
            Condition::Healthy => HEALTHY_WITHIN,
            Condition::Completed => COMPLETED_WITHIN,
        };
        match tokio::time::timeout(within, self.watch_status(instance, condition)).await {
            Ok(result) => result,
            Err(_) => Err(HostError::Said(format!("`{instance}` did not become {} in {within:?}", word(condition)))),
        }
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

    async fn watch_status(&self, instance: &str, condition: Condition) -> Result<(), HostError> {
        let bundle = self.bundle(instance);
        let doing = || format!("watch `{}`", bundle.display());
        let changes = watch_folder(&bundle).doing(doing)?;
        loop {
            match answer(&read_status(&bundle).doing(doing)?, instance, condition) {
                Answer::Reached => return Ok(()),
                Answer::NotYet => {}
                Answer::Never(message) => {
                    return Err(HostError::Condition { message, tail: self.last_lines(instance, TAIL) });
                }
            }
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

fn answer(found: &Found, instance: &str, condition: Condition) -> Answer {
    let status = match found {
        Found::Watched(status) | Found::Ended(status) => status,
        Found::Nothing => return Answer::Never(format!("`{instance}` does not run")),
        Found::Abandoned(_) => return Answer::Never(format!("`{instance}` has lost its monitor")),
    };
    match condition {
        Condition::Started => Answer::Reached,
        Condition::Healthy => healthy(status, instance),
        Condition::Completed => completed(status, instance),
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
