//! What a run's exit status means.

use std::process::ExitCode;

/// The exit statuses of every command but `exec`, whose status is the process's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// In sync, converged, said what was asked.
    Ok = 0,
    /// Something failed, or could not be told.
    Failed = 1,
    /// `diff`: there are differences.
    Differs = 2,
    /// The stack file is wrong.
    File = 3,
    /// `diff --deny-exposure`: others would reach what they do not reach now.
    Exposed = 4,
    /// Another run holds the stack's lock.
    Locked = 5,
    /// The command line is wrong.
    Usage = 64,
    /// `wait`: not in time; the status that timeout(1) gives.
    TimedOut = 124,
    /// The user asked to stop.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
