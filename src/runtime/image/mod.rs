//! Images: where they come from, what they consist of, and the store that holds their layers unpacked.
//!
//! [`ImageStore::resolve`] reads documents only and says what an image is; [`ImageStore::unpack`] brings one layer into
//! the store, verified and published by rename. The tar reader, the unpacker and the JSON documents are usable alone.
//! Images of registries are kept in an OCI layout of the store ([`StoredImage`]), and come and go through
//! [`registry`]. Building is not here yet; how layers become one tree is [`overlay`](super::overlay)'s.

mod archive;
mod assemble;
mod blob;
mod cache;
mod compress;
mod crew;
mod digest;
mod docker;
mod error;
mod host;
mod import;
mod layout;
mod library;
pub mod manifest;
mod pack;
mod publish;
mod reference;
pub mod registry;
mod store;

pub mod tar;
mod unpack;
mod verify;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use assemble::{Assembly, HistoryEntry};
pub use blob::BlobLocation;
pub use cache::{CachedLayer, LayerCache};
pub use compress::{Compression, Inflater};
pub use crew::{LayerBlobs, LayerStream, LocalBlobs};
pub use digest::{DigestError, HashingReader, HashingWriter, LayerDigest};
pub use error::ImageError;
pub use library::{BlobWriter, StoredImage};
pub use manifest::{Descriptor, HostPlatform, ImageConfig, ImageHealthcheck, ImageIndex, ImageManifest, Platform};
pub use pack::{PackError, Packing, TarWriter, pack_folder};
pub use publish::StoreHold;
pub use reference::{Reference, ReferenceError};
pub use store::ImageStore;
pub use unpack::{LowerLayers, UnpackError, UnpackLimits, Unpacked, unpack_layer, unpack_layer_over};
pub use verify::LayerVerdict;

/// Where an image comes from. `tag` picks one of several images: a tag, a whole reference, or in layouts a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ImageOrigin {
    /// The host's own `/usr`, read-only, under a generated skeleton.
    Host,
    /// A root file system in a folder, used as it is.
    Dir(PathBuf),
    OciLayout {
        path: PathBuf,
        tag: Option<String>,
    },
    /// A tar archive of an OCI layout.
    OciArchive {
        path: PathBuf,
        tag: Option<String>,
    },
    /// What `docker save` writes.
    DockerArchive {
        path: PathBuf,
        tag: Option<String>,
    },
    /// An image of a registry, as it was last pulled into the store's own layout.
    Registry {
        reference: Reference,
    },
}

/// An image as its documents describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerImage {
    /// The digest of its configuration.
    pub id: LayerDigest,
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<ImageLayer>,
}

/// One layer: what it must be, and where its archive lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// Of the uncompressed archive. It is the name of the unpacked layer, so that images share it.
    pub diff_id: LayerDigest,
    /// Of the blob as it is stored, where that is known.
    pub digest: Option<LayerDigest>,
    pub blob: BlobLocation,
}

/// What a layer of a resolved image is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerSource {
    /// An archive.
    Blob(ImageLayer),
    /// A folder that is a lower layer as it is.
    Directory(PathBuf),
    /// The generated skeleton of `host:`, by the digest of its content.
    Skeleton(LayerDigest),
}

/// An image, ready to be unpacked or run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// Changes whenever the image does: the digest of the configuration (`sha256:…`), of the skeleton for
    /// [`ImageOrigin::Host`], `dir:<device>:<inode>:<path>` for [`ImageOrigin::Dir`].
    pub id: String,
    pub config: ImageConfig,
    /// Lowest first; [`ImageStore::layer_dirs`] gives them topmost first.
    pub layers: Vec<LayerSource>,
    /// Folders of the host that are mounted read-only at these paths of the container.
    pub binds: Vec<(PathBuf, String)>,
}
