//! Names of images in registries: docker's grammar and its defaults (distribution's `reference` package; OCI
//! distribution specification 1.1, "Pulling manifests"). Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::LayerDigest;

/// The registry that a name without one means.
pub const DOCKER_HUB: &str = "docker.io";
/// Where images without a namespace lie on [`DOCKER_HUB`].
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest repository with its registry, and longest tag.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A whole reference: `registry.example:5000/team/web:1.9@sha256:…`. Its text form has all defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<LayerDigest>,
}

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("`{text}` is no image reference: {why}")]
    Malformed { text: String, why: &'static str },
    #[error("`{text}` is no image reference: its digest is no SHA-256 digest")]
    Digest { text: String },
}

impl Reference {
    /// `registry.example:5000`; [`DOCKER_HUB`] where none is written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// `team/web`; with `library/` before what docker keeps there.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `None` where a digest alone is named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<LayerDigest> {
        self.digest
    }

    /// What a registry is asked for: the digest, where there is one, since it says more than the tag.
    pub fn manifest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        }
    }

    /// The same image where a mirror, `HOST[:PORT][/PREFIX]`, has it; `None` where that makes no reference.
    pub fn at_mirror(&self, mirror: &str) -> Option<Self> {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        let found: Self = format!("{mirror}/{}{tag}{digest}", self.repository).parse().ok()?;
        let host = mirror.split('/').next().unwrap_or(mirror);
        found.registry.eq_ignore_ascii_case(host).then_some(found)
    }

    /// The same name, held to one image.
    pub fn at(&self, digest: LayerDigest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let malformed = |why| ReferenceError::Malformed { text: text.to_owned(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| ReferenceError::Digest { text: text.to_owned() })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before the last slash is that of a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(malformed("a tag has letters, digits, `_`, `.` and `-`, and begins with neither `.` nor `-`"));
        }
        let (registry, path) = split_registry(name);
        if registry.is_some_and(|registry| !is_registry(registry)) {
            return Err(malformed("its registry is no host name"));
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(malformed("repositories are lower case"));
        }
        if !path.split('/').all(is_component) {
            return Err(malformed(
                "a repository has lower-case letters and digits, joined by `.`, `_`, `__`, `-` and `/`",
            ));
        }
        let registry = match registry {
            None | Some("index.docker.io") => DOCKER_HUB,
            Some(registry) => registry,
        };
        let official = registry == DOCKER_HUB && !path.contains('/');
        let repository = if official { format!("{OFFICIAL}{path}") } else { path.to_owned() };
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(malformed("it is longer than 255 characters"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_ascii_lowercase(), repository, tag, digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// The first component is a registry where it cannot be a namespace: it has a dot or a port, is `localhost`, or has
/// capitals.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    let Some((first, rest)) = name.split_once('/') else { return (None, name) };
    let is_host =
        first.contains(['.', ':', '[']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase());
    if is_host { (Some(first), rest) } else { (None, name) }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').unwrap_or("")) };
            return address.parse::<std::net::Ipv6Addr>().is_ok() && port.is_none_or(is_port);
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        let inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && inside && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let separators = bytes.split(alphanumeric).filter(|run| !run.is_empty());
    ends && separators.into_iter().all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|&byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts = text.bytes().next().is_some_and(word);
    starts && text.len() <= MAX_TAG && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(text: &str, expected: &str) {
        let reference: Reference = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(reference.to_string(), expected, "{text}");
        assert_eq!(expected.parse(), Ok(reference), "{expected}");
    }

    #[test]
    fn defaults_are_those_of_docker() {
        check("alpine", "docker.io/library/alpine:latest");
        check("alpine:3", "docker.io/library/alpine:3");
        check("team/web", "docker.io/team/web:latest");
        check("docker.io/alpine", "docker.io/library/alpine:latest");
        check("index.docker.io/team/web:1", "docker.io/team/web:1");
        check("localhost/web", "localhost/web:latest");
        check("localhost:5000/web:1.9", "localhost:5000/web:1.9");
        check("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest");
        check("[::1]:5000/a", "[::1]:5000/a:latest");
        check("registry.example/team/web__x-y.z", "registry.example/team/web__x-y.z:latest");
        check(&format!("alpine@{DIGEST}"), &format!("docker.io/library/alpine@{DIGEST}"));
        check(&format!("a.b/c:1@{DIGEST}"), &format!("a.b/c:1@{DIGEST}"));
    }

    #[test]
    fn a_digest_says_more_than_a_tag() {
        let reference: Reference = format!("a.b/c:1@{DIGEST}").parse().unwrap();
        assert_eq!(reference.manifest(), DIGEST);
        assert_eq!("a.b/c".parse::<Reference>().unwrap().manifest(), "latest");
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        for text in [
            "",
            ":",
            "/",
            "a/",
            "/a",
            "Alpine",
            "a//b",
            "a:b:c",
            "a:-x",
            "a:.x",
            "a@sha256:00",
            "a@",
            "a.b/C",
            "a___b",
            "a..b",
            "-a",
            "a-",
            "host.example:/a",
            "host.example:99999/a",
            "host..example/a",
            "a b",
            "a/../b",
            "x.y/../../etc",
            "a:x/y@z",
            "ho_st.example/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!(format!("a.b/{}", "x".repeat(260)).parse::<Reference>().is_err());
        assert!(format!("a:{}", "x".repeat(129)).parse::<Reference>().is_err());
    }
}
