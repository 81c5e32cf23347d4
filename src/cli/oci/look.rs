//! The commands that only look.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::runtime::lifecycle::{CgroupVersion, Container, LifecycleError, Status};

use super::flags::{switch, value};
use super::{Failure, Global, id_of, parse};

type Arguments<'a> = &'a mut dyn Iterator<Item = OsString>;

fn print_json(value: &impl serde::Serialize) -> Result<u8, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::usage(error.to_string()))?;
    println!("{text}");
    Ok(0)
}

fn described(container: &Container) -> Value {
    let record = &container.record;
    let pid = if container.status == Status::Stopped { 0 } else { record.init_process_pid };
    let mut value = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": pid,
        "status": container.status.name(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": "root",
    });
    if !record.annotations.is_empty() {
        value["annotations"] = json!(record.annotations);
    }
    value
}

pub fn state(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = parse("state", arguments, &[])?;
    print_json(&described(&Container::find(&global.store, id_of(&given)?)?))
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
            println!("{}", json!(containers.iter().map(described).collect::<Vec<_>>()));
            return Ok(0);
        }
        None | Some("table") => {}
        Some(other) => return Err(Failure::usage(format!("`--format {other}` is neither `table` nor `json`"))),
    }
    let width = containers.iter().map(|container| container.record.id.len()).max().unwrap_or(0).max(2);
    println!("{:width$}  {:8}  {:8}  CREATED                         BUNDLE", "ID", "PID", "STATUS");
    for container in &containers {
        let value = described(container);
        println!(
            "{:width$}  {:<8}  {:8}  {:30}  {}",
            container.record.id,
            value["pid"].to_string(),
            container.status.name(),
            container.record.created,
            container.record.bundle.display()
        );
    }
    Ok(0)
}

pub fn ps(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = parse("ps", arguments, &[value("format", Some('f'))])?;
    let container = Container::find(&global.store, id_of(&given)?)?;
    let pids = container.record.cgroups().processes().map_err(LifecycleError::from)?;
    if given.get("format") == Some("json") {
        println!("{}", json!(pids));
        return Ok(0);
    }
    println!("{:>8}  CMD", "PID");
    for pid in pids {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(|word| String::from_utf8_lossy(word).escape_default().to_string())
            .collect();
        println!("{pid:>8}  {}", words.join(" "));
    }
    Ok(0)
}

/// Figures in the field's form, once with `--stats` and every interval without.
pub fn events(global: &Global, arguments: Arguments<'_>) -> Result<u8, Failure> {
    let given = parse("events", arguments, &[switch("stats", None), value("interval", None)])?;
    let id = id_of(&given)?.to_owned();
    let seconds = given.get("interval").map(|text| text.trim_end_matches('s').parse::<u64>());
    let interval = match seconds.transpose() {
        Ok(seconds) => Duration::from_secs(seconds.unwrap_or(5).max(1)),
        Err(_) => return Err(Failure::usage("`--interval` wants whole seconds such as `5s`")),
    };
    let container = Container::find(&global.store, &id)?;
    if container.status == Status::Stopped {
        return Err(Failure::usage(format!("container `{id}` has no figures: container not running")));
    }
    loop {
        println!("{}", json!({ "type": "stats", "id": id, "data": figures(&container) }));
        if given.is_set("stats") {
            return Ok(0);
        }
        std::thread::sleep(interval);
        if Container::find(&global.store, &id)?.status == Status::Stopped {
            return Ok(0);
        }
    }
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
