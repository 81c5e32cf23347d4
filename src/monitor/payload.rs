//! The container's process as its monitor holds it: made from the bundle, its output pipes, its end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::runtime::container::{
    CgroupView, CompileError, ExecError, ExecProgram, ExecSpec, NetworkOrigin, ProcessSettings, Program, Rootfs,
    SeccompProgram, SpawnError, Spawned, Stdio, Surroundings, exec, spawn,
};
use crate::runtime::oci::{OciConfig, OciError};
use crate::runtime::seccomp::SeccompError;
use crate::runtime::sys::signal_process;

use super::log::Stream;
use super::log::writer::LogWriter;
use super::policy::Exit;
use super::spec::{CONFIG_FILE, MAX_BUNDLE_FILE, MonitorSpec, RootfsSpec};
use super::status::start_of_child;

/// One read of a pipe, in bytes.
const READ_SIZE: usize = 16 << 10;
/// After the container's end, so many reads of a pipe at most: more than the largest pipe holds for a user with
/// privileges (fs/pipe-max-size is 1 MiB unless told).
const DRAIN_READS: usize = 4096;

/// Why the container could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` is longer than {max} bytes", max = MAX_BUNDLE_FILE)]
    TooLong { path: PathBuf },
    #[error("`{path}` is no configuration of a container")]
    Config { path: PathBuf, source: OciError },
    #[error("the configuration names no process")]
    NoProcess,
    #[error("cannot compile the seccomp profile")]
    Seccomp { source: SeccompError },
    #[error(transparent)]
    Compile(CompileError),
    #[error("cannot make the pipes of a process")]
    Pipe { source: Errno },
    #[error(transparent)]
    Spawn(SpawnError),
    #[error(transparent)]
    Exec(ExecError),
    #[error("process {pid} cannot be looked at")]
    Identity { pid: i32 },
}

/// What a container is started from, each time. Its configuration is read anew then: compiled, it would take memory
/// for as long as the container runs.
pub(super) struct Launcher<'a> {
    pub bundle: &'a Path,
    pub spec: MonitorSpec,
    /// The container's, where its configuration does not say another.
    pub oom_score_adj: i32,
}

/// The container's PID 1 and what it writes.
#[derive(Debug)]
pub(super) struct Payload {
    pub pid: i32,
    /// Clock ticks after boot.
    pub start: u64,
    pidfd: OwnedFd,
    /// `None` once the container has closed it.
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// What one read of a pipe gave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    Some,
    NothingNow,
    Ended,
}

impl Launcher<'_> {
    /// Starts the container and returns once its program is executed.
    pub(super) fn launch(&self) -> Result<Payload, LaunchError> {
        let mut config = self.config()?;
        let seccomp = compile_seccomp(&config)?;
        let process = config.process.as_mut().ok_or(LaunchError::NoProcess)?;
        process.oom_score_adj.get_or_insert(self.oom_score_adj);
        let surroundings = Surroundings {
            bundle: self.bundle.to_owned(),
            rootfs: match self.spec.rootfs.clone() {
                RootfsSpec::Dir(path) => Rootfs::Directory(path),
                RootfsSpec::Overlay { lower, upper, work } => Rootfs::Overlay { lower, upper, work },
            },
            cgroup_procs: self.spec.cgroup_procs.clone(),
            cgroup_view: cgroup_view(&config),
            init: self.spec.init,
            network: if self.spec.own_netns { NetworkOrigin::Own } else { NetworkOrigin::Host },
            seccomp,
        };
        let program = Program::compile(&config, &surroundings).map_err(LaunchError::Compile)?;
        let (stdout, stdout_write) = output_pipe()?;
        let (stderr, stderr_write) = output_pipe()?;
        let stdio = Stdio { stdin: rustix::stdio::stdin(), stdout: stdout_write.as_fd(), stderr: stderr_write.as_fd() };
        let Spawned { pid, pidfd } = spawn(&program, &stdio).map_err(LaunchError::Spawn)?;
        // Dead already or not, it keeps its number until it is reaped; a zombie's start time can still be read.
        let start = start_of_child(pid).ok_or(LaunchError::Identity { pid })?;
        Ok(Payload { pid, start, pidfd, stdout: Some(stdout), stderr: Some(stderr) })
    }

    /// Runs a command in the container with the rights of its own process. Gives the process and its output.
    pub(super) fn execute(&self, command: &[String], init: i32) -> Result<(OwnedFd, OwnedFd), LaunchError> {
        let config = self.config()?;
        let seccomp = compile_seccomp(&config)?;
        let process = config.process.as_ref().ok_or(LaunchError::NoProcess)?;
        let mut settings = ProcessSettings::from_oci(process, seccomp);
        settings.args = command.to_vec();
        let spec = ExecSpec { init, process: settings, cgroup_procs: self.spec.cgroup_procs.clone(), terminal: None };
        let program = ExecProgram::compile(&spec).map_err(LaunchError::Compile)?;
        let (output, output_write) = output_pipe()?;
        let stdio = Stdio { stdin: rustix::stdio::stdin(), stdout: output_write.as_fd(), stderr: output_write.as_fd() };
        let executed = exec(&program, &stdio).map_err(LaunchError::Exec)?;
        Ok((executed.pidfd, output))
    }

    fn config(&self) -> Result<OciConfig, LaunchError> {
        let path = self.bundle.join(CONFIG_FILE);
        let failed = |source| LaunchError::Read { path: path.clone(), source };
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(failed)?;
        file.take(MAX_BUNDLE_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BUNDLE_FILE {
            return Err(LaunchError::TooLong { path });
        }
        OciConfig::parse(&bytes).map_err(|source| LaunchError::Config { path, source })
    }
}

fn compile_seccomp(config: &OciConfig) -> Result<Option<SeccompProgram>, LaunchError> {
    let section = config.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    section.map(SeccompProgram::compile).transpose().map_err(|source| LaunchError::Seccomp { source })
}

/// How the host has its cgroups mounted, for a configuration that mounts them.
fn cgroup_view(config: &OciConfig) -> CgroupView {
    if !config.mounts.iter().any(|mount| mount.kind.as_deref() == Some("cgroup")) {
        return CgroupView::Unknown;
    }
    // The kernel's own text, of a size that the host's mounts decide. Unread, the mount is refused by name.
    fs::read_to_string("/proc/self/mountinfo").map_or(CgroupView::Unknown, |text| CgroupView::from_mountinfo(&text))
}

/// A pipe whose read end does not block: the read end, the write end.
fn output_pipe() -> Result<(OwnedFd, OwnedFd), LaunchError> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|source| LaunchError::Pipe { source })?;
    fcntl_setfl(&read, OFlags::NONBLOCK).map_err(|source| LaunchError::Pipe { source })?;
    Ok((read, write))
}

impl Payload {
    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The pipes that are still open.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        [(Stream::Stdout, &self.stdout), (Stream::Stderr, &self.stderr)]
            .into_iter()
            .filter_map(|(stream, pipe)| Some((stream, pipe.as_ref()?.as_fd())))
    }

    /// Sends a signal to PID 1. `ESRCH`: it has ended.
    pub(super) fn signal(&self, signal: i32) -> Result<(), nix::errno::Errno> {
        signal_process(&self.pidfd, signal)
    }

    /// Copies what one read of a stream gives into the log.
    pub(super) fn copy_output(&mut self, stream: Stream, log: &mut LogWriter) {
        self.copy_once(stream, log);
    }

    /// Copies what is left in the pipes. PID 1's end is seen only when no process of its pid namespace is left
    /// (pid_namespaces(7)), so nothing more can come.
    pub(super) fn drain_output(&mut self, log: &mut LogWriter) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            for _ in 0..DRAIN_READS {
                if self.copy_once(stream, log) != Copied::Some {
                    break;
                }
            }
        }
    }

    /// Takes PID 1, which has ended, out of the process table.
    pub(super) fn reap(&self) -> Exit {
        reap(self.pidfd(), Wait::Block).unwrap_or(Exit::Code(-1))
    }

    fn copy_once(&mut self, stream: Stream, log: &mut LogWriter) -> Copied {
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr | Stream::Stack => &mut self.stderr,
        };
        let Some(open) = pipe else { return Copied::Ended };
        // Not cleared first: only pages that a read fills are touched.
        let mut bytes = Vec::with_capacity(READ_SIZE);
        match read(&*open, spare_capacity(&mut bytes)) {
            Ok(0) => {
                *pipe = None;
                Copied::Ended
            }
            Ok(_) => {
                log.output(stream, &bytes);
                Copied::Some
            }
            Err(Errno::INTR) => Copied::Some,
            Err(Errno::AGAIN) => Copied::NothingNow,
            Err(_) => {
                *pipe = None;
                Copied::Ended
            }
        }
    }
}

/// Whether to wait for a child's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Block,
    Look,
}

/// Takes a child that has ended out of the process table. `None`: it has not, and was not waited for.
pub(super) fn reap(pidfd: BorrowedFd<'_>, wait: Wait) -> Option<Exit> {
    let options = match wait {
        Wait::Block => WaitIdOptions::EXITED,
        Wait::Look => WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    };
    loop {
        match waitid(WaitId::PidFd(pidfd), options) {
            Ok(Some(status)) => {
                let killed = status.terminating_signal().map(Exit::Signal);
                return killed.or_else(|| status.exit_status().map(Exit::Code));
            }
            Ok(None) => return None,
            Err(Errno::INTR) => {}
            // Somebody else took it, which nobody does: there is no telling how it ended.
            Err(_) => return Some(Exit::Code(-1)),
        }
    }
}
