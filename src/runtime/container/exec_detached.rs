//! What a process in a container of the OCI command line has beyond those of our own containers. Pure.

use crate::runtime::oci::OciProcess;
use crate::runtime::sys::NamespaceFlags;

use super::compile::CompileError;
use super::compile_linux::{MOST_PROCESSORS, number_list, process_scheduling};
use super::detached::Keyring;
use super::exec::{ExecProgram, ExecSpec};
use super::labels::{self, SecurityModules};
use super::op::SetupOp;

/// Beside an [`ExecSpec`].
#[derive(Clone, Debug)]
pub struct ExecDetachment<'a> {
    pub process: &'a OciProcess,
    pub keyring: Keyring,
    /// How many descriptors from 3 on the program gets.
    pub preserved: u32,
    pub user_namespace: OwnNamespace,
    pub time_namespace: OwnNamespace,
    /// As the host numbers users.
    pub terminal_owner: u32,
    pub security: SecurityModules,
}

/// Whether the container has one that is not the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnNamespace {
    No,
    Yes,
}

impl ExecProgram {
    pub fn compile_detached(spec: &ExecSpec, detachment: &ExecDetachment<'_>) -> Result<Self, CompileError> {
        let mut program = Self::compile(spec)?;
        program.uid = detachment.terminal_owner;
        program.preserved = detachment.preserved;
        if detachment.keyring == Keyring::Inherited {
            program.join.retain(|op| !matches!(op, SetupOp::NewKeyring));
        }
        // Before the container's namespaces: its procfs may be anything.
        program.join.extend(labels::of_process(detachment.process, detachment.security)?);
        let mut first = Vec::new();
        if detachment.user_namespace == OwnNamespace::Yes {
            program.namespaces |= NamespaceFlags::USER;
            first.push(SetupOp::BecomeRoot);
        }
        if detachment.time_namespace == OwnNamespace::Yes {
            program.namespaces |= NamespaceFlags::TIME;
        }
        process_scheduling(&mut first, detachment.process)?;
        if let Some(affinity) = &detachment.process.exec_cpu_affinity {
            let list = |name: &str, list: &Option<String>| {
                let list = list.as_deref().filter(|list| !list.is_empty());
                list.map(|list| number_list(&format!("process.execCPUAffinity.{name}"), list)).transpose()
            };
            let (initial, last) = (list("initial", &affinity.initial)?, list("final", &affinity.final_)?);
            // One that is for the way into the cgroup only ends there: then all that the cgroup has.
            let last = last.or_else(|| initial.is_some().then(|| vec![u64::MAX; MOST_PROCESSORS / 64]));
            if let Some(processors) = initial {
                program.join.insert(0, SetupOp::SetAffinity { processors });
            }
            first.extend(last.map(|processors| SetupOp::SetAffinity { processors }));
        }
        program.restrict.splice(0..0, first);
        let kept = 3 + detachment.preserved;
        for op in &mut program.become_it {
            if matches!(op, SetupOp::CloseOnExec) {
                *op = SetupOp::CloseOnExecFrom { first: kept };
            }
        }
        Ok(program)
    }
}
