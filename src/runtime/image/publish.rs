//! How a layer comes into the store: one process at a time per layer, made aside, on the disk, then renamed.
//!
//! A crash leaves at most one folder in `tmp/` per layer, which the next to unpack that layer takes away, and never half
//! a layer under its name.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, syncfs};

use super::{ImageError, LayerDigest};

/// A lock file may be taken away by its last holder between our open and our lock; each loss means that somebody
/// else made progress.
const LOCK_ATTEMPTS: usize = 1000;

/// What a layer is called in the store. Content that came from the layers below must not be found by an image that has
/// the same layer over others: whoever made those could put their files into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LayerName {
    /// Where nothing below matters: the layer's diff id.
    pub alone: LayerDigest,
    /// Where something does: an address of the layer with all below it.
    pub over: LayerDigest,
}

/// Whether an unpacked layer would be the same over any others.
pub(super) enum Dependence {
    None,
    LayersBelow,
}

/// The names of layers by their diff ids, lowest first.
pub(super) fn layer_names(diff_ids: impl IntoIterator<Item = LayerDigest>) -> Vec<LayerName> {
    let mut chain = String::new();
    let mut name = |alone: LayerDigest| {
        chain.push_str(&alone.hex());
        let over = LayerDigest::of(chain.as_bytes());
        chain = over.hex();
        LayerName { alone, over }
    };
    diff_ids.into_iter().map(&mut name).collect()
}

/// The folders of the store.
#[derive(Clone, Debug)]
pub(super) struct StorePaths {
    pub root: PathBuf,
}

impl StorePaths {
    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers/sha256")
    }

    pub(super) fn layer(&self, digest: &LayerDigest) -> PathBuf {
        self.layers().join(digest.hex())
    }

    pub(super) fn layout(&self) -> PathBuf {
        self.root.join("layout")
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Where a layer lies, if it is there.
    pub(super) fn find(&self, name: &LayerName) -> Option<PathBuf> {
        // The one that was made over just these layers, before the one that is the same over any.
        [name.over, name.alone].iter().map(|digest| self.layer(digest)).find(|place| place.exists())
    }

    /// Makes a layer with `fill`, which gets an empty folder and tells what the layer depends on, unless it is there.
    pub(super) fn publish(
        &self,
        name: &LayerName,
        fill: impl FnOnce(&Path) -> Result<Dependence, ImageError>,
    ) -> Result<(), ImageError> {
        if self.find(name).is_some() {
            return Ok(());
        }
        let digest = &name.alone;
        for folder in [self.layers(), self.root.join("tmp"), self.root.join("locks")] {
            make_private(&self.root, &folder)?;
        }
        let _lock = Lock::acquire(self.root.join("locks").join(digest.hex()))?;
        if self.find(name).is_some() {
            return Ok(());
        }
        let aside = Aside::make(self.root.join("tmp").join(digest.hex()))?;
        let place = match fill(&aside.path)? {
            Dependence::None => self.layer(&name.alone),
            Dependence::LayersBelow => self.layer(&name.over),
        };
        self.publish_folder(&aside, &place)
    }

    /// Gives a layer that is whole its name, once it is on the disk.
    pub(super) fn publish_folder(&self, aside: &Aside, place: &Path) -> Result<(), ImageError> {
        let folder = File::open(&aside.path).map_err(store_error(&aside.path, "open"))?;
        syncfs(&folder).map_err(|errno| store_error(&aside.path, "sync")(errno.into()))?;
        std::fs::rename(&aside.path, place).map_err(store_error(place, "publish"))?;
        let layers = self.layers();
        File::open(&layers).and_then(|folder| folder.sync_all()).map_err(store_error(&layers, "sync"))
    }
}

/// Makes `folder` with its parents, for root alone: unpacked layers hold setuid programs of strangers.
pub(super) fn make_private(root: &Path, folder: &Path) -> Result<(), ImageError> {
    if folder.is_dir() {
        return Ok(());
    }
    let builder = || {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
    };
    if let Some(parent) = root.parent() {
        // What is above the store is not ours to close.
        std::fs::create_dir_all(parent).map_err(store_error(parent, "make"))?;
    }
    builder().create(folder).map_err(store_error(folder, "make"))
}

pub(super) fn store_error(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> ImageError {
    move |source| ImageError::Store { path: path.to_owned(), doing, source }
}

/// A lock on one layer, given back by dropping it or by dying. Waits as long as the holder lives.
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    pub(super) fn acquire(path: PathBuf) -> Result<Self, ImageError> {
        for _ in 0..LOCK_ATTEMPTS {
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(store_error(&path, "open"))?;
            loop {
                match flock(&file, FlockOperation::LockExclusive) {
                    Err(rustix::io::Errno::INTR) => {}
                    other => break other.map_err(|errno| store_error(&path, "lock")(errno.into()))?,
                }
            }
            let ours = file.metadata().map_err(store_error(&path, "look at"))?;
            // The one before us took the file away: who opens the name now locks another one.
            if std::fs::metadata(&path).is_ok_and(|named| named.ino() == ours.ino()) {
                return Ok(Self { path, _file: file });
            }
        }
        Err(store_error(&path, "lock")(io::ErrorKind::ResourceBusy.into()))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before the lock goes, so that a waiter finds out.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Keeps the store as it is for as long as it lives: what was brought in and is used by nobody yet is not taken away.
#[derive(Debug)]
pub struct StoreHold {
    _file: File,
}

impl StorePaths {
    /// Waits for somebody who has the store alone.
    pub(super) fn hold(&self) -> Result<StoreHold, ImageError> {
        let (path, file) = self.hold_file()?;
        loop {
            match flock(&file, FlockOperation::LockShared) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(()) => return Ok(StoreHold { _file: file }),
                Err(errno) => return Err(store_error(&path, "lock")(errno.into())),
            }
        }
    }

    /// The store for the caller alone; an error where anybody holds it.
    pub(super) fn hold_alone(&self) -> Result<StoreHold, ImageError> {
        let (path, file) = self.hold_file()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StoreHold { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(ImageError::StoreBusy { root: self.root.clone() }),
            Err(errno) => Err(store_error(&path, "lock")(errno.into())),
        }
    }

    /// It stays: whoever removed it would have to be sure that nobody waits for it.
    fn hold_file(&self) -> Result<(PathBuf, File), ImageError> {
        make_private(&self.root, &self.root)?;
        let path = self.root.join("in-use");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        file.map_err(store_error(&path, "open")).map(|file| (path, file))
    }
}

/// A folder that is taken away unless it was renamed.
pub(super) struct Aside {
    pub path: PathBuf,
}

impl Aside {
    pub(super) fn make(path: PathBuf) -> Result<Self, ImageError> {
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(store_error(&path, "clear")(error)),
            _ => {}
        }
        std::fs::create_dir(&path).map_err(store_error(&path, "make"))?;
        let aside = Self { path };
        // The umask may have narrowed it, and this becomes the container's `/`.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&aside.path, mode).map_err(store_error(&aside.path, "set the mode of"))?;
        Ok(aside)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
