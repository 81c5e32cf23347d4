//! Ring 5: `stack events` tells what was done, and `stack wait` ends when it may and with the status that says how.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::process::Stdio;

use sandbox::{Sandbox, until};
use serde_json::Value;

const TEXT: &str = r#"
name = "told"

[container.web]
image = "host:"
command = ["sh", "-c", "while ! test -e /tmp/ready; do sleep 0.05; done; touch /tmp/healthy; exec sleep 3600"]
health = { exec = ["test", "-e", "/tmp/healthy"], interval = "100ms", retries = 600 }

[container.job]
image = "host:"
replicas = 2
command = ["sh", "-c", "while ! test -e /tmp/end; do sleep 0.05; done; exit 0"]

[container.bad]
image = "host:"
command = ["sh", "-c", "while ! test -e /tmp/end; do sleep 0.05; done; echo it goes wrong; exit 7"]
"#;

fn told() -> Sandbox {
    let host = Sandbox::new();
    host.write("stack.toml", TEXT);
    host.ok(&["up"]);
    host
}

#[test]
fn wait_ends_when_the_state_is_reached_or_cannot_be_any_more() {
    let host = told();
    assert_eq!(host.ok(&["wait", "job", "--for", "started"]).lines().count(), 2, "both replicas");
    let late = host.stack(&["wait", "web", "--timeout", "200ms"]);
    assert_eq!(late.code, 124, "{late:?}");
    let waiting =
        |args: &[&str]| host.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nsenter");
    let healthy = waiting(&["wait", "web", "--json"]);
    let completed = waiting(&["wait", "job-1", "job-2", "--for", "completed"]);
    host.ok(&["exec", "web", "touch", "/tmp/ready"]);
    let healthy = sandbox::outcome(healthy.wait_with_output().expect("it ends"));
    let document: Value = serde_json::from_str(healthy.stdout.trim()).expect("JSON");
    assert_eq!((healthy.code, &document["container"], &document["state"]), (0, &"web".into(), &"healthy".into()));
    for job in ["job-1", "job-2"] {
        host.ok(&["exec", job, "touch", "/tmp/end"]);
    }
    let completed = sandbox::outcome(completed.wait_with_output().expect("it ends"));
    assert_eq!(completed.code, 0, "{completed:?}");

    host.ok(&["exec", "bad", "touch", "/tmp/end"]);
    let bad = host.stack(&["wait", "bad", "--for", "completed"]);
    assert_eq!(bad.code, 1);
    assert!(bad.stderr.contains("ended with status 7") && bad.stderr.contains("it goes wrong"), "{}", bad.stderr);
    host.ok(&["wait", "bad", "--for", "stopped"]);
    let stopped = waiting(&["wait", "web", "--for", "stopped"]);
    host.ok(&["down"]);
    assert_eq!(stopped.wait_with_output().expect("it ends").status.code(), Some(0));
    assert_eq!(host.stack(&["wait", "web"]).code, 1);
    assert_eq!(host.stack(&["wait", "nobody"]).code, 1);
    assert_eq!(host.stack(&["wait", "web", "--timeout", "soon"]).code, 64);
}

#[test]
fn events_tell_what_was_done_and_go_on_telling() {
    let host = told();
    let said = host.ok(&["events"]);
    assert!(said.lines().any(|line| line.contains("  up  ") && line.contains("container web  create  new")), "{said}");
    let log = host.path().join("events.log");
    let out = fs::File::create(&log).expect("a log");
    let mut following = host.command(&["events", "-f", "-n", "1", "--json"]).stdout(out).spawn().expect("nsenter");
    let events = || -> Vec<Value> {
        let text = fs::read_to_string(&log).expect("a log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    until("the last event", || events().len() == 1);
    host.write("stack.toml", &TEXT.replace("sleep 3600", "sleep 3601"));
    host.ok(&["up"]);
    let replaced = |event: &Value| event["resource"] == "container web" && event["verb"] == "replace";
    until("the replacement", || events().iter().any(replaced));
    host.ok(&["down"]);
    until("the end", || events().iter().any(|event| event["by"] == "down"));
    following.kill().expect("it follows until it is told to end");
    following.wait().expect("it ends");
    assert_eq!(host.ok(&["events", "--name", "told", "-n", "2"]).lines().count(), 2);
    assert!(host.ok(&["events", "--name", "other"]).contains("nothing was ever done to other"));
}
