//! Tells the host's table when a container that shares its ports with others begins or ceases to serve.
//!
//! The monitor itself speaks no nftables: it stays small, and it lives in its container's network namespace. It runs this
//! program once more, under the name [`HELPER`], with the host's namespace as descriptor, and waits for it a moment.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{CHANNEL_FD, HELPER};

/// A helper that takes longer is left to itself.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// What the helper is told about the container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Its status says whether it serves.
    Look,
    /// It is about to be stopped.
    Leaves,
}

impl Turn {
    fn word(self) -> &'static CStr {
        match self {
            Turn::Look => c"look",
            Turn::Leaves => super::LEAVES,
        }
    }
}

/// Calls the helper, for a container whose monitor shares ports with others.
#[derive(Debug)]
pub(super) struct Teller {
    host: OwnedFd,
    /// Helpers that were left to themselves and are to be reaped.
    left: Vec<nix::unistd::Pid>,
}

impl Teller {
    /// Takes hold of the network namespace of the host; to be called before the monitor leaves it.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { host: File::open("/proc/self/ns/net")?.into(), left: Vec::new() })
    }

    /// Nobody can be told of a failure here; the next `up` sees what the table holds.
    pub fn tell(&mut self, bundle: &Path, turn: Turn) {
        self.left
            .retain(|pid| !matches!(waitpid(*pid, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some()));
        let Ok(bundle) = CString::new(bundle.as_os_str().as_bytes()) else { return };
        let Ok(pid) = self.spawn(&bundle, turn) else { return };
        if !ended(pid) {
            self.left.push(pid);
            return;
        }
        let _ = waitpid(pid, None);
    }

    fn spawn(&self, bundle: &CStr, turn: Turn) -> Result<nix::unistd::Pid, Errno> {
        let mut actions = PosixSpawnFileActions::init()?;
        actions.add_dup2(self.host.as_raw_fd(), CHANNEL_FD)?;
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
        let environment: [&CStr; 0] = [];
        posix_spawn(c"/proc/self/exe", &actions, &attributes, &[HELPER, bundle, turn.word()], &environment)
    }
}

/// Waits for a process of ours, as long as patience lasts.
fn ended(pid: nix::unistd::Pid) -> bool {
    let Some(pid) = Pid::from_raw(pid.as_raw()) else { return true };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    !matches!(poll(&mut fds, Some(&PATIENCE)), Ok(0))
}
