//! Further processes in a running container.
//!
//! ```text
//! caller ─clone→ helper: joins the cgroups and namespaces, gives up everything ─clone(CLONE_PARENT)→ process: execs
//! ```
//!
//! The pid namespace takes effect for children only, hence two steps; the second process is the caller's own child. All
//! privileges go in the first, which nothing in the container can see: it is not in the container's pid namespace.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use thiserror::Error;

use crate::runtime::sys::{self, Cloned, Errno, NamespaceFlags, SignalSet};

use super::compile::{CompileError, c_path};
use super::compile_process::{ProcessSettings, execution, restrictions};
use super::init::FAILURE;
use super::notify::{Filtered, SeccompAgent, serve_listener};
use super::op::{SetupOp, Stopped};
use super::perform::Progress;
use super::protect;
use super::spawn::{
    BEFORE_ALL, START_LIMIT, SpawnError, give_up, kill_and_reap, readable_within, wait, wait_for_exec, words_for,
};
use super::stdio::{Stdio, pipe, socket_pair};
use super::terminal::{Terminal, TerminalError, TerminalSize};

/// What to run and where.
#[derive(Clone, Debug)]
pub struct ExecSpec {
    /// The container's first process, as the caller numbers it.
    pub init: i32,
    pub process: ProcessSettings,
    /// `cgroup.procs` of every hierarchy that the container is in.
    pub cgroup_procs: Vec<PathBuf>,
    /// A new terminal of this size takes the place of standard input, output and error.
    pub terminal: Option<TerminalSize>,
}

/// A compiled [`ExecSpec`], to be run any number of times (a health probe).
#[derive(Debug)]
pub struct ExecProgram {
    init: i32,
    /// Whom a terminal belongs to, as the host numbers users.
    pub(super) uid: u32,
    terminal: Option<TerminalSize>,
    /// `CLONE_NEW*`: those to join.
    pub(super) namespaces: u64,
    /// Descriptors from 3 on that the program gets.
    pub(super) preserved: u32,
    pub(super) join: Vec<SetupOp>,
    pub(super) restrict: Vec<SetupOp>,
    pub(super) become_it: Vec<SetupOp>,
}

/// The namespaces that every container of ours may have of its own.
const NAMESPACES: u64 = NamespaceFlags::MOUNT
    | NamespaceFlags::PID
    | NamespaceFlags::NETWORK
    | NamespaceFlags::IPC
    | NamespaceFlags::UTS
    | NamespaceFlags::CGROUP;

/// The process is the caller's child and has to be waited for, by `pidfd`.
#[derive(Debug)]
pub struct Executed {
    /// As the caller numbers it.
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// The caller's end of the terminal that was asked for.
    pub terminal: Option<OwnedFd>,
}

#[derive(Debug, Error)]
pub enum ExecError {
    #[error("the container is not running: process {pid}")]
    NotRunning { pid: i32, source: Errno },
    #[error("cannot make a terminal in the container")]
    Terminal { source: TerminalError },
    #[error("cannot make a process in the container")]
    Start { source: SpawnError },
}

impl ExecError {
    /// As the field has it: 127 the program is not there, 126 it cannot be executed, 125 everything else.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Start { source } => source.exit_code(),
            _ => FAILURE,
        }
    }
}

impl ExecProgram {
    pub fn compile(spec: &ExecSpec) -> Result<Self, CompileError> {
        let mut join = vec![SetupOp::NotDumpable, SetupOp::NewKeyring];
        for procs in &spec.cgroup_procs {
            join.push(SetupOp::JoinCgroup { procs: c_path("cgroup", procs)? });
        }
        let mut become_it = vec![SetupOp::NewSession];
        if spec.terminal.is_some() {
            become_it.push(SetupOp::TakeTerminal);
        }
        become_it.extend(execution(&spec.process)?);
        Ok(Self {
            init: spec.init,
            uid: spec.process.user.uid,
            terminal: spec.terminal,
            namespaces: NAMESPACES,
            preserved: 0,
            join,
            restrict: restrictions(&spec.process)?,
            become_it,
        })
    }

    fn op(&self, number: u16) -> Option<&SetupOp> {
        self.join.iter().chain(&self.restrict).chain(&self.become_it).nth(number.into())
    }
}

/// Run a process in a container, and return once its program is executed.
pub fn exec(program: &ExecProgram, stdio: &Stdio<'_>) -> Result<Executed, ExecError> {
    exec_notifying(program, stdio, None)
}

/// The same where the filter notifies an agent.
pub fn exec_notifying(
    program: &ExecProgram,
    stdio: &Stdio<'_>,
    agent: Option<&SeccompAgent>,
) -> Result<Executed, ExecError> {
    let not_running = |source| ExecError::NotRunning { pid: program.init, source };
    let failed = |source| ExecError::Start { source };
    if !protect::executable_is_protected().map_err(|source| failed(SpawnError::Executable { source }))? {
        return Err(failed(SpawnError::Unprotected));
    }
    let init = Pid::from_raw(program.init).ok_or(Errno::SRCH).map_err(not_running)?;
    let container = pidfd_open(init, PidfdFlags::empty()).map_err(not_running)?;
    let terminal = match program.terminal {
        Some(size) => {
            let root = root_of(program.init, container.as_fd()).map_err(not_running)?;
            let terminal = Terminal::open(root.as_fd(), size, program.uid);
            Some(terminal.map_err(|source| ExecError::Terminal { source })?)
        }
        None => None,
    };
    let at_terminal = terminal.as_ref().map(|terminal| {
        let peer = terminal.peer.as_fd();
        Stdio { stdin: peer, stdout: peer, stderr: peer }
    });
    let stdio = at_terminal.as_ref().unwrap_or(stdio);
    let (pid, pidfd) = start(program, container.as_fd(), stdio, agent).map_err(failed)?;
    Ok(Executed { pid, pidfd, terminal: terminal.map(|terminal| terminal.master) })
}

/// The root directory of a process, which still lives: so the number was not somebody else's by then.
fn root_of(pid: i32, pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(format!("/proc/{pid}/root"), flags, Mode::empty())?;
    still_alive(pidfd)?;
    Ok(root)
}

/// Fails with ESRCH if the process is dead. A dead one that nobody waited for yet can still be sent signals: so wait, for nothing.
fn still_alive(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&now))?;
    if ended == 0 { Ok(()) } else { Err(Errno::SRCH) }
}

fn start(
    program: &ExecProgram,
    container: BorrowedFd<'_>,
    stdio: &Stdio<'_>,
    agent: Option<&SeccompAgent>,
) -> Result<(i32, OwnedFd), SpawnError> {
    let (number, number_write) = pipe().map_err(|source| SpawnError::Pipe { source })?;
    let channel = if agent.is_some() { socket_pair() } else { pipe() };
    let (stopped, stopped_write) = channel.map_err(|source| SpawnError::Pipe { source })?;
    let cloned = sys::clone_child(NamespaceFlags::default(), None).map_err(|source| SpawnError::Clone { source })?;
    let Cloned::Parent { pid: helper_pid, pidfd: helper } = cloned else {
        helper_process(program, container, stdio, Pipes { number: number_write, stopped: stopped_write })
    };
    drop(number_write);
    drop(stopped_write);
    if let Some(agent) = agent.filter(|_| notifies(&program.restrict)) {
        let process = Filtered { pid: helper_pid, pidfd: helper.as_fd(), channel: stopped.as_fd() };
        if let Some(stop) = serve_or_kill(&process, agent)? {
            let _ = wait(helper.as_fd());
            return Err(words_for(program.op(stop.op), stop));
        }
    }
    let told = match readable_within(number.as_fd(), START_LIMIT) {
        Ok(true) => read_number(number.as_fd()),
        Ok(false) => {
            kill_and_reap(helper.as_fd());
            return Err(SpawnError::TooSlow);
        }
        Err(source) => return Err(SpawnError::Pipe { source }),
    };
    // It ends right after it told, or instead.
    let helper_status = wait(helper.as_fd()).unwrap_or(FAILURE);
    let Some(pid) = told else {
        return match wait_for_exec(stopped.as_fd())? {
            Some(stop) => Err(words_for(program.op(stop.op), stop)),
            None => Err(SpawnError::Died { status: helper_status }),
        };
    };
    let pidfd = descriptor_of(pid);
    let stop = match (agent.filter(|_| notifies(&program.become_it)), &pidfd) {
        (Some(agent), Ok(pidfd)) => {
            serve_or_kill(&Filtered { pid, pidfd: pidfd.as_fd(), channel: stopped.as_fd() }, agent)?
        }
        _ => None,
    };
    let outcome = stop.map_or_else(|| wait_for_exec(stopped.as_fd()), |stop| Ok(Some(stop)));
    match (outcome, pidfd) {
        (Ok(None), Ok(pidfd)) => Ok((pid, pidfd)),
        (outcome, pidfd) => {
            // Ours and not waited for by anybody else, so the number is still its own.
            let _ = sys::send_signal(pid, libc::SIGKILL);
            let _ = sys::reap_child(pid);
            match outcome? {
                Some(stop) => Err(words_for(program.op(stop.op), stop)),
                None => Err(SpawnError::Clone { source: pidfd.err().unwrap_or(Errno::SRCH) }),
            }
        }
    }
}

fn notifies(ops: &[SetupOp]) -> bool {
    ops.iter().any(|op| matches!(op, SetupOp::InstallSeccomp(program) if program.notifies()))
}

/// Without its agent a process must not go on.
fn serve_or_kill(process: &Filtered<'_>, agent: &SeccompAgent) -> Result<Option<Stopped>, SpawnError> {
    serve_listener(process, agent).inspect_err(|_| kill_and_reap(process.pidfd))
}

/// `None`: the helper stopped before it had one to tell.
fn read_number(number: BorrowedFd<'_>) -> Option<i32> {
    let mut bytes = [0_u8; 4];
    loop {
        match rustix::io::read(number, &mut bytes) {
            Err(Errno::INTR) => {}
            Ok(4) => return Some(i32::from_le_bytes(bytes)),
            _ => return None,
        }
    }
}

fn descriptor_of(pid: i32) -> Result<OwnedFd, Errno> {
    pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())
}

struct Pipes {
    /// For the number of the second process.
    number: OwnedFd,
    stopped: OwnedFd,
}

/// System calls only from here on: see `sys::clone_child`.
fn helper_process(program: &ExecProgram, container: BorrowedFd<'_>, stdio: &Stdio<'_>, pipes: Pipes) -> ! {
    let mut progress = Progress::default();
    // Out of the way first: the descriptors of the caller may be any, and all the others are closed.
    let ready = stdio.put_in_place().and_then(|()| {
        // What is preserved was open before these three, so theirs are larger numbers.
        let kept = [container.as_raw_fd(), pipes.number.as_raw_fd(), pipes.stopped.as_raw_fd()];
        sys::close_from_but(3 + program.preserved, kept)
    });
    if let Err(errno) = ready {
        give_up(&pipes.stopped, Stopped { op: BEFORE_ALL, fault: errno.into() });
    }
    if notifies(&program.restrict) || notifies(&program.become_it) {
        progress.runtime = pipes.stopped.try_clone().ok();
    }
    let stop = match restrict(program, &mut progress, container) {
        Ok(()) => match sys::clone_sibling() {
            Ok(0) => {
                drop(pipes.number);
                let first = (program.join.len() + program.restrict.len()) as u16;
                progress.perform(&program.become_it, first).err()
            }
            Ok(pid) => {
                let sent = rustix::io::write(&pipes.number, &pid.to_le_bytes());
                sys::exit_now(if sent == Ok(4) { 0 } else { FAILURE });
            }
            Err(errno) => Some(Stopped { op: BEFORE_ALL, fault: errno.into() }),
        },
        Err(stop) => Some(stop),
    };
    give_up(&pipes.stopped, stop.unwrap_or(Stopped { op: BEFORE_ALL, fault: Errno::INVAL.into() }))
}

fn restrict(program: &ExecProgram, progress: &mut Progress, container: BorrowedFd<'_>) -> Result<(), Stopped> {
    let before_all = |errno: Errno| Stopped { op: BEFORE_ALL, fault: errno.into() };
    let prepare = || -> Result<(), Errno> {
        sys::block_signals(SignalSet::EMPTY)?;
        sys::default_dispositions()
    };
    prepare().map_err(before_all)?;
    progress.perform(&program.join, 0)?;
    sys::enter_namespace(container, program.namespaces).map_err(before_all)?;
    progress.perform(&program.restrict, program.join.len() as u16)
}
