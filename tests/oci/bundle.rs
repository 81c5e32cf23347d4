//! A bundle, a state root and a cgroup of the test's own, and the runtime called on them.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

pub const RUNTIME: &str = env!("CARGO_BIN_EXE_stack");

/// Taken away with everything that was made for it.
pub struct Bundle {
    pub directory: TempDir,
    pub id: String,
    pub config: Value,
}

impl Bundle {
    pub fn new(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = TempDir::new().unwrap();
        let id = format!("stack-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        make_root(&directory.path().join("rootfs"));
        let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({ "type": kind }));
        let config = json!({
            "ociVersion": "1.3.0",
            "process": { "cwd": "/", "args": args, "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } },
            "root": { "path": "rootfs" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
            ],
            "linux": { "namespaces": namespaces, "cgroupsPath": format!("/stack-oci-tests/{id}") },
        });
        Self { directory, id, config }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path("rootfs")
    }

    pub fn write(&self) {
        fs::write(self.path("config.json"), self.config.to_string()).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(RUNTIME);
        command.arg("oci").arg("--root").arg(self.path("state")).args(arguments).stdin(Stdio::null());
        command
    }

    /// With output to files: a created container keeps what it got open.
    pub fn call(&self, arguments: &[&str]) -> Outcome {
        let (out, err) = (self.path("out"), self.path("err"));
        let status = self
            .command(arguments)
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&err).unwrap())
            .status()
            .unwrap();
        Outcome {
            code: status.code().unwrap_or(-1),
            stdout: fs::read_to_string(out).unwrap(),
            stderr: fs::read_to_string(err).unwrap(),
        }
    }

    pub fn run(&self) -> Outcome {
        self.write();
        self.call(&["run", "--bundle", self.directory.path().to_str().unwrap(), &self.id])
    }

    pub fn create(&self) -> Outcome {
        self.write();
        self.call(&["create", "--bundle", self.directory.path().to_str().unwrap(), &self.id])
    }

    pub fn on(&self, command: &str) -> Outcome {
        self.call(&[command, &self.id])
    }

    pub fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.on("state").ok().stdout).unwrap();
        state["status"].as_str().unwrap().to_owned()
    }

    pub fn wait_for_status(&self, wanted: &str) {
        for _ in 0..500 {
            if self.status() == wanted {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the container is {} and not {wanted}", self.status());
    }

    /// Nothing that was made for the container is there any more.
    pub fn assert_nothing_left(&self) {
        let state = fs::read_dir(self.path("state")).map(|list| list.count()).unwrap_or(0);
        assert_eq!(state, 0, "the state directory is not empty");
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let group = hierarchy.path().join("stack-oci-tests").join(&self.id);
            assert!(!group.exists(), "{} is left", group.display());
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", &self.id]).output();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join("stack-oci-tests"));
        }
    }
}

#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    #[track_caller]
    pub fn refused(self, words: &str) -> Self {
        assert_ne!(self.code, 0, "{self:?}");
        assert!(self.stderr.contains(words), "`{}` does not say `{words}`", self.stderr);
        self
    }
}

pub fn make_root(root: &Path) {
    const PROGRAMS: [&str; 17] = [
        "sh", "true", "cat", "id", "ls", "sleep", "stat", "touch", "hostname", "grep", "ps", "tty", "kill", "wc",
        "mkdir", "stty", "readlink",
    ];
    fs::create_dir_all(root.join("bin")).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("busybox-static is installed"), root.join("bin/busybox")).unwrap();
    for name in PROGRAMS {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// One message that a descriptor comes along with.
pub fn receive_with_message(stream: &std::os::unix::net::UnixStream) -> (Vec<u8>, OwnedFd) {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut bytes = [0_u8; 8192];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
    let number = message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::ScmRights(list) => list.first().copied(),
        _ => None,
    });
    let (length, number) = (message.bytes, number.expect("a descriptor came along"));
    // The tidy rule about `unsafe` is for the program; here the number is known to be ours alone.
    #[allow(unsafe_code)]
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    (bytes[..length].to_vec(), descriptor)
}
