//! One small process per container: its parent, its log, its health, its restarts.
//!
//! A monitor is this program executed again under the name [`PROGRAM`], with one thread and no async runtime. Deciding
//! and doing are apart: [`policy`] and [`health`] take what happened and say what to do, the loop in `run` does it.
//!
//! | file | what it is |
//! |---|---|
//! | [`spec`], [`status`] | `monitor.json` and `status.json` in the bundle directory |
//! | [`client`], [`channel`] | the side of `up`, `down`, `ps`, and what is said at the start |
//! | `start`, `run`, `payload`, `stop` | the monitor: becoming one, its loop, the process it holds, how it is stopped |
//! | [`health`], [`probe`], `exec_probe` | when to probe and what to make of it; the probes |
//! | [`events`] | what was done to a stack and why |
//! | [`log`] | the container's output: written by the monitor, read by `stack logs` |

pub mod channel;
pub mod client;
pub mod events;
mod exec_probe;
pub mod health;
pub mod log;
mod oom;
mod payload;
pub mod policy;
pub mod probe;
mod probe_run;
mod run;
pub mod spec;
mod start;
pub mod status;
mod stop;

use std::ffi::{CStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// The first argument that makes this program a monitor. The second is the bundle directory.
pub const PROGRAM: &CStr = c"stack-monitor";
/// The number at which a monitor finds its end of the channel.
const CHANNEL_FD: i32 = 3;

/// Runs as a monitor, given all arguments of the process. Call it before anything else is set up.
///
/// Returns when the container has ended for good; 64 when it was not started by [`client::Launcher`].
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match arguments.nth(1) {
        Some(bundle) => start::run(Path::new(&bundle)),
        None => ExitCode::from(64),
    }
}

/// Whether a process with this first argument is to be a monitor.
pub fn is_monitor(program: &OsString) -> bool {
    program.as_encoded_bytes() == PROGRAM.to_bytes()
}
