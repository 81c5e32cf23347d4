//! What `why` reads of a container beside the look at the host. What cannot be read is left out: half an explanation is
//! better than none.

use super::LinuxHost;
use crate::monitor::client::{Found, read_status};
use crate::monitor::status::Status;
use crate::reconcile::actual::ActualContainer;
use crate::reconcile::why::Evidence;
use crate::runtime::seccomp::{DeniedCall, SeccompAction, logged_denials};

/// So many of the last lines of a log are read.
const LINES: usize = 10;
/// So many of the last denied calls are told.
const CALLS: usize = 5;
/// Between the kernel's note of a call that kills a container's first process and its monitor's of the end, at most.
const APART_MS: i64 = 1000;

impl LinuxHost {
    /// Status, last lines and denied calls of an instance.
    pub fn evidence(&self, instance: &str, container: Option<&ActualContainer>) -> Evidence {
        let status = match read_status(&self.bundle(instance)) {
            Ok(Found::Watched(status) | Found::Ended(status) | Found::Abandoned(status)) => Some(status),
            Ok(Found::Nothing) | Err(_) => None,
        };
        let pids = container.map(|container| self.pids_of(container)).unwrap_or_default();
        let calls = logged_denials(|call| is_of(call, &pids, status.as_ref())).unwrap_or_default();
        let mut denied: Vec<String> = calls.iter().map(DeniedCall::text).collect();
        denied.dedup();
        denied.drain(..denied.len().saturating_sub(CALLS));
        Evidence { denied, last_lines: self.last_lines(instance, LINES), status }
    }

    fn pids_of(&self, container: &ActualContainer) -> Vec<u32> {
        let group = container.stored.as_ref().and_then(|stored| self.cgroup_path(&stored.spec.cgroup).ok());
        let group = group.and_then(|path| self.open_cgroup(&path).ok()?);
        group.and_then(|group| group.procs().ok()).unwrap_or_default()
    }
}

/// Whether a denied call is the container's: a process of it made it, or it ended by such a call at that very time.
fn is_of(call: &DeniedCall, pids: &[u32], status: Option<&Status>) -> bool {
    let kills = matches!(call.action, SeccompAction::KillProcess | SeccompAction::KillThread | SeccompAction::Trap(_));
    let ended =
        status.filter(|status| status.signal == Some(libc::SIGSYS) || status.exit_code == Some(128 + libc::SIGSYS));
    let ended_ms = ended.and_then(|status| status.finished_at).map(|time| time.as_millisecond());
    pids.contains(&call.pid) || (kills && ended_ms.is_some_and(|at| (at - call.at_ms).abs() <= APART_MS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::policy::Exit;
    use crate::monitor::status::ProcessId;

    #[test]
    fn a_call_belongs_to_who_lives_and_to_who_ended_by_it() {
        let call = |pid, action| DeniedCall { at_ms: 5_000, pid, process: "x".into(), arch: 0, nr: 0, action };
        let (kill, errno) = (SeccompAction::KillProcess, SeccompAction::Errno(1));
        assert!(is_of(&call(7, errno), &[7], None) && !is_of(&call(8, errno), &[7], None));
        let mut status = Status::created(ProcessId { pid: 1, start: 1 });
        status.finished_at = Some("1970-01-01T00:00:05.4Z".parse().unwrap());
        assert!(!is_of(&call(8, kill), &[], Some(&status)), "it did not end by a signal");
        status.set_exit(Some(Exit::Signal(libc::SIGSYS)));
        assert!(is_of(&call(8, kill), &[], Some(&status)) && !is_of(&call(8, errno), &[], Some(&status)));
        status.finished_at = Some("1970-01-01T00:00:09Z".parse().unwrap());
        assert!(!is_of(&call(8, kill), &[], Some(&status)), "it ended at another time");
    }
}
