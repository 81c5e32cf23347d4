//! Ring 5: IPv6 on bridges, and who can reach what by it.

#[path = "support/neighbour.rs"]
mod neighbour;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::process::Stdio;

use neighbour::{HOST, HOST6, NEIGHBOUR, NEIGHBOUR6, Neighbour, call};
use sandbox::{Sandbox, until};
use shop::{WAITS, apply, assert_in_sync};

/// `command = …` for a container that answers every connection of either protocol with `name` and who asked.
fn serves_both(port: u16, name: &str) -> String {
    format!(
        r#"command = ["perl", "-MIO::Socket::IP", "-e", '''
    my $$s = IO::Socket::IP->new(LocalHost => "::", LocalPort => {port}, Listen => 50, ReuseAddr => 1) or die $$@;
    while (my $$c = $$s->accept) {{ print $$c "{name} " . $$c->peerhost . "\n"; }}
''']"#
    )
}

/// Servers of both protocols: one whose ports are for the host alone, one that is open, one that publishes nothing.
fn servers() -> Sandbox {
    let host = Sandbox::new();
    // Bridged frames do not pass the rules for packets, as on a host without docker.
    host.sh("f=/proc/sys/net/bridge/bridge-nf-call-ip6tables; test ! -e $f || echo 0 > $f");
    let stack = format!(
        r#"
name = "shop"

[bridge.front]

[bridge.back]

[container.private]
image = "host:"
{}
bridge = ["front"]
port = ["8080:80", "[::1]:8080:80"]

[container.open]
image = "host:"
{}
bridge = ["front"]
port = ["public:8081:80"]

[container.inner]
image = "host:"
{}
bridge = ["back"]
"#,
        serves_both(80, "private"),
        serves_both(80, "open"),
        serves_both(80, "inner")
    );
    apply(&host, &stack);
    host
}

/// A container that only waits, on a bridge with these keys.
fn waiting(keys: &str) -> String {
    format!(
        "name = \"shop\"\n[bridge.front]\n{keys}\n[container.a]\nimage = \"host:\"\n{WAITS}\nbridge = [\"front\"]\n"
    )
}

fn address6_of(host: &Sandbox, container: &str) -> String {
    host.ps()[container]["addresses6"][0].as_str().expect("an IPv6 address").to_string()
}

#[test]
fn a_port_answers_whom_the_file_says_and_nobody_else() {
    let host = servers();
    let neighbour = Neighbour::of(&host);
    let here = |address: &str, port| call(|line| host.sh(line), address, port);
    let there = |address: &str, port| call(|line| neighbour.sh(line), address, port);
    until("it serves", || there(HOST6, 8081).is_some());
    for address in ["127.0.0.1", "::1", HOST6, HOST] {
        assert!(here(address, 8081).is_some_and(|text| text.starts_with("open")), "the host at {address}");
    }
    for address in ["127.0.0.1", "::1"] {
        assert!(here(address, 8080).is_some_and(|text| text.starts_with("private")), "the host at {address}");
    }
    assert_eq!(there(HOST6, 8081), Some(format!("open {NEIGHBOUR6}")), "the client's own address is seen");
    assert_eq!(there(HOST, 8081), Some(format!("open ::ffff:{NEIGHBOUR}")));
    assert_eq!(there(HOST6, 8080), None);
    // Not even where the neighbour believes that ::1 is the host, or knows where the bridges are.
    neighbour
        .sh(&format!("ip -6 route del local ::1 table local; ip -6 route add ::1/128 via {HOST6} src {NEIGHBOUR6}"));
    assert_eq!(there("::1", 8080), None);
    neighbour.sh(&format!("ip -6 route add fd00::/8 via {HOST6}"));
    for container in ["private", "open", "inner"] {
        let address = address6_of(&host, container);
        assert!(here(&address, 80).is_some(), "the host itself reaches {container}");
        assert_eq!(there(&address, 80), None, "{container}");
    }
}

#[test]
fn containers_reach_their_bridge_and_the_world_and_no_other_bridge() {
    let host = servers();
    let neighbour = Neighbour::of(&host);
    until("it serves", || call(|line| neighbour.sh(line), HOST6, 8081).is_some());
    let from = |container: &'static str, address: &str, port| {
        call(|line| host.stack(&["exec", container, "sh", "-c", line]).stdout, address, port).unwrap_or_default()
    };
    let (open, inner) = (address6_of(&host, "open"), address6_of(&host, "inner"));
    assert!(from("private", &open, 80).starts_with("open"));
    assert_eq!(from("private", &inner, 80), "");
    assert_eq!(from("inner", &open, 80), "");
    assert!(host.ok(&["exec", "private", "cat", "/etc/hosts"]).contains(&format!("{open} open")));
    for container in ["open", "private", "inner"] {
        assert!(from(container, HOST6, 8081).starts_with("open"), "{container} by the published port");
    }
    let script = "exec perl -MIO::Socket::IP -e 'my $s = IO::Socket::IP->new(LocalHost => \"::\", LocalPort => 90, \
                  Listen => 9, ReuseAddr => 1) or die; while (my $c = $s->accept) { print $c $c->peerhost }'";
    let mut server = neighbour.command(script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server");
    until("the neighbour serves", || call(|line| neighbour.sh(line), NEIGHBOUR6, 90).is_some());
    let seen = from("inner", NEIGHBOUR6, 90);
    let _ = server.kill();
    let _ = server.wait();
    assert_eq!(seen, HOST6, "it goes out under the address of the host");
}

#[test]
fn an_internal_bridge_has_no_way_out_and_none_in() {
    let host = Sandbox::new();
    let neighbour = Neighbour::of(&host);
    apply(
        &host,
        &format!(
            r#"
name = "shop"

[bridge.inner]
internal = true

[bridge.front]

[container.db]
image = "host:"
{}
bridge = ["inner"]

[container.web]
image = "host:"
{}
bridge = ["inner", "front"]
port = ["public:8081:80"]
"#,
            serves_both(80, "db"),
            serves_both(80, "web")
        ),
    );
    until("it serves", || call(|line| neighbour.sh(line), HOST6, 8081).is_some());
    let from = |container: &'static str, address: &str, port| {
        call(|line| host.stack(&["exec", container, "sh", "-c", line]).stdout, address, port).unwrap_or_default()
    };
    let addresses = |container: &str| {
        let fields = host.ps()[container].clone();
        ["addresses", "addresses6"].map(|field| fields[field][0].as_str().expect("an address").to_string())
    };
    let script = "exec perl -MIO::Socket::IP -e 'my $s = IO::Socket::IP->new(LocalHost => \"::\", LocalPort => 90, \
                  Listen => 9, ReuseAddr => 1) or die; while (my $c = $s->accept) { print $c \"out\" }'";
    let mut server = neighbour.command(script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server");
    until("the neighbour serves", || call(|line| neighbour.sh(line), NEIGHBOUR6, 90).is_some());
    for (outside, inside) in [NEIGHBOUR, NEIGHBOUR6].into_iter().zip(addresses("db")) {
        assert!(from("web", &inside, 80).starts_with("db"), "a neighbour on the bridge at {inside}");
        assert!(call(|line| host.sh(line), &inside, 80).is_some(), "the host at {inside}");
        assert_eq!(from("web", outside, 90), "out", "by the bridge that leads out");
        assert_eq!(from("db", outside, 90), "");
    }
    // Not even with a route.
    let init = host.init_of("db");
    host.sh(&format!(
        "nsenter -t {init} -n ip route add default dev eth0; nsenter -t {init} -n ip -6 route add default dev eth0"
    ));
    neighbour.sh(&format!("ip route add 10.64.0.0/10 via {HOST}; ip -6 route add fd00::/8 via {HOST6}"));
    for (outside, inside) in [NEIGHBOUR, NEIGHBOUR6].into_iter().zip(addresses("db")) {
        assert_eq!(from("db", outside, 90), "", "out to {outside}");
        assert_eq!(call(|line| neighbour.sh(line), &inside, 80), None, "in to {inside}");
    }
    let _ = server.kill();
    let _ = server.wait();
}

#[test]
fn a_host_without_ipv6_has_bridges_of_ipv4_and_the_plan_says_so() {
    let host = Sandbox::new();
    host.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
    host.write("stack.toml", &waiting(""));
    let plan = host.stack(&["diff"]).stdout;
    assert!(plan.contains("this host has no IPv6"), "{plan}");
    host.ok(&["up"]);
    assert_in_sync(&host);
    assert!(host.ps()["a"]["addresses6"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn a_bridge_gets_ipv6_and_loses_it_again() {
    let host = Sandbox::new();
    let subnet = "subnet6 = \"fd12:0:0:7::/64\"";
    for (keys, address) in [("ipv6 = false", None), (subnet, Some("fd12:0:0:7::2")), ("ipv6 = false", None)] {
        apply(&host, &waiting(keys));
        assert_eq!(host.ps()["a"]["addresses6"][0].as_str(), address, "{keys}");
    }
}

#[test]
fn forwarding_leaves_the_host_its_routes_from_advertisements() {
    let host = Sandbox::new();
    let _neighbour = Neighbour::of(&host);
    host.write("stack.toml", &waiting(""));
    let plan = host.stack(&["diff"]).stdout;
    for sysctl in ["net.ipv6.conf.all.forwarding", "net.ipv6.conf.lan0.accept_ra"] {
        assert!(plan.contains(sysctl), "{plan}");
    }
    host.ok(&["up"]);
    assert_eq!(host.sh("cat /proc/sys/net/ipv6/conf/lan0/accept_ra").trim(), "2");
    assert_in_sync(&host);
}

#[test]
fn a_router_in_a_container_is_nobody_s_router() {
    let host = Sandbox::new();
    apply(&host, &waiting(""));
    let accept = "cat /proc/sys/net/ipv6/conf/eth0/accept_ra";
    assert_eq!(host.ok(&["exec", "a", "sh", "-c", accept]).trim(), "0");
    assert_eq!(host.sh("cat /proc/sys/net/ipv6/conf/stk*/accept_ra").trim(), "0");
}
