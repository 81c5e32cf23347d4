//! The namespaces that a detached container's maker joins for it, before the clone: some take effect for children only, and in a
//! user namespace nobody has a right to those of the host.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use crate::runtime::sys::{self, Cloned, Errno, NamespaceFlags};

use super::detached::{MakerNamespace, MakerNamespaces};
use super::spawn::{self, SpawnError};
use super::stdio::pipe;

/// The maker's own namespaces, entered again when this is dropped: its hooks belong there.
pub struct Home(Vec<(OwnedFd, u64)>);

impl Drop for Home {
    fn drop(&mut self) {
        for (namespace, kind) in &self.0 {
            let _ = sys::enter_namespace(namespace.as_fd(), *kind);
        }
    }
}

pub type Opened<'a> = Vec<(OwnedFd, &'a MakerNamespace)>;

fn open_namespace(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn joining(path: &Path) -> impl Fn(Errno) -> SpawnError {
    move |source| SpawnError::SetUp {
        step: format!("cannot join the namespaces `{}`", path.display()),
        executing: false,
        source,
    }
}

/// The namespaces to join, of the right kind each.
pub fn open_joined(maker: &MakerNamespaces) -> Result<Opened<'_>, SpawnError> {
    let open = |namespace| -> Result<_, SpawnError> {
        let MakerNamespace { path, kind, .. }: &MakerNamespace = namespace;
        let opened = open_namespace(path).map_err(joining(path))?;
        match sys::namespace_type(opened.as_fd()).map_err(joining(path))? == *kind {
            true => Ok((opened, namespace)),
            false => Err(joining(path)(Errno::INVAL)),
        }
    };
    maker.joined.iter().map(open).collect()
}

pub fn enter_for_children(maker: &MakerNamespaces, joined: Opened<'_>) -> Result<Home, SpawnError> {
    let mut home = Home(Vec::new());
    for (namespace, MakerNamespace { path, own, kind }) in joined {
        home.0.push((open_namespace(own).map_err(joining(own))?, *kind));
        sys::enter_namespace(namespace.as_fd(), *kind).map_err(joining(path))?;
    }
    if let Some(offsets) = &maker.new_time {
        let mut make = || -> Result<(), Errno> {
            home.0.push((open_namespace("/proc/self/ns/time".as_ref())?, NamespaceFlags::TIME));
            sys::unshare(NamespaceFlags::TIME)?;
            if !offsets.is_empty() {
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                let file = open("/proc/self/timens_offsets", flags, Mode::empty())?;
                rustix::io::write(&file, offsets.as_bytes())?;
            }
            Ok(())
        };
        make().map_err(|source| SpawnError::Clone { source })?;
    }
    Ok(home)
}

/// The maker's copy of [`Cloned`]'s two sides, by way of a helper that enters the user namespace at `path`: nobody comes back from
/// there. What is cloned in it is the maker's own child.
pub fn clone_in_user_namespace(
    path: &Path,
    joined: &Opened<'_>,
    namespaces: NamespaceFlags,
) -> Result<Cloned, SpawnError> {
    let joining = joining(path);
    let namespace = open_namespace(path).map_err(&joining)?;
    if sys::namespace_type(namespace.as_fd()).map_err(&joining)? != NamespaceFlags::USER {
        return Err(joining(Errno::INVAL));
    }
    let (number, number_write) = pipe().map_err(|source| SpawnError::Pipe { source })?;
    match sys::clone_child(NamespaceFlags::default(), None).map_err(|source| SpawnError::Clone { source })? {
        Cloned::Child => {
            // The helper numbers processes as its maker does: what it joins here holds for what it clones.
            let cloned = joined
                .iter()
                .try_for_each(|(opened, one)| sys::enter_namespace(opened.as_fd(), one.kind))
                .and_then(|()| sys::enter_namespace(namespace.as_fd(), NamespaceFlags::USER))
                .and_then(|()| sys::clone_sibling_in(namespaces));
            match cloned {
                Ok(0) => Ok(Cloned::Child),
                told => {
                    // A number, or an error as a negative one.
                    let told = told.unwrap_or_else(|errno| -errno.raw_os_error());
                    let _ = rustix::io::write(&number_write, &told.to_le_bytes());
                    sys::exit_now(0)
                }
            }
        }
        Cloned::Parent { pidfd: helper, .. } => {
            drop(number_write);
            let _ = spawn::wait(helper.as_fd());
            let mut bytes = [0_u8; 4];
            let told = match rustix::io::read(&number, &mut bytes) {
                Ok(4) => i32::from_le_bytes(bytes),
                _ => -Errno::IO.raw_os_error(),
            };
            let pid = rustix::process::Pid::from_raw(told.max(0));
            let pid = pid.ok_or_else(|| joining(Errno::from_raw_os_error(-told)))?;
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(&joining)?;
            Ok(Cloned::Parent { pid: told, pidfd })
        }
    }
}
