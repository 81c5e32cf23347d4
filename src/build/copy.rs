//! Writes files into a mounted tree: every path is resolved in it, and no link leads out of it.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr,
    mkdirat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::ignore::Ignore;
use super::step::{Overlay, chain};
use super::tree::{Entry, Kind, Owners, Picked, Root, join, open_folder, start_of};
use crate::runtime::container::below::{Links, NodeKind, open_below, open_or_make};
use crate::runtime::image::tar::TarReader;
use crate::runtime::image::{Compression, HashingReader, Inflater, LayerDigest, UnpackLimits, unpack_layer};

/// Files that are to be copied.
#[derive(Serialize, Deserialize)]
pub(super) struct CopyOrder {
    pub from: CopyRoot,
    pub sources: Vec<String>,
    pub inline: Vec<(String, String)>,
    pub to: String,
    pub owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    pub unpack: bool,
    /// An empty folder, for archives.
    pub scratch: PathBuf,
}

#[derive(Serialize, Deserialize)]
pub(super) enum CopyRoot {
    /// What is taken must have this digest: it was told when the step's key was.
    Context {
        folder: PathBuf,
        ignored: Vec<String>,
        digest: LayerDigest,
    },
    Layers {
        called: String,
        overlay: Overlay,
    },
}

/// Largest extended attribute that is copied, and of all their names.
const MAX_XATTR: usize = 64 << 10;

struct Target<'a> {
    root: BorrowedFd<'a>,
    owner: Option<(u32, u32)>,
    mode: Option<u32>,
}

pub(super) fn copy(merged: &Path, order: &CopyOrder) -> Result<(), String> {
    let tree = open_folder(merged).map_err(|error| chain(&error))?;
    let target = Target { root: tree.as_fd(), owner: order.owner, mode: order.mode };
    let (folder, called, ignored, owners) = match &order.from {
        CopyRoot::Context { folder, ignored, .. } => {
            (folder, format!("the context `{}`", folder.display()), ignored.as_slice(), Owners::Root)
        }
        CopyRoot::Layers { called, overlay } => {
            overlay.mount()?;
            (&overlay.merged, called.clone(), &[][..], Owners::Kept)
        }
    };
    let folder = open_folder(folder).map_err(|error| chain(&error))?;
    let root = Root { folder: folder.as_fd(), called, ignore: Ignore::new(ignored) };
    let mut picked = Vec::new();
    for source in &order.sources {
        picked.extend(root.pick(source).map_err(|error| chain(&error))?);
    }
    let several = picked.len() + order.inline.len() > 1;
    let into_folder = order.to.ends_with('/') || several || target.is_folder(&order.to);
    for (index, one) in picked.iter().enumerate() {
        if order.unpack && !one.is_folder && one.entries[0].kind == Kind::File {
            let file = root.open_file(one, &one.entries[0]).map_err(|error| chain(&error))?;
            let scratch = order.scratch.join(index.to_string());
            if unpack(file, &one.path, &scratch)? {
                let folder = open_folder(&scratch).map_err(|error| chain(&error))?;
                let called = format!("the archive `{}`", one.path);
                let root = Root { folder: folder.as_fd(), called, ignore: Ignore::default() };
                for one in root.pick("").map_err(|error| chain(&error))? {
                    target.put(&root, &one, &order.to, Owners::Kept)?;
                }
                continue;
            }
        }
        let place = match into_folder && !one.is_folder {
            true => join(order.to.trim_end_matches('/'), &one.name),
            false => order.to.clone(),
        };
        target.put(&root, one, &place, owners)?;
    }
    for (name, content) in &order.inline {
        let place = if into_folder { join(order.to.trim_end_matches('/'), name) } else { order.to.clone() };
        target.file(&place, &mut content.as_bytes(), (0o644, 0, 0))?;
    }
    match &order.from {
        CopyRoot::Context { digest, .. } if !order.sources.is_empty() => {
            let found = root.digest(&picked, Owners::Root).map_err(|error| chain(&error))?;
            match found == *digest {
                true => Ok(()),
                false => Err("files of the context changed while they were copied; build again".into()),
            }
        }
        _ => Ok(()),
    }
}

pub(super) fn make_folder(merged: &Path, path: &str) -> Result<(), String> {
    let tree = open_folder(merged).map_err(|error| chain(&error))?;
    match below(path) {
        place if place.is_empty() => Ok(()),
        place => open_or_make(tree.as_fd(), &text(&place)?, NodeKind::Directory, Links::Follow)
            .map(drop)
            .map_err(said("make folder", path)),
    }
}

/// Unpacks an archive into a new folder. `false`: it is none.
fn unpack(mut file: File, path: &str, scratch: &Path) -> Result<bool, String> {
    let failed = |error: std::io::Error| format!("cannot read `{path}`: {error}");
    let start = start_of(&file).map_err(failed)?;
    if let Compression::Other(name) = Compression::of(&start) {
        return Err(format!(
            "cannot unpack `{path}`: {name} is not supported; pack it with gzip or zstd, or copy it with `COPY`"
        ));
    }
    let mut archive = || -> Result<_, String> {
        file.rewind().map_err(failed)?;
        let copy = file.try_clone().map_err(failed)?;
        let inflater = Inflater::new(BufReader::new(copy)).map_err(failed)?;
        Ok(TarReader::new(HashingReader::new(inflater)))
    };
    if !matches!(archive()?.next_member(), Ok(Some(_))) {
        return Ok(false);
    }
    std::fs::create_dir_all(scratch).map_err(failed)?;
    let folder = open_folder(scratch).map_err(|error| chain(&error))?;
    unpack_layer(&mut archive()?, folder, UnpackLimits::default())
        .map_err(|error| format!("cannot unpack `{path}`: {}", chain(&error)))?;
    Ok(true)
}

fn below(path: &str) -> String {
    path.trim_matches('/').to_owned()
}

fn text(path: &str) -> Result<CString, String> {
    CString::new(path).map_err(|_| format!("`{path}` holds U+0000"))
}

fn said(doing: &'static str, path: &str) -> impl Fn(Errno) -> String {
    move |errno| format!("cannot {doing} `{path}` in the image: {}", std::io::Error::from(errno))
}

impl Target<'_> {
    fn is_folder(&self, path: &str) -> bool {
        let place = below(path);
        place.is_empty()
            || text(&place)
                .is_ok_and(|path| open_below(self.root, &path, OFlags::PATH | OFlags::DIRECTORY, Links::Follow).is_ok())
    }

    /// The folder that holds `path`, made where it is missing, and the last name.
    fn parent(&self, path: &str) -> Result<(OwnedFd, String), String> {
        let place = below(path);
        let (parent, name) = place.rsplit_once('/').unwrap_or(("", &place));
        let failed = said("make the folder of", path);
        self.make_on_the_way(parent)?;
        let folder = match parent {
            "" => self.root.try_clone_to_owned().map_err(|error| format!("cannot open the image: {error}"))?,
            parent => open_or_make(self.root, &text(parent)?, NodeKind::Directory, Links::Follow).map_err(failed)?,
        };
        Ok((folder, name.to_owned()))
    }

    /// Folders that are missing on the way belong to whom the copy belongs. Links that lead to nothing are left to
    /// [`open_or_make`].
    fn make_on_the_way(&self, place: &str) -> Result<(), String> {
        if self.is_folder(place) {
            return Ok(());
        }
        let (parent, name) = place.rsplit_once('/').unwrap_or(("", place));
        self.make_on_the_way(parent)?;
        let failed = said("make folder", place);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let above = match parent {
            "" => self.root.try_clone_to_owned().map_err(|error| format!("cannot open the image: {error}"))?,
            parent => match open_below(self.root, &text(parent)?, flags, Links::Follow) {
                Ok(folder) => folder,
                Err(_) => return Ok(()),
            },
        };
        match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => return Ok(()),
            made => made.map_err(&failed)?,
        }
        let (uid, gid) = self.owner((0, 0));
        chownat(&above, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)
    }

    /// One source with all that is below it.
    fn put(&self, root: &Root, picked: &Picked, to: &str, owners: Owners) -> Result<(), String> {
        for entry in &picked.entries {
            let place = join(to.trim_end_matches('/'), &entry.path);
            let (uid, gid) = match owners {
                Owners::Kept => (entry.uid, entry.gid),
                Owners::Root => (0, 0),
            };
            match &entry.kind {
                Kind::Folder => self.folder(&place, (entry.mode, uid, gid))?,
                Kind::Link(target) => self.link(&place, target, (uid, gid))?,
                Kind::File => {
                    let mut file = root.open_file(picked, entry).map_err(|error| chain(&error))?;
                    let made = self.file(&place, &mut file, (entry.mode, uid, gid))?;
                    if owners == Owners::Kept {
                        copy_attributes(&file, &made, entry)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn owner(&self, (uid, gid): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = self.owner.unwrap_or((uid, gid));
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    fn mode(&self, mode: u32) -> Mode {
        Mode::from_raw_mode(self.mode.unwrap_or(mode))
    }

    /// One that is there stays as it is.
    fn folder(&self, path: &str, (mode, uid, gid): (u32, u32, u32)) -> Result<(), String> {
        if self.is_folder(path) {
            return Ok(());
        }
        let failed = said("make folder", path);
        let (parent, name) = self.parent(path)?;
        mkdirat(&parent, &*name, Mode::from_raw_mode(0o700)).map_err(&failed)?;
        let (uid, gid) = self.owner((uid, gid));
        chownat(&parent, &*name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)?;
        chmodat(&parent, &*name, self.mode(mode), AtFlags::empty()).map_err(&failed)
    }

    fn link(&self, path: &str, target: &[u8], (uid, gid): (u32, u32)) -> Result<(), String> {
        let failed = said("make link", path);
        let (parent, name) = self.parent(path)?;
        self.clear(&parent, &name).map_err(&failed)?;
        symlinkat(target, &parent, &*name).map_err(&failed)?;
        let (uid, gid) = self.owner((uid, gid));
        chownat(&parent, &*name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(&failed)
    }

    fn file(&self, path: &str, content: &mut dyn Read, (mode, uid, gid): (u32, u32, u32)) -> Result<File, String> {
        let failed = said("write", path);
        let (parent, name) = self.parent(path)?;
        self.clear(&parent, &name).map_err(&failed)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, &*name, flags, Mode::from_raw_mode(0o600)).map_err(&failed)?;
        let mut file = File::from(file);
        std::io::copy(content, &mut file).map_err(|error| format!("cannot write `{path}` in the image: {error}"))?;
        // The owner first: changing it takes setuid bits away.
        let (uid, gid) = self.owner((uid, gid));
        fchown(&file, uid, gid).map_err(&failed)?;
        fchmod(&file, self.mode(mode)).map_err(&failed)?;
        Ok(file)
    }

    /// Takes away what stands under a name, unless it is a folder.
    fn clear(&self, parent: &OwnedFd, name: &str) -> Result<(), Errno> {
        match unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }
}

/// File capabilities, and what users set.
fn copy_attributes(from: &File, to: &File, entry: &Entry) -> Result<(), String> {
    let failed = said("copy the attributes of", &entry.path);
    let mut list = vec![0; MAX_XATTR];
    let length = match flistxattr(from, &mut list) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length.map_err(&failed)?,
    };
    for name in list[..length].split(|&byte| byte == 0) {
        if name == b"security.capability" || name.starts_with(b"user.") {
            let mut value = vec![0; MAX_XATTR];
            let length = fgetxattr(from, name, &mut value).map_err(&failed)?;
            fsetxattr(to, name, &value[..length], XattrFlags::empty()).map_err(&failed)?;
        }
    }
    Ok(())
}
