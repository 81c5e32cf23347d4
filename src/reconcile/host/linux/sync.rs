//! Brings changed files of the host into a running container, beneath a descriptor of its root as it sees it itself.
//!
//! What is in the root belongs to an attacker: no path is resolved from the host's root, links never lead out of the
//! container's, and what is made is acted on by descriptor.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::LinuxHost;
use super::exec::process_settings;
use crate::monitor::client::{Found, open_verified, read_status};
use crate::monitor::status::ProcessId;
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::container::{Links, NodeKind, open_below, open_or_make};

/// What to bring into a container.
#[derive(Clone, Debug)]
pub struct SyncWish {
    /// A folder or a file of the host.
    pub root: PathBuf,
    /// Where it is seen in the container.
    pub target: String,
    /// Below the root; folders before what is in them. Empty: the root itself.
    pub changed: BTreeSet<PathBuf>,
    pub removed: BTreeSet<PathBuf>,
    /// Whether a file of the same size, time and mode is left as it is.
    pub skip_same: bool,
}

/// What was brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    pub copied: usize,
    pub removed: usize,
}

/// The name of a file in the making; it is renamed at once.
const UNFINISHED: &str = ".stack-sync";

impl LinuxHost {
    /// The first process of an instance, while it runs. Another one may have another root.
    pub fn running(&self, instance: &str) -> Option<ProcessId> {
        match read_status(&self.bundle(instance)) {
            Ok(Found::Watched(status)) => status.init().filter(ProcessId::is_alive),
            _ => None,
        }
    }

    /// Brings files into a running container. `None`: it does not run.
    pub async fn sync(&self, instance: &str, wish: SyncWish) -> Result<Option<Synced>, HostError> {
        let name = instance.to_string();
        self.blocking(move |host| {
            let Some(init) = host.running(&name) else { return Ok(None) };
            let doing = || format!("reach the root of `{name}`");
            let root = File::open(format!("/proc/{}/root", init.pid)).doing(doing)?;
            // Opened first and looked at after: it is the root of this very process.
            if open_verified(init).doing(doing)?.is_none() {
                return Ok(None);
            }
            let user = process_settings(&host.bundle(&name))?.user;
            let target = Target { root: root.into(), uid: user.uid, gid: user.gid };
            target.bring(&wish).map(Some)
        })
        .await
    }
}

/// A container's root, and who its files belong to.
struct Target {
    root: OwnedFd,
    uid: u32,
    gid: u32,
}

impl Target {
    fn bring(&self, wish: &SyncWish) -> Result<Synced, HostError> {
        let mut done = Synced::default();
        for path in wish.removed.iter().rev() {
            let at = place(wish, path);
            done.removed += usize::from(self.remove(&at).doing(|| format!("remove `{}`", at.display()))?);
        }
        if !wish.changed.is_empty() && !wish.changed.contains(Path::new("")) {
            let base = c_path(Path::new(&wish.target)).doing(|| "read the target")?;
            open_or_make(self.root.as_fd(), &base, NodeKind::Directory, Links::Follow)
                .doing(|| format!("make folder `{}`", wish.target))?;
        }
        for path in &wish.changed {
            let from = if path.as_os_str().is_empty() { wish.root.clone() } else { wish.root.join(path) };
            let at = place(wish, path);
            // A single file is followed where its path is a link; in a folder links are files of their own.
            let found = if path.as_os_str().is_empty() { fs::metadata(&from) } else { fs::symlink_metadata(&from) };
            let found = match found {
                Ok(found) => found,
                // Gone again: the next change says so.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).doing(|| format!("read `{}`", from.display())),
            };
            let copied = self.copy(&from, &found, &at, wish.skip_same);
            done.copied += usize::from(copied.doing(|| format!("write `{}`", at.display()))?);
        }
        Ok(done)
    }

    /// Whether something was written. Folders do not count.
    fn copy(&self, from: &Path, found: &fs::Metadata, at: &Path, skip_same: bool) -> io::Result<bool> {
        let (folder, name) = self.parent(at)?;
        let held = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW).ok();
        if found.is_dir() {
            self.folder(&folder, &name, found, held)?;
            return Ok(false);
        }
        if skip_same && held.is_some_and(|held| is_same(&held, found)) {
            return Ok(false);
        }
        if held.is_some_and(|held| FileType::from_raw_mode(held.st_mode) == FileType::Directory) {
            rustix::fs::unlinkat(&folder, &name, AtFlags::REMOVEDIR)?;
        }
        let new = c_path(Path::new(&format!("{UNFINISHED}-{}", std::process::id())))?;
        unless_missing(rustix::fs::unlinkat(&folder, &new, AtFlags::empty()))?;
        let made = match found.is_symlink() {
            true => self.make_link(from, &folder, &new),
            false => self.make_file(from, &folder, &new),
        };
        let renamed = made.and_then(|()| Ok(rustix::fs::renameat(&folder, &new, &folder, &name)?));
        if renamed.is_err() {
            let _ = rustix::fs::unlinkat(&folder, &new, AtFlags::empty());
        }
        renamed.map(|()| true)
    }

    fn folder(&self, folder: &OwnedFd, name: &CString, found: &fs::Metadata, held: Option<Stat>) -> io::Result<()> {
        let mode = Mode::from_raw_mode(found.mode() & 0o777);
        match held.map(|held| FileType::from_raw_mode(held.st_mode)) {
            // A link may lead to a folder; it stays.
            Some(FileType::Directory | FileType::Symlink) => return Ok(()),
            Some(_) => rustix::fs::unlinkat(folder, name, AtFlags::empty())?,
            None => {}
        }
        rustix::fs::mkdirat(folder, name, mode)?;
        let made = open_below(folder.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse)?;
        rustix::fs::fchown(&made, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        Ok(rustix::fs::fchmod(&made, mode)?)
    }

    fn make_link(&self, from: &Path, folder: &OwnedFd, name: &CString) -> io::Result<()> {
        rustix::fs::symlinkat(fs::read_link(from)?, folder, name)?;
        let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        Ok(rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// With the time of the host's, which build tools go by, and never set-user-id.
    fn make_file(&self, from: &Path, folder: &OwnedFd, name: &CString) -> io::Result<()> {
        let mut source = File::open(from)?;
        let found = source.metadata()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(&mut source, &mut file)?;
        rustix::fs::fchown(&file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        file.set_permissions(fs::Permissions::from_mode(found.mode() & 0o777))?;
        file.set_times(FileTimes::new().set_modified(found.modified()?))
    }

    /// Whether something was there. A folder with files of the container's own stays.
    fn remove(&self, at: &Path) -> io::Result<bool> {
        let (folder, name) = match self.parent(at) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match rustix::fs::unlinkat(&folder, &name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::ISDIR) => match rustix::fs::unlinkat(&folder, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
                Err(errno) => Err(errno.into()),
            },
            Err(errno) => Err(errno.into()),
        }
    }

    /// The folder that a path of the container lies in, and its name there.
    fn parent(&self, at: &Path) -> io::Result<(OwnedFd, CString)> {
        let name = at.file_name().ok_or(Errno::INVAL)?;
        let folder = at.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let folder = open_below(self.root.as_fd(), &c_path(folder)?, flags, Links::Follow)?;
        Ok((folder, c_path(Path::new(name))?))
    }
}

fn place(wish: &SyncWish, path: &Path) -> PathBuf {
    let target = Path::new(&wish.target);
    match path.as_os_str().is_empty() {
        true => target.to_path_buf(),
        false => target.join(path),
    }
}

fn is_same(held: &Stat, found: &fs::Metadata) -> bool {
    let kind = |mode: u32| mode & libc::S_IFMT;
    let times = (held.st_mtime as i64, held.st_mtime_nsec as i64) == (found.mtime(), found.mtime_nsec());
    kind(held.st_mode) == kind(found.mode())
        && held.st_size as u64 == found.size()
        && (found.is_symlink() || (times && held.st_mode & 0o777 == found.mode() & 0o777))
}

fn unless_missing(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(OsStr::as_bytes(path.as_os_str())).map_err(|_| Errno::INVAL)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct World {
        host: tempfile::TempDir,
        container: tempfile::TempDir,
    }

    fn world() -> World {
        World { host: tempfile::tempdir().unwrap(), container: tempfile::tempdir().unwrap() }
    }

    impl World {
        fn bring(&self, changed: &[&str], removed: &[&str], skip_same: bool) -> Result<Synced, HostError> {
            let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect();
            let root = File::open(self.container.path()).unwrap().into();
            let owner = fs::metadata(self.host.path()).unwrap();
            Target { root, uid: owner.uid(), gid: owner.gid() }.bring(&SyncWish {
                root: self.host.path().into(),
                target: "/srv/app".into(),
                changed: paths(changed),
                removed: paths(removed),
                skip_same,
            })
        }

        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(self.host.path().join(name).parent().unwrap()).unwrap();
            fs::write(self.host.path().join(name), text).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.container.path().join("srv/app").join(name)).unwrap()
        }
    }

    #[test]
    fn files_are_brought_with_their_mode_and_time_and_taken_away() {
        let world = world();
        world.write("sub/run.sh", "one");
        fs::set_permissions(world.host.path().join("sub/run.sh"), fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("sub/run.sh", world.host.path().join("link")).unwrap();
        let done = world.bring(&["link", "sub", "sub/run.sh"], &[], false).unwrap();
        assert_eq!((done, world.read("link").as_str()), (Synced { copied: 2, removed: 0 }, "one"));
        let found = fs::metadata(world.container.path().join("srv/app/sub/run.sh")).unwrap();
        let source = fs::metadata(world.host.path().join("sub/run.sh")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.mtime_nsec()), (0o750, source.mtime_nsec()));
        assert_eq!(world.bring(&["link", "sub", "sub/run.sh"], &[], true).unwrap().copied, 0);
        fs::write(world.container.path().join("srv/app/sub/own"), "").unwrap();
        assert_eq!(world.bring(&[], &["link", "sub", "sub/run.sh"], false).unwrap().removed, 2);
        assert_eq!(world.read("sub/own"), "", "what the container made itself stays, with its folder");
    }

    #[test]
    fn a_link_in_the_container_leads_nowhere_outside_of_it() {
        let (world, outside) = (world(), tempfile::tempdir().unwrap());
        world.write("sub/file", "secret");
        fs::create_dir_all(world.container.path().join("srv/app")).unwrap();
        symlink(outside.path(), world.container.path().join("srv/app/sub")).unwrap();
        let _ = world.bring(&["sub", "sub/file"], &[], false);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        fs::write(outside.path().join("file"), "kept").unwrap();
        let _ = world.bring(&[], &["sub/file"], false);
        assert!(outside.path().join("file").exists());
    }

    #[test]
    fn a_file_takes_the_place_of_an_empty_folder_and_a_folder_that_of_a_file() {
        let world = world();
        world.write("a", "file");
        world.write("b/c", "below");
        fs::create_dir_all(world.container.path().join("srv/app/a")).unwrap();
        fs::write(world.container.path().join("srv/app/b"), "").unwrap();
        world.bring(&["a", "b", "b/c"], &[], false).unwrap();
        assert_eq!((world.read("a").as_str(), world.read("b/c").as_str()), ("file", "below"));
    }
}
