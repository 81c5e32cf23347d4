//! The commands that only look.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::runtime::lifecycle::{CgroupVersion, Container, LifecycleError, Status, StoreError};

use super::flags::{FlagsEnd, Given, switch, value};
use super::{Failure, Global, id_of, parse};

type Arguments<'a> = &'a mut dyn Iterator<Item = OsString>;

fn print_json(value: &impl Serialize) -> Result<u8, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::usage(error.to_string()))?;
    println!("{text}");
    Ok(0)
}

/// What `state` and `list` tell, in the order of the field's runtimes: there are those who read it as text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'static str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: &'static str,
}

impl<'a> Described<'a> {
    fn new(container: &'a Container) -> Self {
        let record = &container.record;
        Self {
            oci_version: &record.oci_version,
            id: &record.id,
            pid: if container.status == Status::Stopped { 0 } else { record.init_process_pid },
            status: container.status.name(),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner: "root",
        }
    }
}

pub fn state(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = parse("state", arguments, &[])?;
    print_json(&Described::new(&Container::find(&global.store, id_of(&given)?)?))
}

pub fn list(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = parse("list", arguments, &[value("format", Some('f')), switch("quiet", Some('q'))])?;
    let places = global.store.list().map_err(LifecycleError::from)?;
    let mut containers = Vec::new();
    for place in places {
        containers.extend(Container::at(place)?);
    }
    if given.is_set("quiet") {
        containers.iter().for_each(|container| println!("{}", container.record.id));
        return Ok(0);
    }
    match given.get("format") {
        Some("json") => {
            println!("{}", json_line(&containers.iter().map(Described::new).collect::<Vec<_>>())?);
            return Ok(0);
        }
        None | Some("table") => {}
        Some(other) => return Err(Failure::usage(format!("`--format {other}` is neither `table` nor `json`"))),
    }
    let described: Vec<Described<'_>> = containers.iter().map(Described::new).collect();
    let widest = |length: fn(&Described<'_>) -> usize| described.iter().map(length).max().unwrap_or(0).max(6);
    let (ids, bundles) = (widest(|one| one.id.len()), widest(|one| one.bundle.as_os_str().len()));
    println!("{:ids$}  {:8}  {:8}  {:bundles$}  {:30}  OWNER", "ID", "PID", "STATUS", "BUNDLE", "CREATED");
    for one in &described {
        let bundle = one.bundle.display().to_string();
        println!(
            "{:ids$}  {:<8}  {:8}  {bundle:bundles$}  {:30}  {}",
            one.id, one.pid, one.status, one.created, one.owner
        );
    }
    Ok(0)
}

fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::usage(error.to_string()))
}

/// The numbers of the processes as JSON, or what `ps` of the host says of them, with the arguments behind the id.
pub fn ps(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = Given::parse("ps", arguments, &[value("format", Some('f'))], FlagsEnd::AtFirstPlain)?;
    let container = Container::find(&global.store, id_of(&given)?)?;
    let pids = container.record.cgroups().processes().map_err(LifecycleError::from)?;
    match given.get("format") {
        Some("json") => {
            println!("{}", json!(pids));
            return Ok(0);
        }
        None | Some("table") => {}
        Some(other) => return Err(Failure::usage(format!("`--format {other}` is neither `table` nor `json`"))),
    }
    let mut asked: Vec<OsString> = arguments.collect();
    if asked.is_empty() {
        asked.push("-ef".into());
    }
    let failed = |what: &str| Failure::usage(format!("cannot run `ps`: {what}"));
    let output = Command::new("ps").args(asked).output().map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = lines_of(&text, &pids).ok_or_else(|| failed("its output has no column `PID`"))?;
    lines.iter().for_each(|line| println!("{line}"));
    Ok(0)
}

/// The heading and the lines of these processes.
fn lines_of<'a>(text: &'a str, pids: &[i32]) -> Option<Vec<&'a str>> {
    let mut lines = text.lines();
    let heading = lines.next()?;
    let column = heading.split_whitespace().position(|name| name == "PID")?;
    let pid = |line: &str| line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
    let theirs = lines.filter(|line| pid(line).is_some_and(|pid| pids.contains(&pid)));
    Some([heading].into_iter().chain(theirs).collect())
}

/// What happens, a line each.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

/// Figures in the field's form, once with `--stats`; without, every interval, and each time that the kernel ends a process for
/// want of memory.
pub fn events(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    /// How often it is looked for what happened in between.
    const LOOK: Duration = Duration::from_millis(100);
    let given = parse("events", arguments, &[switch("stats", None), value("interval", None)])?;
    let id = id_of(&given)?.to_owned();
    let interval = match given.get("interval") {
        None => Duration::from_secs(5),
        Some(text) => duration(text)
            .filter(|duration| !duration.is_zero())
            .ok_or_else(|| Failure::usage(format!("`--interval {text}` is no time such as `5s` or `500ms`")))?,
    };
    let mut container = Container::find(&global.store, &id)?;
    if container.status == Status::Stopped {
        return Err(Failure::usage(format!("container `{id}` has no figures: container not running")));
    }
    let say = |kind, data| json_line(&Event { kind, id: &id, data }).map(|line| println!("{line}"));
    let (mut kills, mut next) = (out_of_memory_kills(&container), Instant::now());
    loop {
        if Instant::now() >= next {
            say("stats", Some(figures(&container)))?;
            next += interval;
        }
        if given.is_set("stats") {
            return Ok(0);
        }
        std::thread::sleep(LOOK.min(interval));
        container = match Container::find(&global.store, &id) {
            Err(LifecycleError::Store(StoreError::NotFound { .. })) => return Ok(0),
            found => found?,
        };
        let now = out_of_memory_kills(&container);
        if now > kills {
            say("oom", None)?;
        }
        kills = now;
        if container.status == Status::Stopped {
            return Ok(0);
        }
    }
}

/// As the field writes times: `1m30s`, `500ms`; a number alone is seconds.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 6] = [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[number..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| number + length);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == &rest[number..unit])?;
        total += rest[..number].parse::<f64>().ok()? * factor;
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}

fn out_of_memory_kills(container: &Container) -> u64 {
    let groups = container.record.cgroups();
    let file = if groups.version == CgroupVersion::V1 { "memory.oom_control" } else { "memory.events" };
    let text = groups.text("memory", file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
}

fn figures(container: &Container) -> Value {
    let groups = container.record.cgroups();
    let number = |controller: &str, file: &str| -> u64 {
        groups.text(controller, file).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let named = |controller: &str, file: &str| -> std::collections::BTreeMap<String, u64> {
        let text = groups.text(controller, file).unwrap_or_default();
        let pair =
            |line: &str| line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), value.parse().ok()?)));
        text.lines().filter_map(pair).collect()
    };
    let pids = json!({ "current": number("pids", "pids.current"), "limit": number("pids", "pids.max") });
    if groups.version == CgroupVersion::V1 {
        let cpu = named("cpu", "cpu.stat");
        let of_cpu = |key: &str| cpu.get(key).copied().unwrap_or(0);
        let raw = named("memory", "memory.stat");
        return json!({
            "cpu": {
                "usage": { "total": number("cpuacct", "cpuacct.usage"), "kernel": number("cpuacct", "cpuacct.usage_sys"),
                           "user": number("cpuacct", "cpuacct.usage_user") },
                "throttling": { "periods": of_cpu("nr_periods"), "throttledPeriods": of_cpu("nr_throttled"),
                                "throttledTime": of_cpu("throttled_time") },
            },
            "memory": {
                "cache": raw.get("cache").copied().unwrap_or(0),
                "usage": { "limit": number("memory", "memory.limit_in_bytes"), "usage": number("memory", "memory.usage_in_bytes"),
                           "max": number("memory", "memory.max_usage_in_bytes"), "failcnt": number("memory", "memory.failcnt") },
                "raw": raw,
            },
            "pids": pids, "blkio": {}, "hugetlb": {}, "intel_rdt": {}, "network_interfaces": null,
        });
    }
    let cpu = named("cpu", "cpu.stat");
    let of_cpu = |key: &str| cpu.get(key).copied().unwrap_or(0);
    let raw = named("memory", "memory.stat");
    let limit = groups.text("memory", "memory.max").and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    json!({
        "cpu": {
            "usage": { "total": of_cpu("usage_usec") * 1000, "kernel": of_cpu("system_usec") * 1000,
                       "user": of_cpu("user_usec") * 1000 },
            "throttling": { "periods": of_cpu("nr_periods"), "throttledPeriods": of_cpu("nr_throttled"),
                            "throttledTime": of_cpu("throttled_usec") * 1000 },
        },
        "memory": {
            "cache": raw.get("file").copied().unwrap_or(0),
            "usage": { "limit": limit, "usage": number("memory", "memory.current"), "max": number("memory", "memory.peak"),
                       "failcnt": 0 },
            "raw": raw,
        },
        "pids": pids, "blkio": {}, "hugetlb": {}, "intel_rdt": {}, "network_interfaces": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_field() {
        for (text, milliseconds) in [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), ("2", 2000), ("0.5s", 500)] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "s", "5x", "5s5", "-1s", "ms5"] {
            assert!(duration(wrong).is_none_or(|duration| duration.is_zero()), "{wrong}");
        }
    }

    #[test]
    fn of_ps_the_lines_of_the_container_are_shown() {
        let text = "UID  PID PPID CMD\nroot 1 0 init 7\nroot  7 1 sleep 1\nroot 77 1 sh\n";
        assert_eq!(lines_of(text, &[7]), Some(vec!["UID  PID PPID CMD", "root  7 1 sleep 1"]));
        assert_eq!(lines_of("UID CMD\n", &[7]), None);
    }
}
