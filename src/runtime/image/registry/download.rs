//! A blob as one stream of bytes, over as many connections as it takes.

use std::io::{self, Read};

use ureq::BodyReader;
use ureq::http::{Method, header};

use super::client::{Ask, RegistryClient};
use super::{Access, RegistryError, Target};
use crate::runtime::image::{LayerDigest, Reference};

/// A blob of a registry. Reading goes on over a new connection, from the byte where the last one broke; the bytes are
/// not yet held against the digest. Errors carry a [`RegistryError`].
pub(super) struct Download<'a> {
    client: &'a RegistryClient,
    reference: &'a Reference,
    digest: LayerDigest,
    size: u64,
    position: u64,
    body: Option<BodyReader<'static>>,
    /// Tries since the last byte.
    attempts: u32,
}

impl<'a> Download<'a> {
    pub(super) fn new(
        client: &'a RegistryClient,
        reference: &'a Reference,
        (digest, size): (LayerDigest, u64),
    ) -> Self {
        Self { client, reference, digest, size, position: 0, body: None, attempts: 0 }
    }

    fn connect(&mut self) -> Result<BodyReader<'static>, RegistryError> {
        let target = Target { reference: self.reference, access: Access::Pull };
        let mut ask =
            Ask::new(Method::GET, format!("blobs/{}", self.digest)).header(header::ACCEPT_ENCODING, "identity");
        if self.position > 0 {
            ask = ask.header(header::RANGE, format!("bytes={}-", self.position));
        }
        let answer = self.client.send(target, &ask)?;
        let start = match answer.status() {
            200 => 0,
            206 if starts_at(answer.header(header::CONTENT_RANGE)) == Some(self.position) => self.position,
            206 => {
                let source = io::Error::other("it sent another range than the one that was asked for");
                return Err(RegistryError::Answer { url: answer.url, source });
            }
            _ => return Err(answer.into_error(target)),
        };
        let length = answer.response.body().content_length();
        if let Some(found) = length.map(|length| start + length).filter(|&found| found != self.size) {
            return Err(RegistryError::Size { url: answer.url, expected: self.size, found });
        }
        let url = answer.url;
        let mut body = answer.response.into_body().into_reader();
        // A server without ranges sends it all again.
        let again = self.position - start;
        let passed = io::copy(&mut (&mut body).take(again), &mut io::sink());
        match passed {
            Ok(passed) if passed == again => Ok(body),
            Ok(_) => Err(RegistryError::Answer { url, source: io::ErrorKind::UnexpectedEof.into() }),
            Err(source) => Err(RegistryError::Answer { url, source }),
        }
    }

    /// Waits before another try, or says that there were enough.
    fn again(&mut self, error: io::Error) -> io::Result<()> {
        self.body = None;
        if self.attempts >= RegistryClient::TRANSFER_ATTEMPTS {
            return Err(error);
        }
        std::thread::sleep(match self.attempts {
            // One broken connection is no sign of anything.
            0 => std::time::Duration::ZERO,
            n => RegistryClient::wait(n - 1),
        });
        self.attempts += 1;
        Ok(())
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.size - self.position).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        loop {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => match self.connect() {
                    Ok(body) => body,
                    Err(error @ RegistryError::Answer { .. }) => {
                        self.again(io::Error::other(error))?;
                        continue;
                    }
                    // Whatever else can pass was tried again already.
                    Err(error) => return Err(io::Error::other(error)),
                },
            };
            match body.read(&mut buf[..want]) {
                Ok(0) => self.again(io::ErrorKind::UnexpectedEof.into())?,
                Ok(read) => {
                    self.position += read as u64;
                    self.attempts = 0;
                    self.body = Some(body);
                    return Ok(read);
                }
                Err(error) => self.again(error)?,
            }
        }
    }
}

/// The first byte of `bytes 5-9/10`.
fn starts_at(header: Option<&str>) -> Option<u64> {
    header?.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
