//! What a tree of layers holds under one name.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// What something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverlayEntryKind {
    File,
    Directory,
    Symlink { target: OsString },
    CharDevice { device: u64 },
    BlockDevice { device: u64 },
    Fifo,
    Socket,
}

/// One name of the merged tree: what the topmost layer that has it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayEntry {
    pub kind: OverlayEntryKind,
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes; zero for all but files.
    pub size: u64,
    /// The layer it comes from, counted from the topmost, which is 0.
    pub layer: usize,
}

impl OverlayEntry {
    pub(super) fn from_metadata(metadata: &Metadata, target: OsString) -> Self {
        let kind = metadata.file_type();
        let device = metadata.rdev();
        let kind = if kind.is_dir() {
            OverlayEntryKind::Directory
        } else if kind.is_symlink() {
            OverlayEntryKind::Symlink { target }
        } else if kind.is_char_device() {
            OverlayEntryKind::CharDevice { device }
        } else if kind.is_block_device() {
            OverlayEntryKind::BlockDevice { device }
        } else if kind.is_fifo() {
            OverlayEntryKind::Fifo
        } else if kind.is_socket() {
            OverlayEntryKind::Socket
        } else {
            OverlayEntryKind::File
        };
        let size = if kind == OverlayEntryKind::File { metadata.len() } else { 0 };
        let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        Self { kind, mode, uid, gid, size, layer: 0 }
    }

    pub fn is_directory(&self) -> bool {
        self.kind == OverlayEntryKind::Directory
    }
}
