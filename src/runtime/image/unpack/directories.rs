//! Directories below a layer's folder, opened so that nothing outside can be reached, and kept open while they are
//! likely to be needed again.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags, fchmod, fsetxattr, mkdirat, openat2, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::split;

/// Directories kept open; archives come in order of depth, so a few are enough.
const KEPT_OPEN: usize = 64;

pub(super) struct Directories {
    root: Rc<OwnedFd>,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
}

/// Why there is no such directory.
pub(super) enum NoDirectory {
    /// A symbolic link on the way leads out of the layer, or nowhere.
    Escape,
    /// `path` exists and is something else.
    NotADirectory {
        path: Vec<u8>,
    },
    Failed(Errno),
}

impl Directories {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Rc::new(root), open: HashMap::new() }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory at `path`, which must be there. Symbolic links are followed only where they stay beneath the
    /// layer's folder.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(directory) = self.open.get(path) {
            return Ok(Rc::clone(directory));
        }
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let open = |resolve| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat2(&*self.root, path, flags, Mode::empty(), resolve)
        };
        let directory = match open(beneath | ResolveFlags::NO_SYMLINKS) {
            Err(Errno::LOOP) => open(beneath)?,
            other => other?,
        };
        Ok(self.keep(path, directory))
    }

    /// The directory at `path`; what is missing of it is made, owned by root, mode 0755, with the time 0.
    pub(super) fn ensure(&mut self, path: &[u8], made: &mut dyn FnMut(&[u8])) -> Result<Rc<OwnedFd>, NoDirectory> {
        match self.existing(path) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::XDEV | Errno::LOOP) => return Err(NoDirectory::Escape),
            Err(errno) => return Err(NoDirectory::Failed(errno)),
        }
        let (parent, name) = split(path);
        // Depth is bounded by the limit on components.
        let parent = self.ensure(parent, made)?;
        let opaque = match mkdirat(&*parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => false,
            Err(Errno::EXIST) => match self.stat(&parent, name) {
                // Hidden before, there now: what the lower layers have in it stays hidden.
                Ok(Some(found)) if is_whiteout(&found) => {
                    unlinkat(&*parent, name, AtFlags::empty()).map_err(NoDirectory::Failed)?;
                    mkdirat(&*parent, name, Mode::from_raw_mode(0o755)).map_err(NoDirectory::Failed)?;
                    true
                }
                Ok(Some(found)) if FileType::from_raw_mode(found.st_mode) == FileType::Symlink => {
                    return Err(NoDirectory::Escape);
                }
                Ok(_) => return Err(NoDirectory::NotADirectory { path: path.to_vec() }),
                Err(errno) => return Err(NoDirectory::Failed(errno)),
            },
            Err(errno) => return Err(NoDirectory::Failed(errno)),
        };
        let directory = self.open_at(&parent, name, path).map_err(NoDirectory::Failed)?;
        fchmod(&*directory, Mode::from_raw_mode(0o755)).map_err(NoDirectory::Failed)?;
        if opaque {
            make_opaque(directory.as_fd()).map_err(NoDirectory::Failed)?;
        }
        made(path);
        Ok(directory)
    }

    /// Opens the directory `name` in `parent` itself and keeps it as `path`.
    pub(super) fn open_at(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        Ok(self.keep(path, directory))
    }

    /// Takes away what `name` in `parent` is, with all below it.
    pub(super) fn remove(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let Some(found) = self.stat(parent, name)? else { return Ok(()) };
        let kind = FileType::from_raw_mode(found.st_mode);
        if matches!(kind, FileType::Directory | FileType::Symlink) {
            // Names that led through it lead elsewhere from now on.
            self.open.clear();
        }
        if kind == FileType::Directory {
            remove_tree(parent.as_fd(), name)
        } else {
            unlinkat(parent, name, AtFlags::empty())
        }
    }

    /// What `name` in `parent` is, links not followed; `None` where there is nothing.
    pub(super) fn stat(&self, parent: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn keep(&mut self, path: &[u8], directory: OwnedFd) -> Rc<OwnedFd> {
        if self.open.len() >= KEPT_OPEN {
            self.open.clear();
        }
        let directory = Rc::new(directory);
        self.open.insert(path.to_vec(), Rc::clone(&directory));
        directory
    }
}

pub(super) fn is_whiteout(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0
}

/// Hides what lower layers have in this directory.
pub(super) fn make_opaque(directory: BorrowedFd<'_>) -> Result<(), Errno> {
    fsetxattr(directory, c"trusted.overlay.opaque", b"y", XattrFlags::empty())
}

/// Recursion is as deep as the tree, which the limit on components bounds.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if matches!(child, b"." | b"..") {
            continue;
        }
        match unlinkat(&directory, child, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(directory.as_fd(), child)?,
            other => other?,
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}
