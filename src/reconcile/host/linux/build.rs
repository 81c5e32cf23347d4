//! Images that are built here: what they will be, whether they have to be built, and building them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::{Doing, HostError};
use super::LinuxHost;
use super::images::{Whence, kernel_version};
use crate::build::{BaseFacts, Bases, BuildError, BuildEvent, BuildPlan, Builder, StepRuntime, plan};
use crate::file::platform_args;
use crate::model::build::{BaseImage, Build, BuildNetwork};
use crate::model::{ImageSource, Stack};
use crate::reconcile::generation::KeptReference;
use crate::runtime::container::{defaults, protected_executable};
use crate::runtime::image::{
    ImageOrigin, LayerDigest, LayerSource, LocalBlobs, Packing, Reference, ResolvedImage, StoredImage, pack_folder,
};
use crate::runtime::seccomp::Profile;

/// Which images are built anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebuild {
    /// Those that are not there or of which something changed.
    #[default]
    Changed,
    /// All, and each of their steps.
    All,
}

/// Hears of each image what happens while it is built.
pub type BuildWatch = Arc<dyn Fn(&str, BuildEvent<'_>) + Send + Sync>;

/// The builds of one run.
#[derive(Clone, Default)]
pub(super) struct Builds {
    /// Images that have to be built, by the name that containers use.
    unbuilt: Arc<Mutex<BTreeMap<String, Unbuilt>>>,
    /// Those that this run has built: not once more.
    built: Arc<Mutex<HashSet<Reference>>>,
    watch: Option<BuildWatch>,
    rebuild: Rebuild,
    /// By name: what a generation that is gone back to had built.
    kept: Arc<BTreeMap<String, KeptBuild>>,
}

/// An image that was built once.
pub(super) struct KeptBuild {
    pub reference: KeptReference,
    pub id: String,
}

#[derive(Clone)]
struct Unbuilt {
    build: Build,
    why: String,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A plan with the name that its image has in the store.
struct Known {
    plan: BuildPlan,
    reference: Reference,
    /// Why it has to be built.
    why: Option<String>,
    id: String,
}

struct HostBases<'a> {
    host: &'a LinuxHost,
    file: &'a str,
}

impl Bases for HostBases<'_> {
    fn facts(&self, image: &BaseImage) -> Result<BaseFacts, String> {
        let said = |error: HostError| error.chain();
        match &image.source {
            ImageSource::Host => Err("`host:` is no image to build on: it shows the host's own files".into()),
            ImageSource::Build(build) => {
                let known = self.host.known_build(&image.written, build, self.file).map_err(said)?;
                let config = known.plan.stages[known.plan.target].as_ref().map(|stage| stage.config.clone());
                let history = match known.why {
                    Some(_) => vec![],
                    None => self.host.history_of(&known.reference),
                };
                Ok(BaseFacts { id: known.id, config: config.unwrap_or_default(), history })
            }
            ImageSource::Dir(path) => {
                let packing = Packing { latest: self.host.roots.source_date, root: true };
                let sink = crate::runtime::image::HashingWriter::new(std::io::sink());
                let packed = pack_folder(path, packing, sink).doing(|| format!("read `{}`", path.display()));
                let digest = packed.map_err(said)?.0.finish_into().1;
                let config = self.host.images.resolve(&ImageOrigin::Dir(path.clone())).doing(|| "read the folder");
                Ok(BaseFacts { id: digest.to_string(), config: config.map_err(said)?.config, history: vec![] })
            }
            _ => {
                let image = self.host.documents(image, self.file).map_err(said)?;
                let history = image.id.parse::<LayerDigest>().map(|id| self.host.images.history(&id));
                Ok(BaseFacts { id: image.id, config: image.config, history: history.unwrap_or_default() })
            }
        }
    }
}

impl LinuxHost {
    /// The same host, with other images built anew.
    pub fn with_rebuild(mut self, rebuild: Rebuild) -> Self {
        self.builds.rebuild = rebuild;
        self
    }

    /// The same host, with somebody who hears what builds do.
    pub fn with_build_watch(mut self, watch: BuildWatch) -> Self {
        self.builds.watch = Some(watch);
        self
    }

    pub(super) fn with_kept_builds(mut self, kept: BTreeMap<String, KeptBuild>) -> Self {
        self.builds.kept = Arc::new(kept);
        self
    }

    /// What a build once led to, where that is gone back to.
    pub(super) fn kept_build_reference(&self, name: &str) -> Option<KeptReference> {
        self.builds.kept.get(name).map(|kept| kept.reference.clone())
    }

    /// The image that a build once led to, where its documents are still in the store.
    fn kept_build(&self, name: &str) -> Result<Option<ResolvedImage>, HostError> {
        let Some(kept) = self.builds.kept.get(name) else { return Ok(None) };
        let found = self.images.resolve_unnamed(&kept.reference.manifest).doing(|| format!("read image `{name}`"))?;
        Ok(found.map(|image| ResolvedImage { id: kept.id.clone(), ..image }))
    }

    /// What an image of a build is, or will be.
    pub(super) fn resolve_build(&self, name: &str, build: &Build, file: &str) -> Result<ResolvedImage, HostError> {
        if let Some(image) = self.kept_build(name)? {
            return Ok(image);
        }
        let known = self.known_build(name, build, file)?;
        let mut unbuilt = held(&self.builds.unbuilt);
        match known.why {
            None => {
                unbuilt.remove(name);
                self.built_image(name, &known.reference, known.id)
            }
            Some(why) => {
                unbuilt.insert(name.to_owned(), Unbuilt { build: build.clone(), why });
                let config = known.plan.stages[known.plan.target].as_ref().map(|stage| stage.config.clone());
                Ok(ResolvedImage { id: known.id, config: config.unwrap_or_default(), layers: vec![], binds: vec![] })
            }
        }
    }

    /// Why images of this run have to be built.
    pub(super) fn unbuilt(&self) -> BTreeMap<String, String> {
        held(&self.builds.unbuilt).iter().map(|(name, unbuilt)| (name.clone(), unbuilt.why.clone())).collect()
    }

    /// Builds an image of this run.
    pub(super) fn build_image(&self, name: &str, file: &str) -> Result<(), HostError> {
        let unbuilt = held(&self.builds.unbuilt).get(name).cloned();
        let Some(Unbuilt { build, .. }) = unbuilt else { return Ok(()) };
        self.build(name, &build, file)?;
        let image = self.resolve_build(name, &build, file)?;
        self.images.unpack(&image, &LocalBlobs).doing(|| format!("unpack image `{name}`"))?;
        held(&self.known).insert(name.to_owned(), image);
        Ok(())
    }

    /// Builds the images of a stack that these names mean, or all of them: those that have to be.
    pub fn build_images(&self, stack: &Stack, names: &[String]) -> Result<Vec<(String, StoredImage)>, HostError> {
        let mut built = Vec::new();
        for (name, image) in &stack.images {
            let ImageSource::Build(build) = &image.source else { continue };
            if names.is_empty() || names.iter().any(|wanted| wanted == name.as_str()) {
                built.push((name.to_string(), self.build(name.as_str(), build, &stack.origins.file)?));
            }
        }
        Ok(built)
    }

    /// What an image of a stack is called in the store.
    pub(super) fn build_reference(&self, name: &str) -> Result<Reference, HostError> {
        let text = format!("localhost/{}/{name}:latest", self.stack);
        text.parse().doing(|| format!("name image `{name}`"))
    }

    fn known_build(&self, name: &str, build: &Build, file: &str) -> Result<Known, HostError> {
        let reference = self.build_reference(name)?;
        let bases = HostBases { host: self, file };
        let plan = plan(build, &bases, (self.roots.source_date, &platform_args()))
            .map_err(|error| HostError::Said(chain(&error)))?;
        let again = self.builds.rebuild == Rebuild::All && !held(&self.builds.built).contains(&reference);
        let (why, id) = match again {
            true => (Some("asked for".to_owned()), plan.next_image_id(&self.images, &reference)),
            false => {
                let why = plan.unbuilt(&self.images, &reference).map(|unbuilt| unbuilt.0);
                (why, plan.image_id(&self.images, &reference))
            }
        };
        Ok(Known { plan, reference, why, id })
    }

    fn built_image(&self, name: &str, reference: &Reference, id: String) -> Result<ResolvedImage, HostError> {
        let origin = ImageOrigin::Registry { reference: reference.clone() };
        let image = self.images.resolve(&origin).doing(|| format!("read image `{name}`"))?;
        Ok(ResolvedImage { id, ..image })
    }

    fn build(&self, name: &str, build: &Build, file: &str) -> Result<StoredImage, HostError> {
        let known = self.known_build(name, build, file)?;
        if known.why.is_none()
            && let Some(stored) = self.images.stored(&known.reference).doing(|| format!("read image `{name}`"))?
        {
            return Ok(stored);
        }
        let program = protected_executable().doing(|| "make a read-only view of this program")?;
        let names = defaults::CAPABILITIES.to_vec();
        let resolv_conf = match build.network {
            BuildNetwork::Host => std::fs::read_to_string(self.roots.etc.join("resolv.conf")).unwrap_or_default(),
            BuildNetwork::None => String::new(),
        };
        let runtime = StepRuntime {
            seccomp: Some(Profile::default_profile().to_oci(&names, kernel_version())),
            resolv_conf,
            hosts: "127.0.0.1 localhost\n::1 localhost\n".into(),
        };
        let builder = Builder {
            store: &self.images,
            program: &program,
            runtime,
            bring: &|image| self.bring(image, file).map_err(|error| error.chain()),
            watch: &|event| {
                if let Some(watch) = &self.builds.watch {
                    watch(name, event);
                }
            },
            anew: self.builds.rebuild == Rebuild::All,
        };
        let built = builder.build(&known.plan, &known.reference).map_err(failed)?;
        held(&self.builds.built).insert(known.reference);
        Ok(built)
    }

    /// Brings an image that a build rests on into the store, with its layers unpacked.
    fn bring(&self, image: &BaseImage, file: &str) -> Result<ResolvedImage, HostError> {
        let name = &image.written;
        match &image.source {
            ImageSource::Build(build) => {
                self.build(name, build, file)?;
                let known = self.known_build(name, build, file)?;
                self.built_image(name, &known.reference, known.id)
            }
            ImageSource::Dir(path) => {
                let packing = Packing { latest: self.roots.source_date, root: true };
                let layer = self.images.pack_layer(path, packing).doing(|| format!("pack `{}`", path.display()))?;
                let layers = layer.into_iter().map(LayerSource::Blob).collect();
                Ok(ResolvedImage { id: name.clone(), config: Default::default(), layers, binds: vec![] })
            }
            _ => {
                let resolved = self.documents(image, file)?;
                match self.reference_of(name) {
                    Some(reference) => self.pull_layers(&reference, &resolved),
                    None => self.images.unpack(&resolved, &LocalBlobs),
                }
                .doing(|| format!("unpack image `{name}`"))?;
                Ok(resolved)
            }
        }
    }

    /// An image by its documents alone.
    fn documents(&self, image: &BaseImage, file: &str) -> Result<ResolvedImage, HostError> {
        match Whence::of(&image.source) {
            Whence::Origin(origin) => self.read_image(&image.written, &origin),
            Whence::Reference(reference) => {
                let origin = self.refer(&image.written, (reference, image.pull), file)?;
                self.read_image(&image.written, &origin)
            }
            Whence::Build(build) => self.resolve_build(&image.written, build, file),
        }
    }

    fn history_of(&self, reference: &Reference) -> Vec<crate::runtime::image::HistoryEntry> {
        let stored = self.images.stored(reference).ok().flatten();
        let image = stored.and_then(|stored| self.images.stored_documents(&stored).ok());
        image.map(|image| self.images.history(&image.id)).unwrap_or_default()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn failed(error: BuildError) -> HostError {
    HostError::Condition { message: chain(&error), tail: error.tail().to_vec() }
}
