//! One group, open in every hierarchy: making it, its limits, its label, its processes.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Dir, FileType, XattrFlags, fgetxattr, fsetxattr};

use super::files::{GroupDir, PROCS_LIMIT};
use super::{
    CgroupCpuController, CgroupError, CgroupLimits, CgroupMemoryController, CgroupPath, Controller, Hierarchies,
    Hierarchy, Version, v1, v2,
};

/// How often making a group starts again because a parent was removed meanwhile by another run.
const CREATE_ATTEMPTS: usize = 4;
/// Bound on a label, in bytes.
const LABEL_LIMIT: usize = 1024;
/// kernfs gives `user.*` attributes to v2 only; `trusted.*` is for root everywhere.
const LABEL_V2: &str = "user.stack.label";
const LABEL_V1: &str = "trusted.stack.label";

/// A group's place in one hierarchy.
#[derive(Debug)]
struct Member {
    version: Version,
    controllers: Vec<Controller>,
    mount_point: PathBuf,
    /// `None` if somebody took the directory away, or the group's making stopped before it.
    dir: Option<GroupDir>,
}

/// A control group, open in every hierarchy in use. Holds one descriptor per hierarchy, close-on-exec.
#[derive(Debug)]
pub struct Cgroup {
    path: CgroupPath,
    /// The anchor first; its directory is always there.
    members: Vec<Member>,
    /// Made here and not limited yet, so that every limit is known to be the default.
    is_fresh: AtomicBool,
}

impl Cgroup {
    /// Makes the group and its parents in every hierarchy in use; directories that exist are taken as they are. On v2
    /// the controllers are turned on from the root down for the groups beside this one.
    ///
    /// On failure the directories of the group itself that were made here are removed again; parents stay.
    pub fn create(hierarchies: &Hierarchies, path: &CgroupPath) -> Result<Self, CgroupError> {
        let mut attempt = 1;
        loop {
            match Self::try_create(hierarchies, path) {
                Err(CgroupError::Create { source, .. } | CgroupError::Read { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < CREATE_ATTEMPTS =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn try_create(hierarchies: &Hierarchies, path: &CgroupPath) -> Result<Self, CgroupError> {
        let mut made = Vec::new();
        let mut members = Vec::with_capacity(hierarchies.list().len());
        for hierarchy in hierarchies.list() {
            match make(hierarchy, path, &mut made) {
                Ok(dir) => members.push(Member::new(hierarchy, Some(dir))),
                Err(error) => {
                    // The anchor was made first and goes last.
                    made.iter().rev().for_each(|dir| drop(std::fs::remove_dir(dir)));
                    return Err(error);
                }
            }
        }
        let is_fresh = AtomicBool::new(made.len() == members.len());
        Ok(Self { path: path.clone(), members, is_fresh })
    }

    /// Opens the group; `None` if the anchor does not have it.
    pub fn open(hierarchies: &Hierarchies, path: &CgroupPath) -> Result<Option<Self>, CgroupError> {
        let mut members = Vec::with_capacity(hierarchies.list().len());
        for hierarchy in hierarchies.list() {
            let dir = GroupDir::open(hierarchy.mount_point.join(path))?;
            if members.is_empty() && dir.is_none() {
                return Ok(None);
            }
            members.push(Member::new(hierarchy, dir));
        }
        Ok(Some(Self { path: path.clone(), members, is_fresh: AtomicBool::new(false) }))
    }

    /// Where the group is in each hierarchy.
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// The group exists in every hierarchy. If not, its making was interrupted or somebody removed a part, and limits
    /// of that part hold for nobody.
    pub fn is_complete(&self) -> bool {
        self.members.iter().all(|member| member.dir.is_some())
    }

    /// Writes every limit whose value differs from what the kernel holds; `None` takes a limit away.
    ///
    /// Checked before anything is written: ranges, controllers, swap accounting. Lowering memory below what is in use
    /// reclaims; where that does not suffice the old limit stays ([`CgroupError::MemoryInUse`]). On v1 a child may not
    /// have more processor time than its parent, so raise from the top down, and lower from the bottom up.
    pub fn set_limits(&self, limits: &CgroupLimits) -> Result<(), CgroupError> {
        limits.check(&self.path)?;
        let new = limits.normalised(self.memory_version());
        self.check_available(&new)?;
        let old = match self.is_fresh.load(Ordering::Relaxed) {
            true => CgroupLimits::default(),
            false => self.limits()?,
        };
        self.is_fresh.store(false, Ordering::Relaxed);
        let change = (&old, &new);
        match self.dir_of(Controller::Memory) {
            Some((Version::V1, dir)) => v1::write_memory(dir, &self.path, change)?,
            Some((Version::V2, dir)) => v2::write_memory(dir, &self.path, change)?,
            None => {}
        }
        match self.dir_of(Controller::Cpu) {
            Some((Version::V1, dir)) => v1::write_cpu(dir, &self.path, change)?,
            Some((Version::V2, dir)) => v2::write_cpu(dir, &old, &new)?,
            None => {}
        }
        match self.dir_of(Controller::Io) {
            Some((Version::V1, dir)) => v1::write_io(dir, &old, &new)?,
            Some((Version::V2, dir)) => v2::write_io(dir, &old, &new)?,
            None => {}
        }
        if let Some((Version::V2, dir)) = self.dir_of(Controller::Cpuset) {
            v2::write_cpuset(dir, &old, &new)?;
        }
        self.dir_of(Controller::Pids).map_or(Ok(()), |(_, dir)| v2::write_pids(dir, &old, &new))
    }

    /// What the kernel holds now, in the form of [`CgroupLimits::as_kernel_would_hold`].
    pub fn limits(&self) -> Result<CgroupLimits, CgroupError> {
        let mut limits = CgroupLimits::default();
        match self.dir_of(Controller::Memory) {
            Some((Version::V1, dir)) => v1::read_memory(dir, &mut limits)?,
            Some((Version::V2, dir)) => v2::read_memory(dir, &mut limits)?,
            None => {}
        }
        match self.dir_of(Controller::Cpu) {
            Some((Version::V1, dir)) => v1::read_cpu(dir, &mut limits)?,
            Some((Version::V2, dir)) => v2::read_cpu(dir, &mut limits)?,
            None => {}
        }
        match self.dir_of(Controller::Io) {
            Some((Version::V1, dir)) => v1::read_io(dir, &mut limits)?,
            Some((Version::V2, dir)) => v2::read_io(dir, &mut limits)?,
            None => {}
        }
        if let Some((_, dir)) = self.dir_of(Controller::Pids) {
            limits.pids_max = v2::read_max(dir, "pids.max")?;
        }
        if let Some((Version::V2, dir)) = self.dir_of(Controller::Cpuset) {
            v2::read_cpuset(dir, &mut limits)?;
        }
        limits.cpu_weight = limits.cpu_weight.filter(|weight| *weight != super::WEIGHT_DEFAULT);
        Ok(limits)
    }

    fn check_available(&self, limits: &CgroupLimits) -> Result<(), CgroupError> {
        for (controller, limit) in limits.needs() {
            let dir = self.dir_of(controller);
            let is_of_v2 = |limit| matches!(limit, "memory_high" | "cpuset" | "cpuset_mems");
            if is_of_v2(limit) && dir.is_none_or(|(version, _)| version == Version::V1) && !self.is_unified() {
                return Err(CgroupError::NeedsV2 { limit, group: self.path.clone(), controller });
            }
            // On v2 a controller that exists may still be off for this group.
            let is_on = dir.is_some_and(|(version, dir)| {
                version == Version::V1 || controller.v2_probe().is_none_or(|file| v2::has(dir, file))
            });
            if !is_on {
                return Err(CgroupError::MissingController { controller, limit, group: self.path.clone() });
            }
        }
        let Some((version, dir)) = self.dir_of(Controller::Memory).filter(|_| limits.swap_max.is_some()) else {
            return Ok(());
        };
        let file = if version == Version::V1 { v1::MEMORY_AND_SWAP } else { "memory.swap.max" };
        if !v2::has(dir, file) {
            return Err(CgroupError::NoSwapAccounting { group: self.path.clone() });
        }
        match version == Version::V1 && limits.memory_max.is_none() {
            true => Err(CgroupError::SwapWithoutMemory { group: self.path.clone() }),
            false => Ok(()),
        }
    }

    /// Marks the group with `label`, kept by the kernel as long as the group exists.
    pub fn set_label(&self, label: &str) -> Result<(), CgroupError> {
        if label.len() > LABEL_LIMIT {
            return Err(CgroupError::LabelTooLong {
                group: self.path.clone(),
                label: label.into(),
                limit: LABEL_LIMIT,
            });
        }
        let (version, dir) = self.anchor_dir();
        fsetxattr(dir.fd(), label_name(version), label.as_bytes(), XattrFlags::empty())
            .map_err(|errno| CgroupError::Label { group: self.path.clone(), source: errno.into() })
    }

    /// The label, `None` if the group has none.
    pub fn label(&self) -> Result<Option<String>, CgroupError> {
        let (version, dir) = self.anchor_dir();
        let mut bytes = [0u8; LABEL_LIMIT];
        match fgetxattr(dir.fd(), label_name(version), &mut bytes[..]) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(&bytes[..length]).into_owned())),
            // A label that does not fit is not one of ours.
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::RANGE) => Ok(None),
            Err(errno) => Err(CgroupError::Read { path: dir.path().into(), source: errno.into() }),
        }
    }

    /// The processes in the group itself (not below it), as pids of the caller's namespace.
    pub fn procs(&self) -> Result<Vec<u32>, CgroupError> {
        let (_, dir) = self.anchor_dir();
        match dir.read("cgroup.procs", PROCS_LIMIT) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            // Removed while open: no process can be in it.
            Err(CgroupError::Read { source, .. }) if super::files::is_gone(&source) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// `cgroup.procs` in every hierarchy: a process that writes `0` to each is in the group.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.dirs().map(|dir| dir.path().join("cgroup.procs")).collect()
    }

    /// Names of the groups directly below, sorted.
    pub fn children(&self) -> Result<Vec<String>, CgroupError> {
        children(self.anchor_dir().1)
    }

    /// Memory: usage, counters, OOM kills.
    pub fn memory(&self) -> CgroupMemoryController<'_> {
        CgroupMemoryController::new(self)
    }

    /// Processor time: usage, throttling.
    pub fn cpu(&self) -> CgroupCpuController<'_> {
        CgroupCpuController::new(self)
    }

    /// Processes and threads in the group and below, as `pids.max` counts them. `None` without the controller.
    pub fn pids_current(&self) -> Result<Option<u64>, CgroupError> {
        match self.dir_of(Controller::Pids) {
            Some((_, dir)) => v2::read_max(dir, "pids.current"),
            None => Ok(None),
        }
    }

    pub(super) fn anchor_dir(&self) -> (Version, &GroupDir) {
        let anchor = &self.members[0];
        (anchor.version, anchor.dir.as_ref().expect("a group is open only if its anchor is"))
    }

    pub(super) fn dir_of(&self, controller: Controller) -> Option<(Version, &GroupDir)> {
        let member = self.members.iter().find(|member| member.controllers.contains(&controller))?;
        Some((member.version, member.dir.as_ref()?))
    }

    /// Where the group would be in each hierarchy, the anchor first.
    pub(super) fn places(&self) -> impl DoubleEndedIterator<Item = PathBuf> {
        self.members.iter().map(|member| member.mount_point.join(&self.path))
    }

    fn dirs(&self) -> impl Iterator<Item = &GroupDir> {
        self.members.iter().filter_map(|member| member.dir.as_ref())
    }

    /// All of it is in one v2 hierarchy.
    fn is_unified(&self) -> bool {
        matches!(&self.members[..], [only] if only.version == Version::V2)
    }

    fn memory_version(&self) -> Version {
        let member = self.members.iter().find(|member| member.controllers.contains(&Controller::Memory));
        member.map_or(Version::V2, |member| member.version)
    }
}

impl Member {
    fn new(hierarchy: &Hierarchy, dir: Option<GroupDir>) -> Self {
        Self {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            mount_point: hierarchy.mount_point.clone(),
            dir,
        }
    }
}

fn label_name(version: Version) -> &'static str {
    if version == Version::V2 { LABEL_V2 } else { LABEL_V1 }
}

/// Names of the groups below `dir`, sorted.
pub(super) fn children(dir: &GroupDir) -> Result<Vec<String>, CgroupError> {
    let failed = |errno: rustix::io::Errno| CgroupError::Read { path: dir.path().into(), source: errno.into() };
    let mut names = Vec::new();
    for entry in Dir::read_from(dir.fd()).map_err(failed)? {
        let entry = match entry {
            Ok(entry) => entry,
            // Removed while open.
            Err(rustix::io::Errno::NOENT) => break,
            Err(errno) => return Err(failed(errno)),
        };
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == FileType::Directory && name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes the group in one hierarchy, noting its directory in `made` if it was not there before.
fn make(hierarchy: &Hierarchy, path: &CgroupPath, made: &mut Vec<PathBuf>) -> Result<GroupDir, CgroupError> {
    let leaf = hierarchy.mount_point.join(path);
    let failed = |path: PathBuf| move |source| CgroupError::Create { path, source };
    match std::fs::create_dir(&leaf) {
        Ok(()) => made.push(leaf.clone()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        // Nearly always the parents exist, so they are only made where the short way fails.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for group in path.lineage() {
                let group = hierarchy.mount_point.join(group);
                match std::fs::create_dir(&group) {
                    Ok(()) if group == leaf => made.push(group),
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(failed(group)(error)),
                }
            }
        }
        Err(error) => return Err(failed(leaf)(error)),
    }
    if hierarchy.version == Version::V2 {
        v2::enable_controllers(hierarchy, path)?;
    }
    let gone = || failed(leaf.clone())(io::ErrorKind::NotFound.into());
    GroupDir::open(leaf.clone())?.ok_or_else(gone)
}
