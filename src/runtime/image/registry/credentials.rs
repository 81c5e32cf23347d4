//! Who we are to a registry: `auths` of docker's `config.json` and of `containers/auth.json`, and credential helpers
//! (docker-credential-helpers, `docker-credential-NAME get`; containers-auth.json(5)).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::RegistryError;

/// The name under which docker keeps what is for its own registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Largest file, and largest answer of a helper.
const MAX_DOCUMENT: u64 = 1 << 20;
/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What a registry is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Basic {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token, for which the registry's token service gives access tokens.
    IdentityToken(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
            Self::IdentityToken(_) => write!(f, "IdentityToken"),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(alias = "identitytoken")]
    identity_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What the first of `files` that knows `registry` says; `repository` is taken into account where an entry names one.
pub(super) fn find(files: &[PathBuf], registry: &str, repository: &str) -> Result<Option<Credential>, RegistryError> {
    for path in files {
        let Some(document) = read(path)? else { continue };
        if let Some(helper) = document.cred_helpers.get(registry)
            && let Some(found) = ask_helper(helper, registry)?
        {
            return Ok(Some(found));
        }
        if let Some(entry) = entry(&document.auths, registry, repository)
            && let Some(found) = credential(entry).map_err(|why| malformed(path, why))?
        {
            return Ok(Some(found));
        }
        let key = if registry == super::super::reference::DOCKER_HUB { DOCKER_HUB_KEY } else { registry };
        if let Some(helper) = &document.creds_store
            && let Some(found) = ask_helper(helper, key)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn malformed(path: &Path, why: &'static str) -> RegistryError {
    RegistryError::CredentialFile { path: path.to_owned(), source: std::io::Error::other(why) }
}

fn read(path: &Path) -> Result<Option<Document>, RegistryError> {
    let failed = |source| RegistryError::CredentialFile { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut text = Vec::new();
    file.take(MAX_DOCUMENT).read_to_end(&mut text).map_err(failed)?;
    serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.into()))
}

/// The entry with the longest name that is the registry, or a path in it that leads to the repository.
fn entry<'a>(auths: &'a BTreeMap<String, Entry>, registry: &str, repository: &str) -> Option<&'a Entry> {
    let whole = format!("{registry}/{repository}");
    let rank = |key: &str| {
        if registry == super::super::reference::DOCKER_HUB && key == DOCKER_HUB_KEY {
            return Some(0);
        }
        let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let host = host.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
        let below = whole.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below.then_some(host.len())
    };
    auths
        .iter()
        .filter_map(|(key, entry)| Some((rank(key)?, entry)))
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, entry)| entry)
}

fn credential(entry: &Entry) -> Result<Option<Credential>, &'static str> {
    if let Some(token) = entry.identity_token.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(Credential::IdentityToken(token.clone())));
    }
    if let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) {
        let bytes = decode_base64(auth).ok_or("an `auth` is no base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "an `auth` is no text")?;
        let (user, password) = text.split_once(':').ok_or("an `auth` has no colon")?;
        return Ok(Some(Credential::Basic { user: user.into(), password: password.trim_end_matches('\0').into() }));
    }
    Ok(match (&entry.username, &entry.password) {
        (Some(user), Some(password)) => Some(Credential::Basic { user: user.clone(), password: password.clone() }),
        _ => None,
    })
}

/// Asks a helper; `None` where it knows nothing.
fn ask_helper(name: &str, registry: &str) -> Result<Option<Credential>, RegistryError> {
    let program = format!("docker-credential-{name}");
    let failed = |source| RegistryError::Helper { program: program.clone(), source };
    if name.contains('/') {
        return Err(failed(std::io::ErrorKind::InvalidInput.into()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read is judged by its answer.
        let _ = input.write_all(registry.as_bytes());
    }
    let mut text = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(MAX_DOCUMENT).read_to_end(&mut text).map_err(failed)?;
    }
    if !child.wait().map_err(failed)?.success() {
        return Ok(None);
    }
    let answer: Answer = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credential::IdentityToken(answer.secret),
        _ => Credential::Basic { user: answer.username, password: answer.secret },
    }))
}

/// Base64 with or without padding (RFC 4648, 4).
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for byte in text.trim().trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// Base64 with padding.
pub(super) fn encode_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_both_ways() {
        for (plain, coded) in
            [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("user:p\u{e4}ss", "dXNlcjpww6Rzcw==")]
        {
            assert_eq!(encode_base64(plain.as_bytes()), coded);
            assert_eq!(decode_base64(coded).unwrap(), plain.as_bytes());
        }
        assert_eq!(decode_base64("a b"), None);
    }

    #[test]
    fn the_longest_name_that_fits_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        let text = serde_json::json!({"auths": {
            "a.example": {"auth": encode_base64(b"plain:1")},
            "a.example/team": {"auth": encode_base64(b"team:2")},
            "https://b.example/v1/": {"username": "b", "password": "3"},
            "https://index.docker.io/v1/": {"identitytoken": "t"},
            "c.example": {},
        }});
        std::fs::write(&path, text.to_string()).unwrap();
        let find = |registry: &str, repository: &str| {
            super::find(&[folder.path().join("absent"), path.clone()], registry, repository).unwrap()
        };
        let basic =
            |user: &str, password: &str| Some(Credential::Basic { user: user.into(), password: password.into() });
        assert_eq!(find("a.example", "x/y"), basic("plain", "1"));
        assert_eq!(find("a.example", "team/y"), basic("team", "2"));
        assert_eq!(find("a.example", "teams/y"), basic("plain", "1"));
        assert_eq!(find("b.example", "x"), basic("b", "3"));
        assert_eq!(find("docker.io", "library/x"), Some(Credential::IdentityToken("t".into())));
        assert_eq!(find("c.example", "x"), None);
        assert_eq!(find("d.example", "x"), None);
    }
}
