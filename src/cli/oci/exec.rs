//! `exec`: a further process in a container.

use std::ffi::OsString;
use std::path::Path;

use crate::cli::terminal::own_size;
use crate::runtime::container::detached::Keyring;
use crate::runtime::lifecycle::{
    self, ConsoleSocket, Container, ExecOptions, IgnorePaused, read_document, write_pid_file,
};
use crate::runtime::oci::{OciCapabilities, OciConsoleSize, OciProcess};

use super::flags::{Flag, FlagsEnd, Given, switch, value};
use super::foreground::{self, Foreground};
use super::{Failure, Global, id_of, protect};

const FLAGS: [Flag; 19] = [
    value("console-socket", None),
    value("pidfd-socket", None),
    value("cwd", None),
    value("env", Some('e')),
    switch("tty", Some('t')),
    value("user", Some('u')),
    value("additional-gids", Some('g')),
    value("process", Some('p')),
    switch("detach", Some('d')),
    value("pid-file", None),
    value("process-label", None),
    value("apparmor", None),
    switch("no-new-privs", None),
    value("cap", Some('c')),
    value("preserve-fds", None),
    value("cgroup", None),
    switch("ignore-paused", None),
    switch("no-subreaper", None),
    switch("no-new-keyring", None),
];

pub fn run(global: &Global, arguments: &mut dyn Iterator<Item = OsString>) -> Result<u8, Failure> {
    protect()?;
    let mut given = Given::parse("exec", arguments, &FLAGS, FlagsEnd::AtFirstPlain)?;
    for rest in arguments {
        let text = rest.into_string().map_err(|rest| format!("`{}` is not UTF-8", rest.to_string_lossy()))?;
        given.plain.push(text);
    }
    let container = Container::find(&global.store, id_of(&given)?)?;
    let process = match given.path("process") {
        Some(path) => read_process(&path)?,
        None => described(&container, &given)?,
    };
    let (foreground, console_socket) = match given.is_set("detach") {
        true => (None, given.path("console-socket").map(ConsoleSocket::At)),
        false => {
            let (foreground, socket) = Foreground::prepare(&given)?;
            (Some(foreground), socket)
        }
    };
    let options = ExecOptions {
        console_socket,
        preserved: given.number("preserve-fds")?.unwrap_or(0),
        keyring: if given.is_set("no-new-keyring") { Keyring::Inherited } else { Keyring::New },
        ignore_paused: if given.is_set("ignore-paused") { IgnorePaused::Yes } else { IgnorePaused::No },
        cgroups: given.all("cgroup").into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        pidfd_socket: given.path("pidfd-socket"),
    };
    let running = lifecycle::exec(&container, &process, &options)
        .map_err(|error| Failure { code: error.exec_exit_code().map_or(255, |code| code as u8), ..error.into() })?;
    drop(options);
    if let Some(path) = given.path("pid-file") {
        write_pid_file(&path, running.pid)?;
    }
    match foreground {
        None => Ok(0),
        Some(foreground) => foreground::stay(running.pid, foreground.terminal()),
    }
}

fn read_process(path: &Path) -> Result<OciProcess, Failure> {
    let json = read_document(path).map_err(lifecycle::LifecycleError::from)?;
    let process: OciProcess = serde_json::from_slice(&json)
        .map_err(|error| Failure::usage(format!("cannot understand `{}`: {error}", path.display())))?;
    if process.args.is_empty() {
        return Err(Failure::usage(format!("`args` of `{}` is empty", path.display())));
    }
    if !process.cwd.starts_with('/') {
        return Err(Failure::usage(format!("`cwd` of `{}` is not absolute", path.display())));
    }
    Ok(process)
}

/// The container's own process with what the flags change about it.
fn described(container: &Container, given: &Given) -> Result<OciProcess, Failure> {
    let config = container.place.config().map_err(lifecycle::LifecycleError::from)?;
    let mut process = config.process.unwrap_or_else(|| OciProcess { cwd: "/".to_owned(), ..OciProcess::default() });
    process.args = given.plain.iter().skip(1).cloned().collect();
    if process.args.is_empty() {
        return Err(Failure::usage("the command to run is missing"));
    }
    process.terminal = given.is_set("tty");
    process.console_size =
        own_size().filter(|_| process.terminal).map(|size| OciConsoleSize { height: size.ws_row, width: size.ws_col });
    process.env.extend(given.all("env").into_iter().map(str::to_owned));
    if let Some(cwd) = given.get("cwd").filter(|cwd| !cwd.is_empty()) {
        if !cwd.starts_with('/') {
            return Err(Failure::usage(format!("`--cwd {cwd}` is not absolute")));
        }
        process.cwd = cwd.to_owned();
    }
    if let Some(user) = given.get("user").filter(|user| !user.is_empty()) {
        let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
        process.user.uid = number(uid)?;
        process.user.gid = gid.map(number).transpose()?.unwrap_or(process.user.gid);
    }
    for group in given.all("additional-gids") {
        process.user.additional_gids.push(number(group)?);
    }
    process.no_new_privileges |= given.is_set("no-new-privs");
    let label = |name: &str| given.get(name).filter(|label| !label.is_empty()).map(str::to_owned);
    process.apparmor_profile = label("apparmor").or(process.apparmor_profile);
    process.selinux_label = label("process-label").or(process.selinux_label);
    let capabilities = given.all("cap");
    if !capabilities.is_empty() {
        // Not the inheritable ones: files of the image would turn them into more (CVE-2022-29162).
        let sets = process.capabilities.get_or_insert_with(OciCapabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(capabilities.iter().map(|name| (*name).to_owned()));
        }
    }
    Ok(process)
}

/// The whole text, within the range (CVE-2026-30892: `1x` and `-1` are no users).
fn number(text: &str) -> Result<u32, Failure> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse::<u32>().ok().filter(|number| *number != u32::MAX) } else { None };
    number.ok_or_else(|| Failure::usage(format!("`{text}` is no user or group id")))
}
