//! Health probes over TCP, driven by the monitor's poll loop: nothing here blocks and there is no thread.
//!
//! The monitor lives in the container's network namespace and connects to its loopback address, so that these probes
//! need no program in the image. Probes that run one are in `exec_probe`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
use rustix::event::PollFlags;

use super::health::ProbeResult;
use super::status::shorten;

/// An answer's first line is looked for in so many bytes.
const MAX_STATUS_LINE: usize = 512;

/// How a probe ended, and what is worth telling of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub result: ProbeResult,
    pub text: String,
}

/// Why a probe could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("cannot connect to port {port}: {source}")]
    Connect { port: u16, source: io::Error },
    #[error("the path `{path}` cannot stand in a request")]
    Path { path: String },
}

/// A connection that is being made, and the request that follows where there is one.
#[derive(Debug)]
pub struct TcpProbe {
    port: u16,
    stream: TcpStream,
    http: Option<HttpExchange>,
}

#[derive(Debug)]
struct HttpExchange {
    /// What of the request is not sent yet.
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Outcome {
    pub fn passed(text: impl Into<String>) -> Self {
        Self { result: ProbeResult::Passed, text: shorten(text.into()) }
    }

    pub fn failed(text: impl Into<String>) -> Self {
        Self { result: ProbeResult::Failed, text: shorten(text.into()) }
    }
}

impl TcpProbe {
    /// Begins a connection to `port`: it passes when it is accepted.
    pub fn connection(port: u16) -> Result<Self, ProbeError> {
        let stream = begin_connection(port).map_err(|source| ProbeError::Connect { port, source })?;
        Ok(Self { port, stream, http: None })
    }

    /// Begins a GET of `path` from `port`: it passes at a status from 200 to 399.
    pub fn http(port: u16, path: &str) -> Result<Self, ProbeError> {
        // Nothing that ends the request's line may come from the path.
        if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(ProbeError::Path { path: path.to_owned() });
        }
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: stack\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        let http = HttpExchange { request: request.into_bytes(), answer: Vec::new() };
        Ok(Self { http: Some(http), ..Self::connection(port)? })
    }

    /// What to wait for before [`Self::advance`] is worth calling.
    pub fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let reads = self.http.as_ref().is_some_and(|http| http.request.is_empty());
        (self.stream.as_fd(), if reads { PollFlags::IN } else { PollFlags::OUT })
    }

    /// Goes as far as it can without waiting. `None`: there is more to wait for.
    pub fn advance(&mut self) -> Option<Outcome> {
        match self.connected() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(source) => {
                return Some(Outcome::failed(ProbeError::Connect { port: self.port, source }.to_string()));
            }
        }
        let Some(http) = &mut self.http else {
            return Some(Outcome::passed(format!("port {} accepts connections", self.port)));
        };
        match http.advance(&mut self.stream) {
            Ok(outcome) => Some(outcome),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(Outcome::failed(format!("port {} did not answer: {error}", self.port))),
        }
    }

    fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        let peer = match self.stream.peer_addr() {
            Ok(peer) => peer,
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(error),
        };
        // On a port that nobody listens on, TCP may give us that very port as our own and connect us with ourselves.
        if self.stream.local_addr()? == peer {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        Ok(true)
    }
}

impl HttpExchange {
    /// `Err` of kind `WouldBlock`: there is more to wait for.
    fn advance(&mut self, stream: &mut TcpStream) -> io::Result<Outcome> {
        while !self.request.is_empty() {
            let sent = stream.write(&self.request)?;
            self.request.drain(..sent);
        }
        let mut ended = false;
        while !ended && !self.answer.contains(&b'\n') && self.answer.len() < MAX_STATUS_LINE {
            let mut bytes = [0; MAX_STATUS_LINE];
            let length = match stream.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                length => length?,
            };
            self.answer.extend_from_slice(&bytes[..length]);
            ended = length == 0;
        }
        Ok(judge(&self.answer))
    }
}

/// Judges the first line of an answer.
fn judge(answer: &[u8]) -> Outcome {
    let line = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line.trim_ascii_end());
    let mut words = line.split(' ');
    let version = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let code = words.next().filter(|code| code.len() == 3).and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(200..=399) if version => Outcome::passed(line),
        Some(_) if version => Outcome::failed(line),
        _ if answer.is_empty() => Outcome::failed("the connection was closed without an answer"),
        _ => Outcome::failed(format!("no HTTP answer: {line}")),
    }
}

fn begin_connection(port: u16) -> io::Result<TcpStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    let address = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    match connect(socket.as_raw_fd(), &address) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    fn finish(mut probe: TcpProbe) -> Outcome {
        loop {
            if let Some(outcome) = probe.advance() {
                return outcome;
            }
            let (fd, flags) = probe.interest();
            let waited = poll(&mut [PollFd::new(&fd, flags)], Some(&Timespec { tv_sec: 10, tv_nsec: 0 }));
            assert_eq!(waited, Ok(1), "no answer in ten seconds");
        }
    }

    /// Probes a server that answers so, byte by byte.
    fn ask(answer: &'static [u8]) -> (Outcome, String) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.set_nodelay(true).unwrap();
            for byte in answer {
                // The prober may have seen enough and be gone.
                let _ = stream.write_all(&[*byte]);
            }
            String::from_utf8(request).unwrap()
        });
        let outcome = finish(TcpProbe::http(port, "/healthz?full=1").unwrap());
        (outcome, server.join().unwrap())
    }

    #[test]
    fn a_status_from_200_to_399_passes() {
        let (outcome, request) = ask(b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n");
        assert_eq!(outcome, Outcome::passed("HTTP/1.1 204 No Content"));
        assert!(request.starts_with("GET /healthz?full=1 HTTP/1.1\r\nHost: localhost:"), "{request}");
        assert_eq!(ask(b"HTTP/1.0 302 Found\n").0.result, ProbeResult::Passed);
        assert_eq!(ask(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").0.result, ProbeResult::Failed);
        assert_eq!(ask(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").0.result, ProbeResult::Failed);
    }

    #[test]
    fn what_is_no_http_fails() {
        assert_eq!(ask(b"SSH-2.0-x\r\n").0, Outcome::failed("no HTTP answer: SSH-2.0-x"));
        assert_eq!(ask(b"").0, Outcome::failed("the connection was closed without an answer"));
        assert_eq!(ask(&[b'x'; 5000]).0.result, ProbeResult::Failed);
        assert_eq!(ask(b"HTTP/1.1 2000 OK\r\n").0.result, ProbeResult::Failed);
    }

    #[test]
    fn a_connection_that_is_accepted_passes_and_a_refused_one_fails() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(finish(TcpProbe::connection(port).unwrap()).result, ProbeResult::Passed);
        drop(listener);
        let refused = match TcpProbe::connection(port) {
            Ok(probe) => finish(probe),
            Err(error) => Outcome::failed(error.to_string()),
        };
        assert_eq!(refused.result, ProbeResult::Failed);
        assert!(refused.text.starts_with(&format!("cannot connect to port {port}: ")), "{}", refused.text);
    }

    #[test]
    fn a_path_cannot_smuggle_in_a_second_request() {
        for path in ["/a b", "/a\r\nX: y", "a", ""] {
            assert!(matches!(TcpProbe::http(1, path), Err(ProbeError::Path { .. })), "{path:?}");
        }
    }
}
