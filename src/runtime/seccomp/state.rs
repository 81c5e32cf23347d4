//! What a task is under: its mode and the filters on it, over fork and exec.

use std::sync::Arc;

use super::{Architecture, SeccompAction, SeccompData, SeccompFilter};

/// As `Seccomp:` in `/proc/PID/status`, in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum SeccompMode {
    #[default]
    Disabled,
    /// Only read, write, exit and the return from a signal.
    Strict,
    Filter,
}

/// The seccomp state of one task. Cloning it is what fork does to it, keeping it is what exec does: filters can be added
/// and never be taken away.
#[derive(Debug, Clone, Default)]
pub struct SeccompState {
    mode: SeccompMode,
    /// Oldest first.
    filters: Vec<Arc<SeccompFilter>>,
}

/// Why a task's state cannot be changed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeccompStateError {
    #[error("a task in {0:?} mode cannot change to another")]
    Mode(SeccompMode),
}

impl SeccompState {
    /// The mode the task is in.
    pub fn mode(&self) -> SeccompMode {
        self.mode
    }

    /// Goes to strict mode, from which nothing leads back.
    pub fn set_strict(&mut self) -> Result<(), SeccompStateError> {
        match self.mode {
            SeccompMode::Filter => Err(SeccompStateError::Mode(self.mode)),
            _ => {
                self.mode = SeccompMode::Strict;
                Ok(())
            }
        }
    }

    /// Adds a filter on top of those there are.
    pub fn install(&mut self, filter: Arc<SeccompFilter>) -> Result<(), SeccompStateError> {
        if self.mode == SeccompMode::Strict {
            return Err(SeccompStateError::Mode(self.mode));
        }
        self.mode = SeccompMode::Filter;
        self.filters.push(filter);
        Ok(())
    }

    /// What happens to the call in `data`: every filter is asked, newest first, and the most restrictive answer counts; of
    /// equals the newest's.
    pub fn evaluate(&self, data: &SeccompData) -> SeccompAction {
        match self.mode {
            SeccompMode::Disabled => SeccompAction::Allow,
            SeccompMode::Strict if is_strictly_allowed(data) => SeccompAction::Allow,
            SeccompMode::Strict => SeccompAction::KillThread,
            SeccompMode::Filter => {
                let answers = self.filters.iter().rev().map(|filter| filter.evaluate(data));
                answers
                    .reduce(|kept, next| if next.precedence() < kept.precedence() { next } else { kept })
                    .unwrap_or(SeccompAction::Allow)
            }
        }
    }
}

/// The four calls of strict mode (`mode1_syscalls`, and `mode1_syscalls_32` for 32-bit programs).
fn is_strictly_allowed(data: &SeccompData) -> bool {
    let (architecture, back) = match data.arch {
        arch if arch == Architecture::X86.audit() => (Architecture::X86, "sigreturn"),
        arch if arch == Architecture::Aarch64.audit() => (Architecture::Aarch64, "rt_sigreturn"),
        _ => (Architecture::X86_64, "rt_sigreturn"),
    };
    ["read", "write", "exit", back].iter().any(|name| architecture.number(name) == Some(data.nr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::seccomp::{BpfOpcode, SeccompFlags, audit_arch};

    fn always(action: SeccompAction) -> Arc<SeccompFilter> {
        let instructions = vec![BpfOpcode::ReturnConstant.with(action.to_raw())];
        Arc::new(SeccompFilter { instructions, flags: SeccompFlags::default() })
    }

    #[test]
    fn the_most_restrictive_answer_counts_and_of_equals_the_newest() {
        let mut state = SeccompState::default();
        assert_eq!(state.evaluate(&SeccompData::default()), SeccompAction::Allow);
        for (action, expected) in [
            (SeccompAction::Log, SeccompAction::Log),
            (SeccompAction::Allow, SeccompAction::Log),
            (SeccompAction::Errno(1), SeccompAction::Errno(1)),
            (SeccompAction::Errno(2), SeccompAction::Errno(2)),
            (SeccompAction::Trace(0), SeccompAction::Errno(2)),
            (SeccompAction::KillThread, SeccompAction::KillThread),
            (SeccompAction::KillProcess, SeccompAction::KillProcess),
        ] {
            state.install(always(action)).unwrap();
            assert_eq!(state.evaluate(&SeccompData::default()), expected, "after {action:?}");
        }
    }

    #[test]
    fn a_child_keeps_its_parents_filters_and_adds_its_own() {
        let mut parent = SeccompState::default();
        parent.install(always(SeccompAction::Errno(1))).unwrap();
        let mut child = parent.clone();
        child.install(always(SeccompAction::KillProcess)).unwrap();
        assert_eq!(parent.evaluate(&SeccompData::default()), SeccompAction::Errno(1));
        assert_eq!(child.evaluate(&SeccompData::default()), SeccompAction::KillProcess);
        assert_eq!(child.mode(), SeccompMode::Filter);
        assert!(child.set_strict().is_err());
    }

    #[test]
    fn strict_mode_leaves_four_calls() {
        let mut state = SeccompState::default();
        state.set_strict().unwrap();
        let call = |arch, nr| SeccompData { arch, nr, ..SeccompData::default() };
        let allowed = (0..500).filter(|nr| state.evaluate(&call(audit_arch::X86_64, *nr)) == SeccompAction::Allow);
        assert_eq!(allowed.collect::<Vec<_>>(), [0, 1, 15, 60]);
        assert_eq!(state.evaluate(&call(audit_arch::I386, 119)), SeccompAction::Allow);
        assert!(state.install(always(SeccompAction::Allow)).is_err());
    }
}
