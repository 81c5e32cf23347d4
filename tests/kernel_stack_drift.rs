//! Ring 5: what somebody changes beside `stack` is seen by `diff`, named, and put back by `up` with no other container
//! touched.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::{Sandbox, until};
use shop::{assert_in_sync, assert_repaired, cgroup, in_network_of, limit_file, pids, running, shop};

const MEMORY: (&str, &str) = ("memory.limit_in_bytes", "memory.max");

/// The name of the stack's bridge on the host.
fn bridge(host: &Sandbox) -> String {
    host.sh("ip -o link show type bridge | cut -d: -f2").trim().to_string()
}

/// The host's end of the link of a container.
fn host_end(host: &Sandbox, container: &str) -> String {
    let inside = in_network_of(host, container, "ip -o link show eth0");
    let index = inside.split("@if").nth(1).and_then(|rest| rest.split(':').next()).expect("eth0@if7: …");
    let line = host.sh(&format!("ip -o link | grep '^{index}:'"));
    line.split([':', '@']).nth(1).expect("7: name@if2: …").trim().to_string()
}

/// A rule of the stack's table.
#[derive(Debug, PartialEq)]
struct Rule {
    chain: String,
    comment: String,
}

/// Every rule of the table with its handle.
fn rules_with_handles(host: &Sandbox) -> Vec<(Rule, String)> {
    let mut chain = String::new();
    let mut rules = Vec::new();
    for line in host.sh("nft -a list table inet stack_shop").lines() {
        if let Some(name) = line.trim().strip_prefix("chain ") {
            chain = name.split(' ').next().expect("a name").to_string();
        } else if let Some((rule, handle)) = line.split_once(" # handle ")
            && let Some((_, comment)) = rule.split_once("comment \"")
        {
            let comment = comment.trim_end_matches('"').to_string();
            rules.push((Rule { chain: chain.clone(), comment }, handle.to_string()));
        }
    }
    rules
}

fn rules(host: &Sandbox) -> Vec<Rule> {
    rules_with_handles(host).into_iter().map(|(rule, _)| rule).collect()
}

fn handle_of(host: &Sandbox, rule: &Rule) -> String {
    rules_with_handles(host).into_iter().find(|(found, _)| found == rule).expect("it is there").1
}

fn send(pid: i64, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

#[test]
fn a_changed_memory_limit_is_put_back() {
    let host = running(&shop());
    let before = pids(&host);
    let file = limit_file(&cgroup(&host, "memory", "shop/web"), MEMORY.0, MEMORY.1);
    fs::write(&file, "104857600").unwrap();
    assert_repaired(&host, &["container web", "repair", "memory.max", "100MiB → 64MiB", "stack.toml:"], &before, &[]);
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), "67108864");
}

#[test]
fn a_changed_limit_of_a_branch_is_put_back() {
    let host = running(&shop());
    let before = pids(&host);
    let file = limit_file(&cgroup(&host, "memory", "shop/backend.branch"), MEMORY.0, MEMORY.1);
    fs::write(&file, "104857600").unwrap();
    assert_repaired(&host, &["cgroup backend", "memory.max", "100MiB → 512MiB"], &before, &[]);
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), "536870912");
}

#[test]
fn each_nft_rule_that_is_deleted_is_named_and_comes_back() {
    let host = running(&shop());
    let before = pids(&host);
    shop::answers(&host, 8080);
    let rules = rules(&host);
    assert!(rules.len() > 10, "{rules:?}");
    for rule in &rules {
        // A table that was put back has other handles.
        let handle = handle_of(&host, rule);
        host.sh(&format!("nft delete rule inet stack_shop {} handle {handle}", rule.chain));
        let named = format!("rule {}: {}", rule.chain, rule.comment);
        assert_repaired(&host, &["nat", "repair", "changed outside stack", &named], &before, &[]);
    }
    assert!(shop::answer(&host, 8080).is_some());
}

#[test]
fn a_rule_that_somebody_adds_to_the_table_is_named_and_goes() {
    let host = running(&shop());
    let before = pids(&host);
    host.sh("nft insert rule inet stack_shop forward accept comment '\"mine\"'");
    assert_repaired(&host, &["nat", "repair", "rule forward: mine"], &before, &[]);
    assert!(!host.sh("nft list table inet stack_shop").contains("mine"));
}

#[test]
fn a_flushed_ruleset_comes_back() {
    let host = running(&shop());
    let before = pids(&host);
    host.sh("nft flush ruleset");
    assert_eq!(shop::answer(&host, 8080), None);
    assert_repaired(&host, &["nat"], &before, &[]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_port_that_is_taken_out_of_the_map_comes_back() {
    let host = running(&shop());
    let before = pids(&host);
    shop::answers(&host, 8080);
    host.sh("nft flush map inet stack_shop loopback_ports");
    assert_repaired(&host, &["nat", "repair", "8080"], &before, &[]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_link_that_is_down_on_the_host_comes_up() {
    let host = running(&shop());
    let before = pids(&host);
    host.sh(&format!("ip link set {} down", host_end(&host, "web")));
    assert_repaired(&host, &["container web", "repair", "link eth0 on bridge front", "down → up"], &before, &[]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_link_that_is_down_in_the_container_comes_up() {
    let host = running(&shop());
    let before = pids(&host);
    in_network_of(&host, "web", "ip link set eth0 down");
    assert_repaired(&host, &["container web", "repair", "link eth0", "down in the container → up"], &before, &[]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_link_that_is_deleted_is_made_again() {
    let host = running(&shop());
    let before = pids(&host);
    host.sh(&format!("ip link delete {}", host_end(&host, "web")));
    assert_repaired(&host, &["container web", "repair", "link eth0", "missing → up"], &before, &[]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_link_that_left_its_bridge_is_put_on_it() {
    let host = running(&shop());
    let before = pids(&host);
    host.sh(&format!("ip link set {} nomaster", host_end(&host, "web")));
    assert_repaired(&host, &["container web", "repair", "not on its bridge → up"], &before, &[]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_bridge_that_is_down_comes_up() {
    let host = running(&shop());
    let before = pids(&host);
    host.sh(&format!("ip link set {} down", bridge(&host)));
    assert_repaired(&host, &["bridge front", "state", "down → up"], &before, &[]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_bridge_with_another_address_and_mtu_is_put_right() {
    let host = running(&shop());
    let before = pids(&host);
    let name = bridge(&host);
    host.sh(&format!("ip addr flush dev {name}; ip addr add 10.9.9.1/24 dev {name}; ip link set {name} mtu 1400"));
    assert_repaired(&host, &["bridge front", "10.9.9.1/24", "1400"], &before, &[]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_bridge_that_is_deleted_is_made_again_and_its_links_are_put_on_it() {
    let host = running(&shop());
    let before = pids(&host);
    host.sh(&format!("ip link delete {}", bridge(&host)));
    assert_repaired(&host, &["bridge front"], &before, &[]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_killed_container_that_is_not_to_restart_is_named_and_made_again() {
    let host = running(&shop());
    let before = pids(&host);
    send(before["web"], Signal::SIGKILL);
    until("its end is seen", || host.ps()["web"]["phase"]["state"] != "running");
    assert_repaired(&host, &["container web", "SIGKILL"], &before, &["web"]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn a_killed_container_that_is_to_restart_does_so_itself() {
    let host = running(&shop().replace("port = [", "restart = \"always\"\nport = ["));
    let before = pids(&host);
    send(before["web"], Signal::SIGKILL);
    until("it runs again", || pids(&host).get("web").is_some_and(|pid| *pid != before["web"]));
    assert_eq!(host.ps()["web"]["run"]["restarts"], 1);
    assert_in_sync(&host);
    assert!(shop::answers(&host, 8080).starts_with("web"));
    assert_eq!(pids(&host)["idle"], before["idle"]);
}

#[test]
fn a_killed_monitor_takes_its_container_along_and_both_are_made_again() {
    let host = running(&shop());
    let before = pids(&host);
    send(host.ps()["web"]["run"]["monitor"].as_i64().unwrap(), Signal::SIGKILL);
    until("the container is gone", || kill(Pid::from_raw(before["web"] as i32), None).is_err());
    assert_repaired(&host, &["container web", "repair", "monitor"], &before, &["web"]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}

#[test]
fn an_edited_hosts_file_is_put_back_in_place() {
    let host = running(&shop());
    let before = pids(&host);
    let file = host.run_dir().join("shop/idle/hosts");
    host.sh(&format!("echo 10.9.9.9 evil > {}", file.display()));
    let words = ["container idle", "repair", "/etc/hosts", "- 10.9.9.9 evil", "+ 10.70.0.2 web"];
    assert_repaired(&host, &words, &before, &[]);
    let inside = host.ok(&["exec", "idle", "cat", "/etc/hosts"]);
    assert!(inside.contains("10.70.0.2 web") && !inside.contains("evil"), "{inside}");
}

#[test]
fn a_container_whose_label_is_gone_counts_as_unfinished() {
    let host = running(&shop());
    let before = pids(&host);
    let unified = std::path::Path::new("/sys/fs/cgroup/unified");
    let root = if unified.exists() { unified } else { std::path::Path::new("/sys/fs/cgroup") };
    let folder = root.join(host.cgroup()).join("shop/web");
    rustix::fs::removexattr(&folder, "user.stack.label").unwrap();
    assert_repaired(&host, &["container web", "repair", "was not finished"], &before, &["web"]);
}

#[test]
fn ip_forwarding_that_is_switched_off_comes_back() {
    let host = running(&shop());
    let before = pids(&host);
    host.sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    assert_repaired(&host, &["forward"], &before, &[]);
}

#[test]
fn several_faults_at_once_are_repaired_in_one_run() {
    let host = running(&shop());
    let before = pids(&host);
    let file = limit_file(&cgroup(&host, "memory", "shop/web"), MEMORY.0, MEMORY.1);
    fs::write(&file, "104857600").unwrap();
    host.sh(&format!("nft flush ruleset; ip link delete {}", bridge(&host)));
    send(before["idle"], Signal::SIGKILL);
    until("its end is seen", || host.ps()["idle"]["phase"]["state"] != "running");
    let words = ["container web", "container idle", "bridge front", "nat", "100MiB → 64MiB"];
    assert_repaired(&host, &words, &before, &["idle"]);
    assert!(shop::answers(&host, 8080).starts_with("web"));
}
