//! Shares of the cache and of the memory's bandwidth (runtime-spec config-linux.md, "Intel RDT"; the kernel's
//! Documentation/filesystems/resctrl.rst): a group is a directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::oci::OciIntelRdt;

use super::LifecycleError;

pub const ROOT: &str = "/sys/fs/resctrl";

/// Put a process into the group of its container. Directories that are the container's alone are added to `made`.
pub fn apply(
    root: &Path,
    wanted: &OciIntelRdt,
    (id, pid): (&str, i32),
    made: &mut Vec<PathBuf>,
) -> Result<(), LifecycleError> {
    let invalid = |path, fault: &str| LifecycleError::Invalid { path, fault: fault.to_owned() };
    if !root.join("schemata").exists() {
        return Err(invalid("linux.intelRdt", &format!("needs resctrl mounted at `{}`", root.display())));
    }
    let name = wanted.clos_id.as_deref().unwrap_or(id);
    if matches!(name, "" | "." | ".." | "info" | "mon_groups" | "mon_data") || name.contains(['/', '\n']) {
        return Err(invalid("linux.intelRdt.closID", &format!("is `{name}`, which is no name of a group")));
    }
    let group = root.join(name);
    let lines: Vec<&str> = [&wanted.l3_cache_schema, &wanted.mem_bw_schema]
        .into_iter()
        .flatten()
        .chain(&wanted.schemata)
        .map(String::as_str)
        .collect();
    if wanted.clos_id.is_some() && lines.is_empty() && !group.exists() {
        return Err(invalid(
            "linux.intelRdt.closID",
            "names a group that does not exist, and nothing says what it is to be",
        ));
    }
    let make = |path: &Path| match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true).map_err(LifecycleError::system(format!("make `{}`", path.display()))),
    };
    // A group with a name of its own is shared: it is not ours to remove.
    if make(&group)? && wanted.clos_id.is_none() {
        made.push(group.clone());
    }
    let write = |path: PathBuf, text: &str| {
        let failed = LifecycleError::system(format!("write `{}` to `{}`", text.trim_end(), path.display()));
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
            .map_err(failed)
    };
    for line in lines {
        write(group.join("schemata"), &format!("{}\n", line.trim_end()))?;
    }
    write(group.join("tasks"), &pid.to_string())?;
    if wanted.enable_monitoring {
        let monitored = group.join("mon_groups").join(id);
        if make(&monitored)? {
            made.push(monitored.clone());
        }
        write(monitored.join("tasks"), &pid.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("schemata"), "").unwrap();
        let group = root.path().join("shared");
        fs::create_dir(&group).unwrap();
        for file in ["schemata", "tasks"] {
            fs::write(group.join(file), "").unwrap();
        }
        root
    }

    #[test]
    fn a_process_joins_the_group_that_is_named_and_the_group_stays() {
        let (root, mut made) = (fake(), Vec::new());
        let wanted =
            OciIntelRdt { clos_id: Some("shared".into()), schemata: vec!["MB:0=50".into()], ..Default::default() };
        apply(root.path(), &wanted, ("id", 77), &mut made).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("shared/schemata")).unwrap(), "MB:0=50\n");
        assert_eq!(fs::read_to_string(root.path().join("shared/tasks")).unwrap(), "77");
        assert!(made.is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let root = fake();
        let refused = |root: &Path, clos_id: &str, words: &str| {
            let wanted = OciIntelRdt { clos_id: Some(clos_id.into()), ..Default::default() };
            let error = apply(root, &wanted, ("id", 77), &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(root.path(), "absent", "does not exist");
        refused(root.path(), "../x", "no name of a group");
        refused(Path::new("/nonexistent"), "x", "needs resctrl");
    }
}
