//! Mount options, seen from inside the container.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::Bundle;

fn shell(script: &str) -> Bundle {
    Bundle::new(&["sh", "-c", script])
}

fn add(bundle: &mut Bundle, mount: Value) {
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
}

fn call(arguments: &[&str]) {
    assert!(Command::new(arguments[0]).args(&arguments[1..]).status().unwrap().success(), "{arguments:?}");
}

/// A directory of the host with a mount below it, taken away with the test.
struct Tree(String);

impl Tree {
    fn new(bundle: &Bundle) -> Self {
        let source = bundle.path("source").to_str().unwrap().to_owned();
        fs::create_dir(&source).unwrap();
        call(&["mount", "-t", "tmpfs", "tmpfs", &source]);
        fs::create_dir(format!("{source}/below")).unwrap();
        call(&["mount", "-t", "tmpfs", "tmpfs", &format!("{source}/below")]);
        Self(source)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-R", &self.0]).status();
    }
}

/// The options of `/mnt` and of what is below it.
const OPTIONS: &str =
    "grep -E ' /mnt(/below)? ' /proc/self/mountinfo | while read a b c d e f rest; do echo $e $f; done";

#[test]
fn recursive_options_reach_what_is_mounted_below() {
    for (option, sets) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        let mut bundle = shell(OPTIONS);
        let tree = Tree::new(&bundle);
        add(&mut bundle, json!({ "destination": "/mnt", "source": "source", "options": ["rbind", option] }));
        let seen = bundle.run().ok().stdout;
        drop(tree);
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines.len(), 2, "{option}: {seen}");
        for line in lines {
            assert!(line.split([' ', ',']).any(|one| one == sets), "{option}: {seen}");
        }
    }
    let mut bundle = shell(OPTIONS);
    let _tree = Tree::new(&bundle);
    add(&mut bundle, json!({ "destination": "/mnt", "source": "source", "options": ["rbind", "rro", "rw", "nosuid"] }));
    let seen = bundle.run().ok().stdout;
    assert!(seen.starts_with("/mnt rw,nosuid") && seen.contains("/mnt/below ro,relatime"), "{seen}");
}

#[test]
fn a_bind_shows_its_files_with_the_owners_that_its_mapping_gives() {
    let mut bundle = shell("stat -c %u:%g /mnt/file; stat -c %u /mnt/below; touch /mnt/new");
    let tree = Tree::new(&bundle);
    let source = bundle.path("source");
    fs::write(source.join("file"), "").unwrap();
    let ids = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 100 }]);
    add(
        &mut bundle,
        json!({ "destination": "/mnt", "source": "source", "options": ["rbind", "idmap"],
                "uidMappings": ids(1000), "gidMappings": ids(2000) }),
    );
    let outcome = bundle.run();
    // The caller's root has no id in the mount.
    assert!(outcome.stderr.contains("Value too large"), "{outcome:?}");
    assert_eq!(outcome.stdout, "1000:2000\n0\n");
    bundle.config["mounts"][3]["options"] = json!(["rbind", "ridmap"]);
    assert_eq!(bundle.run().stdout, "1000:2000\n1000\n");
    drop(tree);
}

#[test]
fn a_bind_is_mapped_as_the_containers_user_namespace_is() {
    let mut bundle = shell("stat -c %u:%g /mnt/file; touch /mnt/new");
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    for ids in ["uidMappings", "gidMappings"] {
        bundle.config["linux"][ids] = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
    }
    chown(bundle.rootfs(), Some(100_000), Some(100_000)).unwrap();
    fs::set_permissions(bundle.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let source = bundle.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "").unwrap();
    add(&mut bundle, json!({ "destination": "/mnt", "source": "source", "options": ["bind", "idmap", "nosuid"] }));
    add(&mut bundle, json!({ "destination": "/plain", "source": "source", "options": ["bind"] }));
    assert_eq!(bundle.run().ok().stdout, "0:0\n");
    let made = fs::metadata(source.join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 0, "written as the host's root");
}

#[test]
fn ids_without_a_mapping_are_refused() {
    let mut bundle = shell("true");
    add(&mut bundle, json!({ "destination": "/mnt", "source": "rootfs", "options": ["bind", "idmap"] }));
    bundle.create().refused("mounts[3].options");
    let ids = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
    let tmpfs = json!({ "destination": "/t", "type": "tmpfs", "uidMappings": ids, "gidMappings": ids });
    bundle.config["mounts"][3] = tmpfs;
    bundle.create().refused("only binds can");
    bundle.assert_nothing_left();
}

#[test]
fn a_tmpfs_begins_with_what_it_covers() {
    let mut bundle = shell(
        "cd /data; stat -c '%a %u %n' . file sub sub/deep; cat file sub/deep; ls -l link | grep -o -e '->.*'; \
         echo new >file; touch here; grep -c ' /data .* - tmpfs ' /proc/self/mountinfo",
    );
    let data = bundle.rootfs().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "a\n").unwrap();
    fs::write(data.join("sub/deep"), "b\n".repeat(3)).unwrap();
    symlink("/etc/passwd", data.join("link")).unwrap();
    chown(data.join("sub/deep"), Some(7), Some(7)).unwrap();
    for (path, mode) in [("", 0o711), ("file", 0o4640), ("sub", 0o2755), ("sub/deep", 0o600)] {
        fs::set_permissions(data.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    add(&mut bundle, json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }));
    let expected = "711 0 .\n4640 0 file\n2755 0 sub\n600 7 sub/deep\na\nb\nb\nb\n-> /etc/passwd\n1\n";
    assert_eq!(bundle.run().ok().stdout, expected);
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "a\n", "the root is as it was");
    assert!(!data.join("here").exists());
    bundle.config["mounts"][3]["options"] = json!(["tmpcopyup", "ro"]);
    bundle.config["process"]["args"] = json!(["sh", "-c", "cat /data/file; touch /data/x"]);
    let outcome = bundle.run();
    assert!(outcome.stdout == "a\n" && outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    bundle.config["mounts"][3] = json!({ "destination": "/proc", "type": "proc", "options": ["tmpcopyup"] });
    bundle.create().refused("only a tmpfs");
}

#[test]
fn a_tmpfs_has_the_permissions_of_its_place_unless_told_otherwise() {
    let mut bundle = shell("stat -c %a /data /new /told");
    fs::create_dir(bundle.rootfs().join("data")).unwrap();
    fs::set_permissions(bundle.rootfs().join("data"), fs::Permissions::from_mode(0o750)).unwrap();
    for (place, options) in [("/data", json!([])), ("/new", json!([])), ("/told", json!(["mode=0700", "size=1m"]))] {
        add(&mut bundle, json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": options }));
    }
    assert_eq!(bundle.run().ok().stdout, "750\n1777\n700\n");
}

#[test]
fn a_mount_is_changed_by_a_later_one() {
    let mut bundle = shell("grep ' /mnt ' /proc/self/mountinfo; touch /mnt/x");
    add(&mut bundle, json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] }));
    let remount = json!({ "destination": "/mnt", "type": "tmpfs", "options": ["remount", "ro", "noexec", "size=64k"] });
    add(&mut bundle, remount);
    let outcome = bundle.run();
    assert!(outcome.stdout.contains(" ro,nosuid,nodev,noexec,"), "{outcome:?}");
    assert!(outcome.stdout.contains("size=64k"), "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only"), "{outcome:?}");
}

#[test]
fn every_option_of_the_specifications_table_is_taken() {
    let of_mounts = "async atime defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime \
                     noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rdev \
                     rdiratime relatime rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
                     rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw \
                     shared silent slave strictatime suid symfollow sync unbindable";
    for option in of_mounts.split_whitespace() {
        let mut bundle = shell("true");
        add(&mut bundle, json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": [option] }));
        add(&mut bundle, json!({ "destination": "/b", "source": "rootfs", "options": ["bind", option] }));
        let outcome = bundle.run();
        assert_eq!(outcome.code, 0, "{option}: {outcome:?}");
    }
}

#[test]
fn a_new_filesystem_has_the_propagation_that_it_is_told() {
    let mut bundle = shell("grep -c ' /t .* shared:' /proc/self/mountinfo");
    add(&mut bundle, json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["shared"] }));
    assert_eq!(bundle.run().ok().stdout, "1\n");
}
