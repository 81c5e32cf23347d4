//! A checked stack and what was found out about the host's side of it become [`Desired`].

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use indexmap::{IndexMap, IndexSet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};

use super::address::{beside, gateway_of, overlap};
use super::{
    AddressError, ContainerSpec, ContentSpec, Desired, DesiredBridge, DesiredContainer, DesiredNat, Endpoint, FileSpec,
    HostsLine, ImageIdentity, LiveSpec, PortTarget, SeccompSpec, SecretSpec, choose_subnet, choose_subnet6, hand_out,
};
use crate::model::{Bridge, Container, IPV6_MIN_MTU, Name, PortBind, PortMap, Seccomp, Stack};

/// What an image says about the containers made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedImage {
    /// A digest, or a folder's identity.
    pub id: String,
    /// `KEY=value`.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub workdir: Option<String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// A signal's number.
    pub stop_signal: Option<i32>,
}

/// What had to be read before anything could be desired.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// By the name that containers use.
    pub images: HashMap<String, ResolvedImage>,
    /// Keyed hashes of what secret and other followed files hold.
    pub contents: HashMap<PathBuf, String>,
    /// Digests of seccomp profiles.
    pub profiles: HashMap<PathBuf, String>,
}

/// What the kernel already holds and is to be kept where it can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Subnets of this stack's bridges, by bridge.
    pub subnets: BTreeMap<String, Ipv4Net>,
    /// The same for IPv6.
    pub subnets6: BTreeMap<String, Ipv6Net>,
    /// Whether the host can have IPv6 at all.
    pub ipv6: bool,
    /// Addresses of this stack's containers, by bridge, then by instance.
    pub addresses: BTreeMap<String, BTreeMap<String, Ipv4Addr>>,
    /// The host's routes but for this stack's own bridges, with their links.
    pub routes: Vec<(IpNet, String)>,
}

/// Why a stack cannot be had on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DesireError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("subnet {subnet} of bridge `{bridge}` overlaps the route {route} of `{link}`")]
    SubnetTaken { bridge: Name, subnet: IpNet, route: IpNet, link: String },
    #[error("container `{container}` publishes port {port}, and this host has no IPv6")]
    NoIpv6 { container: Name, port: PortMap },
    #[error("container `{container}` has no command: image `{image}` names none, and the stack file gives none")]
    NoCommand { container: Name, image: String },
    #[error("image `{image}` was not resolved")]
    ImageUnknown { image: String },
    #[error("`{path}` was not read", path = path.display())]
    FileUnread { path: PathBuf },
    #[error("image `{image}` names `{user}` as its user, which is neither a name nor a number")]
    ImageUser { image: String, user: String },
}

/// The instances of a container: itself, or `name-1` … `name-N`.
pub fn instances(name: &Name, container: &Container) -> Vec<String> {
    match container.replicas {
        0 | 1 => vec![name.to_string()],
        n => (1..=n).map(|i| format!("{name}-{i}")).collect(),
    }
}

/// Decides everything that a stack file leaves open, and keeps what the kernel already holds.
pub fn desire(stack: &Stack, resolved: &Resolved, kept: &Kept) -> Result<Desired, DesireError> {
    let subnets = decide_subnets(stack, kept)?;
    let subnets6 = decide_subnets6(stack, kept)?;
    let addresses = decide_addresses(stack, &subnets, kept)?;
    let bridges: IndexMap<Name, DesiredBridge> = stack
        .bridges
        .iter()
        .map(|(name, bridge)| {
            let subnet = subnets[name.as_str()];
            let gateway = Ipv4Net::new_assert(gateway_of(subnet), subnet.prefix_len());
            let ifname = bridge_ifname(stack.name.as_str(), name.as_str());
            let gateway6 = subnets6.get(name.as_str()).map(|subnet6| beside(gateway.addr(), subnet, *subnet6));
            (name.clone(), DesiredBridge { ifname, gateway, gateway6, internal: bridge.internal, mtu: mtu(bridge) })
        })
        .collect();
    let mut containers = IndexMap::new();
    for (name, container) in &stack.containers {
        for instance in instances(name, container) {
            let network = Network { bridges: &bridges, addresses: &addresses };
            let desired = desire_container(stack, name, &instance, resolved, &network)?;
            containers.insert(instance, desired);
        }
    }
    Ok(Desired {
        stack: stack.name.clone(),
        forwarding: !bridges.is_empty(),
        forwarding6: bridges.values().any(|bridge| bridge.gateway6.is_some()),
        notes: notes(stack, kept),
        cgroups: stack.cgroups.iter().map(|(name, branch)| (name.clone(), branch.limits.clone())).collect(),
        volumes: stack.volumes.keys().cloned().collect::<IndexSet<_>>(),
        images: stack.containers.values().map(|c| (c.image.written.clone(), c.image.source.clone())).collect(),
        nat: match bridges.is_empty() {
            true => None,
            false => Some(desire_nat(stack, &bridges, &addresses)?),
        },
        bridges,
        containers,
        jobs: false,
        origins: stack.origins.clone(),
    })
}

/// What is decided about bridges and addresses, for the containers on them.
struct Network<'a> {
    bridges: &'a IndexMap<Name, DesiredBridge>,
    /// By bridge, then by instance.
    addresses: &'a BTreeMap<String, BTreeMap<String, Ipv4Addr>>,
}

fn decide_subnets(stack: &Stack, kept: &Kept) -> Result<BTreeMap<String, Ipv4Net>, DesireError> {
    let mut subnets = BTreeMap::new();
    for (name, bridge) in &stack.bridges {
        let Some(subnet) = bridge.subnet else { continue };
        free_of_routes(name, subnet.into(), kept)?;
        subnets.insert(name.to_string(), subnet);
    }
    for (name, bridge) in &stack.bridges {
        if bridge.subnet.is_some() {
            continue;
        }
        let ours = subnets.values().map(|subnet| IpNet::V4(*subnet));
        let taken: Vec<IpNet> = kept.routes.iter().map(|(net, _)| *net).chain(ours).collect();
        let held = kept.subnets.get(name.as_str()).copied();
        let subnet = match held.filter(|subnet| !subnets.values().any(|other| other == subnet)) {
            Some(subnet) => subnet,
            None => choose_subnet(stack.name.as_str(), name.as_str(), &taken)?,
        };
        subnets.insert(name.to_string(), subnet);
    }
    Ok(subnets)
}

/// An error names the route that a subnet of the file overlaps.
fn free_of_routes(bridge: &Name, subnet: IpNet, kept: &Kept) -> Result<(), DesireError> {
    match kept.routes.iter().find(|(route, _)| overlap(&subnet, route)) {
        None => Ok(()),
        Some((route, link)) => {
            Err(DesireError::SubnetTaken { bridge: bridge.clone(), subnet, route: *route, link: link.clone() })
        }
    }
}

/// Bytes; the kernel's own choice unless told.
fn mtu(bridge: &Bridge) -> u32 {
    bridge.mtu.unwrap_or(1500)
}

/// Whether the file wants IPv6 on it; whether the host has it is another matter.
fn wants_ipv6(bridge: &Bridge) -> bool {
    bridge.ipv6 && mtu(bridge) >= IPV6_MIN_MTU
}

/// IPv6 subnets of the bridges that carry it.
fn decide_subnets6(stack: &Stack, kept: &Kept) -> Result<BTreeMap<String, Ipv6Net>, DesireError> {
    let mut subnets = BTreeMap::new();
    if !kept.ipv6 {
        return Ok(subnets);
    }
    for (name, bridge) in stack.bridges.iter().filter(|(_, bridge)| wants_ipv6(bridge)) {
        let subnet = match (bridge.subnet6, kept.subnets6.get(name.as_str())) {
            (Some(subnet), _) => {
                free_of_routes(name, subnet.into(), kept)?;
                subnet
            }
            (None, Some(held)) if held.prefix_len() == 64 => *held,
            (None, _) => {
                let taken: Vec<IpNet> = kept.routes.iter().map(|(net, _)| *net).collect();
                choose_subnet6(stack.name.as_str(), name.as_str(), &taken)?
            }
        };
        subnets.insert(name.to_string(), subnet);
    }
    Ok(subnets)
}

fn notes(stack: &Stack, kept: &Kept) -> Vec<String> {
    let without = !kept.ipv6 && stack.bridges.values().any(wants_ipv6);
    let note =
        "this host has no IPv6 (none in its kernel, or net.ipv6.conf.all.disable_ipv6 is 1): bridges carry IPv4 alone";
    without.then(|| note.to_string()).into_iter().collect()
}

fn decide_addresses(
    stack: &Stack,
    subnets: &BTreeMap<String, Ipv4Net>,
    kept: &Kept,
) -> Result<BTreeMap<String, BTreeMap<String, Ipv4Addr>>, DesireError> {
    let none = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for (bridge, subnet) in subnets {
        let wanted: Vec<String> = stack
            .containers
            .iter()
            .filter(|(_, container)| container.bridges.iter().any(|b| b.as_str() == bridge))
            .flat_map(|(name, container)| instances(name, container))
            .collect();
        let held = kept.addresses.get(bridge).unwrap_or(&none);
        addresses.insert(bridge.clone(), hand_out(bridge, *subnet, &wanted, held)?);
    }
    Ok(addresses)
}

fn desire_container(
    stack: &Stack,
    name: &Name,
    instance: &str,
    resolved: &Resolved,
    network: &Network,
) -> Result<DesiredContainer, DesireError> {
    let container = &stack.containers[name];
    let image = resolved
        .images
        .get(&container.image.written)
        .ok_or_else(|| DesireError::ImageUnknown { image: container.image.written.clone() })?;
    let endpoints = endpoints(container, stack.way_out(container), instance, network);
    let spec = ContainerSpec {
        image: ImageIdentity { name: container.image.written.clone(), id: image.id.clone() },
        args: args(name, container, image)?,
        env: environment(container, image),
        workdir: container.workdir.clone().or_else(|| image.workdir.clone()).unwrap_or_else(|| "/".into()),
        user: match (&container.user, &image.user) {
            (Some(user), _) => Some(user.clone()),
            (None, Some(text)) if !text.is_empty() => Some(image_user(container, text)?),
            _ => None,
        },
        hostname: container.hostname.clone().unwrap_or_else(|| instance.into()),
        cgroup: match &container.cgroup {
            Some(branch) => format!("{branch}.branch/{instance}"),
            None => instance.into(),
        },
        volumes: container.volumes.clone(),
        mounts: container.mounts.clone(),
        files: container
            .files
            .iter()
            .map(|file| FileSpec { file: file.file.clone(), target: file.target.clone() })
            .collect(),
        secrets: container.secrets.iter().map(|s| secret(s, resolved)).collect::<Result<_, _>>()?,
        read_only: container.read_only,
        cap_add: container.cap_add.clone(),
        cap_drop: container.cap_drop.clone(),
        ulimits: container.ulimits.clone(),
        sysctls: container.sysctls.clone(),
        stop_signal: container.stop_signal.or(image.stop_signal).unwrap_or(SIGTERM),
        init: container.init,
        labels: container.labels.clone(),
        seccomp: seccomp(&container.seccomp, resolved)?,
        oom_score_adj: container.oom_score_adj,
        endpoints,
    };
    let live = LiveSpec {
        limits: container.limits.clone(),
        job: container.job,
        restart: container.restart,
        health: container.health.clone(),
        log: container.log,
        stop_timeout_ms: u64::try_from(container.stop_timeout.as_millis()).unwrap_or(u64::MAX),
        hosts: hosts(stack, &spec, instance, network),
        contents: contents(container, resolved)?,
    };
    let after = container
        .after
        .iter()
        .flat_map(|(other, condition)| {
            instances(other, &stack.containers[other]).into_iter().map(|instance| (instance, *condition))
        })
        .collect();
    Ok(DesiredContainer { instance: instance.into(), container: name.clone(), spec, live, after })
}

const SIGTERM: i32 = 15;

/// The field's rule: an entry point given here clears the image's command.
fn args(name: &Name, container: &Container, image: &ResolvedImage) -> Result<Vec<String>, DesireError> {
    let entrypoint = container.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let command = match (&container.command, &container.entrypoint) {
        (Some(command), _) => command.as_slice(),
        (None, Some(_)) => &[],
        (None, None) => &image.command,
    };
    let args: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    match args.is_empty() {
        true => Err(DesireError::NoCommand { container: name.clone(), image: container.image.written.clone() }),
        false => Ok(args),
    }
}

fn environment(container: &Container, image: &ResolvedImage) -> IndexMap<String, String> {
    let mut env: IndexMap<String, String> = image
        .env
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect();
    env.extend(container.env.iter().map(|(key, value)| (key.clone(), value.clone())));
    env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    env
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn image_user(container: &Container, text: &str) -> Result<crate::model::UserSpec, DesireError> {
    let wrong = || DesireError::ImageUser { image: container.image.written.clone(), user: text.into() };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group.to_string())),
        None => (text, None),
    };
    let printable = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic() && c != ':');
    if !printable(user) || !group.as_deref().is_none_or(printable) {
        return Err(wrong());
    }
    Ok(crate::model::UserSpec { user: user.into(), group })
}

fn secret(secret: &crate::model::Secret, resolved: &Resolved) -> Result<SecretSpec, DesireError> {
    let content = match secret.on_change {
        Some(_) => String::new(),
        None => read(&resolved.contents, &secret.file)?,
    };
    let (uid, gid, mode) = (secret.uid, secret.gid, secret.mode);
    Ok(SecretSpec { file: secret.file.clone(), target: secret.target.clone(), uid, gid, mode, content })
}

/// Everything that is written anew under the running container, secrets first.
fn contents(container: &Container, resolved: &Resolved) -> Result<Vec<ContentSpec>, DesireError> {
    let secrets =
        container.secrets.iter().filter_map(|secret| Some((&secret.file, &secret.target, secret.on_change.as_ref()?)));
    let files = container.files.iter().map(|file| (&file.file, &file.target, &file.on_change));
    secrets
        .chain(files)
        .map(|(file, target, on_change)| {
            let content = read(&resolved.contents, file)?;
            Ok(ContentSpec { target: target.clone(), content, on_change: on_change.clone() })
        })
        .collect()
}

fn seccomp(choice: &Seccomp, resolved: &Resolved) -> Result<SeccompSpec, DesireError> {
    Ok(match choice {
        Seccomp::Default => SeccompSpec::Default,
        Seccomp::Unconfined => SeccompSpec::Unconfined,
        Seccomp::File(path) => SeccompSpec::File { path: path.clone(), digest: read(&resolved.profiles, path)? },
    })
}

fn read(hashes: &HashMap<PathBuf, String>, path: &Path) -> Result<String, DesireError> {
    hashes.get(path).cloned().ok_or_else(|| DesireError::FileUnread { path: path.into() })
}

fn endpoints(container: &Container, way_out: Option<&Name>, instance: &str, network: &Network) -> Vec<Endpoint> {
    container
        .bridges
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let bridge = &network.bridges[name];
            let address = network.addresses[name.as_str()][instance];
            Endpoint {
                bridge: name.to_string(),
                interface: format!("eth{index}"),
                address,
                prefix: bridge.gateway.prefix_len(),
                gateway: (way_out == Some(name)).then(|| bridge.gateway.addr()),
                address6: bridge.address6(address),
                gateway6: bridge.gateway6.filter(|_| way_out == Some(name)).map(|gateway| gateway.addr()),
                mtu: bridge.mtu,
            }
        })
        .collect()
}

/// Who can be called by name: every instance on a bridge that this one is on too, at its address there.
fn hosts(stack: &Stack, spec: &ContainerSpec, instance: &str, network: &Network) -> Vec<HostsLine> {
    let mut lines = Vec::new();
    for endpoint in &spec.endpoints {
        for (name, container) in &stack.containers {
            if !container.bridges.iter().any(|bridge| bridge.as_str() == endpoint.bridge) {
                continue;
            }
            for other in instances(name, container) {
                let address = network.addresses[&endpoint.bridge][&other];
                let mut names = vec![other.clone()];
                if other != name.as_str() {
                    names.push(name.to_string());
                }
                if other == instance && spec.hostname != other {
                    names.push(spec.hostname.clone());
                }
                let address6 = network.bridges[endpoint.bridge.as_str()].address6(address).map(|net| net.addr());
                let both = [Some(IpAddr::V4(address)), address6.map(IpAddr::V6)].into_iter().flatten();
                lines.extend(both.map(|address| HostsLine { address, names: names.clone() }));
            }
        }
    }
    if spec.endpoints.is_empty() {
        lines.push(HostsLine { address: Ipv4Addr::LOCALHOST.into(), names: vec![spec.hostname.clone()] });
    }
    lines
}

fn desire_nat(
    stack: &Stack,
    bridges: &IndexMap<Name, DesiredBridge>,
    addresses: &BTreeMap<String, BTreeMap<String, Ipv4Addr>>,
) -> Result<DesiredNat, DesireError> {
    let mut ports = Vec::new();
    for (name, container) in &stack.containers {
        let Some(bridge) = stack.way_out(container) else { continue };
        for instance in instances(name, container) {
            let address = addresses[bridge.as_str()][&instance];
            let address6 = bridges[bridge].address6(address).map(|net| net.addr());
            for port in &container.ports {
                let targets: [Option<IpAddr>; 2] = match port.bind {
                    PortBind::Address(IpAddr::V4(_)) => [Some(address.into()), None],
                    PortBind::Address(IpAddr::V6(_)) if address6.is_none() => {
                        return Err(DesireError::NoIpv6 { container: name.clone(), port: *port });
                    }
                    PortBind::Address(IpAddr::V6(_)) => [None, address6.map(IpAddr::V6)],
                    PortBind::Public => [Some(address.into()), address6.map(IpAddr::V6)],
                };
                ports.extend(targets.into_iter().flatten().map(|address| PortTarget {
                    instance: instance.clone(),
                    port: *port,
                    address,
                }));
            }
        }
    }
    let bridges = bridges.iter().map(|(name, bridge)| (name.to_string(), bridge.clone())).collect();
    Ok(DesiredNat { bridges, ports })
}

/// A bridge's link name. Hashes, because 15 bytes hold no two names, and cut names of two stacks could meet; the link's
/// alias has the names in full.
fn bridge_ifname(stack: &str, bridge: &str) -> String {
    format!("{}{}", bridge_ifname_prefix(stack), short_hash(bridge))
}

/// What the link names of a stack's bridges begin with. By it a bridge is found whose making ended before its label.
pub fn bridge_ifname_prefix(stack: &str) -> String {
    format!("stk{}", short_hash(stack))
}

/// Three bytes, as hexadecimal digits.
fn short_hash(text: &str) -> String {
    let hash = Sha256::digest(text);
    format!("{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2])
}
