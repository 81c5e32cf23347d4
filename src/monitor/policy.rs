//! Whether and when a container that ended is started again. Pure: it takes what happened and says what to do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Restart;

/// The pause before the first restart in a row; each further one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A run of this length counts as a success: the next pause is the first one again, and retries count anew.
pub const STEADY_RUN: Duration = Duration::from_secs(10);

/// How a container's PID 1 ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Why a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// By itself, or by a hand other than the monitor's.
    Own,
    /// The monitor ended it as unhealthy, because its health check says `on_failure = "restart"`.
    Unhealthy,
    /// Somebody asked for it to be started again.
    Asked,
    /// Somebody asked the monitor to stop.
    Stopping,
    /// It could not even be started again.
    NotStarted,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    StartAfter(Duration),
    Stay,
}

/// How many restarts there were in a row without a steady run between them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restarts {
    in_a_row: u32,
}

impl Restarts {
    /// Decides about a container that ended so after `ran` of running.
    ///
    /// `Cause::Unhealthy` restarts whatever the policy says: the health check itself asked for it. Retries of
    /// `on-failure` limit it all the same.
    pub fn decide(&mut self, policy: Restart, cause: Cause, exit: Exit, ran: Duration) -> Next {
        if ran >= STEADY_RUN {
            self.in_a_row = 0;
        }
        if cause == Cause::Asked {
            // No failure: it neither pauses nor counts.
            return Next::StartAfter(Duration::ZERO);
        }
        let failed = cause != Cause::Own || exit != Exit::Code(0);
        let wanted = match (cause, policy) {
            (Cause::Stopping, _) => false,
            (Cause::Asked, _) | (_, Restart::Always) => true,
            (_, Restart::OnFailure { max_retries }) => failed && max_retries.is_none_or(|max| self.in_a_row < max),
            (Cause::Unhealthy | Cause::NotStarted, Restart::No) => true,
            (Cause::Own, Restart::No) => false,
        };
        if !wanted {
            return Next::Stay;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.in_a_row.min(16)).min(LONGEST_PAUSE);
        self.in_a_row = self.in_a_row.saturating_add(1);
        Next::StartAfter(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURE: Exit = Exit::Code(1);
    const ON_FAILURE: Restart = Restart::OnFailure { max_retries: None };

    /// The decision about a first run of a second.
    fn check(policy: Restart, cause: Cause, exit: Exit, starts: bool) {
        let next = Restarts::default().decide(policy, cause, exit, Duration::from_secs(1));
        let expected = if starts { Next::StartAfter(FIRST_PAUSE) } else { Next::Stay };
        assert_eq!(next, expected, "{policy:?} {cause:?} {exit:?}");
    }

    #[test]
    fn the_policy_decides_about_a_container_that_ended_by_itself() {
        check(Restart::No, Cause::Own, FAILURE, false);
        check(Restart::Always, Cause::Own, Exit::Code(0), true);
        check(Restart::Always, Cause::Own, Exit::Signal(9), true);
        check(ON_FAILURE, Cause::Own, Exit::Code(0), false);
        check(ON_FAILURE, Cause::Own, FAILURE, true);
        check(ON_FAILURE, Cause::Own, Exit::Signal(11), true);
    }

    #[test]
    fn a_stop_is_never_undone() {
        for policy in [Restart::No, Restart::Always, ON_FAILURE] {
            check(policy, Cause::Stopping, Exit::Signal(15), false);
        }
    }

    #[test]
    fn an_unhealthy_container_is_restarted_as_its_health_check_says() {
        for policy in [Restart::No, Restart::Always, ON_FAILURE] {
            check(policy, Cause::Unhealthy, Exit::Code(0), true);
        }
    }

    #[test]
    fn who_asks_for_a_restart_gets_it_at_once_whatever_the_policy() {
        let mut restarts = Restarts { in_a_row: 4 };
        let next = restarts.decide(Restart::No, Cause::Asked, Exit::Signal(15), Duration::ZERO);
        assert_eq!((next, restarts.in_a_row), (Next::StartAfter(Duration::ZERO), 4));
    }

    fn pauses(restarts: &mut Restarts, ran: Duration, count: usize) -> Vec<u64> {
        let pause = |next| match next {
            Next::StartAfter(pause) => Duration::as_millis(&pause) as u64,
            Next::Stay => panic!("stays"),
        };
        (0..count).map(|_| pause(restarts.decide(Restart::Always, Cause::Own, FAILURE, ran))).collect()
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut restarts = Restarts::default();
        assert_eq!(
            pauses(&mut restarts, Duration::ZERO, 11),
            [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]
        );
        restarts.in_a_row = u32::MAX;
        assert_eq!(pauses(&mut restarts, Duration::ZERO, 2), [30000, 30000]);
    }

    #[test]
    fn a_steady_run_makes_the_pause_short_again() {
        let mut restarts = Restarts::default();
        pauses(&mut restarts, Duration::ZERO, 5);
        assert_eq!(pauses(&mut restarts, STEADY_RUN - Duration::from_millis(1), 1), [3200]);
        assert_eq!(pauses(&mut restarts, STEADY_RUN, 1), [100]);
    }

    #[test]
    fn retries_in_a_row_are_counted() {
        let policy = Restart::OnFailure { max_retries: Some(2) };
        let mut restarts = Restarts::default();
        let mut next = |ran| restarts.decide(policy, Cause::Own, FAILURE, ran) != Next::Stay;
        assert_eq!([next(Duration::ZERO), next(Duration::ZERO), next(Duration::ZERO)], [true, true, false]);
        assert!(next(STEADY_RUN), "a steady run counts anew");
    }
}
