//! Images of registries in a run: which one a reference means now, and its layers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;

use super::super::{Doing, HostError};
use super::LinuxHost;
use crate::model::{ImageReference, Pull};
use crate::reconcile::lockfile::ImageLock;
use crate::runtime::image::registry::{RegistryBlobs, Silent, fetch};
use crate::runtime::image::{ImageError, ImageOrigin, LayerDigest, Reference, ResolvedImage, StoreHold, StoredImage};

/// What is asked anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// As the lock file and each image's `pull` have it.
    AsWritten,
    /// Every reference, whatever is locked.
    All,
}

impl LinuxHost {
    /// The same host, with other images asked anew.
    pub fn with_renewal(self, renewal: Renewal) -> Self {
        Self { renewal, ..self }
    }

    /// Keeps `image prune` from what a run brings in, until the bundles of its containers name it.
    pub fn hold_images(&self) -> Result<StoreHold, HostError> {
        self.images.hold().doing(|| "use the image store")
    }

    /// Writes what the references of this run led to beside the stack file.
    pub fn write_image_lock(&self, stack_file: &Path) -> Result<(), HostError> {
        let referred = self.referred.lock().unwrap_or_else(PoisonError::into_inner);
        // One without a tag to follow has its digest in the file.
        let images = referred.values().filter(|(reference, _)| reference.digest().is_none()).cloned();
        let lock = ImageLock::of(images);
        lock.write(&ImageLock::path(stack_file)).doing(|| "keep what the image references led to")
    }

    /// Brings the documents of a reference into the store, where they are wanted and not there.
    pub(super) fn refer(
        &self,
        name: &str,
        (reference, pull): (&ImageReference, Pull),
        stack_file: &str,
    ) -> Result<ImageOrigin, HostError> {
        let reference: Reference = reference.as_str().parse().doing(|| format!("read image `{name}`"))?;
        if let Some(image) = self.referred_already(name, &reference) {
            return image;
        }
        let lock = ImageLock::read(&ImageLock::path(Path::new(stack_file))).doing(|| "tell which images are locked")?;
        let locked = lock.digest(&reference).filter(|_| self.renewal == Renewal::AsWritten && pull != Pull::Always);
        let stored = self.images.stored(&reference).doing(|| format!("read image `{name}`"))?;
        let usable = stored.filter(|image| locked.is_none_or(|digest| image.resolved == digest));
        let usable = match (usable, locked) {
            (None, Some(digest)) => self.recall(&reference, digest).doing(|| format!("read image `{name}`"))?,
            (usable, _) => usable,
        };
        let asks = self.renewal == Renewal::All || pull == Pull::Always;
        let image = match (usable, pull) {
            (Some(image), Pull::Never) => image,
            (Some(image), _) if !asks => image,
            (None, Pull::Never) => {
                let said = match locked {
                    Some(digest) => format!(
                        "image `{name}` is locked to {digest}, which is not in the store, and its `pull` is \"never\""
                    ),
                    None => format!("image `{name}` is not in the store, and its `pull` is \"never\""),
                };
                return Err(HostError::Said(said));
            }
            _ => self.fetch(&reference, locked).doing(|| format!("pull image `{name}`"))?,
        };
        let mut referred = self.referred.lock().unwrap_or_else(PoisonError::into_inner);
        referred.insert(name.to_owned(), (reference.clone(), image.resolved));
        Ok(ImageOrigin::Registry { reference })
    }

    /// What a reference led to earlier in this run is what it leads to until its end: the look after the steps must not
    /// find that a tag has moved meanwhile.
    fn referred_already(&self, name: &str, reference: &Reference) -> Option<Result<ImageOrigin, HostError>> {
        let known = self.referred.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()?;
        let stored = match self.images.stored(reference).doing(|| format!("read image `{name}`")) {
            Ok(stored) => stored?,
            Err(error) => return Some(Err(error)),
        };
        let same = known == (reference.clone(), stored.resolved);
        same.then(|| Ok(ImageOrigin::Registry { reference: reference.clone() }))
    }

    pub(super) fn reference_of(&self, name: &str) -> Option<Reference> {
        let referred: &BTreeMap<String, _> = &self.referred.lock().unwrap_or_else(PoisonError::into_inner);
        referred.get(name).map(|(reference, _): &(Reference, LayerDigest)| reference.clone())
    }

    pub(super) fn pull_layers(&self, reference: &Reference, image: &ResolvedImage) -> Result<(), ImageError> {
        let (client, store) = (&*self.registries, &*self.images);
        RegistryBlobs { client, store, reference, progress: &Silent }.unpack(image)
    }

    fn fetch(
        &self,
        reference: &Reference,
        locked: Option<LayerDigest>,
    ) -> Result<StoredImage, crate::runtime::image::registry::RegistryError> {
        fetch(&self.registries, &self.images, (reference, locked))
    }
}
