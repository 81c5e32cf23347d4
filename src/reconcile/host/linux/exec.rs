//! Another process in a running container, under the same limits and with the same rights as its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::LinuxHost;
use super::container::read_bounded;
use crate::monitor::client::{Found, read_status};
use crate::monitor::spec::{CONFIG_FILE, MonitorSpec};
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::container::user::{AccountFiles, UserText, resolve};
use crate::runtime::container::{
    Credentials, ExecProgram, ExecSpec, Executed, ProcessSettings, SeccompProgram, Stdio, TerminalSize, exec, wait,
};
use crate::runtime::oci::OciConfig;
use crate::runtime::sys::signal_process;

/// What to run in a container.
#[derive(Clone, Debug, Default)]
pub struct ExecWish {
    pub command: Vec<String>,
    /// `user[:group]`; `None`: the container's.
    pub user: Option<String>,
    /// `KEY=value`, beside the container's own.
    pub env: Vec<String>,
    pub workdir: Option<String>,
    /// A new terminal takes the place of standard input and output.
    pub terminal: Option<TerminalSize>,
}

/// Why nothing was run, and the exit status that the field has for it.
#[derive(Debug)]
pub struct ExecFailure {
    pub code: i32,
    pub error: HostError,
}

/// Nobody waits longer for a command that tells a container of a change.
const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// So much of what it says is kept, in bytes.
const QUIET_KEPT: usize = 2048;
/// The field's status for a failure of ours.
const OUR_FAULT: i32 = 125;

impl LinuxHost {
    /// Starts a process in a container's namespaces and cgroup.
    pub fn exec(&self, instance: &str, wish: &ExecWish) -> Result<Executed, ExecFailure> {
        let program = self.compile_exec(instance, wish).map_err(|error| ExecFailure { code: OUR_FAULT, error })?;
        exec(&program, &Stdio::inherit()).map_err(|source| ExecFailure {
            code: source.exit_code(),
            error: HostError::Doing {
                doing: format!("run `{}` in `{instance}`", wish.command.join(" ")),
                source: source.into(),
            },
        })
    }

    /// Runs a command to its end, within [`QUIET_WITHIN`]. What it says is told only where it fails.
    pub(super) fn execute_quietly(&self, instance: &str, wish: &ExecWish) -> Result<(), HostError> {
        let line = wish.command.join(" ");
        let doing = || format!("run `{line}` in `{instance}`");
        let program = self.compile_exec(instance, wish)?;
        let null = std::fs::OpenOptions::new().read(true).open("/dev/null").doing(doing)?;
        let (output, sink) = pipe_with(PipeFlags::CLOEXEC).doing(doing)?;
        let stdio = Stdio { stdin: null.as_fd(), stdout: sink.as_fd(), stderr: sink.as_fd() };
        let executed = exec(&program, &stdio).doing(doing)?;
        drop(sink);
        let said = output_until_end(&output, executed.pidfd.as_fd()).doing(doing)?;
        let Some(said) = said else {
            let _ = signal_process(&executed.pidfd, libc::SIGKILL);
            let _ = wait(executed.pidfd.as_fd());
            return Err(HostError::Said(format!("`{line}` in `{instance}` did not end within {QUIET_WITHIN:?}")));
        };
        match wait(executed.pidfd.as_fd()).doing(doing)? {
            0 => Ok(()),
            code => {
                let tail = String::from_utf8_lossy(&said).lines().map(str::to_string).collect();
                let message = format!("`{line}` in `{instance}` ended with status {code}");
                Err(HostError::Condition { message, tail })
            }
        }
    }

    fn compile_exec(&self, instance: &str, wish: &ExecWish) -> Result<ExecProgram, HostError> {
        let bundle = self.bundle(instance);
        let doing = || format!("read the bundle of `{instance}`");
        let init = match read_status(&bundle).doing(doing)? {
            Found::Watched(status) => status.init_pid,
            _ => None,
        };
        let init = init.ok_or_else(|| HostError::Said(format!("container `{instance}` is not running")))?;
        let spec = MonitorSpec::load(&bundle).doing(doing)?;
        let mut process = process_settings(&bundle)?;
        process.args = wish.command.clone();
        override_env(&mut process.env, &wish.env);
        if let Some(folder) = &wish.workdir {
            process.cwd = folder.clone();
        }
        if let Some(user) = &wish.user {
            process.user = credentials(init, user)?;
        }
        let spec = ExecSpec { init, process, cgroup_procs: spec.cgroup_procs, terminal: wish.terminal };
        ExecProgram::compile(&spec).doing(|| format!("run a process in `{instance}`"))
    }
}

/// What a command says until it ends, the last of it. `None`: it did not end in time. A process that it left behind may
/// hold the pipe open; nobody waits for that.
fn output_until_end(output: &OwnedFd, pidfd: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + QUIET_WITHIN;
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let limit = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut ends = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        if open {
            ends.push(PollFd::new(output, PollFlags::IN));
        }
        match poll(&mut ends, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ended = !ends[0].revents().is_empty();
        if ends.get(1).is_some_and(|end| !end.revents().is_empty()) {
            let count = rustix::io::read(output, &mut buffer)?;
            open = count > 0;
            said.extend_from_slice(&buffer[..count]);
            let surplus = said.len().saturating_sub(QUIET_KEPT);
            said.drain(..surplus);
        } else if ended {
            return Ok(Some(said));
        }
    }
}

/// Replaces what is there: of two variables of one name most programs see the first.
fn override_env(env: &mut Vec<String>, with: &[String]) {
    let key = |entry: &str| entry.split_once('=').map_or(entry, |(key, _)| key).to_string();
    for entry in with {
        env.retain(|held| key(held) != key(entry));
        env.push(entry.clone());
    }
}

/// What the container's own process was started with.
pub(super) fn process_settings(bundle: &Path) -> Result<ProcessSettings, HostError> {
    let path = bundle.join(CONFIG_FILE);
    let doing = || format!("read `{}`", path.display());
    let config = OciConfig::parse(&read_bounded(&path).doing(doing)?).doing(doing)?;
    let seccomp = match config.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) {
        Some(section) => Some(SeccompProgram::compile(section).doing(doing)?),
        None => None,
    };
    let process = config.process.ok_or_else(|| HostError::Said(format!("`{}` names no process", path.display())))?;
    Ok(ProcessSettings::from_oci(&process, seccomp))
}

/// A user by the container's own files, as it has them now.
fn credentials(init: i32, user: &str) -> Result<Credentials, HostError> {
    let doing = || format!("find user `{user}` in the container");
    let root = std::fs::File::open(Path::new("/proc").join(init.to_string()).join("root")).doing(doing)?;
    let files = AccountFiles::below(std::os::fd::AsFd::as_fd(&root)).doing(doing)?;
    let found = resolve(&UserText::parse(user), &files).doing(doing)?;
    Ok(Credentials { uid: found.uid, gid: found.gid, groups: found.additional_gids })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_asked_for_replaces_the_container_s() {
        let list = |entries: &[&str]| -> Vec<String> { entries.iter().map(|entry| entry.to_string()).collect() };
        let mut env = list(&["A=1", "AB=2"]);
        override_env(&mut env, &list(&["A=3", "C=4", "C=5"]));
        assert_eq!(env, list(&["AB=2", "A=3", "C=5"]));
    }
}
