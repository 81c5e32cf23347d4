//! The OCI form to BPF: which architecture, which call, which arguments.
//!
//! A program starts with the architecture, as numbers mean nothing without it, goes on to a balanced search over the
//! numbers (runs of calls with one answer are one leaf; those that programs make most are near the root), and compares
//! arguments where a rule has conditions.
//!
//! What the profile does not say is decided for safety:
//! - An architecture that the profile does not list, or whose calls are not known here, kills the process: its numbers
//!   mean other calls, so no rule can be applied. The native one is always listed.
//! - Calls of the x32 convention fail with ENOSYS, as on a kernel without it, unless the profile lists it.
//! - With a default of ERRNO, numbers beyond every call known here fail with ENOSYS: programs then do without a new call,
//!   where EPERM would make them fail.
//!
//! Rules of one call are tried in the profile's order; the first whose conditions all hold decides. If a rule names one
//! argument more than once, each of its conditions stands for a rule of its own, as in runc and crun.

use std::collections::HashMap;

use super::architecture::X32_BIT;
use super::assemble::{Assembler, Label};
use super::check::BpfCheckError;
use super::{
    Architecture, JumpTest, LinuxSeccomp, SeccompAction, SeccompArgument, SeccompFilter, SeccompFlags, SeccompOperator,
    action, seccomp_offsets,
};

const ENOSYS: u16 = 38;
const EPERM: u16 = 1;

/// What busy programs call most. The kernel remembers which numbers a filter always allows and does not run it for those
/// (`seccomp_cache_check_allow`, Linux 5.11 with its option set); elsewhere each comparison on their way counts.
const HOTTEST: [&str; 16] = [
    "read",
    "write",
    "futex",
    "epoll_wait",
    "epoll_pwait",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
    "readv",
    "writev",
    "poll",
    "ppoll",
    "clock_nanosleep",
    "pread64",
    "pwrite64",
];
/// How much more one of them counts than another call's leaf.
const HOT_WEIGHT: u32 = 8;

/// Why a profile cannot be compiled. `at` is where in the document, such as `syscalls[3].args[0].index`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    #[error("`{at}` is `{found}`; it must be one of {expected}")]
    UnknownName { at: String, found: String, expected: &'static str },
    #[error("`{at}` is `{found}`, which is no architecture that exists")]
    UnknownArchitecture { at: String, found: String },
    #[error("`{at}` is {found}; a system call has the arguments 0 to 5")]
    ArgumentIndex { at: String, found: u32 },
    #[error("`{at}` is {found}; error numbers go from 0 to 4095")]
    ErrorNumber { at: String, found: u32 },
    #[error("`{at}` is set, but `{action}` takes no error number")]
    ErrorNumberUnused { at: String, action: String },
    #[error("`{at}` must name at least one system call")]
    NoNames { at: String },
    #[error("the calls of this machine's architecture are not known")]
    NativeUnknown,
    #[error("the compiled program is not valid")]
    Invalid(#[source] BpfCheckError),
}

/// A filter, and what in its profile has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    pub filter: SeccompFilter,
    /// Names that are no calls of any known architecture: misspelt, or newer than this program. No error, as one profile
    /// serves many kernels.
    pub unknown_calls: Vec<String>,
    /// Listed architectures whose programs are killed all the same, as their calls are not known here.
    pub unsupported_architectures: Vec<String>,
}

/// One rule with everything checked.
#[derive(Debug, Clone)]
struct Rule {
    action: SeccompAction,
    /// All must hold; none means always.
    conditions: Vec<SeccompArgument>,
}

/// For each name of a call the rules about it, by index, in order.
type ByName<'a> = HashMap<&'a str, Vec<usize>>;

/// What happens to a number.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Action(SeccompAction),
    /// Indices into the rules, in order; none matching means the default.
    Rules(Vec<usize>),
}

/// The calls from one number up to the next leaf's, which have one verdict.
#[derive(Debug)]
struct Leaf {
    first: u32,
    verdict: Verdict,
    weight: u32,
}

/// Compiles `seccomp` for this machine.
pub fn compile(seccomp: &LinuxSeccomp) -> Result<Compiled, SeccompError> {
    let native = Architecture::native().ok_or(SeccompError::NativeUnknown)?;
    compile_for(seccomp, native)
}

/// Compiles `seccomp` for a machine whose programs are `native`.
pub(super) fn compile_for(seccomp: &LinuxSeccomp, native: Architecture) -> Result<Compiled, SeccompError> {
    let default =
        checked_action(&seccomp.default_action, seccomp.default_errno_ret, ("", "defaultAction", "defaultErrnoRet"))?;
    let (architectures, unsupported_architectures) = checked_architectures(seccomp, native)?;
    let mut flags = checked_flags(seccomp)?;
    let (rules, by_name) = checked_rules(seccomp)?;
    if default == SeccompAction::UserNotify || rules.iter().any(|rule| rule.action == SeccompAction::UserNotify) {
        flags.0 |= SeccompFlags::NEW_LISTENER;
        if flags.0 & SeccompFlags::TSYNC != 0 {
            // Otherwise one result would have to be both a descriptor and a thread.
            flags.0 |= SeccompFlags::TSYNC_ESRCH;
        }
    } else {
        // Without a listener there is nothing to wait for, and the kernel refuses it.
        flags.0 &= !SeccompFlags::WAIT_KILLABLE_RECV;
    }

    let mut program = Assembler::default();
    let mut next = program.answer(SeccompAction::KillProcess);
    // Written from the end: the native architecture comes first in the program.
    for architecture in architectures.iter().rev().filter(|one| **one != Architecture::X32) {
        let has_x32 = architectures.contains(&Architecture::X32);
        let section = Section { architecture: *architecture, has_x32, default, rules: &rules };
        let search = section.write(&mut program, &section.leaves(&by_name));
        // The search loads the number; the test for the architecture stands before it.
        next = program.branch((JumpTest::Equal, architecture.audit()), search, next);
    }
    program.go(next);
    program.load(seccomp_offsets::ARCH);

    let filter = SeccompFilter { instructions: program.finish(), flags };
    filter.validate().map_err(SeccompError::Invalid)?;
    let mut unknown_calls: Vec<String> =
        by_name.keys().filter(|name| !Architecture::any_has(name)).map(|name| (*name).to_owned()).collect();
    unknown_calls.sort_unstable();
    Ok(Compiled { filter, unknown_calls, unsupported_architectures })
}

/// The part of a program for one architecture.
struct Section<'a> {
    architecture: Architecture,
    /// The rules hold for calls of the x32 convention too, which share the number's word with those of x86_64.
    has_x32: bool,
    default: SeccompAction,
    rules: &'a [Rule],
}

impl Section<'_> {
    /// Where the answer changes: each number from which on, up to the next, the same verdict holds. Starts at 0.
    fn verdicts(&self, by_name: &ByName<'_>) -> Vec<(u32, Verdict)> {
        let default = Verdict::Action(self.default);
        let mut changes: Vec<(u32, Verdict)> = Vec::with_capacity(128);
        let mut change = |number: u32, verdict: Verdict| {
            if changes.last().is_none_or(|(_, last)| *last != verdict) {
                changes.push((number, verdict));
            }
        };
        let beyond = match self.default {
            SeccompAction::Errno(_) => Verdict::Action(SeccompAction::Errno(ENOSYS)),
            _ => default.clone(),
        };
        let mut cover = |architecture: Architecture, first: u32| {
            let mut expected = first;
            for (number, name) in architecture.calls() {
                if number != expected {
                    change(expected, default.clone());
                }
                expected = number + 1;
                change(number, by_name.get(name).map_or(default.clone(), |indices| self.verdict(indices)));
            }
            change(expected, beyond.clone());
        };
        cover(self.architecture, 0);
        match self.architecture {
            Architecture::X86_64 if self.has_x32 => cover(Architecture::X32, X32_BIT),
            Architecture::X86_64 => change(X32_BIT, Verdict::Action(SeccompAction::Errno(ENOSYS))),
            _ => {}
        }
        changes
    }

    /// The verdict of the rules `indices`, without those that are never reached.
    fn verdict(&self, indices: &[usize]) -> Verdict {
        let rule = |index: &usize| &self.rules[*index];
        if let Some(first) = indices.first().map(rule).filter(|first| first.conditions.is_empty()) {
            return Verdict::Action(first.action);
        }
        let always = indices.iter().position(|index| rule(index).conditions.is_empty());
        Verdict::Rules(indices[..always.map_or(indices.len(), |at| at + 1)].to_vec())
    }

    /// The verdicts with how often each is likely to be asked for.
    fn leaves(&self, by_name: &ByName<'_>) -> Vec<Leaf> {
        let mut leaves: Vec<Leaf> =
            self.verdicts(by_name).into_iter().map(|(first, verdict)| Leaf { first, verdict, weight: 1 }).collect();
        for number in HOTTEST.iter().filter_map(|name| self.architecture.number(name)) {
            let after = leaves.partition_point(|leaf| leaf.first <= number);
            leaves[after - 1].weight += HOT_WEIGHT;
        }
        leaves
    }

    /// Writes the search over `leaves`; gives where it starts.
    fn write(&self, program: &mut Assembler, leaves: &[Leaf]) -> Label {
        let start = self.search(program, leaves);
        program.go(start);
        program.load(seccomp_offsets::NR)
    }

    fn search(&self, program: &mut Assembler, leaves: &[Leaf]) -> Label {
        if let [leaf] = leaves {
            return match &leaf.verdict {
                Verdict::Action(action) => program.answer(*action),
                Verdict::Rules(indices) => self.arguments(program, indices),
            };
        }
        let (low, high) = leaves.split_at(middle(leaves));
        let above = self.search(program, high);
        let below = self.search(program, low);
        program.branch((JumpTest::GreaterOrEqual, high[0].first), above, below)
    }

    /// Tries the rules `indices` one after the other.
    fn arguments(&self, program: &mut Assembler, indices: &[usize]) -> Label {
        let mut next = program.answer(self.default);
        for rule in indices.iter().rev().map(|index| &self.rules[*index]) {
            let mut matched = program.answer(rule.action);
            for condition in rule.conditions.iter().rev() {
                matched = self.condition(program, condition, (matched, next));
            }
            next = matched;
        }
        next
    }

    /// One comparison at 64 bits, upper half first.
    fn condition(&self, program: &mut Assembler, condition: &SeccompArgument, ways: (Label, Label)) -> Label {
        let (holds, fails) = ways;
        let value = self.narrowed(condition.value);
        let index = condition.index;
        match condition.op {
            SeccompOperator::Equal => equal(program, (index, value, u64::MAX), (holds, fails)),
            SeccompOperator::NotEqual => equal(program, (index, value, u64::MAX), (fails, holds)),
            SeccompOperator::MaskedEqual => {
                let datum = self.narrowed(condition.value_two);
                equal(program, (index, datum, condition.value), (holds, fails))
            }
            SeccompOperator::Greater => above(program, (index, value, JumpTest::Greater), (holds, fails)),
            SeccompOperator::GreaterOrEqual => above(program, (index, value, JumpTest::GreaterOrEqual), (holds, fails)),
            SeccompOperator::Less => above(program, (index, value, JumpTest::GreaterOrEqual), (fails, holds)),
            SeccompOperator::LessOrEqual => above(program, (index, value, JumpTest::Greater), (fails, holds)),
        }
    }

    /// A negative number, written for 64 bits, is meant for 32 where arguments have no more.
    fn narrowed(&self, value: u64) -> u64 {
        match !self.architecture.is_64_bit() && value >= 0xffff_ffff_8000_0000 {
            true => value & 0xffff_ffff,
            false => value,
        }
    }
}

/// Where both sides weigh most alike; at least one leaf is on each.
fn middle(leaves: &[Leaf]) -> usize {
    let total: u32 = leaves.iter().map(|leaf| leaf.weight).sum();
    let mut left = 0;
    let unevenness = leaves[..leaves.len() - 1].iter().enumerate().map(|(at, leaf)| {
        left += leaf.weight;
        (total.abs_diff(2 * left), at + 1)
    });
    unevenness.min().map_or(1, |(_, at)| at)
}

fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

/// `argument & mask == value`, compared only where the mask has bits; with a value outside the mask it never holds.
fn equal(program: &mut Assembler, (index, value, mask): (u32, u64, u64), (holds, fails): (Label, Label)) -> Label {
    let ((high, low), (mask_high, mask_low)) = (halves(value), halves(mask));
    if value & !mask != 0 {
        return fails;
    }
    let mut half = |offset, value, mask, holds| match mask {
        0 => holds,
        mask => {
            program.branch((JumpTest::Equal, value), holds, fails);
            if mask != u32::MAX {
                program.and(mask);
            }
            program.load(offset)
        }
    };
    let low = half(seccomp_offsets::argument_low(index), low, mask_low, holds);
    half(seccomp_offsets::argument_high(index), high, mask_high, low)
}

/// `argument > value` or `argument >= value`, by `test`.
fn above(program: &mut Assembler, (index, value, test): (u32, u64, JumpTest), (holds, fails): (Label, Label)) -> Label {
    let (high, low) = halves(value);
    program.branch((test, low), holds, fails);
    let lower = program.load(seccomp_offsets::argument_low(index));
    let equal = program.branch((JumpTest::Equal, high), lower, fails);
    program.branch((JumpTest::Greater, high), holds, equal);
    program.load(seccomp_offsets::argument_high(index))
}

/// An action with its number; `at` is the prefix of the place, and the names of both keys.
fn checked_action(
    name: &str,
    number: Option<u32>,
    (prefix, action_key, number_key): (&str, &str, &str),
) -> Result<SeccompAction, SeccompError> {
    let at = |key| format!("{prefix}{key}");
    let value = number.unwrap_or(u32::from(EPERM));
    let errno = u16::try_from(value).ok().filter(|errno| *errno <= action::ERRNO_HIGHEST);
    let errno = errno.ok_or_else(|| SeccompError::ErrorNumber { at: at(number_key), found: value })?;
    let action = SeccompAction::from_name(name, errno).ok_or_else(|| SeccompError::UnknownName {
        at: at(action_key),
        found: name.into(),
        expected: SeccompAction::NAMES,
    })?;
    match (number, action) {
        (None, _) | (_, SeccompAction::Errno(_) | SeccompAction::Trace(_)) => Ok(action),
        // The specification wants this to fail.
        _ => Err(SeccompError::ErrorNumberUnused { at: at(number_key), action: name.into() }),
    }
}

/// Those to write a section for, `native` first, and those listed without effect.
fn checked_architectures(
    seccomp: &LinuxSeccomp,
    native: Architecture,
) -> Result<(Vec<Architecture>, Vec<String>), SeccompError> {
    let (mut known, mut unsupported) = (vec![native], Vec::new());
    for (number, name) in seccomp.architectures.iter().enumerate() {
        if !Architecture::is_name(name) {
            let at = format!("architectures[{number}]");
            return Err(SeccompError::UnknownArchitecture { at, found: name.clone() });
        }
        match Architecture::from_scmp_name(name) {
            Some(one) if known.contains(&one) => {}
            // An x86_64 kernel runs x86 and x32 programs; no machine runs those of aarch64 beside x86_64.
            Some(one @ (Architecture::X86 | Architecture::X32)) if native == Architecture::X86_64 => known.push(one),
            _ => unsupported.push(name.clone()),
        }
    }
    Ok((known, unsupported))
}

fn checked_flags(seccomp: &LinuxSeccomp) -> Result<SeccompFlags, SeccompError> {
    let mut flags = 0;
    for (number, name) in seccomp.flags.iter().enumerate() {
        flags |= SeccompFlags::from_name(name).ok_or_else(|| SeccompError::UnknownName {
            at: format!("flags[{number}]"),
            found: name.clone(),
            expected: SeccompFlags::NAMES,
        })?;
    }
    Ok(SeccompFlags(flags))
}

/// The rules in order, and for each name those that are about it.
fn checked_rules(seccomp: &LinuxSeccomp) -> Result<(Vec<Rule>, ByName<'_>), SeccompError> {
    let mut rules = Vec::new();
    let mut by_name = ByName::with_capacity(512);
    for (number, call) in seccomp.syscalls.iter().enumerate() {
        let prefix = format!("syscalls[{number}].");
        if call.names.is_empty() {
            return Err(SeccompError::NoNames { at: format!("{prefix}names") });
        }
        let action = checked_action(&call.action, call.errno_ret, (&prefix, "action", "errnoRet"))?;
        let bad = call.args.iter().position(|argument| argument.index > 5);
        if let Some(bad) = bad {
            let (at, found) = (format!("{prefix}args[{bad}].index"), call.args[bad].index);
            return Err(SeccompError::ArgumentIndex { at, found });
        }
        let first = rules.len();
        let args = &call.args;
        let is_repeated = (1..args.len()).any(|at| args[..at].iter().any(|other| other.index == args[at].index));
        match is_repeated {
            true => rules.extend(args.iter().map(|argument| Rule { action, conditions: vec![*argument] })),
            false => rules.push(Rule { action, conditions: args.clone() }),
        }
        for name in &call.names {
            by_name.entry(name).or_default().extend(first..rules.len());
        }
    }
    Ok((rules, by_name))
}

#[cfg(test)]
mod tests;
