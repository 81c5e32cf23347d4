//! The end of containers: signals, and taking away what was made.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::runtime::oci::{OciConfig, OciLifecycleState, OciNamespaceKind};
use crate::runtime::sys;

use super::cgroups::{self, Frozen};
use super::create::{Point, run_hooks};
use super::process::started_at;
use super::store::{Record, Store, StoreError};
use super::{Container, LifecycleError, Status, systemd};

/// How long a killed process may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Send the container's process a signal. A stopped container gets none: that is an error.
pub fn kill(container: &Container, signal: i32) -> Result<(), LifecycleError> {
    if signal == libc::SIGKILL
        && shares_pid_namespace(container)?
        && !container.record.cgroups().processes()?.is_empty()
    {
        // Its other processes do not end with the first.
        return kill_all(container, signal);
    }
    if container.status == Status::Stopped {
        return Err(container.refuse("kill"));
    }
    let failed = LifecycleError::system(format!("signal the process of `{}`", container.record.id));
    sys::send_signal(container.record.init_process_pid, signal).map_err(|errno| failed(errno.into()))?;
    if container.status == Status::Paused && signal == libc::SIGKILL {
        // A frozen process of version 1 does not even die.
        container.record.cgroups().freeze(Frozen::No)?;
    }
    Ok(())
}

fn shares_pid_namespace(container: &Container) -> Result<bool, LifecycleError> {
    let config = container.place.config()?;
    let namespace = config.linux.as_ref().and_then(|linux| linux.namespace(OciNamespaceKind::Pid));
    Ok(namespace.is_none_or(|namespace| namespace.path.is_some()))
}

/// Send every process of the container a signal, also of one whose first process has ended.
pub fn kill_all(container: &Container, signal: i32) -> Result<(), LifecycleError> {
    Ok(container.record.cgroups().signal_all(signal)?)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    No,
    /// A container that runs is killed; one that is not there is no error.
    Yes,
}

/// Delete a stopped container, or one that was never started. Returns what went wrong with its last hooks, which is no failure.
pub fn delete(store: &Store, id: &str, forced: Forced) -> Result<Option<LifecycleError>, LifecycleError> {
    let place = match store.find(id) {
        Err(StoreError::NotFound { .. }) if forced == Forced::Yes => return Ok(None),
        place => place?,
    };
    let Some(container) = Container::at(place)? else {
        // Its making was interrupted, or goes on.
        return match forced {
            Forced::Yes => store.find(id)?.remove().map(|()| None).map_err(LifecycleError::from),
            Forced::No => Err(LifecycleError::WrongState { id: id.to_owned(), status: "creating", verb: "delete" }),
        };
    };
    match (container.status, forced) {
        (Status::Running | Status::Paused, Forced::No) => return Err(container.refuse("delete")),
        (Status::Stopped, _) => {}
        _ => end_process(&container.record),
    }
    let config = container.place.config()?;
    destroy(&container, &config)
}

/// Take away what was made for a container whose process has ended.
pub fn destroy(container: &Container, config: &OciConfig) -> Result<Option<LifecycleError>, LifecycleError> {
    let groups = container.record.cgroups();
    // Without a pid namespace its other processes live on.
    if !container.record.made_cgroups.is_empty() && groups.processes().is_ok_and(|list| !list.is_empty()) {
        groups.signal_all(libc::SIGKILL)?;
    }
    if let Some(unit) = &container.record.scope {
        systemd::stop(unit)?;
    }
    cgroups::remove(&container.record.made_cgroups)?;
    container.place.remove()?;
    let state = container.record.state(OciLifecycleState::Stopped);
    Ok(run_hooks(config, Point::Poststop, &state).err())
}

/// Kill the container's process and wait until it has ended.
pub fn end_process(record: &Record) {
    let Some(pid) = Pid::from_raw(record.init_process_pid) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    if started_at(record.init_process_pid) != Some(record.init_process_start) {
        return;
    }
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    let groups = record.cgroups();
    if groups.is_frozen() {
        let _ = groups.freeze(Frozen::No);
    }
    let deadline = Instant::now() + KILL_LIMIT;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)).is_ok_and(|ready| ready > 0) {
            break;
        }
    }
}
