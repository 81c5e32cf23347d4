//! A root directory of busybox, a configuration that tests change, and a run that collects what came of it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use stack::runtime::container::{
    self, CgroupView, Created, NetworkOrigin, Program, Rootfs, SpawnError, Spawned, Stdio, Surroundings, defaults,
};
use stack::runtime::oci::{
    OciCapabilities, OciConfig, OciLinuxConfig, OciNamespace, OciNamespaceKind, OciProcess, OciRoot, OciUser,
};

/// Nothing that is run here takes a tenth of it.
pub const LIMIT: Duration = Duration::from_secs(20);

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 31] = [
    "awk", "cat", "chmod", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ln", "ls",
    "mkdir", "mknod", "mount", "nproc", "ps", "pwd", "readlink", "rm", "seq", "sh", "sleep", "sort", "stat", "touch",
    "true", "umount",
];

pub struct Bundle {
    directory: tempfile::TempDir,
    pub config: OciConfig,
    pub surroundings: Surroundings,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bundle {
    /// A container that runs `sh -c script` with the defaults, on a root of its own.
    pub fn new(script: &str) -> Self {
        Self::running(&["sh", "-c", script])
    }

    pub fn running(args: &[&str]) -> Self {
        // The whole test program starts anew, once: so a test makes its bundle before anything that it must clean up.
        container::reexec_protected().expect("a protected executable");
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::copy(BUSYBOX, root.join("bin/busybox")).expect("Debian's package busybox-static");
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let surroundings = Surroundings {
            bundle: directory.path().to_owned(),
            rootfs: Rootfs::Directory(root),
            cgroup_procs: Vec::new(),
            cgroup_view: CgroupView::from_mountinfo(&std::fs::read_to_string("/proc/self/mountinfo").unwrap()),
            init: true,
            network: NetworkOrigin::Own,
            seccomp: None,
        };
        Self { directory, config: config(args), surroundings }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn process(&mut self) -> &mut OciProcess {
        self.config.process.as_mut().unwrap()
    }

    pub fn linux(&mut self) -> &mut OciLinuxConfig {
        self.config.linux.as_mut().unwrap()
    }

    /// With the payload as PID 1.
    pub fn without_init(mut self) -> Self {
        self.surroundings.init = false;
        self
    }

    pub fn program(&self) -> Program {
        // By way of the text, as it is stored.
        let config = OciConfig::parse(&serde_json::to_vec(&self.config).unwrap()).unwrap();
        Program::compile(&config, &self.surroundings).unwrap()
    }

    /// Run to the end.
    pub fn run(&self) -> Outcome {
        Running::start(self).unwrap_or_else(|error| panic!("{}", chain(&error))).finish()
    }

    /// Run and expect that the program does not come to be executed.
    pub fn refused(&self) -> (SpawnError, String) {
        let error = Running::start(self).err().expect("a refusal");
        let text = chain(&error);
        (error, text)
    }
}

fn config(args: &[&str]) -> OciConfig {
    use OciNamespaceKind::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let capabilities: Vec<String> = defaults::CAPABILITIES.map(str::to_owned).to_vec();
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    OciConfig {
        oci_version: "1.3.0".to_owned(),
        root: Some(OciRoot { path: "rootfs".into(), readonly: false }),
        process: Some(OciProcess {
            cwd: "/".to_owned(),
            env: vec!["PATH=/bin".to_owned()],
            args: owned(args),
            capabilities: Some(OciCapabilities {
                effective: capabilities.clone(),
                bounding: capabilities.clone(),
                permitted: capabilities,
                ..OciCapabilities::default()
            }),
            no_new_privileges: true,
            user: OciUser::default(),
            ..OciProcess::default()
        }),
        hostname: Some("tested".to_owned()),
        mounts: defaults::mounts(),
        linux: Some(OciLinuxConfig {
            namespaces: [Pid, Network, Mount, Ipc, Uts, Cgroup].map(|kind| OciNamespace { kind, path: None }).to_vec(),
            masked_paths: owned(&defaults::MASKED_PATHS),
            readonly_paths: owned(&defaults::READONLY_PATHS),
            ..OciLinuxConfig::default()
        }),
        ..OciConfig::default()
    }
}

pub fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// A container with its output in pipes. Killed when dropped.
pub struct Running {
    pub spawned: Spawned,
    stdout: File,
    stderr: File,
}

impl Running {
    pub fn start(bundle: &Bundle) -> Result<Self, SpawnError> {
        let program = bundle.program();
        let (stdout, stderr, created) = Self::create(&program)?;
        Ok(Self { spawned: created.start()?, stdout, stderr })
    }

    fn create(program: &Program) -> Result<(File, File, Created<'_>), SpawnError> {
        let null = File::open("/dev/null").unwrap();
        let (stdout, out) = pipe();
        let (stderr, err) = pipe();
        let stdio = Stdio { stdin: null.as_fd(), stdout: out.as_fd(), stderr: err.as_fd() };
        Ok((stdout, stderr, container::create(program, &stdio)?))
    }

    pub fn pid(&self) -> i32 {
        self.spawned.pid
    }

    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.spawned.pidfd, signal).unwrap();
    }

    /// The next line of output.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            readable(self.stdout.as_fd());
            match self.stdout.read(&mut byte).unwrap() {
                1 if byte != *b"\n" => line.push(byte[0]),
                _ => return String::from_utf8(line).unwrap(),
            }
        }
    }

    pub fn finish(mut self) -> Outcome {
        let status = wait(self.spawned.pidfd.as_fd());
        let mut outcome = Outcome { status, stdout: String::new(), stderr: String::new() };
        self.stdout.read_to_string(&mut outcome.stdout).unwrap();
        self.stderr.read_to_string(&mut outcome.stderr).unwrap();
        outcome
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.spawned.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.spawned.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

pub fn pipe() -> (File, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write)
}

/// Wait for a child; its status, or 128 and the signal's number.
pub fn wait(pidfd: std::os::fd::BorrowedFd<'_>) -> i32 {
    readable(pidfd);
    let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

pub fn readable(descriptor: std::os::fd::BorrowedFd<'_>) {
    let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "nothing within {LIMIT:?}");
}
