//! A plan that is kept to be carried out later, if all that it was made from is as it was: the files, the variables, the
//! images, and what the host held.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::actual::{ActualContainer, Phase};
use super::generation::{KeptVariable, Source};
use super::host::Given;
use super::road::Looked;
use crate::model::Name;

/// The version of the file's form.
const VERSION: u32 = 1;
/// Largest plan that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// A plan, and what was seen when it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanFile {
    pub version: u32,
    pub stack: Name,
    /// The stack file, absolute.
    pub file: PathBuf,
    /// With which it was read.
    pub profiles: Vec<String>,
    #[serde(with = "crate::monitor::status::rfc3339_text")]
    pub made: Timestamp,
    /// Digests of all that the plan hangs on, each by what it is called: `file /srv/stack.toml`, `bridge front`.
    pub seen: BTreeMap<String, String>,
    /// As `diff --json` prints it.
    pub plan: Value,
}

/// Why a file cannot be used as a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// It does not look like one.
    #[error("this is no plan")]
    NotOne,
    #[error("`{}` is no plan of stack: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
    #[error("the plan `{}` is of version {version}; this stack reads version {VERSION}", path.display())]
    Version { path: PathBuf, version: u64 },
    #[error("cannot write `{}`: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl PlanFile {
    pub fn new(given: &Given<'_>, seen: BTreeMap<String, String>, plan: Value) -> Self {
        PlanFile {
            version: VERSION,
            stack: given.stack.name.clone(),
            file: given.file.clone(),
            profiles: given.profiles.to_vec(),
            made: Timestamp::now(),
            seen,
            plan,
        }
    }

    /// Reads a plan. What cannot be read or does not begin with a brace is none.
    pub fn read(path: &Path) -> Result<Self, PlanFileError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
        if read.is_err() || bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(PlanFileError::NotOne);
        }
        let malformed =
            |error: serde_json::Error| PlanFileError::Malformed { path: path.into(), why: error.to_string() };
        let document: Value = serde_json::from_slice(&bytes).map_err(malformed)?;
        match document["version"].as_u64() {
            Some(version) if version != u64::from(VERSION) => {
                Err(PlanFileError::Version { path: path.into(), version })
            }
            _ => serde_json::from_value(document).map_err(malformed),
        }
    }

    /// Writes it for root alone: values of `env` are in it.
    pub fn write(&self, path: &Path) -> Result<(), PlanFileError> {
        let aside = path.with_added_extension("new");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&aside, path)
        };
        write().map_err(|source| PlanFileError::Write { path: path.into(), source })
    }

    /// What is not as it was, a line each; nothing where the plan still is the right one.
    pub fn moved(&self, seen: &BTreeMap<String, String>, plan: &Value) -> Vec<String> {
        let names: BTreeSet<&String> = self.seen.keys().chain(seen.keys()).collect();
        let moved = names.into_iter().filter_map(|name| {
            let what = match (self.seen.get(name), seen.get(name)) {
                (Some(then), Some(now)) if then == now => return None,
                (Some(_), Some(_)) => "is another one now",
                (Some(_), None) => "is gone",
                (None, _) => "was not there then",
            };
            Some(format!("{name} {what}"))
        });
        let mut moved: Vec<String> = moved.collect();
        if moved.is_empty() && without_places(&self.plan) != without_places(plan) {
            moved.push(
                "what has to be done is another now: another version of stack, or other networks of the host".into(),
            );
        }
        moved
    }
}

/// Places begin with the stack file as it was named on the command line, which may be another way to the same file.
fn without_places(plan: &Value) -> Value {
    match plan {
        Value::Object(fields) => {
            fields.iter().filter(|(key, _)| *key != "place").map(|(k, v)| (k.clone(), without_places(v))).collect()
        }
        Value::Array(items) => items.iter().map(without_places).collect(),
        other => other.clone(),
    }
}

/// Digests of all that a plan hangs on. What changes by itself while a container runs is not among it: health, counters,
/// process numbers.
pub fn seen(source: &Source, looked: &Looked) -> BTreeMap<String, String> {
    let actual = &looked.actual;
    let mut seen = BTreeMap::new();
    for (path, file) in &source.files {
        seen.insert(format!("file {}", path.display()), file.hash.clone());
    }
    for (name, variable) in &source.variables {
        let hash = match variable {
            KeptVariable::Value(value) => digest(value),
            KeptVariable::Hash(hash) => hash.clone(),
        };
        seen.insert(format!("variable {name}"), hash);
    }
    for (name, image) in &source.images {
        seen.insert(format!("image {name}"), digest(&image.id));
    }
    for (name, group) in &actual.cgroups {
        seen.insert(format!("cgroup {name}"), digest(group));
    }
    for (name, bridge) in &actual.bridges {
        seen.insert(format!("bridge {name}"), digest(bridge));
    }
    for (name, container) in &actual.containers {
        seen.insert(format!("container {name}"), digest_of_container(container));
    }
    for volume in &actual.volumes {
        seen.insert(format!("volume {volume}"), String::new());
    }
    if let Some(nat) = &actual.nat {
        // Where shared ports lead changes with the health of those who share them. What a stranger changed of it is a step.
        let parts = nat.parts.iter().filter(|(name, _)| !name.starts_with("port ") && !name.starts_with("service "));
        seen.insert("nat".into(), digest(&(&nat.label, &nat.told, parts.collect::<Vec<_>>())));
    }
    seen.insert("the stack's cgroup".into(), digest(&actual.root));
    seen.insert("the layers that are unpacked".into(), digest(&actual.missing_layers));
    let forwarding = (actual.forwarding, actual.ipv6, actual.forwarding6, &actual.advised);
    seen.insert("forwarding of packets".into(), digest(&forwarding));
    seen
}

fn digest_of_container(container: &ActualContainer) -> String {
    let phase = match &container.phase {
        // Its monitor's business; a plan leaves both alone.
        Phase::Running | Phase::Restarting => "runs".to_owned(),
        other => format!("{other:?}"),
    };
    // The name of a link is another after each start.
    let links: Vec<_> =
        container.links.iter().map(|link| (&link.bridge, link.up, link.carrier, link.attached)).collect();
    let ActualContainer { label, stored, limits, hosts, contents, .. } = container;
    digest(&(label, stored, limits, phase, links, hosts, contents))
}

fn digest<T: Debug>(value: &T) -> String {
    let hash = Sha256::digest(format!("{value:?}"));
    hash[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen_of(parts: &[(&str, &str)]) -> BTreeMap<String, String> {
        parts.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect()
    }

    fn plan_file(seen: BTreeMap<String, String>) -> PlanFile {
        let plan = json!({ "steps": [{ "verb": "live", "place": { "file": "stack.toml", "line": 3 } }] });
        PlanFile {
            version: VERSION,
            stack: Name::new("shop").unwrap(),
            file: "/srv/stack.toml".into(),
            profiles: vec![],
            made: Timestamp::now(),
            seen,
            plan,
        }
    }

    #[test]
    fn what_moved_is_named() {
        let then = plan_file(seen_of(&[("nat", "1"), ("bridge a", "2"), ("file x", "3")]));
        let now = seen_of(&[("nat", "9"), ("bridge b", "2"), ("file x", "3")]);
        let expected = ["bridge a is gone", "bridge b was not there then", "nat is another one now"];
        assert_eq!(then.moved(&now, &then.plan), expected);
        let elsewhere = json!({ "steps": [{ "verb": "live", "place": { "file": "/srv/stack.toml", "line": 3 } }] });
        assert_eq!(then.moved(&then.seen, &elsewhere), Vec::<String>::new());
        assert_eq!(then.moved(&then.seen, &json!({ "steps": [] })).len(), 1);
    }

    #[test]
    fn a_plan_is_read_back_and_told_from_a_stack_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        let plan = plan_file(seen_of(&[("nat", "1")]));
        plan.write(&path).unwrap();
        let read = PlanFile::read(&path).unwrap();
        assert_eq!((&read.seen, &read.plan, &read.file), (&plan.seen, &plan.plan, &plan.file));
        let check = |text: &str| {
            fs::write(&path, text).unwrap();
            PlanFile::read(&path).unwrap_err().to_string()
        };
        assert_eq!(check("name = 'a'\n"), "this is no plan");
        assert!(check("{ \"version\": 7 }").contains("is of version 7"));
        assert!(check("{ \"steps\": [] }").contains("is no plan of stack"));
    }
}
