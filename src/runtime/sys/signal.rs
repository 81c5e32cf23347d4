//! Signals of the calling thread: masks, dispositions, waiting and sending, with the kernel's own 64-bit sets.

use super::{Errno, check};

/// A set of signals as the kernel has it: bit `n - 1` is signal `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalSet(pub u64);

impl SignalSet {
    pub const EMPTY: Self = Self(0);
    pub const ALL: Self = Self(!0);
    /// The kernel knows signals 1 to 64.
    pub const LAST: i32 = 64;

    #[must_use]
    pub const fn without(self, signal: i32) -> Self {
        Self(self.0 & !(1 << (signal - 1)))
    }
}

/// Replace the calling thread's mask; returns the one before: rt_sigprocmask(2).
pub fn block_signals(set: SignalSet) -> Result<SignalSet, Errno> {
    let mut before = SignalSet::EMPTY;
    // SAFETY: both pointers are to 8 bytes that live across the call, and 8 is the kernel's size of a set.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set.0, &raw mut before.0, 8usize)
    })?;
    Ok(before)
}

/// Every signal back to its default disposition. Ignored ones would stay ignored over exec: the language's runtime ignores
/// SIGPIPE, and no program in a container expects that.
pub fn default_dispositions() -> Result<(), Errno> {
    /// `struct kernel_sigaction` is 32 bytes on both architectures; all zero is SIG_DFL with no flags.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=SignalSet::LAST {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the kernel reads at most 32 bytes, and the handler they name is the default one.
        check(unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), std::ptr::null_mut::<u64>(), 8usize)
        })?;
    }
    Ok(())
}

/// Take the next pending signal of `set` (which must be blocked), waiting for one: rt_sigtimedwait(2) without a limit.
pub fn wait_for_signal(set: SignalSet) -> Result<i32, Errno> {
    // SAFETY: the set is 8 readable bytes; null pointers ask for no details and no time limit.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set.0,
            std::ptr::null_mut::<libc::siginfo_t>(),
            std::ptr::null::<libc::timespec>(),
            8usize,
        )
    })
    .map(|signal| signal as i32)
}

/// kill(2): `pid` as the calling process numbers it.
pub fn send_signal(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: plain numbers only.
    check(unsafe { libc::syscall(libc::SYS_kill, pid, signal) }).map(drop)
}
