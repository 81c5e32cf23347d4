//! What a stack file's meaning hangs on besides its text: variables, the folder that paths begin at, files, and profiles.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Handed to [`parse`](super::parse), so that a text can be judged anywhere.
pub struct Surroundings<'a> {
    pub variables: &'a HashMap<String, String>,
    /// Absolute; relative paths of the file begin here.
    pub folder: PathBuf,
    pub files: &'a dyn Files,
    /// The profiles that were chosen, in the order in which their overrides hold.
    pub profiles: &'a [String],
}

/// The files that a stack file names.
pub trait Files {
    /// What is at `path`, links followed.
    fn kind(&self, path: &Path) -> io::Result<FileKind>;
    /// The content of a file, at most `limit` bytes of it; more is an error.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;
    /// The one path of what is at `path`, by which two spellings of it are told to be the same.
    fn real(&self, path: &Path) -> PathBuf {
        path.to_path_buf()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Folder,
    BlockDevice,
    /// A socket, a pipe or a character device.
    Special,
}

impl FileKind {
    pub(super) fn describe(self) -> &'static str {
        match self {
            FileKind::File => "a file",
            FileKind::Folder => "a folder",
            FileKind::BlockDevice => "a block device",
            FileKind::Special => "a socket, pipe or character device",
        }
    }
}

/// The files of this host.
pub struct HostFiles;

impl Files for HostFiles {
    fn real(&self, path: &Path) -> PathBuf {
        std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
    }

    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        let found = std::fs::metadata(path)?.file_type();
        Ok(match found {
            _ if found.is_file() => FileKind::File,
            _ if found.is_dir() => FileKind::Folder,
            _ if found.is_block_device() => FileKind::BlockDevice,
            _ => FileKind::Special,
        })
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        // One more than allowed tells a file that is too long from one that just fits.
        File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
        match content.len() as u64 > limit {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes"))),
            false => Ok(content),
        }
    }
}

/// Files as another has them, with a memory of what was read.
pub struct Recorded<'a> {
    files: &'a dyn Files,
    read: RefCell<BTreeMap<PathBuf, Vec<u8>>>,
}

impl<'a> Recorded<'a> {
    pub fn of(files: &'a dyn Files) -> Self {
        Recorded { files, read: RefCell::default() }
    }

    /// The contents that were read, by path.
    pub fn into_read(self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.read.into_inner()
    }
}

impl Files for Recorded<'_> {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        self.files.kind(path)
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let content = self.files.read(path, limit)?;
        self.read.borrow_mut().insert(path.to_owned(), content.clone());
        Ok(content)
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.files.real(path)
    }
}

/// Files as they were once, where that was kept; all others as this host has them now.
pub struct Remembered {
    pub contents: BTreeMap<PathBuf, Vec<u8>>,
}

impl Files for Remembered {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        match self.contents.contains_key(path) {
            true => Ok(FileKind::File),
            false => HostFiles.kind(path),
        }
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        match self.contents.get(path) {
            Some(content) => Ok(content.clone()),
            None => HostFiles.read(path, limit),
        }
    }

    fn real(&self, path: &Path) -> PathBuf {
        HostFiles.real(path)
    }
}
