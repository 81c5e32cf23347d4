//! Two trees held against each other, name by name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::layer::read_error;
use super::{OverlayEntry, OverlayEntryKind, OverlayError, OverlayFs, OverlayLayer, WhiteoutForm};

/// Files are compared in pieces of this size.
const PIECE: usize = 128 << 10;
/// Most bytes of the list of a file's attributes and of one value: the kernel's `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
const MAX_ATTRIBUTES: usize = 64 << 10;

/// A name that is not the same in both trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeDifference {
    /// Relative to the root, which is empty.
    pub path: PathBuf,
    pub before: Option<OverlayEntry>,
    pub after: Option<OverlayEntry>,
    /// In what they differ, where both have the name.
    pub aspects: Vec<TreeAspect>,
    /// What came or went with the name: all that is in it and below, itself included.
    pub whole: TreeSize,
}

/// In what two entries of one name differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TreeAspect {
    /// File, directory, link, …; then nothing else is compared.
    Kind,
    Content,
    /// Where a symbolic link leads.
    Target,
    /// The numbers of a device.
    Device,
    Mode,
    Owner,
    /// Extended attributes, file capabilities among them.
    Attributes,
    /// The time of the last change, or how many names a file has; compared between single layers alone.
    Inode,
}

/// How much a part of a tree is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TreeSize {
    pub entries: u64,
    /// Bytes of its files; what has several names counts as often.
    pub bytes: u64,
}

impl OverlayFs {
    /// In what `after` differs from this tree, in the order of the names. A directory that is in one of them alone is one
    /// difference, with all that is in it. Times are not compared: what is built twice has others.
    pub fn differences(&self, after: &OverlayFs) -> Result<Vec<TreeDifference>, OverlayError> {
        let mut found = Vec::new();
        let root = PathBuf::new();
        if let (Some(a), Some(b)) = (self.lookup(&root)?, after.lookup(&root)?) {
            Comparison { before: self, after, as_layers: false }.entry(&root, (Some(a), Some(b)), &mut found)?;
        }
        Ok(found)
    }
}

/// In what two folders that should be the same unpacked layer differ: whiteouts, opaque marks and times count too. Times
/// of directories do not.
pub fn layer_differences(before: &Path, after: &Path) -> Result<Vec<TreeDifference>, OverlayError> {
    // In the form of archives a device 0:0 is an entry like any other.
    let tree = |path: &Path| OverlayFs::new(vec![OverlayLayer::folder(path).with_form(WhiteoutForm::Oci)]);
    let (before, after) = (tree(before), tree(after));
    let mut found = Vec::new();
    let (root, sides) = (PathBuf::new(), (before.lookup("")?, after.lookup("")?));
    Comparison { before: &before, after: &after, as_layers: true }.entry(&root, sides, &mut found)?;
    Ok(found)
}

struct Comparison<'a> {
    before: &'a OverlayFs,
    after: &'a OverlayFs,
    /// Is it two forms of one layer, or two trees of whole images?
    as_layers: bool,
}

impl Comparison<'_> {
    fn entry(
        &self,
        path: &Path,
        sides: (Option<OverlayEntry>, Option<OverlayEntry>),
        found: &mut Vec<TreeDifference>,
    ) -> Result<(), OverlayError> {
        let difference = |aspects, whole| TreeDifference {
            path: path.to_owned(),
            before: sides.0.clone(),
            after: sides.1.clone(),
            aspects,
            whole,
        };
        match &sides {
            (None, None) => {}
            (Some(entry), None) => found.push(difference(Vec::new(), size_of(self.before, path, entry)?)),
            (None, Some(entry)) => found.push(difference(Vec::new(), size_of(self.after, path, entry)?)),
            (Some(before), Some(after)) => {
                let aspects = self.aspects(path, (before, after))?;
                if !aspects.is_empty() {
                    found.push(difference(aspects, TreeSize::default()));
                }
                if before.is_directory() && after.is_directory() {
                    self.directory(path, found)?;
                }
            }
        }
        Ok(())
    }

    fn directory(&self, path: &Path, found: &mut Vec<TreeDifference>) -> Result<(), OverlayError> {
        let mut names: BTreeMap<OsString, (Option<OverlayEntry>, Option<OverlayEntry>)> = BTreeMap::new();
        for (name, entry) in self.before.list(path)?.unwrap_or_default() {
            names.entry(name).or_default().0 = Some(entry);
        }
        for (name, entry) in self.after.list(path)?.unwrap_or_default() {
            names.entry(name).or_default().1 = Some(entry);
        }
        names.into_iter().try_for_each(|(name, sides)| self.entry(&path.join(name), sides, found))
    }

    fn aspects(
        &self,
        path: &Path,
        (before, after): (&OverlayEntry, &OverlayEntry),
    ) -> Result<Vec<TreeAspect>, OverlayError> {
        use OverlayEntryKind::{BlockDevice, CharDevice, File, Symlink};
        let places = (self.before.place(path, before), self.after.place(path, after));
        // The very file of a layer that both have.
        if places.0.is_some() && places.0 == places.1 {
            return Ok(Vec::new());
        }
        if std::mem::discriminant(&before.kind) != std::mem::discriminant(&after.kind) {
            return Ok(vec![TreeAspect::Kind]);
        }
        let mut aspects = Vec::new();
        match (&before.kind, &after.kind) {
            (File, File) if before.size != after.size => aspects.push(TreeAspect::Content),
            (File, File) => {
                if let (Some(a), Some(b)) = &places
                    && !same_content(a, b)?
                {
                    aspects.push(TreeAspect::Content);
                }
            }
            (Symlink { target: a }, Symlink { target: b }) if a != b => aspects.push(TreeAspect::Target),
            (CharDevice { device: a }, CharDevice { device: b })
            | (BlockDevice { device: a }, BlockDevice { device: b })
                if a != b =>
            {
                aspects.push(TreeAspect::Device);
            }
            _ => {}
        }
        if before.mode != after.mode {
            aspects.push(TreeAspect::Mode);
        }
        if (before.uid, before.gid) != (after.uid, after.gid) {
            aspects.push(TreeAspect::Owner);
        }
        if let (Some(a), Some(b)) = &places {
            if attributes(a, self.as_layers)? != attributes(b, self.as_layers)? {
                aspects.push(TreeAspect::Attributes);
            }
            // A whiteout has the time at which it was made.
            let timeless = before.is_directory() || before.kind == (CharDevice { device: 0 });
            if self.as_layers && !timeless && inode(a)? != inode(b)? {
                aspects.push(TreeAspect::Inode);
            }
        }
        Ok(aspects)
    }
}

/// Recursion is as deep as the tree.
fn size_of(tree: &OverlayFs, path: &Path, entry: &OverlayEntry) -> Result<TreeSize, OverlayError> {
    let mut size = TreeSize { entries: 1, bytes: entry.size };
    if entry.is_directory() {
        for (name, entry) in tree.list(path)?.unwrap_or_default() {
            let below = size_of(tree, &path.join(name), &entry)?;
            size = TreeSize { entries: size.entries + below.entries, bytes: size.bytes + below.bytes };
        }
    }
    Ok(size)
}

/// Two regular files of equal length.
fn same_content(a: &Path, b: &Path) -> Result<bool, OverlayError> {
    let mut files = (File::open(a).map_err(read_error(a))?, File::open(b).map_err(read_error(b))?);
    let mut pieces = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let read = fill(&mut files.0, &mut pieces.0).map_err(read_error(a))?;
        let other = fill(&mut files.1, &mut pieces.1).map_err(read_error(b))?;
        if pieces.0[..read] != pieces.1[..other] {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

fn fill(file: &mut File, piece: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match file.read(&mut piece[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Seconds and nanoseconds of the last change, and the names that it has.
fn inode(path: &Path) -> Result<(i64, i64, u64), OverlayError> {
    let found = std::fs::symlink_metadata(path).map_err(read_error(path))?;
    Ok((found.mtime(), found.mtime_nsec(), found.nlink()))
}

/// The extended attributes of what `path` is, links not followed; those of overlayfs say how layers lie, not what is in
/// the tree.
fn attributes(path: &Path, with_overlay: bool) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, OverlayError> {
    use rustix::io::Errno;
    let mut names = vec![0; MAX_ATTRIBUTES];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other.map_err(|errno| read_error(path)(errno.into()))?,
    };
    if length == 0 {
        return Ok(BTreeMap::new());
    }
    let mut found = BTreeMap::new();
    let mut value = vec![0; MAX_ATTRIBUTES];
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if with_overlay || !name.starts_with(b"trusted.overlay.") {
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]);
            let length = length.map_err(|errno| read_error(path)(errno.into()))?;
            found.insert(name.to_vec(), value[..length].to_vec());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Lines `path=content`, `path/`, `path→target`.
    fn folder(lines: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for line in lines {
            if let Some((path, content)) = line.split_once('=') {
                std::fs::write(root.path().join(path), content).unwrap();
            } else if let Some((path, target)) = line.split_once('→') {
                std::os::unix::fs::symlink(target, root.path().join(path)).unwrap();
            } else {
                std::fs::create_dir_all(root.path().join(line)).unwrap();
            }
        }
        root
    }

    fn told(before: &[&Path], after: &[&Path]) -> Vec<String> {
        let tree = |layers: &[&Path]| OverlayFs::new(layers.iter().map(|path| OverlayLayer::folder(*path)).collect());
        let differences = tree(before).differences(&tree(after)).unwrap();
        let line = |one: &TreeDifference| {
            let path = one.path.display();
            match (&one.before, &one.after) {
                (None, _) => format!("+{path} {}/{}", one.whole.entries, one.whole.bytes),
                (_, None) => format!("-{path} {}/{}", one.whole.entries, one.whole.bytes),
                _ => format!("~{path} {:?}", one.aspects),
            }
        };
        differences.iter().map(line).collect()
    }

    #[test]
    fn what_came_went_and_changed_is_told_once() {
        let a = folder(&["d/", "d/same=1", "d/other=1", "d/longer=1", "gone/", "gone/x=12", "l→a", "k=1"]);
        let b = folder(&["d/", "d/same=1", "d/other=2", "d/longer=12", "new/", "new/y/", "new/y/z=123", "l→b", "k/"]);
        let expected =
            ["~d/longer [Content]", "~d/other [Content]", "-gone 2/2", "~k [Kind]", "~l [Target]", "+new 3/3"];
        assert_eq!(told(&[a.path()], &[b.path()]), expected);
        assert!(told(&[a.path()], &[a.path()]).is_empty());
    }

    #[test]
    fn a_layer_that_both_have_is_not_read() {
        let (shared, top) = (folder(&["d/", "d/a=1", "d/b=2"]), folder(&["d/", "d/b=3"]));
        assert_eq!(told(&[shared.path()], &[top.path(), shared.path()]), ["~d/b [Content]"]);
    }

    #[test]
    fn modes_owners_and_attributes_count() {
        let (a, b) = (folder(&["x=1", "y=1"]), folder(&["x=1", "y=1"]));
        std::fs::set_permissions(b.path().join("x"), PermissionsExt::from_mode(0o600)).unwrap();
        let set = rustix::fs::setxattr(b.path().join("y"), c"user.note", b"1", rustix::fs::XattrFlags::empty());
        // A file system without attributes has nothing to tell apart.
        let expected: &[&str] = if set.is_ok() { &["~x [Mode]", "~y [Attributes]"] } else { &["~x [Mode]"] };
        assert_eq!(told(&[a.path()], &[b.path()]), expected);
    }
}
