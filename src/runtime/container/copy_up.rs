//! What a new tmpfs begins with: the permissions of the directory that it covers, or a copy of everything there (`tmpcopyup`).
//! What is copied belongs to an attacker: by descriptor, without following links, with bounds. Runs between clone and exec: no
//! allocation.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fchown, fstat,
    futimens, mkdirat, mknodat, openat, readlinkat_raw, sendfile, statat, symlinkat,
};

use crate::runtime::sys::Errno;

use super::op::Contents;
use super::rootfs::file_type;

/// Directories in each other. Each takes two buffers of this size on the stack.
const MAX_DEPTH: u32 = 128;
const BUFFER: usize = 4096;
/// In one directory tree; more is no template of a directory.
const MAX_ENTRIES: u32 = 1 << 20;
/// As much as sendfile(2) does in one call.
const CHUNK: usize = 0x7fff_f000;

/// Fill the root of a new mount from `covered`, the directory that it is about to cover.
pub fn fill(mount: BorrowedFd<'_>, covered: BorrowedFd<'_>, contents: Contents) -> Result<(), Errno> {
    let (from, to) = (open_directory(covered, c".")?, open_directory(mount, c".")?);
    match contents {
        Contents::Empty => Ok(()),
        Contents::Permissions => fchmod(&to, Mode::from_raw_mode(fstat(&from)?.st_mode & 0o7777)),
        Contents::Copy => {
            let mut copied = Copied { entries: 0 };
            copied.directory(from.as_fd(), to.as_fd(), 0)?;
            finish(to.as_fd(), &fstat(&from)?)
        }
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

struct Copied {
    entries: u32,
}

impl Copied {
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<(), Errno> {
        if depth > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let mut space = [MaybeUninit::uninit(); BUFFER];
        let mut list = RawDir::new(from, &mut space);
        while let Some(entry) = list.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Errno::NOSPC);
            }
            let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            match file_type(&stat) {
                FileType::Directory => {
                    mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                    let (inner, copy) = (open_directory(from, name)?, open_directory(to, name)?);
                    self.directory(inner.as_fd(), copy.as_fd(), depth + 1)?;
                    finish(copy.as_fd(), &stat)?;
                }
                FileType::RegularFile => copy_file(from, to, name, &stat)?,
                FileType::Symlink => copy_link(from, to, name, &stat)?,
                FileType::Socket | FileType::Unknown => {}
                kind => {
                    mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
                    own(to, name, &stat)?;
                }
            }
        }
        Ok(())
    }
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let source =
        openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = openat(to, name, flags, Mode::from_raw_mode(0o600))?;
    // Not more than it had at first: somebody may be writing to it.
    let mut left = usize::try_from(stat.st_size).unwrap_or(0);
    while left > 0 {
        match sendfile(&copy, &source, None, left.min(CHUNK)) {
            Ok(0) => break,
            Ok(sent) => left -= sent.min(left),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    finish(copy.as_fd(), stat)
}

fn copy_link(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let mut target = [0_u8; BUFFER];
    // The last byte stays 0.
    let room = target.get_mut(..BUFFER - 1).ok_or(Errno::NAMETOOLONG)?;
    readlinkat_raw(from, name, room)?;
    symlinkat(CStr::from_bytes_until_nul(&target).map_err(|_| Errno::NAMETOOLONG)?, to, name)?;
    own(to, name, stat)
}

fn ids(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn own(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = ids(stat);
    owned(chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))
}

/// An owner that the container's user namespace does not know cannot be given.
fn owned(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::INVAL) { Ok(()) } else { result }
}

/// Owner first: a change of it takes the set-user-id bit away.
fn finish(copy: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = ids(stat);
    owned(fchown(copy, uid, gid))?;
    fchmod(copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    futimens(copy, &times)
}
