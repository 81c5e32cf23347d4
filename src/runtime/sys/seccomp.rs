//! seccomp(2): hand a compiled filter to the kernel. Compiling, checking and evaluating one is the seccomp room's.

use std::os::fd::{FromRawFd, OwnedFd};

use super::{Errno, check};

/// One instruction of classic BPF as the kernel reads it (`struct sock_filter`, linux/filter.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFilter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

#[repr(C)]
struct SockProgram {
    len: u16,
    filter: *const SockFilter,
}

/// `SECCOMP_FILTER_FLAG_*` of seccomp(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeccompFilterFlags(pub u32);

/// Install `program` on the calling thread. Needs no_new_privs, or CAP_SYS_ADMIN in the user namespace.
pub fn seccomp_install(program: &[SockFilter], flags: SeccompFilterFlags) -> Result<(), Errno> {
    install(program, flags).map(drop)
}

/// The same with `SECCOMP_FILTER_FLAG_NEW_LISTENER` among the flags: returns the listener, which is close-on-exec.
pub fn seccomp_install_notifying(program: &[SockFilter], flags: SeccompFilterFlags) -> Result<OwnedFd, Errno> {
    const NEW_LISTENER: u32 = 1 << 3;
    if flags.0 & NEW_LISTENER == 0 {
        return Err(Errno::INVAL);
    }
    let listener = install(program, flags)?;
    // SAFETY: with the flag the result is a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as i32) })
}

fn install(program: &[SockFilter], flags: SeccompFilterFlags) -> Result<libc::c_long, Errno> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = SockProgram { len, filter: program.as_ptr() };
    // SAFETY: the structure describes one live slice of instructions, which the kernel copies and checks itself.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags.0, &raw const program) })
}
