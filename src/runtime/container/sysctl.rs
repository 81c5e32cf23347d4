//! Which kernel parameters a container may set: those that belong to a namespace of its own. Pure.

use thiserror::Error;

/// The namespaces that are the container's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    pub ipc: bool,
    pub uts: bool,
    pub network: bool,
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SysctlFault {
    #[error("is no name of a kernel parameter")]
    Name,
    #[error("has a value with a line end or a zero byte")]
    Value,
    #[error("concerns the whole host")]
    Host,
    #[error("needs an `{0}` namespace of the container's own")]
    Shared(&'static str),
}

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The file of a parameter below procfs, such as `sys/net/core/somaxconn`, if the container may write this value to it.
///
/// In a name, dots part the components; if a slash comes first, slashes do, and dots stand for themselves (sysctl(8)).
pub fn path_of(name: &str, value: &str, scope: Scope) -> Result<String, SysctlFault> {
    let slashed = name.find(['.', '/']).is_some_and(|index| name.as_bytes().get(index) == Some(&b'/'));
    let components: Vec<String> = if slashed {
        name.split('/').map(str::to_owned).collect()
    } else {
        name.split('.').map(|component| component.replace('/', ".")).collect()
    };
    let sound = |component: &String| {
        !component.is_empty()
            && !component.starts_with('.')
            && !component.contains("..")
            && component.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:@".contains(&byte))
    };
    if !components.iter().all(sound) {
        return Err(SysctlFault::Name);
    }
    // One value per write: what follows a line end could be meant for another parameter.
    if value.contains(['\n', '\r', '\0']) {
        return Err(SysctlFault::Value);
    }
    let dotted = components.join(".");
    let needs = |own: bool, kind: &'static str| if own { Ok(()) } else { Err(SysctlFault::Shared(kind)) };
    match components.first().map(String::as_str) {
        Some("net") => needs(scope.network, "network")?,
        Some("fs") if components.get(1).is_some_and(|second| second == "mqueue") => needs(scope.ipc, "ipc")?,
        Some("kernel") if IPC.contains(&dotted.as_str()) => needs(scope.ipc, "ipc")?,
        Some("kernel") if dotted == "kernel.domainname" || dotted == "kernel.hostname" => needs(scope.uts, "uts")?,
        _ => return Err(SysctlFault::Host),
    }
    Ok(format!("sys/{}", components.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Scope = Scope { ipc: true, uts: true, network: true };

    #[test]
    fn parameters_of_own_namespaces_are_allowed() {
        assert_eq!(path_of("net.core.somaxconn", "1", ALL).unwrap(), "sys/net/core/somaxconn");
        assert_eq!(path_of("fs.mqueue.msg_max", "1", ALL).unwrap(), "sys/fs/mqueue/msg_max");
        assert_eq!(
            path_of("net/ipv4/conf/eth0.1/forwarding", "1", ALL).unwrap(),
            "sys/net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            path_of("net.ipv4.conf.eth0/1.forwarding", "1", ALL).unwrap(),
            "sys/net/ipv4/conf/eth0.1/forwarding"
        );
    }

    #[test]
    fn parameters_of_the_host_are_refused() {
        for name in ["kernel.core_pattern", "vm.swappiness", "fs.file-max", "kernel", "kernel.shmmax.x"] {
            assert_eq!(path_of(name, "1", ALL), Err(SysctlFault::Host), "{name}");
        }
        let host_network = Scope { network: false, ..ALL };
        assert_eq!(path_of("net.core.somaxconn", "1", host_network), Err(SysctlFault::Shared("network")));
    }

    #[test]
    fn names_cannot_climb_and_values_cannot_smuggle() {
        for name in ["net.//kernel.core_pattern", "net/../kernel/core_pattern", "net..ipv4", "", "net.a b", "net.a+b"] {
            assert_eq!(path_of(name, "1", ALL), Err(SysctlFault::Name), "{name}");
        }
        let smuggled = "1\nkernel.core_pattern=|/bin/sh";
        assert_eq!(path_of("net.core.somaxconn", smuggled, ALL), Err(SysctlFault::Value));
    }
}
