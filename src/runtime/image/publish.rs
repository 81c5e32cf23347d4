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

    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Makes a layer with `fill`, which gets an empty folder, unless it is there already.
    pub(super) fn publish(
        &self,
        digest: &LayerDigest,
        fill: impl FnOnce(&Path) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let place = self.layer(digest);
        if place.exists() {
            return Ok(());
        }
        for folder in [self.layers(), self.root.join("tmp"), self.root.join("locks")] {
            make_private(&self.root, &folder)?;
        }
        let _lock = Lock::acquire(self.root.join("locks").join(digest.hex()))?;
        if place.exists() {
            return Ok(());
        }
        let aside = Aside::make(self.root.join("tmp").join(digest.hex()))?;
        fill(&aside.path)?;
        let folder = File::open(&aside.path).map_err(store_error(&aside.path, "open"))?;
        syncfs(&folder).map_err(|errno| store_error(&aside.path, "sync")(errno.into()))?;
        std::fs::rename(&aside.path, &place).map_err(store_error(&place, "publish"))?;
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
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn acquire(path: PathBuf) -> Result<Self, ImageError> {
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

/// A folder that is taken away unless it was renamed.
struct Aside {
    path: PathBuf,
}

impl Aside {
    fn make(path: PathBuf) -> Result<Self, ImageError> {
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
