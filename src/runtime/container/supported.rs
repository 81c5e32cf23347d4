//! What of the specification has no effect yet, or needs what was not given: refused by name, never ignored.

use crate::runtime::oci::{OciConfig, OciLinuxConfig, OciNamespaceKind, OciProcess, OciRootfsPropagation};

use super::compile::CompileError;
use super::compile_linux::is_default;
use super::detached::Detachment;
use super::surroundings::Surroundings;

pub fn check(
    config: &OciConfig,
    surroundings: &Surroundings,
    detachment: Option<&Detachment>,
) -> Result<(), CompileError> {
    if let Some(hooks) = &config.hooks
        && detachment.is_none()
    {
        refuse_if(hooks.points().iter().any(|(_, list)| !list.is_empty()), "hooks")?;
    }
    if let Some(process) = &config.process {
        check_process(process, detachment)?;
    }
    let Some(linux) = &config.linux else {
        return Err(CompileError::invalid("linux.namespaces", "lacks a `mount` namespace"));
    };
    check_namespaces(linux, surroundings, detachment)?;
    check_linux(linux, detachment)?;
    check_given(linux, surroundings, detachment)
}

fn refuse_if(present: bool, path: &str) -> Result<(), CompileError> {
    if present { Err(CompileError::unsupported(path)) } else { Ok(()) }
}

fn check_process(process: &OciProcess, detachment: Option<&Detachment>) -> Result<(), CompileError> {
    let said = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let attached = detachment.is_none();
    refuse_if(attached && process.terminal, "process.terminal")?;
    refuse_if(attached && process.console_size.is_some(), "process.consoleSize")?;
    refuse_if(attached && process.exec_cpu_affinity.is_some(), "process.execCPUAffinity")?;
    refuse_if(attached && said(&process.apparmor_profile), "process.apparmorProfile")?;
    refuse_if(said(&process.selinux_label), "process.selinuxLabel")
}

fn check_namespaces(
    linux: &OciLinuxConfig,
    surroundings: &Surroundings,
    detachment: Option<&Detachment>,
) -> Result<(), CompileError> {
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let path = format!("linux.namespaces[{index}]");
        let joined = namespace.path.is_some();
        match (detachment, namespace.kind) {
            // What is new in it would belong to the host's user namespace and not to the joined one.
            (Some(_), OciNamespaceKind::User) => refuse_if(joined, &format!("{path}.path"))?,
            (Some(_), _) => {}
            (None, kind) => {
                refuse_if(joined, &format!("{path}.path"))?;
                refuse_if(matches!(kind, OciNamespaceKind::User | OciNamespaceKind::Time), &path)?;
            }
        }
    }
    if linux.namespace(OciNamespaceKind::Mount).is_none() {
        return Err(CompileError::invalid("linux.namespaces", "lacks a `mount` namespace"));
    }
    if surroundings.init && linux.namespace(OciNamespaceKind::Pid).is_none() {
        return Err(CompileError::invalid("linux.namespaces", "lacks the `pid` namespace that an init needs"));
    }
    Ok(())
}

fn check_linux(linux: &OciLinuxConfig, detachment: Option<&Detachment>) -> Result<(), CompileError> {
    let new = |kind| linux.namespace(kind).is_some_and(|namespace| namespace.path.is_none());
    if !(new(OciNamespaceKind::User) || linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty()) {
        return Err(CompileError::invalid("linux.uidMappings", "needs a new `user` namespace"));
    }
    if !new(OciNamespaceKind::Time) && !linux.time_offsets.is_empty() {
        return Err(CompileError::invalid("linux.timeOffsets", "needs a new `time` namespace"));
    }
    refuse_if(!linux.net_devices.is_empty(), "linux.netDevices")?;
    refuse_if(linux.intel_rdt.is_some(), "linux.intelRdt")?;
    refuse_if(linux.mount_label.as_ref().is_some_and(|label| !label.is_empty()), "linux.mountLabel")?;
    for (index, device) in linux.devices.iter().enumerate() {
        // Those that are there anyway may be named.
        let refused = detachment.is_none() && !is_default(device);
        refuse_if(refused, &format!("linux.devices[{index}]"))?;
    }
    let private =
        matches!(linux.rootfs_propagation, None | Some(OciRootfsPropagation::Private | OciRootfsPropagation::Rprivate));
    refuse_if(detachment.is_none() && !private, "linux.rootfsPropagation")
}

/// What the caller has to have done before.
fn check_given(
    linux: &OciLinuxConfig,
    surroundings: &Surroundings,
    detachment: Option<&Detachment>,
) -> Result<(), CompileError> {
    if let Some(resources) = &linux.resources {
        refuse_if(detachment.is_none() && !resources.devices.is_empty(), "linux.resources.devices")?;
        let asked = *resources != Default::default();
        if asked && surroundings.cgroup_procs.is_empty() {
            return Err(CompileError::invalid("linux.resources", "has no cgroup to be applied to"));
        }
    }
    match (&linux.seccomp, &surroundings.seccomp) {
        (Some(_), None) => Err(CompileError::invalid("linux.seccomp", "was not compiled")),
        (Some(seccomp), Some(program)) => {
            let path = "linux.seccomp.listenerPath";
            refuse_if(detachment.is_none() && seccomp.listener_path.is_some(), path)?;
            if program.notifies() && seccomp.listener_path.is_none() {
                return Err(CompileError::invalid(path, "is missing: an action notifies"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
