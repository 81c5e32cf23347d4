//! Takes out of a step's upper directory what is there and is no change: what was made to be mounted on, and folders
//! that were only copied up on the way to others.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::runtime::overlay::{OverlayFs, OverlayLayer};

/// What is made to be mounted on, folders after what is in them.
const MOUNT_POINTS: [&str; 6] = ["etc/resolv.conf", "etc/hosts", "etc", "proc", "dev", "sys"];

/// Takes away what was made to be mounted on and is in no layer below.
pub(super) fn take_away_mount_points(upper: &Path, lower: &[PathBuf]) -> io::Result<()> {
    let below = OverlayFs::new(lower.iter().map(OverlayLayer::folder).collect());
    for point in MOUNT_POINTS {
        let place = upper.join(point);
        let Ok(found) = fs::symlink_metadata(&place) else { continue };
        if below.lookup(point).map_err(io::Error::other)?.is_some() {
            continue;
        }
        if found.is_file() && found.len() == 0 {
            fs::remove_file(&place)?;
        } else if found.is_dir() && fs::read_dir(&place)?.next().is_none() {
            fs::remove_dir(&place)?;
        }
    }
    Ok(())
}

/// Takes away folders that were only copied up: nothing in them changed, and neither did they.
pub(super) fn take_away_unchanged_folders(upper: &Path, lower: &[PathBuf]) -> io::Result<()> {
    let below = OverlayFs::new(lower.iter().map(OverlayLayer::folder).collect());
    clear_folder(upper, Path::new(""), &below).map(drop)
}

/// Whether the folder is empty afterwards.
fn clear_folder(upper: &Path, path: &Path, below: &OverlayFs) -> io::Result<bool> {
    let mut empty = true;
    for entry in fs::read_dir(upper.join(path))? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            empty = false;
            continue;
        }
        let inner = path.join(entry.file_name());
        let place = upper.join(&inner);
        if !clear_folder(upper, &inner, below)? || is_opaque(&place) {
            empty = false;
            continue;
        }
        let found = fs::symlink_metadata(&place)?;
        let same = below.lookup(&inner).map_err(io::Error::other)?.is_some_and(|entry| {
            entry.is_directory()
                && (entry.mode, entry.uid, entry.gid) == (found.mode() & 0o7777, found.uid(), found.gid())
        });
        match same {
            true => fs::remove_dir(&place)?,
            false => empty = false,
        }
    }
    Ok(empty)
}

fn is_opaque(folder: &Path) -> bool {
    let mut value = [0; 2];
    rustix::fs::lgetxattr(folder, c"trusted.overlay.opaque", &mut value).is_ok()
}
