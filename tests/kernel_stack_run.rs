//! Ring 5: the life of a container: init, signals, exit codes, restarts, health, order, logs.

#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::fs;
use std::time::{Duration, Instant};

use sandbox::{Sandbox, until};
use shop::{WAITS, apply, assert_says, output_of, pids, running, serves};

/// A stack with one container that runs a shell line.
fn one(line: &str, keys: &str) -> String {
    format!("name = \"shop\"\n[container.box]\nimage = \"host:\"\ncommand = [\"bash\", \"-c\", '''{line}''']\n{keys}\n")
}

fn box_of(host: &Sandbox) -> serde_json::Value {
    host.ps()["box"].clone()
}

/// How long `down` takes; nothing is left after it.
fn time_of_down(host: &Sandbox) -> Duration {
    let begun = Instant::now();
    host.ok(&["down"]);
    let took = begun.elapsed();
    assert_eq!(host.leftovers(), Vec::<String>::new());
    took
}

#[test]
fn the_first_process_is_an_init_that_reaps() {
    let orphan = "(sleep 0.05 & ) ; sleep 3600";
    let host = running(&one(orphan, ""));
    let processes = "cat /proc/1/comm; for p in /proc/[0-9]*; do grep -l '^State:.Z' $p/status; done 2>/dev/null; true";
    let mut seen = String::new();
    until("the orphan is gone", || {
        seen = host.ok(&["exec", "box", "sh", "-c", processes]);
        !seen.contains("/proc/")
    });
    assert!(!seen.contains("bash") && !seen.contains("sleep"), "{seen}");
}

#[test]
fn without_init_the_program_is_the_first_process() {
    let host = running(&format!("name = \"shop\"\n[container.box]\nimage = \"host:\"\n{WAITS}\ninit = false\n"));
    assert_eq!(host.ok(&["exec", "box", "cat", "/proc/1/comm"]), "sleep\n");
    // `sleep` has no handler for SIGTERM, and as PID 1 would never notice it: there is nothing to wait for.
    assert!(time_of_down(&host) < Duration::from_secs(5));
}

#[test]
fn the_stop_signal_is_that_of_the_file() {
    let line =
        "trap 'echo got INT; exit 0' INT; trap 'echo got TERM; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let host = running(&one(line, "stop_signal = \"SIGINT\""));
    until("it is ready", || host.ok(&["logs", "box"]).contains("ready"));
    let begun = Instant::now();
    host.ok(&["down"]);
    assert!(begun.elapsed() < Duration::from_secs(8));
    let log = fs::read_dir(host.data_dir().join("logs/shop/box")).unwrap();
    let text: String =
        log.map(|file| String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap()).into_owned()).collect();
    assert!(text.contains("got INT") && !text.contains("got TERM"), "{text}");
}

#[test]
fn a_container_that_ignores_its_stop_signal_is_killed_after_its_time() {
    let host = running(&one("trap '' TERM; echo ready; while :; do sleep 0.05; done", "stop_timeout = \"700ms\""));
    until("it is ready", || host.ok(&["logs", "box"]).contains("ready"));
    let took = time_of_down(&host);
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn exit_codes_are_shown_and_a_failure_is_repaired() {
    let host = Sandbox::new();
    host.write("stack.toml", &one("exit 7", ""));
    host.stack(&["up"]);
    until("it ends", || box_of(&host)["phase"]["state"] == "exited");
    assert_eq!(box_of(&host)["phase"]["code"], 7);
    assert_says(&host.ok(&["ps"]), &["box", "exited (7)"]);
    assert_says(&shop::differences(&host), &["container box", "restart", "ended with status 7"]);
    host.write("stack.toml", &one("kill -9 $$$$", ""));
    host.stack(&["up"]);
    until("it ends", || box_of(&host)["phase"]["code"] == 137);
    assert_says(&shop::differences(&host), &["SIGKILL"]);
}

#[test]
fn a_program_that_is_not_there_is_an_error_by_name() {
    let host = Sandbox::new();
    host.write("stack.toml", "name = \"shop\"\n[container.box]\nimage = \"host:\"\ncommand = [\"/no/such/program\"]\n");
    let outcome = host.stack(&["up"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_says(&outcome.stderr, &["box", "/no/such/program"]);
    host.write("stack.toml", &one("exec sleep 3600", ""));
    host.ok(&["up"]);
    shop::assert_in_sync(&host);
}

#[test]
fn on_failure_restarts_so_often_and_no_more() {
    let host = Sandbox::new();
    host.write("stack.toml", &one("echo run; exit 3", "restart = \"on-failure:2\""));
    let begun = Instant::now();
    host.stack(&["up"]);
    until("it gives up", || box_of(&host)["phase"]["state"] == "exited");
    assert!(begun.elapsed() > Duration::from_millis(200), "there is a pause between restarts");
    assert_eq!(box_of(&host)["run"]["restarts"], 2);
    let log = host.ok(&["logs", "box"]);
    assert_eq!(log.lines().filter(|line| line.ends_with("run")).count(), 3, "{log}");
}

#[test]
fn on_failure_lets_success_be() {
    let host = running(&one("exit 0", "restart = \"on-failure\""));
    until("it ends", || box_of(&host)["phase"]["state"] == "exited");
    assert_eq!(box_of(&host)["run"]["restarts"], 0);
    shop::assert_in_sync(&host);
}

#[test]
fn a_container_above_its_memory_is_killed_counted_and_shown() {
    let hog = "perl -e 'my $$x = \"x\" x 200_000_000; sleep 60'";
    let host = Sandbox::new();
    host.write("stack.toml", &one(hog, "memory = \"16MiB\"\nswap = \"0B\""));
    host.stack(&["up"]);
    until("it is killed", || box_of(&host)["phase"]["state"] == "exited");
    assert_eq!(box_of(&host)["phase"]["code"], 137);
    assert!(box_of(&host)["run"]["oom_kills"].as_u64().unwrap() >= 1);
    assert_says(&host.ok(&["ps"]), &["out of memory 1×", "`perl` (process "]);
}

#[test]
fn a_kill_is_told_while_the_container_goes_on() {
    let hog = "while :; do [ -e /hog ] && { perl -e 'my $$x = \"x\" x 200_000_000'; rm /hog; }; sleep 0.05; done";
    // The branch's limit is the one that is reached.
    let text = one(hog, "cgroup = \"small\"") + "[cgroup.small]\nmemory = \"32MiB\"\nswap = \"0B\"\n";
    let host = running(&text);
    host.ok(&["exec", "box", "touch", "/hog"]);
    until("the monitor has told", || box_of(&host)["run"]["oom_kills"] == 1);
    let seen = box_of(&host);
    let told = seen["run"]["last_oom"].as_str().unwrap();
    assert_says(
        told,
        &["`perl` (process ", ") was killed: out of memory, the limit of ", "/shop/small.branch is 32MiB"],
    );
    assert_eq!(seen["phase"]["state"], "running");
    assert_says(&host.ok(&["logs", "box"]), &[told]);
    host.ok(&["exec", "box", "touch", "/hog"]);
    until("the second is told too", || box_of(&host)["run"]["oom_kills"] == 2);
}

#[test]
fn health_is_probed_by_exec_tcp_and_http() {
    let text = format!(
        "name = \"shop\"\n[bridge.b]\n\
         [container.exec]\nimage = \"host:\"\ncommand = [\"sh\", \"-c\", \"sleep 0.3; touch /ok; sleep 3600\"]\n\
         health = {{ exec = [\"test\", \"-e\", \"/ok\"], interval = \"100ms\", retries = 50 }}\n\
         [container.tcp]\nimage = \"host:\"\n{}\nhealth = {{ tcp = 80, interval = \"100ms\", retries = 50 }}\n\
         [container.http]\nimage = \"host:\"\ncommand = [\"busybox\", \"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/usr/share\"]\n\
         health = {{ http = \"/doc/\", port = 80, interval = \"100ms\", retries = 3 }}\n\
         [container.found]\nimage = \"host:\"\ncommand = [\"busybox\", \"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/etc\"]\n\
         health = {{ http = \"/os-release\", port = 80, interval = \"100ms\", retries = 50 }}\n",
        serves(80, "tcp")
    );
    let host = running(&text);
    for name in ["exec", "tcp", "found"] {
        until(&format!("{name} is healthy"), || host.ps()[name]["health"] == "healthy");
    }
    until("a 404 is unhealthy", || host.ps()["http"]["health"] == "unhealthy");
    assert_says(&host.ps()["http"]["run"]["last_probe"].to_string(), &["404"]);
}

#[test]
fn an_unhealthy_container_is_restarted_where_the_file_says_so() {
    let host = running(&one(
        "if [ -e /run/once ]; then :; fi; exec sleep 3600",
        "health = { exec = [\"test\", \"!\", \"-e\", \"/sick\"], interval = \"100ms\", retries = 2, on_failure = \"restart\" }\n\
         restart = \"always\"",
    ));
    until("it is healthy", || box_of(&host)["health"] == "healthy");
    let before = pids(&host);
    host.ok(&["exec", "box", "touch", "/sick"]);
    until("it is restarted", || pids(&host).get("box").is_some_and(|pid| *pid != before["box"]));
    assert_says(&host.ok(&["logs", "box"]), &["unhealthy"]);
}

#[test]
fn a_container_waits_until_others_are_healthy_and_completed() {
    let host = Sandbox::new();
    let text = "name = \"shop\"\n[volume.v]\n\
         [container.migrate]\nimage = \"host:\"\ncommand = [\"sh\", \"-c\", \"sleep 0.3; echo migrated > /v/done\"]\nvolume = [\"v:/v\"]\n\
         [container.db]\nimage = \"host:\"\ncommand = [\"sh\", \"-c\", \"sleep 0.3; touch /v/up; exec sleep 3600\"]\nvolume = [\"v:/v\"]\n\
         health = { exec = [\"test\", \"-e\", \"/v/up\"], interval = \"100ms\", retries = 50 }\n\
         [container.web]\nimage = \"host:\"\ncommand = [\"ls\", \"/v\"]\nvolume = [\"v:/v\"]\n\
         after = { db = \"healthy\", migrate = \"completed\" }\n";
    let shown = apply(&host, text);
    assert_says(&shown, &["waits until db is healthy", "waits until migrate is completed"]);
    assert_eq!(output_of(&host, "web"), "done\nup");
}

#[test]
fn a_job_runs_once_on_change_or_at_each_up() {
    let host = Sandbox::new();
    let job = |run: &str, level: &str| {
        format!(
            "[container.{run}]\nimage = \"host:\"\ntype = \"oneshot\"\nrun = \"{run}\"\nvolume = [\"v:/v\"]\nenv = {{ LEVEL = \"{level}\" }}\n\
             command = [\"sh\", \"-c\", \"echo x >> /v/{run}\"]\n"
        )
    };
    let file = |level: &str| {
        let jobs: String = ["once", "on-change", "always"].iter().map(|run| job(run, level)).collect();
        format!("name = \"shop\"\n[volume.v]\n{jobs}")
    };
    let up = |level: &str| {
        host.write("stack.toml", &file(level));
        host.ok(&["up", "--wait"])
    };
    let runs = || {
        ["once", "on-change", "always"].map(|run| {
            fs::read_to_string(host.data_dir().join("volumes/shop/v").join(run)).expect("runs").lines().count()
        })
    };
    assert_says(&up("info"), &["+ container once"]);
    assert_eq!(runs(), [1, 1, 1]);
    assert_eq!(host.ok(&["ps"]).matches("completed").count(), 3);
    assert_says(&up("info"), &["runs at each `up`"]);
    assert_eq!(runs(), [1, 1, 2]);
    up("debug");
    assert_eq!(runs(), [1, 2, 3]);
    assert_eq!(host.stack(&["diff"]).code, 2, "`up` would run one of them");
}

#[test]
fn what_fails_before_it_is_waited_for_is_said_with_its_last_words() {
    let host = Sandbox::new();
    let text = format!(
        "name = \"shop\"\n\
         [container.migrate]\nimage = \"host:\"\ncommand = [\"sh\", \"-c\", \"echo no such table: orders; exit 4\"]\n\
         [container.web]\nimage = \"host:\"\n{WAITS}\nafter = {{ migrate = \"completed\" }}\n\
         [container.other]\nimage = \"host:\"\n{WAITS}\n"
    );
    host.write("stack.toml", &text);
    let outcome = host.stack(&["up"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_says(&outcome.stderr, &["migrate", "status 4", "no such table: orders"]);
    let runs: Vec<String> = pids(&host).into_keys().collect();
    assert_eq!(runs, ["other"], "what does not hang on it runs");
}

#[test]
fn up_wait_comes_back_when_all_is_healthy_and_fails_when_something_is_not() {
    let health = |probe: &str| format!("health = {{ exec = [\"{probe}\"], interval = \"100ms\", retries = 2 }}");
    let host = Sandbox::new();
    host.write("stack.toml", &one("exec sleep 3600", &health("true")));
    host.ok(&["up", "--wait"]);
    assert_eq!(box_of(&host)["health"], "healthy");
    host.write("stack.toml", &one("exec sleep 3601", &health("false")));
    let outcome = host.stack(&["up", "--wait"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_says(&outcome.stderr, &["box", "unhealthy"]);
}

#[test]
fn logs_keep_within_their_bound_and_both_streams() {
    let line =
        "echo to-stderr >&2; for i in $(seq 3000); do echo line $$i of a log that is rotated; done; echo the end";
    let host = running(&one(line, "log = { size = \"8KiB\", files = 3 }"));
    let text = output_of(&host, "box");
    assert_says(&text, &["the end", "line 3000 of"]);
    assert!(!text.contains("line 1 of"), "{}", text.len());
    let folder = host.data_dir().join("logs/shop/box");
    let files: Vec<u64> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert!(files.len() <= 4 && files.iter().sum::<u64>() < 4 * 8192 + 8192, "{files:?}");
    let tail = host.ok(&["logs", "-n", "2", "box"]);
    assert_eq!(tail.lines().count(), 2, "{tail}");
}

#[test]
fn exec_gives_the_status_of_what_it_ran() {
    let host = running(&one("exec sleep 3600", "env = { A = \"1\" }\nworkdir = \"/usr\""));
    assert_eq!(host.stack(&["exec", "box", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(host.stack(&["exec", "box", "/no/such"]).code, 127);
    assert_eq!(host.stack(&["exec", "box", "/etc/passwd"]).code, 126);
    assert_eq!(host.ok(&["exec", "-e", "B=2", "box", "sh", "-c", "echo $A$B $PWD"]), "12 /usr\n");
    assert_eq!(host.ok(&["exec", "-u", "1:1", "-w", "/tmp", "box", "sh", "-c", "id -u; pwd"]), "1\n/tmp\n");
    let outcome = host.stack(&["exec", "nobody", "true"]);
    assert!(outcome.code != 0 && outcome.stderr.contains("nobody"), "{outcome:?}");
}
