//! Links, addresses and NAT on the real kernel, each test in network namespaces of its own. Needs root, and the Debian
//! packages `iproute2` and `nftables` as a stranger's hand and eye.

#[path = "kernel_net/world.rs"]
mod world;

use std::net::Ipv4Addr;

use stack::runtime::net::{
    BridgeSpec, BridgeSwitch, ElementsChange, EndpointDifference, Expression, Inverted, NatBind, NatDifference,
    NatTable, Nft, NftError, Rule, Sysctls, VethSpec, configure_endpoint, differences, endpoint_differences,
    generate_veth_mac, observe_endpoint, routes,
};

use world::{CLIENT, DB, HOST, Namespace, OTHER, TABLE, WEB, World, endpoint, exchange, gateway, nat, tcp, udp};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn a_bridge_and_a_veth_pair_are_as_they_were_declared() {
    let world = World::new();
    let links = world.host.with_links(async |links| links.list().unwrap());
    let bridge = links.iter().find(|link| link.name == "front").unwrap();
    assert_eq!((bridge.kind.as_str(), bridge.up, bridge.mtu), ("bridge", true, 1500));
    assert_eq!(bridge.alias.as_deref(), Some("v1 shop bridge/front 00"));
    assert_eq!(bridge.addresses, ["10.70.0.1/26".parse().unwrap()], "IPv4 alone, as declared");
    assert_eq!(bridge.mac, Some(generate_veth_mac(gateway("front"))), "ports do not change the bridge's address");
    let port = links.iter().find(|link| link.name == "ve-front2").unwrap();
    assert_eq!((port.kind.as_str(), port.up, port.master), ("veth", true, Some(bridge.index)));
    assert_eq!(port.alias.as_deref(), Some("v1 shop veth/front2 00"));
    assert_eq!(port.addresses, []);
    let port = world.host.program("ip -d link show ve-front2");
    assert!(port.contains("hairpin on") && port.contains("state forwarding"), "{port}");
    let inside = world.web.run(|| observe_endpoint().unwrap());
    let peer = inside.links.iter().find(|link| link.name == "eth0").unwrap();
    assert_eq!(peer.mac, Some(generate_veth_mac(WEB)));
    assert_eq!(peer.addresses, ["10.70.0.2/26".parse().unwrap()]);
}

#[test]
fn a_bridge_keeps_its_mtu_when_its_last_port_goes() {
    let (host, container) = (Namespace::new(), Namespace::new());
    host.with_links(async |links| {
        let spec = BridgeSpec {
            name: "b".into(),
            address: "10.9.0.1/26".parse().unwrap(),
            address6: None,
            mtu: 1400,
            alias: "label".into(),
        };
        let bridge_index = links.create_bridge(&spec).await.unwrap();
        let veth = VethSpec {
            host_name: "v".into(),
            alias: "label".into(),
            bridge_index,
            mtu: 1400,
            peer_name: "eth0".into(),
            peer_mac: [2, 0, 0, 0, 0, 1],
            netns_pid: container.task,
        };
        let index = links.create_veth_pair(&veth).await.unwrap();
        assert!(links.list().unwrap().iter().any(|link| link.index == index && link.mtu == 1400));
        links.delete_link(index).await.unwrap();
        links.delete_link(index).await.expect("a link that is gone is deleted");
        assert_eq!(links.list().unwrap().iter().find(|link| link.name == "b").unwrap().mtu, 1400);
        let again = links.create_bridge(&spec).await.unwrap_err();
        assert_eq!(again.to_string(), "the kernel refused to create bridge `b`");
        links.set_alias(bridge_index, "v1 x").await.unwrap();
        links.set_mtu(bridge_index, 1300).await.unwrap();
        let bridge = links.list().unwrap().into_iter().find(|link| link.name == "b").unwrap();
        assert_eq!((bridge.alias.as_deref(), bridge.mtu), (Some("v1 x"), 1300));
    });
}

#[test]
fn a_link_with_a_small_mtu_is_made_too() {
    let (host, container) = (Namespace::new(), Namespace::new());
    host.with_links(async |links| {
        let address = "10.9.0.1/26".parse().unwrap();
        let spec = BridgeSpec { name: "b".into(), address, address6: None, mtu: 576, alias: "label".into() };
        let bridge_index = links.create_bridge(&spec).await.unwrap();
        let veth = VethSpec {
            host_name: "v".into(),
            alias: "label".into(),
            bridge_index,
            mtu: 576,
            peer_name: "eth0".into(),
            peer_mac: [2, 0, 0, 0, 0, 1],
            netns_pid: container.task,
        };
        links.create_veth_pair(&veth).await.unwrap();
    });
    container.run(|| configure_endpoint(&[endpoint(Ipv4Addr::new(10, 9, 0, 2), Ipv4Addr::new(10, 9, 0, 1))]).unwrap());
}

#[test]
fn a_strangers_link_of_the_same_name_is_left_alone() {
    let (host, container) = (Namespace::new(), Namespace::new());
    host.program("ip link add name front type bridge");
    host.program("ip link add name ve-front2 type bridge");
    host.with_links(async |links| {
        let address = "10.9.0.1/26".parse().unwrap();
        let spec = BridgeSpec { name: "front".into(), address, address6: None, mtu: 1400, alias: "label".into() };
        links.create_bridge(&spec).await.unwrap_err();
        let bridge_index = links.list().unwrap().iter().find(|link| link.name == "front").unwrap().index;
        let veth = VethSpec {
            host_name: "ve-front2".into(),
            alias: "label".into(),
            bridge_index,
            mtu: 1400,
            peer_name: "eth0".into(),
            peer_mac: [2, 0, 0, 0, 0, 1],
            netns_pid: container.task,
        };
        let error = links.create_veth_pair(&veth).await.unwrap_err();
        assert_eq!(error.to_string(), "the kernel refused to create veth pair `ve-front2`");
        for link in links.list().unwrap() {
            assert!(link.alias.is_none() && !link.up && link.addresses.is_empty(), "{link:?}");
        }
    });
}

#[test]
fn many_links_are_deleted_at_once_and_no_others() {
    let world = World::new();
    world.host.with_links(async |links| {
        let doomed: Vec<u32> = links
            .list()
            .unwrap()
            .iter()
            .filter(|link| link.name.starts_with("ve-front"))
            .map(|link| link.index)
            .collect();
        assert_eq!(doomed.len(), 2);
        links.delete_links(&doomed).await.unwrap();
        links.delete_links(&doomed).await.expect("links that are gone are deleted");
        let mut left: Vec<_> = links.list().unwrap().into_iter().map(|link| link.name).collect();
        left.sort();
        assert_eq!(left, ["back", "front", "lo", "uplink", "ve-back2"]);
    });
}

#[test]
fn a_namespace_is_repaired_by_configuring_it_again() {
    let world = World::new();
    let declared = [endpoint(WEB, gateway("front"))];
    let observe = || endpoint_differences(&declared, &observe_endpoint().unwrap());
    assert_eq!(world.web.run(observe), []);
    world.web.program("ip link set eth0 down");
    world.web.program("ip link set lo down");
    let name = || "eth0".to_owned();
    assert_eq!(
        world.web.run(observe),
        [
            EndpointDifference::LoopbackDown,
            EndpointDifference::LinkDown { name: name() },
            EndpointDifference::RouteMissing { name: name(), gateway: gateway("front").into() }
        ]
    );
    world.web.program("ip addr flush dev eth0");
    let missing = EndpointDifference::AddressMissing { name: name(), address: declared[0].address.into() };
    assert!(world.web.run(observe).contains(&missing));
    world.web.run(|| configure_endpoint(&declared).unwrap());
    assert_eq!(world.web.run(observe), []);
    let error = world.web.run(|| configure_endpoint(&[]).and(configure_endpoint(&[no_such_link()]))).unwrap_err();
    assert_eq!(error.to_string(), "the namespace has no link `eth7`");
}

fn no_such_link() -> stack::runtime::net::EndpointConfig {
    stack::runtime::net::EndpointConfig { name: "eth7".into(), ..endpoint(WEB, gateway("front")) }
}

#[test]
fn the_routes_tell_which_subnets_are_taken() {
    let world = World::new();
    world.host.program("ip route add 10.99.0.0/16 via 192.0.2.2 table 77");
    world.host.program("ip route add default via 192.0.2.2");
    let mut found: Vec<_> = world
        .host
        .run(|| routes().unwrap())
        .into_iter()
        .map(|route| format!("{} {}", route.destination, route.interface))
        .collect();
    found.sort();
    assert_eq!(found, ["10.70.0.0/26 front", "10.71.0.0/26 back", "10.99.0.0/16 uplink", "192.0.2.0/24 uplink"]);
}

#[test]
fn what_is_published_is_reached_from_where_it_should_be() {
    check_what_is_reached(&World::new());
}

/// Where the kernel filters bridged frames, it translates them inside the bridge; where not, it routes them back.
#[test]
fn bridged_frames_may_be_filtered_or_not() {
    for filtered in ["0", "1"] {
        let world = World::new();
        let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if world.host.run(|| std::fs::exists(path).unwrap()) {
            world.host.run(|| std::fs::write(path, filtered).unwrap());
            check_what_is_reached(&world);
        }
    }
}

/// Every way in that is open, and what the server sees of the one who came.
fn check_what_is_reached(world: &World) {
    world.web.serve_tcp(Ipv4Addr::UNSPECIFIED, 80);
    world.db.serve_tcp(Ipv4Addr::UNSPECIFIED, 5432);
    world.other.serve_tcp(Ipv4Addr::UNSPECIFIED, 80);
    world.client.serve_tcp(Ipv4Addr::UNSPECIFIED, 80);
    world.publish(&[
        tcp(NatBind::Loopback, 8080, (WEB, 80)),
        tcp(NatBind::Address(Ipv4Addr::new(127, 0, 0, 7).into()), 8087, (WEB, 80)),
        tcp(NatBind::Address(HOST.into()), 8081, (WEB, 80)),
        tcp(NatBind::Public, 8443, (WEB, 80)),
        tcp(NatBind::Public, 8444, (OTHER, 80)),
    ]);
    let front = gateway("front");
    let host = &world.host;
    for (who, from, to, port, seen) in [
        ("host, loopback port", host, LOOPBACK, 8080, front),
        ("host, another loopback address", host, Ipv4Addr::new(127, 0, 0, 7), 8087, front),
        ("host, its own address", host, HOST, 8081, HOST),
        ("host, public port by loopback", host, LOOPBACK, 8443, front),
        ("host, public port by its own address", host, HOST, 8443, HOST),
        ("host, public port by a gateway", host, front, 8443, front),
        ("host, the container itself", host, WEB, 80, front),
        ("client, port of an address", &world.client, HOST, 8081, CLIENT),
        ("client, public port", &world.client, HOST, 8443, CLIENT),
        ("neighbour on the bridge, directly", &world.db, WEB, 80, DB),
        ("neighbour on the bridge, hairpin", &world.db, HOST, 8443, front),
        ("the container itself, hairpin", &world.web, HOST, 8443, front),
        ("the container itself, by its gateway", &world.web, front, 8443, front),
        ("container of another bridge, public port", &world.other, HOST, 8443, front),
        ("container to the other bridge's public port", &world.web, HOST, 8444, gateway("back")),
        ("container to the outside", &world.web, CLIENT, 80, HOST),
    ] {
        let answer = from.ask(to, port).unwrap_or_else(|error| panic!("{who}: {error}"));
        assert_eq!(answer.ip(), seen, "{who}");
    }
}

/// Every way in that is closed, the host's neighbour doing its worst.
#[test]
fn what_is_not_published_is_not_reached() {
    let world = World::new();
    world.web.serve_tcp(Ipv4Addr::UNSPECIFIED, 80);
    world.db.serve_tcp(Ipv4Addr::UNSPECIFIED, 5432);
    world.host.serve_tcp(LOOPBACK, 6000);
    world.host.serve_tcp(gateway("front"), 6001);
    neighbour_routes_everything_to_us(&world);
    world.publish(&[tcp(NatBind::Loopback, 8080, (WEB, 80)), tcp(NatBind::Address(HOST.into()), 8081, (WEB, 80))]);
    assert!(world.client.ask(HOST, 8081).is_ok(), "the way itself is open");
    for (who, from, to, port) in [
        ("client, loopback port by the host's address", &world.client, HOST, 8080),
        ("client, loopback port by a route to 127.0.0.0/8", &world.client, LOOPBACK, 8080),
        ("client, a service of the host on loopback", &world.client, LOOPBACK, 6000),
        ("client, a published port by the bridge's subnet", &world.client, WEB, 80),
        ("client, an unpublished port", &world.client, DB, 5432),
        ("client, a service on the gateway's address", &world.client, gateway("front"), 6001),
        ("container of another bridge, directly", &world.other, WEB, 80),
        ("container of another bridge, the gateway", &world.other, gateway("front"), 6001),
        ("container of another bridge, loopback port", &world.other, gateway("back"), 8080),
        ("container on the bridge, loopback port", &world.web, gateway("front"), 8080),
        ("host, a port of another address", &world.host, LOOPBACK, 8081),
    ] {
        assert!(from.cannot_reach(to, port), "{who}");
    }
    assert!(world.web.ask(gateway("front"), 6001).is_ok(), "a container reaches its own gateway");
}

/// The tests above are worth something only if the neighbour gets in where nothing keeps it out.
#[test]
fn without_the_table_the_neighbour_gets_in() {
    let world = World::new();
    world.db.serve_tcp(Ipv4Addr::UNSPECIFIED, 5432);
    world.host.serve_tcp(LOOPBACK, 6000);
    world.host.serve_tcp(gateway("front"), 6001);
    neighbour_routes_everything_to_us(&world);
    world.host.run(|| Nft::open().unwrap().delete_table(TABLE).unwrap());
    for (to, port) in [(LOOPBACK, 6000), (DB, 5432), (gateway("front"), 6001)] {
        assert!(world.client.ask(to, port).is_ok(), "{to}:{port}");
    }
}

/// The neighbour sends 127.0.0.0/8 and the bridges' subnets to the host, and the host would take them.
fn neighbour_routes_everything_to_us(world: &World) {
    world.client.run(|| Sysctls::default().enable_bridge_switch("eth0", BridgeSwitch::RouteLocalnet).unwrap());
    world.host.run(|| Sysctls::default().enable_bridge_switch("uplink", BridgeSwitch::RouteLocalnet).unwrap());
    for subnet in ["127.0.0.0/8", "10.70.0.0/15"] {
        world.client.program(&format!("ip route add {subnet} via {HOST}"));
    }
}

#[test]
fn a_container_cannot_pretend_to_be_the_hosts_loopback() {
    let world = World::new();
    world.host.serve_udp(7000, "host");
    let spoofed = || {
        world.web.program("ip link set lo down");
        world.web.program("ip addr replace 127.0.0.9/32 dev eth0");
        world.web.run(|| {
            Sysctls::default().enable_bridge_switch("eth0", BridgeSwitch::RouteLocalnet).unwrap();
            let socket = std::net::UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 9), 0)).unwrap();
            socket.send_to(b"x", (gateway("front"), 7000))
        })
    };
    let dropped = || {
        let table = world.host.program("nft list table inet watch");
        table.lines().find(|line| line.contains("7000")).unwrap().to_owned()
    };
    // A stranger's counter behind the guard, in front of the service.
    world.host.program("nft add table inet watch");
    world.host.program("nft add chain inet watch c { type filter hook input priority 10 ; }");
    world.host.program("nft add rule inet watch c ip saddr 127.0.0.9 udp dport 7000 counter");
    spoofed().unwrap();
    assert!(dropped().contains("packets 1 "), "nothing keeps it out without the table: {}", dropped());
    world.publish(&[]);
    spoofed().unwrap();
    assert!(dropped().contains("packets 1 "), "the guard does: {}", dropped());
}

#[test]
fn udp_ports_are_published_and_a_moved_port_takes_its_flows_along() {
    let world = World::new();
    world.web.serve_udp(53, "web");
    world.db.serve_udp(53, "db");
    let (old, new) = (udp(NatBind::Public, 5353, (WEB, 53)), udp(NatBind::Public, 5353, (DB, 53)));
    let client = world.client.udp(HOST, 5353);
    assert!(exchange(&client).is_err(), "not published yet");
    world.publish(&[old]);
    world.host.run(|| Nft::open().unwrap().forget_udp_flows(&[old]).unwrap());
    let port = client.local_addr().unwrap().port();
    assert_eq!(exchange(&client).unwrap(), format!("web {CLIENT}:{port}"), "the client's address is kept");
    let local = world.host.udp(LOOPBACK, 5353);
    assert!(exchange(&local).unwrap().starts_with(&format!("web {}:", gateway("front"))));

    let (map, key, was) = old.element();
    let (_, _, becomes) = new.element();
    let change =
        ElementsChange { set: map.into(), removed: [(key.clone(), was)].into(), added: [(key, becomes)].into() };
    world.host.run(|| Nft::open().unwrap().change_elements(TABLE, &[change]).unwrap());
    assert_eq!(world.host.run(table_differences(&[new])), []);
    assert_eq!(exchange(&client).unwrap(), format!("web {CLIENT}:{port}"), "a flow stays where it was begun");
    assert_eq!(
        world.host.run(|| Nft::open().unwrap().forget_udp_flows(&[old]).unwrap()),
        2,
        "the client's and the host's own"
    );
    assert_eq!(exchange(&client).unwrap(), format!("db {CLIENT}:{port}"));
}

/// The differences of the table from the one with these ports, observed where it is called.
fn table_differences(mappings: &[stack::runtime::net::NatPortMapping]) -> impl FnOnce() -> Vec<NatDifference> + Send {
    let wanted = nat(mappings).ruleset();
    move || differences(&wanted, &Nft::open().unwrap().observe(TABLE).unwrap().expect("the table is there"))
}

#[test]
fn a_table_just_written_has_no_differences() {
    let host = Namespace::new();
    let ports = [
        tcp(NatBind::Loopback, 8080, (WEB, 80)),
        tcp(NatBind::Address(HOST.into()), 443, (WEB, 8443)),
        udp(NatBind::Public, 53, (DB, 53)),
    ];
    host.run(|| {
        let nft = Nft::open().unwrap();
        assert_eq!(nft.observe(TABLE).unwrap(), None);
        nft.delete_table(TABLE).expect("a table that is not there is deleted");
        nft.replace_table(TABLE, &nat(&ports).ruleset(), "v1 shop nat 7f").unwrap();
        let observed = nft.observe(TABLE).unwrap().unwrap();
        assert_eq!(observed.label.as_deref(), Some("v1 shop nat 7f"));
        assert_eq!(observed.ruleset, nat(&ports).ruleset());
    });
    assert_eq!(host.run(table_differences(&ports)), []);
    let listed = host.program("nft list table inet stack_shop");
    for line in [
        "comment \"v1 shop nat 7f\"",
        "iif != \"lo\" ip daddr 127.0.0.0/8 drop comment \"loopback guard: destination\"",
        "elements = { 127.0.0.1 . tcp . 8080 : 10.70.0.2 . 80 }",
        "fib daddr type local dnat ip to meta l4proto . th dport map @public_ports comment \"ports in public_ports\"",
        "oifname @bridges drop comment \"nothing else enters a bridge\"",
    ] {
        assert!(listed.contains(line), "a stranger's eye sees `{line}` in\n{listed}");
    }
}

#[test]
fn a_refused_table_leaves_the_old_one_whole() {
    let host = Namespace::new();
    let ports = [tcp(NatBind::Public, 80, (WEB, 80))];
    host.run(|| {
        let nft = Nft::open().unwrap();
        nft.replace_table(TABLE, &nat(&ports).ruleset(), "good").unwrap();
        let mut bad = nat(&[]).ruleset();
        let lookup = Expression::Lookup { set: "nowhere".into(), key: 1, into: None, inverted: Inverted::No };
        bad.rules.push(Rule { chain: "input".into(), name: "bad".into(), expressions: vec![lookup] });
        let error = nft.replace_table(TABLE, &bad, "bad").unwrap_err();
        assert!(matches!(error, NftError::Write { .. }));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with("the kernel refused to create rule `bad` in nftables table `stack_shop`"), "{cause}");
        assert_eq!(nft.observe(TABLE).unwrap().unwrap().label.as_deref(), Some("good"));
        let long = "x".repeat(254);
        assert!(matches!(nft.replace_table(TABLE, &bad, &long), Err(NftError::Comment { .. })));
    });
    assert_eq!(host.run(table_differences(&ports)), []);
}

#[test]
fn each_hand_that_a_stranger_lays_on_the_table_is_named() {
    let host = Namespace::new();
    let ports = [tcp(NatBind::Loopback, 8080, (WEB, 80)), tcp(NatBind::Public, 443, (WEB, 8443))];
    let check = |commands: &[&str], expected: &[&str]| {
        host.run(|| Nft::open().unwrap().replace_table(TABLE, &nat(&ports).ruleset(), "label").unwrap());
        for command in commands {
            host.program(command);
        }
        let texts: Vec<_> = host.run(table_differences(&ports)).iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected, "after {commands:?}");
    };
    check(&[], &[]);
    check(
        &["nft flush chain inet stack_shop guard"],
        &[
            "rule `loopback guard: destination` is missing from chain `guard`",
            "rule `loopback guard: source` is missing from chain `guard`",
        ],
    );
    check(&["nft add rule inet stack_shop input accept"], &["a rule without a name in chain `input` is not ours"]);
    check(
        &["nft insert rule inet stack_shop forward tcp dport 22 counter accept comment mine"],
        &["a rule `mine` in chain `forward` is not ours"],
    );
    check(
        &["nft delete element inet stack_shop loopback_ports { 127.0.0.1 . tcp . 8080 }"],
        &["`127.0.0.1 tcp 8080` → `10.70.0.2 80` is missing from `loopback_ports`"],
    );
    check(
        &[
            "nft delete element inet stack_shop public_ports { tcp . 443 }",
            "nft add element inet stack_shop public_ports { tcp . 443 : 10.70.0.9 . 1 }",
            "nft add element inet stack_shop public_ports { udp . 53 : 10.70.0.9 . 53 }",
        ],
        &[
            "`tcp 443` in `public_ports` leads to `10.70.0.9 1` instead of `10.70.0.2 8443`",
            "`udp 53` → `10.70.0.9 53` in `public_ports` is not ours",
        ],
    );
    check(
        &["nft chain inet stack_shop forward { policy drop ; }"],
        &["the policy of chain `forward` is drop instead of accept"],
    );
    check(&["nft add chain inet stack_shop mine"], &["chain `mine` is not ours"]);
    check(&["nft add set inet stack_shop s { type ipv4_addr ; }"], &["set `s` is not ours"]);
    check(&["nft add table inet stack_shop { flags dormant ; }"], &["the table is dormant"]);
}

#[test]
fn a_changed_rule_is_told_from_a_missing_one() {
    let host = Namespace::new();
    host.run(|| Nft::open().unwrap().replace_table(TABLE, &nat(&[]).ruleset(), "label").unwrap());
    let listed = host.program("nft -a list chain inet stack_shop forward");
    let line = listed.lines().find(|line| line.contains("nothing else enters")).unwrap();
    let handle = line.rsplit(' ').next().unwrap();
    // In one word each: the comment has blanks.
    let words = ["nft", "replace", "rule", "inet", TABLE, "forward", "handle", handle, "accept", "comment"];
    let status = host.run(|| {
        let mut command = std::process::Command::new(words[0]);
        command.args(&words[1..]).arg("\"nothing else enters a bridge\"").status().unwrap()
    });
    assert!(status.success());
    let changed = NatDifference::RuleChanged { chain: "forward".into(), rule: "nothing else enters a bridge".into() };
    assert_eq!(host.run(table_differences(&[])), [changed]);
}

#[test]
fn a_flushed_ruleset_is_a_missing_table() {
    let world = World::new();
    world.publish(&[]);
    world.host.program("nft flush ruleset");
    assert_eq!(world.host.run(|| Nft::open().unwrap().observe(TABLE).unwrap()), None);
}

#[test]
fn a_thousand_ports_are_one_transaction() {
    let host = Namespace::new();
    let ports: Vec<_> = (0..1000)
        .map(|n| tcp(NatBind::Address(HOST.into()), 10_000 + n, (WEB, n)))
        .chain((0..1000).map(|n| udp(NatBind::Public, 10_000 + n, (DB, n))))
        .collect();
    host.run(|| Nft::open().unwrap().replace_table(TABLE, &nat(&ports).ruleset(), "label").unwrap());
    assert_eq!(host.run(table_differences(&ports)), []);
    let fewer = &ports[..1999];
    assert_eq!(host.run(table_differences(fewer)).len(), 1);
    assert!(host.program("nft list ruleset").matches(" : 10.70.0.").count() == 2000);
}

#[test]
fn two_owners_have_two_tables() {
    let host = Namespace::new();
    host.run(|| {
        let nft = Nft::open().unwrap();
        nft.replace_table("stack_a-b", &nat(&[]).ruleset(), "v1 a-b").unwrap();
        nft.replace_table("stack_a_b", &nat(&[]).ruleset(), "v1 a_b").unwrap();
        let mut tables: Vec<_> =
            nft.list_tables().unwrap().into_iter().map(|table| (table.name, table.label)).collect();
        tables.sort();
        let table = |name: &str, label: &str| (name.to_owned(), Some(label.to_owned()));
        assert_eq!(tables, [table("stack_a-b", "v1 a-b"), table("stack_a_b", "v1 a_b")]);
        nft.delete_table("stack_a-b").unwrap();
        assert_eq!(nft.list_tables().unwrap().len(), 1);
    });
}

#[test]
fn a_port_of_several_and_a_service_are_taken_by_turns() {
    use stack::runtime::net::{Flows, NatService};
    let world = World::new();
    world.web.serve_udp(53, "web");
    world.db.serve_udp(53, "db");
    let service = Ipv4Addr::new(10, 70, 0, 60);
    world.host.program("ip addr add 10.70.0.60/32 dev front");
    let services =
        [WEB, DB].map(|target| NatService { ifname: "front".into(), address: service.into(), target: target.into() });
    let table = NatTable {
        services: services.to_vec(),
        ..nat(&[udp(NatBind::Public, 5353, (WEB, 53)), udp(NatBind::Public, 5353, (DB, 53))])
    };
    world.host.run(|| Nft::open().unwrap().replace_table(TABLE, &table.ruleset(), "v1 shop nat 00").unwrap());
    let found = world.host.run(|| Nft::open().unwrap().observe(TABLE).unwrap().unwrap());
    assert_eq!(differences(&table.ruleset(), &found), [], "the kernel shows it as it was written");
    for (from, to, port) in [(&world.client, HOST, 5353), (&world.host, LOOPBACK, 5353), (&world.db, service, 53)] {
        let answers: Vec<String> = (0..6)
            .map(|_| {
                let socket = from.udp(to, port);
                let first = exchange(&socket).unwrap();
                assert_eq!(exchange(&socket).unwrap(), first, "a flow stays with the one it was begun with");
                first.split(' ').next().unwrap().to_owned()
            })
            .collect();
        assert!(answers.iter().filter(|name| *name == "web").count() == 3, "{answers:?}");
    }
    assert!(exchange(&world.other.udp(service, 53)).is_err(), "a service is of its bridge alone");
    let client = world.client.udp(HOST, 5353);
    let before = exchange(&client).unwrap();
    let address = if before.starts_with("web") { WEB } else { DB };
    assert!(world.host.run(|| Flows::open().unwrap().forget_datagrams(address.into()).unwrap()) >= 1);
}
