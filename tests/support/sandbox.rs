//! A host of its own for one test: mount and network namespaces, a cgroup branch, folders for data and for what runs.
//! Nothing is left of it when it is dropped, and [`Sandbox::leftovers`] says what `stack` left before that.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest that anything in a test is waited for. Generous: the machine may be loaded, or emulated.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How many times slower than usual the machine is: for times that a test's own programs take.
pub fn slowness() -> u32 {
    std::env::var("STACK_TEST_SLOW").map_or(1, |text| text.parse().expect("STACK_TEST_SLOW is a number"))
}

pub struct Sandbox {
    holder: Child,
    folder: tempfile::TempDir,
    cgroup: String,
}

/// What a command came to.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Sandbox {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("stack-test-").tempdir_in("/var/tmp").expect("a folder");
        fs::create_dir(folder.path().join("run")).expect("a folder");
        let script = "mount -t tmpfs run \"$1/run\" && ip link set lo up && echo ready && exec sleep 3600";
        let mut holder = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private", "sh", "-c", script, "sandbox"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) is there and we are root");
        let mut ready = [0; 6];
        let stdout = holder.stdout.as_mut().expect("it is piped");
        std::io::Read::read_exact(stdout, &mut ready).expect("the namespaces are made");
        let cgroup = format!("stack-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Sandbox { holder, folder, cgroup }
    }

    /// A folder of the sandbox's own, on a real file system.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn run_dir(&self) -> PathBuf {
        self.path().join("run").join("stack")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    /// The branch of the cgroup tree that holds the sandbox's stacks.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The process that holds the namespaces.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// Writes a file into the sandbox's folder.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a writable file");
        path
    }

    /// `stack` with these arguments, in the sandbox's folder and namespaces; to be run or spawned.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.inside(env!("CARGO_BIN_EXE_stack"));
        command.args(args);
        command
    }

    /// Another program in the sandbox's namespaces and folder.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid().to_string(), "--mount", "--net"])
            .arg(format!("--wdns={}", self.path().display()))
            .arg("--")
            .arg(program)
            .env("STACK_DATA_DIR", self.data_dir())
            .env("STACK_RUN_DIR", self.run_dir())
            .env("STACK_CGROUP", &self.cgroup)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    pub fn stack(&self, args: &[&str]) -> Outcome {
        outcome(self.command(args).output().expect("nsenter (util-linux) is there"))
    }

    /// `stack` with these arguments; it must end with status 0.
    pub fn ok(&self, args: &[&str]) -> String {
        let outcome = self.stack(args);
        assert_eq!(outcome.code, 0, "stack {args:?}\n{}\n{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// A shell line in the sandbox's namespaces; it must end with status 0.
    pub fn sh(&self, line: &str) -> String {
        let outcome = outcome(self.inside("sh").args(["-c", line]).output().expect("a shell"));
        assert_eq!(outcome.code, 0, "{line}\n{}\n{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// The stack's containers as `ps --json` has them, by name.
    pub fn ps(&self) -> serde_json::Map<String, serde_json::Value> {
        let document: serde_json::Value = serde_json::from_str(&self.ok(&["ps", "--json"])).expect("JSON");
        let containers = document["stacks"][0]["containers"].as_array().cloned().unwrap_or_default();
        containers.into_iter().map(|c| (c["name"].as_str().expect("a name").to_string(), c)).collect()
    }

    /// The process number of a container's first process, from `ps`.
    pub fn init_of(&self, name: &str) -> i64 {
        self.ps()[name]["run"]["pid"].as_i64().unwrap_or_else(|| panic!("`{name}` runs"))
    }

    /// Whether the stack of `stack.toml` is in sync.
    pub fn in_sync(&self) -> bool {
        let outcome = self.stack(&["diff"]);
        assert!(matches!(outcome.code, 0 | 2), "{}\n{}", outcome.stdout, outcome.stderr);
        outcome.code == 0
    }

    /// What there is of any stack: processes, links, tables, groups, mounts and folders, a line each.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(environment) = fs::read(entry.path().join("cmdline")) else { continue };
            let words = String::from_utf8_lossy(&environment).replace('\0', " ");
            if words.starts_with("stack-monitor") && words.contains(&*self.path().to_string_lossy()) {
                found.push(format!("process {words}"));
            }
        }
        let links = self.sh("ip -br link");
        found.extend(links.lines().filter(|line| !line.starts_with("lo ")).map(|line| format!("link {line}")));
        found.extend(self.sh("nft list tables").lines().map(|line| format!("nft {line}")));
        found.extend(cgroups_named(&self.cgroup).into_iter().map(|path| format!("cgroup {}", path.display())));
        let mounts = self.sh("cat /proc/self/mountinfo");
        let ours = |line: &&str| line.contains(&*self.path().to_string_lossy());
        // One mount is the sandbox's own tmpfs.
        found.extend(mounts.lines().filter(ours).skip(1).map(|line| format!("mount {line}")));
        let folders = self.sh(&format!("ls -A {}", self.path().join("run").display()));
        found.extend(folders.lines().map(|line| format!("run directory {line}")));
        found
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for stack in
            fs::read_dir(format!("/proc/{}/root{}", self.pid(), self.run_dir().display())).into_iter().flatten()
        {
            let name = stack.map(|entry| entry.file_name().to_string_lossy().into_owned()).unwrap_or_default();
            let _ = self.command(&["down", "--name", &name]).output();
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // Deepest first.
        let mut groups = cgroups_named(&self.cgroup);
        groups.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        for group in groups {
            let _ = fs::remove_dir(group);
        }
    }
}

fn cgroups_named(branch: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    folders.extend(subfolders(Path::new("/sys/fs/cgroup")));
    for root in folders {
        let mut below = vec![root.join(branch)];
        while let Some(folder) = below.pop() {
            if folder.is_dir() {
                below.extend(subfolders(&folder));
                found.push(folder);
            }
        }
    }
    found
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

pub fn outcome(output: Output) -> Outcome {
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until `done` says so; looks again every few milliseconds, for at most [`PATIENCE`].
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
