//! What a configuration does not say and the container needs: where its root comes from, which cgroups it joins, what the
//! host's cgroups look like. Plain data, filled in by the caller.

use std::path::PathBuf;

use super::op::SeccompProgram;

#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Relative sources of binds start here.
    pub bundle: PathBuf,
    pub rootfs: Rootfs,
    /// `cgroup.procs` of every hierarchy, to be joined before anything else. Whoever gives them has applied the resources of
    /// the configuration to those cgroups.
    pub cgroup_procs: Vec<PathBuf>,
    /// For mounts of type `cgroup`.
    pub cgroup_view: CgroupView,
    /// PID 1 stays a small process of ours that reaps and forwards signals.
    pub init: bool,
    pub network: NetworkOrigin,
    /// The configuration's seccomp section, compiled.
    pub seccomp: Option<SeccompProgram>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// The directory itself, with what is mounted below it; writes go to it.
    Directory(PathBuf),
    /// Layers seen as one tree; writes go to `upper`. `work` is empty, on the same filesystem.
    Overlay {
        /// The topmost first.
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
    },
}

/// Whose network namespace the caller lives in, for configurations that do not make a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkOrigin {
    /// The host's: its parameters are not the container's to set.
    Host,
    /// One that was made for this container.
    Own,
}

/// How the host has its cgroups mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CgroupView {
    /// Not known: a configuration that mounts cgroups is refused.
    #[default]
    Unknown,
    /// Version 2 alone.
    Unified,
    /// Version 1, maybe beside version 2: one directory for each.
    Hierarchies(Vec<CgroupHierarchy>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupHierarchy {
    /// Its name below the mount of type `cgroup`.
    pub directory: String,
    /// `cgroup` or `cgroup2`.
    pub kind: &'static str,
    /// What picks the hierarchy: controllers, `none`, `name=…`.
    pub parameters: Vec<String>,
}

impl CgroupView {
    /// From the text of `/proc/self/mountinfo` (proc(5)); what is mounted at or below `/sys/fs/cgroup` counts.
    pub fn from_mountinfo(mountinfo: &str) -> Self {
        let mut hierarchies = Vec::new();
        for line in mountinfo.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let target = mount.split(' ').nth(4).unwrap_or_default();
            let mut fields = filesystem.split(' ');
            let kind = match fields.next() {
                Some("cgroup") => "cgroup",
                Some("cgroup2") => "cgroup2",
                _ => continue,
            };
            if target == "/sys/fs/cgroup" && kind == "cgroup2" {
                return Self::Unified;
            }
            let Some(directory) = target.strip_prefix("/sys/fs/cgroup/").filter(|name| !name.contains('/')) else {
                continue;
            };
            let options = fields.nth(1).unwrap_or_default();
            let parameters = if kind == "cgroup" { hierarchy_parameters(options) } else { Vec::new() };
            hierarchies.push(CgroupHierarchy { directory: directory.to_owned(), kind, parameters });
        }
        if hierarchies.is_empty() { Self::Unknown } else { Self::Hierarchies(hierarchies) }
    }
}

/// The parameters that pick a hierarchy of version 1, out of its superblock's options.
fn hierarchy_parameters(options: &str) -> Vec<String> {
    const OTHERS: [&str; 8] =
        ["rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode", "favordynmods", "seclabel"];
    let picked: Vec<String> = options
        .split(',')
        .filter(|option| !OTHERS.contains(option) && !option.starts_with("release_agent="))
        .map(str::to_owned)
        .collect();
    if picked.iter().all(|option| option.starts_with("name=")) {
        return std::iter::once("none".to_owned()).chain(picked).collect();
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_two_alone_is_seen() {
        let text = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(CgroupView::from_mountinfo(text), CgroupView::Unified);
    }

    #[test]
    fn each_hierarchy_of_a_mixed_host_is_seen() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let CgroupView::Hierarchies(list) = CgroupView::from_mountinfo(text) else { panic!("hierarchies") };
        assert_eq!(list[0].parameters, ["cpu", "cpuacct"]);
        assert_eq!(list[1].parameters, ["none", "name=systemd"]);
        assert_eq!((list[2].directory.as_str(), list[2].kind), ("unified", "cgroup2"));
    }

    #[test]
    fn a_host_without_cgroups_is_unknown() {
        assert_eq!(CgroupView::from_mountinfo("22 27 0:21 / /proc rw - proc proc rw\n"), CgroupView::Unknown);
    }
}
