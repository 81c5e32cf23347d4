//! Giving memory back: a process that only waits should hold next to nothing, because there is one for each container.

use std::sync::OnceLock;

/// Where this process's own memory lies, as proc_pid_stat(5) tells it. Addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnMemory {
    code_start: usize,
    code_end: usize,
    heap_start: usize,
}

/// What is below the stack pointer and may still be in use: the red zone and a few frames.
const STACK_IN_USE: usize = 16 << 10;
/// As far below as an earlier call may have reached.
const STACK_REACHED: usize = 1 << 20;
/// The C library's block of thread-local storage lies in a static program's heap; it and what follows it is kept.
const THREAD_BLOCK: usize = 8 << 10;
const PAGE: usize = 4096;

impl OwnMemory {
    /// Looks it up once. `None` where `/proc` does not tell.
    pub fn get() -> Option<Self> {
        static OWN: OnceLock<Option<OwnMemory>> = OnceLock::new();
        *OWN.get_or_init(|| Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?))
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything. Field 3 comes after it.
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        let own = Self { code_start: field(26)?, code_end: field(27)?, heap_start: field(47)? };
        (own.code_start > 0 && own.heap_start > 0).then_some(own)
    }
}

/// Returns what is free or can be read again to the kernel: free pages of the C library's heap, the stack's unused
/// part, and the mapped code, of which what is still executed comes back from the page cache.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointers and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
    if let Some(own) = OwnMemory::get() {
        drop_stack_and_code(own);
    }
}

/// Goes on with `run` and nothing else of the past: the heap's content is gone. Ends the process with `run`'s result.
///
/// `run` must not use anything that was allocated before, nor allocate: it gets its one argument by value, and what it is
/// given to run is a plain function, so that nothing of the caller's can be reached from it but statics.
pub fn start_over(own: Option<OwnMemory>, argument: i32, run: fn(i32) -> i32) -> ! {
    if let Some(own) = own {
        drop_stack_and_code(own);
        drop_heap(own);
    }
    super::exit_now(run(argument))
}

fn drop_stack_and_code(own: OwnMemory) {
    let here = 0u8;
    let top = (&raw const here as usize).saturating_sub(STACK_IN_USE) & !(PAGE - 1);
    forget(top.saturating_sub(STACK_REACHED), top);
    forget(own.code_start & !(PAGE - 1), own.code_end.next_multiple_of(PAGE));
}

fn drop_heap(own: OwnMemory) {
    // SAFETY: brk(0) changes nothing and returns the heap's end.
    let end = unsafe { libc::syscall(libc::SYS_brk, 0) } as usize;
    // SAFETY: returns this thread's identity, which is the address of its block.
    let thread_block = unsafe { libc::pthread_self() } as usize;
    let start = match (own.heap_start..end).contains(&thread_block) {
        true => thread_block + THREAD_BLOCK,
        false => own.heap_start,
    };
    forget(start.next_multiple_of(PAGE), end & !(PAGE - 1));
}

/// madvise(2) with MADV_DONTNEED: code is read again when it is executed, anonymous memory reads as zeros.
fn forget(start: usize, end: usize) {
    if start < end {
        // SAFETY: of the three callers' ranges, code is mapped from a file and never written to; the stack's range lies
        // below every live frame; the heap's is given up by `start_over`, whose `run` cannot reach it. Parts that are not
        // mapped are passed over by the kernel (ENOMEM).
        unsafe {
            libc::syscall(libc::SYS_madvise, start, end - start, libc::MADV_DONTNEED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_hold_anything() {
        let rest: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("1 (a) b (c) {}", rest.join(" "));
        assert_eq!(OwnMemory::parse(&stat), Some(OwnMemory { code_start: 26, code_end: 27, heap_start: 47 }));
        assert_eq!(OwnMemory::parse("1 (a"), None);
    }

    #[test]
    fn giving_memory_back_keeps_what_is_in_use() {
        let kept: Vec<u64> = (0..10_000).collect();
        give_memory_back();
        assert_eq!(kept.iter().sum::<u64>(), 49_995_000);
    }
}
