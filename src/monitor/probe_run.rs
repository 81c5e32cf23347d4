//! The one probe that a monitor has under way, of whatever kind.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::model::{Health, Probe};

use super::exec_probe::ExecProbe;
use super::payload::{Launcher, Payload};
use super::probe::{Outcome, TcpProbe};
use super::run::chain;

/// A probe that was begun.
#[derive(Debug)]
pub(super) struct ProbeRun {
    pub began: Instant,
    timeout: Duration,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Could not be begun.
    Over(Outcome),
    Tcp(TcpProbe),
    Exec(ExecProbe),
}

impl ProbeRun {
    /// Begins the probe that `health` asks for.
    pub(super) fn begin(health: &Health, launcher: &Launcher<'_>, payload: &Payload) -> Self {
        let kind = match &health.probe {
            Probe::Tcp { port } => TcpProbe::connection(*port).map(Kind::Tcp).map_err(|error| error.to_string()),
            Probe::Http { port, path } => TcpProbe::http(*port, path).map(Kind::Tcp).map_err(|error| error.to_string()),
            Probe::Exec { command } => {
                ExecProbe::begin(command, launcher, payload.pid).map(Kind::Exec).map_err(|error| chain(&error))
            }
        };
        let kind = kind.unwrap_or_else(|text| Kind::Over(Outcome::failed(text)));
        Self { began: Instant::now(), timeout: health.timeout, kind }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.began + self.timeout
    }

    /// What to wait for before [`Self::advance`] is worth calling.
    pub(super) fn interest(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        match &self.kind {
            Kind::Over(_) => Vec::new(),
            Kind::Tcp(probe) => vec![probe.interest()],
            Kind::Exec(probe) => probe.interest(),
        }
    }

    /// Goes as far as it can without waiting. `None`: there is more to wait for.
    pub(super) fn advance(&mut self) -> Option<Outcome> {
        match &mut self.kind {
            Kind::Over(outcome) => Some(outcome.clone()),
            Kind::Tcp(probe) => probe.advance(),
            Kind::Exec(probe) => probe.advance(),
        }
    }

    /// The outcome of a probe whose time is over at `now`; `None` before.
    pub(super) fn time_out(&self, now: Instant) -> Option<Outcome> {
        (self.deadline() <= now).then(|| Outcome::failed(format!("no result within {:?}", self.timeout)))
    }
}
