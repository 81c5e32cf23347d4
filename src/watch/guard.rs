//! Actions that provoke themselves: a container that writes where we watch is restarted, writes, is restarted. Pure: times
//! are handed in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// An action that is provoked so often in a row by what happened during it is paused.
pub const ECHOES: u32 = 5;
/// What changes so soon after an action's end counts as changed by it: a program that was restarted still begins.
pub const AFTERMATH: Duration = Duration::from_millis(500);
/// A paused action goes on when nothing that provokes it has changed for so long.
pub const QUIET: Duration = Duration::from_secs(10);

/// What to do with an action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// It has just been paused: to be said.
    Pause,
    /// It was paused before.
    Paused,
}

#[derive(Clone, Copy, Debug)]
struct History {
    ended: Instant,
    echoes: u32,
    /// When it was last provoked, while it is paused.
    paused: Option<Instant>,
}

/// The actions of one watch, by whatever names them.
#[derive(Debug)]
pub struct Guard<K> {
    histories: BTreeMap<K, History>,
}

impl<K> Default for Guard<K> {
    fn default() -> Self {
        Guard { histories: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Guard<K> {
    /// Judges an action whose trigger was seen at `now`. What happened during an action is seen right after its end.
    pub fn judge(&mut self, key: &K, now: Instant) -> Verdict {
        let Some(history) = self.histories.get_mut(key) else { return Verdict::Go };
        if let Some(paused) = &mut history.paused {
            *paused = now;
            return Verdict::Paused;
        }
        match now.saturating_duration_since(history.ended) < AFTERMATH {
            true => history.echoes += 1,
            false => history.echoes = 0,
        }
        if history.echoes < ECHOES {
            return Verdict::Go;
        }
        history.paused = Some(now);
        Verdict::Pause
    }

    /// Notes that an action has ended.
    pub fn ended(&mut self, key: &K, now: Instant) {
        let history = self.histories.entry(key.clone()).or_insert(History { ended: now, echoes: 0, paused: None });
        history.ended = now;
    }

    /// Paused actions that may go on, which they do.
    pub fn resumed(&mut self, now: Instant) -> Vec<K> {
        let quiet =
            |history: &History| history.paused.is_some_and(|since| now.saturating_duration_since(since) >= QUIET);
        let keys: Vec<K> = self.histories.iter().filter(|(_, h)| quiet(h)).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.histories.remove(key);
        }
        keys
    }

    /// When to ask for [`Self::resumed`] next.
    pub fn due(&self) -> Option<Instant> {
        self.histories.values().filter_map(|history| Some(history.paused? + QUIET)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVE: Duration = Duration::from_secs(1);

    /// The verdicts about triggers that come so long after the end of the action before.
    fn verdicts(gaps: &[Duration]) -> Vec<Verdict> {
        let (mut guard, mut now) = (Guard::default(), Instant::now());
        gaps.iter()
            .map(|gap| {
                now += *gap;
                let verdict = guard.judge(&"web", now);
                if verdict == Verdict::Go {
                    now += Duration::from_millis(50);
                    guard.ended(&"web", now);
                }
                verdict
            })
            .collect()
    }

    #[test]
    fn an_action_that_provokes_itself_is_paused() {
        use Verdict::{Go, Pause, Paused};
        let gap = Duration::from_millis(30);
        assert_eq!(verdicts(&[gap; 8]), [Go, Go, Go, Go, Go, Pause, Paused, Paused]);
    }

    #[test]
    fn a_person_who_saves_every_second_is_no_loop() {
        assert!(verdicts(&[SAVE; 50]).iter().all(|verdict| *verdict == Verdict::Go));
    }

    #[test]
    fn echoes_count_only_in_a_row() {
        let echo = Duration::from_millis(10);
        let gaps = [SAVE, echo, echo, echo, echo, SAVE, echo, echo, echo, echo, SAVE];
        assert!(verdicts(&gaps).iter().all(|verdict| *verdict == Verdict::Go));
    }

    #[test]
    fn a_paused_action_goes_on_after_some_quiet_and_another_is_not_concerned() {
        let (mut guard, mut now) = (Guard::default(), Instant::now());
        for _ in 0..ECHOES {
            assert_eq!(guard.judge(&"web", now), Verdict::Go);
            guard.ended(&"web", now);
        }
        assert_eq!(guard.judge(&"web", now), Verdict::Pause);
        assert_eq!(guard.judge(&"db", now), Verdict::Go);
        now += QUIET - Duration::from_secs(1);
        assert_eq!(guard.judge(&"web", now), Verdict::Paused);
        assert_eq!(guard.due(), Some(now + QUIET));
        assert!(guard.resumed(now + QUIET - Duration::from_millis(1)).is_empty());
        assert_eq!(guard.resumed(now + QUIET), ["web"]);
        assert_eq!(guard.judge(&"web", now + QUIET), Verdict::Go);
    }
}
