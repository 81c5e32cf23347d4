//! How containers begin and end.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use stack::runtime::container::{self, Stdio};

use super::bundle::{Bundle, LIMIT, Running, wait};

#[test]
fn a_missing_program_is_named_and_is_127() {
    for bundle in [Bundle::running(&["no-such-program", "x"]), Bundle::running(&["/no/such"]).without_init()] {
        let (error, text) = bundle.refused();
        assert_eq!(error.exit_code(), 127);
        assert!(text.contains("cannot execute `"), "{text}");
        assert!(text.ends_with("No such file or directory (os error 2)"), "{text}");
    }
}

#[test]
fn a_program_that_may_not_be_executed_is_126() {
    let bundle = Bundle::running(&["/bin/text"]);
    std::fs::write(bundle.root().join("bin/text"), "text").unwrap();
    assert_eq!(bundle.refused().0.exit_code(), 126);
}

#[test]
fn what_fails_in_set_up_is_said_with_its_path_and_is_125() {
    let mut bundle = Bundle::new("true");
    bundle.config.mounts.push(stack::runtime::oci::OciMount {
        destination: "/data".into(),
        source: Some("/no/such/source".into()),
        options: vec!["bind".into()],
        ..Default::default()
    });
    let (error, text) = bundle.refused();
    assert_eq!(error.exit_code(), 125);
    assert!(text.starts_with("cannot mount `/no/such/source` on `/data`: its source: No such file"), "{text}");
}

#[test]
fn orphans_are_reaped() {
    // Each round leaves a grandchild to PID 1. Zombies would show.
    let script = "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; sleep 0.3; ps -o stat | grep -c Z";
    assert_eq!(Bundle::new(script).run().stdout, "0\n");
}

#[test]
fn signals_are_forwarded_to_the_program() {
    let bundle =
        Bundle::new("trap 'echo got; exit 3' TERM; trap 'echo hup' HUP; echo up; while :; do sleep 0.01; done");
    let mut running = Running::start(&bundle).unwrap();
    assert_eq!(running.line(), "up");
    running.signal(Signal::HUP);
    assert_eq!(running.line(), "hup");
    running.signal(Signal::TERM);
    assert_eq!(running.line(), "got");
    assert_eq!(running.finish().status, 3);
}

#[test]
fn a_program_that_ends_by_a_forwarded_signal_says_so() {
    let bundle = Bundle::running(&["sleep", "100"]);
    let running = Running::start(&bundle).unwrap();
    running.signal(Signal::TERM);
    assert_eq!(running.finish().status, 128 + 15);
}

#[test]
fn everything_dies_with_the_first_process() {
    let bundle = Bundle::new("sleep 98765 & echo up; wait");
    let mut running = Running::start(&bundle).unwrap();
    running.line();
    running.signal(Signal::KILL);
    // The pipe comes to its end only when the last process is gone.
    assert_eq!(running.finish().status, 128 + 9);
}

#[test]
fn a_container_dies_with_the_thread_that_made_it() {
    for init in [true, false] {
        let mut bundle = Bundle::running(&["sleep", "98765"]);
        bundle.surroundings.init = init;
        bundle.process().user.uid = 1000;
        let started = Instant::now();
        let pidfd = std::thread::scope(|scope| {
            let made = scope.spawn(|| container::spawn(&bundle.program(), &Stdio::inherit()).unwrap());
            made.join().unwrap().pidfd
        });
        assert_eq!(wait(pidfd.as_fd()), 128 + 9);
        assert!(started.elapsed() < LIMIT);
    }
}

#[test]
fn what_waits_at_its_gate_ends_with_it() {
    let bundle = Bundle::new("echo never");
    let program = bundle.program();
    let created = container::create(&program, &Stdio::inherit()).unwrap();
    let pid = created.pid();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    drop(created);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!bundle.root().join("proc").exists(), "nothing was done yet");
}

#[test]
fn a_program_can_be_run_again_and_again() {
    let bundle = Bundle::new("exit 4");
    let program = bundle.program();
    for _ in 0..3 {
        let spawned = container::spawn(&program, &Stdio::inherit()).unwrap();
        assert_eq!(wait(spawned.pidfd.as_fd()), 4);
    }
}

#[test]
fn init_holds_nothing_and_can_do_nothing() {
    let bundle = Bundle::new("echo up; sleep 98765");
    let mut running = Running::start(&bundle).unwrap();
    running.line();
    let process = format!("/proc/{}", running.pid());
    // It closes its descriptors once the program is on its way.
    let started = Instant::now();
    while std::fs::read_dir(format!("{process}/fd")).unwrap().count() > 0 {
        assert!(started.elapsed() < LIMIT, "descriptors stay open");
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    for line in
        ["CapPrm:\t0000000000000020", "CapBnd:\t0000000000000020", "NoNewPrivs:\t1", "CapInh:\t0000000000000000"]
    {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert_eq!(std::fs::read_link(format!("{process}/cwd")).unwrap().to_str(), Some("/"));
}
