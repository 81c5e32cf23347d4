//! Memory: usage and peak, what it is made of, OOM kills.

use std::collections::BTreeMap;

use super::files::keyed;
use super::v2::read_max;
use super::{Cgroup, CgroupError, CgroupPath, Controller, OomWatch, Version};

/// What a group's memory is made of, in bytes, the groups below included. v1 and v2 under the same names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryStat {
    /// Memory without a file behind it: heap, stacks (v1: `total_rss`).
    pub anon: u64,
    /// Page cache, shared memory included (v1: `total_cache`).
    pub file: u64,
    /// The part of `file` that is mapped by processes.
    pub mapped_file: u64,
    /// The part of `file` that is tmpfs and shared memory.
    pub shmem: u64,
    /// Swapped out. 0 where the kernel keeps no account of it.
    pub swap: u64,
    /// Every line of `memory.stat` by the kernel's name.
    pub by_name: BTreeMap<String, u64>,
}

impl MemoryStat {
    fn parse(text: &str, version: Version) -> Self {
        let by_name: BTreeMap<String, u64> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
            .collect();
        let get = |name: &str| by_name.get(name).copied().unwrap_or(0);
        let names = match version {
            Version::V1 => ["total_rss", "total_cache", "total_mapped_file", "total_shmem", "total_swap"],
            // Swap is a file of its own there.
            Version::V2 => ["anon", "file", "file_mapped", "shmem", ""],
        };
        let [anon, file, mapped_file, shmem, swap] = names.map(get);
        Self { anon, file, mapped_file, shmem, swap, by_name }
    }
}

/// Processes that the kernel killed because a group reached its limit, counted since the group was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomEvent {
    /// The group whose count this is.
    pub group: CgroupPath,
    /// Processes killed (`oom_kill`), on v2 with those of the groups below.
    pub kills: u64,
    /// How often usage reached the limit, mostly met by reclaim (v1: `memory.failcnt` and `memory.memsw.failcnt`, of
    /// which new kernels do not count the latter, so that this may stay 0 with swap limited; v2: `max` of
    /// `memory.events`).
    pub limit_hits: u64,
}

/// A group's memory: reading what it uses and what happened at its limit.
#[derive(Debug, Clone, Copy)]
pub struct CgroupMemoryController<'a> {
    group: &'a Cgroup,
}

impl<'a> CgroupMemoryController<'a> {
    pub(super) fn new(group: &'a Cgroup) -> Self {
        Self { group }
    }

    /// Bytes in use, the groups below and the page cache included. `None` without the controller.
    pub fn usage(&self) -> Result<Option<u64>, CgroupError> {
        self.number("memory.usage_in_bytes", "memory.current")
    }

    /// The most bytes ever in use. `None` without the controller, and on v2 before Linux 5.19.
    pub fn peak(&self) -> Result<Option<u64>, CgroupError> {
        self.number("memory.max_usage_in_bytes", "memory.peak")
    }

    /// What the memory is made of. `None` without the controller.
    pub fn stat(&self) -> Result<Option<MemoryStat>, CgroupError> {
        let Some((version, dir)) = self.group.dir_of(Controller::Memory) else { return Ok(None) };
        let Some(text) = dir.read_optional("memory.stat")? else { return Ok(None) };
        let mut stat = MemoryStat::parse(&text, version);
        if version == Version::V2 {
            stat.swap = read_max(dir, "memory.swap.current")?.unwrap_or(0);
        }
        Ok(Some(stat))
    }

    /// OOM kills so far. `None` without the controller.
    pub fn oom(&self) -> Result<Option<OomEvent>, CgroupError> {
        let Some((version, dir)) = self.group.dir_of(Controller::Memory) else { return Ok(None) };
        let group = self.group.path().clone();
        let file = if version == Version::V1 { "memory.oom_control" } else { "memory.events" };
        let Some(text) = dir.read_optional(file)? else { return Ok(None) };
        let limit_hits = match version {
            Version::V1 => {
                let sum = read_max(dir, "memory.memsw.failcnt")?.unwrap_or(0);
                read_max(dir, "memory.failcnt")?.unwrap_or(0).saturating_add(sum)
            }
            Version::V2 => keyed(&text, "max").unwrap_or(0),
        };
        let kills = keyed(&text, "oom_kill").unwrap_or(0);
        Ok(Some(OomEvent { group, kills, limit_hits }))
    }

    /// Hears of OOM kills in the group and below. `None` without the controller.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        self.group.dir_of(Controller::Memory).map(|(version, dir)| OomWatch::open(version, dir)).transpose()
    }

    fn number(&self, v1: &str, v2: &str) -> Result<Option<u64>, CgroupError> {
        match self.group.dir_of(Controller::Memory) {
            Some((Version::V1, dir)) => read_max(dir, v1),
            Some((Version::V2, dir)) => read_max(dir, v2),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_memory_stat_give_the_same_names() {
        let v1 = "cache 1\nrss 2\ntotal_cache 100\ntotal_rss 200\ntotal_mapped_file 30\ntotal_shmem 4\ntotal_swap 5\n";
        let v2 = "anon 200\nfile 100\nfile_mapped 30\nshmem 4\nworkingset_refault_anon 9\n";
        let (one, two) = (MemoryStat::parse(v1, Version::V1), MemoryStat::parse(v2, Version::V2));
        let core = |stat: &MemoryStat| [stat.anon, stat.file, stat.mapped_file, stat.shmem];
        assert_eq!(core(&one), [200, 100, 30, 4]);
        assert_eq!(core(&two), [200, 100, 30, 4]);
        assert_eq!(one.swap, 5);
        assert_eq!(two.by_name["workingset_refault_anon"], 9);
    }
}
