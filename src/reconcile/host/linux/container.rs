//! Makes, changes and takes away containers. A container's cgroup comes first and its label last, so that one whose
//! making was interrupted is found, and told apart from a finished one.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bundle::{self, Found};
use super::copies::{rewrite_copies, write_copies};
use super::{LinuxHost, unless};
use crate::model::UserSpec;
use crate::monitor::client::{self, Launcher};
use crate::monitor::spec::{CONFIG_FILE, MonitorSpec};
use crate::plan::{ContainerSpec, DesiredContainer, Kind, digest_of};
use crate::reconcile::actual::StoredContainer;
use crate::reconcile::changes::hosts_text;
use crate::reconcile::host::{Doing, HostError};
use crate::reconcile::step::{AdjustContainer, LinksOf};
use crate::runtime::cgroup::Cgroup;
use crate::runtime::container::protected_executable;
use crate::runtime::container::user::{AccountFiles, UserText, resolve};
use crate::runtime::oci::OciUser;

/// The bundle's copy of what a container was made from.
pub(super) const STORED: &str = "container.json";
/// A monitor that was told to stop may take so much longer than its container's own time.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// No secret or name service file is larger, in bytes.
const MAX_FILE: u64 = 1 << 20;

impl LinuxHost {
    pub(super) async fn create_container(&self, desired: DesiredContainer) -> Result<(), HostError> {
        let instance = desired.instance.clone();
        let endpoints = desired.spec.endpoints.clone();
        let digest = desired.digest();
        let group = self.blocking(move |host| host.prepare(&desired)).await?;
        let launcher = self.launcher().await?;
        let bundle = self.bundle(&instance);
        let doing = || format!("start `{instance}`");
        let handle = launcher.spawn(&bundle).doing(doing)?;
        let monitor = handle.net_ready().await.doing(doing)?;
        self.attach(&instance, &endpoints, monitor).await?;
        handle.go().await.doing(doing)?;
        self.label_cgroup(&group, Kind::Container, &instance, &digest)
    }

    /// Executes monitors from a read-only view of this program, which nothing in a container can write to.
    pub(super) async fn launcher(&self) -> Result<&Launcher, HostError> {
        self.launcher
            .get_or_try_init(|| async {
                let file = protected_executable().doing(|| "make a read-only view of this program")?;
                Ok(Launcher::new(file))
            })
            .await
    }

    /// Everything that a container needs before its monitor starts.
    fn prepare(&self, desired: &DesiredContainer) -> Result<Cgroup, HostError> {
        let path = self.cgroup_path(&desired.spec.cgroup)?;
        let group = self.create_cgroup(&path)?;
        self.write_limits(&group, &desired.live.limits)?;
        let found = self.find_out(desired, &group)?;
        make_writable_layer(&found.writable)?;
        self.write_bundle(desired, &found)?;
        Ok(group)
    }

    fn find_out(&self, desired: &DesiredContainer, group: &Cgroup) -> Result<Found, HostError> {
        let spec = &desired.spec;
        let image = self.image_for(&spec.image.name)?;
        let lower = self.images.layer_dirs(&image);
        let user = resolve_user(spec, &lower, &image.binds)?;
        Ok(Found {
            bundle: self.bundle(&desired.instance),
            user,
            lower,
            image_binds: image.binds.clone(),
            writable: self.writable_folder(&desired.instance),
            volumes: spec.volumes.iter().map(|volume| self.volume_folder(volume.volume.as_str())).collect(),
            seccomp: self.seccomp_for(spec)?,
            cgroup: group.path().as_str().into(),
            cgroup_root: self.roots.sys_fs_cgroup.clone(),
            cgroup_procs: group.procs_files(),
            monitor_procs: self.monitor_procs()?,
            log_folder: self.log_folder(&desired.instance),
        })
    }

    fn write_bundle(&self, desired: &DesiredContainer, found: &Found) -> Result<(), HostError> {
        let folder = &found.bundle;
        make_private_folder(folder)?;
        make_private_folder(&folder.join("rootfs"))?;
        let spec = &desired.spec;
        write_file(&folder.join(bundle::HOSTS), hosts_text(&desired.live.hosts).as_bytes(), 0o644)?;
        write_file(&folder.join(bundle::RESOLV_CONF), self.resolv_conf(desired).as_bytes(), 0o644)?;
        write_file(&folder.join(bundle::HOSTNAME), format!("{}\n", spec.hostname).as_bytes(), 0o644)?;
        write_copies((spec, &self.elsewhere), folder)?;
        write_json(&folder.join(STORED), &StoredContainer::from(desired))?;
        write_json(&folder.join(CONFIG_FILE), &bundle::oci_config(desired, found))?;
        bundle::monitor_spec(desired, found)
            .save(folder)
            .doing(|| format!("write the bundle of `{}`", desired.instance))
    }

    /// The stack's resolver, with the host's options. On no bridge: the host's name servers, systemd-resolved's own list
    /// where the host's file leads to its stub.
    fn resolv_conf(&self, desired: &DesiredContainer) -> String {
        let read = |path: &Path| read_bounded(path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let host = read(&self.roots.etc.join("resolv.conf"));
        if let Some(dns) = &desired.live.dns {
            return bundle::resolv_conf_with(dns, &host.unwrap_or_default());
        }
        let direct = host.map(|text| bundle::resolv_conf(&text));
        match direct {
            Some(text) if text.contains("nameserver") => text,
            _ => read(Path::new(RESOLVED)).map(|text| bundle::resolv_conf(&text)).unwrap_or_default(),
        }
    }

    pub(super) async fn adjust_container(&self, adjust: AdjustContainer) -> Result<(), HostError> {
        let instance = adjust.desired.instance.clone();
        let bundle = self.bundle(&instance);
        let wanted = adjust.desired.clone();
        if adjust.limits {
            let limits = wanted.live.limits.clone();
            let path = self.cgroup_path(&wanted.spec.cgroup)?;
            self.blocking(move |host| match host.open_cgroup(&path)? {
                Some(group) => host.write_limits(&group, &limits),
                None => Err(HostError::Said(format!("cgroup `{}` went away", path.as_str()))),
            })
            .await?;
        }
        if adjust.hosts {
            // Written in place: the container sees these very files.
            overwrite(&bundle.join(bundle::HOSTS), hosts_text(&wanted.live.hosts).as_bytes())?;
            overwrite(&bundle.join(bundle::RESOLV_CONF), self.resolv_conf(&wanted).as_bytes())?;
        }
        if !adjust.links.is_empty() {
            let missing: Vec<_> =
                wanted.spec.endpoints.iter().filter(|e| adjust.links.contains(&e.bridge)).cloned().collect();
            let monitor = self.monitor_of(&instance)?;
            self.attach(&instance, &missing, monitor).await?;
        }
        if adjust.settings {
            let doing = || format!("tell the monitor of `{instance}`");
            let mut spec = MonitorSpec::load(&bundle).doing(doing)?;
            spec.restart = wanted.live.restart;
            spec.health = wanted.live.health.clone();
            spec.log = wanted.live.log;
            spec.stop_timeout_ms = wanted.live.stop_timeout_ms;
            spec.save(&bundle).doing(doing)?;
            client::reload(&bundle).doing(doing)?;
        }
        rewrite_copies((&wanted.spec, &self.elsewhere), &bundle, &adjust.contents)?;
        let epoch = digest_of(&wanted.live.contents);
        self.react(&instance, &adjust.reactions, &epoch).await?;
        // Last: until here another run sees what is still to do.
        write_json(&bundle.join(STORED), &StoredContainer::from(&wanted))
    }

    pub(super) fn monitor_of(&self, instance: &str) -> Result<i32, HostError> {
        match client::read_status(&self.bundle(instance)).doing(|| format!("read the status of `{instance}`"))? {
            client::Found::Watched(status) => Ok(status.monitor_pid),
            _ => Err(HostError::Said(format!("`{instance}` has no monitor"))),
        }
    }

    /// Stops a container and removes all that is its own. Its log stays, and so do volumes. Whatever is already gone is
    /// passed over; the bundle goes last, so that what is left is found again.
    pub(super) async fn remove_container(&self, instance: &str, links: LinksOf) -> Result<(), HostError> {
        let bundle = self.bundle(instance);
        self.stop(instance, &bundle).await?;
        let name = instance.to_string();
        self.blocking(move |host| host.remove_cgroups_of(&name)).await?;
        if links == LinksOf::Deleted {
            self.detach(instance).await?;
        }
        let writable = self.writable_folder(instance);
        self.blocking(move |_| {
            remove_tree(&writable)?;
            remove_tree(&bundle)
        })
        .await
    }

    async fn stop(&self, instance: &str, bundle: &Path) -> Result<(), HostError> {
        let doing = || format!("stop `{instance}`");
        let patience = MonitorSpec::load(bundle).map_or(Duration::ZERO, |spec| spec.stop_timeout()) + STOP_MARGIN;
        let Some(stopping) = client::stop(bundle).doing(doing)? else { return Ok(()) };
        if let Ok(ended) = tokio::time::timeout(patience, stopping.ended()).await {
            return ended.doing(doing);
        }
        // A monitor that does not end in time takes its container along when it is killed.
        match client::kill(bundle).doing(doing)? {
            Some(killed) => killed.ended().await.doing(doing),
            None => Ok(()),
        }
    }

    /// Kills what is left in the groups of an instance, wherever in the stack's tree they are, and removes them.
    fn remove_cgroups_of(&self, instance: &str) -> Result<(), HostError> {
        let found = self.observe_cgroups()?;
        let Some(below) = found.containers.get(instance) else { return Ok(()) };
        let path = self.cgroup_path(below)?;
        if let Some(group) = self.open_cgroup(&path)? {
            group.kill().doing(|| format!("kill what is left of `{instance}`"))?;
        }
        self.hierarchies.remove_tree(&path).doing(|| format!("remove the cgroup of `{instance}`"))
    }

    pub(super) fn create_volume(&self, name: &str) -> Result<(), HostError> {
        let folder = self.volume_folder(name);
        let doing = || format!("make volume `{name}`");
        let parent = folder.parent().unwrap_or(&folder);
        DirBuilder::new().recursive(true).mode(0o700).create(parent).doing(doing)?;
        let made = DirBuilder::new().mode(0o755).create(&folder);
        unless(made, |error| error.kind() == io::ErrorKind::AlreadyExists).doing(doing)
    }

    pub(super) fn remove_volume(&self, name: &str) -> Result<(), HostError> {
        let folder = self.volume_folder(name);
        remove_tree(&folder)?;
        if let Some(parent) = folder.parent() {
            // Other volumes keep it.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

/// Where systemd-resolved lists the servers behind its stub.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The user as numbers, by the image's own files. Folders of the host that the image shows come before its layers.
fn resolve_user(spec: &ContainerSpec, lower: &[PathBuf], binds: &[(PathBuf, String)]) -> Result<OciUser, HostError> {
    let Some(UserSpec { user: name, group }) = &spec.user else { return Ok(bundle::numeric_user(0, 0, vec![])) };
    debug_assert!(!binds.iter().any(|(_, target)| target == "/etc"));
    let text = group.as_ref().map_or(name.clone(), |group| format!("{name}:{group}"));
    let doing = || format!("find user `{text}` in the image");
    let files = AccountFiles::of_layers(lower).doing(doing)?;
    let found = resolve(&UserText::parse(&text), &files).doing(doing)?;
    Ok(bundle::numeric_user(found.uid, found.gid, found.additional_gids))
}

/// An empty writable layer: what an earlier container wrote is gone.
fn make_writable_layer(folder: &Path) -> Result<(), HostError> {
    remove_tree(folder)?;
    make_private_folder(folder)?;
    for part in ["upper", "work"] {
        let path = folder.join(part);
        DirBuilder::new().mode(0o755).create(&path).doing(|| format!("make folder `{}`", path.display()))?;
    }
    Ok(())
}

pub(super) fn make_private_folder(path: &Path) -> Result<(), HostError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).doing(|| format!("make folder `{}`", path.display()))
}

pub(super) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), HostError> {
    let write = || -> io::Result<()> {
        unless(fs::remove_file(path), |error| error.kind() == io::ErrorKind::NotFound)?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        // The umask of whoever runs us is not part of the file's meaning.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)
    };
    write().doing(|| format!("write `{}`", path.display()))
}

fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), HostError> {
    let write = || fs::OpenOptions::new().write(true).truncate(true).open(path)?.write_all(bytes);
    write().doing(|| format!("write `{}`", path.display()))
}

/// Replaces a JSON file by rename, readable by root alone: it may hold what the environment holds.
fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), HostError> {
    let new = path.with_extension("json.new");
    let bytes = serde_json::to_vec(value).doing(|| format!("write `{}`", path.display()))?;
    write_file(&new, &bytes, 0o600)?;
    fs::rename(&new, path).doing(|| format!("write `{}`", path.display()))
}

/// Reads a file that is not supposed to be large.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_FILE} bytes"))),
        false => Ok(bytes),
    }
}

/// A monitor whose `up` was killed may write one last file into a folder that is being removed.
const REMOVE_TURNS: usize = 8;

pub(super) fn remove_tree(path: &Path) -> Result<(), HostError> {
    let mut removed = fs::remove_dir_all(path);
    for _ in 1..REMOVE_TURNS {
        match &removed {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => removed = fs::remove_dir_all(path),
            _ => break,
        }
    }
    unless(removed, |error| error.kind() == io::ErrorKind::NotFound).doing(|| format!("remove `{}`", path.display()))
}
