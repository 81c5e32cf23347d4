//! Doing the operations, one after the other. Runs between clone and exec: system calls only; no allocation, no lock, no
//! formatting, no panic.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, makedev, mknodat, open, openat, symlinkat, unlinkat};
use rustix::mount::{UnmountFlags, unmount};

use crate::runtime::sys::{self, Errno, Prctl};

use super::below::{Links, NodeKind, open_below, open_or_make};
use super::hook::StatePid;
use super::idmap::Prepared;
use super::notify::install_notifying;
use super::op::{
    Bind, CapabilitySets, Credentials, DeviceNode, Execution, Fault, KeptMount, MountSource, Part, SetupOp, Stopped,
};
use super::perform_detached::{
    Sources, enter_root, find_program, join_namespaces, make_node, propagate, propagate_root,
};
use super::rootfs::{
    Given, InPart, Masks, attach, attach_root, change_mount, file_type, is_character_device, is_procfs, make_overlay,
    make_read_only, mount_below,
};

/// What operations leave for later ones.
#[derive(Default)]
pub struct Progress {
    root: Option<OwnedFd>,
    proc: Option<OwnedFd>,
    dev: Option<OwnedFd>,
    masks: Masks,
    sources: Sources,
    pub(super) prepared: Prepared,
    /// To the runtime, where a filter notifies: a socket.
    pub(super) runtime: Option<OwnedFd>,
}

impl Progress {
    /// Do `ops`; `first` is the number of the first of them in messages.
    pub fn perform(&mut self, ops: &[SetupOp], first: u16) -> Result<(), Stopped> {
        let mut number = first;
        for op in ops {
            self.perform_one(op).map_err(|fault| Stopped { op: number, fault })?;
            number = number.saturating_add(1);
        }
        Ok(())
    }

    fn perform_one(&mut self, op: &SetupOp) -> Result<(), Fault> {
        match op {
            SetupOp::DieWithParent => sys::prctl(Prctl::ParentDeathSignal(libc::SIGKILL))?,
            SetupOp::NotDumpable => sys::prctl(Prctl::NotDumpable)?,
            SetupOp::NewSession => rustix::process::setsid().map(drop)?,
            SetupOp::NewKeyring => new_keyring()?,
            SetupOp::JoinCgroup { procs } => write_file(CWD, procs, b"0")?,
            SetupOp::NewCgroupNamespace => sys::unshare_cgroup_namespace()?,
            SetupOp::AdjustOomScore { value } => write_file(CWD, c"/proc/self/oom_score_adj", value.to_bytes())?,
            SetupOp::SetHostname { name } => rustix::system::sethostname(name.as_bytes())?,
            SetupOp::SetDomainname { name } => rustix::system::setdomainname(name.as_bytes())?,
            SetupOp::MakeMountsPrivate => make_mounts_private()?,
            SetupOp::RootFromDirectory { path } => self.root = Some(copy_root(path).in_part(Part::Source)?),
            SetupOp::RootFromTree { path } => self.root = Some(copy_tree(path).in_part(Part::Source)?),
            SetupOp::RootFromOverlay(overlay) => self.root = Some(make_overlay(overlay)?),
            SetupOp::AttachRoot => attach_root(self.root()?)?,
            SetupOp::Mount(mount) => {
                let opened = match &mount.source {
                    MountSource::Bind(Bind { prepared: Some(index), .. }) => {
                        Given::Finished(self.prepared.take(*index).ok_or(Errno::BADF)?)
                    }
                    MountSource::Bind(_) => self.sources.next().map_or(Given::Nothing, Given::Opened),
                    MountSource::Filesystem(_) => Given::Nothing,
                };
                let mounted = mount_below(self.root()?, mount, opened)?;
                match mount.keep {
                    KeptMount::No => {}
                    KeptMount::Proc => self.proc = Some(mounted),
                    KeptMount::Dev => self.dev = Some(mounted),
                }
            }
            SetupOp::Remount(remount) => change_mount(self.root()?, remount)?,
            SetupOp::OpenDev => {
                self.dev = Some(open_or_make(self.root()?, c"dev", NodeKind::Directory, Links::Refuse)?);
            }
            SetupOp::MakeDevice(node) => make_device(held(&self.dev)?, node)?,
            SetupOp::BindDevice(node) => bind_device(held(&self.dev)?, node)?,
            SetupOp::LinkInDev { name, target } => link(held(&self.dev)?, name, target)?,
            SetupOp::OpenPrivateProc => self.proc = Some(private_proc()?),
            SetupOp::WriteSysctl { path, value } => write_sysctl(held(&self.proc)?, path, value.as_bytes())?,
            SetupOp::MakeDirectory { path } => make_directory(self.root()?, path)?,
            SetupOp::MakeReadOnly { path } => make_read_only(self.root()?, path).map(drop)?,
            SetupOp::SealMount { path } => {
                let mount = open_below(self.root()?, path, OFlags::PATH, Links::Refuse)?;
                make_mount_read_only(mount.as_fd())?;
            }
            SetupOp::Mask { path } => {
                let root = self.root.as_ref().ok_or(Errno::BADF)?;
                self.masks.cover(root.as_fd(), path).map(drop)?;
            }
            SetupOp::MakeRootReadOnly => make_mount_read_only(self.root()?)?,
            SetupOp::Propagate { flag } => propagate(*flag)?,
            SetupOp::PropagateRoot { flag, depth } => propagate_root(*flag, *depth)?,
            SetupOp::JoinNamespaces(list) => join_namespaces(list)?,
            SetupOp::BecomeRoot => sys::set_ids(0, 0)?,
            SetupOp::OpenSources(binds) => self.sources.open(binds)?,
            SetupOp::LoopbackUp => sys::loopback_up()?,
            SetupOp::MakeNode(node) => make_node(self.root()?, node)?,
            SetupOp::RunHook(hook) => hook.run(StatePid::Own)?,
            SetupOp::EnterRoot => enter_root(self.root()?)?,
            SetupOp::Pivot => pivot(self.root()?)?,
            SetupOp::FindProgram { candidates, .. } => find_program(candidates)?,
            SetupOp::SetPersonality { domain } => sys::set_personality(*domain)?,
            SetupOp::SetScheduler(attributes) => sys::set_scheduler(attributes)?,
            SetupOp::SetIoPriority { class, level } => sys::set_io_priority(*class, *level)?,
            SetupOp::SetMemoryPolicy { mode, nodes } => sys::set_memory_policy(*mode, nodes)?,
            SetupOp::SetAffinity { processors } => sys::set_affinity(0, processors)?,
            SetupOp::WriteLabel { path, value } => write_file(CWD, path, value.as_bytes())?,
            SetupOp::LimitResource(limit) => sys::set_rlimit(limit.resource, limit.soft, limit.hard)?,
            SetupOp::NoNewPrivileges => sys::prctl(Prctl::NoNewPrivileges)?,
            SetupOp::InstallSeccomp(program) if program.notifies() => install_notifying(program, held(&self.runtime)?)?,
            SetupOp::InstallSeccomp(program) => sys::seccomp_install(&program.filter, program.flags)?,
            SetupOp::BoundCapabilities { keep, last } => bound_capabilities(*keep, *last)?,
            SetupOp::SetUser(user) => set_user(user)?,
            SetupOp::SetCapabilities(sets) => set_capabilities(sets)?,
            SetupOp::SetUmask { mask } => drop(rustix::process::umask(Mode::from_raw_mode(*mask))),
            SetupOp::EnterDirectory { path } => enter_directory(path)?,
            SetupOp::TakeTerminal => rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?,
            SetupOp::CloseOnExec => sys::close_on_exec_from(3)?,
            SetupOp::CloseOnExecFrom { first } => sys::close_on_exec_from(*first)?,
            SetupOp::Execute(execution) => return Err(execute(execution).into()),
        }
        Ok(())
    }

    fn root(&self) -> Result<BorrowedFd<'_>, Errno> {
        held(&self.root)
    }
}

fn held(descriptor: &Option<OwnedFd>) -> Result<BorrowedFd<'_>, Errno> {
    descriptor.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
}

/// Kernels without keyrings, and hosts that forbid them, have nothing to hide.
fn new_keyring() -> Result<(), Errno> {
    match sys::new_session_keyring() {
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        result => result,
    }
}

pub(super) fn write_file(directory: BorrowedFd<'_>, path: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    let file = openat(directory, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write_whole(file.as_fd(), bytes)
}

/// Files of procfs and cgroupfs take a value in one write or not at all.
fn write_whole(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    if rustix::io::write(file, bytes)? == bytes.len() { Ok(()) } else { Err(Errno::IO) }
}

fn make_mounts_private() -> Result<(), Errno> {
    let root = open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let private = sys::MountAttributes { propagation: libc::MS_PRIVATE, ..Default::default() };
    sys::mount_setattr(root.as_fd(), libc::AT_RECURSIVE, &private)
}

fn copy_root(path: &CStr) -> Result<OwnedFd, Errno> {
    let root = copy_tree(path)?;
    // The devices of an image are not the host's to give.
    sys::mount_setattr(root.as_fd(), libc::AT_RECURSIVE, &sys::MountAttributes::set(sys::MountAttributes::NO_DEV))?;
    Ok(root)
}

fn copy_tree(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
        | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC
        | rustix::mount::OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags)
}

fn make_device(dev: BorrowedFd<'_>, node: &DeviceNode) -> Result<(), Errno> {
    let device = makedev(node.major, node.minor);
    mknodat(dev, node.name.as_c_str(), FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)
}

/// Mount the host's device on a file of `dev`, which is made if it is not there. What is there already must be the same
/// device or an empty place for it: runtime-spec config-linux.md, "Devices".
fn bind_device(dev: BorrowedFd<'_>, node: &DeviceNode) -> Result<(), Fault> {
    let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let device = rustix::mount::open_tree(CWD, node.host_path.as_c_str(), flags).in_part(Part::Source)?;
    is_character_device(device.as_fd(), node.major, node.minor).in_part(Part::Source)?;
    let make = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match openat(dev, node.name.as_c_str(), make, Mode::from_raw_mode(0o666)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Fault { part: Part::Target, errno }),
    }
    let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(dev, node.name.as_c_str(), place, Mode::empty()).in_part(Part::Target)?;
    let stat = rustix::fs::fstat(&target).in_part(Part::Target)?;
    if !(file_type(&stat) == FileType::RegularFile && stat.st_size == 0) {
        is_character_device(target.as_fd(), node.major, node.minor).in_part(Part::Verify)?;
    }
    attach(device.as_fd(), target.as_fd()).in_part(Part::Attach)
}

/// A link that is there already is replaced: images bring their own, and they must lead where ours do.
fn link(dev: BorrowedFd<'_>, name: &CStr, target: &CStr) -> Result<(), Errno> {
    match symlinkat(target, dev, name) {
        Err(Errno::EXIST) => {
            unlinkat(dev, name, AtFlags::empty())?;
            symlinkat(target, dev, name)
        }
        result => result,
    }
}

fn private_proc() -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(c"proc", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        rustix::mount::MountAttrFlags::MOUNT_ATTR_NOSUID | rustix::mount::MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Only into a procfs, by a path without links that does not leave its mount.
fn write_sysctl(proc: BorrowedFd<'_>, path: &CStr, value: &[u8]) -> Result<(), Fault> {
    use rustix::fs::ResolveFlags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(proc, path, flags, Mode::empty(), resolve).in_part(Part::Target)?;
    if !is_procfs(file.as_fd())? {
        return Err(Fault { part: Part::Verify, errno: Errno::XDEV });
    }
    Ok(write_whole(file.as_fd(), value)?)
}

fn make_mount_read_only(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    sys::mount_setattr(mount, 0, &sys::MountAttributes::set(sys::MountAttributes::READ_ONLY))
}

fn make_directory(root: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    match open_or_make(root, path, NodeKind::Directory, Links::Follow) {
        Err(Errno::ROFS) => Ok(()),
        result => result.map(drop),
    }
}

/// pivot_root(2), "pivot_root(".", ".")": the old root comes to lie over the new one, and is taken off.
fn pivot(root: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

fn bound_capabilities(keep: sys::CapabilityBits, last: u32) -> Result<(), Errno> {
    for capability in 0..=last {
        if keep & 1 << capability == 0 {
            sys::drop_from_bounding_set(capability)?;
        }
    }
    Ok(())
}

/// Groups first, the user last: afterwards there is no right to the others. Capabilities stay until they are set.
fn set_user(user: &Credentials) -> Result<(), Errno> {
    sys::prctl(Prctl::KeepCapabilities)?;
    sys::set_groups(&user.groups)?;
    sys::set_ids(user.uid, user.gid)
}

/// What is not held cannot be given, and is left out: runtime-spec config.md, "capabilities".
fn set_capabilities(sets: &CapabilitySets) -> Result<(), Errno> {
    let held = rustix::thread::capabilities(None)?.permitted.bits();
    let permitted = sets.permitted & held;
    let inheritable = sets.inheritable & held;
    sys::prctl(Prctl::ClearAmbient)?;
    sys::capset(sets.effective & permitted, permitted, inheritable)?;
    let ambient = sets.ambient & permitted & inheritable;
    for capability in (0..u64::BITS).filter(|number| ambient & 1 << number != 0) {
        sys::prctl(Prctl::RaiseAmbient(capability))?;
    }
    Ok(())
}

/// A working directory outside of the root (through a descriptor that leaked in, CVE-2024-21626) shows as `(unreachable)`.
fn enter_directory(path: &CStr) -> Result<(), Fault> {
    rustix::process::chdir(path)?;
    let mut buffer = [0_u8; 4096];
    let directory = sys::current_directory(&mut buffer)?;
    if directory.first() == Some(&b'/') { Ok(()) } else { Err(Fault { part: Part::Verify, errno: Errno::XDEV }) }
}

/// As execvp(3): the first that is there and may be executed.
fn execute(execution: &Execution) -> Errno {
    let mut denied = false;
    for candidate in &execution.candidates {
        match sys::execute(candidate, &execution.arguments, &execution.environment) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => denied = true,
            errno => return errno,
        }
    }
    if denied { Errno::ACCESS } else { Errno::NOENT }
}
