//! Connections to registries: timeouts of which none is for a whole download, certificates, and name resolution that is
//! ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::config::{Config, RedirectAuthHeaders};
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};

use super::resolver::HostResolver;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// From the request to the first byte of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection over which nothing comes for so long is taken for dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const INPUT_BUFFER: usize = 256 << 10;
const MAX_REDIRECTS: u32 = 5;

/// The places where distributions keep the certificates that they trust, first one first.
const BUNDLES: [&str; 4] = [
    "ssl/certs/ca-certificates.crt",
    "pki/tls/certs/ca-bundle.crt",
    "pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "ssl/cert.pem",
];

/// Where what one registry needs is found.
pub(super) struct Trust<'a> {
    pub etc: &'a Path,
    pub extra: &'a [PathBuf],
    /// With its port, as in a reference.
    pub registry: &'a str,
}

/// A pool of connections. `plain`: may it speak http at all, even when it is redirected?
pub(super) enum Plain {
    Allowed,
    Refused,
}

pub(super) fn agent(trust: &Trust<'_>, plain: Plain) -> std::io::Result<ureq::Agent> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates(trust)?))
        .unversioned_rustls_crypto_provider(provider)
        .build();
    let config = Config::builder()
        .tls_config(tls)
        .https_only(matches!(plain, Plain::Refused))
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .proxy(None)
        .user_agent(concat!("stack/", env!("CARGO_PKG_VERSION")))
        .input_buffer_size(INPUT_BUFFER)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .build();
    let connector = DefaultConnector::default().chain(IdleConnector);
    Ok(ureq::Agent::with_parts(config, connector, Names(HostResolver::new(trust.etc))))
}

/// The system's certificates, and those of `docker/certs.d` and `containers/certs.d` for this registry.
fn certificates(trust: &Trust<'_>) -> std::io::Result<Vec<Certificate<'static>>> {
    let mut files: Vec<PathBuf> =
        BUNDLES.iter().map(|name| trust.etc.join(name)).filter(|path| path.is_file()).take(1).collect();
    files.extend(trust.extra.iter().cloned());
    for folder in ["docker/certs.d", "containers/certs.d"] {
        let folder = trust.etc.join(folder).join(trust.registry);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "crt")));
    }
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read(&file)?;
        // One that cannot be read makes none of the others worse.
        found.extend(CertificateDer::pem_slice_iter(&text).flatten().map(|der| Certificate::from_der(&der).to_owned()));
    }
    Ok(found)
}

#[derive(Debug)]
struct Names(HostResolver);

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let found = self.0.resolve(host).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => ureq::Error::HostNotFound,
            _ => ureq::Error::Io(error),
        })?;
        let mut addresses = self.empty();
        // As many as the array takes.
        for address in found.into_iter().take(16) {
            addresses.push((address, port).into());
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// Gives each wait for input an end, which the library only has for a body as a whole.
#[derive(Debug)]
struct IdleConnector;

#[derive(Debug)]
struct IdleTransport<T>(T);

impl<In: Transport> Connector<In> for IdleConnector {
    type Out = IdleTransport<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(IdleTransport))
    }
}

fn bounded(timeout: NextTimeout) -> NextTimeout {
    let idle = IDLE_TIMEOUT.into();
    NextTimeout { after: if timeout.after < idle { timeout.after } else { idle }, ..timeout }
}

impl<T: Transport> Transport for IdleTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, bounded(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(bounded(timeout))
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
