//! Namespaces of others, devices of the network, and what is checked before a container is created.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::Bundle;

fn shell(script: &str) -> Bundle {
    Bundle::new(&["sh", "-c", script])
}

fn mapped(bundle: &mut Bundle) {
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    for ids in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][ids] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    }
    belongs_to_mapped(bundle);
}

fn belongs_to_mapped(bundle: &Bundle) {
    chown(bundle.rootfs(), Some(100_000), Some(100_000)).unwrap();
    fs::set_permissions(bundle.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

fn pid_of(bundle: &Bundle) -> i64 {
    let state: Value = serde_json::from_str(&bundle.on("state").ok().stdout).unwrap();
    state["pid"].as_i64().unwrap()
}

#[test]
fn a_user_namespace_is_joined_and_what_is_new_belongs_to_it() {
    let mut first = Bundle::new(&["sleep", "60"]);
    mapped(&mut first);
    first.create().ok();
    first.on("start").ok();
    let path = format!("/proc/{}/ns/user", pid_of(&first));
    // Only who has rights over the new network and mount namespaces can do this.
    let mut second = shell("cat /proc/self/uid_map; id -u; hostname mine && hostname; touch /file && stat -c %u /file");
    belongs_to_mapped(&second);
    second.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user", "path": path }));
    let outcome = second.run().ok();
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "1000", "0", "mine", "0"]);
    second.config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    second.create().refused("linux.uidMappings");
    second.assert_nothing_left();
    let mut own = shell("id -u");
    own.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "user", "path": "/proc/self/ns/user" }));
    assert_eq!(own.run().ok().stdout, "0\n", "the one that it is in already");
}

#[test]
fn every_kind_of_namespace_is_joined_by_its_path() {
    let mut first = Bundle::new(&["sleep", "60"]);
    first.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    mapped(&mut first);
    first.create().ok();
    first.on("start").ok();
    let pid = pid_of(&first);
    let kinds = ["pid", "network", "ipc", "uts", "user", "cgroup", "time", "mount"];
    let files = ["pid", "net", "ipc", "uts", "user", "cgroup", "time"];
    let script = files.map(|file| format!("readlink /proc/self/ns/{file}")).join(";");
    for joined in ["network", "ipc", "uts", "cgroup", "time", "pid", "all"] {
        let mut second = shell(&script);
        belongs_to_mapped(&second);
        let namespace = |kind: &&str| {
            let file = if *kind == "network" {
                "net"
            } else if *kind == "mount" {
                "mnt"
            } else {
                kind
            };
            let by_path = *kind == "user" || *kind == joined || joined == "all" && *kind != "mount";
            if by_path {
                json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") })
            } else {
                json!({ "type": kind })
            }
        };
        second.config["linux"]["namespaces"] = kinds.iter().map(namespace).collect();
        let mut expected = String::new();
        let outcome = second.run();
        assert_eq!(outcome.code, 0, "{joined}: {outcome:?}");
        for (file, line) in files.iter().zip(outcome.stdout.lines()) {
            let theirs = fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
            let kind = if *file == "net" { "network" } else { file };
            let same = theirs.to_str().unwrap() == line;
            if same != (kind == "user" || kind == joined || joined == "all") {
                expected.push_str(&format!("{kind} of {joined}: {line}; "));
            }
        }
        assert!(expected.is_empty(), "{expected}{outcome:?}");
    }
}

#[test]
fn a_namespace_of_the_host_is_joined_from_a_new_user_namespace() {
    let mut bundle = shell("readlink /proc/self/ns/net");
    mapped(&mut bundle);
    bundle.config["linux"]["namespaces"][1]["path"] = json!("/proc/self/ns/net");
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(bundle.run().ok().stdout.trim(), own.to_str().unwrap());
}

#[test]
fn a_device_of_the_network_moves_in_with_its_addresses() {
    // For this thread and the commands that it starts.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let ip = |line: &str| Command::new("ip").args(line.split(' ')).status().unwrap().success();
    assert!(ip("link add moved0 type veth peer name stays0"));
    assert!(ip("link set moved0 mtu 1400"));
    assert!(ip("addr add 10.9.8.7/24 dev moved0") && ip("addr add fd00::7/64 dev moved0 nodad"));
    let mut bundle = shell(
        "cat /sys/class/net/inside/mtu; cat /proc/net/fib_trie | grep -c 10.9.8.7; cat /proc/net/if_inet6; \
                            cat /proc/net/dev | grep -c -e inside -e moved0; cat /proc/net/route | grep -c ^inside",
    );
    let sysfs = json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs" });
    bundle.config["mounts"].as_array_mut().unwrap().push(sysfs);
    bundle.config["linux"]["netDevices"] = json!({ "moved0": { "name": "lo" } });
    bundle.create().refused("moved0");
    bundle.assert_nothing_left();
    assert!(ip("link show moved0"), "it is where it was");
    bundle.config["linux"]["netDevices"] = json!({ "absent0": {} });
    bundle.create().refused("no network device `absent0`");
    bundle.config["linux"]["netDevices"] = json!({ "moved0": { "name": "inside" } });
    let outcome = bundle.run();
    assert!(outcome.stdout.starts_with("1400\n2\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("fd000000000000000000000000000007"), "{outcome:?}");
    assert!(outcome.stdout.ends_with("1\n1\n"), "{outcome:?}");
}

#[test]
fn what_can_be_known_before_fails_the_creation() {
    type Change = fn(&mut Bundle);
    let changes: [(Change, &str); 10] = [
        (|bundle| bundle.config["linux"]["intelRdt"] = json!({ "closID": "a", "l3CacheSchema": "L3:0=f" }), "resctrl"),
        (
            |bundle| {
                let limit = json!([{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 1_u64 << 40 }]);
                bundle.config["process"]["rlimits"] = limit;
            },
            "RLIMIT_NOFILE",
        ),
        (
            |bundle| bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_X", "soft": 0, "hard": 0 }]),
            "RLIMIT_X",
        ),
        (
            |bundle| {
                mapped(bundle);
                bundle.config["process"]["user"] = json!({ "uid": 5000, "gid": 0 });
            },
            "process.user.uid",
        ),
        (
            |bundle| {
                mapped(bundle);
                bundle.config["process"]["user"] = json!({ "uid": 0, "gid": 0, "additionalGids": [1, 1000] });
            },
            "process.user.additionalGids[1]",
        ),
        (
            |bundle| bundle.config["process"]["scheduler"] = json!({ "policy": "SCHED_FIFO", "priority": 500 }),
            "scheduler",
        ),
        (|bundle| bundle.config["process"]["apparmorProfile"] = json!("none-such"), "process.apparmorProfile"),
        (|bundle| bundle.config["process"]["selinuxLabel"] = json!("a:b:c:d"), "process.selinuxLabel"),
        (|bundle| bundle.config["linux"]["mountLabel"] = json!("a:b:c:d"), "linux.mountLabel"),
        (
            |bundle| bundle.config["linux"]["personality"] = json!({ "domain": "LINUX", "flags": ["X"] }),
            "personality.flags",
        ),
    ];
    for (change, words) in changes {
        let mut bundle = shell("true");
        change(&mut bundle);
        bundle.create().refused(words);
        bundle.assert_nothing_left();
    }
}
