//! Doing the operations that only configurations of others ask for: joined namespaces, propagation, devices anywhere, sources
//! that the root of a user namespace cannot reach. Runs between clone and exec: no allocation.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open, openat};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::runtime::sys::{self, Errno, MountAttributes};

use super::below::{Links, NodeKind, open_or_make};
use super::op::{Bind, Fault, JoinedNamespace, NodeAt, NodeType, Part};
use super::rootfs::{InPart, attach, file_type, open_source};

/// The most binds of one configuration whose sources are opened before.
pub const MAX_SOURCES: usize = 256;

/// Sources of binds, opened before they are needed, in the order of the binds.
#[derive(Default)]
pub struct Sources {
    opened: Option<[Option<OwnedFd>; MAX_SOURCES]>,
    next: usize,
}

impl Sources {
    pub fn open(&mut self, binds: &[Bind]) -> Result<(), Fault> {
        let opened = self.opened.insert([const { None }; MAX_SOURCES]);
        for (place, bind) in opened.iter_mut().zip(binds) {
            *place = Some(open_source(bind).in_part(Part::Source)?);
        }
        Ok(())
    }

    pub fn next(&mut self) -> Option<OwnedFd> {
        let place = self.opened.as_mut()?.get_mut(self.next)?;
        self.next += 1;
        place.take()
    }
}

fn change_root_mount(flags: i32, propagation: u64) -> Result<(), Errno> {
    let root = open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    sys::mount_setattr(root.as_fd(), flags, &MountAttributes { propagation, ..MountAttributes::default() })
}

/// The host's mounts get the propagation; the one at `/` is private in any case, since the new root is mounted over it.
pub fn propagate(flag: u64) -> Result<(), Errno> {
    change_root_mount(libc::AT_RECURSIVE, flag)?;
    change_root_mount(0, libc::MS_PRIVATE)
}

pub fn propagate_root(flag: u64, depth: i32) -> Result<(), Errno> {
    change_root_mount(depth, flag)
}

/// The most namespaces that one process is in.
const MAX_NAMESPACES: usize = 8;

/// The mount namespace is last: the list comes in this order.
pub fn join_namespaces(list: &[JoinedNamespace]) -> Result<(), Fault> {
    let mut opened = [const { None::<OwnedFd> }; MAX_NAMESPACES];
    for (place, namespace) in opened.iter_mut().zip(list) {
        let file =
            open(namespace.path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).in_part(Part::Source)?;
        if sys::namespace_type(file.as_fd()).in_part(Part::Verify)? != namespace.kind {
            return Err(Fault { part: Part::Verify, errno: Errno::INVAL });
        }
        *place = Some(file);
    }
    for (file, namespace) in opened.iter().flatten().zip(list) {
        sys::enter_namespace(file.as_fd(), namespace.kind).in_part(Part::Attach)?;
    }
    Ok(())
}

/// runtime-spec config-linux.md, "Devices": a node that is there and another one is an error.
pub fn make_node(root: BorrowedFd<'_>, node: &NodeAt) -> Result<(), Fault> {
    let parent = match &node.directory {
        Some(path) => Some(open_or_make(root, path, NodeKind::Directory, Links::Follow).in_part(Part::Target)?),
        None => None,
    };
    let parent = parent.as_ref().map_or(root, AsFd::as_fd);
    if let Some(path) = &node.host_path {
        return bind_node(parent, node, path);
    }
    let kind = match node.kind {
        NodeType::Block => FileType::BlockDevice,
        NodeType::Character => FileType::CharacterDevice,
        NodeType::Fifo => FileType::Fifo,
    };
    let number = if kind == FileType::Fifo { 0 } else { makedev(node.major, node.minor) };
    let made = mknodat(parent, node.name.as_c_str(), kind, Mode::from_raw_mode(node.mode), number);
    let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let there = openat(parent, node.name.as_c_str(), place, Mode::empty()).in_part(Part::Target)?;
    match made {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let stat = rustix::fs::fstat(&there).in_part(Part::Target)?;
            let same = file_type(&stat) == kind && (kind == FileType::Fifo || stat.st_rdev == number);
            return if same { Ok(()) } else { Err(Fault { part: Part::Verify, errno: Errno::EXIST }) };
        }
        Err(errno) => return Err(errno.into()),
    }
    if (node.uid, node.gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(node.uid), rustix::fs::Gid::from_raw(node.gid));
        let flags = rustix::fs::AtFlags::EMPTY_PATH;
        rustix::fs::chownat(&there, c"", Some(uid), Some(gid), flags).in_part(Part::Attach)?;
    }
    Ok(())
}

fn bind_node(parent: BorrowedFd<'_>, node: &NodeAt, host: &std::ffi::CStr) -> Result<(), Fault> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let device = open_tree(CWD, host, flags).in_part(Part::Source)?;
    let stat = rustix::fs::fstat(&device).in_part(Part::Source)?;
    if stat.st_rdev != makedev(node.major, node.minor) {
        return Err(Fault { part: Part::Source, errno: Errno::NODEV });
    }
    let make = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match openat(parent, node.name.as_c_str(), make, Mode::from_raw_mode(0o666)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Fault { part: Part::Target, errno }),
    }
    let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(parent, node.name.as_c_str(), place, Mode::empty()).in_part(Part::Target)?;
    attach(device.as_fd(), target.as_fd()).in_part(Part::Attach)
}

/// Without pivot_root(2): the new root lies over the old one already.
pub fn enter_root(root: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(c".")?;
    rustix::process::chdir(c"/")
}

/// As execvp(3) would see it: a file that somebody may execute.
pub fn find_program(candidates: &[std::ffi::CString]) -> Result<(), Errno> {
    let mut denied = false;
    for candidate in candidates {
        match rustix::fs::stat(candidate.as_c_str()) {
            Ok(stat) if file_type(&stat) == FileType::RegularFile && stat.st_mode & 0o111 != 0 => return Ok(()),
            Ok(_) | Err(Errno::ACCESS) => denied = true,
            Err(_) => {}
        }
    }
    if denied { Err(Errno::ACCESS) } else { Err(Errno::NOENT) }
}
