//! The runtime's own binary, out of reach of containers (CVE-2019-5736).
//!
//! A program in a container can be started as `/proc/self/exe` while that still is our binary, and then opens it for writing
//! by the same name. So whoever makes processes of containers runs from a copy of the binary's *mount* that is read-only and
//! attached nowhere; where that cannot be made, from a sealed copy in memory. The check is made at every spawn.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, memfd_create, open};
use rustix::mount::{OpenTreeFlags, open_tree};
use thiserror::Error;

use crate::runtime::sys::{self, Errno, ExecStrings, MountAttributes};

#[derive(Debug, Error)]
pub enum ProtectError {
    #[error("cannot look at the running executable")]
    Look { source: Errno },
    #[error("cannot copy the running executable")]
    Copy { source: std::io::Error },
    #[error("cannot execute the protected copy of the running executable")]
    Execute { source: Errno },
    #[error("the executable is not protected even as a copy")]
    InVain,
}

const SELF: &std::ffi::CStr = c"/proc/self/exe";

/// Whether the running executable cannot be written through `/proc/self/exe`: it is on a read-only mount, or sealed. Looked at
/// once.
pub fn executable_is_protected() -> Result<bool, Errno> {
    static PROTECTED: OnceLock<Result<bool, Errno>> = OnceLock::new();
    *PROTECTED.get_or_init(|| {
        let executable = open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        if rustix::fs::fstatvfs(&executable)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(true);
        }
        // Only files in memory have seals.
        Ok(rustix::fs::fcntl_get_seals(&executable).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
    })
}

/// The running executable in a form that cannot be written: to be executed by descriptor.
pub fn protected_executable() -> Result<OwnedFd, ProtectError> {
    read_only_clone().or_else(|_| sealed_copy().map_err(|source| ProtectError::Copy { source }))
}

/// Start this program anew from a protected copy, with the same arguments and environment, unless it runs from one already.
/// Returns in the protected process only. To be called first thing in `main`: other threads are gone without a word.
pub fn reexec_protected() -> Result<(), ProtectError> {
    /// Set in the second life, so that a protection that does not work is an error and not a circle.
    const MARK: &str = "STACK_PROTECTED";
    if executable_is_protected().map_err(|source| ProtectError::Look { source })? {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        return Err(ProtectError::InVain);
    }
    let executable = protected_executable()?;
    let text = |bytes: Vec<u8>| CString::new(bytes).unwrap_or_default();
    let arguments = std::env::args_os().map(|argument| text(argument.into_vec())).collect();
    let environment = std::env::vars_os()
        .map(|(name, value)| text([name.into_vec(), value.into_vec()].join(&b'=')))
        .chain([text(format!("{MARK}=1").into_bytes())])
        .collect();
    let source =
        sys::execute_descriptor(executable.as_fd(), &ExecStrings::new(arguments), &ExecStrings::new(environment));
    Err(ProtectError::Execute { source })
}

fn read_only_clone() -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, SELF, flags)?;
    sys::mount_setattr(mount.as_fd(), 0, &MountAttributes::set(MountAttributes::READ_ONLY))?;
    Ok(mount)
}

fn sealed_copy() -> std::io::Result<OwnedFd> {
    let memory = memfd_create(c"stack", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut target = std::fs::File::from(memory);
    let mut source = std::fs::File::from(open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    std::io::copy(&mut source, &mut target)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&target, seals)?;
    Ok(target.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_copy_cannot_be_written() {
        let copy = std::fs::File::from(sealed_copy().unwrap());
        assert_eq!(copy.metadata().unwrap().len(), std::fs::metadata("/proc/self/exe").unwrap().len());
        assert!(std::os::unix::fs::FileExt::write_at(&copy, b"x", 0).is_err());
    }

    #[test]
    fn a_clone_of_the_mount_cannot_be_written() {
        use std::os::fd::AsRawFd;
        let clone = read_only_clone().unwrap();
        let path = format!("/proc/self/fd/{}", clone.as_raw_fd());
        // Writing would fail in any case while the file is executed.
        let mode = std::fs::metadata(&path).unwrap().permissions();
        let error = std::fs::set_permissions(path, mode).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }
}
