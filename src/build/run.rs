//! Carries a plan out: steps whose layer is kept from an earlier build are passed over, the others are made, each into a
//! layer of its own. What is built replaces what had its name only when it is whole.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::bootstrap::bootstrap;
use super::clear::{take_away_mount_points, take_away_unchanged_folders};
use super::copy::{CopyOrder, CopyRoot};
use super::plan::{BuildPlan, CopyOrigin, CopyStep, Doing, Planned, RunStep};
use super::record::{self, ImageRecord, StepRecord};
use super::step::{Ended, MERGED, Overlay, StepOrder, What, carry_out_apart};
use crate::model::build::{Base, BaseImage};
use crate::runtime::container::defaults;
use crate::runtime::container::user::{AccountFiles, ResolvedUser, UserText, resolve, resolve_group};
use crate::runtime::image::{
    Assembly, HistoryEntry, ImageError, ImageLayer, ImageStore, LayerSource, LocalBlobs, Packing, Reference,
    ResolvedImage, StoredImage,
};
use crate::runtime::oci::{
    OCI_VERSION, OciCapabilities, OciConfig, OciLinuxConfig, OciMount, OciNamespace, OciNamespaceKind, OciProcess,
    OciRoot, OciUser,
};
use crate::runtime::seccomp::LinuxSeccomp;

/// What happens while an image is built.
#[derive(Clone, Debug)]
pub enum BuildEvent<'a> {
    /// A step begins, or was kept; its number and how many there are.
    Step { number: usize, total: usize, text: &'a str, kept: bool },
    /// A line that a step wrote.
    Output(&'a str),
}

/// What commands of a build run with.
#[derive(Clone, Debug)]
pub struct StepRuntime {
    pub seccomp: Option<LinuxSeccomp>,
    /// Of their `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Of their `/etc/hosts`.
    pub hosts: String,
}

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("{file}:{line}: `{text}` ended with status {status}")]
    Command { file: String, line: u32, text: String, status: i32, tail: Vec<String> },
    #[error("{file}:{line}: `{text}`: {why}")]
    Step { file: String, line: u32, text: String, why: String, tail: Vec<String> },
    #[error("cannot use image `{image}`: {why}")]
    Base { image: String, why: String },
    #[error("cannot {doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the image cannot be kept")]
    Store(#[source] ImageError),
    #[error("what was built cannot be remembered")]
    Record(#[source] io::Error),
}

impl BuildError {
    /// The last lines that the failed step wrote.
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Command { tail, .. } | Self::Step { tail, .. } => tail,
            _ => &[],
        }
    }
}

/// Lines of a failed step that are told.
const TAIL: usize = 20;

/// Builds images into a store.
pub struct Builder<'a> {
    pub store: &'a ImageStore,
    /// This program, in a form that nothing in a container can write to.
    pub program: &'a OwnedFd,
    pub runtime: StepRuntime,
    /// Brings an image into the store, unpacked.
    pub bring: &'a dyn Fn(&BaseImage) -> Result<ResolvedImage, String>,
    pub watch: &'a dyn Fn(BuildEvent<'_>),
    /// Whether steps that were kept are carried out again.
    pub anew: bool,
}

/// One build under way.
struct Work<'a> {
    builder: &'a Builder<'a>,
    plan: &'a BuildPlan,
    /// Of stages that are done.
    layers: BTreeMap<usize, Vec<ImageLayer>>,
    total: usize,
    number: usize,
}

impl Builder<'_> {
    /// Builds the image of a plan, and names it `reference`.
    pub fn build(&self, plan: &BuildPlan, reference: &Reference) -> Result<StoredImage, BuildError> {
        // What is made is in use by nobody yet: until it has its name, nothing may be pruned.
        let _store = self.store.hold().map_err(BuildError::Store)?;
        let _image = self.store.hold_one(&plan.key).map_err(BuildError::Store)?;
        sweep(&self.store.root().join("tmp"));
        let steps = plan.stages.iter().flatten().flat_map(|stage| &stage.steps);
        let total = steps.filter(|step| !matches!(step.doing, Doing::Configure)).count();
        let mut work = Work { builder: self, plan, layers: BTreeMap::new(), total, number: 0 };
        let layers = work.stage(plan.target)?;
        let Some(target) = &plan.stages[plan.target] else { return Err(work.io("plan", Path::new("target"))(lost())) };
        let history = work.history(&layers);
        let assembly = Assembly { layers: &layers, config: &target.config, history: &history, created: plan.latest };
        let stored = self.store.assemble(&assembly, reference).map_err(BuildError::Store)?;
        let before = record::image(self.store, reference).map_or(0, |record| record.generation);
        let record = ImageRecord {
            reference: reference.clone(),
            key: plan.key,
            manifest: stored.manifest,
            generation: before + u64::from(self.anew),
            steps: record::steps_of(plan),
        };
        record::keep_image(self.store, &record).map_err(BuildError::Record)?;
        Ok(stored)
    }
}

fn lost() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Work<'_> {
    fn io(&self, doing: &'static str, path: &Path) -> impl Fn(io::Error) -> BuildError + use<> {
        let path = path.to_owned();
        move |source| BuildError::Io { doing, path: path.clone(), source }
    }

    /// The layers of a stage, made where they are not kept.
    fn stage(&mut self, index: usize) -> Result<Vec<ImageLayer>, BuildError> {
        if let Some(layers) = self.layers.get(&index) {
            return Ok(layers.clone());
        }
        let plan = self.plan;
        let Some(stage) = &plan.stages[index] else { return Ok(vec![]) };
        let mut layers = match &stage.base {
            Base::Scratch | Base::Bootstrap(_) => vec![],
            Base::Stage(earlier) => self.stage(*earlier)?,
            Base::Image(image) => self.base(image)?,
        };
        for step in stage.steps.iter().filter(|step| !matches!(step.doing, Doing::Configure)) {
            layers.extend(self.step(step, &layers)?);
        }
        self.layers.insert(index, layers.clone());
        Ok(layers)
    }

    fn base(&self, image: &BaseImage) -> Result<Vec<ImageLayer>, BuildError> {
        let failed = |why| BuildError::Base { image: image.written.clone(), why };
        let resolved = (self.builder.bring)(image).map_err(failed)?;
        let layers = resolved.layers.into_iter().map(|layer| match layer {
            LayerSource::Blob(layer) => Ok(layer),
            _ => Err(failed("its files are not in layers".into())),
        });
        layers.collect()
    }

    fn step(&mut self, step: &Planned, layers: &[ImageLayer]) -> Result<Option<ImageLayer>, BuildError> {
        // What it copies from comes first, so that its lines are told in order.
        let copied = match &step.doing {
            Doing::Copy(CopyStep { from: CopyOrigin::Stage(stage), .. }) => Some(*stage),
            _ => None,
        };
        let store = self.builder.store;
        let kept = if self.builder.anew { None } else { record::step(store, &step.key) };
        if let (None, Some(stage)) = (&kept, copied) {
            self.stage(stage)?;
        }
        self.number += 1;
        let (number, total) = (self.number, self.total);
        (self.builder.watch)(BuildEvent::Step { number, total, text: &step.text, kept: kept.is_some() });
        if let Some(kept) = kept {
            return Ok(kept.layer);
        }
        let layer = self.carry_out(step, layers)?;
        let record = StepRecord { layer };
        record::keep_step(store, &step.key, &record).map_err(BuildError::Record)?;
        Ok(record.layer)
    }

    /// The folders of layers, topmost first, unpacked.
    fn lower(&self, layers: &[ImageLayer], empty: &Path) -> Result<Vec<PathBuf>, BuildError> {
        if layers.is_empty() {
            return Ok(vec![empty.to_owned()]);
        }
        let image = ResolvedImage {
            id: String::new(),
            config: Default::default(),
            layers: layers.iter().cloned().map(LayerSource::Blob).collect(),
            binds: vec![],
        };
        self.builder.store.unpack(&image, &LocalBlobs).map_err(BuildError::Store)?;
        Ok(self.builder.store.layer_dirs(&image))
    }

    fn carry_out(&mut self, step: &Planned, layers: &[ImageLayer]) -> Result<Option<ImageLayer>, BuildError> {
        let place = Place::make(&self.builder.store.root().join("tmp"))
            .map_err(self.io("make a folder in", self.builder.store.root()))?;
        let lower = self.lower(layers, &place.empty())?;
        let overlay = place.overlay("", lower.clone()).map_err(self.io("prepare", &place.0))?;
        // The upper directory's owner and mode become those of the image's root.
        let root = fs::metadata(&lower[0]).map_err(self.io("look at", &lower[0]))?;
        let before = (root.mode() & 0o7777, root.uid(), root.gid());
        let same = || -> io::Result<()> {
            chown(&overlay.upper, Some(before.1), Some(before.2))?;
            fs::set_permissions(&overlay.upper, fs::Permissions::from_mode(before.0))
        };
        same().map_err(self.io("prepare", &overlay.upper))?;
        let mut tail: Vec<String> = Vec::new();
        let watch = self.builder.watch;
        let mut said = |line: &str| {
            watch(BuildEvent::Output(line));
            if tail.len() == TAIL {
                tail.remove(0);
            }
            tail.push(line.to_owned());
        };
        let ended = match &step.doing {
            Doing::Configure => Ended::Status(0),
            Doing::Bootstrap(wanted) => match bootstrap(wanted, (&overlay.upper, self.plan.latest), &mut said) {
                Ok(()) => Ended::Status(0),
                Err(why) => Ended::Failed(why),
            },
            doing => match self.order(doing, &place, &overlay) {
                Ok(what) => {
                    let order = StepOrder { parent: std::process::id(), overlay: overlay.clone(), what };
                    carry_out_apart(&place.0, (self.builder.program, &order), &mut said)
                        .map_err(self.io("carry out a step in", &place.0))?
                }
                Err(why) => Ended::Failed(why),
            },
        };
        let (file, line, text) = (self.plan.file.clone(), step.line, step.text.clone());
        match ended {
            Ended::Status(0) => {}
            Ended::Status(status) => return Err(BuildError::Command { file, line, text, status, tail }),
            Ended::Failed(why) => return Err(BuildError::Step { file, line, text, why, tail }),
        }
        if matches!(step.doing, Doing::Run(_)) {
            take_away_mount_points(&overlay.upper, &lower).map_err(self.io("clear", &overlay.upper))?;
        }
        if !matches!(step.doing, Doing::Bootstrap(_)) {
            take_away_unchanged_folders(&overlay.upper, &lower).map_err(self.io("clear", &overlay.upper))?;
        }
        let after = fs::metadata(&overlay.upper).map_err(self.io("look at", &overlay.upper))?;
        let root = (after.mode() & 0o7777, after.uid(), after.gid()) != before || layers.is_empty();
        let packing = Packing { latest: self.plan.latest, root };
        self.builder.store.pack_layer(&overlay.upper, packing).map_err(BuildError::Store)
    }

    /// What is asked of the step's process. Errors: in words.
    fn order(&self, doing: &Doing, place: &Place, overlay: &Overlay) -> Result<What, String> {
        match doing {
            Doing::Run(run) => {
                let user = find_user(&run.user, &overlay.lower)?;
                let runtime = &self.builder.runtime;
                for (name, text) in [("resolv.conf", &runtime.resolv_conf), ("hosts", &runtime.hosts)] {
                    fs::write(place.0.join(name), text).map_err(|error| format!("cannot write `{name}`: {error}"))?;
                }
                let config = Box::new(oci_config(run, &user, (runtime, &place.0)));
                Ok(What::Run { config, isolated: StepOrder::isolated(self.plan.network) })
            }
            Doing::Copy(copy) => self.copy_order(copy, place, overlay).map(|order| What::Copy(Box::new(order))),
            Doing::Folder(path) => Ok(What::Folder { path: path.clone() }),
            Doing::Configure | Doing::Bootstrap(_) => Err("is no step of a process".into()),
        }
    }

    fn copy_order(&self, copy: &CopyStep, place: &Place, overlay: &Overlay) -> Result<CopyOrder, String> {
        let said = |error: BuildError| super::step::chain(&error);
        let layered = |called: String, layers: &[ImageLayer]| -> Result<CopyRoot, String> {
            let lower = self.lower(layers, &place.empty()).map_err(said)?;
            let overlay = place.overlay("from-", lower).map_err(|error| format!("cannot prepare the copy: {error}"))?;
            Ok(CopyRoot::Layers { called, overlay })
        };
        let from = match &copy.from {
            CopyOrigin::Context { folder, ignored, digest } => {
                CopyRoot::Context { folder: folder.clone(), ignored: ignored.clone(), digest: *digest }
            }
            CopyOrigin::Stage(stage) => {
                let layers = self.layers.get(stage).ok_or("the stage that it copies from was not made")?;
                layered(format!("stage {stage}"), layers)?
            }
            CopyOrigin::Image(image) => {
                layered(format!("image `{}`", image.written), &self.base(image).map_err(said)?)?
            }
        };
        Ok(CopyOrder {
            from,
            sources: copy.sources.clone(),
            inline: copy.inline.clone(),
            to: copy.to.clone(),
            owner: copy.owner.as_ref().map(|owner| find_owner(owner, &overlay.lower)).transpose()?,
            mode: copy.mode,
            unpack: copy.unpack,
            scratch: place.0.join("scratch"),
        })
    }

    /// The history of the image: that of what it rests on, then its own steps.
    fn history(&self, layers: &[ImageLayer]) -> Vec<HistoryEntry> {
        let mut chain = vec![self.plan.target];
        while let Some(Base::Stage(earlier)) =
            chain.last().and_then(|stage| self.plan.stages[*stage].as_ref()).map(|stage| &stage.base)
        {
            chain.push(*earlier);
        }
        let created = jiff::Timestamp::from_second(self.plan.latest).unwrap_or_default().to_string();
        let own = |text: &str, empty_layer: bool| HistoryEntry {
            created: Some(created.clone()),
            created_by: text.to_owned(),
            empty_layer,
        };
        let mut steps = Vec::new();
        let mut made = 0;
        for stage in chain.iter().rev().filter_map(|stage| self.plan.stages[*stage].as_ref()) {
            for step in &stage.steps {
                let is_step = !matches!(step.doing, Doing::Configure);
                let layer =
                    is_step && record::step(self.builder.store, &step.key).is_some_and(|kept| kept.layer.is_some());
                made += usize::from(layer);
                steps.push(own(&step.text, !layer));
            }
        }
        let base = chain.last().and_then(|stage| self.plan.stages[*stage].as_ref());
        let told = base.map(|stage| stage.base_history.clone()).unwrap_or_default();
        let below = layers.len().saturating_sub(made);
        // One that does not fit its layers would be refused by others: then each layer is named.
        let fits = told.iter().filter(|entry| !entry.empty_layer).count() == below;
        let told = if fits { told } else { vec![own("base image", false); below] };
        told.into_iter().chain(steps).collect()
    }
}

/// The folder of one step; it goes with this.
struct Place(PathBuf);

impl Place {
    fn make(tmp: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        DirBuilder::new().recursive(true).mode(0o700).create(tmp)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = tmp.join(format!("{PREFIX}{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let place = Self(path);
        for name in ["empty", "rootfs"] {
            DirBuilder::new().mode(0o755).create(place.0.join(name))?;
            fs::set_permissions(place.0.join(name), fs::Permissions::from_mode(0o755))?;
        }
        Ok(place)
    }

    fn empty(&self) -> PathBuf {
        self.0.join("empty")
    }

    fn overlay(&self, prefix: &str, lower: Vec<PathBuf>) -> io::Result<Overlay> {
        let part = |name: &str| -> io::Result<PathBuf> {
            let path = self.0.join(format!("{prefix}{name}"));
            DirBuilder::new().mode(0o755).create(&path)?;
            Ok(path)
        };
        Ok(Overlay { lower, upper: part("upper")?, work: part("work")?, merged: part(MERGED)? })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PREFIX: &str = "build-";

/// Takes away the folders of builds whose process is gone.
fn sweep(tmp: &Path) {
    for entry in fs::read_dir(tmp).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn find_user(text: &str, lower: &[PathBuf]) -> Result<ResolvedUser, String> {
    let files = AccountFiles::of_layers(lower).map_err(|error| super::step::chain(&error))?;
    resolve(&UserText::parse(text), &files).map_err(|error| super::step::chain(&error))
}

/// A user without a group has the group of its number, as docker has it.
fn find_owner(text: &str, lower: &[PathBuf]) -> Result<(u32, u32), String> {
    let files = AccountFiles::of_layers(lower).map_err(|error| super::step::chain(&error))?;
    let wanted = UserText::parse(text);
    let user = resolve(&UserText { group: None, ..wanted.clone() }, &files).map_err(|error| error.to_string())?;
    let group = match &wanted.group {
        Some(group) => resolve_group(group, &files.group).map_err(|error| error.to_string())?,
        None if wanted.user.bytes().all(|byte| byte.is_ascii_digit()) => user.uid,
        None => user.gid,
    };
    Ok((user.uid, group))
}

/// The configuration of a command: docker's confinement, but for the right to gain privileges by programs of the image.
fn oci_config(run: &RunStep, user: &ResolvedUser, (runtime, folder): (&StepRuntime, &Path)) -> OciConfig {
    let capabilities: Vec<String> = defaults::CAPABILITIES.iter().map(|name| name.to_string()).collect();
    let namespaces = [OciNamespaceKind::Pid, OciNamespaceKind::Mount, OciNamespaceKind::Ipc, OciNamespaceKind::Uts];
    let mut env = run.env.clone();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home.as_deref().unwrap_or("/")));
    }
    let mut mounts = defaults::mounts();
    mounts.retain(|mount| mount.kind.as_deref() != Some("cgroup"));
    for (name, target) in MOUNTED_FILES {
        mounts.push(OciMount {
            destination: target.into(),
            kind: Some("bind".into()),
            source: Some(folder.join(name).to_string_lossy().into_owned()),
            options: ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_string).to_vec(),
            ..OciMount::default()
        });
    }
    OciConfig {
        oci_version: OCI_VERSION.into(),
        root: Some(OciRoot { path: "rootfs".into(), readonly: false }),
        process: Some(OciProcess {
            cwd: run.cwd.clone(),
            env,
            args: run.args.clone(),
            capabilities: Some(OciCapabilities {
                effective: capabilities.clone(),
                permitted: capabilities.clone(),
                bounding: capabilities,
                inheritable: vec![],
                ambient: vec![],
            }),
            no_new_privileges: false,
            user: OciUser {
                uid: user.uid,
                gid: user.gid,
                additional_gids: user.additional_gids.clone(),
                ..OciUser::default()
            },
            ..OciProcess::default()
        }),
        hostname: Some("build".into()),
        mounts,
        linux: Some(OciLinuxConfig {
            namespaces: namespaces.into_iter().map(|kind| OciNamespace { kind, path: None }).collect(),
            seccomp: runtime.seccomp.clone(),
            masked_paths: defaults::MASKED_PATHS.map(str::to_string).to_vec(),
            readonly_paths: defaults::READONLY_PATHS.map(str::to_string).to_vec(),
            ..OciLinuxConfig::default()
        }),
        ..OciConfig::default()
    }
}

/// Files that commands see and that are no part of the image.
const MOUNTED_FILES: [(&str, &str); 2] = [("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts")];
