//! The terminal of a detached container: made by its maker in the container's own devpts, handed to the container's process
//! over their channel, and to whoever asked for it over the console socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::runtime::sys::{self, Errno};

use super::rootfs::attach;

/// Send a message with descriptors: SCM_RIGHTS of unix(7).
pub fn send_descriptors(socket: BorrowedFd<'_>, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// Wait for a word, and the terminal that may come with it: in the container's process its maker's. No allocation.
pub fn receive_terminal(channel: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0_u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(channel, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    if received.bytes != 1 {
        return Err(Errno::CONNRESET);
    }
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            return Ok(descriptors.next());
        }
    }
    Ok(None)
}

/// In the container's process, in its root: the terminal becomes standard input, output and error, the controlling terminal of
/// the session, and `/dev/console`. Mounted by descriptor on a file that is no link (CVE-2025-52565).
pub(super) fn take(peer: BorrowedFd<'_>) -> Result<(), Errno> {
    for number in 0..3 {
        sys::duplicate_onto(peer, number)?;
    }
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dev = openat(CWD, c"/dev", flags, Mode::empty())?;
    let make = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match openat(&dev, c"console", make, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        // A `/dev` that cannot be written to goes without.
        Err(Errno::ROFS) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    let place = openat(&dev, c"console", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    use rustix::mount::{OpenTreeFlags, open_tree};
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let console = open_tree(peer, c"", clone)?;
    attach(console.as_fd(), place.as_fd())
}
