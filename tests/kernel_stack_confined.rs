//! Ring 5: what a container is allowed, and what it sees: users, files, limits of processes, capabilities, system calls.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use sandbox::Sandbox;
use shop::{WAITS, apply, assert_says, limit, running};

/// A stack with one container that waits.
fn one(keys: &str) -> String {
    format!("name = \"shop\"\n[container.box]\nimage = \"host:\"\n{WAITS}\n{keys}\n")
}

fn inside(host: &Sandbox, line: &str) -> String {
    host.ok(&["exec", "box", "sh", "-c", line]).trim().to_string()
}

/// Whether a shell line fails in the container.
fn refused(host: &Sandbox, line: &str) -> bool {
    host.stack(&["exec", "box", "sh", "-c", line]).code != 0
}

/// A field of the first process's status.
fn status(host: &Sandbox, field: &str) -> String {
    // The program itself, not the init: what is told of it is true of what the user runs.
    let line =
        format!("for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = sleep ] && grep ^{field}: $p/status; done; true");
    inside(host, &line).split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

#[test]
fn users_are_taken_by_name_and_by_number_with_their_groups() {
    let host = running(&one("user = \"daemon\""));
    assert_eq!(status(&host, "Uid"), "1 1 1 1");
    assert_eq!(status(&host, "Gid"), "1 1 1 1");
    assert_eq!(inside(&host, "id -u"), "1", "exec takes the container's user");
    assert_eq!(status(&host, "CapEff"), "0000000000000000");
    apply(&host, &one("user = \"1000:2000\""));
    assert_eq!(status(&host, "Uid"), "1000 1000 1000 1000");
    assert_eq!(status(&host, "Gid"), "2000 2000 2000 2000");
    assert!(refused(&host, "touch /file"));
    apply(&host, &one("user = \"daemon:games\""));
    assert_eq!(status(&host, "Gid"), "60 60 60 60");
}

#[test]
fn a_user_that_the_image_does_not_have_is_an_error_by_name() {
    let host = Sandbox::new();
    host.write("stack.toml", &one("user = \"nosuchuser\""));
    let outcome = host.stack(&["up"]);
    assert_eq!(outcome.code, 1);
    assert_says(&outcome.stderr, &["nosuchuser"]);
}

#[test]
fn a_read_only_root_takes_no_writes_but_on_what_is_mounted() {
    let host = running(&one(
        "read_only = true\nmount = [{ tmpfs = \"1MiB\", target = \"/tmp\" }]\nvolume = [\"data:/data\"]\n[volume.data]",
    ));
    assert!(refused(&host, "touch /file") && refused(&host, "touch /etc/file"));
    inside(&host, "touch /tmp/file /data/file");
}

#[test]
fn a_tmpfs_is_as_large_as_it_says() {
    let host = running(&one("mount = [{ tmpfs = \"1MiB\", target = \"/scratch\", mode = \"0700\" }]"));
    assert!(refused(&host, "head -c 2000000 /dev/zero > /scratch/file"));
    assert_eq!(inside(&host, "stat -c '%a %s' /scratch /scratch/file | cut -d' ' -f1"), "700\n644");
    assert_eq!(inside(&host, "stat -c %s /scratch/file"), "1048576");
}

#[test]
fn a_bind_mount_shows_the_host_and_read_only_means_it() {
    let host = Sandbox::new();
    host.write("site/index", "hello");
    host.write("work/file", "old");
    apply(
        &host,
        &one("mount = [{ bind = \"site\", target = \"/site\", ro = true }, { bind = \"work\", target = \"/work\" }]"),
    );
    assert_eq!(inside(&host, "cat /site/index"), "hello");
    assert!(refused(&host, "touch /site/new") && refused(&host, "mount -o remount,rw /site"));
    inside(&host, "echo new > /work/file");
    assert_eq!(fs::read_to_string(host.path().join("work/file")).unwrap(), "new\n");
}

#[test]
fn ulimits_and_sysctls_are_those_of_the_file() {
    let host = running(&one(
        "ulimit = { nofile = [100, 200], core = 0 }\nsysctl = { net.core.somaxconn = 77, \"kernel.shmmni\" = 99 }",
    ));
    assert_eq!(inside(&host, "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni"), "77\n99");
    let limits = inside(&host, "for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = sleep ] && cat $p/limits; done; true");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["100", "200"]);
    assert_ne!(host.sh("cat /proc/sys/kernel/shmmni").trim(), "99");
}

#[test]
fn the_host_name_is_the_containers_own() {
    let host = running(&one("hostname = \"box.example\""));
    assert_eq!(inside(&host, "hostname; cat /etc/hostname"), "box.example\nbox.example");
    apply(&host, &one(""));
    assert_eq!(inside(&host, "hostname"), "box");
}

#[test]
fn capabilities_are_the_usual_set_and_what_the_file_makes_of_it() {
    let host = running(&one(""));
    let usual = status(&host, "CapBnd");
    // docker's usual set without MKNOD.
    assert_eq!(usual, "00000000a00425fb", "the usual set");
    assert_eq!(status(&host, "NoNewPrivs"), "1");
    assert_eq!(status(&host, "Seccomp"), "2");
    apply(&host, &one("cap_drop = [\"ALL\"]"));
    assert_eq!(status(&host, "CapEff"), "0000000000000000");
    assert_eq!(status(&host, "CapBnd"), "0000000000000000");
    assert!(refused(&host, "chown 1 /tmp"), "exec has no more than the container");
    apply(&host, &one("cap_drop = [\"ALL\"]\ncap_add = [\"NET_BIND_SERVICE\"]"));
    assert_eq!(status(&host, "CapEff"), format!("{:016x}", 1 << 10));
    apply(&host, &one("cap_add = [\"CAP_NET_ADMIN\"]"));
    inside(&host, "ip link set lo down");
}

#[test]
fn seccomp_is_on_unless_it_is_switched_off_or_another_profile_is_given() {
    // unshare(2) of a user namespace needs no capability; the default profile refuses it.
    let unshares = "perl -e 'exit(syscall(272, 0x10000000) == 0 ? 0 : 1)'";
    let host = running(&one(""));
    assert!(refused(&host, unshares));
    apply(&host, &one("seccomp = \"unconfined\""));
    assert_eq!(status(&host, "Seccomp"), "0");
    inside(&host, unshares);
    host.write(
        "profile.json",
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#,
    );
    apply(&host, &one("seccomp = \"profile.json\""));
    inside(&host, "touch /tmp/file");
    let outcome = host.stack(&["exec", "box", "mkdir", "/tmp/folder"]);
    assert_says(&outcome.stderr, &["Function not implemented"]);
}

#[test]
fn secrets_have_the_owner_and_mode_of_the_file_and_nobody_else_reads_them() {
    let host = Sandbox::new();
    host.write("password", "swordfish");
    apply(
        &host,
        &one(
            "user = \"999:999\"\nsecret = [{ file = \"password\" }, { file = \"password\", target = \"/etc/app/key\", owner = \"1:2\", mode = \"0440\" }]",
        ),
    );
    assert_eq!(inside(&host, "cat /run/secrets/password"), "swordfish");
    assert_eq!(inside(&host, "stat -c '%u:%g %a' /run/secrets/password /etc/app/key"), "999:999 400\n1:2 440");
    assert!(refused(&host, "cat /etc/app/key") && refused(&host, "echo x > /run/secrets/password"));
    let bundle = host.sh(&format!("stat -c %a {}", host.run_dir().join("shop/box").display()));
    assert_eq!(bundle.trim(), "700");
    assert!(!host.ok(&["ps", "--json"]).contains("swordfish"));
}

#[test]
fn the_hosts_secrets_are_not_in_its_image() {
    let host = running(&one(""));
    assert!(refused(&host, "cat /etc/shadow"));
    assert!(refused(&host, "cat /etc/ssh/ssh_host_ed25519_key") && refused(&host, "cat /etc/machine-id"));
    assert_eq!(inside(&host, "ls -A /root /home"), "/home:\n\n/root:");
    assert!(refused(&host, "ls /work") && refused(&host, "ls /boot") && refused(&host, "touch /usr/file"));
    assert!(!inside(&host, "cat /proc/self/mountinfo").contains("/var/tmp/stack-test"), "no folder of the host shows");
}

#[test]
fn the_hosts_mount_table_stays_as_it_is() {
    let host = Sandbox::new();
    host.write("site/index", "hello");
    let before = host.sh("cat /proc/self/mountinfo");
    let machine = fs::read_to_string("/proc/self/mountinfo").unwrap();
    apply(&host, &one("mount = [{ bind = \"site\", target = \"/site\" }]\nvolume = [\"data:/data\"]\n[volume.data]"));
    assert_eq!(host.sh("cat /proc/self/mountinfo"), before);
    host.ok(&["down"]);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), machine);
}

#[test]
fn a_container_cannot_make_more_processes_than_it_may() {
    let host = running(&one("pids = 20"));
    assert_eq!(limit(&host, "shop/box", ("pids", "pids.max", "pids.max")), "20");
    let bomb = "for i in $(seq 40); do sleep 5 & done 2>&1; echo made";
    let outcome = host.stack(&["exec", "box", "bash", "-c", bomb]);
    assert_says(&format!("{}{}", outcome.stdout, outcome.stderr), &["Resource temporarily unavailable"]);
    apply(&host, &one(""));
    assert_eq!(limit(&host, "shop/box", ("pids", "pids.max", "pids.max")), "4096", "bounded by default");
}

#[test]
fn what_a_container_must_not_read_or_write_is_masked() {
    let host = running(&one(""));
    assert!(refused(&host, "echo 1 > /proc/sys/kernel/core_pattern"));
    // Nothing there, or nothing behind it.
    let is_null = |path: &str| inside(&host, &format!("stat -c %t:%T {path} 2>/dev/null || true")) == "1:3";
    assert!(is_null("/proc/sysrq-trigger") || refused(&host, "echo c > /proc/sysrq-trigger"));
    assert!(refused(&host, "echo 1 > /proc/sys/vm/drop_caches"));
    assert_eq!(inside(&host, "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c"), "0");
    assert!(refused(&host, "touch /sys/fs/cgroup/file") && refused(&host, "mount -t tmpfs x /mnt"));
    assert!(inside(&host, "ls /proc | grep -c '^[0-9]'").parse::<u32>().unwrap() < 12, "only its own processes");
}

#[test]
fn environment_comes_from_files_and_the_table_in_that_order() {
    let host = Sandbox::new();
    host.write("one.env", "# first\nA=one\nB='two words'\n");
    host.write("two.env", "A=two\nC=three\n");
    apply(&host, &one("env_file = [\"one.env\", \"two.env\"]\nenv = { C = \"table\", D = 4 }"));
    assert_eq!(inside(&host, "echo $A,$B,$C,$D"), "two,two words,table,4");
}

#[test]
fn labels_are_kept_with_the_container() {
    let host = running(&one("labels = { com.example.team = \"web\" }"));
    let config = host.sh(&format!("cat {}", host.run_dir().join("shop/box/config.json").display()));
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["annotations"]["com.example.team"], "web");
}

#[test]
fn volumes_are_private_to_root_on_the_host() {
    let host = running(&one("volume = [\"data:/data\"]\n[volume.data]"));
    inside(&host, "echo x > /data/file");
    let parent = host.data_dir().join("volumes/shop");
    assert_eq!(fs::metadata(&parent).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(parent.join("data/file")).unwrap(), "x\n");
}
