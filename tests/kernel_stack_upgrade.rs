//! Ring 5: another build of the program takes over what an earlier one runs, and no container notices.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::{Outcome, Sandbox, outcome, until};
use serde_json::Value;

const TEXT: &str = r#"
name = "old"

[bridge.front]
subnet = "10.71.0.0/26"

[container.web]
image = "host:"
command = ["sh", "-c", "while :; do echo tick; sleep 0.1; done"]
bridge = ["front"]
port = ["8080:80"]
memory = "64MiB"
restart = "always"
health = { exec = ["true"], interval = "100ms" }
secret = [{ file = "key" }]

[container.idle]
image = "host:"
command = ["sleep", "3600"]
bridge = ["front"]
"#;

/// A program that does the same and is another file with another content.
fn another_build(place: &Path) {
    fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
    let new = place.with_extension("new");
    fs::copy(env!("CARGO_BIN_EXE_stack"), &new).expect("a copy");
    let mut file = OpenOptions::new().append(true).open(&new).expect("it is ours");
    write!(file, "another build at {}", place.display()).expect("written");
    drop(file);
    // As package managers do it: what runs keeps the old file.
    fs::rename(&new, place).expect("renamed");
}

struct Host {
    host: Sandbox,
    program: PathBuf,
}

impl Host {
    fn stack(&self, args: &[&str]) -> Outcome {
        let mut command = self.host.inside(&self.program.display().to_string());
        outcome(command.args(args).output().expect("nsenter"))
    }

    fn ok(&self, args: &[&str]) -> String {
        let said = self.stack(args);
        assert_eq!(said.code, 0, "{args:?}\n{}\n{}", said.stdout, said.stderr);
        said.stdout
    }

    fn of(&self, instance: &str, pointer: &str) -> Value {
        let document: Value = serde_json::from_str(&self.ok(&["ps", "--json"])).expect("JSON");
        let containers = document["stacks"][0]["containers"].as_array().expect("containers");
        let found = containers.iter().find(|one| one["name"] == instance);
        found.and_then(|one| one.pointer(pointer)).cloned().unwrap_or_default()
    }
}

#[test]
fn containers_do_not_notice_that_the_program_is_another_build() {
    let host = Sandbox::new();
    host.write("stack.toml", TEXT);
    host.write("key", "hush-hush");
    let program = host.path().join("bin/stack");
    another_build(&program);
    let host = Host { host, program };
    host.ok(&["up", "--wait"]);
    let numbers =
        |host: &Host| ["/run/pid", "/run/monitor"].map(|pointer| (host.of("web", pointer), host.of("idle", pointer)));
    let before = numbers(&host);
    // The same path is another file now, and the old one has no name any more.
    another_build(&host.host.path().join("elsewhere/stack"));
    fs::rename(host.host.path().join("elsewhere/stack"), &host.program).expect("renamed");

    assert_eq!(host.stack(&["diff"]).code, 0, "{:?}", host.stack(&["diff"]));
    assert!(host.ok(&["up"]).contains("in sync"));
    assert_eq!(numbers(&host), before);
    let ticks = || host.ok(&["logs", "web"]).lines().count();
    let first = ticks();
    until("its log goes on", || ticks() > first);
    assert_eq!(host.ok(&["exec", "web", "cat", "/run/secrets/key"]), "hush-hush");
    host.ok(&["wait", "web", "--for", "healthy"]);

    // Its monitor, of the earlier build, takes what the new one says, and does its work.
    host.host.write("stack.toml", &TEXT.replace("64MiB", "96MiB").replace("100ms", "200ms"));
    host.ok(&["up"]);
    assert_eq!(numbers(&host), before, "live");
    assert_eq!(host.stack(&["diff"]).code, 0);
    let pid = before[0].0.as_i64().expect("a number");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("it runs");
    until("it is started again", || host.of("web", "/run/pid").as_i64().is_some_and(|now| now != pid));
    assert_eq!(host.of("web", "/run/restarts"), 1);
    assert_eq!(host.of("web", "/run/monitor"), before[1].0);
    host.ok(&["down"]);
    assert_eq!(host.host.leftovers(), Vec::<String>::new());
}
