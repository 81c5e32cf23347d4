//! The stack's nftables table: what it should hold and what it holds, as parts by name.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::LinuxHost;
use crate::model::{PortBind, Protocol};
use crate::plan::{DesiredNat, Kind, Label, digest_of};
use crate::reconcile::actual::ActualNat;
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::net::{
    NatBind, NatBridge, NatPortMapping, NatProtocol, NatTable, Nft, NftError, PUBLIC_PORTS6, Ruleset, SHUT_TABLE,
    SHUT_TABLE6, Set, TableState, shut, shut6,
};

impl LinuxHost {
    /// The run's one socket.
    fn nft(&self) -> Result<&Nft, NftError> {
        if let Some(nft) = self.nft.get() {
            return Ok(nft);
        }
        let opened = Nft::open()?;
        Ok(self.nft.get_or_init(|| opened))
    }

    fn table_name(&self) -> String {
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
        nft.replace_table(&self.table_name(), &ruleset, &label.to_string()).doing(doing)?;
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
            ActualNat { label: table.label.and_then(|text| text.parse().ok()), parts }
        }))
    }
}

/// The parts that the table should have.
pub(super) fn parts_wanted(nat: &DesiredNat) -> BTreeMap<String, String> {
    parts(&table(nat).ruleset())
}

fn table(nat: &DesiredNat) -> NatTable {
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
        parts.extend(set_parts(set));
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

fn set_parts(set: &Set) -> impl Iterator<Item = (String, String)> {
    let kind = (format!("set {}", set.name), format!("{}:{}", set.key.number, set.value.map_or(0, |v| v.number)));
    let elements = set.elements.iter().map(|(key, value)| {
        let words = set.key.describe(key);
        match (set.value, words.split(' ').collect::<Vec<_>>().as_slice()) {
            (Some(types), [address, protocol, port]) => {
                (format!("port {}:{port}/{protocol}", bracketed(address)), end(&types.describe(value)))
            }
            (Some(types), [protocol, port]) => {
                let bind = if set.name == PUBLIC_PORTS6 { "[::]" } else { "public" };
                (format!("port {bind}:{port}/{protocol}"), end(&types.describe(value)))
            }
            (_, _) => (format!("set {}: {words}", set.name), "member".into()),
        }
    });
    std::iter::once(kind).chain(elements)
}

/// An address as it stands before a port.
fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.into() }
}

/// An address and a port, of a map's value.
fn end(words: &str) -> String {
    let (address, port) = words.split_once(' ').unwrap_or((words, "0"));
    format!("{}:{port}", bracketed(address))
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
