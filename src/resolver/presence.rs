//! Which instances are well: their status files, told by inotify when one is replaced, and their monitors, whose death the
//! kernel tells by a pidfd, because who is killed writes no status.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::spec::SPEC_FILE;
use crate::monitor::client::open_verified;
use crate::monitor::status::Status;

/// The instances that are asked for, by name.
pub struct Presence {
    /// The stack's folder, which holds the bundles.
    stack: PathBuf,
    changes: OwnedFd,
    stack_watch: i32,
    spec_watch: i32,
    instances: BTreeMap<String, Seen>,
}

#[derive(Default)]
struct Seen {
    /// On its bundle, once there is one.
    watch: Option<i32>,
    /// Its monitor, while it is well.
    monitor: Option<OwnedFd>,
}

impl Presence {
    /// Watches the bundles in the folder `stack` and the resolver's own folder.
    pub fn watch(stack: &Path, own: &Path) -> rustix::io::Result<Self> {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let stack_watch = inotify::add_watch(&changes, stack, WatchFlags::CREATE | WatchFlags::ONLYDIR)?;
        let spec_watch = inotify::add_watch(&changes, own, WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
        Ok(Self { stack: stack.into(), changes, stack_watch, spec_watch, instances: BTreeMap::new() })
    }

    /// From now on these count.
    pub fn set_instances<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let mut before = std::mem::take(&mut self.instances);
        self.instances = names.map(|name| (name.to_string(), before.remove(name).unwrap_or_default())).collect();
        for watch in before.into_values().filter_map(|seen| seen.watch) {
            let _ = inotify::remove_watch(&self.changes, watch);
        }
        self.look_at(|_| true);
    }

    /// Whether an instance runs, and its health check, if it has one, says that it is well.
    pub fn serves(&self, instance: &str) -> bool {
        self.instances.get(instance).is_some_and(|seen| seen.monitor.is_some())
    }

    /// Readable when something changed.
    pub fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// Readable when a monitor has ended.
    pub fn monitors(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.instances.iter().filter_map(|(name, seen)| Some((name.as_str(), seen.monitor.as_ref()?.as_fd())))
    }

    /// A monitor has ended.
    pub fn gone(&mut self, instance: &str) {
        if let Some(seen) = self.instances.get_mut(instance) {
            seen.monitor = None;
        }
    }

    /// Takes up what changed. Whether the resolver's own spec is among it.
    pub fn take_changes(&mut self) -> bool {
        let (mut spec, mut all, mut unwatched) = (false, false, false);
        let mut changed = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.changes, &mut buffer);
        while let Ok(event) = reader.next() {
            let watch = event.wd();
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                (spec, all) = (true, true);
            } else if watch == self.stack_watch {
                unwatched = true;
            } else if watch == self.spec_watch {
                spec |= event.file_name().is_some_and(|name| name.to_bytes() == SPEC_FILE.as_bytes());
            } else {
                // Its folder went, and another one may be in its place already.
                if event.events().contains(ReadFlags::IGNORED) {
                    let lost = self.instances.values_mut().filter(|seen| seen.watch == Some(watch));
                    lost.for_each(|seen| *seen = Seen::default());
                    unwatched = true;
                }
                changed.push(watch);
            }
        }
        self.look_at(|seen| {
            all || (unwatched && seen.watch.is_none()) || seen.watch.is_some_and(|watch| changed.contains(&watch))
        });
        spec
    }

    fn look_at(&mut self, which: impl Fn(&Seen) -> bool) {
        for (name, seen) in self.instances.iter_mut().filter(|(_, seen)| which(seen)) {
            let bundle = self.stack.join(name);
            // Before the status is read, so that no change falls in between.
            if seen.watch.is_none() {
                let what = WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
                seen.watch = inotify::add_watch(&self.changes, &bundle, what).ok();
            }
            let status = Status::load(&bundle).ok().flatten().filter(Status::serves);
            seen.monitor = status.and_then(|status| open_verified(status.monitor()).ok().flatten());
        }
    }
}
