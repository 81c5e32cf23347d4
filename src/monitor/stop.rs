//! Whether a stop signal can be of use.
//!
//! A pid namespace's PID 1 gets only the signals that it has a handler for (pid_namespaces(7)), so a program without
//! one would let the whole stop timeout pass and be killed all the same.

use std::fs;

use nix::sys::signal::Signal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopPlan {
    /// Send the signal and wait.
    Ask,
    /// The signal would be dropped; SIGKILL is not.
    KillAtOnce,
}

/// How to stop the process that is a container's PID 1 and `pid` here.
pub(super) fn plan_stop(pid: i32, signal: i32) -> StopPlan {
    // Some kilobytes at most, made by the kernel. Where it cannot be read, the process is most likely gone.
    match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => decide(&status, signal),
        Err(_) => StopPlan::Ask,
    }
}

/// Decides from `/proc/<pid>/status` (proc_pid_status(5)).
fn decide(status: &str, signal: i32) -> StopPlan {
    if signal == Signal::SIGKILL as i32 || signal == Signal::SIGSTOP as i32 {
        return StopPlan::Ask;
    }
    let has = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let set = line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        // A set that is missing says nothing, so the signal is tried.
        set.is_none_or(|set| (1..=64).contains(&signal) && set & (1 << (signal - 1)) != 0)
    };
    // A blocked signal is kept until it is taken, by signalfd(2) or sigwait(3).
    match has("SigCgt:") || has("SigBlk:") {
        true => StopPlan::Ask,
        false => StopPlan::KillAtOnce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(blocked: u64, caught: u64, signal: i32, plan: StopPlan) {
        let status = format!("Name:\tx\nSigBlk:\t{blocked:016x}\nSigIgn:\t0000000000001000\nSigCgt:\t{caught:016x}\n");
        assert_eq!(decide(&status, signal), plan, "{status}");
    }

    #[test]
    fn a_signal_is_of_use_where_it_is_caught_or_blocked() {
        check(0, 1 << 14, 15, StopPlan::Ask);
        check(1 << 14, 0, 15, StopPlan::Ask);
        check(0, 0, 15, StopPlan::KillAtOnce);
        check(1 << 1, 1 << 2, 15, StopPlan::KillAtOnce);
        check(0, 1 << 63, 64, StopPlan::Ask);
    }

    #[test]
    fn what_cannot_be_ignored_is_sent() {
        check(0, 0, 9, StopPlan::Ask);
    }

    #[test]
    fn what_is_not_told_is_tried() {
        assert_eq!(decide("Name:\tx\n", 15), StopPlan::Ask);
        assert_eq!(plan_stop(i32::MAX, 15), StopPlan::Ask);
    }
}
