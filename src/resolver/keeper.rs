//! Keeps the process that answers alive: starts it, and starts it again when it ends, each time after the pause that a
//! container's restarts have. It hears no packet and reads nothing of the stack's, so what ends the other one does not end it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::spec::{Process, Processes, ResolverSpec};
use super::{NOT_STARTED, PROGRAM, SERVE};
use crate::model::Restart;
use crate::monitor::channel::{Message, send_message};
use crate::monitor::client::spawn_program;
use crate::monitor::policy::{Cause, Exit, Next, Restarts};
use crate::monitor::spec::BundleError;
use crate::monitor::{CHANNEL_FD, detach, is_alone, signals};
use crate::runtime::sys::{give_memory_back, signal_process, take_inherited};

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("cannot leave the terminal and the directory of `up`: {0}")]
    Detach(Errno),
    #[error("cannot join the cgroup by `{path}`: {source}", path = path.display())]
    Cgroup { path: PathBuf, source: io::Error },
    #[error("cannot take signals: {0}")]
    Signals(Errno),
    #[error("cannot tell who this process is")]
    Identity,
    #[error("cannot tell whether `up` lives: {0}")]
    Up(rustix::io::Errno),
    #[error("cannot start the process that answers: {0}")]
    Start(Errno),
    #[error(transparent)]
    Spec(#[from] BundleError),
}

struct Keeper<'a> {
    folder: &'a Path,
    processes: Processes,
    signals: SignalFd,
}

/// Why waiting ended.
enum Woken {
    Stop,
    Ended,
    Late,
}

/// Keeps a resolver until SIGTERM.
pub fn run(folder: &Path) -> ExitCode {
    // Nothing was opened yet, so what is at this number came from `up`.
    let Ok(channel) = take_inherited(CHANNEL_FD) else { return ExitCode::from(64) };
    let kept = match Keeper::begin(folder, &channel) {
        Ok(Some(mut keeper)) => {
            give_memory_back();
            keeper.keep(channel)
        }
        // `up` died, and another one may work here.
        Ok(None) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let _ = send_message(&channel, &Message::Failed { text: error.to_string() });
            Err(error)
        }
    };
    kept.unwrap_or(ExitCode::FAILURE)
}

impl<'a> Keeper<'a> {
    fn begin(folder: &'a Path, channel: &OwnedFd) -> Result<Option<Self>, KeepError> {
        detach(PROGRAM).map_err(KeepError::Detach)?;
        let spec = ResolverSpec::load(folder)?;
        for path in &spec.cgroup_procs {
            fs::write(path, "0").map_err(|source| KeepError::Cgroup { path: path.clone(), source })?;
        }
        let keeper = Process::of(std::process::id().cast_signed()).ok_or(KeepError::Identity)?;
        let processes = Processes { keeper, server: None };
        processes.save(folder)?;
        // After that, so that who comes when `up` is dead finds this process.
        if is_alone(channel).map_err(KeepError::Up)? {
            return Ok(None);
        }
        Ok(Some(Keeper { folder, processes, signals: signals().map_err(KeepError::Signals)? }))
    }

    /// The first process speaks to `up`. Where it cannot even listen, nobody is kept.
    fn keep(&mut self, channel: OwnedFd) -> Result<ExitCode, KeepError> {
        let mut restarts = Restarts::default();
        let mut channel = Some(channel);
        loop {
            let began = Instant::now();
            let is_first = channel.is_some();
            let (speak, unheard) = match channel.take() {
                Some(channel) => (channel, None),
                None => {
                    let (ours, theirs) = pair().map_err(KeepError::Start)?;
                    (theirs, Some(ours))
                }
            };
            drop(unheard);
            let exit = match self.start(&speak) {
                Ok(server) => {
                    drop(speak);
                    match self.wait(Some(&server), None) {
                        Woken::Stop => {
                            let _ = signal_process(&server, Signal::SIGKILL as i32);
                            let _ = waitid(WaitId::PidFd(server.as_fd()), WaitIdOptions::EXITED);
                            return Ok(ExitCode::SUCCESS);
                        }
                        _ => reap(&server),
                    }
                }
                Err(source) if is_first => {
                    let error = KeepError::Start(source);
                    let _ = send_message(&speak, &Message::Failed { text: error.to_string() });
                    return Err(error);
                }
                Err(_) => Exit::Code(NOT_STARTED.into()),
            };
            if is_first && exit == Exit::Code(NOT_STARTED.into()) {
                return Ok(ExitCode::from(NOT_STARTED));
            }
            self.processes.server = None;
            self.processes.save(self.folder)?;
            let pause = match restarts.decide(Restart::Always, Cause::Own, exit, began.elapsed()) {
                Next::StartAfter(pause) => pause,
                Next::Stay => return Ok(ExitCode::FAILURE),
            };
            if let Woken::Stop = self.wait(None, Some(pause)) {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    /// The process that answers, as a pidfd.
    fn start(&mut self, channel: &OwnedFd) -> Result<OwnedFd, Errno> {
        let folder = CString::new(self.folder.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
        let keeper = CString::new(self.processes.keeper.pid.to_string()).map_err(|_| Errno::EINVAL)?;
        let pid = spawn_program(c"/proc/self/exe", &[PROGRAM, &folder, SERVE, &keeper], channel.as_fd())?;
        // Not yet waited for, so the number is still this child's.
        let number = Pid::from_raw(pid).ok_or(Errno::ESRCH)?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
        self.processes.server = Process::of(pid);
        // Without it `up` starts another resolver, which is what it should then.
        let _ = self.processes.save(self.folder);
        Ok(pidfd)
    }

    fn wait(&self, server: Option<&OwnedFd>, pause: Option<Duration>) -> Woken {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(server.map(|server| PollFd::new(server, PollFlags::IN)));
        let until = pause.map(|pause| Instant::now() + pause);
        loop {
            let timeout = until.map(|until| {
                let left = until.saturating_duration_since(Instant::now());
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
            });
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Woken::Late,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return Woken::Stop,
            }
            // It was asked to stop before it was told of an end that came of the same hand.
            if !fds[0].revents().is_empty() {
                let signal = self.signals.read_signal().ok().flatten();
                if signal.is_some_and(|signal| signal.ssi_signo != Signal::SIGHUP as u32) {
                    return Woken::Stop;
                }
                continue;
            }
            return Woken::Ended;
        }
    }
}

/// How a process ended that has.
fn reap(server: &OwnedFd) -> Exit {
    match waitid(WaitId::PidFd(server.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        },
        _ => Exit::Signal(0),
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}
