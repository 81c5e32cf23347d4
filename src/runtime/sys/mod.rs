//! The only `unsafe`: one function per system call.

mod heap;
mod inherited;
mod pidfd;

pub use heap::trim_heap;
pub use inherited::take_inherited;
pub use pidfd::signal_process;
