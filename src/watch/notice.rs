//! inotify(7): which folders had something happen in them. What it was is found by looking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::reconcile::readable;

/// Why folders cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    #[error("no more folders can be watched: fs.inotify.max_user_watches is {limit}, and {wanted} are wanted")]
    Watches { limit: String, wanted: usize },
    #[error("nothing more can be watched: fs.inotify.max_user_instances is {limit}")]
    Instances { limit: String },
    #[error("cannot watch `{path}`", path = path.display())]
    Watch { path: PathBuf, source: io::Error },
    #[error("cannot hear of changes")]
    Hear { source: io::Error },
}

/// The folders that are watched.
pub(super) struct Notices {
    descriptor: AsyncFd<OwnedFd>,
    folders: BTreeMap<PathBuf, i32>,
    /// One folder may be known by several names.
    numbers: BTreeMap<i32, BTreeSet<PathBuf>>,
}

/// Where something happened.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub folders: BTreeSet<PathBuf>,
    /// The kernel lost some of it: everything has to be looked at.
    pub all: bool,
}

impl Heard {
    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty() && !self.all
    }

    pub(super) fn add(&mut self, other: Heard) {
        self.folders.extend(other.folders);
        self.all |= other.all;
    }
}

/// Files count once whoever wrote them has closed them.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

impl Notices {
    /// Within a tokio runtime.
    pub(super) fn new() -> Result<Self, NoticeError> {
        let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let descriptor = made.map_err(|errno| match errno {
            Errno::MFILE => NoticeError::Instances { limit: sysctl("max_user_instances") },
            other => NoticeError::Hear { source: other.into() },
        })?;
        let descriptor = readable(descriptor).map_err(|source| NoticeError::Hear { source })?;
        Ok(Notices { descriptor, folders: BTreeMap::new(), numbers: BTreeMap::new() })
    }

    /// Watches exactly these folders. Gives those that were not watched before: what happened in them until now was not
    /// heard. A folder that is not there is passed over; the one that it was in tells when it comes.
    pub(super) fn set(&mut self, wanted: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, NoticeError> {
        // First: a folder that was moved keeps its number under its new name.
        let gone: Vec<PathBuf> = self.folders.keys().filter(|folder| !wanted.contains(*folder)).cloned().collect();
        for folder in gone {
            self.drop_folder(&folder);
        }
        let mut new = Vec::new();
        for folder in wanted {
            if self.folders.contains_key(folder) {
                continue;
            }
            match inotify::add_watch(self.descriptor.get_ref(), folder, EVENTS) {
                Ok(number) => {
                    self.numbers.entry(number).or_default().insert(folder.clone());
                    self.folders.insert(folder.clone(), number);
                    new.push(folder.clone());
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(Errno::NOSPC) => {
                    let limit = sysctl("max_user_watches");
                    return Err(NoticeError::Watches { limit, wanted: wanted.len() });
                }
                Err(errno) => return Err(NoticeError::Watch { path: folder.clone(), source: errno.into() }),
            }
        }
        Ok(new)
    }

    fn drop_folder(&mut self, folder: &Path) {
        let Some(number) = self.folders.remove(folder) else { return };
        let Some(names) = self.numbers.get_mut(&number) else { return };
        names.remove(folder);
        if names.is_empty() {
            self.numbers.remove(&number);
            // Fails only where the kernel has dropped it before.
            let _ = inotify::remove_watch(self.descriptor.get_ref(), number);
        }
    }

    /// Waits until something is heard.
    pub(super) async fn heard(&mut self) -> Result<Heard, NoticeError> {
        loop {
            let heard = self.take();
            if !heard.is_empty() {
                return Ok(heard);
            }
            let ready = self.descriptor.readable().await;
            let mut ready = ready.map_err(|source| NoticeError::Hear { source })?;
            ready.clear_ready();
        }
    }

    /// What is there to hear now, without waiting.
    pub(super) fn take(&mut self) -> Heard {
        let mut heard = Heard::default();
        let mut lost = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(self.descriptor.get_ref(), &mut buffer);
        while let Ok(event) = reader.next() {
            let flags = event.events();
            heard.all |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
            let Some(folders) = self.numbers.get(&event.wd()) else { continue };
            if !is_noise(event.file_name().map(|name| name.to_bytes())) {
                heard.folders.extend(folders.iter().cloned());
            }
            if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT)
            {
                lost.extend(folders.iter().cloned());
            }
        }
        for folder in lost {
            self.drop_folder(&folder);
            // Whatever is there now under this name is heard of by the one it is in.
            heard.folders.extend(folder.parent().map(Path::to_path_buf));
            heard.folders.insert(folder);
        }
        heard
    }
}

/// Names that vim makes and takes away again to try a folder out.
fn is_noise(name: Option<&[u8]>) -> bool {
    name.is_some_and(|name| name == std::ffi::OsStr::new("4913").as_bytes())
}

fn sysctl(name: &str) -> String {
    let path = Path::new("/proc/sys/fs/inotify").join(name);
    fs::read_to_string(path).map_or_else(|_| "?".into(), |text| text.trim().to_owned())
}
