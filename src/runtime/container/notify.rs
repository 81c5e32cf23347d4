//! Seccomp's notifications: the listener of a filter, on its way from the process that the filter holds to the agent that answers
//! (runtime-spec config-linux.md, "The seccomp listener").
//!
//! ```text
//! process: "listener, number N" ─ installs the filter ─ waits ─────────────────── goes on
//! runtime:                          └ takes N (pidfd_getfd) ─ sends it to the agent ─┘
//! ```
//!
//! The filter may notify any system call, also those by which a process could hand something over. So the number is told before,
//! when it is known but not in use yet, and the runtime takes the descriptor by itself: the agent has it before the process waits.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::runtime::oci::OciContainerProcessState;
use crate::runtime::sys::{self, Errno};

use super::console::send_descriptors;
use super::op::{Fault, Part, SeccompProgram, Stopped};
use super::rootfs::InPart;
use super::spawn::{START_LIMIT, SpawnError, readable_within};

/// A message that is none of [`Stopped`]'s size: this, and a number.
const LISTENER: u8 = b'l';
const MESSAGE: usize = 5;
/// Between two looks for a descriptor that is about to be there.
const PAUSE: Duration = Duration::from_micros(200);

/// Who decides about the calls of a process, connected.
#[derive(Debug)]
pub struct SeccompAgent {
    socket: UnixStream,
    path: PathBuf,
    /// Without the number of the process, which is filled in.
    state: OciContainerProcessState,
}

impl SeccompAgent {
    pub fn connect(path: &Path, state: OciContainerProcessState) -> io::Result<Self> {
        Ok(Self { socket: UnixStream::connect(path)?, path: path.to_owned(), state })
    }

    fn hand_over(&self, listener: BorrowedFd<'_>, pid: i32) -> Result<(), SpawnError> {
        let state = OciContainerProcessState { pid, ..self.state.clone() };
        let text = serde_json::to_vec(&state).unwrap_or_default();
        send_descriptors(self.socket.as_fd(), &text, &[listener])
            .and_then(|()| rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write))
            .map_err(|source| SpawnError::Agent { path: self.path.clone(), source })
    }
}

/// The process whose filter is on its way.
pub(super) struct Filtered<'a> {
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
    pub channel: BorrowedFd<'a>,
}

/// Wait until the process installs its filter, and give the listener to the agent. `Some`: it stopped before.
pub(super) fn serve_listener(process: &Filtered<'_>, agent: &SeccompAgent) -> Result<Option<Stopped>, SpawnError> {
    let broken = |source| SpawnError::Pipe { source };
    if !readable_within(process.channel, START_LIMIT).map_err(broken)? {
        return Err(SpawnError::TooSlow);
    }
    let mut bytes = [0_u8; Stopped::SIZE];
    let number = match rustix::io::read(process.channel, &mut bytes).map_err(broken)? {
        Stopped::SIZE => return Ok(Some(Stopped::from_bytes(bytes))),
        MESSAGE if bytes[0] == LISTENER => i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]),
        _ => return Err(broken(Errno::PROTO)),
    };
    let Some(listener) = take_listener(process, number).map_err(broken)? else {
        // Its message says why.
        return Ok(None);
    };
    agent.hand_over(listener.as_fd(), process.pid)?;
    // If nobody reads, the process is dead, which the next message will say.
    let _ = rustix::net::send(process.channel, b"g", rustix::net::SendFlags::NOSIGNAL);
    Ok(None)
}

/// `None`: the process has something to say instead.
fn take_listener(process: &Filtered<'_>, number: i32) -> Result<Option<OwnedFd>, Errno> {
    for _ in 0..START_LIMIT.as_micros() / PAUSE.as_micros() {
        match pidfd_getfd(process.pidfd, number, PidfdGetfdFlags::empty()) {
            Err(Errno::BADF) => {}
            result => return result.map(Some),
        }
        if readable_within(process.channel, PAUSE)? {
            return Ok(None);
        }
    }
    Err(Errno::TIMEDOUT)
}

/// In the process: install the filter, and go on once the agent has its listener. No allocation.
pub(super) fn install_notifying(program: &SeccompProgram, channel: BorrowedFd<'_>) -> Result<(), Fault> {
    // The kernel takes the lowest number that is free, and nobody else opens anything here.
    let number = fcntl_dupfd_cloexec(channel, 0)?.as_raw_fd();
    let [a, b, c, d] = number.to_le_bytes();
    rustix::net::send(channel, &[LISTENER, a, b, c, d], rustix::net::SendFlags::NOSIGNAL)?;
    let listener = sys::seccomp_install_notifying(&program.filter, program.flags)?;
    // Closed by exec, without a call that the filter would see.
    let _ = listener.into_raw_fd();
    let mut byte = [0_u8; 1];
    loop {
        match rustix::io::read(channel, &mut byte) {
            Ok(1) => return Ok(()),
            Err(Errno::INTR) => {}
            Ok(_) => return Err(Errno::CONNRESET).in_part(Part::Attach),
            Err(errno) => return Err(errno).in_part(Part::Attach),
        }
    }
}
