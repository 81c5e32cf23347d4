//! A bridge with NAT, a container's namespace behind it, and a port of loopback that leads inside, all in a fresh
//! network namespace. Run as root: `cargo run --example veth`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use nix::sched::{CloneFlags, unshare};
use stack::runtime::net::{
    BridgeSpec, EndpointConfig, Links, NatBind, NatBridge, NatPortMapping, NatProtocol, NatTable, Nft, Sysctls,
    VethSpec, configure_endpoint, generate_veth_mac, loopback_up,
};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 70, 0, 2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    loopback_up()?;
    // A thread in a namespace of its own stands for the container: it answers on port 80 when its link is there.
    let (thread, number) = std::sync::mpsc::channel();
    let (go, gate) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        thread.send(nix::unistd::gettid().as_raw() as u32)?;
        let gateway = gate.recv()?;
        let address = ipnet::Ipv4Net::new(WEB, 26)?;
        configure_endpoint(&[EndpointConfig {
            name: "eth0".into(),
            address,
            gateway: Some(gateway),
            address6: None,
            gateway6: None,
        }])?;
        let listener = TcpListener::bind((WEB, 80))?;
        thread.send(0)?;
        Ok(write!(listener.accept()?.0, "hello from {WEB}")?)
    });
    let bridge = BridgeSpec {
        name: "front".into(),
        address: "10.70.0.1/26".parse()?,
        address6: None,
        mtu: 1500,
        alias: "demo".into(),
    };
    let netns_pid = number.recv()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let links = Links::connect()?;
        let mut veth = VethSpec {
            host_name: "ve-web".into(),
            alias: "demo".into(),
            bridge_index: 0,
            mtu: 1500,
            peer_name: "eth0".into(),
            peer_mac: generate_veth_mac(WEB),
            netns_pid,
        };
        veth.bridge_index = links.create_bridge(&bridge).await?;
        links.create_veth_pair(&veth).await
    })?;
    Sysctls::default().enable_ip_forward()?;
    Sysctls::default().enable_bridge_switches("front", None)?;
    let port = NatPortMapping {
        bind: NatBind::Loopback,
        host_port: 8080,
        protocol: NatProtocol::Tcp,
        target: (WEB.into(), 80),
    };
    let nat = NatTable { bridges: vec![NatBridge::of("front", &bridge)], mappings: vec![port], services: vec![] };
    Nft::open()?.replace_table("demo", &nat.ruleset(), "demo")?;
    go.send(bridge.address.addr())?;
    number.recv()?;
    let mut text = String::new();
    TcpStream::connect("127.0.0.1:8080")?.read_to_string(&mut text)?;
    println!("127.0.0.1:8080 answers: {text}");
    Ok(())
}
