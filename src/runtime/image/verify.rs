//! Unpacked layers held against what their archives unpack to, and what crashes left behind.

use std::path::PathBuf;

use super::crew::LocalBlobs;
use super::publish::{Aside, LayerName, make_private, store_error};
use super::store::{names_of, unpack_blob};
use super::{ImageError, ImageLayer, ImageStore, LayerDigest, LayerSource, ResolvedImage};
use crate::runtime::overlay::{TreeDifference, layer_differences};

/// What a check of one unpacked layer came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerVerdict {
    Sound,
    /// It was not what its archive holds, and is now. The first difference is told.
    Repaired(PathBuf),
    /// It is not what its archive holds, and was left as it is: its name in the store, and the first difference.
    Damaged(LayerDigest, PathBuf),
    /// Its archive is not in the store.
    Unknown,
    NotUnpacked,
}

impl ImageStore {
    /// Holds the `index`-th layer of an image, counted from the lowest, against its archive: it is unpacked once more, and
    /// where the two differ, and `may_replace`, the new one takes the old one's place. Nobody else may use the store
    /// ([`hold_alone`](Self::hold_alone)), and nobody may have mounted a layer that is replaced.
    pub fn verify_layer(
        &self,
        image: &ResolvedImage,
        index: usize,
        in_use: &dyn Fn(&LayerDigest) -> bool,
    ) -> Result<LayerVerdict, ImageError> {
        let names = names_of(image);
        let (Some(LayerSource::Blob(layer)), Some(Some(name))) = (image.layers.get(index), names.get(index)) else {
            return Ok(LayerVerdict::Unknown);
        };
        let Some(place) = self.paths.find(name) else { return Ok(LayerVerdict::NotUnpacked) };
        if !layer.blob.path.is_file() {
            return Ok(LayerVerdict::Unknown);
        }
        let below = image.layers[..index].iter().zip(&names).rev();
        let lower: Vec<PathBuf> = below.map(|(layer, name)| self.folder_of(layer, *name)).collect();
        let fresh = self.unpack_aside((layer, name), &lower)?;
        // A folder that cannot be walked is as damaged as one that holds something else.
        let found = match layer_differences(&place, &fresh.path) {
            Ok(differences) => differences.into_iter().next().map(|first: TreeDifference| first.path),
            Err(_) => Some(PathBuf::new()),
        };
        match found {
            None => Ok(LayerVerdict::Sound),
            Some(path) => {
                let over = place == self.paths.layer(&name.over);
                let called = if over { name.over } else { name.alone };
                if in_use(&called) {
                    return Ok(LayerVerdict::Damaged(called, path));
                }
                let gone = self.set_aside(&place)?;
                self.paths.publish_folder(&fresh, &place)?;
                remove(&gone)?;
                Ok(LayerVerdict::Repaired(path))
            }
        }
    }

    /// Removes an unpacked layer by its name in the store. The caller has made sure that nothing uses it.
    pub fn remove_layer(&self, digest: &LayerDigest) -> Result<(), ImageError> {
        remove(&self.set_aside(&self.paths.layer(digest))?)
    }

    /// Takes away what those who were interrupted left in the making; how many things. Nobody else may use the store.
    pub fn sweep(&self) -> Result<usize, ImageError> {
        let mut swept = 0;
        for folder in ["tmp", "locks"] {
            let folder = self.paths.root.join(folder);
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(store_error(&folder, "read")(error)),
            };
            for entry in entries {
                let path = entry.map_err(store_error(&folder, "read"))?.path();
                remove(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn unpack_aside(
        &self,
        (layer, name): (&ImageLayer, &LayerName),
        lower: &Vec<PathBuf>,
    ) -> Result<Aside, ImageError> {
        let tmp = self.paths.root.join("tmp");
        make_private(&self.paths.root, &tmp)?;
        let aside = Aside::make(tmp.join(format!("check-{}", name.over.hex())))?;
        unpack_blob((layer, &LocalBlobs), &aside.path, (self.limits, lower))?;
        Ok(aside)
    }

    /// Half a layer must never lie under its name.
    fn set_aside(&self, place: &std::path::Path) -> Result<PathBuf, ImageError> {
        let tmp = self.paths.root.join("tmp");
        make_private(&self.paths.root, &tmp)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let gone = tmp.join(format!("gone-{name}"));
        if gone.exists() {
            remove(&gone)?;
        }
        std::fs::rename(place, &gone).map_err(store_error(place, "remove"))?;
        Ok(gone)
    }
}

fn remove(path: &std::path::Path) -> Result<(), ImageError> {
    let removed =
        if path.is_dir() && !path.is_symlink() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.map_err(store_error(path, "remove"))
}
