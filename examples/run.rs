//! Run a command in a container from a directory that holds a root filesystem:
//! `run DIRECTORY COMMAND [ARGUMENT…]`, as root.

use std::os::fd::AsFd;
use std::path::PathBuf;

use stack::runtime::container::{self, CgroupView, NetworkOrigin, Program, Rootfs, Stdio, Surroundings, defaults};
use stack::runtime::oci::{OciCapabilities, OciConfig, OciLinuxConfig, OciNamespace, OciNamespaceKind, OciProcess};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Programs in the container must not be able to overwrite this one.
    container::reexec_protected()?;
    let mut arguments = std::env::args().skip(1);
    let root = PathBuf::from(arguments.next().ok_or("usage: run DIRECTORY COMMAND [ARGUMENT…]")?).canonicalize()?;
    let capabilities: Vec<String> = defaults::CAPABILITIES.map(str::to_owned).to_vec();
    use OciNamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let config = OciConfig {
        oci_version: "1.3.0".to_owned(),
        process: Some(OciProcess {
            cwd: "/".to_owned(),
            args: arguments.collect(),
            env: vec![format!("PATH={}", defaults::PATH)],
            no_new_privileges: true,
            capabilities: Some(OciCapabilities {
                bounding: capabilities.clone(),
                effective: capabilities.clone(),
                permitted: capabilities,
                ..OciCapabilities::default()
            }),
            ..OciProcess::default()
        }),
        hostname: Some("example".to_owned()),
        mounts: defaults::mounts(),
        linux: Some(OciLinuxConfig {
            namespaces: [Pid, Network, Mount, Ipc, Uts, Cgroup].map(|kind| OciNamespace { kind, path: None }).to_vec(),
            masked_paths: defaults::MASKED_PATHS.map(str::to_owned).to_vec(),
            readonly_paths: defaults::READONLY_PATHS.map(str::to_owned).to_vec(),
            ..OciLinuxConfig::default()
        }),
        ..OciConfig::default()
    };
    config.validate()?;
    let surroundings = Surroundings {
        bundle: root.clone(),
        rootfs: Rootfs::Directory(root),
        cgroup_procs: Vec::new(),
        cgroup_view: CgroupView::from_mountinfo(&std::fs::read_to_string("/proc/self/mountinfo")?),
        init: true,
        network: NetworkOrigin::Own,
        seccomp: None,
    };
    let container = container::spawn(&Program::compile(&config, &surroundings)?, &Stdio::inherit())?;
    std::process::exit(container::wait(container.pidfd.as_fd())?);
}
