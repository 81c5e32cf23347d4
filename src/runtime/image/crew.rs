//! Unpacks the layers of one image several at a time. Each has a folder of its own, so none waits for another, except
//! where it needs something of those below it.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::publish::LayerName;
use super::store::names_of;
use super::unpack::LowerLayers;
use super::{ImageError, ImageLayer, ImageStore, LayerDigest, LayerSource, ResolvedImage};

/// Layers under way at once: more do not help two or four processors, and each holds buffers and a connection.
pub(super) const MAX_AT_ONCE: usize = 4;

/// Where the blobs of layers are read from.
pub trait LayerBlobs: Sync {
    /// The bytes of a layer as they are stored, from the first one on.
    fn open<'s>(&'s self, layer: &'s ImageLayer) -> Result<Box<dyn LayerStream + 's>, ImageError>;

    /// The layer is in the store.
    fn unpacked(&self, _layer: &ImageLayer) {}
}

/// The bytes of a blob.
pub trait LayerStream: Read {
    /// All was read and found to be right: what was set aside on the way may be kept.
    fn finished(&mut self) -> Result<(), ImageError> {
        Ok(())
    }
}

/// Blobs where the image says that they are.
pub struct LocalBlobs;

impl LayerBlobs for LocalBlobs {
    fn open<'s>(&'s self, layer: &'s ImageLayer) -> Result<Box<dyn LayerStream + 's>, ImageError> {
        Ok(Box::new(layer.blob.open()?))
    }
}

impl LayerStream for std::io::Take<std::fs::File> {}

/// The work on one image, shared by those who do it.
pub(super) struct Crew<'a> {
    store: &'a ImageStore,
    image: &'a ResolvedImage,
    names: Vec<Option<LayerName>>,
    /// For each layer the first one that is the same.
    first: Vec<usize>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    next: usize,
    done: Vec<bool>,
    failed: Option<ImageError>,
}

impl<'a> Crew<'a> {
    pub(super) fn new(store: &'a ImageStore, image: &'a ResolvedImage) -> Self {
        let names = names_of(image);
        let mut firsts: HashMap<LayerDigest, usize> = HashMap::new();
        let first = names.iter().enumerate().map(|(index, name)| match name {
            Some(name) => *firsts.entry(name.alone).or_insert(index),
            None => index,
        });
        let first = first.collect();
        let progress = Progress { next: 0, done: vec![false; image.layers.len()], failed: None };
        Self { store, image, names, first, progress: Mutex::new(progress), changed: Condvar::new() }
    }

    /// Takes one layer after the other, lowest first: whoever waits for a lower one waits for somebody who has it.
    pub(super) fn work(&self, source: &dyn LayerBlobs) {
        while let Some(index) = self.take() {
            let layer = &self.image.layers[index];
            let lower = Below { crew: self, index };
            // The same layer again waits for its first time: both have one lock, and who has that may wait for lower ones.
            let ready = self.first[index] == index || lower.folders().is_some();
            let result = match ready {
                true => self.store.unpack_one(layer, self.names[index], (source, &lower)),
                false => return,
            };
            if let (Ok(()), LayerSource::Blob(layer)) = (&result, layer) {
                source.unpacked(layer);
            }
            let mut progress = self.progress();
            match result {
                Ok(()) => progress.done[index] = true,
                // What failed because a lower one did is not told; the first failure is.
                Err(error) => progress.failed = progress.failed.take().or(Some(error)),
            }
            self.changed.notify_all();
        }
    }

    pub(super) fn outcome(self) -> Result<(), ImageError> {
        let progress = self.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        progress.failed.map_or(Ok(()), Err)
    }

    fn take(&self) -> Option<usize> {
        let mut progress = self.progress();
        if progress.failed.is_some() || progress.next == self.image.layers.len() {
            return None;
        }
        progress.next += 1;
        Some(progress.next - 1)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layers below one that is being unpacked.
struct Below<'a> {
    crew: &'a Crew<'a>,
    index: usize,
}

impl LowerLayers for Below<'_> {
    fn folders(&self) -> Option<Vec<PathBuf>> {
        let ready =
            |progress: &mut Progress| progress.failed.is_none() && progress.done[..self.index].iter().any(|done| !done);
        let waited = self.crew.changed.wait_while(self.crew.progress(), ready);
        if waited.unwrap_or_else(PoisonError::into_inner).failed.is_some() {
            return None;
        }
        let layers = self.crew.image.layers[..self.index].iter().zip(&self.crew.names).rev();
        Some(layers.map(|(layer, name)| self.crew.store.folder_of(layer, *name)).collect())
    }
}
