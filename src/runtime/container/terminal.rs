//! A pseudo-terminal of a container's own devpts, for programs that are run in it at a terminal.
//!
//! Everything below `/dev/pts` belongs to an attacker (CVE-2025-52565): the multiplexer is looked at before it is opened for
//! good, and the other end is asked of the kernel by descriptor (TIOCGPTPEER), never opened by a name.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, fstat, fstatfs, open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use thiserror::Error;

use crate::runtime::sys::Errno;

use super::below::{Links, open_below};
use super::rootfs::is_character_device;

/// linux/magic.h.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
/// fs/devpts: the multiplexer's inode in every instance.
const MULTIPLEXER_INODE: u64 = 2;
/// Major and minor number of the multiplexer.
const MULTIPLEXER: (u32, u32) = (5, 2);

#[derive(Debug, Error)]
pub enum TerminalError {
    #[error("cannot open `/dev/pts/ptmx` of the container")]
    Open { source: Errno },
    #[error("`/dev/pts/ptmx` of the container is not the terminal multiplexer")]
    NotAMultiplexer,
    #[error("cannot make a terminal")]
    Make { source: Errno },
}

/// Rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// Both ends of a new terminal.
#[derive(Debug)]
pub struct Terminal {
    /// The caller's.
    pub master: OwnedFd,
    /// The program's.
    pub peer: OwnedFd,
}

impl Terminal {
    /// A terminal of the devpts that is mounted at `/dev/pts` below `root`, owned by `uid`.
    pub fn open(root: BorrowedFd<'_>, size: TerminalSize, uid: u32) -> Result<Self, TerminalError> {
        let place = open_below(root, c"dev/pts/ptmx", OFlags::PATH, Links::Refuse)
            .map_err(|source| TerminalError::Open { source })?;
        if !is_multiplexer(place.as_fd()).map_err(|source| TerminalError::Open { source })? {
            return Err(TerminalError::NotAMultiplexer);
        }
        // The same file again, this time to be used; no name of the container is looked up.
        let reopened = format!("/proc/self/fd/{}", place.as_raw_fd());
        let master = open(reopened, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|source| TerminalError::Open { source })?;
        let made = || -> Result<OwnedFd, Errno> {
            unlockpt(&master)?;
            let peer = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            tcsetwinsize(&master, Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 })?;
            rustix::fs::fchown(&peer, Some(rustix::fs::Uid::from_raw(uid)), None)?;
            Ok(peer)
        };
        let peer = made().map_err(|source| TerminalError::Make { source })?;
        Ok(Self { master, peer })
    }
}

fn is_multiplexer(place: BorrowedFd<'_>) -> Result<bool, Errno> {
    #[allow(clippy::unnecessary_cast, reason = "the field's type depends on the architecture")]
    let on_devpts = fstatfs(place)?.f_type as i64 == DEVPTS_SUPER_MAGIC;
    let right_node = fstat(place)?.st_ino == MULTIPLEXER_INODE;
    let right_device = is_character_device(place, MULTIPLEXER.0, MULTIPLEXER.1).is_ok();
    Ok(on_devpts && right_node && right_device)
}
