//! Making, becoming, leaving and reaping processes.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{Errno, check};

/// Namespaces that a child gets new ones of: `CLONE_NEW*` of clone(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFlags(pub u64);

impl NamespaceFlags {
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    pub const USER: u64 = libc::CLONE_NEWUSER as u64;
    pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
    /// `CLONE_NEWTIME` of linux/sched.h; not for clone_child: the offsets are set before the first process is in it.
    pub const TIME: u64 = 0x80;
}

/// Which side of a clone we are on.
pub enum Cloned {
    Child,
    /// The child's number, and a descriptor for it that is close-on-exec.
    Parent {
        pid: i32,
        pidfd: OwnedFd,
    },
}

/// linux/sched.h; the C library's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A child process with a copy of this one's memory, as fork(2) makes it: clone3(2). With `cgroup`, a directory of cgroup v2,
/// the child is born in it.
///
/// The child has one thread, and whatever lock another thread held stays locked in it for ever: it must make system calls
/// only, until it execs or exits. No handler that was registered for fork runs.
pub fn clone_child(namespaces: NamespaceFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: namespaces.0 | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(directory) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child works on its own copy of memory and stack, so returning twice is sound for a
    // caller that keeps to the contract above. The structure and the place for the descriptor live across the call.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel stored a new descriptor there, and nobody else knows it.
    Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// As [`clone_child`], but the new process becomes a child of the caller's parent: `CLONE_PARENT`. Returns its number, 0 in
/// itself. By the old call, because seccomp profiles refuse the new one, whose arguments they cannot read.
pub fn clone_sibling() -> Result<i32, Errno> {
    clone_sibling_in(NamespaceFlags::default())
}

/// The same in new namespaces.
pub fn clone_sibling_in(namespaces: NamespaceFlags) -> Result<i32, Errno> {
    const NULL: usize = 0;
    // SAFETY: as for `clone_child`; a null stack means the copy of the caller's own.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::CLONE_PARENT as libc::c_ulong | libc::SIGCHLD as libc::c_ulong | namespaces.0,
            NULL,
            NULL,
            NULL,
            NULL,
        )
    })?;
    Ok(pid as i32)
}

/// End the process, every thread of it, with nothing run and nothing flushed: exit_group(2).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: never returns; no handlers run.
    unsafe { libc::_exit(status) }
}

/// A list of strings as execve(2) wants it, made before the clone.
pub struct ExecStrings {
    pointers: Vec<*const c_char>,
    /// What the pointers point at. The heap buffers stay where they are when this moves.
    _strings: Vec<CString>,
}

// SAFETY: the pointers lead into buffers that this value owns and nobody changes.
unsafe impl Send for ExecStrings {}
// SAFETY: as above; sharing gives read access only.
unsafe impl Sync for ExecStrings {}

impl ExecStrings {
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

impl std::fmt::Debug for ExecStrings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self._strings.fmt(formatter)
    }
}

/// Become the program at `path`: execve(2). Returns only on failure.
pub fn execute(path: &CStr, arguments: &ExecStrings, environment: &ExecStrings) -> Errno {
    // SAFETY: both lists end with a null pointer and point at live C strings.
    let result = unsafe {
        libc::syscall(libc::SYS_execve, path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr())
    };
    check(result).err().unwrap_or(Errno::NOEXEC)
}

/// Become the program that is open at `file`: execveat(2) with AT_EMPTY_PATH. Returns only on failure.
pub fn execute_descriptor(file: BorrowedFd<'_>, arguments: &ExecStrings, environment: &ExecStrings) -> Errno {
    // SAFETY: as for `execute`; the path is a static empty string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    check(result).err().unwrap_or(Errno::NOEXEC)
}

/// Mark every descriptor from `first` on close-on-exec: close_range(2).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: only marks; no descriptor is closed here.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Close every descriptor but these, whoever owns it: close_range(2). For a process that will use none of the others again
/// before it execs or ends.
pub fn close_all_but<const N: usize>(mut keep: [RawFd; N]) -> Result<(), Errno> {
    keep.sort_unstable();
    let mut first = 0;
    for number in keep {
        let number = number as u32;
        if number > first {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: the callers are children between clone and exec, which touch none of these descriptors afterwards.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Make `number` refer to what `file` refers to, kept open over exec: dup3(2). For the numbers 0, 1 and 2 of a child.
pub fn duplicate_onto(file: BorrowedFd<'_>, number: RawFd) -> Result<(), Errno> {
    // SAFETY: in a child between clone and exec; what `number` was before is closed by the kernel in the same step.
    check(unsafe { libc::syscall(libc::SYS_dup3, file.as_raw_fd(), number, 0) }).map(drop)
}

/// The working directory as the kernel names it, into `buffer`: getcwd(2) without the C library's checks, so that a directory
/// outside of the root shows as `(unreachable)…`.
pub fn current_directory(buffer: &mut [u8]) -> Result<&[u8], Errno> {
    // SAFETY: pointer and length describe one writable slice.
    let length = check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    buffer.get(..length as usize).ok_or(Errno::RANGE)
}

/// A child that has ended and is gone from the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReapedChild {
    pub pid: i32,
    /// The exit status, or 128 and the number of the signal that killed it.
    pub status: i32,
}

/// Take one child that has ended, if there is one, without waiting: wait4(2). `ECHILD`: there are no children at all.
pub fn reap_any() -> Result<Option<ReapedChild>, Errno> {
    wait4(-1, libc::WNOHANG)
}

/// Wait until the child `pid` ends, and take it.
pub fn reap_child(pid: i32) -> Result<ReapedChild, Errno> {
    loop {
        match wait4(pid, 0) {
            Ok(Some(child)) => return Ok(child),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn wait4(pid: i32, options: i32) -> Result<Option<ReapedChild>, Errno> {
    let mut status: i32 = 0;
    // SAFETY: the status is one writable int; no usage is asked for.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_wait4, pid, &raw mut status, options, std::ptr::null_mut::<libc::rusage>())
    })? as i32;
    if pid == 0 {
        return Ok(None);
    }
    let status = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Ok(Some(ReapedChild { pid, status }))
}

/// Set a resource limit of the calling process: prlimit64(2). `resource` is `RLIMIT_*`, `u64::MAX` is no limit.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = [soft, hard];
    // SAFETY: `struct rlimit64` is two u64, read only; the old value is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, limit.as_ptr(), std::ptr::null_mut::<u64>()) })
        .map(drop)
}

/// The soft and the hard limit of a process: prlimit64(2).
pub fn rlimit_of(pid: i32, resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = [0_u64; 2];
    // SAFETY: `struct rlimit64` is two u64, written by the kernel; no new value is given.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, std::ptr::null::<u64>(), limit.as_mut_ptr()) })?;
    Ok((limit[0], limit[1]))
}

/// As [`set_rlimit`], of another process.
pub fn set_rlimit_of(pid: i32, resource: u32, (soft, hard): (u64, u64)) -> Result<(), Errno> {
    let limit = [soft, hard];
    // SAFETY: as for `set_rlimit`.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, limit.as_ptr(), std::ptr::null_mut::<u64>()) })
        .map(drop)
}

/// A new cgroup namespace for the calling thread, rooted at the cgroups it is in now: unshare(2).
pub fn unshare_cgroup_namespace() -> Result<(), Errno> {
    // SAFETY: concerns neither memory nor descriptors.
    check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWCGROUP) }).map(drop)
}

/// An anonymous session keyring, so that the caller's keys cannot be found: keyctl(2).
pub fn new_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_ulong = 1;
    // SAFETY: a null name asks for a keyring without one.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0usize) }).map(drop)
}

/// Where the calling process keeps the arguments that `/proc/PID/cmdline` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgumentArea {
    start: usize,
    end: usize,
}

impl ArgumentArea {
    /// From the text of `/proc/self/stat`: fields 48 and 49 of proc(5).
    pub fn from_stat(stat: &str) -> Option<Self> {
        // The second field is a name in brackets, which may contain anything.
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
        let start = fields.nth(45)?.parse().ok()?;
        let end = fields.next()?.parse().ok()?;
        (0 < start && start < end).then_some(Self { start, end })
    }
}

/// Show `name` instead of the arguments, in `/proc/PID/cmdline` and as the thread's name.
///
/// For a child that was cloned and will not exec: its copy of the arguments is used by nobody.
pub fn replace_arguments(area: ArgumentArea, name: &CStr) {
    let bytes = name.to_bytes_with_nul();
    let length = area.end - area.start;
    // SAFETY: the kernel laid the arguments out in this range of the stack, which stays mapped and writable; the area was
    // read of this very process image, and this is its only thread. At most `length` bytes are written.
    unsafe {
        let start = area.start as *mut u8;
        start.write_bytes(0, length);
        start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len().min(length - 1));
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_found_behind_a_name_with_brackets() {
        let rest: Vec<String> = (3..=52).map(|field| (field * 100).to_string()).collect();
        let stat = format!("7 (a) b) {}", rest.join(" "));
        assert_eq!(ArgumentArea::from_stat(&stat), Some(ArgumentArea { start: 4800, end: 4900 }));
        assert_eq!(ArgumentArea::from_stat("7 (a) S 1 2"), None);
    }

    #[test]
    fn the_arguments_of_this_process_are_found() {
        let area = ArgumentArea::from_stat(&std::fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(area.end - area.start, std::fs::read("/proc/self/cmdline").unwrap().len());
    }
}
