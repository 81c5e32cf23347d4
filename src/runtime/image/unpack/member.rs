//! Makes one member: the object, then its content, owner, mode, attributes and time, in the order in which one does not
//! undo the other (chown takes setuid bits and file capabilities away).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr,
    ftruncate, futimens, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, seek, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::super::tar::{SparseMap, TarError, TarInput, TarKind, TarMember, TarReader, TarTime, shown};
use super::directories::{NoDirectory, is_whiteout, make_opaque};
use super::{AUFS, NOFOLLOW, OPAQUE, Place, UnpackError, Unpacker, WHITEOUT, failed, split, timestamps};

impl Unpacker<'_> {
    /// The layer's folder itself, whose owner and mode become those of the container's `/`.
    pub(super) fn root(&mut self, place: &Place<'_>) -> Result<(), UnpackError> {
        if place.member.kind != TarKind::Directory {
            return Err(UnpackError::Root { member: shown(&place.member.name) });
        }
        self.implied.remove(place.path);
        self.times.insert(Vec::new(), place.member.mtime);
        dress_directory(self.directories.root(), place.member)
    }

    pub(super) fn file<R: TarInput>(&mut self, tar: &mut TarReader<R>, place: &Place<'_>) -> Result<(), UnpackError> {
        let member = place.member;
        let file = self.make(place, |parent, name| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        match &member.sparse {
            Some(map) => self.sparse_content(tar, member, (&file, map))?,
            None => loop {
                let read = tar.read_data(&mut self.buffer).map_err(UnpackError::Tar)?;
                if read == 0 {
                    break;
                }
                write_all(&file, &self.buffer[..read]).map_err(failed(member, "write"))?;
            },
        }
        fchown(&file, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))
            .map_err(failed(member, "set the owner of"))?;
        fchmod(&file, Mode::from_raw_mode(member.mode)).map_err(failed(member, "set the mode of"))?;
        for (name, value) in attributes(member) {
            let set = fsetxattr(&file, name, value, XattrFlags::empty());
            tolerate(name, set).map_err(failed(member, "set an extended attribute of"))?;
        }
        futimens(&file, &timestamps(member.mtime)).map_err(failed(member, "set the time of"))
    }

    fn sparse_content<R: TarInput>(
        &mut self,
        tar: &mut TarReader<R>,
        member: &TarMember,
        (file, map): (&OwnedFd, &SparseMap),
    ) -> Result<(), UnpackError> {
        for &(offset, bytes) in &map.pieces {
            let (mut at, mut left) = (offset, bytes);
            while left > 0 {
                let want = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let read = tar.read_data(&mut self.buffer[..want]).map_err(UnpackError::Tar)?;
                if read == 0 {
                    return Err(UnpackError::Tar(TarError::Truncated { offset: tar.position() }));
                }
                seek(file, SeekFrom::Start(at)).map_err(failed(member, "write"))?;
                write_all(file, &self.buffer[..read]).map_err(failed(member, "write"))?;
                (at, left) = (at + read as u64, left - read as u64);
            }
        }
        ftruncate(file, map.size).map_err(failed(member, "set the size of"))
    }

    /// A directory that is there already keeps what is in it.
    pub(super) fn directory(&mut self, place: &Place<'_>) -> Result<(), UnpackError> {
        let parent = self.parent(place)?;
        let make = || mkdirat(&*parent, place.name, Mode::RWXU);
        let mut opaque = false;
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let found = self.directories.stat(&parent, place.name).map_err(failed(place.member, "look at"))?;
                let is_directory =
                    found.is_some_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory);
                if !is_directory {
                    opaque = found.is_some_and(|found| is_whiteout(&found));
                    self.directories.remove(&parent, place.name).map_err(failed(place.member, "replace"))?;
                    make().map_err(failed(place.member, "make"))?;
                }
            }
            Err(errno) => return Err(failed(place.member, "make")(errno)),
        }
        let directory =
            self.directories.open_at(&parent, place.name, place.path).map_err(failed(place.member, "open"))?;
        if opaque {
            make_opaque(directory.as_fd()).map_err(failed(place.member, "make opaque"))?;
        }
        self.implied.remove(place.path);
        self.times.insert(place.path.to_vec(), place.member.mtime);
        dress_directory(directory.as_fd(), place.member)
    }

    pub(super) fn hard_link(&mut self, place: &Place<'_>, target: &[u8]) -> Result<(), UnpackError> {
        let names = || (shown(&place.member.name), shown(target));
        let (target_parent, target_name) = split(target);
        let absent = || {
            let (member, target) = names();
            UnpackError::HardLink { member, target }
        };
        if place.path == target {
            return Err(absent());
        }
        let beside = match self.directories.existing(target_parent) {
            Ok(directory) => Some(directory),
            Err(Errno::XDEV | Errno::LOOP) => return Err(UnpackError::Escape { member: shown(&place.member.name) }),
            Err(Errno::NOENT) => None,
            Err(_) => return Err(absent()),
        };
        let found = match &beside {
            Some(directory) => {
                self.directories.stat(directory, target_name).map_err(failed(place.member, "look at"))?
            }
            None => None,
        };
        let (target_parent, found) = match (beside, found) {
            (Some(directory), Some(found)) => (directory, found),
            _ => self.copy_up(place, target)?.ok_or_else(absent)?,
        };
        if is_whiteout(&found) {
            return Err(absent());
        }
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            let (member, target) = names();
            return Err(UnpackError::HardLinkToDirectory { member, target });
        }
        self.make(place, |parent, name| linkat(&*target_parent, target_name, parent, name, AtFlags::empty()))
    }

    pub(super) fn symlink(&mut self, place: &Place<'_>, target: &[u8]) -> Result<(), UnpackError> {
        self.make(place, |parent, name| symlinkat(target, parent, name))?;
        self.dress(place)
    }

    pub(super) fn node(&mut self, place: &Place<'_>) -> Result<(), UnpackError> {
        let (kind, device) = match place.member.kind {
            TarKind::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
            TarKind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
            _ => (FileType::Fifo, 0),
        };
        self.make(place, |parent, name| mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device))?;
        self.dress(place)?;
        let parent = self.parent(place)?;
        // Changing a mode follows links, but this is what was made above, and nobody else can reach the folder.
        chmodat(&*parent, place.name, Mode::from_raw_mode(place.member.mode), AtFlags::empty())
            .map_err(failed(place.member, "set the mode of"))
    }

    /// A name to hide, or a directory whose lower content is hidden. What this same layer holds is never hidden.
    pub(super) fn whiteout(&mut self, place: &Place<'_>) -> Result<(), UnpackError> {
        if place.name == OPAQUE {
            let parent = self.parent(place)?;
            return make_opaque(parent.as_fd()).map_err(failed(place.member, "make opaque the directory of"));
        }
        if place.name.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = &place.name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Whiteout { member: shown(&place.member.name) });
        }
        let parent = self.parent(place)?;
        let found = self.directories.stat(&parent, hidden).map_err(failed(place.member, "look at"))?;
        match found.map(|found| FileType::from_raw_mode(found.st_mode)) {
            None => mknodat(&*parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(failed(place.member, "make the whiteout")),
            Some(FileType::Directory) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = openat(&*parent, hidden, flags, Mode::empty());
                directory.and_then(|directory| make_opaque(directory.as_fd())).map_err(failed(place.member, "apply"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Makes an object by its last name in its parent; what has the name already is replaced.
    fn make<T>(
        &mut self,
        place: &Place<'_>,
        make: impl Fn(&OwnedFd, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let parent = self.parent(place)?;
        match make(&parent, place.name) {
            Err(Errno::EXIST) => {
                self.directories.remove(&parent, place.name).map_err(failed(place.member, "replace"))?;
                make(&parent, place.name).map_err(failed(place.member, "make"))
            }
            other => other.map_err(failed(place.member, "make")),
        }
    }

    fn parent(&mut self, place: &Place<'_>) -> Result<Rc<OwnedFd>, UnpackError> {
        self.folder(place, place.parent)
    }

    /// The directory at `path`, made where it is missing.
    pub(super) fn folder(&mut self, place: &Place<'_>, path: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        let (times, implied) = (&mut self.times, &mut self.implied);
        let mut made = |path: &[u8]| {
            times.insert(path.to_vec(), TarTime::default());
            implied.insert(path.to_vec());
        };
        let member = || shown(&place.member.name);
        self.directories.ensure(path, &mut made).map_err(|error| match error {
            NoDirectory::Escape => UnpackError::Escape { member: member() },
            NoDirectory::NotADirectory { path } => UnpackError::Parent { member: member(), parent: shown(&path) },
            NoDirectory::Failed(errno) => failed(place.member, "open the directory of")(errno),
        })
    }

    /// Owner, attributes and time of what cannot be opened.
    fn dress(&mut self, place: &Place<'_>) -> Result<(), UnpackError> {
        let (member, parent) = (place.member, self.parent(place)?);
        let (uid, gid) = (Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)));
        chownat(&*parent, place.name, uid, gid, NOFOLLOW).map_err(failed(member, "set the owner of"))?;
        for (name, value) in attributes(member) {
            // There is no setxattrat before Linux 6.13; the descriptor keeps the path from leading elsewhere.
            let path = [format!("/proc/self/fd/{}/", parent.as_raw_fd()).as_bytes(), place.name].concat();
            let set = lsetxattr(&path[..], name, value, XattrFlags::empty());
            tolerate(name, set).map_err(failed(member, "set an extended attribute of"))?;
        }
        utimensat(&*parent, place.name, &timestamps(member.mtime), NOFOLLOW).map_err(failed(member, "set the time of"))
    }
}

fn dress_directory(directory: std::os::fd::BorrowedFd<'_>, member: &TarMember) -> Result<(), UnpackError> {
    fchown(directory, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))
        .map_err(failed(member, "set the owner of"))?;
    fchmod(directory, Mode::from_raw_mode(member.mode)).map_err(failed(member, "set the mode of"))?;
    for (name, value) in attributes(member) {
        let set = fsetxattr(directory, name, value, XattrFlags::empty());
        tolerate(name, set).map_err(failed(member, "set an extended attribute of"))?;
    }
    Ok(())
}

/// The attributes that belong to the content. Those of overlayfs would let a layer redirect lookups into another
/// directory; labels of security modules belong to the host on which the image was made.
fn attributes(member: &TarMember) -> impl Iterator<Item = (&[u8], &[u8])> {
    let belongs = |name: &[u8]| {
        let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        let kept: [&[u8]; 4] = [b"user.", b"trusted.", b"security.capability", b"system.posix_acl_"];
        !overlay && kept.iter().any(|prefix| name.starts_with(prefix))
    };
    let all = member.xattrs.iter().map(|(name, value)| (&name[..], &value[..]));
    all.filter(move |(name, _)| belongs(name))
}

/// A file system that cannot keep an attribute loses it, as with every tool; a file capability must not be lost
/// in silence. User attributes are not allowed on links and devices.
fn tolerate(name: &[u8], set: Result<(), Errno>) -> Result<(), Errno> {
    match set {
        Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => Ok(()),
        other => other,
    }
}

pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
