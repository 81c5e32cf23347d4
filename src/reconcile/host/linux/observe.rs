//! One look at everything that belongs to a stack.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::bundle::{HOSTS, RESOLV_CONF, copies};
use super::cgroups::FoundCgroups;
use super::container::{STORED, read_bounded};
use super::network::{is_single, v4_addresses, v6_addresses};
use super::{LinuxHost, capacity, folder_names};
use crate::monitor::client::{Found, read_status};
use crate::monitor::status::{self, State, Status};
use crate::plan::{Kind, bridge_ifname_prefix};
use crate::reconcile::actual::{
    Actual, ActualBridge, ActualContainer, ActualLink, HealthState, KernelLimits, Phase, RunFacts, StoredContainer,
};
use crate::reconcile::host::{Doing, HostError};
use crate::runtime::net::{BridgeSwitch, ObservedLink, routes};

impl LinuxHost {
    pub(super) async fn look(&self) -> Result<Actual, HostError> {
        let links = self.links().await?.list().doing(|| "list the host's links")?;
        let cgroups = self.observe_cgroups()?;
        let bridges = self.observe_bridges(&links)?;
        let containers = self.observe_containers(&cgroups, &links)?;
        let ours: BTreeSet<&str> = bridges.values().map(|bridge| bridge.ifname.as_str()).collect();
        let routes = routes().doing(|| "list the host's routes")?;
        let forwarding6 = self.sysctls.ipv6_forward().doing(|| "read net.ipv6.conf.all.forwarding")?;
        Ok(Actual {
            capacity: capacity(&self.roots.data),
            forwarding: self.sysctls.ip_forward().doing(|| "read net.ipv4.ip_forward")?,
            other_links: other_links(&links),
            ipv6: self.sysctls.ipv6().doing(|| "read net.ipv6.conf.all.disable_ipv6")?,
            forwarding6: forwarding6 == Some(true),
            advised: match forwarding6 {
                Some(false) => self.sysctls.advised_links().doing(|| "read who heeds router advertisements")?,
                _ => Vec::new(),
            },
            root: cgroups.root,
            routes: routes
                .into_iter()
                .filter(|route| !ours.contains(route.interface.as_str()))
                .map(|route| (route.destination, route.interface))
                .collect(),
            cgroups: cgroups.branches,
            volumes: self.observe_volumes(),
            missing_layers: self.missing_layers(),
            missing_bytes: self.missing_bytes(),
            unbuilt: self.unbuilt(),
            nat: self.observe_nat()?,
            resolver: self.observe_resolver(),
            bridges,
            containers,
        })
    }

    fn observe_volumes(&self) -> BTreeSet<String> {
        folder_names(&self.roots.data.join("volumes").join(self.stack.as_str())).into_iter().collect()
    }

    fn observe_bridges(&self, links: &[ObservedLink]) -> Result<BTreeMap<String, ActualBridge>, HostError> {
        let mut bridges = BTreeMap::new();
        for link in links {
            let label = self.label_of(link).filter(|label| label.kind == Kind::Bridge);
            let labelled = label.is_some();
            let name = match label {
                Some(label) => label.name,
                // Its making ended before its label: it has no other name than the link's.
                None if link.alias.is_none() && self.is_named_as_ours(link) => link.name.clone(),
                None => continue,
            };
            let address6 = v6_addresses(link).into_iter().find(|address| address.prefix_len() < 128);
            let switches = BridgeSwitch::with(address6).iter().try_fold(true, |all, switch| {
                Ok::<_, HostError>(
                    all && self
                        .sysctls
                        .bridge_switch(&link.name, *switch)
                        .doing(|| format!("read {} of `{}`", switch.name(), link.name))?,
                )
            })?;
            let bridge = ActualBridge {
                ifname: link.name.clone(),
                labelled,
                up: link.up,
                mtu: link.mtu,
                address: v4_addresses(link).iter().find(|address| address.prefix_len() < 32).copied(),
                address6,
                services: link.addresses.iter().filter(|net| is_single(net)).map(|net| net.addr()).collect(),
                switches,
            };
            bridges.insert(name, bridge);
        }
        Ok(bridges)
    }

    fn is_named_as_ours(&self, link: &ObservedLink) -> bool {
        link.kind == "bridge" && link.name.starts_with(&bridge_ifname_prefix(self.stack.as_str()))
    }

    /// Everything that bears an instance's name: a cgroup, a bundle, a link. One of them is enough.
    fn observe_containers(
        &self,
        cgroups: &FoundCgroups,
        links: &[ObservedLink],
    ) -> Result<BTreeMap<String, ActualContainer>, HostError> {
        let mut links_of = self.links_by_instance(links);
        let mut names: BTreeSet<String> = cgroups.containers.keys().cloned().collect();
        // What is not an instance's begins with a dot.
        names.extend(folder_names(&self.stack_folder()).into_iter().filter(|name| !name.starts_with('.')));
        names.extend(links_of.keys().cloned());
        let mut containers = BTreeMap::new();
        for name in names {
            let found = links_of.remove(&name).unwrap_or_default();
            let container = self.observe_container(&name, cgroups.containers.get(&name), found)?;
            containers.insert(name, container);
        }
        Ok(containers)
    }

    fn links_by_instance(&self, links: &[ObservedLink]) -> BTreeMap<String, Vec<ActualLink>> {
        let bridge_index: BTreeMap<String, u32> = links
            .iter()
            .filter_map(|link| {
                let label = self.label_of(link).filter(|label| label.kind == Kind::Bridge)?;
                Some((label.name, link.index))
            })
            .collect();
        let mut found: BTreeMap<String, Vec<ActualLink>> = BTreeMap::new();
        for link in links {
            let Some(label) = self.label_of(link).filter(|label| label.kind == Kind::Veth) else { continue };
            let Some((instance, bridge)) = label.name.split_once(':') else { continue };
            found.entry(instance.into()).or_default().push(ActualLink {
                bridge: bridge.into(),
                ifname: link.name.clone(),
                up: link.up,
                carrier: link.carrier,
                attached: link.master.is_some() && link.master == bridge_index.get(bridge).copied(),
            });
        }
        found
    }

    pub(super) fn stored(&self, instance: &str) -> Option<StoredContainer> {
        read_stored(&self.bundle(instance))
    }

    fn observe_container(
        &self,
        instance: &str,
        cgroup: Option<&String>,
        links: Vec<ActualLink>,
    ) -> Result<ActualContainer, HostError> {
        let bundle = self.bundle(instance);
        let group = match cgroup {
            Some(below) => self.open_cgroup(&self.cgroup_path(below)?)?,
            None => None,
        };
        let (label, limits) = match &group {
            Some(group) => self.observe_group(group)?,
            None => (None, KernelLimits::new()),
        };
        let found = read_status(&bundle).doing(|| format!("read the status of `{instance}`"))?;
        let stored = read_stored(&bundle);
        Ok(ActualContainer {
            contents: self.observe_contents(&bundle, stored.as_ref()),
            // A group that lost a part limits nobody in it.
            label: label.filter(|_| group.as_ref().is_some_and(|group| group.is_complete())),
            stored,
            limits,
            phase: phase(&found),
            health: health(&found),
            links,
            hosts: read_text(&bundle.join(HOSTS)),
            resolv_conf: read_text(&bundle.join(RESOLV_CONF)),
            run: facts(&found),
        })
    }
}

impl LinuxHost {
    /// Hashes of the copies that are live. One that cannot be read differs from every wish.
    fn observe_contents(&self, bundle: &Path, stored: Option<&StoredContainer>) -> BTreeMap<String, String> {
        let Some(stored) = stored.filter(|stored| !stored.live.contents.is_empty()) else { return BTreeMap::new() };
        let live = |target: &str| stored.live.contents.iter().any(|content| content.target == target);
        copies(&stored.spec)
            .filter(|(target, _)| live(target))
            .filter_map(|(target, copy)| Some((target.to_string(), self.hash_content(&bundle.join(copy)).ok()?)))
            .collect()
    }
}

fn read_text(path: &Path) -> Option<String> {
    String::from_utf8(read_bounded(path).ok()?).ok()
}

fn other_links(links: &[ObservedLink]) -> Vec<String> {
    let ours = |name: &str| name == "lo" || ["stk", "stv"].iter().any(|prefix| name.starts_with(prefix));
    links.iter().map(|link| link.name.clone()).filter(|name| !ours(name)).collect()
}

/// A bundle's copy of the spec explains and never decides: one that cannot be read is as good as none.
fn read_stored(bundle: &Path) -> Option<StoredContainer> {
    serde_json::from_slice(&read_bounded(&bundle.join(STORED)).ok()?).ok()
}

fn phase(found: &Found) -> Phase {
    match found {
        Found::Nothing => Phase::Leftover,
        Found::Abandoned(_) => Phase::Lost { what: "its monitor was killed" },
        Found::Watched(status) => match status.state {
            State::Running if status.stopping => Phase::Stopping,
            State::Running => match status.init().is_some_and(|init| init.is_alive()) {
                true => Phase::Running,
                // It has just ended and its monitor is about to say so.
                false => Phase::Restarting,
            },
            State::Created | State::Restarting => Phase::Restarting,
            State::Exited => exited(status),
        },
        Found::Ended(status) => exited(status),
    }
}

fn exited(status: &Status) -> Phase {
    let code = status.exit_code.or(status.signal.map(|signal| 128 + signal));
    Phase::Exited { code: code.unwrap_or(NEVER_RAN) }
}

/// The field's status for a container that could not be started.
const NEVER_RAN: i32 = 125;

fn status_of(found: &Found) -> Option<&Status> {
    match found {
        Found::Nothing => None,
        Found::Watched(status) | Found::Ended(status) | Found::Abandoned(status) => Some(status),
    }
}

fn health(found: &Found) -> HealthState {
    let Found::Watched(status) = found else { return HealthState::None };
    match status.health {
        status::HealthState::None => HealthState::None,
        status::HealthState::Starting => HealthState::Starting,
        status::HealthState::Healthy => HealthState::Healthy,
        status::HealthState::Unhealthy => HealthState::Unhealthy,
    }
}

fn facts(found: &Found) -> RunFacts {
    let Some(status) = status_of(found) else { return RunFacts::default() };
    let lives = matches!(found, Found::Watched(_));
    RunFacts {
        pid: status.init_pid.filter(|_| lives),
        monitor: Some(status.monitor_pid).filter(|_| lives),
        restarts: status.restarts,
        oom_kills: status.oom_kills,
        last_oom: status.last_oom.as_ref().map(|report| report.text()),
        started_at: status.started_at.map(|time| time.as_second()),
        last_probe: status.last_probe.as_ref().map(|probe| probe.text.clone()),
    }
}
