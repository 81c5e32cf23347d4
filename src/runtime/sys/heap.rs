//! Giving memory back.

/// Returns free pages of the C library's heap to the kernel: malloc_trim(3). Does nothing on other C libraries.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
