//! Architectures: their names in profiles, their numbers in the kernel, their system calls.

use syscalls::{aarch64, x86, x86_64};

mod x32;

/// `AUDIT_ARCH_*` (linux/audit.h): the ELF machine, with bit 31 for 64 bits and bit 30 for little endian.
pub mod audit_arch {
    pub const X86_64: u32 = 0xc000_003e;
    pub const I386: u32 = 0x4000_0003;
    pub const AARCH64: u32 = 0xc000_00b7;
    pub const ARM: u32 = 0x4000_0028;
    pub const RISCV64: u32 = 0xc000_00f3;
}

/// Calls of the x32 convention have the arch of x86_64 and this bit in the number.
pub const X32_BIT: u32 = 0x4000_0000;

/// An architecture whose system calls are known by name and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    X86_64,
    /// 32-bit programs on x86_64.
    X86,
    /// Programs on x86_64 with 64-bit registers and 32-bit addresses; its numbers carry a bit of their own.
    X32,
    Aarch64,
}

/// Every name a profile may use. Those without calls of their own here are known and never matched.
const NAMES: [&str; 22] = [
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SHEB",
];

impl Architecture {
    const ALL: [Self; 4] = [Self::X86_64, Self::X86, Self::X32, Self::Aarch64];

    /// What this program was built for; `None` where its calls are not known.
    pub const fn native() -> Option<Self> {
        match () {
            () if cfg!(target_arch = "x86_64") => Some(Self::X86_64),
            () if cfg!(target_arch = "aarch64") => Some(Self::Aarch64),
            () => None,
        }
    }

    /// The name in profiles and in the OCI form.
    pub fn scmp_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }

    /// The name that people use, as `uname -m` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "aarch64",
        }
    }

    /// By [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The name in `includes` and `excludes` of a profile.
    pub fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
        }
    }

    /// `AUDIT_ARCH_*`, what a filter sees.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => audit_arch::X86_64,
            Self::X86 => audit_arch::I386,
            Self::Aarch64 => audit_arch::AARCH64,
        }
    }

    /// Arguments have 64 bits.
    pub fn is_64_bit(self) -> bool {
        self != Self::X86
    }

    /// By `SCMP_ARCH_…`; `None` for one whose calls are not known. [`is_name`](Self::is_name) tells whether it exists.
    pub(super) fn from_scmp_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.scmp_name() == name)
    }

    pub(super) fn is_name(name: &str) -> bool {
        NAMES.contains(&name) || name == "SCMP_ARCH_SH"
    }

    /// Every call with its number, rising.
    pub(super) fn calls(self) -> Vec<(u32, &'static str)> {
        match self {
            Self::X86_64 => x86_64::Sysno::iter().map(|call| (call.id().cast_unsigned(), call.name())).collect(),
            Self::X86 => x86::Sysno::iter().map(|call| (call.id().cast_unsigned(), call.name())).collect(),
            Self::X32 => x32::calls(),
            Self::Aarch64 => aarch64::Sysno::iter().map(|call| (call.id().cast_unsigned(), call.name())).collect(),
        }
    }

    /// The number of the call `name`.
    pub fn number(self, name: &str) -> Option<u32> {
        let id = match self {
            Self::X32 => return x32::number(name),
            Self::X86_64 => name.parse::<x86_64::Sysno>().ok()?.id(),
            Self::X86 => name.parse::<x86::Sysno>().ok()?.id(),
            Self::Aarch64 => name.parse::<aarch64::Sysno>().ok()?.id(),
        };
        u32::try_from(id).ok()
    }

    /// Whose call `nr` under `arch` (`AUDIT_ARCH_*`) is, and its name if it has one.
    pub fn call(arch: u32, nr: u32) -> (Option<Self>, Option<&'static str>) {
        let is_meant = |one: &Self| one.audit() == arch && (*one == Self::X32) == (nr >= X32_BIT);
        let one =
            Self::ALL.into_iter().find(|one| one.audit() == arch && (arch != audit_arch::X86_64 || is_meant(one)));
        let name = one.and_then(|one| one.calls().into_iter().find(|(number, _)| *number == nr).map(|(_, name)| name));
        (one, name)
    }

    /// Some known architecture has a call of this name.
    pub(super) fn any_has(name: &str) -> bool {
        Self::ALL.into_iter().any(|one| one.number(name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_the_kernel() {
        assert_eq!(Architecture::X86_64.number("openat"), Some(257));
        assert_eq!(Architecture::X86.number("openat"), Some(295));
        assert_eq!(Architecture::Aarch64.number("openat"), Some(56));
        assert_eq!(Architecture::Aarch64.number("open"), None);
        for one in Architecture::ALL {
            let calls = one.calls();
            assert!(calls.windows(2).all(|pair| pair[0].0 < pair[1].0), "{one:?} is not sorted");
            assert!(calls.iter().all(|(number, name)| one.number(name) == Some(*number)));
            assert!(Architecture::is_name(one.scmp_name()));
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_c_library_agrees_on_numbers() {
        for (name, number) in [("read", libc::SYS_read), ("clone3", libc::SYS_clone3), ("bpf", libc::SYS_bpf)] {
            assert_eq!(Architecture::X86_64.number(name).map(i64::from), Some(number));
        }
    }
}
