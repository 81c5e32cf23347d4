//! Where the bytes of a blob are, and trees of named documents: a folder, or a tar archive read in place.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::compress::Compression;
use super::tar::{TarKind, TarReader, shown};
use super::{ImageError, LayerDigest};

/// Largest document that is read: the distribution specification asks registries for 4 MiB manifests at least.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
/// Members of an archive of an image; one has a few per layer.
const MAX_MEMBERS: usize = 100_000;
/// Links in an archive that may lead from one to the next.
const MAX_LINKS: usize = 8;

/// A range of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobLocation {
    pub path: PathBuf,
    /// Bytes.
    pub offset: u64,
    pub size: u64,
}

impl BlobLocation {
    /// Opens the range. Errors: the file ends before the range does.
    pub(super) fn open(&self) -> Result<std::io::Take<File>, ImageError> {
        let (mut file, metadata) = open_regular(&self.path)?;
        if metadata.len() < self.offset.saturating_add(self.size) {
            let available = metadata.len().saturating_sub(self.offset);
            return Err(ImageError::BlobSize { blob: self.path.clone(), expected: self.size, found: available });
        }
        file.seek(SeekFrom::Start(self.offset))
            .map_err(|source| ImageError::Read { path: self.path.clone(), source })?;
        Ok(file.take(self.size))
    }

    fn read(&self) -> Result<Vec<u8>, ImageError> {
        let failed = |source| ImageError::Read { path: self.path.clone(), source };
        let (file, _) = open_regular(&self.path)?;
        let mut bytes = vec![0; self.size as usize];
        file.read_exact_at(&mut bytes, self.offset).map_err(failed)?;
        Ok(bytes)
    }
}

/// The names and documents of an image, wherever they are kept.
pub(super) enum Tree {
    Folder(PathBuf),
    Archive(ArchiveIndex),
}

/// The members of a tar archive by name, found in one scan.
pub(super) struct ArchiveIndex {
    path: PathBuf,
    members: HashMap<String, Member>,
}

enum Member {
    Content { offset: u64, size: u64 },
    Link { target: String },
}

impl Tree {
    /// The folder or archive itself, for messages.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(path) => path,
            Self::Archive(index) => &index.path,
        }
    }

    /// Where `name` is kept. Names are relative, with `/` between components.
    pub(super) fn locate(&self, name: &str) -> Result<Option<BlobLocation>, ImageError> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                match std::fs::metadata(&path) {
                    Ok(metadata) => Ok(Some(BlobLocation { path, offset: 0, size: metadata.len() })),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(ImageError::Read { path, source }),
                }
            }
            Self::Archive(index) => Ok(index.locate(name)),
        }
    }

    /// The document `name`; `None` where there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(location) = self.locate(name)? else { return Ok(None) };
        if location.size > MAX_DOCUMENT {
            let (name, size) = (name.to_owned(), location.size);
            return Err(ImageError::DocumentTooLarge { path: self.path().into(), name, size, limit: MAX_DOCUMENT });
        }
        location.read().map(Some)
    }

    /// The document `name`, which must be there, with its digest.
    pub(super) fn read_document(&self, name: &str) -> Result<(Vec<u8>, LayerDigest), ImageError> {
        let missing = || ImageError::MissingDocument { path: self.path().into(), name: name.to_owned() };
        let bytes = self.read(name)?.ok_or_else(missing)?;
        let digest = LayerDigest::of(&bytes);
        Ok((bytes, digest))
    }

    /// Reads `name` as JSON.
    pub(super) fn parse<T: serde::de::DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, ImageError> {
        serde_json::from_slice(bytes).map_err(|source| ImageError::Json {
            path: self.path().into(),
            name: name.to_owned(),
            source,
        })
    }
}

impl ArchiveIndex {
    /// Scans the archive at `path`. Contents are passed over, not read.
    pub(super) fn scan(path: &Path) -> Result<Self, ImageError> {
        let (file, metadata) = open_regular(path)?;
        let archive = |source| ImageError::Archive { path: path.to_owned(), source };
        let mut start = [0; 6];
        let read = file.read_at(&mut start, 0).map_err(|source| ImageError::Read { path: path.to_owned(), source })?;
        match Compression::of(&start[..read]) {
            Compression::None => {}
            other => return Err(ImageError::CompressedArchive { path: path.to_owned(), compression: other }),
        }
        let mut tar = TarReader::new(BufReader::with_capacity(1024, file));
        let mut members = HashMap::new();
        while let Some(member) = tar.next_member().map_err(archive)? {
            let name = normal(&member.name);
            let kept = match &member.kind {
                TarKind::File if member.data_offset.saturating_add(member.size) > metadata.len() => {
                    let name = shown(&member.name);
                    return Err(ImageError::TruncatedArchive { path: path.to_owned(), name });
                }
                TarKind::File => Member::Content { offset: member.data_offset, size: member.size },
                TarKind::HardLink { target } => Member::Link { target: normal(target) },
                TarKind::Symlink { target } => Member::Link { target: beside(&name, target) },
                _ => continue,
            };
            members.insert(name, kept);
            if members.len() > MAX_MEMBERS {
                return Err(ImageError::TooManyMembers { path: path.to_owned(), limit: MAX_MEMBERS });
            }
        }
        Ok(Self { path: path.to_owned(), members })
    }

    fn locate(&self, name: &str) -> Option<BlobLocation> {
        let mut name = normal(name.as_bytes());
        // Old `docker save` wrote a layer that occurs twice as a symbolic link to the first.
        for _ in 0..MAX_LINKS {
            match self.members.get(&name)? {
                Member::Content { offset, size } => {
                    return Some(BlobLocation { path: self.path.clone(), offset: *offset, size: *size });
                }
                Member::Link { target } => name = target.clone(),
            }
        }
        None
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    path: PathBuf,
    dev: u64,
    ino: u64,
    size: u64,
    mode: u32,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl FileIdentity {
    /// The identity of what `path` leads to; `None` where there is nothing.
    pub(super) fn of(path: &Path) -> Option<Self> {
        Some(Self::from_metadata(path, &std::fs::metadata(path).ok()?))
    }

    pub(super) fn from_metadata(path: &Path, metadata: &std::fs::Metadata) -> Self {
        Self {
            path: path.to_owned(),
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mode: metadata.mode(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Was the file written so recently that a change within the same tick of the clock could be missed?
    pub(super) fn is_fresh(&self, now: std::time::SystemTime) -> bool {
        const TICK_SECONDS: i64 = 1;
        let now = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.ctime.0.max(self.mtime.0) + TICK_SECONDS >= now
    }
}

/// Opens a file that must be a regular one: a fifo in an image's folder would hold us for ever.
fn open_regular(path: &Path) -> Result<(File, std::fs::Metadata), ImageError> {
    let failed = |source| ImageError::Read { path: path.to_owned(), source };
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ImageError::NotAFile { path: path.to_owned() });
    }
    Ok((file, metadata))
}

/// A member's name without `./`, doubled and trailing slashes. Only ever a key, never a path of ours.
fn normal(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut components: Vec<&str> = Vec::new();
    for component in name.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            other => components.push(other),
        }
    }
    components.join("/")
}

/// The name that a symbolic link `name` to `target` leads to.
fn beside(name: &str, target: &[u8]) -> String {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    if target.starts_with(b"/") { normal(target) } else { normal(&[folder.as_bytes(), b"/", target].concat()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_archives_are_names_beside_them() {
        assert_eq!(beside("b/layer.tar", b"../a/layer.tar"), "a/layer.tar");
        assert_eq!(beside("b", b"a"), "a");
        assert_eq!(beside("x/y", b"/etc/passwd"), "etc/passwd");
        assert_eq!(normal(b"./blobs//sha256/ab/"), "blobs/sha256/ab");
    }
}
