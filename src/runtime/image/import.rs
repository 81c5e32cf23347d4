//! Images into the store's layout, from other layouts and from archives.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::blob::{ArchiveIndex, BlobLocation, Tree};
use super::compress::{Compression, Inflater};
use super::docker::read_saved;
use super::layout::{blob_name, find_manifest, read_image};
use super::manifest::{Descriptor, ImageManifest, OCI_CONFIG, OCI_MANIFEST, layer_media_type};
use super::publish::{make_private, store_error};
use super::{HashingReader, ImageError, ImageLayer, ImageOrigin, ImageStore, LayerDigest, Reference, StoredImage};

const COPY_BUFFER: usize = 256 << 10;

impl ImageStore {
    /// Takes the image of an OCI layout, an OCI archive or a docker archive into the store as `reference`, blobs and all;
    /// each is held against its digest. An archive may be compressed as a whole, and may come out of a pipe.
    ///
    /// A docker archive has no manifest: its image gets one, always the same for the same content.
    pub fn import(&self, origin: &ImageOrigin, reference: &Reference) -> Result<StoredImage, ImageError> {
        match origin {
            ImageOrigin::OciLayout { path, tag } => {
                self.import_tree(&Tree::Folder(path.clone()), (tag.as_deref(), reference))
            }
            ImageOrigin::OciArchive { path, tag } => {
                let plain = self.plain_archive(path)?;
                self.import_tree(&Tree::Archive(ArchiveIndex::scan(plain.path())?), (tag.as_deref(), reference))
            }
            ImageOrigin::DockerArchive { path, tag } => {
                let plain = self.plain_archive(path)?;
                self.import_saved(&Tree::Archive(ArchiveIndex::scan(plain.path())?), (tag.as_deref(), reference))
            }
            ImageOrigin::Dir(_) => Err(ImageError::NotImportable { from: "a folder" }),
            ImageOrigin::Host => Err(ImageError::NotImportable { from: "the host" }),
            ImageOrigin::Registry { .. } => Err(ImageError::NotImportable { from: "a registry" }),
        }
    }

    fn import_tree(
        &self,
        tree: &Tree,
        (tag, reference): (Option<&str>, &Reference),
    ) -> Result<StoredImage, ImageError> {
        let descriptor = find_manifest(tree, tag, self.platform())?;
        // Read as an image, so that what is none never gets a name.
        read_image(tree, &descriptor, self.platform())?;
        let name = blob_name(&descriptor.digest);
        let (bytes, _) = tree.read_document(&name)?;
        let manifest: ImageManifest = tree.parse(&name, &bytes)?;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            let name = blob_name(&blob.digest);
            let missing = || ImageError::MissingDocument { path: tree.path().into(), name: name.clone() };
            let location = tree.locate(&name)?.ok_or_else(missing)?;
            self.import_blob(&location, (&blob.digest, blob.size))?;
        }
        self.add_document(&bytes)?;
        self.name_imported(reference, &descriptor)
    }

    fn import_saved(
        &self,
        tree: &Tree,
        (tag, reference): (Option<&str>, &Reference),
    ) -> Result<StoredImage, ImageError> {
        let (image, config_bytes) = read_saved(tree, tag, self.platform())?;
        let layers = image.layers.iter().map(|layer| self.import_saved_layer(layer));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let config = self.add_document(&config_bytes)?;
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: described(OCI_CONFIG, config, config_bytes.len() as u64),
            layers,
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|source| ImageError::Json {
            path: tree.path().into(),
            name: "manifest.json".to_owned(),
            source,
        })?;
        let digest = self.add_document(&bytes)?;
        self.name_imported(reference, &described(OCI_MANIFEST, digest, bytes.len() as u64))
    }

    /// An old archive names layers by no digest: it is that of the content, where it is not compressed, and told by
    /// reading it, where it is.
    fn import_saved_layer(&self, layer: &ImageLayer) -> Result<Descriptor, ImageError> {
        let compression = compression_of(&layer.blob)?;
        let digest = match (layer.digest, compression) {
            (Some(digest), _) => digest,
            (None, Compression::None) => layer.diff_id,
            (None, _) => digest_of(&layer.blob)?,
        };
        let media_type = layer_media_type(compression).ok_or_else(|| ImageError::LayerCompression {
            blob: layer.blob.path.clone(),
            compression: format!("{compression:?}"),
        })?;
        self.import_blob(&layer.blob, (&digest, layer.blob.size))?;
        Ok(described(media_type, digest, layer.blob.size))
    }

    fn import_blob(&self, location: &BlobLocation, (digest, expected): (&LayerDigest, u64)) -> Result<(), ImageError> {
        if self.blob(digest).is_some_and(|known| known.size == expected) {
            return Ok(());
        }
        let mut reader = HashingReader::new(location.open()?);
        let mut writer = self.write_blob(digest)?;
        let mut buffer = vec![0; COPY_BUFFER];
        loop {
            let read = reader.read(&mut buffer);
            match read.map_err(|source| ImageError::Read { path: location.path.clone(), source })? {
                0 => break,
                read => writer.write_all(&buffer[..read])?,
            }
        }
        let (found, size) = reader.finish();
        if size != expected {
            return Err(ImageError::BlobSize { blob: location.path.clone(), expected, found: size });
        }
        if found != *digest {
            return Err(ImageError::BlobDigest { blob: location.path.clone(), expected: *digest, found });
        }
        writer.finish()
    }

    fn name_imported(&self, reference: &Reference, descriptor: &Descriptor) -> Result<StoredImage, ImageError> {
        self.name_image(reference, descriptor, descriptor.digest)?;
        let missing =
            || ImageError::NoSuchTag { path: self.root().join("layout"), tag: reference.to_string(), tags: Vec::new() };
        self.stored(reference)?.ok_or_else(missing)
    }

    /// The archive itself where it can be read in place; else a copy of what is in it, for as long as that lives.
    fn plain_archive(&self, path: &Path) -> Result<PlainArchive, ImageError> {
        let failed = |source| ImageError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_file() {
            let mut start = [0; 6];
            let read = file.read_at(&mut start, 0).map_err(failed)?;
            if Compression::of(&start[..read]) == Compression::None {
                return Ok(PlainArchive::InPlace(path.to_owned()));
            }
        }
        let tmp = self.paths.root.join("tmp");
        make_private(&self.paths.root, &tmp)?;
        let copy = tmp.join(format!("archive-{}", std::process::id()));
        let plain = PlainArchive::Copy(copy.clone());
        let mut out = File::create(&copy).map_err(store_error(&copy, "make"))?;
        let limit = self.limits.bytes;
        let inflater = Inflater::new(BufReader::with_capacity(COPY_BUFFER, file)).map_err(failed)?;
        let copied = std::io::copy(&mut inflater.take(limit + 1), &mut out).map_err(failed)?;
        match copied > limit {
            true => Err(failed(std::io::Error::other(format!("it holds more than {limit} bytes")))),
            false => Ok(plain),
        }
    }
}

/// An archive that is not compressed and can be read from anywhere.
enum PlainArchive {
    InPlace(PathBuf),
    /// Taken away with the value.
    Copy(PathBuf),
}

impl PlainArchive {
    fn path(&self) -> &Path {
        match self {
            Self::InPlace(path) | Self::Copy(path) => path,
        }
    }
}

impl Drop for PlainArchive {
    fn drop(&mut self) {
        if let Self::Copy(path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn described(media_type: &str, digest: LayerDigest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest, size, platform: None, annotations: Default::default() }
}

fn compression_of(blob: &BlobLocation) -> Result<Compression, ImageError> {
    let mut start = Vec::new();
    blob.open()?
        .take(6)
        .read_to_end(&mut start)
        .map_err(|source| ImageError::Read { path: blob.path.clone(), source })?;
    Ok(Compression::of(&start))
}

fn digest_of(blob: &BlobLocation) -> Result<LayerDigest, ImageError> {
    let mut reader = HashingReader::new(BufReader::with_capacity(COPY_BUFFER, blob.open()?));
    std::io::copy(&mut reader, &mut std::io::sink())
        .map_err(|source| ImageError::Read { path: blob.path.clone(), source })?;
    Ok(reader.finish().0)
}
