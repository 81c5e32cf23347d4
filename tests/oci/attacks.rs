//! What images and containers have done to the host through runtimes (the advisories are named), tried on this one.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

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
fn the_example_gives_nothing_to_inherit() {
    // CVE-2022-24769: the default of an engine.
    let bundle = Bundle::new(&["true"]);
    bundle.call(&["spec", "--bundle", bundle.directory.path().to_str().unwrap()]).ok();
    let spec: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(bundle.path("config.json")).unwrap()).unwrap();
    let sets = &spec["process"]["capabilities"];
    assert!(sets["bounding"].as_array().is_some_and(|set| !set.is_empty()), "{sets}");
    for set in ["inheritable", "ambient"] {
        assert!(sets[set].as_array().is_none_or(Vec::is_empty), "{sets}");
    }
}

#[test]
fn nothing_is_mounted_over_what_the_kernel_writes_of() {
    // CVE-2019-16884: a volume over `/proc` turns what is written there into files of the image's.
    for destination in ["/proc", "/proc/self/attr", "/proc/sys", "/proc/1"] {
        let mut bundle = Bundle::new(&["true"]);
        bundle.config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" }));
        bundle.create().refused("/proc");
        bundle.assert_nothing_left();
    }
}

#[test]
fn parameters_are_not_written_to_files_of_the_image() {
    // CVE-2025-52881: what is written for the kernel goes elsewhere.
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["mounts"].as_array_mut().unwrap().remove(0);
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    let fake = bundle.rootfs().join("proc/sys/net/ipv4/ip_forward");
    fs::create_dir_all(fake.parent().unwrap()).unwrap();
    fs::write(&fake, "mine").unwrap();
    bundle.create().ok();
    assert_eq!(fs::read_to_string(&fake).unwrap(), "mine");
    let state: serde_json::Value = serde_json::from_str(&bundle.on("state").stdout).unwrap();
    let inside = format!("--net=/proc/{}/ns/net", state["pid"]);
    let output = Command::new("nsenter").args([&inside, "cat", "/proc/sys/net/ipv4/ip_forward"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n");
}

#[test]
fn parameters_of_the_host_are_refused() {
    // CVE-2022-0811.
    for (name, value) in [("kernel.core_pattern", "|/evil"), ("net.core.somaxconn", "1\nkernel.core_pattern=|/evil")] {
        let mut bundle = Bundle::new(&["true"]);
        bundle.config["linux"]["sysctl"] = json!({ name: value });
        bundle.create().refused(name);
        bundle.assert_nothing_left();
    }
}

#[test]
fn a_console_that_is_a_link_is_not_followed() {
    // CVE-2025-52565, CVE-2026-88264: no mount on `/dev`, whose files are the image's.
    let outside = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["mounts"].as_array_mut().unwrap().remove(1);
    bundle.config["process"]["terminal"] = json!(true);
    fs::create_dir_all(bundle.rootfs().join("dev")).unwrap();
    let made = outside.path().join("made");
    for target in [&*made, Path::new("/made"), Path::new("../made")] {
        let console = bundle.rootfs().join("dev/console");
        let _ = fs::remove_file(&console);
        symlink(target, console).unwrap();
        bundle.run();
        assert!(!made.exists() && !bundle.rootfs().join("made").exists(), "{}", target.display());
    }
}

#[test]
fn a_terminal_is_of_a_devpts_only() {
    // CVE-2025-52565: the multiplexer is a file of the image's, or that of another devpts.
    let mut bundle = Bundle::new(&["true"]);
    bundle.config["mounts"].as_array_mut().unwrap().truncate(1);
    bundle.config["process"]["terminal"] = json!(true);
    fs::create_dir_all(bundle.rootfs().join("dev/pts")).unwrap();
    let place = bundle.rootfs().join("dev/pts/ptmx");
    fs::write(&place, "").unwrap();
    bundle.run().refused("terminal");
    fs::remove_file(&place).unwrap();
    symlink("/proc/self/mem", &place).unwrap();
    bundle.run().refused("terminal");
    fs::remove_file(&place).unwrap();
    let host =
        json!({ "destination": "/dev/pts/ptmx", "type": "bind", "source": "/dev/tty", "options": ["bind", "dev"] });
    bundle.config["mounts"].as_array_mut().unwrap().push(host);
    bundle.run().refused("not the terminal multiplexer");
    bundle.assert_nothing_left();
}

#[test]
fn devices_that_are_links_are_not_followed() {
    // CVE-2026-88265: no mount on `/dev`, and the image's null leads to a file of the host's.
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("file");
    fs::write(&file, "mine").unwrap();
    let before = fs::metadata(&file).unwrap();
    for name in ["null", "zero", "tty"] {
        let mut bundle = Bundle::new(&["sh", "-c", "echo x >/dev/null"]);
        bundle.config["mounts"].as_array_mut().unwrap().truncate(1);
        bundle.config["process"]["user"] = json!({ "uid": 12, "gid": 12 });
        fs::create_dir_all(bundle.rootfs().join("dev")).unwrap();
        symlink(&file, bundle.rootfs().join("dev").join(name)).unwrap();
        bundle.run().refused(name);
        bundle.assert_nothing_left();
        let after = fs::metadata(&file).unwrap();
        assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()));
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}

#[test]
fn groups_of_the_caller_are_not_the_containers() {
    // CVE-2023-25173, CVE-2022-2989.
    let bundle = Bundle::new(&["id", "-G"]);
    bundle.write();
    let command = bundle.command(&["run", "--bundle", bundle.directory.path().to_str().unwrap(), &bundle.id]);
    let output = Command::new("setpriv")
        .args(["--groups", "1234,2345"])
        .arg(command.get_program())
        .args(command.get_args())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{output:?}");
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
