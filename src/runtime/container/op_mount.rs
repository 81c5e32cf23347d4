//! Operations about mounts, as data.

use std::ffi::CString;
use std::path::PathBuf;

use crate::runtime::sys::MountAttributes;

/// An overlay as fsconfig wants it.
#[derive(Debug)]
pub struct OverlayRoot {
    /// The topmost first.
    pub lower: Vec<CString>,
    pub upper: CString,
    pub work: CString,
}

#[derive(Debug)]
pub struct MountOp {
    pub source: MountSource,
    /// Below the root to be, without a slash in front.
    pub target: CString,
    pub target_kind: TargetKind,
    /// The root of this mount is needed later on.
    pub keep: KeptMount,
}

#[derive(Debug)]
pub enum MountSource {
    Filesystem(Filesystem),
    Bind(Bind),
}

#[derive(Debug)]
pub struct Filesystem {
    pub kind: CString,
    /// `None`: a flag.
    pub parameters: Vec<(CString, Option<CString>)>,
    /// `MOUNT_ATTR_*`.
    pub attributes: u32,
    /// As of a [`Bind`].
    pub propagation: Vec<(u64, i32)>,
    pub contents: Contents,
}

/// What a new filesystem begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contents {
    #[default]
    Empty,
    /// Empty, and with the permissions of the directory that it covers, if that was there before.
    Permissions,
    /// With a copy of everything that it covers (`tmpcopyup`).
    Copy,
}

/// Other properties for what is mounted already.
#[derive(Debug)]
pub struct Remount {
    /// Below the root to be.
    pub target: CString,
    pub attributes: MountAttributes,
    pub recursive: MountAttributes,
    /// For the filesystem; empty: it is left alone.
    pub parameters: Vec<(CString, Option<CString>)>,
    pub propagation: Vec<(u64, i32)>,
}

#[derive(Clone, Debug)]
pub struct Bind {
    /// A path of the host.
    pub path: CString,
    /// `AT_RECURSIVE`, or 0.
    pub depth: i32,
    pub attributes: MountAttributes,
    pub recursive: MountAttributes,
    /// `MS_*` and `AT_RECURSIVE` or 0, in order.
    pub propagation: Vec<(u64, i32)>,
    /// One whose ids are mapped is made by the maker, who has the right to: its place in the list of those.
    pub prepared: Option<usize>,
}

/// A bind with its own view of users and groups.
#[derive(Clone, Debug)]
pub struct IdMappedBind {
    pub bind: Bind,
    pub ids: IdMap,
    /// `AT_RECURSIVE`, or 0: the one mount.
    pub depth: i32,
}

/// How ids are mapped: what one in the container's files is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdMap {
    /// The texts of `uid_map` and `gid_map` (user_namespaces(7)).
    Texts { uids: String, gids: String },
    /// As in this user namespace.
    Namespace(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    Directory,
    /// No symbolic link on the way to it, and looked up again after the mount: for procfs and sysfs, which everything
    /// that protects the host builds on.
    RealDirectory,
    /// A file or a directory, as the source is.
    LikeSource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptMount {
    No,
    Proc,
    Dev,
}
