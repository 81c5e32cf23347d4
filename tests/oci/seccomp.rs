//! A seccomp listener: the filter of a container asks an agent of the test about `mkdir`.

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::bundle::{Bundle, receive_with_message};

/// What `mkdir` of a process fails with if the agent has its way: nothing else would give it.
const EHWPOISON: i32 = 133;

/// Lets every call but `mkdir` pass until nobody is left who could make one; returns what it was told at the beginning.
fn agent(socket: &Path) -> JoinHandle<Value> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut text, notifications) = receive_with_message(&stream);
        stream.read_to_end(&mut text).unwrap();
        while answer(&notifications) {}
        serde_json::from_slice(&text).unwrap()
    })
}

/// Answer one call; `false`: nobody is left who could make one.
fn answer(notifications: &OwnedFd) -> bool {
    let mut ready = libc::pollfd { fd: notifications.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    #[allow(unsafe_code)]
    unsafe {
        assert_eq!(libc::poll(&raw mut ready, 1, 60_000), 1);
        if ready.revents & libc::POLLIN == 0 {
            return false;
        }
        let mut call: libc::seccomp_notif = std::mem::zeroed();
        if libc::ioctl(notifications.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut call) != 0 {
            return true;
        }
        let refused = [libc::SYS_mkdir, libc::SYS_mkdirat].contains(&i64::from(call.data.nr));
        let mut answer = libc::seccomp_notif_resp { id: call.id, val: 0, error: 0, flags: 0 };
        if refused {
            answer.error = -EHWPOISON;
        } else {
            answer.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        }
        libc::ioctl(notifications.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut answer);
    }
    true
}

fn asking(args: &[&str], calls: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(args);
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": bundle.path("agent.sock"),
        "listenerMetadata": "whose it is",
        "syscalls": [{ "names": calls, "action": "SCMP_ACT_NOTIFY" }],
    });
    bundle
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

#[test]
fn an_agent_is_told_of_the_container_and_answers_its_calls() {
    for no_new_privileges in [true, false] {
        let mut bundle = asking(&["mkdir", "/new"], &MKDIR);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["annotations"] = json!({ "a": "b" });
        let agent = agent(&bundle.path("agent.sock"));
        let outcome = bundle.run();
        assert_ne!(outcome.code, 0);
        assert!(outcome.stderr.contains("hardware error"), "{outcome:?}");
        let told = agent.join().unwrap();
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(told["metadata"], json!("whose it is"));
        assert_eq!(told["state"]["id"], json!(bundle.id));
        assert_eq!(told["state"]["status"], json!("created"));
        assert_eq!(told["state"]["annotations"]["a"], json!("b"));
        assert_eq!(told["pid"], told["state"]["pid"]);
        assert!(!bundle.rootfs().join("new").exists());
    }
}

#[test]
fn even_the_calls_by_which_a_listener_could_be_handed_over_may_be_notified() {
    let everything = ["read", "write", "sendmsg", "sendto", "recvfrom", "recvmsg", "close", "execve", "wait4", "ppoll"];
    for no_new_privileges in [true, false] {
        let mut bundle = asking(&["mkdir", "/new"], &everything);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let agent = agent(&bundle.path("agent.sock"));
        bundle.run().ok();
        agent.join().unwrap();
        assert!(bundle.rootfs().join("new").is_dir());
    }
}

#[test]
fn every_process_that_is_run_later_has_a_listener_of_its_own() {
    for no_new_privileges in [true, false] {
        let mut bundle = asking(&["sleep", "60"], &MKDIR);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let socket = bundle.path("agent.sock");
        let first = agent(&socket);
        bundle.create().ok();
        bundle.on("start").ok();
        fs::remove_file(&socket).unwrap();
        bundle.call(&["exec", &bundle.id, "true"]).refused("cannot reach the seccomp agent");
        let second = agent(&socket);
        let outcome = bundle.call(&["exec", &bundle.id, "mkdir", "/new"]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert_eq!(second.join().unwrap()["state"]["status"], json!("running"));
        bundle.call(&["delete", "--force", &bundle.id]).ok();
        first.join().unwrap();
    }
}

#[test]
fn without_its_agent_a_container_does_not_start() {
    let bundle = asking(&["true"], &MKDIR);
    bundle.create().ok();
    bundle.on("start").refused("agent.sock");
    assert_eq!(bundle.status(), "created");
    let agent = agent(&bundle.path("agent.sock"));
    bundle.on("start").ok();
    agent.join().unwrap();
    let mut nobody = asking(&["true"], &MKDIR);
    nobody.config["linux"]["seccomp"].as_object_mut().unwrap().remove("listenerPath");
    nobody.create().refused("linux.seccomp.listener");
    nobody.assert_nothing_left();
}

#[test]
fn the_flags_of_a_filter_reach_the_kernel() {
    let all = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    let mut bundle = asking(&["grep", "^Seccomp", "/proc/self/status"], &MKDIR);
    bundle.config["linux"]["seccomp"]["flags"] = json!(all);
    let agent = agent(&bundle.path("agent.sock"));
    assert_eq!(bundle.run().ok().stdout, "Seccomp:\t2\nSeccomp_filters:\t1\n");
    agent.join().unwrap();
}
