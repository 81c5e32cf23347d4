//! The images that the store keeps by name: an OCI image layout of its own (OCI image specification, "Image Layout"), to
//! which blobs are added by rename and whose index is changed under a lock.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::blob::{BlobLocation, Tree};
use super::layout::{blob_name, read_image, read_layout};
use super::manifest::{Descriptor, ImageIndex, ImageManifest, OCI_MANIFEST};
use super::publish::{Lock, make_private, store_error};
use super::store::resolved;
use super::{ContainerImage, HostPlatform, ImageError, ImageStore, LayerDigest, Reference, ResolvedImage};

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What the registry had under the name: the digest of an index or of a manifest. Kept for lock files.
const RESOLVED: &str = "dev.stack.resolved";
/// When it was, as seconds since 1970.
const PULLED: &str = "dev.stack.pulled";
const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image of the store's own layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    pub reference: Reference,
    /// The manifest of the image itself, for one platform.
    pub manifest: LayerDigest,
    /// What the reference led to: the same, or an index in which it was.
    pub resolved: LayerDigest,
    /// Seconds since 1970.
    pub pulled: u64,
    /// Bytes of its blobs as they are compressed.
    pub size: u64,
}

/// A blob in the making. What is not [finished](Self::finish) is taken away.
pub struct BlobWriter {
    file: File,
    aside: PathBuf,
    place: PathBuf,
    finished: bool,
}

impl BlobWriter {
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.file.write_all(bytes).map_err(store_error(&self.aside, "write"))
    }

    /// Publishes the blob. The caller has held it against its digest.
    pub fn finish(&mut self) -> Result<(), ImageError> {
        std::fs::rename(&self.aside, &self.place).map_err(store_error(&self.place, "publish"))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.aside);
        }
    }
}

impl ImageStore {
    /// The images that have a name, in its order.
    pub fn stored_images(&self) -> Result<Vec<StoredImage>, ImageError> {
        let index = self.index()?;
        let mut images: Vec<StoredImage> =
            index.manifests.iter().filter_map(|descriptor| self.stored_image(descriptor)).collect();
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(images)
    }

    /// The image of this very name.
    pub fn stored(&self, reference: &Reference) -> Result<Option<StoredImage>, ImageError> {
        Ok(self.stored_images()?.into_iter().find(|image| image.reference == *reference))
    }

    /// Reads the documents of a stored image.
    pub fn stored_documents(&self, image: &StoredImage) -> Result<ContainerImage, ImageError> {
        read_layout(&self.layout_tree(), Some(&image.manifest.to_string()), &self.platform)
    }

    /// The manifest of a stored image, as bytes.
    pub fn stored_manifest(&self, image: &StoredImage) -> Result<Vec<u8>, ImageError> {
        Ok(self.layout_tree().read_document(&blob_name(&image.manifest))?.0)
    }

    /// Where a blob of the layout lies, if it is there.
    pub fn blob(&self, digest: &LayerDigest) -> Option<BlobLocation> {
        self.layout_tree().locate(&blob_name(digest)).ok().flatten()
    }

    /// What this host runs.
    pub fn platform(&self) -> &HostPlatform {
        &self.platform
    }

    /// Takes a blob out of the layout, if it is there.
    pub fn remove_blob(&self, digest: &LayerDigest) -> Result<(), ImageError> {
        let place = self.paths.layout().join(blob_name(digest));
        match std::fs::remove_file(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(store_error(&place, "remove")(error)),
            _ => Ok(()),
        }
    }

    /// Begins a blob of the layout.
    pub fn write_blob(&self, digest: &LayerDigest) -> Result<BlobWriter, ImageError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (layout, tmp) = (self.paths.layout(), self.paths.root.join("tmp"));
        for folder in [layout.join("blobs/sha256"), tmp.clone()] {
            make_private(&self.paths.root, &folder)?;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let aside = tmp.join(format!("blob-{}-{number}-{}", std::process::id(), &digest.hex()[..12]));
        let file = File::create(&aside).map_err(store_error(&aside, "make"))?;
        Ok(BlobWriter { file, aside, place: layout.join(blob_name(digest)), finished: false })
    }

    /// Adds a document to the layout; its digest is that of its bytes.
    pub fn add_document(&self, bytes: &[u8]) -> Result<LayerDigest, ImageError> {
        let digest = LayerDigest::of(bytes);
        if self.blob(&digest).is_none_or(|blob| blob.size != bytes.len() as u64) {
            let mut blob = self.write_blob(&digest)?;
            blob.write_all(bytes)?;
            blob.finish()?;
        }
        Ok(digest)
    }

    /// Gives the image of `manifest` a name; another image of that name loses it. Its documents must be there.
    pub fn name_image(
        &self,
        reference: &Reference,
        manifest: &Descriptor,
        resolved: LayerDigest,
    ) -> Result<(), ImageError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let annotations =
            [(REF_NAME, reference.to_string()), (RESOLVED, resolved.to_string()), (PULLED, now.to_string())];
        let annotations: BTreeMap<String, String> =
            annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let descriptor = Descriptor { annotations, platform: None, ..manifest.clone() };
        self.change_index(|manifests| {
            manifests.retain(|known| known.ref_name() != descriptor.ref_name());
            manifests.push(descriptor);
        })
    }

    /// Gives a name back to an image whose documents are still in the store. `None`: they are not.
    pub fn name_again(
        &self,
        reference: &Reference,
        manifest: &LayerDigest,
        resolved: LayerDigest,
    ) -> Result<Option<StoredImage>, ImageError> {
        let Some(descriptor) = self.unnamed(manifest) else { return Ok(None) };
        self.name_image(reference, &descriptor, resolved)?;
        self.stored(reference)
    }

    /// An image by its manifest, whether it has a name or not. `None`: its documents are not in the store.
    pub fn resolve_unnamed(&self, manifest: &LayerDigest) -> Result<Option<ResolvedImage>, ImageError> {
        let Some(descriptor) = self.unnamed(manifest) else { return Ok(None) };
        Ok(Some(resolved(read_image(&self.layout_tree(), &descriptor, &self.platform)?)))
    }

    /// The descriptor of a manifest that is in the store with its configuration.
    fn unnamed(&self, manifest: &LayerDigest) -> Option<Descriptor> {
        let (blob, parsed) = (self.blob(manifest)?, self.manifest_of(manifest)?);
        self.blob(&parsed.config.digest)?;
        let media_type = parsed.media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned());
        let (digest, size) = (*manifest, blob.size);
        Some(Descriptor { media_type, digest, size, platform: None, annotations: Default::default() })
    }

    /// Takes a name away; blobs and layers stay until they are [removed](Self::unheld_blobs). Was there such a name?
    pub fn forget(&self, reference: &Reference) -> Result<bool, ImageError> {
        let name = reference.to_string();
        let mut found = false;
        self.change_index(|manifests| {
            let before = manifests.len();
            manifests.retain(|known| known.ref_name() != Some(&name));
            found = manifests.len() != before;
        })?;
        Ok(found)
    }

    /// The blobs that no named image holds when those of `gone` have lost their names, with their sizes in bytes. `also`
    /// are manifests that are held without a name.
    pub fn unheld_blobs(
        &self,
        gone: &HashSet<Reference>,
        also: &HashSet<LayerDigest>,
    ) -> Result<Vec<(LayerDigest, u64)>, ImageError> {
        let gone: HashSet<String> = gone.iter().map(Reference::to_string).collect();
        let mut kept = HashSet::new();
        let stays = |descriptor: &Descriptor| descriptor.ref_name().is_none_or(|name| !gone.contains(name));
        let named = self.index()?.manifests.into_iter().filter(stays).map(|descriptor| descriptor.digest);
        for digest in named.chain(also.iter().copied()) {
            kept.insert(digest);
            let Some(manifest) = self.manifest_of(&digest) else { continue };
            kept.insert(manifest.config.digest);
            kept.extend(manifest.layers.iter().map(|layer| layer.digest));
        }
        let blobs = self.layout_blobs()?.into_iter().filter(|(digest, _)| !kept.contains(digest));
        Ok(blobs.map(|(digest, blob)| (digest, blob.size)).collect())
    }

    /// Holds every blob of the layout against its digest, and takes away those that are damaged: how many there were, and
    /// the digests of those that are gone.
    pub fn check_layout(&self) -> Result<(usize, Vec<LayerDigest>), ImageError> {
        let mut damaged = Vec::new();
        let blobs = self.layout_blobs()?;
        let count = blobs.len();
        for (digest, blob) in blobs {
            let mut reader = super::HashingReader::new(blob.open()?);
            let read = std::io::copy(&mut reader, &mut std::io::sink());
            if read.is_err() || reader.finish().0 != digest {
                std::fs::remove_file(&blob.path).map_err(store_error(&blob.path, "remove"))?;
                damaged.push(digest);
            }
        }
        Ok((count, damaged))
    }

    pub(super) fn layout_tree(&self) -> Tree {
        Tree::Folder(self.paths.layout())
    }

    pub(super) fn manifest_of(&self, digest: &LayerDigest) -> Option<ImageManifest> {
        let (bytes, _) = self.layout_tree().read_document(&blob_name(digest)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn stored_image(&self, descriptor: &Descriptor) -> Option<StoredImage> {
        let reference = descriptor.ref_name()?.parse().ok()?;
        let annotation = |key: &str| descriptor.annotations.get(key);
        let sizes = |manifest: ImageManifest| {
            manifest.config.size + manifest.layers.iter().map(|layer| layer.size).sum::<u64>()
        };
        Some(StoredImage {
            reference,
            manifest: descriptor.digest,
            resolved: annotation(RESOLVED).and_then(|text| text.parse().ok()).unwrap_or(descriptor.digest),
            pulled: annotation(PULLED).and_then(|text| text.parse().ok()).unwrap_or(0),
            size: self.manifest_of(&descriptor.digest).map_or(0, sizes),
        })
    }

    pub(super) fn layout_blobs(&self) -> Result<Vec<(LayerDigest, BlobLocation)>, ImageError> {
        let folder = self.paths.layout().join("blobs/sha256");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(store_error(&folder, "read")(error)),
        };
        let mut blobs = Vec::new();
        for entry in entries {
            let entry = entry.map_err(store_error(&folder, "read"))?;
            let digest = entry.file_name().to_str().and_then(|name| LayerDigest::from_hex(name).ok());
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            if let Some(digest) = digest {
                blobs.push((digest, BlobLocation { path: entry.path(), offset: 0, size }));
            }
        }
        Ok(blobs)
    }

    fn index(&self) -> Result<ImageIndex, ImageError> {
        let tree = self.layout_tree();
        match tree.read("index.json")? {
            Some(bytes) => tree.parse("index.json", &bytes),
            None => Ok(ImageIndex { schema_version: 2, manifests: Vec::new() }),
        }
    }

    fn change_index(&self, change: impl FnOnce(&mut Vec<Descriptor>)) -> Result<(), ImageError> {
        let layout = self.paths.layout();
        for folder in [layout.clone(), self.paths.root.join("locks")] {
            make_private(&self.paths.root, &folder)?;
        }
        let _lock = Lock::acquire(self.paths.root.join("locks/layout"))?;
        let mut index = self.index()?;
        change(&mut index.manifests);
        let text = serde_json::to_vec(&index).unwrap_or_default();
        for (name, bytes) in [("oci-layout", MARKER), ("index.json", &text[..])] {
            let (aside, place) = (layout.join(format!(".{name}.new")), layout.join(name));
            let write = || -> std::io::Result<()> {
                let mut file = File::create(&aside)?;
                file.write_all(bytes)?;
                file.sync_all()?;
                std::fs::rename(&aside, &place)
            };
            write().map_err(store_error(&place, "write"))?;
        }
        Ok(())
    }
}
