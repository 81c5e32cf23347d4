//! Profiles as people write them: docker's JSON form, with conditions, and the same keys in TOML; and the project's own
//! default.

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer};

use super::conditions::{self, Circumstances, Conditions, kernel_version};
use super::{Architecture, LinuxSeccomp, SeccompArgument, SeccompSyscall};

/// Longest profile read; docker's has 20 KiB.
const PROFILE_LIMIT: usize = 4 * 1024 * 1024;

/// Why a text is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("the profile has {length} bytes; more than {PROFILE_LIMIT} are not read")]
    TooLong { length: usize },
    #[error("`{at}` of the profile is not as it should be")]
    Json { at: String, source: serde_json::Error },
    #[error("the profile is not as it should be")]
    Toml(#[from] toml::de::Error),
    #[error("`{at}` of the profile is `{found}`; {expected}")]
    Value { at: String, found: String, expected: &'static str },
    #[error("the profile has both `architectures` and `archMap`; it can have only one")]
    BothArchitectures,
}

/// A profile: docker's JSON form, of which the OCI form is the part without conditions. Unknown keys are errors: a
/// misspelt condition would change what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    /// podman's profile has the name beside the number, or in its place.
    #[serde(default)]
    default_errno: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    arch_map: Vec<ArchitectureMapping>,
    #[serde(default, deserialize_with = "or_default")]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) syscalls: Vec<ProfileSyscall>,
}

/// What else runs on a machine of an architecture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchitectureMapping {
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ProfileSyscall {
    /// The older form, of one name.
    #[serde(default)]
    name: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    errno: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) args: Vec<SeccompArgument>,
    /// For people.
    #[serde(default)]
    comment: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) includes: Conditions,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) excludes: Conditions,
}

/// `null` as the key not being there; docker's own tools write it.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

impl Profile {
    /// Reads a profile in JSON, which begins with a brace, or in TOML, which cannot. Names of actions and calls are checked
    /// by the compiler, as they are in a `config.json`.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        if text.len() > PROFILE_LIMIT {
            return Err(ProfileError::TooLong { length: text.len() });
        }
        let mut profile: Self = match text.trim_start().starts_with('{') {
            true => {
                serde_json::from_str(text).map_err(|source| ProfileError::Json { at: place_of_fault(text), source })?
            }
            false => toml::from_str(text)?,
        };
        profile.check()?;
        profile.number_errors()?;
        Ok(profile)
    }

    /// Puts the numbers of errors in the place of their names.
    fn number_errors(&mut self) -> Result<(), ProfileError> {
        merge_errno(&mut self.default_errno_ret, self.default_errno.take(), || "defaultErrno".into())?;
        for (number, call) in self.syscalls.iter_mut().enumerate() {
            merge_errno(&mut call.errno_ret, call.errno.take(), || format!("syscalls[{number}].errno"))?;
        }
        Ok(())
    }

    /// The text of [`default_profile`](Self::default_profile).
    pub const DEFAULT_TEXT: &str = include_str!("default.json");

    /// The project's own profile; `docs/decisions/default-seccomp-profile.md` says what it allows and why. Read once.
    pub fn default_profile() -> &'static Self {
        static PARSED: LazyLock<Profile> = LazyLock::new(|| {
            Profile::parse(Profile::DEFAULT_TEXT).expect("the profile in the program is checked by its tests")
        });
        &PARSED
    }

    fn check(&self) -> Result<(), ProfileError> {
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(ProfileError::BothArchitectures);
        }
        for (number, call) in self.syscalls.iter().enumerate() {
            let value = |key: &str, found: &str, expected| {
                Err(ProfileError::Value { at: format!("syscalls[{number}].{key}"), found: found.into(), expected })
            };
            if let Some(name) = call.name.as_deref().filter(|_| !call.names.is_empty()) {
                return value("name", name, "it cannot stand beside `names`");
            }
            for (key, conditions) in [("includes", &call.includes), ("excludes", &call.excludes)] {
                if let Some(cap) = conditions.caps.iter().find(|cap| !cap.starts_with("CAP_")) {
                    return value(&format!("{key}.caps"), cap, "a capability is written such as CAP_SYS_ADMIN");
                }
                let is_unknown = |arch: &&String| !conditions::ARCHITECTURES.contains(&arch.as_str());
                if let Some(arch) = conditions.arches.iter().find(is_unknown) {
                    return value(&format!("{key}.arches"), arch, "an architecture is written such as amd64 or arm64");
                }
                if let Some(text) = conditions.min_kernel.as_deref().filter(|text| kernel_version(text).is_none()) {
                    return value(&format!("{key}.minKernel"), text, "a kernel version is written such as 4.8");
                }
            }
        }
        Ok(())
    }

    /// The OCI form for a container with the capabilities `caps` (`CAP_…`, its bounding set) on a kernel of this version:
    /// conditions are decided and gone.
    pub fn to_oci(&self, caps: &[&str], kernel: (u32, u32)) -> LinuxSeccomp {
        let native = Architecture::native();
        let given = Circumstances { caps, kernel };
        let syscalls = self.syscalls.iter().filter(|call| given.why_not(&call.includes, &call.excludes).is_none());
        LinuxSeccomp {
            default_action: self.default_action.clone(),
            default_errno_ret: self.default_errno_ret,
            architectures: self.architectures_of(native.map_or("", Architecture::scmp_name)),
            flags: self.flags.clone(),
            listener_path: self.listener_path.clone(),
            listener_metadata: self.listener_metadata.clone(),
            syscalls: syscalls.map(ProfileSyscall::without_conditions).collect(),
        }
    }

    fn architectures_of(&self, native: &str) -> Vec<String> {
        match self.arch_map.iter().find(|mapping| mapping.architecture == native) {
            Some(mapping) => {
                std::iter::once(&mapping.architecture).chain(&mapping.sub_architectures).cloned().collect()
            }
            None => self.architectures.clone(),
        }
    }
}

impl ProfileSyscall {
    pub(super) fn is_about(&self, call: &str) -> bool {
        self.name.iter().chain(&self.names).any(|name| name == call)
    }

    fn without_conditions(&self) -> SeccompSyscall {
        let names = self.name.iter().chain(&self.names).cloned().collect();
        SeccompSyscall { names, action: self.action.clone(), errno_ret: self.errno_ret, args: self.args.clone() }
    }
}

/// Writes the number of the error `name` into `number`, which must not say otherwise.
fn merge_errno(number: &mut Option<u32>, name: Option<String>, at: impl Fn() -> String) -> Result<(), ProfileError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(()) };
    let wrong = |expected| Err(ProfileError::Value { at: at(), found: name.clone(), expected });
    // The names are those that the kernel's headers have; every one is below 256.
    let known = (1..256).find(|raw| format!("{:?}", nix::errno::Errno::from_raw(*raw)) == name);
    match (known.and_then(|raw| u32::try_from(raw).ok()), *number) {
        (None, _) => wrong("an error is written such as EPERM"),
        (Some(named), Some(numbered)) if named != numbered => wrong("the number beside it is another error's"),
        (named, _) => {
            *number = named;
            Ok(())
        }
    }
}

/// Where in a faulty profile the fault is, as far as it can be told: `syscalls[3].args[0]`, `syscalls[3]`, or the whole.
/// The error itself has line and column; this reads the document again, part by part.
fn place_of_fault(json: &str) -> String {
    let whole = "the whole".to_owned();
    let Ok(document) = serde_json::from_str::<serde_json::Value>(json) else { return whole };
    let Some(calls) = document.get("syscalls").and_then(serde_json::Value::as_array) else { return whole };
    for (number, call) in calls.iter().enumerate() {
        if ProfileSyscall::deserialize(call).is_ok() {
            continue;
        }
        let args = call.get("args").and_then(serde_json::Value::as_array).map_or(&[][..], Vec::as_slice);
        let bad = args.iter().position(|argument| SeccompArgument::deserialize(argument).is_err());
        return bad.map_or(format!("syscalls[{number}]"), |bad| format!("syscalls[{number}].args[{bad}]"));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::seccomp::{SeccompAction, SeccompData, compile};
    use std::error::Error;

    fn names(seccomp: &LinuxSeccomp) -> Vec<&str> {
        seccomp.syscalls.iter().flat_map(|call| call.names.iter().map(String::as_str)).collect()
    }

    #[test]
    fn conditions_are_decided_by_capabilities_kernel_and_architecture() {
        let profile = Profile::parse(
            r#"{ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                { "name": "read", "action": "SCMP_ACT_ALLOW" },
                { "names": ["bpf"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": { "caps": ["CAP_BPF", "CAP_SYS_ADMIN"] } },
                { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
                { "names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
                { "names": ["breakpoint"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["s390x"] }, "comment": "none" }
            ] }"#,
        )
        .unwrap();
        assert_eq!(names(&profile.to_oci(&[], (4, 8))), ["read", "clone3", "ptrace"]);
        assert_eq!(names(&profile.to_oci(&["CAP_SYS_ADMIN"], (4, 7))), ["read"]);
        assert_eq!(names(&profile.to_oci(&["CAP_SYS_ADMIN", "CAP_BPF"], (5, 0))), ["read", "bpf", "ptrace"]);
    }

    #[test]
    fn toml_says_the_same_as_json() {
        let json = r#"{ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": [
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"] }], "syscalls": [
            { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
              "args": [{ "index": 0, "value": 38, "op": "SCMP_CMP_EQ" }], "excludes": { "caps": ["CAP_NET_ADMIN"] } }] }"#;
        let toml = r#"
            # Few calls.
            defaultAction = "SCMP_ACT_ERRNO"
            defaultErrno = "ENOSYS"
            archMap = [{ architecture = "SCMP_ARCH_X86_64", subArchitectures = ["SCMP_ARCH_X86"] }]

            [[syscalls]]
            names = ["read", "write"]
            action = "SCMP_ACT_ALLOW"

            [[syscalls]]
            names = ["socket"]
            action = "SCMP_ACT_ERRNO"
            errno = "EAFNOSUPPORT"
            args = [{ index = 0, value = 38, op = "SCMP_CMP_EQ" }]
            excludes = { caps = ["CAP_NET_ADMIN"] }
        "#;
        assert_eq!(Profile::parse(toml).unwrap(), Profile::parse(json).unwrap());
        assert!(matches!(Profile::parse("defaultAction = 1"), Err(ProfileError::Toml(_))));
        for (errno, expected) in
            [(r#""EOOPS""#, "an error is written"), (r#""EPERM", "errnoRet": 2"#, "the number beside")]
        {
            let call = format!(r#"{{ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errno": {errno} }}"#);
            let json = format!(r#"{{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{call}] }}"#);
            let text = Profile::parse(&json).unwrap_err().to_string();
            assert!(text.starts_with("`syscalls[0].errno` of the profile is `E") && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn faults_are_told_with_their_place() {
        let check = |call: &str, expected: &str| {
            let json = format!(r#"{{ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ {call} ] }}"#);
            let error = Profile::parse(&json).unwrap_err();
            let text = format!("{error}: {}", error.source().map_or(String::new(), ToString::to_string));
            assert!(text.starts_with(expected), "{text}");
        };
        let args = |op| {
            format!(
                r#"{{ "names": ["kill"], "action": "SCMP_ACT_ALLOW", "args": [{{ "index": 0, "value": 1, "op": "{op}" }}] }}"#
            )
        };
        check(
            &args("SCMP_CMP_XX"),
            "`syscalls[0].args[0]` of the profile is not as it should be: unknown variant `SCMP_CMP_XX`",
        );
        check(
            r#"{ "names": ["kill"] }"#,
            "`syscalls[0]` of the profile is not as it should be: missing field `action`",
        );
        let with = |more: &str| format!(r#"{{ "names": ["kill"], "action": "SCMP_ACT_ALLOW", {more} }}"#);
        check(
            &with(r#""include": {}"#),
            "`syscalls[0]` of the profile is not as it should be: unknown field `include`",
        );
        check(
            &with(r#""name": "read""#),
            "`syscalls[0].name` of the profile is `read`; it cannot stand beside `names`",
        );
        check(
            &with(r#""includes": { "caps": ["sys_admin"] }"#),
            "`syscalls[0].includes.caps` of the profile is `sys_admin`",
        );
        check(
            &with(r#""excludes": { "arches": ["x64"] }"#),
            "`syscalls[0].excludes.arches` of the profile is `x64`; an",
        );
        check(
            &with(r#""includes": { "minKernel": "5" }"#),
            "`syscalls[0].includes.minKernel` of the profile is `5`; a kernel",
        );
        assert!(matches!(Profile::parse("{"), Err(ProfileError::Json { .. })));
    }

    /// The answer of the default profile to a native call.
    #[cfg(target_arch = "x86_64")]
    fn default_answer(caps: &[&str], name: &str, args: [u64; 6]) -> SeccompAction {
        let filter = compile(&Profile::default_profile().to_oci(caps, (6, 1))).unwrap().filter;
        let nr = Architecture::X86_64.number(name).unwrap();
        filter.evaluate(&SeccompData { nr, arch: Architecture::X86_64.audit(), args, ..SeccompData::default() })
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_default_profile_allows_what_programs_need() {
        for name in ["read", "openat", "execve", "mmap", "futex", "epoll_wait", "clone", "socket", "statx", "ptrace"] {
            assert_eq!(default_answer(&[], name, [0; 6]), SeccompAction::Allow, "{name}");
        }
        // A thread, as the C library starts one.
        assert_eq!(default_answer(&[], "clone", [0x3d_0f00, 0, 0, 0, 0, 0]), SeccompAction::Allow);
        assert_eq!(default_answer(&[], "clone3", [0; 6]), SeccompAction::Errno(38));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_default_profile_refuses_the_hosts_business() {
        for name in
            ["mount", "bpf", "kexec_load", "init_module", "keyctl", "setns", "io_uring_setup", "reboot", "swapon"]
        {
            assert_eq!(default_answer(&[], name, [0; 6]), SeccompAction::Errno(1), "{name}");
        }
        for flag in [0x80u64, 0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(default_answer(&[], "unshare", [flag, 0, 0, 0, 0, 0]), SeccompAction::Errno(1), "{flag:#x}");
            let clone = default_answer(&[], "clone", [flag | 17, 0, 0, 0, 0, 0]);
            // 0x80 is part of clone's exit signal, not a flag.
            assert_eq!(clone == SeccompAction::Allow, flag == 0x80, "{flag:#x}");
        }
        for family in [38, 40] {
            for upper in [0, 1 << 32, u64::MAX << 32] {
                let answer = default_answer(&[], "socket", [family | upper, 0, 0, 0, 0, 0]);
                assert_eq!(answer, SeccompAction::Errno(97), "{family} {upper:#x}");
            }
        }
        assert_eq!(default_answer(&[], "personality", [0x40000, 0, 0, 0, 0, 0]), SeccompAction::Errno(1));
        assert_eq!(default_answer(&[], "personality", [0xffff_ffff, 0, 0, 0, 0, 0]), SeccompAction::Allow);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn capabilities_bring_their_calls() {
        let admin = &["CAP_SYS_ADMIN"];
        for name in ["mount", "unshare", "setns", "clone3", "bpf"] {
            assert_eq!(default_answer(admin, name, [0x2_0000, 0, 0, 0, 0, 0]), SeccompAction::Allow, "{name}");
        }
        assert_eq!(default_answer(admin, "reboot", [0; 6]), SeccompAction::Errno(1));
        assert_eq!(default_answer(&["CAP_SYS_BOOT"], "reboot", [0; 6]), SeccompAction::Allow);
        assert_eq!(default_answer(&["CAP_SYS_TIME"], "clock_settime", [0; 6]), SeccompAction::Allow);
    }
}
