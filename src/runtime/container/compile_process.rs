//! From the configuration of a process to the last operations before it is one: limits, privileges, filter, program. The same
//! for the first process of a container and for those that are run in it later. Pure.

use std::ffi::CString;

use crate::runtime::oci::{OciCapabilities, OciProcess, OciRlimit};
use crate::runtime::sys::{ExecStrings, last_capability};

use super::capability::capability_set;
use super::compile::{CompileError, c_string};
use super::defaults;
use super::op::{CapabilitySets, Credentials, Execution, ResourceLimit, SeccompProgram, SetupOp};

/// All that a process of a container is started with.
#[derive(Clone, Debug, Default)]
pub struct ProcessSettings {
    /// The first names the program.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub cwd: String,
    pub user: Credentials,
    pub umask: Option<u32>,
    /// `None`: as the caller has them.
    pub capabilities: Option<OciCapabilities>,
    pub rlimits: Vec<OciRlimit>,
    pub no_new_privileges: bool,
    pub seccomp: Option<SeccompProgram>,
}

impl ProcessSettings {
    pub fn from_oci(process: &OciProcess, seccomp: Option<SeccompProgram>) -> Self {
        Self {
            args: process.args.clone(),
            env: process.env.clone(),
            cwd: process.cwd.clone(),
            user: Credentials {
                uid: process.user.uid,
                gid: process.user.gid,
                groups: process.user.additional_gids.clone(),
            },
            umask: process.user.umask,
            capabilities: process.capabilities.clone(),
            rlimits: process.rlimits.clone(),
            no_new_privileges: process.no_new_privileges,
            seccomp,
        }
    }
}

/// Limits and privileges, in the order in which each step still may be done.
pub fn restrictions(settings: &ProcessSettings) -> Result<Vec<SetupOp>, CompileError> {
    let mut ops = Vec::new();
    for (index, limit) in settings.rlimits.iter().enumerate() {
        let resource = resource_number(&limit.kind).ok_or_else(|| {
            CompileError::invalid(
                format!("process.rlimits[{index}]"),
                format!("names `{}`, which is no limit", limit.kind),
            )
        })?;
        let name = limit.kind.clone();
        ops.push(SetupOp::LimitResource(ResourceLimit { name, resource, soft: limit.soft, hard: limit.hard }));
    }
    if !settings.no_new_privileges {
        // Without no_new_privs a filter takes CAP_SYS_ADMIN, which is about to go.
        ops.extend(settings.seccomp.clone().map(SetupOp::InstallSeccomp));
    }
    // As root, and before the program's user is in charge: the directory may be of yet another user.
    ops.push(SetupOp::EnterDirectory { path: c_string("process.cwd", &settings.cwd)? });
    if let Some(capabilities) = &settings.capabilities {
        let keep = capability_set(&capabilities.bounding);
        ops.push(SetupOp::BoundCapabilities { keep, last: last_capability() });
    }
    ops.push(SetupOp::SetUser(settings.user.clone()));
    if let Some(capabilities) = &settings.capabilities {
        ops.push(SetupOp::SetCapabilities(CapabilitySets {
            effective: capability_set(&capabilities.effective),
            permitted: capability_set(&capabilities.permitted),
            inheritable: capability_set(&capabilities.inheritable),
            ambient: capability_set(&capabilities.ambient),
        }));
    }
    ops.push(SetupOp::SetUmask { mask: settings.umask.unwrap_or(defaults::UMASK) });
    if settings.no_new_privileges {
        ops.push(SetupOp::NoNewPrivileges);
    }
    Ok(ops)
}

/// The last steps. Where it can be, the filter comes after everything else that makes system calls.
pub fn execution(settings: &ProcessSettings) -> Result<Vec<SetupOp>, CompileError> {
    let mut ops = vec![SetupOp::CloseOnExec];
    if settings.no_new_privileges {
        ops.extend(settings.seccomp.clone().map(SetupOp::InstallSeccomp));
    }
    let name = settings.args.first().ok_or_else(|| CompileError::invalid("process.args", "is empty"))?;
    let strings = |what: &str, list: &[String]| -> Result<ExecStrings, CompileError> {
        let strings: Result<Vec<CString>, _> = list.iter().map(|text| c_string(what, text)).collect();
        Ok(ExecStrings::new(strings?))
    };
    ops.push(SetupOp::Execute(Execution {
        candidates: candidates(name, &settings.env)?,
        arguments: strings("process.args", &settings.args)?,
        environment: strings("process.env", &settings.env)?,
        name: name.clone(),
    }));
    Ok(ops)
}

/// Where the program may be: a name with a slash is a path, any other is looked for along the PATH of the container.
fn candidates(name: &str, env: &[String]) -> Result<Vec<CString>, CompileError> {
    if name.is_empty() {
        return Err(CompileError::invalid("process.args[0]", "is empty"));
    }
    if name.contains('/') {
        return Ok(vec![c_string("process.args[0]", name)?]);
    }
    // The last one counts, as for getenv(3) in most programs that set it twice.
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(defaults::PATH);
    path.split(':')
        .map(|directory| {
            let directory = if directory.is_empty() { "." } else { directory };
            c_string("process.args[0]", &format!("{directory}/{name}"))
        })
        .collect()
}

/// The number of `RLIMIT_…` (asm-generic/resource.h, which both architectures use).
pub fn resource_number(name: &str) -> Option<u32> {
    const NAMES: [&str; 16] = [
        "RLIMIT_CPU",
        "RLIMIT_FSIZE",
        "RLIMIT_DATA",
        "RLIMIT_STACK",
        "RLIMIT_CORE",
        "RLIMIT_RSS",
        "RLIMIT_NPROC",
        "RLIMIT_NOFILE",
        "RLIMIT_MEMLOCK",
        "RLIMIT_AS",
        "RLIMIT_LOCKS",
        "RLIMIT_SIGPENDING",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
    ];
    NAMES.iter().position(|known| *known == name).map(|index| index as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(name: &str, env: &[&str]) -> Vec<String> {
        let env: Vec<String> = env.iter().map(|entry| (*entry).to_owned()).collect();
        let list = candidates(name, &env).unwrap();
        list.into_iter().map(|path| path.into_string().unwrap()).collect()
    }

    #[test]
    fn a_name_is_looked_for_along_the_path_of_the_container() {
        assert_eq!(tried("sh", &["PATH=/a:/b"]), ["/a/sh", "/b/sh"]);
        assert_eq!(tried("sh", &["PATH=:/b"]), ["./sh", "/b/sh"]);
        assert_eq!(tried("sh", &[]).len(), 6);
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        assert_eq!(tried("./run", &["PATH=/a"]), ["./run"]);
    }

    #[test]
    fn limits_have_the_numbers_of_the_kernel() {
        assert_eq!(resource_number("RLIMIT_NOFILE"), Some(libc::RLIMIT_NOFILE));
        assert_eq!(resource_number("RLIMIT_CORE"), Some(libc::RLIMIT_CORE));
        assert_eq!(resource_number("RLIMIT_RTTIME"), Some(libc::RLIMIT_RTTIME));
        assert_eq!(resource_number("nofile"), None);
    }
}
