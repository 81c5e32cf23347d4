//! The stream of members: extended headers are gathered and applied to the member they precede.

use std::fs::File;
use std::io::{self, BufReader, Read};

use super::header::{BLOCK, checksum_is_right, number, parse_tar_filename, until_nul};
use super::pax::PaxRecords;
use super::sparse::{self, MAX_PIECES, PaxSparse, SparseMap};
use super::{TarError, TarKind, TarMember, TarTime};

/// Longest GNU long name; the kernel's `PATH_MAX`, and the NUL that GNU tar adds is part of both.
const MAX_NAME: u64 = 4096;
/// Longest set of pax records of one member: 64 KiB is what an extended attribute may hold, and there may be several.
const MAX_PAX: u64 = 1 << 20;
/// All pax global headers of one archive together.
const MAX_GLOBAL_PAX: u64 = 1 << 20;
/// Extended headers in a row before one member.
const MAX_EXTENSIONS: u32 = 16;
/// What may follow the end of an archive: the padding of large tape records.
const MAX_TRAILING: u64 = 16 << 20;
const SKIP_BUFFER: usize = 64 << 10;

/// Where an archive is read from. Only seekable files know a faster way to skip than to read.
pub trait TarInput: Read {
    /// Passes over `bytes`. An input that ends earlier may be noticed only by the next read.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut scratch = [0; SKIP_BUFFER];
        let mut left = bytes;
        while left > 0 {
            let want = left.min(SKIP_BUFFER as u64) as usize;
            self.read_exact(&mut scratch[..want])?;
            left -= want as u64;
        }
        Ok(())
    }
}

impl TarInput for &[u8] {}

impl TarInput for BufReader<File> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        self.seek_relative(bytes)
    }
}

impl TarInput for Box<dyn TarInput + '_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        (**self).skip(bytes)
    }
}

/// Reads members one after the other. After an error nothing more can be read.
pub struct TarReader<R> {
    input: R,
    position: u64,
    /// Content of the current member that was not read yet, and the padding after it.
    remaining: u64,
    padding: u64,
    globals: PaxRecords,
    global_bytes: u64,
}

/// Extended headers gathered for the member to come.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: PaxRecords,
    count: u32,
}

impl<R: TarInput> TarReader<R> {
    pub fn new(input: R) -> Self {
        Self { input, position: 0, remaining: 0, padding: 0, globals: PaxRecords::default(), global_bytes: 0 }
    }

    /// The next member, or `None` at the end: two blocks of zeros, or the end of the input between two members.
    /// What is left of the content of the current member is passed over.
    pub fn next_member(&mut self) -> Result<Option<TarMember>, TarError> {
        let mut extensions = Extensions { pax: self.globals.clone(), ..Extensions::default() };
        loop {
            self.skip_rest()?;
            let offset = self.position;
            let Some(header) = self.block()? else {
                return if extensions.count == 0 { Ok(None) } else { Err(TarError::Truncated { offset }) };
            };
            if header.iter().all(|&byte| byte == 0) {
                return self.end_of_archive();
            }
            if !checksum_is_right(&header) {
                return Err(TarError::Checksum { offset });
            }
            if !matches!(header[156], b'L' | b'K' | b'x' | b'g') {
                return self.member(offset, &header, extensions).map(Some);
            }
            extensions.count += 1;
            if extensions.count > MAX_EXTENSIONS {
                return Err(TarError::TooManyExtensions { offset });
            }
            self.extension(offset, &header, &mut extensions)?;
        }
    }

    /// Reads content of the current member; 0 at its end.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let want = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let read = loop {
            match self.input.read(&mut buf[..want]) {
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
            }
        };
        if read == 0 {
            return Err(TarError::Truncated { offset: self.position });
        }
        self.position += read as u64;
        self.remaining -= read as u64;
        Ok(read)
    }

    /// Reads what follows the end of the archive, so that the digest of the whole input can be known.
    pub fn drain(&mut self) -> Result<(), TarError> {
        let mut scratch = [0; SKIP_BUFFER];
        let mut total = 0;
        loop {
            let read = match self.input.read(&mut scratch) {
                Ok(0) => return Ok(()),
                Ok(read) => read as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.read_error(error)),
            };
            total += read;
            if total > MAX_TRAILING {
                return Err(TarError::TrailingData { limit: MAX_TRAILING });
            }
        }
    }

    /// Bytes of the archive that were passed so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Gives the input back, wherever it stands.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let bytes = self.remaining + self.padding;
        if bytes > 0 {
            self.input.skip(bytes).map_err(|error| self.read_error(error))?;
            self.position = self.position.saturating_add(bytes);
            (self.remaining, self.padding) = (0, 0);
        }
        Ok(())
    }

    /// One block, or `None` where the input ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated { offset: self.position }),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error)),
            }
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    /// After one block of zeros: a second one, or nothing. Anything else is damage, not an end.
    fn end_of_archive(&mut self) -> Result<Option<TarMember>, TarError> {
        let offset = self.position;
        match self.block()? {
            Some(block) if block.iter().any(|&byte| byte != 0) => Err(TarError::Checksum { offset }),
            _ => Ok(None),
        }
    }

    fn extension(&mut self, offset: u64, header: &[u8; BLOCK], extensions: &mut Extensions) -> Result<(), TarError> {
        let limit = if matches!(header[156], b'L' | b'K') { MAX_NAME } else { MAX_PAX };
        let bytes = self.extension_bytes(offset, header, limit)?;
        let malformed = TarError::Pax { offset };
        match header[156] {
            b'L' => extensions.name = Some(until_nul(&bytes).to_vec()),
            b'K' => extensions.link = Some(until_nul(&bytes).to_vec()),
            b'x' => extensions.pax.extend(&bytes).ok_or(malformed)?,
            _ => {
                self.global_bytes += bytes.len() as u64;
                if self.global_bytes > MAX_GLOBAL_PAX {
                    let size = self.global_bytes;
                    return Err(TarError::ExtensionTooLarge { offset, size, limit: MAX_GLOBAL_PAX });
                }
                self.globals.extend(&bytes).ok_or(malformed)?;
                extensions.pax = self.globals.clone();
            }
        }
        Ok(())
    }

    fn extension_bytes(&mut self, offset: u64, header: &[u8; BLOCK], limit: u64) -> Result<Vec<u8>, TarError> {
        let size = size_field(offset, header)?;
        if size > limit {
            return Err(TarError::ExtensionTooLarge { offset, size, limit });
        }
        self.begin_content(size);
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read_data(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }

    fn member(&mut self, offset: u64, header: &[u8; BLOCK], ext: Extensions) -> Result<TarMember, TarError> {
        let wrong = |field| TarError::Field { offset, field };
        let field = |range: std::ops::Range<usize>, field| number(&header[range]).ok_or(wrong(field));
        let mut pax_sparse = ext.pax.sparse;
        let sparse_name = pax_sparse.as_mut().and_then(|sparse| sparse.name.take());
        let name = sparse_name.or(ext.pax.path).or(ext.name).unwrap_or_else(|| parse_tar_filename(header));
        if name.is_empty() {
            return Err(wrong("name"));
        }
        let target = ext.pax.linkpath.or(ext.link).unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        let kind = kind(offset, header, &name, target)?;
        let size = match ext.pax.size {
            Some(size) => plausible(size).ok_or(wrong("size"))?,
            None => size_field(offset, header)?,
        };
        // The other kinds have no content, whatever the field says: readers that disagree here can be made to
        // see different members in one archive. A directory in the old spelling is a file to those who skip it.
        let content = if matches!(header[156], 0 | b'0' | b'7' | b'S') { size } else { 0 };
        let size = if kind == TarKind::File { content } else { 0 };
        let id = |pax: Option<u64>, range, name| -> Result<u32, TarError> {
            let value = pax.map(Ok).unwrap_or_else(|| field(range, name)?.try_into().map_err(|_| wrong(name)))?;
            // All ones means "leave as it is" to chown.
            u32::try_from(value).ok().filter(|&id| id != u32::MAX).ok_or(wrong(name))
        };
        let mtime = match ext.pax.mtime {
            Some(mtime) => mtime,
            None => TarTime { seconds: field(136..148, "mtime")?, nanoseconds: 0 },
        };
        let is_old = header[156] == b'S';
        let sparse = match (kind == TarKind::File, is_old, pax_sparse) {
            (true, true, _) => Some(self.old_sparse(header, size)),
            (true, false, Some(sparse)) => Some(self.pax_sparse(sparse, size)),
            _ => None,
        };
        let malformed = || TarError::Sparse { name: shown(&name) };
        let (sparse, size) = match sparse {
            // A map that cannot be read in full is the archive's end, and not the map's form.
            Some(Err(error @ (TarError::Truncated { .. } | TarError::Read(_)))) => return Err(error),
            Some(Err(_)) => return Err(malformed()),
            Some(Ok(None)) => return Err(malformed()),
            Some(Ok(Some(map))) => {
                let stored = map.pieces.iter().map(|(_, bytes)| bytes).sum();
                (Some(map), stored)
            }
            None => {
                self.begin_content(content);
                (None, size)
            }
        };
        let member = TarMember {
            name,
            kind,
            size,
            sparse,
            mode: (field(100..108, "mode")? & 0o7777) as u32,
            uid: id(ext.pax.uid, 108..116, "uid")?,
            gid: id(ext.pax.gid, 116..124, "gid")?,
            mtime,
            xattrs: ext.pax.xattrs,
            data_offset: self.position,
        };
        Ok(member)
    }

    /// The map of an old GNU header with the blocks that go on with it, which the size does not count.
    fn old_sparse(&mut self, header: &[u8; BLOCK], stored: u64) -> Result<Option<SparseMap>, TarError> {
        let Some((mut pieces, size, mut more)) = sparse::old_header(header) else { return Ok(None) };
        while more {
            let Some(block) = self.block()? else { return Err(TarError::Truncated { offset: self.position }) };
            let Some((further, goes_on)) = sparse::old_extension(&block) else { return Ok(None) };
            // A block without a piece could go on for ever.
            if further.is_empty() || pieces.len() > MAX_PIECES {
                return Ok(None);
            }
            pieces.extend(further);
            more = goes_on;
        }
        self.begin_content(stored);
        Ok(SparseMap::checked(pieces, size, stored))
    }

    /// The map of pax records; version 1.0 keeps it before the content, as lines of decimals padded to a block.
    fn pax_sparse(&mut self, mut map: PaxSparse, stored: u64) -> Result<Option<SparseMap>, TarError> {
        self.begin_content(stored);
        let Some(size) = map.size else { return Ok(None) };
        if map.major != Some(1) {
            return Ok(SparseMap::checked(map.pieces, size, stored));
        }
        let (mut wanted, mut value, mut digits) = (None, 0u64, 0);
        let mut block = [0; BLOCK];
        while wanted != Some(0) {
            let mut filled = 0;
            while filled < BLOCK {
                match self.read_data(&mut block[filled..])? {
                    0 => return Ok(None),
                    read => filled += read,
                }
            }
            for &byte in &block {
                match byte {
                    b'0'..=b'9' if digits < 19 => (value, digits) = (value * 10 + u64::from(byte - b'0'), digits + 1),
                    b'\n' if digits > 0 => {
                        match &mut wanted {
                            None if value > MAX_PIECES as u64 => return Ok(None),
                            None => wanted = Some(2 * value),
                            Some(left) => {
                                if map.number(value).is_none() {
                                    return Ok(None);
                                }
                                *left -= 1;
                            }
                        }
                        (value, digits) = (0, 0);
                    }
                    _ => return Ok(None),
                }
                if wanted == Some(0) {
                    break;
                }
            }
        }
        Ok(SparseMap::checked(map.pieces, size, self.remaining))
    }

    fn begin_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn read_error(&self, error: io::Error) -> TarError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated { offset: self.position },
            _ => TarError::Read(error),
        }
    }
}

fn size_field(offset: u64, header: &[u8; BLOCK]) -> Result<u64, TarError> {
    let size = number(&header[124..136]).and_then(|size| u64::try_from(size).ok());
    size.and_then(plausible).ok_or(TarError::Field { offset, field: "size" })
}

/// Positions are sums of sizes: what cannot be added up is not a size.
fn plausible(size: u64) -> Option<u64> {
    (size < 1 << 62).then_some(size)
}

fn kind(offset: u64, header: &[u8; BLOCK], name: &[u8], target: Vec<u8>) -> Result<TarKind, TarError> {
    let device = |range: std::ops::Range<usize>, field| {
        let value = number(&header[range]).and_then(|value| u32::try_from(value).ok());
        value.ok_or(TarError::Field { offset, field })
    };
    let kind = match header[156] {
        // Before POSIX, a directory was a file whose name ended so.
        0 | b'0' | b'7' if name.ends_with(b"/") => TarKind::Directory,
        0 | b'0' | b'7' | b'S' => TarKind::File,
        b'1' => TarKind::HardLink { target },
        b'2' => TarKind::Symlink { target },
        b'3' => TarKind::CharDevice { major: device(329..337, "devmajor")?, minor: device(337..345, "devminor")? },
        b'4' => TarKind::BlockDevice { major: device(329..337, "devmajor")?, minor: device(337..345, "devminor")? },
        b'5' => TarKind::Directory,
        b'6' => TarKind::Fifo,
        other => return Err(TarError::Kind { name: shown(name), kind: char::from(other) }),
    };
    match &kind {
        TarKind::HardLink { target } | TarKind::Symlink { target } if target.is_empty() => {
            Err(TarError::Field { offset, field: "linkname" })
        }
        _ => Ok(kind),
    }
}

/// A member's name for people: what is not printable is escaped.
pub(in crate::runtime::image) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().flat_map(|c| c.escape_debug()).collect()
}
