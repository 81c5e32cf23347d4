//! Keeps what was brought up as a generation, and reads the files of a kept one in the place of those that are there now.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LinuxHost;
use super::build::KeptBuild;
use super::container::read_bounded;
use crate::model::{ImageSource, ImageUse, Seccomp, Stack};
use crate::reconcile::actual::Actual;
use crate::reconcile::generation::{
    Change, Content, Draft, Generation, Generations, KeptFile, KeptImage, KeptReference, KeptVariable, Source,
};
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::image::{ImageError, LayerDigest, Reference, StoredImage};

/// What a stack is made from, as it was read.
pub struct Given<'a> {
    pub stack: &'a Stack,
    /// The stack file, absolute.
    pub file: PathBuf,
    /// It and what was read for it, by absolute path.
    pub read: &'a BTreeMap<PathBuf, Vec<u8>>,
    /// Variables that it uses: name, value, and whether it is called like a secret.
    pub variables: Vec<(&'a str, &'a str, bool)>,
    pub profiles: &'a [String],
}

/// What was brought up.
pub struct Brought<'a> {
    pub given: Given<'a>,
    pub actual: &'a Actual,
    pub changes: Vec<Change>,
    pub who: String,
    /// The generation that this went back to.
    pub from: Option<u32>,
    /// So many generations are left.
    pub most: usize,
}

/// Where files are read in the place of where the stack file says.
#[derive(Clone, Debug, Default)]
pub(super) struct Elsewhere(Arc<BTreeMap<PathBuf, PathBuf>>);

impl Elsewhere {
    pub fn of<'a>(&'a self, path: &'a Path) -> &'a Path {
        self.0.get(path).map_or(path, PathBuf::as_path)
    }
}

impl LinuxHost {
    /// The generations of this stack.
    pub fn generations(&self) -> Generations {
        Generations::of(&self.roots.data, self.stack.as_str())
    }

    /// The same host, but what a generation keeps is read from there, and what it had built is not built again.
    pub fn with_files_of(self, generation: &Generation) -> Self {
        let elsewhere = Elsewhere(Arc::new(self.generations().places(generation)));
        let built = generation.source.images.iter().filter_map(|(name, image)| {
            Some((name.clone(), KeptBuild { reference: image.built.clone()?, id: image.id.clone() }))
        });
        let built = built.collect();
        Self { elsewhere, ..self }.with_kept_builds(built)
    }

    /// Keeps what this run has brought up; the generation's number, unless it is what the newest one is.
    pub fn keep_generation(&self, brought: Brought<'_>) -> Result<Option<u32>, HostError> {
        let (source, contents) = self.source(&brought.given)?;
        let draft = Draft {
            who: brought.who,
            from: brought.from,
            changes: brought.changes,
            source,
            containers: labels(brought.actual),
            contents,
        };
        self.generations().keep(draft, brought.most).doing(|| "keep this generation")
    }

    /// A file's content, hashed as generations have it.
    pub fn hash_of(&self, path: &Path) -> Result<String, HostError> {
        self.hash_content(path)
    }

    /// The image that a generation knows a reference to have led to, if its documents are still here: it gets its name
    /// back, and nobody has to be asked.
    pub(super) fn recall(
        &self,
        reference: &Reference,
        resolved: LayerDigest,
    ) -> Result<Option<StoredImage>, ImageError> {
        let generations = self.generations().list().unwrap_or_default();
        let references = generations.iter().rev().flat_map(|one| one.source.images.values()).flat_map(|i| &i.registry);
        let known = |kept: &&KeptReference| (&kept.reference, kept.resolved) == (reference, resolved);
        let manifest = references.into_iter().find(known).map_or(resolved, |kept| kept.manifest);
        self.images.name_again(reference, &manifest, resolved)
    }

    /// What a stack is made from: digests of all that was read for it. It must have been resolved in this run.
    pub fn source_of(&self, given: &Given<'_>) -> Result<Source, HostError> {
        Ok(self.source(given)?.0)
    }

    fn source(&self, given: &Given<'_>) -> Result<(Source, BTreeMap<PathBuf, Content>), HostError> {
        let variables = given.variables.iter().map(|(name, value, secret)| {
            let kept = match secret {
                true => KeptVariable::Hash(self.hash_bytes(value.as_bytes())?),
                false => KeptVariable::Value((*value).to_owned()),
            };
            Ok(((*name).to_owned(), kept))
        });
        let variables = variables.collect::<Result<_, HostError>>()?;
        let mut files = BTreeMap::new();
        for secret in given.stack.containers.values().flat_map(|container| &container.secrets) {
            let hash = self.hash_content(&secret.file)?;
            files.insert(secret.file.clone(), KeptFile { hash, kept: None });
        }
        let mut contents = self.contents(given)?;
        // What is a secret for one container is not kept for another.
        contents.retain(|path, _| !files.contains_key(path));
        for (path, content) in &contents {
            files.insert(path.clone(), KeptFile { hash: self.hash_bytes(&content.bytes)?, kept: None });
        }
        let mut images = BTreeMap::new();
        for container in given.stack.containers.values() {
            if let Some(image) = self.kept_image(&container.image)? {
                images.insert(container.image.written.clone(), image);
            }
        }
        let (file, profiles) = (given.file.clone(), given.profiles.to_vec());
        Ok((Source { file, profiles, files, variables, images }, contents))
    }

    /// The contents of all files that are read for a stack, but for its secrets.
    fn contents(&self, given: &Given<'_>) -> Result<BTreeMap<PathBuf, Content>, HostError> {
        let mut contents = BTreeMap::new();
        for (path, bytes) in given.read {
            contents.insert(path.clone(), Content { bytes: bytes.clone(), access: access(path) });
        }
        for container in given.stack.containers.values() {
            let profile = match &container.seccomp {
                Seccomp::File(path) => Some(path),
                _ => None,
            };
            for path in container.files.iter().map(|file| &file.file).chain(profile) {
                let from = self.elsewhere.of(path);
                let bytes = read_bounded(from).doing(|| format!("read `{}`", from.display()))?;
                contents.insert(path.clone(), Content { bytes, access: access(from) });
            }
        }
        Ok(contents)
    }

    /// `None`: it is not there yet, and has to be built.
    fn kept_image(&self, image: &ImageUse) -> Result<Option<KeptImage>, HostError> {
        let name = &image.written;
        let Ok(known) = self.image_for(name) else { return Ok(None) };
        let built = matches!(image.source, ImageSource::Build(_));
        let reference = match built {
            true => Some(self.build_reference(name)?),
            false => self.reference_of(name),
        };
        let stored = match reference {
            Some(reference) => self.images.stored(&reference).doing(|| format!("read image `{name}`"))?,
            None => None,
        };
        let stored = stored.map(|stored| KeptReference {
            reference: stored.reference,
            resolved: stored.resolved,
            manifest: stored.manifest,
        });
        let (built, registry) = match built {
            true => (self.kept_build_reference(name).or(stored), None),
            false => (None, stored),
        };
        Ok(Some(KeptImage { id: known.id.clone(), layers: self.images.layer_dirs(&known), registry, built }))
    }
}

/// The digests in the labels of the containers that there are.
pub fn labels(actual: &Actual) -> BTreeMap<String, String> {
    let labels = actual.containers.iter();
    labels.filter_map(|(instance, found)| Some((instance.clone(), found.label.as_ref()?.digest.clone()))).collect()
}

/// Of one that is gone meanwhile: root's alone.
fn access(path: &Path) -> (u32, u32, u32) {
    fs::metadata(path).map_or((0, 0, 0o600), |held| (held.uid(), held.gid(), held.mode() & 0o777))
}
