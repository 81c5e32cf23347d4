//! Overlay mounts, planned where there is room to think and carried out where there is none: between clone and exec.
//!
//! Linux takes lower layers one by one since 6.7 (`lowerdir+`), through fsconfig(2), whose values have at most 255 bytes.
//! Before, all of them must fit in the one page that mount(2) takes.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, mount, move_mount,
};

use super::OverlayError;

/// fs/fsopen.c takes strings of up to 256 bytes with their NUL.
const MAX_VALUE: usize = 255;
/// mount(2) takes one page of options with its NUL.
const MAX_OPTIONS: usize = 4095;

/// Chosen on purpose, whatever the kernel was built with: no redirects and no metadata-only copies, so that the upper
/// directory alone tells what changed, and nothing that a layer brings along can point elsewhere.
const OPTIONS: [(&CStr, &CStr); 3] = [(c"redirect_dir", c"nofollow"), (c"index", c"off"), (c"metacopy", c"off")];

/// An overlay to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayMount {
    /// Topmost first; none twice.
    pub lower: Vec<PathBuf>,
    /// Where changes go; on one file system with `work`, which is empty and belongs to the kernel.
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// What the running kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlaySupport {
    /// `lowerdir+` (Linux 6.7).
    pub lower_one_by_one: bool,
}

/// A mount, ready to be made: every string is in place, and making it allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayPlan {
    steps: Steps,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Steps {
    /// Keys and values for fsconfig(2), in order.
    FsConfig(Vec<(CString, CString)>),
    /// Options for mount(2), with paths relative to `folder` where that is given.
    Options { folder: Option<CString>, options: CString },
}

/// The system calls of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayStep {
    /// fsopen(2).
    Open,
    /// fsconfig(2) with the key of this index, in the order of [`OverlayPlan::settings`].
    Set(u16),
    /// fsconfig(2) that makes the superblock: most refusals come from here.
    Create,
    /// fsmount(2), or mount(2).
    Mount,
    /// move_mount(2).
    Attach,
    /// chdir(2) to the folder of the layers.
    Chdir,
}

/// Where a mount stopped; a few bytes, to be put into words by somebody with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayStopped {
    pub step: OverlayStep,
    pub errno: Errno,
}

impl OverlaySupport {
    /// Asks the kernel; mounts nothing. Where overlayfs cannot even be opened, the old way is assumed, whose error will tell.
    pub fn probe() -> Self {
        let takes = |key: &CStr| {
            let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, key, c"/")
        };
        // Kernels before 6.5 collect settings unread, so that they take this as well, and refuse when they mount.
        let reads_nothing = takes(c"stack-knows-no-such-key").is_ok();
        Self { lower_one_by_one: !reads_nothing && takes(c"lowerdir+").is_ok() }
    }
}

impl OverlayMount {
    /// Errors: no lower layer, a path with NUL or too long, too many layers for an old kernel.
    pub fn compile(&self, support: OverlaySupport) -> Result<OverlayPlan, OverlayError> {
        if self.lower.is_empty() {
            return Err(OverlayError::NoLower);
        }
        if support.lower_one_by_one {
            let settings = self.one_by_one()?;
            if settings.iter().all(|(_, value)| value.as_bytes().len() <= MAX_VALUE) {
                return Ok(OverlayPlan { steps: Steps::FsConfig(settings) });
            }
        }
        Ok(OverlayPlan { steps: self.in_one_page()? })
    }

    fn one_by_one(&self) -> Result<Vec<(CString, CString)>, OverlayError> {
        let mut settings = vec![(c"source".to_owned(), c"stack".to_owned())];
        for lower in &self.lower {
            settings.push((c"lowerdir+".to_owned(), c_string(lower, lower.as_os_str().as_bytes())?));
        }
        for (key, path) in [(c"upperdir", &self.upper), (c"workdir", &self.work)] {
            // The kernel takes backslashes out of these two, and not out of lower layers.
            let mut value = Vec::new();
            escape(path, b"\\", &mut value);
            settings.push((key.to_owned(), c_string(path, &value)?));
        }
        settings.extend(OPTIONS.map(|(key, value)| (key.to_owned(), value.to_owned())));
        Ok(settings)
    }

    /// Layers lie beside each other, and naming them from there saves most of each path.
    fn in_one_page(&self) -> Result<Steps, OverlayError> {
        let folder =
            self.lower[0].parent().filter(|folder| self.lower.iter().all(|path| path.parent() == Some(folder)));
        let mut options = b"lowerdir=".to_vec();
        for (at, lower) in self.lower.iter().enumerate() {
            if at > 0 {
                options.push(b':');
            }
            let name = folder.and_then(|_| lower.file_name()).map_or(lower.as_path(), Path::new);
            escape(name, b":,\\", &mut options);
        }
        for (key, path) in [(&b",upperdir="[..], &self.upper), (b",workdir=", &self.work)] {
            options.extend_from_slice(key);
            escape(path, b",\\", &mut options);
        }
        for (key, value) in OPTIONS {
            options.extend_from_slice(&[b",", key.to_bytes(), b"=", value.to_bytes()].concat());
        }
        if options.len() > MAX_OPTIONS {
            return Err(OverlayError::Options { layers: self.lower.len(), bytes: options.len(), limit: MAX_OPTIONS });
        }
        let folder = folder.map(|folder| c_string(folder, folder.as_os_str().as_bytes())).transpose()?;
        Ok(Steps::Options { folder, options: c_string(&self.lower[0], &options)? })
    }
}

impl OverlayPlan {
    /// Keys and values that are given to the kernel, for messages about a step that stopped.
    pub fn settings(&self) -> Vec<(&CStr, &CStr)> {
        match &self.steps {
            Steps::FsConfig(settings) => settings.iter().map(|(key, value)| (&**key, &**value)).collect(),
            Steps::Options { options, .. } => vec![(c"options", options)],
        }
    }

    /// Mounts at `target`, in the mount namespace of the caller, with `nodev`. Does not allocate. The layers are
    /// looked up in that namespace too. On kernels before 6.7 the working directory is another one afterwards.
    pub fn mount(&self, target: &CStr) -> Result<(), OverlayStopped> {
        match &self.steps {
            Steps::FsConfig(settings) => {
                let tree = detached(settings)?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                stopped(OverlayStep::Attach, move_mount(tree.as_fd(), c"", CWD, target, flags))
            }
            Steps::Options { folder, options } => {
                if let Some(folder) = folder {
                    stopped(OverlayStep::Chdir, rustix::process::chdir(&**folder))?;
                }
                stopped(OverlayStep::Mount, mount(c"stack", target, c"overlay", MountFlags::NODEV, &**options))
            }
        }
    }
}

fn detached(settings: &[(CString, CString)]) -> Result<OwnedFd, OverlayStopped> {
    let context = stopped(OverlayStep::Open, fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC))?;
    for (at, (key, value)) in settings.iter().enumerate() {
        let step = OverlayStep::Set(at.min(usize::from(u16::MAX)) as u16);
        stopped(step, fsconfig_set_string(&context, &**key, &**value))?;
    }
    stopped(OverlayStep::Create, fsconfig_create(&context))?;
    // Setuid programs of an image work as they do elsewhere; device nodes do not.
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    stopped(OverlayStep::Mount, fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes))
}

fn stopped<T>(step: OverlayStep, result: rustix::io::Result<T>) -> Result<T, OverlayStopped> {
    result.map_err(|errno| OverlayStopped { step, errno })
}

fn escape(path: &Path, special: &[u8], into: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if special.contains(&byte) {
            into.push(b'\\');
        }
        into.push(byte);
    }
}

fn c_string(path: &Path, bytes: &[u8]) -> Result<CString, OverlayError> {
    let wrong = || OverlayError::Path {
        path: PathBuf::from(std::ffi::OsString::from_vec(path.as_os_str().as_bytes().to_vec())),
    };
    if bytes.is_empty() {
        return Err(wrong());
    }
    CString::new(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(lower: &[&str]) -> OverlayMount {
        let lower = lower.iter().map(PathBuf::from).collect();
        OverlayMount { lower, upper: "/r/upper".into(), work: "/r/work".into() }
    }

    #[test]
    fn new_kernels_get_layers_one_by_one() {
        let plan = overlay(&["/l/b", "/l/a:x"]).compile(OverlaySupport { lower_one_by_one: true }).unwrap();
        let settings: Vec<String> = plan
            .settings()
            .iter()
            .map(|(key, value)| format!("{}={}", key.to_str().unwrap(), value.to_str().unwrap()))
            .collect();
        let expected = "source=stack lowerdir+=/l/b lowerdir+=/l/a:x upperdir=/r/upper workdir=/r/work \
                        redirect_dir=nofollow index=off metacopy=off";
        assert_eq!(settings.join(" "), expected);
    }

    #[test]
    fn old_kernels_get_names_beside_each_other_on_one_page() {
        let old = OverlaySupport { lower_one_by_one: false };
        let plan = overlay(&["/l/b", "/l/a:x,y"]).compile(old).unwrap();
        let options =
            c"lowerdir=b:a\\:x\\,y,upperdir=/r/upper,workdir=/r/work,redirect_dir=nofollow,index=off,metacopy=off";
        assert_eq!(plan.settings(), [(c"options", options)]);
        let names: Vec<String> = (0..62).map(|n| format!("/var/lib/stack/layers/sha256/{n:064}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(overlay(&names[..61]).compile(old).is_ok());
        assert!(matches!(overlay(&names).compile(old), Err(OverlayError::Options { layers: 62, .. })));
    }

    #[test]
    fn what_cannot_be_mounted_is_refused_before() {
        let new = OverlaySupport { lower_one_by_one: true };
        assert!(matches!(overlay(&[]).compile(new), Err(OverlayError::NoLower)));
        assert!(matches!(overlay(&["/a\0b"]).compile(new), Err(OverlayError::Path { .. })));
        assert!(matches!(overlay(&[""]).compile(new), Err(OverlayError::Path { .. })));
    }
}
