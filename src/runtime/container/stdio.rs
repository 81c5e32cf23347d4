//! Standard input, output and error of a container's process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::fcntl_dupfd_cloexec;

use crate::runtime::sys::{Errno, duplicate_onto};

/// What the process gets as its descriptors 0, 1 and 2. They stay the caller's too.
#[derive(Clone, Copy, Debug)]
pub struct Stdio<'a> {
    pub stdin: BorrowedFd<'a>,
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
}

impl Stdio<'static> {
    /// The caller's own.
    pub fn inherit() -> Self {
        Self { stdin: rustix::stdio::stdin(), stdout: rustix::stdio::stdout(), stderr: rustix::stdio::stderr() }
    }
}

impl Stdio<'_> {
    /// In the child: put them in place. All are copied out of the way first, since one may be the other's place.
    pub(super) fn put_in_place(&self) -> Result<(), Errno> {
        let copies = [out_of_the_way(self.stdin)?, out_of_the_way(self.stdout)?, out_of_the_way(self.stderr)?];
        for (number, copy) in copies.iter().enumerate() {
            duplicate_onto(copy.as_fd(), number as i32)?;
        }
        Ok(())
    }
}

/// A copy of a descriptor that is none of 0, 1 and 2.
pub(super) fn out_of_the_way(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    fcntl_dupfd_cloexec(descriptor, 3)
}

/// A pipe whose ends are none of 0, 1 and 2, even if the caller has those closed: the read end, the write end.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((moved_up(read)?, moved_up(write)?))
}

/// The same as a pair of sockets that keep messages apart.
pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((moved_up(ours)?, moved_up(theirs)?))
}

fn moved_up(descriptor: OwnedFd) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    if descriptor.as_raw_fd() > 2 { Ok(descriptor) } else { out_of_the_way(descriptor.as_fd()) }
}
