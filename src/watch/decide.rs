//! From what differs on disk to what is to be done, in which order. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::inputs::Purpose;
use super::tree::Changes;
use crate::model::{Name, Stack, WatchAction};
use crate::plan::instances;
use crate::reconcile::Reactions;

/// What names a job from one time to the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobId {
    Road,
    Rule { container: Name, index: usize },
}

/// One thing to do, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub id: JobId,
    /// The path that is named first where it is told of, and how many others there are.
    pub cause: (PathBuf, usize),
    pub work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Go the road.
    Road,
    /// Bring files into these instances.
    Sync { instances: Vec<String>, root: PathBuf, target: String, changes: Changes },
    /// Tell these instances.
    Tell { instances: Vec<String>, reactions: Reactions },
}

/// What a round found: per purpose the root of its tree (or the file) and what changed there.
pub type Found = BTreeMap<(Purpose, PathBuf), Changes>;

/// What is downstream of `found`, in this order: the road, for containers that it makes anew need nothing else; then
/// files; then whoever is to be told of them.
pub fn jobs(stack: &Stack, found: &Found) -> Vec<Job> {
    let mut road: Vec<PathBuf> = Vec::new();
    let (mut syncs, mut tells) = (Vec::new(), Vec::new());
    for ((purpose, root), changes) in found {
        if changes.is_empty() {
            continue;
        }
        let Purpose::Rule { container, index } = purpose else {
            road.extend(paths(root, changes));
            continue;
        };
        let Some(rule) = stack.containers.get(container).and_then(|held| held.watch.get(*index)) else { continue };
        let instances = instances(container, &stack.containers[container]);
        let mut reactions = Reactions::default();
        match &rule.action {
            WatchAction::Rebuild => {
                road.extend(paths(root, changes));
                continue;
            }
            WatchAction::Sync => {}
            WatchAction::Tell(reaction) => reactions.add(reaction),
        }
        let id = JobId::Rule { container: container.clone(), index: *index };
        let cause = cause(paths(root, changes));
        match (&rule.action, &rule.target) {
            (WatchAction::Sync, Some(target)) => {
                let (root, target) = (root.clone(), target.clone());
                syncs.push(Job { id, cause, work: Work::Sync { instances, root, target, changes: changes.clone() } });
            }
            _ => tells.push(Job { id, cause, work: Work::Tell { instances, reactions } }),
        }
    }
    let road = (!road.is_empty()).then(|| Job { id: JobId::Road, cause: cause(road), work: Work::Road });
    road.into_iter().chain(syncs).chain(tells).collect()
}

/// Takes away what a job is not needed for: who was just made anew has everything, and is told nothing.
pub fn without(job: Job, fresh: &[String]) -> Option<Job> {
    let keep = |instances: Vec<String>| -> Vec<String> {
        instances.into_iter().filter(|instance| !fresh.contains(instance)).collect()
    };
    let work = match job.work {
        Work::Road => Work::Road,
        Work::Sync { instances, root, target, changes } => {
            Work::Sync { instances: keep(instances), root, target, changes }
        }
        Work::Tell { instances, reactions } => Work::Tell { instances: keep(instances), reactions },
    };
    let idle = match &work {
        Work::Road => false,
        Work::Sync { instances, .. } | Work::Tell { instances, .. } => instances.is_empty(),
    };
    (!idle).then_some(Job { work, ..job })
}

fn paths(root: &Path, changes: &Changes) -> Vec<PathBuf> {
    let at = |path: &PathBuf| if path.as_os_str().is_empty() { root.to_path_buf() } else { root.join(path) };
    changes.changed.iter().chain(&changes.removed).map(at).collect()
}

/// The last path in order is a file rather than the folders above it.
fn cause(mut paths: Vec<PathBuf>) -> (PathBuf, usize) {
    paths.sort();
    paths.dedup();
    let folders = |path: &PathBuf, next: &PathBuf| next.starts_with(path);
    let leaves: Vec<PathBuf> = paths
        .iter()
        .enumerate()
        .filter(|(index, path)| !paths.get(index + 1).is_some_and(|next| folders(path, next)))
        .map(|(_, path)| path.clone())
        .collect();
    let others = leaves.len().saturating_sub(1);
    (leaves.into_iter().next().unwrap_or_default(), others)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;
    use crate::file::{HostFiles, Surroundings, parse};

    const TEXT: &str = r#"
        name = "shop"
        [container.web]
        image = "host:"
        command = ["x"]
        replicas = 2
        [[container.web.watch]]
        path = "/usr"
        target = "/app"
        action = "sync"
        [[container.web.watch]]
        path = "/usr"
        action = "signal:HUP"
        [container.job]
        image = "host:"
        command = ["x"]
        [[container.job.watch]]
        path = "/usr"
        action = "restart"
        [[container.job.watch]]
        path = "/usr"
        action = "rebuild"
    "#;

    fn stack() -> Stack {
        let variables = HashMap::new();
        let surroundings = Surroundings { variables: &variables, folder: "/".into(), files: &HostFiles, profiles: &[] };
        parse("stack.toml", TEXT, &surroundings)
            .unwrap_or_else(|faults| panic!("{}", faults.render(crate::file::Look::Plain)))
    }

    fn changed(paths: &[&str]) -> Changes {
        Changes { changed: paths.iter().map(PathBuf::from).collect(), removed: BTreeSet::new() }
    }

    fn rule(container: &str, index: usize) -> (Purpose, PathBuf) {
        (Purpose::Rule { container: Name::new(container).unwrap(), index }, "/usr".into())
    }

    /// What each job comes to, in a few words.
    #[track_caller]
    fn check(found: &[((Purpose, PathBuf), Changes)], expected: &[&str]) {
        let found: Found = found.iter().cloned().collect();
        let words: Vec<String> = jobs(&stack(), &found)
            .into_iter()
            .map(|job| match job.work {
                Work::Road => format!("road for {}+{}", job.cause.0.display(), job.cause.1),
                Work::Sync { instances, target, changes, .. } => {
                    format!("sync {} to {} in {}", changes.changed.len(), target, instances.join(" "))
                }
                Work::Tell { instances, reactions } if reactions.restart => format!("restart {}", instances.join(" ")),
                Work::Tell { instances, reactions } => format!("{:?} to {}", reactions.signals, instances.join(" ")),
            })
            .collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn a_file_of_the_stack_is_for_the_road_alone() {
        let file = ((Purpose::Road, PathBuf::from("/stack.toml")), changed(&[""]));
        check(&[file], &["road for /stack.toml+0"]);
    }

    #[test]
    fn a_rule_concerns_its_own_container_and_all_its_instances() {
        check(&[(rule("web", 0), changed(&["a", "b"]))], &["sync 2 to /app in web-1 web-2"]);
        check(&[(rule("job", 0), changed(&["a"]))], &["restart job"]);
    }

    #[test]
    fn files_are_there_before_anybody_is_told_and_the_road_comes_first() {
        let found = [
            (rule("job", 0), changed(&["a"])),
            (rule("web", 1), changed(&["a"])),
            (rule("web", 0), changed(&["a"])),
            ((Purpose::Road, PathBuf::from("/stack.toml")), changed(&[""])),
        ];
        let order = ["road for /stack.toml+0", "sync 1 to /app in web-1 web-2", "restart job", "[1] to web-1 web-2"];
        check(&found, &order);
    }

    #[test]
    fn a_rebuild_is_the_road_and_is_gone_once() {
        let file = ((Purpose::Road, PathBuf::from("/stack.toml")), changed(&[""]));
        check(&[(rule("job", 1), changed(&["sub", "sub/a", "sub/b"])), file], &["road for /stack.toml+2"]);
    }

    #[test]
    fn nothing_that_changed_and_rules_that_are_gone_are_no_jobs() {
        check(
            &[
                (rule("web", 0), Changes::default()),
                (rule("web", 7), changed(&["a"])),
                (rule("gone", 0), changed(&["a"])),
            ],
            &[],
        );
    }

    #[test]
    fn who_was_just_made_anew_is_told_nothing() {
        let found: Found = [(rule("web", 1), changed(&["a"]))].into();
        let job = jobs(&stack(), &found).remove(0);
        let left = without(job.clone(), &["web-1".into()]).map(|job| job.work);
        assert!(matches!(left, Some(Work::Tell { instances, .. }) if instances == ["web-2"]));
        assert_eq!(without(job, &["web-1".into(), "web-2".into()]), None);
    }
}
