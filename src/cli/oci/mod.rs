//! `stack oci`, and this program called as `stack-oci`: the runtime with the command line that podman, docker and containerd
//! expect of one.

mod containers;
mod documents;
mod exec;
mod flags;
mod foreground;
mod log;
mod look;
mod signal;
mod update;

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::runtime::container::reexec_protected;
use crate::runtime::lifecycle::{CgroupManager, LifecycleError, Store};

use flags::{Flag, FlagsEnd, Given, switch, value};

/// The name that makes this program the runtime alone.
pub const PROGRAM: &str = "stack-oci";
const DEFAULT_ROOT: &str = "/run/stack-oci";

const GLOBAL: [Flag; 11] = [
    value("root", None),
    value("log", None),
    value("log-format", None),
    value("log-level", None),
    switch("debug", None),
    switch("systemd-cgroup", None),
    value("cgroup-manager", None),
    value("rootless", None),
    value("criu", None),
    switch("version", Some('v')),
    switch("help", Some('h')),
];

/// Why a command failed, and how it ends.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }
}

impl From<LifecycleError> for Failure {
    fn from(error: LifecycleError) -> Self {
        Self { text: in_words(&error), code: 1 }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::usage(text)
    }
}

/// The chain joined. Callers look for the field's own words where a program cannot be executed.
fn in_words(error: &LifecycleError) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        next = error.source();
    }
    match error.exec_exit_code() {
        Some(127) => parts.push("executable file not found in $PATH: no such file or directory".to_owned()),
        Some(126) => parts.push("permission denied or no executable".to_owned()),
        _ => {}
    }
    parts.join(": ")
}

/// What holds for all commands.
struct Global {
    store: Store,
    cgroups: CgroupManager,
}

/// Runs the command line `arguments`, without the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let global = match Given::parse(PROGRAM, &mut arguments, &GLOBAL, FlagsEnd::AtFirstPlain) {
        Ok(given) => given,
        Err(text) => return log::Log::default().fail(&Failure::usage(text)),
    };
    let log = log::Log::new(global.path("log"), global.get("log-format"));
    match dispatch(&global, &log, &mut arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => log.fail(&failure),
    }
}

fn dispatch(given: &Given, log: &log::Log, arguments: &mut dyn Iterator<Item = OsString>) -> Result<u8, Failure> {
    if given.is_set("version") {
        println!("{PROGRAM} version {}\nspec: {}", env!("CARGO_PKG_VERSION"), documents::SPECIFICATION);
        return Ok(0);
    }
    let mut arguments = arguments.peekable();
    let asks = |argument: &OsString| argument == "--help" || argument == "-h";
    let asked = given.is_set("help") || arguments.peek().is_some_and(asks);
    let Some(command) = given.plain.first().filter(|_| !asked) else {
        print!("{}", documents::HELP);
        return Ok(0);
    };
    let arguments = &mut arguments;
    let systemd = given.is_set("systemd-cgroup") || given.get("cgroup-manager") == Some("systemd");
    let global = Global {
        store: Store::new(given.path("root").unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT))),
        cgroups: if systemd { CgroupManager::Systemd } else { CgroupManager::Directories },
    };
    match command.as_str() {
        "create" => containers::create(&global, arguments),
        "start" => containers::start(&global, arguments),
        "run" => containers::run(&global, log, arguments),
        "kill" => containers::kill(&global, arguments),
        "delete" => containers::delete(&global, log, arguments),
        "pause" | "resume" => containers::freeze(&global, command, arguments),
        "exec" => exec::run(&global, arguments),
        "update" => update::run(&global, arguments),
        "state" => look::state(&global, arguments),
        "list" => look::list(&global, arguments),
        "ps" => look::ps(&global, arguments),
        "events" => look::events(&global, arguments),
        "spec" => documents::spec(arguments),
        "features" => documents::features(),
        "checkpoint" | "restore" => Err(Failure::usage(format!("`{command}` is not supported"))),
        "help" => {
            print!("{}", documents::HELP);
            Ok(0)
        }
        _ => Err(Failure::usage(format!("there is no command `{command}`; `{PROGRAM} --help` names all"))),
    }
}

/// Whatever makes processes of containers runs where those cannot overwrite it.
fn protect() -> Result<(), Failure> {
    reexec_protected().map_err(|error| {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Failure::usage(format!("{error}{source}"))
    })
}

/// The flags and the plain arguments of a command that takes flags everywhere.
fn parse(what: &str, arguments: &mut dyn Iterator<Item = OsString>, known: &[Flag]) -> Result<Given, Failure> {
    Ok(Given::parse(what, arguments, known, FlagsEnd::Never)?)
}

fn id_of(given: &Given) -> Result<&str, Failure> {
    given.plain.first().map(String::as_str).ok_or_else(|| Failure::usage("the id of the container is missing"))
}
