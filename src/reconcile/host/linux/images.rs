//! What has to be read before anything can be desired: images, seccomp profiles, secrets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use super::LinuxHost;
use super::bundle::capability_names;
use super::container::read_bounded;
use crate::model::{Build, ImageReference, ImageSource, ImageUse, Seccomp, Stack};
use crate::plan::{ContainerSpec, Resolved, ResolvedImage, SeccompSpec};
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::image::{ImageOrigin, LayerSource, LocalBlobs, ResolvedImage as RuntimeImage};
use crate::runtime::seccomp::{LinuxSeccomp, Profile};

/// An image that was resolved in this run.
pub(super) type KnownImage = RuntimeImage;

/// The key that secrets are hashed under; made once for each host, and readable by root alone.
const KEY_FILE: &str = "secret-hash.key";
const KEY_BYTES: usize = 32;

impl LinuxHost {
    pub(super) fn resolve_files(&self, stack: &Stack) -> Result<Resolved, HostError> {
        let mut resolved = Resolved::default();
        for container in stack.containers.values() {
            let name = &container.image.written;
            if !resolved.images.contains_key(name) {
                resolved
                    .images
                    .insert(name.clone(), self.resolve_image(name, (&container.image, &stack.origins.file))?);
            }
            if let Seccomp::File(path) = &container.seccomp {
                let doing = || format!("read seccomp profile `{}`", path.display());
                let digest = hex(&Sha256::digest(read_bounded(self.elsewhere.of(path)).doing(doing)?));
                resolved.profiles.insert(path.clone(), digest);
            }
            let secrets = container.secrets.iter().map(|secret| &secret.file);
            for file in secrets.chain(container.files.iter().map(|file| &file.file)) {
                if !resolved.contents.contains_key(file) {
                    resolved.contents.insert(file.clone(), self.hash_content(file)?);
                }
            }
        }
        Ok(resolved)
    }

    fn resolve_image(&self, name: &str, (used, file): (&ImageUse, &str)) -> Result<ResolvedImage, HostError> {
        let image = match Whence::of(&used.source) {
            Whence::Origin(origin) => self.read_image(name, &origin)?,
            Whence::Reference(reference) => {
                let origin = self.refer(name, (reference, used.pull), file)?;
                self.read_image(name, &origin)?
            }
            Whence::Build(build) => self.resolve_build(name, build, file)?,
        };
        let config = &image.config;
        let resolved = ResolvedImage {
            id: image.id.clone(),
            env: config.env.clone(),
            entrypoint: config.entrypoint.clone(),
            command: config.cmd.clone(),
            workdir: Some(config.working_dir.clone()).filter(|folder| !folder.is_empty()),
            user: Some(config.user.clone()).filter(|user| !user.is_empty()),
            stop_signal: match &config.stop_signal {
                Some(text) => Some(signal_number(text).ok_or_else(|| {
                    HostError::Said(format!("image `{name}` asks to be stopped by `{text}`, which is no signal"))
                })?),
                None => None,
            },
        };
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(name.into(), image);
        Ok(resolved)
    }

    pub(super) fn read_image(&self, name: &str, origin: &ImageOrigin) -> Result<KnownImage, HostError> {
        self.images.resolve(origin).doing(|| format!("read image `{name}`"))
    }

    /// An image that this run has resolved.
    pub(super) fn image_for(&self, name: &str) -> Result<KnownImage, HostError> {
        let known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.get(name).cloned().ok_or_else(|| HostError::Said(format!("image `{name}` was not resolved")))
    }

    /// How many layers of each image of this run are not unpacked.
    pub(super) fn missing_layers(&self) -> BTreeMap<String, usize> {
        let known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let missing = known.iter().map(|(name, image)| (name.clone(), self.images.missing_layers(image).len()));
        missing.filter(|(_, count)| *count > 0).collect()
    }

    /// What those layers take at least: their archives' bytes, compressed or not.
    pub(super) fn missing_bytes(&self) -> BTreeMap<String, u64> {
        let known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let bytes = |image: &KnownImage| -> u64 {
            let missing = self.images.missing_layers(image).into_iter();
            missing.map(|layer| if let LayerSource::Blob(layer) = layer { layer.blob.size } else { 0 }).sum()
        };
        known.iter().map(|(name, image)| (name.clone(), bytes(image))).filter(|(_, bytes)| *bytes > 0).collect()
    }

    pub(super) fn unpack(&self, name: &str) -> Result<(), HostError> {
        let image = self.image_for(name)?;
        let reference = self.reference_of(name);
        match reference {
            Some(reference) => self.pull_layers(&reference, &image),
            None => self.images.unpack(&image, &LocalBlobs),
        }
        .doing(|| format!("unpack image `{name}`"))
    }

    /// A container's filter in the form of the OCI specification; `None` where it is not confined.
    pub(super) fn seccomp_for(&self, spec: &ContainerSpec) -> Result<Option<LinuxSeccomp>, HostError> {
        let profile = match &spec.seccomp {
            SeccompSpec::Unconfined => return Ok(None),
            SeccompSpec::Default => Profile::default_profile(),
            SeccompSpec::File { path, .. } => {
                let doing = || format!("read seccomp profile `{}`", path.display());
                let text = String::from_utf8(read_bounded(self.elsewhere.of(path)).doing(doing)?).doing(doing)?;
                &Profile::parse(&text).doing(doing)?
            }
        };
        let names = capability_names(spec);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Ok(Some(profile.to_oci(&names, kernel_version())))
    }

    /// What a file holds, hashed under this host's key.
    pub(super) fn hash_content(&self, file: &Path) -> Result<String, HostError> {
        let doing = || format!("read `{}`", file.display());
        let content = read_bounded(self.elsewhere.of(file)).doing(doing)?;
        self.hash_bytes(&content)
    }

    /// Hashed under this host's key.
    pub(super) fn hash_bytes(&self, content: &[u8]) -> Result<String, HostError> {
        let key = self.secret_key().doing(|| "read the key that secrets are hashed under")?;
        // The key's length is fixed and it comes first, and the digest is cut: nobody can go on from it.
        let mut hash = Sha256::new();
        hash.update(key);
        hash.update(content);
        Ok(hex(&hash.finalize()[..16]))
    }

    fn secret_key(&self) -> io::Result<[u8; KEY_BYTES]> {
        let path = self.roots.data.join(KEY_FILE);
        let mut key = [0; KEY_BYTES];
        match fs::File::open(&path) {
            Ok(mut file) => file.read_exact(&mut key).map(|()| key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_secret_key(&path),
            Err(error) => Err(error),
        }
    }

    /// Published by a link that does not replace: of two runs at once the first one's key stands.
    fn make_secret_key(&self, path: &Path) -> io::Result<[u8; KEY_BYTES]> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.roots.data)?;
        let mut key = [0; KEY_BYTES];
        fs::File::open("/dev/urandom")?.read_exact(&mut key)?;
        let new = path.with_extension(format!("{}", std::process::id()));
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&key)?;
        file.sync_all()?;
        let linked = fs::hard_link(&new, path);
        fs::remove_file(&new)?;
        match linked {
            Ok(()) => Ok(key),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::File::open(path)?.read_exact(&mut key)?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }
}

/// How an image is come by.
pub(super) enum Whence<'a> {
    /// It lies there.
    Origin(ImageOrigin),
    /// A registry has to be asked.
    Reference(&'a ImageReference),
    Build(&'a Build),
}

impl<'a> Whence<'a> {
    pub(super) fn of(source: &'a ImageSource) -> Self {
        let (path, tag) = match source {
            ImageSource::Registry(reference) => return Self::Reference(reference),
            ImageSource::Build(build) => return Self::Build(build),
            ImageSource::Host => return Self::Origin(ImageOrigin::Host),
            ImageSource::Dir(path) => return Self::Origin(ImageOrigin::Dir(path.clone())),
            ImageSource::OciLayout { path, tag }
            | ImageSource::OciArchive { path, tag }
            | ImageSource::DockerArchive { path, tag } => (path.clone(), tag.clone()),
        };
        Self::Origin(match source {
            ImageSource::OciArchive { .. } => ImageOrigin::OciArchive { path, tag },
            ImageSource::DockerArchive { .. } => ImageOrigin::DockerArchive { path, tag },
            _ => ImageOrigin::OciLayout { path, tag },
        })
    }
}

/// `SIGTERM`, `TERM` or `15`.
fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = match text.starts_with("SIG") {
        true => text.to_string(),
        false => format!("SIG{text}"),
    };
    name.parse::<Signal>().ok().map(|signal| signal as i32)
}

/// Major and minor, as `uname` tells them; a release that says neither counts as the oldest.
pub(super) fn kernel_version() -> (u32, u32) {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_name_and_by_number() {
        for (text, number) in [("SIGQUIT", Some(3)), ("QUIT", Some(3)), ("15", Some(15)), ("0", None), ("65", None)] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
