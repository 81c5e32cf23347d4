//! The side of `up`, `down` and `ps`: start a monitor, talk to it until its container runs, read what it says, stop it.
//!
//! Only [`MonitorHandle`] needs tokio; whatever concerns a monitor of an earlier run works from its bundle directory.
//! Who waits for a change watches that directory: a status is replaced by rename (`IN_MOVED_TO`).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::unix::AsyncFd;

use crate::runtime::sys::{async_fd, signal_process};

use super::channel::{ChannelError, Message, receive_message, send_message};
use super::spec::BundleError;
use super::status::{ProcessId, State, Status};
use super::{CHANNEL_FD, PROGRAM};

/// Why a monitor could not be started, spoken to or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot start the monitor of `{bundle}`")]
    Spawn { bundle: PathBuf, source: Errno },
    #[error("cannot talk to the monitor of `{bundle}`")]
    Channel { bundle: PathBuf, source: ChannelError },
    #[error("the monitor of `{bundle}` ended before its container ran")]
    Gone { bundle: PathBuf },
    #[error("the monitor of `{bundle}` sent what was not its turn to say")]
    OutOfTurn { bundle: PathBuf },
    /// The monitor's own words.
    #[error("{text}")]
    NotStarted { text: String },
    #[error("cannot signal process {pid}")]
    Signal { pid: i32, source: Errno },
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Starts monitors, all from one copy of this program's file.
#[derive(Debug)]
pub struct Launcher {
    /// `/proc/<own pid>/fd/<n>`: the monitor's number 3 is the channel, so the file is named by *our* descriptor.
    program: CString,
    _file: OwnedFd,
}

/// A monitor whose container does not run yet. Dropped, it closes the channel, and the monitor exits with all it made.
#[derive(Debug)]
pub struct MonitorHandle {
    bundle: PathBuf,
    channel: AsyncFd<OwnedFd>,
    pid: i32,
    pidfd: OwnedFd,
}

impl Launcher {
    /// `file` is what monitors are executed from; it stays open as long as the launcher is there.
    pub fn new(file: OwnedFd) -> Self {
        let program = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let program = CString::new(program).unwrap_or_default();
        Self { program, _file: file }
    }

    /// Starts the monitor of a bundle, which holds `monitor.json` and `config.json`. Within a tokio runtime.
    pub fn spawn(&self, bundle: &Path) -> Result<MonitorHandle, ClientError> {
        self.spawn_as(PROGRAM, bundle)
    }

    /// Starts this program under another name than a monitor's, with a folder of its own.
    pub(crate) fn spawn_as(&self, name: &CStr, bundle: &Path) -> Result<MonitorHandle, ClientError> {
        let failed = |source| ClientError::Spawn { bundle: bundle.to_owned(), source };
        let path = CString::new(bundle.as_os_str().as_bytes()).map_err(|_| failed(Errno::EINVAL))?;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(failed)?;
        // Flags belong to each end: the monitor's blocks.
        fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        let pid = spawn_program(&self.program, &[name, &path], theirs.as_fd()).map_err(failed)?;
        // Not yet waited for, so the number is still this child's.
        let pidfd = open_pidfd(pid).map_err(failed)?;
        let channel = async_fd::readable(ours).map_err(|error| failed(errno_of(&error)))?;
        Ok(MonitorHandle { bundle: bundle.to_owned(), channel, pid, pidfd })
    }
}

impl MonitorHandle {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the monitor's network namespace stands, which `/proc/<returned pid>/ns/net` is.
    pub async fn net_ready(&self) -> Result<i32, ClientError> {
        match self.receive().await? {
            Message::NetReady { pid } => Ok(pid),
            other => Err(self.unexpected(other)),
        }
    }

    /// Lets the container start and waits until it runs. Returns its PID 1. The monitor goes on alone.
    pub async fn go(self) -> Result<i32, ClientError> {
        send_message(self.channel.get_ref(), &Message::Go)
            .map_err(|source| ClientError::Channel { bundle: self.bundle.clone(), source })?;
        self.started().await
    }

    /// Waits until what was started says that it runs. Returns its process number.
    pub(crate) async fn started(self) -> Result<i32, ClientError> {
        match self.receive().await? {
            Message::Started { pid } => Ok(pid),
            other => Err(self.unexpected(other)),
        }
    }

    async fn receive(&self) -> Result<Message, ClientError> {
        let failed = |source| ClientError::Channel { bundle: self.bundle.clone(), source };
        loop {
            let mut ready = self
                .channel
                .readable()
                .await
                .map_err(|error| failed(ChannelError::Receive { source: errno_of(&error) }))?;
            match receive_message(self.channel.get_ref()) {
                Err(ChannelError::Receive { source: Errno::EAGAIN }) => ready.clear_ready(),
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {
                    let _ = reap(&self.pidfd);
                    return Err(ClientError::Gone { bundle: self.bundle.clone() });
                }
                Err(source) => return Err(failed(source)),
            }
        }
    }

    fn unexpected(&self, message: Message) -> ClientError {
        match message {
            Message::Failed { text } => ClientError::NotStarted { text },
            _ => ClientError::OutOfTurn { bundle: self.bundle.clone() },
        }
    }
}

/// The monitor's pidfd: readable once it has ended.
impl AsFd for MonitorHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// What the status of a bundle is worth now.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// There is no status: no monitor came so far.
    Nothing,
    /// The monitor lives, and says this.
    Watched(Status),
    /// The monitor has ended after its container ended for good.
    Ended(Status),
    /// The monitor died and left this; the kernel has killed its container.
    Abandoned(Status),
}

/// Reads the status of a bundle and holds it against the processes that there are.
pub fn read_status(bundle: &Path) -> Result<Found, ClientError> {
    let Some(status) = Status::load(bundle)? else { return Ok(Found::Nothing) };
    if status.state != State::Exited && status.monitor().is_alive() {
        return Ok(Found::Watched(status));
    }
    // The final status is published before the monitor ends: what is there now that it has ended is final.
    let Some(status) = Status::load(bundle)? else { return Ok(Found::Nothing) };
    if status.monitor().is_zombie()
        && let Ok(pidfd) = open_pidfd(status.monitor_pid)
    {
        let _ = reap(&pidfd);
    }
    match status.state {
        State::Exited => Ok(Found::Ended(status)),
        _ => Ok(Found::Abandoned(status)),
    }
}

/// A monitor that was told to stop its container and exit.
#[derive(Debug)]
pub struct Stopping {
    pidfd: OwnedFd,
}

/// Asks the monitor of a bundle to stop its container and exit. `None`: there is no such monitor any more.
pub fn stop(bundle: &Path) -> Result<Option<Stopping>, ClientError> {
    signal_monitor(bundle, Signal::SIGTERM)
}

/// Asks the monitor of a bundle to take the live settings of its spec. `false`: there is no such monitor any more.
pub fn reload(bundle: &Path) -> Result<bool, ClientError> {
    signal_monitor(bundle, Signal::SIGHUP).map(|stopping| stopping.is_some())
}

/// Sends a signal to the container's PID 1. `false`: it does not run now.
pub fn signal_container(bundle: &Path, signal: i32) -> Result<bool, ClientError> {
    let Some(init) = Status::load(bundle)?.and_then(|status| status.init()) else { return Ok(false) };
    let Some(pidfd) = open_verified(init)? else { return Ok(false) };
    match signal_process(&pidfd, signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(source) => Err(ClientError::Signal { pid: init.pid, source }),
    }
}

/// Kills the monitor of a bundle; its container dies with it. `None`: there is no such monitor any more.
pub fn kill(bundle: &Path) -> Result<Option<Stopping>, ClientError> {
    signal_monitor(bundle, Signal::SIGKILL)
}

impl Stopping {
    /// Waits until the monitor has ended. Within a tokio runtime.
    pub async fn ended(self) -> io::Result<()> {
        let pidfd = async_fd::readable(self.pidfd)?;
        pidfd.readable().await?.retain_ready();
        let _ = reap(pidfd.get_ref());
        Ok(())
    }
}

/// The monitor's pidfd: readable once it has ended.
impl AsFd for Stopping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn signal_monitor(bundle: &Path, signal: Signal) -> Result<Option<Stopping>, ClientError> {
    let Some(status) = Status::load(bundle)? else { return Ok(None) };
    signal_verified(status.monitor(), signal)
}

/// Sends a signal to this very process. `None`: it has ended.
pub(crate) fn signal_verified(process: ProcessId, signal: Signal) -> Result<Option<Stopping>, ClientError> {
    let Some(pidfd) = open_verified(process)? else { return Ok(None) };
    match signal_process(&pidfd, signal as i32) {
        Ok(()) => Ok(Some(Stopping { pidfd })),
        Err(Errno::ESRCH) => Ok(None),
        Err(source) => Err(ClientError::Signal { pid: process.pid, source }),
    }
}

/// A descriptor of this very process. The start time is read after the descriptor is open, so that a number that was
/// given to somebody else in between shows.
pub fn open_verified(process: ProcessId) -> Result<Option<OwnedFd>, ClientError> {
    let pidfd = match open_pidfd(process.pid) {
        Ok(pidfd) => pidfd,
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        Err(source) => return Err(ClientError::Signal { pid: process.pid, source }),
    };
    Ok(process.is_alive().then_some(pidfd))
}

fn open_pidfd(pid: i32) -> Result<OwnedFd, Errno> {
    let pid = Pid::from_raw(pid).ok_or(Errno::ESRCH)?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Errno::from_raw(errno.raw_os_error()))
}

/// Takes a dead child out of the process table, where it is one of ours and dead.
fn reap(pidfd: &OwnedFd) -> Result<(), rustix::io::Errno> {
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).map(drop)
}

/// posix_spawn(3), which shares memory with the child until it executes: starting from a process of any size costs
/// the same.
pub(crate) fn spawn_program(program: &CStr, arguments: &[&CStr], channel: BorrowedFd<'_>) -> Result<i32, Errno> {
    let mut actions = PosixSpawnFileActions::init()?;
    // Clears close-on-exec even where the number is the same already.
    actions.add_dup2(channel.as_raw_fd(), CHANNEL_FD)?;
    // A signal that `up` was told to ignore, as nohup(1) does, would never reach the monitor's signalfd.
    let mut attributes = PosixSpawnAttr::init()?;
    let mut defaults = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        defaults.add(signal);
    }
    attributes.set_sigdefault(&defaults)?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    let environment: [&CStr; 0] = [];
    posix_spawn(program, &actions, &attributes, arguments, &environment).map(nix::unistd::Pid::as_raw)
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
