//! What a copy takes: found below a folder, a step at a time and never out of it, and told by a digest.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::ignore::{Ignore, components, is_pattern, matches};
use super::key::Key;
use crate::runtime::container::below::{Links, open_below};
use crate::runtime::image::{HashingReader, LayerDigest};

/// As the unpacker and the packer have it.
const MAX_DEPTH: usize = 256;
/// More than the largest trees that are built from.
const MAX_ENTRIES: usize = 2_000_000;

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("`{path}` does not exist in {root}")]
    Missing { path: String, root: String },
    #[error("cannot read `{path}` of {root}")]
    Read { path: String, root: String, source: std::io::Error },
    #[error("{root} has more than {MAX_ENTRIES} files")]
    TooMany { root: String },
    #[error("`{path}` of {root} has more than {MAX_DEPTH} components")]
    Depth { path: String, root: String },
    #[error("a name in `{path}` of {root} is not UTF-8")]
    Name { path: String, root: String },
}

/// A folder to copy from, and how it is called in messages.
pub(super) struct Root<'a> {
    pub folder: BorrowedFd<'a>,
    pub called: String,
    pub ignore: Ignore,
}

/// One source of a copy.
pub(super) struct Picked {
    /// Its last component; what a file is called in a target that is a folder.
    pub name: String,
    /// A folder's entries are below it, parents first; another's only entry is itself, with an empty path.
    pub entries: Vec<Entry>,
    pub is_folder: bool,
    /// Where the entries begin, resolved.
    pub at: OwnedFd,
    pub path: String,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Relative to what was picked.
    pub path: String,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link(Vec<u8>),
}

impl Root<'_> {
    fn read_error(&self, path: &str) -> impl Fn(Errno) -> TreeError + use<> {
        let (path, root) = (path.to_owned(), self.called.clone());
        move |errno| match errno {
            Errno::NOENT => TreeError::Missing { path: path.clone(), root: root.clone() },
            _ => TreeError::Read { path: path.clone(), root: root.clone(), source: errno.into() },
        }
    }

    /// Finds what a source names: a path, or a pattern that matches something.
    pub(super) fn pick(&self, source: &str) -> Result<Vec<Picked>, TreeError> {
        if !is_pattern(source) {
            return Ok(vec![self.one(components(source).collect::<Vec<_>>().join("/"))?]);
        }
        let pattern: Vec<&str> = components(source).collect();
        let mut found: Vec<String> = vec![String::new()];
        for depth in 0..pattern.len() {
            let mut next = Vec::new();
            for folder in found {
                let Ok(open) = self.open(&folder, OFlags::RDONLY | OFlags::DIRECTORY) else { continue };
                for name in self.names(&open, &folder)? {
                    if matches(&pattern[depth..=depth], &[&name]) {
                        next.push(join(&folder, &name));
                    }
                }
            }
            found = next;
        }
        found.retain(|path| !self.ignore.leaves_out(path));
        if found.is_empty() {
            return Err(TreeError::Missing { path: source.to_owned(), root: self.called.clone() });
        }
        found.into_iter().map(|path| self.one(path)).collect()
    }

    fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = std::ffi::CString::new(if path.is_empty() { "." } else { path }).map_err(|_| Errno::INVAL)?;
        open_below(self.folder, &path, flags, Links::Follow)
    }

    fn one(&self, path: String) -> Result<Picked, TreeError> {
        let failed = self.read_error(&path);
        if !path.is_empty() && self.ignore.leaves_out(&path) && !self.ignore.has_exceptions() {
            let root = format!("{}: `.dockerignore` leaves it out", self.called);
            return Err(TreeError::Missing { path, root });
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        // A link is followed where it leads to something within the folder, and is copied as a link where not.
        let at = match self.open(&path, OFlags::PATH) {
            Ok(at) => at,
            Err(Errno::NOENT | Errno::XDEV | Errno::LOOP) => {
                let (parent, last) = path.rsplit_once('/').unwrap_or(("", &path));
                let parent = self.open(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(&failed)?;
                let stat = statat(&parent, last, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
                let kind = self.kind(&parent, last, &stat).map_err(&failed)?;
                let Some(kind) = kind else { return Err(failed(Errno::NOENT)) };
                let entries = vec![entry(String::new(), kind, &stat)];
                return Ok(Picked { name, entries, is_folder: false, at: parent, path });
            }
            Err(errno) => return Err(failed(errno)),
        };
        let stat = fstat(&at).map_err(&failed)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let mut entries = vec![entry(String::new(), Kind::Folder, &stat)];
                let open = self.open(&path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(&failed)?;
                self.walk(&open, (&path, ""), &mut entries, 0)?;
                Ok(Picked { name, entries, is_folder: true, at: open, path })
            }
            FileType::RegularFile => {
                let entries = vec![entry(String::new(), Kind::File, &stat)];
                let at = self.open(&path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(&failed)?;
                Ok(Picked { name, entries, is_folder: false, at, path })
            }
            _ => Err(failed(Errno::INVAL)),
        }
    }

    fn kind(&self, folder: &OwnedFd, name: &str, stat: &Stat) -> Result<Option<Kind>, Errno> {
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Some(Kind::File),
            FileType::Directory => Some(Kind::Folder),
            FileType::Symlink => Some(Kind::Link(readlinkat(folder, name, Vec::new())?.into_bytes())),
            // Sockets, pipes and devices of a working folder are nobody's content.
            _ => None,
        })
    }

    fn names(&self, folder: &OwnedFd, path: &str) -> Result<Vec<String>, TreeError> {
        let failed = self.read_error(path);
        let mut names = Vec::new();
        for entry in Dir::read_from(folder).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            match entry.file_name().to_str() {
                Ok("." | "..") => {}
                Ok(name) => names.push(name.to_owned()),
                Err(_) => return Err(TreeError::Name { path: path.to_owned(), root: self.called.clone() }),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn walk(
        &self,
        folder: &OwnedFd,
        (path, below): (&str, &str),
        entries: &mut Vec<Entry>,
        depth: usize,
    ) -> Result<(), TreeError> {
        if depth > MAX_DEPTH {
            return Err(TreeError::Depth { path: path.to_owned(), root: self.called.clone() });
        }
        for name in self.names(folder, path)? {
            let (whole, below) = (join(path, &name), join(below, &name));
            let failed = self.read_error(&whole);
            let left_out = self.ignore.leaves_out(&whole);
            if left_out && !self.ignore.has_exceptions() {
                continue;
            }
            let stat = statat(folder, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
            let Some(kind) = self.kind(folder, &name, &stat).map_err(&failed)? else { continue };
            let is_folder = kind == Kind::Folder;
            if left_out && !is_folder {
                continue;
            }
            let place = entries.len();
            if place >= MAX_ENTRIES {
                return Err(TreeError::TooMany { root: self.called.clone() });
            }
            entries.push(entry(below.clone(), kind, &stat));
            if is_folder {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let open = openat(folder, &*name, flags, Mode::empty()).map_err(&failed)?;
                self.walk(&open, (&whole, &below), entries, depth + 1)?;
                // Kept for what is kept in it alone.
                if left_out && entries.len() == place + 1 {
                    entries.pop();
                }
            }
        }
        Ok(())
    }

    /// The address of what was picked: names, kinds, modes, contents; owners where they are copied too. Times are not.
    pub(super) fn digest(&self, picked: &[Picked], owners: Owners) -> Result<LayerDigest, TreeError> {
        let mut key = Key::new("tree");
        for one in picked {
            key = key.text(&one.name).text(if one.is_folder { "folder" } else { "file" });
            for entry in &one.entries {
                key = key.text(&entry.path).text(&format!("{:o}", entry.mode));
                if owners == Owners::Kept {
                    key = key.text(&format!("{}:{}", entry.uid, entry.gid));
                }
                key = match &entry.kind {
                    Kind::Folder => key.text("folder"),
                    Kind::Link(target) => key.text("link").text(&String::from_utf8_lossy(target)),
                    Kind::File => {
                        let mut reader = HashingReader::new(self.open_file(one, entry)?);
                        let path = join(&one.path, &entry.path);
                        let failed = |source| TreeError::Read { path, root: self.called.clone(), source };
                        std::io::copy(&mut reader, &mut std::io::sink()).map_err(failed)?;
                        key.text("file").digest(&reader.finish().0)
                    }
                };
            }
        }
        Ok(key.finish())
    }

    /// Opens a file of what was picked.
    pub(super) fn open_file(&self, picked: &Picked, entry: &Entry) -> Result<File, TreeError> {
        let path = join(&picked.path, &entry.path);
        let failed = self.read_error(&path);
        let place = std::ffi::CString::new(entry.path.as_str()).map_err(|_| failed(Errno::INVAL))?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let open = match entry.path.is_empty() {
            // Opened when it was picked; a description of its own, so that each reads from the beginning.
            true => self.open(&picked.path, flags),
            false => open_below(picked.at.as_fd(), &place, flags, Links::Refuse),
        };
        let open = open.map_err(&failed)?;
        let regular = fstat(&open).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        match regular {
            true => Ok(File::from(open)),
            false => Err(failed(Errno::INVAL)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owners {
    Kept,
    Root,
}

fn entry(path: String, kind: Kind, stat: &Stat) -> Entry {
    Entry { path, kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid }
}

pub(super) fn join(folder: &str, name: &str) -> String {
    match (folder.is_empty(), name.is_empty()) {
        (true, _) => name.to_owned(),
        (_, true) => folder.to_owned(),
        _ => format!("{folder}/{name}"),
    }
}

/// The beginning of a file, for telling archives.
pub(super) fn start_of(file: &File) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(6).read_to_end(&mut start)?;
    Ok(start)
}

/// Opens a folder to copy from.
pub(super) fn open_folder(path: &Path) -> Result<OwnedFd, TreeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(rustix::fs::CWD, path.as_os_str().as_bytes(), flags, Mode::empty()).map_err(|errno| TreeError::Read {
        path: path.display().to_string(),
        root: "the host".into(),
        source: errno.into(),
    })
}
