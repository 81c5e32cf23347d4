//! mount_setattr(2), which rustix does not have.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Errno, check};

/// What to change on a mount. Bits are `MOUNT_ATTR_*` of mount_setattr(2), propagation is one of `MS_PRIVATE`, `MS_SLAVE`,
/// `MS_SHARED`, `MS_UNBINDABLE` or 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    /// A user namespace for an idmapped mount, else 0.
    pub userns_fd: u64,
}

impl MountAttributes {
    pub const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    pub const NO_SUID: u64 = libc::MOUNT_ATTR_NOSUID;
    pub const NO_DEV: u64 = libc::MOUNT_ATTR_NODEV;
    pub const NO_EXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
    pub const NO_SYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
    /// Owners as in a user namespace.
    pub const ID_MAP: u64 = libc::MOUNT_ATTR_IDMAP;
    /// The bits that choose how access times are kept; 0 in them is `relatime`.
    pub const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
    pub const NO_ATIME: u64 = libc::MOUNT_ATTR_NOATIME;
    pub const STRICT_ATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
    pub const NO_DIR_ATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;

    /// These bits set, nothing cleared.
    pub const fn set(bits: u64) -> Self {
        Self { set: bits, clear: 0, propagation: 0, userns_fd: 0 }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Change the mount that `mount` is the root of; with `libc::AT_RECURSIVE` in `flags`, all mounts below it too.
pub fn mount_setattr(mount: BorrowedFd<'_>, flags: i32, attributes: &MountAttributes) -> Result<(), Errno> {
    // SAFETY: the path is a static empty string, the structure is read for exactly its own size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}
