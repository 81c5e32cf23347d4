//! What is watched, as it was at the last look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::decide::Found;
use super::inputs::{Inputs, Purpose};
use super::notice::{Heard, NoticeError, Notices};
use super::places::{Stamp, folders_of};
use super::tree::{Changes, Tree};

/// A look that finds new folders looks into them again, so many times at most.
const LOOKS: usize = 16;

/// A tree that is watched and what tells it from another.
struct Watched {
    purpose: Purpose,
    patterns: Vec<String>,
    tree: Tree,
}

#[derive(Default)]
pub(super) struct Sight {
    files: BTreeMap<PathBuf, Option<Stamp>>,
    trees: Vec<Watched>,
    /// Folders of which only is heard that something happened.
    bells: BTreeSet<PathBuf>,
}

impl Sight {
    /// Takes other inputs. What is known of those that stay is kept, so that a change in between is still found; of the
    /// others it is as it is now.
    pub(super) fn take(&mut self, inputs: Inputs) {
        let held = std::mem::take(&mut self.files);
        self.files = inputs
            .files
            .into_iter()
            .map(|file| {
                let stamp = held.get(&file).copied().unwrap_or_else(|| Stamp::at(&file));
                (file, stamp)
            })
            .collect();
        let mut held = std::mem::take(&mut self.trees);
        for input in inputs.trees {
            let is_it = |watched: &Watched| {
                watched.purpose == input.purpose
                    && watched.patterns == input.patterns
                    && watched.tree.root() == input.root
            };
            let watched = match held.iter().position(is_it) {
                Some(index) => held.swap_remove(index),
                None => {
                    let mut tree = Tree::new(input.root, input.filter);
                    tree.look();
                    Watched { purpose: input.purpose, patterns: input.patterns, tree }
                }
            };
            self.trees.push(watched);
        }
    }

    pub(super) fn ring_for(&mut self, folders: BTreeSet<PathBuf>) {
        self.bells = folders;
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.files.len(), self.trees.len())
    }

    /// Everything below the root of a rule's tree.
    pub(super) fn whole(&self, purpose: &Purpose) -> Option<(PathBuf, Changes)> {
        let watched = self.trees.iter().find(|watched| watched.purpose == *purpose)?;
        Some((watched.tree.root().to_path_buf(), watched.tree.everything()))
    }

    /// Looks where something was heard, and watches what has to be watched from now on.
    pub(super) fn look(&mut self, heard: &Heard, notices: &mut Notices) -> Result<Found, NoticeError> {
        let mut found = Found::new();
        for (file, stamp) in &mut self.files {
            let now = Stamp::at(file);
            if now != *stamp {
                *stamp = now;
                let changes = found.entry((Purpose::Road, file.clone())).or_default();
                changes.changed.insert(PathBuf::new());
            }
        }
        let mut folders: Vec<PathBuf> = heard.folders.iter().cloned().collect();
        for watched in &mut self.trees {
            let changes = if heard.all { watched.tree.look() } else { watched.tree.look_at_root() };
            keep(&mut found, watched, changes);
        }
        for _ in 0..LOOKS {
            for watched in &mut self.trees {
                for folder in &folders {
                    let changes = watched.tree.look_in(folder);
                    keep(&mut found, watched, changes);
                }
            }
            // What happened in a folder before it was watched was not heard.
            folders = notices.set(&self.folders())?;
            if folders.is_empty() {
                break;
            }
        }
        found.retain(|_, changes| !changes.is_empty());
        Ok(found)
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = self.bells.clone();
        for file in self.files.keys() {
            folders.extend(folders_of(file));
        }
        for watched in &self.trees {
            folders.extend(folders_of(watched.tree.root()));
            folders.extend(watched.tree.folders());
        }
        folders
    }

    /// Whether some folder that only rings is among these.
    pub(super) fn rang(&self, heard: &Heard) -> bool {
        heard.all || heard.folders.iter().any(|folder| self.bells.contains(folder))
    }
}

fn keep(found: &mut Found, watched: &Watched, changes: Changes) {
    if !changes.is_empty() {
        found.entry((watched.purpose.clone(), watched.tree.root().to_path_buf())).or_default().add(changes);
    }
}
