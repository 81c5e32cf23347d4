//! Stacks that tests have in common, and what tests say of them again and again.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::sandbox::{Sandbox, until};

/// A command that answers each TCP connection to `port` with `name` and the address that it came from.
pub fn serves(port: u16, name: &str) -> String {
    format!(
        r#"command = ["perl", "-MIO::Socket::INET", "-e", '''
    my $$s = IO::Socket::INET->new(LocalPort => {port}, Listen => 16, ReuseAddr => 1) or die;
    while (my $$c = $$s->accept) {{ print $$c "{name} " . $$c->peerhost . "\n"; }}
''']"#
    )
}

/// A command that answers each datagram to `port` with `name` and the address that it came from.
pub fn serves_udp(port: u16, name: &str) -> String {
    format!(
        r#"command = ["perl", "-MIO::Socket::INET", "-e", '''
    my $$s = IO::Socket::INET->new(LocalPort => {port}, Proto => "udp") or die;
    while ($$s->recv(my $$d, 99)) {{ $$s->send("{name} " . $$s->peerhost . "\n"); }}
''']"#
    )
}

/// A command that only waits, and ends at once when it is asked to.
pub const WAITS: &str = r#"command = ["sleep", "3600"]"#;

/// A server with a port, a limit and a branch of its own, and a container that must not be touched.
pub fn shop() -> String {
    format!(
        r#"
name = "shop"

[bridge.front]
subnet = "10.70.0.0/26"

[cgroup.backend]
memory = "512MiB"

[container.web]
image = "host:"
{}
bridge = ["front"]
port = ["8080:80"]
memory = "64MiB"

[container.idle]
image = "host:"
{WAITS}
bridge = ["front"]
cgroup = "backend"
"#,
        serves(80, "web")
    )
}

/// A host on which the stack of this text runs, with `diff` empty.
pub fn running(text: &str) -> Sandbox {
    let host = Sandbox::new();
    apply(&host, text);
    host
}

/// Writes the text as `stack.toml` and takes it up; `diff` is empty then.
pub fn apply(host: &Sandbox, text: &str) -> String {
    host.write("stack.toml", text);
    let shown = host.ok(&["up"]);
    assert_in_sync(host);
    shown
}

pub fn assert_in_sync(host: &Sandbox) {
    let outcome = host.stack(&["diff"]);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
}

/// What `diff` shows; it must find something.
pub fn differences(host: &Sandbox) -> String {
    let outcome = host.stack(&["diff"]);
    assert_eq!(outcome.code, 2, "{}\n{}", outcome.stdout, outcome.stderr);
    outcome.stdout
}

#[track_caller]
pub fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

/// The first processes of all containers that run.
pub fn pids(host: &Sandbox) -> BTreeMap<String, i64> {
    let containers = host.ps();
    containers.iter().filter_map(|(name, c)| Some((name.clone(), c["run"]["pid"].as_i64()?))).collect()
}

/// What was changed on the host is seen by `diff`, named with all these words, and repaired by `up` with no container
/// touched but those that are named in `touched`.
#[track_caller]
pub fn assert_repaired(host: &Sandbox, words: &[&str], before: &BTreeMap<String, i64>, touched: &[&str]) {
    assert_says(&differences(host), words);
    host.ok(&["up"]);
    assert_touched(host, before, touched);
    assert_in_sync(host);
}

/// Exactly these containers have another first process than before, or are new.
#[track_caller]
pub fn assert_touched(host: &Sandbox, before: &BTreeMap<String, i64>, touched: &[&str]) {
    let now = pids(host);
    let mut changed: Vec<&str> =
        now.iter().filter(|(name, pid)| before.get(*name) != Some(pid)).map(|(name, _)| name.as_str()).collect();
    changed.sort_unstable();
    assert_eq!(changed, touched, "before: {before:?}, now: {now:?}");
}

/// A new text changes exactly these containers; `diff` says `words` before, and nothing after.
#[track_caller]
pub fn assert_change(host: &Sandbox, text: &str, words: &[&str], touched: &[&str]) {
    let before = pids(host);
    host.write("stack.toml", text);
    assert_repaired(host, words, &before, touched);
}

/// The folder of a cgroup of a stack in the hierarchy of a controller, as this host mounts it.
pub fn cgroup(host: &Sandbox, controller: &str, below: &str) -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let root = if root.join("cgroup.controllers").exists() { root.to_path_buf() } else { root.join(controller) };
    root.join(host.cgroup()).join(below)
}

/// The file of a limit: its name on cgroup v1 and on v2.
pub fn limit_file(folder: &Path, v1: &str, v2: &str) -> PathBuf {
    let file = folder.join(v2);
    if file.exists() { file } else { folder.join(v1) }
}

pub fn limit(host: &Sandbox, below: &str, (controller, v1, v2): (&str, &str, &str)) -> String {
    let file = limit_file(&cgroup(host, controller, below), v1, v2);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).trim().to_string()
}

/// Runs a shell line in the network namespace of a container.
pub fn in_network_of(host: &Sandbox, container: &str, line: &str) -> String {
    host.sh(&format!("nsenter --net --target {} sh -c '{line}'", host.init_of(container)))
}

/// What a server on this port of the host's loopback answers; nothing if it does not.
pub fn answer(host: &Sandbox, port: u16) -> Option<String> {
    ask(host, "127.0.0.1", port)
}

/// What a server at this address answers, asked from the host.
pub fn ask(host: &Sandbox, address: &str, port: u16) -> Option<String> {
    let line = format!("busybox nc -w 2 {address} {port} < /dev/null || true");
    Some(host.sh(&line).trim().to_string()).filter(|text| !text.is_empty())
}

/// Waits until a server on this port of the host's loopback answers.
pub fn answers(host: &Sandbox, port: u16) -> String {
    let mut text = None;
    until("an answer", || {
        text = answer(host, port);
        text.is_some()
    });
    text.unwrap_or_default()
}

/// What a container wrote, once it has ended.
pub fn output_of(host: &Sandbox, container: &str) -> String {
    until(&format!("`{container}` ends"), || host.ps()[container]["phase"]["state"] == "exited");
    let text = host.ok(&["logs", container]);
    text.lines().map(|line| line.split_once("| ").map_or(line, |(_, rest)| rest)).collect::<Vec<_>>().join("\n")
}
