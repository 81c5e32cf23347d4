//! Ring 5: a changed stack file changes what it says and nothing else. Which containers were made again is seen by their
//! first processes.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use sandbox::{Sandbox, until};
use shop::{
    WAITS, answer, answers, apply, assert_change, assert_says, assert_touched, differences, limit, pids, running,
    serves, shop,
};

/// The limits of a container, by the kernel's files on cgroup v1 and v2.
const MEMORY: (&str, &str, &str) = ("memory", "memory.limit_in_bytes", "memory.max");
const PIDS: (&str, &str, &str) = ("pids", "pids.max", "pids.max");

fn with(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old} is not in {text}");
    text.replacen(old, new, 1)
}

#[test]
fn one_changed_variable_makes_one_container_again() {
    let text = with(&shop(), "memory = \"64MiB\"", "env = { COLOUR = \"red\" }");
    let host = running(&text);
    let words = ["container web", "replace", "env.COLOUR", "red → green", "stack.toml:18", "1 change", "stopped first"];
    assert_change(&host, &with(&text, "red", "green"), &words, &["web"]);
    let environment = host.ok(&["exec", "web", "sh", "-c", "echo $COLOUR"]);
    assert_eq!(environment, "green\n");
    assert!(answers(&host, 8080).starts_with("web"));
}

#[test]
fn limits_are_written_into_the_running_container() {
    let text = shop();
    let host = running(&text);
    let more = with(&text, "memory = \"64MiB\"", "memory = \"96MiB\"\ncpu = 0.5\npids = 77\ncpu_weight = 200");
    let words = ["container web", "live", "memory.max", "64MiB → 96MiB", "pids.max", "→ 77", "cpu.max", "50000"];
    assert_change(&host, &more, &words, &[]);
    assert_eq!(limit(&host, "shop/web", MEMORY), "100663296");
    assert_eq!(limit(&host, "shop/web", PIDS), "77");
    let cpu = limit(&host, "shop/web", ("cpu", "cpu.cfs_quota_us", "cpu.max"));
    assert!(cpu.starts_with("50000"), "{cpu}");
    // A limit that is taken out of the file is taken away.
    assert_change(&host, &with(&text, "memory = \"64MiB\"", ""), &["96MiB → max", "77 → 4096"], &[]);
    let memory = limit(&host, "shop/web", MEMORY);
    assert!(memory == "max" || memory.parse::<u64>().unwrap() > 1 << 60, "{memory}");
}

#[test]
fn limits_of_a_branch_are_written_with_nothing_restarted() {
    let text = shop();
    let host = running(&text);
    let words = ["cgroup backend", "512MiB → 256MiB", "stack.toml:8"];
    assert_change(&host, &with(&text, "512MiB", "256MiB"), &words, &[]);
    assert_eq!(limit(&host, "shop/backend.branch", MEMORY), "268435456");
}

#[test]
fn restart_health_log_and_stop_timeout_are_live() {
    let text = shop();
    let host = running(&text);
    let settings = "memory = \"64MiB\"\nrestart = \"always\"\nhealth = { tcp = 80, interval = \"200ms\" }\n\
                    log = { size = \"64KiB\", files = 2 }\nstop_timeout = \"1s\"";
    let live = with(&text, "memory = \"64MiB\"", settings);
    assert_change(&host, &live, &["container web", "live", "restart", "health", "log.size", "stop_timeout"], &[]);
    until("the probe passes", || host.ps()["web"]["health"] == "healthy");
    assert_change(&host, &with(&live, "tcp = 80", "tcp = 81"), &["live", "80", "81", "stack.toml:20"], &[]);
    until("the new probe fails", || host.ps()["web"]["health"] == "unhealthy");
    assert_change(&host, &text, &["live", "health"], &[]);
    assert_eq!(host.ps()["web"]["health"], "none");
}

#[test]
fn ports_move_while_the_container_runs() {
    let text = shop();
    let host = running(&text);
    answers(&host, 8080);
    let words = ["nat", "live", "- 10.70.0.2:80", "+ 10.70.0.2:80", "stack.toml:17"];
    assert_change(&host, &with(&text, "8080:80", "8081:80"), &words, &[]);
    assert!(answers(&host, 8081).starts_with("web"));
    assert_eq!(answer(&host, 8080), None);
    // No port at all is a change like any other.
    assert_change(&host, &with(&text, "port = [\"8080:80\"]", ""), &["nat"], &[]);
    assert_eq!(answer(&host, 8081), None);
}

#[test]
fn a_container_that_is_added_is_known_to_the_others_and_forgotten_when_it_goes() {
    let text = shop();
    let host = running(&text);
    let more = format!("{text}\n[container.api]\nimage = \"host:\"\n{}\nbridge = [\"front\"]\n", serves(80, "api"));
    let words = ["+ container api", "create", "/etc/hosts", "container web", "container idle"];
    assert_change(&host, &more, &words, &["api"]);
    let call = ["exec", "idle", "bash", "-c", "exec 3<>/dev/tcp/api/80; cat <&3"];
    until("`api` serves", || host.stack(&call).code == 0);
    assert_says(&host.ok(&call), &["api 10.70.0."]);
    let gone = pids(&host)["api"];
    assert_change(&host, &text, &["- container api", "destroy", "not in the file"], &[]);
    assert!(!std::path::Path::new(&format!("/proc/{gone}")).exists());
    assert_ne!(host.stack(&["exec", "idle", "getent", "hosts", "api"]).code, 0);
    assert_eq!(pids(&host).len(), 2);
}

#[test]
fn a_bridge_with_another_subnet_makes_its_containers_again_and_no_other() {
    let text = format!("{}\n[container.alone]\nimage = \"host:\"\n{WAITS}\n", shop());
    let host = running(&text);
    let words = ["bridge front", "10.70.0.1/26 → 10.71.0.1/26", "container web", "replace", "container idle"];
    assert_change(&host, &with(&text, "10.70.0.0/26", "10.71.0.0/26"), &words, &["idle", "web"]);
    assert!(answers(&host, 8080).starts_with("web"));
    assert_says(&host.ok(&["exec", "idle", "getent", "ahostsv4", "web"]), &["10.71.0."]);
}

#[test]
fn another_mtu_is_written_into_the_bridge_and_makes_its_containers_again() {
    let text = shop();
    let host = running(&text);
    let smaller = with(&text, "subnet =", "mtu = 1400\nsubnet =");
    assert_change(&host, &smaller, &["bridge front", "live", "mtu", "1500 → 1400", "stack.toml:5"], &["idle", "web"]);
    assert_says(&host.sh("ip -o link show type bridge"), &["mtu 1400"]);
    assert_says(&shop::in_network_of(&host, "web", "ip -o link show eth0"), &["mtu 1400"]);
}

#[test]
fn replicas_come_and_go_and_those_that_stay_are_not_touched() {
    let text = |replicas: u32| {
        format!("name = \"shop\"\n[container.web]\nimage = \"host:\"\n{WAITS}\nreplicas = {replicas}\n[bridge.b]\n")
            .replace("replicas", "bridge = [\"b\"]\nreplicas")
    };
    let host = running(&text(2));
    assert_change(&host, &text(4), &["container web-3", "container web-4", "create"], &["web-3", "web-4"]);
    let call = ["exec", "web-1", "getent", "hosts", "web-4"];
    assert_eq!(host.stack(&call).code, 0);
    assert_change(&host, &text(2), &["- container web-3", "- container web-4", "destroy"], &[]);
    assert_eq!(pids(&host).into_keys().collect::<Vec<_>>(), ["web-1", "web-2"]);
}

#[test]
fn a_secret_with_another_content_makes_its_container_again_and_is_never_shown() {
    let text = with(&shop(), "memory = \"64MiB\"", "secret = [{ file = \"password\" }]");
    let host = Sandbox::new();
    host.write("password", "swordfish");
    apply(&host, &text);
    let before = pids(&host);
    host.write("password", "marlin-17");
    let shown = differences(&host);
    assert_says(&shown, &["container web", "replace", "secrets", "/run/secrets/password"]);
    assert!(!shown.contains("swordfish") && !shown.contains("marlin-17"), "{shown}");
    host.ok(&["up"]);
    assert_touched(&host, &before, &["web"]);
    assert_eq!(host.ok(&["exec", "web", "cat", "/run/secrets/password"]), "marlin-17");
}

#[test]
fn changed_mounts_and_volumes_make_a_new_container_and_keep_the_data() {
    let text = with(&shop(), "memory = \"64MiB\"", "volume = [\"data:/data\"]") + "\n[volume.data]\n";
    let host = Sandbox::new();
    host.write("site/index", "hello");
    apply(&host, &text);
    host.ok(&["exec", "web", "sh", "-c", "echo kept > /data/file"]);
    let moved = with(&text, "data:/data", "data:/var/data:ro");
    assert_change(&host, &moved, &["container web", "replace", "volumes", "stack.toml:18"], &["web"]);
    assert_eq!(host.ok(&["exec", "web", "cat", "/var/data/file"]), "kept\n");
    assert_ne!(host.stack(&["exec", "web", "touch", "/var/data/new"]).code, 0);
    let mount = "mount = [{ bind = \"site\", target = \"/site\" }]\ncgroup = \"backend\"";
    let bound = with(&text, "cgroup = \"backend\"", mount);
    assert_change(&host, &bound, &["container idle", "mounts"], &["idle", "web"]);
    assert_eq!(host.ok(&["exec", "idle", "cat", "/site/index"]), "hello");
}

#[test]
fn another_branch_makes_a_new_container_in_its_place() {
    let text = shop();
    let host = running(&text);
    let words = ["container idle", "replace", "cgroup", "backend.branch/idle → idle", "- cgroup backend"];
    let moved = text.replace("cgroup = \"backend\"", "").replace("[cgroup.backend]\nmemory = \"512MiB\"", "");
    assert_change(&host, &moved, &words, &["idle"]);
    assert!(!shop::cgroup(&host, "memory", "shop/backend.branch").exists());
}

#[test]
fn a_bridge_that_nothing_needs_goes() {
    let text = shop();
    let host = running(&text);
    let alone = format!("name = \"shop\"\n[container.idle]\nimage = \"host:\"\n{WAITS}\n");
    host.write("stack.toml", &alone);
    assert_says(&differences(&host), &["- container web", "- bridge front", "- nat", "container idle", "replace"]);
    host.ok(&["up"]);
    shop::assert_in_sync(&host);
    assert_eq!(host.sh("ip -o link show type bridge"), "");
    assert_eq!(host.sh("nft list tables"), "");
}

#[test]
fn a_second_up_does_nothing() {
    let host = running(&shop());
    let before = pids(&host);
    let shown = host.ok(&["up"]);
    assert_says(&shown, &["in sync"]);
    assert_touched(&host, &before, &[]);
}
