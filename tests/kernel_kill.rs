//! Ring 5: `stack` killed at any instant. Whatever it was doing, the next plain run of `up` or `down` sets it right, and
//! nothing is left behind in the end.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::{Outcome, Sandbox, outcome, until};

/// Kills of each kind: together more than fifty.
const KILLS: u32 = 18;

/// A stack with one of everything: bridges, ports, a branch, a volume, and containers that wait for each other.
const BEFORE: &str = r#"
name = "mill"

[image.host]
from = "host:"

[bridge.front]
[bridge.back]

[cgroup.backend]
memory = "256MiB"

[volume.data]

[container.db]
image = "host"
command = ["perl", "-MIO::Socket::INET", "-e", '''
    my $$s = IO::Socket::INET->new(LocalPort => 7000, Listen => 16, ReuseAddr => 1) or die;
    while (my $$c = $$s->accept) {
        while (my $$l = <$$c>) { last if $$l eq "\r\n"; }
        print $$c "HTTP/1.0 200 OK\r\n\r\ndb\n";
    }
''']
bridge = ["back", "front"]
port = ["7001:7000"]
cgroup = "backend"
memory = "64MiB"
volume = ["data:/data"]
restart = "always"
health = { tcp = 7000, interval = "100ms", start_period = "30s" }

[container.job]
image = "host"
command = ["true"]
volume = ["data:/data"]

[container.web]
image = "host"
command = ["sleep", "3600"]
env = { GREETING = "hello" }
bridge = ["front"]
port = ["8080:80", "8081:81/udp"]
after = { db = "healthy", job = "completed" }
cpu = 0.5
pids = 32

[container.idle]
image = "host"
command = ["sleep", "3600"]
bridge = ["front"]
replicas = 2
"#;

/// The same stack with a change of every sort: replaced, written into what runs, new, gone.
fn after() -> String {
    BEFORE
        .replace("hello", "goodbye")
        .replace("64MiB", "96MiB")
        .replace("256MiB", "512MiB")
        .replace("8080:80", "8090:80")
        .replace("replicas = 2", "replicas = 1")
        .replace("[bridge.back]", "[bridge.back]\n[bridge.side]")
        + "[container.late]\nimage = \"host\"\ncommand = [\"sleep\", \"3600\"]\nbridge = [\"side\"]\n"
}

#[test]
fn an_up_that_was_killed_is_finished_by_the_next() {
    let host = mill();
    let mut random = Random::seeded("up");
    let whole = time(|| host.ok(&["up"]));
    host.ok(&["down"]);
    for instant in instants(whole, &mut random) {
        kill_after(&host, &["up"], instant);
        converges(&host, "stack.toml", instant);
        host.ok(&["down"]);
        nothing_left(&host, instant);
    }
}

#[test]
fn a_change_that_was_killed_is_finished_by_the_next_up() {
    let host = mill();
    let mut random = Random::seeded("change");
    host.ok(&["up"]);
    let whole = time(|| host.ok(&["up", "after.toml"]));
    let mut files = ["stack.toml", "after.toml"].into_iter().cycle();
    for instant in instants(whole, &mut random) {
        let file = files.next().expect("it goes on for ever");
        kill_after(&host, &["up", file], instant);
        converges(&host, file, instant);
    }
    host.ok(&["down"]);
    nothing_left(&host, whole);
}

#[test]
fn a_down_that_was_killed_is_finished_or_undone_by_the_next_run() {
    let host = mill();
    let mut random = Random::seeded("down");
    host.ok(&["up"]);
    let whole = time(|| host.ok(&["down"]));
    for instant in instants(whole, &mut random) {
        host.ok(&["up"]);
        kill_after(&host, &["down"], instant);
        if random.below(2) == 0 {
            converges(&host, "stack.toml", instant);
        }
        host.ok(&["down"]);
        nothing_left(&host, instant);
    }
}

#[test]
fn what_a_killed_down_still_stops_is_made_again() {
    let host = Sandbox::new();
    let command = r#"["sh", "-c", "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done"]"#;
    host.write("stack.toml", &format!("name = \"mill\"\n[container.slow]\nimage = \"host:\"\ncommand = {command}\n"));
    host.ok(&["up"]);
    let mut down = host.command(&["down"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    until("it is being stopped", || host.stack(&["ps"]).stdout.contains("stopping"));
    down.kill().expect("it was not waited for yet");
    down.wait().expect("it was not waited for yet");
    let up = host.stack(&["up"]);
    assert_eq!(up.code, 0, "{}\n{}", up.stdout, up.stderr);
    assert!(up.stdout.contains("it is being stopped"), "{}", up.stdout);
    std::thread::sleep(Duration::from_millis(1500));
    let diff = host.stack(&["diff"]);
    assert_eq!(diff.code, 0, "it runs on\n{}", diff.stdout);
}

#[test]
fn an_interrupted_up_says_so_and_the_next_goes_on() {
    let host = mill();
    // Nobody answers in time: the interrupt comes while the step of `web` waits.
    let slow = BEFORE.replace("[\"true\"]", "[\"sleep\", \"2\"]");
    host.write("stack.toml", &slow);
    let up = host.command(&["up"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    until("the job runs", || host.stack(&["ps"]).stdout.contains("job"));
    kill(pid_of(&up), Signal::SIGINT).expect("it lives");
    let ended = outcome(up.wait_with_output().expect("it ends"));
    assert_eq!(ended.code, 130, "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("`stack up` goes on from here"), "{}", ended.stderr);
    converges(&host, "stack.toml", Duration::ZERO);
    host.ok(&["down"]);
    nothing_left(&host, Duration::ZERO);
}

#[test]
fn of_two_runs_at_once_one_is_told_to_wait() {
    let host = mill();
    let slow = BEFORE.replace("[\"true\"]", "[\"sleep\", \"1\"]");
    host.write("stack.toml", &slow);
    let first = host.command(&["up"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    until("the first has begun", || host.stack(&["ps"]).stdout.contains("job"));
    for args in [["up"], ["down"]] {
        let second = host.stack(&args);
        assert_eq!(second.code, 5, "{args:?}\n{}\n{}", second.stdout, second.stderr);
        assert!(second.stderr.contains("another run of stack works on `mill`"), "{}", second.stderr);
    }
    let first = outcome(first.wait_with_output().expect("it ends"));
    assert_eq!(first.code, 0, "{}\n{}", first.stdout, first.stderr);
    host.ok(&["down"]);
    nothing_left(&host, Duration::ZERO);
}

fn mill() -> Sandbox {
    let host = Sandbox::new();
    host.write("stack.toml", BEFORE);
    host.write("after.toml", &after());
    host
}

/// Starts `stack` and kills it so long after. It may have ended by then, which is one of the cases.
fn kill_after(host: &Sandbox, args: &[&str], instant: Duration) {
    let mut child =
        host.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter (util-linux) is there");
    std::thread::sleep(instant);
    // nsenter(1) becomes `stack`: the number is its own. SIGKILL, as std does it.
    child.kill().expect("it was not waited for yet");
    child.wait().expect("it was not waited for yet");
}

/// One plain `up` is enough: it succeeds, and nothing is left to do.
fn converges(host: &Sandbox, file: &str, instant: Duration) {
    let killed = format!("killed after {instant:?}, then ");
    let up = host.stack(&["up", file]);
    assert_eq!(up.code, 0, "{killed}up {file}\n{}\n{}", up.stdout, up.stderr);
    // A job may be done again, and a diff sees it while it runs as well as after.
    let Outcome { code, stdout, stderr } = host.stack(&["diff", file]);
    assert_eq!(code, 0, "{killed}up {file}\n{}\n{}then diff\n{stdout}\n{stderr}", up.stdout, up.stderr);
    assert_eq!(host.sh("curl -s -m 5 http://127.0.0.1:7001/"), "db\n", "{killed}up {file}");
}

/// After `down` there are no processes, links, tables, groups, mounts and bundles, and of the data only what stays.
fn nothing_left(host: &Sandbox, instant: Duration) {
    let mut left = host.leftovers();
    for entry in fs::read_dir(host.data_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stays = matches!(
            &*name,
            "volumes" | "logs" | "layers" | "cache" | "events" | "generations" | "in-use" | "secret-hash.key"
        );
        if !stays && !is_empty_tree(&entry.path()) {
            left.push(format!("data {name}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let ours = |line: &&str| line.contains(&*host.path().to_string_lossy());
    left.extend(mounts.lines().filter(ours).map(|line| format!("mount of the host {line}")));
    assert_eq!(left, Vec::<String>::new(), "killed after {instant:?}");
}

/// Folders may stay; nothing in them may.
fn is_empty_tree(path: &std::path::Path) -> bool {
    path.is_dir() && fs::read_dir(path).into_iter().flatten().flatten().all(|entry| is_empty_tree(&entry.path()))
}

fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// Instants spread over a run: one at random in each of [`KILLS`] equal parts of it.
fn instants(whole: Duration, random: &mut Random) -> Vec<Duration> {
    let part = whole / KILLS;
    (0..KILLS).map(|index| part * index + part * random.below(1000) / 1000).collect()
}

/// splitmix64. The seed is printed, and STACK_TEST_SEED gives it again.
struct Random(u64);

impl Random {
    fn seeded(what: &str) -> Self {
        let given = std::env::var("STACK_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| jiff::Timestamp::now().as_nanosecond() as u64);
        println!("{what}: STACK_TEST_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % u64::from(bound)) as u32
    }
}
