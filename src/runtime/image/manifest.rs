//! The JSON documents of an image: index, manifest, configuration (OCI image specification 1.1, and docker's
//! schema 2, which differs in media types alone). Structures only; reading them from somewhere is
//! `layout` and `docker`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::LayerDigest;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a layer is called by how it is compressed; `None` for what is not supported.
pub(super) fn layer_media_type(compression: super::Compression) -> Option<&'static str> {
    match compression {
        super::Compression::None => Some("application/vnd.oci.image.layer.v1.tar"),
        super::Compression::Gzip => Some("application/vnd.oci.image.layer.v1.tar+gzip"),
        super::Compression::Zstd => Some("application/vnd.oci.image.layer.v1.tar+zstd"),
        super::Compression::Other(_) => None,
    }
}

/// A reference to a blob: what it is, its address and its size in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: LayerDigest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The name an image has in a layout: its tag, or a whole reference.
    pub fn ref_name(&self) -> Option<&str> {
        self.annotations.get("org.opencontainers.image.ref.name").map(String::as_str)
    }

    /// Does `tag` mean this one: its name, the tag of its name, or its digest?
    pub fn is_called(&self, tag: &str) -> bool {
        let long = self.annotations.get("io.containerd.image.name").map(String::as_str);
        let names = [self.ref_name(), long];
        let ends_so = |name: &str| name == tag || name.strip_suffix(tag).is_some_and(|rest| rest.ends_with(':'));
        names.into_iter().flatten().any(ends_so) || self.digest.to_string() == tag
    }

    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_MANIFEST_LIST)
    }
}

/// A list of manifests, for platforms or of a whole layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    pub schema_version: u32,
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// What one image consists of, as registries and layouts describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    /// Lowest first.
    pub layers: Vec<Descriptor>,
}

/// An operating system and an architecture, in Go's names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// What this host can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPlatform {
    pub architecture: &'static str,
    /// Best first. An image without a variant runs everywhere, and is taken before no other.
    pub variants: &'static [&'static str],
}

impl HostPlatform {
    #[cfg(target_arch = "x86_64")]
    pub fn of_this_host() -> Self {
        let v2 = std::is_x86_feature_detected!("sse4.2") && std::is_x86_feature_detected!("popcnt");
        let v3 = v2 && std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("bmi2");
        let v3 = v3 && std::is_x86_feature_detected!("fma") && std::is_x86_feature_detected!("movbe");
        let variants: &[&str] = match (v2, v3) {
            (_, true) => &["v3", "v2", "v1"],
            (true, _) => &["v2", "v1"],
            _ => &["v1"],
        };
        Self { architecture: "amd64", variants }
    }

    #[cfg(target_arch = "aarch64")]
    pub fn of_this_host() -> Self {
        Self { architecture: "arm64", variants: &["v8"] }
    }

    /// The best of `manifests` for this host. Entries without a platform are taken for any; what is not an image
    /// (attestations say `unknown`) never fits.
    pub fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let ranked = manifests.iter().filter_map(|descriptor| Some((self.rank(descriptor)?, descriptor)));
        // `min_by_key` keeps the first of equals, as the order of an index asks for.
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, descriptor)| descriptor)
    }

    /// Can this host run what is made for `os` and `architecture`?
    pub fn runs(&self, os: &str, architecture: &str) -> bool {
        os == "linux" && architecture == self.architecture
    }

    fn rank(&self, descriptor: &Descriptor) -> Option<usize> {
        let Some(platform) = &descriptor.platform else { return Some(self.variants.len() + 1) };
        if !self.runs(&platform.os, &platform.architecture) {
            return None;
        }
        match platform.variant.as_deref() {
            None | Some("") => Some(self.variants.len()),
            Some(variant) => self.variants.iter().position(|known| *known == variant),
        }
    }
}

/// What an image says about how it wants to be run (OCI image specification, "Image Configuration").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", from = "ConfigDocument")]
pub struct ImageConfig {
    /// `NAME=value`.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// Empty means `/`.
    pub working_dir: String,
    /// `USER`, `UID`, `USER:GROUP`, …; empty means root.
    pub user: String,
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// `PORT/PROTOCOL`.
    pub exposed_ports: Vec<String>,
    /// Paths that the image wants to be volumes.
    pub volumes: Vec<String>,
    /// Docker's addition to the specification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<ImageHealthcheck>,
}

/// How an image wants to be probed (docker image specification 1.2, "Healthcheck"). Times are nanoseconds, and as the
/// retries 0 where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageHealthcheck {
    /// Empty: as the image it was built from; `["NONE"]`: no probe; `["CMD", …]`: a command; `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    pub interval: u64,
    pub timeout: u64,
    pub start_period: u64,
    pub retries: u64,
}

/// [`ImageConfig`] as it is written: everything may be absent or null, and sets are objects. Our own form (lists) is
/// read too, from the cache.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigDocument {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<Names>,
    volumes: Option<Names>,
    healthcheck: Option<ImageHealthcheck>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    Set(BTreeMap<String, serde::de::IgnoredAny>),
    List(Vec<String>),
}

impl From<Names> for Vec<String> {
    fn from(names: Names) -> Self {
        match names {
            Names::Set(set) => set.into_keys().collect(),
            Names::List(list) => list,
        }
    }
}

impl From<ConfigDocument> for ImageConfig {
    fn from(document: ConfigDocument) -> Self {
        Self {
            env: document.env.unwrap_or_default(),
            entrypoint: document.entrypoint.unwrap_or_default(),
            cmd: document.cmd.unwrap_or_default(),
            working_dir: document.working_dir.unwrap_or_default(),
            user: document.user.unwrap_or_default(),
            stop_signal: document.stop_signal.filter(|signal| !signal.is_empty()),
            labels: document.labels.unwrap_or_default(),
            exposed_ports: document.exposed_ports.map(Vec::from).unwrap_or_default(),
            volumes: document.volumes.map(Vec::from).unwrap_or_default(),
            healthcheck: document.healthcheck.filter(|check| !check.test.is_empty()),
        }
    }
}

/// The configuration blob of an image.
#[derive(Clone, Debug, Deserialize)]
pub struct ImageConfigFile {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub config: Option<ImageConfig>,
    pub rootfs: RootFs,
}

/// The layers of an image by the digests of their uncompressed archives, lowest first.
#[derive(Clone, Debug, Deserialize)]
pub struct RootFs {
    pub diff_ids: Vec<LayerDigest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn for_platform(os: &str, architecture: &str, variant: Option<&str>) -> Descriptor {
        let platform =
            Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.map(str::to_owned) };
        let name = format!("{os}/{architecture}/{variant:?}");
        Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: LayerDigest::of(name.as_bytes()),
            size: 1,
            platform: Some(platform),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_best_variant_that_runs_is_chosen() {
        let host = HostPlatform { architecture: "amd64", variants: &["v2", "v1"] };
        let all = [
            for_platform("unknown", "unknown", None),
            for_platform("linux", "arm64", Some("v8")),
            for_platform("windows", "amd64", None),
            for_platform("linux", "amd64", None),
            for_platform("linux", "amd64", Some("v3")),
            for_platform("linux", "amd64", Some("v2")),
        ];
        assert_eq!(host.choose(&all), Some(&all[5]));
        assert_eq!(host.choose(&all[..5]), Some(&all[3]));
        assert_eq!(host.choose(&all[..3]), None);
    }

    #[test]
    fn a_tag_is_a_name_the_end_of_a_name_or_a_digest() {
        let mut descriptor = for_platform("linux", "amd64", None);
        descriptor.annotations.insert("org.opencontainers.image.ref.name".into(), "example.org/a/web:1.9".into());
        for tag in ["1.9", "example.org/a/web:1.9", &descriptor.digest.to_string()] {
            assert!(descriptor.is_called(tag), "{tag}");
        }
        assert!(!descriptor.is_called("9"));
        assert!(!descriptor.is_called("web"));
    }

    #[test]
    fn a_configuration_may_leave_everything_out_or_null() {
        let config: ImageConfig = serde_json::from_str(r#"{"Cmd":null,"Env":["A=1"],"Volumes":{"/data":{}}}"#).unwrap();
        assert_eq!(config.env, ["A=1"]);
        assert_eq!(config.volumes, ["/data"]);
        assert!(config.cmd.is_empty() && config.stop_signal.is_none());
        let again: ImageConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }
}
