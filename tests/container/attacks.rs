//! Attacks on container runtimes of recent years, one test each: the image is the attacker's, and so is the program.

use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use stack::runtime::container::{self, ExecProgram, ExecSpec, ProcessSettings, Rootfs, Stdio};
use stack::runtime::oci::OciMount;

use super::bundle::{Bundle, Running};

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

/// CVE-2019-5736: the running binary of the runtime is written to, by way of `/proc/self/exe`.
#[test]
fn the_runtimes_own_binary_cannot_be_overwritten() {
    // PID 1 with an init is the runtime's binary. Only who may trace processes can so much as see it.
    let script = "readlink /proc/1/exe || echo hidden; chmod 777 /proc/1/exe; cat /proc/1/exe > /dev/null";
    assert_eq!(Bundle::new(script).run().stdout, "hidden\n");
    let mut bundle = Bundle::new(script);
    let set = bundle.process().capabilities.as_mut().unwrap();
    for list in [&mut set.permitted, &mut set.bounding, &mut set.effective] {
        list.push("CAP_SYS_PTRACE".into());
    }
    let outcome = bundle.run();
    assert!(outcome.stderr.contains("/proc/1/exe: Read-only file system"), "{outcome:?}");
    // Executed as the container's own program, it still is the read-only copy.
    let itself = Bundle::running(&["/proc/self/exe", "--list", "--format", "terse", "no_such_test"]).without_init();
    assert_eq!(itself.run().status, 0);
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867: `/proc` of the image is a link.
#[test]
fn a_proc_that_is_a_link_is_refused() {
    for (link, target) in [("proc", "/tmp/elsewhere"), ("sys", "bin"), ("dev", "/bin")] {
        let bundle = Bundle::new("true");
        symlink(target, bundle.root().join(link)).unwrap();
        let (_, text) = bundle.refused();
        assert!(text.contains(&format!("on `/{link}`: its target: Too many levels of symbolic links")), "{text}");
    }
}

/// CVE-2019-18837, CVE-2024-45310: the target of a mount is a link to the host.
#[test]
fn targets_that_are_links_stay_inside() {
    let mut bundle = Bundle::new("cat /etc/hosts /run/up/resolv.conf");
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(bundle.path().join("file"), "shown\n").unwrap();
    symlink(outside.path(), bundle.root().join("etc")).unwrap();
    std::fs::create_dir(bundle.root().join("conf")).unwrap();
    symlink("../../../../../run/up/resolv.conf", bundle.root().join("conf/resolv.conf")).unwrap();
    for destination in ["/etc/hosts", "/conf/resolv.conf"] {
        bundle.config.mounts.push(OciMount {
            destination: destination.into(),
            source: Some("file".into()),
            options: vec!["bind".into()],
            ..OciMount::default()
        });
    }
    assert_eq!(bundle.run().stdout, "shown\nshown\n");
    assert!(is_empty(outside.path()), "something was made outside");
}

/// A link in the image leads a mount into the procfs.
#[test]
fn a_link_into_the_procfs_is_refused() {
    let mut bundle = Bundle::new("true");
    symlink("/proc/self", bundle.root().join("data")).unwrap();
    bundle.config.mounts.push(OciMount {
        destination: "/data/attr".into(),
        kind: Some("tmpfs".into()),
        ..OciMount::default()
    });
    let (_, text) = bundle.refused();
    assert!(text.contains("mount tmpfs on `/data/attr`"), "{text}");
    assert!(text.contains("lies in a procfs") || text.contains("symbolic links"), "{text}");
}

/// CVE-2026-41579, CVE-2026-47766: `/dev` of the image is a link, and things are made and removed where it leads.
#[test]
fn a_dev_that_is_a_link_is_not_followed() {
    let mut bundle = Bundle::new("true");
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("ptmx"), "mine").unwrap();
    bundle.config.mounts.retain(|mount| !mount.destination.starts_with("/dev"));
    symlink(outside.path(), bundle.root().join("dev")).unwrap();
    let (_, text) = bundle.refused();
    assert!(text.contains("open `/dev`"), "{text}");
    assert_eq!(std::fs::read_to_string(outside.path().join("ptmx")).unwrap(), "mine");
}

/// CVE-2025-31133, CVE-2025-62161: what masks paths is swapped for something writable. It is the host's device, not the image's.
#[test]
fn masks_are_not_the_images() {
    let mut bundle = Bundle::new("stat -c '%t:%T' /etc/shadow; cat /etc/shadow; echo x > /etc/shadow");
    std::fs::create_dir_all(bundle.root().join("etc")).unwrap();
    std::fs::write(bundle.root().join("etc/shadow"), "secret").unwrap();
    std::fs::create_dir_all(bundle.root().join("dev")).unwrap();
    symlink("/etc/shadow", bundle.root().join("dev/null")).unwrap();
    bundle.linux().masked_paths.push("/etc/shadow".into());
    assert_eq!(bundle.run().stdout, "1:3\n");
    assert_eq!(std::fs::read_to_string(bundle.root().join("etc/shadow")).unwrap(), "secret");
}

/// CVE-2024-21626: the working directory lies outside, through a descriptor that was left open.
#[test]
fn no_working_directory_through_a_descriptor() {
    let _host = std::fs::File::open("/").unwrap();
    for number in 3..20 {
        let mut bundle = Bundle::new("pwd; ls -d ../../../../../etc/debian_version");
        bundle.process().cwd = format!("/proc/self/fd/{number}");
        match Running::start(&bundle) {
            Err(error) => assert_eq!(error.exit_code(), 125),
            // A descriptor of ours that lies inside.
            Ok(running) => assert!(!running.finish().stdout.contains("debian_version")),
        }
    }
}

/// The same, by the one descriptor that is there on purpose. Links of procfs are not followed when the directory is made, and a
/// process that joins a container has no `/proc/self` in it; that a directory is inside is looked at once more when it is entered.
#[test]
fn no_working_directory_outside_of_the_root() {
    let mut bundle = Bundle::running(&["true"]);
    bundle.process().cwd = "/proc/self/fd/0".into();
    let program = bundle.program();
    let host = std::fs::File::open("/").unwrap();
    let stdio = Stdio { stdin: host.as_fd(), ..Stdio::inherit() };
    let error = container::spawn(&program, &stdio).expect_err("a refusal");
    assert!(error.to_string().contains("make the directory `/proc/self/fd/0`"), "{error}");
    // Nor for a program that is run in the container later.
    let sleeping = Bundle::new("echo up; exec sleep 98765");
    let mut running = Running::start(&sleeping).unwrap();
    running.line();
    let process =
        ProcessSettings { args: vec!["/bin/true".into()], cwd: "/proc/self/fd/0".into(), ..ProcessSettings::default() };
    let spec = ExecSpec { init: running.pid(), process, cgroup_procs: Vec::new(), terminal: None };
    let error = container::exec(&ExecProgram::compile(&spec).unwrap(), &stdio).expect_err("a refusal");
    let text = super::bundle::chain(&error);
    assert!(text.contains("enter the directory `/proc/self/fd/0`"), "{text}");
}

/// The layers of an image are open while it is set up.
#[test]
fn no_working_directory_in_a_layer_of_the_host() {
    for number in 3..20 {
        let mut bundle = Bundle::new("ls -d ../upper");
        let (upper, work) = (bundle.path().join("upper"), bundle.path().join("work"));
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        bundle.surroundings.rootfs = Rootfs::Overlay { lower: vec![bundle.root()], upper, work };
        bundle.process().cwd = format!("/proc/self/fd/{number}");
        if let Ok(running) = Running::start(&bundle) {
            assert_eq!(running.finish().stdout, "");
        }
    }
}

/// The same, for a program that is run in the container later.
#[test]
fn no_working_directory_through_a_descriptor_in_exec() {
    let bundle = Bundle::new("echo up; exec sleep 98765");
    let mut running = Running::start(&bundle).unwrap();
    running.line();
    let _host = std::fs::File::open("/").unwrap();
    for number in 3..20 {
        let spec = ExecSpec {
            init: running.pid(),
            process: ProcessSettings {
                args: vec!["/bin/ls".into(), "-d".into(), "../../../../etc/debian_version".into()],
                cwd: format!("/proc/self/fd/{number}"),
                ..ProcessSettings::default()
            },
            cgroup_procs: Vec::new(),
            terminal: None,
        };
        let program = ExecProgram::compile(&spec).unwrap();
        if let Ok(executed) = container::exec(&program, &Stdio::inherit()) {
            assert_ne!(super::bundle::wait(executed.pidfd.as_fd()), 0, "descriptor {number}");
        }
    }
}

/// Device nodes that an image brings give no access, with whatever capability.
#[test]
fn devices_of_the_image_are_dead() {
    let bundle = Bundle::new("echo x > /zero; cat /disk; mknod /mine c 1 3; echo end");
    for (name, kind, device) in
        [("zero", FileType::CharacterDevice, makedev(1, 5)), ("disk", FileType::BlockDevice, makedev(254, 0))]
    {
        mknodat(CWD, bundle.root().join(name), kind, Mode::from_raw_mode(0o666), device).unwrap();
    }
    let outcome = bundle.run();
    for error in [
        "can't create /zero: Permission denied",
        "can't open '/disk': Permission denied",
        "/mine: Operation not permitted",
    ] {
        assert!(outcome.stderr.contains(error), "{error}: {outcome:?}");
    }
}

/// CVE-2022-0811 and CVE-2025-52881: writes go to a parameter of the host. Where the file is not one of procfs nothing is written.
#[test]
fn parameters_are_written_to_a_procfs_only() {
    let mut bundle = Bundle::new("true");
    bundle.linux().sysctl.insert("net.core.no_such_parameter".into(), "1".into());
    let (_, text) = bundle.refused();
    assert!(text.contains("write `1` to `/proc/sys/net/core/no_such_parameter`: its target"), "{text}");
}

/// The cgroups, the kernel's parameters and the tracing of processes are no way out for the container's root.
#[test]
fn usual_ways_out_are_closed() {
    let script = "mount -t proc p /bin; mount -o remount,rw /sys; umount /proc/sys; \
                  echo x > /proc/sys/kernel/core_pattern; echo 1 > /sys/kernel/uevent_helper; \
                  ls /proc/1/root; chmod 777 /proc/1; echo end";
    let outcome = Bundle::new(script).run();
    assert_eq!(outcome.stdout, "end\n", "{outcome:?}");
    assert!(outcome.stderr.lines().count() >= 7, "{outcome:?}");
}
