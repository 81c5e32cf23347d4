//! Reading tar archives in every dialect that layers come in: v7, ustar with its name prefix, pax (also global
//! headers and extended attributes), GNU long names, base-256 numbers and sparse files.
//!
//! A stream of members comes out, checked for form only. Where members may go in a file system is decided by
//! [`unpack`](super::unpack); multi-volume archives are refused by name.

mod header;
mod pax;
mod reader;
mod sparse;

pub use header::{BLOCK, is_gzip, parse_tar_filename, parse_tar_size};
pub(super) use reader::shown;
pub use reader::{TarInput, TarReader};
pub use sparse::SparseMap;

/// What one member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarKind {
    File,
    /// Another name of the member that `target` names.
    HardLink {
        target: Vec<u8>,
    },
    Symlink {
        target: Vec<u8>,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Directory,
    Fifo,
}

/// A point in time: seconds since 1970 (negative before) and nanoseconds after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TarTime {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// One member, with pax records and GNU long names applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarMember {
    /// As written, never empty and without NUL; may be absolute, may contain `..`.
    pub name: Vec<u8>,
    pub kind: TarKind,
    /// Bytes of content that the archive holds; zero for all but files.
    pub size: u64,
    /// Where the content of a sparse file belongs; `None` for all others.
    pub sparse: Option<SparseMap>,
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: TarTime,
    /// Extended attributes (`SCHILY.xattr.*`): full name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content begins, in bytes from the start of the archive.
    pub data_offset: u64,
}

/// Why an archive cannot be read. `offset` is the byte offset of the header in the (uncompressed) archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("cannot read the archive")]
    Read(#[source] std::io::Error),
    #[error("the archive ends in the middle of a member, at byte {offset}")]
    Truncated { offset: u64 },
    #[error("no tar header at byte {offset}: the checksum is wrong")]
    Checksum { offset: u64 },
    #[error("the tar header at byte {offset} has a wrong `{field}`")]
    Field { offset: u64, field: &'static str },
    #[error("the pax records at byte {offset} are malformed")]
    Pax { offset: u64 },
    #[error("the extended header at byte {offset} has {size} bytes, more than {limit}")]
    ExtensionTooLarge { offset: u64, size: u64, limit: u64 },
    #[error("too many extended headers before the member at byte {offset}")]
    TooManyExtensions { offset: u64 },
    #[error("the map of the sparse member `{name}` is malformed")]
    Sparse { name: String },
    #[error("member `{name}` has the type `{kind}`, which is not supported")]
    Kind { name: String, kind: char },
    #[error("more than {limit} bytes follow the end of the archive")]
    TrailingData { limit: u64 },
}
