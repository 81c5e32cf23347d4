//! Labels of AppArmor and SELinux for a process and for its mounts. Pure but for the look at the host.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use crate::runtime::oci::{OciLinuxConfig, OciProcess};

use super::compile::{CompileError, c_string, literal};
use super::op::SetupOp;

/// Which of the two the host's kernel runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityModules {
    pub apparmor: bool,
    pub selinux: bool,
}

impl SecurityModules {
    pub fn of_host() -> Self {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Self {
            apparmor: enabled.is_ok_and(|text| text.starts_with('Y')),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

/// What the next exec is told: apparmor(7), `security_setexeccon`. Written to the host's procfs.
pub fn of_process(process: &OciProcess, modules: SecurityModules) -> Result<Vec<SetupOp>, CompileError> {
    let mut ops = Vec::new();
    if let Some(profile) = said(process.apparmor_profile.as_ref()) {
        if !modules.apparmor {
            return Err(CompileError::invalid(
                "process.apparmorProfile",
                "needs AppArmor, which this host does not run",
            ));
        }
        let path = literal("/proc/self/attr/apparmor/exec");
        ops.push(SetupOp::WriteLabel { path, value: format!("exec {profile}") });
    }
    if let Some(label) = said(process.selinux_label.as_ref()) {
        if !modules.selinux {
            return Err(CompileError::invalid("process.selinuxLabel", "needs SELinux, which this host does not run"));
        }
        ops.push(SetupOp::WriteLabel { path: literal("/proc/self/attr/exec"), value: label.to_owned() });
    }
    Ok(ops)
}

/// `context=` of mount(8). `None` for the modules: labels were refused before.
pub fn of_mounts(
    linux: Option<&OciLinuxConfig>,
    modules: Option<SecurityModules>,
) -> Result<Option<CString>, CompileError> {
    let Some(label) = said(linux.and_then(|linux| linux.mount_label.as_ref())) else { return Ok(None) };
    if !modules.is_some_and(|modules| modules.selinux) {
        return Err(CompileError::invalid("linux.mountLabel", "needs SELinux, which this host does not run"));
    }
    c_string("linux.mountLabel", label).map(Some)
}

/// The kernel's own filesystems are labelled by its policy.
pub fn take_label(kind: &str) -> bool {
    !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2")
}

/// An empty label is none.
fn said(label: Option<&String>) -> Option<&str> {
    label.map(String::as_str).filter(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_written_where_the_host_runs_their_module() {
        let process = OciProcess {
            apparmor_profile: Some("docker-default".to_owned()),
            selinux_label: Some("system_u:system_r:container_t:s0".to_owned()),
            ..OciProcess::default()
        };
        let ops = of_process(&process, SecurityModules { apparmor: true, selinux: true }).unwrap();
        let [SetupOp::WriteLabel { path, value }, SetupOp::WriteLabel { path: second, value: label }] = &ops[..] else {
            panic!("{ops:?}")
        };
        assert_eq!((path.as_c_str(), value.as_str()), (c"/proc/self/attr/apparmor/exec", "exec docker-default"));
        assert_eq!((second.as_c_str(), label.as_str()), (c"/proc/self/attr/exec", "system_u:system_r:container_t:s0"));
        for (apparmor, selinux, refused) in [(false, true, "apparmorProfile"), (true, false, "selinuxLabel")] {
            let refusal = of_process(&process, SecurityModules { apparmor, selinux }).unwrap_err().to_string();
            assert!(refusal.contains(refused), "{refusal}");
        }
    }

    #[test]
    fn filesystems_of_the_kernel_take_no_label() {
        assert!(take_label("tmpfs") && !take_label("proc"));
        let linux = OciLinuxConfig { mount_label: Some("l".to_owned()), ..OciLinuxConfig::default() };
        assert!(of_mounts(Some(&linux), Some(SecurityModules::default())).is_err());
        let label = of_mounts(Some(&linux), Some(SecurityModules { selinux: true, ..SecurityModules::default() }));
        assert_eq!(label.unwrap().unwrap().as_c_str(), c"l");
    }
}
