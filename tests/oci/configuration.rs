//! Fields of a configuration, seen from inside the container.

use std::fs;
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::bundle::{Bundle, receive_with_message};

fn said(bundle: &Bundle) -> String {
    bundle.run().ok().stdout
}

fn shell(script: &str) -> Bundle {
    Bundle::new(&["sh", "-c", script])
}

#[test]
fn names_limits_and_the_umask_are_as_asked() {
    let mut bundle =
        shell("hostname; cat /proc/sys/kernel/domainname; umask; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj");
    bundle.config["hostname"] = json!("here");
    bundle.config["domainname"] = json!("there");
    bundle.config["process"]["user"]["umask"] = json!(0o27);
    bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    assert_eq!(said(&bundle), "here\nthere\n0027\n100\n200\n500\n");
}

#[test]
fn the_host_is_another_user_in_a_user_namespace() {
    let mut bundle = shell("id -u; cat /proc/self/uid_map; touch /file && stat -c %u /file; ls -l /dev/null | cut -c1");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    for ids in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][ids] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    }
    std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).unwrap();
    fs::set_permissions(bundle.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/cut")).unwrap();
    let text = said(&bundle);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "1000", "0", "c"]);
}

#[test]
fn time_runs_with_an_offset() {
    let mut bundle = shell("cat /proc/uptime");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    bundle.config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000_000 } });
    let uptime: f64 = said(&bundle).split(' ').next().unwrap().parse().unwrap();
    assert!(uptime > 1e9, "{uptime}");
}

#[test]
fn a_namespace_is_joined_and_its_type_is_checked() {
    let first = Bundle::new(&["sleep", "60"]);
    first.create().ok();
    first.on("start").ok();
    let state: serde_json::Value = serde_json::from_str(&first.on("state").stdout).unwrap();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", state["pid"]);
    let mut second = shell("ps; true");
    second.config["linux"]["namespaces"][0]["path"] = json!(path("pid"));
    assert!(said(&second).contains("sleep 60"));
    let mut wrong = shell("true");
    wrong.config["linux"]["namespaces"][1]["path"] = json!(path("ipc"));
    wrong.create().refused("join the namespaces");
    wrong.assert_nothing_left();
}

#[test]
fn devices_are_there_and_others_are_out_of_reach() {
    let mut bundle = shell("stat -c '%t:%T %a' /dev/sub/fuse; cat /dev/zero2 2>&1 >/dev/null; cat /dev/kmsg2 2>&1");
    bundle.config["linux"]["devices"] = json!([
        { "path": "/dev/sub/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640 },
        { "path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11 },
    ]);
    bundle.config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    let outcome = bundle.run();
    assert!(outcome.stdout.starts_with("a:e5 640\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("/dev/kmsg2': Operation not permitted"), "{outcome:?}");
}

#[test]
fn limits_are_those_of_the_cgroup_and_can_be_updated() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["linux"]["resources"] = json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 20 }, "cpu": { "quota": 50000, "period": 100_000 } });
    bundle.create().ok();
    let read = |v1: &str, v2: &str| {
        let v1 = v1.replace('@', &format!("stack-oci-tests/{}", bundle.id));
        let v2 = v2.replace('@', &format!("stack-oci-tests/{}", bundle.id));
        fs::read_to_string(format!("/sys/fs/cgroup/{v1}"))
            .or_else(|_| fs::read_to_string(format!("/sys/fs/cgroup/{v2}")))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(read("memory/@/memory.limit_in_bytes", "@/memory.max"), "67108864");
    assert_eq!(read("pids/@/pids.max", "@/pids.max"), "20");
    bundle.call(&["update", "--memory", "32m", "--pids-limit", "-1", &bundle.id]).ok();
    assert_eq!(read("memory/@/memory.limit_in_bytes", "@/memory.max"), "33554432");
    assert_eq!(read("pids/@/pids.max", "@/pids.max"), "max");
    let stats = bundle.call(&["events", "--stats", &bundle.id]).ok().stdout;
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], json!(33_554_432));
}

#[test]
fn a_terminal_is_sent_to_the_console_socket() {
    let mut bundle = shell("tty; ls -l /dev/console; echo done");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({ "height": 20, "width": 70 });
    bundle.create().refused("--console-socket");
    let socket = bundle.path("console.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    bundle.write();
    let directory = bundle.directory.path().to_str().unwrap();
    bundle.call(&["create", "--bundle", directory, "--console-socket", socket.to_str().unwrap(), &bundle.id]).ok();
    let (stream, _) = listener.accept().unwrap();
    let (_, terminal) = receive_with_message(&stream);
    bundle.on("start").ok();
    let mut text = String::new();
    let mut buffer = [0; 256];
    while !text.contains("done") {
        let count = nix::unistd::read(&terminal, &mut buffer).unwrap();
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    assert!(text.starts_with("/dev/pts/0\r\ncrw"), "{text}");
}

#[test]
fn mounts_hear_of_the_host_only_if_they_ask_to() {
    for (option, expected) in [("rslave", 1), ("rprivate", 0)] {
        let mut bundle = shell("grep -c ' /mnt .* master:' /proc/self/mountinfo");
        bundle.config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "destination": "/mnt", "type": "bind", "source": "source", "options": ["rbind", option] }));
        fs::create_dir(bundle.path("source")).unwrap();
        let source = bundle.path("source");
        let mount = |arguments: &[&str]| {
            assert!(std::process::Command::new(arguments[0]).args(&arguments[1..]).status().unwrap().success());
        };
        let source = source.to_str().unwrap();
        mount(&["mount", "-t", "tmpfs", "tmpfs", source]);
        mount(&["mount", "--make-shared", source]);
        let outcome = bundle.run();
        mount(&["umount", source]);
        assert_eq!(outcome.stdout.trim(), expected.to_string(), "{option}: {outcome:?}");
    }
}

#[test]
fn a_personality_and_priorities_are_set() {
    let mut bundle = shell("cat /proc/self/personality; cat /proc/self/stat");
    bundle.config["linux"]["personality"] = json!({ "domain": "LINUX32" });
    bundle.config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
    let text = said(&bundle);
    assert!(text.starts_with("00000008\n"), "{text}");
    let fields: Vec<&str> = text.lines().nth(1).unwrap().rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!((fields[16], fields[38]), ("5", "3"), "nice and policy");
}
