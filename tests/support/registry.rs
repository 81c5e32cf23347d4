//! Debian's `docker-registry` on a free port of the loopback, and a proxy before it that does what networks do.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A registry that ends with its value.
pub struct Registry {
    child: Child,
    pub address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Registry {
    /// `extra` goes into its configuration.
    pub fn start(extra: &str) -> Self {
        // Between the look and the start another one may take the port: then the start is tried again.
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp:\n  addr: {address}\n{extra}",
                folder.path().join("data").display()
            );
            let file = folder.path().join("config.yml");
            std::fs::write(&file, config).unwrap();
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let child = Command::new("docker-registry")
                .arg("serve")
                .arg(&file)
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("docker-registry, of the Debian package of that name");
            let mut registry = Self { child, address, folder };
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline {
                if TcpStream::connect(address).is_ok() {
                    return registry;
                }
                if registry.child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let log = std::fs::read_to_string(registry.folder.path().join("log")).unwrap_or_default();
            assert!(log.contains("address already in use"), "the registry did not start: {log}");
        }
        panic!("no free port");
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the registry keeps the bytes of a blob.
    pub fn blob(&self, hex: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What happens to one connection.
#[derive(Clone, Debug)]
pub enum Fate {
    Pass,
    /// Cut after so many bytes from the server.
    Cut(usize),
    /// Answered with this, whatever is asked.
    Answer(String),
    /// One bit of the byte at this place of the server's bytes is flipped.
    Flip(usize),
}

/// Passes connections on to a registry, each by the next fate; when there is none left, whole.
pub struct Proxy {
    pub address: SocketAddr,
    pub fates: Arc<Mutex<VecDeque<Fate>>>,
    pub seen: Arc<Mutex<Vec<Fate>>>,
}

impl Proxy {
    pub fn before(server: SocketAddr, fates: impl IntoIterator<Item = Fate>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fates: Arc<Mutex<VecDeque<Fate>>> = Arc::new(Mutex::new(fates.into_iter().collect()));
        let (shared, seen) = (Arc::clone(&fates), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&seen);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (shared, log) = (Arc::clone(&shared), Arc::clone(&log));
                std::thread::spawn(move || {
                    let mut first = [0];
                    // A TLS handshake is no request: it gets no fate, and an end.
                    if client.peek(&mut first).unwrap_or(0) == 0 || first[0] == 0x16 {
                        return;
                    }
                    let fate = shared.lock().unwrap().pop_front().unwrap_or(Fate::Pass);
                    log.lock().unwrap().push(fate.clone());
                    serve(client, server, fate);
                });
            }
        });
        Self { address, fates, seen }
    }
}

fn serve(mut client: TcpStream, server: SocketAddr, fate: Fate) {
    if let Fate::Answer(text) = &fate {
        let mut request = [0; 4096];
        let _ = client.read(&mut request);
        let _ = client.write_all(text.as_bytes());
        let _ = client.shutdown(Shutdown::Both);
        return;
    }
    let Ok(mut server) = TcpStream::connect(server) else { return };
    let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut up_from, &mut up_to);
        let _ = up_to.shutdown(Shutdown::Write);
    });
    let (mut passed, mut buffer) = (0, vec![0; 16 << 10]);
    while let Ok(read) = server.read(&mut buffer) {
        let mut end = read;
        match fate {
            Fate::Cut(at) if passed + read >= at => end = at - passed,
            Fate::Flip(at) if (passed..passed + read).contains(&at) => buffer[at - passed] ^= 4,
            _ => {}
        }
        if end == 0 || client.write_all(&buffer[..end]).is_err() || end < read {
            break;
        }
        passed += read;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// Lets through to a registry who shows a token, and gives tokens to who shows a password.
pub struct TokenGate {
    pub address: SocketAddr,
    /// What tokens were asked for: the queries.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl TokenGate {
    /// `password` is `USER:PASSWORD` in base64.
    pub fn before(server: SocketAddr, password: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || gate(client, (address, server), (password, &log)));
            }
        });
        Self { address, asked }
    }
}

fn gate(mut client: TcpStream, (own, server): (SocketAddr, SocketAddr), (password, log): (&str, &Mutex<Vec<String>>)) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) if head.is_empty() && byte[0] == 0x16 => return,
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let shown = |line: &str| text.lines().any(|found| found.eq_ignore_ascii_case(line));
    let mut answer = |status: &str, more: &str, body: &str| {
        let length = body.len();
        let text = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        let _ = client.write_all(text.as_bytes());
        let _ = client.shutdown(Shutdown::Both);
    };
    let target = text.split(' ').nth(1).unwrap_or("").to_owned();
    if let Some(query) = target.strip_prefix("/token?") {
        log.lock().unwrap().push(query.to_owned());
        let token = if query.contains("push") { "may-push" } else { "may-pull" };
        return match shown(&format!("authorization: Basic {password}")) {
            true => answer("200 OK", "", &format!("{{\"token\":\"{token}\"}}")),
            false => answer("401 Unauthorized", "", ""),
        };
    }
    let reads = text.starts_with("GET") || text.starts_with("HEAD");
    let may = shown("authorization: Bearer may-push") || reads && shown("authorization: Bearer may-pull");
    if !may {
        let more = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"test\"\r\n");
        return answer("401 Unauthorized", &more, "");
    }
    // One request a connection: each is looked at.
    let head = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let Ok(mut server) = TcpStream::connect(server) else { return };
    let _ = server.write_all(head.as_bytes());
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
}
