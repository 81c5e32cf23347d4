//! What images and containers have done to the host through runtimes (the advisories are named), tried on this one.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::bundle::Bundle;

#[test]
fn the_runtime_cannot_be_overwritten_from_inside() {
    // CVE-2019-5736: the program is the runtime itself, opened for writing by its own name.
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    let state: serde_json::Value = serde_json::from_str(&bundle.on("state").stdout).unwrap();
    let executable = format!("/proc/{}/exe", state["pid"]);
    let mode = fs::metadata(&executable).unwrap().permissions();
    // Writing would fail in any case while it is executed.
    let error = fs::set_permissions(&executable, mode).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "the waiting process runs from a read-only mount");
}

#[test]
fn a_root_whose_proc_is_a_link_is_refused() {
    // CVE-2019-19921, CVE-2023-27561.
    let bundle = Bundle::new(&["true"]);
    symlink("/tmp", bundle.rootfs().join("proc")).unwrap();
    bundle.create().refused("/proc");
    bundle.assert_nothing_left();
}

#[test]
fn a_root_whose_dev_is_a_link_reaches_nothing_outside() {
    // CVE-2026-41579, CVE-2026-47766.
    let outside = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["mounts"] = json!([{ "destination": "/proc", "type": "proc", "source": "proc" }]);
    symlink(outside.path(), bundle.rootfs().join("dev")).unwrap();
    bundle.create();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_mount_through_a_link_stays_in_the_root() {
    // CVE-2018-15664, CVE-2021-30465.
    let outside = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new(&["true"]);
    symlink(outside.path(), bundle.rootfs().join("data")).unwrap();
    fs::write(bundle.path("file"), "x").unwrap();
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "destination": "/data/new/file", "type": "bind", "source": "file", "options": ["bind"] }));
    bundle.run().ok();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_working_directory_is_not_a_descriptor_that_leaked() {
    // CVE-2024-21626, for the first process and for later ones.
    for number in 3..12 {
        let mut bundle = Bundle::new(&["sh", "-c", "ls ../../../../../"]);
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let outcome = bundle.run();
        assert_ne!(outcome.code, 0, "descriptor {number}: {outcome:?}");
    }
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        assert_ne!(bundle.call(&["exec", "--cwd", &cwd, &bundle.id, "true"]).code, 0, "descriptor {number}");
    }
}

#[test]
fn a_program_gets_no_descriptor_but_the_three() {
    let bundle = Bundle::new(&["sh", "-c", "ls /proc/self/fd | wc -l"]);
    // The fourth is the directory that is being read.
    assert_eq!(bundle.run().ok().stdout.trim(), "4");
}

#[test]
fn capabilities_of_exec_are_not_inheritable() {
    // CVE-2022-29162.
    let mut bundle = Bundle::new(&["sleep", "60"]);
    bundle.config["process"]["capabilities"] = json!({});
    bundle.create().ok();
    let outcome = bundle.call(&["exec", "--cap", "CAP_KILL", &bundle.id, "grep", "Cap", "/proc/self/status"]).ok();
    assert!(outcome.stdout.contains("CapInh:\t0000000000000000"), "{outcome:?}");
    assert!(outcome.stdout.contains("CapEff:\t0000000000000020"), "{outcome:?}");
}

#[test]
fn state_is_nobody_elses_to_look_into() {
    use std::os::unix::fs::PermissionsExt;
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    let mode = fs::metadata(bundle.path("state").join(&bundle.id)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    bundle.call(&["state", "../../etc"]).refused("no id");
}
