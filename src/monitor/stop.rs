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

/// System calls that take a signal without a handler, rt_sigtimedwait(2): ours, and those of 32-bit programs. While one
/// waits, the kernel shows the signals that it waits for as not blocked.
const WAITS_FOR_SIGNALS: [i64; 3] = [libc::SYS_rt_sigtimedwait, 177, 421];

/// How to stop a program that is a container's PID 1 and `pid` here.
///
/// The kernel decides by the main thread alone whether PID 1 gets a signal, so that thread is all that is looked at.
pub(super) fn plan_stop(pid: i32, signal: i32) -> StopPlan {
    // Files of some kilobytes at most, made by the kernel. Where they cannot be read, the process is most likely gone.
    let waits = || fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|call| waits_for_signals(&call));
    if waits() {
        return StopPlan::Ask;
    }
    match fs::read_to_string(format!("/proc/{pid}/status")) {
        // A wait that began in between shows as a signal that is not blocked.
        Ok(status) if decide(&status, signal) == StopPlan::KillAtOnce && !waits() => StopPlan::KillAtOnce,
        _ => StopPlan::Ask,
    }
}

/// Reads `/proc/<pid>/syscall`: the number of the call that the thread waits in, or `running`.
fn waits_for_signals(call: &str) -> bool {
    let number = call.split_ascii_whitespace().next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| WAITS_FOR_SIGNALS.contains(&number))
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
    // A blocked signal is kept until it is taken, such as by signalfd(2).
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
    fn a_process_that_waits_for_signals_gets_them() {
        let call = format!("{} 0x7ffd 0x0 0x0 0x8 0x0 0x0 0x7ffd 0x7f3a", libc::SYS_rt_sigtimedwait);
        assert!(waits_for_signals(&call));
        assert!(!waits_for_signals("running") && !waits_for_signals("-1 0x7ffd 0x7f3a") && !waits_for_signals(""));
    }

    #[test]
    fn what_is_not_told_is_tried() {
        assert_eq!(decide("Name:\tx\n", 15), StopPlan::Ask);
        assert_eq!(plan_stop(i32::MAX, 15), StopPlan::Ask);
    }
}
