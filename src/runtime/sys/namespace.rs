//! Namespaces by descriptor, the calls that a detached container's first process makes, and its loopback.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, SignalSet, check};

/// What kind of namespace `namespace` is: one of `CLONE_NEW*` (NS_GET_NSTYPE of ioctl_ns(2)).
pub fn namespace_type(namespace: BorrowedFd<'_>) -> Result<u64, Errno> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: takes no argument and touches no memory.
    check(unsafe { libc::syscall(libc::SYS_ioctl, namespace.as_raw_fd(), NS_GET_NSTYPE, 0usize) })
        .map(|kind| kind as u64)
}

/// Enter the namespace behind `namespace`, which must be of the type `kind` (a `CLONE_NEW*`): setns(2).
pub fn enter_namespace(namespace: BorrowedFd<'_>, kind: u64) -> Result<(), Errno> {
    // SAFETY: plain numbers; the callers have one thread.
    check(unsafe { libc::syscall(libc::SYS_setns, namespace.as_raw_fd(), kind as libc::c_int) }).map(drop)
}

/// New namespaces (`CLONE_NEW*`) for the calling thread; of `pid` and `time` for its children to come: unshare(2).
pub fn unshare(kinds: u64) -> Result<(), Errno> {
    // SAFETY: the callers pass kinds of namespaces only, which concern neither memory nor descriptors.
    check(unsafe { libc::syscall(libc::SYS_unshare, kinds as libc::c_int) }).map(drop)
}

/// A descriptor that becomes readable when a signal of `set` (which must be blocked) is pending: signalfd4(2).
pub fn signal_descriptor(set: SignalSet) -> Result<OwnedFd, Errno> {
    // SAFETY: the set is 8 readable bytes.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_signalfd4, -1, &raw const set.0, 8usize, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    })?;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Close every descriptor from `first` on but these: close_range(2). For a process that will use none of the others again
/// before it execs or ends.
pub fn close_from_but<const N: usize>(first: u32, mut keep: [i32; N]) -> Result<(), Errno> {
    keep.sort_unstable();
    let mut next = first;
    for number in keep.into_iter().map(|number| number as u32).filter(|number| *number >= first) {
        if number > next {
            close_range(next, number - 1)?;
        }
        next = number + 1;
    }
    close_range(next, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: the callers are children between clone and exec, which touch none of these descriptors afterwards.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Bring the loopback interface of the calling thread's network namespace up: netdevice(7), without allocating.
pub fn loopback_up() -> Result<(), Errno> {
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        flags: i16,
        rest: [u8; 22],
    }
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the structure has the size and layout of `struct ifreq`, read and written by the kernel.
    check(unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) })?;
    request.flags |= (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) }).map(drop)
}
