//! One step, carried out by a process of its own: it makes the mounts that it needs in a mount namespace of its own, and
//! with it everything goes. Started from a read-only view of this program, as monitors are.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio as ProcessStdio};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};
use serde::{Deserialize, Serialize};

use super::copy::{self, CopyOrder};
use crate::model::build::BuildNetwork;
use crate::runtime::container::{
    CgroupView, NetworkOrigin, Program, Rootfs, SeccompProgram, Stdio, Surroundings, spawn, wait,
};
use crate::runtime::net::loopback_up;
use crate::runtime::oci::OciConfig;
use crate::runtime::overlay::{OverlayMount, OverlaySupport};

/// The first argument that makes this program carry out a step. The second is the folder of the step.
const PROGRAM: &str = "stack-build-step";
const SPEC: &str = "step.json";
const ERROR: &str = "error";
/// Where the overlay of a step is seen.
pub(super) const MERGED: &str = "merged";

/// What is asked of a step's process. Paths are the host's.
#[derive(Serialize, Deserialize)]
pub(super) struct StepOrder {
    /// The process that waits for this one.
    pub parent: u32,
    pub overlay: Overlay,
    pub what: What,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Overlay {
    /// Topmost first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An empty folder.
    pub merged: PathBuf,
}

#[derive(Serialize, Deserialize)]
pub(super) enum What {
    Run { config: Box<OciConfig>, isolated: bool },
    Copy(Box<CopyOrder>),
    Folder { path: String },
}

/// Whether a process with this first argument is to carry out a step.
pub fn is_step(program: &std::ffi::OsString) -> bool {
    program.as_encoded_bytes() == PROGRAM.as_bytes()
}

/// Carries out a step, given all arguments of the process. The exit status is that of a command; what else went wrong
/// is written beside the order.
pub fn step_main(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let Some(folder) = arguments.nth(1).map(PathBuf::from) else { return ExitCode::from(64) };
    match carry_out(&folder) {
        Ok(status) => ExitCode::from(status as u8),
        Err(why) => {
            // Whoever waits reads it; without it the status tells.
            let _ = fs::write(folder.join(ERROR), why);
            ExitCode::FAILURE
        }
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn carry_out(folder: &Path) -> Result<i32, String> {
    // Whoever waits may die: then nothing of this may go on.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| format!("cannot follow the parent: {errno}"))?;
    let order = fs::read(folder.join(SPEC)).map_err(|error| format!("cannot read the step: {error}"))?;
    let order: StepOrder = serde_json::from_slice(&order).map_err(|error| format!("cannot read the step: {error}"))?;
    if rustix::process::getppid().is_none_or(|pid| pid.as_raw_nonzero().get() as u32 != order.parent) {
        return Err("whoever asked for the step is gone".into());
    }
    match order.what {
        What::Run { config, isolated } => run(folder, &order.overlay, &config, isolated),
        What::Copy(copy) => {
            in_own_mounts()?;
            rustix::process::umask(rustix::fs::Mode::empty());
            order.overlay.mount()?;
            copy::copy(&order.overlay.merged, &copy).map(|()| 0)
        }
        What::Folder { path } => {
            in_own_mounts()?;
            order.overlay.mount()?;
            copy::make_folder(&order.overlay.merged, &path).map(|()| 0)
        }
    }
}

/// From here on mounts are this process's own.
fn in_own_mounts() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("cannot make a mount namespace: {errno}"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|errno| format!("cannot make mounts private: {errno}"))
}

impl Overlay {
    pub(super) fn mount(&self) -> Result<(), String> {
        let Overlay { lower, upper, work, merged } = self.clone();
        let overlay = OverlayMount { lower, upper, work };
        let plan = overlay.compile(OverlaySupport::probe()).map_err(|error| chain(&error))?;
        let target = std::ffi::CString::new(merged.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        plan.mount(&target).map_err(|stopped| format!("cannot mount the layers: {:?}: {}", stopped.step, stopped.errno))
    }
}

fn run(folder: &Path, overlay: &Overlay, config: &OciConfig, isolated: bool) -> Result<i32, String> {
    if isolated {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| format!("cannot make a network namespace: {errno}"))?;
        loopback_up().map_err(|error| chain(&error))?;
    }
    let seccomp = config.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let seccomp = seccomp.map(SeccompProgram::compile).transpose().map_err(|error| chain(&error))?;
    let surroundings = Surroundings {
        bundle: folder.to_owned(),
        rootfs: Rootfs::Overlay {
            lower: overlay.lower.clone(),
            upper: overlay.upper.clone(),
            work: overlay.work.clone(),
        },
        cgroup_procs: vec![],
        cgroup_view: CgroupView::Unknown,
        // A command's orphans are waited for, and its signals are those of any process.
        init: true,
        network: if isolated { NetworkOrigin::Own } else { NetworkOrigin::Host },
        seccomp,
    };
    let program = Program::compile(config, &surroundings).map_err(|error| chain(&error))?;
    let spawned = match spawn(&program, &Stdio::inherit()) {
        Ok(spawned) => spawned,
        Err(error) => return Err(chain(&error)),
    };
    wait(spawned.pidfd.as_fd()).map_err(|errno| format!("cannot wait for the command: {errno}"))
}

/// What came of a step.
pub(super) enum Ended {
    Status(i32),
    /// It could not be carried out.
    Failed(String),
}

/// Carries out a step in a process made of `program`; `said` hears each line of its output.
pub(super) fn carry_out_apart(
    folder: &Path,
    (program, order): (&OwnedFd, &StepOrder),
    said: &mut dyn FnMut(&str),
) -> io::Result<Ended> {
    fs::write(folder.join(SPEC), serde_json::to_vec(order)?)?;
    let (mut output, writer) = io::pipe()?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd());
    let mut command = Command::new(path);
    command.arg0(PROGRAM).arg(folder).env_clear();
    command.stdin(ProcessStdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // It holds the ends to write to.
    drop(command);
    let mut pending = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = match output.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            break;
        }
        pending.extend_from_slice(&buffer[..read]);
        while let Some(end) = pending.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let line: Vec<u8> = pending.drain(..=end).collect();
            tell(&line[..end], said);
        }
        if pending.len() > MAX_LINE {
            tell(&std::mem::take(&mut pending), said);
        }
    }
    tell(&pending, said);
    let status = child.wait()?;
    if let Ok(why) = fs::read_to_string(folder.join(ERROR)) {
        return Ok(Ended::Failed(why));
    }
    Ok(Ended::Status(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))))
}

/// Bytes of a line that are kept together.
const MAX_LINE: usize = 64 << 10;

fn tell(line: &[u8], said: &mut dyn FnMut(&str)) {
    let text = String::from_utf8_lossy(line);
    let clean: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    if !clean.trim().is_empty() {
        said(clean.trim_end());
    }
}

impl StepOrder {
    pub(super) fn isolated(network: BuildNetwork) -> bool {
        network == BuildNetwork::None
    }
}
