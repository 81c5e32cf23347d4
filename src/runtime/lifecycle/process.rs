//! Processes, their terminals and descriptors, as the commands hand them over.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::runtime::container::detached::Connections;
use crate::runtime::container::user::{AccountFiles, UserText, resolve};
use crate::runtime::container::{Stdio, Terminal, TerminalSize, send_descriptors};
use crate::runtime::oci::{OciConsoleSize, OciProcess};

use super::LifecycleError;

/// When a process was started, in clock ticks since boot; `None`: there is none, or it has ended and is a zombie.
pub fn started_at(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets, which may contain anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Where a terminal's other end goes.
#[derive(Debug)]
pub enum ConsoleSocket {
    /// To a socket that somebody listens on.
    At(PathBuf),
    /// Through a connection of the caller's, if the process has a terminal.
    Connected(OwnedFd),
}

impl ConsoleSocket {
    pub fn send(&self, terminal: &OwnedFd) -> Result<(), LifecycleError> {
        let send = |socket: BorrowedFd<'_>| send_descriptors(socket, b"/dev/ptmx", &[terminal.as_fd()]);
        match self {
            Self::At(path) => UnixStream::connect(path)
                .and_then(|socket| Ok(send(socket.as_fd())?))
                .map_err(LifecycleError::system(format!("send the terminal to `{}`", path.display()))),
            Self::Connected(socket) => {
                send(socket.as_fd()).map_err(|errno| LifecycleError::system("hand the terminal over")(errno.into()))
            }
        }
    }
}

/// A socket that somebody listens on for a descriptor of the process.
#[derive(Debug)]
pub struct PidfdSocket(UnixStream);

impl PidfdSocket {
    /// Before there is a process: nobody listening is nothing to undo.
    pub fn connect(path: &Path) -> Result<Self, LifecycleError> {
        let failed = LifecycleError::system(format!("reach `--pidfd-socket` at `{}`", path.display()));
        UnixStream::connect(path).map(Self).map_err(failed)
    }

    /// `pid` must not have been waited for.
    pub fn send(&self, pid: i32) -> Result<(), LifecycleError> {
        let send = || -> Result<(), rustix::io::Errno> {
            let pid = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            send_descriptors(self.0.as_fd(), b"pidfd", &[pidfd.as_fd()])
        };
        send().map_err(|errno| LifecycleError::system("send the descriptor of the process")(errno.into()))
    }
}

/// Programs count on `HOME`: where it is missing it is what the accounts below `root` say of the user, or `/`.
pub fn with_home(process: &mut OciProcess, root: &Path) {
    if process.env.iter().any(|variable| variable.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        return;
    }
    let user = UserText { user: process.user.uid.to_string(), group: Some(process.user.gid.to_string()) };
    // Whatever is wrong with the files is no reason not to run.
    let found = fs::File::open(root).ok().and_then(|root| AccountFiles::below(root.as_fd()).ok());
    let home = found.and_then(|files| resolve(&user, &files).ok()?.home).filter(|home| !home.is_empty());
    process.env.retain(|variable| !variable.starts_with("HOME="));
    process.env.push(format!("HOME={}", home.as_deref().unwrap_or("/")));
}

/// A terminal in the devpts of a process's root.
pub fn terminal_of(pid: i32, size: Option<OciConsoleSize>, uid: u32) -> Result<Terminal, LifecycleError> {
    let path = format!("/proc/{pid}/root");
    let root = fs::File::open(&path).map_err(LifecycleError::system(format!("open `{path}`")))?;
    let size = size.unwrap_or_default();
    let size = TerminalSize { rows: size.height, columns: size.width };
    Terminal::open(root.as_fd(), size, uid).map_err(|source| LifecycleError::Terminal { source })
}

/// Those that are to be preserved must be there: otherwise their numbers would be given to files of ours.
pub fn check_preserved(count: u32) -> Result<(), LifecycleError> {
    (3..3 + count).try_for_each(|number| {
        let there = Path::new(&format!("/proc/self/fd/{number}")).symlink_metadata().is_ok();
        if there { Ok(()) } else { Err(LifecycleError::NotOpen { number }) }
    })
}

/// The number of a process for whoever asked, by rename.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<(), LifecycleError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".{name}"));
    fs::write(&unfinished, pid.to_string())
        .and_then(|()| fs::rename(&unfinished, path))
        .map_err(LifecycleError::system(format!("write `{}`", path.display())))
}

/// The caller's standard input, output and error, and the socket to be started by.
pub fn connections(listener: BorrowedFd<'_>) -> Connections<'_> {
    Connections { stdio: Stdio::inherit(), listener }
}
