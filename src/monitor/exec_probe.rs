//! A health probe that runs a process in the container: status 0 is healthy. What it writes is kept for the status.
//!
//! Dropping one kills its process, so a timeout or the container's stop needs nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use rustix::buffer::spare_capacity;
use rustix::event::PollFlags;
use rustix::io::{Errno, read};

use crate::runtime::sys::signal_process;

use super::payload::{LaunchError, Launcher, Wait, reap};
use super::policy::Exit;
use super::probe::Outcome;
use super::status::MAX_TEXT;

/// One read of the output, in bytes.
const READ_SIZE: usize = 4 << 10;
/// After the process's end, so many reads at most: what it left running may go on writing.
const LAST_READS: usize = 16;

#[derive(Debug)]
pub(super) struct ExecProbe {
    /// `None` once it was reaped.
    pidfd: Option<OwnedFd>,
    /// stdout and stderr; `None` once all writers have closed it.
    output: Option<OwnedFd>,
    /// The first [`MAX_TEXT`] bytes of the output.
    kept: Vec<u8>,
}

impl ExecProbe {
    /// Runs `command` in the container whose PID 1 is `init` here. Returns once its program is executed.
    pub(super) fn begin(command: &[String], launcher: &Launcher<'_>, init: i32) -> Result<Self, LaunchError> {
        let (pidfd, output) = launcher.execute(command, init)?;
        Ok(Self { pidfd: Some(pidfd), output: Some(output), kept: Vec::new() })
    }

    /// What to wait for before [`Self::advance`] is worth calling.
    pub(super) fn interest(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let output = self.output.as_ref().map(AsFd::as_fd);
        let pidfd = self.pidfd.as_ref().map(AsFd::as_fd);
        pidfd.into_iter().chain(output).map(|fd| (fd, PollFlags::IN)).collect()
    }

    /// Reads what is there. `Some` once the process has ended.
    pub(super) fn advance(&mut self) -> Option<Outcome> {
        self.read_once();
        let exit = reap(self.pidfd.as_ref()?.as_fd(), Wait::Look)?;
        self.pidfd = None;
        for _ in 0..LAST_READS {
            if !self.read_once() {
                break;
            }
        }
        let text = String::from_utf8_lossy(self.kept.trim_ascii_end()).into_owned();
        Some(match exit {
            Exit::Code(0) => Outcome::passed(text),
            Exit::Code(code) => Outcome::failed(format!("exit status {code}: {text}")),
            Exit::Signal(signal) => Outcome::failed(format!("killed by signal {signal}: {text}")),
        })
    }

    /// Reads once and keeps what there is room for; the rest is read all the same, so that the process is not held up.
    /// `false`: nothing came.
    fn read_once(&mut self) -> bool {
        let Some(output) = &self.output else { return false };
        let mut bytes = Vec::with_capacity(READ_SIZE);
        match read(output, spare_capacity(&mut bytes)) {
            Ok(0) => self.output = None,
            Ok(_) => {
                let room = MAX_TEXT.saturating_sub(self.kept.len());
                self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
                return true;
            }
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => {}
            Err(_) => self.output = None,
        }
        false
    }
}

impl Drop for ExecProbe {
    fn drop(&mut self) {
        if let Some(pidfd) = self.pidfd.take() {
            // `ESRCH` is as good. SIGKILL ends it at once, so the wait is short.
            let _ = signal_process(&pidfd, Signal::SIGKILL as i32);
            reap(pidfd.as_fd(), Wait::Block);
        }
    }
}
