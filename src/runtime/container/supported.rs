//! What of the specification has no effect yet, or needs what was not given: refused by name, never ignored.

use crate::runtime::oci::{OciConfig, OciLinuxConfig, OciNamespaceKind, OciProcess, OciRootfsPropagation};

use super::compile::CompileError;
use super::defaults;
use super::surroundings::Surroundings;

pub fn check(config: &OciConfig, surroundings: &Surroundings) -> Result<(), CompileError> {
    if let Some(hooks) = &config.hooks {
        refuse_if(hooks.points().iter().any(|(_, list)| !list.is_empty()), "hooks")?;
    }
    if let Some(process) = &config.process {
        check_process(process)?;
    }
    let Some(linux) = &config.linux else {
        return Err(CompileError::invalid("linux.namespaces", "lacks a `mount` namespace"));
    };
    check_namespaces(linux, surroundings)?;
    check_linux(linux)?;
    check_given(linux, surroundings)
}

fn refuse_if(present: bool, path: &str) -> Result<(), CompileError> {
    if present { Err(CompileError::unsupported(path)) } else { Ok(()) }
}

fn check_process(process: &OciProcess) -> Result<(), CompileError> {
    let said = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    refuse_if(process.terminal, "process.terminal")?;
    refuse_if(process.console_size.is_some(), "process.consoleSize")?;
    refuse_if(said(&process.apparmor_profile), "process.apparmorProfile")?;
    refuse_if(said(&process.selinux_label), "process.selinuxLabel")?;
    refuse_if(process.scheduler.is_some(), "process.scheduler")?;
    refuse_if(process.io_priority.is_some(), "process.ioPriority")?;
    refuse_if(process.exec_cpu_affinity.is_some(), "process.execCPUAffinity")
}

fn check_namespaces(linux: &OciLinuxConfig, surroundings: &Surroundings) -> Result<(), CompileError> {
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let path = format!("linux.namespaces[{index}]");
        refuse_if(namespace.path.is_some(), &format!("{path}.path"))?;
        refuse_if(matches!(namespace.kind, OciNamespaceKind::User | OciNamespaceKind::Time), &path)?;
    }
    if linux.namespace(OciNamespaceKind::Mount).is_none() {
        return Err(CompileError::invalid("linux.namespaces", "lacks a `mount` namespace"));
    }
    if surroundings.init && linux.namespace(OciNamespaceKind::Pid).is_none() {
        return Err(CompileError::invalid("linux.namespaces", "lacks the `pid` namespace that an init needs"));
    }
    Ok(())
}

fn check_linux(linux: &OciLinuxConfig) -> Result<(), CompileError> {
    refuse_if(!linux.uid_mappings.is_empty(), "linux.uidMappings")?;
    refuse_if(!linux.gid_mappings.is_empty(), "linux.gidMappings")?;
    refuse_if(!linux.time_offsets.is_empty(), "linux.timeOffsets")?;
    refuse_if(!linux.net_devices.is_empty(), "linux.netDevices")?;
    refuse_if(linux.intel_rdt.is_some(), "linux.intelRdt")?;
    refuse_if(linux.memory_policy.is_some(), "linux.memoryPolicy")?;
    refuse_if(linux.mount_label.as_ref().is_some_and(|label| !label.is_empty()), "linux.mountLabel")?;
    refuse_if(linux.personality.is_some(), "linux.personality")?;
    let private =
        matches!(linux.rootfs_propagation, None | Some(OciRootfsPropagation::Private | OciRootfsPropagation::Rprivate));
    refuse_if(!private, "linux.rootfsPropagation")?;
    for (index, device) in linux.devices.iter().enumerate() {
        // Those that are there anyway may be named.
        let is_default = defaults::DEVICES.iter().any(|known| {
            device.path.strip_prefix("/dev/") == Some(known.name)
                && device.major == Some(known.major.into())
                && device.minor == Some(known.minor.into())
        });
        refuse_if(!is_default, &format!("linux.devices[{index}]"))?;
    }
    Ok(())
}

/// What the caller has to have done before.
fn check_given(linux: &OciLinuxConfig, surroundings: &Surroundings) -> Result<(), CompileError> {
    if let Some(resources) = &linux.resources {
        refuse_if(!resources.devices.is_empty(), "linux.resources.devices")?;
        let asked = *resources != Default::default();
        if asked && surroundings.cgroup_procs.is_empty() {
            return Err(CompileError::invalid("linux.resources", "has no cgroup to be applied to"));
        }
    }
    match (&linux.seccomp, &surroundings.seccomp) {
        (Some(_), None) => Err(CompileError::invalid("linux.seccomp", "was not compiled")),
        (Some(seccomp), Some(_)) => refuse_if(seccomp.listener_path.is_some(), "linux.seccomp.listenerPath"),
        _ => Ok(()),
    }
}
