//! A folder that is watched with all that is below it: what was in it at the last look, and what became of that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::places::{Kind, Stamp};

/// No tree has more entries; what is beyond is not watched, and that is said.
pub const MAX_ENTRIES: usize = 500_000;
/// What no rule is ever about: version control, and what editors write while they save. A rule can take a pattern back
/// with `!`.
const ALWAYS_IGNORED: [&str; 11] =
    [".git/", ".hg/", ".svn/", "*.swp", "*.swx", "*.swpx", "4913", "*~", ".#*", "#*#", "*___jb_???___"];

/// Which paths of a tree count.
#[derive(Clone, Debug)]
pub struct Filter {
    patterns: Gitignore,
}

impl Filter {
    /// Patterns in the form of gitignore(5), relative to the tree's root; the last one that fits decides.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in ALWAYS_IGNORED.into_iter().chain(patterns.iter().map(String::as_str)) {
            builder.add_line(None, pattern).map_err(|error| error.to_string())?;
        }
        builder.build().map(|patterns| Filter { patterns }).map_err(|error| error.to_string())
    }

    /// Nothing is ignored.
    pub fn everything() -> Self {
        Filter { patterns: Gitignore::empty() }
    }

    /// `path` is relative to the root, and none of the folders above it is ignored.
    pub fn ignores(&self, path: &Path, kind: Kind) -> bool {
        self.patterns.matched(path, kind == Kind::Folder).is_ignore()
    }
}

/// What differs between two looks at a tree. Paths are relative to its root; folders stand before what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub changed: BTreeSet<PathBuf>,
    pub removed: BTreeSet<PathBuf>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    /// Takes over later changes.
    pub fn add(&mut self, later: Changes) {
        for path in &later.changed {
            self.removed.remove(path);
        }
        for path in &later.removed {
            self.changed.remove(path);
        }
        self.changed.extend(later.changed);
        self.removed.extend(later.removed);
    }
}

/// A tree as it was at the last look.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    filter: Filter,
    entries: BTreeMap<PathBuf, Stamp>,
    /// Its root's, while it is there.
    stamp: Option<Stamp>,
}

impl Tree {
    /// A tree of which nothing is known yet.
    pub fn new(root: PathBuf, filter: Filter) -> Self {
        Tree { root, filter, entries: BTreeMap::new(), stamp: None }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All of it as if it had just come.
    pub fn everything(&self) -> Changes {
        let mut changed: BTreeSet<PathBuf> = self.entries.keys().cloned().collect();
        if self.stamp.is_some_and(|stamp| stamp.kind != Kind::Folder) {
            changed.insert(PathBuf::new());
        }
        Changes { changed, removed: BTreeSet::new() }
    }

    /// The folders to watch, absolute.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let below = self.entries.iter().filter(|(_, stamp)| stamp.kind == Kind::Folder);
        let root = (self.stamp.is_some_and(|stamp| stamp.kind == Kind::Folder)).then(|| self.root.clone());
        root.into_iter().chain(below.map(|(path, _)| self.root.join(path)))
    }

    /// Looks at the whole tree.
    pub fn look(&mut self) -> Changes {
        let folders: BTreeSet<PathBuf> = self.folders().collect();
        let mut changes = self.look_at_root();
        for folder in folders {
            changes.add(self.look_in(&folder));
        }
        changes
    }

    /// Looks at one folder of it, absolute; at what is below only where that is new. Elsewhere it does nothing.
    pub fn look_in(&mut self, folder: &Path) -> Changes {
        let Ok(below) = folder.strip_prefix(&self.root) else { return Changes::default() };
        let (root, below) = (self.stamp.is_some(), below.to_path_buf());
        match root && (below.as_os_str().is_empty() || self.entries.contains_key(&below)) {
            true => self.refresh(&below),
            false => Changes::default(),
        }
    }

    /// Looks whether the root is there, and is the one that it was. A root that is one file is a tree of one, whose path
    /// is empty.
    pub fn look_at_root(&mut self) -> Changes {
        let now = Stamp::at(&self.root);
        if now == self.stamp {
            return Changes::default();
        }
        let same_folder = |a: &Stamp, b: &Stamp| a.kind == Kind::Folder && (a.device, a.inode) == (b.device, b.inode);
        let mut changes = Changes::default();
        match (self.stamp, now) {
            (Some(old), Some(new)) if same_folder(&old, &new) => {}
            (Some(old), _) if old.kind == Kind::Folder => changes.removed.extend(self.forget(Path::new(""))),
            (Some(_), None) => drop(changes.removed.insert(PathBuf::new())),
            _ => {}
        }
        self.stamp = now;
        match now.map(|stamp| stamp.kind) {
            Some(Kind::Folder) => changes.add(self.refresh(Path::new(""))),
            Some(_) => drop(changes.changed.insert(PathBuf::new())),
            None => {}
        }
        changes
    }

    fn refresh(&mut self, folder: &Path) -> Changes {
        let mut changes = Changes::default();
        let now = self.list(folder);
        for gone in self.children(folder).into_iter().filter(|path| !now.contains_key(path)) {
            changes.removed.extend(self.forget(&gone));
        }
        for (path, stamp) in now {
            let before = self.entries.get(&path).copied();
            if before == Some(stamp) || (before.is_none() && self.entries.len() >= MAX_ENTRIES) {
                continue;
            }
            let same = before.is_some_and(|old| old.kind == stamp.kind && old.inode == stamp.inode);
            if before.is_some_and(|old| old.kind == Kind::Folder) && !same {
                changes.removed.extend(self.forget(&path));
            }
            changes.removed.remove(&path);
            self.entries.insert(path.clone(), stamp);
            changes.changed.insert(path.clone());
            if stamp.kind == Kind::Folder && !same {
                changes.add(self.refresh(&path));
            }
        }
        changes
    }

    /// What a folder holds and counts. One that cannot be read holds nothing.
    fn list(&self, folder: &Path) -> BTreeMap<PathBuf, Stamp> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
            let path = folder.join(entry.file_name());
            let Ok(metadata) = entry.metadata() else { continue };
            let stamp = Stamp::of(&metadata);
            if stamp.kind != Kind::Other && !self.filter.ignores(&path, stamp.kind) {
                found.insert(path, stamp);
            }
        }
        found
    }

    fn children(&self, folder: &Path) -> Vec<PathBuf> {
        let depth = folder.components().count() + 1;
        self.below(folder).filter(|path| path.components().count() == depth).cloned().collect()
    }

    /// Paths sort by their components, so what is below a folder stands right after it.
    fn below(&self, folder: &Path) -> impl Iterator<Item = &PathBuf> {
        let from = self.entries.range::<Path, _>((Bound::Excluded(folder), Bound::Unbounded));
        from.map(|(path, _)| path).take_while(move |path| path.starts_with(folder))
    }

    /// Drops a path and all below it.
    fn forget(&mut self, path: &Path) -> Vec<PathBuf> {
        let mut gone: Vec<PathBuf> = self.below(path).cloned().collect();
        if self.entries.contains_key(path) {
            gone.push(path.to_path_buf());
        }
        for path in &gone {
            self.entries.remove(path);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        folder: tempfile::TempDir,
        tree: Tree,
    }

    fn world(patterns: &[&str]) -> World {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        let patterns: Vec<String> = patterns.iter().map(|pattern| pattern.to_string()).collect();
        let tree = Tree::new(folder.path().join("src"), Filter::new(&patterns).unwrap());
        World { folder, tree }
    }

    impl World {
        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join("src").join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
            fs::write(self.at(name), text).unwrap();
        }

        #[track_caller]
        fn finds(&mut self, changed: &[&str], removed: &[&str]) {
            let set = |names: &[&str]| names.iter().map(PathBuf::from).collect();
            assert_eq!(self.tree.look(), Changes { changed: set(changed), removed: set(removed) });
        }
    }

    #[test]
    fn files_that_come_change_and_go_are_found_once() {
        let mut world = world(&[]);
        world.write("a", "1");
        world.write("sub/b", "1");
        world.finds(&["a", "sub", "sub/b"], &[]);
        world.finds(&[], &[]);
        world.write("sub/b", "12");
        world.finds(&["sub/b"], &[]);
        fs::remove_file(world.at("a")).unwrap();
        world.finds(&[], &["a"]);
    }

    #[test]
    fn a_save_by_rename_is_a_change_of_one_file() {
        let mut world = world(&[]);
        world.write("a", "1");
        world.finds(&["a"], &[]);
        world.write("a~", "2");
        world.finds(&[], &[]);
        fs::rename(world.at("a~"), world.at("a")).unwrap();
        world.finds(&["a"], &[]);
    }

    #[test]
    fn a_folder_that_moves_takes_its_files_along() {
        let mut world = world(&[]);
        world.write("old/x/y", "1");
        world.finds(&["old", "old/x", "old/x/y"], &[]);
        fs::rename(world.at("old"), world.at("new")).unwrap();
        world.finds(&["new", "new/x", "new/x/y"], &["old", "old/x", "old/x/y"]);
    }

    #[test]
    fn another_folder_under_the_same_name_is_looked_at_anew() {
        let mut world = world(&[]);
        world.write("a/x", "1");
        world.write("b/y", "1");
        world.tree.look();
        fs::rename(world.at("a"), world.at("c")).unwrap();
        fs::rename(world.at("b"), world.at("a")).unwrap();
        world.finds(&["a", "a/y", "c", "c/x"], &["a/x", "b", "b/y"]);
    }

    #[test]
    fn a_root_that_vanishes_and_returns_is_told_as_such() {
        let mut world = world(&[]);
        world.write("a", "1");
        world.finds(&["a"], &[]);
        let aside = world.folder.path().join("aside");
        fs::rename(world.at(""), &aside).unwrap();
        world.finds(&[], &["a"]);
        assert_eq!(world.tree.folders().count(), 0);
        fs::rename(&aside, world.at("")).unwrap();
        world.finds(&["a"], &[]);
    }

    #[test]
    fn a_single_file_is_a_tree_of_one() {
        let mut world = world(&[]);
        world.write("a", "1");
        world.tree = Tree::new(world.at("a"), Filter::new(&[]).unwrap());
        world.finds(&[""], &[]);
        world.write("a", "12");
        world.finds(&[""], &[]);
        fs::remove_file(world.at("a")).unwrap();
        world.finds(&[], &[""]);
    }

    #[test]
    fn patterns_are_read_as_git_reads_them() {
        let mut world = world(&["node_modules/", "*.log", "!keep.log", "/top", "doc/*.txt"]);
        for name in ["node_modules/x/y", "a.log", "keep.log", "top", "sub/top", "doc/a.txt", "doc/sub/a.txt", ".git/x"]
        {
            world.write(name, "");
        }
        world.finds(&["doc", "doc/sub", "doc/sub/a.txt", "keep.log", "sub", "sub/top"], &[]);
        let folders: Vec<PathBuf> = world.tree.folders().collect();
        assert!(!folders.iter().any(|folder| folder.ends_with("node_modules")), "{folders:?}");
    }

    #[test]
    fn only_the_folder_that_was_told_of_is_looked_at() {
        let mut world = world(&[]);
        world.write("a/x", "1");
        world.write("b/y", "1");
        world.tree.look();
        world.write("a/x", "12");
        world.write("b/y", "12");
        let found = world.tree.look_in(&world.at("b"));
        assert_eq!(found.changed.into_iter().collect::<Vec<_>>(), [PathBuf::from("b/y")]);
    }
}
