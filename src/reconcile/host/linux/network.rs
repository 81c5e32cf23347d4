//! Bridges, and the links of containers.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::LinuxHost;
use crate::plan::{DesiredBridge, Endpoint, Kind, Label, digest_of};
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::net::{
    BridgeSpec, BridgeSwitch, EndpointConfig, ObservedLink, VethSpec, configure_endpoint, generate_veth_mac, in_netns,
};

/// How long the first of several who want links deleted waits for the others.
const GATHER: Duration = Duration::from_millis(2);

impl LinuxHost {
    pub(super) async fn create_bridge(&self, name: &str, bridge: &DesiredBridge) -> Result<(), HostError> {
        let spec = self.bridge_spec(name, bridge);
        self.links().await?.create_bridge(&spec).await.doing(|| format!("make bridge `{name}`"))?;
        self.switch_bridge(bridge)?;
        self.add_services(name, bridge).await
    }

    fn bridge_spec(&self, name: &str, bridge: &DesiredBridge) -> BridgeSpec {
        let digest = digest_of(&bridge.ifname);
        let label = Label { stack: self.stack.clone(), kind: Kind::Bridge, name: name.into(), digest };
        BridgeSpec {
            name: bridge.ifname.clone(),
            address: bridge.gateway,
            address6: bridge.gateway6,
            mtu: bridge.mtu,
            alias: label.to_string(),
        }
    }

    fn switch_bridge(&self, bridge: &DesiredBridge) -> Result<(), HostError> {
        for switch in BridgeSwitch::with(bridge.gateway6) {
            self.sysctls
                .enable_bridge_switch(&bridge.ifname, *switch)
                .doing(|| format!("set {} of `{}`", switch.name(), bridge.ifname))?;
        }
        Ok(())
    }

    /// Puts right whatever of a bridge is not: its label last, so that an interrupted repair is done again.
    pub(super) async fn adjust_bridge(&self, name: &str, bridge: &DesiredBridge) -> Result<(), HostError> {
        let links = self.links().await?;
        let doing = || format!("put bridge `{name}` right");
        let found = links.list().doing(doing)?.into_iter().find(|link| link.name == bridge.ifname);
        let Some(link) = found else { return self.create_bridge(name, bridge).await };
        let held: Vec<Ipv4Net> = v4_addresses(&link);
        if !held.contains(&bridge.gateway) {
            links.add_address(link.index, bridge.gateway.into()).await.doing(doing)?;
        }
        let services = bridge.service_addresses();
        let is_service = |net: IpNet| is_single(&net) && services.contains(&net.addr());
        for other in held.into_iter().filter(|net| *net != bridge.gateway && !is_service((*net).into())) {
            links.remove_address(link.index, other.into()).await.doing(doing)?;
        }
        let others6 = v6_addresses(&link).into_iter().filter(|net| Some(*net) != bridge.gateway6);
        for other in others6.filter(|net| !is_service((*net).into())) {
            links.remove_address(link.index, other.into()).await.doing(doing)?;
        }
        // Before its addresses: a link that has IPv6 switched off takes none.
        self.switch_bridge(bridge)?;
        links.finish_bridge(link.index, &self.bridge_spec(name, bridge)).await.doing(doing)?;
        self.add_services(name, bridge).await
    }

    /// After its own address, without which a link takes none of IPv6.
    async fn add_services(&self, name: &str, bridge: &DesiredBridge) -> Result<(), HostError> {
        if bridge.services.is_empty() {
            return Ok(());
        }
        let links = self.links().await?;
        let doing = || format!("give bridge `{name}` the addresses of services");
        let found = links.list().doing(doing)?.into_iter().find(|link| link.name == bridge.ifname);
        let Some(link) = found else { return Err(HostError::Said(format!("bridge `{name}` went away"))) };
        for address in bridge.service_addresses().into_iter().map(IpNet::from) {
            if !link.addresses.contains(&address) {
                links.add_address(link.index, address).await.doing(doing)?;
            }
        }
        Ok(())
    }

    /// Deletes a bridge, and the links on it that its containers left behind.
    pub(super) async fn remove_bridge(&self, name: &str, ifname: &str) -> Result<(), HostError> {
        let present = self.links().await?.list().doing(|| format!("remove bridge `{name}`"))?;
        let is_on_it = |link: &ObservedLink| {
            self.label_of(link).is_some_and(|label| {
                label.kind == Kind::Veth && label.name.split_once(':').is_some_and(|(_, bridge)| bridge == name)
            })
        };
        let doomed = present.iter().filter(|link| link.name == ifname || is_on_it(link));
        let indices: Vec<u32> = doomed.map(|link| link.index).collect();
        match indices.is_empty() {
            true => Ok(()),
            false => self.delete_links(indices).await,
        }
    }

    /// Deletes links, together with those that others want deleted at this moment: the kernel waits some 20 ms for all
    /// processors to let go of deleted links, once for each request, however many links are in it.
    async fn delete_links(&self, indices: Vec<u32>) -> Result<(), HostError> {
        let (done, wait) = tokio::sync::oneshot::channel();
        self.doomed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((indices, done));
        {
            let _turn = self.deleting.lock().await;
            // Whoever comes first takes along what gathered meanwhile.
            tokio::time::sleep(GATHER).await;
            let batch = std::mem::take(&mut *self.doomed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
            let all: Vec<u32> = batch.iter().flat_map(|(indices, _)| indices.iter().copied()).collect();
            if !all.is_empty() {
                let result = self.links().await?.delete_links(&all).await.doing(|| "delete links");
                let text = result.err().map(|error| error.chain());
                for (_, done) in batch {
                    // Those who gave up waiting need no answer.
                    let _ = done.send(text.clone());
                }
            }
        }
        match wait.await {
            Ok(None) => Ok(()),
            Ok(Some(text)) => Err(HostError::Said(text)),
            Err(error) => Err(error).doing(|| "delete links"),
        }
    }

    /// Makes the missing links of a container whose monitor holds its network namespace, and configures both ends.
    pub(super) async fn attach(&self, instance: &str, endpoints: &[Endpoint], monitor: i32) -> Result<(), HostError> {
        if endpoints.is_empty() {
            return Ok(());
        }
        let doing = || format!("link `{instance}` to its bridges");
        let links = self.links().await?;
        let present = links.list().doing(doing)?;
        for endpoint in endpoints {
            self.attach_one(instance, endpoint, monitor, &present).await?;
        }
        let configs: Vec<EndpointConfig> = endpoints
            .iter()
            .map(|endpoint| EndpointConfig {
                name: endpoint.interface.clone(),
                address: Ipv4Net::new_assert(endpoint.address, endpoint.prefix),
                gateway: endpoint.gateway,
                address6: endpoint.address6,
                gateway6: endpoint.gateway6,
            })
            .collect();
        let netns = File::open(format!("/proc/{monitor}/ns/net")).doing(doing)?;
        tokio::task::spawn_blocking(move || in_netns(OwnedFd::from(netns), move || configure_endpoint(&configs)))
            .await
            .doing(doing)?
            .doing(doing)?
            .doing(doing)
    }

    async fn attach_one(
        &self,
        instance: &str,
        endpoint: &Endpoint,
        monitor: i32,
        present: &[ObservedLink],
    ) -> Result<(), HostError> {
        let doing = || format!("link `{instance}` to bridge `{}`", endpoint.bridge);
        let links = self.links().await?;
        let alias = self.link_label(instance, endpoint);
        let bridge = self.find_bridge(present, &endpoint.bridge).ok_or_else(|| {
            HostError::Said(format!("bridge `{}` went away while `{instance}` was linked to it", endpoint.bridge))
        })?;
        if let Some(link) = present.iter().find(|link| link.alias.as_deref() == Some(&alias)) {
            if link.master != Some(bridge.index) {
                links.set_master(link.index, bridge.index).await.doing(doing)?;
            }
            return links.set_up(link.index).await.doing(doing);
        }
        let spec = VethSpec {
            host_name: link_name(monitor, &alias),
            alias,
            bridge_index: bridge.index,
            mtu: endpoint.mtu,
            peer_name: endpoint.interface.clone(),
            peer_mac: generate_veth_mac(endpoint.address),
            netns_pid: u32::try_from(monitor).doing(doing)?,
        };
        links.create_veth_pair(&spec).await.doing(doing)?;
        Ok(())
    }

    fn find_bridge<'a>(&self, links: &'a [ObservedLink], name: &str) -> Option<&'a ObservedLink> {
        links
            .iter()
            .find(|link| self.label_of(link).is_some_and(|label| label.kind == Kind::Bridge && label.name == name))
    }

    /// The link's label, where it is one of this stack's.
    pub(super) fn label_of(&self, link: &ObservedLink) -> Option<Label> {
        let label: Label = link.alias.as_deref()?.parse().ok()?;
        (label.stack == self.stack).then_some(label)
    }

    fn link_label(&self, instance: &str, endpoint: &Endpoint) -> String {
        let name = format!("{instance}:{}", endpoint.bridge);
        Label { stack: self.stack.clone(), kind: Kind::Veth, name, digest: digest_of(endpoint) }.to_string()
    }

    /// Deletes what is left of a container's links. Its network namespace takes them along when it goes, a moment later.
    pub(super) async fn detach(&self, instance: &str) -> Result<(), HostError> {
        let links = self.links().await?;
        let doing = || format!("remove the links of `{instance}`");
        let indices: Vec<u32> = links
            .list()
            .doing(doing)?
            .iter()
            .filter(|link| {
                self.label_of(link).is_some_and(|label| {
                    label.kind == Kind::Veth && label.name.split_once(':').is_some_and(|(name, _)| name == instance)
                })
            })
            .map(|link| link.index)
            .collect();
        match indices.is_empty() {
            true => Ok(()),
            false => self.delete_links(indices).await,
        }
    }
}

pub(super) fn v4_addresses(link: &ObservedLink) -> Vec<Ipv4Net> {
    let v4 = |net: &IpNet| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    };
    link.addresses.iter().filter_map(v4).collect()
}

/// Whether an address is of no subnet; those of services are.
pub(super) fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// But for those that hold on the link alone.
pub(super) fn v6_addresses(link: &ObservedLink) -> Vec<Ipv6Net> {
    let v6 = |net: &IpNet| match net {
        IpNet::V6(net) if !net.addr().is_unicast_link_local() => Some(*net),
        _ => None,
    };
    link.addresses.iter().filter_map(v6).collect()
}

/// A name for the host's end of a link. The monitor's number makes it another one at each start, because the end of an
/// earlier start may still be on its way out.
fn link_name(monitor: i32, alias: &str) -> String {
    let digest = digest_of(&(monitor, alias));
    format!("stv{}", &digest[..10])
}
