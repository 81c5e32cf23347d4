//! The only `unsafe`: one function per system call.
pub mod netlink;

pub mod seccomp;
mod seccomp_trial;

pub use rustix::io::Errno;
pub use seccomp::{SeccompFilterFlags, SockFilter, seccomp_install};
pub use seccomp_trial::{CallAbi, RawCall, TrialAnswer, make_calls_filtered};

/// The result of a raw system call: negative numbers down to -4095 are error codes.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 {
        // SAFETY: the address of this thread's errno is always valid to read.
        let code = unsafe { *libc::__errno_location() };
        return Err(Errno::from_raw_os_error(code));
    }
    Ok(result)
}
