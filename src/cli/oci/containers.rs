//! The commands that make, change and end containers.

use std::ffi::OsString;

use crate::runtime::container::detached::{Keyring, RootChange};
use crate::runtime::lifecycle::{
    self, ConsoleSocket, Container, CreateOptions, Forced, Frozen, LifecycleError, Record, Store,
};

use super::flags::{Flag, Given, switch, value};
use super::foreground::{self, Foreground};
use super::log::Log;
use super::{Failure, Global, id_of, parse, protect, signal};

type Arguments<'a> = &'a mut dyn Iterator<Item = OsString>;

const CREATE: [Flag; 10] = [
    value("bundle", Some('b')),
    value("console-socket", None),
    value("pid-file", None),
    value("preserve-fds", None),
    value("pidfd-socket", None),
    switch("no-pivot", None),
    switch("no-new-keyring", None),
    switch("detach", Some('d')),
    switch("keep", None),
    switch("no-subreaper", None),
];

fn create_options(global: &Global, given: &Given) -> Result<CreateOptions, Failure> {
    Ok(CreateOptions {
        bundle: given.path("bundle").unwrap_or_else(|| ".".into()),
        console_socket: given.path("console-socket").map(ConsoleSocket::At),
        pid_file: given.path("pid-file"),
        preserved: given.number("preserve-fds")?.unwrap_or(0),
        keyring: if given.is_set("no-new-keyring") { Keyring::Inherited } else { Keyring::New },
        root_change: if given.is_set("no-pivot") { RootChange::Chroot } else { RootChange::Pivot },
        cgroups: global.cgroups,
        pidfd_socket: given.path("pidfd-socket"),
    })
}

pub fn create(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    protect()?;
    let given = parse("create", arguments, &CREATE)?;
    lifecycle::create(&global.store, id_of(&given)?, &create_options(global, &given)?)?;
    Ok(0)
}

pub fn start(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = parse("start", arguments, &[])?;
    lifecycle::start(&Container::find(&global.store, id_of(&given)?)?)?;
    Ok(0)
}

/// Create and start; unless detached, stay until the end, hand signals on, and delete what is left.
pub fn run(global: &Global, log: &Log, arguments: Arguments<'_>) -> Result<u8, Failure> {
    protect()?;
    let given = parse("run", arguments, &CREATE)?;
    let id = id_of(&given)?;
    let mut options = create_options(global, &given)?;
    let foreground = match given.is_set("detach") {
        true => None,
        false => {
            let (foreground, socket) = Foreground::prepare(&given)?;
            options.console_socket = socket;
            Some(foreground)
        }
    };
    let record = lifecycle::create(&global.store, id, &options)?;
    drop(options);
    let terminal = foreground.as_ref().and_then(Foreground::terminal);
    if let Err(error) = Container::find(&global.store, id).and_then(|container| lifecycle::start(&container)) {
        clean_up(&global.store, log, &record);
        return Err(Failure { code: error.exec_exit_code().map_or(1, |code| code as u8), ..error.into() });
    }
    if foreground.is_none() {
        return Ok(0);
    }
    let status = foreground::stay(record.init_process_pid, terminal);
    if !given.is_set("keep") {
        clean_up(&global.store, log, &record);
    }
    status
}

fn clean_up(store: &Store, log: &Log, record: &Record) {
    match lifecycle::delete(store, &record.id, Forced::Yes) {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => log.warn(&super::in_words(&error)),
    }
}

pub fn kill(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = parse("kill", arguments, &[switch("all", Some('a'))])?;
    let signal = signal::parse(given.plain.get(1).map_or("TERM", String::as_str))?;
    let container = Container::find(&global.store, id_of(&given)?)?;
    if given.is_set("all") {
        lifecycle::kill_all(&container, signal)?;
        return Ok(0);
    }
    match lifecycle::kill(&container, signal) {
        // Engines know these words.
        Err(LifecycleError::WrongState { id, .. }) => {
            Err(Failure::usage(format!("container `{id}` cannot be killed: container not running")))
        }
        result => Ok(result.map(|()| 0)?),
    }
}

pub fn delete(global: &Global, log: &Log, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = parse("delete", arguments, &[switch("force", Some('f'))])?;
    let forced = if given.is_set("force") { Forced::Yes } else { Forced::No };
    if let Some(error) = lifecycle::delete(&global.store, id_of(&given)?, forced)? {
        log.warn(&super::in_words(&error));
    }
    Ok(0)
}

pub fn freeze(global: &Global, command: &str, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = parse(command, arguments, &[])?;
    let frozen = if command == "pause" { Frozen::Yes } else { Frozen::No };
    Container::find(&global.store, id_of(&given)?)?.freeze(frozen)?;
    Ok(0)
}
