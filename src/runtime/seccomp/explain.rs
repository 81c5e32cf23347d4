//! Which rule of a profile decides about a call, and where it stands.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Architecture, Circumstances, Profile, SeccompAction, SeccompArgument, SeccompData, SeccompError, SeccompOperator,
    compile,
};

/// Why a call is answered as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What the compiled filter answers.
    pub action: SeccompAction,
    pub decided_by: Decision,
    /// Rules about this call that did not decide, with why, in the profile's order up to the one that did.
    pub passed_over: Vec<(usize, String)>,
}

/// What an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// `syscalls[n]` of the profile.
    Rule(usize),
    /// `defaultAction`, as no rule is about the call.
    Default,
    /// Not the profile: the number is no call known here.
    UnknownCall,
    /// Not the profile: it does not list the call's architecture.
    Architecture,
}

/// Says what `profile` answers to the call in `data`, and why. The action is the compiled filter's own.
pub fn explain(profile: &Profile, given: Circumstances<'_>, data: &SeccompData) -> Result<Explanation, SeccompError> {
    let seccomp = profile.to_oci(given.caps, given.kernel);
    let action = compile(&seccomp)?.filter.evaluate(data);
    let (architecture, name) = Architecture::call(data.arch, data.nr);
    let listed = architecture.is_some_and(|one| {
        Some(one) == Architecture::native() || seccomp.architectures.iter().any(|name| name == one.scmp_name())
    });
    let mut passed_over = Vec::new();
    let decided_by = match name {
        _ if !listed => Decision::Architecture,
        None => Decision::UnknownCall,
        Some(name) => decide(profile, given, (name, data), &mut passed_over),
    };
    Ok(Explanation { action, decided_by, passed_over })
}

fn decide(
    profile: &Profile,
    given: Circumstances<'_>,
    (name, data): (&str, &SeccompData),
    passed_over: &mut Vec<(usize, String)>,
) -> Decision {
    let narrow = data.arch == Architecture::X86.audit();
    for (number, call) in profile.syscalls.iter().enumerate().filter(|(_, call)| call.is_about(name)) {
        if let Some(why) = given.why_not(&call.includes, &call.excludes) {
            passed_over.push((number, why));
            continue;
        }
        match failing_condition(&call.args, data, narrow) {
            None => return Decision::Rule(number),
            Some(failing) => passed_over.push((number, failing)),
        }
    }
    Decision::Default
}

/// The condition that keeps a rule from holding; of alternatives the last.
fn failing_condition(args: &[SeccompArgument], data: &SeccompData, narrow: bool) -> Option<String> {
    let is_repeated = (1..args.len()).any(|at| args[..at].iter().any(|one| one.index == args[at].index));
    let holds = |one: &&SeccompArgument| holds(one, data, narrow);
    let failing = match is_repeated {
        true if args.iter().any(|one| holds(&one)) => None,
        true => args.last(),
        false => args.iter().find(|one| !holds(one)),
    };
    failing.map(|one| format!("not {}", words(one)))
}

fn holds(condition: &SeccompArgument, data: &SeccompData, narrow: bool) -> bool {
    // As the compiler reads negative numbers where arguments have 32 bits.
    let cut = |value: u64| if narrow && value >= 0xffff_ffff_8000_0000 { value & 0xffff_ffff } else { value };
    let Some(argument) = data.args.get(condition.index as usize).copied() else { return false };
    let value = cut(condition.value);
    match condition.op {
        SeccompOperator::Equal => argument == value,
        SeccompOperator::NotEqual => argument != value,
        SeccompOperator::Less => argument < value,
        SeccompOperator::LessOrEqual => argument <= value,
        SeccompOperator::Greater => argument > value,
        SeccompOperator::GreaterOrEqual => argument >= value,
        SeccompOperator::MaskedEqual => argument & condition.value == cut(condition.value_two),
    }
}

/// A condition as people write it: `args[1] & 0x7e == 0`.
fn words(condition: &SeccompArgument) -> String {
    let SeccompArgument { index, value, value_two, op } = *condition;
    let sign = match op {
        SeccompOperator::MaskedEqual => return format!("args[{index}] & {value:#x} == {value_two:#x}"),
        SeccompOperator::Equal => "==",
        SeccompOperator::NotEqual => "!=",
        SeccompOperator::Less => "<",
        SeccompOperator::LessOrEqual => "<=",
        SeccompOperator::Greater => ">",
        SeccompOperator::GreaterOrEqual => ">=",
    };
    format!("args[{index}] {sign} {value:#x}")
}

/// The lines, from 1, on which `syscalls[0]`, `syscalls[1]`, … of a profile that could be read begin.
pub fn lines_of_rules(text: &str) -> Vec<usize> {
    #[derive(Deserialize)]
    struct Json<'a> {
        #[serde(borrow, default)]
        syscalls: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Toml {
        #[serde(default)]
        syscalls: Vec<toml::Spanned<toml::Value>>,
    }
    let starts: Vec<usize> = match text.trim_start().starts_with('{') {
        true => {
            let outline: Option<Json<'_>> = serde_json::from_str(text).ok();
            // The values lie in the text itself.
            let offset = |value: &RawValue| value.get().as_ptr() as usize - text.as_ptr() as usize;
            outline.iter().flat_map(|outline| &outline.syscalls).map(|value| offset(value)).collect()
        }
        false => {
            let outline: Option<Toml> = toml::from_str(text).ok();
            outline.iter().flat_map(|outline| &outline.syscalls).map(|value| value.span().start).collect()
        }
    };
    starts.into_iter().map(|start| 1 + text[..start].matches('\n').count()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::seccomp::audit_arch;

    const PROFILE: &str = r#"{
      "defaultAction": "SCMP_ACT_ERRNO",
      "syscalls": [
        { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
          "args": [{ "index": 0, "value": 38, "op": "SCMP_CMP_EQ" }] },
        { "names": ["socket"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } }
      ]
    }"#;

    fn check(name: &str, first: u64, decided_by: Decision, action: SeccompAction, passed_over: &[&str]) {
        let profile = Profile::parse(PROFILE).unwrap();
        let native = Architecture::native().unwrap();
        let nr = native.number(name).unwrap();
        let data = SeccompData { nr, arch: native.audit(), args: [first, 0, 0, 0, 0, 0], ..SeccompData::default() };
        let given = Circumstances { caps: &["CAP_CHOWN"], kernel: (6, 1) };
        let explained = explain(&profile, given, &data).unwrap();
        assert_eq!((explained.decided_by, explained.action), (decided_by, action), "{name}");
        assert_eq!(explained.passed_over.iter().map(|(_, why)| why.as_str()).collect::<Vec<_>>(), passed_over);
    }

    #[test]
    fn the_rule_that_decides_is_named_and_those_passed_over_with_why() {
        use SeccompAction::{Allow, Errno};
        check("write", 0, Decision::Rule(0), Allow, &[]);
        check("socket", 38, Decision::Rule(1), Errno(97), &[]);
        check("socket", 2, Decision::Rule(2), Allow, &["not args[0] == 0x26"]);
        check("mount", 0, Decision::Default, Errno(1), &["only with CAP_SYS_ADMIN"]);
        check("kill", 0, Decision::Default, Errno(1), &[]);
    }

    #[test]
    fn what_no_rule_can_speak_of_is_told_apart() {
        let profile = Profile::parse(PROFILE).unwrap();
        let given = Circumstances { caps: &[], kernel: (6, 1) };
        let decided = |arch, nr| {
            explain(&profile, given, &SeccompData { arch, nr, ..SeccompData::default() }).unwrap().decided_by
        };
        assert_eq!(decided(Architecture::native().unwrap().audit(), 3000), Decision::UnknownCall);
        assert_eq!(decided(audit_arch::RISCV64, 0), Decision::Architecture);
    }

    #[test]
    fn rules_are_found_on_their_lines() {
        assert_eq!(lines_of_rules(PROFILE), [4, 5, 7, 8]);
        let toml =
            "defaultAction = \"SCMP_ACT_ERRNO\"\n\n[[syscalls]]\nnames = [\"read\"]\naction = \"SCMP_ACT_ALLOW\"\n";
        assert_eq!(lines_of_rules(toml), [3]);
        assert_eq!(lines_of_rules("{"), [0; 0]);
    }
}
