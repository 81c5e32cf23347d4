//! Mount options of a `config.json`, sorted into what the mount gets, what all mounts below it get, and what the filesystem
//! is told (runtime-spec config.md, "Linux mount options"). Pure.

use crate::runtime::sys::MountAttributes;

/// Options of one mount, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    pub bind: Option<BindDepth>,
    /// For the mount itself.
    pub attributes: MountAttributes,
    /// For it and for every mount below it.
    pub recursive: MountAttributes,
    /// `MS_*` and `AT_RECURSIVE` or 0, in order.
    pub propagation: Vec<(u64, i32)>,
    /// With its own view of users and groups: the one mount, or all below it too.
    pub id_mapped: Option<BindDepth>,
    /// What is mounted at the place is changed.
    pub remount: bool,
    /// A new tmpfs begins with what it covers.
    pub copy_up: bool,
    /// For the filesystem, in order: `key` alone or `key=value`.
    pub filesystem: Vec<FilesystemOption>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindDepth {
    /// The one mount.
    Single,
    /// With all that is mounted below it.
    Recursive,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemOption {
    pub key: String,
    pub value: Option<String>,
}

/// An option of the specification whose effect is not there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedOption(pub String);

const READ_ONLY: u64 = MountAttributes::READ_ONLY;
const NO_SUID: u64 = MountAttributes::NO_SUID;
const NO_DEV: u64 = MountAttributes::NO_DEV;
const NO_EXEC: u64 = MountAttributes::NO_EXEC;
const NO_SYMFOLLOW: u64 = MountAttributes::NO_SYMFOLLOW;
const NO_ATIME: u64 = MountAttributes::NO_ATIME;
const STRICT_ATIME: u64 = MountAttributes::STRICT_ATIME;
const NO_DIR_ATIME: u64 = MountAttributes::NO_DIR_ATIME;
const ATIME: u64 = MountAttributes::ATIME;

/// Name, bits to set, bits to clear. Each has a recursive sister with an `r` before it.
const ATTRIBUTES: [(&str, u64, u64); 17] = [
    ("ro", READ_ONLY, 0),
    ("rw", 0, READ_ONLY),
    ("nosuid", NO_SUID, 0),
    ("suid", 0, NO_SUID),
    ("nodev", NO_DEV, 0),
    ("dev", 0, NO_DEV),
    ("noexec", NO_EXEC, 0),
    ("exec", 0, NO_EXEC),
    ("nosymfollow", NO_SYMFOLLOW, 0),
    ("symfollow", 0, NO_SYMFOLLOW),
    ("nodiratime", NO_DIR_ATIME, 0),
    ("diratime", 0, NO_DIR_ATIME),
    ("noatime", NO_ATIME, ATIME),
    ("atime", 0, ATIME),
    ("relatime", 0, ATIME),
    ("strictatime", STRICT_ATIME, ATIME),
    ("nostrictatime", 0, ATIME),
];

/// What is so in any case, or changes nothing.
const WITHOUT_EFFECT: [&str; 13] = [
    "defaults",
    "async",
    "loud",
    "silent",
    // Mandatory locking left the kernel with Linux 5.15, and what can keep versions of inodes does so by itself.
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "norelatime",
    "nolazytime",
    "rbind",
    "bind",
    "rnorelatime",
];

/// What a filesystem takes and a mount of one has no part in.
pub const OF_FILESYSTEMS: [&str; 3] = ["dirsync", "lazytime", "sync"];

/// Of other runtimes, and refused.
const UNSUPPORTED: [&str; 3] = ["copy-symlink", "src-nofollow", "dest-nofollow"];

const OF_THEIR_OWN: [&str; 4] = ["idmap", "ridmap", "remount", "tmpcopyup"];

/// Name and flag; each has a recursive sister with an `r` before it.
const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

fn propagation(option: &str) -> Option<(u64, i32)> {
    let flag = |name: &str| PROPAGATION.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag);
    let recursive = || option.strip_prefix('r').and_then(flag).map(|flag| (flag, libc::AT_RECURSIVE));
    flag(option).map(|flag| (flag, 0)).or_else(recursive)
}

/// Sort the options of one mount. Later ones win over earlier ones, as in mount(8).
pub fn sort_options(options: &[String]) -> Result<MountOptions, UnsupportedOption> {
    let mut sorted = MountOptions::default();
    for option in options {
        let name = option.split('=').next().unwrap_or_default();
        if UNSUPPORTED.contains(&name) {
            return Err(UnsupportedOption(option.clone()));
        }
        match option.as_str() {
            "bind" if sorted.bind.is_none() => sorted.bind = Some(BindDepth::Single),
            "rbind" => sorted.bind = Some(BindDepth::Recursive),
            _ => {}
        }
        match option.as_str() {
            "idmap" => sorted.id_mapped = Some(BindDepth::Single),
            "ridmap" => sorted.id_mapped = Some(BindDepth::Recursive),
            "remount" => sorted.remount = true,
            "tmpcopyup" => sorted.copy_up = true,
            _ => {}
        }
        if WITHOUT_EFFECT.contains(&option.as_str()) || OF_THEIR_OWN.contains(&option.as_str()) {
            continue;
        }
        if let Some(change) = propagation(option) {
            sorted.propagation.push(change);
        } else if let Some((set, clear)) = attribute(option) {
            merge(&mut sorted.attributes, set, clear);
        } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
            merge(&mut sorted.recursive, set, clear);
        } else {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (option.clone(), None),
            };
            sorted.filesystem.push(FilesystemOption { key, value });
        }
    }
    Ok(sorted)
}

fn attribute(name: &str) -> Option<(u64, u64)> {
    ATTRIBUTES.iter().find(|(known, _, _)| *known == name).map(|(_, set, clear)| (*set, *clear))
}

fn merge(into: &mut MountAttributes, set: u64, clear: u64) {
    into.set = into.set & !clear | set;
    into.clear = into.clear & !set | clear;
    // The kernel wants all bits of the access time cleared whenever one of them is set.
    if into.set & ATIME != 0 {
        into.clear |= ATIME;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(options: &str) -> MountOptions {
        let list: Vec<String> = options.split(',').map(str::to_owned).collect();
        sort_options(&list).unwrap()
    }

    #[test]
    fn attributes_and_data_are_told_apart() {
        let options = sorted("nosuid,mode=755,ro,newinstance");
        assert_eq!(options.attributes.set, NO_SUID | READ_ONLY);
        let expected = [("mode", Some("755")), ("newinstance", None)]
            .map(|(key, value)| FilesystemOption { key: key.to_owned(), value: value.map(str::to_owned) });
        assert_eq!(options.filesystem, expected);
    }

    #[test]
    fn the_later_option_wins() {
        assert_eq!(sorted("ro,rw").attributes.set, 0);
        assert_eq!(sorted("ro,rw").attributes.clear, READ_ONLY);
        assert_eq!(sorted("rw,ro").attributes.clear, 0);
    }

    #[test]
    fn recursive_options_go_below() {
        let options = sorted("rbind,rro");
        assert_eq!(options.bind, Some(BindDepth::Recursive));
        assert_eq!(options.recursive.set, READ_ONLY);
        assert_eq!(options.attributes.set, 0);
    }

    #[test]
    fn relatime_is_an_attribute_and_not_the_recursive_form_of_something() {
        assert_eq!(sorted("relatime").recursive, MountAttributes::default());
    }

    #[test]
    fn options_of_other_runtimes_are_refused() {
        for option in ["copy-symlink", "src-nofollow"] {
            assert!(sort_options(&[option.to_owned()]).is_err(), "{option}");
        }
    }
}
