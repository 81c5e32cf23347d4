//! What a filter sees of a system call: `struct seccomp_data`.

/// A system call as a filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SeccompData {
    /// The number, as the calling convention of `arch` has it.
    pub nr: u32,
    /// An `AUDIT_ARCH_*` number; see [`audit_arch`](super::audit_arch).
    pub arch: u32,
    pub instruction_pointer: u64,
    /// All six, whether the call takes them or not; of 32-bit programs with the upper half 0.
    pub args: [u64; 6],
}

/// Where the fields lie, in bytes (linux/seccomp.h). Filters load 32 bits at a time.
pub mod seccomp_offsets {
    pub const NR: u32 = 0;
    pub const ARCH: u32 = 4;
    pub const INSTRUCTION_POINTER: u32 = 8;
    pub const ARGS: u32 = 16;
    /// The whole structure.
    pub const SIZE: u32 = 64;

    /// The lower 32 bits of argument `index` (0..=5).
    pub const fn argument_low(index: u32) -> u32 {
        ARGS + 8 * index + if cfg!(target_endian = "big") { 4 } else { 0 }
    }

    /// The upper 32 bits of argument `index` (0..=5).
    pub const fn argument_high(index: u32) -> u32 {
        ARGS + 8 * index + if cfg!(target_endian = "big") { 0 } else { 4 }
    }
}

impl SeccompData {
    /// The 32 bits at `offset`, `None` where the kernel would refuse the load.
    pub fn word(&self, offset: u32) -> Option<u32> {
        if !offset.is_multiple_of(4) || offset >= seccomp_offsets::SIZE {
            return None;
        }
        let halves = |value: u64, at: u32| match at == seccomp_offsets::argument_low(0) - seccomp_offsets::ARGS {
            true => value as u32,
            false => (value >> 32) as u32,
        };
        Some(match offset {
            seccomp_offsets::NR => self.nr,
            seccomp_offsets::ARCH => self.arch,
            8 | 12 => halves(self.instruction_pointer, offset - 8),
            _ => halves(self.args[((offset - 16) / 8) as usize], offset % 8),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lie_where_the_kernel_has_them() {
        let args = [0, 1, 2, 3, 4, 0xaabb_ccdd_1122_3344];
        let data = SeccompData { nr: 39, arch: 0xc000_003e, instruction_pointer: 0x5_0000_0006, args };
        assert_eq!([data.word(0), data.word(4)], [Some(39), Some(0xc000_003e)]);
        assert_eq!(data.word(seccomp_offsets::argument_low(5)), Some(0x1122_3344));
        assert_eq!(data.word(seccomp_offsets::argument_high(5)), Some(0xaabb_ccdd));
        assert_eq!(data.word(seccomp_offsets::argument_low(3)), Some(3));
        assert_eq!([data.word(64), data.word(2)], [None, None]);
        if cfg!(target_endian = "little") {
            assert_eq!([data.word(8), data.word(12)], [Some(6), Some(5)]);
        }
    }
}
