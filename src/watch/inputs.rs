//! Which files and folders a stack hangs on, and what a change of each is for. Pure but for the compiling of patterns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::tree::Filter;
use crate::model::{Container, ImageSource, Name, Seccomp, Stack};

/// What a change of something is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The stack is read anew, held against the host, and what differs is done.
    Road,
    /// A rule of a container, by its place in the file.
    Rule { container: Name, index: usize },
}

/// What to watch.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Single files, links followed; a change of any is for the road.
    pub files: BTreeSet<PathBuf>,
    pub trees: Vec<TreeInput>,
}

#[derive(Debug)]
pub struct TreeInput {
    pub root: PathBuf,
    pub filter: Filter,
    /// As the rule writes it, to tell one filter from another.
    pub patterns: Vec<String>,
    pub purpose: Purpose,
}

/// A rule whose patterns cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`ignore` of container `{container}`: {why}")]
pub struct PatternError {
    pub container: Name,
    pub why: String,
}

/// Everything that `stack`, read from `file` and what it includes, hangs on. Images that are read from folders, and build contexts, are trees for the
/// road.
pub fn inputs(file: &Path, included: &[PathBuf], stack: &Stack) -> Result<Inputs, PatternError> {
    let files = included.iter().cloned().chain([file.to_path_buf()]).collect();
    let mut inputs = Inputs { files, trees: vec![] };
    let mut roots = BTreeSet::new();
    for (name, container) in &stack.containers {
        inputs.files.extend(files_of(container));
        match &container.image.source {
            ImageSource::Dir(path) | ImageSource::OciLayout { path, .. } => drop(roots.insert(path.clone())),
            ImageSource::OciArchive { path, .. } | ImageSource::DockerArchive { path, .. } => {
                inputs.files.insert(path.clone());
            }
            ImageSource::Build(build) => {
                inputs.files.insert(PathBuf::from(&build.file));
                roots.insert(build.context.clone());
            }
            ImageSource::Host | ImageSource::Registry(_) => {}
        }
        for (index, rule) in container.watch.iter().enumerate() {
            let filter = Filter::new(&rule.ignore).map_err(|why| PatternError { container: name.clone(), why })?;
            let purpose = Purpose::Rule { container: name.clone(), index };
            inputs.trees.push(TreeInput { root: rule.path.clone(), filter, patterns: rule.ignore.clone(), purpose });
        }
    }
    for root in roots {
        let filter = Filter::everything();
        inputs.trees.push(TreeInput { root, filter, patterns: vec![], purpose: Purpose::Road });
    }
    Ok(inputs)
}

fn files_of(container: &Container) -> impl Iterator<Item = PathBuf> {
    let secrets = container.secrets.iter().map(|secret| secret.file.clone());
    let files = container.files.iter().map(|file| file.file.clone());
    let profile = match &container.seccomp {
        Seccomp::File(path) => Some(path.clone()),
        _ => None,
    };
    secrets.chain(files).chain(container.env_files.iter().cloned()).chain(profile)
}
