//! Ring 5: what `down` takes away, what it leaves, and what it does not touch.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::{Sandbox, until};
use shop::{WAITS, answer, answers, apply, assert_says, pids, serves};

/// A stack with a port, a volume and a branch, on a subnet that is chosen for it.
fn stack(name: &str, port: u16) -> String {
    format!(
        "name = \"{name}\"\n[volume.data]\n[bridge.front]\n[cgroup.back]\nmemory = \"512MiB\"\n\
         [container.web]\nimage = \"host:\"\n{}\nbridge = [\"front\"]\nport = [\"{port}:80\"]\nvolume = [\"data:/data\"]\n\
         [container.job]\nimage = \"host:\"\n{WAITS}\ncgroup = \"back\"\n",
        serves(80, name)
    )
}

#[test]
fn volumes_outlive_down_and_are_deleted_only_by_name() {
    let host = Sandbox::new();
    apply(&host, &stack("shop", 8080));
    host.ok(&["exec", "web", "sh", "-c", "echo kept > /data/file"]);
    assert_says(&host.ok(&["down"]), &["volumes"]);
    assert_eq!(host.leftovers(), Vec::<String>::new());
    host.ok(&["up"]);
    assert_eq!(host.ok(&["exec", "web", "cat", "/data/file"]), "kept\n");
    // There is nobody to ask, and a wrong answer is as good as none.
    let before = pids(&host);
    for args in [&["down", "--volumes"], &["down", "--volumes=other"]] {
        let outcome = host.stack(args);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert_says(&outcome.stderr, &["name"]);
        assert_eq!(pids(&host), before, "nothing was stopped");
    }
    let data = host.data_dir().join("volumes/shop/data");
    assert!(data.join("file").exists());
    host.ok(&["down", "--volumes=shop"]);
    assert!(!data.exists());
    host.ok(&["up"]);
    assert_ne!(host.stack(&["exec", "web", "cat", "/data/file"]).code, 0);
}

#[test]
fn stacks_whose_names_begin_alike_do_not_touch_each_other() {
    let host = Sandbox::new();
    let names = ["app", "app-x", "app-x-y"];
    for (name, port) in names.into_iter().zip(8080..) {
        host.write(&format!("{name}.toml"), &stack(name, port));
        host.ok(&["up", &format!("{name}.toml")]);
    }
    for (name, port) in names.into_iter().zip(8080..) {
        assert!(answers(&host, port).starts_with(name));
        assert_eq!(host.stack(&["diff", &format!("{name}.toml")]).code, 0, "{name}");
    }
    host.ok(&["down", "app.toml"]);
    host.ok(&["down", "app.toml"]);
    assert_eq!(answer(&host, 8080), None);
    for (name, port) in names.into_iter().zip(8080..).skip(1) {
        assert!(answers(&host, port).starts_with(name));
        assert_eq!(host.stack(&["diff", &format!("{name}.toml")]).code, 0, "{name}");
    }
    host.ok(&["down", "--name", "app-x-y", "--volumes=app-x-y"]);
    assert!(answers(&host, 8081).starts_with("app-x"));
    assert_eq!(host.stack(&["diff", "app-x.toml"]).code, 0);
    assert!(host.data_dir().join("volumes/app-x/data").exists());
    host.ok(&["down", "app-x.toml"]);
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn down_of_what_does_not_run_does_nothing_and_is_no_error() {
    let host = Sandbox::new();
    host.write("stack.toml", &stack("shop", 8080));
    host.ok(&["down"]);
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn down_needs_no_file() {
    let host = Sandbox::new();
    apply(&host, &stack("shop", 8080));
    std::fs::remove_file(host.path().join("stack.toml")).unwrap();
    host.ok(&["down", "--name", "shop"]);
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn down_goes_through_where_somebody_took_half_of_it_away() {
    let host = Sandbox::new();
    apply(&host, &stack("shop", 8080));
    host.sh("nft flush ruleset; ip link delete $(ip -o link show type bridge | cut -d: -f2)");
    let monitor = host.ps()["web"]["run"]["monitor"].as_i64().unwrap();
    kill(Pid::from_raw(monitor as i32), Signal::SIGKILL).unwrap();
    host.ok(&["down"]);
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn what_the_host_had_before_it_has_after() {
    let host = Sandbox::new();
    host.sh("ip link add mine type bridge && ip addr add 172.30.0.1/24 dev mine && ip link set mine up && \
         nft add table inet mine && nft add chain inet mine c");
    // What keeps forwarding shut between other links stays, as forwarding does.
    let seen = "ip -o link; ip -o addr | sed 's/ tentative//'; ip route; cat /proc/self/mountinfo; \
        nft list ruleset | sed '/^table [a-z0-9]* stack-forwarding/,/^}/d'";
    let before = host.sh(seen);
    apply(&host, &stack("shop", 8080));
    host.ok(&["down"]);
    assert_eq!(host.sh(seen), before);
}

#[test]
fn a_chosen_subnet_keeps_clear_of_what_the_host_routes_and_stays() {
    let host = Sandbox::new();
    host.sh("ip link add mine type bridge && ip link set mine up && ip addr add 10.0.0.1/8 dev mine");
    apply(&host, &stack("shop", 8080));
    let address = host.ps()["web"]["addresses"][0].as_str().unwrap().to_string();
    assert!(!address.starts_with("10."), "{address}");
    let before = pids(&host);
    host.ok(&["up"]);
    shop::assert_touched(&host, &before, &[]);
}

#[test]
fn an_interrupted_run_says_so_and_the_next_one_goes_on_from_there() {
    let host = Sandbox::new();
    let job = format!("command = [\"sleep\", \"{}\"]", sandbox::slowness());
    let text = stack("shop", 8080).replace(WAITS, &job)
        + "[container.last]\nimage = \"host:\"\ncommand = [\"sleep\", \"3600\"]\nafter = { job = \"completed\" }\n";
    host.write("stack.toml", &text);
    let mut first = host.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the run is under way", || pids(&host).contains_key("job"));
    kill(Pid::from_raw(first.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(130));
    let before = pids(&host);
    assert!(!before.contains_key("last"));
    host.ok(&["up"]);
    assert_eq!(pids(&host).get("web"), before.get("web"));
    assert!(answers(&host, 8080).starts_with("shop"));
    shop::assert_in_sync(&host);
}

#[test]
fn two_runs_at_once_do_not_mix() {
    let host = Sandbox::new();
    let text = stack("shop", 8080).replace(WAITS, "command = [\"sh\", \"-c\", \"sleep 1\"]")
        + "[container.last]\nimage = \"host:\"\ncommand = [\"sleep\", \"3600\"]\nafter = { job = \"completed\" }\n";
    host.write("stack.toml", &text);
    let mut first = host.command(&["up"]).stdout(Stdio::null()).spawn().unwrap();
    until("the first run is under way", || pids(&host).contains_key("job"));
    let second = host.stack(&["up"]);
    assert_eq!(second.code, 5, "{second:?}");
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert!(answers(&host, 8080).starts_with("shop"));
}

#[test]
fn a_written_subnet_that_the_host_routes_elsewhere_is_refused_before_anything_changes() {
    let host = Sandbox::new();
    host.sh("ip link add mine type bridge && ip link set mine up && ip addr add 10.70.0.1/24 dev mine");
    let text = stack("shop", 8080).replace("[bridge.front]", "[bridge.front]\nsubnet = \"10.70.0.64/26\"");
    host.write("stack.toml", &text);
    let outcome = host.stack(&["up"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_says(&outcome.stderr, &["10.70.0.64/26", "10.70.0.0/24", "mine"]);
    assert!(
        host.leftovers().iter().all(|line| line.contains("mine") || line.contains("run directory")),
        "{:?}",
        host.leftovers()
    );
}
