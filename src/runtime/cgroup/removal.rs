//! Killing what is in a group, waiting for it to be empty, removing it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::files::{GroupDir, VALUE_LIMIT, is_gone, keyed, read_bounded};
use super::group::children;
use super::{Cgroup, CgroupError, CgroupPath, Hierarchies, Version};

/// How long removal waits for killed processes to be gone; memory of a large process takes a while to free.
const EMPTY_WAIT: Duration = Duration::from_secs(10);
/// Rounds of looking for processes that were forked while others were killed.
const KILL_ROUNDS: usize = 64;
/// Deepest nesting of groups that is walked.
const DEPTH_LIMIT: usize = 64;
/// Pause of v1 without any v2 tree, where a process has ended but is still listed: it leaves within microseconds, and
/// no event tells.
const V1_PAUSE: Duration = Duration::from_micros(500);

impl Cgroup {
    /// Sends SIGKILL to every process in the group and below it; does not wait.
    ///
    /// Do not start processes with `CLONE_INTO_CGROUP` in a group after this: several kernels kill them at birth.
    pub fn kill(&self) -> Result<(), CgroupError> {
        let (_, anchor) = self.anchor_dir();
        match anchor.write_raw("cgroup.kill", "1") {
            Ok(()) => return Ok(()),
            // Before Linux 5.14, and on v1.
            Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EACCES) => {}
            Err(source) => {
                let path = anchor.path().join("cgroup.kill");
                return Err(CgroupError::Write { path, value: "1".into(), source });
            }
        }
        let mut killed = BTreeSet::new();
        for _ in 0..KILL_ROUNDS {
            let mut listed = Vec::new();
            procs_below(anchor, &mut listed, (self.path(), 0))?;
            listed.retain(|pid| !killed.contains(pid));
            if listed.is_empty() {
                break;
            }
            for pid in listed {
                self.kill_one(pid)?;
                killed.insert(pid);
            }
        }
        Ok(())
    }

    fn kill_one(&self, pid: u32) -> Result<(), CgroupError> {
        let Some(target) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        match kill_process(target, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(CgroupError::Kill { group: self.path().clone(), pid, source: errno.into() }),
        }
    }

    /// Waits until no process is left in the group and below it, at most `limit`. True if so.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool, CgroupError> {
        let deadline = Instant::now() + limit;
        match self.anchor_dir() {
            (Version::V2, anchor) => wait_for_event(anchor, deadline),
            (Version::V1, anchor) => wait_for_ends(anchor, self.path(), deadline),
        }
    }

    /// Removes the group from every hierarchy, the anchor last, once its processes are gone: waits for that, at most
    /// ten seconds. Groups below it are the caller's to remove first, or [`Hierarchies::remove_tree`]'s.
    pub fn remove(self) -> Result<(), CgroupError> {
        self.expect_empty()?;
        self.places().rev().try_for_each(|place| remove_dir(&place).map(|_| ()))
    }

    fn expect_empty(&self) -> Result<(), CgroupError> {
        if self.wait_empty(EMPTY_WAIT)? {
            return Ok(());
        }
        let mut pids = Vec::new();
        procs_below(self.anchor_dir().1, &mut pids, (self.path(), 0))?;
        let waited_ms = EMPTY_WAIT.as_millis() as u64;
        Err(CgroupError::StillPopulated { group: self.path().clone(), waited_ms, pids })
    }
}

impl Hierarchies {
    /// Removes the group and all below it from every hierarchy, also such as a container made for itself, once their
    /// processes are gone: waits for that, at most ten seconds, and kills nothing. Fine if there is no such group.
    pub fn remove_tree(&self, path: &CgroupPath) -> Result<(), CgroupError> {
        if let Some(group) = Cgroup::open(self, path)? {
            group.expect_empty()?;
        }
        for hierarchy in self.list().iter().rev() {
            remove_dirs(&hierarchy.mount_point.join(path), (path, 0))?;
        }
        Ok(())
    }

    /// Removes the group if neither processes nor groups are in it; false, and nothing changed, if there are. For
    /// parents shared with others, such as the one all stacks are below.
    pub fn remove_if_empty(&self, path: &CgroupPath) -> Result<bool, CgroupError> {
        for hierarchy in self.list().iter().rev() {
            if !remove_dir(&hierarchy.mount_point.join(path)).or_else(|error| match error {
                CgroupError::Remove { source, .. } if is_in_use(&source) => Ok(false),
                error => Err(error),
            })? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn is_in_use(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}

/// Removes one directory; one that is not there is as good as removed.
fn remove_dir(path: &Path) -> Result<bool, CgroupError> {
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if is_gone(&error) => Ok(true),
        Err(source) => Err(CgroupError::Remove { path: path.into(), source }),
    }
}

/// Removes `path` and the groups below it, deepest first.
fn remove_dirs(path: &Path, (group, depth): (&CgroupPath, usize)) -> Result<(), CgroupError> {
    if depth > DEPTH_LIMIT {
        return Err(CgroupError::TooDeep { group: group.clone(), limit: DEPTH_LIMIT });
    }
    // Mostly there is nothing below.
    match remove_dir(path) {
        Err(CgroupError::Remove { source, .. }) if is_in_use(&source) => {}
        result => return result.map(|_| ()),
    }
    if let Some(dir) = GroupDir::open(path.into())? {
        for child in children(&dir)? {
            remove_dirs(&path.join(child), (group, depth + 1))?;
        }
    }
    remove_dir(path).map(|_| ())
}

/// Adds the processes of the group at `dir` and of those below it to `pids`.
fn procs_below(dir: &GroupDir, pids: &mut Vec<u32>, (group, depth): (&CgroupPath, usize)) -> Result<(), CgroupError> {
    if depth > DEPTH_LIMIT {
        return Err(CgroupError::TooDeep { group: group.clone(), limit: DEPTH_LIMIT });
    }
    match dir.read("cgroup.procs", super::files::PROCS_LIMIT) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(()),
        Err(error) => return Err(error),
    }
    for child in children(dir)? {
        if let Some(child) = GroupDir::open(dir.path().join(child))? {
            procs_below(&child, pids, (group, depth + 1))?;
        }
    }
    Ok(())
}

/// v2: `cgroup.events` changes (POLLPRI) when the last process of the group and all below it has gone.
fn wait_for_event(dir: &GroupDir, deadline: Instant) -> Result<bool, CgroupError> {
    let failed = |source| CgroupError::Read { path: dir.path().join("cgroup.events"), source };
    let events = match dir.open_file("cgroup.events") {
        Ok(events) => events,
        Err(error) if is_gone(&error) => return Ok(true),
        Err(error) => return Err(failed(error)),
    };
    loop {
        rustix::fs::seek(&events, rustix::fs::SeekFrom::Start(0)).map_err(|errno| failed(errno.into()))?;
        let text = match read_bounded(&events, VALUE_LIMIT) {
            Ok(bytes) => String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned(),
            Err(error) if is_gone(&error) => return Ok(true),
            Err(error) => return Err(failed(error)),
        };
        if keyed(&text, "populated") != Some(1) {
            return Ok(true);
        }
        let mut watched = [PollFd::new(&events, PollFlags::PRI)];
        if !poll_until(&mut watched, deadline).map_err(failed)? {
            return Ok(false);
        }
    }
}

/// v1 alone: no event tells that a group is empty, but each process tells its own end.
fn wait_for_ends(dir: &GroupDir, group: &CgroupPath, deadline: Instant) -> Result<bool, CgroupError> {
    let failed = |source| CgroupError::Read { path: dir.path().join("cgroup.procs"), source };
    loop {
        let mut pids = Vec::new();
        procs_below(dir, &mut pids, (group, 0))?;
        let Some(first) = pids.first() else { return Ok(true) };
        let pid = i32::try_from(*first).ok().and_then(Pid::from_raw);
        if let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            let mut watched = [PollFd::new(&pidfd, PollFlags::IN)];
            if !poll_until(&mut watched, deadline).map_err(failed)? {
                return Ok(false);
            }
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(V1_PAUSE);
    }
}

/// Waits for `watched`; false if `deadline` comes first.
fn poll_until(watched: &mut [PollFd<'_>], deadline: Instant) -> std::io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(watched, Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
