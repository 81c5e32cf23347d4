//! The checks of a `config.json` that types alone cannot make: duplicates, relative paths, values out of range.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{OciConfig, OciDeviceKind, OciHooks, OciLinuxConfig, OciMount, OciProcess, OciResources};

#[derive(Debug, Error)]
pub enum OciError {
    #[error("`{path}` of the configuration cannot be read")]
    Json { path: String, source: serde_json::Error },
    #[error("`{path}` of the configuration {fault}")]
    Invalid { path: String, fault: String },
}

impl OciError {
    fn invalid(path: impl Into<String>, fault: impl Into<String>) -> Self {
        Self::Invalid { path: path.into(), fault: fault.into() }
    }
}

pub fn check(config: &OciConfig) -> Result<(), OciError> {
    check_version(&config.oci_version)?;
    if config.annotations.contains_key("") {
        return Err(OciError::invalid("annotations", "has an empty key"));
    }
    if config.root.as_ref().is_some_and(|root| root.path.as_os_str().is_empty()) {
        return Err(OciError::invalid("root.path", "is empty"));
    }
    for (index, mount) in config.mounts.iter().enumerate() {
        check_mount(mount).map_err(|fault| OciError::invalid(format!("mounts[{index}]"), fault))?;
    }
    if let Some(process) = &config.process {
        check_process(process)?;
    }
    if let Some(hooks) = &config.hooks {
        check_hooks(hooks)?;
    }
    config.linux.as_ref().map_or(Ok(()), check_linux)
}

/// Semantic versioning; any 1.x is ours to read.
fn check_version(version: &str) -> Result<(), OciError> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = core
        .split('.')
        .map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten())
        .collect();
    match numbers.as_deref() {
        Some([1, _, _]) => Ok(()),
        Some([_, _, _]) => Err(OciError::invalid("ociVersion", format!("is `{version}`, but only 1.x is supported"))),
        _ => Err(OciError::invalid("ociVersion", format!("is `{version}`, which is no semantic version"))),
    }
}

fn check_mount(mount: &OciMount) -> Result<(), &'static str> {
    if mount.destination.is_empty() {
        return Err("has an empty destination");
    }
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return Err("has only one of uidMappings and gidMappings");
    }
    Ok(())
}

fn check_process(process: &OciProcess) -> Result<(), OciError> {
    if process.args.is_empty() {
        return Err(OciError::invalid("process.args", "is empty"));
    }
    if !process.cwd.starts_with('/') {
        return Err(OciError::invalid("process.cwd", format!("is `{}`, which is not absolute", process.cwd)));
    }
    if let Some(value) = process.oom_score_adj
        && !(-1000..=1000).contains(&value)
    {
        return Err(OciError::invalid("process.oomScoreAdj", format!("is {value}, outside of -1000 to 1000")));
    }
    let mut kinds = BTreeSet::new();
    for (index, limit) in process.rlimits.iter().enumerate() {
        let path = format!("process.rlimits[{index}]");
        if !kinds.insert(&limit.kind) {
            return Err(OciError::invalid(path, format!("names `{}` again", limit.kind)));
        }
        if limit.soft > limit.hard {
            return Err(OciError::invalid(path, "has a soft limit above the hard one"));
        }
    }
    Ok(())
}

fn check_hooks(hooks: &OciHooks) -> Result<(), OciError> {
    for (point, list) in hooks.points() {
        for (index, hook) in list.iter().enumerate() {
            let path = format!("hooks.{point}[{index}]");
            if !hook.path.is_absolute() {
                return Err(OciError::invalid(path, "has a path that is not absolute"));
            }
            if hook.timeout.is_some_and(|seconds| seconds <= 0) {
                return Err(OciError::invalid(path, "has a timeout that is not above 0"));
            }
        }
    }
    Ok(())
}

fn check_linux(linux: &OciLinuxConfig) -> Result<(), OciError> {
    let mut kinds = BTreeSet::new();
    for (index, namespace) in linux.namespaces.iter().enumerate() {
        let path = format!("linux.namespaces[{index}]");
        if !kinds.insert(namespace.kind) {
            return Err(OciError::invalid(path, "repeats a type"));
        }
        if namespace.path.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(OciError::invalid(path, "has a path that is not absolute"));
        }
    }
    for (name, paths) in [("maskedPaths", &linux.masked_paths), ("readonlyPaths", &linux.readonly_paths)] {
        if let Some(index) = paths.iter().position(|path| !path.starts_with('/')) {
            return Err(OciError::invalid(format!("linux.{name}[{index}]"), "is not absolute"));
        }
    }
    for (index, device) in linux.devices.iter().enumerate() {
        let path = format!("linux.devices[{index}]");
        if !device.path.starts_with('/') {
            return Err(OciError::invalid(path, "has a path that is not absolute"));
        }
        let numbered = device.major.is_some() && device.minor.is_some();
        if device.kind != OciDeviceKind::Fifo && !numbered {
            return Err(OciError::invalid(path, "lacks major or minor"));
        }
    }
    for (clock, offset) in &linux.time_offsets {
        const SECOND: u32 = 1_000_000_000;
        if offset.nanosecs >= SECOND {
            return Err(OciError::invalid(format!("linux.timeOffsets.{clock}.nanosecs"), "is a second or more"));
        }
    }
    for (name, list) in [("uidMappings", &linux.uid_mappings), ("gidMappings", &linux.gid_mappings)] {
        if let Some(index) = list.iter().position(|mapping| mapping.size == 0) {
            return Err(OciError::invalid(format!("linux.{name}[{index}].size"), "is 0"));
        }
    }
    if let Some(seccomp) = &linux.seccomp
        && seccomp.listener_path.is_none()
        && seccomp.listener_metadata.is_some()
    {
        return Err(OciError::invalid("linux.seccomp.listenerMetadata", "needs a `listenerPath`"));
    }
    if let Some(resources) = &linux.resources {
        check_resources(resources)?;
    }
    if let Some(clock) = linux.time_offsets.keys().find(|clock| !matches!(clock.as_str(), "monotonic" | "boottime")) {
        return Err(OciError::invalid("linux.timeOffsets", format!("names the unknown clock `{clock}`")));
    }
    Ok(())
}

fn check_resources(resources: &OciResources) -> Result<(), OciError> {
    for (index, rule) in resources.devices.iter().enumerate() {
        let path = |field: &str| format!("linux.resources.devices[{index}].{field}");
        if let Some(kind) = rule.kind.as_deref().filter(|kind| !matches!(*kind, "" | "a" | "b" | "c" | "u" | "p")) {
            return Err(OciError::invalid(path("type"), format!("is `{kind}`; it is one of a, b, c")));
        }
        if let Some(access) = rule.access.as_deref().filter(|access| !access.chars().all(|c| "rwm".contains(c))) {
            return Err(OciError::invalid(path("access"), format!("is `{access}`; it is made of r, w and m")));
        }
    }
    if let Some(swappiness) = resources.memory.and_then(|memory| memory.swappiness).filter(|value| *value > 100) {
        return Err(OciError::invalid("linux.resources.memory.swappiness", format!("is {swappiness}, above 100")));
    }
    if let Some(idle) = resources.cpu.as_ref().and_then(|cpu| cpu.idle).filter(|idle| !matches!(idle, 0 | 1)) {
        return Err(OciError::invalid("linux.resources.cpu.idle", format!("is {idle}; it is 0 or 1")));
    }
    let keys = resources.unified.keys();
    if let Some(key) = keys.into_iter().find(|key| key.is_empty() || key.contains('/') || !key.contains('.')) {
        return Err(OciError::invalid(
            "linux.resources.unified",
            format!("names `{key}`, which is no file of a cgroup"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const FULL: &str = include_str!("full.json");

    /// Everything in a document, with its place as messages name it and as a JSON pointer.
    fn places(value: &Value, named: &str, pointer: &str, found: &mut Vec<(String, String)>) {
        if !named.is_empty() {
            found.push((named.to_owned(), pointer.to_owned()));
        }
        match value {
            Value::Object(members) => members.iter().for_each(|(key, value)| {
                let named = if named.is_empty() { key.clone() } else { format!("{named}.{key}") };
                places(value, &named, &format!("{pointer}/{key}"), found);
            }),
            Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| {
                places(value, &format!("{named}[{index}]"), &format!("{pointer}/{index}"), found);
            }),
            _ => {}
        }
    }

    #[test]
    fn every_field_of_the_specification_is_read_and_kept() {
        let config = OciConfig::parse(FULL.as_bytes()).unwrap();
        let (mut given, mut kept) = (Vec::new(), Vec::new());
        places(&serde_json::from_str(FULL).unwrap(), "", "", &mut given);
        places(&serde_json::to_value(&config).unwrap(), "", "", &mut kept);
        // What is as if it were not there is not written.
        let lost: Vec<_> = given.into_iter().filter(|place| !kept.contains(place)).map(|(named, _)| named).collect();
        assert_eq!(lost, ["linux.personality.flags"]);
    }

    #[test]
    fn every_field_of_a_wrong_type_is_refused_by_its_path() {
        let full: Value = serde_json::from_str(FULL).unwrap();
        let mut all = Vec::new();
        places(&full, "", "", &mut all);
        assert!(all.len() > 200, "{}", all.len());
        for (named, pointer) in all {
            let mut faulty = full.clone();
            let place = faulty.pointer_mut(&pointer).unwrap();
            *place = if place.is_string() { json!(7) } else { json!("x") };
            let text = OciConfig::parse(faulty.to_string().as_bytes()).expect_err(&named).to_string();
            assert!(text.starts_with(&format!("`{named}`")), "{named}: {text}");
        }
    }

    #[test]
    fn null_is_as_if_the_field_were_not_there() {
        for pointer in ["/mounts", "/process/env", "/process/capabilities/ambient", "/linux/seccomp/syscalls/0/args"] {
            let mut document: Value = serde_json::from_str(FULL).unwrap();
            *document.pointer_mut(pointer).unwrap() = Value::Null;
            OciConfig::parse(document.to_string().as_bytes()).expect(pointer);
        }
        assert!(refusal(r#"{"ociVersion":null}"#).contains("ociVersion"));
    }

    fn refusal(json: &str) -> String {
        let error = OciConfig::parse(json.as_bytes()).expect_err("a faulty document");
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    fn refused(rest: &str, expected: &str) {
        let text = refusal(&format!(r#"{{"ociVersion":"1.3.0",{rest}}}"#));
        assert!(text.contains(expected), "`{text}` does not say `{expected}`");
    }

    #[test]
    fn a_small_document_is_read_and_unknown_properties_are_ignored() {
        let config = OciConfig::parse(
            br#"{"ociVersion":"1.0.2-dev","x":1,"root":{"path":"rootfs","y":[]},
                 "process":{"cwd":"/","args":["true"],"user":{"uid":0,"gid":0}},
                 "linux":{"namespaces":[{"type":"pid"}],"zz":null,"cgroupsPath":"a"}}"#,
        )
        .unwrap();
        assert_eq!(config.process.unwrap().args, ["true"]);
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let text = br#"{"ociVersion":"1.3.0","linux":{"resources":{"blockIO":{"throttleReadIOPSDevice":
            [{"major":8,"minor":0,"rate":5}]},"memory":{"disableOOMKiller":true,"limit":-1}},
            "uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"personality":{"domain":"LINUX32"}}}"#;
        let config = OciConfig::parse(text).unwrap();
        let again = OciConfig::parse(&serde_json::to_vec(&config).unwrap()).unwrap();
        assert_eq!(config, again);
        let linux = config.linux.unwrap();
        assert_eq!(linux.uid_mappings[0].host_id, 1000);
        assert_eq!(linux.resources.unwrap().block_io.unwrap().throttle_read_iops_device[0].rate, 5);
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        refused(r#""process":{"cwd":"/","args":["a"],"user":{"uid":-1,"gid":0}}"#, "`process.user.uid`");
        refused(r#""linux":{"namespaces":[{"type":"pid"},{"type":"pids"}]}"#, "`linux.namespaces[1].type`");
        refused(r#""mounts":[{"destination":1}]"#, "`mounts[0].destination`");
    }

    #[test]
    fn duplicates_are_refused() {
        refused(r#""linux":{"namespaces":[{"type":"ipc"},{"type":"ipc"}]}"#, "linux.namespaces[1]");
        refused(
            r#""process":{"cwd":"/","args":["a"],"rlimits":[{"type":"RLIMIT_CORE","soft":0,"hard":0},
               {"type":"RLIMIT_CORE","soft":0,"hard":0}]}"#,
            "process.rlimits[1]",
        );
    }

    #[test]
    fn values_out_of_range_are_refused() {
        refused(r#""annotations":{"":"x"}"#, "empty key");
        refused(r#""hooks":{"poststop":[{"path":"/x","timeout":0}]}"#, "hooks.poststop[0]");
        refused(r#""hooks":{"prestart":[{"path":"x"}]}"#, "hooks.prestart[0]");
        refused(r#""mounts":[{"destination":"/a","uidMappings":[{"containerID":0,"hostID":0,"size":1}]}]"#, "only one");
        refused(r#""process":{"cwd":"x","args":["a"]}"#, "process.cwd");
        refused(r#""process":{"cwd":"/","args":[]}"#, "process.args");
        refused(r#""linux":{"maskedPaths":["proc/kcore"]}"#, "linux.maskedPaths[0]");
        refused(r#""linux":{"devices":[{"type":"c","path":"/dev/x"}]}"#, "lacks major");
        refused(
            r#""linux":{"timeOffsets":{"boottime":{"nanosecs":1000000000}}}"#,
            "linux.timeOffsets.boottime.nanosecs",
        );
        refused(r#""linux":{"uidMappings":[{"containerID":0,"hostID":0,"size":0}]}"#, "linux.uidMappings[0].size");
        refused(r#""linux":{"resources":{"devices":[{"allow":true,"type":"x"}]}}"#, "linux.resources.devices[0].type");
        refused(r#""linux":{"resources":{"devices":[{"allow":true,"access":"rx"}]}}"#, "devices[0].access");
        refused(r#""linux":{"resources":{"memory":{"swappiness":101}}}"#, "linux.resources.memory.swappiness");
        refused(r#""linux":{"resources":{"cpu":{"idle":2}}}"#, "linux.resources.cpu.idle");
        refused(r#""linux":{"resources":{"unified":{"../x.y":"1"}}}"#, "linux.resources.unified");
        refused(
            r#""linux":{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}}"#,
            "linux.seccomp.listenerMetadata",
        );
        refused(r#""linux":{"timeOffsets":{"realtime":{"secs":1}}}"#, "realtime");
    }

    #[test]
    fn versions_other_than_one_are_refused() {
        for version in ["", "1", "1.0", "1.x.0", "+1.0.0", "2.0.0", "0.9.0"] {
            let text = refusal(&format!(r#"{{"ociVersion":"{version}"}}"#));
            assert!(text.contains("ociVersion"), "{text}");
        }
    }

    #[test]
    fn text_after_the_document_is_refused() {
        assert!(refusal(r#"{"ociVersion":"1.3.0"} x"#).contains("trailing"));
    }
}
