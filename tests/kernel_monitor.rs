//! Real monitors with real containers: started, followed, probed, stopped, killed. Needs root.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use stack::model::{ByteSize, Health, HealthAction, LogLimits, Probe, Restart};
use stack::monitor::client::{self, ClientError, Found, Launcher, MonitorHandle};
use stack::monitor::log::reader::{From, LogReader};
use stack::monitor::spec::{MonitorSpec, RootfsSpec};
use stack::monitor::status::{HealthState, ProcessId, State, Status};
use stack::runtime::cgroup::{Cgroup, CgroupLimits, CgroupPath, Hierarchies};
use stack::runtime::sys::{MountAttributes, mount_setattr};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bundle of its own with what its container runs; gone with its container when dropped.
struct Container {
    dir: tempfile::TempDir,
    spec: MonitorSpec,
}

impl Container {
    /// Runs a shell script as the container's only program.
    fn script(script: &str) -> Self {
        Self::command(&["sh", "-c", script])
    }

    fn command(command: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        host_root(&root);
        let config = serde_json::to_vec(&config(command)).unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        let spec = MonitorSpec {
            instance: "test-1".into(),
            rootfs: RootfsSpec::Dir(root),
            cgroup_procs: vec![],
            monitor_cgroup_procs: vec![],
            cgroup_root: "/sys/fs/cgroup".into(),
            cgroup: "no/such/group".into(),
            own_netns: true,
            init: false,
            restart: Restart::No,
            health: None,
            log_dir: dir.path().join("log"),
            log: LogLimits { size: ByteSize(1 << 20), files: 2 },
            stop_signal: 15,
            epoch: String::new(),
            stop_timeout_ms: 10_000,
        };
        Self { dir, spec }
    }

    fn with(mut self, change: impl FnOnce(&mut MonitorSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn bundle(&self) -> &Path {
        self.dir.path()
    }

    fn spawn(&self) -> MonitorHandle {
        self.spec.save(self.bundle()).unwrap();
        launcher().spawn(self.bundle()).unwrap()
    }

    /// Starts monitor and container and gives the container's PID 1.
    async fn start(&self) -> Result<i32, ClientError> {
        let monitor = self.spawn();
        assert_eq!(monitor.net_ready().await?, monitor.pid());
        monitor.go().await
    }

    fn status(&self) -> Status {
        Status::load(self.bundle()).unwrap().expect("a status")
    }

    /// Waits until the status is as asked for, and gives it.
    async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn until_exited(&self) -> Status {
        self.until("exited", |status| status.state == State::Exited).await
    }

    async fn stop(&self) -> Status {
        if let Some(stopping) = client::stop(self.bundle()).unwrap() {
            tokio::time::timeout(PATIENCE, stopping.ended()).await.expect("stops").unwrap();
        }
        self.status()
    }

    /// All lines of the log as `stream text`.
    fn log(&self) -> Vec<String> {
        let mut reader = LogReader::open(&self.spec.log_dir, From::Oldest).unwrap();
        std::iter::from_fn(|| reader.next_record().unwrap())
            .map(|record| format!("{} {}", record.stream.as_str(), String::from_utf8_lossy(&record.text)))
            .collect()
    }

    async fn until_logged(&self, line: &str) {
        let begun = Instant::now();
        while !self.log().iter().any(|seen| seen == line) {
            assert!(begun.elapsed() < PATIENCE, "never logged `{line}`: {:?}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A test that failed half-way leaves nothing behind either.
        let _ = client::kill(self.dir.path());
    }
}

/// A root in which the host's programs run: empty but for the names that lead to its `/usr`.
fn host_root(root: &Path) {
    for directory in ["usr", "proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
}

fn config(command: &[&str]) -> serde_json::Value {
    let namespaces: Vec<_> =
        ["pid", "mount", "ipc", "uts", "cgroup"].map(|kind| serde_json::json!({ "type": kind })).to_vec();
    serde_json::json!({
        "ociVersion": "1.2.0",
        "root": { "path": "root" },
        "hostname": "test-1",
        "process": {
            "args": command,
            "cwd": "/",
            "env": ["PATH=/usr/bin:/bin"],
            "user": { "uid": 0, "gid": 0 },
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] },
        ],
        "linux": { "namespaces": namespaces },
    })
}

/// Starts monitors from the `stack` binary, out of reach for containers as `up` does it.
fn launcher() -> Launcher {
    let path = CString::new(env!("CARGO_BIN_EXE_stack")).unwrap();
    let file = open_tree(CWD, &path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC).unwrap();
    mount_setattr(file.as_fd(), 0, &MountAttributes::set(MountAttributes::READ_ONLY)).unwrap();
    Launcher::new(file)
}

#[tokio::test]
async fn output_and_exit_status_are_kept() {
    let container = Container::script("echo out; echo err >&2; printf unfinished; exit 3");
    container.start().await.unwrap();
    let status = container.until_exited().await;
    assert_eq!((status.exit_code, status.signal, status.restarts), (Some(3), None, 0));
    assert!(status.started_at.unwrap() <= status.finished_at.unwrap());
    let mut log = container.log();
    log.sort();
    assert_eq!(log, ["stderr err", "stdout out"]);
    let raw = fs::read_to_string(container.spec.log_dir.join("current.log")).unwrap();
    assert!(raw.contains(" stdout P unfinished\n"), "{raw}");
}

#[tokio::test]
async fn a_stopped_container_may_end_in_its_own_way() {
    let container = Container::script("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done");
    let pid = container.start().await.unwrap();
    container.until_logged("stdout ready").await;
    assert_eq!(container.status().init_pid, Some(pid));
    let status = container.stop().await;
    assert_eq!((status.state, status.exit_code, status.note), (State::Exited, Some(5), None));
    assert_eq!(container.log(), ["stdout ready", "stdout bye"]);
    assert_eq!(ProcessId::of(pid), None);
    assert!(matches!(client::read_status(container.bundle()).unwrap(), Found::Ended(_)));
    assert!(client::stop(container.bundle()).unwrap().is_none(), "a second stop finds nobody");
}

#[tokio::test]
async fn a_container_that_does_not_stop_is_killed_when_its_time_is_over() {
    let container = Container::script("trap 'echo no' TERM; echo ready; while :; do sleep 0.01; done")
        .with(|spec| spec.stop_timeout_ms = 300);
    container.start().await.unwrap();
    container.until_logged("stdout ready").await;
    let begun = Instant::now();
    let status = container.stop().await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(status.signal, Some(9));
    assert_eq!(container.log(), ["stdout ready", "stdout no"]);
}

#[tokio::test]
async fn a_pid_1_that_would_never_get_the_signal_is_not_waited_for() {
    let container = Container::script("echo ready; exec sleep 1000").with(|spec| spec.stop_timeout_ms = 60_000);
    let pid = container.start().await.unwrap();
    container.until_logged("stdout ready").await;
    while fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() != "sleep\n" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let status = container.stop().await;
    assert_eq!(status.signal, Some(9));
    assert_eq!(status.note.as_deref(), Some("PID 1 does not handle signal 15, so it was killed at once"));
}

#[tokio::test]
async fn a_pid_1_that_waits_for_signals_without_a_handler_gets_its_time() {
    let script = "import signal, sys\n\
                  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n\
                  print('ready', flush=True)\n\
                  signal.sigwait([signal.SIGTERM])\n\
                  sys.exit(6)\n";
    let container = Container::command(&["python3", "-c", script]);
    container.start().await.unwrap();
    container.until_logged("stdout ready").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let status = container.stop().await;
    assert_eq!(status.exit_code, Some(6), "{status:?}");
}

#[tokio::test]
async fn a_container_is_started_again_with_growing_pauses() {
    let container = Container::script("exit 7").with(|spec| spec.restart = Restart::Always);
    let begun = Instant::now();
    container.start().await.unwrap();
    let status = container.until("restarted twice", |status| status.restarts == 2).await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "pauses of 100 and 200 ms");
    drop(status);
    let waiting = container.until("waiting", |status| status.state == State::Restarting).await;
    assert_eq!((waiting.exit_code, waiting.init_pid), (Some(7), None));
    assert!(waiting.next_start_at.unwrap() > waiting.finished_at.unwrap());
    let status = container.stop().await;
    assert_eq!((status.state, status.next_start_at), (State::Exited, None));
    assert!(container.log().contains(&"stack restarted after exit status 7".to_owned()));
}

#[tokio::test]
async fn retries_on_failure_are_counted() {
    let container = Container::script("exit 1").with(|spec| {
        spec.restart = Restart::OnFailure { max_retries: Some(1) };
    });
    container.start().await.unwrap();
    let status = container.until_exited().await;
    assert_eq!((status.restarts, status.exit_code), (1, Some(1)));
}

#[tokio::test]
async fn a_monitor_whose_up_dies_before_go_leaves_nothing() {
    let container = Container::script("echo never");
    let monitor = container.spawn();
    let pid = monitor.net_ready().await.unwrap();
    let process = ProcessId::of(pid).unwrap();
    assert_eq!(container.status().state, State::Created);
    drop(monitor);
    let begun = Instant::now();
    while process.is_alive() {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(matches!(client::read_status(container.bundle()).unwrap(), Found::Abandoned(_)));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "reaped");
    assert!(!container.spec.log_dir.exists());
}

#[tokio::test]
async fn a_monitor_is_apart_from_up() {
    let container = Container::script("exec sleep 1000");
    container.start().await.unwrap();
    let pid = container.status().monitor_pid;
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(read("comm"), "stack-monitor\n");
    let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap();
    assert_eq!(session.as_raw(), pid, "a session of its own");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let net = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(net(pid), net(std::process::id() as i32));
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    // Lowering it takes CAP_SYS_RESOURCE.
    let expected = if has_capability(24) { "-999\n" } else { &own };
    assert_eq!(read("oom_score_adj"), expected);
    // The channel is closed right after the last word on it, and nothing of the starter's was left open.
    let mut open = open_files(pid);
    let begun = Instant::now();
    while open.iter().any(|target| target.starts_with("socket:")) {
        assert!(begun.elapsed() < PATIENCE, "{open:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
        open = open_files(pid);
    }
    let expected = ["/dev/null", "/dev/null", "/dev/null", "anon_inode:[pidfd]", "anon_inode:[signalfd]"];
    let others: Vec<_> = open.iter().filter(|target| !target.starts_with("pipe:")).collect();
    assert_eq!(others[1..4], expected[..3], "{open:?}");
    assert_eq!(others[4..], expected[3..], "{open:?}");
    assert!(others[0].ends_with("/log/current.log"));
    assert_eq!(open.len() - others.len(), 2, "one pipe for each stream: {open:?}");
    container.stop().await;
}

/// Whether this process may do what the capability of this number allows.
fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & (1 << number) != 0
}

/// What the open files of a process are, sorted.
fn open_files(pid: i32) -> Vec<String> {
    let link = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
    let mut targets: Vec<_> = entries.filter_map(link).map(|path| path.to_string_lossy().into_owned()).collect();
    targets.sort_by_key(|target| (!target.ends_with("current.log"), target.clone()));
    targets
}

#[tokio::test]
async fn the_container_is_no_dearer_to_the_oom_killer_than_up() {
    let container =
        Container::script("cat /proc/self/oom_score_adj; ls /proc/self/fd | wc -l; grep Sig[BI] /proc/self/status");
    container.start().await.unwrap();
    container.until_exited().await;
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let blocked = "stdout SigBlk:\t0000000000000000";
    let ignored = "stdout SigIgn:\t0000000000000000";
    // `ls` itself has the directory open beside the three.
    assert_eq!(container.log(), [&format!("stdout {}", own.trim()), "stdout 4", blocked, ignored]);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_told_to_up_and_never_retried() {
    let container = Container::command(&["/no/such/program"]).with(|spec| spec.restart = Restart::Always);
    let error = container.start().await.unwrap_err();
    assert!(matches!(&error, ClientError::NotStarted { text } if text.contains("/no/such/program")), "{error}");
    let status = container.until_exited().await;
    assert_eq!((status.init_pid, status.restarts), (None, 0));
    assert!(status.note.unwrap().contains("/no/such/program"));
}

#[tokio::test]
async fn a_container_dies_with_its_monitor() {
    for init in [false, true] {
        let container = Container::script("sleep 1000 & sleep 1000").with(|spec| spec.init = init);
        let pid = container.start().await.unwrap();
        let process = ProcessId::of(pid).unwrap();
        let killed = client::kill(container.bundle()).unwrap().expect("a monitor");
        tokio::time::timeout(PATIENCE, killed.ended()).await.expect("ends").unwrap();
        let begun = Instant::now();
        while process.is_alive() {
            assert!(begun.elapsed() < PATIENCE, "PID 1 lives on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(matches!(client::read_status(container.bundle()).unwrap(), Found::Abandoned(_)));
    }
}

#[tokio::test]
async fn with_an_init_signals_are_forwarded_and_the_status_is_the_payloads() {
    let container = Container::script("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done")
        .with(|spec| spec.init = true);
    container.start().await.unwrap();
    container.until_logged("stdout ready").await;
    let status = container.stop().await;
    assert_eq!(status.exit_code, Some(5), "{status:?}");
    // A payload that is not PID 1 has the signals' default effects.
    let container = Container::script("echo ready; exec sleep 1000").with(|spec| spec.init = true);
    container.start().await.unwrap();
    container.until_logged("stdout ready").await;
    let begun = Instant::now();
    let status = container.stop().await;
    assert_eq!((status.exit_code, status.note), (Some(128 + 15), None));
    assert!(begun.elapsed() < Duration::from_secs(5), "no timeout had to pass");
}

#[tokio::test]
async fn exec_probes_run_in_the_container() {
    let script = "cat /etc/ok 2>&1; test -e /etc/ok || { test -e /etc/slow && sleep 1000; exit 4; }";
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let container = Container::script("exec sleep 1000").with(|spec| {
        spec.health = Some(health(Probe::Exec { command }));
    });
    container.start().await.unwrap();
    let etc = container.bundle().join("root/etc");
    fs::create_dir(&etc).unwrap();
    let status = container.until("unhealthy", |status| status.health == HealthState::Unhealthy).await;
    let text = status.last_probe.unwrap().text;
    assert_eq!(text, "exit status 4: cat: /etc/ok: No such file or directory");
    fs::write(etc.join("ok.new"), "fine\n").unwrap();
    fs::rename(etc.join("ok.new"), etc.join("ok")).unwrap();
    let status = container.until("healthy", |status| status.health == HealthState::Healthy).await;
    assert_eq!(status.last_probe.unwrap().text, "fine");
    fs::write(etc.join("slow"), "").unwrap();
    fs::remove_file(etc.join("ok")).unwrap();
    let timed_out = |status: &Status| status.last_probe.as_ref().is_some_and(|probe| probe.text.contains("no result"));
    container.until("timed out", timed_out).await;
    container.stop().await;
}

#[tokio::test]
async fn a_flood_of_output_is_kept_within_its_bounds_and_holds_up_nobody() {
    let container = Container::script("seq 1 300000; echo last >&2").with(|spec| {
        spec.log = LogLimits { size: ByteSize(1 << 20), files: 3 };
    });
    container.start().await.unwrap();
    let status = container.until_exited().await;
    assert_eq!((status.exit_code, status.log_bytes_dropped), (Some(0), 0));
    let files: Vec<_> = fs::read_dir(&container.spec.log_dir).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 1 << 20));
    let log = container.log();
    let numbers: Vec<u32> = log.iter().filter_map(|line| line.strip_prefix("stdout ")?.parse().ok()).collect();
    assert_eq!(numbers.last(), Some(&300_000));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "nothing is missing in between");
    assert!(log.contains(&"stderr last".to_owned()));
}

/// A cgroup of its own with a memory limit, gone when dropped.
struct Group(Cgroup);

impl Group {
    fn with_memory(name: &str, bytes: u64) -> Self {
        let hierarchies = Hierarchies::probe(Path::new("/sys/fs/cgroup")).unwrap();
        let path = CgroupPath::new(format!("stack-test-monitor-{}/{name}", std::process::id())).unwrap();
        let parent = path.parent().unwrap();
        Cgroup::create(&hierarchies, &parent).unwrap();
        let group = Cgroup::create(&hierarchies, &path).unwrap();
        group.set_limits(&CgroupLimits { memory_max: Some(bytes), ..CgroupLimits::default() }).unwrap();
        Self(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let hierarchies = Hierarchies::probe(Path::new("/sys/fs/cgroup")).unwrap();
        let _ = self.0.kill();
        let _ = hierarchies.remove_tree(&self.0.path().parent().unwrap());
    }
}

#[tokio::test]
async fn oom_kills_are_counted() {
    let group = Group::with_memory("oom", 32 << 20);
    let container = Container::script("tail /dev/zero; echo ended with $?").with(|spec| {
        spec.cgroup_procs = group.0.procs_files();
        spec.cgroup = group.0.path().as_str().to_owned();
        spec.init = true;
    });
    container.start().await.unwrap();
    let status = container.until_exited().await;
    // The shell's own word on standard error may come before it or after: they are two pipes.
    assert!(container.log().iter().any(|line| line == "stdout ended with 137"), "{:?}", container.log());
    assert_eq!((status.oom_kills, status.exit_code), (1, Some(0)));
}

#[tokio::test]
async fn an_idle_monitor_takes_no_processor_time() {
    let container = Container::script("exec sleep 1000");
    container.start().await.unwrap();
    let pid = container.status().monitor_pid;
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect::<Vec<_>>()
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = switches();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(switches(), before, "it never woke");
    container.stop().await;
}

#[tokio::test]
async fn live_settings_are_taken_at_a_reload() {
    let mut container = Container::script("exec sleep 1000");
    container.start().await.unwrap();
    assert_eq!(container.status().health, HealthState::None);
    container.spec.health = Some(health(Probe::Tcp { port: 9 }));
    container.spec.save(container.bundle()).unwrap();
    assert!(client::reload(container.bundle()).unwrap());
    container.until("probed", |status| status.health == HealthState::Unhealthy).await;
    container.spec.health = None;
    container.spec.save(container.bundle()).unwrap();
    assert!(client::reload(container.bundle()).unwrap());
    container.until("not probed", |status| status.health == HealthState::None).await;
    fs::write(container.bundle().join("monitor.json"), "{").unwrap();
    assert!(client::reload(container.bundle()).unwrap());
    container.until("told", |status| status.note.is_some()).await;
    container.stop().await;
}

fn health(probe: Probe) -> Health {
    Health {
        probe,
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(200),
        retries: 2,
        start_period: Duration::ZERO,
        on_failure: HealthAction::None,
    }
}

/// Answers HTTP on a port of the network namespace of `pid` until dropped; 503 once `break_down` was called.
struct Server {
    broken: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Server {
    fn in_netns_of(pid: i32, port: u16) -> Self {
        let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let answer = broken.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let netns = File::open(format!("/proc/{pid}/ns/net")).unwrap();
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
            ready.send(()).unwrap();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 256];
                // A tcp probe sends nothing.
                let _ = stream.read(&mut request);
                let broken = answer.load(std::sync::atomic::Ordering::SeqCst);
                let line = if broken { "HTTP/1.1 503 Broken" } else { "HTTP/1.1 200 OK" };
                let _ = stream.write_all(format!("{line}\r\n\r\n").as_bytes());
            }
        });
        is_ready.recv().unwrap();
        Self { broken }
    }

    fn break_down(&self) {
        self.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[tokio::test]
async fn http_probes_are_made_inside_the_containers_network() {
    let probe = Probe::Http { port: 80, path: "/healthz".into() };
    let container = Container::script("exec sleep 1000").with(|spec| spec.health = Some(health(probe)));
    container.start().await.unwrap();
    assert_eq!(container.status().health, HealthState::Starting);
    let refused = container.until("probed", |status| status.last_probe.is_some()).await.last_probe.unwrap();
    assert!(!refused.passed && refused.text.contains("port 80"), "{refused:?}");
    let server = Server::in_netns_of(container.status().monitor_pid, 80);
    let status = container.until("healthy", |status| status.health == HealthState::Healthy).await;
    assert_eq!(status.last_probe.unwrap().text, "HTTP/1.1 200 OK");
    server.break_down();
    let status = container.until("unhealthy", |status| status.health == HealthState::Unhealthy).await;
    assert_eq!(status.last_probe.unwrap().text, "HTTP/1.1 503 Broken");
    container.stop().await;
}

#[tokio::test]
async fn an_unhealthy_container_is_restarted_where_its_check_asks() {
    let container = Container::script("exec sleep 1000").with(|spec| {
        spec.health = Some(Health { on_failure: HealthAction::Restart, ..health(Probe::Tcp { port: 80 }) });
    });
    container.start().await.unwrap();
    container.until("restarted", |status| status.restarts == 1 && status.state == State::Running).await;
    container.stop().await;
}
