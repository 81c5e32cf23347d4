//! What `run` and `exec` do while their program runs in front: its terminal is shown at the caller's, signals are handed on.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cli::terminal::{Attended, attend, keep_size};
use crate::runtime::container::{receive_terminal, serve_process, wait};
use crate::runtime::lifecycle::{ConsoleSocket, check_preserved};
use crate::runtime::sys::{Errno, SignalSet, block_signals};

use super::Failure;
use super::flags::Given;

/// The caller as the one who gets the terminal, if there is one.
pub struct Foreground {
    receiver: Option<OwnedFd>,
}

impl Foreground {
    /// Signals wait from here on until the program is there to get them. With `--console-socket` the terminal is another's.
    pub fn prepare(given: &Given) -> Result<(Self, Option<ConsoleSocket>), Failure> {
        block_signals(SignalSet::ALL).map_err(failed("block signals"))?;
        if let Some(path) = given.path("console-socket") {
            return Ok((Self { receiver: None }, Some(ConsoleSocket::At(path))));
        }
        // Before descriptors of ours take their numbers.
        check_preserved(given.number("preserve-fds")?.unwrap_or(0))?;
        let (receiver, sender) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed("make a socket"))?;
        Ok((Self { receiver: Some(receiver) }, Some(ConsoleSocket::Connected(sender))))
    }

    /// The terminal that was sent, as large as the caller's; the sender must be gone.
    pub fn terminal(&self) -> Option<OwnedFd> {
        let receiver = self.receiver.as_ref()?;
        let terminal = receive_terminal(receiver.as_fd()).ok().flatten()?;
        keep_size(terminal.as_fd());
        Some(terminal)
    }
}

/// Until the process, which is a child, ends: its exit status, or 128 and the number of the signal that killed it.
pub fn stay(pid: i32, terminal: Option<OwnedFd>) -> Result<u8, Failure> {
    let Some(terminal) = terminal else { return Ok(serve_process(pid) as u8) };
    let no_process = failed("watch the process");
    let pidfd = Pid::from_raw(pid).ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let pidfd = pidfd.map_err(no_process)?;
    attend(Attended { terminal: terminal.as_fd(), pid, pidfd: pidfd.as_fd() }).map_err(failed("hand signals on"))?;
    Ok(wait(pidfd.as_fd()).map_err(failed("wait for the process"))? as u8)
}

fn failed(what: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure::usage(format!("cannot {what}: {errno}"))
}
