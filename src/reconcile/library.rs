//! The images of this host outside of any stack: what `stack image` does.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::runtime::image::registry::{
    Progress, RegistryBlobs, RegistryClient, RegistryError, RegistryOptions, fetch, push,
};
use crate::runtime::image::{ImageError, ImageOrigin, ImageStore, LayerDigest, Reference, ResolvedImage, StoredImage};

/// Largest file of a bundle that is read for the layers it names.
const MAX_BUNDLE_FILE: u64 = 4 << 20;
/// What stands before the name of a layer in a bundle.
const LAYER_PATH: &str = "layers/sha256/";

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
}

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub blobs: usize,
    /// Bytes of the blobs; unpacked layers are not measured.
    pub bytes: u64,
    pub layers: usize,
}

/// What a check of the store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Blobs that were not what they are called, and are gone.
    pub damaged: Vec<LayerDigest>,
    /// Images of which something is missing now; pulling them again brings it back.
    pub incomplete: Vec<Reference>,
}

impl ImageLibrary {
    /// The store below `data`; `run` holds the bundles of containers.
    pub fn new(data: &Path, run: &Path, options: RegistryOptions) -> Self {
        Self { store: ImageStore::open(data), client: RegistryClient::new(options), run: run.to_owned() }
    }

    /// Asks the registry and brings in what is missing.
    pub fn pull(&self, reference: &Reference, progress: &dyn Progress) -> Result<StoredImage, LibraryError> {
        let failed = |source| LibraryError::Registry { doing: "pull", reference: reference.clone(), source };
        let stored = fetch(&self.client, &self.store, (reference, None)).map_err(failed)?;
        let image = self.resolve(reference)?;
        let blobs = RegistryBlobs { client: &self.client, store: &self.store, reference, progress };
        blobs.unpack(&image).map_err(store(format!("pull `{reference}`")))?;
        Ok(stored)
    }

    /// Sends a stored image to a registry under the name `to`; `sent` hears of each blob that is there.
    pub fn push(
        &self,
        (reference, to): (&Reference, &Reference),
        sent: &(dyn Fn(LayerDigest, u64) + Sync),
    ) -> Result<LayerDigest, LibraryError> {
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
        self.store.import(origin, reference).map_err(store(format!("import `{reference}`")))
    }

    pub fn export(&self, reference: &Reference, path: &Path) -> Result<(), LibraryError> {
        let image = self.image(reference)?;
        self.store.export(&image, path).map_err(store(format!("export `{reference}`")))
    }

    /// Takes away blobs and unpacked layers that no named image and no container holds.
    pub fn prune(&self) -> Result<Pruned, LibraryError> {
        let failed = || store("prune the store");
        let used = layers_in_bundles(&self.run)?;
        let mut cache = self.store.layers().map_err(failed())?;
        for image in self.images()? {
            // One that cannot be read holds nothing that could be used.
            if let Ok(image) = self.resolve(&image.reference) {
                cache.retain(&image);
            }
        }
        let (blobs, bytes) = self.store.prune_layout().map_err(failed())?;
        let mut layers = 0;
        for layer in cache.unreferenced().filter(|layer| !used.contains(&layer.digest)) {
            self.store.remove_layer(&layer.digest).map_err(failed())?;
            layers += 1;
        }
        Ok(Pruned { blobs, bytes, layers })
    }

    /// Holds every blob against its digest and takes away what is damaged.
    pub fn check(&self) -> Result<Repaired, LibraryError> {
        let damaged = self.store.check_layout().map_err(store("check the store"))?;
        let whole = |image: &StoredImage| self.resolve(&image.reference).is_ok_and(|image| self.missing(&image) == 0);
        let images = self.images()?.into_iter();
        let incomplete = images.filter(|image| !whole(image)).map(|image| image.reference).collect();
        Ok(Repaired { damaged, incomplete })
    }
}

fn store(doing: impl Into<String>) -> impl FnOnce(ImageError) -> LibraryError {
    let doing = doing.into();
    move |source| LibraryError::Store { doing, source }
}

/// The layers that bundles name, `<run>/<stack>/<instance>/*.json`: containers that run, and that could be started again.
fn layers_in_bundles(run: &Path) -> Result<HashSet<LayerDigest>, LibraryError> {
    let mut used = HashSet::new();
    for bundle in folders(run)?.iter().map(|stack| folders(stack)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten()
    {
        for name in ["monitor.json", "config.json"] {
            let path = bundle.join(name);
            let mut text = String::new();
            match std::fs::File::open(&path).and_then(|file| file.take(MAX_BUNDLE_FILE).read_to_string(&mut text)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LibraryError::Bundles { path, source: error });
                }
                _ => used.extend(layers_in(&text)),
            }
        }
    }
    Ok(used)
}

fn layers_in(text: &str) -> impl Iterator<Item = LayerDigest> {
    text.split(LAYER_PATH).skip(1).filter_map(|rest| LayerDigest::from_hex(rest.get(..64)?).ok())
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    match std::fs::read_dir(path) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(LibraryError::Bundles { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_in_what_bundles_say() {
        let run = tempfile::tempdir().unwrap();
        let bundle = run.path().join("shop/web-1");
        std::fs::create_dir_all(&bundle).unwrap();
        let (one, two) = (LayerDigest::of(b"1"), LayerDigest::of(b"2"));
        let text = format!("[\"/data/layers/sha256/{}\",\"/data/layers/sha256/{}\"]", one.hex(), two.hex());
        std::fs::write(bundle.join("monitor.json"), text).unwrap();
        assert_eq!(layers_in_bundles(run.path()).unwrap(), HashSet::from([one, two]));
        assert!(layers_in_bundles(&run.path().join("absent")).unwrap().is_empty());
    }
}
