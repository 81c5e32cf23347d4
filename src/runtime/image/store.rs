//! The store: resolves origins to images and brings their layers in.
//!
//! ```text
//! <root>/                    0700
//!   layers/sha256/<name>/    one unpacked layer, in overlay form, by its diff id or (where what is below it went into
//!                            it) by an address of its chain; whole or not there
//!   layout/                  what was pulled, pushed or imported: an OCI image layout that other tools can read
//!   tmp/<diff id>/           a layer in the making
//!   locks/<diff id>          held while a layer is made
//!   in-use                   locked by those who bring in and use, and alone by those who take away
//!   cache/<digest>.json      what was read from an archive or the host, with the identity of the files it came from
//! ```

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::blob::{ArchiveIndex, FileIdentity, Tree};
use super::compress::Inflater;
use super::crew::{Crew, LayerBlobs, MAX_AT_ONCE};
use super::docker::read_docker_archive;
use super::host::Skeleton;
use super::layout::read_layout;
use super::publish::{Dependence, LayerName, StoreHold, StorePaths, layer_names, make_private};
use super::tar::TarReader;
use super::unpack::{LowerLayers, UnpackError, UnpackLimits, Unpacked, unpack_layer_over};
use super::{
    ContainerImage, HashingReader, HostPlatform, ImageConfig, ImageError, ImageLayer, ImageOrigin, LayerCache,
    LayerSource, ResolvedImage,
};

/// Read-ahead of compressed bytes.
const READ_BUFFER: usize = 256 << 10;
/// Largest remembered result; more is read again each time.
const MAX_REMEMBERED: u64 = 8 << 20;

/// A folder of unpacked layers, shared by everything on the host. Several processes and threads may use it at once.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(super) paths: StorePaths,
    host_root: PathBuf,
    pub(super) platform: HostPlatform,
    pub(super) limits: UnpackLimits,
}

impl ImageStore {
    /// The store below `root`, such as `/var/lib/stack`. Nothing is touched before there is something to write.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self {
            paths: StorePaths { root: root.into() },
            host_root: PathBuf::from("/"),
            platform: HostPlatform::of_this_host(),
            limits: UnpackLimits::default(),
        }
    }

    /// Another folder in the place of the host's `/`, from which [`ImageOrigin::Host`] is made.
    pub fn with_host_root(mut self, host_root: impl Into<PathBuf>) -> Self {
        self.host_root = host_root.into();
        self
    }

    /// Other bounds on what a layer may take.
    pub fn with_limits(mut self, limits: UnpackLimits) -> Self {
        self.limits = limits;
        self
    }

    pub fn root(&self) -> &Path {
        &self.paths.root
    }

    /// What `origin` is: documents are read and held against their digests, layers are not.
    ///
    /// Archives and the host's files are not read again while their size, times and inode stay the same.
    pub fn resolve(&self, origin: &ImageOrigin) -> Result<ResolvedImage, ImageError> {
        match origin {
            ImageOrigin::Host => self.resolve_host(),
            ImageOrigin::Dir(path) => resolve_directory(path),
            ImageOrigin::OciLayout { path, tag } => {
                let image = read_layout(&Tree::Folder(path.clone()), tag.as_deref(), &self.platform)?;
                Ok(resolved(image))
            }
            ImageOrigin::OciArchive { path, tag } => {
                self.resolve_archive(origin, path, |tree| read_layout(tree, tag.as_deref(), &self.platform))
            }
            ImageOrigin::DockerArchive { path, tag } => {
                self.resolve_archive(origin, path, |tree| read_docker_archive(tree, tag.as_deref(), &self.platform))
            }
            ImageOrigin::Registry { reference } => {
                let layout = Tree::Folder(self.paths.layout());
                Ok(resolved(read_layout(&layout, Some(&reference.to_string()), &self.platform)?))
            }
        }
    }

    /// The layers of `image` that are not in the store, lowest first.
    pub fn missing_layers<'a>(&self, image: &'a ResolvedImage) -> Vec<&'a LayerSource> {
        let names = names_of(image);
        let mut seen = HashSet::new();
        let missing = |(layer, name): (&'a LayerSource, Option<LayerName>)| {
            let name = name?;
            (self.paths.find(&name).is_none() && seen.insert(name.alone)).then_some(layer)
        };
        image.layers.iter().zip(names).filter_map(missing).collect()
    }

    /// Brings the layers of an image into the store from where `source` has them: each read once, verified, unpacked,
    /// and published as a whole; several at a time. Those that are there are left, and where somebody else is at one,
    /// it is waited for. After an error nothing is left of the layer that it names.
    pub fn unpack(&self, image: &ResolvedImage, source: &dyn LayerBlobs) -> Result<(), ImageError> {
        let crew = Crew::new(self, image);
        std::thread::scope(|scope| {
            let workers = image.layers.len().min(MAX_AT_ONCE);
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(|| crew.work(source))).collect();
            for thread in threads {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        crew.outcome()
    }

    /// The folders of an image's layers as overlayfs wants them: topmost first, none twice (overlayfs refuses a folder
    /// that occurs twice; of equal layers the topmost alone decides). Layers must be there; see [`unpack`](Self::unpack).
    pub fn layer_dirs(&self, image: &ResolvedImage) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        let folders = image.layers.iter().zip(names_of(image)).rev().map(|(layer, name)| self.folder_of(layer, name));
        folders.filter(|folder| seen.insert(folder.clone())).collect()
    }

    pub(super) fn folder_of(&self, layer: &LayerSource, name: Option<LayerName>) -> PathBuf {
        match (layer, name) {
            (LayerSource::Directory(path), _) => path.clone(),
            (_, Some(name)) => self.paths.find(&name).unwrap_or_else(|| self.paths.layer(&name.alone)),
            (LayerSource::Blob(layer), None) => self.paths.layer(&layer.diff_id),
            (LayerSource::Skeleton(digest), None) => self.paths.layer(digest),
        }
    }

    /// One layer, with `lower` below it.
    pub(super) fn unpack_one(
        &self,
        layer: &LayerSource,
        name: Option<LayerName>,
        (source, lower): (&dyn LayerBlobs, &dyn LowerLayers),
    ) -> Result<(), ImageError> {
        let Some(name) = name else { return Ok(()) };
        match layer {
            LayerSource::Directory(_) => Ok(()),
            LayerSource::Blob(layer) => self.paths.publish(&name, |folder| {
                unpack_blob((layer, source), folder, (self.limits, lower)).map(|unpacked| {
                    match unpacked.depends_on_lower {
                        true => Dependence::LayersBelow,
                        false => Dependence::None,
                    }
                })
            }),
            LayerSource::Skeleton(digest) => self.paths.publish(&name, |folder| {
                let skeleton = Skeleton::of_host(&self.host_root)?;
                if skeleton.digest() != *digest {
                    return Err(ImageError::HostChanged);
                }
                skeleton.write(folder).map(|()| Dependence::None)
            }),
        }
    }

    /// Keeps others from taking anything away, from before something is brought in until what uses it can be seen.
    pub fn hold(&self) -> Result<StoreHold, ImageError> {
        self.paths.hold()
    }

    /// The store for the caller alone, to take things away. Errors: [`ImageError::StoreBusy`] where anybody holds it.
    pub fn hold_alone(&self) -> Result<StoreHold, ImageError> {
        self.paths.hold_alone()
    }

    /// The unpacked layers that the store holds.
    pub fn layers(&self) -> Result<LayerCache, ImageError> {
        LayerCache::read(&self.paths)
    }

    fn resolve_archive(
        &self,
        origin: &ImageOrigin,
        path: &Path,
        read: impl FnOnce(&Tree) -> Result<ContainerImage, ImageError>,
    ) -> Result<ResolvedImage, ImageError> {
        let metadata = std::fs::metadata(path).map_err(|source| ImageError::Read { path: path.to_owned(), source })?;
        let identity = vec![FileIdentity::from_metadata(path, &metadata)];
        let key = format!("{origin:?}");
        if let Some(image) = self.recall(&key, &identity) {
            return Ok(image);
        }
        let image = resolved(read(&Tree::Archive(ArchiveIndex::scan(path)?))?);
        self.remember(&key, identity, &image);
        Ok(image)
    }

    fn resolve_host(&self) -> Result<ResolvedImage, ImageError> {
        let identity = Skeleton::sources(&self.host_root);
        let key = format!("host {}", self.host_root.display());
        if let Some(image) = self.recall(&key, &identity) {
            return Ok(image);
        }
        let skeleton = Skeleton::of_host(&self.host_root)?;
        let digest = skeleton.digest();
        let image = ResolvedImage {
            id: digest.to_string(),
            config: default_config(),
            layers: vec![LayerSource::Skeleton(digest)],
            binds: skeleton.binds().to_vec(),
        };
        self.remember(&key, identity, &image);
        Ok(image)
    }

    fn recall(&self, key: &str, identity: &[FileIdentity]) -> Option<ResolvedImage> {
        let file = File::open(self.remembered_at(key)).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_REMEMBERED).read_to_end(&mut bytes).ok()?;
        let remembered: Remembered = serde_json::from_slice(&bytes).ok()?;
        (remembered.key == key && remembered.identity == identity).then_some(remembered.image)
    }

    /// Best effort: without it, the next time reads everything again. Where there is no store yet, none is made.
    fn remember(&self, key: &str, identity: Vec<FileIdentity>, image: &ResolvedImage) {
        let now = SystemTime::now();
        if !self.paths.root.is_dir() || identity.iter().any(|file| file.is_fresh(now)) {
            return;
        }
        let remembered = Remembered { key: key.to_owned(), identity, image: image.clone() };
        let Ok(bytes) = serde_json::to_vec(&remembered) else { return };
        if make_private(&self.paths.root, &self.paths.cache()).is_err() {
            return;
        }
        let place = self.remembered_at(key);
        let aside = place.with_extension(format!("{}.{:?}", std::process::id(), std::thread::current().id()));
        if std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, &place)).is_err() {
            let _ = std::fs::remove_file(&aside);
        }
    }

    fn remembered_at(&self, key: &str) -> PathBuf {
        self.paths.cache().join(format!("{}.json", super::LayerDigest::of(key.as_bytes()).hex()))
    }
}

/// A result, and the state of the files that it was read from.
#[derive(Serialize, Deserialize)]
struct Remembered {
    key: String,
    identity: Vec<FileIdentity>,
    image: ResolvedImage,
}

/// The names of an image's layers; folders have none.
pub(super) fn names_of(image: &ResolvedImage) -> Vec<Option<LayerName>> {
    let mut names = layer_names(image.layers.iter().filter_map(LayerSource::digest)).into_iter();
    image.layers.iter().map(|layer| layer.digest().and_then(|_| names.next())).collect()
}

/// One pass over the blob: hash it, inflate, hash again, unpack.
pub(super) fn unpack_blob(
    (layer, source): (&ImageLayer, &dyn LayerBlobs),
    folder: &Path,
    (limits, lower): (UnpackLimits, &dyn LowerLayers),
) -> Result<Unpacked, ImageError> {
    let blob = || layer.blob.path.clone();
    let mut stream = source.open(layer)?;
    let compressed = BufReader::with_capacity(READ_BUFFER, HashingReader::new(&mut stream));
    let inflater = Inflater::new(compressed).map_err(|source| match source.kind() {
        std::io::ErrorKind::Unsupported => {
            ImageError::LayerCompression { blob: blob(), compression: source.to_string() }
        }
        _ => ImageError::Read { path: blob(), source },
    })?;
    let root = File::open(folder).map_err(|source| ImageError::Read { path: folder.to_owned(), source })?;
    let mut tar = TarReader::new(HashingReader::new(inflater));
    let unpacked = unpack_layer_over(&mut tar, OwnedFd::from(root), limits, lower)
        .and_then(|unpacked| tar.drain().map(|()| unpacked).map_err(UnpackError::Tar))
        .map_err(|source| ImageError::Unpack { layer: layer.diff_id, blob: blob(), source });
    let (inflater, diff_id) = tar.into_inner().finish_into();
    // A damaged blob is called that, and not by the nonsense that it inflates to.
    verify_blob(layer, inflater)?;
    let unpacked = unpacked?;
    if diff_id != layer.diff_id {
        return Err(ImageError::DiffId { blob: blob(), expected: layer.diff_id, found: diff_id });
    }
    stream.finished()?;
    Ok(unpacked)
}

/// Holds the blob as it is stored against its digest, to its end.
fn verify_blob<R: Read>(layer: &ImageLayer, inflater: Inflater<BufReader<HashingReader<R>>>) -> Result<(), ImageError> {
    let Some(expected) = layer.digest else { return Ok(()) };
    let mut compressed = inflater.into_inner().into_inner();
    std::io::copy(&mut compressed, &mut std::io::sink())
        .map_err(|source| ImageError::Read { path: layer.blob.path.clone(), source })?;
    let (found, size) = compressed.finish();
    let blob = layer.blob.path.clone();
    if size != layer.blob.size {
        return Err(ImageError::BlobSize { blob, expected: layer.blob.size, found: size });
    }
    if found != expected {
        return Err(ImageError::BlobDigest { blob, expected, found });
    }
    Ok(())
}

pub(super) fn resolved(image: ContainerImage) -> ResolvedImage {
    let layers = image.layers.into_iter().map(LayerSource::Blob).collect();
    ResolvedImage { id: image.id.to_string(), config: image.config, layers, binds: Vec::new() }
}

fn resolve_directory(path: &Path) -> Result<ResolvedImage, ImageError> {
    let failed = |source| ImageError::Read { path: path.to_owned(), source };
    let folder = path.canonicalize().map_err(failed)?;
    let metadata = folder.metadata().map_err(failed)?;
    if !metadata.is_dir() {
        return Err(ImageError::NotADirectory { path: path.to_owned() });
    }
    Ok(ResolvedImage {
        id: format!("dir:{}:{}:{}", metadata.dev(), metadata.ino(), folder.display()),
        config: default_config(),
        layers: vec![LayerSource::Directory(folder)],
        binds: Vec::new(),
    })
}

/// What images without a configuration run, and with what.
fn default_config() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
        cmd: vec!["/bin/sh".to_owned()],
        working_dir: "/".to_owned(),
        ..ImageConfig::default()
    }
}
