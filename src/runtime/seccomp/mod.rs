//! Seccomp: which system calls a container may make. Profile to rules to BPF, a checker and an evaluator.
//!
//! The road: a [`Profile`] (docker's JSON form, with conditions on capabilities, architecture and kernel) becomes a
//! [`LinuxSeccomp`] (the OCI form, conditions decided), which [`compile`] turns into a [`SeccompFilter`]: classic BPF that
//! the kernel runs at each system call on a [`SeccompData`]. [`SeccompFilter::validate`] is the kernel's own check,
//! [`SeccompFilter::evaluate`] its interpreter, [`SeccompState`] what a task is under once filters are stacked.
//!
//! Handing a filter to the kernel is `runtime::sys`'s and the container's business.

mod action;
mod architecture;
mod assemble;
mod check;
mod compile;
mod conditions;
mod data;
mod denied;
mod disassemble;
mod evaluate;
mod explain;
mod instruction;
mod oci;
mod profile;
mod state;

pub use action::{SeccompAction, SeccompFlags};
pub use architecture::{Architecture, audit_arch};
pub use check::BpfCheckError;
pub use compile::{Compiled, SeccompError, compile};
pub use conditions::Circumstances;
pub use data::{SeccompData, seccomp_offsets};
pub use denied::{DeniedCall, logged_denials};
pub use disassemble::disassemble;
pub use evaluate::evaluate;
pub use explain::{Decision, Explanation, explain, lines_of_rules};
pub use instruction::{AluOperation, BpfInstruction, BpfOpcode, JumpTest, Operand};
pub use oci::{LinuxSeccomp, SeccompArgument, SeccompOperator, SeccompSyscall};
pub use profile::{Profile, ProfileError};
pub use state::{SeccompMode, SeccompState};

/// A program for the kernel, and how to install it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompFilter {
    /// At most 4096; only jumps forward; ends in a return on every way.
    pub instructions: Vec<BpfInstruction>,
    pub flags: SeccompFlags,
}

impl SeccompFilter {
    /// Checks the program as the kernel does before it takes it.
    pub fn validate(&self) -> Result<(), BpfCheckError> {
        check::check(&self.instructions)
    }

    /// What the kernel would do with the call in `data`. The program must be valid.
    pub fn evaluate(&self, data: &SeccompData) -> SeccompAction {
        SeccompAction::from_raw(evaluate(&self.instructions, data))
    }
}
