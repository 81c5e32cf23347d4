//! Images into the store's layout from other layouts and archives, and out of it as an archive that other tools read.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use super::blob::{ArchiveIndex, Tree};
use super::layout::{blob_name, find_manifest, read_image};
use super::manifest::{Descriptor, ImageIndex, ImageManifest, OCI_MANIFEST};
use super::tar::BLOCK;
use super::{HashingReader, ImageError, ImageOrigin, ImageStore, LayerDigest, Reference, StoredImage};

const COPY_BUFFER: usize = 256 << 10;

impl ImageStore {
    /// Takes the image of an OCI layout or archive into the store as `reference`, blobs and all; each is held against its
    /// digest.
    pub fn import(&self, origin: &ImageOrigin, reference: &Reference) -> Result<StoredImage, ImageError> {
        match origin {
            ImageOrigin::OciLayout { path, tag } => {
                self.import_tree(&Tree::Folder(path.clone()), (tag.as_deref(), reference))
            }
            ImageOrigin::OciArchive { path, tag } => {
                self.import_tree(&Tree::Archive(ArchiveIndex::scan(path)?), (tag.as_deref(), reference))
            }
            ImageOrigin::DockerArchive { .. } => Err(ImageError::NotImportable { from: "a docker archive" }),
            ImageOrigin::Dir(_) => Err(ImageError::NotImportable { from: "a folder" }),
            ImageOrigin::Host => Err(ImageError::NotImportable { from: "the host" }),
            ImageOrigin::Registry { .. } => Err(ImageError::NotImportable { from: "a registry" }),
        }
    }

    /// Writes a stored image as an archive of an OCI layout. An archive that could not be written whole is removed.
    pub fn export(&self, image: &StoredImage, path: &Path) -> Result<(), ImageError> {
        self.write_archive(image, path).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
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
            self.import_blob(tree, blob)?;
        }
        self.add_document(&bytes)?;
        self.name_image(reference, &descriptor, descriptor.digest)?;
        let missing = || ImageError::NoSuchTag { path: tree.path().into(), tag: reference.to_string(), tags: vec![] };
        self.stored(reference)?.ok_or_else(missing)
    }

    fn import_blob(&self, tree: &Tree, blob: &Descriptor) -> Result<(), ImageError> {
        if self.blob(&blob.digest).is_some_and(|known| known.size == blob.size) {
            return Ok(());
        }
        let name = blob_name(&blob.digest);
        let missing = || ImageError::MissingDocument { path: tree.path().into(), name: name.clone() };
        let location = tree.locate(&name)?.ok_or_else(missing)?;
        let mut reader = HashingReader::new(location.open()?);
        let mut writer = self.write_blob(&blob.digest)?;
        let mut buffer = vec![0; COPY_BUFFER];
        loop {
            let read = reader.read(&mut buffer);
            match read.map_err(|source| ImageError::Read { path: location.path.clone(), source })? {
                0 => break,
                read => writer.write_all(&buffer[..read])?,
            }
        }
        let (found, size) = reader.finish();
        if size != blob.size {
            return Err(ImageError::BlobSize { blob: location.path, expected: blob.size, found: size });
        }
        if found != blob.digest {
            return Err(ImageError::BlobDigest { blob: location.path, expected: blob.digest, found });
        }
        writer.finish()
    }

    fn write_archive(&self, image: &StoredImage, path: &Path) -> Result<(), ImageError> {
        let failed = |source| ImageError::Write { path: path.to_owned(), source };
        let manifest_bytes = self.stored_manifest(image)?;
        let name = blob_name(&image.manifest);
        let manifest: ImageManifest = self.layout_tree().parse(&name, &manifest_bytes)?;
        let descriptor = Descriptor {
            media_type: manifest.media_type.clone().unwrap_or_else(|| OCI_MANIFEST.to_owned()),
            digest: image.manifest,
            size: manifest_bytes.len() as u64,
            platform: None,
            annotations: [("org.opencontainers.image.ref.name".to_owned(), image.reference.to_string())].into(),
        };
        let index = ImageIndex { schema_version: 2, manifests: vec![descriptor] };
        let index = serde_json::to_vec(&index).map_err(|error| failed(error.into()))?;
        let mut out = BufWriter::new(File::create(path).map_err(failed)?);
        let mut document = |name: &str, bytes: &[u8]| -> std::io::Result<()> {
            out.write_all(&header(name, bytes.len() as u64))?;
            out.write_all(bytes)?;
            pad(&mut out, bytes.len() as u64)
        };
        document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed)?;
        document("index.json", &index).map_err(failed)?;
        document(&name, &manifest_bytes).map_err(failed)?;
        let mut written: Vec<LayerDigest> = Vec::new();
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if written.contains(&blob.digest) {
                continue;
            }
            written.push(blob.digest);
            let name = blob_name(&blob.digest);
            let missing = || ImageError::MissingDocument { path: self.root().join("layout"), name: name.clone() };
            let location = self.blob(&blob.digest).ok_or_else(missing)?;
            out.write_all(&header(&name, location.size)).map_err(failed)?;
            let copied = std::io::copy(&mut location.open()?, &mut out).map_err(failed)?;
            pad(&mut out, copied).map_err(failed)?;
        }
        out.write_all(&[0; 2 * BLOCK]).map_err(failed)?;
        out.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)
    }
}

/// A ustar header of a regular file that everybody may read. The names of a layout are shorter than 100 bytes; sizes
/// beyond octal are base-256.
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    match size < 1 << 33 {
        true => put(124, format!("{size:011o}\0").as_bytes()),
        false => {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &size.to_be_bytes());
        }
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn pad(out: &mut impl Write, size: u64) -> std::io::Result<()> {
    let missing = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    out.write_all(&[0; BLOCK][..missing as usize])
}
