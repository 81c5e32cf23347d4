//! What a layer takes from those below it: files that its hard links name, and the owners and modes of directories that
//! it implies.
//!
//! A lower layer is as hostile as this one. Its folders are walked a component at a time and never through a link.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens,
    openat, statat,
};
use rustix::io::Errno;

use super::directories::is_whiteout;
use super::member::write_all;
use super::{Place, UnpackError, Unpacker, failed, split};

/// Most bytes of the list of a file's attributes; the kernel's `XATTR_LIST_MAX`, as is that of a value.
const MAX_ATTRIBUTES: usize = 64 << 10;
/// What a directory has that nobody dressed.
const DEFAULT_MODE: u32 = 0o755;

/// The unpacked layers below one that is being unpacked.
pub trait LowerLayers {
    /// Their folders, topmost first; `None` where they cannot be had. It may wait until they are there.
    fn folders(&self) -> Option<Vec<PathBuf>>;
}

impl LowerLayers for Vec<PathBuf> {
    fn folders(&self) -> Option<Vec<PathBuf>> {
        Some(self.clone())
    }
}

impl Unpacker<'_> {
    /// Brings a regular file of a lower layer into this one under its own name, as overlayfs does for a link to it. The
    /// directory it is in and what it is; `None` where no lower layer shows such a file.
    pub(super) fn copy_up(
        &mut self,
        place: &Place<'_>,
        target: &[u8],
    ) -> Result<Option<(Rc<OwnedFd>, Stat)>, UnpackError> {
        let folders = self.lower.folders().ok_or(UnpackError::NoLower)?;
        let Some((below, name, found)) = look_up(&folders, target).map_err(failed(place.member, "look below for"))?
        else {
            return Ok(None);
        };
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        self.done.depends_on_lower = true;
        self.done.bytes = self.done.bytes.saturating_add(found.st_size as u64);
        if self.done.bytes > self.limits.bytes {
            let member = super::shown(&place.member.name);
            return Err(UnpackError::TooLarge { member, limit: self.limits.bytes });
        }
        let parent = self.folder(place, split(target).0)?;
        let copied = copy_file(&below, &name, &parent).map_err(failed(place.member, "copy up the target of"))?;
        Ok(Some((parent, copied)))
    }

    /// Gives directories that only their content implied the owner and mode that the layers below show, so that this
    /// layer, which says nothing of them, does not change them.
    pub(super) fn dress_implied(&mut self) -> Result<(), UnpackError> {
        let implied = std::mem::take(&mut self.implied);
        if implied.is_empty() {
            return Ok(());
        }
        let folders = self.lower.folders().ok_or(UnpackError::NoLower)?;
        for path in implied {
            self.dress_as_below(&folders, &path).map_err(|errno| UnpackError::Make {
                member: super::shown(&path),
                doing: "set the owner and mode of",
                source: errno.into(),
            })?;
        }
        Ok(())
    }

    fn dress_as_below(&mut self, folders: &[PathBuf], path: &[u8]) -> Result<(), Errno> {
        // Where a directory is implied, other layers below may show it otherwise. The root is there in all of them.
        self.done.depends_on_lower |= !path.is_empty();
        let found = match path.is_empty() {
            true => folders.first().and_then(|folder| Some(fstat(File::open(folder).ok()?))).transpose()?,
            false => look_up(folders, path)?.map(|(_, _, found)| found),
        };
        let Some(found) = found.filter(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory) else {
            return Ok(());
        };
        let mode = found.st_mode & 0o7777;
        if (mode, found.st_uid, found.st_gid) == (DEFAULT_MODE, 0, 0) {
            return Ok(());
        }
        // Replaced by something else since: then it is no longer implied.
        let Ok(directory) = self.directories.existing(path) else { return Ok(()) };
        self.done.depends_on_lower = true;
        fchown(&*directory, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
        fchmod(&*directory, Mode::from_raw_mode(mode))
    }
}

/// The directory, last name and state of what `path` is in the layers of `folders`, taken as one tree.
fn look_up(folders: &[PathBuf], path: &[u8]) -> Result<Option<(OwnedFd, Vec<u8>, Stat)>, Errno> {
    'layers: for folder in folders {
        let Ok(root) = File::open(folder) else { return Err(Errno::NOENT) };
        let mut directory = OwnedFd::from(root);
        let mut components = path.split(|&byte| byte == b'/').peekable();
        while let Some(name) = components.next() {
            let found = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => found,
                Err(Errno::NOENT) if is_opaque(&directory) => return Ok(None),
                Err(Errno::NOENT) => continue 'layers,
                Err(errno) => return Err(errno),
            };
            if is_whiteout(&found) {
                return Ok(None);
            }
            if components.peek().is_none() {
                return Ok(Some((directory, name.to_vec(), found)));
            }
            if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
                return Ok(None);
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = openat(&directory, name, flags, Mode::empty())?;
        }
    }
    Ok(None)
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0; 2];
    fgetxattr(directory, c"trusted.overlay.opaque", &mut value[..]).is_ok_and(|length| value[..length] == *b"y")
}

/// Copies a regular file with its owner, mode, attributes and time.
fn copy_file(from: &OwnedFd, name: &[u8], to: &OwnedFd) -> Result<Stat, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat(from, name, flags, Mode::empty())?;
    let found = fstat(&source)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let mut buffer = vec![0; super::COPY_BUFFER];
    loop {
        match rustix::io::read(&source, &mut buffer) {
            Ok(0) => break,
            Ok(read) => write_all(&copy, &buffer[..read])?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    fchown(&copy, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
    fchmod(&copy, Mode::from_raw_mode(found.st_mode & 0o7777))?;
    copy_attributes(&source, &copy)?;
    let time = rustix::fs::Timespec { tv_sec: found.st_mtime as _, tv_nsec: found.st_mtime_nsec as _ };
    futimens(&copy, &rustix::fs::Timestamps { last_access: time, last_modification: time })?;
    fstat(copy.as_fd())
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut names = vec![0; MAX_ATTRIBUTES];
    let length = match flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut value = vec![0; MAX_ATTRIBUTES];
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"security.selinux") {
            continue;
        }
        let length = fgetxattr(from, name, &mut value[..])?;
        fsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}
