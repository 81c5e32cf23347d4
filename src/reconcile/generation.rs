//! What was brought up, kept to be looked at and to go back to: `<data>/generations/<stack>/<number>/` holds the stack file,
//! a lock file with the images it led to, the files that it read, and what was done.
//!
//! Nothing is decided by it: going back is the road of `up`, from the kept file. It is written whole and then renamed, and
//! the oldest go. Secrets are not in it, only their hashes under the host's key.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lockfile::ImageLock;
use super::step::{Plan, Verb};
use crate::runtime::image::{LayerDigest, Reference};

/// The version of [`Generation`]'s form.
const VERSION: u32 = 1;
/// So many changes are named; all are counted.
const NAMED: usize = 3;
/// Largest file that is read or kept, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Kept under these names.
const FACTS: &str = "generation.json";
const STACK_FILE: &str = "stack.toml";

/// All that is known of one generation but for the contents of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub version: u32,
    pub number: u32,
    #[serde(with = "crate::monitor::status::rfc3339_text")]
    pub time: Timestamp,
    /// Who had it brought up.
    pub who: String,
    /// The generation that it went back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    pub changes: Vec<Change>,
    pub source: Source,
    /// The digests in the labels of its containers, by instance: says which generation runs.
    pub containers: BTreeMap<String, String>,
}

/// One step of the run that brought it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub resource: String,
    pub verb: String,
}

/// What a stack was made from. Two generations of equal source are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The stack file, absolute.
    pub file: PathBuf,
    /// With which it was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<String>,
    /// The stack file and all that was read for it, by absolute path.
    pub files: BTreeMap<PathBuf, KeptFile>,
    /// Variables of the environment that the file uses.
    pub variables: BTreeMap<String, KeptVariable>,
    /// By the name that containers use.
    pub images: BTreeMap<String, KeptImage>,
}

/// Equal where the contents are: where they are kept says nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeptFile {
    /// Of its content, under the host's key.
    pub hash: String,
    /// Below the generation's folder; `None`: a secret, which is not kept.
    pub kept: Option<PathBuf>,
}

impl PartialEq for KeptFile {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for KeptFile {}

/// A variable; of one that is called like a secret only the hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeptVariable {
    Value(String),
    Hash(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptImage {
    pub id: String,
    /// Folders of its layers: `image prune` finds them here and leaves them.
    pub layers: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<KeptReference>,
    /// Where it was built here: what it is called in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<KeptReference>,
}

/// What a reference led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptReference {
    pub reference: Reference,
    /// What a registry was asked for: a manifest, or an index that names it.
    pub resolved: LayerDigest,
    pub manifest: LayerDigest,
}

/// A generation that is not written yet.
pub struct Draft {
    pub who: String,
    pub from: Option<u32>,
    pub changes: Vec<Change>,
    pub source: Source,
    pub containers: BTreeMap<String, String>,
    /// Those of `source.files` that are kept.
    pub contents: BTreeMap<PathBuf, Content>,
}

/// A file's content, and whose it is.
pub struct Content {
    pub bytes: Vec<u8>,
    /// User, group and permission bits.
    pub access: (u32, u32, u32),
}

/// Why a generation cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    #[error("cannot {doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no generation {number} of {stack}")]
    Unknown { stack: String, number: u32 },
    #[error("`{}` is of a later version of stack", path.display())]
    Later { path: PathBuf },
}

/// The generations of one stack.
#[derive(Clone, Debug)]
pub struct Generations {
    folder: PathBuf,
    stack: String,
}

impl Generation {
    /// Such as `replace container web, live container db, and 3 more`.
    pub fn summary(&self) -> String {
        let named = self.changes.iter().take(NAMED).map(|change| format!("{} {}", change.verb, change.resource));
        let mut text = named.collect::<Vec<_>>().join(", ");
        if self.changes.len() > NAMED {
            text += &format!(", and {} more", self.changes.len() - NAMED);
        }
        match self.from {
            Some(from) => format!("back to {from}: {text}"),
            None => text,
        }
    }
}

/// The changes of a plan, those first that make the most of a difference.
pub fn changes(plan: &Plan) -> Vec<Change> {
    let mut steps: Vec<_> = plan.steps.iter().collect();
    let rank = |verb: Verb| match verb {
        Verb::Replace => 0,
        Verb::Create | Verb::Destroy => 1,
        Verb::Restart => 2,
        Verb::Live | Verb::Reload => 3,
        Verb::Repair => 4,
    };
    let is_container = |resource: &str| resource.starts_with("container ");
    steps.sort_by_key(|step| (rank(step.verb), !is_container(&step.resource.to_string())));
    steps.iter().map(|step| Change { resource: step.resource.to_string(), verb: step.verb.to_string() }).collect()
}

/// The newest generation with just these containers; `None` where something else runs.
pub fn running<'g>(generations: &'g [Generation], containers: &BTreeMap<String, String>) -> Option<&'g Generation> {
    generations.iter().rev().find(|generation| !containers.is_empty() && generation.containers == *containers)
}

/// Where one goes back to, unless told: to what was brought up before the one that runs; where another thing runs than was
/// ever kept, to the newest.
pub fn before<'g>(generations: &'g [Generation], running: Option<&Generation>) -> Option<&'g Generation> {
    let Some(running) = running else { return generations.last() };
    generations.iter().rev().find(|other| other.number < running.number && other.source != running.source)
}

impl Generations {
    /// `data` is the data directory.
    pub fn of(data: &Path, stack: &str) -> Self {
        Generations { folder: data.join("generations").join(stack), stack: stack.to_owned() }
    }

    /// Where a generation's files are.
    pub fn folder(&self, number: u32) -> PathBuf {
        self.folder.join(number.to_string())
    }

    /// The kept stack file, with its lock file beside it.
    pub fn stack_file(&self, number: u32) -> PathBuf {
        self.folder(number).join(STACK_FILE)
    }

    /// All that are kept, the oldest first. One that cannot be read, as after a power cut, is passed over.
    pub fn list(&self) -> Result<Vec<Generation>, GenerationError> {
        let mut numbers = self.numbers()?;
        numbers.sort_unstable();
        Ok(numbers.into_iter().filter_map(|number| self.read(number).ok()).collect())
    }

    pub fn read(&self, number: u32) -> Result<Generation, GenerationError> {
        let path = self.folder(number).join(FACTS);
        let failed = |source| GenerationError::Io { doing: "read", path: path.clone(), source };
        let bytes = match read_bounded(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(GenerationError::Unknown { stack: self.stack.clone(), number });
            }
            other => other.map_err(failed)?,
        };
        match serde_json::from_slice::<Generation>(&bytes) {
            Ok(generation) if generation.version > VERSION => Err(GenerationError::Later { path }),
            Ok(generation) => Ok(generation),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The contents of the files that a generation keeps, by where they were.
    pub fn contents(&self, generation: &Generation) -> Result<BTreeMap<PathBuf, Vec<u8>>, GenerationError> {
        let mut contents = BTreeMap::new();
        for (path, kept) in self.places(generation) {
            let failed = |source| GenerationError::Io { doing: "read", path: kept.clone(), source };
            contents.insert(path, read_bounded(&kept).map_err(failed)?);
        }
        Ok(contents)
    }

    /// Where the files are kept that once were elsewhere.
    pub fn places(&self, generation: &Generation) -> BTreeMap<PathBuf, PathBuf> {
        let folder = self.folder(generation.number);
        let files = generation.source.files.iter();
        files.filter_map(|(path, file)| Some((path.clone(), folder.join(file.kept.as_ref()?)))).collect()
    }

    /// Keeps one more, unless it is what the newest one is; then only `most` are left. Its number, if it was kept.
    pub fn keep(&self, draft: Draft, most: usize) -> Result<Option<u32>, GenerationError> {
        let newest = self.numbers()?.into_iter().max();
        let same = newest.and_then(|number| self.read(number).ok());
        if same.is_some_and(|newest| newest.source == draft.source && newest.containers == draft.containers) {
            return Ok(None);
        }
        let number = newest.unwrap_or(0) + 1;
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| GenerationError::Io { doing, path, source }
        };
        make_private(&self.folder).map_err(failed("make", &self.folder))?;
        let aside = self.folder.join(format!("{number}.new"));
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &aside)(error)),
            _ => {}
        }
        self.write(number, draft, &aside)?;
        let place = self.folder(number);
        fs::rename(&aside, &place).map_err(failed("make", &place))?;
        self.prune(most)?;
        Ok(Some(number))
    }

    /// Forgets all of this stack.
    pub fn remove(&self) -> Result<(), GenerationError> {
        match fs::remove_dir_all(&self.folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(GenerationError::Io { doing: "remove", path: self.folder.clone(), source })
            }
            _ => Ok(()),
        }
    }

    fn write(&self, number: u32, mut draft: Draft, aside: &Path) -> Result<(), GenerationError> {
        let failed = |source| GenerationError::Io { doing: "write", path: aside.to_owned(), source };
        make_private(&aside.join("files")).map_err(failed)?;
        for (count, (path, content)) in draft.contents.iter().enumerate() {
            let name = match *path == draft.source.file {
                true => PathBuf::from(STACK_FILE),
                false => PathBuf::from(format!("files/{count}")),
            };
            write_file(&aside.join(&name), &content.bytes, content.access).map_err(failed)?;
            if let Some(file) = draft.source.files.get_mut(path) {
                file.kept = Some(name);
            }
        }
        let images = draft.source.images.values().filter_map(|image| image.registry.as_ref());
        let named = images.filter(|image| image.reference.digest().is_none());
        let lock = ImageLock::of(named.map(|image| (image.reference.clone(), image.resolved)));
        lock.write(&ImageLock::path(&aside.join(STACK_FILE))).map_err(|error| failed(io::Error::other(error)))?;
        let generation = Generation {
            version: VERSION,
            number,
            time: Timestamp::now(),
            who: draft.who,
            from: draft.from,
            changes: draft.changes,
            source: draft.source,
            containers: draft.containers,
        };
        let bytes = serde_json::to_vec_pretty(&generation).map_err(|error| failed(error.into()))?;
        write_file(&aside.join(FACTS), &bytes, (0, 0, 0o600)).map_err(failed)
    }

    fn prune(&self, most: usize) -> Result<(), GenerationError> {
        let mut numbers = self.numbers()?;
        numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
        for number in numbers.into_iter().skip(most.max(1)) {
            let path = self.folder(number);
            fs::remove_dir_all(&path).map_err(|source| GenerationError::Io { doing: "remove", path, source })?;
        }
        Ok(())
    }

    fn numbers(&self) -> Result<Vec<u32>, GenerationError> {
        match fs::read_dir(&self.folder) {
            Ok(entries) => Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
            Err(source) => Err(GenerationError::Io { doing: "read", path: self.folder.clone(), source }),
        }
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn write_file(path: &Path, bytes: &[u8], (uid, gid, mode): (u32, u32, u32)) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    chown(path, Some(uid), Some(gid))?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(level: &str) -> Draft {
        let file = PathBuf::from("/srv/shop/stack.toml");
        let env = PathBuf::from("/srv/shop/x.env");
        let key = PathBuf::from("/srv/shop/key");
        let access = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw(), 0o640);
        let content = |text: &str| Content { bytes: text.into(), access };
        let hashed = |hash: &str| KeptFile { hash: hash.into(), kept: None };
        let reference = KeptReference {
            reference: "alpine:3".parse().unwrap(),
            resolved: LayerDigest::of(b"index"),
            manifest: LayerDigest::of(b"manifest"),
        };
        let image = KeptImage { id: "sha256:1".into(), layers: vec![], registry: Some(reference), built: None };
        Draft {
            who: "root".into(),
            from: None,
            changes: vec![Change { resource: "container web".into(), verb: "replace".into() }],
            source: Source {
                file: file.clone(),
                profiles: vec![],
                files: BTreeMap::from([(file.clone(), hashed("1")), (env.clone(), hashed(level)), (key, hashed("3"))]),
                variables: BTreeMap::from([("TAG".into(), KeptVariable::Value("3".into()))]),
                images: BTreeMap::from([("alpine:3".into(), image)]),
            },
            containers: BTreeMap::from([("web".into(), level.into())]),
            contents: BTreeMap::from([(file, content("name = 'shop'\n")), (env, content(level))]),
        }
    }

    #[test]
    fn what_was_kept_is_read_back_and_a_secret_is_not_in_it() {
        let data = tempfile::tempdir().unwrap();
        let kept = Generations::of(data.path(), "shop");
        assert_eq!(kept.list().unwrap(), []);
        assert_eq!(kept.keep(draft("info"), 10).unwrap(), Some(1));
        let generation = kept.read(1).unwrap();
        assert_eq!(generation.summary(), "replace container web");
        let contents = kept.contents(&generation).unwrap();
        assert_eq!(contents[Path::new("/srv/shop/x.env")], b"info");
        assert_eq!(fs::read_to_string(kept.stack_file(1)).unwrap(), "name = 'shop'\n");
        assert!(!contents.contains_key(Path::new("/srv/shop/key")));
        let lock = ImageLock::read(&ImageLock::path(&kept.stack_file(1))).unwrap();
        assert_eq!(lock.digest(&"alpine:3".parse().unwrap()), Some(LayerDigest::of(b"index")));
        let mode = fs::metadata(kept.folder(1)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(matches!(kept.read(2), Err(GenerationError::Unknown { number: 2, .. })));
    }

    #[test]
    fn the_same_again_is_no_new_one_and_the_oldest_go() {
        let data = tempfile::tempdir().unwrap();
        let kept = Generations::of(data.path(), "shop");
        for level in ["1", "1", "2", "3", "3", "4"] {
            kept.keep(draft(level), 3).unwrap();
        }
        let numbers = |kept: &Generations| kept.list().unwrap().iter().map(|one| one.number).collect::<Vec<_>>();
        assert_eq!(numbers(&kept), [2, 3, 4]);
        // What a power cut left, and what a crash left.
        fs::write(kept.folder(4).join(FACTS), "").unwrap();
        fs::create_dir(kept.folder.join("5.new")).unwrap();
        assert_eq!(numbers(&kept), [2, 3]);
        assert_eq!(kept.keep(draft("4"), 3).unwrap(), Some(5));
        assert_eq!(numbers(&kept), [3, 5]);
        kept.remove().unwrap();
        assert_eq!(kept.list().unwrap(), []);
    }

    #[test]
    fn one_goes_back_to_what_was_before_what_runs() {
        let data = tempfile::tempdir().unwrap();
        let kept = Generations::of(data.path(), "shop");
        for level in ["1", "2", "3"] {
            kept.keep(draft(level), 10).unwrap();
        }
        let all = kept.list().unwrap();
        let runs = |level: &str| running(&all, &BTreeMap::from([("web".into(), level.into())]));
        let target = |running| before(&all, running).map(|one| one.number);
        assert_eq!(runs("2").map(|one| one.number), Some(2));
        assert_eq!(target(runs("3")), Some(2));
        assert_eq!(target(runs("1")), None);
        assert_eq!(target(runs("other")), Some(3));
        assert_eq!(running(&all, &BTreeMap::new()), None);
    }
}
