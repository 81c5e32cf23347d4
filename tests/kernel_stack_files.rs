//! Ring 5: another content of a followed file reaches the running container, and does there what `on_change` says.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::fs;

use sandbox::{Sandbox, until};
use shop::{apply, assert_says, assert_touched, differences, pids};

/// A container that counts the SIGHUPs it gets into a file, and one beside it that nothing concerns.
fn stack(files: &str) -> String {
    format!(
        r#"
name = "shop"

[container.web]
image = "host:"
stop_timeout = "1s"
command = ["sh", "-c", "trap 'echo hup >> /tmp/told' HUP; echo started >> /tmp/told; while :; do sleep 0.05; done"]
{files}

[container.idle]
image = "host:"
command = ["sleep", "3600"]
"#
    )
}

fn running(files: &str) -> Sandbox {
    let host = Sandbox::new();
    host.write("app.conf", "first\n");
    host.write("password", "swordfish");
    apply(&host, &stack(files));
    until("the program has begun", || told(&host) == "started");
    host
}

fn told(host: &Sandbox) -> String {
    host.stack(&["exec", "web", "cat", "/tmp/told"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As an editor saves: a new file in the place of the old.
fn save(host: &Sandbox, name: &str, text: &str) {
    let new = host.write(&format!("{name}~"), text);
    fs::rename(new, host.path().join(name)).expect("the file is saved");
}

fn seen(host: &Sandbox, path: &str) -> String {
    host.ok(&["exec", "web", "cat", path])
}

fn mounted(on_change: &str) -> String {
    format!("mount = [{{ bind = \"app.conf\", target = \"/etc/app.conf\", on_change = \"{on_change}\" }}]")
}

#[test]
fn a_signal_is_sent_once_the_new_content_is_seen() {
    let host = running(&mounted("signal:HUP"));
    let before = pids(&host);
    save(&host, "app.conf", "2\n");
    assert_says(&differences(&host), &["container web", "reload", "content of /etc/app.conf"]);
    host.ok(&["up"]);
    assert_eq!(seen(&host, "/etc/app.conf"), "2\n");
    until("the program was told", || told(&host) == "started hup");
    assert_touched(&host, &before, &[]);
    assert!(host.in_sync());
    assert_ne!(host.stack(&["exec", "web", "sh", "-c", "echo x > /etc/app.conf"]).code, 0, "it is read-only");
}

#[test]
fn a_secret_restarts_the_process_in_the_same_container() {
    let host = running("secret = [{ file = \"password\", on_change = \"restart\" }]");
    let before = pids(&host);
    save(&host, "password", "marlin-17");
    let shown = differences(&host);
    assert_says(&shown, &["container web", "restart", "content of /run/secrets/password", "stopped and started again"]);
    assert!(!shown.contains("swordfish") && !shown.contains("marlin-17"), "{shown}");
    host.ok(&["up"]);
    assert_touched(&host, &before, &["web"]);
    // Its writable layer is the one that it had.
    until("the program has begun again", || told(&host) == "started started");
    assert_eq!(seen(&host, "/run/secrets/password"), "marlin-17");
    assert_eq!(host.ps()["web"]["run"]["restarts"], 1);
    assert!(host.in_sync());
    let log = fs::read_to_string(host.data_dir().join("events/shop.jsonl")).expect("an event log");
    assert_says(&log, &["\"resource\":\"container web\",\"verb\":\"restart\"", "content of /run/secrets/password"]);
    assert!(!log.contains("swordfish") && !log.contains("marlin-17"), "{log}");
}

#[test]
fn a_command_is_run_in_the_container_and_its_failure_is_told() {
    let host = running(&mounted("exec:cp /etc/app.conf /tmp/copy"));
    save(&host, "app.conf", "a longer second text\n");
    host.ok(&["up"]);
    assert_eq!(seen(&host, "/tmp/copy"), "a longer second text\n");
    apply(&host, &stack(&mounted("exec:ls /nowhere")));
    save(&host, "app.conf", "third\n");
    let outcome = host.stack(&["up"]);
    assert_eq!(outcome.code, 1, "{}\n{}", outcome.stdout, outcome.stderr);
    assert_says(&outcome.stderr, &["ls /nowhere", "ended with status 2", "No such file"]);
    // It was not told, so there is still something to do.
    assert!(!host.in_sync());
}

#[test]
fn nobody_is_told_where_nobody_is_to_be_told() {
    let host = running(&mounted("none"));
    let before = pids(&host);
    save(&host, "app.conf", "");
    assert_says(&differences(&host), &["container web", "live"]);
    host.ok(&["up"]);
    assert_eq!(seen(&host, "/etc/app.conf"), "");
    assert_eq!(told(&host), "started");
    assert_touched(&host, &before, &[]);
}
