//! Images of registries: pulled and pushed over http and https (OCI distribution specification 1.1).
//!
//! ```text
//! fetch: reference → manifest list → manifest → configuration      documents only, into the store's layout
//! RegistryBlobs: for each missing layer, one thread: download → hash → keep → inflate → hash → unpack
//! ```
//! The client is blocking, because unpacking is: a layer is one thread from the socket to the disk. What may fail for a
//! moment is tried again with growing waits; a broken transfer goes on where it stopped.

mod auth;
mod client;
mod credentials;
mod download;
mod pull;
mod push;
mod resolver;
mod settings;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use client::RegistryClient;
pub use credentials::Credential;
pub use pull::{Progress, RegistryBlobs, Silent, fetch};
pub use push::push;
pub use resolver::HostResolver;
pub use settings::SettingsError;

use super::{ImageError, LayerDigest, Reference};

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Where the host's configuration is, such as `/etc`.
    pub etc: PathBuf,
    /// Registries (`host:port`) that may be spoken to without TLS. Those of the loopback always may.
    pub insecure: BTreeSet<String>,
    /// Files with credentials, the first that knows a registry being the one that counts.
    pub credentials: Vec<PathBuf>,
    /// Certificates (PEM) that are trusted beside the system's.
    pub certificates: Vec<PathBuf>,
    /// The same for one registry (`host:port`) alone.
    pub authorities: BTreeMap<String, Vec<PathBuf>>,
    /// Where images of a registry are looked for before it is asked itself, in this order: `HOST[:PORT][/PREFIX]`.
    pub mirrors: BTreeMap<String, Vec<String>>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            etc: "/etc".into(),
            insecure: BTreeSet::new(),
            credentials: Vec::new(),
            certificates: Vec::new(),
            authorities: BTreeMap::new(),
            mirrors: BTreeMap::new(),
        }
    }
}

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot reach `{url}`")]
    Unreachable {
        url: String,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("the certificates of this host cannot be read")]
    Certificates(#[source] std::io::Error),
    #[error("`{url}` answered {status}{}", said(message))]
    Status { url: String, status: u16, message: String },
    #[error("there is no `{reference}` in its registry")]
    NotFound { reference: String },
    #[error("the registry `{registry}` refuses access to `{repository}`{}", said(message))]
    Denied { registry: String, repository: String, message: String },
    #[error("the registry `{registry}` asks for `{challenge}`, which is not supported")]
    Challenge { registry: String, challenge: String },
    #[error("the token service `{realm}` of `{registry}` is not encrypted, and would see the password")]
    PlainRealm { registry: String, realm: String },
    #[error("`{url}` gave no token")]
    Token { url: String },
    #[error("`{url}` gave an answer that breaks off or is none")]
    Answer {
        url: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{url}` is {found} instead of {expected}")]
    Digest { url: String, expected: LayerDigest, found: LayerDigest },
    #[error("`{url}` has {found} bytes instead of {expected}")]
    Size { url: String, expected: u64, found: u64 },
    #[error("`{url}` has more than {limit} bytes, too many for a document")]
    TooLarge { url: String, limit: u64 },
    #[error("`{reference}` is `{media_type}`, which is not a container image")]
    NotAnImage { reference: String, media_type: String },
    #[error("`{reference}` is for {found}, and this host runs linux/{host}")]
    Platform { reference: String, found: String, host: &'static str },
    #[error("`{reference}` is malformed")]
    Json {
        reference: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{reference}` is not in the store")]
    NotStored { reference: String },
    #[error("blob {digest} of `{reference}` is not in the store")]
    NoBlob { reference: String, digest: LayerDigest },
    #[error("cannot read the credentials in `{}`", path.display())]
    CredentialFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the credential helper `{program}` failed")]
    Helper {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the image store failed")]
    Store(#[source] Box<ImageError>),
}

impl From<ImageError> for RegistryError {
    fn from(error: ImageError) -> Self {
        Self::Store(Box::new(error))
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// A reference and what is to be done with its repository: the scope of a token.
#[derive(Clone, Copy)]
struct Target<'a> {
    reference: &'a Reference,
    access: Access,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Access {
    Pull,
    Push,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}
