//! OCI image layouts, in a folder or in a tar archive (OCI image specification, "Image Layout").

use serde::Deserialize;

use super::blob::Tree;
use super::manifest::{
    DOCKER_CONFIG, DOCKER_MANIFEST, Descriptor, HostPlatform, ImageConfigFile, ImageIndex, ImageManifest, OCI_CONFIG,
    OCI_MANIFEST,
};
use super::{ContainerImage, ImageError, ImageLayer, LayerDigest};

/// Lowest layer to topmost; overlayfs takes 500.
pub(super) const MAX_LAYERS: usize = 500;
/// Indexes within indexes.
const MAX_INDEX_DEPTH: usize = 3;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

/// Reads the image `tag` of a layout, or its only one; every document is held against its digest.
pub(super) fn read_layout(tree: &Tree, tag: Option<&str>, host: &HostPlatform) -> Result<ContainerImage, ImageError> {
    let manifest = find_manifest(tree, tag, host)?;
    read_image(tree, &manifest, host)
}

/// The manifest of the image `tag` of a layout, for this host.
pub(super) fn find_manifest(tree: &Tree, tag: Option<&str>, host: &HostPlatform) -> Result<Descriptor, ImageError> {
    let marker = tree.read("oci-layout")?.ok_or_else(|| ImageError::NotALayout { path: tree.path().into() })?;
    let marker: LayoutFile = tree.parse("oci-layout", &marker)?;
    if !marker.image_layout_version.starts_with("1.") {
        let (path, version) = (tree.path().into(), marker.image_layout_version);
        return Err(ImageError::LayoutVersion { path, version });
    }
    let (bytes, _) = tree.read_document("index.json")?;
    let index: ImageIndex = tree.parse("index.json", &bytes)?;
    choose_manifest(tree, index, tag, host)
}

/// The configuration that `bytes` hold, checked to be for this host.
pub(super) fn parse_config(
    tree: &Tree,
    name: &str,
    bytes: &[u8],
    host: &HostPlatform,
) -> Result<ImageConfigFile, ImageError> {
    let config: ImageConfigFile = tree.parse(name, bytes)?;
    let (os, architecture) = (config.os.as_str(), config.architecture.as_str());
    // Early images name neither.
    let runs = host.runs(
        if os.is_empty() { "linux" } else { os },
        if architecture.is_empty() { host.architecture } else { architecture },
    );
    if !runs {
        let found = format!("{os}/{architecture}");
        return Err(ImageError::Platform { path: tree.path().into(), found, host: host.architecture });
    }
    if config.rootfs.diff_ids.len() > MAX_LAYERS {
        let layers = config.rootfs.diff_ids.len();
        return Err(ImageError::TooManyLayers { path: tree.path().into(), layers, limit: MAX_LAYERS });
    }
    Ok(config)
}

fn choose_manifest(
    tree: &Tree,
    index: ImageIndex,
    tag: Option<&str>,
    host: &HostPlatform,
) -> Result<Descriptor, ImageError> {
    let mut chosen = choose_tagged(tree, &index.manifests, tag, host)?.clone();
    for _ in 0..MAX_INDEX_DEPTH {
        if !chosen.is_index() {
            return Ok(chosen);
        }
        let name = blob_name(&chosen.digest);
        let index: ImageIndex = tree.parse(&name, &read_blob(tree, &chosen)?)?;
        chosen = choose_platform(tree, &index.manifests, host)?.clone();
    }
    Err(ImageError::IndexDepth { path: tree.path().into(), limit: MAX_INDEX_DEPTH })
}

/// The image that is meant: by `tag`; else the only one; else, where none has a name, the one for this host.
fn choose_tagged<'a>(
    tree: &Tree,
    manifests: &'a [Descriptor],
    tag: Option<&str>,
    host: &HostPlatform,
) -> Result<&'a Descriptor, ImageError> {
    let path = || tree.path().to_owned();
    let tags =
        || manifests.iter().map(|image| image.ref_name().map_or_else(|| image.digest.to_string(), str::to_owned));
    if let Some(tag) = tag {
        let called: Vec<Descriptor> = manifests.iter().filter(|image| image.is_called(tag)).cloned().collect();
        let fitting = if called.len() > 1 { host.choose(&called) } else { called.first() };
        let found = fitting.and_then(|fitting| manifests.iter().find(|image| *image == fitting));
        return found.ok_or_else(|| ImageError::NoSuchTag {
            path: path(),
            tag: tag.to_owned(),
            tags: tags().collect(),
        });
    }
    match manifests {
        [] => Err(ImageError::NoImage { path: path() }),
        [only] => Ok(only),
        several if several.iter().all(|image| image.ref_name().is_none() && image.platform.is_some()) => {
            choose_platform(tree, several, host)
        }
        _ => Err(ImageError::SeveralImages { path: path(), tags: tags().collect() }),
    }
}

fn choose_platform<'a>(
    tree: &Tree,
    manifests: &'a [Descriptor],
    host: &HostPlatform,
) -> Result<&'a Descriptor, ImageError> {
    host.choose(manifests).ok_or_else(|| {
        let platforms = manifests.iter().filter_map(|image| image.platform.as_ref());
        let found: Vec<String> =
            platforms.map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect();
        ImageError::Platform { path: tree.path().into(), found: found.join(", "), host: host.architecture }
    })
}

/// The image of a manifest, which is held against its digest as its configuration is.
pub(super) fn read_image(
    tree: &Tree,
    descriptor: &Descriptor,
    host: &HostPlatform,
) -> Result<ContainerImage, ImageError> {
    let path = || tree.path().to_owned();
    let known = matches!(descriptor.media_type.as_str(), "" | OCI_MANIFEST | DOCKER_MANIFEST);
    if !known {
        return Err(ImageError::NotAnImage { path: path(), media_type: descriptor.media_type.clone() });
    }
    let manifest: ImageManifest = tree.parse(&blob_name(&descriptor.digest), &read_blob(tree, descriptor)?)?;
    if !matches!(manifest.config.media_type.as_str(), "" | OCI_CONFIG | DOCKER_CONFIG) {
        let media_type = manifest.artifact_type.unwrap_or(manifest.config.media_type);
        return Err(ImageError::NotAnImage { path: path(), media_type });
    }
    let bytes = read_blob(tree, &manifest.config)?;
    let config = parse_config(tree, &blob_name(&manifest.config.digest), &bytes, host)?;
    let (layers, diff_ids) = (manifest.layers, config.rootfs.diff_ids);
    if layers.len() != diff_ids.len() {
        return Err(ImageError::LayerCount { path: path(), manifest: layers.len(), config: diff_ids.len() });
    }
    let layers = layers.iter().zip(diff_ids).map(|(layer, diff_id)| locate_layer(tree, layer, diff_id));
    Ok(ContainerImage {
        id: manifest.config.digest,
        config: config.config.unwrap_or_default(),
        layers: layers.collect::<Result<_, _>>()?,
    })
}

fn locate_layer(tree: &Tree, layer: &Descriptor, diff_id: LayerDigest) -> Result<ImageLayer, ImageError> {
    let name = blob_name(&layer.digest);
    // A missing blob is no fault while its layer lies unpacked in the store; opening it is what fails.
    let blob = match tree.locate(&name)? {
        Some(found) if found.size != layer.size => {
            let blob = tree.path().join(name);
            return Err(ImageError::BlobSize { blob, expected: layer.size, found: found.size });
        }
        Some(found) => found,
        None => super::BlobLocation { path: tree.path().join(name), offset: 0, size: layer.size },
    };
    Ok(ImageLayer { diff_id, digest: Some(layer.digest), blob })
}

fn read_blob(tree: &Tree, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let name = blob_name(&descriptor.digest);
    let (bytes, found) = tree.read_document(&name)?;
    if bytes.len() as u64 != descriptor.size {
        let (blob, found) = (tree.path().join(name), bytes.len() as u64);
        return Err(ImageError::BlobSize { blob, expected: descriptor.size, found });
    }
    if found != descriptor.digest {
        return Err(ImageError::BlobDigest { blob: tree.path().join(name), expected: descriptor.digest, found });
    }
    Ok(bytes)
}

pub(super) fn blob_name(digest: &LayerDigest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
