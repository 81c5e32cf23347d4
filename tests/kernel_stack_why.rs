//! Ring 5: `why` and `ps --check` tell what is wrong with what really runs.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use sandbox::Sandbox;
use serde_json::Value;
use shop::{WAITS, apply, assert_says, running, shop};

fn why(host: &Sandbox, name: &str) -> String {
    host.ok(&["why", name])
}

#[test]
fn why_follows_an_edited_line_to_what_hangs_on_it() {
    let text = format!("{}\n[container.page]\nimage = \"host:\"\n{WAITS}\nafter = {{ web = \"started\" }}\n", shop());
    let host = running(&text);
    assert_says(
        &why(&host, "web"),
        &["container web", "running", "stack.toml:", "nothing is to be done", "container page"],
    );
    host.write("stack.toml", &text.replace("memory = \"64MiB\"", "memory = \"96MiB\""));
    let said = why(&host, "web");
    assert_says(
        &said,
        &["~ live", "settings differ", "memory.max  64MiB → 96MiB", "stack.toml:", "page stays as it is"],
    );
    assert_says(&why(&host, "front"), &["bridge front", "10.70.0.1/26", "container web", "container idle"]);
    assert_says(&why(&host, "backend"), &["cgroup backend", "memory.max 512MiB", "container idle"]);
    let document: Value = serde_json::from_str(&host.ok(&["why", "web", "--json"])).unwrap();
    let web = &document["resources"][0];
    assert_eq!((&web["well"], &web["steps"][0]["verb"]), (&true.into(), &"live".into()));
    let unknown = host.stack(&["why", "wob"]);
    assert_eq!(unknown.code, 1);
    assert_says(&unknown.stderr, &["no `wob`", "web, idle"]);
}

#[test]
fn why_tells_how_a_container_ended_and_what_it_said_last() {
    let text = "name = \"shop\"\n[container.web]\nimage = \"host:\"\nrestart = \"no\"\n\
        command = [\"sh\", \"-c\", \"echo no database; exit 127\"]\n\
        [container.page]\nimage = \"host:\"\ncommand = [\"sleep\", \"9\"]\nafter = { web = \"started\" }\n";
    let host = Sandbox::new();
    host.write("stack.toml", text);
    host.stack(&["up"]);
    sandbox::until("it has ended", || host.ps()["web"]["phase"]["state"] == "exited");
    let said = why(&host, "web");
    assert_says(
        &said,
        &["exited (127)", "ended with status 127: its program", "no database", "last events", "Up create new"],
    );
    let check = host.stack(&["ps", "--check"]);
    assert_eq!(check.code, 1, "{}", check.stdout);
    assert_says(&check.stdout, &["wrong: web is exited (127)"]);
}

#[test]
fn a_check_is_silent_about_nothing_that_should_run() {
    let host = Sandbox::new();
    host.write("stack.toml", &shop());
    let check = host.stack(&["ps", "--check"]);
    assert_eq!((check.code, check.stdout.trim()), (1, "wrong: web is not there; idle is not there"));
    apply(&host, &shop());
    assert_eq!(host.ok(&["ps", "--check"]).trim(), "ok: 2 containers, all well");
    assert_eq!(host.ok(&["ps", "--check", "--all"]).trim(), "ok: 2 containers, all well");
    let document: Value = serde_json::from_str(&host.ok(&["ps", "--check", "--json"])).unwrap();
    assert_eq!(document["ok"], true);
}
