//! Names that the kernel defines: capabilities, signals, resource limits, parameters; and the seccomp profile.

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::DeValue;

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::keys::Key;
use crate::file::literal::Text;
use crate::file::source::At;
use crate::file::surroundings::FileKind;
use crate::file::walk::{Entry, Item, Reader, Section, bad_choice, type_name};
use crate::file::words::nearest;
use crate::model::{Seccomp, Ulimit};

/// capabilities(7), in the order of their numbers.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// signal(7): the numbers of x86 and arm, from 1.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// As the C library counts them, which keeps the kernel's first two to itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// getrlimit(2).
const RESOURCES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
const UNLIMITED: u64 = u64::MAX;

/// Parameters outside `net.` and `fs.mqueue.` that belong to a namespace (namespaces(7), ipc_namespaces(7)).
const IPC_PARAMETERS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// A profile is a list of system calls; docker's own has 30 kB.
const MAX_PROFILE: u64 = 4 << 20;

/// `cap_add` and `cap_drop`.
pub(super) fn capabilities(reader: &mut Reader, section: &Section) -> (Vec<String>, Vec<String>) {
    let add = capability_list(reader, section, "cap_add");
    let drop = capability_list(reader, section, "cap_drop");
    for added in &add {
        if added.value == "MKNOD" || added.value == "ALL" {
            let message = format!("`cap_add` of {} is not supported yet", added.value);
            let draft = Draft::error(code::NOT_YET, &added.span, message);
            reader.push(match added.value.as_str() {
                "ALL" => draft.help("name the capabilities that the container needs"),
                _ => draft.help("the usual devices are in /dev; device nodes cannot be made in a container"),
            });
        }
        if let Some(dropped) = drop.iter().find(|dropped| dropped.value == added.value) {
            let message = format!("{} is both added and dropped", added.value);
            let draft = Draft::error(code::LISTED_TWICE, &added.span, message).other(&dropped.span, "dropped here");
            reader.push(draft.help("drop \"ALL\" and add what is needed, or leave one of the two out"));
        }
    }
    let add = add.into_iter().map(|at| at.value).collect();
    (add, written_out(drop))
}

fn written_out(list: Vec<At<String>>) -> Vec<String> {
    match list.iter().any(|at| at.value == "ALL") {
        true => CAPABILITIES.iter().map(|name| (*name).to_owned()).collect(),
        false => list.into_iter().map(|at| at.value).collect(),
    }
}

fn capability_list(reader: &mut Reader, section: &Section, key: &str) -> Vec<At<String>> {
    let mut list: Vec<At<String>> = Vec::new();
    for text in reader.texts(section.get(key)).unwrap_or_default() {
        let name = text.value.strip_prefix("CAP_").unwrap_or(&text.value);
        if name != "ALL" && !CAPABILITIES.contains(&name) {
            let draft =
                Draft::error(code::UNKNOWN_KERNEL_NAME, &text.span, format!("there is no capability `{}`", text.value));
            let upper = text.value.to_ascii_uppercase();
            let near = nearest(upper.trim_start_matches("CAP_"), CAPABILITIES.into_iter().chain(["ALL"]));
            reader.push(match near {
                Some(near) => draft.label(format!("did you mean \"{near}\"?")),
                None => draft.help("capabilities(7) lists them; they are written as \"NET_ADMIN\""),
            });
            continue;
        }
        if let Some(first) = list.iter().find(|first| first.value == name) {
            let draft = Draft::error(code::LISTED_TWICE, &text.span, format!("`{name}` is listed twice"));
            reader.push(draft.other(&first.span, "first here"));
            continue;
        }
        list.push(At::new(name.to_owned(), text.span.clone()));
    }
    list
}

/// `stop_signal`: a name with or without `SIG`, or a number.
pub(super) fn signal(reader: &mut Reader, item: Option<Item>) -> Option<i32> {
    let item = item?;
    if item.value.get_ref().is_integer() {
        return reader.integer(Some(item), 1..=RTMAX as u64).map(|at| at.value as i32);
    }
    let text = reader.text(Some(item))?;
    signal_named(reader, &text, &text.value)
}

/// `name`, a piece of `text`, as a signal: its name with or without `SIG`.
pub(super) fn signal_named(reader: &mut Reader, text: &Text, name: &str) -> Option<i32> {
    let (written, span) = (name, text.piece(name));
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let found = SIGNALS.iter().position(|signal| *signal == name).map(|index| index as i32 + 1);
    if let Some(number) = found.or_else(|| real_time(name)) {
        return Some(number);
    }
    let draft = Draft::error(code::UNKNOWN_KERNEL_NAME, &span, format!("there is no signal `{written}`"));
    let upper = written.to_ascii_uppercase();
    reader.push(match nearest(upper.trim_start_matches("SIG"), SIGNALS.into_iter()) {
        Some(near) => draft.label(format!("did you mean \"SIG{near}\"?")),
        None => draft.help("for example \"SIGTERM\", \"SIGINT\", \"SIGQUIT\" or \"SIGRTMIN+3\""),
    });
    None
}

fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        _ => text.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => RTMIN + offset(rest, '+')?,
        (_, Some(rest)) => RTMAX - offset(rest, '-')?,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

static ULIMIT_VALUE: Key = Key {
    name: "ulimit",
    wants: "a table of numbers, \"unlimited\" or [soft, hard] for each resource",
    example: "{ nofile = 65536, core = [0, 0], memlock = \"unlimited\" }",
};

pub(super) fn ulimits(reader: &mut Reader, section: &Section) -> Vec<Ulimit> {
    let item = section.get("ulimit");
    let mut ulimits = Vec::new();
    for entry in reader.entries(item.as_ref()) {
        let Some(item) = &item else { continue };
        let resource = entry.name.as_str();
        if !RESOURCES.contains(&resource) {
            let draft = Draft::error(
                code::UNKNOWN_KERNEL_NAME,
                &entry.name_span,
                format!("there is no resource limit `{resource}`"),
            );
            let lower = resource.to_ascii_lowercase();
            reader.push(match nearest(lower.trim_start_matches("rlimit_"), RESOURCES.into_iter()) {
                Some(near) => draft.label(format!("did you mean `{near}`?")),
                None => draft.help(format!("resources are {}", RESOURCES.join(", "))),
            });
            continue;
        }
        let item = Item { key: &ULIMIT_VALUE, ..item.clone() };
        if let Some((soft, hard)) = soft_and_hard(reader, &item, &entry) {
            ulimits.push(Ulimit { resource: resource.to_owned(), soft, hard });
        }
    }
    ulimits
}

fn soft_and_hard(reader: &mut Reader, item: &Item, entry: &Entry) -> Option<(u64, u64)> {
    let DeValue::Array(values) = entry.value.get_ref() else {
        return ulimit_value(reader, item, entry.value).map(|value| (value, value));
    };
    let [soft, hard] = &values[..] else {
        let message = format!("`{}` must be [soft, hard], not a list of {}", entry.name, values.len());
        reader.push(Draft::error(code::WRONG_TYPE, &entry.value.span(), message));
        return None;
    };
    let soft_value = ulimit_value(reader, item, soft)?;
    let hard_value = ulimit_value(reader, item, hard)?;
    if soft_value > hard_value {
        let message = format!("the soft limit of `{}` is above its hard limit", entry.name);
        let draft = Draft::error(code::SOFT_ABOVE_HARD, &soft.span(), message).label("soft");
        reader.push(draft.other(&hard.span(), "hard").help("the soft limit comes first: [soft, hard]"));
        return None;
    }
    Some((soft_value, hard_value))
}

fn ulimit_value(reader: &mut Reader, item: &Item, value: &Spanned<DeValue>) -> Option<u64> {
    match value.get_ref() {
        DeValue::Integer(integer) => match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if number < UNLIMITED => Some(number),
            _ => {
                let message = format!("a limit cannot be {integer}");
                let draft = Draft::error(code::OUT_OF_RANGE, &value.span(), message);
                reader.push(draft.help("write \"unlimited\" for no limit"));
                None
            }
        },
        DeValue::String(string) => {
            let text = reader.replaced(string, value.span())?;
            match text.value.as_str() {
                "unlimited" => Some(UNLIMITED),
                _ => {
                    reader.push(bad_choice("ulimit", &text, &["unlimited"]).help("or a number without quotes"));
                    None
                }
            }
        }
        _ => {
            reader.wrong_type(item, value);
            None
        }
    }
}

static SYSCTL_VALUE: Key =
    Key { name: "sysctl", wants: "a table of strings and integers", example: "{ \"net.core.somaxconn\" = 1024 }" };

pub(super) fn sysctls(reader: &mut Reader, section: &Section) -> IndexMap<String, String> {
    let item = section.get("sysctl");
    let mut sysctls = IndexMap::new();
    for entry in reader.dotted_entries(item.as_ref()) {
        let Some(item) = &item else { continue };
        let item = Item { key: &SYSCTL_VALUE, ..item.clone() };
        if let Err(draft) = check_parameter(&entry) {
            reader.push(*draft);
            continue;
        }
        if !matches!(entry.value.get_ref(), DeValue::String(_) | DeValue::Integer(_)) {
            let found = type_name(entry.value.get_ref());
            let message = format!("`{}` must be a string or an integer, not {found}", entry.name);
            let draft = Draft::error(code::WRONG_TYPE, &entry.value.span(), message).label(found);
            reader.push(draft.help("the kernel's switches are 0 and 1"));
            continue;
        }
        let Some(value) = reader.scalar(&item, &entry) else { continue };
        if value.is_empty() || value.contains(['\n', '\r']) {
            let message = format!("the value of `{}` must be one line", entry.name);
            reader.push(Draft::error(code::BAD_TEXT, &entry.value.span(), message));
            continue;
        }
        sysctls.insert(entry.name, value);
    }
    sysctls
}

fn check_parameter(entry: &Entry) -> Result<(), Box<Draft>> {
    let name = entry.name.as_str();
    let part =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let namespaced = name.starts_with("net.") || name.starts_with("fs.mqueue.") || IPC_PARAMETERS.contains(&name);
    if namespaced && name.split('.').all(part) {
        return Ok(());
    }
    let unknown = |message: String| Draft::error(code::UNKNOWN_KERNEL_NAME, &entry.name_span, message);
    if name.contains('/') {
        let draft = unknown(format!("`{name}` is a path, not the name of a kernel parameter"));
        return Err(Box::new(draft.help(format!("write \"{}\"", name.replace('/', ".")))));
    }
    let draft = unknown(format!("the kernel parameter `{name}` does not belong to a container alone"));
    let draft = match nearest(name, IPC_PARAMETERS.into_iter()) {
        Some(near) => draft.label(format!("did you mean \"{near}\"?")),
        None => draft.label("it would change the whole host"),
    };
    Err(Box::new(draft.help("allowed: net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm*")))
}

pub(super) fn seccomp(reader: &mut Reader, item: Option<Item>) -> Option<Seccomp> {
    let text = reader.text(item)?;
    match text.value.as_str() {
        "default" => return Some(Seccomp::Default),
        "unconfined" => return Some(Seccomp::Unconfined),
        written if !written.contains(['/', '.']) => {
            reader.push(bad_choice("seccomp", &text, &["default", "unconfined"]).help("or the path of a profile file"));
            return None;
        }
        _ => {}
    }
    let path = reader.host_file(&text.value, &text.span, &[FileKind::File])?;
    match check_profile(reader, &path) {
        Ok(()) => Some(Seccomp::File(path)),
        Err(why) => {
            let message = format!("`{}` is no seccomp profile: {why}", text.value);
            let draft = Draft::error(code::BAD_FILE, &text.span, message);
            reader.push(draft.help(
                "a profile is JSON as docker takes it, or the same in TOML, with `defaultAction` and `syscalls`",
            ));
            None
        }
    }
}

/// Looks at the outer shape alone; what the rules say is judged when they are compiled.
fn check_profile(reader: &Reader, path: &std::path::Path) -> Result<(), String> {
    let content = reader.surroundings.files.read(path, MAX_PROFILE).map_err(|fault| fault.to_string())?;
    let text = String::from_utf8(content).map_err(|fault| fault.to_string())?;
    let profile: serde_json::Value = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(&text).map_err(|fault| fault.to_string())?,
        false => toml::from_str(&text).map_err(|fault| fault.message().to_owned())?,
    };
    match profile.get("defaultAction") {
        Some(serde_json::Value::String(_)) => Ok(()),
        Some(_) => Err("`defaultAction` is not a string".into()),
        None => Err("it has no `defaultAction`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_numbers_of_the_kernel() {
        for (name, number) in [("HUP", 1), ("KILL", 9), ("TERM", 15), ("STOP", 19), ("WINCH", 28), ("SYS", 31)] {
            assert_eq!(SIGNALS.iter().position(|signal| *signal == name), Some(number - 1), "{name}");
        }
        assert_eq!(real_time("RTMIN+3"), Some(37));
        assert_eq!(real_time("RTMAX"), Some(64));
        assert_eq!(real_time("RTMAX-14"), Some(50));
        for bad in ["RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+", "RT"] {
            assert_eq!(real_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn capabilities_stand_at_their_numbers() {
        for (name, number) in [("CHOWN", 0), ("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("MKNOD", 27), ("BPF", 39)] {
            assert_eq!(CAPABILITIES[number], name);
        }
    }
}
