//! Further processes in a created or running container.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::runtime::container::detached::Keyring;
use crate::runtime::container::{
    ExecDetachment, ExecProgram, ExecSpec, Executed, OwnNamespace, ProcessSettings, SecurityModules, Stdio,
    TerminalSize, exec_notifying as execute,
};
use crate::runtime::oci::OciProcess;
use crate::runtime::sys;

use super::create::{check_terminal, host_id, seccomp};
use super::process::{ConsoleSocket, PidfdSocket, check_preserved, with_home};
use super::start::seccomp_agent;
use super::{Container, LifecycleError, Status};

/// How a process is run in a container.
#[derive(Debug, Default)]
pub struct ExecOptions {
    pub console_socket: Option<ConsoleSocket>,
    /// How many descriptors from 3 on the program gets.
    pub preserved: u32,
    pub keyring: Keyring,
    pub ignore_paused: IgnorePaused,
    /// Cgroups below the container's: `PATH`, or `CONTROLLER[,CONTROLLER]:PATH` on version 1.
    pub cgroups: Vec<String>,
    /// Whom a descriptor of the process is sent to.
    pub pidfd_socket: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IgnorePaused {
    #[default]
    No,
    /// The process waits until the container is resumed.
    Yes,
}

/// A process that was run, and is the caller's child.
#[derive(Debug)]
pub struct Running {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Run `process` in the container, and return once its program is executed.
pub fn exec(container: &Container, process: &OciProcess, options: &ExecOptions) -> Result<Running, LifecycleError> {
    check_preserved(options.preserved)?;
    check_terminal(Some(process), options.console_socket.as_ref())?;
    match (container.status, options.ignore_paused) {
        (Status::Created | Status::Running, _) | (Status::Paused, IgnorePaused::Yes) => {}
        _ => return Err(container.refuse("run a process in")),
    }
    let config = container.place.config()?;
    let mut process = process.clone();
    with_home(&mut process, Path::new(&format!("/proc/{}/root", container.record.init_process_pid)));
    let process = &process;
    let compile = |source| LifecycleError::Compile { source };
    let size = process.console_size.unwrap_or_default();
    let init = container.record.init_process_pid;
    let spec = ExecSpec {
        init,
        process: ProcessSettings::from_oci(process, seccomp(&config)?),
        cgroup_procs: container.record.cgroups().procs_files_for(&options.cgroups, init)?,
        terminal: process.terminal.then_some(TerminalSize { rows: size.height, columns: size.width }),
    };
    let detachment = ExecDetachment {
        process,
        keyring: options.keyring,
        preserved: options.preserved,
        user_namespace: own_namespace(container, "user"),
        time_namespace: own_namespace(container, "time"),
        security: SecurityModules::of_host(),
        terminal_owner: host_id(&config, process.user.uid),
    };
    let program = ExecProgram::compile_detached(&spec, &detachment).map_err(compile)?;
    let agent = seccomp_agent(container, &config)?;
    let pidfd_socket = options.pidfd_socket.as_deref().map(PidfdSocket::connect).transpose()?;
    let Executed { pid, pidfd, terminal } =
        execute(&program, &Stdio::inherit(), agent.as_ref()).map_err(|source| LifecycleError::Exec { source })?;
    let hand_over = || {
        if let (Some(terminal), Some(socket)) = (&terminal, &options.console_socket) {
            socket.send(terminal)?;
        }
        pidfd_socket.as_ref().map_or(Ok(()), |socket| socket.send(pid))
    };
    hand_over().inspect_err(|_| {
        let _ = sys::send_signal(pid, libc::SIGKILL);
    })?;
    Ok(Running { pid, pidfd })
}

/// By what the kernel says, not by the configuration: it may have been joined from elsewhere.
fn own_namespace(container: &Container, kind: &str) -> OwnNamespace {
    let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
    let theirs = of(&container.record.init_process_pid.to_string());
    if theirs.is_some() && theirs != of("self") { OwnNamespace::Yes } else { OwnNamespace::No }
}
