//! `config.json`: the document itself, root, mounts and hooks (runtime-spec config.md).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{OciError, OciIdMapping, OciLinuxConfig, OciProcess, validate};

/// A container as the specification describes it. Parse one with [`OciConfig::parse`], which checks it too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciConfig {
    pub oci_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<OciRoot>,
    /// Absent: the container can be created and never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<OciProcess>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Mounted in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<OciMount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<OciHooks>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux: Option<OciLinuxConfig>,
}

impl OciConfig {
    /// Read and check a `config.json`.
    pub fn parse(json: &[u8]) -> Result<Self, OciError> {
        let config = Self::read(json).or_else(|error| {
            // Programs in Go write `null` for what is not there.
            let Ok(mut value) = serde_json::from_slice(json) else { return Err(error) };
            if without_null(&mut value) { Self::read(value.to_string().as_bytes()) } else { Err(error) }
        })?;
        config.validate()?;
        Ok(config)
    }

    fn read(json: &[u8]) -> Result<Self, OciError> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let config = serde_path_to_error::deserialize(&mut deserializer)
            .map_err(|error| OciError::Json { path: error.path().to_string(), source: error.into_inner() })?;
        deserializer.end().map_err(|source| OciError::Json { path: ".".to_owned(), source })?;
        Ok(config)
    }

    /// The checks of the specification that types alone cannot make.
    pub fn validate(&self) -> Result<(), OciError> {
        validate::check(self)
    }
}

/// Take out every member that is `null`; whether there was one.
fn without_null(value: &mut Value) -> bool {
    match value {
        Value::Object(members) => {
            let before = members.len();
            members.retain(|_, value| !value.is_null());
            let inner = members.values_mut().fold(false, |any, value| without_null(value) | any);
            inner || members.len() < before
        }
        Value::Array(list) => list.iter_mut().fold(false, |any, value| without_null(value) | any),
        _ => false,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciRoot {
    /// Absolute, or relative to the bundle.
    pub path: PathBuf,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciMount {
    /// A path in the container; a relative one starts at `/`.
    pub destination: String,
    /// A filesystem type of the kernel, or `bind`; with `bind` or `rbind` among the options it does not matter.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// For a bind: absolute, or relative to the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Options of the specification's table; unknown ones go to the filesystem.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<OciIdMapping>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<OciIdMapping>,
}

impl OciMount {
    pub fn is_bind(&self) -> bool {
        self.kind.as_deref() == Some("bind") || self.options.iter().any(|option| option == "bind" || option == "rbind")
    }
}

/// Programs to run at six points of a container's life, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciHooks {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<OciHook>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<OciHook>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<OciHook>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<OciHook>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<OciHook>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<OciHook>,
}

impl OciHooks {
    /// The six lists under their names in the document.
    pub fn points(&self) -> [(&'static str, &[OciHook]); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciHook {
    /// Absolute.
    pub path: PathBuf,
    /// The first is the program's name for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// All of the hook's environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds, above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}
