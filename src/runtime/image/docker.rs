//! What `docker save` writes, in its old form (a folder per layer) and its new one (an OCI layout beside
//! `manifest.json`).

use serde::{Deserialize, Serialize};

use super::blob::Tree;
use super::layout::{blob_name, parse_config};
use super::manifest::{HostPlatform, ImageManifest};
use super::{ContainerImage, ImageError, ImageLayer, LayerDigest, Reference};

/// One image of `manifest.json`.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SavedImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl SavedImage {
    /// An image whose blobs lie as in an OCI layout.
    pub(super) fn of(manifest: &ImageManifest, name: Option<&Reference>) -> Self {
        // docker takes a name with a tag and without a digest.
        let tagged = |reference: &Reference| Some(reference.to_string().split('@').next()?.to_owned());
        Self {
            config: blob_name(&manifest.config.digest),
            repo_tags: name.and_then(tagged).map(|name| vec![name]),
            layers: manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        }
    }

    fn is_called(&self, tag: &str) -> bool {
        let ends_so = |name: &String| name == tag || name.strip_suffix(tag).is_some_and(|rest| rest.ends_with(':'));
        self.repo_tags.iter().flatten().any(ends_so)
    }
}

/// Reads the image `tag` of a docker archive, or its only one.
pub(super) fn read_docker_archive(
    tree: &Tree,
    tag: Option<&str>,
    host: &HostPlatform,
) -> Result<ContainerImage, ImageError> {
    read_saved(tree, tag, host).map(|(image, _)| image)
}

/// The same, with the bytes of its configuration.
pub(super) fn read_saved(
    tree: &Tree,
    tag: Option<&str>,
    host: &HostPlatform,
) -> Result<(ContainerImage, Vec<u8>), ImageError> {
    let path = || tree.path().to_owned();
    let bytes = tree.read("manifest.json")?.ok_or_else(|| ImageError::NotADockerArchive { path: path() })?;
    let images: Vec<SavedImage> = tree.parse("manifest.json", &bytes)?;
    let saved = choose(tree, &images, tag)?;
    let (bytes, id) = tree.read_document(&saved.config)?;
    check_name(tree, &saved.config, id)?;
    let config = parse_config(tree, &saved.config, &bytes, host)?;
    let diff_ids = config.rootfs.diff_ids;
    if saved.layers.len() != diff_ids.len() {
        return Err(ImageError::LayerCount { path: path(), manifest: saved.layers.len(), config: diff_ids.len() });
    }
    let layers = saved.layers.iter().zip(diff_ids).map(|(name, diff_id)| {
        let missing = || ImageError::MissingDocument { path: path(), name: name.clone() };
        Ok(ImageLayer { diff_id, digest: named_digest(name), blob: tree.locate(name)?.ok_or_else(missing)? })
    });
    let layers = layers.collect::<Result<_, ImageError>>()?;
    Ok((ContainerImage { id, config: config.config.unwrap_or_default(), layers }, bytes))
}

fn choose<'a>(tree: &Tree, images: &'a [SavedImage], tag: Option<&str>) -> Result<&'a SavedImage, ImageError> {
    let path = || tree.path().to_owned();
    let tags = || images.iter().flat_map(|image| image.repo_tags.iter().flatten().cloned()).collect();
    match (tag, images) {
        (Some(tag), _) => images.iter().find(|image| image.is_called(tag)).ok_or_else(|| ImageError::NoSuchTag {
            path: path(),
            tag: tag.to_owned(),
            tags: tags(),
        }),
        (None, []) => Err(ImageError::NoImage { path: path() }),
        (None, [only]) => Ok(only),
        (None, _) => Err(ImageError::SeveralImages { path: path(), tags: tags() }),
    }
}

/// The configuration is named by its digest: `<hex>.json` or `blobs/sha256/<hex>`.
fn check_name(tree: &Tree, name: &str, found: LayerDigest) -> Result<(), ImageError> {
    let last = name.rsplit('/').next().unwrap_or(name);
    match LayerDigest::from_hex(last.strip_suffix(".json").unwrap_or(last)) {
        Ok(expected) if expected != found => {
            Err(ImageError::BlobDigest { blob: tree.path().join(name), expected, found })
        }
        _ => Ok(()),
    }
}

/// New archives name layers by the digest of the blob as it is stored; old ones by an identity of their own.
fn named_digest(name: &str) -> Option<LayerDigest> {
    LayerDigest::from_hex(name.strip_prefix("blobs/sha256/")?).ok()
}
