//! Makes layers: a folder (the upper directory of an overlay, or a whole root) becomes an archive that says the same in
//! every run: members sorted by name, times no later than a given one, no names of users.
//!
//! The reverse of [`unpack`](super::unpack): character devices 0:0 become `.wh.NAME`, `trusted.overlay.opaque` becomes
//! `.wh..wh..opq` (OCI image specification, "Image Layer Filesystem Changeset"). The overlays of this program make neither
//! redirects nor metadata-only copies ([`OverlayMount`](crate::runtime::overlay::OverlayMount)), so nothing else is
//! hidden in an upper directory.

mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, major, minor, openat, readlinkat, statat};
use rustix::io::Errno;

use super::digest::HashingWriter;
use super::publish::{make_private, store_error};
use super::tar::{TarKind, TarMember, TarTime, shown};
use super::{BlobLocation, ImageError, ImageLayer, ImageStore};
pub use writer::TarWriter;

/// As the unpacker bounds it.
const MAX_DEPTH: usize = 256;
/// Of names and of values; the kernel's own bound (fs/xattr.h).
const MAX_XATTR: usize = 64 << 10;
const COPY_BUFFER: usize = 256 << 10;
/// Of extended attributes: what belongs to overlayfs or to the host, and not to the file.
const NOT_PACKED: [&[u8]; 3] = [b"trusted.", b"system.", b"security.selinux"];

/// What of a folder goes into a layer, and how.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// Seconds since 1970: later times become this one.
    pub latest: i64,
    /// Whether owner and mode of the folder itself are the layer's too.
    pub root: bool,
}

/// Why a folder cannot become a layer. `path` is relative to it.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot read `{path}` of the layer")]
    Read { path: String, source: std::io::Error },
    #[error("`{path}` changed while it was read")]
    Changed { path: String },
    #[error("`{path}` of the layer has more than {MAX_DEPTH} components")]
    Depth { path: String },
    #[error("cannot write the layer")]
    Write { source: std::io::Error },
}

/// Writes the layer that `folder` holds. Answers with what was written to and the number of members. Sockets are left
/// out, as every tool leaves them out.
pub fn pack_folder<W: Write>(folder: &Path, packing: Packing, out: W) -> Result<(W, u64), PackError> {
    let open = openat(CWD, folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let open = open.map_err(|errno| read_error(b".", errno))?;
    let mut packer =
        Packer { out: TarWriter::new(out), packing, links: HashMap::new(), members: 0, buffer: vec![0; COPY_BUFFER] };
    if packing.root {
        let stat = rustix::fs::fstat(&open).map_err(|errno| read_error(b".", errno))?;
        let xattrs = xattrs(&open, b".", b".")?;
        packer.member(&TarMember { xattrs, ..member(b"./".to_vec(), TarKind::Directory, &stat, packing) })?;
    }
    packer.directory(&open, &mut Vec::new(), 0)?;
    let members = packer.members;
    let out = packer.out.finish().map_err(|source| PackError::Write { source })?;
    Ok((out, members))
}

struct Packer<W: Write> {
    out: TarWriter<W>,
    packing: Packing,
    /// Files of more than one name, by device and inode: the name that was written first.
    links: HashMap<(u64, u64), Vec<u8>>,
    members: u64,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, folder: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<(), PackError> {
        if depth > MAX_DEPTH {
            return Err(PackError::Depth { path: shown(path) });
        }
        if is_opaque(folder) {
            let stat = rustix::fs::fstat(folder).map_err(|errno| read_error(path, errno))?;
            let name = [path.as_slice(), b".wh..wh..opq"].concat();
            self.mark(name, &stat)?;
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(folder).map_err(|errno| read_error(path, errno))? {
            let entry = entry.map_err(|errno| read_error(path, errno))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        for name in names {
            let length = path.len();
            path.extend_from_slice(&name);
            self.entry(folder, &name, path, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, folder: &OwnedFd, name: &[u8], path: &mut Vec<u8>, depth: usize) -> Result<(), PackError> {
        let failed = |errno| read_error(path, errno);
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => TarKind::File,
            FileType::Directory => TarKind::Directory,
            FileType::Symlink => {
                let target = readlinkat(folder, name, Vec::new()).map_err(failed)?.into_bytes();
                TarKind::Symlink { target }
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                let parent = &path[..path.len() - name.len()];
                return self.mark([parent, b".wh.", name].concat(), &stat);
            }
            FileType::CharacterDevice => TarKind::CharDevice { major: major(stat.st_rdev), minor: minor(stat.st_rdev) },
            FileType::BlockDevice => TarKind::BlockDevice { major: major(stat.st_rdev), minor: minor(stat.st_rdev) },
            FileType::Fifo => TarKind::Fifo,
            _ => return Ok(()),
        };
        if kind == TarKind::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = openat(folder, name, flags, Mode::empty()).map_err(failed)?;
            let xattrs = xattrs(folder, name, path)?;
            path.push(b'/');
            self.member(&TarMember { xattrs, ..member(path.clone(), kind, &stat, self.packing) })?;
            return self.directory(&below, path, depth + 1);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let kind = TarKind::HardLink { target: first.clone() };
                return self.member(&member(path.clone(), kind, &stat, self.packing));
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let xattrs = xattrs(folder, name, path)?;
        let mut entry = TarMember { xattrs, ..member(path.clone(), kind, &stat, self.packing) };
        if entry.kind != TarKind::File {
            return self.member(&entry);
        }
        entry.size = stat.st_size as u64;
        self.file((folder, name), &entry)
    }

    fn file(&mut self, (folder, name): (&OwnedFd, &[u8]), entry: &TarMember) -> Result<(), PackError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(folder, name, flags, Mode::empty()).map_err(|errno| read_error(&entry.name, errno))?;
        let mut file = File::from(file).take(entry.size);
        self.member(entry)?;
        let mut left = entry.size;
        loop {
            let read = file.read(&mut self.buffer);
            let read = read.map_err(|source| PackError::Read { path: shown(&entry.name), source })?;
            if read == 0 {
                break;
            }
            left -= read as u64;
            self.out.content(&self.buffer[..read]).map_err(|source| PackError::Write { source })?;
        }
        match left {
            0 => Ok(()),
            _ => Err(PackError::Changed { path: shown(&entry.name) }),
        }
    }

    /// An empty file that says that something is gone.
    fn mark(&mut self, name: Vec<u8>, stat: &Stat) -> Result<(), PackError> {
        let mark = TarMember { mode: 0, uid: 0, gid: 0, ..member(name, TarKind::File, stat, self.packing) };
        self.member(&mark)
    }

    fn member(&mut self, member: &TarMember) -> Result<(), PackError> {
        self.members += 1;
        self.out.member(member).map_err(|source| PackError::Write { source })
    }
}

fn member(name: Vec<u8>, kind: TarKind, stat: &Stat, packing: Packing) -> TarMember {
    TarMember {
        name,
        kind,
        size: 0,
        sparse: None,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: TarTime { seconds: stat.st_mtime.min(packing.latest), nanoseconds: 0 },
        xattrs: Vec::new(),
        data_offset: 0,
    }
}

/// By the path of the folder's descriptor: the calls that take a descriptor of the file do not take links and devices.
fn by_descriptor(folder: &OwnedFd, name: &[u8]) -> PathBuf {
    let base = PathBuf::from(format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()));
    base.join(std::ffi::OsStr::from_bytes(name))
}

/// Name and value.
type Xattr = (Vec<u8>, Vec<u8>);

/// Sorted by name.
fn xattrs(folder: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Vec<Xattr>, PackError> {
    let place = by_descriptor(folder, name);
    let mut list = vec![0; MAX_XATTR];
    let length = match rustix::fs::llistxattr(&place, &mut list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(read_error(path, errno)),
    };
    let mut found = Vec::new();
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    for name in names.filter(|name| !NOT_PACKED.iter().any(|prefix| name.starts_with(prefix))) {
        let mut value = vec![0; MAX_XATTR];
        match rustix::fs::lgetxattr(&place, name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(read_error(path, errno)),
        }
    }
    found.sort();
    Ok(found)
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0; 2];
    rustix::fs::fgetxattr(folder, c"trusted.overlay.opaque", &mut value).is_ok_and(|length| value[..length] == *b"y")
}

fn read_error(path: &[u8], errno: Errno) -> PackError {
    PackError::Read { path: shown(path), source: errno.into() }
}

impl ImageStore {
    /// Packs a folder as a layer into the store's layout (gzip). `None`: there is nothing in it.
    pub fn pack_layer(&self, folder: &Path, packing: Packing) -> Result<Option<ImageLayer>, ImageError> {
        let (layout, tmp) = (self.paths.layout().join("blobs/sha256"), self.paths.root.join("tmp"));
        for place in [&layout, &tmp] {
            make_private(&self.paths.root, place)?;
        }
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let aside = Aside(tmp.join(format!("pack-{}-{number}", std::process::id())));
        let file = File::create(&aside.0).map_err(store_error(&aside.0, "make"))?;
        let packed = |source| ImageError::Pack { folder: folder.to_owned(), source: Box::new(source) };
        let blob = HashingWriter::new(BufWriter::with_capacity(COPY_BUFFER, file));
        // No name and no time in the header of the stream: the same content gives the same bytes.
        let plain = HashingWriter::new(flate2::write::GzEncoder::new(blob, flate2::Compression::fast()));
        let (plain, members) = pack_folder(folder, packing, plain).map_err(packed)?;
        if members == 0 {
            return Ok(None);
        }
        let (encoder, diff_id, _) = plain.finish_into();
        let (buffer, digest, size) = encoder.finish().map_err(store_error(&aside.0, "write"))?.finish_into();
        buffer.into_inner().map_err(|error| store_error(&aside.0, "write")(error.into_error()))?;
        let place = layout.join(digest.hex());
        std::fs::rename(&aside.0, &place).map_err(store_error(&place, "publish"))?;
        Ok(Some(ImageLayer { diff_id, digest: Some(digest), blob: BlobLocation { path: place, offset: 0, size } }))
    }
}

/// A file that is taken away unless it was renamed.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::super::tar::TarReader;
    use super::*;

    const PACKING: Packing = Packing { latest: 1000, root: false };

    fn packed(folder: &Path, packing: Packing) -> Vec<u8> {
        pack_folder(folder, packing, Vec::new()).unwrap().0
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        let mut reader = TarReader::new(bytes);
        let mut found = Vec::new();
        while let Some(member) = reader.next_member().unwrap() {
            let link = match &member.kind {
                TarKind::HardLink { target } => format!(" = {}", shown(target)),
                TarKind::Symlink { target } => format!(" -> {}", shown(target)),
                _ => String::new(),
            };
            found.push(format!("{}{link} {:o} {}", shown(&member.name), member.mode, member.mtime.seconds));
        }
        found
    }

    fn tree(folder: &Path) {
        std::fs::create_dir_all(folder.join("b/deep")).unwrap();
        std::fs::write(folder.join("b/deep/file"), "content").unwrap();
        std::fs::write(folder.join("a"), "").unwrap();
        std::fs::hard_link(folder.join("a"), folder.join("b/same")).unwrap();
        symlink("/etc/shadow", folder.join("link")).unwrap();
        for (name, mode) in [("a", 0o4711), ("b", 0o755), ("b/deep", 0o700), ("b/deep/file", 0o600)] {
            std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
    }

    #[test]
    fn members_are_sorted_and_times_are_clamped() {
        let folder = tempfile::tempdir().unwrap();
        tree(folder.path());
        let found = names(&packed(folder.path(), PACKING));
        let expected = [
            "a 4711 1000",
            "b/ 755 1000",
            "b/deep/ 700 1000",
            "b/deep/file 600 1000",
            "b/same = a 4711 1000",
            "link -> /etc/shadow 777 1000",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_same_tree_made_again_gives_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree(one.path());
        // Made in another order, and at another time.
        std::fs::write(two.path().join("a"), "").unwrap();
        std::fs::remove_file(two.path().join("a")).unwrap();
        tree(two.path());
        assert_eq!(packed(one.path(), PACKING), packed(two.path(), PACKING));
        std::fs::set_permissions(two.path().join("b"), PermissionsExt::from_mode(0o750)).unwrap();
        assert_ne!(packed(one.path(), PACKING), packed(two.path(), PACKING));
    }

    #[test]
    fn the_folder_itself_is_packed_where_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o751)).unwrap();
        assert_eq!(names(&packed(folder.path(), Packing { root: true, ..PACKING })), ["./ 751 1000"]);
        assert_eq!(folder.path().metadata().unwrap().mode() & 0o7777, 0o751);
        let store = ImageStore::open(folder.path().join("store"));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(store.pack_layer(empty.path(), PACKING).unwrap(), None);
        assert_eq!(std::fs::read_dir(folder.path().join("store/tmp")).unwrap().count(), 0);
    }
}
