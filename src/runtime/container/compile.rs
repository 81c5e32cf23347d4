//! From a configuration to the list of operations that a container's process does before it becomes the program. Pure: decides
//! everything and does nothing. What is not supported yet is refused by name.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use crate::runtime::oci::{OciConfig, OciLinuxConfig, OciNamespaceKind, OciProcess};
use crate::runtime::seccomp::{Architecture, SeccompAction, SeccompData, evaluate};
use crate::runtime::sys::{NamespaceFlags, OwnMemory, last_capability};

use super::compile_linux;
use super::compile_mounts::{self, DevKind};
use super::compile_process::{self, ProcessSettings};
use super::defaults;
use super::detached::{Detachment, Keyring, MakerNamespaces, RootChange};
use super::labels;
use super::op::{DeviceNode, OverlayRoot, SeccompProgram, SetupOp};
use super::supported;
use super::surroundings::{NetworkOrigin, Rootfs, Surroundings};
use super::sysctl;

/// A container's set-up, ready to be run any number of times.
#[derive(Debug)]
pub struct Program {
    pub(super) namespaces: NamespaceFlags,
    /// From the gate to the new root.
    pub(super) setup: Vec<SetupOp>,
    /// From there to the program.
    pub(super) payload: Vec<SetupOp>,
    /// How much of the set-up comes before the hooks.
    pub(super) hook_point: usize,
    /// Descriptors from 3 on that the program gets.
    pub(super) preserved: u32,
    pub(super) maker: MakerNamespaces,
    /// What PID 1 gives up once it has forked the payload; `None`: the payload is PID 1.
    pub(super) init: Option<Vec<SetupOp>>,
    /// What PID 1 can give back before it begins to wait; `None` where the filter does not let it.
    pub(super) init_memory: Option<OwnMemory>,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum CompileError {
    #[error("`{path}` of the configuration is not supported yet")]
    Unsupported { path: String },
    #[error("`{path}` of the configuration {fault}")]
    Invalid { path: String, fault: String },
}

impl CompileError {
    pub(super) fn unsupported(path: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into() }
    }

    pub(super) fn invalid(path: impl Into<String>, fault: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), fault: fault.into() }
    }
}

impl Program {
    /// Compile a configuration that was checked ([`OciConfig::parse`]).
    pub fn compile(config: &OciConfig, surroundings: &Surroundings) -> Result<Self, CompileError> {
        Self::compile_for(config, surroundings, None)
    }

    /// The same for a container that outlives its maker: see [`super::detached`].
    pub fn compile_detached(
        config: &OciConfig,
        surroundings: &Surroundings,
        detachment: Detachment,
    ) -> Result<Self, CompileError> {
        Self::compile_for(config, surroundings, Some(detachment))
    }

    /// How many operations come before the payload's, and those in words.
    pub fn payload_steps(&self) -> (u16, Vec<String>) {
        (self.setup.len() as u16, self.payload.iter().map(ToString::to_string).collect())
    }

    fn compile_for(
        config: &OciConfig,
        surroundings: &Surroundings,
        mut detachment: Option<Detachment>,
    ) -> Result<Self, CompileError> {
        supported::check(config, surroundings, detachment.as_ref())?;
        let none = OciLinuxConfig::default();
        let linux = config.linux.as_ref().unwrap_or(&none);
        let process =
            config.process.as_ref().ok_or_else(|| CompileError::invalid("process", "is missing: nothing to run"))?;
        let mut setup = Vec::new();
        begin(&mut setup, process, surroundings, detachment.as_ref())?;
        let mounts = compile_mounts::compile(config, surroundings, detachment.as_ref())?;
        compile_linux::namespaces(&mut setup, linux)?;
        names(&mut setup, config, linux)?;
        let in_user_namespace = compile_linux::has_user_namespace(linux);
        if detachment.is_some() {
            compile_linux::propagation(&mut setup, linux, &mounts);
        }
        root(&mut setup, surroundings, detachment.as_ref())?;
        if in_user_namespace {
            compile_linux::become_root(&mut setup, &mounts)?;
        }
        if detachment.is_some() {
            compile_linux::loopback(&mut setup, linux);
        }
        let (dev, devpts, has_proc) = (mounts.dev, mounts.devpts, mounts.proc);
        let id_mapped = mounts.id_mapped;
        setup.extend(mounts.ops);
        devices(
            &mut setup,
            if in_user_namespace && dev == DevKind::Fresh { DevKind::FreshOfUser } else { dev },
            devpts,
        );
        compile_linux::devices(&mut setup, linux, in_user_namespace)?;
        let hook_point = setup.len();
        if let Some(detachment) = &mut detachment {
            setup.extend(std::mem::take(&mut detachment.create_container).into_iter().map(SetupOp::RunHook));
        }
        sysctls(&mut setup, linux, surroundings, has_proc)?;
        if process.cwd != "/" {
            setup.push(SetupOp::MakeDirectory { path: below_root("process.cwd", &process.cwd)? });
        }
        restrict_paths(&mut setup, config, linux)?;
        let chroot = detachment.as_ref().is_some_and(|detachment| detachment.root_change == RootChange::Chroot);
        if let Some(detachment) = &detachment {
            // By the host's procfs, as long as it is in sight: the container's own may be anything.
            setup.extend(labels::of_process(process, detachment.security)?);
            compile_linux::scheduling(&mut setup, process, linux)?;
        }
        setup.push(if chroot { SetupOp::EnterRoot } else { SetupOp::Pivot });
        compile_linux::root_propagation(&mut setup, linux);
        let settings = ProcessSettings::from_oci(process, surroundings.seccomp.clone());
        let mut payload = Vec::new();
        if detachment.is_none() {
            compile_linux::scheduling(&mut payload, process, linux)?;
        }
        payload.extend(self::payload(&settings, surroundings, detachment.as_ref())?);
        let preserved = detachment.as_ref().map_or(0, |detachment| detachment.preserved);
        if let Some(detachment) = detachment {
            setup.extend(find_program(&payload));
            payload.splice(0..0, detachment.start_container.into_iter().map(SetupOp::RunHook));
        }
        let init = surroundings.init.then(|| init_restrictions(&settings));
        let maker = MakerNamespaces { id_mapped, ..compile_linux::maker_namespaces(linux) };
        let init_memory =
            OwnMemory::get().filter(|_| init.is_some() && allows(surroundings.seccomp.as_ref(), libc::SYS_madvise));
        Ok(Self { namespaces: namespaces(linux), setup, hook_point, payload, preserved, maker, init, init_memory })
    }

    /// Whether the payload's filter puts calls before an agent.
    pub(super) fn notifies(&self) -> bool {
        self.payload.iter().any(|op| matches!(op, SetupOp::InstallSeccomp(program) if program.notifies()))
    }

    /// The operation that messages number so.
    pub(super) fn op(&self, number: u16) -> Option<&SetupOp> {
        self.setup.iter().chain(&self.payload).chain(self.init.iter().flatten()).nth(number.into())
    }

    /// The operations in order, for explanations.
    pub fn describe(&self) -> impl Iterator<Item = String> + '_ {
        self.setup.iter().chain(&self.payload).map(ToString::to_string)
    }
}

/// Whether a filter lets a system call pass whatever its arguments are, as far as all zeros can tell.
fn allows(filter: Option<&SeccompProgram>, call: libc::c_long) -> bool {
    let Some(filter) = filter else { return true };
    let Some(architecture) = Architecture::native() else { return false };
    let data = SeccompData { nr: call as u32, arch: architecture.audit(), instruction_pointer: 0, args: [0; 6] };
    evaluate(&filter.filter, &data) == SeccompAction::Allow.to_raw()
}

fn namespaces(linux: &OciLinuxConfig) -> NamespaceFlags {
    // The cgroup namespace is made later: its root is where the process is then.
    let new = linux.namespaces.iter().filter(|namespace| namespace.path.is_none());
    let flags = new.map(|namespace| match namespace.kind {
        OciNamespaceKind::Pid => NamespaceFlags::PID,
        OciNamespaceKind::Network => NamespaceFlags::NETWORK,
        OciNamespaceKind::Mount => NamespaceFlags::MOUNT,
        OciNamespaceKind::Ipc => NamespaceFlags::IPC,
        OciNamespaceKind::Uts => NamespaceFlags::UTS,
        OciNamespaceKind::User => NamespaceFlags::USER,
        OciNamespaceKind::Cgroup | OciNamespaceKind::Time => 0,
    });
    NamespaceFlags(flags.fold(0, |all, flag| all | flag))
}

fn begin(
    ops: &mut Vec<SetupOp>,
    process: &OciProcess,
    surroundings: &Surroundings,
    detachment: Option<&Detachment>,
) -> Result<(), CompileError> {
    ops.push(SetupOp::NotDumpable);
    if detachment.is_none() {
        ops.push(SetupOp::DieWithParent);
    }
    ops.push(SetupOp::NewSession);
    if detachment.is_none_or(|detachment| detachment.keyring == Keyring::New) {
        ops.push(SetupOp::NewKeyring);
    }
    // After the session: with the OOM score and the cgroups we still look at the host's files.
    if let Some(score) = process.oom_score_adj {
        ops.push(SetupOp::AdjustOomScore { value: c_string("process.oomScoreAdj", &score.to_string())? });
    }
    for procs in &surroundings.cgroup_procs {
        ops.push(SetupOp::JoinCgroup { procs: c_path("cgroup", procs)? });
    }
    Ok(())
}

fn names(ops: &mut Vec<SetupOp>, config: &OciConfig, linux: &OciLinuxConfig) -> Result<(), CompileError> {
    /// `__NEW_UTS_LEN` of linux/utsname.h.
    const MAX_NAME: usize = 64;
    if linux.namespace(OciNamespaceKind::Cgroup).is_some_and(|namespace| namespace.path.is_none()) {
        ops.push(SetupOp::NewCgroupNamespace);
    }
    let private = linux.namespace(OciNamespaceKind::Uts).is_some();
    let checked = |path: &str, name: &str| {
        if !private {
            return Err(CompileError::invalid(path, "needs a `uts` namespace"));
        }
        if name.len() > MAX_NAME || name.contains('\0') {
            return Err(CompileError::invalid(path, format!("is longer than {MAX_NAME} bytes")));
        }
        Ok(name.to_owned())
    };
    if let Some(name) = &config.hostname {
        ops.push(SetupOp::SetHostname { name: checked("hostname", name)? });
    }
    if let Some(name) = &config.domainname {
        ops.push(SetupOp::SetDomainname { name: checked("domainname", name)? });
    }
    Ok(())
}

fn root(
    ops: &mut Vec<SetupOp>,
    surroundings: &Surroundings,
    detachment: Option<&Detachment>,
) -> Result<(), CompileError> {
    // The working directory changes while the layers are mounted.
    let c_path = |what: &str, path: &Path| match path.is_absolute() {
        true => c_path(what, path),
        false => Err(CompileError::invalid(what, format!("is not absolute: `{}`", path.display()))),
    };
    if detachment.is_none() {
        ops.push(SetupOp::MakeMountsPrivate);
    }
    ops.push(match &surroundings.rootfs {
        Rootfs::Directory(path) if detachment.is_some() => SetupOp::RootFromTree { path: c_path("root.path", path)? },
        Rootfs::Directory(path) => SetupOp::RootFromDirectory { path: c_path("root.path", path)? },
        Rootfs::Overlay { lower, upper, work } => {
            if lower.is_empty() {
                return Err(CompileError::invalid("root", "has no layers"));
            }
            let lower: Result<_, _> = lower.iter().map(|layer| c_path("root", layer)).collect();
            let (upper, work) = (c_path("root", upper)?, c_path("root", work)?);
            SetupOp::RootFromOverlay(OverlayRoot { lower: lower?, upper, work })
        }
    });
    ops.push(SetupOp::AttachRoot);
    Ok(())
}

fn devices(ops: &mut Vec<SetupOp>, dev: DevKind, devpts: bool) {
    if dev == DevKind::Foreign {
        return;
    }
    if dev == DevKind::Image {
        ops.push(SetupOp::OpenDev);
    }
    for device in defaults::DEVICES {
        let node = DeviceNode {
            name: literal(device.name),
            host_path: literal(&format!("/dev/{}", device.name)),
            major: device.major,
            minor: device.minor,
        };
        ops.push(if dev == DevKind::Fresh { SetupOp::MakeDevice(node) } else { SetupOp::BindDevice(node) });
    }
    let links = defaults::DEVICE_LINKS.into_iter().chain(devpts.then_some(("ptmx", "pts/ptmx")));
    ops.extend(links.map(|(name, target)| SetupOp::LinkInDev { name: literal(name), target: literal(target) }));
}

fn sysctls(
    ops: &mut Vec<SetupOp>,
    linux: &OciLinuxConfig,
    surroundings: &Surroundings,
    proc_is_mounted: bool,
) -> Result<(), CompileError> {
    if linux.sysctl.is_empty() {
        return Ok(());
    }
    let new = |kind| linux.namespace(kind).is_some();
    let scope = sysctl::Scope {
        ipc: new(OciNamespaceKind::Ipc),
        uts: new(OciNamespaceKind::Uts),
        network: new(OciNamespaceKind::Network) || surroundings.network == NetworkOrigin::Own,
    };
    if !proc_is_mounted {
        ops.push(SetupOp::OpenPrivateProc);
    }
    for (name, value) in &linux.sysctl {
        let path = sysctl::path_of(name, value, scope)
            .map_err(|fault| CompileError::invalid(format!("linux.sysctl.{name}"), fault.to_string()))?;
        ops.push(SetupOp::WriteSysctl { path: c_string("linux.sysctl", &path)?, value: value.clone() });
    }
    Ok(())
}

/// After all mounts and all writes.
fn restrict_paths(ops: &mut Vec<SetupOp>, config: &OciConfig, linux: &OciLinuxConfig) -> Result<(), CompileError> {
    for path in &linux.readonly_paths {
        ops.push(SetupOp::MakeReadOnly { path: below_root("linux.readonlyPaths", path)? });
    }
    for path in &linux.masked_paths {
        ops.push(SetupOp::Mask { path: below_root("linux.maskedPaths", path)? });
    }
    if config.root.as_ref().is_some_and(|root| root.readonly) {
        ops.push(SetupOp::MakeRootReadOnly);
    }
    Ok(())
}

fn payload(
    settings: &ProcessSettings,
    surroundings: &Surroundings,
    detachment: Option<&Detachment>,
) -> Result<Vec<SetupOp>, CompileError> {
    let mut ops = Vec::new();
    if surroundings.init {
        // Otherwise the process has its session since the beginning.
        ops.push(SetupOp::NewSession);
    }
    ops.extend(compile_process::restrictions(settings)?);
    let Some(detachment) = detachment else {
        // A change of credentials takes the tie off.
        ops.push(SetupOp::DieWithParent);
        ops.extend(compile_process::execution(settings)?);
        return Ok(ops);
    };
    let first = 3 + detachment.preserved;
    ops.extend(compile_process::execution(settings)?.into_iter().map(|op| match op {
        SetupOp::CloseOnExec => SetupOp::CloseOnExecFrom { first },
        op => op,
    }));
    Ok(ops)
}

/// Relative names depend on a working directory that is entered later.
fn find_program(payload: &[SetupOp]) -> Option<SetupOp> {
    let SetupOp::Execute(execution) = payload.last()? else { return None };
    let absolute = execution.candidates.iter().all(|path| path.to_bytes().starts_with(b"/"));
    let (candidates, name) = (execution.candidates.clone(), execution.name.clone());
    absolute.then_some(SetupOp::FindProgram { candidates, name })
}

/// PID 1 of ours signals processes of all users and does nothing else. Somebody in the container who may trace processes can
/// take it over, so it must not be worth it: no capability but that one, no way to more, the container's own filter.
fn init_restrictions(settings: &ProcessSettings) -> Vec<SetupOp> {
    const KILL: u64 = 1 << 5;
    let sets = super::op::CapabilitySets { effective: KILL, permitted: KILL, inheritable: 0, ambient: 0 };
    let mut ops = vec![
        SetupOp::BoundCapabilities { keep: KILL, last: last_capability() },
        SetupOp::SetCapabilities(sets),
        SetupOp::NoNewPrivileges,
    ];
    ops.extend(settings.seccomp.clone().map(SetupOp::InstallSeccomp));
    ops
}

/// A path of the container as one below its root: no slash in front, no `.`, no `..` (a `..` at the top stays there).
pub(super) fn below_root(what: &str, path: &str) -> Result<CString, CompileError> {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if clean.as_os_str().is_empty() {
        return Err(CompileError::invalid(what, format!("names the root itself: `{path}`")));
    }
    c_path(what, &clean)
}

pub(super) fn c_path(what: &str, path: &Path) -> Result<CString, CompileError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| CompileError::invalid(what, "contains a zero byte"))
}

pub(super) fn c_string(what: &str, text: &str) -> Result<CString, CompileError> {
    CString::new(text).map_err(|_| CompileError::invalid(what, "contains a zero byte"))
}

/// For texts of this crate, which contain no zero byte.
pub(super) fn literal(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
