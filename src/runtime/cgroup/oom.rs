//! OOM kills: hearing of them without looking all the time, and who was killed for whose limit.
//!
//! The kernel tells that a group ran out of memory by an eventfd (v1, `memory.oom_control`) or by a changed file (v2,
//! `memory.events`). It counts kills, and says no more; the names stand in the kernel's log.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::files::GroupDir;
use super::{CgroupError, CgroupPath, Version};

/// The kernel's log, a record a read (`Documentation/ABI/testing/dev-kmsg`).
const KERNEL_LOG: &str = "/dev/kmsg";
/// No record is longer (`PRINTK_MESSAGE_MAX`).
const RECORD: usize = 2048;
/// Records read at most: the log holds some 20,000 of the shortest in its largest usual size.
const MOST_RECORDS: usize = 100_000;

/// Becomes readable when a group, or one above it, runs out of memory. The kill follows within moments, so a count
/// that is the old one is to be looked at again.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

impl OomWatch {
    pub(super) fn open(version: Version, dir: &GroupDir) -> Result<Self, CgroupError> {
        let file = if version == Version::V1 { "memory.oom_control" } else { "memory.events" };
        let failed = |source| CgroupError::Read { path: dir.path().join(file), source };
        if version == Version::V2 {
            let fd =
                inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| failed(errno.into()))?;
            inotify::add_watch(&fd, dir.path().join(file), WatchFlags::MODIFY).map_err(|errno| failed(errno.into()))?;
            return Ok(Self { fd });
        }
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| failed(errno.into()))?;
        let control = dir.open_file(file).map_err(failed)?;
        dir.write("cgroup.event_control", &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()))?;
        Ok(Self { fd })
    }

    /// To be polled for reading.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes what was told, so that only news make it readable again.
    pub fn clear(&self) {
        let mut bytes = [0; 1024];
        while rustix::io::read(&self.fd, &mut bytes).is_ok_and(|length| length == bytes.len()) {}
    }
}

/// One kill, as the kernel's log tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomKill {
    /// The name of the thread group's leader, at most 15 bytes.
    pub process: String,
    /// In the initial pid namespace.
    pub pid: u32,
    pub uid: u32,
    /// The process's group, from the root of its hierarchy, such as `/stack/shop/web`.
    pub group: String,
    /// The group whose limit was reached. `None`: the host itself ran out of memory.
    pub limit_group: Option<String>,
}

impl OomKill {
    /// Reads one record: `6,1234,5678,-;oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/a,task_memcg=/a/b,task=perl,pid=7,uid=0`.
    /// `None`: it tells of something else.
    pub fn parse(record: &str) -> Option<Self> {
        let text = record.lines().next()?.split_once(";oom-kill:")?.1;
        // A name may hold a comma; what follows it is known.
        let (head, tail) = text.rsplit_once(",pid=")?;
        let (pid, uid) = tail.split_once(",uid=")?;
        let (head, process) = head.split_once(",task=")?;
        let (head, group) = head.split_once(",task_memcg=")?;
        let limit_group = head.split_once(",oom_memcg=").map(|(_, group)| group.to_owned());
        let uid = uid.trim().parse().ok()?;
        Some(Self { process: process.into(), pid: pid.parse().ok()?, uid, group: group.into(), limit_group })
    }

    /// The process was in `group` or below it.
    pub fn is_in(&self, group: &CgroupPath) -> bool {
        let group = group.as_str();
        let below = |at: usize| self.group[at + group.len()..].chars().next().is_none_or(|next| next == '/');
        self.group.match_indices(group).any(|(at, _)| self.group[..at].ends_with('/') && below(at))
    }
}

/// The kills of processes in `group` that the kernel's log still holds, the oldest first. The kernel writes at most ten
/// reports in five seconds, so there may be fewer than were counted. Errors: the log may not be read.
pub fn logged_kills(group: &CgroupPath) -> io::Result<Vec<OomKill>> {
    let mut log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(KERNEL_LOG)?;
    let mut kills = Vec::new();
    let mut record = [0; RECORD + 64];
    for _ in 0..MOST_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let kill = OomKill::parse(&String::from_utf8_lossy(&record[..length]));
                kills.extend(kill.filter(|kill| kill.is_in(group)));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // Records went away while reading, or one is longer than promised.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EINVAL)) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(kills)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "6,812,90817263,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=web,mems_allowed=0,\
        oom_memcg=/stack/shop/backend.branch,task_memcg=/stack/shop/backend.branch/web,task=a,pid=b,pid=77,uid=33\n";

    #[test]
    fn a_record_tells_who_was_killed_and_whose_limit_it_was() {
        let kill = OomKill::parse(RECORD).unwrap();
        assert_eq!((kill.process.as_str(), kill.pid, kill.uid), ("a,pid=b", 77, 33));
        assert_eq!(kill.limit_group.as_deref(), Some("/stack/shop/backend.branch"));
        let hosts = RECORD.replace("oom_memcg=/stack/shop/backend.branch,", "global_oom,");
        assert_eq!(OomKill::parse(&hosts).unwrap().limit_group, None);
        assert_eq!(OomKill::parse("6,1,2,-;Memory cgroup out of memory: Killed process 7 (perl)\n"), None);
    }

    #[test]
    fn a_kill_belongs_to_its_group_and_those_above() {
        let kill = OomKill::parse(RECORD).unwrap();
        let is_in = |path: &str| kill.is_in(&CgroupPath::new(path).unwrap());
        assert!(is_in("stack/shop/backend.branch/web") && is_in("stack/shop/backend.branch") && is_in("stack/shop"));
        assert!(!is_in("stack/shop/backend.branch/we") && !is_in("shop/web") && !is_in("tack/shop"));
    }
}
