//! Why an image cannot be had.

use std::path::PathBuf;

use super::LayerDigest;
use super::compress::Compression;
use super::tar::TarError;
use super::unpack::UnpackError;

/// Why an image cannot be resolved or unpacked; paths are those of the origin unless they say otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make a layer of `{}`", folder.display())]
    Pack {
        folder: PathBuf,
        #[source]
        source: Box<super::PackError>,
    },
    #[error("`{}` is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("`{}` is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error("`{}` is not an OCI image layout: it has no `oci-layout`", path.display())]
    NotALayout { path: PathBuf },
    #[error("`{}` is an OCI image layout of version `{version}`; version 1 is supported", path.display())]
    LayoutVersion { path: PathBuf, version: String },
    #[error("`{}` is not a docker archive: it has no `manifest.json`", path.display())]
    NotADockerArchive { path: PathBuf },
    #[error("`{}` is compressed as a whole ({compression:?}); `stack image import` reads such archives", path.display())]
    CompressedArchive { path: PathBuf, compression: Compression },
    #[error("`{}` is not a readable tar archive", path.display())]
    Archive {
        path: PathBuf,
        #[source]
        source: TarError,
    },
    #[error("`{}` ends before its member `{name}` does", path.display())]
    TruncatedArchive { path: PathBuf, name: String },
    #[error("`{}` has more than {limit} members", path.display())]
    TooManyMembers { path: PathBuf, limit: usize },
    #[error("`{}` has no `{name}`", path.display())]
    MissingDocument { path: PathBuf, name: String },
    #[error("`{name}` in `{}` has {size} bytes, more than {limit}", path.display())]
    DocumentTooLarge { path: PathBuf, name: String, size: u64, limit: u64 },
    #[error("`{name}` in `{}` is not what it should be", path.display())]
    Json {
        path: PathBuf,
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}` holds no image", path.display())]
    NoImage { path: PathBuf },
    #[error("`{}` holds no image `{tag}`; it holds {}", path.display(), listed(tags))]
    NoSuchTag { path: PathBuf, tag: String, tags: Vec<String> },
    #[error("`{}` holds several images, and none is named; it holds {}", path.display(), listed(tags))]
    SeveralImages { path: PathBuf, tags: Vec<String> },
    #[error("`{}` holds `{media_type}`, which is not a container image", path.display())]
    NotAnImage { path: PathBuf, media_type: String },
    #[error("`{}` is for {found}, and this host runs linux/{host}", path.display())]
    Platform { path: PathBuf, found: String, host: &'static str },
    #[error("`{}` has indexes more than {limit} deep", path.display())]
    IndexDepth { path: PathBuf, limit: usize },
    #[error("`{}` has {layers} layers, more than {limit}", path.display())]
    TooManyLayers { path: PathBuf, layers: usize, limit: usize },
    #[error("`{}` has {manifest} layers in its manifest and {config} in its configuration", path.display())]
    LayerCount { path: PathBuf, manifest: usize, config: usize },
    #[error("blob `{}` has {found} bytes instead of {expected}", blob.display())]
    BlobSize { blob: PathBuf, expected: u64, found: u64 },
    #[error("blob `{}` is {found} instead of {expected}", blob.display())]
    BlobDigest { blob: PathBuf, expected: LayerDigest, found: LayerDigest },
    #[error("the layer in `{}` unpacks to {found} instead of {expected}", blob.display())]
    DiffId { blob: PathBuf, expected: LayerDigest, found: LayerDigest },
    #[error("the layer in `{}` is compressed with {compression}, which is not supported", blob.display())]
    LayerCompression { blob: PathBuf, compression: String },
    #[error("the layer {layer} in `{}` cannot be unpacked", blob.display())]
    Unpack {
        layer: LayerDigest,
        blob: PathBuf,
        #[source]
        source: UnpackError,
    },
    #[error("an image from {from} cannot be imported; an OCI layout, an OCI archive or a docker archive can")]
    NotImportable { from: &'static str },
    #[error("cannot write `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the host's configuration changed while its skeleton was made")]
    HostChanged,
    #[error("the file `{}` of the host has {size} bytes, more than {limit}", path.display())]
    HostFileTooLarge { path: PathBuf, size: u64, limit: u64 },
    #[error("another command works with the image store `{}`", root.display())]
    StoreBusy { root: PathBuf },
    #[error("cannot compare an unpacked layer")]
    Compare(#[from] crate::runtime::overlay::OverlayError),
    #[error("cannot {doing} `{}` in the image store", path.display())]
    Store {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
}

fn listed(tags: &[String]) -> String {
    if tags.is_empty() {
        return "images without a name".to_owned();
    }
    tags.iter().map(|tag| format!("`{tag}`")).collect::<Vec<_>>().join(", ")
}
