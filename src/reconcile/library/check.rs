//! Is the store what it says it is? What is not is made right where that can be done.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use super::in_use::InUse;
use super::{ImageLibrary, LibraryError, store};
use crate::runtime::image::{LayerDigest, LayerSource, LayerVerdict, LocalBlobs, Reference};

/// What a check of the store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blobs and unpacked layers that were held against what they should be.
    pub blobs: usize,
    pub layers: usize,
    /// Unpacked layers whose archive is not in the store.
    pub unknown: usize,
    /// Blobs that were not what they are called, and are gone.
    pub damaged: Vec<LayerDigest>,
    /// Layers that were unpacked anew, with the first name that was not as in the archive.
    pub repaired: Vec<(LayerDigest, PathBuf)>,
    /// Damaged layers that were left, because these containers use them.
    pub left: Vec<(LayerDigest, PathBuf, BTreeSet<String>)>,
    /// Images of which something is missing now; pulling them again brings it back.
    pub incomplete: Vec<Reference>,
    /// What interrupted runs had left behind.
    pub swept: usize,
}

impl Checked {
    /// Is nothing left to be done by hand?
    pub fn is_sound(&self) -> bool {
        self.left.is_empty() && self.incomplete.is_empty()
    }
}

impl ImageLibrary {
    /// Holds every blob against its digest, and every unpacked layer of a named image against its archive. Damaged blobs
    /// are taken away, damaged and missing layers unpacked anew, unless a container uses them.
    pub fn check(&self) -> Result<Checked, LibraryError> {
        let failed = || store("check the store");
        let _alone = self.store.hold_alone().map_err(failed())?;
        let used = InUse::read(&self.run)?;
        let swept = self.store.sweep().map_err(failed())?;
        let (blobs, damaged) = self.store.check_layout().map_err(failed())?;
        let mut checked = Checked { swept, blobs, damaged, ..Checked::default() };
        let mut seen = HashSet::new();
        for stored in self.images()? {
            let Ok(image) = self.resolve(&stored.reference) else {
                checked.incomplete.push(stored.reference);
                continue;
            };
            // Lowest first: an upper one may be made of those below it.
            for (index, layer) in image.layers.iter().enumerate() {
                let Some(digest) = layer.digest() else { continue };
                // The same layer may lie unpacked over others in another form.
                let below: Vec<Option<LayerDigest>> = image.layers[..=index].iter().map(LayerSource::digest).collect();
                if !seen.insert(below) {
                    continue;
                }
                let in_use = |name: &LayerDigest| used.layers.contains_key(name);
                match self.store.verify_layer(&image, index, &in_use).map_err(failed())? {
                    LayerVerdict::Sound => checked.layers += 1,
                    LayerVerdict::Repaired(path) => checked.repaired.push((digest, path)),
                    LayerVerdict::Damaged(name, path) => {
                        checked.left.push((digest, path, used.layers.get(&name).cloned().unwrap_or_default()));
                    }
                    LayerVerdict::Unknown => checked.unknown += 1,
                    LayerVerdict::NotUnpacked => {}
                }
            }
            // What cannot be brought in from the store alone is told by its image's name.
            if self.store.unpack(&image, &LocalBlobs).is_err() {
                checked.incomplete.push(stored.reference);
            }
        }
        Ok(checked)
    }
}
