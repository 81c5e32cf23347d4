//! The images of this host outside of any stack: what `stack image` does.

mod check;
mod compare;
mod in_use;
mod prune;

use std::path::{Path, PathBuf};

use crate::runtime::image::registry::{
    Progress, RegistryBlobs, RegistryClient, RegistryError, RegistryOptions, fetch, push,
};
use crate::runtime::image::{
    ImageError, ImageOrigin, ImageStore, LayerDigest, Reference, ResolvedImage, StoreHold, StoredImage,
};
use crate::runtime::overlay::OverlayError;
pub use check::Checked;
pub use compare::ImageDifference;
pub use prune::{PruneWish, Pruned};

/// Images by name, and the registries they come from.
pub struct ImageLibrary {
    store: ImageStore,
    client: RegistryClient,
    run: PathBuf,
}

/// Why something with an image failed.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error("there is no image `{reference}` in the store")]
    NotStored { reference: Reference },
    #[error("cannot {doing} `{reference}`")]
    Registry { doing: &'static str, reference: Reference, source: RegistryError },
    #[error("cannot {doing}")]
    Store { doing: String, source: ImageError },
    #[error("cannot tell which layers containers use: `{}` cannot be read", path.display())]
    Bundles { path: PathBuf, source: std::io::Error },
    #[error("cannot compare the images")]
    Compare { source: OverlayError },
    #[error("cannot tell how much space is free below `{}`", path.display())]
    Space { path: PathBuf, source: std::io::Error },
}

impl ImageLibrary {
    /// The store below `data`; `run` holds the bundles of containers.
    pub fn new(data: &Path, run: &Path, options: RegistryOptions) -> Self {
        Self { store: ImageStore::open(data), client: RegistryClient::new(options), run: run.to_owned() }
    }

    /// Asks the registry and brings in what is missing.
    pub fn pull(&self, reference: &Reference, progress: &dyn Progress) -> Result<StoredImage, LibraryError> {
        let failed = |source| LibraryError::Registry { doing: "pull", reference: reference.clone(), source };
        let _held = self.hold()?;
        let stored = fetch(&self.client, &self.store, (reference, None)).map_err(failed)?;
        self.bring_in(reference, progress)?;
        Ok(stored)
    }

    /// Sends a stored image to a registry under the name `to`; `sent` hears of each blob that is there.
    pub fn push(
        &self,
        (reference, to): (&Reference, &Reference),
        sent: &(dyn Fn(LayerDigest, u64) + Sync),
    ) -> Result<LayerDigest, LibraryError> {
        let _held = self.hold()?;
        let image = self.image(reference)?;
        push(&self.client, &self.store, (&image, to), &|blob| sent(blob.digest, blob.size))
            .map_err(|source| LibraryError::Registry { doing: "push", reference: to.clone(), source })
    }

    pub fn images(&self) -> Result<Vec<StoredImage>, LibraryError> {
        self.store.stored_images().map_err(store("list the images"))
    }

    pub fn image(&self, reference: &Reference) -> Result<StoredImage, LibraryError> {
        let found = self.store.stored(reference).map_err(store(format!("read `{reference}`")))?;
        found.ok_or_else(|| LibraryError::NotStored { reference: reference.clone() })
    }

    /// What an image is: configuration and layers.
    pub fn resolve(&self, reference: &Reference) -> Result<ResolvedImage, LibraryError> {
        let origin = ImageOrigin::Registry { reference: reference.clone() };
        self.store.resolve(&origin).map_err(store(format!("read `{reference}`")))
    }

    /// How many layers of an image are not unpacked.
    pub fn missing(&self, image: &ResolvedImage) -> usize {
        self.store.missing_layers(image).len()
    }

    /// Takes a name away; what only it held goes with [`prune`](Self::prune).
    pub fn remove(&self, reference: &Reference) -> Result<(), LibraryError> {
        match self.store.forget(reference).map_err(store(format!("remove `{reference}`")))? {
            true => Ok(()),
            false => Err(LibraryError::NotStored { reference: reference.clone() }),
        }
    }

    pub fn import(&self, origin: &ImageOrigin, reference: &Reference) -> Result<StoredImage, LibraryError> {
        let _held = self.hold()?;
        self.store.import(origin, reference).map_err(store(format!("import `{reference}`")))
    }

    pub fn export(&self, reference: &Reference, path: &Path) -> Result<(), LibraryError> {
        let _held = self.hold()?;
        let image = self.image(reference)?;
        self.store.export(&image, path).map_err(store(format!("export `{reference}`")))
    }

    /// Unpacks what is missing of a stored image, from the store or its registry.
    fn bring_in(&self, reference: &Reference, progress: &dyn Progress) -> Result<ResolvedImage, LibraryError> {
        let image = self.resolve(reference)?;
        let blobs = RegistryBlobs { client: &self.client, store: &self.store, reference, progress };
        blobs.unpack(&image).map_err(store(format!("unpack `{reference}`")))?;
        Ok(image)
    }

    fn hold(&self) -> Result<StoreHold, LibraryError> {
        self.store.hold().map_err(store("use the store"))
    }
}

fn store(doing: impl Into<String>) -> impl FnOnce(ImageError) -> LibraryError {
    let doing = doing.into();
    move |source| LibraryError::Store { doing, source }
}
