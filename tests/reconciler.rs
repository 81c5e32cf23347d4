//! Ring 3: the reconciler on a host in memory that can die after any half-step. Whatever happens, the next plain run
//! converges; what is in sync is left alone; the order of things is kept; `down` leaves nothing but data.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use proptest::prelude::*;
use stack::file::{self, Files, HostFiles, Surroundings};
use stack::model::{Condition, Limits, Name, Stack};
use stack::plan::{DesiredContainer, DesiredNat, Kind, Label, Resolved, ResolvedImage, digest_of};
use stack::reconcile::{
    Action, Actual, ActualBridge, ActualCgroup, ActualContainer, ActualLink, ActualNat, ActualRoot, Event, HealthState,
    Host, HostError, HostFacts, KernelLimits, Phase, Reactions, RunFacts, StoredContainer, Verb, Volumes, Wish,
    hosts_text, look, travel,
};

/// A host that keeps its objects in memory, holds on to the kernel's rules about them, and dies when its fuse is burnt.
struct FakeHost {
    world: RefCell<Actual>,
    /// Half-steps until the process that works on it is killed.
    fuse: Cell<Option<usize>>,
    /// Instances whose process was started or stopped.
    touched: RefCell<BTreeSet<String>>,
    stack: Name,
    images: RefCell<BTreeSet<String>>,
    /// What containers were told of new contents.
    told: RefCell<Vec<(String, Reactions)>>,
    /// What followed files hold, by their path.
    files: RefCell<BTreeMap<PathBuf, String>>,
}

impl FakeHost {
    fn new(stack: &Name) -> Self {
        FakeHost {
            world: RefCell::new(Actual { ipv6: true, ..Actual::default() }),
            fuse: Cell::new(None),
            touched: RefCell::default(),
            stack: stack.clone(),
            images: RefCell::default(),
            told: RefCell::default(),
            files: RefCell::default(),
        }
    }

    /// One half-step: the process may be dead before it.
    fn step(&self) -> Result<(), HostError> {
        match self.fuse.get() {
            Some(0) => Err(HostError::Said("killed".into())),
            Some(left) => {
                self.fuse.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn label(&self, kind: Kind, name: &str, digest: String) -> Label {
        Label { stack: self.stack.clone(), kind, name: name.into(), digest }
    }

    fn create(&self, wanted: &DesiredContainer) -> Result<(), HostError> {
        let name = wanted.instance.clone();
        {
            let world = self.world.borrow();
            assert!(world.root == ActualRoot::Finished, "the stack's cgroup comes before its containers");
            assert!(!world.containers.contains_key(&name), "`{name}` is made twice");
            assert!(!world.missing_layers.contains_key(&wanted.spec.image.name), "layers come before containers");
            if let Some((branch, _)) = wanted.spec.cgroup.split_once(".branch/") {
                assert!(world.cgroups.contains_key(branch), "a branch comes before what is in it");
            }
            for endpoint in &wanted.spec.endpoints {
                let bridge = world.bridges.get(&endpoint.bridge).expect("a bridge comes before its containers");
                let gateway = endpoint.gateway.unwrap_or(bridge.address.unwrap().addr());
                assert_eq!(bridge.address.unwrap().addr(), gateway, "the bridge has its address first");
            }
            for other in world.containers.values() {
                for theirs in other.stored.iter().flat_map(|stored| &stored.spec.endpoints) {
                    assert!(
                        !wanted.spec.endpoints.iter().any(|mine| mine.address == theirs.address),
                        "two containers have one address"
                    );
                }
            }
            for volume in &wanted.spec.volumes {
                assert!(world.volumes.contains(volume.volume.as_str()), "a volume comes before its containers");
            }
        }
        self.step()?;
        self.touched.borrow_mut().insert(name.clone());
        let half_made = ActualContainer {
            label: None,
            stored: None,
            limits: self.kernel_limits(&Limits::default()),
            phase: Phase::Leftover,
            health: HealthState::None,
            links: vec![],
            hosts: None,
            contents: BTreeMap::new(),
            run: RunFacts::default(),
        };
        self.world.borrow_mut().containers.insert(name.clone(), half_made);
        self.change(&name, |c| c.limits = self.kernel_limits(&wanted.live.limits))?;
        self.change(&name, |c| c.stored = Some(StoredContainer::from(wanted)))?;
        self.change(&name, |c| c.hosts = Some(hosts_text(&wanted.live.hosts)))?;
        self.change(&name, |c| write_contents(c, wanted))?;
        for endpoint in &wanted.spec.endpoints {
            self.change(&name, |c| c.links.push(link(&endpoint.bridge)))?;
        }
        self.change(&name, |c| c.phase = Phase::Running)?;
        self.change(&name, |c| c.label = Some(self.label(Kind::Container, &name, wanted.digest())))
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut ActualContainer)) -> Result<(), HostError> {
        self.step()?;
        change(self.world.borrow_mut().containers.get_mut(name).expect("it is there"));
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), HostError> {
        if !self.world.borrow().containers.contains_key(name) {
            return Ok(());
        }
        self.touched.borrow_mut().insert(name.into());
        self.change(name, |c| c.phase = Phase::Leftover)?;
        self.change(name, |c| c.label = None)?;
        self.change(name, |c| c.links.clear())?;
        self.step()?;
        self.world.borrow_mut().containers.remove(name);
        Ok(())
    }

    fn bridge(&self, name: &str, wanted: &stack::plan::DesiredBridge) -> Result<(), HostError> {
        let unfinished = ActualBridge {
            ifname: wanted.ifname.clone(),
            labelled: false,
            up: false,
            mtu: 1500,
            address: None,
            address6: None,
            switches: false,
        };
        self.step()?;
        self.world.borrow_mut().bridges.entry(name.into()).or_insert(unfinished);
        let set = |change: &dyn Fn(&mut ActualBridge)| {
            self.step()?;
            change(self.world.borrow_mut().bridges.get_mut(name).expect("it is there"));
            Ok::<_, HostError>(())
        };
        set(&|bridge| bridge.address = Some(wanted.gateway))?;
        set(&|bridge| bridge.address6 = wanted.gateway6)?;
        set(&|bridge| bridge.mtu = wanted.mtu)?;
        set(&|bridge| bridge.up = true)?;
        set(&|bridge| bridge.switches = true)?;
        set(&|bridge| bridge.labelled = true)
    }
}

fn write_contents(container: &mut ActualContainer, wanted: &DesiredContainer) {
    let contents = wanted.live.contents.iter();
    container.contents = contents.map(|content| (content.target.clone(), content.content.clone())).collect();
}

fn link(bridge: &str) -> ActualLink {
    ActualLink { bridge: bridge.into(), ifname: format!("v-{bridge}"), up: true, carrier: true, attached: true }
}

impl HostFacts for FakeHost {
    fn kernel_limits(&self, limits: &Limits) -> KernelLimits {
        KernelLimits::from([
            ("memory.max", limits.memory.map_or("max".into(), |size| size.to_string())),
            ("pids.max", limits.pids.map_or("max".into(), |pids| pids.to_string())),
        ])
    }

    fn nat_parts(&self, nat: &DesiredNat) -> BTreeMap<String, String> {
        let ports = nat.ports.iter().map(|target| {
            let port = &target.port;
            let key = format!("port {}:{}/{}", port.bind, port.host_port, port.protocol);
            (key + &target.address.is_ipv6().to_string(), format!("{}:{}", target.address, port.container_port))
        });
        let rules = nat.bridges.iter().map(|(name, bridge)| (format!("rule {name}"), bridge.gateway.to_string()));
        ports.chain(rules).collect()
    }
}

impl Host for FakeHost {
    fn resolve(&self, stack: &Stack) -> Result<Resolved, HostError> {
        let mut resolved = Resolved::default();
        let mut missing = BTreeMap::new();
        for container in stack.containers.values() {
            let image = ResolvedImage { id: "sha256:1".into(), command: vec!["true".into()], ..Default::default() };
            resolved.images.insert(container.image.written.clone(), image);
            for file in container.files.iter().map(|file| &file.file) {
                let content = self.files.borrow().get(file).cloned().unwrap_or_default();
                resolved.contents.insert(file.clone(), content);
            }
            if !self.images.borrow().contains(&container.image.written) {
                missing.insert(container.image.written.clone(), 1);
            }
        }
        self.world.borrow_mut().missing_layers = missing;
        Ok(resolved)
    }

    async fn observe(&self, _: &Name) -> Result<Actual, HostError> {
        Ok(self.world.borrow().clone())
    }

    async fn apply(&self, action: &Action) -> Result<(), HostError> {
        self.step()?;
        let mut world = self.world.borrow_mut();
        match action {
            Action::EnableForwarding { .. } => world.forwarding = true,
            Action::EnableForwarding6 { .. } => world.forwarding6 = true,
            Action::CreateRoot => world.root = ActualRoot::Finished,
            Action::RemoveRoot => {
                assert!(world.containers.is_empty() && world.cgroups.is_empty(), "the stack's cgroup goes last");
                world.root = ActualRoot::Nothing;
            }
            Action::CreateBranch { name, limits } => {
                assert_eq!(world.root, ActualRoot::Finished);
                let unfinished = ActualCgroup { labelled: false, limits: self.kernel_limits(&Limits::default()) };
                world.cgroups.insert(name.clone(), unfinished);
                self.step()?;
                world.cgroups.insert(name.clone(), ActualCgroup { labelled: true, limits: self.kernel_limits(limits) });
            }
            Action::LimitBranch { name, limits } => {
                world.cgroups.get_mut(name).expect("it is there").limits = self.kernel_limits(limits);
            }
            Action::RemoveBranch { name } => {
                let inside = format!("{name}.branch/");
                let full = world
                    .containers
                    .values()
                    .any(|c| c.stored.as_ref().is_some_and(|stored| stored.spec.cgroup.starts_with(&inside)));
                assert!(!full, "a branch goes after what is in it");
                world.cgroups.remove(name);
            }
            Action::CreateVolume { name } => drop(world.volumes.insert(name.clone())),
            Action::RemoveVolume { name } => drop(world.volumes.remove(name)),
            Action::BuildImage { name } => drop(world.unbuilt.remove(name)),
            Action::UnpackImage { name } => {
                self.images.borrow_mut().insert(name.clone());
                world.missing_layers.remove(name);
            }
            Action::CreateBridge { name, bridge } | Action::AdjustBridge { name, bridge } => {
                drop(world);
                return self.bridge(name, bridge);
            }
            Action::RemoveBridge { name, .. } => {
                let used = world.containers.values().any(|c| c.links.iter().any(|link| link.bridge == *name));
                assert!(!used, "a bridge goes after what is linked to it");
                world.bridges.remove(name);
            }
            Action::WriteNat(nat) => {
                let parts = self.nat_parts(nat);
                let label = Some(self.label(Kind::Nat, "", digest_of(&parts)));
                world.nat = Some(ActualNat { label, parts });
            }
            Action::RemoveNat => world.nat = None,
            Action::CreateContainer(wanted) => {
                drop(world);
                return self.create(wanted);
            }
            Action::ReplaceContainer(wanted) => {
                drop(world);
                self.remove(&wanted.instance)?;
                return self.create(wanted);
            }
            Action::AdjustContainer(adjust) => {
                drop(world);
                let name = &adjust.desired.instance;
                if adjust.limits {
                    self.change(name, |c| c.limits = self.kernel_limits(&adjust.desired.live.limits))?;
                }
                if adjust.hosts {
                    self.change(name, |c| c.hosts = Some(hosts_text(&adjust.desired.live.hosts)))?;
                }
                for bridge in &adjust.links {
                    self.change(name, |c| {
                        c.links.retain(|link| link.bridge != *bridge);
                        c.links.push(link(bridge));
                    })?;
                }
                if !adjust.contents.is_empty() {
                    self.change(name, |c| write_contents(c, &adjust.desired))?;
                }
                if !adjust.reactions.is_empty() {
                    self.step()?;
                    let mut told = self.told.borrow_mut();
                    told.push((name.clone(), adjust.reactions.clone()));
                    if adjust.reactions.restart {
                        self.touched.borrow_mut().insert(name.clone());
                    }
                }
                return self.change(name, |c| c.stored = Some(StoredContainer::from(&adjust.desired)));
            }
            Action::RemoveContainer { instance, .. } => {
                drop(world);
                return self.remove(instance);
            }
        }
        Ok(())
    }

    async fn reached(&self, instance: &str, _: Condition) -> Result<(), HostError> {
        let world = self.world.borrow();
        let phase = world.containers.get(instance).map(|container| &container.phase);
        assert_eq!(phase, Some(&Phase::Running), "a container waits only for what was started before it");
        Ok(())
    }
}

/// Goes the whole road once; gives what was left to do and the verbs of the steps that were planned.
fn go(host: &FakeHost, wish: &Wish) -> (usize, Vec<(Verb, String)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let looked = look(host, wish).await.expect("looking never fails here");
        let planned = looked.plan.steps.iter().map(|step| (step.verb, step.resource.to_string())).collect();
        for step in &looked.plan.steps {
            assert!(step.after.iter().all(|need| *need < step.id), "steps stand in an order that can be followed");
        }
        let travelled = travel(host, wish, looked, std::future::pending(), |_: Event| {}).await.unwrap();
        (travelled.left.steps.len(), planned)
    })
}

/// A stack file as a person might write it, small enough that two of them often share names.
#[derive(Clone, Debug)]
struct Draft {
    bridges: BTreeMap<String, u8>,
    branches: BTreeMap<String, u8>,
    containers: Vec<ContainerDraft>,
}

#[derive(Clone, Debug)]
struct ContainerDraft {
    name: usize,
    bridges: Vec<bool>,
    branch: Option<bool>,
    volume: bool,
    env: u8,
    memory: u8,
    replicas: u8,
    port: bool,
    after: Vec<bool>,
}

fn draft() -> impl Strategy<Value = Draft> {
    let bridges = proptest::collection::btree_map("[xyz]", 0u8..3, 0..3);
    let branches = proptest::collection::btree_map("[pq]", 0u8..3, 0..3);
    let container =
        (
            (
                0usize..5,
                proptest::collection::vec(any::<bool>(), 3),
                proptest::option::of(any::<bool>()),
                any::<bool>(),
            ),
            (0u8..3, 0u8..3, 1u8..4, any::<bool>(), proptest::collection::vec(any::<bool>(), 5)),
        )
            .prop_map(|((name, bridges, branch, volume), (env, memory, replicas, port, after))| {
                ContainerDraft { name, bridges, branch, volume, env, memory, replicas, port, after }
            });
    (bridges, branches, proptest::collection::vec(container, 1..5)).prop_map(|(bridges, branches, containers)| Draft {
        bridges,
        branches,
        containers,
    })
}

impl Draft {
    fn text(&self) -> String {
        let mut text = String::from("name = \"shop\"\n[image.app]\nfrom = \"host:\"\n[volume.data]\n");
        for (name, variant) in &self.bridges {
            text += &format!("[bridge.{name}]\nmtu = {}\n", 1400 + u32::from(*variant));
        }
        for (name, variant) in &self.branches {
            text += &format!("[cgroup.{name}]\nmemory = \"{}GiB\"\n", variant + 1);
        }
        let mut seen = Vec::new();
        for container in &self.containers {
            if seen.contains(&container.name) {
                continue;
            }
            text += &container.text(self, &seen);
            seen.push(container.name);
        }
        text
    }

    fn stack(&self) -> Stack {
        let text = self.text();
        let variables = HashMap::new();
        let files: &dyn Files = &HostFiles;
        let surroundings = Surroundings { variables: &variables, folder: "/".into(), files, profiles: &[] };
        match file::parse("stack.toml", &text, &surroundings) {
            Ok(stack) => stack,
            Err(diagnostics) => panic!("{text}\n{}", diagnostics.render(file::Look::Plain)),
        }
    }
}

impl ContainerDraft {
    fn text(&self, draft: &Draft, seen: &[usize]) -> String {
        let name = |index: usize| ["a", "b", "c", "d", "e"][index];
        let mut text = format!("[container.{}]\nimage = \"app\"\nenv = {{ V = \"{}\" }}\n", name(self.name), self.env);
        let bridges: Vec<String> = draft
            .bridges
            .keys()
            .zip(&self.bridges)
            .filter(|(_, on)| **on)
            .map(|(bridge, _)| format!("\"{bridge}\""))
            .collect();
        text += &format!("bridge = [{}]\n", bridges.join(", "));
        text += &format!("memory = \"{}MiB\"\n", 64 << self.memory);
        let with_port = self.port && !bridges.is_empty();
        match with_port {
            true => text += &format!("port = [\"{}:80\"]\n", 8000 + self.name),
            false => text += &format!("replicas = {}\n", self.replicas),
        }
        if let Some(branch) = self.branch.and_then(|second| draft.branches.keys().nth(usize::from(second))) {
            text += &format!("cgroup = \"{branch}\"\n");
        }
        if self.volume {
            text += "volume = [\"data:/data\"]\n";
        }
        let after: Vec<String> = seen
            .iter()
            .zip(&self.after)
            .filter(|(_, on)| **on)
            .map(|(other, _)| format!("{} = \"started\"", name(*other)))
            .collect();
        text + &format!("after = {{ {} }}\n", after.join(", "))
    }
}

fn host_with(stack: &Stack) -> FakeHost {
    let host = FakeHost::new(&stack.name);
    let (left, _) = go(&host, &Wish::Stack(stack));
    assert_eq!(left, 0, "the first run converges");
    host
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn up_and_then_diff_is_empty(draft in draft()) {
        let stack = draft.stack();
        let host = host_with(&stack);
        host.touched.borrow_mut().clear();
        let (left, planned) = go(&host, &Wish::Stack(&stack));
        prop_assert_eq!((left, planned), (0, vec![]));
        prop_assert!(host.touched.borrow().is_empty());
    }

    #[test]
    fn one_stack_becomes_another_and_only_what_the_plan_names_is_touched(from in draft(), to in draft()) {
        let (from, to) = (from.stack(), to.stack());
        let host = host_with(&from);
        host.touched.borrow_mut().clear();
        let (left, planned) = go(&host, &Wish::Stack(&to));
        prop_assert_eq!(left, 0);
        for name in host.touched.borrow().iter() {
            let resource = format!("container {name}");
            let named = planned.iter().any(|(verb, planned)| *planned == resource && *verb != Verb::Live);
            prop_assert!(named, "{} was touched and the plan did not say so", name);
        }
    }

    #[test]
    fn killed_at_any_half_step_the_next_run_converges(from in draft(), to in draft()) {
        let (from, to) = (from.stack(), to.stack());
        for half_step in 0.. {
            let host = host_with(&from);
            host.fuse.set(Some(half_step));
            let (left, _) = go(&host, &Wish::Stack(&to));
            let survived = host.fuse.get() != Some(0);
            host.fuse.set(None);
            if survived {
                prop_assert_eq!(left, 0);
                break;
            }
            let (left, _) = go(&host, &Wish::Stack(&to));
            prop_assert_eq!(left, 0, "killed after {} half-steps", half_step);
        }
    }

    #[test]
    fn down_leaves_nothing_but_volumes_even_when_it_is_killed_on_the_way(draft in draft()) {
        let stack = draft.stack();
        let nothing = Wish::Nothing { stack: &stack.name, volumes: Volumes::Keep };
        for half_step in 0.. {
            let host = host_with(&stack);
            host.fuse.set(Some(half_step));
            go(&host, &nothing);
            let survived = host.fuse.get() != Some(0);
            host.fuse.set(None);
            let (left, _) = go(&host, &nothing);
            let world = host.world.borrow();
            prop_assert_eq!(left, 0);
            prop_assert!(world.containers.is_empty() && world.bridges.is_empty() && world.cgroups.is_empty());
            prop_assert!(world.nat.is_none() && world.root == ActualRoot::Nothing);
            prop_assert!(world.volumes.contains("data"), "data is not deleted");
            if survived {
                break;
            }
        }
    }
}

/// A running stack of three, for drift that is made by hand.
fn shop() -> (Stack, FakeHost) {
    let text = "name = \"shop\"\n[image.app]\nfrom = \"host:\"\n[bridge.x]\n\
        [container.a]\nimage = \"app\"\nbridge = [\"x\"]\nmemory = \"64MiB\"\nport = [\"8080:80\"]\n\
        [container.b]\nimage = \"app\"\nbridge = [\"x\"]\nafter = { a = \"started\" }\n\
        [container.c]\nimage = \"app\"\n";
    let variables = HashMap::new();
    let surroundings = Surroundings { variables: &variables, folder: "/".into(), files: &HostFiles, profiles: &[] };
    let stack = file::parse("stack.toml", text, &surroundings).expect("a good file");
    let host = host_with(&stack);
    host.touched.borrow_mut().clear();
    (stack, host)
}

/// After `drift` the plan is just `expect`, and one run puts it right without touching any container but those `touched`.
fn check_drift(drift: impl FnOnce(&mut Actual), expect: (Verb, &str), touched: &[&str]) {
    let (stack, host) = shop();
    drift(&mut host.world.borrow_mut());
    let (left, planned) = go(&host, &Wish::Stack(&stack));
    assert_eq!(planned, [(expect.0, expect.1.to_string())]);
    assert_eq!(left, 0);
    let expected: BTreeSet<String> = touched.iter().map(|name| name.to_string()).collect();
    assert_eq!(*host.touched.borrow(), expected);
}

#[test]
fn a_limit_changed_outside_is_put_back_with_nothing_restarted() {
    let drift = |world: &mut Actual| {
        world.containers.get_mut("a").unwrap().limits.insert("memory.max", "1GiB".into());
    };
    check_drift(drift, (Verb::Repair, "container a"), &[]);
}

#[test]
fn a_flushed_table_is_written_again_with_no_container_touched() {
    check_drift(|world| world.nat = None, (Verb::Create, "nat"), &[]);
    let one_rule = |world: &mut Actual| drop(world.nat.as_mut().unwrap().parts.pop_first());
    check_drift(one_rule, (Verb::Repair, "nat"), &[]);
}

#[test]
fn a_downed_link_is_brought_up() {
    let drift = |world: &mut Actual| world.containers.get_mut("a").unwrap().links[0].up = false;
    check_drift(drift, (Verb::Repair, "container a"), &[]);
    let drift = |world: &mut Actual| world.bridges.get_mut("x").unwrap().up = false;
    check_drift(drift, (Verb::Live, "bridge x"), &[]);
}

#[test]
fn a_killed_container_is_made_again_and_no_other_is() {
    let drift = |world: &mut Actual| {
        world.containers.get_mut("a").unwrap().phase = Phase::Lost { what: "its monitor was killed" };
    };
    check_drift(drift, (Verb::Repair, "container a"), &["a"]);
    let drift = |world: &mut Actual| world.containers.get_mut("c").unwrap().phase = Phase::Exited { code: 137 };
    check_drift(drift, (Verb::Restart, "container c"), &["c"]);
}

#[test]
fn a_container_that_completed_is_as_it_should_be() {
    let (stack, host) = shop();
    host.world.borrow_mut().containers.get_mut("c").unwrap().phase = Phase::Exited { code: 0 };
    assert_eq!(go(&host, &Wish::Stack(&stack)), (0, vec![]));
}

/// What `up` does with a job that ended with `code`, whose `LEVEL` is another one since. The look after it finds nothing to do.
fn check_job(run: &str, code: i32, level: &str, expect: Option<Verb>) {
    let stack = |level: &str| {
        let text = format!(
            "name = \"shop\"\n[container.job]\nimage = \"host:\"\ntype = \"oneshot\"\nrun = \"{run}\"\nenv = {{ LEVEL = \"{level}\" }}\n"
        );
        let variables = HashMap::new();
        let surroundings = Surroundings { variables: &variables, folder: "/".into(), files: &HostFiles, profiles: &[] };
        file::parse("stack.toml", &text, &surroundings).expect("a good file")
    };
    let host = host_with(&stack("info"));
    host.world.borrow_mut().containers.get_mut("job").unwrap().phase = Phase::Exited { code };
    let wanted = stack(level);
    let (left, planned) = go(&host, &Wish::Run(&wanted));
    let expected: Vec<(Verb, String)> = expect.into_iter().map(|verb| (verb, "container job".to_string())).collect();
    assert_eq!((left, planned), (0, expected), "{run} {code} {level}");
    host.world.borrow_mut().containers.get_mut("job").unwrap().phase = Phase::Exited { code: 0 };
    assert_eq!(go(&host, &Wish::Stack(&wanted)), (0, vec![]), "a look that is no `up` runs no job: {run} {level}");
}

#[test]
fn a_completed_job_runs_again_when_its_rule_says_so() {
    check_job("once", 0, "info", None);
    check_job("once", 0, "debug", None);
    check_job("on-change", 0, "info", None);
    check_job("on-change", 0, "debug", Some(Verb::Replace));
    check_job("always", 0, "info", Some(Verb::Restart));
    check_job("always", 0, "debug", Some(Verb::Replace));
}

#[test]
fn a_failed_job_runs_again_whatever_its_rule() {
    for run in ["once", "on-change", "always"] {
        check_job(run, 3, "info", Some(Verb::Restart));
    }
}

#[test]
fn a_failed_step_skips_what_hangs_on_it_and_nothing_else() {
    struct Broken(FakeHost);
    impl HostFacts for Broken {
        fn kernel_limits(&self, limits: &Limits) -> KernelLimits {
            self.0.kernel_limits(limits)
        }
        fn nat_parts(&self, nat: &DesiredNat) -> BTreeMap<String, String> {
            self.0.nat_parts(nat)
        }
    }
    impl Host for Broken {
        fn resolve(&self, stack: &Stack) -> Result<Resolved, HostError> {
            self.0.resolve(stack)
        }
        async fn observe(&self, stack: &Name) -> Result<Actual, HostError> {
            self.0.observe(stack).await
        }
        async fn apply(&self, action: &Action) -> Result<(), HostError> {
            match action {
                Action::CreateContainer(wanted) if wanted.instance == "a" => Err(HostError::Said("no room".into())),
                action => self.0.apply(action).await,
            }
        }
        async fn reached(&self, instance: &str, condition: Condition) -> Result<(), HostError> {
            self.0.reached(instance, condition).await
        }
    }
    let (stack, _) = shop();
    let host = Broken(FakeHost::new(&stack.name));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let report = runtime.block_on(async {
        let wish = Wish::Stack(&stack);
        let looked = look(&host, &wish).await.unwrap();
        travel(&host, &wish, looked, std::future::pending(), |_: Event| {}).await.unwrap().report
    });
    assert_eq!(report.failed.len(), 1, "the cause is named once");
    assert_eq!(report.skipped.len(), 1, "only `b` hangs on `a`");
    assert!(host.0.world.borrow().containers.contains_key("c"));
}

/// One container with a followed file, which holds "old" on a host where it runs.
fn followed(on_change: &str) -> (Stack, FakeHost) {
    let text = format!(
        "name = \"shop\"\n[container.a]\nimage = \"host:\"\ncommand = [\"x\"]\n\
         mount = [{{ bind = \"/etc/passwd\", target = \"/app.conf\", on_change = \"{on_change}\" }}]\n"
    );
    let variables = HashMap::new();
    let surroundings = Surroundings { variables: &variables, folder: "/".into(), files: &HostFiles, profiles: &[] };
    let stack = file::parse("stack.toml", &text, &surroundings).expect("a good file");
    let host = FakeHost::new(&stack.name);
    host.files.borrow_mut().insert("/etc/passwd".into(), "old".into());
    assert_eq!(go(&host, &Wish::Stack(&stack)).0, 0);
    host.touched.borrow_mut().clear();
    (stack, host)
}

/// A new content of the file is one step with this verb, and tells the container this.
fn check_content(on_change: &str, verb: Verb, told: Option<Reactions>) {
    let (stack, host) = followed(on_change);
    host.files.borrow_mut().insert("/etc/passwd".into(), "new".into());
    assert_eq!(go(&host, &Wish::Stack(&stack)), (0, vec![(verb, "container a".into())]));
    let expected: Vec<(String, Reactions)> = told.into_iter().map(|told| ("a".to_string(), told)).collect();
    assert_eq!(*host.told.borrow(), expected);
    assert_eq!(host.world.borrow().containers["a"].contents["/app.conf"], "new");
}

#[test]
fn another_content_does_what_on_change_says_and_makes_no_new_container() {
    check_content("none", Verb::Live, None);
    check_content("restart", Verb::Restart, Some(Reactions { restart: true, ..Reactions::default() }));
    check_content("signal:HUP", Verb::Reload, Some(Reactions { signals: vec![1], ..Reactions::default() }));
    let commands = vec![vec!["nginx".into(), "-s".into(), "reload".into()]];
    check_content("exec:nginx -s reload", Verb::Reload, Some(Reactions { commands, ..Reactions::default() }));
}

#[test]
fn another_on_change_with_the_same_content_tells_nobody() {
    let (_, host) = followed("restart");
    let (stack, _) = followed("signal:HUP");
    assert_eq!(go(&host, &Wish::Stack(&stack)), (0, vec![(Verb::Live, "container a".into())]));
    assert!(host.told.borrow().is_empty() && host.touched.borrow().is_empty());
}

#[test]
fn a_run_that_dies_between_the_file_and_the_word_is_made_good_by_the_next() {
    for half_step in 0.. {
        let (stack, host) = followed("signal:HUP");
        host.files.borrow_mut().insert("/etc/passwd".into(), "new".into());
        host.fuse.set(Some(half_step));
        go(&host, &Wish::Stack(&stack));
        let survived = host.fuse.get() != Some(0);
        host.fuse.set(None);
        let (left, _) = go(&host, &Wish::Stack(&stack));
        assert_eq!(left, 0);
        assert!(!host.told.borrow().is_empty(), "the container heard of it, killed after {half_step} half-steps");
        if survived {
            break;
        }
    }
}

#[test]
fn a_copy_that_a_stranger_changed_is_written_again() {
    let (stack, host) = followed("none");
    host.world.borrow_mut().containers.get_mut("a").unwrap().contents.insert("/app.conf".into(), "theirs".into());
    assert_eq!(go(&host, &Wish::Stack(&stack)), (0, vec![(Verb::Repair, "container a".into())]));
    assert_eq!(host.world.borrow().containers["a"].contents["/app.conf"], "old");
}
