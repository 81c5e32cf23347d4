//! The mounts of a container, made by descriptor with the kernel's new mount interface (fsopen, open_tree, move_mount,
//! mount_setattr; Linux 5.12): no path of the root is used twice. Runs between clone and exec: no allocation.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use rustix::fs::{CWD, FileType, OFlags, Stat, fstat, fstatfs, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount, open_tree,
};

use crate::runtime::sys::{Errno, MountAttributes, mount_setattr};

use super::below::{Links, NodeKind, open_below, open_or_make};
use super::copy_up;
use super::op::{Bind, Contents, Fault, Filesystem, MountOp, MountSource, OverlayRoot, Part, Remount, TargetKind};

/// linux/magic.h.
pub const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Mark where an operation stopped.
pub trait InPart<T> {
    fn in_part(self, part: Part) -> Result<T, Fault>;
}

impl<T> InPart<T> for Result<T, Errno> {
    fn in_part(self, part: Part) -> Result<T, Fault> {
        self.map_err(|errno| Fault { part, errno })
    }
}

/// A new filesystem, mounted nowhere yet.
pub fn make_filesystem(filesystem: &Filesystem) -> Result<OwnedFd, Errno> {
    let context = fsopen(filesystem.kind.as_c_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in &filesystem.parameters {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?,
            None => fsconfig_set_flag(&context, key.as_c_str())?,
        }
    }
    let late = if late_read_only(filesystem) { MountAttributes::READ_ONLY as u32 } else { 0 };
    finish_filesystem(&context, MountAttrFlags::from_bits_retain(filesystem.attributes & !late))
}

fn finish_filesystem(context: &OwnedFd, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    fsconfig_create(context)?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A copy of a mount of the host, attached nowhere, with devices out of use unless asked for.
pub fn copy_mount(bind: &Bind) -> Result<OwnedFd, Errno> {
    let mount = open_source(bind)?;
    finish_bind(mount.as_fd(), bind)?;
    Ok(mount)
}

/// The copy, as it is.
pub fn open_source(bind: &Bind) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | if bind.depth == 0 { OpenTreeFlags::empty() } else { OpenTreeFlags::AT_RECURSIVE };
    open_tree(CWD, bind.path.as_c_str(), flags)
}

fn finish_bind(mount: BorrowedFd<'_>, bind: &Bind) -> Result<(), Errno> {
    if !bind.recursive.is_empty() {
        mount_setattr(mount, bind.depth, &bind.recursive)?;
    }
    if bind.attributes.is_empty() { Ok(()) } else { mount_setattr(mount, 0, &bind.attributes) }
}

/// The layers of an overlay as one tree, attached nowhere.
///
/// The kernel takes at most 255 bytes per value, and splits the list of layers at colons. So the layers are opened, and named
/// by the numbers of their descriptors, with `/proc/self/fd` as the working directory. What is too much even so goes layer by
/// layer, which takes Linux 6.8.
pub fn make_overlay(overlay: &OverlayRoot) -> Result<OwnedFd, Fault> {
    /// With numbers of up to three digits.
    const MOST_IN_ONE_VALUE: usize = 60;
    rustix::process::chdir(c"/proc/self/fd").in_part(Part::Source)?;
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let one_by_one = overlay.lower.len() > MOST_IN_ONE_VALUE;
    let mut names = DescriptorNames::default();
    for layer in &overlay.lower {
        // Stays open until exec; close-on-exec then. The number is what counts.
        let number = open_directory(layer).in_part(Part::Source)?.into_raw_fd();
        if one_by_one {
            names = DescriptorNames::default();
        }
        names.add(number).in_part(Part::Source)?;
        if one_by_one {
            fsconfig_set_string(&context, c"lowerdir+", names.as_c_str()).in_part(Part::Source)?;
        }
    }
    if !one_by_one {
        fsconfig_set_string(&context, c"lowerdir", names.as_c_str()).in_part(Part::Source)?;
    }
    let upper = open_directory(&overlay.upper).in_part(Part::Target)?;
    let work = open_directory(&overlay.work).in_part(Part::Target)?;
    for (key, descriptor) in [(c"upperdir", &upper), (c"workdir", &work)] {
        let mut name = DescriptorNames::default();
        name.add(descriptor.as_raw_fd())?;
        fsconfig_set_string(&context, key, name.as_c_str()).in_part(Part::Target)?;
    }
    let mount = finish_filesystem(&context, MountAttrFlags::MOUNT_ATTR_NODEV).in_part(Part::Attach)?;
    // Back to a place that no descriptor number can leave behind.
    rustix::process::chdir(c"/")?;
    Ok(mount)
}

fn open_directory(path: &CStr) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
}

/// Numbers with colons between them, in a buffer of the size that the kernel takes.
#[derive(Default)]
struct DescriptorNames {
    text: NameBuffer,
    length: usize,
}

struct NameBuffer([u8; 256]);

impl Default for NameBuffer {
    fn default() -> Self {
        Self([0; 256])
    }
}

impl DescriptorNames {
    fn add(&mut self, number: i32) -> Result<(), Errno> {
        if self.length > 0 {
            self.push(b':')?;
        }
        let mut digits = [0_u8; 10];
        let mut rest = number.unsigned_abs();
        let mut count = 0;
        for digit in &mut digits {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            count += 1;
            if rest == 0 {
                break;
            }
        }
        for digit in digits.iter().take(count).rev() {
            self.push(*digit)?;
        }
        Ok(())
    }

    fn push(&mut self, byte: u8) -> Result<(), Errno> {
        // The last byte stays 0.
        if self.length + 1 >= self.text.0.len() {
            return Err(Errno::NAMETOOLONG);
        }
        *self.text.0.get_mut(self.length).ok_or(Errno::NAMETOOLONG)? = byte;
        self.length += 1;
        Ok(())
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.text.0).unwrap_or(c"")
    }
}

/// Attach a mount that is attached nowhere to what `target` refers to.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}

/// Attach the new root over the old one. Look-ups that start at `/` start below it, so the host's names keep their meaning
/// until the root is changed.
pub fn attach_root(root: BorrowedFd<'_>) -> Result<(), Errno> {
    move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A mount that there is already.
pub enum Given {
    Nothing,
    /// The source of a bind, which had to be opened before.
    Opened(OwnedFd),
    /// A bind that is ready to be attached.
    Finished(OwnedFd),
}

/// Do one mount of the configuration below `root`; returns the root of what was mounted.
pub fn mount_below(root: BorrowedFd<'_>, op: &MountOp, given: Given) -> Result<OwnedFd, Fault> {
    let mount = match (&op.source, given) {
        (MountSource::Filesystem(filesystem), _) => make_filesystem(filesystem)?,
        (MountSource::Bind(bind), Given::Nothing) => copy_mount(bind).in_part(Part::Source)?,
        (MountSource::Bind(_), Given::Finished(mount)) => mount,
        (MountSource::Bind(bind), Given::Opened(opened)) => {
            finish_bind(opened.as_fd(), bind).in_part(Part::Source)?;
            opened
        }
    };
    let (kind, links) = match op.target_kind {
        TargetKind::Directory => (NodeKind::Directory, Links::Follow),
        TargetKind::RealDirectory => (NodeKind::Directory, Links::Refuse),
        TargetKind::LikeSource => (kind_of(mount.as_fd()).in_part(Part::Source)?, Links::Follow),
    };
    let contents = match &op.source {
        MountSource::Filesystem(filesystem) => filesystem.contents,
        MountSource::Bind(_) => Contents::Empty,
    };
    let was_there = contents != Contents::Empty && open_below(root, &op.target, OFlags::PATH, links).is_ok();
    let target = open_or_make(root, &op.target, kind, links).in_part(Part::Target)?;
    // Only what says so by its name may lie in a procfs; the names were checked before.
    let named_in_proc = op.target.to_bytes().starts_with(b"proc/");
    if !named_in_proc && is_procfs(target.as_fd())? {
        return Err(Fault { part: Part::TargetInProc, errno: Errno::PERM });
    }
    if was_there {
        copy_up::fill(mount.as_fd(), target.as_fd(), contents).in_part(Part::Source)?;
    }
    let (propagation, read_only) = match &op.source {
        MountSource::Bind(bind) => (&bind.propagation, false),
        MountSource::Filesystem(filesystem) => (&filesystem.propagation, late_read_only(filesystem)),
    };
    if read_only {
        mount_setattr(mount.as_fd(), 0, &MountAttributes::set(MountAttributes::READ_ONLY))?;
    }
    attach(mount.as_fd(), target.as_fd()).in_part(Part::Attach)?;
    propagate(mount.as_fd(), propagation)?;
    if op.target_kind == TargetKind::RealDirectory {
        let seen =
            open_below(root, &op.target, OFlags::PATH | OFlags::DIRECTORY, Links::Refuse).in_part(Part::Verify)?;
        same_node(seen.as_fd(), mount.as_fd()).in_part(Part::Verify)?;
    }
    Ok(mount)
}

fn propagate(mount: BorrowedFd<'_>, changes: &[(u64, i32)]) -> Result<(), Fault> {
    changes.iter().try_for_each(|(propagation, depth)| {
        let change = MountAttributes { propagation: *propagation, ..MountAttributes::default() };
        mount_setattr(mount, *depth, &change).in_part(Part::Verify)
    })
}

/// What is filled first cannot be read-only by then.
fn late_read_only(filesystem: &Filesystem) -> bool {
    filesystem.contents != Contents::Empty && u64::from(filesystem.attributes) & MountAttributes::READ_ONLY != 0
}

/// Change what is mounted below `root` already: the mount, those below it, its filesystem.
pub fn change_mount(root: BorrowedFd<'_>, op: &Remount) -> Result<(), Fault> {
    let mount = open_below(root, &op.target, OFlags::PATH, Links::Follow).in_part(Part::Target)?;
    let named_in_proc = op.target.to_bytes().starts_with(b"proc");
    if !named_in_proc && is_procfs(mount.as_fd())? {
        return Err(Fault { part: Part::TargetInProc, errno: Errno::PERM });
    }
    if !op.parameters.is_empty() {
        let context = fspick(&mount, c"", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
        for (key, value) in &op.parameters {
            match value {
                Some(value) => fsconfig_set_string(&context, key.as_c_str(), value.as_c_str())?,
                None => fsconfig_set_flag(&context, key.as_c_str())?,
            }
        }
        fsconfig_reconfigure(&context)?;
    }
    if !op.recursive.is_empty() {
        mount_setattr(mount.as_fd(), libc::AT_RECURSIVE, &op.recursive).in_part(Part::Attach)?;
    }
    if !op.attributes.is_empty() {
        mount_setattr(mount.as_fd(), 0, &op.attributes).in_part(Part::Attach)?;
    }
    propagate(mount.as_fd(), &op.propagation)
}

fn kind_of(node: BorrowedFd<'_>) -> Result<NodeKind, Errno> {
    let directory = file_type(&fstat(node)?) == FileType::Directory;
    Ok(if directory { NodeKind::Directory } else { NodeKind::File })
}

pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

pub fn is_procfs(node: BorrowedFd<'_>) -> Result<bool, Errno> {
    #[allow(clippy::unnecessary_cast, reason = "the field's type depends on the architecture")]
    Ok(fstatfs(node)?.f_type as i64 == PROC_SUPER_MAGIC)
}

/// Whether two descriptors refer to one file.
fn same_node(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<(), Errno> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) { Ok(()) } else { Err(Errno::XDEV) }
}

/// Make a path read-only with all below it; `false` if it is not there.
pub fn make_read_only(root: BorrowedFd<'_>, path: &CStr) -> Result<bool, Fault> {
    let Some(target) = open_if_there(root, path).in_part(Part::Target)? else { return Ok(false) };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(&target, c"", flags).in_part(Part::Source)?;
    mount_setattr(mount.as_fd(), libc::AT_RECURSIVE, &MountAttributes::set(MountAttributes::READ_ONLY))?;
    attach(mount.as_fd(), target.as_fd()).in_part(Part::Attach)?;
    let seen = open_below(root, path, OFlags::PATH, Links::Follow).in_part(Part::Verify)?;
    let read_only = rustix::fs::fstatvfs(&seen)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    if read_only { Ok(true) } else { Err(Fault { part: Part::Verify, errno: Errno::ROFS }) }
}

/// What masked paths are covered with.
#[derive(Default)]
pub struct Masks {
    null: Option<OwnedFd>,
    /// An empty read-only directory, once it is attached somewhere: only then can it be copied (before Linux 6.15).
    empty: Option<OwnedFd>,
}

impl Masks {
    /// Cover a path; `false` if it is not there.
    pub fn cover(&mut self, root: BorrowedFd<'_>, path: &CStr) -> Result<bool, Fault> {
        let Some(target) = open_if_there(root, path).in_part(Part::Target)? else { return Ok(false) };
        let mask = match kind_of(target.as_fd())? {
            NodeKind::Directory => match &self.empty {
                None => {
                    let empty = empty_directory().in_part(Part::Source)?;
                    attach(empty.as_fd(), target.as_fd()).in_part(Part::Attach)?;
                    let empty: &OwnedFd = self.empty.insert(empty);
                    empty.as_fd()
                }
                Some(empty) => cover_with_copy(empty.as_fd(), target.as_fd())?,
            },
            NodeKind::File => {
                let null = match &self.null {
                    None => self.null.insert(null_device().in_part(Part::Source)?),
                    Some(null) => null,
                };
                cover_with_copy(null.as_fd(), target.as_fd())?
            }
        };
        let seen = open_below(root, path, OFlags::PATH, Links::Follow).in_part(Part::Verify)?;
        same_node(seen.as_fd(), mask).in_part(Part::Verify)?;
        Ok(true)
    }
}

/// Attach a copy of the mount behind `mask`; returns `mask`.
fn cover_with_copy<'a>(mask: BorrowedFd<'a>, target: BorrowedFd<'_>) -> Result<BorrowedFd<'a>, Fault> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let copy = open_tree(mask, c"", flags).in_part(Part::Source)?;
    attach(copy.as_fd(), target).in_part(Part::Attach)?;
    Ok(mask)
}

fn empty_directory() -> Result<OwnedFd, Errno> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"mode", c"0555")?;
    fsconfig_set_flag(&context, c"ro")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    finish_filesystem(&context, attributes)
}

/// The host's `/dev/null`, proved to be the device.
fn null_device() -> Result<OwnedFd, Errno> {
    let null = openat(CWD, c"/dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    is_character_device(null.as_fd(), 1, 3)?;
    Ok(null)
}

/// Fails with ENODEV if `node` is not this device.
pub fn is_character_device(node: BorrowedFd<'_>, major: u32, minor: u32) -> Result<(), Errno> {
    let stat = fstat(node)?;
    let is_it = file_type(&stat) == FileType::CharacterDevice && stat.st_rdev == rustix::fs::makedev(major, minor);
    if is_it { Ok(()) } else { Err(Errno::NODEV) }
}

fn open_if_there(root: BorrowedFd<'_>, path: &CStr) -> Result<Option<OwnedFd>, Errno> {
    match open_below(root, path, OFlags::PATH, Links::Follow) {
        Ok(node) => Ok(Some(node)),
        // Absent. Any other failure must not leave the path open.
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_named_by_their_numbers() {
        let mut names = DescriptorNames::default();
        for number in [0, 7, 10, 1234] {
            names.add(number).unwrap();
        }
        assert_eq!(names.as_c_str(), c"0:7:10:1234");
    }

    #[test]
    fn too_many_layers_are_an_error_and_not_cut_off() {
        let mut names = DescriptorNames::default();
        let added = (100..).take_while(|number| names.add(*number).is_ok()).count();
        assert_eq!(added, 64, "three digits and a colon each, in 255 bytes");
    }

    #[test]
    fn the_null_device_is_told_from_others() {
        let zero = openat(CWD, c"/dev/zero", OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        assert_eq!(is_character_device(zero.as_fd(), 1, 3), Err(Errno::NODEV));
        null_device().unwrap();
    }
}
