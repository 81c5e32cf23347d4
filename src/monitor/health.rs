//! When a container is probed and what the results make of it. Pure: it takes the time and returns what to do.
//!
//! ```text
//!            a probe passes                  `retries` failures in a row
//!  starting ───────────────▶ healthy ⇄──────────────────────────────────▶ unhealthy
//!      └────────────────── `retries` failures that count ──────────────────────▲
//! ```
//!
//! While `starting`, probes also come between the regular ones, first soon after the start and then ever less
//! often, so that what waits for this container waits no longer than it must. A failure of such an early probe does
//! not count, nor does any failure within `start_period`.

use std::time::{Duration, Instant};

use crate::model::{Health, HealthAction};

use super::status::HealthState;

/// The pause between a start and the first probe; each further early probe waits twice as long.
pub const FIRST_EARLY_PROBE: Duration = Duration::from_millis(20);
/// No regular pause is shorter, whatever the file says: a probe must not become a load.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// The health of one run of a container.
#[derive(Debug)]
pub struct HealthCheck {
    settings: Health,
    state: HealthState,
    /// Failures in a row that counted.
    failures: u32,
    early_pause: Duration,
    /// From when a failure counts while `starting`.
    counts_from: Instant,
    /// `None` while a probe is under way.
    due: Option<Instant>,
}

/// What a probe's result asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Nothing,
    /// The container became unhealthy and its check says that it is to be restarted.
    Restart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Passed,
    Failed,
}

impl HealthCheck {
    /// The check of a container that started at `now`.
    pub fn start(settings: Health, now: Instant) -> Self {
        let counts_from = now + settings.start_period.max(interval(&settings));
        Self {
            settings,
            state: HealthState::Starting,
            failures: 0,
            early_pause: FIRST_EARLY_PROBE * 2,
            counts_from,
            due: Some((now + FIRST_EARLY_PROBE).min(counts_from)),
        }
    }

    pub fn settings(&self) -> &Health {
        &self.settings
    }

    pub fn state(&self) -> HealthState {
        self.state
    }

    /// When the next probe is to begin; `None` while one is under way.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Notes that a probe began. Its result is to follow through [`Self::record`].
    pub fn begin(&mut self) {
        self.due = None;
    }

    /// Takes the result of the probe that began at `began` and ended at `now`.
    pub fn record(&mut self, result: ProbeResult, began: Instant, now: Instant) -> Verdict {
        let before = self.state;
        let counted = before != HealthState::Starting || began >= self.counts_from;
        match result {
            ProbeResult::Passed => {
                self.failures = 0;
                self.state = HealthState::Healthy;
            }
            ProbeResult::Failed if counted => {
                self.failures = self.failures.saturating_add(1);
                self.counts_from = now + interval(&self.settings);
                if self.failures >= self.settings.retries {
                    self.state = HealthState::Unhealthy;
                }
            }
            ProbeResult::Failed => {}
        }
        self.due = Some(self.next(now));
        let fell = before != HealthState::Unhealthy && self.state == HealthState::Unhealthy;
        match fell && self.settings.on_failure == HealthAction::Restart {
            true => Verdict::Restart,
            false => Verdict::Nothing,
        }
    }

    /// Takes new settings of the same probe for the container that goes on running. What it has reached, it keeps.
    pub fn reconfigure(&mut self, settings: Health, now: Instant) {
        self.settings = settings;
        if self.due.is_some() {
            self.due = Some(self.next(now));
        }
    }

    fn next(&mut self, now: Instant) -> Instant {
        let regular = now + interval(&self.settings);
        if self.state != HealthState::Starting {
            return regular;
        }
        let early = now + self.early_pause;
        self.early_pause = self.early_pause.saturating_mul(2).min(interval(&self.settings));
        // The first probe that counts is never put off.
        match self.counts_from > now {
            true => early.min(self.counts_from),
            false => early.min(regular),
        }
    }
}

fn interval(settings: &Health) -> Duration {
    settings.interval.max(SHORTEST_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Probe;
    use HealthState::{Healthy, Starting, Unhealthy};
    use ProbeResult::{Failed, Passed};

    fn settings() -> Health {
        Health {
            probe: Probe::Tcp { port: 80 },
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            retries: 3,
            start_period: Duration::ZERO,
            on_failure: HealthAction::Restart,
        }
    }

    /// Runs probes that take no time as they fall due, and gives (milliseconds after the start, state) of each.
    fn run(settings: Health, results: &[ProbeResult]) -> (Vec<(u128, HealthState)>, Vec<Verdict>) {
        let start = Instant::now();
        let mut check = HealthCheck::start(settings, start);
        let mut seen = Vec::new();
        let mut verdicts = Vec::new();
        for result in results {
            let now = check.due().expect("no probe under way");
            check.begin();
            assert_eq!(check.due(), None);
            verdicts.push(check.record(*result, now, now));
            seen.push(((now - start).as_millis(), check.state()));
        }
        (seen, verdicts)
    }

    #[test]
    fn the_first_probes_come_early_and_their_failures_do_not_count() {
        let (seen, _) = run(settings(), &[Failed; 8]);
        let times: Vec<u128> = seen.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, [20, 60, 140, 300, 620, 1000, 2000, 3000]);
        assert_eq!(seen[6].1, Starting);
        assert_eq!(seen[7].1, Unhealthy);
    }

    #[test]
    fn one_pass_is_enough_and_then_probes_are_regular() {
        let (seen, verdicts) = run(settings(), &[Passed, Passed, Failed, Passed]);
        assert_eq!(seen, [(20, Healthy), (1020, Healthy), (2020, Healthy), (3020, Healthy)]);
        assert_eq!(verdicts, [Verdict::Nothing; 4]);
    }

    #[test]
    fn only_failures_in_a_row_make_it_unhealthy() {
        let (seen, verdicts) = run(settings(), &[Passed, Failed, Failed, Passed, Failed, Failed, Failed]);
        assert_eq!(seen[5].1, Healthy);
        assert_eq!(seen[6].1, Unhealthy);
        assert_eq!(verdicts[6], Verdict::Restart);
    }

    #[test]
    fn a_restart_is_asked_for_once_and_only_where_the_file_asks() {
        let (_, verdicts) = run(settings(), &[Passed, Failed, Failed, Failed, Failed]);
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Restart).count(), 1);
        let quiet = Health { on_failure: HealthAction::None, ..settings() };
        let (seen, verdicts) = run(quiet, &[Passed, Failed, Failed, Failed, Passed]);
        assert!(verdicts.iter().all(|v| *v == Verdict::Nothing));
        assert_eq!((seen[3].1, seen[4].1), (Unhealthy, Healthy));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let slow = Health { start_period: Duration::from_secs(5), ..settings() };
        let (seen, _) = run(slow, &[Failed; 12]);
        let times: Vec<u128> = seen.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, [20, 60, 140, 300, 620, 1260, 2260, 3260, 4260, 5000, 6000, 7000]);
        assert_eq!((seen[10].1, seen[11].1), (Starting, Unhealthy));
    }

    #[test]
    fn an_interval_below_the_shortest_is_the_shortest() {
        let (seen, _) = run(Health { interval: Duration::ZERO, ..settings() }, &[Failed, Failed, Failed]);
        assert_eq!(seen.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [10, 20, 30]);
    }

    #[test]
    fn new_settings_keep_what_was_reached() {
        let start = Instant::now();
        let mut check = HealthCheck::start(settings(), start);
        check.begin();
        check.record(Passed, start, start);
        check.reconfigure(Health { interval: Duration::from_secs(9), ..settings() }, start);
        assert_eq!((check.state(), check.due()), (Healthy, Some(start + Duration::from_secs(9))));
    }
}
