//! The mounts of a configuration as operations. Pure.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use crate::runtime::oci::{OciConfig, OciLinuxConfig, OciMount, OciNamespaceKind};
use crate::runtime::sys::MountAttributes;

use super::compile::{CompileError, below_root, c_path, c_string, literal};
use super::compile_linux::id_map_text;
use super::detached::Detachment;
use super::labels;
use super::mount_options::{BindDepth, FilesystemOption, MountOptions, OF_FILESYSTEMS, sort_options};
use super::op::{
    Bind, Contents, Filesystem, IdMap, IdMappedBind, KeptMount, MountOp, MountSource, Remount, SetupOp, TargetKind,
};
use super::surroundings::{CgroupView, Surroundings};

pub struct CompiledMounts {
    pub ops: Vec<SetupOp>,
    /// Those that the maker makes.
    pub id_mapped: Vec<IdMappedBind>,
    pub dev: DevKind,
    /// A procfs is mounted at `/proc`.
    pub proc: bool,
    /// A devpts is mounted at `/dev/pts`.
    pub devpts: bool,
}

/// What `/dev` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevKind {
    /// A tmpfs of ours.
    Fresh,
    /// The same in a user namespace, where no device can be made.
    FreshOfUser,
    /// The image's own directory.
    Image,
    /// Something else that is mounted there, and is not ours to change.
    Foreign,
}

/// Files of procfs that may be covered, to show a container its own limits (as runc and crun have it).
const COVERABLE_IN_PROC: [&str; 11] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/net/dev",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

pub fn compile(
    config: &OciConfig,
    surroundings: &Surroundings,
    detachment: Option<&Detachment>,
) -> Result<CompiledMounts, CompileError> {
    let mut compiled =
        CompiledMounts { ops: Vec::new(), id_mapped: Vec::new(), dev: DevKind::Image, proc: false, devpts: false };
    let label = labels::of_mounts(config.linux.as_ref(), detachment.map(|detachment| detachment.security))?;
    for (index, mount) in config.mounts.iter().enumerate() {
        let place = format!("mounts[{index}]");
        let options = sort_options(&mount.options)
            .map_err(|option| CompileError::unsupported(format!("{place}.options `{}`", option.0)))?;
        // Elsewhere the host's mounts are private by then: there is nothing to hear of.
        if detachment.is_none() && options.propagation.iter().any(|(flag, _)| *flag != libc::MS_PRIVATE) {
            return Err(CompileError::unsupported(format!("{place}.options, propagation")));
        }
        if detachment.is_none() && (!mount.uid_mappings.is_empty() || options.id_mapped.is_some()) {
            return Err(CompileError::unsupported(format!("{place}.uidMappings")));
        }
        let target = below_root(&place, &mount.destination)?;
        let devices = if detachment.is_some() { DeviceFiles::AsMounted } else { DeviceFiles::Forbidden };
        let own_view = config
            .linux
            .as_ref()
            .and_then(|linux| linux.namespace(OciNamespaceKind::Cgroup))
            .is_some_and(|namespace| namespace.path.is_none());
        let cgroups = if detachment.is_none() || own_view { CgroupMounts::Anew } else { CgroupMounts::Bound };
        let ids = id_map(&place, mount, &options, config.linux.as_ref())?;
        let label = label.clone();
        let one = OneMount { place: &place, mount, options: &options, target, devices, cgroups, ids, label };
        one.compile(&mut compiled, surroundings)?;
    }
    Ok(compiled)
}

struct OneMount<'a> {
    place: &'a str,
    mount: &'a OciMount,
    options: &'a MountOptions,
    target: CString,
    devices: DeviceFiles,
    cgroups: CgroupMounts,
    ids: Option<IdMap>,
    label: Option<CString>,
}

/// The mount's own mappings count before those of the container's user namespace.
fn id_map(
    place: &str,
    mount: &OciMount,
    options: &MountOptions,
    linux: Option<&OciLinuxConfig>,
) -> Result<Option<IdMap>, CompileError> {
    let texts = |uids, gids| IdMap::Texts { uids: id_map_text(uids), gids: id_map_text(gids) };
    if !mount.uid_mappings.is_empty() {
        return Ok(Some(texts(&mount.uid_mappings, &mount.gid_mappings)));
    }
    if options.id_mapped.is_none() {
        return Ok(None);
    }
    let user = linux.and_then(|linux| Some((linux, linux.namespace(OciNamespaceKind::User)?)));
    let (linux, user) = user.ok_or_else(|| {
        CompileError::invalid(format!("{place}.options"), "map ids, and there are no mappings and no `user` namespace")
    })?;
    Ok(Some(match &user.path {
        Some(path) => IdMap::Namespace(path.clone()),
        None => texts(&linux.uid_mappings, &linux.gid_mappings),
    }))
}

/// How the container gets to see its cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CgroupMounts {
    /// By a filesystem that shows what the container's cgroup namespace has.
    Anew,
    /// Without such a namespace: the host's directories of the container, and no others.
    Bound,
}

/// Whether the host's device files work in what is mounted without a word about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceFiles {
    Forbidden,
    /// As the field's runtimes have it: the device rules of the cgroup decide.
    AsMounted,
}

impl OneMount<'_> {
    fn compile(self, compiled: &mut CompiledMounts, surroundings: &Surroundings) -> Result<(), CompileError> {
        let is_bind = self.mount.is_bind();
        let kind = if is_bind { "bind" } else { self.mount.kind.as_deref().unwrap_or_default() };
        self.check_target(kind)?;
        if self.ids.is_some() && !is_bind {
            return Err(CompileError::invalid(self.place, "maps ids, which only binds can"));
        }
        if self.options.remount {
            return self.remount(compiled);
        }
        if self.options.copy_up && kind != "tmpfs" {
            return Err(CompileError::invalid(self.place, "has the option `tmpcopyup`, which only a tmpfs takes"));
        }
        match self.target.to_bytes() {
            b"dev" => compiled.dev = if kind == "tmpfs" { DevKind::Fresh } else { DevKind::Foreign },
            b"proc" => compiled.proc = true,
            b"dev/pts" => compiled.devpts = kind == "devpts",
            _ => {}
        }
        match kind {
            "" => Err(CompileError::invalid(self.place, "lacks a type")),
            "bind" => self.bind(compiled, surroundings),
            "cgroup" => self.cgroup(compiled, surroundings),
            _ => self.filesystem(compiled, kind),
        }
    }

    /// Nothing may lie over the procfs that protections rely on (CVE-2019-16884).
    fn check_target(&self, kind: &str) -> Result<(), CompileError> {
        let target = self.target.to_str().unwrap_or_default();
        if target == "proc" && kind != "proc" {
            return Err(CompileError::invalid(self.place, format!("mounts {kind} on `/proc`")));
        }
        if target.starts_with("proc/") && !COVERABLE_IN_PROC.contains(&target) {
            return Err(CompileError::invalid(self.place, format!("mounts inside of procfs: `/{target}`")));
        }
        Ok(())
    }

    fn bind(self, compiled: &mut CompiledMounts, surroundings: &Surroundings) -> Result<(), CompileError> {
        let known = |option: &&FilesystemOption| !OF_FILESYSTEMS.contains(&option.key.as_str());
        if let Some(option) = self.options.filesystem.iter().find(known) {
            let fault = format!("has the option `{}`, which no bind takes", option.key);
            return Err(CompileError::invalid(self.place, fault));
        }
        let source = self.mount.source.as_deref().ok_or_else(|| CompileError::invalid(self.place, "lacks a source"))?;
        let recursive_bind = self.options.bind == Some(BindDepth::Recursive);
        let mut recursive = self.options.recursive;
        // The host's device files are of no use in a container, unless it is said that they are.
        if self.devices == DeviceFiles::Forbidden && self.options.attributes.clear & MountAttributes::NO_DEV == 0 {
            recursive.set |= MountAttributes::NO_DEV;
        }
        let own = self.options.propagation.clone();
        let propagation = if own.is_empty() { vec![(libc::MS_PRIVATE, libc::AT_RECURSIVE)] } else { own };
        let depth = |recursive: bool| if recursive { libc::AT_RECURSIVE } else { 0 };
        let mut source = Bind {
            path: c_path(self.place, &surroundings.bundle.join(source))?,
            depth: depth(recursive_bind),
            attributes: self.options.attributes,
            recursive,
            propagation,
            prepared: None,
        };
        if let Some(ids) = self.ids.clone() {
            source.prepared = Some(compiled.id_mapped.len());
            let depth = depth(self.options.id_mapped == Some(BindDepth::Recursive));
            compiled.id_mapped.push(IdMappedBind { bind: source.clone(), ids, depth });
        }
        self.push(compiled, MountSource::Bind(source), TargetKind::LikeSource);
        Ok(())
    }

    fn parameters(&self) -> Result<Vec<(CString, Option<CString>)>, CompileError> {
        let one = |FilesystemOption { key, value }: &FilesystemOption| {
            let value = value.as_deref().map(|value| c_string(self.place, value)).transpose()?;
            Ok((c_string(self.place, key)?, value))
        };
        self.options.filesystem.iter().map(one).collect()
    }

    fn remount(self, compiled: &mut CompiledMounts) -> Result<(), CompileError> {
        compiled.ops.push(SetupOp::Remount(Box::new(Remount {
            parameters: if self.mount.is_bind() { Vec::new() } else { self.parameters()? },
            target: self.target,
            attributes: self.options.attributes,
            recursive: self.options.recursive,
            propagation: self.options.propagation.clone(),
        })));
        Ok(())
    }

    fn filesystem(self, compiled: &mut CompiledMounts, kind: &str) -> Result<(), CompileError> {
        let mut parameters = Vec::new();
        if let Some(source) = &self.mount.source {
            parameters.push((literal("source"), Some(c_string(self.place, source)?)));
        }
        parameters.extend(self.parameters()?);
        parameters.extend(
            self.label.clone().filter(|_| labels::take_label(kind)).map(|label| (literal("context"), Some(label))),
        );
        let has_mode = self.options.filesystem.iter().any(|option| option.key == "mode");
        let contents = match self.devices {
            _ if self.options.copy_up => Contents::Copy,
            DeviceFiles::AsMounted if kind == "tmpfs" && !has_mode => Contents::Permissions,
            _ => Contents::Empty,
        };
        let propagation = self.options.propagation.clone();
        let mut attributes = (self.options.attributes.set | self.options.recursive.set) as u32;
        let holds_devices = matches!(self.target.to_bytes(), b"dev") || kind == "devpts";
        if !holds_devices {
            attributes |= MountAttributes::NO_DEV as u32;
        }
        let filesystem =
            Filesystem { kind: c_string(self.place, kind)?, parameters, attributes, propagation, contents };
        let real = matches!(kind, "proc" | "sysfs") || self.target.to_bytes() == b"dev";
        let target_kind = if real { TargetKind::RealDirectory } else { TargetKind::Directory };
        self.push(compiled, MountSource::Filesystem(filesystem), target_kind);
        Ok(())
    }

    /// On a host of version 1: a tmpfs with one directory for each hierarchy, as containers expect it.
    fn cgroup(self, compiled: &mut CompiledMounts, surroundings: &Surroundings) -> Result<(), CompileError> {
        let attributes = self.options.attributes.set as u32 | MountAttributes::NO_DEV as u32;
        let of_kind = |kind: &str, parameters, attributes| {
            let (propagation, contents) = (Vec::new(), Contents::Empty);
            MountSource::Filesystem(Filesystem { kind: literal(kind), parameters, attributes, propagation, contents })
        };
        let hierarchies = match &surroundings.cgroup_view {
            CgroupView::Unknown => {
                return Err(CompileError::invalid(self.place, "mounts cgroups, and the host has none"));
            }
            CgroupView::Unified if self.cgroups == CgroupMounts::Bound => {
                let own = own_directory(surroundings, "/sys/fs/cgroup")
                    .ok_or_else(|| CompileError::invalid(self.place, "mounts cgroups, and the container has none"))?;
                let source = bound(self.place, own, attributes)?;
                self.push(compiled, source, TargetKind::Directory);
                return Ok(());
            }
            CgroupView::Unified => {
                self.push(compiled, of_kind("cgroup2", Vec::new(), attributes), TargetKind::Directory);
                return Ok(());
            }
            CgroupView::Hierarchies(list) => list,
        };
        let target = self.target.clone();
        let place = self.place.to_owned();
        let mode = vec![(literal("source"), Some(literal("cgroup"))), (literal("mode"), Some(literal("755")))];
        let writable = attributes & !(MountAttributes::READ_ONLY as u32);
        let tmpfs = of_kind("tmpfs", mode, writable);
        compiled.ops.push(SetupOp::Mount(Box::new(MountOp {
            source: tmpfs,
            target: self.target.clone(),
            target_kind: TargetKind::Directory,
            keep: KeptMount::No,
        })));
        for hierarchy in hierarchies {
            let mut parameters = vec![(literal("source"), Some(literal("cgroup")))];
            for parameter in &hierarchy.parameters {
                parameters.push(match parameter.split_once('=') {
                    Some((key, value)) => (c_string(&place, key)?, Some(c_string(&place, value)?)),
                    None => (c_string(&place, parameter)?, None),
                });
            }
            let mut below = target.to_bytes().to_vec();
            below.push(b'/');
            below.extend_from_slice(hierarchy.directory.as_bytes());
            let source = match self.cgroups {
                CgroupMounts::Anew => of_kind(hierarchy.kind, parameters, attributes),
                CgroupMounts::Bound => {
                    let mount = format!("/sys/fs/cgroup/{}", hierarchy.directory);
                    let Some(own) = own_directory(surroundings, &mount) else { continue };
                    bound(&place, own, attributes)?
                }
            };
            compiled.ops.push(SetupOp::Mount(Box::new(MountOp {
                source,
                target: CString::new(below).unwrap_or_default(),
                target_kind: TargetKind::Directory,
                keep: KeptMount::No,
            })));
        }
        if attributes & MountAttributes::READ_ONLY as u32 != 0 {
            compiled.ops.push(SetupOp::SealMount { path: target });
        }
        Ok(())
    }

    fn push(self, compiled: &mut CompiledMounts, source: MountSource, target_kind: TargetKind) {
        let keep = match self.target.to_bytes() {
            b"proc" => KeptMount::Proc,
            b"dev" if compiled.dev == DevKind::Fresh => KeptMount::Dev,
            _ => KeptMount::No,
        };
        compiled.ops.push(SetupOp::Mount(Box::new(MountOp { source, target: self.target, target_kind, keep })));
    }
}

/// The container's directory in the hierarchy that is mounted at `mount`.
fn own_directory<'a>(surroundings: &'a Surroundings, mount: &str) -> Option<&'a Path> {
    let below = |procs: &&PathBuf| procs.strip_prefix(mount).is_ok();
    surroundings.cgroup_procs.iter().find(below)?.parent()
}

fn bound(place: &str, directory: &Path, attributes: u32) -> Result<MountSource, CompileError> {
    Ok(MountSource::Bind(Bind {
        path: c_path(place, directory)?,
        depth: 0,
        attributes: MountAttributes::set(attributes.into()),
        recursive: MountAttributes::default(),
        propagation: vec![(libc::MS_PRIVATE, 0)],
        prepared: None,
    }))
}
