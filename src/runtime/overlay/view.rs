//! The merged tree, computed: for each component of a path, which layers still take part.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::layer::Found;
use super::{OverlayEntry, OverlayError, OverlayLayer};

/// Layers seen as one tree, without mounting anything.
#[derive(Clone, Debug)]
pub struct OverlayFs {
    layers: Vec<OverlayLayer>,
}

/// What a path is, and the layers whose directories it merges, topmost first.
struct Merged {
    entry: OverlayEntry,
    layers: Vec<usize>,
}

impl OverlayFs {
    /// `layers` topmost first; the upper directory of a mount is one of them, the first.
    pub fn new(layers: Vec<OverlayLayer>) -> Self {
        Self { layers }
    }

    /// What `path` is, relative to the root or absolute, links not followed; `None` where there is nothing.
    ///
    /// Errors: `path` has a component `..`; a layer cannot be read.
    pub fn lookup(&self, path: impl AsRef<Path>) -> Result<Option<OverlayEntry>, OverlayError> {
        Ok(self.merged(&relative(path.as_ref())?)?.map(|merged| merged.entry))
    }

    /// What the directory `path` holds, by name in byte order; `None` where `path` is not a directory.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Option<Vec<(OsString, OverlayEntry)>>, OverlayError> {
        let path = relative(path.as_ref())?;
        let Some(directory) = self.merged(&path)?.filter(|merged| merged.entry.is_directory()) else {
            return Ok(None);
        };
        let mut names = BTreeSet::new();
        for layer in &directory.layers {
            names.extend(self.layers[*layer].names(&path)?);
        }
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            if let Some(merged) = self.find(&path.join(&name), &directory.layers)? {
                entries.push((name, merged.entry));
            }
        }
        Ok(Some(entries))
    }

    /// Where an entry that was found at `path` lies; `None` in a tree in memory.
    pub(super) fn place(&self, path: &Path, entry: &OverlayEntry) -> Option<PathBuf> {
        self.layers.get(entry.layer)?.place(path)
    }

    fn merged(&self, path: &Path) -> Result<Option<Merged>, OverlayError> {
        let all: Vec<usize> = (0..self.layers.len()).collect();
        let mut walked = PathBuf::new();
        let Some(mut merged) = self.find(&walked, &all)? else { return Ok(None) };
        for component in path.components() {
            if !merged.entry.is_directory() {
                return Ok(None);
            }
            walked.push(component);
            match self.find(&walked, &merged.layers)? {
                Some(found) => merged = found,
                None => return Ok(None),
            }
        }
        Ok(Some(merged))
    }

    /// What those of `layers` that take part in the directory above make of `path`.
    fn find(&self, path: &Path, layers: &[usize]) -> Result<Option<Merged>, OverlayError> {
        let mut merged: Option<Merged> = None;
        for &layer in layers {
            let (entry, last) = match self.layers[layer].find(path)? {
                Found::Nothing => continue,
                Found::Whiteout => break,
                Found::OpaqueDirectory(entry) => (entry, true),
                Found::Entry(entry) => {
                    let last = !entry.is_directory();
                    (entry, last)
                }
            };
            match &mut merged {
                None => merged = Some(Merged { entry: OverlayEntry { layer, ..entry }, layers: vec![layer] }),
                // Directories merge with directories alone.
                Some(above) if entry.is_directory() => above.layers.push(layer),
                Some(_) => break,
            }
            if last {
                break;
            }
        }
        Ok(merged)
    }
}

fn relative(path: &Path) -> Result<PathBuf, OverlayError> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(OverlayError::Outside { path: path.to_owned() }),
        }
    }
    Ok(relative)
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryTree, OverlayEntryKind, WhiteoutForm};
    use super::*;

    /// A layer from lines: `name/` a directory, `name` a file, `-name` a whiteout, `=name` opaque.
    fn layer(lines: &str) -> OverlayLayer {
        let mut tree = MemoryTree::default();
        for line in lines.split_whitespace() {
            if let Some(path) = line.strip_prefix('-') {
                tree.hide(path);
            } else if let Some(path) = line.strip_prefix('=') {
                tree.make_opaque(path);
            } else if let Some(path) = line.strip_suffix('/') {
                tree.insert(path, entry(OverlayEntryKind::Directory));
            } else {
                tree.insert(line, entry(OverlayEntryKind::File));
            }
        }
        OverlayLayer::memory(tree)
    }

    fn entry(kind: OverlayEntryKind) -> OverlayEntry {
        OverlayEntry { kind, mode: 0o755, uid: 0, gid: 0, size: 0, layer: 0 }
    }

    fn walk(view: &OverlayFs, path: &Path, into: &mut Vec<String>) {
        for (name, entry) in view.list(path).unwrap().unwrap() {
            let path = path.join(name);
            into.push(format!("{}@{}", path.display(), entry.layer));
            if entry.is_directory() {
                walk(view, &path, into);
            }
        }
    }

    fn check(view: &OverlayFs, expected: &str) {
        let mut found = Vec::new();
        walk(view, Path::new(""), &mut found);
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn directories_merge_and_the_topmost_file_wins() {
        let view = OverlayFs::new(vec![layer("d/a d/b"), layer("d/b d/c e")]);
        check(&view, "d@0 d/a@0 d/b@0 d/c@1 e@1");
    }

    #[test]
    fn a_whiteout_hides_and_a_layer_above_it_shows_again() {
        check(&OverlayFs::new(vec![layer("-d -e"), layer("d/a e f")]), "f@1");
        check(&OverlayFs::new(vec![layer("d/x"), layer("-d"), layer("d/a")]), "d@0 d/x@0");
    }

    #[test]
    fn an_opaque_directory_hides_what_is_in_the_lower_ones() {
        check(&OverlayFs::new(vec![layer("d/x =d"), layer("d/a")]), "d@0 d/x@0");
        check(&OverlayFs::new(vec![layer("d/x"), layer("d/y =d"), layer("d/a")]), "d@0 d/x@0 d/y@1");
    }

    #[test]
    fn a_file_between_directories_ends_the_merge() {
        check(&OverlayFs::new(vec![layer("d/x"), layer("d"), layer("d/a")]), "d@0 d/x@0");
        check(&OverlayFs::new(vec![layer("d"), layer("d/a")]), "d@0");
    }

    #[test]
    fn whiteouts_in_oci_form_hide_the_same() {
        let oci = |lines| layer(lines).with_form(WhiteoutForm::Oci);
        check(&OverlayFs::new(vec![oci(".wh.d e/.wh.x e/y"), layer("d/a e/x e/z")]), "e@0 e/y@0 e/z@1");
        check(&OverlayFs::new(vec![oci("d/.wh..wh..opq d/x"), layer("d/a")]), "d@0 d/x@0");
        check(&OverlayFs::new(vec![oci(".wh.d d/x"), layer("d/a")]), "d@0 d/x@0");
        check(&OverlayFs::new(vec![layer(".wh.d"), layer("d/a")]), ".wh.d@0 d@1 d/a@1");
    }

    #[test]
    fn paths_stay_within_the_tree() {
        let view = OverlayFs::new(vec![layer("d/a")]);
        assert!(view.lookup("/d/a").unwrap().is_some());
        assert!(view.lookup("d/a/b").unwrap().is_none());
        assert!(view.list("d/a").unwrap().is_none());
        assert!(matches!(view.lookup("d/../x"), Err(OverlayError::Outside { .. })));
    }
}
