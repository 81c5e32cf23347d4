//! Signals to a process that cannot be mistaken for another.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Sends `signal` (a number, so that real-time signals can be sent too) to the process that `pidfd` refers to:
/// pidfd_send_signal(2). `ESRCH`: it has ended.
pub fn signal_process(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    let (pidfd, no_info, no_flags) = (pidfd.as_fd(), std::ptr::null::<libc::siginfo_t>(), 0);
    // SAFETY: the descriptor is open for the call; no details are handed over, so there is no memory to read.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, no_flags) })
        .map(drop)
}
