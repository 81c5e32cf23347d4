//! The compiler held against libseccomp, which Debian's crun and runc use: the same profile goes through both, and both
//! programs are asked about every number of three conventions, with arguments near the edges.
//!
//! Four differences are meant (`docs/decisions/default-seccomp-profile.md`): numbers beyond every known call fail with
//! ENOSYS, so do x32 calls that the profile does not list; a foreign architecture kills the process, not the thread; and a
//! rule about `socket` or `semop` is none about `socketcall` or `ipc` of 32-bit programs, as their arguments are behind a
//! pointer.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use stack::runtime::seccomp::{
    Architecture, BpfInstruction, LinuxSeccomp, Profile, SeccompAction, SeccompArgument, SeccompData, SeccompFilter,
    SeccompFlags, SeccompOperator, SeccompSyscall, audit_arch, compile,
};

const X32_BIT: u32 = 0x4000_0000;
/// Beyond the last number that both sides know; newer calls are known to one of them only.
const HIGHEST_COMPARED: u32 = 440;

/// xorshift64*: the same cases each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()]
    }
}

/// The helper around libseccomp, compiled once a run.
fn reference_compiler(folder: &Path) -> std::path::PathBuf {
    let program = folder.join("libseccomp");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp/libseccomp.c");
    let status = Command::new("cc").arg("-O1").arg("-o").arg(&program).arg(source).arg("-lseccomp").status().unwrap();
    assert!(status.success(), "needs the Debian packages gcc and libseccomp-dev");
    program
}

fn raw_action(name: &str, errno: Option<u32>) -> u32 {
    SeccompAction::from_name(name, errno.unwrap_or(1) as u16).unwrap().to_raw()
}

/// `seccomp` as the helper reads it.
fn as_lines(seccomp: &LinuxSeccomp) -> String {
    use SeccompOperator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
    let mut text = format!("default {}\n", raw_action(&seccomp.default_action, seccomp.default_errno_ret));
    for name in &seccomp.architectures {
        text += &format!("arch {}\n", name.trim_start_matches("SCMP_ARCH_").to_lowercase());
    }
    for call in &seccomp.syscalls {
        let action = raw_action(&call.action, call.errno_ret);
        let condition = |one: &SeccompArgument| {
            let order = [NotEqual, Less, LessOrEqual, Equal, GreaterOrEqual, Greater, MaskedEqual];
            let op = 1 + order.iter().position(|op| *op == one.op).unwrap();
            format!(" {} {op} {} {}", one.index, one.value, one.value_two)
        };
        // Conditions on one argument are alternatives; crun and runc hand them over as rules of their own.
        let is_repeated =
            (1..call.args.len()).any(|at| call.args[..at].iter().any(|one| one.index == call.args[at].index));
        let rules: Vec<String> = match is_repeated {
            true => call.args.iter().map(condition).collect(),
            false => vec![call.args.iter().map(condition).collect()],
        };
        // libseccomp refuses a rule whose answer is the default, as it changes nothing.
        let is_default = action == raw_action(&seccomp.default_action, seccomp.default_errno_ret);
        for name in call.names.iter().filter(|_| !is_default) {
            text.extend(rules.iter().map(|args| format!("rule {action} {name}{args}\n")));
        }
    }
    text
}

/// libseccomp's program, and the calls that it does not know.
fn reference(program: &Path, seccomp: &LinuxSeccomp) -> (SeccompFilter, BTreeSet<String>) {
    let mut child =
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = as_lines(seccomp);
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{lines}", String::from_utf8_lossy(&output.stderr));
    let instruction = |bytes: &[u8]| BpfInstruction {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    let instructions = output.stdout.chunks_exact(8).map(instruction).collect();
    let filter = SeccompFilter { instructions, flags: SeccompFlags::default() };
    filter.validate().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let unknown = said.lines().filter_map(|line| line.strip_prefix("unknown ")).map(String::from).collect();
    (filter, unknown)
}

/// Values that `seccomp` speaks of, one below, one above, and edges.
fn arguments(random: &mut Random, seccomp: &LinuxSeccomp, is_64_bit: bool) -> [u64; 6] {
    let spoken: Vec<u64> =
        seccomp.syscalls.iter().flat_map(|call| &call.args).flat_map(|one| [one.value, one.value_two]).collect();
    std::array::from_fn(|_| {
        let value = match random.next() % 3 {
            0 if !spoken.is_empty() => random.pick(&spoken).wrapping_add(random.next() % 3).wrapping_sub(1),
            1 => random.pick(&[0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, u64::MAX]),
            _ => random.next(),
        };
        if is_64_bit { value } else { value & 0xffff_ffff }
    })
}

/// The order of the rules about `name` matters, which libseccomp does not keep.
fn is_ordered(seccomp: &LinuxSeccomp, name: &str) -> bool {
    let mut about = seccomp.syscalls.iter().filter(|call| call.names.iter().any(|one| one == name));
    let first = about.next();
    about.any(|call| first.is_some_and(|first| (&call.action, call.errno_ret) != (&first.action, first.errno_ret)))
}

/// Asks both about every number of the listed conventions; gives how many questions were asked.
fn compare(random: &mut Random, helper: &Path, seccomp: &LinuxSeccomp) -> usize {
    let ours = compile(seccomp).unwrap().filter;
    let (theirs, unknown) = reference(helper, seccomp);
    let mut conventions = vec![(audit_arch::X86_64, 0, true)];
    if seccomp.architectures.iter().any(|name| name == "SCMP_ARCH_X86") {
        conventions.push((audit_arch::I386, 0, false));
    }
    if seccomp.architectures.iter().any(|name| name == "SCMP_ARCH_X32") {
        // libseccomp compares 32 bits of an x32 argument, we all that the kernel hands over.
        conventions.push((audit_arch::X86_64, X32_BIT, false));
    }
    let mut asked = 0;
    for (arch, bit, is_64_bit) in conventions {
        let numbers = (0..=HIGHEST_COMPARED).chain(if bit == 0 { 0..0 } else { 512..548 });
        for nr in numbers.map(|number| number | bit) {
            // A gap of one table may be a call of the other's: nobody can make it.
            let Some(name) = Architecture::call(arch, nr).1 else { continue };
            if matches!(name, "socketcall" | "ipc") || unknown.contains(name) || is_ordered(seccomp, name) {
                continue;
            }
            for _ in 0..4 {
                let args = arguments(random, seccomp, is_64_bit);
                let data = SeccompData { nr, arch, instruction_pointer: 0, args };
                let (mine, reference) = (ours.evaluate(&data), theirs.evaluate(&data));
                assert_eq!(
                    mine,
                    reference,
                    "{:?} {args:x?} under\n{}",
                    Architecture::call(arch, nr),
                    as_lines(seccomp)
                );
                asked += 1;
            }
        }
    }
    asked
}

/// One rule a call, each with conditions on different arguments: of several about one call libseccomp makes a tree, without
/// their order and (2.5.4) not always with their meaning.
fn random_profile(random: &mut Random) -> LinuxSeccomp {
    use SeccompOperator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
    let names = ["kill", "socket", "clone", "personality", "ioctl", "read", "prctl", "fcntl"];
    let count = 1 + random.next() as usize % names.len();
    let syscalls = names[..count].iter().map(|name| {
        let args = (0..6).filter(|_| random.next().is_multiple_of(3)).collect::<Vec<u32>>().into_iter().map(|index| {
            let op = random.pick(&[Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, MaskedEqual]);
            let value = random.pick(&[0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe]);
            let value_two = if op == MaskedEqual { value & random.next() } else { 0 };
            SeccompArgument { index, value, value_two, op }
        });
        let args = args.collect();
        SeccompSyscall { names: vec![(*name).into()], action: "SCMP_ACT_ALLOW".into(), errno_ret: None, args }
    });
    LinuxSeccomp {
        syscalls: syscalls.collect(),
        default_action: "SCMP_ACT_ERRNO".into(),
        architectures: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"].map(String::from).to_vec(),
        ..LinuxSeccomp::default()
    }
}

#[test]
fn random_profiles_mean_what_they_mean_to_libseccomp() {
    let folder = tempfile::tempdir().unwrap();
    let helper = reference_compiler(folder.path());
    let mut random = Random(0x5eed_0011);
    let asked: usize = (0..40)
        .map(|_| {
            let profile = random_profile(&mut random);
            compare(&mut random, &helper, &profile)
        })
        .sum();
    assert!(asked > 50_000, "{asked}");
}

#[test]
fn dockers_and_our_profile_mean_what_they_mean_to_libseccomp() {
    let folder = tempfile::tempdir().unwrap();
    let helper = reference_compiler(folder.path());
    let mut random = Random(0x5eed_0012);
    let docker = std::fs::read_to_string("/usr/share/containers/seccomp.json")
        .expect("the profile of docker and podman, of Debian's golang-github-containers-common");
    let docker = Profile::parse(&docker).unwrap();
    for caps in [&[][..], &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]] {
        for profile in [&docker, Profile::default_profile()] {
            let seccomp = profile.to_oci(caps, (6, 1));
            assert!(compare(&mut random, &helper, &seccomp) > 2_500);
            assert!(compile(&seccomp).unwrap().filter.instructions.len() < 1_000);
        }
    }
}
