//! Making a container's first process: clone, gate, set-up in the child, and what went wrong in words.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use crate::runtime::sys::{self, ArgumentArea, Cloned, Errno, NamespaceFlags, SignalSet};

use super::compile::Program;
use super::init;
use super::op::{SetupOp, Stopped};
use super::perform::Progress;
use super::protect;
use super::stdio::{Stdio, pipe};

/// How long a container may take from its gate to its program. Layers on slow disks are slow to mount.
pub const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Error)]
pub enum SpawnError {
    /// Inside a container the running binary must not be writable (CVE-2019-5736).
    #[error("the running executable could be overwritten from inside a container")]
    Unprotected,
    #[error("cannot look at the running executable")]
    Executable { source: Errno },
    #[error("cannot make a pipe")]
    Pipe { source: Errno },
    #[error("cannot make the namespaces of a container")]
    Clone { source: Errno },
    /// `step` is what was being done, with its paths.
    #[error("{step}")]
    SetUp { step: String, executing: bool, source: Errno },
    #[error("cannot hand the seccomp listener to `{}`", path.display())]
    Agent { path: std::path::PathBuf, source: Errno },
    #[error("the container's process ended with status {status} before its program was executed")]
    Died { status: i32 },
    #[error("the container's program was not executed within {} s", START_LIMIT.as_secs())]
    TooSlow,
}

impl SpawnError {
    /// As the field has it: 127 the program is not there, 126 it cannot be executed, 125 everything else.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::SetUp { executing: true, source: Errno::NOENT | Errno::NOTDIR, .. } => 127,
            Self::SetUp { executing: true, .. } => 126,
            _ => init::FAILURE,
        }
    }
}

/// A container's process, cloned and waiting: it has namespaces and nothing else. Dropped, it ends.
#[derive(Debug)]
pub struct Created<'a> {
    program: &'a Program,
    pid: i32,
    pidfd: Option<OwnedFd>,
    gate: Option<OwnedFd>,
    stopped: OwnedFd,
}

/// A running container. The process is the caller's child and has to be waited for, by `pidfd`.
#[derive(Debug)]
pub struct Spawned {
    /// As the caller numbers it; in the container it is 1, if it has a pid namespace.
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Clone the container's process. It waits at its gate until [`Created::start`].
///
/// The container lives as long as the calling *thread* (PR_SET_PDEATHSIG): call it from one that stays.
pub fn create<'a>(program: &'a Program, stdio: &Stdio<'_>) -> Result<Created<'a>, SpawnError> {
    if !protect::executable_is_protected().map_err(|source| SpawnError::Executable { source })? {
        return Err(SpawnError::Unprotected);
    }
    let (gate_read, gate) = pipe().map_err(|source| SpawnError::Pipe { source })?;
    let (stopped, stopped_write) = pipe().map_err(|source| SpawnError::Pipe { source })?;
    let arguments = arguments_area();
    match sys::clone_child(program.namespaces, None).map_err(|source| SpawnError::Clone { source })? {
        Cloned::Child => child(program, stdio, ChildEnds { gate: gate_read, stopped: stopped_write, arguments }),
        Cloned::Parent { pid, pidfd } => Ok(Created { program, pid, pidfd: Some(pidfd), gate: Some(gate), stopped }),
    }
}

/// [`create`] and [`Created::start`] in one.
pub fn spawn(program: &Program, stdio: &Stdio<'_>) -> Result<Spawned, SpawnError> {
    create(program, stdio)?.start()
}

impl Created<'_> {
    /// As the caller numbers it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Open the gate, and return once the program is executed.
    pub fn start(mut self) -> Result<Spawned, SpawnError> {
        if let Some(gate) = self.gate.take() {
            // If nobody reads, the process is dead, which the other pipe will say.
            let _ = rustix::io::write(&gate, b"g");
        }
        let outcome = wait_for_exec(self.stopped.as_fd());
        match outcome {
            // It may have executed its program, which has ended since: then this is no error.
            Ok(None) => {
                let pidfd = self.pidfd.take().ok_or(SpawnError::Died { status: init::FAILURE })?;
                Ok(Spawned { pid: self.pid, pidfd })
            }
            Ok(Some(stopped)) => Err(in_words(self.program, stopped)),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Created<'_> {
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        self.gate = None;
        kill_and_reap(pidfd.as_fd());
    }
}

/// How long a killed process may take to end. One in a frozen cgroup of version 1 does not, until it is thawed.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// End a child. If it does not end in time it stays, for the caller's own end to clean up.
pub(super) fn kill_and_reap(pidfd: BorrowedFd<'_>) {
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    if readable_within(pidfd, KILL_LIMIT) == Ok(true) {
        let _ = wait(pidfd);
    }
}

/// Wait until there is something to read, or the end.
pub(super) fn readable_within(descriptor: BorrowedFd<'_>, limit: Duration) -> Result<bool, Errno> {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&limit)) {
            Err(Errno::INTR) => {}
            result => return result.map(|ready| ready > 0),
        }
    }
}

/// Wait until the pipe is closed by exec (`None`) or tells where set-up stopped.
pub(super) fn wait_for_exec(stopped: BorrowedFd<'_>) -> Result<Option<Stopped>, SpawnError> {
    let mut bytes = [0_u8; Stopped::SIZE];
    loop {
        match readable_within(stopped, START_LIMIT) {
            Ok(true) => {}
            Ok(false) => return Err(SpawnError::TooSlow),
            Err(source) => return Err(SpawnError::Pipe { source }),
        }
        // Less than a page: written and read as a whole.
        match rustix::io::read(stopped, &mut bytes) {
            Ok(Stopped::SIZE) => return Ok(Some(Stopped::from_bytes(bytes))),
            Ok(_) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(source) => return Err(SpawnError::Pipe { source }),
        }
    }
}

fn in_words(program: &Program, stopped: Stopped) -> SpawnError {
    words_for(program.op(stopped.op), stopped)
}

pub(super) fn words_for(op: Option<&SetupOp>, stopped: Stopped) -> SpawnError {
    let step = op.map_or_else(|| "prepare the process".to_owned(), ToString::to_string);
    SpawnError::SetUp {
        step: format!("cannot {step}{}", stopped.fault.part.words()),
        executing: matches!(op, Some(SetupOp::Execute(_) | SetupOp::FindProgram { .. })),
        source: stopped.fault.errno,
    }
}

/// Messages number operations; this one stands for what comes before the first.
pub(super) const BEFORE_ALL: u16 = u16::MAX;

/// What the child gets of its parent.
struct ChildEnds {
    gate: OwnedFd,
    stopped: OwnedFd,
    arguments: Option<ArgumentArea>,
}

/// The same for the whole life of the process.
fn arguments_area() -> Option<ArgumentArea> {
    static AREA: OnceLock<Option<ArgumentArea>> = OnceLock::new();
    *AREA.get_or_init(|| ArgumentArea::from_stat(&std::fs::read_to_string("/proc/self/stat").ok()?))
}

/// The life of the child. System calls only: see `sys::clone_child`.
fn child(program: &Program, stdio: &Stdio<'_>, ends: ChildEnds) -> ! {
    let ChildEnds { gate, stopped, .. } = &ends;
    let prepared = || -> Result<(), Errno> {
        sys::block_signals(SignalSet::ALL)?;
        sys::default_dispositions()?;
        rustix::process::umask(rustix::fs::Mode::empty());
        stdio.put_in_place()?;
        // Whatever else the caller had open is nobody's business here, and a pipe of another container's that stays open in
        // this process would never come to its end.
        sys::close_all_but([0, 1, 2, gate.as_raw_fd(), stopped.as_raw_fd()])
    };
    if let Err(errno) = prepared() {
        give_up(stopped, Stopped { op: BEFORE_ALL, fault: errno.into() });
    }
    wait_at_gate(gate);
    let mut progress = Progress::default();
    if let Err(stop) = progress.perform(&program.setup, 0) {
        give_up(stopped, stop);
    }
    // PR_SET_PDEATHSIG tells of deaths from now on only.
    if parent_is_dead(stopped.as_fd()) {
        sys::exit_now(init::FAILURE);
    }
    if program.init.is_none() {
        become_payload(program, &mut progress, stopped)
    }
    match sys::clone_child(NamespaceFlags::default(), None) {
        Err(errno) => give_up(stopped, Stopped { op: BEFORE_ALL, fault: errno.into() }),
        Ok(Cloned::Child) => become_payload(program, &mut progress, stopped),
        Ok(Cloned::Parent { pid, .. }) => become_init(program, &mut progress, pid, ends),
    }
}

/// Nothing of the host stays open, and the filter comes last: it may forbid any of this.
fn become_init(program: &Program, progress: &mut Progress, payload: i32, ends: ChildEnds) -> ! {
    let ChildEnds { stopped, arguments, .. } = ends;
    if let Err(errno) = sys::close_all_but([stopped.as_raw_fd()]) {
        give_up(&stopped, Stopped { op: BEFORE_ALL, fault: errno.into() });
    }
    if let Some(area) = arguments {
        // They speak of the host.
        sys::replace_arguments(area, c"init");
    }
    let first = (program.setup.len() + program.payload.len()) as u16;
    if let Err(stop) = progress.perform(program.init.as_deref().unwrap_or_default(), first) {
        give_up(&stopped, stop);
    }
    drop(stopped);
    match program.init_memory {
        Some(own) => sys::start_over(Some(own), payload, init::serve),
        None => sys::exit_now(init::serve(payload)),
    }
}

fn become_payload(program: &Program, progress: &mut Progress, stopped: &OwnedFd) -> ! {
    // What set-up had open (the layers of the host among it) must not be there when the working directory is entered.
    let ready = sys::close_all_but([0, 1, 2, stopped.as_raw_fd()]).and_then(|()| sys::block_signals(SignalSet::EMPTY));
    let ready = ready.map_err(|errno| Stopped { op: BEFORE_ALL, fault: errno.into() });
    let result = ready.and_then(|_| progress.perform(&program.payload, program.setup.len() as u16));
    give_up(stopped, result.err().unwrap_or(Stopped { op: BEFORE_ALL, fault: Errno::INVAL.into() }))
}

/// One byte opens the gate; its end, when the parent died or changed its mind, closes it for good.
fn wait_at_gate(gate: &OwnedFd) {
    let mut byte = [0_u8; 1];
    loop {
        match rustix::io::read(gate, &mut byte) {
            Ok(1) => return,
            Err(Errno::INTR) => {}
            _ => sys::exit_now(init::FAILURE),
        }
    }
}

pub(super) fn give_up(stopped: &OwnedFd, stop: Stopped) -> ! {
    let _ = rustix::io::write(stopped, &stop.to_bytes());
    sys::exit_now(init::FAILURE)
}

/// Whether nobody holds the reading end any more.
pub(super) fn parent_is_dead(stopped: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut watched = [PollFd::from_borrowed_fd(stopped, PollFlags::empty())];
    poll(&mut watched, Some(&now)).is_ok() && watched.iter().any(|end| end.revents().contains(PollFlags::ERR))
}

/// Wait until a process of a container ends, and take it: its exit status, or 128 and the number of the signal that killed it.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<i32, Errno> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let killed = status.terminating_signal().map(|signal| 128 + signal);
                return Ok(status.exit_status().or(killed).unwrap_or(init::FAILURE));
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
