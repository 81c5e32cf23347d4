//! A checked stack and what was found out about the host's side of it become [`Desired`].

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use indexmap::{IndexMap, IndexSet};
use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

use super::address::gateway_of;
use super::{
    AddressError, ContainerSpec, ContentSpec, Desired, DesiredBridge, DesiredContainer, DesiredNat, Endpoint, FileSpec,
    HostsLine, ImageIdentity, LiveSpec, PortTarget, SeccompSpec, SecretSpec, choose_subnet, hand_out,
};
use crate::model::{Container, Name, Seccomp, Stack};

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
    /// Addresses of this stack's containers, by bridge, then by instance.
    pub addresses: BTreeMap<String, BTreeMap<String, Ipv4Addr>>,
    /// The host's routes but for this stack's own bridges, with their links.
    pub routes: Vec<(Ipv4Net, String)>,
}

/// Why a stack cannot be had on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DesireError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("subnet {subnet} of bridge `{bridge}` overlaps the route {route} of `{link}`")]
    SubnetTaken { bridge: Name, subnet: Ipv4Net, route: Ipv4Net, link: String },
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
    let addresses = decide_addresses(stack, &subnets, kept)?;
    let bridges: IndexMap<Name, DesiredBridge> = stack
        .bridges
        .iter()
        .map(|(name, bridge)| {
            let subnet = subnets[name.as_str()];
            let gateway = Ipv4Net::new_assert(gateway_of(subnet), subnet.prefix_len());
            let ifname = bridge_ifname(stack.name.as_str(), name.as_str());
            (name.clone(), DesiredBridge { ifname, gateway, mtu: bridge.mtu.unwrap_or(1500) })
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
        cgroups: stack.cgroups.iter().map(|(name, branch)| (name.clone(), branch.limits.clone())).collect(),
        volumes: stack.volumes.keys().cloned().collect::<IndexSet<_>>(),
        images: stack.containers.values().map(|c| (c.image.written.clone(), c.image.source.clone())).collect(),
        nat: (!bridges.is_empty()).then(|| desire_nat(stack, &bridges, &addresses)),
        bridges,
        containers,
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
        let clash = kept.routes.iter().find(|(route, _)| {
            route.prefix_len() > 0 && (route.contains(&subnet.network()) || subnet.contains(&route.network()))
        });
        if let Some((route, link)) = clash {
            return Err(DesireError::SubnetTaken { bridge: name.clone(), subnet, route: *route, link: link.clone() });
        }
        subnets.insert(name.to_string(), subnet);
    }
    for (name, bridge) in &stack.bridges {
        if bridge.subnet.is_some() {
            continue;
        }
        let taken: Vec<Ipv4Net> = kept.routes.iter().map(|(net, _)| *net).chain(subnets.values().copied()).collect();
        let held = kept.subnets.get(name.as_str()).copied();
        let subnet = match held.filter(|subnet| !subnets.values().any(|other| other == subnet)) {
            Some(subnet) => subnet,
            None => choose_subnet(stack.name.as_str(), name.as_str(), &taken)?,
        };
        subnets.insert(name.to_string(), subnet);
    }
    Ok(subnets)
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
    let endpoints = endpoints(container, instance, network);
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

fn endpoints(container: &Container, instance: &str, network: &Network) -> Vec<Endpoint> {
    container
        .bridges
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let bridge = &network.bridges[name];
            Endpoint {
                bridge: name.to_string(),
                interface: format!("eth{index}"),
                address: network.addresses[name.as_str()][instance],
                prefix: bridge.gateway.prefix_len(),
                gateway: (index == 0).then(|| bridge.gateway.addr()),
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
                lines.push(HostsLine { address, names });
            }
        }
    }
    if spec.endpoints.is_empty() {
        lines.push(HostsLine { address: Ipv4Addr::LOCALHOST, names: vec![spec.hostname.clone()] });
    }
    lines
}

fn desire_nat(
    stack: &Stack,
    bridges: &IndexMap<Name, DesiredBridge>,
    addresses: &BTreeMap<String, BTreeMap<String, Ipv4Addr>>,
) -> DesiredNat {
    let mut ports = Vec::new();
    for (name, container) in &stack.containers {
        let Some(bridge) = container.bridges.first() else { continue };
        for instance in instances(name, container) {
            let address = addresses[bridge.as_str()][&instance];
            ports.extend(container.ports.iter().map(|port| PortTarget {
                instance: instance.clone(),
                port: *port,
                address,
            }));
        }
    }
    let bridges = bridges.iter().map(|(name, bridge)| (name.to_string(), bridge.clone())).collect();
    DesiredNat { bridges, ports }
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
