//! From a fresh process to a monitor: leave everything of `up` behind, make the network namespace, wait for `Go`, start
//! the container.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use crate::runtime::net::{EndpointError, loopback_up};
use crate::runtime::sys::{close_all_but, take_inherited};

use super::channel::{ChannelError, Message, receive_message, send_message};
use super::log::writer::{LogError, LogWriter};
use super::oom::OomEar;
use super::payload::{LaunchError, Launcher};
use super::policy::Restarts;
use super::run::{Monitor, chain, signals};
use super::spec::{BundleError, MonitorSpec};
use super::status::{ProcessId, State, Status, shorten};
use super::{CHANNEL_FD, PROGRAM};

/// The kernel's out-of-memory killer takes a monitor only when nothing else is left: its death is its container's.
const OOM_SCORE_ADJ: &str = "-999";
const OOM_SCORE_FILE: &str = "/proc/self/oom_score_adj";

/// Why a monitor could not start its container.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot open `{path}`")]
    Open { path: PathBuf, source: Errno },
    #[error("cannot leave the terminal and the directory of `up`")]
    Detach { source: Errno },
    #[error("cannot join the monitors' cgroup by `{path}`")]
    Cgroup { path: PathBuf, source: io::Error },
    #[error("cannot make a network namespace")]
    Network { source: Errno },
    #[error("cannot bring up the loopback link")]
    Loopback { source: EndpointError },
    #[error("cannot take signals")]
    Signals { source: Errno },
    #[error("cannot tell who this process is")]
    Identity,
    #[error(transparent)]
    Bundle(BundleError),
    #[error(transparent)]
    Log(LogError),
    #[error("cannot talk to `up`")]
    Channel { source: ChannelError },
    #[error(transparent)]
    Launch(LaunchError),
}

/// Runs a monitor to its end. Everything that goes wrong is told over the channel and in the status: there is no
/// terminal.
pub(super) fn run(bundle: &Path) -> ExitCode {
    // Nothing was opened yet, so what is at this number came from `up`.
    let Ok(channel) = take_inherited(CHANNEL_FD) else { return ExitCode::from(64) };
    match prepare(bundle, &channel) {
        Ok(Some(ready)) => follow(ready, channel),
        // `up` died: all that was made goes with this process.
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            // With `up` gone too there is nobody to tell.
            let _ = send_message(&channel, &Message::Failed { text: shorten(chain(&error)) });
            ExitCode::FAILURE
        }
    }
}

/// All that a monitor has when `Go` comes.
struct Ready<'a> {
    launcher: Launcher<'a>,
    status: Status,
}

fn prepare<'a>(bundle: &'a Path, channel: &OwnedFd) -> Result<Option<Ready<'a>>, StartError> {
    detach().map_err(|source| StartError::Detach { source })?;
    let oom_score_adj = protect_from_oom();
    // Only an `up` that lives keeps others away from the bundle. What this path leads to was ours if it lives now; the
    // next one may put its own there at any time after, and by the descriptor we shall not write into that.
    let folder = open_folder(bundle)?;
    if is_alone(channel)? {
        return Ok(None);
    }
    let spec = MonitorSpec::load(bundle).map_err(StartError::Bundle)?;
    for path in &spec.monitor_cgroup_procs {
        fs::write(path, "0").map_err(|source| StartError::Cgroup { path: path.clone(), source })?;
    }
    if spec.own_netns {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|source| StartError::Network { source })?;
        loopback_up().map_err(|source| StartError::Loopback { source })?;
    }
    let pid = std::process::id().cast_signed();
    let status = Status::created(ProcessId::of(pid).ok_or(StartError::Identity)?);
    status.save(&by_descriptor(&folder)).map_err(StartError::Bundle)?;
    send_message(channel, &Message::NetReady { pid }).map_err(|source| StartError::Channel { source })?;
    match receive_message(channel).map_err(|source| StartError::Channel { source })? {
        Some(Message::Go) => Ok(Some(Ready { launcher: Launcher { bundle, spec, oom_score_adj }, status })),
        _ => Ok(None),
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, StartError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| StartError::Open { path: path.to_owned(), source: errno(source) })
}

fn by_descriptor(folder: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", folder.as_raw_fd()).into()
}

/// Whether `up` is dead.
fn is_alone(channel: &OwnedFd) -> Result<bool, StartError> {
    let mut fds = [PollFd::new(channel, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&at_once)) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(source) => Err(StartError::Channel { source: ChannelError::Receive { source: errno(source) } }),
    }
}

/// Starts the container, tells `up`, and follows the container to its end.
fn follow(ready: Ready<'_>, channel: OwnedFd) -> ExitCode {
    let Ready { launcher, mut status } = ready;
    let started = signals().map_err(|source| StartError::Signals { source }).and_then(|signals| {
        let log = LogWriter::open(&launcher.spec.log_dir, launcher.spec.log).map_err(StartError::Log)?;
        let payload = launcher.launch().map_err(StartError::Launch)?;
        Ok((signals, log, payload))
    });
    let (signals, log, payload) = match started {
        Ok(started) => started,
        Err(error) => {
            let text = shorten(chain(&error));
            status.state = State::Exited;
            status.note = Some(text.clone());
            let _ = status.save(launcher.bundle);
            let _ = send_message(&channel, &Message::Failed { text });
            return ExitCode::FAILURE;
        }
    };
    let pid = payload.pid;
    let oom = OomEar::open(&launcher.spec);
    let mut monitor = Monitor { launcher, status, log, signals, restarts: Restarts::default(), oom };
    let phase = monitor.first_run(payload);
    // After the status, so that who hears this can read it. An `up` that died here leaves a container that runs.
    let _ = send_message(&channel, &Message::Started { pid });
    drop(channel);
    monitor.run(phase);
    ExitCode::SUCCESS
}

/// A session of its own, no terminal, no directory and no file held.
fn detach() -> Result<(), Errno> {
    rustix::thread::set_name(PROGRAM).map_err(errno)?;
    // What `up` was given by its own starter and knows nothing of. Nothing of ours has such a number yet.
    close_all_but([0, 1, 2, CHANNEL_FD]).map_err(errno)?;
    setsid()?;
    std::env::set_current_dir("/").map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(errno)?;
    rustix::stdio::dup2_stdin(&null).map_err(errno)?;
    rustix::stdio::dup2_stdout(&null).map_err(errno)?;
    rustix::stdio::dup2_stderr(&null).map_err(errno)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(())
}

/// Gives the value before, which is the container's. Without the privilege to lower it, nothing changes.
fn protect_from_oom() -> i32 {
    let before = fs::read_to_string(OOM_SCORE_FILE).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let _ = fs::write(OOM_SCORE_FILE, OOM_SCORE_ADJ);
    before
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}
