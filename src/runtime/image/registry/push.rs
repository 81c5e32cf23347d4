//! Pushing: the blobs that the registry does not have, then the manifest.

use ureq::http::{Method, header};

use super::client::{Ask, Content, RegistryClient};
use super::{Access, RegistryError, Target};
use crate::runtime::image::manifest::OCI_MANIFEST;
use crate::runtime::image::{Descriptor, ImageManifest, ImageStore, LayerDigest, Reference, StoredImage};

/// Uploads that are begun anew after one that broke.
const UPLOAD_ATTEMPTS: u32 = 4;
/// Blobs under way at once.
const MAX_AT_ONCE: usize = 4;

/// Pushes a stored image as `reference`: the digest of its manifest there. `sent` hears of each blob that is there.
pub fn push(
    client: &RegistryClient,
    store: &ImageStore,
    (image, reference): (&StoredImage, &Reference),
    sent: &(dyn Fn(&Descriptor) + Sync),
) -> Result<LayerDigest, RegistryError> {
    let bytes = store.stored_manifest(image)?;
    let manifest: ImageManifest = serde_json::from_slice(&bytes)
        .map_err(|source| RegistryError::Json { reference: image.reference.to_string(), source })?;
    let target = Target { reference, access: Access::Push };
    let blobs: Vec<&Descriptor> = manifest.layers.iter().chain([&manifest.config]).collect();
    let queue = std::sync::Mutex::new(blobs.into_iter());
    let work = || -> Result<(), RegistryError> {
        loop {
            let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
            let Some(blob) = next else { return Ok(()) };
            push_blob(client, store, (target, blob))?;
            sent(blob);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..MAX_AT_ONCE).map(|_| scope.spawn(work)).collect();
        let mut threads = threads.into_iter();
        threads.try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    // Last: a manifest never names blobs that are not there.
    put_manifest(client, target, (&manifest, &bytes))
}

fn put_manifest(
    client: &RegistryClient,
    target: Target<'_>,
    (manifest, bytes): (&ImageManifest, &[u8]),
) -> Result<LayerDigest, RegistryError> {
    let digest = LayerDigest::of(bytes);
    let name = target.reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
    let media_type = manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST);
    let ask = Ask::new(Method::PUT, format!("manifests/{name}"))
        .header(header::CONTENT_TYPE, media_type)
        .content(Content::Bytes(bytes));
    let answer = client.send(target, &ask)?;
    match answer.status() {
        200..=299 => Ok(digest),
        _ => Err(answer.into_error(target)),
    }
}

fn push_blob(
    client: &RegistryClient,
    store: &ImageStore,
    (target, blob): (Target<'_>, &Descriptor),
) -> Result<(), RegistryError> {
    let head = client.send(target, &Ask::new(Method::HEAD, format!("blobs/{}", blob.digest)))?;
    match head.status() {
        200 => return Ok(()),
        404 => {}
        _ => return Err(head.into_error(target)),
    }
    drop(head);
    let missing = || RegistryError::NoBlob { reference: target.reference.to_string(), digest: blob.digest };
    let location = store.blob(&blob.digest).filter(|found| found.size == blob.size).ok_or_else(missing)?;
    let mut attempt = 1;
    loop {
        let begun = client.send(target, &Ask::new(Method::POST, "blobs/uploads/"))?;
        let place = match (begun.status(), begun.header(header::LOCATION)) {
            (202, Some(place)) => client.absolute(target, place)?,
            _ => return Err(begun.into_error(target)),
        };
        drop(begun);
        let joint = if place.contains('?') { '&' } else { '?' };
        let put = Ask::new(Method::PUT, format!("{place}{joint}digest={}", blob.digest))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .content(Content::Blob(&location));
        match client.send(target, &put) {
            Ok(answer) if matches!(answer.status(), 200..=299) => return Ok(()),
            // Of a session that broke nothing is left that could be gone on with.
            Ok(answer) if attempt == UPLOAD_ATTEMPTS || answer.status() != 404 => return Err(answer.into_error(target)),
            Err(error) if attempt == UPLOAD_ATTEMPTS => return Err(error),
            _ => attempt += 1,
        }
    }
}
