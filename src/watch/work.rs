//! What the loop has done: the road, files, words to containers. Every outcome is told, none ends the watch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::decide::{Job, Work};
use super::drift::Decision;
use super::run::Stop;
use super::tree::Changes;
use crate::file::Diagnostics;
use crate::model::{Name, Stack};
use crate::reconcile::{
    Action, Actor, Event, HostError, LinuxHost, LockError, Looked, Plan, ProcessId, Reactions, RoadError, StackLock,
    SyncWish, Synced, Travelled, Wish, look, travel,
};

/// How often a lock is tried that another run holds.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What something was done for: a path, and how many others.
pub type Cause = (PathBuf, usize);

/// What there is to tell of a watch.
pub enum Told<'a> {
    /// It has begun, or goes on with other inputs.
    Watching {
        stack: &'a Name,
        files: usize,
        trees: usize,
    },
    /// The stack file cannot be used as it is now.
    Broken(&'a Diagnostics),
    /// It can again.
    Mended,
    /// It is about another stack now, which this watch does not follow.
    Renamed {
        to: &'a Name,
    },
    /// Another run works on the stack, and is waited for.
    Waiting,
    /// A plan is about to be carried out.
    Plan {
        cause: &'a Cause,
        plan: &'a Plan,
    },
    Step(&'a Cause, &'a Event<'a>),
    /// The road's end. `left`: what is still to do after all steps succeeded.
    Arrived {
        cause: &'a Cause,
        left: &'a Plan,
        took: Duration,
    },
    Synced {
        cause: &'a Cause,
        instance: &'a str,
        synced: Synced,
        took: Duration,
    },
    Reacted {
        cause: &'a Cause,
        instance: &'a str,
        reactions: &'a Reactions,
        took: Duration,
    },
    Failed {
        cause: Option<&'a Cause>,
        what: &'a str,
        error: &'a (dyn std::error::Error + 'static),
    },
    /// An action provokes itself.
    Paused {
        what: &'a str,
        echoes: u32,
    },
    Resumed {
        what: &'a str,
    },
    /// A resource that does not stay repaired is left alone for so long.
    LeftAlone {
        resource: &'a str,
        pause: Duration,
    },
    /// Somebody took the stack down.
    Down,
}

/// Who has it done.
pub(super) struct Worker<'a> {
    pub file: &'a Path,
    pub host_of: &'a dyn Fn(&Name) -> Result<LinuxHost, HostError>,
    pub tell: &'a mut dyn FnMut(Told<'_>),
    pub stop: Stop,
    /// The processes that rules' files were brought to.
    pub synced: BTreeMap<String, ProcessId>,
}

impl Worker<'_> {
    fn failed(&mut self, cause: Option<&Cause>, what: &str, error: &(dyn std::error::Error + 'static)) {
        (self.tell)(Told::Failed { cause, what, error });
    }

    /// A host that knows nothing of earlier roads: images are read anew.
    pub(super) fn host(&mut self, stack: &Name) -> Option<LinuxHost> {
        match (self.host_of)(stack) {
            Ok(host) => Some(host.with_actor(Actor::Watch)),
            Err(error) => {
                self.failed(None, "use this host", &error);
                None
            }
        }
    }

    /// Waits for other runs to end.
    async fn lock(&mut self, host: &LinuxHost) -> Option<StackLock> {
        let mut said = false;
        loop {
            match host.lock() {
                Ok(lock) => return Some(lock),
                Err(LockError::Held { .. }) => {
                    if !said {
                        (self.tell)(Told::Waiting);
                        said = true;
                    }
                    tokio::time::sleep(LOCK_PAUSE).await;
                    if *self.stop.borrow() {
                        return None;
                    }
                }
                Err(error) => {
                    self.failed(None, "lock the stack", &error);
                    return None;
                }
            }
        }
    }

    /// Goes the road. Gives the instances that were made anew.
    pub(super) async fn road(&mut self, stack: &Stack, cause: &Cause) -> Vec<String> {
        let begun = Instant::now();
        let Some(host) = self.host(&stack.name) else { return vec![] };
        let Some(_lock) = self.lock(&host).await else { return vec![] };
        let wish = Wish::Stack(stack);
        let looked = match look(&host, &wish).await {
            Ok(looked) => looked,
            Err(error) => {
                self.failed(Some(cause), "look at the host", &error);
                return vec![];
            }
        };
        let fresh = made_anew(&looked.plan);
        (self.tell)(Told::Plan { cause, plan: &looked.plan });
        if let Some(travelled) = self.travel(&host, &wish, looked, cause).await {
            (self.tell)(Told::Arrived { cause, left: &travelled.left, took: begun.elapsed() });
        }
        if let Err(error) = host.write_image_lock(self.file) {
            self.failed(Some(cause), "write the images' lock", &error);
        }
        fresh
    }

    async fn travel(&mut self, host: &LinuxHost, wish: &Wish<'_>, looked: Looked, cause: &Cause) -> Option<Travelled> {
        let mut stop = self.stop.clone();
        let interrupt = async {
            if stop.wait_for(|stop| *stop).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let tell = &mut self.tell;
        let travelled: Result<Travelled, RoadError> =
            travel(host, wish, looked, interrupt, |event| tell(Told::Step(cause, &event))).await;
        match travelled {
            Ok(travelled) => Some(travelled),
            Err(error) => {
                self.failed(Some(cause), "look at the host again", &error);
                None
            }
        }
    }

    /// Looks for what strangers changed and puts back what `decide` picks. A run of somebody else's is not disturbed.
    pub(super) async fn repair(&mut self, stack: &Stack, decide: impl FnOnce(&Plan) -> Decision) -> Repaired {
        let Some(host) = self.host(&stack.name) else { return Repaired::Nothing };
        let host = host.with_actor(Actor::Repair);
        let Ok(_lock) = host.lock() else { return Repaired::Nothing };
        let (begun, cause) = (Instant::now(), (PathBuf::new(), 0));
        let wish = Wish::Stack(stack);
        let mut looked = match look(&host, &wish).await {
            Ok(looked) => looked,
            Err(error) => {
                self.failed(None, "look for drift", &error);
                return Repaired::Nothing;
            }
        };
        if looked.actual.containers.is_empty() && !looked.desired.containers.is_empty() {
            return Repaired::Down;
        }
        let decision = decide(&looked.plan);
        for (resource, pause) in &decision.paused {
            host.note(resource, "paused", &format!("does not stay repaired; left alone for {pause:?}"));
            (self.tell)(Told::LeftAlone { resource, pause: *pause });
        }
        let Some(plan) = decision.plan else { return Repaired::Nothing };
        looked.plan = plan;
        (self.tell)(Told::Plan { cause: &cause, plan: &looked.plan });
        if let Some(travelled) = self.travel(&host, &wish, looked, &cause).await {
            (self.tell)(Told::Arrived { cause: &cause, left: &travelled.left, took: begun.elapsed() });
        }
        Repaired::Something
    }

    /// Brings files to a container, or tells it of a change.
    pub(super) async fn job(&mut self, host: &LinuxHost, job: &Job) {
        match &job.work {
            Work::Road => {}
            Work::Sync { instances, root, target, changes } => {
                for instance in instances {
                    let files = Files { root, target, changes, skip_same: false };
                    self.sync(host, instance, &files, &job.cause).await;
                }
            }
            Work::Tell { instances, reactions } => {
                for instance in instances {
                    self.react(host, instance, reactions, &job.cause).await;
                }
            }
        }
    }

    pub(super) async fn sync(&mut self, host: &LinuxHost, instance: &str, files: &Files<'_>, cause: &Cause) {
        let begun = Instant::now();
        let wish = SyncWish {
            root: files.root.to_path_buf(),
            target: files.target.into(),
            changed: files.changes.changed.clone(),
            removed: files.changes.removed.clone(),
            skip_same: files.skip_same,
        };
        match host.sync(instance, wish).await {
            // It gets everything when it runs again.
            Ok(None) => drop(self.synced.remove(instance)),
            Ok(Some(synced)) if synced == Synced::default() => {}
            Ok(Some(synced)) => {
                let why = format!("{} files of {} brought to {}", synced.copied, files.root.display(), files.target);
                host.note(&format!("container {instance}"), "sync", &why);
                (self.tell)(Told::Synced { cause, instance, synced, took: begun.elapsed() });
            }
            Err(error) => self.failed(Some(cause), &format!("sync {instance}"), &error),
        }
    }

    async fn react(&mut self, host: &LinuxHost, instance: &str, reactions: &Reactions, cause: &Cause) {
        let begun = Instant::now();
        if host.running(instance).is_none() {
            return;
        }
        let why = format!("{} changed", cause.0.display());
        match host.tell(instance, reactions).await {
            Ok(()) => {
                host.note(&format!("container {instance}"), reactions.word(), &why);
                (self.tell)(Told::Reacted { cause, instance, reactions, took: begun.elapsed() });
            }
            Err(error) => self.failed(Some(cause), &format!("tell {instance}"), &error),
        }
    }
}

/// Files of a rule on their way to a container.
pub(super) struct Files<'a> {
    pub root: &'a Path,
    pub target: &'a str,
    pub changes: &'a Changes,
    pub skip_same: bool,
}

/// What came of a look for drift.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repaired {
    Nothing,
    Something,
    /// Nothing is left of the stack: somebody took it down, which is no drift.
    Down,
}

fn made_anew(plan: &Plan) -> Vec<String> {
    let made = |action: &Action| matches!(action, Action::CreateContainer(_) | Action::ReplaceContainer(_));
    plan.steps.iter().filter(|step| made(&step.action)).map(|step| step.resource.name.clone()).collect()
}
