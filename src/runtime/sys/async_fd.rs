//! Descriptors that the async side waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets tokio's reactor wait until `descriptor` is readable: epoll_ctl(2). Call it within a tokio runtime. Descriptors
/// that epoll does not take, such as regular files, are an error.
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the reactor must never see another file under the registered number. `OwnedFd` keeps one open file under
    // one number until it is dropped, and `AsyncFd` takes it out of the reactor before it drops it.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
