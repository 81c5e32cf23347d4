//! Kills for want of memory: heard of from the kernel, named, and told.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::run::Monitor;
use super::spec::MonitorSpec;
use crate::model::ByteSize;
use crate::runtime::cgroup::{Cgroup, CgroupPath, Hierarchies, OomKill, OomWatch, logged_kills};

/// The kernel may tell of the want before it kills: the count is looked at again after this, twice as long each time.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// So often, half a second in all: long past any kill.
const LOOKS: u32 = 8;

/// The last kill of a container's processes for want of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomReport {
    /// When the monitor heard of it.
    #[serde(with = "super::status::rfc3339")]
    pub at: Option<Timestamp>,
    /// `None`: the kernel's log does not say.
    pub process: Option<String>,
    /// On the host.
    pub pid: Option<u32>,
    /// The group whose limit was reached, from the root of the cgroup tree. `None`: unknown, or the host itself ran out.
    pub group: Option<String>,
    /// That group's limit, in bytes.
    pub limit: Option<u64>,
}

impl OomReport {
    /// In words, such as "`perl` (process 77) was killed: out of memory, the limit of /stack/shop/web is 64MiB".
    pub fn text(&self) -> String {
        let who = match (&self.process, self.pid) {
            (Some(process), Some(pid)) => format!("`{process}` (process {pid}) was killed"),
            _ => "a process was killed".into(),
        };
        match (&self.group, self.limit) {
            (Some(group), Some(limit)) => format!("{who}: out of memory, the limit of {group} is {}", ByteSize(limit)),
            (Some(group), None) => format!("{who}: out of memory of {group}"),
            (None, _) if self.process.is_some() => format!("{who}: the host was out of memory"),
            (None, _) => format!("{who}: out of memory"),
        }
    }
}

/// What is heard and what is still to be looked at.
#[derive(Debug, Default)]
pub(super) struct OomEar {
    watch: Option<OomWatch>,
    again: Option<(Instant, u32)>,
}

impl OomEar {
    /// Deaf where the kernel has no such thing to tell: kills are counted when the container ends all the same.
    pub fn open(spec: &MonitorSpec) -> Self {
        let group = open(spec).map(|(group, _)| group);
        Self { watch: group.and_then(|group| group.memory().watch_oom().ok().flatten()), again: None }
    }

    pub fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.watch.as_ref().map(OomWatch::fd)
    }

    pub fn due(&self) -> Option<Instant> {
        self.again.map(|(at, _)| at)
    }
}

impl Monitor<'_> {
    /// Looks at the count where the kernel told something, or is expected to have acted on it.
    pub(super) fn step_oom(&mut self, told: bool) {
        let now = Instant::now();
        if told && let Some(watch) = &self.oom.watch {
            watch.clear();
            self.oom.again = Some((now, 0));
        }
        let Some((_, looks)) = self.oom.again.filter(|(at, _)| *at <= now) else { return };
        let told = self.tell_oom_kills();
        if told {
            self.publish();
        }
        self.oom.again = match told {
            false if looks < LOOKS => Some((now + LOOK_AGAIN * 2u32.pow(looks), looks + 1)),
            _ => None,
        };
    }

    /// Counts the kills; says so and gives true where there are more than before.
    pub(super) fn tell_oom_kills(&mut self) -> bool {
        // Without a count the last one stands; nothing is held up by it.
        let Some((group, hierarchies)) = open(&self.launcher.spec) else { return false };
        let Some(kills) = group.memory().oom().ok().flatten().map(|event| event.kills) else { return false };
        let new = kills.saturating_sub(self.status.oom_kills);
        self.status.oom_kills = kills;
        if new == 0 {
            return false;
        }
        let logged = logged_kills(group.path()).unwrap_or_default();
        let newest = logged.len().saturating_sub(usize::try_from(new).unwrap_or(usize::MAX));
        let at = Some(Timestamp::now());
        let mut reports: Vec<OomReport> = logged[newest..].iter().map(|kill| report(kill, &hierarchies, at)).collect();
        if reports.is_empty() {
            reports.push(OomReport { at, process: None, pid: None, group: None, limit: None });
        }
        for report in &reports {
            self.log.remark(&report.text());
        }
        self.status.last_oom = reports.pop();
        true
    }
}

fn report(kill: &OomKill, hierarchies: &Hierarchies, at: Option<Timestamp>) -> OomReport {
    let limit = kill.limit_group.as_deref().and_then(|group| {
        let path = CgroupPath::new(group.trim_start_matches('/')).ok()?;
        Cgroup::open(hierarchies, &path).ok()??.limits().ok()?.memory_max
    });
    OomReport { at, process: Some(kill.process.clone()), pid: Some(kill.pid), group: kill.limit_group.clone(), limit }
}

/// The container's group.
fn open(spec: &MonitorSpec) -> Option<(Cgroup, Hierarchies)> {
    let path = CgroupPath::new(&spec.cgroup).ok()?;
    let hierarchies = Hierarchies::probe(&spec.cgroup_root).ok()?;
    let group = Cgroup::open(&hierarchies, &path).ok()??;
    Some((group, hierarchies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_known() {
        let full = OomReport {
            at: None,
            process: Some("perl".into()),
            pid: Some(77),
            group: Some("/stack/shop/web".into()),
            limit: Some(64 << 20),
        };
        let text = "`perl` (process 77) was killed: out of memory, the limit of /stack/shop/web is 64MiB";
        assert_eq!(full.text(), text);
        assert!(OomReport { group: None, limit: None, ..full.clone() }.text().ends_with("the host was out of memory"));
        assert_eq!(OomReport { group: None, process: None, ..full }.text(), "a process was killed: out of memory");
    }
}
