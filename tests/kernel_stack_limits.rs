//! Ring 5: limits of running containers: what they use, limits changed under them, those of a branch over all in it.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use sandbox::{Sandbox, until};
use serde_json::Value;
use shop::{assert_says, running};

const BUSY: &str = "command = [\"sh\", \"-c\", \"while :; do :; done\"]";

fn stats(host: &Sandbox, name: &str) -> Value {
    let document: Value = serde_json::from_str(&host.ok(&["stats", "--json"])).unwrap();
    let containers = document["stacks"][0]["containers"].as_array().unwrap().clone();
    containers.into_iter().find(|container| container["name"] == name).unwrap()
}

#[test]
fn stats_tell_use_limits_and_throttling() {
    let text = format!(
        "name = \"shop\"\n[bridge.b]\n[cgroup.small]\nmemory = \"48MiB\"\n[container.box]\nimage = \"host:\"\n{BUSY}\n\
         bridge = [\"b\"]\ncgroup = \"small\"\ncpu = 0.1\nmemory = \"48MiB\"\npids = 9\n"
    );
    let host = running(&text);
    let first = stats(&host, "box");
    assert_eq!(first["memory_limit"], 48 << 20);
    assert_eq!((&first["cpu_limit"], &first["pids_limit"]), (&serde_json::json!(0.1), &serde_json::json!(9)));
    assert!(first["memory"].as_u64().unwrap() > 0 && first["pids"].as_u64().unwrap() >= 1, "{first}");
    let second = stats(&host, "box");
    let grown = |field: &str| second[field].as_u64().unwrap() - first[field].as_u64().unwrap();
    // What it got is what its periods allow, however long this took: at most a slice of 5 ms beyond for each processor.
    let allowed = grown("cpu_periods") * 10_000;
    assert!(grown("cpu_us") <= allowed + allowed / 20 + 20_000, "{} µs of {allowed}", grown("cpu_us"));
    assert!(grown("cpu_throttled_periods") > 0 && grown("cpu_throttled_us") > 0, "{first}\n{second}");
    assert_says(&host.ok(&["stats"]), &["THROTTLED", "48.0MiB"]);
    // Without a terminal `top` ends as well.
    assert_says(&host.ok(&["top"]), &["box"]);
}

#[test]
fn limits_change_under_a_running_container_and_none_kills_it() {
    let script = "my $x = \"x\" x 40_000_000; print \"ready\\n\"; STDOUT->flush; sleep 3600";
    let text = |memory: &str| {
        format!(
            "name = \"shop\"\n[container.box]\nimage = \"host:\"\ncommand = [\"perl\", \"-MIO::Handle\", \"-e\", '{}']\n\
             swap = \"0B\"\nmemory = \"{memory}\"\n",
            script.replace('$', "$$")
        )
    };
    let host = running(&text("128MiB"));
    until("it holds its memory", || host.ok(&["logs", "box"]).contains("ready"));
    let init = host.init_of("box");
    host.write("stack.toml", &text("96MiB"));
    host.ok(&["up"]);
    assert_eq!(stats(&host, "box")["memory_limit"], 96 << 20);
    // More is in use, and cannot be given back.
    host.write("stack.toml", &text("16MiB"));
    let outcome = host.stack(&["up"]);
    assert_eq!(outcome.code, 1, "{}\n{}", outcome.stdout, outcome.stderr);
    assert_says(&outcome.stderr, &["bytes of memory", "the old limit stays"]);
    assert_eq!(host.init_of("box"), init, "nothing was killed");
    let after = stats(&host, "box");
    assert_eq!((&after["memory_limit"], &after["oom_kills"]), (&serde_json::json!(96 << 20), &serde_json::json!(0)));
    host.write("stack.toml", &text("96MiB"));
    assert!(host.in_sync());
}

#[test]
fn a_branch_bounds_what_its_containers_use_together() {
    let container = |name: &str| format!("[container.{name}]\nimage = \"host:\"\n{BUSY}\ncgroup = \"small\"\n");
    let branch = "name = \"shop\"\n[cgroup.small]\ncpu = 0.2\ncpu_burst = \"10ms\"\n";
    let host = running(&format!("{branch}{}{}", container("one"), container("two")));
    let both = || ["one", "two"].map(|name| stats(&host, name)["cpu_us"].as_u64().unwrap());
    assert_eq!(stats(&host, "one")["cpu_limit"], 0.2);
    let begun = std::time::Instant::now();
    let before = both();
    let after = both();
    let used: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    // One second lies between the looks at least; 5 % and two periods' quota for the looks themselves.
    let allowed = begun.elapsed().as_micros() as u64 / 5;
    assert!(used <= allowed + allowed / 20 + 60_000, "{used} µs of {allowed}");
}
