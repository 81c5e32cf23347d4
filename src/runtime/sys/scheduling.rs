//! How the calling process is scheduled and how it sees the machine: policy, I/O priority, processors, personality, memory
//! policy.

use super::{Errno, check};

/// `struct sched_attr` of sched_setattr(2), in its first version. `priority` counts for the real-time policies, `nice` for the
/// others, the three times (nanoseconds) for `SCHED_DEADLINE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// Filled in by [`set_scheduler`].
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Schedule the calling thread so: sched_setattr(2).
pub fn set_scheduler(attributes: &SchedulerAttributes) -> Result<(), Errno> {
    let attributes = SchedulerAttributes { size: size_of::<SchedulerAttributes>() as u32, ..*attributes };
    // SAFETY: the kernel reads as many bytes as the structure says, which is its size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0u32) }).map(drop)
}

/// `class` (1 real time, 2 best effort, 3 idle) and `level` (0 first, 7 last) of the calling process: ioprio_set(2).
pub fn set_io_priority(class: u32, level: u32) -> Result<(), Errno> {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    // SAFETY: plain numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, class << CLASS_SHIFT | level) }).map(drop)
}

/// Run the process `pid` (0: the calling one) on the processors whose bits are set only: sched_setaffinity(2).
pub fn set_affinity(pid: i32, processors: &[u64]) -> Result<(), Errno> {
    // SAFETY: pointer and length in bytes describe one slice, which is only read.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(processors), processors.as_ptr()) })
        .map(drop)
}

/// The execution domain of the calling process: personality(2).
pub fn set_personality(domain: u64) -> Result<(), Errno> {
    // SAFETY: plain numbers only.
    check(unsafe { libc::syscall(libc::SYS_personality, domain) }).map(drop)
}

/// The calling thread's memory policy: `mode` is `MPOL_*` with its flags, `nodes` a bit for each node: set_mempolicy(2).
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<(), Errno> {
    let bits = nodes.len() * u64::BITS as usize;
    // SAFETY: the kernel reads as many bits as said, which the slice has; it counts one less than it is told.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits + 1 - usize::from(bits == 0)) })
        .map(drop)
}
