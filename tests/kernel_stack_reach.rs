//! Ring 5: who can reach what. A neighbour on the host's network is another network namespace, joined to the sandbox's by
//! a veth pair.

#[path = "support/neighbour.rs"]
mod neighbour;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::process::Stdio;

use neighbour::{HOST, HOST6, NEIGHBOUR, Neighbour};
use sandbox::{Sandbox, until};
use shop::{WAITS, answer, answers, ask, running, serves, serves_udp};

/// One server whose port is for the host alone, one that is open to the network, one that publishes nothing.
fn three_servers() -> Sandbox {
    running(&format!(
        r#"
name = "shop"

[bridge.front]
subnet = "10.70.0.0/26"

[bridge.back]
subnet = "10.71.0.0/26"

[container.private]
image = "host:"
{}
bridge = ["front"]
port = ["8080:80"]

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
        serves(80, "private"),
        serves(80, "open"),
        serves(80, "inner")
    ))
}

fn address_of(host: &Sandbox, container: &str) -> String {
    host.ps()[container]["addresses"][0].as_str().expect("an address").to_string()
}

#[test]
fn a_port_without_an_address_is_for_the_host_alone() {
    let host = three_servers();
    let neighbour = Neighbour::of(&host);
    assert!(answers(&host, 8080).starts_with("private"));
    assert_eq!(neighbour.ask(HOST, 8080), None);
    // Not even where the neighbour believes that 127.0.0.1 is the host.
    neighbour.sh("echo 1 > /proc/sys/net/ipv4/conf/lan0/route_localnet && ip addr del 127.0.0.1/8 dev lo");
    neighbour.sh(&format!("ip route add 127.0.0.1/32 via {HOST} dev lan0 src {NEIGHBOUR}"));
    assert_eq!(neighbour.ask("127.0.0.1", 8080), None);
}

#[test]
fn a_public_port_answers_the_network_and_sees_who_asks() {
    let host = three_servers();
    let neighbour = Neighbour::of(&host);
    answers(&host, 8081);
    assert_eq!(neighbour.ask(HOST, 8081).as_deref(), Some(&*format!("open {NEIGHBOUR}")));
    assert!(ask(&host, HOST, 8081).is_some_and(|text| text.starts_with("open")));
}

#[test]
fn what_is_not_published_is_not_reached_whatever_the_neighbour_routes() {
    let host = three_servers();
    let neighbour = Neighbour::of(&host);
    answers(&host, 8080);
    neighbour.sh(&format!("ip route add 10.70.0.0/15 via {HOST}"));
    for container in ["private", "open", "inner"] {
        let address = address_of(&host, container);
        assert!(ask(&host, &address, 80).is_some(), "the host itself reaches {container}");
        assert_eq!(neighbour.ask(&address, 80), None, "{container}");
    }
}

#[test]
fn containers_of_two_bridges_do_not_reach_each_other() {
    let host = three_servers();
    answers(&host, 8080);
    let call = |from: &str, to: &str| {
        let script = format!("exec 3<>/dev/tcp/{to}/80 && cat <&3");
        host.stack(&["exec", from, "timeout", "1", "bash", "-c", &script]).stdout
    };
    assert!(call("private", &address_of(&host, "open")).starts_with("open"));
    assert_eq!(call("private", &address_of(&host, "inner")), "");
    assert_eq!(call("inner", &address_of(&host, "open")), "");
}

#[test]
fn a_container_reaches_out_under_the_address_of_the_host() {
    let host = three_servers();
    let neighbour = Neighbour::of(&host);
    let script = "exec perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalPort => 90, Listen => 9, ReuseAddr => 1) \
                  or die; while (my $c = $s->accept) { print $c $c->peerhost }'";
    let mut server = neighbour.command(script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server");
    until("the neighbour serves", || neighbour.ask(NEIGHBOUR, 90).is_some());
    let call = format!("exec 3<>/dev/tcp/{NEIGHBOUR}/90 && cat <&3");
    let seen = host.ok(&["exec", "inner", "bash", "-c", &call]);
    let _ = server.kill();
    let _ = server.wait();
    assert_eq!(seen, HOST);
}

#[test]
fn a_container_reaches_its_own_published_port_and_that_of_others_through_the_host() {
    let host = three_servers();
    let _neighbour = Neighbour::of(&host);
    answers(&host, 8081);
    let call = format!("exec 3<>/dev/tcp/{HOST}/8081 && cat <&3");
    for from in ["open", "private", "inner"] {
        let outcome = host.stack(&["exec", from, "timeout", "5", "bash", "-c", &call]);
        assert!(outcome.stdout.starts_with("open"), "from {from}: {outcome:?}");
    }
}

#[test]
fn udp_ports_answer_the_host_and_the_network() {
    let host = running(&format!(
        "name = \"shop\"\n[bridge.front]\n[container.dns]\nimage = \"host:\"\n{}\nbridge = [\"front\"]\n\
         port = [\"5353:53/udp\", \"public:5354:53/udp\"]\n",
        serves_udp(53, "dns")
    ));
    let neighbour = Neighbour::of(&host);
    let ask = |address: &str, port: u16| {
        format!(
            "perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(PeerAddr => \"{address}:{port}\", Proto => \"udp\"); \
             alarm 1; $s->send(\"hi\"); $s->recv(my $d, 99); print $d' || true"
        )
    };
    until("the server answers", || host.sh(&ask("127.0.0.1", 5353)).starts_with("dns"));
    assert_eq!(neighbour.sh(&ask(HOST, 5354)).trim(), format!("dns {NEIGHBOUR}"));
    assert_eq!(neighbour.sh(&ask(HOST, 5353)), "");
}

#[test]
fn one_container_on_two_bridges_reaches_both() {
    let host = running(&format!(
        "name = \"shop\"\n[bridge.front]\n[bridge.back]\n[container.proxy]\nimage = \"host:\"\n{WAITS}\n\
         bridge = [\"front\", \"back\"]\n[container.a]\nimage = \"host:\"\n{}\nbridge = [\"front\"]\n\
         [container.b]\nimage = \"host:\"\n{}\nbridge = [\"back\"]\n",
        serves(80, "a"),
        serves(80, "b")
    ));
    for name in ["a", "b"] {
        let call = format!("exec 3<>/dev/tcp/{name}/80 && cat <&3");
        let call = ["exec", "proxy", "bash", "-c", &call];
        until(name, || host.stack(&call).stdout.starts_with(name));
    }
    assert_ne!(host.stack(&["exec", "a", "getent", "hosts", "b"]).code, 0);
}

#[test]
fn a_container_without_a_bridge_has_loopback_alone() {
    let host = running(&format!("name = \"shop\"\n[container.alone]\nimage = \"host:\"\n{WAITS}\n"));
    let links = host.ok(&["exec", "alone", "ls", "/sys/class/net"]);
    assert_eq!(links.trim(), "lo");
    assert_eq!(answer(&host, 8080), None);
}

#[test]
fn a_port_that_is_bound_to_one_address_does_not_answer_on_another() {
    let host = Sandbox::new();
    let neighbour = Neighbour::of(&host);
    host.sh("ip addr add 192.0.2.9/24 dev lan0");
    shop::apply(
        &host,
        &format!(
            "name = \"shop\"\n[bridge.front]\n[container.web]\nimage = \"host:\"\n{}\nbridge = [\"front\"]\n\
             port = [\"192.0.2.9:8080:80\"]\n",
            serves(80, "web")
        ),
    );
    until("it serves", || neighbour.ask("192.0.2.9", 8080).is_some());
    assert_eq!(neighbour.ask(HOST, 8080), None);
    assert_eq!(answer(&host, 8080), None);
}

#[test]
fn the_table_reads_well_in_nft() {
    let host = three_servers();
    let table = host.sh("nft list table inet stack_shop");
    let set = table.split("set bridges").nth(1).and_then(|rest| rest.split('}').next()).expect("the set of bridges");
    for bridge in host.sh("ip -o link show type bridge | cut -d: -f2").split_whitespace() {
        assert!(set.contains(&format!("\"{bridge}\"")), "{bridge} is not in {set}");
    }
    // What nft prints, nft takes.
    host.sh("nft list ruleset > ruleset && nft --check -f ruleset");
}

/// How many packets from `neighbour` to a machine beyond the host's other link the host sent on, of each protocol.
fn sent_on(host: &Sandbox, neighbour: &Neighbour) -> [u64; 2] {
    neighbour.sh(&format!(
        "ip route add 198.51.100.0/24 via {HOST}; ip -6 route add 2001:db8:1::/64 via {HOST6}; \
         perl -MIO::Socket::IP -e 'for (\"198.51.100.9\", \"2001:db8:1::9\") {{ IO::Socket::IP->new(PeerHost => $_, \
         PeerPort => 9999, Type => SOCK_DGRAM)->send(\"x\") }}'"
    ));
    ["passed4", "passed6"].map(|counter| {
        let text = host.sh(&format!("sleep 0.2; nft list counter inet probe {counter}"));
        let after = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        after.and_then(|number| number.parse().ok()).expect("a counter")
    })
}

#[test]
fn what_forwarding_would_open_between_other_links_stays_shut_and_what_was_open_stays_open() {
    for (before, passed) in [("0", [0, 0]), ("1", [1, 1])] {
        let host = Sandbox::new();
        let neighbour = Neighbour::of(&host);
        host.sh(&format!(
            "ip link add lan1 type veth peer name lan2 && ip link set lan2 up && ip addr add 198.51.100.1/24 dev lan1 && \
             ip addr add 2001:db8:1::1/64 dev lan1 nodad && ip link set lan1 up && \
             ip neigh add 2001:db8:1::9 lladdr 02:00:00:00:00:09 dev lan1 && \
             ip neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev lan1 && \
             echo {before} > /proc/sys/net/ipv4/ip_forward && echo {before} > /proc/sys/net/ipv6/conf/all/forwarding"
        ));
        host.sh("nft 'add table inet probe; add counter inet probe passed4; add counter inet probe passed6; \
             add chain inet probe c { type filter hook postrouting priority 300; }; \
             add rule inet probe c oifname lan1 ip daddr 198.51.100.9 counter name passed4; \
             add rule inet probe c oifname lan1 ip6 daddr 2001:db8:1::9 udp dport 9999 counter name passed6'");
        let stack = format!(
            "name = \"shop\"\n[bridge.front]\n[container.a]\nimage = \"host:\"\n{WAITS}\nbridge = [\"front\"]\n"
        );
        host.write("stack.toml", &stack);
        let says = host.stack(&["diff"]).stdout.contains("forwarding between other links");
        assert_eq!(says, before == "0");
        shop::apply(&host, &stack);
        assert_eq!(host.sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
        assert_eq!(sent_on(&host, &neighbour), passed, "forwarding was {before}");
    }
}

#[test]
fn diff_says_who_will_reach_what_and_can_be_told_to_deny_it() {
    let host = three_servers();
    let text = std::fs::read_to_string(host.path().join("stack.toml")).expect("the stack file");
    assert_eq!(host.stack(&["diff", "--deny-exposure"]).code, 0);
    host.write("stack.toml", &text.replace("[\"8080:80\"]", "[\"192.0.2.1:8080:80\", \"9000:80\"]"));
    let outcome = host.stack(&["diff", "--deny-exposure"]);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    let section = outcome.stdout.split_once("Exposure\n").expect("a section").1;
    let lines: Vec<String> =
        section.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        &lines[..3],
        [
            "+ 192.0.2.1:8080/tcp → private:80 reachable from who reaches 192.0.2.1",
            "+ 127.0.0.1:9000/tcp → private:80 reachable from this machine",
            "- 127.0.0.1:8080/tcp → private:80 no longer from this machine",
        ],
    );
    assert!(answer(&host, 9000).is_none(), "it was only told");
    let document: serde_json::Value = serde_json::from_str(&host.stack(&["diff", "--json"]).stdout).expect("JSON");
    assert_eq!(document["exposure"]["opened"][0]["from"], "192.0.2.1");
    // What is open to this machine alone is no exposure to others.
    host.write("stack.toml", &text.replace("\"8080:80\"", "\"8080:80\", \"9000:80\""));
    assert_eq!(host.stack(&["diff", "--deny-exposure"]).code, 2);
}
