//! Questions that are none of the stack's business, asked of the host's servers: each by a socket of its own, whose port the
//! kernel draws, under a number that is drawn too, so that who does not see the question cannot answer it (RFC 5452).
//! Who asks the same while an answer is awaited waits for the same answer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::cache::Cache;
use super::message::{Code, Query, is_failure};
use super::servers::Servers;

/// Questions under way, all in all, and askers who wait for one answer.
const MAX_PENDING: usize = 256;
const MAX_WAITING: usize = 32;
/// Questions under way for one asker.
const MAX_OF_ONE: usize = 64;
/// How long a server has, and how often anybody is asked.
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ATTEMPTS: usize = 4;
/// Packets that are looked at in one turn for one question.
const MAX_STRAYS: usize = 16;
const DNS_PORT: u16 = 53;
/// The longest answer: its length has 16 bits.
const MAX_ANSWER: usize = 65535;

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// `local` is the address that was asked.
    Udp { local: IpAddr, peer: SocketAddr },
    /// A connection's number.
    Tcp(u64),
}

/// Who waits for an answer to what.
pub struct Waiter {
    pub client: Client,
    pub asker: IpAddr,
    pub query: Query,
}

/// Bytes for a client.
pub type Reply = (Client, Vec<u8>);

pub struct Forwarder {
    pending: BTreeMap<u64, Pending>,
    next: u64,
    servers: Servers,
    cache: Cache,
    random: File,
}

/// One question under way.
struct Pending {
    key: Vec<u8>,
    waiters: Vec<Waiter>,
    over_tcp: bool,
    id: u16,
    link: Link,
    attempts: usize,
    deadline: Instant,
}

enum Link {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, output: Vec<u8>, sent: usize, input: Vec<u8> },
}

impl Forwarder {
    /// Asks the servers that this file names.
    pub fn new(resolv_conf: PathBuf) -> io::Result<Self> {
        Ok(Self {
            pending: BTreeMap::new(),
            next: 0,
            servers: Servers::of(resolv_conf),
            cache: Cache::default(),
            random: File::open("/dev/urandom")?,
        })
    }

    /// Takes a question up. `ours` are addresses that lead back here. What is known already is the answer.
    pub fn ask(&mut self, waiter: Waiter, ours: &[IpAddr], now: Instant) -> Option<Reply> {
        if self.servers.refresh() {
            self.cache.clear();
        }
        let key = waiter.query.key();
        if let Some((answer, age)) = self.cache.get(&key, now) {
            let answer = waiter.query.aged(answer, age);
            return Some(reply_to(&waiter, answer));
        }
        let of_one = self.pending.values().flat_map(|pending| &pending.waiters);
        let too_many = of_one.filter(|other| other.asker == waiter.asker).count() >= MAX_OF_ONE;
        let over_tcp = matches!(waiter.client, Client::Tcp(_));
        let is_full = self.pending.len() >= MAX_PENDING;
        let same = self.pending.values_mut().find(|pending| pending.key == key && pending.over_tcp == over_tcp);
        match same {
            _ if too_many => Some(refused(&waiter)),
            Some(pending) if pending.waiters.len() < MAX_WAITING => {
                pending.waiters.push(waiter);
                None
            }
            Some(_) => Some(refused(&waiter)),
            None if is_full => Some(refused(&waiter)),
            None => match self.attempt(&waiter.query, over_tcp, 0, ours) {
                None => Some(failed(&waiter)),
                Some((link, id, attempts)) => {
                    self.next += 1;
                    let (waiters, deadline) = (vec![waiter], now + TIMEOUT);
                    let pending = Pending { key, waiters, over_tcp, id, link, attempts, deadline };
                    self.pending.insert(self.next, pending);
                    None
                }
            },
        }
    }

    /// Asks the next server that can be asked at all; gives how many attempts were made then.
    fn attempt(
        &mut self,
        query: &Query,
        over_tcp: bool,
        mut attempts: usize,
        ours: &[IpAddr],
    ) -> Option<(Link, u16, usize)> {
        // A host whose servers lead back here would ask in a circle.
        let servers: Vec<IpAddr> =
            self.servers.addresses().iter().copied().filter(|server| !ours.contains(server)).collect();
        while attempts < MAX_ATTEMPTS && !servers.is_empty() {
            let server = SocketAddr::new(servers[attempts % servers.len()], DNS_PORT);
            attempts += 1;
            let mut id = [0; 2];
            self.random.read_exact(&mut id).ok()?;
            let id = u16::from_be_bytes(id);
            let link = if over_tcp { Link::tcp(server, query, id) } else { Link::udp(server, query, id) };
            if let Ok(link) = link {
                return Some((link, id, attempts));
            }
        }
        None
    }

    /// Whether a connection waits for an answer.
    pub fn waits(&self, connection: u64) -> bool {
        let mut waiters = self.pending.values().flat_map(|pending| &pending.waiters);
        waiters.any(|waiter| waiter.client == Client::Tcp(connection))
    }

    /// What is waited for.
    pub fn interest(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>, PollFlags)> {
        self.pending.iter().map(|(number, pending)| match &pending.link {
            Link::Udp(socket) => (*number, socket.as_fd(), PollFlags::IN),
            Link::Tcp { stream, output, sent, .. } if *sent < output.len() => (*number, stream.as_fd(), PollFlags::OUT),
            Link::Tcp { stream, .. } => (*number, stream.as_fd(), PollFlags::IN),
        })
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }

    /// Something came for this question.
    pub fn ready(&mut self, number: u64, ours: &[IpAddr], now: Instant) -> Vec<Reply> {
        let Some(pending) = self.pending.get_mut(&number) else { return Vec::new() };
        match pending.link.receive(&pending.waiters[0].query, pending.id) {
            Ok(None) => Vec::new(),
            // Somebody else may know.
            Ok(Some(answer)) if !is_failure(&answer) => self.finish(number, answer, now),
            Ok(Some(answer)) => {
                let retried = self.try_next(number, ours, now);
                if retried { Vec::new() } else { self.finish(number, answer, now) }
            }
            Err(_) => {
                let retried = self.try_next(number, ours, now);
                if retried { Vec::new() } else { self.give_up(number) }
            }
        }
    }

    /// Goes on to the next server for those whose time is over.
    pub fn expire(&mut self, ours: &[IpAddr], now: Instant) -> Vec<Reply> {
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(number, _)| *number).collect();
        let mut replies = Vec::new();
        for number in late {
            if !self.try_next(number, ours, now) {
                replies.extend(self.give_up(number));
            }
        }
        replies
    }

    fn try_next(&mut self, number: u64, ours: &[IpAddr], now: Instant) -> bool {
        let Some(mut pending) = self.pending.remove(&number) else { return false };
        let next = self.attempt(&pending.waiters[0].query, pending.over_tcp, pending.attempts, ours);
        let retried = next.is_some();
        if let Some((link, id, attempts)) = next {
            (pending.link, pending.id, pending.attempts) = (link, id, attempts);
            pending.deadline = now + TIMEOUT;
        }
        self.pending.insert(number, pending);
        retried
    }

    fn finish(&mut self, number: u64, answer: Vec<u8>, now: Instant) -> Vec<Reply> {
        let Some(pending) = self.pending.remove(&number) else { return Vec::new() };
        if let Some(seconds) = pending.waiters[0].query.lifetime(&answer) {
            self.cache.put(pending.key, answer.clone(), seconds, now);
        }
        pending.waiters.iter().map(|waiter| reply_to(waiter, answer.clone())).collect()
    }

    fn give_up(&mut self, number: u64) -> Vec<Reply> {
        let pending = self.pending.remove(&number);
        pending.iter().flat_map(|pending| &pending.waiters).map(failed).collect()
    }
}

fn reply_to(waiter: &Waiter, answer: Vec<u8>) -> Reply {
    let answer = waiter.query.adopt(answer);
    match waiter.client {
        Client::Udp { .. } => (waiter.client, waiter.query.fit_udp(answer)),
        Client::Tcp(_) => (waiter.client, answer),
    }
}

fn failed(waiter: &Waiter) -> Reply {
    (waiter.client, waiter.query.failed(Code::ServerFailure))
}

fn refused(waiter: &Waiter) -> Reply {
    (waiter.client, waiter.query.failed(Code::Refused))
}

impl Link {
    fn udp(server: SocketAddr, query: &Query, id: u16) -> io::Result<Self> {
        let socket = UdpSocket::bind(any(server))?;
        socket.set_nonblocking(true)?;
        // Connected, so that only the server's own packets arrive.
        socket.connect(server)?;
        socket.send(&query.asked_as(id))?;
        Ok(Link::Udp(socket))
    }

    fn tcp(server: SocketAddr, query: &Query, id: u16) -> io::Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        match connect(&socket, &server) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let question = query.asked_as(id);
        let output = [&(question.len() as u16).to_be_bytes()[..], &question].concat();
        Ok(Link::Tcp { stream: socket.into(), output, sent: 0, input: Vec::new() })
    }

    /// The answer, if it is there. Packets that answer something else are passed over.
    fn receive(&mut self, query: &Query, id: u16) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; MAX_ANSWER];
        match self {
            Link::Udp(socket) => {
                for _ in 0..MAX_STRAYS {
                    match socket.recv(&mut buffer) {
                        Ok(length) if query.is_answered_by(&buffer[..length], id) => {
                            return Ok(Some(buffer[..length].to_vec()));
                        }
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                        Err(error) => return Err(error),
                    }
                }
                Ok(None)
            }
            Link::Tcp { stream, output, sent, input } => {
                if *sent < output.len() {
                    match stream.write(&output[*sent..]) {
                        Ok(length) => *sent += length,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                    return Ok(None);
                }
                match stream.read(&mut buffer) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(length) => input.extend(&buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(error) => return Err(error),
                }
                let Some(length) = input.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length))) else {
                    return Ok(None);
                };
                match input.get(2..2 + length) {
                    None => Ok(None),
                    Some(answer) if query.is_answered_by(answer, id) => Ok(Some(answer.to_vec())),
                    Some(_) => Err(io::ErrorKind::InvalidData.into()),
                }
            }
        }
    }
}

fn any(server: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
