//! `stack.lock`: what the references of a stack file led to, so that every run and every host takes the same images.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::image::{LayerDigest, Reference};

const HEAD: &str = "# What the image references of the stack file led to. `stack up` takes these images; `stack up --pull` asks\n# the registries anew. Keep it with the stack file.\n";

/// Digests by reference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLock {
    #[serde(default)]
    image: BTreeMap<Reference, LayerDigest>,
}

/// Why a lock file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageLockError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is no lock file", path.display())]
    Malformed { path: PathBuf, source: Box<toml::de::Error> },
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

impl ImageLock {
    /// The lock file of a stack file: beside it, with the ending `lock`.
    pub fn path(stack_file: &Path) -> PathBuf {
        stack_file.with_extension("lock")
    }

    /// What `path` says; nothing, where it is not there.
    pub fn read(path: &Path) -> Result<Self, ImageLockError> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|source| ImageLockError::Malformed { path: path.to_owned(), source: Box::new(source) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ImageLockError::Read { path: path.to_owned(), source }),
        }
    }

    pub fn digest(&self, reference: &Reference) -> Option<LayerDigest> {
        self.image.get(reference).copied()
    }

    /// A lock of just these.
    pub fn of(images: impl IntoIterator<Item = (Reference, LayerDigest)>) -> Self {
        Self { image: images.into_iter().collect() }
    }

    /// Writes it, unless it is as it was. Without images there is no file, and none is made.
    pub fn write(&self, path: &Path) -> Result<(), ImageLockError> {
        let before = Self::read(path).ok();
        if before.as_ref() == Some(self) {
            return Ok(());
        }
        let failed = |source| ImageLockError::Write { path: path.to_owned(), source };
        let text = toml::to_string(self).map_err(|error| failed(std::io::Error::other(error)))?;
        let aside = path.with_extension("lock.new");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&aside)?;
            file.write_all(HEAD.as_bytes())?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&aside, path)
        };
        write().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_reads_back_and_nothing_is_written_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = ImageLock::path(&folder.path().join("shop.toml"));
        ImageLock::default().write(&path).unwrap();
        assert!(!path.exists());
        let reference: Reference = "alpine:3".parse().unwrap();
        let lock = ImageLock::of([(reference.clone(), LayerDigest::of(b"x"))]);
        lock.write(&path).unwrap();
        assert_eq!(ImageLock::read(&path).unwrap(), lock);
        assert_eq!(lock.digest(&reference), Some(LayerDigest::of(b"x")));
        std::fs::write(&path, "[image]\n\"alpine:3\" = \"latest\"\n").unwrap();
        assert!(matches!(ImageLock::read(&path), Err(ImageLockError::Malformed { .. })));
    }
}
