//! What commands take and print as the field's runtimes do.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bundle::{Bundle, receive_with_message};

fn running(bundle: &Bundle) {
    bundle.create().ok();
    bundle.on("start").ok();
}

fn state(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.on("state").ok().stdout).unwrap()
}

/// The container's cgroups, in every hierarchy.
fn groups(bundle: &Bundle) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let below = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
    let all = [root.to_owned()].into_iter().chain(below);
    all.map(|path| path.join("stack-oci-tests").join(&bundle.id)).filter(|path| path.is_dir()).collect()
}

#[test]
fn a_further_process_is_put_into_a_cgroup_below_the_containers() {
    let bundle = Bundle::new(&["sleep", "60"]);
    running(&bundle);
    for group in groups(&bundle) {
        fs::create_dir(group.join("sub")).unwrap();
        // Of version 1 they begin empty.
        for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|file| group.join(file).exists()) {
            fs::write(group.join("sub").join(file), fs::read(group.join(file)).unwrap()).unwrap();
        }
    }
    let places = |arguments: &[&str]| {
        let rest = [bundle.id.as_str(), "cat", "/proc/self/cgroup"];
        let outcome = bundle.call(&[&["exec"], arguments, &rest].concat()).ok();
        let place = |line: &str| line.splitn(3, ':').last().unwrap_or_default().to_owned();
        outcome.stdout.lines().map(place).collect::<Vec<_>>()
    };
    assert!(!places(&[]).contains(&"/sub".to_owned()));
    let below = places(&["--cgroup", "/sub"]);
    assert_eq!(below.iter().filter(|place| *place == "/sub").count(), groups(&bundle).len(), "{below:?}");
    if Path::new("/sys/fs/cgroup/pids").is_dir() {
        let below = places(&["--cgroup", "pids:sub"]);
        assert_eq!(below.iter().filter(|place| *place == "/sub").count(), 1, "{below:?}");
    }
    for (wrong, words) in [("absent", "no such directory"), ("../..", "leads out"), ("nope:sub", "no such hierarchy")] {
        bundle.call(&["exec", "--cgroup", wrong, &bundle.id, "true"]).refused(words);
    }
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    bundle.assert_nothing_left();
}

#[test]
fn a_descriptor_of_the_process_is_sent_to_the_pidfd_socket() {
    let bundle = Bundle::new(&["sleep", "60"]);
    let socket = bundle.path("pidfd.sock");
    let directory = bundle.directory.path().to_str().unwrap();
    bundle.write();
    let create = ["create", "--bundle", directory, "--pidfd-socket", socket.to_str().unwrap(), &bundle.id];
    bundle.call(&create).refused("pidfd-socket");
    bundle.assert_nothing_left();
    let listener = UnixListener::bind(&socket).unwrap();
    let received = || {
        let (message, pidfd) = receive_with_message(&listener.accept().unwrap().0);
        assert_eq!(message, b"pidfd");
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
        text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i64>().ok()).unwrap()
    };
    bundle.call(&create).ok();
    assert_eq!(json!(received()), state(&bundle)["pid"]);
    bundle.on("start").ok();
    let file = bundle.path("pid");
    let files = ["--pidfd-socket", socket.to_str().unwrap(), "--pid-file", file.to_str().unwrap()];
    bundle.call(&[&["exec", "-d"], &files[..], &[&bundle.id, "sleep", "60"]].concat()).ok();
    assert_eq!(received().to_string(), fs::read_to_string(file).unwrap());
}

#[test]
fn a_further_process_is_bound_to_processors() {
    let bundle = Bundle::new(&["sleep", "60"]);
    running(&bundle);
    let allowed = |affinity: Value| {
        let args = ["grep", "Cpus_allowed_list", "/proc/self/status"];
        let process = json!({ "cwd": "/", "args": args, "env": ["PATH=/bin"], "execCPUAffinity": affinity });
        fs::write(bundle.path("process.json"), process.to_string()).unwrap();
        let outcome =
            bundle.call(&["exec", "--process", bundle.path("process.json").to_str().unwrap(), &bundle.id]).ok();
        outcome.stdout.rsplit('\t').next().unwrap().trim().to_owned()
    };
    let all = allowed(json!({}));
    assert_eq!(allowed(json!({ "final": "0" })), "0");
    assert_eq!(allowed(json!({ "initial": "0" })), all, "the initial one is for the way into the cgroup");
    if all != "0" {
        assert_eq!(allowed(json!({ "initial": "0", "final": "1" })), "1");
    }
}

#[test]
fn lists_are_as_the_fields_runtimes_print_them() {
    let bundle = Bundle::new(&["sleep", "60"]);
    running(&bundle);
    let pid = state(&bundle)["pid"].to_string();
    let json = bundle.call(&["list", "--format", "json"]).ok().stdout;
    let start = format!(r#"[{{"ociVersion":"1.3.0","id":"{}","pid":{pid},"status":"running","bundle":"#, bundle.id);
    assert!(json.starts_with(&start), "{json}");
    let words = |text: &str, line: usize| -> Vec<String> {
        text.lines().nth(line).unwrap().split_whitespace().map(str::to_owned).collect()
    };
    let table = bundle.call(&["list"]).ok().stdout;
    assert_eq!(words(&table, 0), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!(words(&table, 1)[..3], [bundle.id.as_str(), &pid, "running"]);
    let ps = bundle.on("ps").ok().stdout;
    assert_eq!(words(&ps, 0)[..3], ["UID", "PID", "PPID"]);
    assert_eq!((words(&ps, 1)[1].as_str(), ps.lines().count()), (pid.as_str(), 2), "{ps}");
    let ps = bundle.call(&["ps", &bundle.id, "-e", "-x"]).ok().stdout;
    assert!(words(&ps, 0).contains(&"STAT".to_owned()), "{ps}");
}

#[test]
fn events_tell_figures_and_when_memory_ran_out() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["linux"]["resources"] = json!({ "memory": { "limit": 20 << 20 } });
    running(&bundle);
    let log = bundle.path("events");
    let mut events = bundle.command(&["events", "--interval", "100ms", &bundle.id]);
    let mut events = events.stdout(fs::File::create(&log).unwrap()).spawn().unwrap();
    let wait_for = |words: &str| {
        let found = || fs::read_to_string(&log).unwrap().contains(words);
        let there = (0..500).any(|_| {
            found() || {
                std::thread::sleep(std::time::Duration::from_millis(20));
                false
            }
        });
        assert!(there, "`{words}` is not in {}", fs::read_to_string(&log).unwrap());
    };
    wait_for(&format!(r#"{{"type":"stats","id":"{}","data":{{"#, bundle.id));
    // It keeps one endless line.
    assert_eq!(bundle.call(&["exec", &bundle.id, "busybox", "tail", "/dev/zero"]).code, 137);
    wait_for(&format!(r#"{{"type":"oom","id":"{}"}}"#, bundle.id));
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    assert!(events.wait().unwrap().success(), "they end with the container");
}

#[test]
fn killing_reaches_all_where_the_pid_namespace_is_the_hosts() {
    let mut bundle = Bundle::new(&["sh", "-c", "sleep 61 & sleep 62 & wait"]);
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
    running(&bundle);
    let count = || {
        let pids = bundle.call(&["ps", "--format", "json", &bundle.id]).ok().stdout;
        serde_json::from_str::<Vec<i32>>(&pids).unwrap().len()
    };
    let until = |wanted: usize| {
        let there = (0..500).any(|_| {
            count() == wanted || {
                std::thread::sleep(std::time::Duration::from_millis(10));
                false
            }
        });
        assert!(there, "{} processes, not {wanted}", count());
    };
    until(3);
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    until(0);
    bundle.wait_for_status("stopped");
    bundle.on("delete").ok();
    bundle.assert_nothing_left();
}

#[test]
fn a_program_has_a_home() {
    let mut bundle = Bundle::new(&["sh", "-c", "echo $HOME; sleep 60"]);
    fs::create_dir(bundle.rootfs().join("etc")).unwrap();
    fs::write(bundle.rootfs().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nother:x:5:5::/home/other:/bin/sh\n")
        .unwrap();
    let outcome = bundle.create().ok();
    bundle.on("start").ok();
    drop(outcome);
    let home = |user: &str, more: &[&str]| {
        let arguments = [&["exec", "-u", user], more, &[&bundle.id, "sh", "-c", "echo $HOME"]].concat();
        bundle.call(&arguments).ok().stdout.trim().to_owned()
    };
    assert_eq!([home("0", &[]), home("5", &[]), home("77", &[])], ["/root", "/home/other", "/"]);
    assert_eq!([home("5", &["-e", "HOME=/x"]), home("5", &["-e", "HOME="])], ["/x", "/home/other"]);
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    bundle.config["process"]["args"] = json!(["sh", "-c", "echo $HOME"]);
    assert_eq!(bundle.run().ok().stdout, "/root\n");
}

#[test]
fn a_path_of_cgroups_may_be_relative() {
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("stack-oci-tests/{}/deep", bundle.id));
    running(&bundle);
    assert!(groups(&bundle).iter().all(|group| group.join("deep/cgroup.procs").is_file()));
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    groups(&bundle).iter().for_each(|group| fs::remove_dir(group).unwrap());
    bundle.assert_nothing_left();
}
