//! Names of capabilities and sets of them (capabilities(7), linux/capability.h).

use crate::runtime::sys::CapabilityBits;

/// In the kernel's numbering.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Every capability that has a name here, as `CAP_…`, in the kernel's order.
pub fn capability_names() -> &'static [&'static str] {
    &NAMES
}

/// The number of `CAP_…`; `None` if no kernel that we know of has it.
pub fn capability_number(name: &str) -> Option<u32> {
    NAMES.iter().position(|known| *known == name).map(|index| index as u32)
}

/// The set of these names. Unknown ones are left out, as the specification has it ("log a warning"); the caller finds them
/// with [`capability_number`].
pub fn capability_set<S: AsRef<str>>(names: &[S]) -> CapabilityBits {
    names.iter().filter_map(|name| capability_number(name.as_ref())).fold(0, |set, number| set | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_numbers_of_the_kernel() {
        assert_eq!(capability_number("CAP_CHOWN"), Some(0));
        assert_eq!(capability_number("CAP_SYS_ADMIN"), Some(21));
        assert_eq!(capability_number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(capability_number("CAP_EVERYTHING"), None);
    }

    #[test]
    fn unknown_names_are_not_in_the_set() {
        assert_eq!(capability_set(&["CAP_KILL", "CAP_NEW", "CAP_CHOWN"]), 0b10_0001);
    }
}
