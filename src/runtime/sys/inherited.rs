//! Descriptors that this process was started with.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Takes possession of a descriptor that whoever executed this program left open at `number`, and makes it
/// close-on-exec: fcntl(2). `EBADF`: there is none.
///
/// Call it once for a number, before anything of this program opens a file; the number then has no other owner.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: sets a flag of a number; a number that is not open is an error.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and by the contract above nothing else in this program owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
