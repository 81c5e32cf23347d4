//! Unpacks one layer into a folder of its own, in the form overlayfs wants: whiteouts become character devices 0:0,
//! opaque directories get `trusted.overlay.opaque` (kernel documentation, `filesystems/overlayfs.rst`; OCI image
//! specification, "Image Layer Filesystem Changeset").
//!
//! Layers are hostile. Nothing is reached by a path string that the kernel did not check: every parent is opened
//! beneath the layer's folder ([`directories`]), every object is made in it by its last name. What leaves the folder,
//! by name, through a symbolic link or by hard link, is refused by name.

mod directories;
mod lower;
mod member;

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Timespec, Timestamps, futimens};
use rustix::io::Errno;

use super::tar::{TarError, TarInput, TarKind, TarMember, TarReader, TarTime, shown};
use directories::Directories;
pub use lower::LowerLayers;

/// What one layer may take.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    pub members: u64,
    /// Bytes of content, uncompressed.
    pub bytes: u64,
    /// Components of a name.
    pub depth: usize,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { members: 4_000_000, bytes: 64 << 30, depth: 256 }
    }
}

/// What a layer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub members: u64,
    pub bytes: u64,
    /// Something of the layers below went into it: over others it would come out differently.
    pub depends_on_lower: bool,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("the archive cannot be read")]
    Tar(#[source] TarError),
    #[error("member `{member}` names `..`")]
    DotDot { member: String },
    #[error("member `{member}` has more than {limit} components")]
    Depth { member: String, limit: usize },
    #[error("member `{member}` is the root and not a directory")]
    Root { member: String },
    #[error("member `{member}` leaves the layer through a symbolic link")]
    Escape { member: String },
    #[error("member `{member}` lies below `{parent}`, which is not a directory")]
    Parent { member: String, parent: String },
    #[error("member `{member}` is a hard link to `{target}`, which this layer does not hold, nor one below it")]
    HardLink { member: String, target: String },
    #[error("the layer needs those below it, and they are not there")]
    NoLower,
    #[error("member `{member}` is a hard link to the directory `{target}`")]
    HardLinkToDirectory { member: String, target: String },
    #[error("member `{member}` is not a valid whiteout")]
    Whiteout { member: String },
    #[error("the layer has more than {limit} members")]
    TooManyMembers { limit: u64 },
    #[error("the layer has more than {limit} bytes of content at member `{member}`")]
    TooLarge { member: String, limit: u64 },
    #[error("cannot {doing} `{member}`")]
    Make {
        member: String,
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// Unpacks every member into `root`, an empty directory, as a layer with nothing below it. On an error, what was
/// unpacked so far stays.
pub fn unpack_layer<R: TarInput>(
    tar: &mut TarReader<R>,
    root: OwnedFd,
    limits: UnpackLimits,
) -> Result<Unpacked, UnpackError> {
    unpack_layer_over(tar, root, limits, &Vec::new())
}

/// Unpacks as [`unpack_layer`] does, over other layers: hard links may name their files, which are then copied up, and
/// directories that the archive implies but does not hold have the owner and mode that they have below.
pub fn unpack_layer_over<R: TarInput>(
    tar: &mut TarReader<R>,
    root: OwnedFd,
    limits: UnpackLimits,
    lower: &dyn LowerLayers,
) -> Result<Unpacked, UnpackError> {
    let mut unpacker = Unpacker::new(root, limits, lower);
    while let Some(member) = tar.next_member().map_err(UnpackError::Tar)? {
        unpacker.unpack(tar, &member)?;
    }
    unpacker.dress_implied()?;
    unpacker.set_directory_times();
    Ok(unpacker.done)
}

/// Content is copied in pieces of this size.
const COPY_BUFFER: usize = 256 << 10;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Marks of aufs, which only that file system understands.
const AUFS: &[u8] = b".wh..wh.";

struct Unpacker<'l> {
    directories: Directories,
    limits: UnpackLimits,
    done: Unpacked,
    /// Making an object in a directory changes the directory's time, so these are set last.
    times: HashMap<Vec<u8>, TarTime>,
    /// Directories that were made for what is in them, and whose own member has not come.
    implied: HashSet<Vec<u8>>,
    lower: &'l dyn LowerLayers,
    buffer: Vec<u8>,
}

/// A member's place: names without empty and `.` components.
struct Place<'a> {
    member: &'a TarMember,
    /// Relative to the layer's folder, empty for the folder itself.
    path: &'a [u8],
    parent: &'a [u8],
    name: &'a [u8],
}

impl<'l> Unpacker<'l> {
    fn new(root: OwnedFd, limits: UnpackLimits, lower: &'l dyn LowerLayers) -> Self {
        let (done, times, buffer) = (Unpacked::default(), HashMap::new(), vec![0; COPY_BUFFER]);
        // Many archives do not hold their root.
        let implied = HashSet::from([Vec::new()]);
        Self { directories: Directories::new(root), limits, done, times, implied, lower, buffer }
    }

    fn unpack<R: TarInput>(&mut self, tar: &mut TarReader<R>, member: &TarMember) -> Result<(), UnpackError> {
        self.done.members += 1;
        if self.done.members > self.limits.members {
            return Err(UnpackError::TooManyMembers { limit: self.limits.members });
        }
        self.done.bytes = self.done.bytes.saturating_add(member.size);
        if self.done.bytes > self.limits.bytes {
            return Err(UnpackError::TooLarge { member: shown(&member.name), limit: self.limits.bytes });
        }
        let path = self.relative(&member.name, member)?;
        let (parent, name) = split(&path);
        let place = Place { member, path: &path, parent, name };
        if name.is_empty() {
            return self.root(&place);
        }
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&place);
        }
        match &member.kind {
            TarKind::File => self.file(tar, &place),
            TarKind::Directory => self.directory(&place),
            TarKind::HardLink { target } => {
                let target = self.relative(target, member)?;
                self.hard_link(&place, &target)
            }
            TarKind::Symlink { target } => self.symlink(&place, target),
            TarKind::CharDevice { .. } | TarKind::BlockDevice { .. } | TarKind::Fifo => self.node(&place),
        }
    }

    /// `name` as a path below the layer's folder. An absolute name means the same below it, as all tools take it.
    fn relative(&self, name: &[u8], member: &TarMember) -> Result<Vec<u8>, UnpackError> {
        let mut path = Vec::with_capacity(name.len());
        let mut depth = 0;
        for component in name.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(UnpackError::DotDot { member: shown(&member.name) }),
                _ => {}
            }
            if depth > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(component);
            depth += 1;
        }
        if depth > self.limits.depth {
            return Err(UnpackError::Depth { member: shown(&member.name), limit: self.limits.depth });
        }
        Ok(path)
    }

    /// Best effort: a directory may have been replaced since by something that keeps no such time.
    fn set_directory_times(&mut self) {
        for (path, time) in std::mem::take(&mut self.times) {
            if let Ok(directory) = self.directories.existing(&path) {
                let _ = futimens(&*directory, &timestamps(time));
            }
        }
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn timestamps(time: TarTime) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanoseconds) as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Gives an errno its member and what was being done to it.
fn failed(member: &TarMember, doing: &'static str) -> impl Fn(Errno) -> UnpackError {
    move |errno| UnpackError::Make { member: shown(&member.name), doing, source: errno.into() }
}

const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;
