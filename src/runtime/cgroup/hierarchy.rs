//! Where each controller is mounted, found out once from `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::CgroupError;
use super::files::{GroupDir, VALUE_LIMIT};

/// Bound on `/proc/self/mountinfo`: a line has some 150 bytes, and the kernel allows 100,000 mounts per namespace.
const MOUNTINFO_LIMIT: usize = 64 * 1024 * 1024;

/// A resource that the kernel limits or counts per group. `blkio` of v1 is called [`Io`](Self::Io) in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    Memory,
    Cpu,
    /// v1 only: processor time used. On v2 every group has `cpu.stat`.
    Cpuacct,
    Pids,
    Io,
    Cpuset,
    /// v1 only; on v2 freezing is part of every group.
    Freezer,
    /// v1 only; on v2 devices are guarded by an eBPF program.
    Devices,
    Hugetlb,
}

impl Controller {
    const ALL: [Self; 9] = [
        Self::Memory,
        Self::Cpu,
        Self::Cpuacct,
        Self::Pids,
        Self::Io,
        Self::Cpuset,
        Self::Freezer,
        Self::Devices,
        Self::Hugetlb,
    ];

    /// The name in `cgroup.controllers` and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Pids => "pids",
            Self::Io => "io",
            Self::Cpuset => "cpuset",
            Self::Freezer => "freezer",
            Self::Devices => "devices",
            Self::Hugetlb => "hugetlb",
        }
    }

    /// Understands v1's and v2's names.
    fn parse(name: &str) -> Option<Self> {
        let name = if name == "blkio" { "io" } else { name };
        Self::ALL.into_iter().find(|controller| controller.name() == name)
    }

    /// Limits and counters of ours hang on it, so that groups are made where it is mounted.
    fn is_used(self) -> bool {
        matches!(self, Self::Memory | Self::Cpu | Self::Cpuacct | Self::Pids | Self::Io)
    }

    /// Turned on for the children of a v2 group; the others cost something and limit nothing of ours.
    pub(super) fn is_enabled_below(self) -> bool {
        matches!(self, Self::Memory | Self::Cpu | Self::Pids | Self::Io | Self::Cpuset)
    }

    /// A file that every v2 group has for which the controller is on.
    pub(super) fn v2_probe(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("memory.max"),
            Self::Cpu => Some("cpu.weight"),
            Self::Pids => Some("pids.max"),
            Self::Io => Some("io.stat"),
            Self::Cpuset => Some("cpuset.cpus"),
            _ => None,
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The kernel's interface of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

/// One tree of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount_point: PathBuf,
    pub version: Version,
    /// What can be limited there; for v2 what `cgroup.controllers` of the mounted root names.
    pub controllers: Vec<Controller>,
}

/// Files that a probe reads; other than the host's own in tests.
#[derive(Debug, Clone)]
pub struct ProbeRoots {
    /// `/sys/fs/cgroup`
    pub sys_fs_cgroup: PathBuf,
    /// `/proc/self/mountinfo`
    pub mountinfo: PathBuf,
}

/// All hierarchies that groups are made in, the anchor first.
#[derive(Debug)]
pub struct Hierarchies {
    list: Vec<Hierarchy>,
    swap_accounting: OnceLock<bool>,
}

impl Hierarchies {
    /// Finds what is mounted at and below `sys_fs_cgroup`. Fails if nothing is.
    pub fn probe(sys_fs_cgroup: &Path) -> Result<Self, CgroupError> {
        let mountinfo = PathBuf::from("/proc/self/mountinfo");
        Self::probe_in(&ProbeRoots { sys_fs_cgroup: sys_fs_cgroup.into(), mountinfo })
    }

    /// As [`probe`](Self::probe), with the mount table at another place.
    pub fn probe_in(roots: &ProbeRoots) -> Result<Self, CgroupError> {
        let failed = |source| CgroupError::Read { path: roots.mountinfo.clone(), source };
        let file = std::fs::File::open(&roots.mountinfo).map_err(failed)?;
        let bytes = super::files::read_bounded(&file.into(), MOUNTINFO_LIMIT).map_err(failed)?;
        let bytes =
            bytes.ok_or_else(|| CgroupError::TooLong { path: roots.mountinfo.clone(), limit: MOUNTINFO_LIMIT })?;
        let mut list = mounted_below(&bytes, &roots.sys_fs_cgroup);
        for hierarchy in list.iter_mut().filter(|hierarchy| hierarchy.version == Version::V2) {
            hierarchy.controllers = available(&hierarchy.mount_point)?;
        }
        Self::choose(list).ok_or_else(|| CgroupError::NotMounted { root: roots.sys_fs_cgroup.clone() })
    }

    /// Keeps the anchor and the v1 hierarchies with a controller in use.
    fn choose(mut list: Vec<Hierarchy>) -> Option<Self> {
        // Stable: v2 comes first, v1 keeps the order of mounting.
        list.sort_by_key(|hierarchy| hierarchy.version == Version::V1);
        // cpuacct tells what `cpu.stat` of a v2 group tells as well; without v2 it is the only one to tell.
        let has_v2 = list.first()?.version == Version::V2;
        let is_used = |controller: &Controller| controller.is_used() && !(has_v2 && *controller == Controller::Cpuacct);
        list.retain(|hierarchy| hierarchy.version == Version::V2 || hierarchy.controllers.iter().any(is_used));
        (!list.is_empty()).then_some(Self { list, swap_accounting: OnceLock::new() })
    }

    /// Every hierarchy in use, the anchor first.
    pub fn list(&self) -> &[Hierarchy] {
        &self.list
    }

    /// The hierarchy with labels and `cgroup.kill`, whose directory says whether a group exists.
    pub fn anchor(&self) -> &Hierarchy {
        &self.list[0]
    }

    /// What can be limited or counted on this host.
    pub fn controllers(&self) -> Vec<Controller> {
        let mut all: Vec<_> = self.list.iter().flat_map(|hierarchy| hierarchy.controllers.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Where `controller` is, `None` if this host does not have it.
    pub fn of(&self, controller: Controller) -> Option<&Hierarchy> {
        self.list.iter().find(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// All controllers in use are those of one v2 hierarchy.
    pub fn is_unified(&self) -> bool {
        matches!(&self.list[..], [only] if only.version == Version::V2)
    }

    /// Swap can be limited: the kernel may be built or booted without (`swapaccount=0`). Looked up once, when first
    /// asked for. True where v2 cannot tell as there is no group yet that would show the file.
    pub fn swap_accounting(&self) -> bool {
        *self.swap_accounting.get_or_init(|| match self.of(Controller::Memory) {
            None => false,
            Some(Hierarchy { version: Version::V1, mount_point, .. }) => {
                mount_point.join("memory.memsw.limit_in_bytes").exists()
            }
            Some(Hierarchy { mount_point, .. }) => {
                a_child_with(mount_point, "memory.max").is_none_or(|child| child.join("memory.swap.max").exists())
            }
        })
    }
}

impl Hierarchies {
    /// Makes the next joins of groups fast, by a write that changes nothing: this process joins the group it is in.
    ///
    /// The kernel guards joining by a lock that is free of charge for everybody else while nobody joins. The first join
    /// after a while waits for all processors to notice (6 to 15 ms were measured); one that follows within 5 ms takes
    /// 0.1 to 0.7 ms, and renews that; 20 ms later all is as before. So call this from a thread of its own, some 15 ms
    /// before the first process joins. `CLONE_INTO_CGROUP` needs none of this, but knows v2 only.
    pub fn prepare_joins(&self) -> Result<(), CgroupError> {
        let path = PathBuf::from("/proc/self/cgroup");
        let text = std::fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
        // A group outside the mounted tree (seen from a namespace below it) cannot be reached; then the first join waits.
        let Some(own) = own_group(&text, self.anchor()).filter(|own| !own.contains("/..")) else { return Ok(()) };
        let path = self.anchor().mount_point.join(own.trim_start_matches('/')).join("cgroup.procs");
        std::fs::write(&path, "0").map_err(|source| CgroupError::Write { path, value: "0".into(), source })
    }
}

/// The caller's group in `hierarchy`, from `/proc/self/cgroup`: lines `number:controllers:path`, v2 without controllers.
fn own_group<'a>(text: &'a str, hierarchy: &Hierarchy) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let is_it = match hierarchy.version {
            Version::V2 => controllers.is_empty(),
            Version::V1 => controllers
                .split(',')
                .any(|name| Controller::parse(name).is_some_and(|one| hierarchy.controllers.contains(&one))),
        };
        is_it.then_some(path)
    })
}

/// The root group of v2 has no limits; the first group below it that has `file` shows what the others have.
fn a_child_with(root: &Path, file: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(root).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| path.join(file).exists())
}

/// `cgroup.controllers` of the group at `mount_point`.
fn available(mount_point: &Path) -> Result<Vec<Controller>, CgroupError> {
    let gone = || CgroupError::NotMounted { root: mount_point.into() };
    let text = GroupDir::open(mount_point.into())?.ok_or_else(gone)?.read("cgroup.controllers", VALUE_LIMIT)?;
    Ok(text.split_whitespace().filter_map(Controller::parse).collect())
}

/// The hierarchies that the mount table shows at and below `root`, each once, with v1's controllers.
fn mounted_below(mountinfo: &[u8], root: &Path) -> Vec<Hierarchy> {
    let mut list: Vec<(Hierarchy, String)> = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let Some((hierarchy, device)) = mount(line) else { continue };
        // A hierarchy mounted twice is one tree: the first place is as good as the second.
        let is_known = list.iter().any(|(_, known)| *known == device);
        if hierarchy.mount_point.starts_with(root) && !is_known {
            list.push((hierarchy, device));
        }
    }
    list.into_iter().map(|(hierarchy, _)| hierarchy).collect()
}

/// One line of `proc_pid_mountinfo(5)`, if it is a hierarchy of groups, with the device number that tells trees apart.
fn mount(line: &[u8]) -> Option<(Hierarchy, String)> {
    let separator = line.windows(3).position(|window| window == b" - ")?;
    let mut tail = line[separator + 3..].split(|byte| *byte == b' ');
    let version = match tail.next()? {
        b"cgroup2" => Version::V2,
        b"cgroup" => Version::V1,
        _ => return None,
    };
    let super_options = std::str::from_utf8(tail.nth(1)?).ok()?;
    let mut head = line[..separator].split(|byte| *byte == b' ');
    let device = String::from_utf8_lossy(head.nth(2)?).into_owned();
    let mount_point = unescape(head.nth(1)?);
    let controllers = match version {
        Version::V1 => super_options.split(',').filter_map(Controller::parse).collect(),
        Version::V2 => Vec::new(),
    };
    Some((Hierarchy { mount_point, version, controllers }, device))
}

/// The kernel writes space, tab, line feed and backslash as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
34 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
35 31 0:32 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
36 31 0:33 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
37 31 0:31 / /sys/fs/cgroup/again rw,relatime - cgroup cgroup rw,memory
38 31 0:34 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
39 31 0:35 / /mnt/else rw,relatime - cgroup cgroup rw,pids
";

    fn chosen(mountinfo: &str) -> Hierarchies {
        Hierarchies::choose(mounted_below(mountinfo.as_bytes(), Path::new("/sys/fs/cgroup"))).unwrap()
    }

    fn mount_points(hierarchies: &Hierarchies) -> Vec<&str> {
        hierarchies.list().iter().map(|hierarchy| hierarchy.mount_point.to_str().unwrap()).collect()
    }

    #[test]
    fn a_hybrid_host_has_v2_as_anchor_and_the_v1_controllers_in_use() {
        let hierarchies = chosen(HYBRID);
        let expected = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory"];
        assert_eq!(mount_points(&hierarchies), expected);
        assert!(!hierarchies.is_unified());
        assert_eq!(hierarchies.of(Controller::Memory).unwrap().version, Version::V1);
        assert_eq!(hierarchies.of(Controller::Pids), None);
    }

    #[test]
    fn a_separate_cpuacct_is_used_only_where_there_is_no_v2() {
        let v1 = "1 1 0:1 / /sys/fs/cgroup/cpuacct rw - cgroup c rw,cpuacct\n2 1 0:2 / /sys/fs/cgroup/cpu rw - cgroup c rw,cpu\n";
        assert_eq!(mount_points(&chosen(v1)), ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu"]);
        let hybrid = format!("{v1}3 1 0:3 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n");
        assert_eq!(mount_points(&chosen(&hybrid)), ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu"]);
    }

    #[test]
    fn the_callers_own_group_is_found_in_each_hierarchy() {
        let text = "4:memory:/a/b\n3:cpu,cpuacct:/c\n1:name=systemd:/d\n0::/e\n";
        let hierarchies = chosen(HYBRID);
        let own: Vec<_> = hierarchies.list().iter().map(|hierarchy| own_group(text, hierarchy)).collect();
        assert_eq!(own, [Some("/e"), Some("/c"), Some("/a/b")]);
        assert_eq!(own_group("1:name=systemd:/d\n", hierarchies.anchor()), None);
    }

    #[test]
    fn mount_points_with_spaces_are_understood() {
        assert_eq!(unescape(br"/a\040b\134c\09"), Path::new(r"/a b\c\09"));
    }

    #[test]
    fn a_pure_host_has_what_cgroup_controllers_names() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cgroup");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids rdma misc\n").unwrap();
        let mountinfo = folder.path().join("mountinfo");
        std::fs::write(&mountinfo, format!("24 1 0:5 / {} rw - cgroup2 cgroup2 rw\n", root.display())).unwrap();
        let roots = ProbeRoots { sys_fs_cgroup: root.clone(), mountinfo };
        let hierarchies = Hierarchies::probe_in(&roots).unwrap();
        assert!(hierarchies.is_unified());
        for controller in [Controller::Memory, Controller::Cpu, Controller::Io, Controller::Pids, Controller::Cpuset] {
            assert!(hierarchies.controllers().contains(&controller), "{controller} is missing");
        }
        assert!(hierarchies.swap_accounting());
        std::fs::create_dir(root.join("init.scope")).unwrap();
        std::fs::write(root.join("init.scope/memory.max"), "max\n").unwrap();
        assert!(!Hierarchies::probe_in(&roots).unwrap().swap_accounting());
    }

    #[test]
    fn a_host_without_groups_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mountinfo = folder.path().join("mountinfo");
        std::fs::write(&mountinfo, "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n").unwrap();
        let roots = ProbeRoots { sys_fs_cgroup: folder.path().into(), mountinfo };
        assert!(matches!(Hierarchies::probe_in(&roots), Err(CgroupError::NotMounted { .. })));
    }
}
