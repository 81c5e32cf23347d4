//! Puts an image together out of layers and a configuration, and gives it a name in the store's layout.

use std::collections::BTreeMap;
use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::blob::BlobLocation;
use super::compress::Compression;
use super::layout::blob_name;
use super::manifest::{Descriptor, ImageConfig, ImageManifest, OCI_CONFIG, OCI_MANIFEST};
use super::publish::Lock;
use super::{HashingReader, ImageError, ImageLayer, ImageStore, LayerDigest, Reference, StoredImage};

/// What one step of a build came to (OCI image specification, "Image Configuration", `history`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default)]
    pub created_by: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// An image that is to be.
#[derive(Clone, Debug)]
pub struct Assembly<'a> {
    /// Lowest first.
    pub layers: &'a [ImageLayer],
    pub config: &'a ImageConfig,
    pub history: &'a [HistoryEntry],
    /// Seconds since 1970.
    pub created: i64,
}

impl ImageStore {
    /// Makes the image's documents, brings in blobs of layers that lie elsewhere, and names it `reference`. The same
    /// layers and configuration give the same digests.
    pub fn assemble(&self, assembly: &Assembly<'_>, reference: &Reference) -> Result<StoredImage, ImageError> {
        let layers = assembly.layers.iter().map(|layer| self.keep_layer(layer)).collect::<Result<Vec<_>, _>>()?;
        let config = self.add_json(&config_document(assembly, self.platform.architecture))?;
        let config = Descriptor { media_type: OCI_CONFIG.to_owned(), ..config };
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
        };
        let manifest = self.add_json(&manifest)?;
        let manifest = Descriptor { media_type: OCI_MANIFEST.to_owned(), ..manifest };
        self.name_image(reference, &manifest, manifest.digest)?;
        let missing = || ImageError::NoSuchTag { path: self.paths.layout(), tag: reference.to_string(), tags: vec![] };
        self.stored(reference)?.ok_or_else(missing)
    }

    /// The history that an image of the layout tells, by the digest of its configuration.
    pub fn history(&self, config: &LayerDigest) -> Vec<HistoryEntry> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            history: Vec<HistoryEntry>,
        }
        let read = self.layout_tree().read_document(&blob_name(config)).ok();
        let document = read.and_then(|(bytes, _)| serde_json::from_slice::<Document>(&bytes).ok());
        document.map(|document| document.history).unwrap_or_default()
    }

    /// Keeps others from the work on `what`, until the answer is dropped.
    pub fn hold_one(&self, what: &LayerDigest) -> Result<impl Drop + use<>, ImageError> {
        let folder = self.paths.root.join("locks");
        super::publish::make_private(&self.paths.root, &folder)?;
        Lock::acquire(folder.join(what.hex()))
    }

    fn add_json(&self, document: &impl Serialize) -> Result<Descriptor, ImageError> {
        let bytes = serde_json::to_vec(document).map_err(|source| ImageError::Json {
            path: self.paths.layout(),
            name: "document".into(),
            source,
        })?;
        let digest = self.add_document(&bytes)?;
        let size = bytes.len() as u64;
        Ok(Descriptor { media_type: String::new(), digest, size, platform: None, annotations: BTreeMap::new() })
    }

    /// The descriptor of a layer whose blob is in the layout afterwards.
    fn keep_layer(&self, layer: &ImageLayer) -> Result<Descriptor, ImageError> {
        // An archive without a digest of its own is not compressed: its digest is the diff id.
        let digest = layer.digest.unwrap_or(layer.diff_id);
        let kept = self.blob(&digest).filter(|blob| blob.size == layer.blob.size);
        let blob = match kept {
            Some(blob) => blob,
            None => self.copy_blob(&layer.blob, &digest)?,
        };
        let mut start = Vec::new();
        let failed = |source| ImageError::Read { path: blob.path.clone(), source };
        blob.open()?.take(6).read_to_end(&mut start).map_err(failed)?;
        let suffix = match Compression::of(&start) {
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
            Compression::None | Compression::Other(_) => "",
        };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        Ok(Descriptor { media_type, digest, size: blob.size, platform: None, annotations: BTreeMap::new() })
    }

    fn copy_blob(&self, from: &BlobLocation, digest: &LayerDigest) -> Result<BlobLocation, ImageError> {
        let mut writer = self.write_blob(digest)?;
        let mut reader = HashingReader::new(from.open()?);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = reader.read(&mut buffer);
            match read.map_err(|source| ImageError::Read { path: from.path.clone(), source })? {
                0 => break,
                read => writer.write_all(&buffer[..read])?,
            }
        }
        let (found, _) = reader.finish();
        if found != *digest {
            return Err(ImageError::BlobDigest { blob: from.path.clone(), expected: *digest, found });
        }
        writer.finish()?;
        let name = blob_name(digest);
        self.blob(digest).ok_or_else(|| ImageError::MissingDocument { path: self.paths.layout(), name })
    }
}

/// The configuration blob: what is empty is left out, and sets are objects.
fn config_document(assembly: &Assembly<'_>, architecture: &str) -> Value {
    let config = assembly.config;
    let mut inner = serde_json::Map::new();
    let set = |names: &[String]| names.iter().map(|name| (name.clone(), json!({}))).collect::<BTreeMap<_, _>>();
    let mut put = |key: &str, value: Value| {
        let empty = value.is_null()
            || value.as_str() == Some("")
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty);
        if !empty {
            inner.insert(key.to_owned(), value);
        }
    };
    put("Env", json!(config.env));
    put("Entrypoint", json!(config.entrypoint));
    put("Cmd", json!(config.cmd));
    put("WorkingDir", json!(config.working_dir));
    put("User", json!(config.user));
    put("StopSignal", json!(config.stop_signal));
    put("Labels", json!(config.labels));
    put("ExposedPorts", json!(set(&config.exposed_ports)));
    put("Volumes", json!(set(&config.volumes)));
    put("Healthcheck", json!(config.healthcheck));
    let diff_ids: Vec<LayerDigest> = assembly.layers.iter().map(|layer| layer.diff_id).collect();
    json!({
        "architecture": architecture,
        "os": "linux",
        "created": jiff::Timestamp::from_second(assembly.created).unwrap_or_default().to_string(),
        "config": inner,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": assembly.history,
    })
}
