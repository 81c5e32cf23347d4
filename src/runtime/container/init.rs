//! PID 1 of a container: reaps what ends, forwards what it is told, and ends as the payload ends.
//!
//! It is the process that was cloned for the container, which forked the payload instead of becoming it. It executes nothing,
//! allocates nothing, and holds no descriptor: nothing of the host can be reached through it. The kernel kills everything in
//! the pid namespace when it ends.

use crate::runtime::sys::{self, Errno, SignalSet};

/// What the parent sees where the container failed for reasons of the runtime.
pub const FAILURE: i32 = 125;

/// Signals that tell of a fault of PID 1 itself, or of its children.
const NOT_FORWARDED: [i32; 9] = [
    libc::SIGCHLD,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Serve until `payload` ends; the status of it, or 128 and the number of the signal that killed it. All signals are blocked
/// already: one that came before this began is still pending.
pub fn serve(payload: i32) -> i32 {
    let waited_for = NOT_FORWARDED.iter().skip(1).fold(SignalSet::ALL, |set, signal| set.without(*signal));
    loop {
        match sys::wait_for_signal(waited_for) {
            Ok(libc::SIGCHLD) => {
                if let Some(status) = reap(payload) {
                    return status;
                }
            }
            // It may have ended just now; then SIGCHLD comes next.
            Ok(signal) => drop(sys::send_signal(payload, signal)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A filter that forbids waiting: without it there is no init, and no loop that burns the processor.
            Err(_) => return FAILURE,
        }
    }
}

/// Take all that has ended: one SIGCHLD may stand for many. The payload's status if it was among them.
fn reap(payload: i32) -> Option<i32> {
    loop {
        match sys::reap_any() {
            Ok(Some(child)) if child.pid == payload => return Some(child.status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return None,
            Err(_) => return Some(FAILURE),
        }
    }
}
