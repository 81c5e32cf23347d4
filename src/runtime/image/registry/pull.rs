//! Pulling: the documents of an image into the store's layout, and its layers on their way into the store.

use std::io::Read;

use serde::Deserialize;
use ureq::http::{Method, header};

use super::client::{Ask, RegistryClient};
use super::download::Download;
use super::{Access, RegistryError, Target};
use crate::runtime::image::library::BlobWriter;
use crate::runtime::image::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST,
};
use crate::runtime::image::{
    Descriptor, ImageError, ImageIndex, ImageLayer, ImageManifest, ImageStore, LayerBlobs, LayerDigest, LayerStream,
    Reference, ResolvedImage, StoredImage,
};

/// Largest manifest or configuration.
const MAX_DOCUMENT: u64 = 4 << 20;
/// Indexes within indexes.
const MAX_DEPTH: usize = 3;
/// Times a document is asked for that arrives damaged.
const DOCUMENT_ATTEMPTS: u32 = 3;

/// Hears how far the layers are. Called from several threads.
pub trait Progress: Sync {
    /// So many bytes of a layer have come, of so many.
    fn received(&self, layer: &ImageLayer, bytes: u64);
    /// A layer is in the store.
    fn unpacked(&self, layer: &ImageLayer);
}

/// Hears nothing.
pub struct Silent;

impl Progress for Silent {
    fn received(&self, _: &ImageLayer, _: u64) {}
    fn unpacked(&self, _: &ImageLayer) {}
}

/// Brings the documents of an image into the store and gives it its name there; no layers. The name is `reference`
/// itself, also where `digest` holds it to one image. Where a mirror gives what cannot be used, the registry is asked.
pub fn fetch(
    client: &RegistryClient,
    store: &ImageStore,
    (reference, digest): (&Reference, Option<LayerDigest>),
) -> Result<StoredImage, RegistryError> {
    match fetch_once(client, store, (reference, digest)) {
        Err(_) if client.leave_mirrors(reference.registry()) => fetch_once(client, store, (reference, digest)),
        other => other,
    }
}

fn fetch_once(
    client: &RegistryClient,
    store: &ImageStore,
    (reference, digest): (&Reference, Option<LayerDigest>),
) -> Result<StoredImage, RegistryError> {
    let asked = digest.map_or_else(|| reference.clone(), |digest| reference.at(digest));
    let top = manifest(client, &asked, &asked.manifest(), asked.digest())?;
    let resolved = LayerDigest::of(&top.bytes);
    if let Some(known) = store.stored(reference)?
        && known.resolved == resolved
        && store.stored_documents(&known).is_ok()
    {
        return Ok(known);
    }
    let image = choose(client, store, (&asked, top))?;
    let parsed: ImageManifest = parse(&asked, &image.bytes)?;
    let media_type = &parsed.config.media_type;
    if !matches!(media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
        let media_type = parsed.artifact_type.unwrap_or_else(|| media_type.clone());
        return Err(RegistryError::NotAnImage { reference: asked.to_string(), media_type });
    }
    if store.blob(&parsed.config.digest).is_none() {
        let config = document(client, &asked, &parsed.config)?;
        store.add_document(&config)?;
    }
    let digest = store.add_document(&image.bytes)?;
    let descriptor = Descriptor {
        media_type: image.media_type,
        digest,
        size: image.bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
    };
    store.name_image(reference, &descriptor, resolved)?;
    store.stored(reference)?.ok_or_else(|| RegistryError::NotStored { reference: reference.to_string() })
}

impl RegistryClient {
    /// What `reference` leads to now: the digest of a manifest or an index. Nothing is kept.
    pub fn resolve(&self, reference: &Reference) -> Result<LayerDigest, RegistryError> {
        manifest(self, reference, &reference.manifest(), reference.digest()).map(|top| LayerDigest::of(&top.bytes))
    }
}

struct Manifest {
    media_type: String,
    bytes: Vec<u8>,
}

/// Follows indexes to the manifest for this host.
fn choose(
    client: &RegistryClient,
    store: &ImageStore,
    (reference, mut found): (&Reference, Manifest),
) -> Result<Manifest, RegistryError> {
    for _ in 0..MAX_DEPTH {
        match found.media_type.as_str() {
            OCI_MANIFEST | DOCKER_MANIFEST => return Ok(found),
            OCI_INDEX | DOCKER_MANIFEST_LIST => {}
            other => {
                let media_type = other.to_owned();
                return Err(RegistryError::NotAnImage { reference: reference.to_string(), media_type });
            }
        }
        let index: ImageIndex = parse(reference, &found.bytes)?;
        let host = store.platform();
        let chosen = host.choose(&index.manifests).ok_or_else(|| {
            let platforms = index.manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
            let names: Vec<String> = platforms.map(|one| format!("{}/{}", one.os, one.architecture)).collect();
            RegistryError::Platform {
                reference: reference.to_string(),
                found: names.join(", "),
                host: host.architecture,
            }
        })?;
        found = manifest(client, reference, &chosen.digest.to_string(), Some(chosen.digest))?;
    }
    let media_type = found.media_type;
    Err(RegistryError::NotAnImage { reference: reference.to_string(), media_type })
}

fn parse<T: serde::de::DeserializeOwned>(reference: &Reference, bytes: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|source| RegistryError::Json { reference: reference.to_string(), source })
}

fn manifest(
    client: &RegistryClient,
    reference: &Reference,
    name: &str,
    digest: Option<LayerDigest>,
) -> Result<Manifest, RegistryError> {
    let accepted = [OCI_INDEX, OCI_MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST].join(", ");
    let ask = Ask::new(Method::GET, format!("manifests/{name}")).header(header::ACCEPT, accepted);
    let told = header::HeaderName::from_static("docker-content-digest");
    let (bytes, sent, media_type) = whole(
        client,
        reference,
        &ask,
        |bytes, answer_digest| digest.or(answer_digest).is_none_or(|expected| LayerDigest::of(bytes) == expected),
        &told,
    )?;
    if let Some(expected) = digest.or(sent)
        && LayerDigest::of(&bytes) != expected
    {
        let found = LayerDigest::of(&bytes);
        return Err(RegistryError::Digest { url: format!("{reference} ({name})"), expected, found });
    }
    // The document itself says what it is, where it does; registries are known to answer with another type.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let typed: Typed = parse(reference, &bytes)?;
    let media_type = typed.media_type.filter(|text| !text.is_empty()).unwrap_or(media_type);
    Ok(Manifest { media_type, bytes })
}

fn document(client: &RegistryClient, reference: &Reference, wanted: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    if wanted.size > MAX_DOCUMENT {
        return Err(RegistryError::TooLarge { url: format!("{reference} ({})", wanted.digest), limit: MAX_DOCUMENT });
    }
    let mut attempt = 1;
    loop {
        let mut bytes = Vec::new();
        let download = Download::new(client, reference, (wanted.digest, wanted.size));
        let read = download.take(MAX_DOCUMENT).read_to_end(&mut bytes);
        let url = || format!("{reference} ({})", wanted.digest);
        read.map_err(|source| told_by(source).unwrap_or_else(|source| RegistryError::Answer { url: url(), source }))?;
        let found = LayerDigest::of(&bytes);
        if found == wanted.digest {
            return Ok(bytes);
        }
        if attempt == DOCUMENT_ATTEMPTS {
            return Err(RegistryError::Digest { url: url(), expected: wanted.digest, found });
        }
        attempt += 1;
    }
}

/// The error of ours that an io error carries.
fn told_by(error: std::io::Error) -> Result<RegistryError, std::io::Error> {
    error.downcast::<RegistryError>()
}

type Whole = (Vec<u8>, Option<LayerDigest>, String);

/// A whole answer, asked for again while it breaks off or is not what `right` wants.
fn whole(
    client: &RegistryClient,
    reference: &Reference,
    ask: &Ask<'_>,
    right: impl Fn(&[u8], Option<LayerDigest>) -> bool,
    digest_header: &header::HeaderName,
) -> Result<Whole, RegistryError> {
    let target = Target { reference, access: Access::Pull };
    let mut attempt = 1;
    loop {
        let answer = client.send(target, ask)?;
        if answer.status() != 200 {
            return Err(answer.into_error(target));
        }
        let digest = answer.header(digest_header.clone()).and_then(|text| text.parse().ok());
        let media_type = answer.header(header::CONTENT_TYPE).unwrap_or("").split(';').next().unwrap_or("").trim();
        let (media_type, url) = (media_type.to_owned(), answer.url);
        let mut bytes = Vec::new();
        let body = answer.response.into_body().into_reader();
        let read = body.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes);
        match read {
            Ok(_) if bytes.len() as u64 > MAX_DOCUMENT => {
                return Err(RegistryError::TooLarge { url, limit: MAX_DOCUMENT });
            }
            Ok(_) if attempt == DOCUMENT_ATTEMPTS || right(&bytes, digest) => return Ok((bytes, digest, media_type)),
            Err(source) if attempt == RegistryClient::TRANSFER_ATTEMPTS => {
                return Err(RegistryError::Answer { url, source });
            }
            _ => std::thread::sleep(RegistryClient::wait(attempt - 1)),
        }
        attempt += 1;
    }
}

/// The layers of an image: from the store's layout where they are, else from the registry, and then kept there.
pub struct RegistryBlobs<'a> {
    pub client: &'a RegistryClient,
    pub store: &'a ImageStore,
    pub reference: &'a Reference,
    pub progress: &'a dyn Progress,
}

impl RegistryBlobs<'_> {
    /// Unpacks what is missing of `image`. A blob that arrives damaged, or that lay damaged in the store, is fetched once
    /// more; whatever a mirror does wrong, the registry itself may do right.
    pub fn unpack(&self, image: &ResolvedImage) -> Result<(), ImageError> {
        let error = match self.store.unpack(image, self) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let has_left = self.client.leave_mirrors(self.reference.registry());
        match error {
            ImageError::BlobDigest { expected, .. } => self.store.remove_blob(&expected)?,
            _ if has_left => {}
            other => return Err(other),
        }
        self.store.unpack(image, self)
    }
}

impl LayerBlobs for RegistryBlobs<'_> {
    fn open<'s>(&'s self, layer: &'s ImageLayer) -> Result<Box<dyn LayerStream + 's>, ImageError> {
        let Some(digest) = layer.digest else { return Ok(Box::new(layer.blob.open()?)) };
        if let Some(kept) = self.store.blob(&digest).filter(|blob| blob.size == layer.blob.size) {
            return Ok(Box::new(kept.open()?));
        }
        let download = Download::new(self.client, self.reference, (digest, layer.blob.size));
        let kept = self.store.write_blob(&digest)?;
        Ok(Box::new(Pulled { download, kept, layer, progress: self.progress, received: 0 }))
    }

    fn unpacked(&self, layer: &ImageLayer) {
        self.progress.unpacked(layer);
    }
}

/// A layer on its way from the registry, of which a copy is kept.
struct Pulled<'a> {
    download: Download<'a>,
    kept: BlobWriter,
    layer: &'a ImageLayer,
    progress: &'a dyn Progress,
    received: u64,
}

impl Read for Pulled<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.download.read(buf)?;
        self.kept.write_all(&buf[..read]).map_err(std::io::Error::other)?;
        self.received += read as u64;
        self.progress.received(self.layer, self.received);
        Ok(read)
    }
}

impl LayerStream for Pulled<'_> {
    fn finished(&mut self) -> Result<(), ImageError> {
        self.kept.finish()
    }
}
