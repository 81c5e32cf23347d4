//! The compiler, the checker and the evaluator held against the kernel: children install random filters and make random
//! calls, and every answer must be the one foretold. The calls made take no arguments, so that whatever stands in the
//! registers does nothing, and the filter sees it all the same.

use stack::runtime::seccomp::{
    Architecture, BpfInstruction, BpfOpcode, LinuxSeccomp, Profile, SeccompAction, SeccompArgument, SeccompData,
    SeccompFilter, SeccompFlags, SeccompOperator, SeccompSyscall, compile, seccomp_offsets,
};
use stack::runtime::sys::{CallAbi, Errno, RawCall, TrialAnswer, make_calls_filtered};

const HARMLESS: [&str; 3] = ["getpid", "getppid", "gettid"];
const ENOSYS: i64 = 38;
const FILTERS: usize = 260;
const CALLS_PER_FILTER: usize = 40;

/// xorshift64*: the same cases each run, so that a failure can be looked at again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Values near the edges of both halves, where mistakes would be.
    fn edge(&mut self) -> u64 {
        let mut half = || match self.below(4) {
            0 => self.next() & 0xffff_ffff,
            _ => self.pick(&[0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]),
        };
        half() << 32 | half()
    }
}

fn operator(random: &mut Random) -> SeccompOperator {
    use SeccompOperator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
    random.pick(&[Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, MaskedEqual])
}

fn random_profile(random: &mut Random) -> LinuxSeccomp {
    let rule = |names: &[&str], action: &str| SeccompSyscall {
        names: names.iter().map(|name| (*name).into()).collect(),
        action: action.into(),
        ..SeccompSyscall::default()
    };
    // Deadly answers are rare, as each costs a child.
    let actions = ["SCMP_ACT_ALLOW", "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"];
    let rare = ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP", "SCMP_ACT_LOG"];
    let action = |random: &mut Random| if random.below(16) == 0 { random.pick(&rare) } else { random.pick(&actions) };
    let mut syscalls = vec![rule(&["exit_group"], "SCMP_ACT_ALLOW")];
    for _ in 0..random.below(12) {
        let mut one = rule(&[random.pick(&HARMLESS)], action(random));
        if one.action == "SCMP_ACT_ERRNO" {
            one.errno_ret = Some(1 + random.below(4095) as u32);
        }
        for index in (0..6).filter(|_| random.below(4) == 0).collect::<Vec<u32>>() {
            let (op, value, mask) = (operator(random), random.edge(), random.edge());
            one.args.push(match op {
                // A datum within the mask, so that it can hold.
                SeccompOperator::MaskedEqual => SeccompArgument { index, value: mask, value_two: value & mask, op },
                op => SeccompArgument { index, value, value_two: 0, op },
            });
        }
        syscalls.push(one);
    }
    let default_action = random.pick(&["SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_TRACE"]).into();
    let architectures = if cfg!(target_arch = "x86_64") { vec!["SCMP_ARCH_X86".into()] } else { vec![] };
    LinuxSeccomp { default_action, architectures, syscalls, ..LinuxSeccomp::default() }
}

fn random_call(random: &mut Random, profile: &LinuxSeccomp) -> RawCall {
    let abi =
        if cfg!(target_arch = "x86_64") { random.pick(&[CallAbi::Native, CallAbi::X86]) } else { CallAbi::Native };
    let native = Architecture::native().unwrap();
    let architecture = if abi == CallAbi::X86 { Architecture::X86 } else { native };
    let name = random.pick(&HARMLESS);
    let nr = match random.below(16) {
        // Beyond all that exist, also in the convention of x32.
        0 => 1_000 + random.below(1_000) as u32,
        1 if abi == CallAbi::Native => 0x4000_0000 + 5_000,
        _ => architecture.number(name).unwrap(),
    };
    // Mostly values that the rules speak of, or next to them.
    let values: Vec<u64> = profile.syscalls.iter().flat_map(|call| &call.args).map(|one| one.value).collect();
    let args = std::array::from_fn(|_| {
        let value = match values.is_empty() || random.below(3) == 0 {
            true => random.edge(),
            false => random.pick(&values).wrapping_add(random.below(3)).wrapping_sub(1),
        };
        if abi == CallAbi::X86 { value & 0xffff_ffff } else { value }
    });
    RawCall { abi, nr, args }
}

fn data(call: &RawCall) -> SeccompData {
    let architecture = if call.abi == CallAbi::X86 { Architecture::X86 } else { Architecture::native().unwrap() };
    SeccompData { nr: call.nr, arch: architecture.audit(), instruction_pointer: 0, args: call.args }
}

fn agrees(foretold: SeccompAction, answer: TrialAnswer, call: &RawCall) -> bool {
    let exists = call.nr < 1_000;
    match (foretold, answer) {
        (SeccompAction::KillProcess | SeccompAction::KillThread | SeccompAction::Trap(_), answer) => {
            answer == TrialAnswer::Killed
        }
        (SeccompAction::Errno(errno), TrialAnswer::Returned(value)) => value == -i64::from(errno),
        // Nobody traces or supervises.
        (SeccompAction::Trace(_) | SeccompAction::UserNotify, TrialAnswer::Returned(value)) => value == -ENOSYS,
        (SeccompAction::Allow | SeccompAction::Log, TrialAnswer::Returned(value)) => {
            if exists {
                value > 0
            } else {
                value == -ENOSYS
            }
        }
        _ => false,
    }
}

/// Makes all `calls` under `filter`, with a new child after each that was killed, and compares.
fn hold_against_kernel(filter: &SeccompFilter, calls: &[RawCall], about: &dyn std::fmt::Debug) {
    let mut rest = calls;
    while !rest.is_empty() {
        let answers = make_calls_filtered(&filter.instructions, rest).unwrap();
        assert!(!answers.is_empty(), "no call was made under {about:?}");
        for (call, answer) in rest.iter().zip(&answers) {
            if *answer == TrialAnswer::Unsupported {
                return;
            }
            let foretold = filter.evaluate(&data(call));
            assert!(
                agrees(foretold, *answer, call),
                "{call:x?}: foretold {foretold:?}, got {answer:?} under {about:?}"
            );
        }
        rest = &rest[answers.len().min(rest.len())..];
    }
}

/// Some kernels have no 32-bit entry; asked once, by a call under a filter that allows it.
fn has_x86_entry() -> bool {
    let allow = [BpfOpcode::ReturnConstant.with(SeccompAction::Allow.to_raw())];
    let nr = Architecture::X86.number("getpid").unwrap();
    let call = RawCall { abi: CallAbi::X86, nr, args: [0; 6] };
    matches!(make_calls_filtered(&allow, &[call]).as_deref(), Ok([TrialAnswer::Returned(pid)]) if *pid > 0)
}

#[test]
fn the_kernel_answers_as_the_evaluator_foretells() {
    let x86 = has_x86_entry();
    if !x86 {
        println!("skipped in part: this kernel runs no 32-bit programs");
    }
    let mut random = Random(0x5eed_0001);
    for _ in 0..FILTERS {
        let profile = random_profile(&mut random);
        let filter = compile(&profile).unwrap().filter;
        let calls: Vec<RawCall> = (0..CALLS_PER_FILTER)
            .map(|_| random_call(&mut random, &profile))
            .filter(|call| x86 || call.abi == CallAbi::Native)
            .collect();
        hold_against_kernel(&filter, &calls, &profile);
    }
}

/// What a call fails with that would be allowed.
const INSTEAD_OF_ALLOW: u16 = 4000;

/// `program`, with every call that it would allow failed in place of being made; but the child may exit.
fn made_harmless(program: &[BpfInstruction]) -> Vec<BpfInstruction> {
    let allow = BpfOpcode::ReturnConstant.with(SeccompAction::Allow.to_raw());
    let instead = BpfOpcode::ReturnConstant.with(SeccompAction::Errno(INSTEAD_OF_ALLOW).to_raw());
    let body = program.iter().map(|one| if *one == allow { instead } else { *one });
    let exit = Architecture::native().unwrap().number("exit_group").unwrap();
    let mut guarded = may_exit(exit);
    guarded.extend(body);
    guarded
}

#[test]
fn dockers_profile_and_ours_are_read_by_the_kernel_as_foretold_for_every_number() {
    let docker = std::fs::read_to_string("/usr/share/containers/seccomp.json")
        .expect("the profile of docker and podman, of Debian's golang-github-containers-common");
    let docker = Profile::parse(&docker).unwrap();
    let exit = Architecture::native().unwrap().number("exit_group").unwrap();
    let mut random = Random(0x5eed_0004);
    for caps in [&[][..], &["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]] {
        for profile in [&docker, Profile::default_profile()] {
            let seccomp = profile.to_oci(caps, (6, 1));
            let filter = compile(&seccomp).unwrap().filter;
            let harmless =
                SeccompFilter { instructions: made_harmless(&filter.instructions), flags: SeccompFlags::default() };
            harmless.validate().unwrap();
            let x32 = (0x4000_0000..0x4000_0000 + 600).map(|nr| (CallAbi::Native, nr));
            let x86 = (0..600).filter(|_| has_x86_entry()).map(|nr| (CallAbi::X86, nr));
            let native = (0..600).map(|nr| (CallAbi::Native, nr));
            let calls: Vec<RawCall> = native
                .chain(x86)
                // Linux 6.14 and later ask no filter about the calls that its own probes make, and kill who else makes them.
                .filter(|(abi, nr)| *nr != exit && (*abi == CallAbi::X86 || !matches!(nr, 335 | 336)))
                .chain(x32.filter(|_| cfg!(target_arch = "x86_64")))
                .map(|(abi, nr)| {
                    let args = std::array::from_fn(|_| match random.below(2) {
                        0 => random.below(48),
                        _ => random.edge(),
                    });
                    RawCall {
                        abi,
                        nr,
                        args: if abi == CallAbi::X86 { args.map(|arg| arg & 0xffff_ffff) } else { args },
                    }
                })
                .collect();
            // The filter as it is says what the harmless one must answer.
            for call in &calls {
                let expected = match filter.evaluate(&data(call)) {
                    SeccompAction::Allow => SeccompAction::Errno(INSTEAD_OF_ALLOW),
                    other => other,
                };
                assert_eq!(harmless.evaluate(&data(call)), expected);
            }
            hold_against_kernel(&harmless, &calls, &"a whole profile");
        }
    }
}

#[test]
fn an_architecture_that_is_not_listed_kills() {
    if !has_x86_entry() {
        return println!("skipped: this kernel runs no 32-bit programs");
    }
    let profile = LinuxSeccomp { default_action: "SCMP_ACT_ALLOW".into(), ..LinuxSeccomp::default() };
    let filter = compile(&profile).unwrap().filter;
    let nr = Architecture::X86.number("getpid").unwrap();
    let calls = [RawCall { abi: CallAbi::X86, nr, args: [0; 6] }];
    assert_eq!(make_calls_filtered(&filter.instructions, &calls).unwrap(), [TrialAnswer::Killed]);
}

#[test]
fn the_default_profile_is_taken_and_denies_for_real() {
    let filter = compile(&Profile::default_profile().to_oci(&[], (6, 1))).unwrap().filter;
    let native = Architecture::native().unwrap();
    let call =
        |name, first| RawCall { abi: CallAbi::Native, nr: native.number(name).unwrap(), args: [first, 0, 0, 0, 0, 0] };
    // All but the last are denied; should one not be, its arguments make it fail on its own account.
    let calls = [
        call("mount", 0),
        call("bpf", u64::MAX),
        call("unshare", 0x2_0000),
        call("clone3", 0),
        call("socket", 38),
        call("socket", 40),
        call("keyctl", u64::MAX),
        call("io_uring_setup", 0),
        call("getpid", 0),
    ];
    let answers = make_calls_filtered(&filter.instructions, &calls).unwrap();
    let expected = [-1, -1, -1, -38, -97, -97, -1, -1].map(TrialAnswer::Returned);
    assert_eq!(answers[..8], expected);
    assert!(matches!(answers[8], TrialAnswer::Returned(pid) if pid > 0));
}

/// Lets the call `exit` pass, and goes on.
fn may_exit(exit: u32) -> Vec<BpfInstruction> {
    use stack::runtime::seccomp::{JumpTest, Operand};
    vec![
        BpfOpcode::LoadWord.with(seccomp_offsets::NR),
        BpfInstruction { jt: 0, jf: 1, ..BpfOpcode::Jump(JumpTest::Equal, Operand::Constant).with(exit) },
        BpfOpcode::ReturnConstant.with(SeccompAction::Allow.to_raw()),
    ]
}

/// A program that lets the child exit, does what `body` does, and fails the call with the lower twelve bits of what is
/// then in the accumulator.
fn wrapped(body: &[BpfInstruction]) -> Vec<BpfInstruction> {
    use stack::runtime::seccomp::{AluOperation, Operand};
    let mut program = may_exit(Architecture::native().unwrap().number("exit_group").unwrap());
    program.extend_from_slice(body);
    program.push(BpfOpcode::Alu(AluOperation::And, Operand::Constant).with(0xfff));
    program.push(BpfOpcode::Alu(AluOperation::Or, Operand::Constant).with(SeccompAction::Errno(0).to_raw()));
    program.push(BpfOpcode::ReturnA.with(0));
    program
}

/// Instructions of every kind that seccomp takes, mostly with operands that it takes.
fn random_body(random: &mut Random) -> Vec<BpfInstruction> {
    let codes: Vec<u16> = (0..0x100).filter(|code| BpfOpcode::from_code(*code).is_some()).collect();
    let length = 1 + random.below(24) as usize;
    let mut body: Vec<BpfInstruction> = (0..4).map(|word| BpfOpcode::Store.with(word)).collect();
    for at in 0..length {
        let left = (length - at) as u64;
        let code = random.pick(&codes);
        let mut instruction = BpfInstruction { code, jt: 0, jf: 0, k: random.edge() as u32 };
        match instruction.opcode().unwrap() {
            // Not the instruction pointer, which is the child's own affair.
            BpfOpcode::LoadWord => instruction.k = random.pick(&[0, 4, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60]),
            BpfOpcode::LoadScratch | BpfOpcode::LoadXScratch => instruction.k = random.below(4) as u32,
            BpfOpcode::Store | BpfOpcode::StoreX => instruction.k = random.below(16) as u32,
            BpfOpcode::JumpAlways => instruction.k = random.below(left) as u32,
            BpfOpcode::Jump(..) => {
                (instruction.jt, instruction.jf) = (random.below(left) as u8, random.below(left) as u8);
            }
            BpfOpcode::Alu(operation, _) => {
                use stack::runtime::seccomp::AluOperation::{Divide, ShiftLeft, ShiftRight};
                if matches!(operation, Divide | ShiftLeft | ShiftRight) {
                    instruction.k = 1 + random.below(31) as u32;
                }
            }
            // Would end it early, mostly by killing.
            BpfOpcode::ReturnA => instruction = BpfOpcode::LoadLength.with(0),
            BpfOpcode::ReturnConstant => instruction.k = SeccompAction::Errno(random.below(4096) as u16).to_raw(),
            _ => {}
        }
        body.push(instruction);
    }
    body
}

/// Shifts by more than 31 through X give what the processor or the translator makes of them.
fn has_shift_by_x(body: &[BpfInstruction]) -> bool {
    use stack::runtime::seccomp::{AluOperation::ShiftLeft, AluOperation::ShiftRight, Operand};
    body.iter().any(|one| matches!(one.opcode(), Some(BpfOpcode::Alu(ShiftLeft | ShiftRight, Operand::X))))
}

#[test]
fn any_program_computes_what_the_evaluator_does() {
    let mut random = Random(0x5eed_0002);
    for _ in 0..FILTERS {
        let body = random_body(&mut random);
        if has_shift_by_x(&body) {
            continue;
        }
        let filter = SeccompFilter { instructions: wrapped(&body), flags: SeccompFlags::default() };
        filter.validate().unwrap_or_else(|error| panic!("{error} in {body:x?}"));
        let nr = Architecture::native().unwrap().number("getpid").unwrap();
        let calls: Vec<RawCall> = (0..10)
            .map(|_| RawCall { abi: CallAbi::Native, nr, args: std::array::from_fn(|_| random.edge()) })
            .collect();
        hold_against_kernel(&filter, &calls, &body);
    }
}

#[test]
fn the_checker_takes_what_the_kernel_takes() {
    let mut random = Random(0x5eed_0003);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..FILTERS * 4 {
        let mut body = random_body(&mut random);
        let at = random.below(body.len() as u64) as usize;
        // One field of one instruction becomes anything.
        match random.below(4) {
            0 => body[at].code = random.below(0x100) as u16,
            1 => body[at].k = random.pick(&[0, 1, 15, 16, 31, 32, 60, 61, 64, 0x7fff_ffff, u32::MAX]),
            2 => body[at].jt = random.below(40) as u8,
            _ => body[at].jf = random.below(40) as u8,
        }
        let program = wrapped(&body);
        let filter = SeccompFilter { instructions: program.clone(), flags: SeccompFlags::default() };
        let kernel = match make_calls_filtered(&program, &[]) {
            Ok(_) => true,
            Err(Errno::INVAL) => false,
            Err(error) => panic!("{error} for {body:x?}"),
        };
        assert_eq!(filter.validate().is_ok(), kernel, "{:?} for {program:x?}", filter.validate());
        if kernel { taken += 1 } else { refused += 1 }
    }
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
}
