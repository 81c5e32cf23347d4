//! The x32 calls: those of x86_64 that need no other entry, and 36 of their own (arch/x86/entry/syscalls/syscall_64.tbl of
//! Linux, the ABIs `common` and `x32`).

use syscalls::x86_64;

use super::X32_BIT;

/// Number of the first of [`OWN`].
const FIRST_OWN: u32 = 512;

/// Calls whose structures differ from those of x86_64, by number from [`FIRST_OWN`].
const OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// Calls of x86_64 alone, besides those that [`OWN`] stands for.
const ABSENT: [&str; 14] = [
    "uselib",
    "_sysctl",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "set_thread_area",
    "get_thread_area",
    "epoll_ctl_old",
    "epoll_wait_old",
    "vserver",
    "uretprobe",
    "uprobe",
    "map_shadow_stack",
];

fn is_common(call: x86_64::Sysno) -> bool {
    !OWN.contains(&call.name()) && !ABSENT.contains(&call.name())
}

/// Every call with its number, rising.
pub fn calls() -> Vec<(u32, &'static str)> {
    let number = |call: x86_64::Sysno| call.id().cast_unsigned() | X32_BIT;
    let (low, high): (Vec<_>, Vec<_>) = x86_64::Sysno::iter()
        .filter(|call| is_common(*call))
        .map(|call| (number(call), call.name()))
        .partition(|(number, _)| *number < FIRST_OWN | X32_BIT);
    let own = (FIRST_OWN | X32_BIT..).zip(OWN);
    low.into_iter().chain(own).chain(high).collect()
}

/// The number of the call `name`, with the bit.
pub fn number(name: &str) -> Option<u32> {
    if let Some(place) = OWN.iter().position(|one| *one == name) {
        return Some((FIRST_OWN + u32::try_from(place).ok()?) | X32_BIT);
    }
    let call = name.parse::<x86_64::Sysno>().ok().filter(|call| is_common(*call))?;
    Some(call.id().cast_unsigned() | X32_BIT)
}
