//! `volume`, `mount` and `secret`: what a container sees of the host's files, and where.

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::keys::{MOUNT, SECRET};
use crate::file::literal::Text;
use crate::file::source::{At, Span};
use crate::file::surroundings::FileKind;
use crate::file::table::limits::size;
use crate::file::table::{reaction, user};
use crate::file::walk::{Item, Reader, Section};
use crate::model::{ByteSize, ConfigFile, MountSource, MountUse, Name, Secret, UserSpec, VolumeUse};

/// What a container's storage comes to, with the places of its references and targets.
pub(super) struct Storage {
    pub volumes: Vec<VolumeUse>,
    pub mounts: Vec<MountUse>,
    pub files: Vec<ConfigFile>,
    pub secrets: Vec<Secret>,
    /// Names of volumes as they are written.
    pub volume_names: Vec<At<String>>,
}

const VOLUME_FORM: &str = "write \"NAME:/path\" or \"NAME:/path:ro\"";
const TMPFS_MODE: u32 = 0o1777;
const SECRET_MODE: u32 = 0o400;
const SECRETS_FOLDER: &str = "/run/secrets";
/// Below these the runtime mounts what the kernel and the container need.
const KERNEL_FOLDERS: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Written by `stack` for each container.
const OWN_FILES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
const MIN_TMPFS: ByteSize = ByteSize(4096);

pub(super) fn read(reader: &mut Reader, section: &Section, user: Option<&UserSpec>) -> Storage {
    let mut targets = Targets { taken: Vec::new() };
    let mut volume_names = Vec::new();
    let mut volumes = Vec::new();
    for text in reader.texts(section.get("volume")).unwrap_or_default() {
        if let Some((name, used)) = volume(reader, &text, &mut targets) {
            volume_names.push(name);
            volumes.extend(used);
        }
    }
    let mut mounts = Vec::new();
    let mut files = Vec::new();
    for table in reader.tables(&MOUNT, section.get("mount")) {
        match table.has("on_change") {
            true => files.extend(config_file(reader, &table, &mut targets)),
            false => mounts.extend(mount(reader, &table, &mut targets)),
        }
    }
    let mut secrets = Vec::new();
    for table in reader.tables(&SECRET, section.get("secret")) {
        secrets.extend(secret(reader, &table, &mut targets, user));
    }
    Storage { volumes, mounts, files, secrets, volume_names }
}

/// The paths of one container that something is put at.
struct Targets {
    taken: Vec<At<String>>,
}

impl Targets {
    /// Checks a path and takes it.
    fn take(&mut self, reader: &mut Reader, path: &str, span: &Span) -> Option<String> {
        if let Err(draft) = check_target(path, span) {
            reader.push(*draft);
            return None;
        }
        if let Some(first) = self.taken.iter().find(|taken| taken.value == path) {
            let draft = Draft::error(code::TARGET_CLASH, span, format!("two things would be at `{path}`"));
            reader.push(draft.other(&first.span, "the first"));
            return None;
        }
        self.taken.push(At::new(path.to_owned(), span.clone()));
        Some(path.to_owned())
    }
}

pub(super) fn check_target(path: &str, span: &Span) -> Result<(), Box<Draft>> {
    let bad = |message: String| Box::new(Draft::error(code::BAD_TARGET, span, message));
    let Some(rest) = path.strip_prefix('/') else {
        let draft = bad(format!("a path in the container must be absolute, not `{path}`"));
        let proposal = path.trim_start_matches("./");
        let sensible = !proposal.is_empty() && !proposal.starts_with(['.', '~']) && !proposal.contains("..");
        return Err(Box::new(draft.maybe_help(sensible.then(|| format!("write \"/{proposal}\"")))));
    };
    let clean: Vec<&str> = rest.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if clean.is_empty() {
        return Err(bad("nothing can be put over the container's root".into()));
    }
    if clean.contains(&"..") {
        return Err(bad(format!("`{path}` holds `..`")));
    }
    let clean = format!("/{}", clean.join("/"));
    let below = |folder: &str| clean.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(folder) = KERNEL_FOLDERS.into_iter().find(|folder| below(folder)) {
        return Err(bad(format!("`{path}` cannot be a target: `{folder}` is the kernel's own")));
    }
    if OWN_FILES.contains(&clean.as_str()) {
        return Err(bad(format!("`{path}` cannot be a target: `stack` writes this file itself")));
    }
    if clean != path {
        let draft = bad(format!("`{path}` is not in its shortest form"));
        return Err(Box::new(draft.help(format!("write \"{clean}\""))));
    }
    Ok(())
}

/// `NAME:/path[:ro]`; the name counts as a reference even where the rest is faulty.
fn volume(reader: &mut Reader, text: &Text, targets: &mut Targets) -> Option<(At<String>, Option<VolumeUse>)> {
    let parts: Vec<&str> = text.value.split(':').collect();
    let (name, target, option) = match parts[..] {
        [name, target] => (name, target, None),
        [name, target, option] => (name, target, Some(option)),
        _ => {
            let draft = Draft::error(code::BAD_TEXT, &text.span, format!("`{}` is no use of a volume", text.value));
            reader.push(draft.help(VOLUME_FORM));
            return None;
        }
    };
    if name.contains(['/', '~', '.']) {
        let draft =
            Draft::error(code::BAD_TEXT, &text.piece(name), format!("`{name}` is a path, not the name of a volume"));
        let ro = if option == Some("ro") { ", ro = true" } else { "" };
        let source = name.replacen('~', "${HOME}", 1);
        reader.push(draft.help(format!("write `mount = [{{ bind = \"{source}\", target = \"{target}\"{ro} }}]`")));
        return None;
    }
    let read_only = match option {
        None | Some("rw") => Some(false),
        Some("ro") => Some(true),
        Some(option) => {
            let draft =
                Draft::error(code::BAD_TEXT, &text.piece(option), format!("`{option}` is no option of a volume"));
            reader.push(draft.help("allowed: \"ro\" or \"rw\""));
            None
        }
    };
    let reference = At::new(name.to_owned(), text.piece(name));
    let target = targets.take(reader, target, &text.piece(target));
    let volume = Name::new(name).ok();
    let used = target.zip(read_only).zip(volume);
    Some((reference, used.map(|((target, read_only), volume)| VolumeUse { volume, target, read_only })))
}

fn mount(reader: &mut Reader, section: &Section, targets: &mut Targets) -> Option<MountUse> {
    let read_only = reader.boolean(section.get("ro"));
    let source = mount_source(reader, section);
    let target = target(reader, section, targets);
    Some(MountUse { source: source?, target: target?, read_only: read_only.unwrap_or(false) })
}

/// A bind of a single file that is followed. The container gets a copy of it, which it cannot write to.
fn config_file(reader: &mut Reader, section: &Section, targets: &mut Targets) -> Option<ConfigFile> {
    let on_change = reaction::on_change(reader, section.get("on_change"));
    let target = target(reader, section, targets);
    if let Some(ro) = section.get("ro")
        && reader.boolean(Some(ro.clone())) == Some(false)
    {
        let message = "a file with `on_change` is read-only in the container";
        let draft = Draft::error(code::KEY_CHOICE, &ro.span(), message);
        reader.push(draft.help("leave `ro` out; or leave `on_change` out and bind the folder"));
    }
    let Some(bind) = section.get("bind").filter(|_| !section.has("tmpfs")) else {
        let on_change = section.get("on_change")?;
        let message = "`on_change` is about a file of the host, named by `bind`";
        let draft = Draft::error(code::KEY_CHOICE, &on_change.key_span, message);
        reader.push(
            draft.help("for example `{ bind = \"app.conf\", target = \"/etc/app.conf\", on_change = \"restart\" }`"),
        );
        return None;
    };
    let text = reader.text(Some(bind))?;
    let file = reader.host_file(&text.value, &text.span, &[FileKind::File, FileKind::Folder])?;
    if reader.surroundings.files.kind(&file).is_ok_and(|kind| kind == FileKind::Folder) {
        let message = format!("`{}` is a folder, and `on_change` is about a single file", text.value);
        let draft = Draft::error(code::KEY_CHOICE, &text.span, message);
        reader.push(
            draft.help("the container sees changes in a folder at once; `[[container.NAME.watch]]` tells it of them"),
        );
        return None;
    }
    Some(ConfigFile { file, target: target?, on_change: on_change? })
}

fn target(reader: &mut Reader, section: &Section, targets: &mut Targets) -> Option<String> {
    let item = reader.required(section, "target");
    let text = reader.text(item)?;
    targets.take(reader, &text.value, &text.span)
}

fn mount_source(reader: &mut Reader, section: &Section) -> Option<MountSource> {
    let mode = section.get("mode");
    match (section.get("bind"), section.get("tmpfs")) {
        (Some(bind), Some(tmpfs)) => {
            let message = "a mount is either `bind` or `tmpfs`";
            let draft = Draft::error(code::KEY_CHOICE, &tmpfs.key_span, message).other(&bind.key_span, "the other");
            reader.push(draft.help("write a table for each"));
            None
        }
        (None, None) if section.meant("bind") || section.meant("tmpfs") => None,
        (None, None) => {
            let draft = Draft::error(code::KEY_CHOICE, &section.span, "a mount needs `bind` or `tmpfs`");
            reader.push(draft.help("add `bind = \"./src\"` for files of the host, or `tmpfs = \"64MiB\"` for memory"));
            None
        }
        (None, Some(tmpfs)) => {
            let mode = mode.map(|mode| permissions(reader, mode));
            let size = size(reader, Some(tmpfs), MIN_TMPFS)?.value;
            Some(MountSource::Tmpfs { size, mode: mode.unwrap_or(Some(TMPFS_MODE))? })
        }
        (Some(bind), None) => {
            if let Some(mode) = mode {
                let message = "`mode` goes with `tmpfs`, not with `bind`";
                let draft = Draft::error(code::KEY_CHOICE, &mode.key_span, message);
                reader.push(draft.help("files keep the permissions they have on the host"));
            }
            bind_source(reader, bind)
        }
    }
}

fn bind_source(reader: &mut Reader, item: Item) -> Option<MountSource> {
    let text = reader.text(Some(item))?;
    let wanted = [FileKind::Folder, FileKind::File, FileKind::Special];
    let path = reader.host_file(&text.value, &text.span, &wanted)?;
    if reader.surroundings.files.kind(&path).is_ok_and(|kind| kind == FileKind::File) {
        let message = format!("`{}` is a single file: the container keeps seeing the one of its start", text.value);
        let draft = Draft::warning(code::SINGLE_FILE_BIND, &text.span, message);
        reader.push(draft.help("most editors save a new file in its place; add `on_change`, or bind the folder"));
    }
    Some(MountSource::Bind(path))
}

/// Octal permission bits in a string, because TOML's `0400` is no number and 400 would be another one.
fn permissions(reader: &mut Reader, item: Item) -> Option<u32> {
    let name = item.key.name;
    let text = reader.text(Some(item))?;
    let digits = text.value.bytes().all(|byte| matches!(byte, b'0'..=b'7')) && (3..=4).contains(&text.value.len());
    match u32::from_str_radix(&text.value, 8) {
        Ok(bits) if digits => Some(bits),
        _ => {
            let message = format!("`{}` are no permission bits", text.value);
            let draft = Draft::error(code::BAD_TEXT, &text.span, message);
            reader.push(draft.help(format!("write three or four octal digits, such as `{name} = \"0400\"`")));
            None
        }
    }
}

fn secret(reader: &mut Reader, section: &Section, targets: &mut Targets, user: Option<&UserSpec>) -> Option<Secret> {
    let file = reader.required(section, "file");
    let text = reader.text(file);
    let target = match section.has("target") {
        true => target(reader, section, targets),
        false => text.as_ref().and_then(|text| {
            let name = text.value.rsplit('/').next().unwrap_or_default();
            targets.take(reader, &format!("{SECRETS_FOLDER}/{name}"), &text.span)
        }),
    };
    let mode = section.get("mode").map(|mode| permissions(reader, mode));
    let on_change = section.get("on_change").map(|item| reaction::on_change(reader, Some(item)));
    let owner = reader.text(section.get("owner")).map(|owner| user::owner(reader, &owner));
    let (text, target) = (text?, target?);
    let file = reader.host_file(&text.value, &text.span, &[FileKind::File])?;
    let mode = mode.unwrap_or(Some(SECRET_MODE))?;
    let (uid, gid) = match owner {
        Some(owner) => owner?,
        None => default_owner(reader, section, user, mode),
    };
    let on_change = match on_change {
        Some(on_change) => Some(on_change?),
        None => None,
    };
    Some(Secret { file, target, uid, gid, mode, on_change })
}

/// The container's user where it is written in numbers, else root.
fn default_owner(reader: &mut Reader, section: &Section, user: Option<&UserSpec>, mode: u32) -> (u32, u32) {
    let Some(user) = user else { return (0, 0) };
    if let Some(owner) = user::numeric(user) {
        return owner;
    }
    let uid = user.user.parse().ok();
    // With a number and no group the group is the image's to say; the user alone is enough for a file of mode 0400.
    if let Some(uid) = uid {
        return (uid, 0);
    }
    if user.user != "root" && mode & 0o004 == 0 {
        let message = format!("the secret will belong to root, and `{}` cannot read it", user.user);
        let draft = Draft::warning(code::UNREADABLE_SECRET, &section.span, message);
        reader.push(draft.help("add the user's numbers in the image, such as `owner = \"999:999\"`"));
    }
    (0, 0)
}
