//! Binds that show their files with other owners (mount_setattr(2), `MOUNT_ATTR_IDMAP`). They are made in the maker, before the
//! clone: in a user namespace nobody has the right to.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};

use crate::runtime::sys::{self, Cloned, Errno, MountAttributes, NamespaceFlags, mount_setattr};

use super::op::{IdMap, IdMappedBind};
use super::rootfs::copy_mount;
use super::spawn::{SpawnError, kill_and_reap};

/// The most of them in one configuration.
const MAX: usize = 62;

/// Mounts that wait for being attached, by their place in the list.
#[derive(Default)]
pub struct Prepared(Vec<Option<OwnedFd>>);

impl Prepared {
    pub fn take(&mut self, index: usize) -> Option<OwnedFd> {
        self.0.get_mut(index)?.take()
    }

    /// The numbers of all, and this one in all other places.
    pub fn numbers_beside(&self, other: i32) -> [i32; MAX + 2] {
        let mut numbers = [other; MAX + 2];
        // The first place stays free for one more.
        for (place, mount) in numbers.iter_mut().skip(2).zip(self.0.iter().flatten()) {
            *place = mount.as_raw_fd();
        }
        numbers
    }
}

pub fn prepare(binds: &[IdMappedBind]) -> Result<Prepared, SpawnError> {
    let mut known: Vec<(&IdMap, OwnedFd)> = Vec::new();
    let mut mounts = Vec::new();
    for (index, one) in binds.iter().enumerate() {
        let failed = |source| SpawnError::SetUp {
            step: format!("cannot map the ids of `{}`", one.bind.path.to_string_lossy()),
            executing: false,
            source,
        };
        if index >= MAX {
            return Err(failed(Errno::TOOBIG));
        }
        if !known.iter().any(|(ids, _)| **ids == one.ids) {
            known.push((&one.ids, user_namespace(&one.ids).map_err(failed)?));
        }
        let Some((_, namespace)) = known.iter().find(|(ids, _)| **ids == one.ids) else { continue };
        let mount = copy_mount(&one.bind).map_err(failed)?;
        let mapped = MountAttributes {
            userns_fd: namespace.as_raw_fd() as u64,
            ..MountAttributes::set(MountAttributes::ID_MAP)
        };
        mount_setattr(mount.as_fd(), one.depth, &mapped).map_err(failed)?;
        mounts.push(Some(mount));
    }
    Ok(Prepared(mounts))
}

/// It lives as long as somebody holds it; the process that it was made with ends at once.
fn user_namespace(ids: &IdMap) -> Result<OwnedFd, Errno> {
    let (uids, gids) = match ids {
        IdMap::Namespace(path) => return open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()),
        IdMap::Texts { uids, gids } => (uids, gids),
    };
    let (wait, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (pid, pidfd) = match sys::clone_child(NamespaceFlags(NamespaceFlags::USER), None)? {
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
        Cloned::Child => {
            let _ = sys::close_all_but([wait.as_raw_fd()]);
            // Until the maker has what it wants, or is dead.
            let _ = rustix::io::read(&wait, &mut [0_u8; 1]);
            sys::exit_now(0)
        }
    };
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    let made = fs::write(format!("/proc/{pid}/uid_map"), uids)
        .and_then(|()| fs::write(format!("/proc/{pid}/gid_map"), gids))
        .map_err(errno)
        .and_then(|()| open(format!("/proc/{pid}/ns/user"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()));
    drop(end);
    kill_and_reap(pidfd.as_fd());
    made
}
