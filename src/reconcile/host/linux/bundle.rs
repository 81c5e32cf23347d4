//! What a container's bundle says: decided here from the container's spec, written by [`super::container`].

use std::path::{Path, PathBuf};

use crate::model::{MountSource, MountUse};
use crate::monitor::spec::{MonitorSpec, RootfsSpec};
use crate::plan::{ContainerSpec, DesiredContainer};
use crate::runtime::container::defaults;
use crate::runtime::oci::{
    OCI_VERSION, OciCapabilities, OciConfig, OciLinuxConfig, OciMount, OciNamespace, OciNamespaceKind, OciProcess,
    OciRlimit, OciRoot, OciUser,
};
use crate::runtime::seccomp::LinuxSeccomp;

/// What was found out on the host for a container's bundle.
pub(super) struct Found {
    pub bundle: PathBuf,
    /// Layers, the top one first.
    pub lower: Vec<PathBuf>,
    pub writable: PathBuf,
    /// Folders of the host that the image shows, read-only.
    pub image_binds: Vec<(PathBuf, String)>,
    pub volumes: Vec<PathBuf>,
    pub user: OciUser,
    pub seccomp: Option<LinuxSeccomp>,
    pub cgroup: String,
    pub cgroup_root: PathBuf,
    pub cgroup_procs: Vec<PathBuf>,
    pub monitor_procs: Vec<PathBuf>,
    pub log_folder: PathBuf,
}

/// The files of a bundle beside `config.json`.
pub(super) const HOSTS: &str = "hosts";
pub(super) const RESOLV_CONF: &str = "resolv.conf";
pub(super) const HOSTNAME: &str = "hostname";
pub(super) const SECRETS: &str = "secrets";
pub(super) const FILES: &str = "files";

/// The monitor's part of a bundle.
pub(super) fn monitor_spec(desired: &DesiredContainer, found: &Found) -> MonitorSpec {
    MonitorSpec {
        instance: desired.instance.clone(),
        rootfs: RootfsSpec::Overlay {
            lower: found.lower.clone(),
            upper: found.writable.join("upper"),
            work: found.writable.join("work"),
        },
        cgroup_procs: found.cgroup_procs.clone(),
        monitor_cgroup_procs: found.monitor_procs.clone(),
        cgroup_root: found.cgroup_root.clone(),
        cgroup: found.cgroup.clone(),
        own_netns: true,
        init: desired.spec.init,
        restart: desired.live.restart,
        health: desired.live.health.clone(),
        log_dir: found.log_folder.clone(),
        log: desired.live.log,
        stop_signal: desired.spec.stop_signal,
        stop_timeout_ms: desired.live.stop_timeout_ms,
        epoch: String::new(),
    }
}

/// The container's part: an OCI configuration.
pub(super) fn oci_config(desired: &DesiredContainer, found: &Found) -> OciConfig {
    let spec = &desired.spec;
    let namespaces = [
        OciNamespaceKind::Pid,
        OciNamespaceKind::Mount,
        OciNamespaceKind::Ipc,
        OciNamespaceKind::Uts,
        OciNamespaceKind::Cgroup,
    ];
    OciConfig {
        oci_version: OCI_VERSION.into(),
        root: Some(OciRoot { path: "rootfs".into(), readonly: spec.read_only }),
        process: Some(OciProcess {
            cwd: spec.workdir.clone(),
            env: spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            args: spec.args.clone(),
            rlimits: spec
                .ulimits
                .iter()
                .map(|limit| OciRlimit {
                    kind: format!("RLIMIT_{}", limit.resource.to_uppercase()),
                    soft: limit.soft,
                    hard: limit.hard,
                })
                .collect(),
            capabilities: Some(capabilities(spec)),
            no_new_privileges: true,
            oom_score_adj: spec.oom_score_adj.map(i32::from),
            user: found.user.clone(),
            ..OciProcess::default()
        }),
        hostname: Some(spec.hostname.clone()),
        mounts: mounts(spec, found),
        annotations: spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        linux: Some(OciLinuxConfig {
            namespaces: namespaces.into_iter().map(|kind| OciNamespace { kind, path: None }).collect(),
            cgroups_path: Some(format!("/{}", found.cgroup)),
            sysctl: spec.sysctls.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            seccomp: found.seccomp.clone(),
            masked_paths: defaults::MASKED_PATHS.map(str::to_string).to_vec(),
            readonly_paths: defaults::READONLY_PATHS.map(str::to_string).to_vec(),
            ..OciLinuxConfig::default()
        }),
        ..OciConfig::default()
    }
}

/// The default set, less what is dropped, with what is added. `ALL` stands for every one of them.
pub(super) fn capability_names(spec: &ContainerSpec) -> Vec<String> {
    let dropped = |name: &String| spec.cap_drop.iter().any(|drop| drop == "ALL" || *name == format!("CAP_{drop}"));
    let mut names: Vec<String> =
        defaults::CAPABILITIES.iter().map(|name| name.to_string()).filter(|name| !dropped(name)).collect();
    for added in &spec.cap_add {
        let name = format!("CAP_{added}");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Nothing is inheritable: files of the image with capabilities of their own cannot raise what the process may do.
fn capabilities(spec: &ContainerSpec) -> OciCapabilities {
    let names = capability_names(spec);
    OciCapabilities {
        effective: names.clone(),
        permitted: names.clone(),
        bounding: names,
        inheritable: vec![],
        ambient: vec![],
    }
}

fn mounts(spec: &ContainerSpec, found: &Found) -> Vec<OciMount> {
    let mut mounts = Vec::new();
    for (folder, target) in &found.image_binds {
        mounts.push(bind(folder, target, &["rbind", "ro", "nosuid", "nodev"]));
    }
    mounts.extend(defaults::mounts());
    for (volume, folder) in spec.volumes.iter().zip(&found.volumes) {
        mounts.push(bind(folder, &volume.target, &["bind", access(volume.read_only), "nosuid", "nodev"]));
    }
    mounts.extend(spec.mounts.iter().map(chosen_mount));
    for (file, target) in [(HOSTS, "/etc/hosts"), (RESOLV_CONF, "/etc/resolv.conf"), (HOSTNAME, "/etc/hostname")] {
        mounts.push(bind(&found.bundle.join(file), target, &["bind", "ro", "nosuid", "nodev", "noexec"]));
    }
    for (target, copy) in copies(spec) {
        mounts.push(bind(&found.bundle.join(copy), target, &["bind", "ro", "nosuid", "nodev", "noexec"]));
    }
    mounts
}

/// Where each file and secret of a container is seen, and the copy in its bundle that is seen there.
pub(super) fn copies(spec: &ContainerSpec) -> impl Iterator<Item = (&str, PathBuf)> {
    let files = spec.files.iter().map(|file| file.target.as_str()).enumerate();
    let secrets = spec.secrets.iter().map(|secret| secret.target.as_str()).enumerate();
    let below =
        |folder: &'static str| move |(index, target): (usize, _)| (target, Path::new(folder).join(index.to_string()));
    files.map(below(FILES)).chain(secrets.map(below(SECRETS)))
}

fn chosen_mount(mount: &MountUse) -> OciMount {
    match &mount.source {
        MountSource::Bind(folder) => {
            bind(folder, &mount.target, &["rbind", access(mount.read_only), "nosuid", "nodev"])
        }
        MountSource::Tmpfs { size, mode } => OciMount {
            destination: mount.target.clone(),
            kind: Some("tmpfs".into()),
            source: Some("tmpfs".into()),
            options: ["nosuid", "nodev", access(mount.read_only)]
                .map(str::to_string)
                .into_iter()
                .chain([format!("size={}", size.0), format!("mode={mode:o}")])
                .collect(),
            ..OciMount::default()
        },
    }
}

fn access(read_only: bool) -> &'static str {
    if read_only { "ro" } else { "rw" }
}

fn bind(source: &Path, target: &str, options: &[&str]) -> OciMount {
    OciMount {
        destination: target.into(),
        kind: Some("bind".into()),
        source: Some(source.to_string_lossy().into_owned()),
        options: options.iter().map(|option| option.to_string()).collect(),
        ..OciMount::default()
    }
}

/// A container's `/etc/resolv.conf`: the host's name servers but for those on its loopback, which a container cannot
/// reach.
pub(super) fn resolv_conf(host: &str) -> String {
    let is_loopback = |server: &str| server.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    let kept: Vec<&str> = host
        .lines()
        .map(str::trim)
        .filter(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["nameserver", server] => !is_loopback(server),
            ["search" | "options" | "domain", ..] => true,
            _ => false,
        })
        .collect();
    kept.iter().map(|line| format!("{line}\n")).collect()
}

/// A user that was looked up.
pub(super) fn numeric_user(uid: u32, gid: u32, additional: Vec<u32>) -> OciUser {
    OciUser { uid, gid, additional_gids: additional, ..OciUser::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_the_host_s_loopback_are_left_out() {
        let host = "# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch lan\nnameserver ::1\n";
        assert_eq!(resolv_conf(host), "nameserver 192.0.2.1\nsearch lan\n");
    }
}
