//! What a filter answers, and how it is installed: names and numbers of linux/seccomp.h.

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0x0000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_ACTION_FULL`
const ACTION_MASK: u32 = 0xffff_0000;
/// The kernel cuts a larger error number down to this.
pub const ERRNO_HIGHEST: u16 = 4095;

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeccompAction {
    /// The process ends as by SIGSYS.
    KillProcess,
    /// The calling thread ends as by SIGSYS; the process with it if it has no other.
    KillThread,
    /// SIGSYS is sent, the call is not made; the number is given to the handler.
    Trap(u16),
    /// The call is not made and fails with this error number (0: seems to succeed).
    Errno(u16),
    /// A supervisor that holds the listener decides.
    UserNotify,
    /// A tracer decides; without one the call fails with ENOSYS. The number is given to the tracer.
    Trace(u16),
    /// The call is made, and noted in the audit log.
    Log,
    /// The call is made.
    Allow,
}

impl SeccompAction {
    /// The number a filter returns for it.
    pub fn to_raw(self) -> u32 {
        match self {
            Self::KillProcess => KILL_PROCESS,
            Self::KillThread => KILL_THREAD,
            Self::Trap(data) => TRAP | u32::from(data),
            Self::Errno(errno) => ERRNO | u32::from(errno),
            Self::UserNotify => USER_NOTIF,
            Self::Trace(data) => TRACE | u32::from(data),
            Self::Log => LOG,
            Self::Allow => ALLOW,
        }
    }

    /// What the kernel does on this number; kills the process on one it does not know.
    pub fn from_raw(raw: u32) -> Self {
        let data = (raw & !ACTION_MASK) as u16;
        match raw & ACTION_MASK {
            KILL_THREAD => Self::KillThread,
            TRAP => Self::Trap(data),
            ERRNO => Self::Errno(data.min(ERRNO_HIGHEST)),
            USER_NOTIF => Self::UserNotify,
            TRACE => Self::Trace(data),
            LOG => Self::Log,
            ALLOW => Self::Allow,
            _ => Self::KillProcess,
        }
    }

    /// Of several filters' answers the lowest counts (the kernel compares them as signed numbers).
    pub fn precedence(self) -> i32 {
        (self.to_raw() & ACTION_MASK).cast_signed()
    }

    /// Reads `SCMP_ACT_…` with the number that goes with it; `None` for a name that does not exist.
    pub fn from_name(name: &str, number: u16) -> Option<Self> {
        Some(match name {
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Self::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Self::KillProcess,
            "SCMP_ACT_TRAP" => Self::Trap(0),
            "SCMP_ACT_ERRNO" => Self::Errno(number),
            "SCMP_ACT_TRACE" => Self::Trace(number),
            "SCMP_ACT_ALLOW" => Self::Allow,
            "SCMP_ACT_LOG" => Self::Log,
            "SCMP_ACT_NOTIFY" => Self::UserNotify,
            _ => return None,
        })
    }

    /// The names that [`from_name`](Self::from_name) reads.
    pub(super) const NAMES: &str = "SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, SCMP_ACT_KILL, SCMP_ACT_KILL_PROCESS, \
        SCMP_ACT_KILL_THREAD, SCMP_ACT_LOG, SCMP_ACT_NOTIFY, SCMP_ACT_TRACE, SCMP_ACT_TRAP";
}

impl std::fmt::Display for SeccompAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KillProcess => f.write_str("kill the process"),
            Self::KillThread => f.write_str("kill the thread"),
            Self::Trap(_) => f.write_str("trap (SIGSYS)"),
            Self::Errno(errno) => write!(f, "errno {errno} ({:?})", nix::errno::Errno::from_raw(i32::from(*errno))),
            Self::UserNotify => f.write_str("ask the supervisor"),
            Self::Trace(_) => f.write_str("ask the tracer"),
            Self::Log => f.write_str("allow and log"),
            Self::Allow => f.write_str("allow"),
        }
    }
}

/// `SECCOMP_FILTER_FLAG_*`, or-ed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SeccompFlags(pub u32);

impl SeccompFlags {
    /// All threads of the process.
    pub const TSYNC: u32 = 1;
    /// Log every answer but allow.
    pub const LOG: u32 = 1 << 1;
    /// No mitigation of speculative store bypass (Linux before 5.16 turns it on with seccomp).
    pub const SPEC_ALLOW: u32 = 1 << 2;
    /// Installing gives a descriptor for [`SeccompAction::UserNotify`].
    pub const NEW_LISTENER: u32 = 1 << 3;
    /// Failing to reach a thread is ESRCH, and not the number of the thread.
    pub const TSYNC_ESRCH: u32 = 1 << 4;
    /// A notified process waits so that only fatal signals interrupt it.
    pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;

    /// Reads a flag of the OCI form; `None` for a name that does not exist.
    pub(super) fn from_name(name: &str) -> Option<u32> {
        Some(match name {
            "SECCOMP_FILTER_FLAG_TSYNC" => Self::TSYNC,
            "SECCOMP_FILTER_FLAG_LOG" => Self::LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Self::SPEC_ALLOW,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Self::WAIT_KILLABLE_RECV,
            _ => return None,
        })
    }

    pub(super) const NAMES: &str = "SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW, \
        SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_survives_its_number() {
        let all = [
            SeccompAction::KillProcess,
            SeccompAction::KillThread,
            SeccompAction::Trap(7),
            SeccompAction::Errno(38),
            SeccompAction::UserNotify,
            SeccompAction::Trace(1),
            SeccompAction::Log,
            SeccompAction::Allow,
        ];
        for action in all {
            assert_eq!(SeccompAction::from_raw(action.to_raw()), action);
        }
        assert!(all.windows(2).all(|pair| pair[0].precedence() < pair[1].precedence()));
        assert_eq!(SeccompAction::from_raw(ERRNO | 0xffff), SeccompAction::Errno(4095));
        assert_eq!(SeccompAction::from_raw(0x1234_0000), SeccompAction::KillProcess);
    }
}
