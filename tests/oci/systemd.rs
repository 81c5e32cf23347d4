//! Cgroups that systemd makes, on hosts that it runs: `tests/vm` has one.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::bundle::{Bundle, Outcome};

fn create(bundle: &Bundle) -> Outcome {
    bundle.write();
    let directory = bundle.directory.path().to_str().unwrap();
    bundle.call(&["--systemd-cgroup", "create", "--bundle", directory, &bundle.id])
}

#[test]
fn each_manager_has_its_form_of_the_path() {
    let mut bundle = Bundle::new(&["true"]);
    create(&bundle).refused("SLICE:PREFIX:NAME");
    bundle.config["linux"]["cgroupsPath"] = json!("system.slice:stack:x");
    bundle.create().refused("needs `--systemd-cgroup`");
    bundle.assert_nothing_left();
}

/// What systemd says of a unit.
fn property(unit: &str, name: &str) -> String {
    let output = Command::new("systemctl").args(["show", unit, "--value", "-p", name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn systemd_makes_a_containers_scope_and_takes_it_away() {
    if !Path::new("/run/systemd/system").is_dir() || !Path::new("/sys/fs/cgroup/cgroup.controllers").is_file() {
        eprintln!("skipped: this host runs no systemd, or cgroup version 1");
        return;
    }
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("stack-tests.slice:oci:{}", bundle.id));
    bundle.config["linux"]["resources"] = json!({
        "memory": { "limit": 67_108_864 }, "pids": { "limit": 20 }, "unified": { "memory.high": "60000000" },
    });
    let unit = format!("oci-{}.scope", bundle.id);
    let group = Path::new("/sys/fs/cgroup/stack.slice/stack-tests.slice").join(&unit);
    let file = |name: &str| fs::read_to_string(group.join(name)).unwrap().trim().to_owned();
    create(&bundle).ok();
    assert_eq!(["Slice", "Delegate"].map(|name| property(&unit, name)), ["stack-tests.slice", "yes"]);
    assert_eq!([property(&unit, "MemoryMax"), file("memory.max")], ["67108864", "67108864"]);
    assert_eq!([property(&unit, "TasksMax"), file("pids.max")], ["20", "20"]);
    let mut second = Bundle::new(&["true"]);
    second.config["linux"]["cgroupsPath"] = bundle.config["linux"]["cgroupsPath"].clone();
    create(&second).refused("UnitExists");
    second.assert_nothing_left();
    bundle.on("start").ok();
    bundle.call(&["update", "--memory", "80m", &bundle.id]).ok();
    assert_eq!([property(&unit, "MemoryMax"), file("memory.max")], ["83886080", "83886080"]);
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    bundle.wait_for_status("stopped");
    bundle.on("delete").ok();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    assert!(!group.exists());
    // Gone before it runs.
    bundle.config["process"]["args"] = json!(["nonexistent"]);
    create(&bundle).refused("executable file not found");
    assert_eq!(property(&unit, "LoadState"), "not-found");
    bundle.assert_nothing_left();
}
