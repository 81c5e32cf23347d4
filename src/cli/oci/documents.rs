//! Documents about the runtime itself: help, features, an example of a configuration.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;

use serde_json::json;

use crate::runtime::container::{capability_names, defaults};
use crate::runtime::oci::{
    OciCapabilities, OciConfig, OciLinuxConfig, OciNamespace, OciNamespaceKind, OciProcess, OciRlimit, OciRoot,
};

use super::flags::{switch, value};
use super::{Failure, parse};

/// The version of the specification that is implemented.
pub const SPECIFICATION: &str = "1.3.0";

pub const HELP: &str = "\
stack-oci: containers as the OCI runtime specification has them

usage: stack-oci [--root DIR] [--log FILE] [--log-format text|json] COMMAND [flags] [ID] …

  create   [--bundle DIR] [--console-socket FILE] [--pid-file FILE] [--preserve-fds N]
           [--no-pivot] [--no-new-keyring] ID
  start    ID
  run      flags of create, [--detach] [--keep] ID
  state    ID
  kill     [--all] ID [SIGNAL]
  delete   [--force] ID
  exec     [--process FILE] [--detach] [--tty] [--user UID[:GID]] [--env K=V] [--cwd DIR]
           [--cap CAP] [--console-socket FILE] [--pid-file FILE] ID COMMAND …
  list     [--quiet] [--format table|json]
  ps       [--format table|json] ID
  events   [--stats] [--interval SECONDS] ID
  update   [--resources FILE] [--memory BYTES] [--cpu-quota US] [--pids-limit N] … ID
  pause    ID
  resume   ID
  spec     [--bundle DIR]
  features
";

pub fn spec(arguments: &mut dyn Iterator<Item = OsString>) -> Result<u8, Failure> {
    let given = parse("spec", arguments, &[value("bundle", Some('b')), switch("rootless", None)])?;
    if given.is_set("rootless") {
        return Err(Failure::usage("`--rootless` is not supported"));
    }
    let path = given.path("bundle").unwrap_or_else(|| ".".into()).join("config.json");
    let mut text = serde_json::to_vec_pretty(&example()).map_err(|error| Failure::usage(error.to_string()))?;
    text.push(b'\n');
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| file.write_all(&text))
        .map_err(|error| Failure::usage(format!("cannot write `{}`: {error}", path.display())))?;
    Ok(0)
}

fn example() -> OciConfig {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"].map(str::to_owned).to_vec();
    let kinds = [
        OciNamespaceKind::Pid,
        OciNamespaceKind::Network,
        OciNamespaceKind::Ipc,
        OciNamespaceKind::Uts,
        OciNamespaceKind::Mount,
        OciNamespaceKind::Cgroup,
    ];
    OciConfig {
        oci_version: SPECIFICATION.to_owned(),
        root: Some(OciRoot { path: "rootfs".into(), readonly: true }),
        process: Some(OciProcess {
            cwd: "/".to_owned(),
            args: vec!["sh".to_owned()],
            env: vec![format!("PATH={}", defaults::PATH), "TERM=xterm".to_owned()],
            terminal: true,
            no_new_privileges: true,
            rlimits: vec![OciRlimit { kind: "RLIMIT_NOFILE".to_owned(), soft: 1024, hard: 1024 }],
            capabilities: Some(OciCapabilities {
                bounding: capabilities.clone(),
                effective: capabilities.clone(),
                permitted: capabilities,
                ..OciCapabilities::default()
            }),
            ..OciProcess::default()
        }),
        hostname: Some("stack".to_owned()),
        mounts: defaults::mounts(),
        linux: Some(OciLinuxConfig {
            namespaces: kinds.map(|kind| OciNamespace { kind, path: None }).to_vec(),
            masked_paths: defaults::MASKED_PATHS.map(str::to_owned).to_vec(),
            readonly_paths: defaults::READONLY_PATHS.map(str::to_owned).to_vec(),
            ..OciLinuxConfig::default()
        }),
        ..OciConfig::default()
    }
}

/// runtime-spec features.md.
pub fn features() -> Result<u8, Failure> {
    let options = [
        "async",
        "atime",
        "bind",
        "defaults",
        "dev",
        "diratime",
        "dirsync",
        "exec",
        "idmap",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noatime",
        "nodev",
        "nodiratime",
        "noexec",
        "noiversion",
        "nolazytime",
        "nomand",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "nosymfollow",
        "private",
        "ratime",
        "rbind",
        "rdev",
        "rdiratime",
        "relatime",
        "remount",
        "rexec",
        "ridmap",
        "rnoatime",
        "rnodev",
        "rnodiratime",
        "rnoexec",
        "rnorelatime",
        "rnostrictatime",
        "rnosuid",
        "rnosymfollow",
        "ro",
        "rprivate",
        "rrelatime",
        "rro",
        "rrw",
        "rshared",
        "rslave",
        "rstrictatime",
        "rsuid",
        "rsymfollow",
        "runbindable",
        "rw",
        "shared",
        "silent",
        "slave",
        "strictatime",
        "suid",
        "symfollow",
        "sync",
        "tmpcopyup",
        "unbindable",
    ];
    let flags = [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    let text = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPECIFICATION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options.as_slice(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capability_names(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                            "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
                "knownFlags": flags, "supportedFlags": flags,
                "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                              "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": ["MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                          "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {},
        "potentiallyUnsafeConfigAnnotations": [],
    });
    println!("{}", serde_json::to_string_pretty(&text).unwrap_or_default());
    Ok(0)
}
