//! The checks of a `config.json` that types alone cannot make: duplicates, relative paths, values out of range.

use std::collections::BTreeSet;

use thiserror::Error;

use super::{OciConfig, OciDeviceKind, OciHooks, OciLinuxConfig, OciMount, OciProcess};

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
    if let Some(clock) = linux.time_offsets.keys().find(|clock| !matches!(clock.as_str(), "monotonic" | "boottime")) {
        return Err(OciError::invalid("linux.timeOffsets", format!("names the unknown clock `{clock}`")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
