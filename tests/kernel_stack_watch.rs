//! Ring 5: `stack watch` follows what is saved, however it is saved, and touches only what hangs on it.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use sandbox::{Sandbox, until};
use shop::{assert_touched, pids};

/// A container that says in `/tmp/told` when it begins and when it gets SIGHUP, and one that nothing concerns.
fn text(keys: &str) -> String {
    format!(
        r#"
name = "shop"

[container.idle]
image = "host:"
command = ["sleep", "3600"]

[container.web]
image = "host:"
stop_timeout = "1s"
command = ["sh", "-c", "trap 'echo hup >> /tmp/told' HUP; echo started >> /tmp/told; while :; do sleep 0.05; done"]
{keys}
"#
    )
}

/// A `stack watch` on a host of its own.
struct Watched {
    host: Sandbox,
    child: Child,
    log: PathBuf,
}

impl Watched {
    fn new(keys: &str, files: &[(&str, &str)], args: &[&str]) -> Self {
        let host = Sandbox::new();
        for (name, content) in files {
            host.write(name, content);
        }
        host.write("stack.toml", &text(keys));
        let log = host.path().join("watch.log");
        let out = fs::File::create(&log).expect("a log");
        let mut command = host.command(&[&["watch", "--json"], args].concat());
        let child = command.stdout(out.try_clone().expect("a log")).stderr(out).spawn().expect("nsenter");
        let watched = Watched { host, child, log };
        watched.says("\"event\":\"arrived\"", 1);
        until("the program has begun", || watched.told() == "started");
        watched
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    /// Waits until it has said this so many times.
    fn says(&self, words: &str, times: usize) {
        until(words, || {
            let running = nix::sys::signal::kill(Pid::from_raw(self.child.id() as i32), None).is_ok();
            assert!(running, "it ended:\n{}", self.output());
            self.output().matches(words).count() >= times
        });
    }

    fn in_container(&self, line: &str) -> String {
        self.host.stack(&["exec", "web", "sh", "-c", line]).stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn told(&self) -> String {
        self.in_container("cat /tmp/told")
    }

    /// As an editor saves: a new file in the place of the old.
    fn save(&self, name: &str, content: &str) {
        let new = self.host.write(&format!("{name}~"), content);
        fs::rename(new, self.host.path().join(name)).expect("it is saved");
    }

    #[track_caller]
    fn becomes(&self, line: &str, expected: &str) {
        let mut last = String::new();
        let begun = std::time::Instant::now();
        while begun.elapsed() < sandbox::PATIENCE {
            last = self.in_container(line);
            if last == expected {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("`{line}` gives `{last}`, not `{expected}`\n{}", self.output());
    }

    fn idle(&self) -> i64 {
        self.host.init_of("idle")
    }

    /// Asks it to end, and waits for that.
    fn end(&mut self) -> i32 {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("it runs");
        self.child.wait().expect("it is ours").code().unwrap_or(-1)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const FILES: &str = r#"
env_file = ["web.env"]
memory = "64MiB"
mount = [{ bind = "app.conf", target = "/etc/app.conf", on_change = "signal:HUP" }]
secret = [{ file = "password", on_change = "restart" }]
"#;

fn files() -> Watched {
    Watched::new(FILES, &[("web.env", "LEVEL=one\n"), ("app.conf", "one\n"), ("password", "one")], &[])
}

#[test]
fn each_kind_of_file_does_its_own_and_no_other_container_is_touched() {
    let watched = files();
    let before = pids(&watched.host);
    watched.save("app.conf", "two\n");
    watched.becomes("cat /etc/app.conf", "two");
    until("it was told", || watched.told() == "started hup");
    // Written in place, without a rename.
    watched.host.write("app.conf", "three\n");
    until("it was told again", || watched.told() == "started hup hup");
    watched.host.write("stack.toml", &text(&FILES.replace("64MiB", "96MiB")));
    watched.says("\"verb\":\"live\"", 1);
    assert_touched(&watched.host, &before, &[]);
    watched.save("password", "two");
    until("it was started again", || watched.told() == "started hup hup started");
    assert_eq!(watched.in_container("cat /run/secrets/password"), "two");
    watched.save("web.env", "LEVEL=two\n");
    watched.becomes("echo $LEVEL", "two");
    assert_touched(&watched.host, &before, &["web"]);
    until("it is in sync", || watched.host.in_sync());
}

#[test]
fn a_broken_file_keeps_the_last_good_state_and_a_mended_one_goes_on() {
    let watched = files();
    let before = pids(&watched.host);
    watched.save("stack.toml", "name = [");
    watched.says("\"event\":\"broken\"", 1);
    // What hangs on the last good one is still followed, once it is right again.
    fs::remove_file(watched.host.path().join("web.env")).unwrap();
    watched.save("stack.toml", &text(FILES));
    watched.says("web.env` does not exist", 1);
    for pid in before.values() {
        assert!(fs::exists(format!("/proc/{pid}")).unwrap(), "nothing was stopped");
    }
    watched.host.write("web.env", "LEVEL=three\n");
    watched.says("\"event\":\"mended\"", 1);
    watched.becomes("echo $LEVEL", "three");
    assert_eq!(watched.idle(), before["idle"]);
}

#[test]
fn links_that_are_swapped_on_the_way_to_a_file_are_followed() {
    let watched = Watched::new(
        "mount = [{ bind = \"conf/app.conf\", target = \"/etc/app.conf\", on_change = \"none\" }]",
        &[("conf/v1/app.conf", "one"), ("conf/v2/app.conf", "two"), ("conf/app.conf", "plain")],
        &[],
    );
    let conf = watched.host.path().join("conf");
    symlink("v1", conf.join("..data")).unwrap();
    symlink("..data/app.conf", conf.join("new")).unwrap();
    fs::rename(conf.join("new"), conf.join("app.conf")).unwrap();
    watched.becomes("cat /etc/app.conf", "one");
    symlink("v2", conf.join("..next")).unwrap();
    fs::rename(conf.join("..next"), conf.join("..data")).unwrap();
    watched.becomes("cat /etc/app.conf", "two");
}

const SYNC: &str = r#"
env = { LEVEL = "one" }
user = "1234:1235"
[[container.web.watch]]
path = "src"
ignore = ["*.log", "node_modules/"]
target = "/tmp/app"
action = "sync"
"#;

#[test]
fn files_are_brought_into_the_running_container() {
    let watched = Watched::new(SYNC, &[("src/a", "one"), ("src/x.log", ""), ("src/node_modules/y", "")], &[]);
    let before = pids(&watched.host);
    watched.becomes("cd /tmp/app; find . -type f", "./a");
    assert_eq!(watched.in_container("stat -c %u:%g /tmp/app/a"), "1234:1235");
    watched.save("src/a", "two");
    watched.becomes("cat /tmp/app/a", "two");
    let src = watched.host.path().join("src");
    watched.host.write("src/old/deep/b", "below");
    watched.becomes("cat /tmp/app/old/deep/b", "below");
    fs::rename(src.join("old"), src.join("new")).unwrap();
    watched.becomes("cd /tmp/app; find . -type f | sort", "./a ./new/deep/b");
    // A folder that vanishes takes its files along, and one that returns brings them back.
    fs::rename(&src, watched.host.path().join("aside")).unwrap();
    watched.becomes("find /tmp/app -type f", "");
    fs::rename(watched.host.path().join("aside"), &src).unwrap();
    watched.becomes("cd /tmp/app; find . -type f | sort", "./a ./new/deep/b");
    assert_touched(&watched.host, &before, &[]);
    // A new container has nothing of it, until it is brought again.
    watched.save("stack.toml", &text(&SYNC.replace("one", "two")));
    watched.becomes("echo $LEVEL; cd /tmp/app && find . -type f | sort", "two ./a ./new/deep/b");
}

#[test]
fn a_burst_of_two_thousand_files_arrives_whole() {
    let watched = Watched::new(SYNC, &[("src/a", "one")], &[]);
    for number in 0..2000 {
        watched.host.write(&format!("src/d{}/f{number}", number % 40), "x");
    }
    watched.becomes("find /tmp/app -type f | wc -l", "2001");
    fs::remove_dir_all(watched.host.path().join("src/d7")).unwrap();
    watched.becomes("find /tmp/app -type f | wc -l", "1951");
}

#[test]
fn rules_restart_signal_and_run_commands_after_the_files_are_there() {
    let rules = r#"
[[container.web.watch]]
path = "src"
target = "/app"
action = "sync"
[[container.web.watch]]
path = "src"
action = "exec:cp /app/a /tmp/copied"
[[container.web.watch]]
path = "conf"
action = "signal:HUP"
[[container.web.watch]]
path = "code"
action = "restart"
"#;
    let watched = Watched::new(rules, &[("src/a", "one"), ("conf/a", "one"), ("code/a", "one")], &[]);
    let idle = watched.idle();
    watched.save("src/a", "two");
    watched.becomes("cat /tmp/copied", "two");
    watched.save("conf/a", "two");
    until("it was told", || watched.told() == "started hup");
    watched.save("code/a", "two");
    until("it was started again", || watched.told() == "started hup started");
    assert_eq!(watched.in_container("cat /app/a"), "two", "a restart keeps what was brought");
    assert_eq!(watched.idle(), idle);
}

#[test]
fn a_container_that_writes_where_it_is_watched_is_told_and_paused() {
    let rules = r#"
mount = [{ bind = "state", target = "/state" }]
[[container.web.watch]]
path = "state"
action = "exec:sh -c date>>/state/log"
"#;
    let watched = Watched::new(rules, &[("state/seed", "one")], &[]);
    watched.save("state/seed", "two");
    watched.says("\"event\":\"paused\"", 1);
    let times = || fs::read_to_string(watched.host.path().join("state/log")).unwrap_or_default().lines().count();
    let paused_at = times();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(times(), paused_at);
    let events = fs::read_to_string(watched.host.data_dir().join("events/shop.jsonl")).unwrap();
    assert!(events.contains("\"verb\":\"paused\""), "{events}");
}

#[test]
fn its_end_leaves_containers_running() {
    let mut watched = files();
    let before = pids(&watched.host);
    assert_eq!(watched.end(), 0);
    assert_touched(&watched.host, &before, &[]);
}

#[test]
fn another_run_that_works_on_the_stack_is_waited_for() {
    let watched = files();
    let folder = watched.host.run_dir().join("shop");
    let mut holder =
        watched.host.inside("flock").arg(&folder).args(["sleep", "3600"]).spawn().expect("flock (util-linux)");
    until("the lock is held", || watched.host.stack(&["up"]).code == 5);
    watched.save("web.env", "LEVEL=two\n");
    watched.says("\"event\":\"waiting\"", 1);
    // flock(1) forked the sleep, which holds the lock too.
    let sleeper = watched.host.sh(&format!("cat /proc/{0}/task/{0}/children", holder.id()));
    for pid in sleeper.split_whitespace().map(|pid| pid.parse().unwrap()).chain([holder.id() as i32]) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    holder.wait().unwrap();
    watched.becomes("echo $LEVEL", "two");
}

#[test]
fn drift_is_put_back_and_said_but_a_down_is_not_undone() {
    let watched = Watched::new("bridge = [\"b\"]\nport = [\"8080:80\"]\n[bridge.b]", &[], &["--repair=1s"]);
    let before: BTreeMap<String, i64> = pids(&watched.host);
    watched.host.sh("nft flush ruleset");
    until("the table is back", || watched.host.sh("nft list tables").contains("stack_shop"));
    until("it is in the log", || {
        let events = fs::read_to_string(watched.host.data_dir().join("events/shop.jsonl")).unwrap_or_default();
        events.contains("\"by\":\"repair\",\"resource\":\"nat\"")
    });
    assert_touched(&watched.host, &before, &[]);
    watched.host.ok(&["down"]);
    watched.says("\"event\":\"down\"", 1);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(pids(&watched.host).is_empty());
}
