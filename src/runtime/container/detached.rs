//! Containers that outlive their maker (runtime-spec "create" and "start"): made by one process, started by another.
//!
//! ```text
//! maker: clone ─ id mappings ─ "go" ──────────── hooks ─ "go" ─────────────── terminal ─ "go", ends
//! child:             └ waits ─ set-up ─ "hooks" ─────└ hooks of its own, new root ─ "ready" ──└ accepts on a socket …
//! starter:                                                                   connects ─ … executes ─ end of file
//! ```
//!
//! Errors come back on the channel that is open at the time, as the number of the operation. The socket is the container's
//! start: it exists below the state directory as long as the container is created and not started.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use crate::runtime::sys::{self, Cloned, Errno, SignalSet};

use super::compile::Program;
use super::console;
use super::hook::HookProgram;
use super::idmap::{self, Prepared};
use super::init::FAILURE;
use super::joined::{clone_in_user_namespace, enter_for_children, open_joined};
use super::labels::SecurityModules;
use super::notify::{Filtered, SeccompAgent, serve_listener};
use super::op::{IdMappedBind, Stopped};
use super::perform::Progress;
use super::spawn::{BEFORE_ALL, START_LIMIT, SpawnError, kill_and_reap, readable_within, words_for};
use super::stdio::Stdio;
use super::{protect, spawn};

/// What a container that outlives its maker has beside its configuration.
#[derive(Debug, Default)]
pub struct Detachment {
    /// Run in the container's namespaces before the root changes.
    pub create_container: Vec<HookProgram>,
    /// Run in the container right before its program.
    pub start_container: Vec<HookProgram>,
    pub keyring: Keyring,
    pub root_change: RootChange,
    /// How many descriptors from 3 on the program gets.
    pub preserved: u32,
    pub security: SecurityModules,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keyring {
    /// A session keyring of its own.
    #[default]
    New,
    /// The caller's.
    Inherited,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootChange {
    #[default]
    Pivot,
    /// For hosts whose root is a ramfs, which cannot be pivoted: the new root is mounted over it, then chroot(2).
    Chroot,
}

/// A namespace to join.
#[derive(Debug)]
pub struct MakerNamespace {
    pub path: PathBuf,
    /// The maker's own of the kind.
    pub own: PathBuf,
    /// `CLONE_NEW*`.
    pub kind: u64,
}

/// What of the namespaces is the maker's business: some take effect for children only, and in a user namespace the process has no
/// right to the others.
#[derive(Debug, Default)]
pub struct MakerNamespaces {
    /// Those that are joined, but for the ones that the process joins itself.
    pub joined: Vec<MakerNamespace>,
    /// A user namespace to join; what is new belongs to it.
    pub user: Option<PathBuf>,
    /// A new time namespace with these lines for `timens_offsets`.
    pub new_time: Option<String>,
    /// Made here, attached there: the right to map ids is the host's.
    pub id_mapped: Vec<IdMappedBind>,
}

/// What the maker and the container's process have in common.
#[derive(Clone, Copy, Debug)]
pub struct Connections<'a> {
    pub stdio: Stdio<'a>,
    /// Listens for the start: SOCK_SEQPACKET.
    pub listener: BorrowedFd<'a>,
}

/// A container's process during its making. Dropped, it ends.
#[derive(Debug)]
pub struct Making<'a> {
    program: &'a Program,
    pid: i32,
    pidfd: Option<OwnedFd>,
    channel: OwnedFd,
}

const GO: &[u8] = b"g";
const AT_HOOKS: u8 = b'h';
const READY: u8 = b'r';

/// Clone the container's process; it waits at its gate.
pub fn make<'a>(program: &'a Program, connections: Connections<'_>) -> Result<Making<'a>, SpawnError> {
    if !protect::executable_is_protected().map_err(|source| SpawnError::Executable { source })? {
        return Err(SpawnError::Unprotected);
    }
    let prepared = idmap::prepare(&program.maker.id_mapped)?;
    let pipe = |source| SpawnError::Pipe { source };
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(pipe)?;
    let namespaces = || -> Result<Cloned, SpawnError> {
        let joined = open_joined(&program.maker)?;
        let (now, later) = if program.maker.user.is_some() { (Vec::new(), joined) } else { (joined, Vec::new()) };
        let home = enter_for_children(&program.maker, now)?;
        let cloned = match &program.maker.user {
            Some(path) => clone_in_user_namespace(path, &later, program.namespaces),
            None => sys::clone_child(program.namespaces, None).map_err(|source| SpawnError::Clone { source }),
        };
        if matches!(cloned, Ok(Cloned::Child)) {
            // Only the maker goes back.
            std::mem::forget(home);
        }
        cloned
    };
    match namespaces()? {
        Cloned::Child => child(program, connections, theirs, prepared),
        Cloned::Parent { pid, pidfd } => Ok(Making { program, pid, pidfd: Some(pidfd), channel: ours }),
    }
}

impl Making<'_> {
    /// As the caller numbers it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Open the gate, and return when the root is complete: the time for the hooks of the runtime.
    pub fn set_up(&mut self) -> Result<(), SpawnError> {
        self.go();
        self.expect(AT_HOOKS)
    }

    /// Let it go on, and return when it is ready to be started.
    pub fn finish_root(&mut self) -> Result<(), SpawnError> {
        self.go();
        self.expect(READY)
    }

    /// Let it wait for its start, with `terminal` as its standard input, output and error. From here on it lives by itself.
    pub fn release(mut self, terminal: Option<BorrowedFd<'_>>) -> Result<i32, SpawnError> {
        match terminal {
            Some(peer) => {
                console::send_descriptors(self.channel.as_fd(), GO, &[peer])
                    .map_err(|source| SpawnError::Pipe { source })?;
                self.expect(READY)?;
            }
            None => self.go(),
        }
        self.pidfd = None;
        Ok(self.pid)
    }

    fn go(&self) {
        // If nobody reads, the process is dead, which the next message will say.
        let _ = send(&self.channel, GO, SendFlags::NOSIGNAL);
    }

    fn expect(&self, message: u8) -> Result<(), SpawnError> {
        match readable_within(self.channel.as_fd(), START_LIMIT) {
            Ok(true) => {}
            Ok(false) => return Err(SpawnError::TooSlow),
            Err(source) => return Err(SpawnError::Pipe { source }),
        }
        let mut bytes = [0_u8; Stopped::SIZE];
        let length = loop {
            match recv(&self.channel, &mut bytes[..], RecvFlags::empty()) {
                Ok((_, length)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => break 0,
                Err(source) => return Err(SpawnError::Pipe { source }),
            }
        };
        match length {
            1 if bytes[0] == message => Ok(()),
            Stopped::SIZE => {
                let stopped = Stopped::from_bytes(bytes);
                Err(words_for(self.program.op(stopped.op), stopped))
            }
            _ => {
                let status = self.pidfd.as_ref().and_then(|pidfd| spawn::wait(pidfd.as_fd()).ok());
                Err(SpawnError::Died { status: status.unwrap_or(FAILURE) })
            }
        }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            kill_and_reap(pidfd.as_fd());
        }
    }
}

/// What the process that starts a container is told: `None` that the program is executed.
pub fn start_outcome(connection: BorrowedFd<'_>, steps: &[String], setup: u16) -> Result<(), SpawnError> {
    outcome(spawn::wait_for_exec(connection)?, steps, setup)
}

/// The same where the container's filter notifies `agent`; `process` is the container's.
pub fn start_notifying(
    connection: BorrowedFd<'_>,
    steps: &[String],
    setup: u16,
    (pid, agent): (i32, &SeccompAgent),
) -> Result<(), SpawnError> {
    let pipe = |source| SpawnError::Pipe { source };
    let number = rustix::process::Pid::from_raw(pid).ok_or(Errno::SRCH).map_err(pipe)?;
    let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()).map_err(pipe)?;
    let process = Filtered { pid, pidfd: pidfd.as_fd(), channel: connection };
    match serve_listener(&process, agent)? {
        None => start_outcome(connection, steps, setup),
        stopped => outcome(stopped, steps, setup),
    }
}

fn outcome(stopped: Option<Stopped>, steps: &[String], setup: u16) -> Result<(), SpawnError> {
    match stopped {
        None => Ok(()),
        Some(stopped) => {
            let step = stopped.op.checked_sub(setup).and_then(|index| steps.get(usize::from(index)));
            Err(SpawnError::SetUp {
                step: format!(
                    "cannot {}{}",
                    step.map_or("prepare the process", String::as_str),
                    stopped.fault.part.words()
                ),
                // The program's execution is the last step.
                executing: step.is_some() && step == steps.last(),
                source: stopped.fault.errno,
            })
        }
    }
}

/// The life of the child. System calls only: see `sys::clone_child`.
fn child(program: &Program, connections: Connections<'_>, channel: OwnedFd, prepared: Prepared) -> ! {
    let first_free = 3 + program.preserved;
    let in_place = || -> Result<(OwnedFd, OwnedFd), Errno> {
        sys::block_signals(SignalSet::ALL)?;
        sys::default_dispositions()?;
        rustix::process::umask(rustix::fs::Mode::empty());
        connections.stdio.put_in_place()?;
        let channel = fcntl_dupfd_cloexec(&channel, first_free as i32)?;
        let listener = fcntl_dupfd_cloexec(connections.listener, first_free as i32)?;
        let mut keep = prepared.numbers_beside(channel.as_raw_fd());
        keep[0] = listener.as_raw_fd();
        sys::close_from_but(first_free, keep)?;
        Ok((channel, listener))
    };
    let (channel, listener) = match in_place() {
        Ok(ready) => ready,
        Err(errno) => stop(&channel, Stopped { op: BEFORE_ALL, fault: errno.into() }),
    };
    let mut progress = Progress::default();
    progress.prepared = prepared;
    let (before, after) = program.setup.split_at(program.hook_point.min(program.setup.len()));
    wait_for_go(&channel);
    let result = progress.perform(before, 0).and_then(|()| {
        say(&channel, AT_HOOKS);
        wait_for_go(&channel);
        progress.perform(after, before.len() as u16)
    });
    if let Err(stopped) = result {
        stop(&channel, stopped);
    }
    say(&channel, READY);
    match console::receive_terminal(channel.as_fd()) {
        Ok(None) => {}
        Ok(Some(peer)) => match console::take(peer.as_fd()) {
            Ok(()) => say(&channel, READY),
            Err(errno) => stop(&channel, Stopped { op: BEFORE_ALL, fault: errno.into() }),
        },
        Err(_) => sys::exit_now(FAILURE),
    }
    drop(channel);
    let connection = wait_for_start(&listener);
    // What set-up had open must not be there when the working directory is entered.
    let ready = sys::close_from_but(first_free, [connection.as_raw_fd()])
        .and_then(|()| sys::block_signals(SignalSet::EMPTY))
        .map_err(|errno| Stopped { op: BEFORE_ALL, fault: errno.into() });
    progress.runtime = program.notifies().then(|| fcntl_dupfd_cloexec(&connection, first_free as i32).ok()).flatten();
    let result = ready.and_then(|_| progress.perform(&program.payload, program.setup.len() as u16));
    stop(&connection, result.err().unwrap_or(Stopped { op: BEFORE_ALL, fault: Errno::INVAL.into() }))
}

fn say(channel: &OwnedFd, message: u8) {
    let _ = send(channel, &[message], SendFlags::NOSIGNAL);
}

fn stop(channel: &OwnedFd, stopped: Stopped) -> ! {
    let _ = send(channel, &stopped.to_bytes(), SendFlags::NOSIGNAL);
    sys::exit_now(FAILURE)
}

/// The end of the maker before its word is the end of the container.
fn wait_for_go(channel: &OwnedFd) {
    let mut byte = [0_u8; 1];
    loop {
        match recv(channel, &mut byte[..], RecvFlags::empty()) {
            Ok((_, 1)) => return,
            Err(Errno::INTR) => {}
            _ => sys::exit_now(FAILURE),
        }
    }
}

/// Until somebody connects, or a signal comes that would end a program: the first process of a pid namespace gets none of
/// those by itself, and a created container must be one that can be killed.
fn wait_for_start(listener: &OwnedFd) -> OwnedFd {
    const HARMLESS: [i32; 7] =
        [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    let ends = HARMLESS.iter().fold(SignalSet::ALL, |set, signal| set.without(*signal));
    let Ok(signals) = sys::signal_descriptor(ends) else { sys::exit_now(FAILURE) };
    loop {
        let mut watched = [PollFd::new(listener, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut watched, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => sys::exit_now(FAILURE),
        }
        let [wanted, signalled] = watched.map(|end| !end.revents().is_empty());
        if signalled {
            // `struct signalfd_siginfo` begins with the number.
            let mut information = [0_u8; 128];
            if rustix::io::read(&signals, &mut information[..]).is_ok() {
                sys::exit_now(128 + i32::from(information[0]));
            }
        }
        if wanted && let Ok(connection) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            return connection;
        }
    }
}
