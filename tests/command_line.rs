//! Ring 4: what is printed, and the exit status, of every command in a cleared environment. The expected texts are
//! `command_line/NAME.txt`; `UPDATE_EXPECTED=1 cargo test --test command_line` writes them anew.

#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::pty::openpty;
use sandbox::{Outcome, Sandbox, outcome};
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command_line");
const STACK: &str = env!("CARGO_BIN_EXE_stack");

#[test]
fn every_command_has_help() {
    expect("help", &["--help"]);
    for command in [
        "up", "watch", "diff", "down", "history", "rollback", "enable", "disable", "ps", "why", "stats", "logs",
        "events", "wait", "exec", "check", "graph", "seccomp",
    ] {
        expect(&format!("help-{command}"), &[command, "--help"]);
    }
    let version = stack(&["--version"]);
    assert_eq!((version.code, version.stdout), (0, format!("stack {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    expect("usage-nothing", &[]);
    expect("usage-no-such-command", &["frobnicate"]);
    expect("usage-no-such-option", &["up", "--detach"]);
    expect("usage-exec-without-command", &["exec", "pot"]);
    expect("usage-name-and-file", &["down", "--name", "tea", "good.toml"]);
}

#[test]
fn check_says_what_is_wrong_or_that_all_is_well() {
    expect("check-good", &["check", "good.toml"]);
    expect("check-faulty", &["check", "faulty.toml"]);
    expect("check-both", &["check", "good.toml", "faulty.toml"]);
    expect("check-missing", &["check", "missing.toml"]);
    expect("check-default-missing", &["check"]);
    expect("check-json", &["check", "--json", "good.toml", "faulty.toml"]);
}

#[test]
fn a_faulty_file_stops_every_command_that_reads_one() {
    let said = stack(&["check", "faulty.toml"]).stderr;
    let commands: [&[&str]; 7] = [
        &["up", "faulty.toml"],
        &["diff", "-f", "faulty.toml"],
        &["down", "faulty.toml"],
        &["ps", "-f", "faulty.toml"],
        &["logs", "--file", "faulty.toml"],
        &["graph", "faulty.toml"],
        &["exec", "-f", "faulty.toml", "pot", "true"],
    ];
    for args in commands {
        let Outcome { code, stdout, stderr } = stack(args);
        // A status of `exec` below 125 is the command's own.
        let expected = if args[0] == "exec" { 125 } else { 3 };
        assert_eq!((code, &*stdout, &stderr), (expected, "", &said), "{args:?}");
    }
}

#[test]
fn a_profile_says_what_it_answers_and_which_line_decides() {
    let given = ["--cap", "chown", "--kernel", "6.1", "--arch", "x86_64"];
    let with = |args: &[&'static str]| [args, &given].concat();
    expect("seccomp-check", &with(&["seccomp", "check", "default", "-s", "mount", "-s", "socket(38)", "-s", "getpid"]));
    expect("seccomp-explain", &with(&["seccomp", "explain", "default", "clone(0x10000000)", "read", "4000"]));
    expect("seccomp-json", &with(&["seccomp", "explain", "default", "socket(38)", "--json"]));
    expect("seccomp-no-call", &with(&["seccomp", "explain", "default", "mountt"]));
    expect("seccomp-no-profile", &with(&["seccomp", "disasm", "good.toml"]));
}

#[test]
fn the_graph_is_drawn_in_every_format() {
    expect("graph-text", &["graph", "good.toml"]);
    expect("graph-dot", &["graph", "good.toml", "--format", "dot"]);
    let document: Value = json(&stack(&["graph", "good.toml", "--json"]).stdout);
    let nodes = document["nodes"].as_array().expect("nodes");
    for edge in document["edges"].as_array().expect("edges") {
        for end in ["from", "to"] {
            let index = edge[end].as_u64().expect("a place") as usize;
            assert!(index < nodes.len(), "{edge}");
        }
    }
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/stacks/hello.toml");
    let svg = stack(&["graph", hello, "--format", "svg"]).stdout;
    let texts = well_formed(&svg);
    for name in ["counter", "web", "visitor", "front", "backend", "count", "host", "healthy"] {
        assert!(texts.iter().any(|text| text == name), "no `{name}` in {texts:?}");
    }
}

#[test]
fn diff_of_a_fresh_host_is_the_whole_plan_and_changes_nothing() {
    let host = fresh();
    expect_outcome("diff-fresh", &["diff"], &run(&host, &["diff"]));
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn a_stack_that_comes_up_at_boot_is_a_unit_of_systemd_or_a_line_for_another_init() {
    let host = fresh();
    let root = host.path().join("root");
    let root_arg = root.display().to_string();
    let of = |name: &str, args: &[&str]| {
        let args: Vec<&str> = args.iter().copied().chain(["--root", &root_arg]).collect();
        let said = run(&host, &args);
        let place = host.path().display().to_string();
        let plain = |text: &str| {
            text.replace(&place, "/HOST").replace(&host.cgroup().to_owned(), "CGROUP").replace(STACK, "/bin/stack")
        };
        let said = Outcome { code: said.code, stdout: plain(&said.stdout), stderr: plain(&said.stderr) };
        expect_outcome(name, &args[..args.len() - 2], &said);
    };
    of("enable-dry-run", &["enable", "--repair", "5m", "--dry-run"]);
    of("enable-no-systemd", &["enable"]);
    assert!(!root.exists());
    fs::create_dir_all(root.join("run/systemd/system")).expect("a folder");
    of("enable", &["enable", "--repair", "5m"]);
    let units = root.join("etc/systemd/system");
    let found = || {
        let text = host.sh(&format!("cd {} && find . -mindepth 1 ! -type d | sort", units.display()));
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let timer = "./stack-tea.service.wants/stack-tea.repair.timer";
    assert!(found().contains(&timer.to_owned()) && found().len() == 5, "{:?}", found());
    assert!(units.join("multi-user.target.wants/stack-tea.service").exists(), "the link leads somewhere");
    of("enable-again", &["enable"]);
    assert_eq!(found().len(), 2, "{:?}", found());
    of("disable", &["disable"]);
    assert_eq!(found(), Vec::<String>::new());
    of("disable-again", &["disable", "--name", "tea"]);
    fs::write(units.join("stack-tea.service"), "[Unit]\n").expect("written");
    of("enable-not-ours", &["enable"]);
}

#[test]
fn where_nothing_runs_every_command_says_so() {
    let host = fresh();
    expect_outcome("ps-nothing", &["ps"], &run(&host, &["ps"]));
    expect_outcome("ps-all-nothing", &["ps", "--all"], &run(&host, &["ps", "--all"]));
    expect_outcome("logs-nothing", &["logs"], &run(&host, &["logs"]));
    expect_outcome("logs-unknown", &["logs", "cup"], &run(&host, &["logs", "cup"]));
    expect_outcome("exec-unknown", &["exec", "cup", "true"], &run(&host, &["exec", "cup", "true"]));
    expect_outcome("exec-not-running", &["exec", "pot", "true"], &run(&host, &["exec", "pot", "true"]));
    expect_outcome("down-nothing", &["down"], &run(&host, &["down"]));
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn data_is_deleted_only_where_the_name_of_the_stack_is_given() {
    let host = fresh();
    host.ok(&["up"]);
    let leaves = host.data_dir().join("volumes/tea/leaves");
    for args in [["down", "--volumes"], ["down", "--volumes=coffee"]] {
        expect_outcome(args[1].trim_start_matches('-'), &args, &run(&host, &args));
        assert!(leaves.exists());
    }
    host.ok(&["down", "--volumes=tea"]);
    assert!(!leaves.exists());
}

#[test]
fn json_documents_have_their_fields() {
    let host = fresh();
    let plan = json(&host.stack(&["diff", "--json"]).stdout);
    assert_eq!((&plan["version"], &plan["stack"], &plan["in_sync"]), (&1.into(), &"tea".into(), &false.into()));
    for step in plan["steps"].as_array().expect("steps") {
        for field in ["id", "resource", "verb", "why", "after", "changes"] {
            assert!(step.get(field).is_some(), "no `{field}` in {step}");
        }
    }
    let up = json(&host.ok(&["up", "--json"]));
    assert_eq!((&up["version"], &up["converged"], &up["skipped"]), (&1.into(), &true.into(), &0.into()));
    assert_eq!(up["left"]["in_sync"], true);
    assert_eq!(json(&host.ok(&["diff", "--json"]))["in_sync"], true);
    let ps = json(&host.ok(&["ps", "--json"]));
    assert_eq!((&ps["version"], &ps["stacks"][0]["stack"]), (&1.into(), &"tea".into()));
    assert_eq!(ps["stacks"][0]["containers"], up["containers"]);
    let pot = &host.ps()["pot"];
    assert_eq!(pot["addresses"], serde_json::json!(["10.70.0.2"]));
    assert_eq!(pot["phase"]["state"], "running");
    for field in ["image", "health", "ports", "run", "limits"] {
        assert!(pot.get(field).is_some(), "no `{field}` in {pot}");
    }
    let line = host.ok(&["logs", "--json", "kettle"]);
    let record = json(line.lines().next().expect("a line"));
    assert_eq!(
        (&record["container"], &record["stream"], &record["text"]),
        (&"kettle".into(), &"stdout".into(), &"it boils".into())
    );
    let down = json(&host.ok(&["down", "--json"]));
    assert_eq!((&down["version"], &down["converged"]), (&1.into(), &true.into()));
}

#[test]
fn who_is_not_root_is_told_so() {
    let folder = tempfile::Builder::new().prefix("stack-test-").tempdir_in("/var/tmp").expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    for (from, name) in [(STACK.into(), "stack"), (Path::new(FOLDER).join("good.toml"), "stack.toml")] {
        fs::copy::<PathBuf, _>(from, folder.path().join(name)).expect("a copy");
    }
    for command in ["up", "diff", "down", "ps"] {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(folder.path().join("stack")).arg(command);
        let said = outcome(nobody.current_dir(folder.path()).env_clear().output().expect("setpriv (util-linux)"));
        expect_outcome("not-root", &["up"], &said);
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let host = fresh();
    assert!(on_terminal(&mut host.command(&["diff"]), "").contains('\x1b'));
    assert!(!on_terminal(&mut host.command(&["diff"]), "1").contains('\x1b'));
    assert!(!run(&host, &["diff"]).stdout.contains('\x1b'));
    let mut check = Command::new(STACK);
    check.args(["check", "faulty.toml"]).current_dir(FOLDER);
    assert!(on_terminal(&mut check, "").contains('\x1b'));
    assert!(!on_terminal(&mut check, "1").contains('\x1b'));
}

/// `stack` beside the expected texts.
fn stack(args: &[&str]) -> Outcome {
    outcome(Command::new(STACK).args(args).current_dir(FOLDER).env_clear().output().expect("it is built"))
}

/// `stack` in a sandbox with nothing in its environment but where the sandbox is.
fn run(host: &Sandbox, args: &[&str]) -> Outcome {
    let mut command = host.command(args);
    let kept: Vec<_> = command.get_envs().map(|(key, value)| (key.to_owned(), value.map(ToOwned::to_owned))).collect();
    command.env_clear();
    for (key, value) in kept {
        match value {
            Some(value) if key.to_string_lossy().starts_with("STACK_") => drop(command.env(key, value)),
            _ => {}
        }
    }
    outcome(command.output().expect("nsenter (util-linux) is there"))
}

/// A host on which nothing of the stack of `good.toml` is, whatever this machine's own settings are.
fn fresh() -> Sandbox {
    let host = Sandbox::new();
    host.sh("echo 0 > /proc/sys/net/ipv4/ip_forward");
    host.write("stack.toml", &fs::read_to_string(Path::new(FOLDER).join("good.toml")).expect("it is there"));
    host
}

fn expect(name: &str, args: &[&str]) {
    expect_outcome(name, args, &stack(args));
}

#[track_caller]
fn expect_outcome(name: &str, args: &[&str], said: &Outcome) {
    let Outcome { code, stdout, stderr } = said;
    let text = format!("$ stack {}\nexit status {code}\n--- stdout\n{stdout}--- stderr\n{stderr}", args.join(" "));
    let path = Path::new(FOLDER).join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &text).expect("the expected text can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{}", path.display());
    assert!(!text.contains('\x1b'), "colours without a terminal");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What a command writes where its output is a terminal.
fn on_terminal(command: &mut Command, no_color: &str) -> String {
    let pty = openpty(None, None).expect("a terminal");
    let slave = || pty.slave.try_clone().expect("a descriptor");
    command.stdout(slave()).stderr(slave()).env("NO_COLOR", no_color).env("TERM", "xterm");
    let mut child = command.spawn().expect("it starts");
    // The master reads an error once nobody holds the other end.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    drop(pty.slave);
    let mut bytes = Vec::new();
    let _ = File::from(pty.master).read_to_end(&mut bytes);
    child.wait().expect("it ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The texts of an XML document whose tags are closed in order and whose attributes are quoted.
fn well_formed(xml: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut texts = Vec::new();
    for part in xml.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("`<{part}` is not closed"));
        assert!(tag.matches('"').count() % 2 == 0, "<{tag}>");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name)),
            (false, true) => {}
            (false, false) => open.push(name),
        }
        texts.extend(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    texts
}
