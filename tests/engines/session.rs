//! A host of an engine's own: nothing of it is left when its first process ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::bundle::{RUNTIME, make_root};

/// Longest that a session may take. Generous: the machine may be loaded, or emulated.
const SESSION_LIMIT: &str = "600";

pub struct Session {
    /// Without which it cannot be tried.
    pub programs: &'static [&'static str],
    /// Gets the engine ready, with an image `image`, and ends it at the end.
    pub engine: &'static str,
    pub script: &'static str,
}

/// What is the same for all engines. `HERE` is a folder, `GROUP` a cgroup, `RUNTIME` our program.
const COMMON: &str = r#"
set -eu
mount --make-rprivate /
# Engines take a host with both versions of cgroups for one of version 2 here.
umount /sys/fs/cgroup/unified 2>/dev/null || true
# Engines have sockets and locks at fixed places.
mount -t tmpfs tmpfs /run
ip link set lo up
export HOME="$HERE" TMPDIR="$HERE"
ln -s "$RUNTIME" "$HERE/stack-oci"
expect() { [ "$1" = "$2" ] || { echo "expected '$2', got '$1'"; exit 1; }; }
# The exit status of a command, as text.
status() { "$@" >/dev/null 2>&1 && echo 0 || echo $?; }
# A file of a controller, below /sys/fs/cgroup of a container: the name on version 1, then that on version 2.
limit() { echo "cat /sys/fs/cgroup/$1 2>/dev/null || cat /sys/fs/cgroup/$2"; }
MEMORY="$(limit memory/memory.limit_in_bytes memory.max)"
PIDS="$(limit pids/pids.max pids.max)"
# A server that says that it was told to go on with USR1, and ends with 9 for TERM.
cat >"$HERE/image/bin/server" <<END
#!/bin/sh
trap 'exit 9' TERM
trap 'echo told' USR1
echo started
while :; do sleep 0.1; done
END
chmod +x "$HERE/image/bin/server"
tar -C "$HERE/image" -cf "$HERE/image.tar" .
# Shown where the session fails.
set -x
"#;

impl Session {
    pub fn run(self) {
        let found = |name: &&str| ["/usr/bin", "/usr/sbin"].iter().any(|place| Path::new(place).join(name).exists());
        if let Some(name) = self.programs.iter().find(|name| !found(name)) {
            assert!(std::env::var_os("STACK_TESTS_MUST_RUN").is_none(), "`{name}` is not installed");
            eprintln!("skipped: `{name}` is not installed");
            return;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::Builder::new().prefix("stack-engine-").tempdir_in("/var/tmp").unwrap();
        make_root(&directory.path().join("image"));
        let group = format!("stack-engine-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let output = Command::new("timeout")
            .args(["--signal=KILL", SESSION_LIMIT])
            .args(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", &[COMMON, self.engine, self.script].concat()])
            .envs([("HERE", directory.path().as_os_str()), ("RUNTIME", RUNTIME.as_ref()), ("GROUP", group.as_ref())])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        remove_groups(&group);
        assert!(output.status.success(), "{}", text(&output));
    }
}

/// The engine's own processes are about to end with their namespace.
fn remove_groups(group: &str) {
    let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let all: Vec<_> = mounts.chain(["/sys/fs/cgroup".into()]).map(|mount| mount.join(group)).collect();
    for _ in 0..500 {
        all.iter().for_each(|path| remove_tree(path.clone()));
        if all.iter().all(|path| !path.exists()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("cgroups are left below `{group}`");
}

fn remove_tree(group: PathBuf) {
    for below in fs::read_dir(&group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove_tree(below.path());
    }
    let _ = fs::remove_dir(group);
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
