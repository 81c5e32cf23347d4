//! The only `unsafe`: one function per system call.
pub mod netlink;
