//! Debian's podman with this runtime under it, in mount and network namespaces of its own, with its own storage.

use std::fs;
use std::process::Command;

use crate::bundle::{RUNTIME, make_root, text};

/// Podman's whole session: it must see one set of namespaces.
const SESSION: &str = r#"
set -eu
mount --make-rprivate /
# Podman takes a host with both versions of cgroups for one of version 2 here.
umount /sys/fs/cgroup/unified 2>/dev/null || true
ip link set lo up
ln -s "$RUNTIME" "$HERE/stack-oci"
cat >"$HERE/containers.conf" <<END
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
END
export CONTAINERS_CONF="$HERE/containers.conf" TMPDIR="$HERE"
podman() {
    command podman --runtime "$HERE/stack-oci" --cgroup-manager cgroupfs --root "$HERE/root" --runroot "$HERE/run" \
        --tmpdir "$HERE/tmp" --storage-driver vfs "$@"
}
trap 'podman rm -fa >/dev/null 2>&1; podman rmi -fa >/dev/null 2>&1' EXIT
run="podman run --rm --network none --cgroup-parent /$GROUP"
tar -C "$HERE/image" -cf "$HERE/image.tar" .
podman import -q "$HERE/image.tar" image >/dev/null
expect() { [ "$1" = "$2" ] || { echo "expected '$2', got '$1'"; exit 1; }; }

expect "$($run image cat /proc/1/comm)" cat
expect "$($run image sh -c 'exit 3' || echo $?)" 3
expect "$($run image nonexistent 2>/dev/null || echo $?)" 127
expect "$($run --cap-drop all image grep CapEff /proc/self/status | tr -d '\t')" CapEff:0000000000000000
expect "$($run image grep Seccomp: /proc/self/status | tr -d '\t')" Seccomp:2
expect "$($run --memory 64m image sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max')" 67108864
expect "$($run --uidmap 0:100000:1000 --gidmap 0:100000:1000 image sh -c 'touch /x; stat -c %u /x')" 0
expect "$($run -t image tty | tr -d '\r')" /dev/pts/0

podman run -d --name server --network none --cgroup-parent "/$GROUP" image \
    sh -c 'trap "exit 9" TERM; echo started; while :; do sleep 0.1; done' >/dev/null
expect "$(podman exec server cat /proc/1/comm)" sh
expect "$(podman exec -e A=b server sh -c 'echo $A; exit 5' || echo $?)" "b
5"
podman pause server >/dev/null
podman unpause server >/dev/null
podman stop -t 5 server >/dev/null
expect "$(podman logs server)" started
expect "$(podman inspect --format '{{.State.ExitCode}}' server)" 9
"#;

#[test]
fn podman_runs_containers_through_it() {
    let needed = ["podman", "unshare", "ip"];
    let missing = needed.iter().find(|name| !Command::new(name).arg("--version").output().is_ok_and(|_| true));
    if let Some(name) = missing {
        assert!(std::env::var_os("STACK_TESTS_MUST_RUN").is_none(), "`{name}` is not installed");
        eprintln!("skipped: `{name}` is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    make_root(&directory.path().join("image"));
    let group = format!("stack-podman-{}", std::process::id());
    let output = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-c", SESSION])
        .envs([("HERE", directory.path().as_os_str()), ("RUNTIME", RUNTIME.as_ref()), ("GROUP", group.as_ref())])
        .output()
        .unwrap();
    remove_groups(&group);
    assert!(output.status.success(), "{}", text(&output));
}

/// Podman's monitor has a cgroup of its own there, and may be about to end.
fn remove_groups(group: &str) {
    let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let all: Vec<_> = mounts.chain(["/sys/fs/cgroup".into()]).map(|mount| mount.join(group)).collect();
    for _ in 0..200 {
        for path in &all {
            for below in fs::read_dir(path).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(path);
        }
        if all.iter().all(|path| !path.exists()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("podman left cgroups below `{group}`");
}
