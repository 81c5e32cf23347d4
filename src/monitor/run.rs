//! The monitor's loop: wait for the container, its output, its probes, signals and deadlines, and act on what comes.
//!
//! ```text
//!  running ──ends, policy says so──▶ waiting ──pause over──▶ running
//!     │ ends, or was stopped             │ SIGTERM
//!     ▼                                  ▼
//!  exited ◀──────────────────────────────┘
//! ```
//!
//! It blocks in poll(2) with no time limit unless something is due, so an idle monitor takes no processor time.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::runtime::sys::give_memory_back;

use super::health::{HealthCheck, Verdict};
use super::log::Stream;
use super::log::writer::LogWriter;
use super::oom::OomEar;
use super::payload::{Launcher, Payload};
use super::policy::{Cause, Exit, Next, Restarts};
use super::probe_run::ProbeRun;
use super::spec::MonitorSpec;
use super::status::{HealthState, ProbeReport, State, Status, shorten};
use super::stop::{StopPlan, plan_stop};
use super::turn::{Teller, Turn};

/// Everything that the loop works on.
pub(super) struct Monitor<'a> {
    pub launcher: Launcher<'a>,
    pub status: Status,
    pub log: LogWriter,
    pub signals: SignalFd,
    pub restarts: Restarts,
    /// `None`: nobody shares this container's ports and name.
    pub teller: Option<Teller>,
    /// Whether the host's table was last told that this container serves.
    pub serves: bool,
    pub oom: OomEar,
}

/// Where the container is.
pub(super) enum Phase {
    Running(Box<Run>),
    Waiting { until: Instant },
    Exited,
}

/// One run of the container.
pub(super) struct Run {
    payload: Payload,
    began: Instant,
    health: Option<HealthCheck>,
    probe: Option<ProbeRun>,
    ending: Option<Ending>,
}

/// The monitor wants this run to end.
struct Ending {
    cause: Cause,
    /// `None` after SIGKILL was sent.
    kill_at: Option<Instant>,
}

/// What poll(2) found ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Init,
    Output(Stream),
    Probe,
    Oom,
}

/// Signals that mean something to a monitor. They are blocked everywhere else, and the container's are set anew.
pub(crate) fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.add(Signal::SIGHUP);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

impl Monitor<'_> {
    /// Publishes that the container runs for the first time.
    pub(super) fn first_run(&mut self, payload: Payload) -> Phase {
        Phase::Running(Box::new(self.begin(payload)))
    }

    /// Follows the container to its end.
    pub(super) fn run(mut self, mut phase: Phase) {
        give_memory_back();
        while !matches!(phase, Phase::Exited) {
            let ready = wait(&self.signals, &self.oom, &phase);
            phase = self.step(phase, &ready);
        }
    }

    /// Notes that the container runs.
    fn begin(&mut self, payload: Payload) -> Run {
        let began = Instant::now();
        let health = self.launcher.spec.health.clone().map(|health| HealthCheck::start(health, began));
        let status = &mut self.status;
        status.state = State::Running;
        (status.init_pid, status.init_start) = (Some(payload.pid), Some(payload.start));
        status.set_exit(None);
        status.health = health.as_ref().map_or(HealthState::None, HealthCheck::state);
        status.started_at = Some(Timestamp::now());
        (status.finished_at, status.next_start_at, status.last_probe) = (None, None, None);
        self.publish();
        Run { payload, began, health, probe: None, ending: None }
    }

    fn step(&mut self, phase: Phase, ready: &[Source]) -> Phase {
        let wishes = if ready.contains(&Source::Signals) { self.take_signals() } else { Wishes::default() };
        let again = wishes.reload && self.reload() == Reloaded::Again;
        match phase {
            Phase::Running(mut run) => {
                if again && !ready.contains(&Source::Init) {
                    self.end(&mut run, Cause::Asked);
                }
                self.step_running(run, ready, wishes)
            }
            Phase::Waiting { .. } if wishes.stop => self.exited(),
            Phase::Waiting { .. } if again => self.start_again(),
            Phase::Waiting { until } if until <= Instant::now() => self.start_again(),
            Phase::Waiting { until } => Phase::Waiting { until },
            Phase::Exited => Phase::Exited,
        }
    }

    fn step_running(&mut self, mut run: Box<Run>, ready: &[Source], wishes: Wishes) -> Phase {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if ready.contains(&Source::Output(stream)) {
                run.payload.copy_output(stream, &mut self.log);
            }
        }
        if ready.contains(&Source::Init) {
            return self.ended(*run);
        }
        if wishes.reload {
            self.reconfigure_health(&mut run);
        }
        if wishes.stop {
            self.end(&mut run, Cause::Stopping);
        }
        self.step_oom(ready.contains(&Source::Oom));
        self.step_probe(&mut run, ready.contains(&Source::Probe));
        let now = Instant::now();
        if let Some(Ending { kill_at: Some(at), .. }) = run.ending
            && at <= now
        {
            self.kill(&mut run);
        }
        Phase::Running(run)
    }

    /// Lets the probe under way go on, or begins the one that is due.
    fn step_probe(&mut self, run: &mut Run, ready: bool) {
        if run.ending.is_some() {
            return;
        }
        let Some(health) = &mut run.health else { return };
        let now = Instant::now();
        let begins = run.probe.is_none() && health.due().is_some_and(|due| due <= now);
        if begins {
            health.begin();
            run.probe = Some(ProbeRun::begin(health.settings(), &self.launcher, &run.payload));
        }
        let Some(probe) = &mut run.probe else { return };
        let outcome = if ready || begins { probe.advance() } else { None };
        let Some(outcome) = outcome.or_else(|| probe.time_out(Instant::now())) else { return };
        let (began, now) = (probe.began, Instant::now());
        run.probe = None;
        let verdict = health.record(outcome.result, began, now);
        let state = health.state();
        self.report_probe(
            state,
            ProbeReport {
                at: Some(Timestamp::now()),
                passed: outcome.result == super::health::ProbeResult::Passed,
                took_ms: (now - began).as_millis() as u64,
                text: outcome.text,
            },
        );
        if verdict == Verdict::Restart {
            self.log.remark("unhealthy: to be restarted");
            self.end(run, Cause::Unhealthy);
        }
    }

    /// Publishes what changed. A probe that says what the last one said is not news, so that a healthy container
    /// causes no writes.
    fn report_probe(&mut self, health: HealthState, report: ProbeReport) {
        let same = |last: &ProbeReport| last.passed == report.passed && last.text == report.text;
        let news = self.status.health != health || !self.status.last_probe.as_ref().is_some_and(same);
        self.status.health = health;
        self.status.last_probe = Some(report);
        if news {
            self.publish();
        }
    }

    /// Sets out to end the run: the stop signal now, SIGKILL after the time that the container has.
    fn end(&mut self, run: &mut Run, cause: Cause) {
        run.probe = None;
        // Whoever looks from now on knows that it goes.
        let served = std::mem::take(&mut self.serves);
        self.status.stopping |= cause == Cause::Stopping;
        if self.status.stopping {
            self.publish();
        }
        if let Some(ending) = &mut run.ending {
            // A stop outranks a restart; the clock that runs goes on running.
            if cause == Cause::Stopping {
                ending.cause = cause;
            }
            return;
        }
        // Before it is asked to end, so that nobody is led to it who would be refused.
        if served {
            self.tell(Turn::Leaves);
        }
        run.ending = Some(Ending { cause, kill_at: Some(Instant::now() + self.launcher.spec.stop_timeout()) });
        // An init of ours forwards every signal.
        let plan = match self.launcher.spec.init {
            true => StopPlan::Ask,
            false => plan_stop(run.payload.pid, self.launcher.spec.stop_signal),
        };
        match plan {
            StopPlan::Ask => {
                // Fails only where it has ended, which the loop is about to see.
                let _ = run.payload.signal(self.launcher.spec.stop_signal);
            }
            StopPlan::KillAtOnce => {
                let text = format!(
                    "PID 1 does not handle signal {}, so it was killed at once",
                    self.launcher.spec.stop_signal
                );
                self.note(text);
                self.kill(run);
            }
        }
    }

    fn kill(&mut self, run: &mut Run) {
        let _ = run.payload.signal(Signal::SIGKILL as i32);
        if let Some(ending) = &mut run.ending {
            ending.kill_at = None;
        }
    }

    /// Takes the container's end: its last output, its exit, what the policy makes of it.
    fn ended(&mut self, mut run: Run) -> Phase {
        let exit = run.payload.reap();
        // Its process, if it has one, died with the container.
        run.probe = None;
        run.payload.drain_output(&mut self.log);
        let cause = run.ending.map_or(Cause::Own, |ending| ending.cause);
        let now = Timestamp::now();
        self.tell_oom_kills();
        (self.status.init_pid, self.status.init_start) = (None, None);
        self.status.set_exit(Some(exit));
        self.status.finished_at = Some(now);
        match self.restarts.decide(self.launcher.spec.restart, cause, exit, run.began.elapsed()) {
            Next::Stay => self.exited(),
            Next::StartAfter(pause) => self.wait_for_restart(pause),
        }
    }

    fn wait_for_restart(&mut self, pause: Duration) -> Phase {
        self.status.state = State::Restarting;
        self.status.next_start_at = Timestamp::now().checked_add(pause).ok();
        self.publish();
        give_memory_back();
        Phase::Waiting { until: Instant::now() + pause }
    }

    fn start_again(&mut self) -> Phase {
        let before = match (self.status.exit_code, self.status.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (_, Some(signal)) => format!("signal {signal}"),
            (None, None) => "a start that failed".to_owned(),
        };
        self.status.restarts = self.status.restarts.saturating_add(1);
        match self.launcher.launch() {
            Ok(payload) => {
                self.status.note = None;
                self.log.remark(&format!("restarted after {before}"));
                let phase = Phase::Running(Box::new(self.begin(payload)));
                give_memory_back();
                phase
            }
            Err(error) => {
                let text = format!("cannot start again: {}", chain(&error));
                self.log.remark(&text);
                self.note(text);
                match self.restarts.decide(
                    self.launcher.spec.restart,
                    Cause::NotStarted,
                    Exit::Code(-1),
                    Duration::ZERO,
                ) {
                    Next::Stay => self.exited(),
                    Next::StartAfter(pause) => self.wait_for_restart(pause),
                }
            }
        }
    }

    fn exited(&mut self) -> Phase {
        self.status.state = State::Exited;
        self.status.health = HealthState::None;
        self.status.next_start_at = None;
        self.publish();
        Phase::Exited
    }

    fn take_signals(&mut self) -> Wishes {
        let mut wishes = Wishes::default();
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGHUP) => wishes.reload = true,
                Ok(_) => wishes.stop = true,
                Err(_) => {}
            }
        }
        wishes
    }

    /// Takes the live settings of the spec as it is now. One that cannot be read changes nothing.
    fn reload(&mut self) -> Reloaded {
        let mut reloaded = Reloaded::Settings;
        match MonitorSpec::load(self.launcher.bundle) {
            Ok(spec) => {
                if spec.epoch != self.launcher.spec.epoch {
                    reloaded = Reloaded::Again;
                }
                self.launcher.spec.take_live(spec);
                self.log.set_limits(self.launcher.spec.log);
                self.status.note = None;
            }
            Err(error) => self.note(format!("settings not reloaded: {}", chain(&error))),
        }
        self.publish();
        reloaded
    }

    fn reconfigure_health(&mut self, run: &mut Run) {
        let now = Instant::now();
        match (&mut run.health, self.launcher.spec.health.clone()) {
            (Some(check), Some(new)) if *check.settings() == new => return,
            (Some(check), Some(new)) if check.settings().probe == new.probe => check.reconfigure(new, now),
            // What another probe has found says nothing of what this one will find.
            (check, new) => {
                run.probe = None;
                *check = new.map(|health| HealthCheck::start(health, now));
            }
        }
        self.status.health = run.health.as_ref().map_or(HealthState::None, HealthCheck::state);
        self.publish();
    }

    fn note(&mut self, text: String) {
        self.status.note = Some(shorten(text));
    }

    /// Publishes the status. There is nobody to tell of a failure: who reads an old status checks its processes.
    pub(super) fn publish(&mut self) {
        self.status.log_bytes_dropped = self.log.dropped();
        let _ = self.status.save(self.launcher.bundle);
        let serves = self.status.serves();
        if serves != self.serves {
            self.serves = serves;
            self.tell(Turn::Look);
        }
    }

    fn tell(&mut self, turn: Turn) {
        if let Some(teller) = &mut self.teller {
            teller.tell(self.launcher.bundle, turn);
        }
    }
}

/// What a spec that was read again asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reloaded {
    Settings,
    /// The container's process is started again too.
    Again,
}

/// What signals asked for.
#[derive(Clone, Copy, Default)]
struct Wishes {
    stop: bool,
    reload: bool,
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Blocks until something is ready or due.
fn wait(signals: &SignalFd, oom: &OomEar, phase: &Phase) -> Vec<Source> {
    let mut sources = vec![Source::Signals];
    let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
    if let Phase::Running(run) = phase {
        sources.push(Source::Init);
        fds.push(PollFd::from_borrowed_fd(run.payload.pidfd(), PollFlags::IN));
        for (stream, pipe) in run.payload.outputs() {
            sources.push(Source::Output(stream));
            fds.push(PollFd::from_borrowed_fd(pipe, PollFlags::IN));
        }
        if let Some(fd) = oom.fd() {
            sources.push(Source::Oom);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        for (fd, flags) in run.probe.iter().flat_map(ProbeRun::interest) {
            sources.push(Source::Probe);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
    }
    // Without a run there is nobody to be killed.
    let oom_due = oom.due().filter(|_| matches!(phase, Phase::Running(_)));
    let due = deadline(phase).into_iter().chain(oom_due).min();
    let timeout = due.map(|at| timespec(at.saturating_duration_since(Instant::now())));
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        // Only memory can be short here; what is due is still done, at its time.
        Err(_) => return Vec::new(),
    }
    let ready = fds.iter().map(|fd| !fd.revents().is_empty());
    sources.into_iter().zip(ready).filter_map(|(source, ready)| ready.then_some(source)).collect()
}

/// What is due first.
fn deadline(phase: &Phase) -> Option<Instant> {
    match phase {
        Phase::Waiting { until } => Some(*until),
        Phase::Exited => None,
        Phase::Running(run) => match &run.ending {
            Some(ending) => ending.kill_at,
            None => {
                let probe = run.probe.as_ref().map(ProbeRun::deadline);
                probe.or_else(|| run.health.as_ref().and_then(HealthCheck::due))
            }
        },
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}
