//! The host that this program runs on. Each file does the effects of one kind of resource; none of them decides.

mod build;
mod bundle;
mod capacity;
mod cgroups;
mod container;
mod copies;
mod exec;
mod generations;
mod images;
mod lock;
mod nat;
mod network;
mod observe;
mod orders;
mod registries;
mod resolver;
mod roll;
mod sync;
mod usage;
mod wait;
mod why;

use std::collections::BTreeMap;
use std::error::Error;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::OnceCell;

use super::{Doing, Host, HostError};
use crate::model::{Condition, Limits, Name, Stack};
use crate::monitor::client::Launcher;
use crate::monitor::events::{Actor, EventLog, EventRecord};
use crate::monitor::log::reader::{From, LogReader};
use crate::plan::{DesiredNat, Resolved, generations};
use crate::reconcile::actual::{Actual, KernelLimits};
use crate::reconcile::diff::HostFacts;
use crate::reconcile::execute::Event;
use crate::reconcile::step::{Action, LinksOf};
use crate::runtime::cgroup::Hierarchies;
use crate::runtime::image::registry::{RegistryClient, RegistryOptions};
use crate::runtime::image::{ImageStore, LayerDigest, Reference};
use crate::runtime::net::{Links, Nft, Sysctls};

use build::Builds;
pub use build::{BuildWatch, Rebuild};
pub use capacity::capacity;
pub use exec::{ExecFailure, ExecWish};
use generations::Elsewhere;
pub use generations::{Brought, Given, labels};
use images::KnownImage;
pub use lock::{LockError, StackLock};
pub use registries::Renewal;
pub use sync::{SyncWish, Synced};
pub use usage::Usage;
pub use wait::Awaited;

/// Where things are on this host; other places in tests.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Images, volumes, writable layers and logs.
    pub data: PathBuf,
    /// Bundles; a tmpfs.
    pub run: PathBuf,
    /// The branch of the cgroup tree that holds all stacks.
    pub cgroup: String,
    pub sys_fs_cgroup: PathBuf,
    pub etc: PathBuf,
    pub registry: RegistryOptions,
    /// Seconds since 1970: no file of an image that is built is younger, so that the same content gives the same image.
    pub source_date: i64,
}

impl Default for Roots {
    fn default() -> Self {
        Roots {
            data: "/var/lib/stack".into(),
            run: "/run/stack".into(),
            cgroup: "stack".into(),
            sys_fs_cgroup: "/sys/fs/cgroup".into(),
            etc: "/etc".into(),
            registry: RegistryOptions::default(),
            source_date: SOURCE_DATE,
        }
    }
}

/// 1980, the first year that zip archives know: unpackers of all formats take it.
const SOURCE_DATE: i64 = 315_532_800;

/// This host, for one stack. Clones share everything.
#[derive(Clone)]
pub struct LinuxHost {
    roots: Arc<Roots>,
    stack: Name,
    hierarchies: Arc<Hierarchies>,
    images: Arc<ImageStore>,
    /// Images that were resolved, by the name that containers use.
    known: Arc<Mutex<BTreeMap<String, KnownImage>>>,
    /// The references among them, and what they led to.
    referred: Arc<Mutex<BTreeMap<String, (Reference, LayerDigest)>>>,
    registries: Arc<RegistryClient>,
    renewal: Renewal,
    builds: Builds,
    /// The stack file of the last look, for messages and for its lock file.
    file: Arc<Mutex<String>>,
    actor: Actor,
    /// Where files are read that a generation keeps.
    elsewhere: Elsewhere,
    events: EventLog,
    links: Arc<OnceCell<Links>>,
    launcher: Arc<OnceCell<Launcher>>,
    /// Links that wait to be deleted together, each with who waits for it.
    doomed: Arc<Mutex<Vec<Doomed>>>,
    deleting: Arc<tokio::sync::Mutex<()>>,
    /// One at a time tells the resolver of other names.
    naming: Arc<tokio::sync::Mutex<()>>,
    /// One socket for the whole run: after a transaction that deleted something, the kernel takes some 10 ms to let a
    /// netfilter socket be closed. It is let go of last.
    nft: Arc<OnceLock<Nft>>,
    sysctls: Sysctls,
}

/// Links to delete, and where to say how it went; what went wrong, in words.
type Doomed = (Vec<u32>, tokio::sync::oneshot::Sender<Option<String>>);

impl LinuxHost {
    /// Finds out how this host does things. Changes nothing.
    pub fn new(roots: Roots, stack: Name) -> Result<Self, HostError> {
        let hierarchies = Hierarchies::probe(&roots.sys_fs_cgroup).doing(|| "use control groups")?;
        Ok(LinuxHost {
            images: Arc::new(ImageStore::open(&roots.data)),
            registries: Arc::new(RegistryClient::new(roots.registry.clone())),
            referred: Arc::default(),
            renewal: Renewal::AsWritten,
            builds: Builds::default(),
            file: Arc::default(),
            actor: Actor::Up,
            elsewhere: Elsewhere::default(),
            events: EventLog::of(&roots.data, stack.as_str()),
            roots: Arc::new(roots),
            stack,
            hierarchies: Arc::new(hierarchies),
            known: Arc::default(),
            links: Arc::default(),
            launcher: Arc::default(),
            doomed: Arc::default(),
            deleting: Arc::default(),
            naming: Arc::default(),
            nft: Arc::default(),
            sysctls: Sysctls::default(),
        })
    }

    /// Says in the event log who works.
    pub fn with_actor(self, actor: Actor) -> Self {
        LinuxHost { actor, ..self }
    }

    /// What was done to this stack.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// Keeps an event that is no step of a plan.
    pub fn note(&self, resource: &str, verb: &str, why: &str) {
        self.keep(&EventRecord::now(self.actor, resource, verb, why));
    }

    /// A full disk must not keep a stack from being put right.
    fn keep(&self, record: &EventRecord) {
        let _ = self.events.append(record);
    }

    /// Keeps other runs from this stack until the lock is dropped.
    pub fn lock(&self) -> Result<StackLock, LockError> {
        StackLock::take(&self.stack_folder(), self.stack.as_str())
    }

    /// The stacks that have a folder below `run`.
    pub fn stacks(run: &Path) -> Vec<Name> {
        let mut names: Vec<Name> = folder_names(run).into_iter().filter_map(|name| Name::new(name).ok()).collect();
        names.sort();
        names
    }

    fn stack_folder(&self) -> PathBuf {
        self.roots.run.join(self.stack.as_str())
    }

    /// An instance's bundle.
    pub fn bundle(&self, instance: &str) -> PathBuf {
        self.stack_folder().join(instance)
    }

    /// The instance that takes a place: the one that people are led to where there are two, else the one that runs.
    pub fn instance_in(&self, slot: &str) -> String {
        let told = orders::Orders::of(&self.stack_folder()).load();
        let leads_to = |name: &String| told.as_ref().is_some_and(|told| told.leads_to(name));
        let rank = |name: &String| (self.monitor_of(name).is_ok(), leads_to(name), self.bundle(name).exists());
        // Of equals the last, which is to be the place's own name.
        generations(slot).into_iter().rev().max_by_key(rank).unwrap_or_else(|| slot.to_owned())
    }

    /// Where an instance's output is kept. It outlives the instance.
    pub fn log_folder(&self, instance: &str) -> PathBuf {
        self.roots.data.join("logs").join(self.stack.as_str()).join(instance)
    }

    fn volume_folder(&self, volume: &str) -> PathBuf {
        self.roots.data.join("volumes").join(self.stack.as_str()).join(volume)
    }

    /// An instance's writable layer.
    fn writable_folder(&self, instance: &str) -> PathBuf {
        self.roots.data.join("containers").join(self.stack.as_str()).join(instance)
    }

    async fn links(&self) -> Result<&Links, HostError> {
        self.links.get_or_try_init(|| async { Links::connect().doing(|| "talk to the kernel of links") }).await
    }

    /// The last lines that an instance wrote; for messages, so a log that cannot be read has none.
    fn last_lines(&self, instance: &str, count: usize) -> Vec<String> {
        let Ok(mut reader) = LogReader::open(&self.log_folder(instance), From::Last(count)) else { return vec![] };
        let mut lines = Vec::new();
        while let Ok(Some(record)) = reader.next_record() {
            lines.push(String::from_utf8_lossy(&record.text).into_owned());
        }
        lines
    }

    /// Runs a blocking step on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LinuxHost) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, HostError> {
        let host = self.clone();
        match tokio::task::spawn_blocking(move || work(&host)).await {
            Ok(result) => result,
            Err(error) => Err(HostError::Doing { doing: "finish a step".into(), source: Box::new(error) }),
        }
    }
}

impl HostFacts for LinuxHost {
    fn kernel_limits(&self, limits: &Limits) -> KernelLimits {
        self.limits_as_held(limits)
    }

    fn nat_parts(&self, nat: &DesiredNat) -> BTreeMap<String, String> {
        nat::parts_wanted(nat)
    }
}

impl Host for LinuxHost {
    fn resolve(&self, stack: &Stack) -> Result<Resolved, HostError> {
        self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone_from(&stack.origins.file);
        self.resolve_files(stack)
    }

    async fn observe(&self, stack: &Name) -> Result<Actual, HostError> {
        debug_assert_eq!(*stack, self.stack);
        self.look().await
    }

    async fn apply(&self, action: &Action) -> Result<(), HostError> {
        let owned = action.clone();
        match owned {
            Action::EnableForwarding { shut } => self.enable_forwarding(&shut),
            Action::EnableForwarding6 { shut, advised } => self.enable_forwarding6(&shut, &advised),
            Action::CreateRoot => self.create_root_cgroup(),
            Action::RemoveRoot => self.blocking(|host| host.remove_root_cgroup()).await,
            Action::CreateBranch { name, limits } => self.create_branch(&name, &limits),
            Action::LimitBranch { name, limits } => match self.open_cgroup(&self.branch_path(&name)?)? {
                Some(group) => self.blocking(move |host| host.write_limits(&group, &limits)).await,
                None => self.create_branch(&name, &limits),
            },
            Action::RemoveBranch { name } => {
                self.blocking(move |host| {
                    let path = host.branch_path(&name)?;
                    host.hierarchies.remove_tree(&path).doing(|| format!("remove cgroup `{name}`"))
                })
                .await
            }
            Action::CreateVolume { name } => self.create_volume(&name),
            Action::RemoveVolume { name } => self.blocking(move |host| host.remove_volume(&name)).await,
            Action::BuildImage { name } => {
                let file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                self.blocking(move |host| host.build_image(&name, &file)).await
            }
            Action::UnpackImage { name } => self.blocking(move |host| host.unpack(&name)).await,
            Action::CreateBridge { name, bridge } => self.create_bridge(&name, &bridge).await,
            Action::AdjustBridge { name, bridge } => self.adjust_bridge(&name, &bridge).await,
            Action::RemoveBridge { name, ifname } => self.remove_bridge(&name, &ifname).await,
            Action::WriteNat(nat) => self.blocking(move |host| host.write_nat(&nat)).await,
            Action::RemoveNat => self.blocking(|host| host.remove_nat()).await,
            Action::RunResolver(zone) => self.run_resolver(zone).await,
            Action::RemoveResolver => self.remove_resolver().await,
            Action::CreateContainer(desired) => self.create_container(*desired).await,
            Action::ReplaceContainer(desired) => {
                self.remove_container(&desired.instance, LinksOf::Deleted).await?;
                self.create_container(*desired).await
            }
            Action::RollContainer(roll) => self.roll(*roll).await,
            Action::AdjustContainer(adjust) => self.adjust_container(*adjust).await,
            Action::RemoveContainer { instance, links } => self.remove_container(&instance, links).await,
        }
    }

    fn record(&self, event: &Event<'_>) {
        let (step, took, error) = match event {
            Event::Started(_) | Event::Skipped(..) => return,
            Event::Done(step, took) => (step, Some(took.as_millis() as u64), None),
            Event::Failed(step, error) => (step, None, Some(error.chain())),
        };
        let mut record = EventRecord::now(self.actor, step.resource.to_string(), step.verb.to_string(), &step.why);
        record.fields = step.changes.iter().map(|change| change.field.clone()).collect();
        record.place = step.place.as_ref().map(ToString::to_string);
        (record.took_ms, record.error) = (took, error);
        self.keep(&record);
    }

    async fn reached(&self, instance: &str, condition: Condition) -> Result<(), HostError> {
        self.wait_until(instance, condition).await
    }
}

/// Runs as the helper that a monitor calls; see [`orders::turn`].
pub fn turn(bundle: &Path, leaves: bool, netns: OwnedFd) -> ExitCode {
    orders::turn(bundle, leaves, netns)
}

/// The names in a folder but for hidden ones; none where there is no such folder.
fn folder_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Passes over an error that says that all is well.
fn unless<E: Error>(result: Result<(), E>, is_well: impl Fn(&E) -> bool) -> Result<(), E> {
    match result {
        Err(error) if is_well(&error) => Ok(()),
        other => other,
    }
}
