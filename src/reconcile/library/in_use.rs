//! What is used of the store: by containers, read from their bundles, whether they run or could be started again; and by
//! generations that are kept.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::LibraryError;
use crate::runtime::image::LayerDigest;

/// Largest file of a bundle that is read for what it names.
const MAX_FILE: u64 = 4 << 20;
/// What stands before the name of a layer, and of an image, in the files of a bundle.
const LAYER: &str = "layers/sha256/";
const IMAGE: &str = "sha256:";

/// The layers and images that bundles name.
#[derive(Debug, Default)]
pub(super) struct InUse {
    /// By the layers' names in the store: the containers, as `STACK/INSTANCE`.
    pub layers: HashMap<LayerDigest, BTreeSet<String>>,
    /// The digests of configurations, and of whatever else a bundle names by one.
    pub images: HashSet<LayerDigest>,
}

impl InUse {
    /// Reads `<run>/<stack>/<instance>/*.json`.
    pub(super) fn read(run: &Path) -> Result<Self, LibraryError> {
        let mut found = Self::default();
        for stack in folders(run)? {
            for bundle in folders(&stack)? {
                let container = format!("{}/{}", last(&stack), last(&bundle));
                for name in ["monitor.json", "config.json", "container.json"] {
                    let text = text(&bundle.join(name))?;
                    for layer in named(&text, LAYER) {
                        found.layers.entry(layer).or_default().insert(container.clone());
                    }
                    found.images.extend(named(&text, IMAGE));
                }
            }
        }
        Ok(found)
    }
}

/// What kept generations name.
#[derive(Debug, Default)]
pub(super) struct KeptBack {
    pub layers: HashSet<LayerDigest>,
    /// Digests of manifests, configurations and indexes.
    pub documents: HashSet<LayerDigest>,
}

impl KeptBack {
    /// Reads `<data>/generations/<stack>/<number>/generation.json`.
    pub(super) fn read(data: &Path) -> Result<Self, LibraryError> {
        let mut found = Self::default();
        for stack in folders(&data.join("generations"))? {
            for generation in folders(&stack)? {
                let text = text(&generation.join("generation.json"))?;
                found.layers.extend(named(&text, LAYER));
                found.documents.extend(named(&text, IMAGE));
            }
        }
        Ok(found)
    }
}

fn text(path: &Path) -> Result<String, LibraryError> {
    let mut text = String::new();
    match std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LibraryError::Bundles { path: path.to_owned(), source: error })
        }
        _ => Ok(text),
    }
}

fn named<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = LayerDigest> + 'a {
    text.split(before).skip(1).filter_map(|rest| LayerDigest::from_hex(rest.get(..64)?).ok())
}

fn last(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folders(path: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    match std::fs::read_dir(path) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(LibraryError::Bundles { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_images_are_found_in_what_bundles_say() {
        let run = tempfile::tempdir().unwrap();
        let bundle = run.path().join("shop/web-1");
        std::fs::create_dir_all(&bundle).unwrap();
        let (one, two, id) = (LayerDigest::of(b"1"), LayerDigest::of(b"2"), LayerDigest::of(b"3"));
        let text = format!("[\"/data/layers/sha256/{}\",\"/data/layers/sha256/{}\"]", one.hex(), two.hex());
        std::fs::write(bundle.join("monitor.json"), text).unwrap();
        std::fs::write(bundle.join("container.json"), format!("{{\"id\":\"{id}\"}}")).unwrap();
        let found = InUse::read(run.path()).unwrap();
        assert_eq!(found.layers.keys().copied().collect::<HashSet<_>>(), HashSet::from([one, two]));
        assert_eq!(found.layers[&one], BTreeSet::from(["shop/web-1".to_owned()]));
        assert_eq!(found.images, HashSet::from([id]));
        assert!(InUse::read(&run.path().join("absent")).unwrap().layers.is_empty());
    }

    #[test]
    fn what_kept_generations_name_is_found() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("generations/shop/3");
        std::fs::create_dir_all(&folder).unwrap();
        let (layer, manifest) = (LayerDigest::of(b"1"), LayerDigest::of(b"2"));
        let text = format!("{{\"layers\":[\"/data/layers/sha256/{}\"],\"manifest\":\"{manifest}\"}}", layer.hex());
        std::fs::write(folder.join("generation.json"), text).unwrap();
        let found = KeptBack::read(data.path()).unwrap();
        assert_eq!((found.layers, found.documents), (HashSet::from([layer]), HashSet::from([manifest])));
    }
}
