//! What a program in a container sees, and what it may.

use std::path::PathBuf;

use stack::runtime::container::{Rootfs, SeccompProgram, capability_set, defaults};
use stack::runtime::oci::{OciMount, OciRlimit};
use stack::runtime::sys::{SeccompFilterFlags, SockFilter};

use super::bundle::{Bundle, Outcome};

fn check(bundle: &Bundle, expected: &str) -> Outcome {
    let outcome = bundle.run();
    assert_eq!(outcome.stdout.trim_end(), expected, "{outcome:?}");
    outcome
}

fn status_line(outcome: &str, key: &str) -> String {
    let line = outcome.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key}: {outcome}"));
    line.rsplit(['\t', ' ']).next().unwrap().to_owned()
}

#[test]
fn host_name_environment_and_arguments_are_as_configured() {
    let mut bundle = Bundle::new("hostname; env | sort; pwd");
    bundle.process().env = vec!["PATH=/bin".into(), "WORD=two words".into()];
    bundle.process().cwd = "/made/on/demand".into();
    check(&bundle, "tested\nPATH=/bin\nPWD=/made/on/demand\nSHLVL=1\nWORD=two words\n/made/on/demand");
}

#[test]
fn with_an_init_the_program_is_its_child_and_without_it_is_the_first() {
    check(&Bundle::new("echo $$ $PPID"), "2 1");
    check(&Bundle::new("echo $$ $PPID").without_init(), "1 0");
}

#[test]
fn the_programs_status_is_the_containers() {
    assert_eq!(Bundle::new("exit 7").run().status, 7);
    assert_eq!(Bundle::new("exit 7").without_init().run().status, 7);
    assert_eq!(Bundle::new("kill -KILL $$").run().status, 128 + 9);
    assert_eq!(Bundle::new("kill -SEGV $$").run().status, 128 + 11);
}

#[test]
fn user_and_groups_are_as_configured() {
    let mut bundle = Bundle::new("id -u; id -g; id -G; umask");
    bundle.process().user.uid = 1000;
    bundle.process().user.gid = 1001;
    bundle.process().user.additional_gids = vec![4, 20];
    bundle.process().user.umask = Some(0o027);
    check(&bundle, "1000\n1001\n1001 4 20\n0027");
    check(&Bundle::new("id -u; id -G; umask"), "0\n0\n0022");
}

#[test]
fn capabilities_are_the_defaults_and_no_new_ones_come() {
    for bundle in [Bundle::new("cat /proc/self/status"), Bundle::new("cat /proc/self/status").without_init()] {
        let outcome = bundle.run().stdout;
        let expected = capability_set(&defaults::CAPABILITIES);
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(u64::from_str_radix(&status_line(&outcome, set), 16).unwrap(), expected, "{set}");
        }
        assert_eq!(status_line(&outcome, "CapInh"), "0".repeat(16));
        assert_eq!(status_line(&outcome, "CapAmb"), "0".repeat(16));
        assert_eq!(status_line(&outcome, "NoNewPrivs"), "1");
    }
}

#[test]
fn another_user_has_no_capabilities_but_ambient_ones() {
    let mut bundle = Bundle::new("cat /proc/self/status");
    bundle.process().user.uid = 1000;
    let outcome = bundle.run().stdout;
    assert_eq!(status_line(&outcome, "CapEff"), "0".repeat(16));
    let set = bundle.process().capabilities.as_mut().unwrap();
    set.inheritable = vec!["CAP_NET_BIND_SERVICE".into()];
    set.ambient = vec!["CAP_NET_BIND_SERVICE".into()];
    let outcome = bundle.run().stdout;
    assert_eq!(status_line(&outcome, "CapEff"), format!("{:016x}", 1 << 10));
}

#[test]
fn unknown_capabilities_and_those_that_nobody_has_are_left_out() {
    let mut bundle = Bundle::new("cat /proc/self/status");
    let set = bundle.process().capabilities.as_mut().unwrap();
    set.permitted = vec!["CAP_KILL".into(), "CAP_FROM_THE_FUTURE".into()];
    set.bounding = set.permitted.clone();
    set.effective = set.permitted.clone();
    assert_eq!(status_line(&bundle.run().stdout, "CapEff"), format!("{:016x}", 1 << 5));
}

#[test]
fn limits_are_exactly_as_asked() {
    let mut bundle = Bundle::new("grep -E 'open files|core' /proc/self/limits | awk '{print $(NF-2), $(NF-1)}'");
    bundle.process().rlimits = vec![
        OciRlimit { kind: "RLIMIT_NOFILE".into(), soft: 100, hard: 200 },
        OciRlimit { kind: "RLIMIT_CORE".into(), soft: 0, hard: 0 },
    ];
    check(&bundle, "0 0\n100 200");
}

#[test]
fn parameters_of_own_namespaces_are_set() {
    let mut bundle = Bundle::new("cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni");
    bundle.linux().sysctl.insert("net.core.somaxconn".into(), "333".into());
    bundle.linux().sysctl.insert("kernel.shmmni".into(), "44".into());
    check(&bundle, "333\n44");
}

#[test]
fn parameters_are_set_without_a_procfs_too() {
    let mut bundle = Bundle::new("mkdir -p /proc; mount -t proc p /proc; cat /proc/sys/net/core/somaxconn");
    bundle.config.mounts.retain(|mount| mount.destination != "/proc");
    bundle.linux().masked_paths.clear();
    bundle.linux().readonly_paths.clear();
    bundle.linux().sysctl.insert("net.core.somaxconn".into(), "334".into());
    let set = bundle.process().capabilities.as_mut().unwrap();
    for list in [&mut set.permitted, &mut set.bounding, &mut set.effective] {
        list.push("CAP_SYS_ADMIN".into());
    }
    check(&bundle, "334");
}

#[test]
fn no_descriptor_of_the_host_is_open() {
    // The three, and the one by which the directory is read.
    check(&Bundle::running(&["ls", "/proc/self/fd"]), "0\n1\n2\n3");
    check(&Bundle::new("ls /proc/self/fd | grep -vc '^[012]$'; readlink /proc/self/fd/0"), "1\n/dev/null");
}

#[test]
fn signals_are_neither_blocked_nor_ignored() {
    for bundle in
        [Bundle::running(&["cat", "/proc/self/status"]), Bundle::running(&["cat", "/proc/self/status"]).without_init()]
    {
        let outcome = bundle.run().stdout;
        for set in ["SigBlk", "SigIgn"] {
            assert_eq!(status_line(&outcome, set), "0".repeat(16), "{set}");
        }
    }
}

#[test]
fn devices_are_there_and_links_lead_where_they_should() {
    let script = "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a' $d; done; \
                  readlink ptmx; readlink stdin; readlink fd; echo x > null; dd if=zero bs=1 count=3 2>null | cat | wc -c";
    let script = script.replace("| cat | wc -c", "> z; stat -c %s z");
    let expected = "null character special file 1:3 666\nzero character special file 1:5 666\n\
                    full character special file 1:7 666\nrandom character special file 1:8 666\n\
                    urandom character special file 1:9 666\ntty character special file 5:0 666\n\
                    pts/ptmx\n/proc/self/fd/0\n/proc/self/fd\n3";
    check(&Bundle::new(&script), expected);
}

#[test]
fn devices_are_there_without_a_mount_on_dev_too() {
    let mut bundle = Bundle::new("cd /dev; stat -c '%F %t:%T' null tty; echo x > null; readlink stdin");
    bundle.config.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    check(&bundle, "character special file 1:3\ncharacter special file 5:0\n/proc/self/fd/0");
    assert_eq!(std::fs::metadata(bundle.root().join("dev/null")).unwrap().len(), 0);
}

#[test]
fn a_file_where_a_device_should_be_is_an_error() {
    let mut bundle = Bundle::new("true");
    bundle.config.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    std::fs::create_dir(bundle.root().join("dev")).unwrap();
    std::fs::write(bundle.root().join("dev/null"), "not a device").unwrap();
    let (_, text) = bundle.refused();
    assert!(text.contains("make `/dev/null`: it is not what it should be"), "{text}");
}

#[test]
fn masked_paths_are_empty_and_read_only_ones_are_read_only() {
    let script = "cat /proc/keys /proc/timer_list; ls -A /sys/firmware; \
                  echo 1 > /proc/sys/net/core/somaxconn; mkdir /sys/firmware/x; echo done";
    let outcome = check(&Bundle::new(script), "done");
    let errors = outcome.stderr;
    assert!(errors.contains("somaxconn: Read-only file system"), "{errors}");
    assert!(errors.contains("/sys/firmware/x': Read-only file system"), "{errors}");
    assert_eq!(errors.lines().count(), 2, "{errors}");
}

#[test]
fn a_read_only_root_takes_no_files_but_its_tmpfs_do() {
    let mut bundle = Bundle::new("touch /x; touch /dev/shm/y && echo y");
    bundle.config.root.as_mut().unwrap().readonly = true;
    let outcome = check(&bundle, "y");
    assert!(outcome.stderr.contains("/x: Read-only file system"), "{outcome:?}");
}

fn bind(source: &str, destination: &str, options: &[&str]) -> OciMount {
    OciMount {
        destination: destination.into(),
        kind: Some("bind".into()),
        source: Some(source.into()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..OciMount::default()
    }
}

#[test]
fn files_and_directories_are_bound_where_they_are_asked_for() {
    let mut bundle = Bundle::new("cat /etc/hosts /data/deep/file; touch /data/deep/new; touch /etc/hosts");
    std::fs::write(bundle.path().join("hosts"), "127.0.0.1 me\n").unwrap();
    std::fs::create_dir(bundle.path().join("data")).unwrap();
    std::fs::write(bundle.path().join("data/file"), "content\n").unwrap();
    bundle.config.mounts.push(bind("hosts", "/etc/hosts", &["bind", "ro"]));
    bundle.config.mounts.push(bind("data", "/data/deep", &["rbind", "rw"]));
    let outcome = check(&bundle, "127.0.0.1 me\ncontent");
    assert!(outcome.stderr.contains("/etc/hosts: Read-only file system"), "{outcome:?}");
    assert!(bundle.path().join("data/new").is_file());
}

#[test]
fn layers_are_one_tree_and_writes_stay_above() {
    let mut bundle =
        Bundle::new("cat /one /two /three; echo new > /one; cat /one; grep -c lowerdir /proc/self/mountinfo");
    let layer = |name: &str, files: &[&str]| -> PathBuf {
        let path = bundle.path().join(name);
        std::fs::create_dir(&path).unwrap();
        for file in files {
            std::fs::write(path.join(file), format!("{file} of {name}\n")).unwrap();
        }
        path
    };
    // What the kernel's own syntax would take apart.
    let lower = vec![
        layer("to,p:x", &["one"]),
        layer("middle\\", &["one", "two"]),
        layer("low", &["two", "three"]),
        bundle.root(),
    ];
    let (upper, work) = (layer("upper", &[]), layer("work", &[]));
    bundle.surroundings.rootfs = Rootfs::Overlay { lower, upper: upper.clone(), work };
    check(&bundle, "one of to,p:x\ntwo of middle\\\nthree of low\nnew\n1");
    assert_eq!(std::fs::read_to_string(upper.join("one")).unwrap(), "new\n");
}

#[test]
fn a_hundred_layers_are_no_trouble() {
    if !stack::runtime::overlay::OverlaySupport::probe().lower_one_by_one {
        return println!("skipped: this kernel has no `lowerdir+` (Linux 6.7)");
    }
    let mut bundle = Bundle::new("cat /file; echo /l* | awk '{print NF}'");
    let mut lower: Vec<PathBuf> = Vec::new();
    for number in 0..100 {
        let path = bundle.path().join(format!("{number:0>200}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("file"), format!("{number}\n")).unwrap();
        std::fs::write(path.join(format!("l{number}")), "").unwrap();
        lower.push(path);
    }
    lower.push(bundle.root());
    let (upper, work) = (bundle.path().join("upper"), bundle.path().join("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    bundle.surroundings.rootfs = Rootfs::Overlay { lower, upper, work };
    check(&bundle, "0\n100");
}

#[test]
fn nothing_of_it_shows_in_the_hosts_mounts() {
    let count = |marker: &str| {
        std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(marker)).count()
    };
    let mut bundle = Bundle::new("grep -c . /proc/self/mountinfo; grep -c ' / /data' /proc/self/mountinfo");
    std::fs::create_dir(bundle.path().join("data")).unwrap();
    bundle.config.mounts.push(bind("data", "/data", &["rbind"]));
    let marker = bundle.path().file_name().unwrap().to_str().unwrap().to_owned();
    let mut running = super::bundle::Running::start(&bundle).unwrap();
    let mounts: usize = running.line().parse().unwrap();
    assert!(mounts > 10, "{mounts}");
    assert_eq!(count(&marker), 0);
}

#[test]
fn the_hosts_cgroups_and_mounts_are_out_of_sight() {
    let outcome = Bundle::new("cat /proc/self/cgroup; echo --; awk '{print $5}' /proc/self/mountinfo").run();
    let (cgroups, mounts) = outcome.stdout.split_once("--").unwrap();
    assert!(cgroups.lines().all(|line| line.ends_with(":/")), "{cgroups}");
    for mount in mounts.lines().filter(|mount| !mount.is_empty()) {
        assert!(["/", "/proc", "/dev", "/sys"].iter().any(|known| mount.starts_with(known)), "{mount}");
    }
}

/// `mkdir` fails with the given error; everything else goes through.
fn no_mkdir(errno: u32) -> SeccompProgram {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let op = |code, jt, k| SockFilter { code, jt, jf: 0, k };
    #[cfg(target_arch = "x86_64")]
    let calls = [libc::SYS_mkdir, libc::SYS_mkdirat];
    #[cfg(not(target_arch = "x86_64"))]
    let calls = [libc::SYS_mkdirat, libc::SYS_mkdirat];
    let filter = vec![
        op(LOAD, 0, 0),
        op(JUMP_IF_EQUAL, 2, calls[0] as u32),
        op(JUMP_IF_EQUAL, 1, calls[1] as u32),
        op(RETURN, 0, ALLOW),
        op(RETURN, 0, ERRNO | errno),
    ];
    SeccompProgram { filter, flags: SeccompFilterFlags::default() }
}

#[test]
fn the_filter_holds_for_the_program_and_for_init() {
    let script = "mkdir /made; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; grep Seccomp: /proc/1/status";
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new(script);
        bundle.process().no_new_privileges = no_new_privileges;
        bundle.surroundings.seccomp = Some(no_mkdir(libc::ENOTUNIQ as u32));
        let expected = format!("NoNewPrivs:\t{}\nSeccomp:\t2\nSeccomp:\t2", u8::from(no_new_privileges));
        let outcome = check(&bundle, &expected);
        assert!(outcome.stderr.contains("Name not unique"), "{outcome:?}");
    }
}

#[test]
fn the_oom_score_is_as_configured_and_otherwise_left_alone() {
    let mut bundle = Bundle::new("cat /proc/self/oom_score_adj");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    check(&bundle, own.trim());
    bundle.process().oom_score_adj = Some(321);
    check(&bundle, "321");
}

#[test]
fn cgroups_are_joined_before_they_become_the_root_of_the_view() {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let anchor = mountinfo
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4))
        .expect("a mount of cgroup v2");
    let name = format!("stack-test-{}", std::process::id());
    let group = PathBuf::from(anchor).join(&name);
    std::fs::create_dir(&group).unwrap();
    let mut bundle = Bundle::new("echo up; grep ^0: /proc/self/cgroup; sleep 98765");
    bundle.surroundings.cgroup_procs = vec![group.join("cgroup.procs")];
    let mut running = super::bundle::Running::start(&bundle).unwrap();
    assert_eq!((running.line().as_str(), running.line().as_str()), ("up", "0::/"));
    let of_init = std::fs::read_to_string(format!("/proc/{}/cgroup", running.pid())).unwrap();
    assert!(of_init.lines().any(|line| line.ends_with(&format!("/{name}"))), "{of_init}");
    drop(running);
    std::fs::remove_dir(&group).unwrap();
}
