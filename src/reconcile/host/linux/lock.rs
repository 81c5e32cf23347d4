//! One run at a time on one stack: a lock on the stack's folder below the run directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Why a stack's lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another run of stack works on `{stack}`")]
    Held { stack: String },
    #[error("cannot lock `{path}`", path = path.display())]
    Failed { path: PathBuf, source: io::Error },
}

/// Held until it is dropped. The kernel lets go of it when the process ends, however it ends.
pub struct StackLock {
    folder: PathBuf,
    _file: File,
}

/// A `down` may remove the folder between our opening and our locking it; a few turns settle that.
const TURNS: usize = 8;

impl StackLock {
    /// Locks the folder of a stack, which is made where it is not there.
    pub(super) fn take(folder: &Path, stack: &str) -> Result<Self, LockError> {
        let failed = |source| LockError::Failed { path: folder.into(), source };
        for _ in 0..TURNS {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
            let file = match File::open(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Held { stack: stack.into() }),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            let locked = file.metadata().map_err(failed)?;
            // The folder that we hold must still be the one that others will find.
            if fs::metadata(folder).is_ok_and(|now| (now.dev(), now.ino()) == (locked.dev(), locked.ino())) {
                return Ok(StackLock { folder: folder.into(), _file: file });
            }
        }
        Err(LockError::Held { stack: stack.into() })
    }

    /// Removes the stack's folder, which holds no container any more, and the one of all stacks where it was the last.
    pub fn remove_with_folder(self) -> Result<(), LockError> {
        super::orders::Orders::of(&self.folder).forget();
        match fs::remove_dir(&self.folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(LockError::Failed { path: self.folder.clone(), source });
            }
            _ => {}
        }
        if let Some(parent) = self.folder.parent() {
            // Other stacks' folders keep it.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}
