//! Configurations in, operations or refusals out.

use std::path::PathBuf;

use super::super::surroundings::{CgroupView, NetworkOrigin, Rootfs, Surroundings};
use super::*;

fn surroundings() -> Surroundings {
    Surroundings {
        bundle: PathBuf::from("/bundle"),
        rootfs: Rootfs::Directory(PathBuf::from("/bundle/rootfs")),
        cgroup_procs: Vec::new(),
        cgroup_view: CgroupView::Unified,
        init: false,
        network: NetworkOrigin::Own,
        seccomp: None,
    }
}

/// A small configuration with more members, `process` members and `linux` members.
fn config(more: &str, process: &str, linux: &str) -> OciConfig {
    let text = format!(
        r#"{{"ociVersion":"1.3.0"{more},"process":{{"cwd":"/","args":["true"]{process}}},
            "linux":{{"namespaces":[{{"type":"pid"}},{{"type":"mount"}},{{"type":"ipc"}},{{"type":"uts"}}]{linux}}}}}"#
    );
    OciConfig::parse(text.as_bytes()).unwrap()
}

fn steps(config: &OciConfig) -> Vec<String> {
    Program::compile(config, &surroundings()).unwrap().describe().collect()
}

fn refusal(config: &OciConfig) -> String {
    Program::compile(config, &surroundings()).expect_err("a refusal").to_string()
}

#[test]
fn a_small_configuration_becomes_these_steps() {
    let steps = steps(&config(r#","hostname":"web""#, "", ""));
    assert_eq!(
        steps,
        [
            "hide the process from debuggers",
            "tie the process to its parent",
            "start a session",
            "start a session keyring",
            "set the host name `web`",
            "make the mounts private",
            "take `/bundle/rootfs` as root",
            "attach the root",
            "open `/dev`",
            "make `/dev/null`",
            "make `/dev/zero`",
            "make `/dev/full`",
            "make `/dev/random`",
            "make `/dev/urandom`",
            "make `/dev/tty`",
            "link `/dev/fd`",
            "link `/dev/stdin`",
            "link `/dev/stdout`",
            "link `/dev/stderr`",
            "change the root",
            "enter the directory `/`",
            "become user 0 of group 0",
            "set the umask 022",
            "tie the process to its parent",
            "close the descriptors",
            "execute `true`",
        ]
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let cases: [(&str, &str, &str, &str); 11] = [
        (r#","hooks":{"poststop":[{"path":"/x"}]}"#, "", "", "hooks"),
        ("", r#","terminal":true"#, "", "process.terminal"),
        ("", r#","apparmorProfile":"x""#, "", "process.apparmorProfile"),
        ("", r#","selinuxLabel":"x""#, "", "process.selinuxLabel"),
        ("", "", r#","netDevices":{"eth9":{}}"#, "linux.netDevices"),
        ("", "", r#","intelRdt":{}"#, "linux.intelRdt"),
        ("", "", r#","rootfsPropagation":"shared""#, "linux.rootfsPropagation"),
        ("", "", r#","devices":[{"type":"c","path":"/dev/fuse","major":10,"minor":229}]"#, "linux.devices[0]"),
        ("", "", r#","resources":{"devices":[{"allow":false}]}"#, "linux.resources.devices"),
        (r#","mounts":[{"destination":"/a","source":"/b","options":["bind","rshared"]}]"#, "", "", "mounts[0]"),
        (
            r#","mounts":[{"destination":"/a","source":"/b","options":["bind","idmap"]}]"#,
            "",
            "",
            "mounts[0].uidMappings",
        ),
    ];
    for (more, process, linux, name) in cases {
        let text = refusal(&config(more, process, linux));
        assert!(text.contains(name) && text.ends_with("not supported yet"), "{name}: {text}");
    }
}

#[test]
fn mappings_and_offsets_need_their_namespaces() {
    for (linux, name) in [
        (r#","uidMappings":[{"containerID":0,"hostID":1,"size":1}]"#, "`user` namespace"),
        (r#","timeOffsets":{"monotonic":{"secs":1}}"#, "`time` namespace"),
    ] {
        let text = refusal(&config("", "", linux));
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[test]
fn nothing_is_mounted_over_the_procfs() {
    for (mount, expected) in [
        (r#"{"destination":"/proc","type":"tmpfs"}"#, "tmpfs on `/proc`"),
        (r#"{"destination":"proc/","source":"/x","options":["bind"]}"#, "bind on `/proc`"),
        (r#"{"destination":"/a/../proc/sys","type":"tmpfs"}"#, "inside of procfs"),
        (r#"{"destination":"/proc/self","type":"tmpfs"}"#, "inside of procfs"),
    ] {
        let text = refusal(&config(&format!(r#","mounts":[{mount}]"#), "", ""));
        assert!(text.contains(expected), "{text}");
    }
    let meminfo = r#","mounts":[{"destination":"/proc/meminfo","source":"/x","options":["bind"]}]"#;
    steps(&config(meminfo, "", ""));
}

#[test]
fn the_root_itself_is_no_target() {
    let text = refusal(&config(r#","mounts":[{"destination":"/../","type":"tmpfs"}]"#, "", ""));
    assert!(text.contains("names the root itself"), "{text}");
}

#[test]
fn parameters_of_the_host_are_refused() {
    let text = refusal(&config("", "", r#","sysctl":{"kernel.core_pattern":"|/x"}"#));
    assert!(text.contains("linux.sysctl.kernel.core_pattern") && text.contains("whole host"), "{text}");
}

#[test]
fn limits_without_a_cgroup_and_filters_without_a_compiler_are_refused() {
    let text = refusal(&config("", "", r#","resources":{"pids":{"limit":5}}"#));
    assert!(text.contains("linux.resources"), "{text}");
    let text = refusal(&config("", "", r#","seccomp":{"defaultAction":"SCMP_ACT_ALLOW"}"#));
    assert!(text.contains("linux.seccomp"), "{text}");
}

/// seccomp(2): without no_new_privs the filter needs a capability that is dropped afterwards.
#[test]
fn the_filter_comes_last_if_it_can() {
    let seccomp = crate::runtime::container::SeccompProgram { filter: Vec::new(), flags: Default::default() };
    let given = Surroundings { seccomp: Some(seccomp), ..surroundings() };
    let position = |process: &str| {
        let program = Program::compile(&config("", process, ""), &given).unwrap();
        let filter = program.payload.iter().position(|op| matches!(op, SetupOp::InstallSeccomp(_))).unwrap();
        let user = program.payload.iter().position(|op| matches!(op, SetupOp::SetUser(_))).unwrap();
        (filter, user, program.payload.len())
    };
    let (filter, _, length) = position(r#","noNewPrivileges":true"#);
    assert_eq!(filter, length - 2);
    let (filter, user, _) = position("");
    assert!(filter < user);
}

#[test]
fn every_bind_is_without_devices_unless_it_says_so() {
    let bind = |options: &str| {
        let more = format!(r#","mounts":[{{"destination":"/a","source":"b","options":[{options}]}}]"#);
        let program = Program::compile(&config(&more, "", ""), &surroundings()).unwrap();
        program
            .setup
            .into_iter()
            .find_map(|op| match op {
                SetupOp::Mount(mount) => match mount.source {
                    super::super::op::MountSource::Bind(bind) => Some(bind),
                    super::super::op::MountSource::Filesystem(_) => None,
                },
                _ => None,
            })
            .unwrap()
    };
    let no_dev = crate::runtime::sys::MountAttributes::NO_DEV;
    assert_eq!(bind(r#""rbind""#).recursive.set & no_dev, no_dev);
    assert_eq!(bind(r#""rbind","dev""#).recursive.set & no_dev, 0);
    assert_eq!(bind(r#""bind""#).path.to_str(), Ok("/bundle/b"));
}
