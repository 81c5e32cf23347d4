//! Copies of the host's files that a container sees: secrets, and files with `on_change`. They lie in its bundle, on a
//! tmpfs, and each is mounted into the container, read-only.
//!
//! A copy is written anew in place. A file put there by rename, as editors save, would be another one than the one that is
//! mounted, and the container would go on seeing the old.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::LinuxHost;
use super::bundle::{FILES, SECRETS, copies};
use super::container::{make_private_folder, read_bounded, write_file};
use super::exec::ExecWish;
use super::generations::Elsewhere;
use crate::monitor::client;
use crate::monitor::spec::MonitorSpec;
use crate::plan::ContainerSpec;
use crate::reconcile::host::{Doing, HostError};
use crate::reconcile::step::Reactions;

/// A file of the host as a container is to see it.
struct Source<'a> {
    file: &'a Path,
    /// User, group and permission bits; `None`: as the file has them.
    access: Option<(u32, u32, u32)>,
}

/// In the order of [`copies`].
fn sources<'a>(spec: &'a ContainerSpec, elsewhere: &'a Elsewhere) -> impl Iterator<Item = Source<'a>> {
    let files = spec.files.iter().map(|file| Source { file: elsewhere.of(&file.file), access: None });
    let secrets = spec
        .secrets
        .iter()
        .map(|secret| Source { file: &secret.file, access: Some((secret.uid, secret.gid, secret.mode)) });
    files.chain(secrets)
}

/// Writes all copies into a new bundle.
pub(super) fn write_copies((spec, elsewhere): (&ContainerSpec, &Elsewhere), bundle: &Path) -> Result<(), HostError> {
    for (folder, any) in [(SECRETS, !spec.secrets.is_empty()), (FILES, !spec.files.is_empty())] {
        if any {
            make_private_folder(&bundle.join(folder))?;
        }
    }
    for (source, (_, copy)) in sources(spec, elsewhere).zip(copies(spec)) {
        let path = bundle.join(copy);
        write_file(&path, &source.read()?, 0o600)?;
        source.give_access(&path)?;
    }
    Ok(())
}

/// Writes those copies anew that are seen at `targets`.
pub(super) fn rewrite_copies(
    (spec, elsewhere): (&ContainerSpec, &Elsewhere),
    bundle: &Path,
    targets: &[String],
) -> Result<(), HostError> {
    for (source, (target, copy)) in sources(spec, elsewhere).zip(copies(spec)) {
        if !targets.iter().any(|wanted| wanted == target) {
            continue;
        }
        let path = bundle.join(copy);
        let bytes = source.read()?;
        // Written over and cut after, so that a reader never finds the file empty.
        let write = |mut file: File| file.write_all(&bytes).and_then(|()| file.set_len(bytes.len() as u64));
        OpenOptions::new().write(true).open(&path).and_then(write).doing(|| format!("write `{}`", path.display()))?;
        source.give_access(&path)?;
    }
    Ok(())
}

impl Source<'_> {
    fn read(&self) -> Result<Vec<u8>, HostError> {
        read_bounded(self.file).doing(|| format!("read `{}`", self.file.display()))
    }

    fn give_access(&self, path: &Path) -> Result<(), HostError> {
        let doing = || format!("give away `{}`", path.display());
        let (uid, gid, mode) = match self.access {
            Some(access) => access,
            None => {
                let held = fs::metadata(self.file).doing(|| format!("read `{}`", self.file.display()))?;
                (held.uid(), held.gid(), held.mode() & 0o777)
            }
        };
        chown(path, Some(uid), Some(gid)).doing(doing)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing(doing)
    }
}

impl LinuxHost {
    /// Tells a running container that something changed. `epoch` names the change: a monitor that has heard of it starts
    /// nothing twice.
    pub(super) async fn react(&self, instance: &str, reactions: &Reactions, epoch: &str) -> Result<(), HostError> {
        if reactions.restart {
            return self.start_again(instance, epoch).await;
        }
        for signal in &reactions.signals {
            let doing = || format!("send signal {signal} to `{instance}`");
            // One that does not run reads the file when it starts.
            client::signal_container(&self.bundle(instance), *signal).doing(doing)?;
        }
        for command in &reactions.commands {
            let (name, wish) = (instance.to_string(), ExecWish { command: command.clone(), ..ExecWish::default() });
            self.blocking(move |host| host.execute_quietly(&name, &wish)).await?;
        }
        Ok(())
    }

    /// Tells a running container that something changed which is no part of its spec.
    pub async fn tell(&self, instance: &str, reactions: &Reactions) -> Result<(), HostError> {
        self.react(instance, reactions, &format!("at {}", jiff::Timestamp::now())).await
    }

    /// Has a container's process started again, and waits until it runs.
    pub(super) async fn start_again(&self, instance: &str, epoch: &str) -> Result<(), HostError> {
        let doing = || format!("restart `{instance}`");
        let bundle = self.bundle(instance);
        let mut spec = MonitorSpec::load(&bundle).doing(doing)?;
        if spec.epoch == epoch {
            // The monitor was told before, by a run that died; telling it again does nothing.
            client::reload(&bundle).doing(doing)?;
            return Ok(());
        }
        spec.epoch = epoch.into();
        let patience = spec.stop_timeout();
        self.runs_anew(instance, patience, || {
            spec.save(&bundle).doing(doing)?;
            match client::reload(&bundle).doing(doing)? {
                true => Ok(()),
                false => Err(HostError::Said(format!("`{instance}` has no monitor"))),
            }
        })
        .await
    }
}
