//! Images out of the store, as one archive that other tools read: an OCI layout with docker's `manifest.json` beside it, as
//! docker itself writes since version 25. Older dockers read the one, everybody else the other.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::docker::SavedImage;
use super::layout::blob_name;
use super::manifest::{Descriptor, ImageIndex, ImageManifest, OCI_MANIFEST};
use super::tar::BLOCK;
use super::{ImageError, ImageStore, LayerDigest, StoredImage};

impl ImageStore {
    /// Writes a stored image as an archive. An archive that could not be written whole is removed.
    pub fn export(&self, image: &StoredImage, path: &Path) -> Result<(), ImageError> {
        self.write_archive(image, path).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
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
        let saved = SavedImage::of(&manifest, image.reference.tag().map(|_| &image.reference));
        let saved = serde_json::to_vec(&[saved]).map_err(|error| failed(error.into()))?;
        document("manifest.json", &saved).map_err(failed)?;
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
