//! In what two images differ: configuration, layers, and every name of their trees.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::{ImageLibrary, LibraryError};
use crate::reconcile::actual::Change;
use crate::reconcile::changes::changes_between;
use crate::runtime::image::registry::Progress;
use crate::runtime::image::{ImageConfig, ImageHealthcheck, LayerDigest, LayerSource, Reference, ResolvedImage};
use crate::runtime::overlay::{OverlayFs, OverlayLayer, TreeDifference};

/// In what the second of two images differs from the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageDifference {
    pub config: Vec<Change>,
    /// Layers that both have.
    pub shared: usize,
    /// Layers of the one and of the other alone, lowest first.
    pub layers: (Vec<LayerDigest>, Vec<LayerDigest>),
    pub files: Vec<TreeDifference>,
}

impl ImageDifference {
    /// Would containers of both be the same? Other layers may make the same tree.
    pub fn is_empty(&self) -> bool {
        self.config.is_empty() && self.files.is_empty()
    }
}

impl ImageLibrary {
    /// Compares two stored images. What is not unpacked of them is brought in.
    pub fn compare(
        &self,
        (before, after): (&Reference, &Reference),
        progress: &dyn Progress,
    ) -> Result<ImageDifference, LibraryError> {
        let _held = self.hold()?;
        // Both names first: one that is not there is told before anything is unpacked.
        for reference in [before, after] {
            self.image(reference)?;
        }
        let (a, b) = (self.bring_in(before, progress)?, self.bring_in(after, progress)?);
        let tree = |image: &ResolvedImage| {
            OverlayFs::new(self.store.layer_dirs(image).into_iter().map(OverlayLayer::folder).collect())
        };
        let same = a.layers == b.layers;
        let files = if same { Vec::new() } else { tree(&a).differences(&tree(&b)).map_err(compared)? };
        let digests = |image: &ResolvedImage| -> Vec<LayerDigest> {
            image.layers.iter().filter_map(LayerSource::digest).collect()
        };
        let (of_a, of_b) = (digests(&a), digests(&b));
        let only = |ones: &[LayerDigest], others: &[LayerDigest]| -> Vec<LayerDigest> {
            let others: HashSet<&LayerDigest> = others.iter().collect();
            ones.iter().filter(|digest| !others.contains(digest)).copied().collect()
        };
        let layers = (only(&of_a, &of_b), only(&of_b, &of_a));
        let config = changes_between(&Settings::of(&a.config), &Settings::of(&b.config));
        Ok(ImageDifference { config, shared: of_a.len() - layers.0.len(), layers, files })
    }
}

fn compared(source: crate::runtime::overlay::OverlayError) -> LibraryError {
    LibraryError::Compare { source }
}

/// A configuration in the words of stack files, with variables by their names.
#[derive(Serialize)]
struct Settings<'a> {
    entrypoint: &'a [String],
    command: &'a [String],
    env: BTreeMap<&'a str, &'a str>,
    workdir: &'a str,
    user: &'a str,
    stop_signal: &'a Option<String>,
    ports: &'a [String],
    volumes: &'a [String],
    labels: &'a BTreeMap<String, String>,
    health: &'a Option<ImageHealthcheck>,
}

impl<'a> Settings<'a> {
    fn of(config: &'a ImageConfig) -> Self {
        Self {
            entrypoint: &config.entrypoint,
            command: &config.cmd,
            env: config.env.iter().map(|line| line.split_once('=').unwrap_or((line, ""))).collect(),
            workdir: &config.working_dir,
            user: &config.user,
            stop_signal: &config.stop_signal,
            ports: &config.exposed_ports,
            volumes: &config.volumes,
            labels: &config.labels,
            health: &config.healthcheck,
        }
    }
}
