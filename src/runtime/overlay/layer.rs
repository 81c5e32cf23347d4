//! One layer: a folder, or a tree in memory, and how it writes that something is gone.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::{OverlayEntry, OverlayEntryKind, OverlayError};

/// How a layer writes that a name of the layers below is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhiteoutForm {
    /// A character device 0:0 of that name, and `trusted.overlay.opaque=y` on a directory: unpacked layers.
    Kernel,
    /// A file `.wh.NAME`, and a file `.wh..wh..opq` in a directory: layer archives.
    Oci,
}

/// A layer that [`OverlayFs`](super::OverlayFs) looks through.
#[derive(Clone, Debug)]
pub struct OverlayLayer {
    tree: Tree,
    form: WhiteoutForm,
}

/// A tree that exists in memory alone. Folders above an entry need not be written down.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    entries: BTreeMap<PathBuf, OverlayEntry>,
    opaque: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
enum Tree {
    Folder(PathBuf),
    Memory(MemoryTree),
}

/// What one layer has under a name.
pub(super) enum Found {
    /// Neither it nor anything about it.
    Nothing,
    /// It hides what the layers below have.
    Whiteout,
    Entry(OverlayEntry),
    /// A directory that hides what the layers below have in it.
    OpaqueDirectory(OverlayEntry),
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const XATTR: &std::ffi::CStr = c"trusted.overlay.opaque";

impl OverlayLayer {
    /// An unpacked layer or the upper directory of an overlay.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self { tree: Tree::Folder(path.into()), form: WhiteoutForm::Kernel }
    }

    pub fn memory(tree: MemoryTree) -> Self {
        Self { tree: Tree::Memory(tree), form: WhiteoutForm::Kernel }
    }

    /// The same layer with its whiteouts written in another form.
    pub fn with_form(mut self, form: WhiteoutForm) -> Self {
        self.form = form;
        self
    }

    /// Where the layer keeps `path`; `None` for a tree in memory.
    pub(super) fn place(&self, path: &Path) -> Option<PathBuf> {
        match &self.tree {
            Tree::Folder(root) => Some(root.join(path)),
            Tree::Memory(_) => None,
        }
    }

    /// What the layer has at `path`, relative to its root and without `..`. Links are not followed: where a folder
    /// above `path` is something else in this layer, there is nothing.
    pub(super) fn find(&self, path: &Path) -> Result<Found, OverlayError> {
        if self.form == WhiteoutForm::Oci && path.file_name().is_some_and(is_mark) {
            return Ok(Found::Nothing);
        }
        let Some(entry) = self.tree.entry(path)? else {
            let hidden = self.form == WhiteoutForm::Oci && self.has_mark(path)?;
            return Ok(if hidden { Found::Whiteout } else { Found::Nothing });
        };
        Ok(match (self.form, &entry.kind) {
            (WhiteoutForm::Kernel, OverlayEntryKind::CharDevice { device: 0 }) => Found::Whiteout,
            (_, OverlayEntryKind::Directory) if self.is_opaque(path)? => Found::OpaqueDirectory(entry),
            _ => Found::Entry(entry),
        })
    }

    /// The names that the layer has in the directory `path`, whiteouts among them.
    pub(super) fn names(&self, path: &Path) -> Result<Vec<OsString>, OverlayError> {
        let mut names = self.tree.names(path)?;
        if self.form == WhiteoutForm::Oci {
            names.retain(|name| !is_mark(name));
        }
        Ok(names)
    }

    fn has_mark(&self, path: &Path) -> Result<bool, OverlayError> {
        let Some(name) = path.file_name() else { return Ok(false) };
        let mark = OsString::from_vec([WHITEOUT, name.as_bytes()].concat());
        Ok(self.tree.entry(&path.with_file_name(mark))?.is_some())
    }

    /// In the OCI form, a directory that is there together with a mark for its name replaces the one below.
    fn is_opaque(&self, path: &Path) -> Result<bool, OverlayError> {
        match self.form {
            WhiteoutForm::Kernel => self.tree.has_opaque_attribute(path),
            WhiteoutForm::Oci => Ok(self.tree.entry(&path.join(OPAQUE))?.is_some() || self.has_mark(path)?),
        }
    }
}

impl MemoryTree {
    /// Puts `entry` at `path`, relative to the root. Its `layer` does not matter.
    pub fn insert(&mut self, path: impl Into<PathBuf>, entry: OverlayEntry) {
        self.entries.insert(path.into(), entry);
    }

    /// Hides what the layers below have at `path`.
    pub fn hide(&mut self, path: impl Into<PathBuf>) {
        let kind = OverlayEntryKind::CharDevice { device: 0 };
        self.insert(path, OverlayEntry { kind, mode: 0, uid: 0, gid: 0, size: 0, layer: 0 });
    }

    /// Hides what the layers below have in the directory `path`.
    pub fn make_opaque(&mut self, path: impl Into<PathBuf>) {
        self.opaque.push(path.into());
    }

    fn entry(&self, path: &Path) -> Option<OverlayEntry> {
        if let Some(entry) = self.entries.get(path) {
            return Some(entry.clone());
        }
        let implied = path == Path::new("") || self.below(path).next().is_some();
        let kind = OverlayEntryKind::Directory;
        implied.then_some(OverlayEntry { kind, mode: 0o755, uid: 0, gid: 0, size: 0, layer: 0 })
    }

    fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.entries.keys().filter_map(move |key| key.strip_prefix(path).ok()).filter(|rest| *rest != Path::new(""))
    }
}

impl Tree {
    fn entry(&self, path: &Path) -> Result<Option<OverlayEntry>, OverlayError> {
        match self {
            Self::Memory(tree) => Ok(tree.entry(path)),
            Self::Folder(root) => {
                if !leads_through_directories(root, path)? {
                    return Ok(None);
                }
                let whole = root.join(path);
                let Some(metadata) = absent_is_none(&whole, std::fs::symlink_metadata(&whole))? else {
                    return Ok(None);
                };
                let target = if metadata.is_symlink() {
                    std::fs::read_link(&whole).map_err(read_error(&whole))?.into_os_string()
                } else {
                    OsString::new()
                };
                Ok(Some(OverlayEntry::from_metadata(&metadata, target)))
            }
        }
    }

    fn names(&self, path: &Path) -> Result<Vec<OsString>, OverlayError> {
        match self {
            Self::Memory(tree) => {
                let first = |rest: &Path| match rest.components().next() {
                    Some(Component::Normal(name)) => Some(name.to_owned()),
                    _ => None,
                };
                let mut names: Vec<OsString> = tree.below(path).filter_map(first).collect();
                names.sort();
                names.dedup();
                Ok(names)
            }
            Self::Folder(root) => {
                let whole = root.join(path);
                let entries = std::fs::read_dir(&whole).map_err(read_error(&whole))?;
                let name = |entry: io::Result<std::fs::DirEntry>| Ok(entry.map_err(read_error(&whole))?.file_name());
                entries.map(name).collect()
            }
        }
    }

    fn has_opaque_attribute(&self, path: &Path) -> Result<bool, OverlayError> {
        match self {
            Self::Memory(tree) => Ok(tree.opaque.iter().any(|opaque| opaque == path)),
            Self::Folder(root) => {
                let whole = root.join(path);
                let mut value = [0; 2];
                match rustix::fs::lgetxattr(&whole, XATTR, &mut value) {
                    Ok(length) => Ok(value[..length] == *b"y"),
                    // Another value than the one letter is none that the kernel takes.
                    Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::RANGE) => {
                        Ok(false)
                    }
                    Err(errno) => Err(read_error(&whole)(errno.into())),
                }
            }
        }
    }
}

/// Is every folder above `path` a directory, and not a link to one?
fn leads_through_directories(root: &Path, path: &Path) -> Result<bool, OverlayError> {
    let above = path.ancestors().skip(1).filter(|folder| *folder != Path::new(""));
    for folder in above {
        let whole = root.join(folder);
        if !absent_is_none(&whole, std::fs::symlink_metadata(&whole))?.is_some_and(|found| found.is_dir()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn absent_is_none<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, OverlayError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(read_error(path)(error)),
    }
}

pub(super) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> OverlayError + Copy {
    move |source| OverlayError::Read { path: path.to_owned(), source }
}

fn is_mark(name: &OsStr) -> bool {
    name.as_bytes().starts_with(WHITEOUT)
}
