//! References to images of registries, as a stack file may write them: docker's grammar, with its defaults filled in.

use std::fmt;

/// Longest repository with its registry, and longest tag.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A reference in its whole form: `docker.io/library/alpine:3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference(String);

impl ImageReference {
    /// Reads what docker would take. Errors: what is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err("a digest is `sha256:` and 64 hexadecimal digits");
        }
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before the last slash is that of a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("a tag has letters, digits, `_`, `.` and `-`, and begins with neither `.` nor `-`");
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first.to_ascii_lowercase(), rest),
            _ => ("docker.io".to_owned(), name),
        };
        let registry = if registry == "index.docker.io" { "docker.io".to_owned() } else { registry };
        if !is_registry(&registry) {
            return Err("its registry is no host name");
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err("repositories are lower case");
        }
        if !path.split('/').all(is_component) {
            return Err("a repository has lower-case letters and digits, joined by `.`, `_`, `__`, `-` and `/`");
        }
        let official = registry == "docker.io" && !path.contains('/');
        let name = if official { format!("{registry}/library/{path}") } else { format!("{registry}/{path}") };
        if name.len() > MAX_NAME {
            return Err("it is longer than 255 characters");
        }
        let tag = match (tag, digest) {
            (None, None) => ":latest".to_owned(),
            (Some(tag), _) => format!(":{tag}"),
            (None, Some(_)) => String::new(),
        };
        let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        Ok(Self(format!("{name}{tag}{digest}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first component is a registry where it cannot be a namespace.
fn is_host(first: &str) -> bool {
    first.contains(['.', ':', '[']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_registry(text: &str) -> bool {
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        return address.parse::<std::net::Ipv6Addr>().is_ok() && port;
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        let inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && inside && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let mut joints = bytes.split(alphanumeric).filter(|run| !run.is_empty());
    ends && joints.all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|&byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts = text.bytes().next().is_some_and(word);
    starts && text.len() <= MAX_TAG && text.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or("");
    digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
