//! Device programs for cgroups of version 2: bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, check};

/// One instruction of extended BPF (`struct bpf_insn`, linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfDeviceInstruction {
    code: u8,
    /// The destination in the lower half, the source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl BpfDeviceInstruction {
    const fn new(code: u8, destination: u8, source: u8, immediate: i32) -> Self {
        Self { code, registers: destination | source << 4, offset: 0, immediate }
    }

    /// Load the 32-bit word at `offset` behind the address in `source`.
    pub const fn load_word(destination: u8, source: u8, offset: i16) -> Self {
        Self { offset, ..Self::new(0x61, destination, source, 0) }
    }

    pub const fn move_register(destination: u8, source: u8) -> Self {
        Self::new(0xbc, destination, source, 0)
    }

    pub const fn and(destination: u8, mask: i32) -> Self {
        Self::new(0x54, destination, 0, mask)
    }

    pub const fn shift_right(destination: u8, bits: i32) -> Self {
        Self::new(0x74, destination, 0, bits)
    }

    /// The way is given by [`Self::to`].
    pub const fn jump_unless_equal(register: u8, value: i32) -> Self {
        Self::new(0x55, register, 0, value)
    }

    pub const fn jump_if_equal(register: u8, value: i32) -> Self {
        Self::new(0x15, register, 0, value)
    }

    /// A jump leads over this many instructions; anything else stays as it is.
    #[must_use]
    pub const fn to(self, over: i16) -> Self {
        if self.code & 0x07 == 0x05 { Self { offset: over, ..self } } else { self }
    }

    /// 1: allow, 0: deny.
    pub const fn answer(value: i32) -> Self {
        Self::new(0xb7, 0, 0, value)
    }

    pub const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0)
    }
}

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;

/// Let `program` decide on the devices that processes of the cgroup open and make. One that was attached by somebody before stays:
/// both must allow.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: &[BpfDeviceInstruction]) -> Result<(), Errno> {
    const ALLOW_MULTI: u32 = 2;
    let load = LoadAttributes {
        program_type: TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    // SAFETY: the structure has the layout of the kernel's for this command, zero where nothing is asked for; what it points at
    // lives across the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<LoadAttributes>()) })?;
    // SAFETY: a new descriptor that nobody else knows.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attach = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        replaced: 0,
    };
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<AttachAttributes>()) })
        .map(drop)
}
