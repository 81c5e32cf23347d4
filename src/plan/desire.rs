//! A checked stack and what was found out about the host's side of it become [`Desired`].

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};

use super::address::{beside, gateway_of};
use super::generation::{Choice, choose, generations, order_of};
use super::network::{
    Addresses, Network, decide_addresses, decide_subnets, decide_subnets6, desire_nat, endpoints, hosts, mtu, notes,
};
use super::{
    AddressError, Capacity, ContainerSpec, ContentSpec, Desired, DesiredBridge, DesiredContainer, DnsSpec, FileSpec,
    Held, ImageIdentity, LiveSpec, Order, SeccompSpec, SecretSpec, UpdatePlan, Zone,
};
use crate::model::{Container, Name, PortMap, Seccomp, Stack};

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
    /// Addresses of this stack's services, by bridge, then by container.
    pub services: BTreeMap<String, BTreeMap<String, Ipv4Addr>>,
    /// Containers of this stack, by instance.
    pub instances: BTreeMap<String, Held>,
    /// The host's routes but for this stack's own bridges, with their links.
    pub routes: Vec<(IpNet, String)>,
    /// `None`: it is not known what the host has.
    pub capacity: Option<Capacity>,
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
    let slots: Vec<(String, Order)> = stack
        .containers
        .iter()
        .flat_map(|(name, container)| instances(name, container).into_iter().map(|slot| (slot, order_of(container))))
        .collect();
    // Under which names specs are the ones that the host's containers were made from: tried out with the first name that
    // each place holds, and once more where one holds two.
    let mut wanted = BTreeMap::new();
    let turns = slots.iter().map(|(slot, _)| held_names(slot, kept).len()).max().unwrap_or(0);
    let mut names = Names::new();
    let mut desired = None;
    for turn in 0..turns.max(1) {
        names = slots.iter().map(|(slot, _)| (slot.clone(), nth_name(slot, kept, turn))).collect();
        let tried = assemble(stack, resolved, kept, &names)?;
        wanted.extend(tried.containers.iter().map(|(instance, container)| (instance.clone(), container.digest())));
        desired = Some(tried);
    }
    let mut choices: Vec<(String, Choice)> =
        slots.iter().map(|(slot, order)| (slot.clone(), choose(slot, *order, &kept.instances, &wanted))).collect();
    let chosen = |choices: &[(String, Choice)]| -> Names {
        choices.iter().map(|(slot, choice)| (slot.clone(), choice.instance.clone())).collect()
    };
    let mut desired = match desired {
        Some(desired) if chosen(&choices) == names => desired,
        _ => assemble(stack, resolved, kept, &chosen(&choices))?,
    };
    // Two need two addresses. Where the subnet has none to spare, the old one goes first.
    let mut crowded = Vec::new();
    for (slot, choice) in &mut choices {
        let Some(old) = &choice.takes_over else { continue };
        if !has_addresses_of(&desired, &choice.instance, old, kept) {
            continue;
        }
        *choice = choose(slot, CROWDED, &kept.instances, &wanted);
        crowded.push(slot.clone());
    }
    if !crowded.is_empty() {
        desired = assemble(stack, resolved, kept, &chosen(&choices))?;
    }
    for (slot, choice) in choices {
        if let Some(container) = desired.containers.get_mut(&choice.instance) {
            container.update.takes_over = choice.takes_over;
            if crowded.contains(&slot) {
                container.update.order = CROWDED;
            }
        }
    }
    Ok(desired)
}

const CROWDED: Order = Order::StopFirst("its bridge has no address for a second one");

fn has_addresses_of(desired: &Desired, instance: &str, other: &str, kept: &Kept) -> bool {
    let endpoints = desired.containers.get(instance).map_or(&[][..], |container| &container.spec.endpoints);
    endpoints
        .iter()
        .any(|mine| kept.addresses.get(&mine.bridge).and_then(|held| held.get(other)) == Some(&mine.address))
}

/// The instance of each place.
pub(super) type Names = BTreeMap<String, String>;

fn held_names(slot: &str, kept: &Kept) -> Vec<String> {
    generations(slot).into_iter().filter(|name| kept.instances.contains_key(name)).collect()
}

/// The name of a place's instance at the `turn`th try: of those that are held, the last one again and again.
fn nth_name(slot: &str, kept: &Kept, turn: usize) -> String {
    let held = held_names(slot, kept);
    held.get(turn).or(held.last()).cloned().unwrap_or_else(|| slot.to_owned())
}

fn assemble(stack: &Stack, resolved: &Resolved, kept: &Kept, names: &Names) -> Result<Desired, DesireError> {
    let subnets = decide_subnets(stack, kept)?;
    let subnets6 = decide_subnets6(stack, kept)?;
    let Addresses { of_instances: addresses, of_services: services } = decide_addresses(stack, &subnets, kept, names)?;
    let bridges: IndexMap<Name, DesiredBridge> = stack
        .bridges
        .iter()
        .map(|(name, bridge)| {
            let subnet = subnets[name.as_str()];
            let gateway = Ipv4Net::new_assert(gateway_of(subnet), subnet.prefix_len());
            let ifname = bridge_ifname(stack.name.as_str(), name.as_str());
            let gateway6 = subnets6.get(name.as_str()).map(|subnet6| beside(gateway.addr(), subnet, *subnet6));
            let services = services[name.as_str()].values().copied().collect();
            let (internal, mtu) = (bridge.internal, mtu(bridge));
            (name.clone(), DesiredBridge { ifname, gateway, gateway6, internal, mtu, services })
        })
        .collect();
    let network = Network { bridges: &bridges, addresses: &addresses, services: &services, names };
    let mut containers = IndexMap::new();
    for (name, container) in &stack.containers {
        for slot in instances(name, container) {
            let desired = desire_container(stack, name, &slot, resolved, &network)?;
            containers.insert(desired.instance.clone(), desired);
        }
    }
    let nat = match bridges.is_empty() {
        true => None,
        false => Some(desire_nat(stack, &network)?),
    };
    Ok(Desired {
        stack: stack.name.clone(),
        forwarding: !bridges.is_empty(),
        forwarding6: bridges.values().any(|bridge| bridge.gateway6.is_some()),
        notes: notes(stack, kept),
        cgroups: stack.cgroups.iter().map(|(name, branch)| (name.clone(), branch.limits.clone())).collect(),
        volumes: stack.volumes.keys().cloned().collect::<IndexSet<_>>(),
        images: stack.containers.values().map(|c| (c.image.written.clone(), c.image.source.clone())).collect(),
        nat,
        resolver: Zone::of(&stack.name, &bridges, &containers, &services),
        bridges,
        containers,
        jobs: false,
        origins: stack.origins.clone(),
    })
}

fn desire_container(
    stack: &Stack,
    name: &Name,
    slot: &str,
    resolved: &Resolved,
    network: &Network,
) -> Result<DesiredContainer, DesireError> {
    let container = &stack.containers[name];
    let instance = network.names[slot].as_str();
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
        hostname: container.hostname.clone().unwrap_or_else(|| slot.into()),
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
        dns: dns(stack, &spec, network),
        contents: contents(container, resolved)?,
    };
    let after = container
        .after
        .iter()
        .flat_map(|(other, condition)| {
            let slots = instances(other, &stack.containers[other]);
            slots.into_iter().map(|slot| (network.names[&slot].clone(), *condition))
        })
        .collect();
    let update = UpdatePlan {
        order: order_of(container),
        takes_over: None,
        drain: container.update.drain,
        monitor: container.update.monitor.unwrap_or(match container.health {
            Some(_) => Duration::ZERO,
            None => SETTLES_WITHIN,
        }),
        parallel: container.update.parallel,
    };
    Ok(DesiredContainer {
        instance: instance.into(),
        container: name.clone(),
        shares: container.replicas > 1 && !spec.endpoints.is_empty(),
        spec,
        live,
        after,
        update,
    })
}

const SIGTERM: i32 = 15;
/// A container without a health check that has run for so long counts as ready, unless `monitor` says otherwise.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

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

/// The resolver of the bridge that is the way out, else of the first.
fn dns(stack: &Stack, spec: &ContainerSpec, network: &Network) -> Option<DnsSpec> {
    let endpoint = spec.endpoints.iter().find(|endpoint| endpoint.gateway.is_some()).or(spec.endpoints.first())?;
    let server = network.bridges[endpoint.bridge.as_str()].gateway.addr();
    Some(DnsSpec { server, search: stack.name.clone() })
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
