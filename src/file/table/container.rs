//! `[container.NAME]`.

use std::time::Duration;

use indexmap::IndexMap;
use toml::de::DeValue;

use super::Named;
use super::limits::{self, LimitsSheet};
use super::{env, health, image, kernel, port, storage, user, watch};
use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::keys::LOG;
use crate::file::literal::Text;
use crate::file::source::{At, Span};
use crate::file::walk::{Reader, Section, bad_choice};
use crate::file::words::quoted_list;
use crate::model::{
    ByteSize, Condition, Container, Image, ImageSource, ImageUse, LogLimits, Name, PortMap, Pull, Restart, Run, Seccomp,
};

/// A container as its table says it, with the places that checks across tables point at.
pub(in crate::file) struct ContainerSheet {
    /// `bridges`, `cgroup` and `after` name only what could be a name; their references are checked later.
    pub container: Container,
    pub bridges: Vec<At<String>>,
    pub gateway: Option<At<String>>,
    pub cgroup: Option<At<String>>,
    pub volumes: Vec<At<String>>,
    pub ports: Vec<At<PortMap>>,
    pub after: Vec<Wait>,
    pub replicas: Option<Span>,
    pub restart: Option<Span>,
    /// Written, be it faulty.
    pub has_health: bool,
    pub memory_span: Option<Span>,
    pub cpu_span: Option<Span>,
    pub image_name: Option<String>,
    /// The profiles that it is there with; empty: it always is.
    pub profiles: Vec<At<String>>,
}

/// One entry of `after`.
pub(in crate::file) struct Wait {
    pub container: At<String>,
    pub condition: Condition,
    pub condition_span: Span,
}

/// Enough for any program, and a bound for one that forks without end.
const DEFAULT_PIDS: u64 = 4096;
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REPLICAS: u64 = 256;
const MAX_RETRIES: u32 = 1_000_000;
const DEFAULT_LOG: LogLimits = LogLimits { size: ByteSize(10 << 20), files: 3 };
const MIN_LOG: ByteSize = ByteSize(4096);
const MAX_LOG_FILES: u64 = 100;
const CONDITIONS: [(&str, Condition); 3] =
    [("started", Condition::Started), ("healthy", Condition::Healthy), ("completed", Condition::Completed)];

pub(super) fn read(reader: &mut Reader, section: &Section, images: &Named<Option<Image>>) -> ContainerSheet {
    let image_item = reader.required(section, "image");
    let image_text = reader.text(image_item);
    let image = image_text.as_ref().and_then(|text| image::used(reader, text, images));
    let user = reader.text(section.get("user"));
    let user = user::user(reader, user);
    let hostname = reader.text(section.get("hostname"));
    let hostname = user::hostname(reader, hostname);
    let storage = storage::read(reader, section, user.as_ref());
    let LimitsSheet { mut limits, memory_span, cpu_span } = limits::read(reader, section);
    limits.pids = limits.pids.or(Some(DEFAULT_PIDS));
    let (bridges, cgroup) = (bridges(reader, section), cgroup(reader, section));
    let gateway = reader.text(section.get("gateway")).map(|text| At::new(text.value, text.span));
    let ports = port::read(reader, section);
    let after = after(reader, section);
    let replicas = reader.integer(section.get("replicas"), 1..=MAX_REPLICAS);
    let restart = restart(reader, section);
    let job = job(reader, section, restart.as_ref());
    update(reader, section);
    let health = health::read(reader, section.get("health"));
    let (env, env_files) = env::read(reader, section);
    let (cap_add, cap_drop) = kernel::capabilities(reader, section);
    let name = |text: &At<String>| Name::new(text.value.as_str()).ok();
    let container = Container {
        // Stands in where the image is faulty; the fault is recorded, and so the container is never handed out.
        image: image.unwrap_or(ImageUse { written: String::new(), source: ImageSource::Host, pull: Pull::Missing }),
        entrypoint: command(reader, section, "entrypoint"),
        command: command(reader, section, "command"),
        workdir: workdir(reader, section),
        user,
        hostname,
        env,
        env_files,
        watch: watch::read(reader, section),
        bridges: bridges.iter().filter_map(name).collect(),
        gateway: gateway.as_ref().and_then(name),
        cgroup: cgroup.as_ref().and_then(name),
        limits,
        volumes: storage.volumes,
        mounts: storage.mounts,
        files: storage.files,
        secrets: storage.secrets,
        ports: ports.iter().map(|port| port.value).collect(),
        after: after
            .iter()
            .filter_map(|wait| Some((name(&wait.container)?, wait.condition)))
            .collect::<IndexMap<_, _>>(),
        replicas: replicas.as_ref().map_or(1, |at| at.value as u32),
        job,
        restart: restart.as_ref().map_or(Restart::No, |at| at.value),
        health,
        seccomp: kernel::seccomp(reader, section.get("seccomp")).unwrap_or(Seccomp::Default),
        read_only: reader.boolean(section.get("read_only")).unwrap_or(false),
        cap_add,
        cap_drop,
        ulimits: kernel::ulimits(reader, section),
        sysctls: kernel::sysctls(reader, section),
        stop_signal: kernel::signal(reader, section.get("stop_signal")),
        stop_timeout: health::duration(reader, section.get("stop_timeout"), Duration::ZERO)
            .map_or(STOP_TIMEOUT, |at| at.value),
        init: reader.boolean(section.get("init")).unwrap_or(true),
        labels: env::labels(reader, section),
        log: log(reader, section),
        oom_score_adj: oom_score_adj(reader, section),
    };
    ContainerSheet {
        container,
        bridges,
        gateway,
        cgroup,
        volumes: storage.volume_names,
        ports,
        after,
        replicas: replicas.map(|at| at.span),
        restart: restart.map(|at| at.span),
        has_health: section.has("health"),
        memory_span,
        cpu_span,
        image_name: image_text.map(|text| text.value),
        profiles: profiles(reader, section),
    }
}

fn profiles(reader: &mut Reader, section: &Section) -> Vec<At<String>> {
    let Some(item) = section.get("profile") else { return Vec::new() };
    let span = item.span();
    let Some(texts) = reader.texts(Some(item)) else { return Vec::new() };
    if texts.is_empty() {
        let draft = Draft::error(code::BAD_TEXT, &span, "`profile` names no profile");
        reader.push(draft.help("leave it out for a container that is always there"));
    }
    let named = |text: Text| {
        reader.name(&text.value, &text.span, "the profile's name")?;
        Some(At::new(text.value, text.span))
    };
    texts.into_iter().filter_map(named).collect()
}

fn oom_score_adj(reader: &mut Reader, section: &Section) -> Option<i16> {
    let number = reader.number(section.get("oom_score_adj"))?;
    if number.value.fract() == 0.0 && (-1000.0..=1000.0).contains(&number.value) {
        return Some(number.value as i16);
    }
    let message = format!("`oom_score_adj` must be an integer from -1000 to 1000, not {}", number.value);
    reader.push(Draft::error(code::OUT_OF_RANGE, &number.span, message));
    None
}

fn command(reader: &mut Reader, section: &Section, key: &str) -> Option<Vec<String>> {
    let item = section.get(key)?;
    let span = item.span();
    let list: Vec<String> = reader.texts(Some(item))?.into_iter().map(|text| text.value).collect();
    if key == "entrypoint" && list.first().is_none_or(String::is_empty) {
        let draft = Draft::error(code::BAD_TEXT, &span, "`entrypoint` names no program");
        reader.push(draft.help("leave it out for the image's own, or write `entrypoint = [\"/usr/bin/server\"]`"));
        return None;
    }
    Some(list)
}

fn workdir(reader: &mut Reader, section: &Section) -> Option<String> {
    let text = reader.text(section.get("workdir"))?;
    if text.value.starts_with('/') {
        return Some(text.value);
    }
    let message = format!("`workdir` must be an absolute path, not `{}`", text.value);
    let draft = Draft::error(code::BAD_TARGET, &text.span, message);
    reader.push(draft.help(format!("write \"/{}\"", text.value.trim_start_matches(['.', '/']))));
    None
}

fn bridges(reader: &mut Reader, section: &Section) -> Vec<At<String>> {
    let mut list: Vec<At<String>> = Vec::new();
    for text in reader.texts(section.get("bridge")).unwrap_or_default() {
        if let Some(first) = list.iter().find(|first| first.value == text.value) {
            let draft = Draft::error(code::LISTED_TWICE, &text.span, format!("`{}` is listed twice", text.value));
            reader.push(draft.other(&first.span, "first here"));
            continue;
        }
        list.push(At::new(text.value, text.span));
    }
    list
}

fn cgroup(reader: &mut Reader, section: &Section) -> Option<At<String>> {
    reader.text(section.get("cgroup")).map(|text| At::new(text.value, text.span))
}

fn after(reader: &mut Reader, section: &Section) -> Vec<Wait> {
    let Some(item) = section.get("after") else { return Vec::new() };
    let mut waits = Vec::new();
    for entry in reader.entries(Some(&item)) {
        let container = At::new(entry.name, entry.name_span);
        let DeValue::String(string) = entry.value.get_ref() else {
            let names: Vec<&str> = CONDITIONS.iter().map(|(name, _)| *name).collect();
            let message = format!("the condition of `{}` must be {}", container.value, quoted_list(&names));
            reader.push(Draft::error(code::WRONG_TYPE, &entry.value.span(), message));
            continue;
        };
        let Some(text) = reader.replaced(string, entry.value.span()) else { continue };
        let (condition, condition_span) = match text.value.as_str() {
            value if value.starts_with("service_") => {
                let ours = value.trim_start_matches("service_").trim_end_matches("_successfully");
                let message = format!("`{value}` is not a condition of stack files");
                let draft = Draft::error(code::FOREIGN_SPELLING, &text.span, message).label("known from other tools");
                reader.push(draft.help(format!("write `{} = \"{ours}\"`", container.value)));
                continue;
            }
            value => match CONDITIONS.iter().find(|(name, _)| *name == value) {
                Some((_, condition)) => (*condition, text.span),
                None => {
                    let names: Vec<&str> = CONDITIONS.iter().map(|(name, _)| *name).collect();
                    reader.push(bad_choice("after", &text, &names));
                    continue;
                }
            },
        };
        waits.push(Wait { container, condition, condition_span });
    }
    waits
}

fn restart(reader: &mut Reader, section: &Section) -> Option<At<Restart>> {
    let text = reader.text(section.get("restart"))?;
    let restart = match text.value.split_once(':') {
        Some(("on-failure", number)) => match number.parse::<u32>() {
            Ok(number) if (1..=MAX_RETRIES).contains(&number) => Some(Restart::OnFailure { max_retries: Some(number) }),
            _ => {
                let message = format!("`{number}` is no number of restarts");
                let draft = Draft::error(code::BAD_CHOICE, &text.piece(number), message);
                reader.push(draft.help("for example \"on-failure:5\""));
                return None;
            }
        },
        _ => match text.value.as_str() {
            "no" => Some(Restart::No),
            "always" => Some(Restart::Always),
            "on-failure" => Some(Restart::OnFailure { max_retries: None }),
            _ => None,
        },
    };
    if let Some(restart) = restart {
        return Some(At::new(restart, text.span));
    }
    let hint = match text.value.as_str() {
        "unless-stopped" => Some("write `restart = \"always\"`; what `stack down` stopped stays down"),
        "never" | "none" | "false" => Some("write `restart = \"no\"`, or leave it out"),
        _ => None,
    };
    match hint {
        Some(hint) => {
            let message = format!("`restart` cannot be `{}`", text.value);
            let draft = Draft::error(code::FOREIGN_SPELLING, &text.span, message).label("known from other tools");
            reader.push(draft.help(hint));
        }
        None => reader.push(bad_choice("restart", &text, &["no", "always", "on-failure", "on-failure:5"])),
    }
    None
}

/// `stop-first` is how a container is replaced; the other order is refused by name.
/// `type` and `run`: whether a container is to end, and when it runs again.
fn job(reader: &mut Reader, section: &Section, restart: Option<&At<Restart>>) -> Option<Run> {
    let is_job = match reader.choice(section.get("type"), &[("service", false), ("oneshot", true)]) {
        Some(is_job) => is_job,
        None if section.has("type") => return None,
        None => false,
    };
    let run = section.get("run");
    if !is_job {
        if let Some(item) = run {
            let message = "`run` is for containers that are to end";
            let draft = Draft::error(code::KEY_CHOICE, &item.key_span, message);
            reader.push(draft.help("add `type = \"oneshot\"`, or leave it out"));
        }
        return None;
    }
    if let Some(always) = restart.filter(|at| at.value == Restart::Always) {
        let message = "a container that is to end cannot always be restarted";
        let draft = Draft::error(code::KEY_CHOICE, &always.span, message);
        reader.push(
            draft.help("write `restart = \"on-failure\"`, or leave it out; `run = \"always\"` runs it at each `up`"),
        );
    }
    let choices = [("once", Run::Once), ("on-change", Run::OnChange), ("always", Run::Always)];
    Some(reader.choice(run, &choices).unwrap_or(Run::OnChange))
}

fn update(reader: &mut Reader, section: &Section) {
    let Some(text) = reader.text(section.get("update")) else { return };
    match text.value.as_str() {
        "stop-first" => {}
        "start-first" => {
            let draft = Draft::error(code::NOT_YET, &text.span, "`update = \"start-first\"` is not supported yet");
            reader.push(draft.help("write \"stop-first\", or leave `update` out"));
        }
        _ => reader.push(bad_choice("update", &text, &["stop-first"])),
    }
}

fn log(reader: &mut Reader, section: &Section) -> LogLimits {
    let Some(section) = reader.table(&LOG, section.get("log")) else { return DEFAULT_LOG };
    let size = limits::size(reader, section.get("size"), MIN_LOG);
    let files = reader.integer(section.get("files"), 1..=MAX_LOG_FILES);
    LogLimits {
        size: size.map_or(DEFAULT_LOG.size, |at| at.value),
        files: files.map_or(DEFAULT_LOG.files, |at| at.value as u32),
    }
}
