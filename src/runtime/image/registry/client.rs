//! Requests to a registry: endpoint, authentication, and trying again.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Method, Request, Response, header};
use ureq::{Body, SendBody};

use super::super::BlobLocation;
use super::super::reference::DOCKER_HUB;
use super::auth::Challenge;
use super::credentials::{self, Credential, encode_base64};
use super::transport::{self, Plain, Trust};
use super::{Access, RegistryError, RegistryOptions, Target};

/// The host that serves what [`DOCKER_HUB`] names.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// Tries of one request, and the wait after the first; each wait is twice the one before.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest wait, also where a registry asks for a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Largest answer of a token service and longest text of an error.
const MAX_TOKEN: u64 = 1 << 20;
const MAX_ERROR: u64 = 64 << 10;

/// A client of registries. Threads share its connections and tokens.
pub struct RegistryClient {
    options: RegistryOptions,
    endpoints: Mutex<HashMap<String, Endpoint>>,
    /// `Authorization` headers by registry, repository and access.
    tokens: Mutex<HashMap<(String, String, Access), String>>,
    /// Mirrors that could not be reached or gave what was not right; they are not asked again.
    left: Mutex<HashSet<String>>,
}

#[derive(Clone)]
struct Endpoint {
    agent: ureq::Agent,
    /// `https://host:port`
    base: String,
}

/// One request.
pub(super) struct Ask<'a> {
    pub method: Method,
    /// Below `/v2/<repository>/`, or a whole URL of the same registry.
    pub path: String,
    pub headers: Vec<(header::HeaderName, String)>,
    pub content: Content<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    Blob(&'a BlobLocation),
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), content: Content::None }
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn content(mut self, content: Content<'a>) -> Self {
        self.content = content;
        self
    }
}

/// What comes back, and where from.
pub(super) struct Answer {
    pub url: String,
    pub response: Response<Body>,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The error that this answer is.
    pub(super) fn into_error(self, target: Target<'_>) -> RegistryError {
        let status = self.status();
        let message = error_text(self.response);
        match status {
            404 => RegistryError::NotFound { reference: target.reference.to_string() },
            401 | 403 => RegistryError::Denied {
                registry: target.reference.registry().to_owned(),
                repository: target.reference.repository().to_owned(),
                message,
            },
            _ => RegistryError::Status { url: self.url, status, message },
        }
    }
}

impl RegistryClient {
    pub fn new(options: RegistryOptions) -> Self {
        Self { options, endpoints: Mutex::default(), tokens: Mutex::default(), left: Mutex::default() }
    }

    /// Sends a request to the mirrors of its registry, as long as none has what is wanted, and then to itself until it is
    /// answered by something else than an error that passes. Every other status is the caller's to judge.
    pub(super) fn send(&self, target: Target<'_>, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        if target.access == Access::Pull {
            for mirror in self.mirrors(target.reference.registry()) {
                let Some(reference) = target.reference.at_mirror(&mirror) else { continue };
                match self.send_once(Target { reference: &reference, ..target }, ask) {
                    Ok(answer) if answer.response.status().is_success() => return Ok(answer),
                    Ok(_) => {}
                    // It may be long until a host that is away is given up: once is enough.
                    Err(_) => self.leave(mirror),
                }
            }
        }
        self.send_to_itself(target, ask)
    }

    /// The mirrors of a registry that are still asked.
    fn mirrors(&self, registry: &str) -> Vec<String> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.options.mirrors.get(registry).into_iter().flatten();
        all.filter(|mirror| !left.contains(*mirror)).cloned().collect()
    }

    fn leave(&self, mirror: String) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(mirror);
    }

    /// Asks none of a registry's mirrors any more; were there any?
    pub(super) fn leave_mirrors(&self, registry: &str) -> bool {
        let mirrors = self.mirrors(registry);
        let any = !mirrors.is_empty();
        mirrors.into_iter().for_each(|mirror| self.leave(mirror));
        any
    }

    fn send_to_itself(&self, target: Target<'_>, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            let result = self.send_once(target, ask);
            let last = attempt == ATTEMPTS;
            match &result {
                Ok(answer) if !last && is_passing(answer.status()) => {
                    let asked = answer.header(header::RETRY_AFTER).and_then(|text| text.trim().parse().ok());
                    std::thread::sleep(asked.map_or(wait, Duration::from_secs).min(LONGEST_WAIT));
                }
                Err(RegistryError::Unreachable { source, .. }) if !last && may_pass(source) => std::thread::sleep(wait),
                _ => return result,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
            attempt += 1;
        }
    }

    /// Sends a request, and once more with what the registry asks for.
    fn send_once(&self, target: Target<'_>, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        let endpoint = self.endpoint(target.reference.registry())?;
        let url = match ask.path.starts_with("http://") || ask.path.starts_with("https://") {
            true => ask.path.clone(),
            false => format!("{}/v2/{}/{}", endpoint.base, target.reference.repository(), ask.path),
        };
        // Tokens are for the registry; an upload may have been sent elsewhere.
        let own = url.starts_with(&format!("{}/", endpoint.base));
        let key = (target.reference.registry().to_owned(), target.reference.repository().to_owned(), target.access);
        let known = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned().filter(|_| own);
        let answer = transfer(&endpoint.agent, (&url, known.as_deref()), ask)?;
        if answer.status() != 401 || !own {
            return Ok(answer);
        }
        let Some(authorization) = self.authorize(target, &endpoint, &answer)? else { return Ok(answer) };
        drop(answer);
        let answer = transfer(&endpoint.agent, (&url, Some(&authorization)), ask)?;
        if answer.status() != 401 {
            self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(key, authorization);
        }
        Ok(answer)
    }

    /// The header that answers a challenge; `None` where there is nothing to show.
    fn authorize(
        &self,
        target: Target<'_>,
        endpoint: &Endpoint,
        answer: &Answer,
    ) -> Result<Option<String>, RegistryError> {
        let registry = target.reference.registry();
        let headers = answer.response.headers().get_all(header::WWW_AUTHENTICATE);
        let texts: Vec<&str> = headers.iter().filter_map(|value| value.to_str().ok()).collect();
        let Some(challenge) = texts.iter().find_map(|text| Challenge::parse(text)) else {
            return match texts.first() {
                Some(other) => {
                    Err(RegistryError::Challenge { registry: registry.to_owned(), challenge: (*other).to_owned() })
                }
                None => Ok(None),
            };
        };
        let credential = credentials::find(&self.options.credentials, registry, target.reference.repository())?;
        match (challenge, credential) {
            (Challenge::Basic, Some(Credential::Basic { user, password })) => {
                Ok(Some(format!("Basic {}", encode_base64(format!("{user}:{password}").as_bytes()))))
            }
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { realm, service, scope }, credential) => {
                if credential.is_some() && !realm.starts_with("https://") && !self.may_be_plain(host_of(&realm)) {
                    return Err(RegistryError::PlainRealm { registry: registry.to_owned(), realm });
                }
                let wanted = format!("repository:{}:{}", target.reference.repository(), target.access.actions());
                let scope = scope.filter(|_| target.access == Access::Pull).unwrap_or(wanted);
                let service = service.unwrap_or_default();
                let asked = TokenWish { realm: &realm, service: &service, scope: &scope };
                asked.token(&endpoint.agent, credential.as_ref()).map(|token| Some(format!("Bearer {token}")))
            }
        }
    }

    fn endpoint(&self, registry: &str) -> Result<Endpoint, RegistryError> {
        // Held while the registry is tried, so that it is tried once.
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints.get(registry) {
            return Ok(endpoint.clone());
        }
        let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
        let plain = self.may_be_plain(registry);
        let own = self.options.authorities.get(registry).into_iter().flatten();
        let extra: Vec<_> = self.options.certificates.iter().chain(own).cloned().collect();
        let trust = Trust { etc: &self.options.etc, extra: &extra, registry };
        let agent = transport::agent(&trust, if plain { Plain::Allowed } else { Plain::Refused })
            .map_err(RegistryError::Certificates)?;
        let mut base = format!("https://{host}");
        if plain {
            let ping = transfer(&agent, (&format!("{base}/v2/"), None), &Ask::new(Method::GET, ""));
            match ping {
                Ok(_) => {}
                // It speaks TLS, and is not who it says.
                Err(RegistryError::Unreachable { source, url }) if is_certificate(&source) => {
                    return Err(RegistryError::Unreachable { source, url });
                }
                Err(_) => base = format!("http://{host}"),
            }
        }
        let endpoint = Endpoint { agent, base };
        endpoints.insert(registry.to_owned(), endpoint.clone());
        Ok(endpoint)
    }

    fn may_be_plain(&self, registry: &str) -> bool {
        let host = host_name(registry);
        let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        loopback || host == "localhost" || self.options.insecure.contains(registry)
    }

    /// An absolute URL for a `Location`.
    pub(super) fn absolute(&self, target: Target<'_>, location: &str) -> Result<String, RegistryError> {
        match location.starts_with('/') {
            true => Ok(format!("{}{location}", self.endpoint(target.reference.registry())?.base)),
            false => Ok(location.to_owned()),
        }
    }
}

/// What a token is asked for with.
struct TokenWish<'a> {
    realm: &'a str,
    service: &'a str,
    scope: &'a str,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl TokenWish<'_> {
    fn token(&self, agent: &ureq::Agent, credential: Option<&Credential>) -> Result<String, RegistryError> {
        let unreachable = |source| RegistryError::Unreachable { url: self.realm.to_owned(), source: Box::new(source) };
        let response = match credential {
            Some(Credential::IdentityToken(refresh)) => agent.post(self.realm).send_form([
                ("grant_type", "refresh_token"),
                ("client_id", "stack"),
                ("service", self.service),
                ("scope", self.scope),
                ("refresh_token", refresh),
            ]),
            other => {
                let mut request = agent.get(self.realm).query("service", self.service).query("scope", self.scope);
                if let Some(Credential::Basic { user, password }) = other {
                    let shown = encode_base64(format!("{user}:{password}").as_bytes());
                    request = request.header(header::AUTHORIZATION, format!("Basic {shown}"));
                }
                request.call()
            }
        };
        let response = response.map_err(unreachable)?;
        let status = response.status().as_u16();
        if status != 200 {
            let message = error_text(response);
            return Err(RegistryError::Status { url: self.realm.to_owned(), status, message });
        }
        let mut text = Vec::new();
        response
            .into_body()
            .into_reader()
            .take(MAX_TOKEN)
            .read_to_end(&mut text)
            .map_err(|source| RegistryError::Answer { url: self.realm.to_owned(), source })?;
        let none = || RegistryError::Token { url: self.realm.to_owned() };
        let answer: TokenAnswer = serde_json::from_slice(&text).map_err(|_| none())?;
        answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(none)
    }
}

fn transfer(agent: &ureq::Agent, (url, auth): (&str, Option<&str>), ask: &Ask<'_>) -> Result<Answer, RegistryError> {
    let failed = |source| RegistryError::Unreachable { url: url.to_owned(), source: Box::new(source) };
    let mut request = Request::builder().method(ask.method.clone()).uri(url);
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    if let Some(auth) = auth {
        request = request.header(header::AUTHORIZATION, auth);
    }
    let wrong = |error: ureq::http::Error| failed(ureq::Error::Http(error));
    let response = match ask.content {
        Content::None if ask.method == Method::POST => agent.run(request.body(&b""[..]).map_err(wrong)?),
        Content::None => agent.run(request.body(()).map_err(wrong)?),
        Content::Bytes(bytes) => agent.run(request.body(bytes).map_err(wrong)?),
        Content::Blob(blob) => {
            let file = File::open(&blob.path).map_err(|error| failed(ureq::Error::Io(error)))?;
            let mut range = Range { file, at: blob.offset, end: blob.offset + blob.size };
            let request = request.header(header::CONTENT_LENGTH, blob.size);
            agent.run(request.body(SendBody::from_reader(&mut range)).map_err(wrong)?)
        }
    };
    Ok(Answer { url: url.to_owned(), response: response.map_err(failed)? })
}

/// A part of a file, read from its beginning.
struct Range {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Range {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let want = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let read = self.file.read_at(&mut buf[..want], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Is it worth asking again? Too many requests, and what the server or one before it could not do right now.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

fn may_pass(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() != std::io::ErrorKind::ConnectionRefused,
        ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

fn is_certificate(error: &ureq::Error) -> bool {
    let text = format!("{error:?}");
    text.contains("InvalidCertificate")
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn host_name(registry: &str) -> &str {
    match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => registry.split(':').next().unwrap_or(registry),
    }
}

/// The messages of an error document (distribution specification, "Error Codes"), or nothing.
fn error_text(response: Response<Body>) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Told>,
    }
    #[derive(Deserialize)]
    struct Told {
        message: Option<String>,
        code: Option<String>,
    }
    let mut text = Vec::new();
    if response.into_body().into_reader().take(MAX_ERROR).read_to_end(&mut text).is_err() {
        return String::new();
    }
    let Ok(told) = serde_json::from_slice::<Errors>(&text) else { return String::new() };
    let words = told.errors.into_iter().filter_map(|told| told.message.or(told.code));
    // From outside: what is not printable must not reach a terminal.
    words.collect::<Vec<_>>().join(", ").chars().filter(|c| !c.is_control()).take(300).collect()
}

impl RegistryClient {
    /// The wait before the `attempt`-th new try of a transfer, counted from 0.
    pub(super) fn wait(attempt: u32) -> Duration {
        FIRST_WAIT.saturating_mul(1 << attempt.min(8)).min(LONGEST_WAIT)
    }

    /// Tries in a row without a byte before a transfer is given up.
    pub(super) const TRANSFER_ATTEMPTS: u32 = ATTEMPTS;
}
