//! The side of `up` and `down`: is there a resolver, start one, stop it.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::PROGRAM;
use super::spec::{Processes, ResolverSpec};
use crate::monitor::client::{ClientError, Launcher, signal_verified};
use crate::monitor::spec::BundleError;
use crate::plan::Zone;

/// A resolver's folder in the one of its stack. No instance's name begins with a dot.
pub const FOLDER: &str = ".resolver";
/// How long a resolver may take until it listens, and until it has ended.
const STARTED_WITHIN: Duration = Duration::from_secs(30);
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// Why a resolver could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    #[error(transparent)]
    Process(#[from] ClientError),
    #[error(transparent)]
    Spec(#[from] BundleError),
    #[error("cannot wait for its end")]
    Wait { source: io::Error },
    #[error("it did not listen within {STARTED_WITHIN:?}")]
    NotInTime,
    #[error("it did not end within {STOPPED_WITHIN:?}")]
    NoEnd,
}

/// What there is of a resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it was last told; `None`: nothing that can be read.
    pub zone: Option<Zone>,
    pub runs: bool,
}

/// Looks at a resolver's folder. `None`: there is none.
pub fn find(folder: &Path) -> Option<Found> {
    if !folder.is_dir() {
        return None;
    }
    let lives = |processes: Processes| {
        processes.keeper.id().is_alive() && processes.server.is_some_and(|server| server.id().is_alive())
    };
    Some(Found {
        zone: ResolverSpec::load(folder).ok().map(|spec| spec.zone),
        runs: Processes::load(folder).is_some_and(lives),
    })
}

/// Has a resolver answer by `spec`: one that runs hears of new names, and takes another's place where it is to listen
/// elsewhere. Within a tokio runtime.
pub async fn run(launcher: &Launcher, folder: &Path, spec: &ResolverSpec) -> Result<(), ResolverError> {
    let listens = |found: Found| found.runs && found.zone.is_some_and(|zone| zone.bridges == spec.zone.bridges);
    if find(folder).is_some_and(listens) {
        return Ok(spec.save(folder)?);
    }
    stop(folder).await?;
    spec.save(folder)?;
    let handle = launcher.spawn_as(PROGRAM, folder)?;
    match tokio::time::timeout(STARTED_WITHIN, handle.started()).await {
        Ok(started) => started.map(drop).map_err(ResolverError::Process),
        Err(_) => Err(ResolverError::NotInTime),
    }
}

/// Ends a resolver's processes; whatever has ended is passed over. Within a tokio runtime.
pub async fn stop(folder: &Path) -> Result<(), ResolverError> {
    let Some(processes) = Processes::load(folder) else { return Ok(()) };
    // It takes its server along.
    let keeper = signal_verified(processes.keeper.id(), Signal::SIGTERM)?;
    let server = match processes.server {
        Some(server) => signal_verified(server.id(), Signal::SIGKILL)?,
        None => None,
    };
    for stopping in [keeper, server].into_iter().flatten() {
        match tokio::time::timeout(STOPPED_WITHIN, stopping.ended()).await {
            Ok(ended) => ended.map_err(|source| ResolverError::Wait { source })?,
            Err(_) => return Err(ResolverError::NoEnd),
        }
    }
    Ok(())
}
