//! What is remembered of builds: the layer of each step by the step's key, and what each image was last built from. All
//! of it may be lost: then steps are carried out again.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::plan::{BuildPlan, Doing};
use crate::runtime::image::{ImageLayer, ImageStore, LayerDigest, Reference};

/// What a step came to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StepRecord {
    /// `None`: it changed nothing.
    pub layer: Option<ImageLayer>,
}

/// What an image was last built from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub reference: Reference,
    pub key: LayerDigest,
    pub manifest: LayerDigest,
    /// How often it was built anew on purpose.
    pub generation: u64,
    pub steps: Vec<(String, LayerDigest)>,
}

/// Why an image has to be built, in a few words: `COPY src /src changed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbuilt(pub String);

fn folder(store: &ImageStore) -> PathBuf {
    store.root().join("cache/build")
}

fn read<T: DeserializeOwned>(path: PathBuf) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write<T: Serialize>(store: &ImageStore, name: &str, value: &T) -> std::io::Result<()> {
    fs::create_dir_all(folder(store))?;
    let aside = folder(store).join(format!("{name}.{}.new", std::process::id()));
    let mut file = fs::File::create(&aside)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    fs::rename(&aside, folder(store).join(name))
}

/// The layer of a step, if it was carried out before and the layer's archive is still there.
pub(super) fn step(store: &ImageStore, key: &LayerDigest) -> Option<StepRecord> {
    let record: StepRecord = read(folder(store).join(key.hex()))?;
    let there = |layer: &ImageLayer| {
        layer.digest.and_then(|digest| store.blob(&digest)).is_some_and(|blob| blob.size == layer.blob.size)
    };
    record.layer.as_ref().is_none_or(there).then_some(record)
}

pub(super) fn keep_step(store: &ImageStore, key: &LayerDigest, record: &StepRecord) -> std::io::Result<()> {
    write(store, &key.hex(), record)
}

fn image_name(reference: &Reference) -> String {
    format!("image-{}", LayerDigest::of(reference.to_string().as_bytes()).hex())
}

pub(super) fn image(store: &ImageStore, reference: &Reference) -> Option<ImageRecord> {
    read::<ImageRecord>(folder(store).join(image_name(reference))).filter(|record| record.reference == *reference)
}

pub(super) fn keep_image(store: &ImageStore, record: &ImageRecord) -> std::io::Result<()> {
    write(store, &image_name(&record.reference), record)
}

/// The steps of a plan in the order of its stages, with their keys.
pub(super) fn steps_of(plan: &BuildPlan) -> Vec<(String, LayerDigest)> {
    let stages = plan.stages.iter().flatten();
    let steps = stages.flat_map(|stage| &stage.steps).filter(|step| !matches!(step.doing, Doing::Configure));
    steps.map(|step| (step.text.clone(), step.key)).collect()
}

impl BuildPlan {
    /// What the image of this plan is known by: its key, and how often it was built anew on purpose.
    pub fn image_id(&self, store: &ImageStore, reference: &Reference) -> String {
        let generation = image(store, reference).map_or(0, |record| record.generation);
        self.id_of(generation)
    }

    /// As [`image_id`](Self::image_id), after one more build on purpose.
    pub fn next_image_id(&self, store: &ImageStore, reference: &Reference) -> String {
        let generation = image(store, reference).map_or(0, |record| record.generation);
        self.id_of(generation + 1)
    }

    fn id_of(&self, generation: u64) -> String {
        match generation {
            0 => format!("build:{}", self.key.hex()),
            generation => format!("build:{}-{generation}", self.key.hex()),
        }
    }

    /// Why the image has to be built; `None`: it is there.
    pub fn unbuilt(&self, store: &ImageStore, reference: &Reference) -> Option<Unbuilt> {
        let Some(record) = image(store, reference) else { return Some(Unbuilt("not built yet".into())) };
        let stored = store.stored(reference).ok().flatten();
        if record.key == self.key {
            let there = stored.is_some_and(|image| image.manifest == record.manifest);
            let whole = || super::record::whole(store, reference);
            return (!there || !whole()).then(|| Unbuilt("it was taken out of the store".into()));
        }
        let steps = steps_of(self);
        let changed = steps.iter().zip(&record.steps).position(|(new, old)| new != old);
        Some(Unbuilt(match changed {
            Some(at) if steps[at].0 == record.steps[at].0 => {
                // Of steps that follow from another, the first is the cause.
                format!("{} changed", shortened(&steps[at].0))
            }
            Some(at) => format!("{} is new", shortened(&steps[at].0)),
            None if steps.len() > record.steps.len() => {
                format!("{} is new", shortened(&steps[record.steps.len()].0))
            }
            None if steps.len() < record.steps.len() => {
                format!("{} is gone", shortened(&record.steps[steps.len()].0))
            }
            None => "its configuration changed".into(),
        }))
    }
}

/// Whether every blob of a stored image is there.
fn whole(store: &ImageStore, reference: &Reference) -> bool {
    let stored = store.stored(reference).ok().flatten();
    let image = stored.and_then(|image| store.stored_documents(&image).ok());
    image.is_some_and(|image| {
        image.layers.iter().all(|layer| layer.digest.is_none_or(|digest| store.blob(&digest).is_some()))
    })
}

const SHOWN: usize = 60;

fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.chars().count() > SHOWN {
        true => format!("{}…", line.chars().take(SHOWN).collect::<String>()),
        false => line.to_owned(),
    }
}
