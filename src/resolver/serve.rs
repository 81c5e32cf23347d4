//! The process that answers: one thread that sleeps in poll(2) until something is asked, something changed, or something is
//! due. It reads what attackers send, so it first gives up every privilege but that of listening on a low port.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use super::answer::{Answer, View};
use super::connection::Connection;
use super::forward::{Client, Forwarder, Reply, Waiter};
use super::message::{Code, MAX_QUERY, Query, Wrong};
use super::presence::Presence;
use super::spec::ResolverSpec;
use super::{NOT_STARTED, PORT};
use crate::monitor::CHANNEL_FD;
use crate::monitor::channel::{Message, send_message};
use crate::monitor::spec::BundleError;
use crate::plan::{generations, slot_of};
use crate::runtime::sys::{
    Prctl, capset, drop_from_bounding_set, give_memory_back, last_capability, prctl, take_inherited,
};

/// TCP connections, all in all and of one asker.
const MAX_CONNECTIONS: usize = 64;
const MAX_CONNECTIONS_OF_ONE: usize = 16;
/// Connections that wait to be taken.
const BACKLOG: i32 = 64;
/// Questions that are taken from one socket before the others have their turn.
const AT_ONCE: usize = 64;
/// `CAP_NET_BIND_SERVICE` of capabilities(7).
const NET_BIND_SERVICE: u32 = 10;

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Spec(#[from] BundleError),
    #[error("cannot listen on {address} port {PORT}")]
    Listen { address: IpAddr, source: io::Error },
    #[error("cannot watch `{folder}`", folder = folder.display())]
    Watch { folder: PathBuf, source: io::Error },
    #[error("cannot draw random numbers")]
    Random { source: io::Error },
    #[error("cannot give up privileges")]
    Privileges { source: io::Error },
}

/// Where one gateway address is asked.
struct Listener {
    address: IpAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

struct Server {
    folder: PathBuf,
    spec: ResolverSpec,
    listeners: Vec<Listener>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    forwarder: Forwarder,
    presence: Presence,
    turn: usize,
}

/// What poll(2) found ready.
enum Source {
    Changes,
    Monitor(String),
    Udp(usize),
    Tcp(usize),
    Connection(u64),
    Pending(u64),
}

/// Answers until it is killed, as it is when its keeper, process `keeper`, dies.
pub fn run(folder: &Path, keeper: u32) -> ExitCode {
    let Ok(channel) = take_inherited(CHANNEL_FD) else { return ExitCode::from(64) };
    // SIGKILL.
    if prctl(Prctl::ParentDeathSignal(9)).is_err() || std::os::unix::process::parent_id() != keeper {
        return ExitCode::FAILURE;
    }
    // Who started us may be gone, or never was there.
    match Server::start(folder) {
        Ok(mut server) => {
            let pid = std::process::id().cast_signed();
            let _ = send_message(&channel, &Message::Started { pid });
            drop(channel);
            give_memory_back();
            loop {
                server.turn();
            }
        }
        Err(error) => {
            let mut text = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                text = format!("{text}: {source}");
            }
            let _ = send_message(&channel, &Message::Failed { text });
            ExitCode::from(NOT_STARTED)
        }
    }
}

/// Keeps user 0, whose files the bundles are, without its powers.
fn give_up_privileges() -> rustix::io::Result<()> {
    for capability in (0..=last_capability()).filter(|capability| *capability != NET_BIND_SERVICE) {
        drop_from_bounding_set(capability)?;
    }
    prctl(Prctl::NoNewPrivileges)?;
    capset(1 << NET_BIND_SERVICE, 1 << NET_BIND_SERVICE, 0)
}

impl Listener {
    /// On an address that need not be there yet, and may go and come again with its bridge.
    fn open(address: IpAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let open = |kind| -> io::Result<_> {
            let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            match address {
                IpAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
                IpAddr::V6(_) => {
                    sockopt::set_ipv6_freebind(&socket, true)?;
                    sockopt::set_ipv6_v6only(&socket, true)?;
                }
            }
            bind(&socket, &SocketAddr::new(address, PORT))?;
            Ok(socket)
        };
        let tcp = open(SocketType::STREAM)?;
        listen(&tcp, BACKLOG)?;
        Ok(Listener { address, udp: open(SocketType::DGRAM)?.into(), tcp: tcp.into() })
    }
}

impl Server {
    fn start(folder: &Path) -> Result<Self, ServeError> {
        let spec = ResolverSpec::load(folder)?;
        let stack = folder.parent().unwrap_or(folder);
        let watch = |source: rustix::io::Errno| ServeError::Watch { folder: stack.into(), source: source.into() };
        let presence = Presence::watch(stack, folder).map_err(watch)?;
        let forwarder = Forwarder::new(spec.resolv_conf.clone()).map_err(|source| ServeError::Random { source })?;
        let mut server = Server {
            folder: folder.into(),
            spec,
            listeners: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            forwarder,
            presence,
            turn: 0,
        };
        server.listen()?;
        give_up_privileges().map_err(|source| ServeError::Privileges { source: source.into() })?;
        // What came between the watch and here is read twice.
        server.presence.take_changes();
        server.count_instances();
        Ok(server)
    }

    /// Listens on the gateways of the zone, and on no others.
    fn listen(&mut self) -> Result<(), ServeError> {
        let wanted: Vec<IpAddr> =
            self.spec.zone.bridges.iter().flat_map(|bridge| bridge.gateways()).map(|net| net.addr()).collect();
        self.listeners.retain(|listener| wanted.contains(&listener.address));
        for address in wanted {
            if !self.listeners.iter().any(|listener| listener.address == address) {
                let opened = Listener::open(address).map_err(|source| ServeError::Listen { address, source })?;
                self.listeners.push(opened);
            }
        }
        Ok(())
    }

    fn count_instances(&mut self) {
        // Of two in one place, either may be the one that serves.
        let places = self.spec.zone.instances.iter().map(|instance| slot_of(&instance.instance));
        let names: Vec<String> = places.flat_map(generations).collect();
        self.presence.set_instances(names.iter().map(String::as_str));
    }

    /// Waits once, and does what is to do then.
    fn turn(&mut self) {
        for (source, flags) in self.wait() {
            match source {
                Source::Changes => self.take_changes(),
                Source::Monitor(instance) => self.presence.gone(&instance),
                Source::Udp(index) => self.take_datagrams(index),
                Source::Tcp(index) => self.take_connections(index),
                Source::Connection(number) => self.serve_connection(number, flags),
                Source::Pending(number) => {
                    let replies = self.forwarder.ready(number, &self.gateways(), Instant::now());
                    self.send(replies);
                }
            }
        }
        let now = Instant::now();
        let replies = self.forwarder.expire(&self.gateways(), now);
        self.send(replies);
        self.connections.retain(|_, connection| connection.deadline > now);
    }

    fn gateways(&self) -> Vec<IpAddr> {
        self.listeners.iter().map(|listener| listener.address).collect()
    }

    fn wait(&self) -> Vec<(Source, PollFlags)> {
        let mut sources = vec![Source::Changes];
        let mut fds = vec![PollFd::from_borrowed_fd(self.presence.changes(), PollFlags::IN)];
        for (instance, monitor) in self.presence.monitors() {
            sources.push(Source::Monitor(instance.into()));
            fds.push(PollFd::from_borrowed_fd(monitor, PollFlags::IN));
        }
        for (index, listener) in self.listeners.iter().enumerate() {
            sources.extend([Source::Udp(index), Source::Tcp(index)]);
            for fd in [listener.udp.as_fd(), listener.tcp.as_fd()] {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
        }
        for (number, connection) in &self.connections {
            let (fd, flags) = connection.interest();
            sources.push(Source::Connection(*number));
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        for (number, fd, flags) in self.forwarder.interest() {
            sources.push(Source::Pending(number));
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let connections = self.connections.values().map(|connection| connection.deadline);
        let deadline = connections.chain(self.forwarder.deadline()).min();
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        sources.into_iter().zip(ready).filter(|(_, flags)| !flags.is_empty()).collect()
    }

    fn take_changes(&mut self) {
        if !self.presence.take_changes() {
            return;
        }
        // One that cannot be read is not taken; its writer will see.
        let Ok(spec) = ResolverSpec::load(&self.folder) else { return };
        self.spec = spec;
        self.count_instances();
        // Where that cannot be listened on, the keeper starts another process, and says so by starting it again and again.
        if self.listen().is_err() {
            std::process::exit(NOT_STARTED.into());
        }
    }

    fn take_datagrams(&mut self, index: usize) {
        let mut buffer = [0; MAX_QUERY + 1];
        for _ in 0..AT_ONCE {
            let Some(listener) = self.listeners.get(index) else { return };
            // An error is about one packet, or there is none.
            let Ok((length, peer)) = listener.udp.recv_from(&mut buffer) else { return };
            let client = Client::Udp { local: listener.address, peer };
            let reply = self.answer(client, peer.ip(), &buffer[..length]);
            self.send(reply.into_iter().collect());
        }
    }

    fn take_connections(&mut self, index: usize) {
        for _ in 0..AT_ONCE {
            let Some(listener) = self.listeners.get(index) else { return };
            let Ok((stream, peer)) = listener.tcp.accept() else { return };
            let asker = peer.ip();
            let of_one = self.connections.values().filter(|connection| connection.asker == asker).count();
            let is_known = View::of(&self.spec.zone, asker, &|_| false).is_some();
            let is_full = self.connections.len() >= MAX_CONNECTIONS || of_one >= MAX_CONNECTIONS_OF_ONE;
            if is_known && !is_full && stream.set_nonblocking(true).is_ok() {
                self.next_connection += 1;
                let connection = Connection::new(stream, asker, Instant::now());
                self.connections.insert(self.next_connection, connection);
            }
        }
    }

    fn serve_connection(&mut self, number: u64, flags: PollFlags) {
        let now = Instant::now();
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let asker = connection.asker;
        let broken = flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL);
        match connection.turn(now) {
            Ok(Some(question)) => match self.answer(Client::Tcp(number), asker, &question) {
                Some(reply) => self.send(vec![reply]),
                // It waits for others, or for nothing.
                None if self.forwarder.waits(number) => {}
                None => drop(self.connections.remove(&number)),
            },
            Ok(None) if !broken => {}
            _ => drop(self.connections.remove(&number)),
        }
    }

    /// The answer, where it is known now. Who is on none of the stack's bridges gets none, not even a refusal.
    fn answer(&mut self, client: Client, asker: IpAddr, bytes: &[u8]) -> Option<Reply> {
        let serves = |instance: &str| self.presence.serves(instance);
        let view = View::of(&self.spec.zone, asker, &serves)?;
        let query = match Query::read(bytes) {
            Ok(query) => query,
            Err(Wrong::Ignored) => return None,
            Err(Wrong::Refused(reply)) => return Some((client, reply)),
        };
        let over_udp = |answer| match client {
            Client::Udp { .. } => query.fit_udp(answer),
            Client::Tcp(_) => answer,
        };
        self.turn = self.turn.wrapping_add(1);
        match view.answer(&query.words(), query.kind, self.turn) {
            Answer::Elsewhere if !view.leads_out() => Some((client, query.failed(Code::NoName))),
            Answer::Elsewhere => {
                let gateways = self.gateways();
                self.forwarder.ask(Waiter { client, asker, query }, &gateways, Instant::now())
            }
            answer => Some((client, over_udp(query.answered(&answer, self.spec.zone.stack.as_str())))),
        }
    }

    fn send(&mut self, replies: Vec<Reply>) {
        let now = Instant::now();
        for (client, answer) in replies {
            match client {
                // One that cannot be sent now is lost, as datagrams are.
                Client::Udp { local, peer } => {
                    let listener = self.listeners.iter().find(|listener| listener.address == local);
                    let _ = listener.map(|listener| listener.udp.send_to(&answer, peer));
                }
                Client::Tcp(number) => {
                    let Some(connection) = self.connections.get_mut(&number) else { continue };
                    if connection.answer(Some(&answer), now).is_err() {
                        self.connections.remove(&number);
                    }
                }
            }
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    // A millisecond more, so that what is due is due when it returns.
    let time = time + Duration::from_millis(1);
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}
