//! Another process in a running container, under the same limits and with the same rights as its own.

use std::path::Path;

use super::LinuxHost;
use super::container::read_bounded;
use crate::monitor::client::{Found, read_status};
use crate::monitor::spec::{CONFIG_FILE, MonitorSpec};
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::container::user::{AccountFiles, UserText, resolve};
use crate::runtime::container::{
    Credentials, ExecProgram, ExecSpec, Executed, ProcessSettings, SeccompProgram, Stdio, TerminalSize, exec,
};
use crate::runtime::oci::OciConfig;

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
        exec(&program, &Stdio::inherit()).map_err(|source| ExecFailure {
            code: source.exit_code(),
            error: HostError::Doing {
                doing: format!("run `{}` in `{instance}`", wish.command.join(" ")),
                source: source.into(),
            },
        })
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

/// Replaces what is there: of two variables of one name most programs see the first.
fn override_env(env: &mut Vec<String>, with: &[String]) {
    let key = |entry: &str| entry.split_once('=').map_or(entry, |(key, _)| key).to_string();
    for entry in with {
        env.retain(|held| key(held) != key(entry));
        env.push(entry.clone());
    }
}

/// What the container's own process was started with.
fn process_settings(bundle: &Path) -> Result<ProcessSettings, HostError> {
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
