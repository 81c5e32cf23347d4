//! `host:`: an image made of the host's own `/usr` under a generated skeleton, so that any Linux machine can run a
//! container with nothing downloaded.
//!
//! The skeleton holds what programs from `/usr` cannot do without, and only what every user of the host may read anyway:
//! system accounts without passwords, the linker's cache, public CA certificates, `/etc/alternatives`. Shadow files,
//! keys, home folders and every other file of the host's `/etc` are not in it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::blob::FileIdentity;
use super::publish::store_error;
use super::{ImageError, LayerDigest};

/// Largest file that is taken from the host; CA bundles have a quarter of this.
const MAX_FILE: u64 = 4 << 20;
/// Accounts below this are the system's (`login.defs`, `SYS_UID_MAX`), and this one is nobody.
const FIRST_USER: u32 = 1000;
const NOBODY: u32 = 65534;

/// Folders, as programs expect them; mount points among them.
const FOLDERS: [(&str, u32); 22] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/alternatives", 0o755),
    ("etc/ld.so.conf.d", 0o755),
    ("etc/ssl", 0o755),
    ("etc/ssl/certs", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// Files of the host that are taken as they are, where it has them.
const FILES: [&str; 12] = [
    "etc/debian_version",
    "etc/host.conf",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/localtime",
    "etc/mime.types",
    "etc/os-release",
    "etc/protocols",
    "etc/services",
    "etc/shells",
    "etc/ssl/openssl.cnf",
    "etc/timezone",
];

/// Where distributions other than Debian keep the CA certificates in one file.
const BUNDLES: [&str; 3] =
    ["etc/pki/tls/certs/ca-bundle.crt", "etc/pki/tls/cert.pem", "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"];

/// Links into `/usr` where it is merged; folders of their own where it is not.
const TOP_LEVEL: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
";

/// Where the host's own list cannot be read.
const MINIMAL_PASSWD: &str = "\
root:*:0:0::/root:/bin/sh
daemon:*:1:1::/usr/sbin:/usr/sbin/nologin
nobody:*:65534:65534::/nonexistent:/usr/sbin/nologin
";
const MINIMAL_GROUP: &str = "root:*:0:\ndaemon:*:1:\nnogroup:*:65534:\n";

enum Node {
    Folder { mode: u32 },
    File { content: Vec<u8> },
    Link { target: String },
}

/// The skeleton of `host:`, in memory.
pub(super) struct Skeleton {
    /// By path, so that every folder comes before what is in it.
    nodes: BTreeMap<String, Node>,
    binds: Vec<(PathBuf, String)>,
}

impl Skeleton {
    /// Reads the host whose root is `host`.
    pub(super) fn of_host(host: &Path) -> Result<Self, ImageError> {
        let mut skeleton = Self { nodes: BTreeMap::new(), binds: Vec::new() };
        for (path, mode) in FOLDERS {
            skeleton.nodes.insert(path.to_owned(), Node::Folder { mode });
        }
        for path in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
            skeleton.file(path, Vec::new());
        }
        skeleton.file("etc/nsswitch.conf", NSSWITCH.as_bytes().to_vec());
        skeleton.link("etc/mtab", "../proc/self/mounts");
        skeleton.link("var/run", "../run");
        skeleton.link("var/lock", "../run/lock");
        skeleton.accounts(host)?;
        for path in FILES {
            skeleton.take(host, path, |_| true)?;
        }
        for path in files_in(host, "etc/ld.so.conf.d") {
            skeleton.take(host, &path, |_| true)?;
        }
        for path in files_in(host, "etc/ssl/certs") {
            skeleton.take(host, &path, is_certificate)?;
        }
        for path in BUNDLES.into_iter().filter(|path| host.join(path).is_file()) {
            skeleton.folders_above(path);
            skeleton.take(host, path, is_certificate)?;
        }
        skeleton.alternatives(host);
        skeleton.top_level(host);
        Ok(skeleton)
    }

    /// The states of the files that [`of_host`](Self::of_host) reads. While they stay the same, so does its result.
    pub(super) fn sources(host: &Path) -> Vec<FileIdentity> {
        let folders = ["etc/alternatives", "etc/ld.so.conf.d", "etc/ssl/certs"];
        let whole = FILES.iter().chain(&BUNDLES).chain(&["etc/passwd", "etc/group"]).chain(&folders);
        let mut sources: Vec<FileIdentity> = whole.filter_map(|path| FileIdentity::of(&host.join(path))).collect();
        // Links cannot be changed without changing their folder.
        for path in ["etc/ld.so.conf.d", "etc/ssl/certs"].into_iter().flat_map(|folder| entries(host, folder)) {
            let is_link = path.1.is_symlink();
            sources.extend((!is_link).then(|| FileIdentity::of(&host.join(&path.0))).flatten());
        }
        for path in TOP_LEVEL.map(|path| host.join(path)) {
            sources.extend(fs::symlink_metadata(&path).ok().map(|found| FileIdentity::from_metadata(&path, &found)));
        }
        sources
    }

    /// Folders of the host to be mounted read-only, and where.
    pub(super) fn binds(&self) -> &[(PathBuf, String)] {
        &self.binds
    }

    /// Over names, modes and content.
    pub(super) fn digest(&self) -> LayerDigest {
        let mut description = Vec::new();
        for (path, node) in &self.nodes {
            let line = match node {
                Node::Folder { mode } => format!("folder {path:?} {mode:o}\n"),
                Node::File { content } => format!("file {path:?} {}\n", LayerDigest::of(content)),
                Node::Link { target } => format!("link {path:?} {target:?}\n"),
            };
            description.extend_from_slice(line.as_bytes());
        }
        LayerDigest::of(&description)
    }

    /// Writes all of it into `folder`, which is empty.
    pub(super) fn write(&self, folder: &Path) -> Result<(), ImageError> {
        for (path, node) in &self.nodes {
            let place = folder.join(path);
            let written = match node {
                Node::Folder { mode } => {
                    fs::create_dir(&place).and_then(|()| fs::set_permissions(&place, Permissions::from_mode(*mode)))
                }
                Node::File { content } => {
                    fs::write(&place, content).and_then(|()| fs::set_permissions(&place, Permissions::from_mode(0o644)))
                }
                Node::Link { target } => std::os::unix::fs::symlink(target, &place),
            };
            written.map_err(store_error(&place, "write"))?;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, content: Vec<u8>) {
        self.nodes.insert(path.to_owned(), Node::File { content });
    }

    fn link(&mut self, path: &str, target: &str) {
        self.nodes.insert(path.to_owned(), Node::Link { target: target.to_owned() });
    }

    fn folders_above(&mut self, path: &str) {
        for (slash, _) in path.match_indices('/') {
            self.nodes.entry(path[..slash].to_owned()).or_insert(Node::Folder { mode: 0o755 });
        }
    }

    /// Takes one file: a link into `/usr` or beside it as a link, anything else with its content, where everybody
    /// may read it and it is `wanted`.
    fn take(&mut self, host: &Path, path: &str, wanted: fn(&[u8]) -> bool) -> Result<(), ImageError> {
        let place = host.join(path);
        if let Some(target) = fs::read_link(&place).ok().and_then(|target| target.to_str().map(str::to_owned)) {
            let beside = !target.contains('/');
            if beside || leads_into_usr(path, &target) {
                self.link(path, &target);
                return Ok(());
            }
        }
        if let Some(content) = read_public(&place)?.filter(|content| wanted(content)) {
            self.file(path, content);
        }
        Ok(())
    }

    fn accounts(&mut self, host: &Path) -> Result<(), ImageError> {
        let text = |path: &str| -> Result<Option<String>, ImageError> {
            Ok(read_public(&host.join(path))?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        let passwd = text("etc/passwd")?.map(|text| system_users(&text)).filter(|text| !text.is_empty());
        let passwd = passwd.unwrap_or_else(|| MINIMAL_PASSWD.to_owned());
        let group = text("etc/group")?.map(|text| system_groups(&text, &passwd)).filter(|text| !text.is_empty());
        self.file("etc/group", group.unwrap_or_else(|| MINIMAL_GROUP.to_owned()).into_bytes());
        self.file("etc/passwd", passwd.into_bytes());
        Ok(())
    }

    fn alternatives(&mut self, host: &Path) {
        for (path, _) in entries(host, "etc/alternatives") {
            let target = fs::read_link(host.join(&path)).ok();
            let target = target.as_deref().and_then(Path::to_str).map(str::to_owned);
            if let Some(target) = target.filter(|target| leads_into_usr(&path, target)) {
                self.link(&path, &target);
            }
        }
    }

    fn top_level(&mut self, host: &Path) {
        self.binds.push((host.join("usr"), "/usr".to_owned()));
        for name in TOP_LEVEL {
            let place = host.join(name);
            match fs::read_link(&place).ok().and_then(|target| target.to_str().map(str::to_owned)) {
                Some(target) => self.link(name, &target),
                None if place.is_dir() => {
                    self.nodes.insert(name.to_owned(), Node::Folder { mode: 0o755 });
                    self.binds.push((place, format!("/{name}")));
                }
                None => {}
            }
        }
    }
}

/// Names and kinds in a folder of the host, as paths below its root; none where there is no such folder.
fn entries(host: &Path, folder: &str) -> Vec<(String, fs::FileType)> {
    let Ok(entries) = fs::read_dir(host.join(folder)) else { return Vec::new() };
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        Some((format!("{folder}/{}", entry.file_name().to_str()?), entry.file_type().ok()?))
    };
    let mut entries: Vec<_> = entries.filter_map(entry).collect();
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    entries
}

fn files_in(host: &Path, folder: &str) -> Vec<String> {
    entries(host, folder).into_iter().filter(|(_, kind)| !kind.is_dir()).map(|(path, _)| path).collect()
}

/// The content of a regular file that everybody may read; `None` for anything else.
fn read_public(path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    if !metadata.is_file() || metadata.permissions().mode() & 0o004 == 0 {
        return Ok(None);
    }
    if metadata.len() > MAX_FILE {
        return Err(ImageError::HostFileTooLarge { path: path.to_owned(), size: metadata.len(), limit: MAX_FILE });
    }
    fs::read(path).map(Some).map_err(|source| ImageError::Read { path: path.to_owned(), source })
}

/// Certificates and never a private key, wherever somebody may have put one.
fn is_certificate(content: &[u8]) -> bool {
    let contains = |text: &[u8]| content.windows(text.len()).any(|window| window == text);
    (contains(b"-----BEGIN CERTIFICATE-----") || contains(b"-----BEGIN TRUSTED CERTIFICATE-----"))
        && !contains(b"PRIVATE KEY-----")
}

/// Does a link at `path` with this text lead below `/usr` (or a top-level link to it) and nowhere else?
fn leads_into_usr(path: &str, target: &str) -> bool {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let whole = if target.starts_with('/') { target.to_owned() } else { format!("{folder}/{target}") };
    let mut components: Vec<&str> = Vec::new();
    for component in whole.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            other => components.push(other),
        }
    }
    components.first().is_some_and(|first| *first == "usr" || TOP_LEVEL.contains(first))
}

fn is_system(id: &str) -> Option<u32> {
    id.parse().ok().filter(|&id| id < FIRST_USER || id == NOBODY)
}

/// System accounts of a `passwd` file, without passwords and without what it says about people (passwd(5)).
fn system_users(passwd: &str) -> String {
    let user = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
        let (uid, gid) = (is_system(uid)?, is_system(gid)?);
        Some(format!("{name}:*:{uid}:{gid}::{home}:{shell}\n"))
    };
    passwd.lines().filter_map(user).collect()
}

/// System groups of a `group` file, with those members that `users` has (group(5)).
fn system_groups(group: &str, users: &str) -> String {
    let known: Vec<&str> = users.lines().filter_map(|line| line.split(':').next()).collect();
    let group_line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members] = fields[..] else { return None };
        let gid = is_system(gid)?;
        let members: Vec<&str> = members.split(',').filter(|member| known.contains(member)).collect();
        Some(format!("{name}:*:{gid}:{}\n", members.join(",")))
    };
    group.lines().filter_map(group_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_passwords_stay_out_of_the_accounts() {
        let passwd = "root:$6$hash:0:0:The Boss:/root:/bin/bash\n\
                      alice:x:1000:1000:Alice:/home/alice:/bin/zsh\n\
                      postgres:x:105:113:PostgreSQL:/var/lib/postgresql:/bin/bash\n\
                      broken:x:1\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
        let users = system_users(passwd);
        assert_eq!(
            users,
            "root:*:0:0::/root:/bin/bash\npostgres:*:105:113::/var/lib/postgresql:/bin/bash\n\
             nobody:*:65534:65534::/nonexistent:/usr/sbin/nologin\n"
        );
        let groups = "sudo:x:27:alice,postgres\nalice:x:1000:\npostgres:x:113:\n";
        assert_eq!(system_groups(groups, &users), "sudo:*:27:postgres\npostgres:*:113:\n");
    }

    #[test]
    fn only_certificates_are_taken_from_the_certificates() {
        assert!(is_certificate(b"# x\n-----BEGIN CERTIFICATE-----\nMII"));
        assert!(!is_certificate(b"-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----"));
        assert!(!is_certificate(b"-----BEGIN PRIVATE KEY-----"));
        assert!(!is_certificate(b""));
    }

    #[test]
    fn links_are_kept_where_they_lead_below_usr() {
        for (path, target, kept) in [
            ("etc/os-release", "../usr/lib/os-release", true),
            ("etc/alternatives/awk", "/usr/bin/mawk", true),
            ("etc/alternatives/pager", "/bin/less", true),
            ("etc/alternatives/x", "/usr/../etc/shadow", false),
            ("etc/alternatives/x", "../shadow", false),
            ("etc/alternatives/x", "/home/alice/x", false),
        ] {
            assert_eq!(leads_into_usr(path, target), kept, "{target}");
        }
    }
}
