//! Options of netlink sockets that no crate of ours sets. Everything else about sockets is safe in nix.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// A switch of a netlink socket (netlink(7), `SOL_NETLINK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkOption {
    /// `NETLINK_CAP_ACK`: an error carries the header of the request, not the whole of it.
    CappedAck,
    /// `NETLINK_EXT_ACK`: an error carries a sentence from the kernel.
    ExtendedAck,
}

/// Switches `option` on: setsockopt(2).
pub fn enable_netlink_option(socket: impl AsFd, option: NetlinkOption) -> Result<(), Errno> {
    let name = match option {
        NetlinkOption::CappedAck => libc::NETLINK_CAP_ACK,
        NetlinkOption::ExtendedAck => libc::NETLINK_EXT_ACK,
    };
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel reads `length` bytes of `on`, which lives
    // until it returns.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_NETLINK, name, (&raw const on).cast(), length)
    };
    Errno::result(result).map(drop)
}
