//! Paths below a container's root, resolved in it (openat2 with RESOLVE_IN_ROOT) and acted on by descriptor. What is in the
//! root belongs to an attacker: links lead wherever they like, and change while we look. Runs between clone and exec:
//! no allocation.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat_raw};

use crate::runtime::sys::Errno;

/// The kernel gives up with EAGAIN when a rename happens while it resolves.
const MAX_RACES: u32 = 64;
/// As the kernel's own limit for links in one path.
const MAX_LINKS: u32 = 40;
const PATH_MAX: usize = 4096;

/// Whether links are followed (they never lead out of the root).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    Follow,
    Refuse,
}

/// Open `path` below `root` in the given way.
pub fn open_below(root: BorrowedFd<'_>, path: &CStr, flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT
        | ResolveFlags::NO_MAGICLINKS
        | if links == Links::Refuse { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::empty() };
    for _ in 0..MAX_RACES {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Directory,
    File,
}

/// Open `path` below `root` as a place to mount on (O_PATH), made with all directories on the way if it is not there. A link
/// that leads to nothing gets its target made, inside of the root: images have `/etc/resolv.conf` lead into `/run`.
pub fn open_or_make(root: BorrowedFd<'_>, path: &CStr, kind: NodeKind, links: Links) -> Result<OwnedFd, Errno> {
    let flags = if kind == NodeKind::Directory { OFlags::PATH | OFlags::DIRECTORY } else { OFlags::PATH };
    match open_below(root, path, flags, links) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    let mut walk = Walk::new(path)?;
    for _ in 0..MAX_LINKS {
        if let Some(node) = walk.make(root, kind, links)? {
            return Ok(node);
        }
    }
    Err(Errno::LOOP)
}

/// A path that is being made, in a buffer of its own.
struct Walk {
    path: [u8; PATH_MAX],
    length: usize,
}

impl Walk {
    fn new(path: &CStr) -> Result<Self, Errno> {
        let mut walk = Self { path: [0; PATH_MAX], length: 0 };
        walk.append(path.to_bytes())?;
        Ok(walk)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        // One byte stays for the end of the string.
        let end = self.length + bytes.len();
        if end >= PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        self.path.get_mut(self.length..end).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }

    /// Bytes `start` to `end` of the path as a C string, copied to `place`.
    fn part<'a>(&self, start: usize, end: usize, place: &'a mut [u8; PATH_MAX]) -> Result<&'a CStr, Errno> {
        let source = self.path.get(start..end).ok_or(Errno::INVAL)?;
        place.get_mut(..source.len()).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(source);
        *place.get_mut(source.len()).ok_or(Errno::NAMETOOLONG)? = 0;
        CStr::from_bytes_until_nul(place).map_err(|_| Errno::INVAL)
    }

    /// Make what is missing. `None`: a link was in the way, it is replaced by what it says, and the walk starts anew.
    fn make(&mut self, root: BorrowedFd<'_>, kind: NodeKind, links: Links) -> Result<Option<OwnedFd>, Errno> {
        let mut place = [0; PATH_MAX];
        let mut parent: Option<OwnedFd> = None;
        let mut start = 0;
        loop {
            while self.path.get(start) == Some(&b'/') && start < self.length {
                start += 1;
            }
            if start >= self.length {
                return parent.map(Some).ok_or(Errno::NOENT);
            }
            let rest = self.path.get(start..self.length).ok_or(Errno::INVAL)?;
            let end = rest.iter().position(|byte| *byte == b'/').map_or(self.length, |offset| start + offset);
            let node = if end == self.length { kind } else { NodeKind::Directory };
            let flags = if node == NodeKind::Directory { OFlags::PATH | OFlags::DIRECTORY } else { OFlags::PATH };
            let opened = match open_below(root, self.part(0, end, &mut place)?, flags, links) {
                Err(Errno::NOENT) => {
                    let directory = parent.as_ref().map_or(root, std::os::fd::AsFd::as_fd);
                    match make_node(directory, self.part(start, end, &mut place)?, node) {
                        Err(Errno::EXIST) if links == Links::Follow => {
                            self.expand(directory, start, end)?;
                            return Ok(None);
                        }
                        made => made?,
                    }
                    open_below(root, self.part(0, end, &mut place)?, flags, links)?
                }
                opened => opened?,
            };
            parent = Some(opened);
            start = end;
        }
    }

    /// Replace the component from `start` to `end`, a link in `directory`, by what the link says.
    fn expand(&mut self, directory: BorrowedFd<'_>, start: usize, end: usize) -> Result<(), Errno> {
        let mut place = [0; PATH_MAX];
        let mut target = [0_u8; PATH_MAX];
        let length = readlinkat_raw(directory, self.part(start, end, &mut place)?, &mut target)?;
        let target = target.get(..length).ok_or(Errno::NAMETOOLONG)?;
        let mut rest = [0_u8; PATH_MAX];
        let rest_length = self.length - end;
        let rest = rest.get_mut(..rest_length).ok_or(Errno::NAMETOOLONG)?;
        rest.copy_from_slice(self.path.get(end..self.length).ok_or(Errno::INVAL)?);
        self.length = if target.first() == Some(&b'/') { 0 } else { start };
        self.append(target)?;
        self.append(rest)
    }
}

fn make_node(directory: BorrowedFd<'_>, name: &CStr, kind: NodeKind) -> Result<(), Errno> {
    match kind {
        NodeKind::Directory => mkdirat(directory, name, Mode::from_raw_mode(0o755)),
        NodeKind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let descriptor = std::fs::File::open(directory.path()).unwrap().into();
        (directory, descriptor)
    }

    fn make(root: &OwnedFd, path: &CStr, kind: NodeKind) -> Result<OwnedFd, Errno> {
        open_or_make(root.as_fd(), path, kind, Links::Follow)
    }

    #[test]
    fn what_is_missing_is_made_on_the_way() {
        let (directory, root) = root();
        make(&root, c"a/b//c", NodeKind::File).unwrap();
        assert!(directory.path().join("a/b/c").is_file());
        make(&root, c"a/d", NodeKind::Directory).unwrap();
        assert!(directory.path().join("a/d").is_dir());
    }

    #[test]
    fn a_link_out_of_the_root_stays_inside() {
        let (directory, root) = root();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), directory.path().join("etc")).unwrap();
        make(&root, c"etc/hosts", NodeKind::File).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let inside = directory.path().join(outside.path().strip_prefix("/").unwrap());
        assert!(inside.join("hosts").is_file());
    }

    #[test]
    fn a_relative_link_upwards_stays_inside() {
        let (directory, root) = root();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        symlink("../../../../run/resolve/conf", directory.path().join("etc/resolv.conf")).unwrap();
        make(&root, c"etc/resolv.conf", NodeKind::File).unwrap();
        assert!(directory.path().join("run/resolve/conf").is_file());
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let (directory, root) = root();
        symlink("b", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        assert_eq!(make(&root, c"a/x", NodeKind::File).err(), Some(Errno::LOOP));
    }

    #[test]
    fn links_are_refused_where_a_real_directory_is_asked_for() {
        let (directory, root) = root();
        symlink("sys", directory.path().join("proc")).unwrap();
        let result = open_or_make(root.as_fd(), c"proc", NodeKind::Directory, Links::Refuse);
        assert_eq!(result.err(), Some(Errno::LOOP));
        symlink("nowhere", directory.path().join("gone")).unwrap();
        let result = open_or_make(root.as_fd(), c"gone", NodeKind::Directory, Links::Refuse);
        assert_eq!(result.err(), Some(Errno::LOOP));
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let (directory, root) = root();
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(make(&root, c"file/x", NodeKind::File).err(), Some(Errno::NOTDIR));
    }
}
