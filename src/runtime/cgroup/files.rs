//! Reading and writing the small text files of a group's directory, by descriptor and with bounds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::CgroupError;

/// Bound on files with a few values: limits, counters, `memory.stat`.
pub const VALUE_LIMIT: usize = 64 * 1024;
/// Bound on `cgroup.procs`: the highest number of processes the kernel allows (4,194,304) at 8 bytes each.
pub const PROCS_LIMIT: usize = 32 * 1024 * 1024;
/// First read of any file; most hold less.
const FIRST_READ: usize = 4096;

/// One directory of a group, open. The path is for messages and for handing to others.
#[derive(Debug)]
pub struct GroupDir {
    path: PathBuf,
    fd: OwnedFd,
}

impl GroupDir {
    /// Opens `path`; `Ok(None)` if it does not exist.
    pub fn open(path: PathBuf) -> Result<Option<Self>, CgroupError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match openat(CWD, &path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { path, fd })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(CgroupError::Read { path, source: errno.into() }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens the file `name` for reading.
    pub fn open_file(&self, name: &str) -> io::Result<OwnedFd> {
        Ok(openat(&self.fd, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The text of the file `name`, at most `limit` bytes of it; more is an error.
    pub fn read(&self, name: &str, limit: usize) -> Result<String, CgroupError> {
        let failed = |source| CgroupError::Read { path: self.path.join(name), source };
        let file = self.open_file(name).map_err(failed)?;
        let bytes = read_bounded(&file, limit).map_err(failed)?;
        let bytes = bytes.ok_or_else(|| CgroupError::TooLong { path: self.path.join(name), limit })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// As [`read`](Self::read) with the ordinary bound, and `None` if this kernel does not have the file, or the group
    /// is gone.
    pub fn read_optional(&self, name: &str) -> Result<Option<String>, CgroupError> {
        match self.read(name, VALUE_LIMIT) {
            Ok(text) => Ok(Some(text)),
            Err(CgroupError::Read { source, .. }) if is_gone(&source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes `value` to the file `name` in one system call, as the kernel wants it.
    pub fn write(&self, name: &str, value: &str) -> Result<(), CgroupError> {
        self.write_raw(name, value).map_err(|source| CgroupError::Write {
            path: self.path.join(name),
            value: value.into(),
            source,
        })
    }

    /// As [`write`](Self::write), with the bare system error for callers who give it a meaning.
    pub fn write_raw(&self, name: &str, value: &str) -> io::Result<()> {
        // Truncation is what a file of a made-up tree in a test needs; the kernel's files ignore it.
        let file = openat(&self.fd, name, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::TRUNC, Mode::empty())?;
        let written = rustix::io::write(&file, value.as_bytes())?;
        match written == value.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// The error for a file whose text is not what the kernel documents.
    pub fn malformed(&self, name: &str, text: &str) -> CgroupError {
        let text: String = text.trim_end().chars().take(80).collect();
        CgroupError::Malformed { path: self.path.join(name), text }
    }
}

/// The file does not exist, or its group was removed while open.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Reads `file` to its end; `None` if it is longer than `limit`.
pub fn read_bounded(file: &OwnedFd, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; FIRST_READ.min(limit + 1)];
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            if filled > limit {
                return Ok(None);
            }
            bytes.resize((filled * 2).min(limit + 1), 0);
        }
        match rustix::io::read(file, &mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    bytes.truncate(filled);
    Ok(if filled > limit { None } else { Some(bytes) })
}

/// The number after `key` in text of lines `key number`.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beyond_its_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), vec![b'x'; 10_000]).unwrap();
        let dir = GroupDir::open(folder.path().into()).unwrap().unwrap();
        assert!(matches!(dir.read("f", 9_999), Err(CgroupError::TooLong { limit: 9_999, .. })));
        assert_eq!(dir.read("f", 10_000).unwrap().len(), 10_000);
        assert_eq!(dir.read_optional("g").unwrap(), None);
    }

    #[test]
    fn keyed_numbers_are_found_by_their_whole_key() {
        let text = "oom 1\noom_kill 7\nlow 0\n";
        assert_eq!(keyed(text, "oom_kill"), Some(7));
        assert_eq!(keyed(text, "oom"), Some(1));
        assert_eq!(keyed(text, "oom_group_kill"), None);
    }
}
