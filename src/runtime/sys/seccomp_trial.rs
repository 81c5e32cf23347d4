//! Asks the kernel itself what it answers under a filter: a child installs it and makes calls, the parent learns how each
//! ended. This is how a filter is tried out, and how the evaluator is held against the kernel.

use super::{Errno, SeccompFilterFlags, SockFilter, check, seccomp_install};

/// How a call enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallAbi {
    /// As this program's own calls.
    Native,
    /// As those of 32-bit programs (x86_64 only; elsewhere the child ends with [`TrialAnswer::Unsupported`]).
    X86,
}

/// One call to make. Only calls that do nothing with any arguments are safe to try where the filter may allow them.
#[derive(Clone, Copy, Debug)]
pub struct RawCall {
    pub abi: CallAbi,
    pub nr: u32,
    pub args: [u64; 6],
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialAnswer {
    /// It came back with this, error numbers negative.
    Returned(i64),
    /// The process ended by SIGSYS.
    Killed,
    /// The child could not make the call at all.
    Unsupported,
}

/// Shared between parent and child: how many calls came back, and with what.
struct Board {
    memory: *mut i64,
    places: usize,
}

const INSTALL_FAILED: i32 = 1;
const UNSUPPORTED: i32 = 2;

/// Forks a child that sets no_new_privs, installs `program` and makes `calls` in order until one ends it. Gives an answer
/// for each call made, so as many as `calls` if none was deadly.
///
/// The filter must allow `exit_group`. Fails with `EINVAL` if the kernel refuses the program, with `ECHILD` if the child
/// ended in another way than by the filter, and with what kept the child from being made.
pub fn make_calls_filtered(program: &[SockFilter], calls: &[RawCall]) -> Result<Vec<TrialAnswer>, Errno> {
    let board = Board::new(calls.len())?;
    // SAFETY: the child runs `in_child` alone, which makes system calls on memory that was there before, takes no lock,
    // allocates nothing and never returns, as fork in a program with threads demands.
    let pid = check(i64::from(unsafe { libc::fork() }))? as libc::pid_t;
    if pid == 0 {
        in_child(program, calls, &board);
    }
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live place for the result, and `pid` a child of this process not waited for before.
        match check(i64::from(unsafe { libc::waitpid(pid, &raw mut status, 0) })) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                break;
            }
        };
    }
    let mut answers: Vec<TrialAnswer> = (0..board.count()).map(|at| TrialAnswer::Returned(board.get(at))).collect();
    if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS {
        answers.push(TrialAnswer::Killed);
    } else if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == UNSUPPORTED {
        answers.push(TrialAnswer::Unsupported);
    } else if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == INSTALL_FAILED {
        return Err(Errno::INVAL);
    } else if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        return Err(Errno::CHILD);
    }
    Ok(answers)
}

fn in_child(program: &[SockFilter], calls: &[RawCall], board: &Board) -> ! {
    // SAFETY: prctl with these two options takes numbers only. A core of this child is of no use to anybody.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
    let mut code = 0;
    if seccomp_install(program, SeccompFilterFlags(0)).is_err() {
        code = INSTALL_FAILED;
    } else {
        for (at, call) in calls.iter().enumerate() {
            match make_call(call) {
                Some(result) => board.set(at, result),
                None => {
                    code = UNSUPPORTED;
                    break;
                }
            }
        }
    }
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(code) }
}

fn make_call(call: &RawCall) -> Option<i64> {
    match call.abi {
        CallAbi::Native => Some(native_call(call)),
        CallAbi::X86 => x86_call(call),
    }
}

fn native_call(call: &RawCall) -> i64 {
    let [a, b, c, d, e, f] = call.args.map(u64::cast_signed);
    // SAFETY: the caller names only calls that do nothing with any arguments, in a child made for this.
    let result = check(unsafe { libc::syscall(i64::from(call.nr), a, b, c, d, e, f) });
    result.unwrap_or_else(|errno| -i64::from(errno.raw_os_error()))
}

#[cfg(target_arch = "x86_64")]
fn x86_call(call: &RawCall) -> Option<i64> {
    let [first, second, third, fourth, fifth, sixth] = call.args;
    let mut result = u64::from(call.nr);
    // SAFETY: as `native_call`. The kernel keeps all registers but rax; r8 to r11 are lost on the way in of some
    // versions. rbx and rbp cannot be named as operands, so they are exchanged around the call.
    unsafe {
        std::arch::asm!(
            "push rbp",
            "xchg rbx, r12",
            "mov rbp, r13",
            "int 0x80",
            "xchg rbx, r12",
            "pop rbp",
            inout("rax") result,
            inout("r12") first => _,
            in("rcx") second,
            in("rdx") third,
            in("rsi") fourth,
            in("rdi") fifth,
            in("r13") sixth,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    Some(i64::from((result as u32).cast_signed()))
}

#[cfg(not(target_arch = "x86_64"))]
fn x86_call(_: &RawCall) -> Option<i64> {
    None
}

impl Board {
    fn new(places: usize) -> Result<Self, Errno> {
        let length = (places + 1) * size_of::<i64>();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: asks for fresh memory at a place of the kernel's choice; touches nothing that is there.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(Errno::NOMEM);
        }
        Ok(Self { memory: memory.cast(), places })
    }

    /// How many calls came back; the child has ended.
    fn count(&self) -> usize {
        // SAFETY: place 0 of the mapping is the count, aligned as memory of the kernel is.
        let count = unsafe { self.memory.read_volatile() };
        usize::try_from(count).unwrap_or(0).min(self.places)
    }

    fn get(&self, at: usize) -> i64 {
        assert!(at < self.places);
        // SAFETY: within the mapping of `places` + 1 numbers, and the child that wrote it has ended.
        unsafe { self.memory.add(at + 1).read_volatile() }
    }

    fn set(&self, at: usize, result: i64) {
        // SAFETY: within the mapping, `at` being an index of the calls it was made for; the child alone writes.
        unsafe {
            self.memory.add(at + 1).write_volatile(result);
            self.memory.write_volatile(at as i64 + 1);
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, of the same length, not used after this.
        unsafe { libc::munmap(self.memory.cast(), (self.places + 1) * size_of::<i64>()) };
    }
}
