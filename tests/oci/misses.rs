//! What the specification demands and runtimes have missed.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Bundle;

fn shell(script: &str) -> Bundle {
    Bundle::new(&["sh", "-c", script])
}

fn put(bundle: &mut Bundle, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    bundle.config.pointer_mut(parent).unwrap()[name] = value;
}

#[test]
fn a_failing_poststart_hook_ends_the_container() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["hooks"] = json!({
        "poststart": [{ "path": "/bin/false" }],
        "poststop": [{ "path": "/bin/touch", "args": ["touch", bundle.path("stopped")] }],
    });
    bundle.create().ok();
    bundle.on("start").refused("poststart");
    assert!(bundle.path("stopped").exists());
    bundle.assert_nothing_left();
}

#[test]
fn a_hook_has_the_environment_it_is_given_and_no_other() {
    let mut bundle = Bundle::new(&["true"]);
    let hook = |name: &str, env: Value| {
        let script = format!("/usr/bin/env >{}", bundle.path(name).display());
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": env })
    };
    bundle.config["hooks"] = json!({ "createRuntime": [hook("none", json!([])), hook("one", json!(["A=b"]))] });
    bundle.run().ok();
    // The shell adds these by itself.
    let seen = |name: &str| {
        let text = fs::read_to_string(bundle.path(name)).unwrap();
        text.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=")).collect::<String>()
    };
    assert_eq!((seen("none").as_str(), seen("one").as_str()), ("", "A=b"));
}

#[test]
fn what_is_unknown_is_ignored_and_what_is_invalid_refused() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["com.example.unknown"] = json!({ "a": 1 });
    bundle.config["annotations"] = json!({ "com.example.unknown": "" });
    bundle.config["process"]["capabilities"] = json!({ "bounding": ["CAP_NO_SUCH", "CAP_KILL"] });
    bundle.run().ok();
    let hook = |rest: Value| {
        let mut hook = json!({ "path": "/bin/true" });
        hook.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({ "poststop": [hook] })
    };
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 10 });
    for (pointer, value, words) in [
        ("/annotations", json!({ "": "x" }), "annotations"),
        ("/hooks", hook(json!({ "timeout": 0 })), "timeout"),
        ("/hooks", hook(json!({ "timeout": -1 })), "timeout"),
        ("/hooks", hook(json!({ "path": "bin/true" })), "hooks.poststop[0]"),
        ("/process/rlimits", json!([limit, limit]), "process.rlimits[1]"),
        ("/linux/namespaces", json!([{ "type": "mount" }, { "type": "mount" }]), "linux.namespaces[1]"),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_NO_SUCH" }), "seccomp"),
        ("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1 }), "defaultErrnoRet"),
        ("/linux/maskedPaths", json!(["relative"]), "linux.maskedPaths[0]"),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        put(&mut bundle, pointer, value);
        bundle.create().refused(words);
        bundle.assert_nothing_left();
    }
}

#[test]
fn the_out_of_memory_score_is_left_alone_unless_given() {
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(shell("cat /proc/self/oom_score_adj").run().ok().stdout, own);
    let mut bundle = shell("cat /proc/self/oom_score_adj");
    bundle.config["process"]["oomScoreAdj"] = json!(777);
    assert_eq!(bundle.run().ok().stdout, "777\n");
}

#[test]
fn resource_limits_are_exactly_those() {
    let mut bundle = shell("ulimit -n; ulimit -Hn; ulimit -c");
    bundle.config["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
    ]);
    assert_eq!(bundle.run().ok().stdout, "100\n200\n0\n");
}

#[test]
fn a_mount_is_a_bind_by_its_options_and_its_source_is_the_bundles() {
    let mut bundle = shell("cat /data/file; cat /small/file 2>/dev/null; grep -c 'size=64k' /proc/mounts");
    fs::create_dir(bundle.path("source")).unwrap();
    fs::write(bundle.path("source/file"), "seen\n").unwrap();
    bundle.config["mounts"].as_array_mut().unwrap().extend([
        json!({ "destination": "/data", "type": "none", "source": "source", "options": ["rbind"] }),
        // In the order of the list: the second lies over the first.
        json!({ "destination": "/small", "type": "bind", "source": "source", "options": ["bind"] }),
        json!({ "destination": "/small", "type": "tmpfs", "source": "any", "options": ["size=64k"] }),
    ]);
    assert_eq!(bundle.run().ok().stdout, "seen\n1\n");
}

#[test]
fn the_devices_of_every_container_are_there_without_any_mount() {
    let script = "for name in null zero full random urandom tty; do [ -c /dev/$name ] || echo no $name; done; \
                  for name in fd stdin stdout stderr; do [ -L /dev/$name ] || echo no $name; done; echo x >/dev/null";
    let mut bundle = shell(script);
    bundle.config["mounts"].as_array_mut().unwrap().truncate(1);
    assert_eq!(bundle.run().ok().stdout, "");
}

#[test]
fn a_limit_of_no_processes_is_one() {
    let mut bundle = shell("true & wait; echo forked");
    bundle.config["linux"]["resources"] = json!({ "pids": { "limit": 0 } });
    let outcome = bundle.run();
    assert!(!outcome.stdout.contains("forked") || outcome.stderr.contains("fork"), "{outcome:?}");
}

#[test]
fn a_group_that_was_there_before_stays() {
    let bundle = Bundle::new(&["true"]);
    let hierarchy = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().map(Path::new).find(|path| path.is_dir());
    let parent = hierarchy.unwrap().join("stack-oci-tests");
    let group = parent.join(&bundle.id);
    fs::create_dir_all(&group).unwrap();
    bundle.run().ok();
    assert!(group.is_dir());
    fs::remove_dir(&group).unwrap();
}

#[test]
fn a_state_has_what_it_must() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["annotations"] = json!({ "com.example.key": "value" });
    bundle.create().ok();
    let state: Value = serde_json::from_str(&bundle.on("state").ok().stdout).unwrap();
    assert_eq!(state["bundle"].as_str().map(Path::new), Some(bundle.directory.path()));
    assert_eq!((&state["id"], &state["status"]), (&json!(bundle.id), &json!("created")));
    assert_eq!((&state["ociVersion"], &state["annotations"]["com.example.key"]), (&json!("1.3.0"), &json!("value")));
    assert!(Path::new(&format!("/proc/{}", state["pid"])).is_dir());
    let list: Value = serde_json::from_str(&bundle.call(&["list", "-f", "json"]).ok().stdout).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["pid"], &list[0]["owner"]), (&state["id"], &state["pid"], &json!("root")));
    assert_eq!(bundle.call(&["list", "-q"]).ok().stdout.trim(), bundle.id);
}

#[test]
fn errors_go_to_the_log_as_engines_read_it() {
    let bundle = Bundle::new(&["true"]);
    let log = bundle.path("log.json");
    bundle.call(&["--log", log.to_str().unwrap(), "--log-format=json", "state", "none"]).refused("does not exist");
    let line: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().is_some_and(|text| text.contains("does not exist")), "{line}");
    assert!(line["time"].as_str().is_some_and(|text| text.ends_with('Z')), "{line}");
}
