//! Credentials of the calling thread: ids, groups, capabilities, and the process controls about them.

use super::{Errno, check};

/// Set the supplementary groups of the calling thread alone: setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the pointer and the length describe one slice of gid_t, which the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Set real, effective and saved ids of the calling thread alone, the group first (afterwards it could not be):
/// setresgid(2), setresuid(2).
pub fn set_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: plain numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: plain numbers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// A set of capabilities, one bit each as capabilities(7) numbers them.
pub type CapabilityBits = u64;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Set the capability sets of the calling thread: capset(2).
pub fn capset(effective: CapabilityBits, permitted: CapabilityBits, inheritable: CapabilityBits) -> Result<(), Errno> {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 of the interface reads one header and two data structures, both live across the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Take a capability out of the bounding set for good: PR_CAPBSET_DROP.
pub fn drop_from_bounding_set(capability: u32) -> Result<(), Errno> {
    // SAFETY: plain numbers only.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) }.into()).map(drop)
}

/// The highest capability that this kernel knows.
pub fn last_capability() -> u32 {
    const MOST: u32 = 63;
    (0..=MOST)
        // SAFETY: plain numbers only; an unknown capability answers EINVAL.
        .take_while(|&number| unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) } >= 0)
        .last()
        .unwrap_or(0)
}

/// Set the secure bits of the calling thread: PR_SET_SECUREBITS.
pub fn set_secure_bits(bits: u32) -> Result<(), Errno> {
    // SAFETY: plain numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, libc::c_ulong::from(bits), 0, 0, 0) }.into()).map(drop)
}

/// Process controls without a result of their own; prctl(2) describes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prctl {
    /// The kernel sends this signal when the parent thread dies. Cleared by a change of credentials.
    ParentDeathSignal(i32),
    /// Nothing that is executed from here on grants a privilege.
    NoNewPrivileges,
    /// No core dump, and `/proc/PID` belongs to root and needs CAP_SYS_PTRACE; until the next exec.
    NotDumpable,
    /// Permitted capabilities survive the change away from user 0.
    KeepCapabilities,
    ClearAmbient,
    RaiseAmbient(u32),
}

pub fn prctl(control: Prctl) -> Result<(), Errno> {
    const AMBIENT_RAISE: libc::c_ulong = 2;
    const AMBIENT_CLEAR_ALL: libc::c_ulong = 4;
    let (option, first, second): (libc::c_int, libc::c_ulong, libc::c_ulong) = match control {
        Prctl::ParentDeathSignal(signal) => (libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0),
        Prctl::NoNewPrivileges => (libc::PR_SET_NO_NEW_PRIVS, 1, 0),
        Prctl::NotDumpable => (libc::PR_SET_DUMPABLE, 0, 0),
        Prctl::KeepCapabilities => (libc::PR_SET_KEEPCAPS, 1, 0),
        Prctl::ClearAmbient => (libc::PR_CAP_AMBIENT, AMBIENT_CLEAR_ALL, 0),
        Prctl::RaiseAmbient(capability) => (libc::PR_CAP_AMBIENT, AMBIENT_RAISE, capability.into()),
    };
    // SAFETY: all these options take plain numbers.
    check(unsafe { libc::prctl(option, first, second, 0, 0) }.into()).map(drop)
}
