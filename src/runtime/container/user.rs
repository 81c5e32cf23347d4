//! Users and groups of a container: names looked up in the files of its image, which belong to an attacker.
//!
//! [`resolve`] is pure. [`AccountFiles`] finds the two files, below a root or in the layers of one, and reads them with a bound.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, open};
use thiserror::Error;

use crate::runtime::sys::Errno;

use super::below::{Links, open_below};
use super::rootfs::file_type;

/// Of `/etc/passwd` and `/etc/group`; a larger one is an error.
pub const MAX_FILE: u64 = 4 << 20;
/// Ids above it mean "none" or "unchanged" to some system calls and programs.
pub const MAX_ID: u32 = i32::MAX as u32;
/// As many groups as the kernel takes would be 65536; nobody is in so many.
pub const MAX_GROUPS: usize = 1024;

#[derive(Debug, Error)]
pub enum UserError {
    #[error("there is no user `{name}` in the image's /etc/passwd")]
    NoUser { name: String },
    #[error("there is no group `{name}` in the image's /etc/group")]
    NoGroup { name: String },
    #[error("`{text}` is no user or group id: those go from 0 to {MAX_ID}")]
    OutOfRange { text: String },
    #[error("user `{name}` is in more than {MAX_GROUPS} groups")]
    TooManyGroups { name: String },
    #[error("cannot open the layer `{}`", path.display())]
    Layer { path: PathBuf, source: Errno },
    #[error("cannot read `/{path}` of the image")]
    Read { path: &'static str, source: std::io::Error },
    #[error("`/{path}` of the image is larger than {MAX_FILE} bytes")]
    TooLarge { path: &'static str },
}

/// A user as images and stack files name one: `user`, `user:group`, each a name or a number. Empty is root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserText {
    pub user: String,
    pub group: Option<String>,
}

impl UserText {
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((user, group)) if !group.is_empty() => Self { user: user.to_owned(), group: Some(group.to_owned()) },
            Some((user, _)) => Self { user: user.to_owned(), group: None },
            None => Self { user: text.to_owned(), group: None },
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// The other groups that the user is in; none where a group was named.
    pub additional_gids: Vec<u32>,
    /// `None`: the user has no entry.
    pub home: Option<String>,
}

/// The texts of `/etc/passwd` and `/etc/group`; empty where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountFiles {
    pub passwd: String,
    pub group: String,
}

/// Find a user's numbers: passwd(5), group(5).
///
/// A number needs no entry, and has group 0 without one. What is all digits and too large is an error: it must not become a name
/// that is not found, or root.
pub fn resolve(text: &UserText, files: &AccountFiles) -> Result<ResolvedUser, UserError> {
    let wanted = if text.user.is_empty() { "0" } else { &text.user };
    let number = id(wanted)?;
    let by_name = || passwd_entries(&files.passwd).find(|entry| entry.name == wanted);
    let by_number = || passwd_entries(&files.passwd).find(|entry| Some(entry.uid) == number);
    let entry = by_name().or_else(by_number);
    let mut resolved = match (&entry, number) {
        (Some(entry), _) => {
            ResolvedUser { uid: entry.uid, gid: entry.gid, home: Some(entry.home.to_owned()), ..Default::default() }
        }
        (None, Some(uid)) => ResolvedUser { uid, ..Default::default() },
        (None, None) => return Err(UserError::NoUser { name: wanted.to_owned() }),
    };
    match &text.group {
        Some(group) => resolved.gid = resolve_group(group, &files.group)?,
        None => {
            if let Some(entry) = entry {
                resolved.additional_gids = groups_of(entry.name, resolved.gid, &files.group)?;
            }
        }
    }
    Ok(resolved)
}

/// The number of one group.
pub fn resolve_group(wanted: &str, group: &str) -> Result<u32, UserError> {
    let number = id(wanted)?;
    let by_name = group_entries(group).find(|entry| entry.name == wanted).map(|entry| entry.gid);
    by_name.or(number).ok_or_else(|| UserError::NoGroup { name: wanted.to_owned() })
}

fn groups_of(name: &str, primary: u32, group: &str) -> Result<Vec<u32>, UserError> {
    let mut gids: Vec<u32> = group_entries(group)
        .filter(|entry| entry.gid != primary && entry.members.split(',').any(|member| member == name))
        .map(|entry| entry.gid)
        .collect();
    gids.sort_unstable();
    gids.dedup();
    if gids.len() > MAX_GROUPS {
        return Err(UserError::TooManyGroups { name: name.to_owned() });
    }
    Ok(gids)
}

/// `None`: not a number but a name.
fn id(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    entry_id(text).map(Some).ok_or_else(|| UserError::OutOfRange { text: text.to_owned() })
}

/// The whole string is a number in range.
fn entry_id(text: &str) -> Option<u32> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { text.parse().ok().filter(|id| *id <= MAX_ID) } else { None }
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Lines that are no entries are passed over, as the C library does.
fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = entry_id(fields.nth(1)?)?;
        let gid = entry_id(fields.next()?)?;
        Some(PasswdEntry { name, uid, gid, home: fields.nth(1).unwrap_or("/") })
    })
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = entry_id(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

impl AccountFiles {
    /// Those of a root directory.
    pub fn below(root: BorrowedFd<'_>) -> Result<Self, UserError> {
        let read = |path| match find_file(root, path) {
            Found::File(file) => read_bounded(file, path),
            Found::Hidden | Found::Absent => Ok(String::new()),
        };
        Ok(Self { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }

    /// Those that an overlay of these layers would show, the topmost layer first.
    pub fn of_layers(layers: &[PathBuf]) -> Result<Self, UserError> {
        let opened: Result<Vec<OwnedFd>, UserError> = layers.iter().map(|path| open_layer(path)).collect();
        let opened = opened?;
        let read = |path| {
            for layer in &opened {
                match find_file(layer.as_fd(), path) {
                    Found::File(file) => return read_bounded(file, path),
                    Found::Hidden => break,
                    Found::Absent => {}
                }
            }
            Ok(String::new())
        };
        Ok(Self { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }
}

fn open_layer(path: &Path) -> Result<OwnedFd, UserError> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| UserError::Layer { path: path.to_owned(), source })
}

enum Found {
    File(File),
    /// Deleted in this layer, or the directory is cut off from those below.
    Hidden,
    Absent,
}

fn find_file(root: BorrowedFd<'_>, path: &'static str) -> Found {
    let c_path = super::compile::literal(path);
    // Not blocking: it may be a fifo.
    match open_below(root, &c_path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Links::Follow) {
        Ok(file) => match rustix::fs::fstat(&file).map(|stat| file_type(&stat)) {
            Ok(FileType::RegularFile) => Found::File(file.into()),
            _ => Found::Hidden,
        },
        // A whiteout is a device that nothing drives: opening it fails in yet another way.
        Err(Errno::NXIO | Errno::NODEV | Errno::NOTDIR) => Found::Hidden,
        Err(_) if directory_is_opaque(root) => Found::Hidden,
        Err(_) => Found::Absent,
    }
}

fn directory_is_opaque(root: BorrowedFd<'_>) -> bool {
    let Ok(directory) = open_below(root, c"etc", OFlags::RDONLY | OFlags::DIRECTORY, Links::Refuse) else {
        return false;
    };
    let mut value = [0_u8; 1];
    rustix::fs::fgetxattr(&directory, c"trusted.overlay.opaque", &mut value[..]).is_ok_and(|length| length == 1)
        && value == *b"y"
}

fn read_bounded(file: File, path: &'static str) -> Result<String, UserError> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|source| UserError::Read { path, source })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(UserError::TooLarge { path });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/srv/web:/bin/false\n\
                          7:x:70:71::/seven:\nhuge:x:4294967296:0::/:\nminus:x:-1:0::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nmail:x:8:web,other\nlog:x:4:other,web\nnobig:x:99999999999:web\n";

    fn user(text: &str) -> Result<ResolvedUser, UserError> {
        resolve(&UserText::parse(text), &AccountFiles { passwd: PASSWD.to_owned(), group: GROUP.to_owned() })
    }

    #[test]
    fn a_name_brings_its_groups_and_home() {
        let expected = ResolvedUser { uid: 33, gid: 34, additional_gids: vec![4, 8], home: Some("/srv/web".into()) };
        assert_eq!(user("web").unwrap(), expected);
        assert_eq!(user("33").unwrap(), expected);
    }

    #[test]
    fn a_number_needs_no_entry() {
        assert_eq!(user("1234").unwrap(), ResolvedUser { uid: 1234, ..Default::default() });
        assert_eq!(user("1234:5").unwrap().gid, 5);
    }

    #[test]
    fn a_named_group_stands_alone() {
        let resolved = user("web:mail").unwrap();
        assert_eq!((resolved.gid, resolved.additional_gids), (8, vec![]));
    }

    #[test]
    fn nothing_is_root() {
        assert_eq!(user("").unwrap().uid, 0);
        assert_eq!(user(":8").unwrap().gid, 8);
        assert_eq!(user("web:").unwrap().gid, 34);
    }

    #[test]
    fn a_user_whose_name_is_a_number_is_that_user() {
        assert_eq!(user("7").unwrap().uid, 70);
    }

    #[test]
    fn numbers_out_of_range_never_become_root() {
        for text in
            ["2147483648", "4294967295", "4294967296", "99999999999999999999", "-1", "+0", "1:-1", "1:4294967296"]
        {
            assert!(matches!(user(text), Err(UserError::OutOfRange { .. })), "{text}");
        }
        for text in ["huge", "minus", "0x0", "1e3", " 0"] {
            assert!(matches!(user(text), Err(UserError::NoUser { .. })), "{text}");
        }
        assert!(matches!(user("root:none"), Err(UserError::NoGroup { .. })));
    }

    fn layer(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join("etc").join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn the_topmost_layer_that_has_a_file_counts() {
        let top = layer(&[("group", "top")]);
        let bottom = layer(&[("passwd", "below"), ("group", "below")]);
        let files = AccountFiles::of_layers(&[top.path().into(), bottom.path().into()]).unwrap();
        assert_eq!((files.passwd.as_str(), files.group.as_str()), ("below", "top"));
    }

    #[test]
    fn a_link_to_the_hosts_file_reads_nothing() {
        let directory = layer(&[]);
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("etc/passwd")).unwrap();
        let files = AccountFiles::of_layers(&[directory.path().into()]).unwrap();
        assert_eq!(files.passwd, "");
    }

    #[test]
    fn a_huge_file_is_refused_and_a_fifo_does_not_block() {
        let directory = layer(&[]);
        let passwd = File::create(directory.path().join("etc/passwd")).unwrap();
        passwd.set_len(1 << 40).unwrap();
        let layers = [directory.path().to_owned()];
        assert!(matches!(AccountFiles::of_layers(&layers), Err(UserError::TooLarge { .. })));
        std::fs::remove_file(directory.path().join("etc/passwd")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            directory.path().join("etc/passwd"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(AccountFiles::of_layers(&layers).unwrap().passwd, "");
    }
}
