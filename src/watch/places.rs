//! Which folders tell when a path leads to something else: its own, that of every link on the way, and, where the way ends
//! early, the last folder that is there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// As the kernel's own limit for links in one path.
const MAX_LINKS: usize = 40;

/// The folders whose events tell of `path`, which is absolute. Swapped links, as of mounted config maps, are seen in the
/// folder that the link lies in.
pub fn folders_of(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut rest: Vec<PathBuf> = parts(path);
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == Path::new("/") {
            here = part;
            continue;
        }
        if part == Path::new("..") {
            here.pop();
            continue;
        }
        let next = here.join(&part);
        match fs::symlink_metadata(&next) {
            Ok(found) if found.is_symlink() && links < MAX_LINKS => {
                links += 1;
                folders.insert(here.clone());
                if let Ok(target) = fs::read_link(&next) {
                    rest.extend(parts(&target));
                }
            }
            Ok(found) if found.is_dir() && !rest.is_empty() => here = next,
            // The end of the way, or of what there is of it.
            _ => {
                folders.insert(here);
                return folders;
            }
        }
    }
    folders.insert(here);
    folders
}

/// The last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let part = |component: Component<'_>| match component {
        Component::CurDir => None,
        other => Some(PathBuf::from(other.as_os_str())),
    };
    path.components().rev().filter_map(part).collect()
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub kind: Kind,
    pub device: u64,
    pub inode: u64,
    /// Bytes; 0 for a folder, whose own size and time say nothing of what is in it.
    pub size: u64,
    /// Of the last change, in nanoseconds since the epoch.
    pub modified: i128,
    pub mode: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Link,
    Other,
}

impl Stamp {
    pub fn of(found: &fs::Metadata) -> Self {
        let kind = match found.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Folder,
            kind if kind.is_symlink() => Kind::Link,
            _ => Kind::Other,
        };
        let (size, modified) = match kind {
            Kind::Folder => (0, 0),
            _ => (found.size(), i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec())),
        };
        Stamp { kind, device: found.dev(), inode: found.ino(), size, modified, mode: found.mode() }
    }

    /// Of what is at the end of a path, links followed; `None`: nothing is.
    pub fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Stamp::of(&found))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(path: &Path, folders: &[&Path]) {
        let expected: BTreeSet<PathBuf> = folders.iter().map(|folder| folder.to_path_buf()).collect();
        assert_eq!(folders_of(path), expected, "{}", path.display());
    }

    #[test]
    fn a_plain_file_is_told_of_by_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::write(folder.join("a"), "").unwrap();
        check(&folder.join("a"), &[&folder]);
        check(&folder.join("./a"), &[&folder]);
        check(&folder.join("missing"), &[&folder]);
        check(&folder.join("gone/too/file"), &[&folder]);
    }

    #[test]
    fn every_link_on_the_way_counts() {
        let kept = tempfile::tempdir().unwrap();
        let root = kept.path().canonicalize().unwrap();
        // As kubelet lays a config map out.
        for version in ["v1", "v2"] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("app.conf"), version).unwrap();
        }
        symlink("v1", root.join("..data")).unwrap();
        symlink("..data/app.conf", root.join("app.conf")).unwrap();
        check(&root.join("app.conf"), &[&root, &root.join("v1")]);
        let before = Stamp::at(&root.join("app.conf"));
        symlink("v2", root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
        check(&root.join("app.conf"), &[&root, &root.join("v2")]);
        assert_ne!(Stamp::at(&root.join("app.conf")), before);
    }

    #[test]
    fn links_in_a_circle_end() {
        let kept = tempfile::tempdir().unwrap();
        let root = kept.path().canonicalize().unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        check(&root.join("a/x"), &[&root]);
    }
}
