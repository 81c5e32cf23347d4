//! Addresses of host names, asked from `/etc/hosts` and the name servers of `/etc/resolv.conf`: hosts(5), resolv.conf(5),
//! RFC 1035. The C library is not asked, because in a static program it would load modules of the host's own library.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};

/// As resolv.conf(5) has them: `timeout`, `attempts`, and how many servers count.
const TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;
/// Largest answer over UDP that is not asked for, and largest over TCP.
const MAX_UDP: usize = 4096;
/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;
const DNS_PORT: u16 = 53;

/// Resolves names as `etc` tells.
#[derive(Clone, Debug)]
pub struct HostResolver {
    etc: PathBuf,
    /// The name servers' port; another one in tests.
    port: u16,
}

/// What `/etc/resolv.conf` says.
#[derive(Debug, PartialEq, Eq)]
struct Servers {
    addresses: Vec<IpAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl HostResolver {
    /// With the files of `etc`, such as `/etc`.
    pub fn new(etc: impl Into<PathBuf>) -> Self {
        Self { etc: etc.into(), port: DNS_PORT }
    }

    /// The addresses of `host`, IPv4 first. Errors: kind `NotFound` where there is no such name, others where nobody
    /// could be asked.
    pub fn resolve(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let known = in_hosts(&read(&self.etc.join("hosts")), &host);
        if !known.is_empty() {
            return Ok(known);
        }
        // RFC 6761, 6.3: never asked from others.
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let servers = Servers::parse(&read(&self.etc.join("resolv.conf")));
        let mut failure = std::io::Error::from(std::io::ErrorKind::NotFound);
        for name in servers.candidates(&host) {
            match self.ask_all(&servers, &name) {
                Ok(found) if !found.is_empty() => return Ok(found),
                Ok(_) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn ask_all(&self, servers: &Servers, name: &str) -> std::io::Result<Vec<IpAddr>> {
        let mut found = self.ask(servers, name, TYPE::A)?;
        // A name server that cannot tell the one kind does not take the other away.
        match self.ask(servers, name, TYPE::AAAA) {
            Ok(more) => found.extend(more),
            Err(error) if found.is_empty() => return Err(error),
            Err(_) => {}
        }
        Ok(found)
    }

    fn ask(&self, servers: &Servers, name: &str, kind: TYPE) -> std::io::Result<Vec<IpAddr>> {
        let mut failure = std::io::Error::from(std::io::ErrorKind::TimedOut);
        for _ in 0..ATTEMPTS {
            for &server in &servers.addresses {
                match exchange(SocketAddr::new(server, self.port), name, kind) {
                    Ok(found) => return Ok(found),
                    Err(error) => failure = error,
                }
            }
        }
        Err(failure)
    }
}

impl Servers {
    fn parse(text: &str) -> Self {
        let mut servers = Self { addresses: Vec::new(), search: Vec::new(), ndots: 1 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if servers.addresses.len() < MAX_SERVERS => {
                    // A scope after an IPv6 address cannot be kept in an address alone.
                    servers.addresses.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("domain" | "search") => servers.search = words.take(MAX_SEARCH).map(str::to_owned).collect(),
                Some("options") => {
                    for ndots in words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()) {
                        servers.ndots = ndots;
                    }
                }
                _ => {}
            }
        }
        if servers.addresses.is_empty() {
            servers.addresses.push(Ipv4Addr::LOCALHOST.into());
        }
        servers
    }

    /// The names to be asked for, in order.
    fn candidates(&self, host: &str) -> Vec<String> {
        let searched = self.search.iter().map(|domain| format!("{host}.{}", domain.trim_end_matches('.')));
        let dots = host.bytes().filter(|&byte| byte == b'.').count();
        match dots >= self.ndots {
            true => std::iter::once(host.to_owned()).chain(searched).collect(),
            false => searched.chain([host.to_owned()]).collect(),
        }
    }
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// A file that is not there says nothing.
fn read(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(MAX_FILE).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// One question to one server: over UDP, and over TCP where the answer was cut.
fn exchange(server: SocketAddr, name: &str, kind: TYPE) -> std::io::Result<Vec<IpAddr>> {
    let (id, question) = question(name, kind)?;
    let unspecified: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(unspecified)?;
    // Connected, so that only the server's own packets arrive.
    socket.connect(server)?;
    socket.send(&question)?;
    let deadline = Instant::now() + TIMEOUT;
    let mut buffer = [0; MAX_UDP];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        match answer(&buffer[..length], id, kind) {
            Some(Answer::Addresses(found)) => return Ok(found),
            Some(Answer::Cut) => return over_tcp(server, &question, (id, kind)),
            Some(Answer::Failed) => return Err(std::io::Error::other("the name server failed")),
            // Somebody else's packet, or garbage: the answer may still come.
            None => {}
        }
    }
}

fn over_tcp(server: SocketAddr, question: &[u8], (id, kind): (u16, TYPE)) -> std::io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&[&(question.len() as u16).to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    match answer(&bytes, id, kind) {
        Some(Answer::Addresses(found)) => Ok(found),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

fn question(name: &str, kind: TYPE) -> std::io::Result<(u16, Vec<u8>)> {
    static COUNTER: AtomicU16 = AtomicU16::new(0);
    let invalid = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
    let mut id = [0; 2];
    if std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut id)).is_err() {
        id = COUNTER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    }
    let id = u16::from_be_bytes(id);
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(invalid)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false));
    Ok((id, packet.build_bytes_vec().map_err(invalid)?))
}

enum Answer {
    Addresses(Vec<IpAddr>),
    Cut,
    Failed,
}

/// `None` where the bytes are no answer to the question. Aliases are not followed by hand: a recursive server sends the
/// addresses along.
fn answer(bytes: &[u8], id: u16, kind: TYPE) -> Option<Answer> {
    let packet = Packet::parse(bytes).ok()?;
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Answer::Cut);
    }
    if !matches!(packet.rcode(), RCODE::NoError | RCODE::NameError) {
        return Some(Answer::Failed);
    }
    let addresses = packet.answers.iter().filter_map(|record| match (&record.rdata, kind) {
        (RData::A(a), TYPE::A) => Some(IpAddr::from(Ipv4Addr::from(a.address))),
        (RData::AAAA(a), TYPE::AAAA) => Some(IpAddr::from(Ipv6Addr::from(a.address))),
        _ => None,
    });
    Some(Answer::Addresses(addresses.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::A;

    #[test]
    fn literals_hosts_and_localhost_need_no_server() {
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("hosts"), "# none\n::7 Reg.Example other\n10.0.0.7 reg.example # x\n").unwrap();
        std::fs::write(etc.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        let resolver = HostResolver { etc: etc.path().into(), port: 1 };
        let check = |host: &str, expected: &[&str]| {
            let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(resolver.resolve(host).unwrap(), expected, "{host}");
        };
        check("127.0.0.1", &["127.0.0.1"]);
        check("[::1]", &["::1"]);
        check("localhost", &["127.0.0.1", "::1"]);
        check("REG.example.", &["10.0.0.7", "::7"]);
        assert!(resolver.resolve("nowhere.example").is_err());
    }

    #[test]
    fn names_are_searched_by_their_dots() {
        let servers = Servers::parse("search a.example b.example\noptions ndots:2\nnameserver ::1\nnameserver x\n");
        assert_eq!(servers.addresses, ["::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(servers.candidates("x.y"), ["x.y.a.example", "x.y.b.example", "x.y"]);
        assert_eq!(servers.candidates("x.y.z")[0], "x.y.z");
    }

    #[test]
    fn a_name_server_is_asked_and_answers_of_others_are_passed_over() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            for _ in 0..2 {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                let mut reply = Packet::parse(&buffer[..length]).unwrap().into_reply();
                let id = reply.id();
                if reply.questions[0].qtype == QTYPE::TYPE(TYPE::A) {
                    let name = reply.questions[0].qname.clone();
                    let address = u32::from(Ipv4Addr::new(192, 0, 2, 7));
                    reply.answers.push(ResourceRecord::new(name, CLASS::IN, 10, RData::A(A { address })));
                }
                server.send_to(b"garbage", from).unwrap();
                reply.set_id(id.wrapping_add(1));
                server.send_to(&reply.build_bytes_vec().unwrap(), from).unwrap();
                reply.set_id(id);
                server.send_to(&reply.build_bytes_vec().unwrap(), from).unwrap();
            }
        });
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        let resolver = HostResolver { etc: etc.path().into(), port };
        assert_eq!(resolver.resolve("reg.example").unwrap(), [IpAddr::from(Ipv4Addr::new(192, 0, 2, 7))]);
        thread.join().unwrap();
    }
}
