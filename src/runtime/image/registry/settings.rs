//! The host's settings for registries, as a file says them: mirrors, who may be spoken to without encryption, and whose
//! certificates are trusted.
//!
//! ```toml
//! [registry."docker.io"]
//! mirror = ["mirror.example:5000", "cache.example/hub"]
//!
//! [registry."mirror.example:5000"]
//! ca = "/etc/stack/mirror.pem"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::Reference;
use super::RegistryOptions;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    registry: BTreeMap<String, Settings>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    mirror: Vec<String>,
    #[serde(default)]
    insecure: bool,
    ca: Option<PathBuf>,
}

/// Why a file with settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not what it should be:\n{source}", path.display())]
    Malformed { path: PathBuf, source: Box<toml::de::Error> },
    #[error("`{}` names the registry `{name}`; a registry is a host name with a port where it needs one", path.display())]
    Registry { path: PathBuf, name: String },
    #[error("`{}` names the mirror `{mirror}` of `{name}`; a mirror is HOST[:PORT][/PREFIX]", path.display())]
    Mirror { path: PathBuf, name: String, mirror: String },
    #[error("`{}` names `{}` as `ca` of `{name}`, which is no file with an absolute path", path.display(), ca.display())]
    Authority { path: PathBuf, name: String, ca: PathBuf },
}

impl RegistryOptions {
    /// With what the file at `path` says; a file that is not there says nothing.
    pub fn with_settings(mut self, path: &Path) -> Result<Self, SettingsError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(self),
            Err(source) => return Err(SettingsError::Read { path: path.to_owned(), source }),
        };
        let document: Document = toml::from_str(&text)
            .map_err(|source| SettingsError::Malformed { path: path.to_owned(), source: Box::new(source) })?;
        for (name, settings) in document.registry {
            let path = || path.to_owned();
            // Any image shows whether the name is one.
            let is_place = |place: &str| "x/y".parse().is_ok_and(|any: Reference| any.at_mirror(place).is_some());
            if name.contains('/') || !is_place(&name) {
                return Err(SettingsError::Registry { path: path(), name });
            }
            if let Some(mirror) = settings.mirror.iter().find(|mirror| !is_place(mirror)) {
                return Err(SettingsError::Mirror { path: path(), name, mirror: mirror.clone() });
            }
            if let Some(ca) = settings.ca {
                if !ca.is_absolute() || !ca.is_file() {
                    return Err(SettingsError::Authority { path: path(), name, ca });
                }
                self.authorities.entry(name.clone()).or_default().push(ca);
            }
            if settings.insecure {
                self.insecure.insert(name.clone());
            }
            if !settings.mirror.is_empty() {
                self.mirrors.insert(name, settings.mirror);
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RegistryOptions, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registries.toml");
        std::fs::write(&path, text).unwrap();
        RegistryOptions::default().with_settings(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn mirrors_and_exceptions_are_read_by_registry() {
        let options = read(
            "[registry.\"docker.io\"]\nmirror = [\"m.example:5000\", \"c.example/hub\"]\n[registry.\"m.example:5000\"]\ninsecure = true\n",
        );
        let options = options.unwrap();
        assert_eq!(options.mirrors["docker.io"], ["m.example:5000", "c.example/hub"]);
        assert!(options.insecure.contains("m.example:5000"));
        let nothing = RegistryOptions::default().with_settings(Path::new("/nowhere")).unwrap();
        assert!(nothing.mirrors.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, part: &str| {
            let told = read(text).unwrap_err();
            assert!(told.contains(part), "{told}");
        };
        check("[registry.\"docker.io\"]\nmirors = []\n", "mirors");
        check(
            "[registry.\"docker.io\"]\nmirror = [\"https://m.example\"]\n",
            "the mirror `https://m.example` of `docker.io`",
        );
        check("[registry.\"team/web\"]\ninsecure = true\n", "the registry `team/web`");
        check("[registry.\"a.example\"]\nca = \"ca.pem\"\n", "`ca.pem` as `ca` of `a.example`");
    }

    #[test]
    fn a_mirror_has_an_image_below_its_prefix() {
        let at = |text: &str, mirror: &str| {
            text.parse::<Reference>().unwrap().at_mirror(mirror).map(|found| found.to_string())
        };
        assert_eq!(at("alpine:3", "m.example:5000").unwrap(), "m.example:5000/library/alpine:3");
        assert_eq!(at("a.example/team/web:1", "c.example/a").unwrap(), "c.example/a/team/web:1");
        assert_eq!(at("alpine", "mirror"), None);
    }
}
