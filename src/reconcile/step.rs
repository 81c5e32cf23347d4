//! A plan: an ordered list of steps that leaves nothing to choose to the one who executes it.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::actual::Change;
use super::exposure::Exposure;
use crate::model::{Condition, Limits, Name, OnChange, Place};
use crate::plan::{DesiredBridge, DesiredContainer, DesiredNat, ResourceId};

/// What has to be done, in an order in which it can be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub stack: Name,
    pub steps: Vec<Step>,
    /// What the file asks for and this host cannot give.
    pub notes: Vec<String>,
    /// How many resources are as they should be.
    pub unchanged: usize,
    pub exposure: Exposure,
}

/// One thing to do to one resource.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Its place in [`Plan::steps`].
    pub id: usize,
    pub resource: ResourceId,
    pub verb: Verb,
    /// In a few words: "new", "not in the file", "ended by SIGKILL".
    pub why: String,
    /// The line of the stack file that asks for it.
    pub place: Option<Place>,
    pub changes: Vec<Change>,
    /// What users of the resource will notice; `None`: nothing.
    pub interruption: Option<String>,
    /// Steps that must have succeeded before.
    pub after: Vec<usize>,
    /// What other containers must have reached before.
    pub until: Vec<(String, Condition)>,
    #[serde(skip)]
    pub action: Action,
}

/// What a step does to its resource, the least disruptive that does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    Create,
    /// Written into the kernel with nothing restarted.
    Live,
    /// A running container is told of a file's new content.
    Reload,
    /// What somebody changed outside is put back.
    Repair,
    /// The same container again.
    Restart,
    /// A new container in the place of the old.
    Replace,
    Destroy,
}

/// A step as the host carries it out.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// `shut` are links of others between which nothing is forwarded afterwards either.
    EnableForwarding {
        shut: Vec<String>,
    },
    /// `advised` are links that go on heeding router advertisements.
    EnableForwarding6 {
        shut: Vec<String>,
        advised: Vec<String>,
    },
    /// The stack's own cgroup, with the one of its monitors in it.
    CreateRoot,
    RemoveRoot,
    CreateBranch {
        name: String,
        limits: Limits,
    },
    LimitBranch {
        name: String,
        limits: Limits,
    },
    RemoveBranch {
        name: String,
    },
    CreateVolume {
        name: String,
    },
    RemoveVolume {
        name: String,
    },
    BuildImage {
        name: String,
    },
    UnpackImage {
        name: String,
    },
    CreateBridge {
        name: String,
        bridge: DesiredBridge,
    },
    /// Address, MTU, state, label and local routes are set to what they should be.
    AdjustBridge {
        name: String,
        bridge: DesiredBridge,
    },
    RemoveBridge {
        name: String,
        ifname: String,
    },
    WriteNat(DesiredNat),
    RemoveNat,
    CreateContainer(Box<DesiredContainer>),
    /// What is left of it is taken away, then it is created.
    ReplaceContainer(Box<DesiredContainer>),
    AdjustContainer(Box<AdjustContainer>),
    RemoveContainer {
        instance: String,
        links: LinksOf,
    },
}

/// What becomes of the links of a container that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinksOf {
    Deleted,
    /// Their bridges go in the same plan and take them along: the kernel is slow at deleting links, and as slow at
    /// deleting one as at deleting many at once.
    LeftToBridges,
}

/// Changes of a running container.
#[derive(Clone, Debug, PartialEq)]
pub struct AdjustContainer {
    pub desired: DesiredContainer,
    /// Whether its cgroup's limits are written.
    pub limits: bool,
    /// Whether its monitor is told of new settings.
    pub settings: bool,
    /// Whether its `/etc/hosts` is written.
    pub hosts: bool,
    /// Bridges to which its link is made, or brought up and attached.
    pub links: Vec<String>,
    /// Where the files are seen that are written anew.
    pub contents: Vec<String>,
    /// What the container is told of them then.
    pub reactions: Reactions,
}

/// What a running container is told, in this order: a restart makes all others needless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reactions {
    pub restart: bool,
    /// Signals' numbers, each once.
    pub signals: Vec<i32>,
    /// Commands, each once.
    pub commands: Vec<Vec<String>>,
}

impl Reactions {
    pub fn is_empty(&self) -> bool {
        !self.restart && self.signals.is_empty() && self.commands.is_empty()
    }

    /// In one word: that of the strongest.
    pub fn word(&self) -> &'static str {
        match (self.restart, self.signals.is_empty()) {
            (true, _) => "restart",
            (false, false) => "signal",
            (false, true) => "exec",
        }
    }

    pub fn add(&mut self, reaction: &OnChange) {
        match reaction {
            OnChange::None => {}
            OnChange::Restart => self.restart = true,
            OnChange::Signal(signal) if !self.signals.contains(signal) => self.signals.push(*signal),
            OnChange::Exec(command) if !self.commands.contains(command) => self.commands.push(command.clone()),
            OnChange::Signal(_) | OnChange::Exec(_) => {}
        }
    }
}

impl Plan {
    /// The plan less the steps at these places. What hangs on one of them must be among them.
    pub fn without(&self, left: &BTreeSet<usize>) -> Plan {
        let kept: Vec<&Step> = self.steps.iter().filter(|step| !left.contains(&step.id)).collect();
        let new_id = |id: &usize| kept.iter().position(|step| step.id == *id);
        let steps = kept
            .iter()
            .enumerate()
            .map(|(id, step)| Step { id, after: step.after.iter().filter_map(new_id).collect(), ..(*step).clone() })
            .collect();
        Plan { steps, ..self.clone() }
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Verb {
    /// What a plan writes before a step. Meaning never rests on colour alone.
    pub fn symbol(self) -> &'static str {
        match self {
            Verb::Create => "  +",
            Verb::Live => "  ~",
            Verb::Reload => "  >",
            Verb::Repair => "  !",
            Verb::Restart => "  ^",
            Verb::Replace => "-/+",
            Verb::Destroy => "  -",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verb::Create => "create",
            Verb::Live => "live",
            Verb::Reload => "reload",
            Verb::Repair => "repair",
            Verb::Restart => "restart",
            Verb::Replace => "replace",
            Verb::Destroy => "destroy",
        })
    }
}
