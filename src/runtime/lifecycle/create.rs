//! Creating a container: everything but its program runs. What fails leaves nothing behind, as if it had never been tried.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::runtime::container::detached::{Detachment, Keyring, Making, RootChange, make};
use crate::runtime::container::{
    CgroupView, HookProgram, NetworkOrigin, PID_PLACE, Program, Rootfs, SeccompProgram, SecurityModules, StatePid,
    Surroundings, id_map_text, resource_number,
};
use crate::runtime::net::move_device;
use crate::runtime::oci::{
    OciConfig, OciContainer, OciHook, OciIdMapping, OciLifecycleState, OciNamespaceKind, OciProcess, OciResources,
};

use crate::runtime::sys;

use super::LifecycleError;
use super::cgroups::{self, ContainerCgroups, HostCgroups};
use super::process::{
    ConsoleSocket, PidfdSocket, check_preserved, connections, started_at, terminal_of, with_home, write_pid_file,
};
use super::resctrl;
use super::resources::CgroupVersion;
use super::store::{Place, Record, START, Store, parse_config, read_document};
use super::systemd::{self, Scope};

/// How a container is created.
#[derive(Debug, Default)]
pub struct CreateOptions {
    pub bundle: PathBuf,
    pub console_socket: Option<ConsoleSocket>,
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the program gets.
    pub preserved: u32,
    pub keyring: Keyring,
    pub root_change: RootChange,
    pub cgroups: CgroupManager,
    /// Whom a descriptor of the process is sent to.
    pub pidfd_socket: Option<PathBuf>,
}

/// Who makes a container's cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupManager {
    /// This program, as directories.
    #[default]
    Directories,
    /// systemd, as a scope.
    Systemd,
}

/// Create a container, and return what is known of it.
pub fn create(store: &Store, id: &str, options: &CreateOptions) -> Result<Record, LifecycleError> {
    check_preserved(options.preserved)?;
    let bundle = fs::canonicalize(&options.bundle)
        .map_err(LifecycleError::system(format!("find the bundle `{}`", options.bundle.display())))?;
    let path = bundle.join("config.json");
    let json = read_document(&path)?;
    let config = parse_config(&json, path)?;
    check_terminal(config.process.as_ref(), options.console_socket.as_ref())?;
    let mut attempt =
        Attempt { place: store.claim(id)?, made: Vec::new(), unit: None, config: &config, poststop: None };
    let result = attempt.create(id, &json, &bundle, options);
    if result.is_err() {
        attempt.undo();
    }
    result
}

pub fn check_terminal(process: Option<&OciProcess>, socket: Option<&ConsoleSocket>) -> Result<(), LifecycleError> {
    match (process.is_some_and(|process| process.terminal), socket) {
        (true, None) => Err(LifecycleError::NoConsoleSocket),
        (false, Some(ConsoleSocket::At(_))) => Err(LifecycleError::NoTerminal),
        _ => Ok(()),
    }
}

/// What has to be taken back if it goes wrong.
struct Attempt<'a> {
    place: Place,
    made: Vec<PathBuf>,
    /// The scope that systemd started.
    unit: Option<String>,
    config: &'a OciConfig,
    /// Its state, once hooks have run.
    poststop: Option<OciContainer>,
}

impl Attempt<'_> {
    fn undo(&self) {
        // What went wrong first is what is told.
        if let Some(state) = &self.poststop {
            let _ = run_hooks(self.config, Point::Poststop, state);
        }
        if let Some(unit) = &self.unit {
            let _ = systemd::stop(unit);
        }
        let _ = cgroups::remove(&self.made);
        let _ = self.place.remove();
    }

    fn create(
        &mut self,
        id: &str,
        json: &[u8],
        bundle: &Path,
        options: &CreateOptions,
    ) -> Result<Record, LifecycleError> {
        self.place.save_config(json)?;
        let root = self.config.root.as_ref().ok_or_else(|| invalid("root", "is missing"))?;
        let rootfs = bundle.join(&root.path);
        let rootfs = fs::canonicalize(&rootfs)
            .map_err(LifecycleError::system(format!("find the root `{}`", rootfs.display())))?;
        let mountinfo = fs::read_to_string("/proc/self/mountinfo")
            .map_err(LifecycleError::system("read `/proc/self/mountinfo`"))?;
        let (groups, scope) = self.place_cgroups(id, &mountinfo, options.cgroups)?;
        let pidfd_socket = options.pidfd_socket.as_deref().map(PidfdSocket::connect).transpose()?;
        let state = OciContainer {
            oci_version: self.config.oci_version.clone(),
            id: id.to_owned(),
            status: OciLifecycleState::Creating,
            pid: Some(0),
            bundle: bundle.to_owned(),
            annotations: self.config.annotations.clone(),
        };
        let program = self.compile(
            &state,
            options,
            Surroundings {
                bundle: bundle.to_owned(),
                rootfs: Rootfs::Directory(rootfs.clone()),
                cgroup_procs: groups.procs_files(),
                cgroup_view: CgroupView::from_mountinfo(&mountinfo),
                init: false,
                network: NetworkOrigin::Host,
                seccomp: seccomp(self.config)?,
            },
        )?;
        let listener = listen_at(&self.place)?;
        let mut making = make(&program, connections(listener.as_fd())).map_err(spawn)?;
        let state = OciContainer { pid: Some(making.pid()), ..state };
        if let Some(scope) = &scope {
            self.start_scope(scope, &state, &groups)?;
        }
        self.bring_up(&mut making, &state)?;
        let pid = hand_over(making, self.config, options)?;
        let (first_step, steps) = program.payload_steps();
        let record = Record {
            id: id.to_owned(),
            init_process_pid: pid,
            init_process_start: started_at(pid).unwrap_or(0),
            created: jiff::Timestamp::now().to_string(),
            namespace_paths: namespace_paths(pid),
            rootless: false,
            external_descriptors: Vec::new(),
            oci_version: self.config.oci_version.clone(),
            bundle: bundle.to_owned(),
            rootfs,
            annotations: self.config.annotations.clone(),
            made_cgroups: self.made.clone(),
            scope: self.unit.clone(),
            cgroup_version: if groups.version == CgroupVersion::V2 { 2 } else { 1 },
            cgroup_paths: groups.paths,
            steps,
            first_step,
        };
        let finish = || {
            self.place.save(&record)?;
            if let Some(socket) = &pidfd_socket {
                socket.send(pid)?;
            }
            options.pid_file.as_deref().map_or(Ok(()), |path| write_pid_file(path, pid))
        };
        match finish() {
            Ok(()) => Ok(record),
            Err(error) => {
                super::end::end_process(&record);
                Err(error)
            }
        }
    }

    /// Make the cgroups, or say which scope comes once there is a process for it: systemd keeps none without.
    fn place_cgroups(
        &mut self,
        id: &str,
        mountinfo: &str,
        manager: CgroupManager,
    ) -> Result<(ContainerCgroups, Option<Scope>), LifecycleError> {
        let path = self.config.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref());
        let host = HostCgroups::from_mountinfo(mountinfo)?;
        if manager == CgroupManager::Systemd {
            let scope = Scope::parse(path, id)?;
            return Ok((host.of_scope(&scope)?, Some(scope)));
        }
        let groups = host.places(path, id)?;
        self.made = groups.make()?;
        if let Some(resources) = self.resources() {
            groups.apply(resources)?;
        }
        Ok((groups, None))
    }

    fn resources(&self) -> Option<&OciResources> {
        self.config.linux.as_ref()?.resources.as_ref()
    }

    fn start_scope(
        &mut self,
        scope: &Scope,
        state: &OciContainer,
        groups: &ContainerCgroups,
    ) -> Result<(), LifecycleError> {
        let pid = state.pid.unwrap_or(0);
        systemd::start(scope, (&state.id, pid), self.resources(), &state.annotations)?;
        self.unit = Some(scope.unit.clone());
        self.made.extend(groups.paths.values().cloned());
        groups.adopt(pid)?;
        // What systemd has no property for.
        if let Some(resources) = self.resources() {
            groups.apply(resources)?;
        }
        Ok(())
    }

    fn compile(
        &self,
        state: &OciContainer,
        options: &CreateOptions,
        surroundings: Surroundings,
    ) -> Result<Program, LifecycleError> {
        let compile = |source| LifecycleError::Compile { source };
        let hooks = self.config.hooks.clone().unwrap_or_default();
        let created = OciContainer { status: OciLifecycleState::Created, ..state.clone() };
        let detachment = Detachment {
            create_container: prepare(&hooks.create_container, Point::CreateContainer, state).map_err(compile)?,
            start_container: prepare(&hooks.start_container, Point::StartContainer, &created).map_err(compile)?,
            keyring: options.keyring,
            root_change: options.root_change,
            preserved: options.preserved,
            security: SecurityModules::of_host(),
        };
        let mut config = self.config.clone();
        forget_own_user_namespace(&mut config);
        // Lowering the score takes a right that a user namespace does not give: it is written from here.
        let process = config.process.get_or_insert_with(|| OciProcess {
            cwd: "/".to_owned(),
            args: vec!["./none".to_owned()],
            ..OciProcess::default()
        });
        process.oom_score_adj = None;
        if let Rootfs::Directory(root) = &surroundings.rootfs {
            with_home(process, root);
        }
        Program::compile_detached(&config, &surroundings, detachment).map_err(compile)
    }

    fn bring_up(&mut self, making: &mut Making<'_>, state: &OciContainer) -> Result<(), LifecycleError> {
        let pid = making.pid();
        if let Some(linux) = &self.config.linux
            && linux.namespace(OciNamespaceKind::User).is_some_and(|namespace| namespace.path.is_none())
        {
            map_ids(pid, "gid_map", &linux.gid_mappings)?;
            map_ids(pid, "uid_map", &linux.uid_mappings)?;
        }
        if let Some(score) = self.config.process.as_ref().and_then(|process| process.oom_score_adj) {
            let path = format!("/proc/{pid}/oom_score_adj");
            fs::write(&path, score.to_string())
                .map_err(LifecycleError::system(format!("write {score} to `{path}`")))?;
        }
        if let Some(wanted) = self.config.linux.as_ref().and_then(|linux| linux.intel_rdt.as_ref()) {
            resctrl::apply(Path::new(resctrl::ROOT), wanted, (&state.id, pid), &mut self.made)?;
        }
        allow_limits(pid, self.config.process.as_ref())?;
        making.set_up().map_err(spawn)?;
        self.move_devices(pid)?;
        self.poststop = Some(OciContainer { status: OciLifecycleState::Stopped, pid: None, ..state.clone() });
        run_hooks(self.config, Point::Prestart, state)?;
        run_hooks(self.config, Point::CreateRuntime, state)?;
        making.finish_root().map_err(spawn)
    }
}

/// To join the user namespace that one is in is nothing to do, and an error of setns(2).
fn forget_own_user_namespace(config: &mut OciConfig) {
    let Some(linux) = &mut config.linux else { return };
    let own = fs::metadata("/proc/self/ns/user").ok();
    linux.namespaces.retain(|namespace| {
        let same = namespace.path.as_ref().filter(|_| namespace.kind == OciNamespaceKind::User).is_some_and(|path| {
            let node = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
            fs::metadata(path).ok().map(node) == own.clone().map(node)
        });
        !same
    });
}

impl Attempt<'_> {
    /// In the order of their names on the host.
    fn move_devices(&self, pid: i32) -> Result<(), LifecycleError> {
        let Some(linux) = self.config.linux.as_ref().filter(|linux| !linux.net_devices.is_empty()) else {
            return Ok(());
        };
        let path = format!("/proc/{pid}/ns/net");
        let netns = fs::File::open(&path).map_err(LifecycleError::system(format!("open `{path}`")))?;
        linux.net_devices.iter().try_for_each(|(name, device)| {
            let inside = device.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(name);
            move_device(name, inside, netns.as_fd()).map_err(|source| LifecycleError::Device { source })
        })
    }
}

fn hand_over(making: Making<'_>, config: &OciConfig, options: &CreateOptions) -> Result<i32, LifecycleError> {
    let process = config.process.as_ref().filter(|process| process.terminal);
    let (Some(process), Some(socket)) = (process, &options.console_socket) else {
        return making.release(None).map_err(spawn);
    };
    let owner = host_id(config, process.user.uid);
    let terminal = terminal_of(making.pid(), process.console_size, owner)?;
    socket.send(&terminal.master)?;
    making.release(Some(terminal.peer.as_fd())).map_err(spawn)
}

/// A user of the container as the host numbers it.
pub fn host_id(config: &OciConfig, uid: u32) -> u32 {
    let mappings = config.linux.as_ref().map(|linux| linux.uid_mappings.as_slice()).unwrap_or_default();
    let mapped = mappings.iter().find_map(|mapping| {
        let offset = uid.checked_sub(mapping.container_id).filter(|offset| *offset < mapping.size)?;
        mapping.host_id.checked_add(offset)
    });
    mapped.unwrap_or(uid)
}

/// The process lowers its limits itself, at the very end. To raise them may take a right that it does not have, and is checked now.
fn allow_limits(pid: i32, process: Option<&OciProcess>) -> Result<(), LifecycleError> {
    for limit in process.iter().flat_map(|process| &process.rlimits) {
        let Some(resource) = resource_number(&limit.kind) else { continue };
        let raise = || -> Result<(), rustix::io::Errno> {
            let (soft, hard) = sys::rlimit_of(pid, resource)?;
            if limit.hard > hard { sys::set_rlimit_of(pid, resource, (soft, limit.hard)) } else { Ok(()) }
        };
        let failed = LifecycleError::system(format!("raise {} to {}", limit.kind, limit.hard));
        raise().map_err(|errno| failed(errno.into()))?;
    }
    Ok(())
}

fn map_ids(pid: i32, file: &str, mappings: &[OciIdMapping]) -> Result<(), LifecycleError> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, id_map_text(mappings)).map_err(LifecycleError::system(format!("map the ids in `{path}`")))
}

fn invalid(path: &'static str, fault: &str) -> LifecycleError {
    LifecycleError::Invalid { path, fault: fault.to_owned() }
}

fn spawn(source: crate::runtime::container::SpawnError) -> LifecycleError {
    LifecycleError::Spawn { source }
}

pub fn seccomp(config: &OciConfig) -> Result<Option<SeccompProgram>, LifecycleError> {
    let Some(section) = config.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) else { return Ok(None) };
    SeccompProgram::compile(section).map(Some).map_err(|source| LifecycleError::Seccomp { source })
}

/// The socket by which the container will be started. Its path may be longer than an address can be.
fn listen_at(place: &Place) -> Result<OwnedFd, LifecycleError> {
    let make = || -> io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let directory = fs::File::open(place.path())?;
        bind(&socket, &SocketAddrUnix::new(short_path(&directory))?)?;
        listen(&socket, 1)?;
        Ok(socket)
    };
    make().map_err(LifecycleError::system(format!("listen at `{}`", place.start_socket().display())))
}

/// The start socket below an open directory, by a name that is short enough.
pub fn short_path(directory: &fs::File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}/{START}", directory.as_raw_fd()))
}

fn namespace_paths(pid: i32) -> std::collections::BTreeMap<String, PathBuf> {
    [
        ("NEWCGROUP", "cgroup"),
        ("NEWIPC", "ipc"),
        ("NEWNET", "net"),
        ("NEWNS", "mnt"),
        ("NEWPID", "pid"),
        ("NEWTIME", "time"),
        ("NEWUSER", "user"),
        ("NEWUTS", "uts"),
    ]
    .into_iter()
    .map(|(name, file)| (name.to_owned(), PathBuf::from(format!("/proc/{pid}/ns/{file}"))))
    .collect()
}

/// The points of a container's life at which hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Point {
    fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

fn prepare(
    hooks: &[OciHook],
    point: Point,
    state: &OciContainer,
) -> Result<Vec<HookProgram>, crate::runtime::container::CompileError> {
    if hooks.is_empty() {
        return Ok(Vec::new());
    }
    let has_pid = state.pid.is_some();
    // The number is filled in when a hook runs: it depends on who looks.
    let place = PID_PLACE.parse().unwrap_or(i32::MAX);
    let state = OciContainer { pid: has_pid.then_some(place), ..state.clone() };
    let text = serde_json::to_string(&state).unwrap_or_default();
    let name = |index: usize| format!("{}[{index}]", point.name());
    hooks.iter().enumerate().map(|(index, hook)| HookProgram::new(hook, name(index), &text)).collect()
}

/// Run the hooks of one point from here; the first failure ends it, except after the container's end, when all run and the first
/// failure is told at the end.
pub fn run_hooks(config: &OciConfig, point: Point, state: &OciContainer) -> Result<(), LifecycleError> {
    let Some(hooks) = &config.hooks else { return Ok(()) };
    let list = hooks.points().into_iter().find(|(name, _)| *name == point.name()).map_or(&[][..], |(_, list)| list);
    let programs = prepare(list, point, state).map_err(|source| LifecycleError::Compile { source })?;
    let pid = StatePid::Known(state.pid.unwrap_or(0));
    let mut first = Ok(());
    for program in programs {
        let result = program.run(pid).map_err(|errno| LifecycleError::Hook {
            hook: program.name().to_owned(),
            fault: match errno {
                rustix::io::Errno::TIMEDOUT => "took too long and was killed".to_owned(),
                rustix::io::Errno::CANCELED => "failed".to_owned(),
                errno => format!("could not be run: {errno}"),
            },
        });
        if point != Point::Poststop {
            result?;
        } else if first.is_ok() {
            first = result;
        }
    }
    first
}
