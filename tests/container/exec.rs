//! Further processes in a running container.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use stack::runtime::container::{
    self, Credentials, ExecError, ExecProgram, ExecSpec, ProcessSettings, Stdio, TerminalError, TerminalSize,
};
use stack::runtime::oci::OciCapabilities;

use super::bundle::{Bundle, Outcome, Running, chain, pipe, wait};

fn spec(running: &Running, args: &[&str]) -> ExecSpec {
    let capabilities = vec!["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned()];
    ExecSpec {
        init: running.pid(),
        process: ProcessSettings {
            args: args.iter().map(|argument| (*argument).to_owned()).collect(),
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            capabilities: Some(OciCapabilities {
                bounding: capabilities.clone(),
                effective: capabilities.clone(),
                permitted: capabilities,
                ..OciCapabilities::default()
            }),
            no_new_privileges: true,
            ..ProcessSettings::default()
        },
        cgroup_procs: Vec::new(),
        terminal: None,
    }
}

fn try_exec(spec: &ExecSpec) -> Result<Outcome, ExecError> {
    let null = File::open("/dev/null").unwrap();
    let (mut stdout, out) = pipe();
    let (mut stderr, err) = pipe();
    let stdio = Stdio { stdin: null.as_fd(), stdout: out.as_fd(), stderr: err.as_fd() };
    let executed = container::exec(&ExecProgram::compile(spec).unwrap(), &stdio)?;
    drop((out, err));
    let status = wait(executed.pidfd.as_fd());
    let mut outcome = Outcome { status, stdout: String::new(), stderr: String::new() };
    stdout.read_to_string(&mut outcome.stdout).unwrap();
    stderr.read_to_string(&mut outcome.stderr).unwrap();
    Ok(outcome)
}

fn exec(spec: &ExecSpec) -> Outcome {
    try_exec(spec).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

fn sleeping() -> (Bundle, Running) {
    let bundle = Bundle::new("echo up; exec sleep 98765");
    let mut running = Running::start(&bundle).unwrap();
    assert_eq!(running.line(), "up");
    (bundle, running)
}

#[test]
fn it_is_in_every_namespace_of_the_container() {
    let (_bundle, running) = sleeping();
    let script =
        "hostname; ls /proc/self/fd | wc -l; ps -o pid,args | grep -c sleep; cat /proc/self/cgroup | grep -vc ':/$'";
    let script =
        script.replace("| wc -l", "| awk 'END {print NR}'").replace("grep -c sleep", "grep -c '[s]leep 98765'");
    let outcome = exec(&spec(&running, &["sh", "-c", &script]));
    assert_eq!(outcome.stdout, "tested\n4\n1\n0\n", "{outcome:?}");
    let links = "cd /proc/self/ns; for n in pid net ipc uts mnt cgroup; do readlink $n; done";
    let inside = exec(&spec(&running, &["sh", "-c", links])).stdout;
    for (line, name) in inside.lines().zip(["pid", "net", "ipc", "uts", "mnt", "cgroup"]) {
        let of_init = std::fs::read_link(format!("/proc/{}/ns/{name}", running.pid())).unwrap();
        assert_eq!(line, of_init.to_str().unwrap());
    }
}

#[test]
fn its_privileges_are_those_asked_for_and_inheritable_is_empty() {
    let (_bundle, running) = sleeping();
    let outcome = exec(&spec(&running, &["cat", "/proc/self/status"])).stdout;
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000021",
        "CapEff:\t0000000000000021",
        "CapBnd:\t0000000000000021",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(outcome.contains(line), "{line}: {outcome}");
    }
}

#[test]
fn user_directory_and_environment_are_its_own() {
    let (_bundle, running) = sleeping();
    let mut spec = spec(&running, &["sh", "-c", "id -u; id -G; pwd; echo $WORD"]);
    spec.process.user = Credentials { uid: 5, gid: 6, groups: vec![7] };
    spec.process.cwd = "/bin".into();
    spec.process.env.push("WORD=a b".into());
    assert_eq!(exec(&spec).stdout, "5\n6 7\n/bin\na b\n");
}

#[test]
fn status_and_failures_are_as_the_field_has_them() {
    let (_bundle, running) = sleeping();
    assert_eq!(exec(&spec(&running, &["sh", "-c", "exit 9"])).status, 9);
    let missing = try_exec(&spec(&running, &["no-such-program"])).unwrap_err();
    assert_eq!(missing.exit_code(), 127);
    assert!(chain(&missing).contains("cannot execute `no-such-program`"), "{}", chain(&missing));
    assert_eq!(try_exec(&spec(&running, &["/proc/version"])).unwrap_err().exit_code(), 126);
    let mut nowhere = spec(&running, &["true"]);
    nowhere.process.cwd = "/nowhere".into();
    let nowhere = try_exec(&nowhere).unwrap_err();
    assert_eq!(nowhere.exit_code(), 125);
    assert!(chain(&nowhere).contains("enter the directory `/nowhere`"), "{}", chain(&nowhere));
}

#[test]
fn a_container_that_has_ended_is_said_to_be_gone() {
    let (_bundle, running) = sleeping();
    let gone = spec(&running, &["true"]);
    drop(running);
    assert!(matches!(try_exec(&gone), Err(ExecError::NotRunning { .. })));
}

#[test]
fn at_a_terminal_of_the_container() {
    let (_bundle, running) = sleeping();
    let mut at_terminal = spec(
        &running,
        &[
            "sh",
            "-c",
            "readlink /proc/self/fd/0; read line < /dev/tty; echo got $line; stat -c %u /proc/self/fd/0; stat -Lc %u /dev/pts/0",
        ],
    );
    at_terminal.terminal = Some(TerminalSize { rows: 10, columns: 20 });
    at_terminal.process.user = Credentials { uid: 8, gid: 8, groups: Vec::new() };
    let executed = container::exec(&ExecProgram::compile(&at_terminal).unwrap(), &Stdio::inherit()).unwrap();
    let mut terminal = File::from(executed.terminal.unwrap());
    terminal.write_all(b"word\n").unwrap();
    assert_eq!(wait(executed.pidfd.as_fd()), 0);
    let mut text = Vec::new();
    // The read ends with EIO once nobody has the other end open.
    let _ = terminal.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("/dev/pts/0\r\n") && text.contains("got word\r\n") && text.ends_with("8\r\n"), "{text}");
}

/// CVE-2025-52565: what stands where the multiplexer should be is the container's choice.
#[test]
fn a_false_multiplexer_is_found_out() {
    let refusal = |script: &str| {
        let mut bundle = Bundle::new(&format!("{script}; echo up; exec sleep 98765"));
        bundle.config.mounts.retain(|mount| mount.destination != "/dev/pts");
        bundle.config.mounts.push(stack::runtime::oci::OciMount {
            destination: "/dev/pts".into(),
            kind: Some("tmpfs".into()),
            ..Default::default()
        });
        let mut running = Running::start(&bundle).unwrap();
        running.line();
        let mut at_terminal = spec(&running, &["true"]);
        at_terminal.terminal = Some(TerminalSize { rows: 1, columns: 1 });
        let program = ExecProgram::compile(&at_terminal).unwrap();
        match container::exec(&program, &Stdio::inherit()) {
            Err(ExecError::Terminal { source }) => source,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(refusal("ln -s /dev/null /dev/pts/ptmx"), TerminalError::Open { .. }));
    assert!(matches!(refusal("touch /dev/pts/ptmx"), TerminalError::NotAMultiplexer));
}
