//! How the scheduler would divide the processors if every group wanted all that it can get: by weights among the groups
//! that lie beside each other, from the top down, each bounded by its quota, and what one may not take goes to the others
//! (`Documentation/scheduler/sched-design-CFS.rst`, `sched-bwc.rst`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::files::{GroupDir, keyed};
use super::group::children;
use super::{CgroupCpuController, CgroupError, CgroupLimits, CgroupPath, Controller, Hierarchies, Version, v1, v2};

/// Levels of groups below a v1 group that are searched for a process.
const DEEPEST: usize = 16;

/// What competes at one level of the tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Competitor {
    /// `cpu.weight`.
    pub weight: u64,
    /// The hard limit, in processors.
    pub quota: Option<f64>,
}

/// What `groups`, all of which want everything, get of `processors`, in their order. Weights must not be zero.
pub fn divide(processors: f64, groups: &[Competitor]) -> Vec<f64> {
    let mut shares: Vec<Option<f64>> = vec![None; groups.len()];
    loop {
        let open = || groups.iter().zip(&shares).filter(|(_, share)| share.is_none()).map(|(group, _)| group.weight);
        let weights: u64 = open().sum();
        let left = (processors - shares.iter().flatten().sum::<f64>()).max(0.0);
        let fair = |group: &Competitor| left * group.weight as f64 / weights.max(1) as f64;
        let bound = |(at, group): (usize, &Competitor)| {
            let quota = group.quota.filter(|quota| shares[at].is_none() && *quota < fair(group))?;
            Some((at, quota))
        };
        let bounded: Vec<(usize, f64)> = groups.iter().enumerate().filter_map(bound).collect();
        if bounded.is_empty() {
            return groups.iter().zip(&shares).map(|(group, share)| share.unwrap_or_else(|| fair(group))).collect();
        }
        for (at, quota) in bounded {
            shares[at] = Some(quota);
        }
    }
}

/// The groups that want processors, read once for several questions.
#[derive(Debug)]
pub struct CpuTree<'a> {
    hierarchies: &'a Hierarchies,
    processors: f64,
    /// What the groups in a group get of the host, by name; the key is the group's path, empty for the root.
    levels: BTreeMap<String, BTreeMap<String, f64>>,
}

impl<'a> CpuTree<'a> {
    /// Of a host with so many processors.
    pub fn new(hierarchies: &'a Hierarchies, processors: u32) -> Self {
        Self { hierarchies, processors: f64::from(processors), levels: BTreeMap::new() }
    }

    /// Processors that the group gets. Groups without a process want nothing; processes outside all groups are not counted.
    fn share(&mut self, path: &CgroupPath) -> Result<Option<f64>, CgroupError> {
        let mut share = self.processors;
        let mut above = String::new();
        for group in path.lineage() {
            if !self.levels.contains_key(&above) {
                let level = self.read(&above, share, path)?;
                self.levels.insert(above.clone(), level);
            }
            let name = group.rsplit('/').next().unwrap_or(group);
            match self.levels[&above].get(name) {
                Some(part) => share = *part,
                None => return Ok(None),
            }
            above = group.into();
        }
        Ok(Some(share))
    }

    /// Divides what a group has among those in it that want something, and the one that is asked about.
    fn read(&self, above: &str, share: f64, asked: &CgroupPath) -> Result<BTreeMap<String, f64>, CgroupError> {
        let Some(hierarchy) = self.hierarchies.of(Controller::Cpu) else { return Ok(BTreeMap::new()) };
        let folder: PathBuf = hierarchy.mount_point.join(above);
        let Some(dir) = GroupDir::open(folder.clone())? else { return Ok(BTreeMap::new()) };
        let (mut names, mut groups) = (Vec::new(), Vec::new());
        for name in children(&dir)? {
            let Some(child) = GroupDir::open(folder.join(&name))? else { continue };
            let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
            let leads_there = asked.lineage().any(|group| group == path);
            if leads_there || is_populated(&child, hierarchy.version, DEEPEST)? {
                groups.push(competitor(&child, hierarchy.version)?);
                names.push(name);
            }
        }
        Ok(names.into_iter().zip(divide(share, &groups)).collect())
    }
}

impl CgroupCpuController<'_> {
    /// Processors that the group gets when every group of the host that has a process wants all it can get. `None` without
    /// the controller.
    pub fn effective_share(&self, tree: &mut CpuTree) -> Result<Option<f64>, CgroupError> {
        tree.share(self.group.path())
    }
}

fn competitor(dir: &GroupDir, version: Version) -> Result<Competitor, CgroupError> {
    let mut limits = CgroupLimits::default();
    match version {
        Version::V1 => v1::read_cpu(dir, &mut limits)?,
        Version::V2 => v2::read_cpu(dir, &mut limits)?,
    }
    let weight = limits.cpu_weight.unwrap_or(super::WEIGHT_DEFAULT).max(1);
    Ok(Competitor { weight, quota: limits.cpu.map(|cpu| cpu.processors()) })
}

/// Whether there is a process in the group or below it. v1 has no file that tells.
fn is_populated(dir: &GroupDir, version: Version, deepest: usize) -> Result<bool, CgroupError> {
    if version == Version::V2 {
        return Ok(dir.read_optional("cgroup.events")?.is_some_and(|text| keyed(&text, "populated") == Some(1)));
    }
    // A list that is too long to read is one of processes.
    let has_own =
        dir.read_optional("cgroup.procs").map_or(true, |text| text.is_some_and(|text| !text.trim().is_empty()));
    if has_own || deepest == 0 {
        return Ok(has_own);
    }
    for name in children(dir)? {
        if let Some(child) = GroupDir::open(dir.path().join(name))?
            && is_populated(&child, version, deepest - 1)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(processors: f64, groups: &[(u64, Option<f64>)], expected: &[f64]) {
        let groups: Vec<Competitor> =
            groups.iter().map(|(weight, quota)| Competitor { weight: *weight, quota: *quota }).collect();
        let found = divide(processors, &groups);
        let close = found.iter().zip(expected).all(|(one, other)| (one - other).abs() < 1e-9);
        assert!(close && found.len() == expected.len(), "{found:?}");
    }

    #[test]
    fn weights_divide_and_one_alone_has_all() {
        check(4.0, &[(100, None)], &[4.0]);
        check(4.0, &[(100, None), (300, None)], &[1.0, 3.0]);
        check(4.0, &[], &[]);
    }

    #[test]
    fn what_a_quota_leaves_goes_to_the_others_by_their_weights() {
        check(4.0, &[(100, Some(0.5)), (100, None)], &[0.5, 3.5]);
        check(4.0, &[(100, Some(9.0)), (100, None)], &[2.0, 2.0]);
        // The second reaches its quota only with what the first leaves.
        check(4.0, &[(200, Some(0.5)), (100, Some(1.5)), (100, None)], &[0.5, 1.5, 2.0]);
        check(4.0, &[(100, Some(0.5)), (100, Some(0.25))], &[0.5, 0.25]);
    }

    /// A made-up v2 tree: a file for each value.
    #[test]
    fn the_tree_is_divided_from_the_top_and_the_empty_want_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cgroup");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let mountinfo = folder.path().join("mountinfo");
        std::fs::write(&mountinfo, format!("24 1 0:5 / {} rw - cgroup2 cgroup2 rw\n", root.display())).unwrap();
        let group = |path: &str, weight: u64, max: &str, populated: u8| {
            let dir = root.join(path);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("cpu.weight"), format!("{weight}\n")).unwrap();
            std::fs::write(dir.join("cpu.max"), format!("{max} 100000\n")).unwrap();
            std::fs::write(dir.join("cgroup.events"), format!("populated {populated}\nfrozen 0\n")).unwrap();
        };
        group("system.slice", 100, "max", 1);
        group("idle.slice", 10_000, "max", 0);
        group("stack", 100, "max", 1);
        group("stack/shop", 100, "150000", 1);
        group("stack/shop/web", 300, "max", 1);
        group("stack/shop/db", 100, "max", 1);
        group("stack/shop/ended", 100, "max", 0);
        let hierarchies =
            Hierarchies::probe_in(&super::super::ProbeRoots { sys_fs_cgroup: root.clone(), mountinfo }).unwrap();
        let mut tree = CpuTree::new(&hierarchies, 4);
        let mut share = |path: &str| tree.share(&CgroupPath::new(path).unwrap()).unwrap();
        assert_eq!(share("stack"), Some(2.0));
        assert_eq!(share("stack/shop"), Some(1.5));
        assert_eq!(share("stack/shop/web"), Some(1.125));
        assert_eq!(share("stack/shop/db"), Some(0.375));
        assert_eq!(share("stack/shop/nothing"), None);
    }
}
