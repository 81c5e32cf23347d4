//! What is in the store and who uses it. Counting only: what to do with a layer that nobody uses is for the caller.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::publish::{StorePaths, layer_names, store_error};
use super::{ImageError, LayerDigest, LayerSource, ResolvedImage};

/// An unpacked layer of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedLayer {
    /// Its diff id.
    pub digest: LayerDigest,
    pub path: PathBuf,
    /// Images that hold it, each counted as often as it was retained.
    pub references: usize,
}

/// The unpacked layers of a store, with reference counts.
#[derive(Clone, Debug, Default)]
pub struct LayerCache {
    layers: BTreeMap<LayerDigest, CachedLayer>,
}

impl LayerCache {
    /// Every layer below `root`, none referenced.
    pub(super) fn read(paths: &StorePaths) -> Result<Self, ImageError> {
        let folder = paths.layers();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(store_error(&folder, "read")(error)),
        };
        let mut layers = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(store_error(&folder, "read"))?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| LayerDigest::from_hex(name).ok()) else {
                continue;
            };
            layers.insert(digest, CachedLayer { digest, path: entry.path(), references: 0 });
        }
        Ok(Self { layers })
    }

    /// In the order of their digests.
    pub fn layers(&self) -> impl Iterator<Item = &CachedLayer> {
        self.layers.values()
    }

    pub fn get(&self, digest: &LayerDigest) -> Option<&CachedLayer> {
        self.layers.get(digest)
    }

    /// Counts the layers of an image that is used. Layers that are not in the store do not count.
    pub fn retain(&mut self, image: &ResolvedImage) {
        self.change(image, |references| references + 1);
    }

    /// Takes one use of an image back.
    pub fn release(&mut self, image: &ResolvedImage) {
        self.change(image, |references| references.saturating_sub(1));
    }

    /// Layers that no retained image holds.
    pub fn unreferenced(&self) -> impl Iterator<Item = &CachedLayer> {
        self.layers().filter(|layer| layer.references == 0)
    }

    fn change(&mut self, image: &ResolvedImage, change: impl Fn(usize) -> usize) {
        for name in layer_names(image.layers.iter().filter_map(LayerSource::digest)) {
            for digest in [name.over, name.alone] {
                if let Some(layer) = self.layers.get_mut(&digest) {
                    layer.references = change(layer.references);
                }
            }
        }
    }
}

impl LayerSource {
    /// The name of the layer in the store; `None` for folders, which are used where they are.
    pub fn digest(&self) -> Option<LayerDigest> {
        match self {
            Self::Blob(layer) => Some(layer.diff_id),
            Self::Skeleton(digest) => Some(*digest),
            Self::Directory(_) => None,
        }
    }
}
