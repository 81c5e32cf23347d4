//! The only `unsafe`: one function per system call, typed flags in, owned descriptors out, `Errno` on failure.
//!
//! Only the calls are here that rustix lacks, marks unsafe, or wraps with an allocation: most of these are made between
//! `clone` and `exec`, where nothing may allocate, lock or touch the C library's state. None of them goes through
//! a C library wrapper that does more than the call (glibc's `setuid` family signals every thread, its `fork` runs handlers).
//! What the calls are used for is left to the rooms that use them.

pub mod async_fd;
mod bpf;
mod creds;
mod inherited;
mod memory;
mod mount;
mod namespace;
pub mod netlink;
mod pidfd;
mod process;
mod scheduling;
pub mod seccomp;
mod seccomp_trial;
mod signal;

pub use bpf::{BpfDeviceInstruction, attach_device_program};
pub use creds::{
    CapabilityBits, Prctl, capset, drop_from_bounding_set, last_capability, prctl, set_groups, set_ids, set_secure_bits,
};
pub use inherited::take_inherited;
pub use memory::{OwnMemory, give_memory_back, start_over};
pub use mount::{MountAttributes, mount_setattr};
pub use namespace::{close_from_but, enter_namespace, loopback_up, namespace_type, signal_descriptor, unshare};
pub use pidfd::signal_process;
pub use process::{
    ArgumentArea, Cloned, ExecStrings, NamespaceFlags, ReapedChild, clone_child, clone_sibling, clone_sibling_in,
    close_all_but, close_on_exec_from, current_directory, duplicate_onto, execute, execute_descriptor, exit_now,
    new_session_keyring, reap_any, reap_child, replace_arguments, rlimit_of, set_rlimit, set_rlimit_of,
    unshare_cgroup_namespace,
};
pub use rustix::io::Errno;
pub use scheduling::{
    SchedulerAttributes, set_affinity, set_io_priority, set_memory_policy, set_personality, set_scheduler,
};
pub use seccomp::{SeccompFilterFlags, SockFilter, seccomp_install, seccomp_install_notifying};
pub use seccomp_trial::{CallAbi, RawCall, TrialAnswer, make_calls_filtered};
pub use signal::{SignalSet, block_signals, default_dispositions, send_signal, wait_for_signal};

/// The result of a raw system call: negative numbers down to -4095 are error codes.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 {
        // SAFETY: the address of this thread's errno is always valid to read.
        let code = unsafe { *libc::__errno_location() };
        return Err(Errno::from_raw_os_error(code));
    }
    Ok(result)
}
