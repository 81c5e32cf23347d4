//! Another process in a running container, under the same limits and with the same rights as its own.

use std::path::Path;

use super::LinuxHost;
use crate::monitor::client::{Found, read_status};
use crate::monitor::launch::process_settings;
use crate::monitor::spec::MonitorSpec;
use crate::reconcile::host::HostError;
use crate::runtime::container::user::{AccountFiles, UserText, resolve};
use crate::runtime::container::{Credentials, ExecProgram, ExecSpec, Executed, Stdio, TerminalSize, exec};

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

/// The field's status for a failure of ours.
const OUR_FAULT: i32 = 125;

impl LinuxHost {
    /// Starts a process in a container's namespaces and cgroup.
    pub fn exec(&self, instance: &str, wish: &ExecWish) -> Result<Executed, ExecFailure> {
        let program = self.compile_exec(instance, wish).map_err(|error| ExecFailure { code: OUR_FAULT, error })?;
        exec(&program, &Stdio::inherit()).map_err(|error| ExecFailure {
            code: error.exit_code(),
            error: HostError::doing(format!("run `{}` in `{instance}`", wish.command.join(" ")))(error),
        })
    }

    fn compile_exec(&self, instance: &str, wish: &ExecWish) -> Result<ExecProgram, HostError> {
        let bundle = self.bundle(instance);
        let doing = || HostError::doing(format!("read the bundle of `{instance}`"));
        let init = match read_status(&bundle).map_err(doing())? {
            Found::Watched(status) => status.init_pid,
            _ => None,
        };
        let init = init.ok_or_else(|| HostError::Said(format!("container `{instance}` is not running")))?;
        let spec = MonitorSpec::load(&bundle).map_err(doing())?;
        let mut process = process_settings(&bundle).map_err(doing())?;
        process.args = wish.command.clone();
        process.env.extend(wish.env.iter().cloned());
        if let Some(folder) = &wish.workdir {
            process.cwd = folder.clone();
        }
        if let Some(user) = &wish.user {
            process.user = credentials(init, user)?;
        }
        let spec = ExecSpec { init, process, cgroup_procs: spec.cgroup_procs, terminal: wish.terminal };
        ExecProgram::compile(&spec).map_err(HostError::doing(format!("run a process in `{instance}`")))
    }
}

/// A user by the container's own files, as it has them now.
fn credentials(init: i32, user: &str) -> Result<Credentials, HostError> {
    let doing = || HostError::doing(format!("find user `{user}` in the container"));
    let root = std::fs::File::open(Path::new("/proc").join(init.to_string()).join("root")).map_err(doing())?;
    let files = AccountFiles::below(std::os::fd::AsFd::as_fd(&root)).map_err(doing())?;
    let found = resolve(&UserText::parse(user), &files).map_err(doing())?;
    Ok(Credentials { uid: found.uid, gid: found.gid, groups: found.groups })
}
