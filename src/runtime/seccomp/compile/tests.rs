//! The compiler against its own evaluator, and against a naive reading of the rules. The kernel's own answer is in
//! `tests/kernel_seccomp.rs`.

use super::*;
use crate::runtime::seccomp::{BpfOpcode, Profile, SeccompData, SeccompSyscall, audit_arch, evaluate};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

fn rule(names: &[&str], action: &str, args: Vec<SeccompArgument>) -> SeccompSyscall {
    let names = names.iter().map(|name| (*name).into()).collect();
    SeccompSyscall { names, action: action.into(), errno_ret: None, args }
}

fn profile(syscalls: Vec<SeccompSyscall>) -> LinuxSeccomp {
    LinuxSeccomp { default_action: "SCMP_ACT_ERRNO".into(), syscalls, ..LinuxSeccomp::default() }
}

fn argument(index: u32, op: SeccompOperator, value: u64) -> SeccompArgument {
    SeccompArgument { index, value, value_two: 0, op }
}

fn x86_64(seccomp: &LinuxSeccomp) -> Compiled {
    compile_for(seccomp, Architecture::X86_64).unwrap()
}

fn call(architecture: Architecture, name: &str, args: [u64; 6]) -> SeccompData {
    let nr = architecture.number(name).unwrap();
    SeccompData { nr, arch: architecture.audit(), args, ..SeccompData::default() }
}

#[test]
fn calls_are_told_apart_by_number_and_architecture() {
    let mut seccomp = profile(vec![rule(&["read", "write", "openat"], "SCMP_ACT_ALLOW", vec![])]);
    seccomp.architectures = vec!["SCMP_ARCH_X86".into()];
    let filter = x86_64(&seccomp).filter;
    for architecture in [Architecture::X86_64, Architecture::X86] {
        for (_, name) in architecture.calls() {
            let is_allowed = matches!(name, "read" | "write" | "openat");
            let expected = if is_allowed { SeccompAction::Allow } else { SeccompAction::Errno(1) };
            assert_eq!(filter.evaluate(&call(architecture, name, [0; 6])), expected, "{architecture:?} {name}");
        }
    }
}

#[test]
fn what_the_profile_does_not_know_is_refused() {
    let filter = x86_64(&profile(vec![rule(&["read"], "SCMP_ACT_ALLOW", vec![])])).filter;
    let answer = |arch, nr| filter.evaluate(&SeccompData { arch, nr, ..SeccompData::default() });
    assert_eq!(answer(audit_arch::X86_64, 0), SeccompAction::Allow);
    // Unlisted architecture, unknown architecture.
    assert_eq!(answer(audit_arch::I386, 3), SeccompAction::KillProcess);
    assert_eq!(answer(audit_arch::AARCH64, 63), SeccompAction::KillProcess);
    assert_eq!(answer(0, 0), SeccompAction::KillProcess);
    // x32, also read; beyond all known numbers; a gap between them.
    assert_eq!(answer(audit_arch::X86_64, X32_BIT), SeccompAction::Errno(ENOSYS));
    assert_eq!(answer(audit_arch::X86_64, u32::MAX), SeccompAction::Errno(ENOSYS));
    assert_eq!(answer(audit_arch::X86_64, 5000), SeccompAction::Errno(ENOSYS));
    assert_eq!(answer(audit_arch::X86_64, 400), SeccompAction::Errno(EPERM));
}

#[test]
fn a_list_of_denials_does_not_let_other_conventions_through() {
    let mut seccomp = profile(vec![rule(&["mount"], "SCMP_ACT_ERRNO", vec![])]);
    seccomp.default_action = "SCMP_ACT_ALLOW".into();
    seccomp.architectures = vec!["SCMP_ARCH_X86_64".into(), "SCMP_ARCH_ARM".into()];
    let compiled = x86_64(&seccomp);
    assert_eq!(compiled.unsupported_architectures, ["SCMP_ARCH_ARM"]);
    let answer = |arch, nr| compiled.filter.evaluate(&SeccompData { arch, nr, ..SeccompData::default() });
    assert_eq!(answer(audit_arch::X86_64, 165), SeccompAction::Errno(1));
    assert_eq!(answer(audit_arch::X86_64, 5000), SeccompAction::Allow);
    assert_eq!(answer(audit_arch::X86_64, X32_BIT | 165), SeccompAction::Errno(ENOSYS));
    assert_eq!(answer(audit_arch::ARM, 21), SeccompAction::KillProcess);
}

#[test]
fn x32_calls_are_under_the_rules_where_the_profile_lists_them() {
    let mut seccomp = profile(vec![rule(&["read", "ioctl"], "SCMP_ACT_ALLOW", vec![])]);
    seccomp.architectures = vec!["SCMP_ARCH_X32".into()];
    let compiled = x86_64(&seccomp);
    assert_eq!(compiled.unsupported_architectures, [""; 0]);
    let answer = |nr| compiled.filter.evaluate(&SeccompData { arch: audit_arch::X86_64, nr, ..SeccompData::default() });
    for (number, name) in Architecture::X32.calls() {
        let is_allowed = matches!(name, "read" | "ioctl");
        let expected = if is_allowed { SeccompAction::Allow } else { SeccompAction::Errno(EPERM) };
        assert_eq!(answer(number), expected, "{name}");
    }
    // `ioctl` of x86_64 with the bit is none of x32; 514 without it is none of x86_64.
    assert_eq!(answer(X32_BIT | 16), SeccompAction::Errno(EPERM));
    assert_eq!(answer(514), SeccompAction::Errno(ENOSYS));
    assert_eq!([answer(16), answer(X32_BIT | 514)], [SeccompAction::Allow; 2]);
    assert_eq!(answer(u32::MAX), SeccompAction::Errno(ENOSYS));
}

#[test]
fn the_first_rule_whose_conditions_hold_decides() {
    use SeccompOperator::{Equal, Greater, MaskedEqual};
    let masked = SeccompArgument { index: 0, value: 0xffff_ffff, value_two: 38, op: MaskedEqual };
    let mut denied = rule(&["socket"], "SCMP_ACT_ERRNO", vec![masked]);
    denied.errno_ret = Some(97);
    let both = vec![argument(0, Equal, 1), argument(1, Greater, u64::from(u32::MAX))];
    let seccomp =
        profile(vec![denied, rule(&["socket"], "SCMP_ACT_ALLOW", vec![]), rule(&["kill"], "SCMP_ACT_LOG", both)]);
    let filter = x86_64(&seccomp).filter;
    let answer = |name, args| filter.evaluate(&call(Architecture::X86_64, name, args));
    assert_eq!(answer("socket", [2, 0, 0, 0, 0, 0]), SeccompAction::Allow);
    assert_eq!(answer("socket", [38, 0, 0, 0, 0, 0]), SeccompAction::Errno(97));
    // The kernel looks at the lower half only, so a set upper half must not help.
    assert_eq!(answer("socket", [1 << 32 | 38, 0, 0, 0, 0, 0]), SeccompAction::Errno(97));
    assert_eq!(answer("kill", [1, 1 << 32, 0, 0, 0, 0]), SeccompAction::Log);
    assert_eq!(answer("kill", [1, (1 << 32) - 1, 0, 0, 0, 0]), SeccompAction::Errno(1));
    assert_eq!(answer("kill", [2, 1 << 32, 0, 0, 0, 0]), SeccompAction::Errno(1));
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let either = vec![argument(0, SeccompOperator::Equal, 1), argument(0, SeccompOperator::Equal, 2)];
    let filter = x86_64(&profile(vec![rule(&["kill"], "SCMP_ACT_ALLOW", either)])).filter;
    let answer = |value| filter.evaluate(&call(Architecture::X86_64, "kill", [value, 0, 0, 0, 0, 0]));
    assert_eq!([answer(1), answer(2)], [SeccompAction::Allow; 2]);
    assert_eq!(answer(3), SeccompAction::Errno(1));
}

#[test]
fn a_negative_value_is_meant_for_32_bits_where_arguments_have_no_more() {
    let minus_one = vec![argument(0, SeccompOperator::Equal, u64::MAX)];
    let mut seccomp = profile(vec![rule(&["kill"], "SCMP_ACT_ALLOW", minus_one)]);
    seccomp.architectures = vec!["SCMP_ARCH_X86".into()];
    let filter = x86_64(&seccomp).filter;
    let args = [0xffff_ffff, 0, 0, 0, 0, 0];
    assert_eq!(filter.evaluate(&call(Architecture::X86, "kill", args)), SeccompAction::Allow);
    assert_eq!(filter.evaluate(&call(Architecture::X86_64, "kill", args)), SeccompAction::Errno(1));
}

#[test]
fn faults_are_told_with_their_place() {
    let check = |change: &dyn Fn(&mut LinuxSeccomp), expected: &str| {
        let mut seccomp =
            profile(vec![rule(&["read"], "SCMP_ACT_ALLOW", vec![]), rule(&["kill"], "SCMP_ACT_ERRNO", vec![])]);
        change(&mut seccomp);
        let text = compile(&seccomp).unwrap_err().to_string();
        assert!(text.starts_with(expected), "{text}");
    };
    check(&|s| s.default_action = "ALLOW".into(), "`defaultAction` is `ALLOW`; it must be one of SCMP_ACT_ALLOW, ");
    check(
        &|s| s.syscalls[1].action = "SCMP_ACT_DENY".into(),
        "`syscalls[1].action` is `SCMP_ACT_DENY`; it must be one",
    );
    check(&|s| s.syscalls[1].errno_ret = Some(5000), "`syscalls[1].errnoRet` is 5000; error numbers go from 0 to 4095");
    check(&|s| s.syscalls[0].errno_ret = Some(1), "`syscalls[0].errnoRet` is set, but `SCMP_ACT_ALLOW` takes no error");
    check(&|s| s.syscalls[0].names.clear(), "`syscalls[0].names` must name at least one system call");
    check(&|s| s.flags = vec!["TSYNC".into()], "`flags[0]` is `TSYNC`; it must be one of SECCOMP_FILTER_FLAG_LOG, ");
    check(&|s| s.architectures = vec!["X86".into()], "`architectures[0]` is `X86`, which is no architecture that");
    let sixth = argument(6, SeccompOperator::Equal, 0);
    check(&|s| s.syscalls[1].args = vec![sixth], "`syscalls[1].args[0].index` is 6; a system call has the arguments");
}

#[test]
fn names_of_no_known_call_are_told_and_do_nothing() {
    let compiled = x86_64(&profile(vec![rule(&["read", "raed", "riscv_hwprobe"], "SCMP_ACT_ALLOW", vec![])]));
    assert_eq!(compiled.unknown_calls, ["raed", "riscv_hwprobe"]);
    // A call of another architecture is no mistake.
    assert_eq!(x86_64(&profile(vec![rule(&["socketcall"], "SCMP_ACT_ALLOW", vec![])])).unknown_calls, [""; 0]);
}

#[test]
fn a_listener_is_asked_for_where_a_rule_notifies() {
    let filter = x86_64(&profile(vec![rule(&["mount"], "SCMP_ACT_NOTIFY", vec![])])).filter;
    assert_eq!(filter.flags.0, SeccompFlags::NEW_LISTENER);
    assert_eq!(filter.evaluate(&call(Architecture::X86_64, "mount", [0; 6])), SeccompAction::UserNotify);
}

#[test]
fn rules_in_their_hundreds_still_arrive_where_they_should() {
    // Each call has rules of its own, so that the search spans far more than a jump reaches.
    let calls = Architecture::X86_64.calls();
    let rules = calls.iter().map(|(number, name)| {
        let mut own = rule(&[name], "SCMP_ACT_ERRNO", vec![argument(3, SeccompOperator::GreaterOrEqual, 1 << 40)]);
        own.errno_ret = Some(100 + number);
        own
    });
    let filter = x86_64(&profile(rules.collect())).filter;
    assert!(filter.instructions.len() > 2000);
    for (number, name) in calls {
        let answer = |value| filter.evaluate(&call(Architecture::X86_64, name, [0, 0, 0, value, 0, 0]));
        assert_eq!(answer(1 << 40), SeccompAction::Errno(100 + number as u16));
        assert_eq!(answer((1 << 40) - 1), SeccompAction::Errno(1));
    }
}

#[test]
fn a_profile_too_large_for_the_kernel_is_an_error() {
    let many =
        (0..2000u64).map(|value| rule(&["kill"], "SCMP_ACT_ALLOW", vec![argument(0, SeccompOperator::Equal, value)]));
    assert!(matches!(compile(&profile(many.collect())), Err(SeccompError::Invalid(BpfCheckError::Length(_)))));
}

#[test]
fn the_default_profile_is_small_and_its_search_short() {
    let caps = ["CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_KILL"];
    let compiled = x86_64(&Profile::default_profile().to_oci(&caps, (6, 1)));
    assert_eq!(compiled.unknown_calls, [""; 0]);
    assert_eq!(compiled.unsupported_architectures, [""; 0]);
    let length = compiled.filter.instructions.len();
    assert!(length < 500, "{length} instructions");
}

/// Instructions that `data` goes through.
fn length_of_way(program: &[crate::runtime::seccomp::BpfInstruction], data: &SeccompData) -> usize {
    let answer = evaluate(program, data);
    // The shortest prefix of steps is found by counting: each jump of this compiler tests the word loaded last.
    let (mut at, mut word, mut steps) = (0, 0, 0);
    loop {
        let one = program[at];
        steps += 1;
        at += 1;
        match one.opcode().unwrap() {
            BpfOpcode::LoadWord => word = if one.k == seccomp_offsets::ARCH { data.arch } else { data.nr },
            BpfOpcode::JumpAlways => at += one.k as usize,
            BpfOpcode::Jump(test, _) => {
                let holds = if test == JumpTest::Equal { word == one.k } else { word >= one.k };
                at += usize::from(if holds { one.jt } else { one.jf });
            }
            _ => return if one.k == answer { steps } else { usize::MAX },
        }
    }
}

#[test]
fn the_hottest_calls_have_the_shortest_ways() {
    let filter = x86_64(&Profile::default_profile().to_oci(&[], (6, 1))).filter;
    let way = |name: &str| length_of_way(&filter.instructions, &call(Architecture::X86_64, name, [0; 6]));
    for name in ["read", "write", "futex", "recvfrom", "sendto", "epoll_wait"] {
        assert!(way(name) <= 9, "{name} takes {} instructions", way(name));
    }
    let longest = Architecture::X86_64
        .calls()
        .iter()
        .filter(|(_, name)| !matches!(*name, "clone" | "socket" | "personality" | "unshare"))
        .map(|(_, name)| way(name))
        .max()
        .unwrap();
    assert!(longest <= 20, "{longest}");
}

/// The rules read one by one, as the profile's documentation says.
fn naive(seccomp: &LinuxSeccomp, name: &str, args: &[u64; 6]) -> SeccompAction {
    for call in seccomp.syscalls.iter().filter(|call| call.names.iter().any(|one| one == name)) {
        let holds = |argument: &SeccompArgument| {
            let (left, right) = (args[argument.index as usize], argument.value);
            match argument.op {
                SeccompOperator::Equal => left == right,
                SeccompOperator::NotEqual => left != right,
                SeccompOperator::Less => left < right,
                SeccompOperator::LessOrEqual => left <= right,
                SeccompOperator::Greater => left > right,
                SeccompOperator::GreaterOrEqual => left >= right,
                SeccompOperator::MaskedEqual => left & right == argument.value_two,
            }
        };
        if call.args.iter().all(holds) {
            return SeccompAction::from_name(&call.action, call.errno_ret.unwrap_or(1) as u16).unwrap();
        }
    }
    SeccompAction::Errno(1)
}

/// Values near the edges of both halves, where mistakes would be.
fn edge() -> impl Strategy<Value = u64> {
    let half = prop_oneof![Just(0u64), Just(1), Just(0x7fff_ffff), Just(0x8000_0000), Just(0xffff_ffff), 0..4u64];
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

fn any_operator() -> impl Strategy<Value = SeccompOperator> {
    use SeccompOperator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
    prop_oneof![
        Just(Equal),
        Just(NotEqual),
        Just(Less),
        Just(LessOrEqual),
        Just(Greater),
        Just(GreaterOrEqual),
        Just(MaskedEqual)
    ]
}

fn any_rule() -> impl Strategy<Value = SeccompSyscall> {
    let condition = (any_operator(), edge(), edge());
    let conditions = prop::collection::btree_map(0..6u32, condition, 0..3);
    let name = prop_oneof![Just("read"), Just("write"), Just("kill"), Just("clone3")];
    (name, conditions, prop_oneof![Just(None), (2..4000u32).prop_map(Some)]).prop_map(|(name, conditions, errno)| {
        let args = conditions
            .into_iter()
            .map(|(index, (op, value, value_two))| SeccompArgument { index, value, value_two, op })
            .collect();
        let action = if errno.is_some() { "SCMP_ACT_ERRNO" } else { "SCMP_ACT_ALLOW" };
        SeccompSyscall { errno_ret: errno, ..rule(&[name], action, args) }
    })
}

proptest! {
    #[test]
    fn the_program_answers_as_the_rules_read(
        rules in prop::collection::vec(any_rule(), 0..12),
        calls in prop::collection::vec((0..4usize, prop::array::uniform6(edge())), 20),
    ) {
        let seccomp = profile(rules);
        let filter = x86_64(&seccomp).filter;
        for (which, args) in calls {
            let name = ["read", "write", "kill", "clone3"][which];
            let answer = filter.evaluate(&call(Architecture::X86_64, name, args));
            assert_eq!(answer, naive(&seccomp, name, &args), "{name}{args:x?}");
        }
    }

    #[test]
    fn any_number_of_a_list_of_denials_is_allowed_or_named(nr in any::<u32>()) {
        let mut seccomp = profile(vec![rule(&["mount"], "SCMP_ACT_KILL_PROCESS", vec![])]);
        seccomp.default_action = "SCMP_ACT_ALLOW".into();
        let data = SeccompData { nr, arch: audit_arch::X86_64, ..SeccompData::default() };
        let expected = match nr {
            165 => SeccompAction::KillProcess,
            X32_BIT.. => SeccompAction::Errno(ENOSYS),
            _ => SeccompAction::Allow,
        };
        assert_eq!(x86_64(&seccomp).filter.evaluate(&data), expected);
    }
}
