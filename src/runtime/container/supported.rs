//! What of the specification has no effect yet, or needs what was not given: refused by name, never ignored.

use crate::runtime::oci::{
    OciConfig, OciIdMapping, OciLinuxConfig, OciNamespaceKind, OciProcess, OciRootfsPropagation,
};

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
    if let Some(process) = &config.process {
        check_ids(process, linux)?;
    }
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
    refuse_if(attached && said(&process.selinux_label), "process.selinuxLabel")
}

/// Whoever a new user namespace does not know cannot be in it: told at creation and not at the start.
fn check_ids(process: &OciProcess, linux: &OciLinuxConfig) -> Result<(), CompileError> {
    if linux.namespace(OciNamespaceKind::User).is_none_or(|namespace| namespace.path.is_some()) {
        return Ok(());
    }
    let known = |mappings: &[OciIdMapping], id: u32| {
        mappings.iter().any(|one| id.checked_sub(one.container_id).is_some_and(|offset| offset < one.size))
    };
    let unknown = |path: String, id: u32| {
        CompileError::invalid(path, format!("is {id}, which the mappings of the user namespace do not have"))
    };
    for (path, mappings) in [("uidMappings", &linux.uid_mappings), ("gidMappings", &linux.gid_mappings)] {
        if !known(mappings, 0) {
            let fault = "lack 0, the root of the new user namespace";
            return Err(CompileError::invalid(format!("linux.{path}"), fault));
        }
    }
    if !known(&linux.uid_mappings, process.user.uid) {
        return Err(unknown("process.user.uid".to_owned(), process.user.uid));
    }
    let groups = [("process.user.gid".to_owned(), process.user.gid)].into_iter();
    let others = process.user.additional_gids.iter().enumerate();
    let mut all = groups.chain(others.map(|(index, id)| (format!("process.user.additionalGids[{index}]"), *id)));
    all.find(|(_, id)| !known(&linux.gid_mappings, *id)).map_or(Ok(()), |(path, id)| Err(unknown(path, id)))
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
    let attached = detachment.is_none();
    refuse_if(attached && !linux.net_devices.is_empty(), "linux.netDevices")?;
    refuse_if(attached && linux.intel_rdt.is_some(), "linux.intelRdt")?;
    refuse_if(attached && linux.mount_label.as_ref().is_some_and(|label| !label.is_empty()), "linux.mountLabel")?;
    if !linux.net_devices.is_empty() && linux.namespace(OciNamespaceKind::Network).is_none() {
        return Err(CompileError::invalid("linux.netDevices", "needs a `network` namespace"));
    }
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
