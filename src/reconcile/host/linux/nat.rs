//! The stack's nftables table: what it should hold and what it holds, as parts by name.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::LinuxHost;
use super::orders::Orders;
use crate::model::{PortBind, Protocol};
use crate::plan::{DesiredNat, Kind, Label, digest_of};
use crate::reconcile::actual::ActualNat;
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::net::{
    NatBind, NatBridge, NatPortMapping, NatProtocol, NatService, NatTable, Nft, NftError, Ruleset, SERVICES, SERVICES6,
    SHUT_TABLE, SHUT_TABLE6, SPREAD, Set, TURNS, TableState, shut, shut6,
};

impl LinuxHost {
    /// The run's one socket.
    pub(super) fn nft(&self) -> Result<&Nft, NftError> {
        if let Some(nft) = self.nft.get() {
            return Ok(nft);
        }
        let opened = Nft::open()?;
        Ok(self.nft.get_or_init(|| opened))
    }

    pub(super) fn table_name(&self) -> String {
        format!("stack_{}", self.stack)
    }

    /// Replaces the table as a whole. A name alone is no sign of ours, so a stranger's table of that name is replaced too:
    /// the plan has said so.
    pub(super) fn write_nat(&self, nat: &DesiredNat) -> Result<(), HostError> {
        let doing = || "write the stack's nftables table";
        let nft = self.nft().doing(doing)?;
        let before = nft.observe(&self.table_name()).doing(doing)?;
        let ruleset = table(nat).ruleset();
        let label = Label {
            stack: self.stack.clone(),
            kind: Kind::Nat,
            name: "table".into(),
            digest: digest_of(&parts(&ruleset)),
        };
        let orders = Orders::of(&self.stack_folder());
        let _turn = orders.lock().doing(doing)?;
        orders.save(nat).doing(doing)?;
        let now = table(&orders.served(nat)).ruleset();
        nft.replace_table(&self.table_name(), &now, &label.to_string()).doing(doing)?;
        let before = before.map(|table| parts(&table.ruleset)).unwrap_or_default();
        nft.forget_udp_flows(&moved_udp_ports(&before, &parts(&ruleset)))
            .doing(|| "forget the flows of UDP ports that moved")?;
        Ok(())
    }

    /// Switches on forwarding of IPv4, after what it would open between the links of others was shut.
    pub(super) fn enable_forwarding(&self, others: &[String]) -> Result<(), HostError> {
        self.keep_shut(SHUT_TABLE, &shut(others), others)?;
        self.sysctls.enable_ip_forward().doing(|| "switch on net.ipv4.ip_forward")
    }

    /// The same for IPv6. `advised` go on heeding router advertisements.
    pub(super) fn enable_forwarding6(&self, others: &[String], advised: &[String]) -> Result<(), HostError> {
        self.keep_shut(SHUT_TABLE6, &shut6(others), others)?;
        self.sysctls.enable_ipv6_forward(advised).doing(|| "switch on net.ipv6.conf.all.forwarding")
    }

    fn keep_shut(&self, table: &str, ruleset: &Ruleset, links: &[String]) -> Result<(), HostError> {
        let doing = || "keep forwarding between the host's other links off";
        match links.is_empty() {
            true => Ok(()),
            false => self.nft().doing(doing)?.replace_table(table, ruleset, "stack").doing(doing),
        }
    }

    pub(super) fn remove_nat(&self) -> Result<(), HostError> {
        let doing = || "remove the stack's nftables table";
        let nft = self.nft().doing(doing)?;
        let before = nft.observe(&self.table_name()).doing(doing)?;
        nft.delete_table(&self.table_name()).doing(doing)?;
        Orders::of(&self.stack_folder()).forget();
        let before = before.map(|table| parts(&table.ruleset)).unwrap_or_default();
        nft.forget_udp_flows(&moved_udp_ports(&before, &BTreeMap::new()))
            .doing(|| "forget the flows of UDP ports that went")?;
        Ok(())
    }

    pub(super) fn observe_nat(&self) -> Result<Option<ActualNat>, HostError> {
        let doing = || "read the stack's nftables table";
        let found = self.nft().doing(doing)?.observe(&self.table_name()).doing(doing)?;
        Ok(found.map(|table| {
            let mut parts = parts(&table.ruleset);
            if table.state == TableState::Dormant {
                parts.insert("table".into(), "dormant".into());
            }
            let told = Orders::of(&self.stack_folder()).load();
            ActualNat { label: table.label.and_then(|text| text.parse().ok()), parts, told }
        }))
    }
}

/// The parts that the table should have.
pub(super) fn parts_wanted(nat: &DesiredNat) -> BTreeMap<String, String> {
    parts(&table(nat).ruleset())
}

pub(super) fn table(nat: &DesiredNat) -> NatTable {
    let ifname =
        |name: &String| nat.bridges.iter().find(|(bridge, _)| bridge == name).map(|(_, bridge)| &bridge.ifname);
    NatTable {
        bridges: nat
            .bridges
            .iter()
            .map(|(name, bridge)| NatBridge {
                name: name.clone(),
                ifname: bridge.ifname.clone(),
                subnet: bridge.gateway.trunc(),
                gateway: bridge.gateway.addr(),
                gateway6: bridge.gateway6,
                internal: bridge.internal,
            })
            .collect(),
        mappings: nat
            .ports
            .iter()
            .map(|target| NatPortMapping {
                bind: match target.port.bind {
                    PortBind::Address(address) => NatBind::Address(address),
                    PortBind::Public => NatBind::Public,
                },
                host_port: target.port.host_port,
                protocol: match target.port.protocol {
                    Protocol::Tcp => NatProtocol::Tcp,
                    Protocol::Udp => NatProtocol::Udp,
                    Protocol::Sctp => NatProtocol::Sctp,
                },
                target: (target.address, target.port.container_port),
            })
            .collect(),
        services: nat
            .services
            .iter()
            .filter_map(|service| {
                let (ifname, address, target) = (ifname(&service.bridge)?.clone(), service.address, service.target);
                Some(NatService { ifname, address, target })
            })
            .collect(),
    }
}

/// A ruleset as parts by name: ports with where they lead, members of sets, chains, and rules by their comments. A rule's
/// value is its place in its chain and a digest of what it does.
fn parts(ruleset: &Ruleset) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    for chain in &ruleset.chains {
        let base = chain.base.as_ref().map_or("no hook".into(), |base| {
            format!("{} {:?} {} {:?}", base.kind, base.hook, base.priority, base.policy).to_lowercase()
        });
        parts.insert(format!("chain {}", chain.name), base);
    }
    for set in &ruleset.sets {
        parts.extend(set_parts(set, ruleset));
    }
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in &ruleset.rules {
        let place = places.entry(&rule.chain).or_default();
        *place += 1;
        let digest = digest_of(&format!("{:?}", rule.expressions));
        let name = if rule.name.is_empty() { "without a name" } else { &rule.name };
        let mut key = format!("rule {}: {name}", rule.chain);
        // A stranger's rule may bear the name of one of ours.
        while parts.contains_key(&key) {
            key.push('\'');
        }
        parts.insert(key, format!("{place} {}", &digest[..8]));
    }
    parts
}

/// Of a key, at its end.
const TURN_BYTES: usize = 4;

fn set_parts(set: &Set, ruleset: &Ruleset) -> Vec<(String, String)> {
    let kind = format!("{}:{}", set.key.number, set.value.map_or(0, |v| v.number));
    let mut parts = vec![(format!("set {}", set.name), kind)];
    // The targets of a port or service, each with the turns that it has.
    let mut shared: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    // The ports of turns are told with their addresses.
    if SPREAD.iter().any(|(.., ports)| *ports == set.name) {
        return parts;
    }
    let ports = SPREAD.iter().find(|(_, spread, _)| *spread == set.name).map(|(.., ports)| *ports);
    let is_spread = ports.is_some();
    let ports = ports.and_then(|name| ruleset.sets.iter().find(|set| set.name == name));
    let port_there = |key: &[u8]| {
        let (ports, key) = (ports?, key.get(..key.len().checked_sub(TURN_BYTES)?)?);
        Some(ports.value?.describe(ports.elements.get(key)?))
    };
    let is_of_services = [SERVICES, SERVICES6].contains(&set.name.as_str());
    let everywhere = if set.name.ends_with('6') { "[::]" } else { "public" };
    for (key, value) in &set.elements {
        let words = set.key.describe(key);
        let target = match (set.value, is_spread) {
            (Some(types), true) => {
                end(&format!("{} {}", types.describe(value), port_there(key).unwrap_or_else(|| "nowhere".into())))
            }
            (Some(types), false) => end(&types.describe(value)),
            (None, _) => String::new(),
        };
        match words.split(' ').collect::<Vec<_>>().as_slice() {
            [address, protocol, port, _] if is_spread => {
                let name = format!("port {}:{port}/{protocol}", bracketed(address));
                *shared.entry(name).or_default().entry(target).or_default() += 1;
            }
            [protocol, port, _] if is_spread => {
                let name = format!("port {everywhere}:{port}/{protocol}");
                *shared.entry(name).or_default().entry(target).or_default() += 1;
            }
            [ifname, address, _] if is_of_services => {
                *shared.entry(format!("service {address} on {ifname}")).or_default().entry(target).or_default() += 1;
            }
            [address, protocol, port] if set.value.is_some() => {
                parts.push((format!("port {}:{port}/{protocol}", bracketed(address)), target));
            }
            [protocol, port] if set.value.is_some() => {
                parts.push((format!("port {everywhere}:{port}/{protocol}"), target));
            }
            _ => parts.push((format!("set {}: {words}", set.name), "member".into())),
        }
    }
    parts.extend(shared.into_iter().map(|(name, turns)| {
        let whole = turns.values().sum::<u32>() == TURNS;
        let targets = turns.into_keys().collect::<Vec<_>>().join(", ");
        (name, if whole { targets } else { format!("{targets} in part") })
    }));
    parts
}

/// An address as it stands before a port.
fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.into() }
}

/// An address, or an address and a port, of a map's value.
fn end(words: &str) -> String {
    match words.split_once(' ') {
        Some((address, port)) => format!("{}:{port}", bracketed(address)),
        None => words.into(),
    }
}

/// UDP ports that led somewhere and do not lead there any more: the kernel remembers their flows.
fn moved_udp_ports(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<NatPortMapping> {
    before.iter().filter(|(name, target)| after.get(*name) != Some(target)).filter_map(udp_port).collect()
}

fn udp_port((name, target): (&String, &String)) -> Option<NatPortMapping> {
    let (bind, port) = name.strip_prefix("port ")?.strip_suffix("/udp")?.rsplit_once(':')?;
    let target: SocketAddr = target.parse().ok()?;
    let bind = match bind {
        "public" | "[::]" => NatBind::Public,
        address => NatBind::Address(address.trim_start_matches('[').trim_end_matches(']').parse().ok()?),
    };
    Some(NatPortMapping {
        bind,
        host_port: port.parse().ok()?,
        protocol: NatProtocol::Udp,
        target: (target.ip(), target.port()),
    })
}
