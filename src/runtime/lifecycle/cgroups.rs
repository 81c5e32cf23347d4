//! The cgroups of a container as the specification has them: one path below every hierarchy of the host (version 1), or below the
//! only one (version 2).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::runtime::oci::OciResources;
use crate::runtime::sys;

use super::devices;
use super::resources::{CgroupVersion, CgroupWrite, writes};
use super::systemd::Scope;

/// Where hierarchies are mounted by everybody's agreement.
const ROOT: &str = "/sys/fs/cgroup";
/// No file of a cgroup that is read here is larger.
const FILE_LIMIT: u64 = 4 << 20;
/// How often a cgroup whose processes just ended is tried to be removed or frozen, and the time in between.
const ATTEMPTS: u32 = 200;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, Error)]
pub enum CgroupsError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("no cgroups are mounted at {ROOT}")]
    None,
    #[error("`{path}` is no path of a cgroup")]
    Path { path: String },
    #[error("the systemd form `{path}` of a cgroup needs `--systemd-cgroup`")]
    SystemdForm { path: String },
    #[error("cannot make the cgroup `{}`", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("the cgroup `{}` has processes already", path.display())]
    NotEmpty { path: PathBuf },
    #[error("the cgroup `{}` is frozen", path.display())]
    Frozen { path: PathBuf },
    #[error("`linux.resources.{place}` needs the controller `{controller}`, which this host does not have")]
    NoController { place: &'static str, controller: &'static str },
    #[error("cannot write `{value}` to `{}`", path.display())]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("{0}")]
    Resources(String),
    #[error("the memory limit {limit} is below what the container uses, {usage}")]
    BelowUsage { limit: i64, usage: i64 },
    #[error("cannot remove the cgroup `{}`", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("the cgroup `{}` did not freeze or thaw in time", path.display())]
    Freeze { path: PathBuf },
    #[error("this host has no freezer")]
    NoFreezer,
    #[error(
        "`{path}` is not the form of `linux.cgroupsPath` that goes with `--systemd-cgroup`: `SLICE:PREFIX:NAME`, such as \
         `machine.slice:stack:web`"
    )]
    ScopeForm { path: String },
    #[error("`--systemd-cgroup` needs a host that runs systemd")]
    NoSystemd,
    #[error("`--systemd-cgroup` needs cgroup version 2, and this host has version 1")]
    SystemdVersion,
    #[error("`--systemd-cgroup` needs the host's root: the systemd of a user is not supported")]
    SystemdUser,
    #[error("cannot talk to systemd")]
    Bus { source: io::Error },
    #[error("systemd refuses `{member}` of `{unit}`: {error}: {text}")]
    Systemd { member: &'static str, unit: String, error: String, text: String },
    #[error("systemd did not put the container's process into `{}`", path.display())]
    Elsewhere { path: PathBuf },
    #[error(
        "`{value}` of the annotation `org.systemd.property.{name}` is no value such as `'text'`, `true`, `uint64 5`"
    )]
    Property { name: String, value: String },
    #[error("`{name}` is no cgroup of the container: {fault}")]
    Below { name: String, fault: &'static str },
    #[error("cannot attach the device rules to `{}`", path.display())]
    Devices { path: PathBuf, source: rustix::io::Errno },
}

/// What the host has.
#[derive(Clone, Debug)]
pub struct HostCgroups {
    pub version: CgroupVersion,
    /// Controllers (comma separated as mounted, such as `cpu,cpuacct` or `name=systemd`) and mount point.
    hierarchies: Vec<(Vec<String>, PathBuf)>,
}

impl HostCgroups {
    /// From the text of `/proc/self/mountinfo`.
    pub fn from_mountinfo(text: &str) -> Result<Self, CgroupsError> {
        let mut hierarchies = Vec::new();
        for line in text.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let target = mount.split(' ').nth(4).unwrap_or_default();
            let mut fields = filesystem.split(' ');
            match fields.next() {
                Some("cgroup2") if target == ROOT => {
                    let hierarchies = vec![(Vec::new(), PathBuf::from(ROOT))];
                    return Ok(Self { version: CgroupVersion::V2, hierarchies });
                }
                Some("cgroup") if target.strip_prefix(ROOT).is_some_and(|rest| rest.starts_with('/')) => {
                    let options = fields.nth(1).unwrap_or_default();
                    let known =
                        |option: &&str| !matches!(*option, "rw" | "ro" | "xattr" | "noprefix" | "clone_children");
                    let controllers = options.split(',').filter(known).map(str::to_owned).collect();
                    hierarchies.push((controllers, PathBuf::from(target)));
                }
                _ => {}
            }
        }
        if hierarchies.is_empty() {
            Err(CgroupsError::None)
        } else {
            Ok(Self { version: CgroupVersion::V1, hierarchies })
        }
    }

    /// The container's place in each hierarchy. `cgroups_path` is the configuration's; without one the container's id is it.
    pub fn places(&self, cgroups_path: Option<&str>, id: &str) -> Result<ContainerCgroups, CgroupsError> {
        let wanted = cgroups_path.filter(|path| !path.is_empty()).unwrap_or(id);
        if wanted.contains(':') && !wanted.contains('/') {
            return Err(CgroupsError::SystemdForm { path: wanted.to_owned() });
        }
        let path = wanted.trim_matches('/');
        let fine = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\n');
        if path.is_empty() || !path.split('/').all(fine) {
            return Err(CgroupsError::Path { path: wanted.to_owned() });
        }
        Ok(self.at(path))
    }

    /// Where systemd puts a container's scope.
    pub fn of_scope(&self, scope: &Scope) -> Result<ContainerCgroups, CgroupsError> {
        match self.version {
            CgroupVersion::V1 => Err(CgroupsError::SystemdVersion),
            CgroupVersion::V2 => Ok(self.at(&scope.path())),
        }
    }

    fn at(&self, path: &str) -> ContainerCgroups {
        let paths = self.hierarchies.iter().map(|(controllers, mount)| (controllers.join(","), mount.join(path)));
        ContainerCgroups { version: self.version, paths: paths.collect() }
    }
}

/// One container's cgroups: what is mounted, and the directory there.
#[derive(Clone, Debug)]
pub struct ContainerCgroups {
    pub version: CgroupVersion,
    pub paths: BTreeMap<String, PathBuf>,
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    use io::Write;
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

fn read(path: &Path) -> Result<String, CgroupsError> {
    use io::Read;
    let failed = |source| CgroupsError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    fs::File::open(path).map_err(failed)?.take(FILE_LIMIT).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

impl ContainerCgroups {
    /// Make what is missing; returns the directories that were made and are the container's, for [`remove`]. On failure nothing
    /// that was made stays.
    pub fn make(&self) -> Result<Vec<PathBuf>, CgroupsError> {
        let mut made = Vec::new();
        let result = self.paths.iter().try_for_each(|(controllers, path)| self.make_one(controllers, path, &mut made));
        match result {
            Ok(()) => Ok(made),
            Err(error) => {
                made.iter().for_each(|path| drop(fs::remove_dir(path)));
                Err(error)
            }
        }
    }

    fn make_one(&self, controllers: &str, path: &Path, made: &mut Vec<PathBuf>) -> Result<(), CgroupsError> {
        let failed = |source| CgroupsError::Make { path: path.to_owned(), source };
        let is_cpuset = controllers.split(',').any(|controller| controller == "cpuset");
        match fs::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return self.check_free(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path).map_err(failed)?;
                made.push(path.to_owned());
            }
            Err(error) => return Err(failed(error)),
        }
        if self.version == CgroupVersion::V2 {
            return enable_controllers(path);
        }
        for (parent, child) in lineage(path).into_iter().filter(|_| is_cpuset) {
            if child.join("cpuset.cpus").exists() && parent.join("cpuset.cpus").exists() {
                inherit_cpuset(parent, child)?;
            }
        }
        Ok(())
    }

    /// What somebody else made with `pid` in it: check that it is so, and have all controllers.
    pub fn adopt(&self, pid: i32) -> Result<(), CgroupsError> {
        let Some(path) = self.paths.values().next() else { return Ok(()) };
        if !self.processes()?.contains(&pid) {
            return Err(CgroupsError::Elsewhere { path: path.clone() });
        }
        enable_controllers(path)
    }

    fn check_free(&self, path: &Path) -> Result<(), CgroupsError> {
        if !read(&path.join("cgroup.procs"))?.is_empty() {
            return Err(CgroupsError::NotEmpty { path: path.to_owned() });
        }
        let frozen = |file: &str, value: &str| read(&path.join(file)).is_ok_and(|text| text.trim() == value);
        if frozen("freezer.state", "FROZEN") || frozen("cgroup.freeze", "1") {
            return Err(CgroupsError::Frozen { path: path.to_owned() });
        }
        Ok(())
    }

    /// The directory of a controller; of version 2 there is one.
    pub fn directory(&self, controller: &str) -> Option<&Path> {
        match self.version {
            CgroupVersion::V2 => self.paths.values().next().map(PathBuf::as_path),
            CgroupVersion::V1 => self
                .paths
                .iter()
                .find(|(controllers, _)| controllers.split(',').any(|one| one == controller))
                .map(|(_, path)| path.as_path()),
        }
    }

    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.paths.values().map(|path| path.join("cgroup.procs")).collect()
    }

    /// Where a further process goes: `below` names cgroups under the container's, as `PATH`, or `CONTROLLER[,CONTROLLER]:PATH`
    /// on version 1. A container whose own cgroup hands controllers on can have none in it: then it goes where `init` is.
    pub fn procs_files_for(&self, below: &[String], init: i32) -> Result<Vec<PathBuf>, CgroupsError> {
        if let (CgroupVersion::V2, [], Some(path)) = (self.version, below, self.paths.values().next()) {
            let hands_on = read(&path.join("cgroup.subtree_control")).is_ok_and(|text| !text.trim().is_empty());
            let lines = if hands_on { read(Path::new(&format!("/proc/{init}/cgroup")))? } else { String::new() };
            let own = lines.lines().find_map(|line| line.strip_prefix("0::/")).map(|own| Path::new(ROOT).join(own));
            return Ok(vec![
                own.filter(|own| own.starts_with(path)).unwrap_or_else(|| path.clone()).join("cgroup.procs"),
            ]);
        }
        let mut chosen = self.paths.clone();
        for name in below {
            let wrong = |fault| CgroupsError::Below { name: name.clone(), fault };
            let (controllers, path) =
                name.split_once(':').map_or((None, name.as_str()), |(list, path)| (Some(list), path));
            let path = path.trim_matches('/');
            if path.split('/').any(|part| part == "..") {
                return Err(wrong("it leads out"));
            }
            let of = |one: &str, all: &str| all.split(',').any(|known| known == one);
            for one in controllers.iter().flat_map(|list| list.split(',')) {
                if !self.paths.keys().any(|all| of(one, all)) {
                    return Err(wrong("the host has no such hierarchy"));
                }
            }
            for (all, own) in &self.paths {
                if controllers.is_none_or(|list| list.split(',').any(|one| of(one, all))) {
                    chosen.insert(all.clone(), own.join(path));
                }
            }
            if !chosen.values().all(|path| path.is_dir()) {
                return Err(wrong("there is no such directory"));
            }
        }
        Ok(chosen.values().map(|path| path.join("cgroup.procs")).collect())
    }

    /// Apply what `resources` names.
    pub fn apply(&self, resources: &OciResources) -> Result<(), CgroupsError> {
        self.check_usage(resources)?;
        for one in writes(resources, self.version).map_err(CgroupsError::Resources)? {
            self.apply_one(&one)?;
        }
        self.apply_devices(resources)
    }

    fn apply_one(&self, one: &CgroupWrite) -> Result<(), CgroupsError> {
        let missing = CgroupsError::NoController { place: one.place, controller: one.controller };
        let Some(directory) = self.directory(one.controller) else { return Err(missing) };
        let path = directory.join(&one.file);
        match write(&path, &one.value) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // What is the scheduler's own file where the plain one is gone; and a hint that the kernel may go without.
                let other = match one.file.as_str() {
                    "blkio.weight" => directory.join("blkio.bfq.weight"),
                    "io.weight" => directory.join("io.bfq.weight"),
                    "memory.memsw.limit_in_bytes" | "memory.swap.max" if one.value == "-1" || one.value == "max" => {
                        return Ok(());
                    }
                    _ => return Err(missing),
                };
                write(&other, &one.value).map_err(|_| missing)
            }
            Err(source) => self.second_way(one, &path, source),
        }
    }

    /// Limits that depend on each other: the other one may have to move first.
    fn second_way(&self, one: &CgroupWrite, path: &Path, source: io::Error) -> Result<(), CgroupsError> {
        let failed = |source| CgroupsError::Write { path: path.to_owned(), value: one.value.clone(), source };
        if one.file == "memory.limit_in_bytes" {
            let both = path.with_file_name("memory.memsw.limit_in_bytes");
            if write(&both, &one.value).is_ok() {
                return write(path, &one.value).map_err(failed);
            }
        }
        Err(failed(source))
    }

    fn check_usage(&self, resources: &OciResources) -> Result<(), CgroupsError> {
        let Some(memory) = &resources.memory else { return Ok(()) };
        let (Some(true), Some(limit)) = (memory.check_before_update, memory.limit.filter(|limit| *limit > 0)) else {
            return Ok(());
        };
        let file = if self.version == CgroupVersion::V1 { "memory.usage_in_bytes" } else { "memory.current" };
        let Some(directory) = self.directory("memory") else { return Ok(()) };
        let usage = read(&directory.join(file))?.trim().parse().unwrap_or(0);
        if usage > limit { Err(CgroupsError::BelowUsage { limit, usage }) } else { Ok(()) }
    }

    fn apply_devices(&self, resources: &OciResources) -> Result<(), CgroupsError> {
        let rules = devices::complete(&resources.devices);
        if rules.is_empty() {
            return Ok(());
        }
        let missing = CgroupsError::NoController { place: "devices", controller: "devices" };
        let Some(directory) = self.directory("devices") else { return Err(missing) };
        if self.version == CgroupVersion::V2 {
            let failed = |source| CgroupsError::Devices { path: directory.to_owned(), source };
            let opened = fs::File::open(directory)
                .map_err(|source| CgroupsError::Read { path: directory.to_owned(), source })?;
            return sys::attach_device_program(opened.as_fd(), &devices::program(&rules)).map_err(failed);
        }
        for (file, line) in devices::lines(&rules) {
            let path = directory.join(file);
            write(&path, &line).map_err(|source| CgroupsError::Write { path, value: line, source })?;
        }
        Ok(())
    }

    /// All processes, in cgroups below as well.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupsError> {
        let mut found = Vec::new();
        let Some(first) = self.paths.get("pids").or_else(|| self.paths.values().next()) else { return Ok(found) };
        let mut directories = vec![first.clone()];
        while let Some(directory) = directories.pop() {
            match read(&directory.join("cgroup.procs")) {
                Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(CgroupsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            let below = fs::read_dir(&directory).into_iter().flatten().flatten();
            directories.extend(below.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Signal every process. Killing goes through the kernel where it can, so that none escapes by forking.
    pub fn signal_all(&self, signal: i32) -> Result<(), CgroupsError> {
        if signal == libc::SIGKILL
            && let Some(directory) = self.directory("freezer")
            && write(&directory.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        let froze = signal == libc::SIGKILL && self.freeze(Frozen::Yes).is_ok();
        for pid in self.processes()? {
            let _ = sys::send_signal(pid, signal);
        }
        if froze { self.freeze(Frozen::No) } else { Ok(()) }
    }

    pub fn is_frozen(&self) -> bool {
        let Some(directory) = self.directory("freezer") else { return false };
        let says = |file: &str, value: &str| read(&directory.join(file)).is_ok_and(|text| text.trim() == value);
        match self.version {
            CgroupVersion::V1 => says("freezer.state", "FROZEN") || says("freezer.state", "FREEZING"),
            CgroupVersion::V2 => says("cgroup.freeze", "1"),
        }
    }

    /// Stop all processes, or let them go on; returns when it is so.
    pub fn freeze(&self, frozen: Frozen) -> Result<(), CgroupsError> {
        let directory = self.directory("freezer").ok_or(CgroupsError::NoFreezer)?;
        let (file, value, shown) = match (self.version, frozen) {
            (CgroupVersion::V1, Frozen::Yes) => ("freezer.state", "FROZEN", "FROZEN"),
            (CgroupVersion::V1, Frozen::No) => ("freezer.state", "THAWED", "THAWED"),
            (CgroupVersion::V2, Frozen::Yes) => ("cgroup.freeze", "1", "frozen 1"),
            (CgroupVersion::V2, Frozen::No) => ("cgroup.freeze", "0", "frozen 0"),
        };
        let path = directory.join(file);
        let seen = if self.version == CgroupVersion::V1 { path.clone() } else { directory.join("cgroup.events") };
        for _ in 0..ATTEMPTS {
            write(&path, value).map_err(|source| CgroupsError::Write {
                path: path.clone(),
                value: value.to_owned(),
                source,
            })?;
            if read(&seen)?.lines().any(|line| line == shown) {
                return Ok(());
            }
            std::thread::sleep(ATTEMPT_PAUSE);
        }
        Err(CgroupsError::Freeze { path: directory.to_owned() })
    }

    /// The text of a file of the controller's directory, if it is there.
    pub fn text(&self, controller: &str, file: &str) -> Option<String> {
        read(&self.directory(controller)?.join(file)).ok()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    Yes,
    No,
}

/// Each cgroup on the way to `path` with the one that it lies in, from the root on.
fn lineage(path: &Path) -> Vec<(&Path, &Path)> {
    let mut pairs: Vec<_> = path
        .ancestors()
        .take_while(|child| child.starts_with(ROOT))
        .filter_map(|child| Some((child.parent().filter(|parent| parent.starts_with(ROOT))?, child)))
        .collect();
    pairs.reverse();
    pairs
}

/// Have every controller of version 2 in `path`. One that cannot be enabled is missed where it is needed.
fn enable_controllers(path: &Path) -> Result<(), CgroupsError> {
    for (parent, _) in lineage(path) {
        for controller in read(&parent.join("cgroup.controllers"))?.split_whitespace() {
            let _ = write(&parent.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
    }
    Ok(())
}

/// A cpuset of version 1 is of no use before it has processors and memory.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<(), CgroupsError> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = child.join(file);
        if read(&path)?.trim().is_empty() {
            let value = read(&parent.join(file))?.trim().to_owned();
            write(&path, &value).map_err(|source| CgroupsError::Write { path, value, source })?;
        }
    }
    Ok(())
}

/// Remove directories that were made for a container, with what it made below. Its processes have ended; the kernel may take a
/// moment to notice.
pub fn remove(made: &[PathBuf]) -> Result<(), CgroupsError> {
    made.iter().try_for_each(|path| remove_one(path))
}

fn remove_one(path: &Path) -> Result<(), CgroupsError> {
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..ATTEMPTS {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => last = error,
        }
        let mut below = false;
        for entry in fs::read_dir(path).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
            below = true;
            remove_one(&entry.path())?;
        }
        if !below {
            std::thread::sleep(ATTEMPT_PAUSE);
        }
    }
    Err(CgroupsError::Remove { path: path.to_owned(), source: last })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                         40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                         41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_path_is_the_same_place_in_every_hierarchy() {
        let host = HostCgroups::from_mountinfo(MIXED).unwrap();
        let places = host.places(Some("/a/b"), "id").unwrap();
        let expected = ["/sys/fs/cgroup/cpu,cpuacct/a/b", "/sys/fs/cgroup/systemd/a/b"].map(PathBuf::from);
        assert!(places.paths.values().eq(&expected));
        assert_eq!(places.directory("cpuacct"), Some(expected[0].as_path()));
        assert_eq!(host.places(None, "id").unwrap().paths["name=systemd"], Path::new("/sys/fs/cgroup/systemd/id"));
    }

    #[test]
    fn a_path_cannot_lead_out() {
        let host = HostCgroups::from_mountinfo(MIXED).unwrap();
        for wrong in ["/", "a/../b", "..", "a//b", "system.slice:stack:x"] {
            assert!(host.places(Some(wrong), "id").is_err(), "{wrong}");
        }
    }

    #[test]
    fn version_two_alone_has_one_place() {
        let host = HostCgroups::from_mountinfo("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").unwrap();
        assert_eq!(host.version, CgroupVersion::V2);
        assert_eq!(host.places(Some("x"), "id").unwrap().directory("pids"), Some(Path::new("/sys/fs/cgroup/x")));
        let scope = Scope::parse(Some("a-b.slice:p:n"), "id").unwrap();
        let expected = Path::new("/sys/fs/cgroup/a.slice/a-b.slice/p-n.scope");
        assert_eq!(host.of_scope(&scope).unwrap().directory("pids"), Some(expected));
        let older = HostCgroups::from_mountinfo(MIXED).unwrap();
        assert!(matches!(older.of_scope(&scope), Err(CgroupsError::SystemdVersion)));
    }

    #[test]
    fn further_processes_stay_in_the_containers_cgroups() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["cpu,cpuacct", "memory"].map(|name| (name.to_owned(), directory.path().join(name)));
        paths.iter().for_each(|(_, path)| fs::create_dir_all(path.join("a")).unwrap());
        let groups = ContainerCgroups { version: CgroupVersion::V1, paths: paths.into() };
        let check = |below: &[&str], expected: &[&str]| {
            let below: Vec<String> = below.iter().map(ToString::to_string).collect();
            let expected: Vec<PathBuf> = expected.iter().map(|path| directory.path().join(path)).collect();
            assert_eq!(groups.procs_files_for(&below, 1).unwrap(), expected, "{below:?}");
        };
        check(&[], &["cpu,cpuacct/cgroup.procs", "memory/cgroup.procs"]);
        check(&["/a"], &["cpu,cpuacct/a/cgroup.procs", "memory/a/cgroup.procs"]);
        check(&["cpuacct:a"], &["cpu,cpuacct/a/cgroup.procs", "memory/cgroup.procs"]);
        check(&["cpu,memory:a", "memory:/"], &["cpu,cpuacct/a/cgroup.procs", "memory/cgroup.procs"]);
        for wrong in ["../x", "a/../../x", "nope", "pids:a"] {
            assert!(groups.procs_files_for(&[wrong.to_owned()], 1).is_err(), "{wrong}");
        }
    }
}
