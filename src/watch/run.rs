//! The loop: hear, wait until it is quiet, look, decide, have it done, and watch what has to be watched then.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::decide::{Found, Job, JobId, Work, jobs, without};
use super::drift::Repairs;
use super::guard::{ECHOES, Guard, Verdict};
use super::inputs::{Inputs, Purpose, inputs};
use super::notice::{Heard, NoticeError, Notices};
use super::sight::Sight;
use super::tree::Changes;
use super::work::{Cause, Files, Repaired, Told, Worker};
use crate::file;
use crate::model::{Name, Stack, WatchAction};
use crate::plan::instances;
use crate::reconcile::{HostError, LinuxHost};

/// What was heard is acted on when nothing more was heard for so long.
const QUIET: Duration = Duration::from_millis(25);
/// Or after so long, whatever goes on: a burst such as a checkout is one change.
const LONGEST: Duration = Duration::from_secs(2);
/// After something happened to a container's bundle, drift is looked for this soon, and not more often.
const SOON: Duration = Duration::from_secs(1);
/// A timer that is never due; it is set anew each time something is heard.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// How to watch.
pub struct Options {
    /// The stack file, as it is called in messages.
    pub file: PathBuf,
    /// The same, absolute.
    pub path: PathBuf,
    /// The environment, for `${NAME}`.
    pub variables: HashMap<String, String>,
    pub profiles: Vec<String>,
    /// How often to look for drift; `None`: never.
    pub repair: Option<Duration>,
}

/// Why a watch ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Notice(#[from] NoticeError),
}

/// Becomes true when the watch is to end: it finishes the steps that are under way.
pub type Stop = tokio::sync::watch::Receiver<bool>;

/// How a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to.
    Stopped,
}

/// Follows a stack file and all that hangs on it until `stop` resolves. Containers go on running then.
pub async fn watch(
    options: &Options,
    host_of: &dyn Fn(&Name) -> Result<LinuxHost, HostError>,
    tell: &mut dyn FnMut(Told<'_>),
    stop: Stop,
) -> Result<Outcome, WatchError> {
    let worker = Worker { file: &options.file, host_of, tell, stop, synced: Default::default() };
    let watcher = Watcher {
        options,
        notices: Notices::new()?,
        sight: Sight::default(),
        worker,
        stack: None,
        included: vec![],
        broken: None,
        guard: Guard::default(),
        repairs: Repairs::default(),
        drift_at: options.repair.map(|interval| Instant::now() + interval),
        down: false,
        pending: Found::new(),
    };
    watcher.run().await
}

struct Watcher<'a> {
    options: &'a Options,
    notices: Notices,
    sight: Sight,
    worker: Worker<'a>,
    /// The last good one.
    stack: Option<Stack>,
    /// The files that the stack file includes, as it is now, be it good or not.
    included: Vec<PathBuf>,
    /// What was last said of a file that cannot be used.
    broken: Option<String>,
    guard: Guard<JobId>,
    repairs: Repairs,
    drift_at: Option<Instant>,
    /// Whether it was said that somebody took the stack down.
    down: bool,
    /// What was found out of turn.
    pending: Found,
}

impl Watcher<'_> {
    async fn run(mut self) -> Result<Outcome, WatchError> {
        let file = self.options.path.clone();
        self.sight.take(Inputs { files: BTreeSet::from([file.clone()]), trees: vec![] });
        self.sight.look(&Heard::default(), &mut self.notices)?;
        self.reread();
        self.watch_inputs()?;
        self.go((file, 0)).await?;
        loop {
            let Some(heard) = self.hear().await? else { return Ok(Outcome::Stopped) };
            let seen_at = Instant::now();
            if self.sight.rang(&heard) {
                self.look_for_drift_soon();
            }
            let mut found = std::mem::take(&mut self.pending);
            for (what, changes) in self.sight.look(&heard, &mut self.notices)? {
                found.entry(what).or_default().add(changes);
            }
            let mut due = match &self.stack {
                Some(stack) => jobs(stack, &found),
                None => vec![],
            };
            due.retain(|job| self.may(job, seen_at));
            let lacks = self.broken.is_some() || self.stack.is_none();
            // What was missing may be there now, wherever it is.
            if lacks && !heard.is_empty() && !due.iter().any(|job| job.work == Work::Road) {
                due.insert(0, Job { id: JobId::Road, cause: (self.options.path.clone(), 0), work: Work::Road });
            }
            self.work(due).await?;
            self.resume().await?;
            self.look_for_drift().await;
            self.bring_everything().await;
        }
    }

    /// Waits for something to do: all that is heard until it is quiet, or nothing where a timer is due.
    async fn hear(&mut self) -> Result<Option<Heard>, WatchError> {
        let mut stop = self.worker.stop.clone();
        if *stop.borrow() {
            return Ok(None);
        }
        let timer = [self.guard.due(), self.drift_at].into_iter().flatten().min();
        let due = timer.unwrap_or_else(|| Instant::now() + NEVER);
        let mut heard = Heard::default();
        if self.pending.is_empty() {
            heard = tokio::select! {
                heard = self.notices.heard() => heard?,
                () = tokio::time::sleep_until(due.into()) => return Ok(Some(Heard::default())),
                _ = stop.wait_for(|stop| *stop) => return Ok(None),
            };
        }
        let longest = Instant::now() + LONGEST;
        while Instant::now() < longest {
            tokio::select! {
                more = self.notices.heard() => heard.add(more?),
                () = tokio::time::sleep(QUIET) => break,
            }
        }
        Ok(Some(heard))
    }

    /// Whether a job is done now. The first time that it is not, that is said.
    fn may(&mut self, job: &Job, seen_at: Instant) -> bool {
        match self.guard.judge(&job.id, seen_at) {
            Verdict::Go => true,
            Verdict::Paused => false,
            Verdict::Pause => {
                let what = words(&job.id, self.stack.as_ref());
                if let Some(host) = self.stack.as_ref().and_then(|stack| (self.worker.host_of)(&stack.name).ok()) {
                    host.note(&what, "paused", &format!("{} changes each time it is done", job.cause.0.display()));
                }
                (self.worker.tell)(Told::Paused { what: &what, echoes: ECHOES });
                false
            }
        }
    }

    async fn work(&mut self, due: Vec<Job>) -> Result<(), WatchError> {
        let mut fresh = Vec::new();
        for job in due {
            let id = job.id.clone();
            if job.work == Work::Road {
                self.reread();
                fresh = self.go(job.cause).await?;
            } else if let Some(job) = without(job, &fresh)
                && let Some(host) = self.host()
            {
                self.worker.job(&host, &job).await;
            }
            self.guard.ended(&id, Instant::now());
        }
        Ok(())
    }

    fn host(&mut self) -> Option<LinuxHost> {
        let name = self.stack.as_ref()?.name.clone();
        self.worker.host(&name)
    }

    /// Reads the file. One that cannot be used changes nothing but what is said of it.
    fn reread(&mut self) {
        let examined = file::examine(&self.options.file, &self.options.variables, &self.options.profiles);
        self.included = examined.included;
        let Some(stack) = examined.stack else {
            let text = examined.diagnostics.render(file::Look::Plain);
            if self.broken.as_ref() != Some(&text) {
                (self.worker.tell)(Told::Broken(&examined.diagnostics));
                self.broken = Some(text);
            }
            return;
        };
        if let Some(held) = &self.stack
            && held.name != stack.name
        {
            let text = stack.name.to_string();
            if self.broken.as_ref() != Some(&text) {
                (self.worker.tell)(Told::Renamed { to: &stack.name });
                self.broken = Some(text);
            }
            return;
        }
        if self.broken.take().is_some() {
            (self.worker.tell)(Told::Mended);
        }
        self.stack = Some(stack);
    }

    /// Goes the road for the last good file, unless the one that is there now cannot be used.
    async fn go(&mut self, cause: Cause) -> Result<Vec<String>, WatchError> {
        if self.broken.is_some() {
            self.watch_inputs()?;
            return Ok(vec![]);
        }
        let Some(stack) = self.stack.take() else { return Ok(vec![]) };
        let fresh = self.worker.road(&stack, &cause).await;
        self.stack = Some(stack);
        (self.down, self.repairs) = (false, Repairs::default());
        self.watch_inputs()?;
        self.bring_everything().await;
        Ok(fresh)
    }

    /// Watches what the stack hangs on now.
    fn watch_inputs(&mut self) -> Result<(), WatchError> {
        let file = &self.options.path;
        let Some(stack) = &self.stack else {
            let files = std::iter::once(file).chain(&self.included).cloned().collect();
            self.sight.take(Inputs { files, trees: vec![] });
            let found = self.sight.look(&Heard::default(), &mut self.notices)?;
            self.pending.extend(found);
            return Ok(());
        };
        match inputs(file, &self.included, stack) {
            Ok(inputs) => self.sight.take(inputs),
            Err(error) => (self.worker.tell)(Told::Failed { cause: None, what: "watch", error: &error }),
        }
        if let Ok(host) = (self.worker.host_of)(&stack.name) {
            let instances = stack.containers.iter().flat_map(|(name, container)| instances(name, container));
            self.sight.ring_for(instances.map(|instance| host.bundle(&instance)).collect());
        }
        // Changes until now were found by the look before; what this one finds is new.
        let found = self.sight.look(&Heard::default(), &mut self.notices)?;
        let (files, trees) = self.sight.counts();
        (self.worker.tell)(Told::Watching { stack: &stack.name, files, trees });
        self.pending.extend(found);
        Ok(())
    }

    /// Brings all files of `sync` rules to containers that do not have them: those that were made, or started again, since.
    async fn bring_everything(&mut self) {
        let syncs = |stack: &Stack| {
            let mut rules = stack.containers.values().flat_map(|container| &container.watch);
            rules.any(|rule| rule.action == WatchAction::Sync)
        };
        let Some(stack) = self.stack.take_if(|stack| syncs(stack)) else { return };
        if let Some(host) = self.worker.host(&stack.name) {
            for (name, container) in &stack.containers {
                if !container.watch.iter().any(|rule| rule.action == WatchAction::Sync) {
                    continue;
                }
                for instance in instances(name, container) {
                    let running = host.running(&instance);
                    if running.is_none() || self.worker.synced.get(&instance) == running.as_ref() {
                        continue;
                    }
                    self.worker.synced.extend(running.map(|process| (instance.clone(), process)));
                    for (index, rule) in container.watch.iter().enumerate() {
                        let purpose = Purpose::Rule { container: name.clone(), index };
                        if let (WatchAction::Sync, Some(target)) = (&rule.action, &rule.target)
                            && let Some((root, changes)) = self.sight.whole(&purpose)
                        {
                            let files = Files { root: &root, target, changes: &changes, skip_same: true };
                            self.worker.sync(&host, &instance, &files, &(root.clone(), 0)).await;
                        }
                    }
                }
            }
        }
        self.stack = Some(stack);
    }

    /// Does once what was paused, now that it is quiet.
    async fn resume(&mut self) -> Result<(), WatchError> {
        for id in self.guard.resumed(Instant::now()) {
            let what = words(&id, self.stack.as_ref());
            (self.worker.tell)(Told::Resumed { what: &what });
            let JobId::Rule { container, index } = &id else {
                self.reread();
                self.go((self.options.path.clone(), 0)).await?;
                continue;
            };
            let purpose = Purpose::Rule { container: container.clone(), index: *index };
            let whole: Option<(PathBuf, Changes)> = self.sight.whole(&purpose);
            let Some((root, changes)) = whole.filter(|(_, changes)| !changes.is_empty()) else { continue };
            let due = match &self.stack {
                Some(stack) => jobs(stack, &[((purpose, root), changes)].into()),
                None => vec![],
            };
            self.work(due).await?;
        }
        Ok(())
    }

    fn look_for_drift_soon(&mut self) {
        let soon = Instant::now() + SOON;
        self.drift_at = self.drift_at.map(|at| at.min(soon));
    }

    async fn look_for_drift(&mut self) {
        let (Some(at), Some(interval)) = (self.drift_at, self.options.repair) else { return };
        if at > Instant::now() {
            return;
        }
        self.drift_at = Some(Instant::now() + interval);
        // Of a file that cannot be used the last good state is kept up.
        let Some(stack) = &self.stack else { return };
        let repairs = &mut self.repairs;
        let repaired = self.worker.repair(stack, |plan| repairs.decide(plan, Instant::now())).await;
        if repaired == Repaired::Down && !self.down {
            (self.worker.tell)(Told::Down);
        }
        self.down = repaired == Repaired::Down;
        self.drift_at = Some(Instant::now() + interval);
    }
}

/// An action in a few words.
fn words(id: &JobId, stack: Option<&Stack>) -> String {
    match id {
        JobId::Road => "the stack".into(),
        JobId::Rule { container, index } => {
            let path = |stack: &Stack| Some(stack.containers.get(container)?.watch.get(*index)?.path.clone());
            let path = stack.and_then(path).unwrap_or_default();
            format!("container {container}, on {}", short(&path))
        }
    }
}

fn short(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
