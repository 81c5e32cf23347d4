//! Network namespaces for tests: a host of ours, containers on two bridges, and a neighbour on the host's network. All
//! of it hangs on threads and descriptors of the test process and is gone with them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use stack::runtime::net::{
    BridgeSpec, EndpointConfig, Links, NatBind, NatBridge, NatPortMapping, NatProtocol, NatTable, Nft, Sysctls,
    VethSpec, configure_endpoint, generate_veth_mac, in_netns, loopback_up,
};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long silence has to last to count as silence. Everything is on one machine: an answer takes microseconds.
const SILENCE: Duration = Duration::from_millis(250);

pub const TABLE: &str = "stack_shop";
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub const WEB: Ipv4Addr = Ipv4Addr::new(10, 70, 0, 2);
pub const DB: Ipv4Addr = Ipv4Addr::new(10, 70, 0, 3);
pub const OTHER: Ipv4Addr = Ipv4Addr::new(10, 71, 0, 2);

/// A network namespace with a task in it.
pub struct Namespace {
    descriptor: OwnedFd,
    /// The thread that lives in it; netlink takes its number where it takes a process's.
    pub task: u32,
    _parked: mpsc::Sender<()>,
}

impl Namespace {
    pub fn new() -> Self {
        let (ready, made) = mpsc::channel();
        let (parked, wait) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("kernel tests run as root");
            let descriptor = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
            ready.send((OwnedFd::from(descriptor), nix::unistd::gettid().as_raw() as u32)).unwrap();
            let _ = wait.recv();
        });
        let (descriptor, task) = made.recv().unwrap();
        Self { descriptor, task, _parked: parked }
    }

    /// Runs `work` on a thread inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_netns(self.descriptor.try_clone().unwrap(), work).unwrap()
    }

    /// Runs `work` with the links of this namespace, on a tokio runtime of its own.
    pub fn with_links<T: Send>(&self, work: impl AsyncFnOnce(&Links) -> T + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { work(&Links::connect().unwrap()).await })
        })
    }

    /// Runs a program inside and returns what it printed.
    pub fn program(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = self.run(|| Command::new(words[0]).args(&words[1..]).output().unwrap());
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Answers each TCP connection with the address that it came from.
    pub fn serve_tcp(&self, address: Ipv4Addr, port: u16) {
        let listener = self.run(|| TcpListener::bind((address, port)).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = write!(stream, "{}", stream.peer_addr().unwrap());
            }
        });
    }

    /// Answers each datagram with `name` and the address that it came from.
    pub fn serve_udp(&self, port: u16, name: &'static str) {
        let socket = self.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            loop {
                let (_, from) = socket.recv_from(&mut buffer).unwrap();
                socket.send_to(format!("{name} {from}").as_bytes(), from).unwrap();
            }
        });
    }

    /// Connects from inside; the address as the server saw it.
    pub fn ask(&self, address: Ipv4Addr, port: u16) -> std::io::Result<SocketAddr> {
        self.connect(address, port, ANSWER)
    }

    /// Whether nothing answers at that place within a short time.
    pub fn cannot_reach(&self, address: Ipv4Addr, port: u16) -> bool {
        self.connect(address, port, SILENCE).is_err()
    }

    fn connect(&self, address: Ipv4Addr, port: u16, patience: Duration) -> std::io::Result<SocketAddr> {
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&(address, port).into(), patience)?;
            stream.set_read_timeout(Some(ANSWER))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            text.parse().map_err(std::io::Error::other)
        })
    }

    /// A UDP socket inside, connected.
    pub fn udp(&self, address: Ipv4Addr, port: u16) -> UdpSocket {
        let socket = self.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.connect((address, port)).unwrap();
            socket
        });
        socket.set_read_timeout(Some(SILENCE * 4)).unwrap();
        socket
    }
}

/// Sends a datagram and reads the answer.
pub fn exchange(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send(b"x")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// The hosts of a test.
///
/// ```text
/// client 192.0.2.2 ── 192.0.2.1 host ─┬─ front 10.70.0.1/26 ── web 10.70.0.2, db 10.70.0.3
///                                     └─ back  10.71.0.1/26 ── other 10.71.0.2
/// ```
pub struct World {
    pub host: Namespace,
    pub client: Namespace,
    pub web: Namespace,
    pub db: Namespace,
    pub other: Namespace,
}

impl World {
    pub fn new() -> Self {
        let [host, client, web, db, other] = std::array::from_fn(|_| Namespace::new());
        let world = Self { host, client, web, db, other };
        world.host.run(|| loopback_up().unwrap());
        world.host.program(&format!("ip link add uplink type veth peer name eth0 netns {}", world.client.task));
        world.host.program("ip addr add 192.0.2.1/24 dev uplink");
        world.host.program("ip link set uplink up");
        world.client.program("ip addr add 192.0.2.2/24 dev eth0");
        world.client.program("ip link set eth0 up");
        for (bridge, containers) in
            [("front", vec![(&world.web, WEB), (&world.db, DB)]), ("back", vec![(&world.other, OTHER)])]
        {
            world.bridge(bridge, &containers);
        }
        world.host.run(|| Sysctls::default().enable_ip_forward().unwrap());
        world
    }

    fn bridge(&self, name: &str, containers: &[(&Namespace, Ipv4Addr)]) {
        let gateway = gateway(name);
        self.host.with_links(async |links| {
            let spec = BridgeSpec {
                name: name.into(),
                address: ipnet::Ipv4Net::new(gateway, 26).unwrap(),
                address6: None,
                mtu: 1500,
                alias: format!("v1 shop bridge/{name} 00"),
            };
            let bridge_index = links.create_bridge(&spec).await.unwrap();
            for (container, address) in containers {
                let spec = VethSpec {
                    host_name: format!("ve-{name}{}", address.octets()[3]),
                    alias: format!("v1 shop veth/{name}{} 00", address.octets()[3]),
                    bridge_index,
                    mtu: 1500,
                    peer_name: "eth0".into(),
                    peer_mac: generate_veth_mac(*address),
                    netns_pid: container.task,
                };
                links.create_veth_pair(&spec).await.unwrap();
            }
        });
        self.host.run(|| Sysctls::default().enable_bridge_switches(name, None).unwrap());
        for (container, address) in containers {
            container.run(|| configure_endpoint(&[endpoint(*address, gateway)]).unwrap());
        }
    }

    /// Writes the table with these ports.
    pub fn publish(&self, mappings: &[NatPortMapping]) {
        self.host
            .run(|| Nft::open().unwrap().replace_table(TABLE, &nat(mappings).ruleset(), "v1 shop nat 00").unwrap());
    }
}

pub fn gateway(bridge: &str) -> Ipv4Addr {
    if bridge == "front" { Ipv4Addr::new(10, 70, 0, 1) } else { Ipv4Addr::new(10, 71, 0, 1) }
}

pub fn endpoint(address: Ipv4Addr, gateway: Ipv4Addr) -> EndpointConfig {
    EndpointConfig {
        name: "eth0".into(),
        address: ipnet::Ipv4Net::new(address, 26).unwrap(),
        gateway: Some(gateway),
        address6: None,
        gateway6: None,
    }
}

/// The two bridges with these ports.
pub fn nat(mappings: &[NatPortMapping]) -> NatTable {
    let bridges = ["front", "back"].map(|name| NatBridge {
        name: name.into(),
        ifname: name.into(),
        subnet: ipnet::Ipv4Net::new(gateway(name), 26).unwrap().trunc(),
        gateway: gateway(name),
        gateway6: None,
        internal: false,
    });
    NatTable { bridges: bridges.into(), mappings: mappings.to_vec() }
}

pub fn tcp(bind: NatBind, host_port: u16, target: (Ipv4Addr, u16)) -> NatPortMapping {
    NatPortMapping { bind, host_port, protocol: NatProtocol::Tcp, target: (target.0.into(), target.1) }
}

pub fn udp(bind: NatBind, host_port: u16, target: (Ipv4Addr, u16)) -> NatPortMapping {
    NatPortMapping { bind, host_port, protocol: NatProtocol::Udp, target: (target.0.into(), target.1) }
}
