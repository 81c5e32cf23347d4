//! The life of a container: what each command does in each state, hooks, and that failures leave nothing.

use std::fs;

use serde_json::json;

use crate::bundle::Bundle;

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    assert_eq!(bundle.status(), "created");
    bundle.on("start").ok();
    assert_eq!(bundle.status(), "running");
    bundle.on("start").refused("cannot start");
    bundle.on("delete").refused("cannot delete");
    assert_eq!(bundle.status(), "running");
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    bundle.wait_for_status("stopped");
    bundle.on("kill").refused("not running");
    bundle.on("start").refused("cannot start");
    bundle.on("delete").ok();
    bundle.assert_nothing_left();
    bundle.on("state").refused("does not exist");
}

#[test]
fn the_exit_status_of_the_program_is_that_of_run() {
    let outcome = Bundle::new(&["sh", "-c", "echo out; echo err >&2; exit 7"]).run();
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "err\n"));
}

#[test]
fn a_created_container_can_be_killed_and_deleted() {
    let bundle = Bundle::new(&["true"]);
    bundle.create().ok();
    bundle.call(&["kill", &bundle.id, "TERM"]).ok();
    bundle.wait_for_status("stopped");
    bundle.on("delete").ok();
    bundle.create().ok();
    bundle.on("delete").ok();
    bundle.assert_nothing_left();
}

#[test]
fn an_id_is_taken_once_and_force_deletes_what_runs() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    bundle.create().refused("exists already");
    assert_eq!(bundle.status(), "created");
    bundle.on("start").ok();
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    bundle.assert_nothing_left();
}

#[test]
fn the_configuration_is_read_once() {
    let bundle = Bundle::new(&["sh", "-c", "echo first >/proof"]);
    bundle.create().ok();
    fs::write(bundle.path("config.json"), "{}").unwrap();
    bundle.on("start").ok();
    bundle.wait_for_status("stopped");
    assert_eq!(fs::read_to_string(bundle.rootfs().join("proof")).unwrap(), "first\n");
}

#[test]
fn without_a_process_there_is_nothing_to_start() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config.as_object_mut().unwrap().remove("process");
    bundle.create().ok();
    bundle.on("start").refused("no process");
    assert_eq!(bundle.status(), "created");
}

#[test]
fn a_program_that_is_not_there_fails_the_creation_and_leaves_nothing() {
    let bundle = Bundle::new(&["nonexistent"]);
    bundle.create().refused("executable file not found");
    bundle.assert_nothing_left();
}

#[test]
fn invalid_configurations_leave_nothing() {
    for (pointer, value, words) in [
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/linux/namespaces/0/type", json!("nope"), "linux.namespaces[0].type"),
        ("/root/path", json!("nowhere"), "nowhere"),
        ("/mounts/0/type", json!("nosuchfs"), "nosuchfs"),
    ] {
        let mut bundle = Bundle::new(&["true"]);
        *bundle.config.pointer_mut(pointer).unwrap() = value;
        bundle.create().refused(words);
        bundle.assert_nothing_left();
    }
}

fn log_hook(bundle: &Bundle, name: &str) -> serde_json::Value {
    let log = bundle.path("hooks");
    let script =
        format!("read -r state; echo {name} $(echo \"$state\" | grep -o '\"status\":\"[a-z]*\"') >>{}", log.display());
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }])
}

#[test]
fn hooks_run_at_their_points_with_the_state() {
    let mut bundle = Bundle::new(&["true"]);
    for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.config["hooks"][name] = log_hook(&bundle, name);
    }
    // In the container, where the log is not.
    let script = "cat >/state";
    bundle.config["hooks"]["startContainer"] =
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }]);
    bundle.run().ok();
    let expected = "prestart \"status\":\"creating\"\ncreateRuntime \"status\":\"creating\"\n\
                    createContainer \"status\":\"creating\"\npoststart \"status\":\"running\"\npoststop \"status\":\"stopped\"\n";
    assert_eq!(fs::read_to_string(bundle.path("hooks")).unwrap(), expected);
    let state = fs::read_to_string(bundle.rootfs().join("state")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!((&state["pid"], &state["status"]), (&json!(1), &json!("created")));
}

#[test]
fn a_hook_that_fails_undoes_the_creation_and_poststop_runs() {
    for point in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new(&["true"]);
        bundle.config["hooks"][point] = json!([{ "path": "/bin/false" }]);
        bundle.config["hooks"]["poststop"] = log_hook(&bundle, "poststop");
        bundle.create().refused(point);
        bundle.assert_nothing_left();
        assert!(fs::read_to_string(bundle.path("hooks")).unwrap().starts_with("poststop"), "{point}");
    }
}

#[test]
fn a_hook_that_hangs_is_ended() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["hooks"]["createRuntime"] = json!([{ "path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1 }]);
    bundle.create().refused("took too long");
    bundle.assert_nothing_left();
}

#[test]
fn a_failing_poststop_hook_is_a_warning() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["hooks"]["poststop"] =
        json!([{ "path": "/bin/false" }, { "path": "/bin/touch", "args": ["touch", bundle.path("second")] }]);
    let outcome = bundle.run().ok();
    assert!(outcome.stderr.contains("warning"), "{outcome:?}");
    assert!(bundle.path("second").exists(), "the hooks after it run all the same");
    bundle.assert_nothing_left();
}

#[test]
fn a_process_is_run_in_a_container() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    bundle.on("start").ok();
    let outcome = bundle.call(&[
        "exec",
        "-e",
        "A=b",
        "-u",
        "12:34",
        "--cwd",
        "/bin",
        &bundle.id,
        "sh",
        "-c",
        "echo $A $PWD; id -u; exit 5",
    ]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (5, "b /bin\n12\n"), "{outcome:?}");
    bundle.call(&["exec", "-u", "1x", &bundle.id, "id"]).refused("`1x` is no user");
    assert_eq!(bundle.call(&["exec", &bundle.id, "nonexistent"]).code, 127);
    let pids = bundle.call(&["ps", "--format", "json", &bundle.id]).ok().stdout;
    assert_eq!(serde_json::from_str::<Vec<i32>>(&pids).unwrap().len(), 1);
}

#[test]
fn a_container_is_paused_and_resumed() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    bundle.on("start").ok();
    bundle.on("pause").ok();
    assert_eq!(bundle.status(), "paused");
    bundle.call(&["exec", &bundle.id, "true"]).refused("paused");
    bundle.on("resume").ok();
    assert_eq!(bundle.status(), "running");
    bundle.on("resume").refused("cannot resume");
    bundle.on("pause").ok();
    bundle.call(&["delete", "--force", &bundle.id]).ok();
    bundle.assert_nothing_left();
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let bundle = Bundle::new(&["true"]);
    bundle.on("checkpoint").refused("not supported");
    bundle.call(&["restore", "--image-path", "/x", "--detach", &bundle.id]).refused("not supported");
    bundle.on("frobnicate").refused("frobnicate");
    assert!(bundle.call(&["exec", "--help"]).ok().stdout.contains("usage: stack-oci"));
}
