//! Writes tar archives: ustar headers, with pax records (POSIX.1-2017, pax, "pax Interchange Format") for what those
//! cannot hold. The same members in the same order give the same bytes.

use std::io::{self, Write};

use super::super::tar::{BLOCK, TarKind, TarMember};

/// Longest name and longest target of a link in a ustar header.
const MAX_NAME: usize = 100;
/// Seven octal digits.
const MAX_ID: u64 = 0o7_777_777;
/// Eleven octal digits.
const MAX_SIZE: u64 = 0o77_777_777_777;

/// An archive in the making.
pub struct TarWriter<W> {
    out: W,
    /// Bytes that end the content of the last member.
    padding: usize,
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out, padding: 0 }
    }

    /// Begins a member. As many bytes of content as it has must follow by [`content`](Self::content). Sparse maps and
    /// nanoseconds are not written.
    pub fn member(&mut self, member: &TarMember) -> io::Result<()> {
        self.pad()?;
        let records = records(member);
        if !records.is_empty() {
            let size = records.len() as u64;
            self.out.write_all(&block(b"././@PaxHeader", b'x', size, 0o644))?;
            self.out.write_all(&records)?;
            self.padding = missing(size);
            self.pad()?;
        }
        self.out.write_all(&header(member))?;
        self.padding = missing(member.size);
        Ok(())
    }

    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Ends the archive: two empty blocks.
    pub fn finish(mut self) -> io::Result<W> {
        self.pad()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn pad(&mut self) -> io::Result<()> {
        let padding = std::mem::take(&mut self.padding);
        self.out.write_all(&[0; BLOCK][..padding])
    }
}

fn missing(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

fn target(kind: &TarKind) -> &[u8] {
    match kind {
        TarKind::HardLink { target } | TarKind::Symlink { target } => target,
        _ => b"",
    }
}

/// What the header cannot say.
fn records(member: &TarMember) -> Vec<u8> {
    let mut records = Vec::new();
    let mut record = |key: &[u8], value: &[u8]| {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        records.extend_from_slice(length.to_string().as_bytes());
        records.push(b' ');
        records.extend_from_slice(key);
        records.push(b'=');
        records.extend_from_slice(value);
        records.push(b'\n');
    };
    let plain = |text: &[u8]| text.len() <= MAX_NAME && text.is_ascii();
    if !plain(&member.name) {
        record(b"path", &member.name);
    }
    if !plain(target(&member.kind)) {
        record(b"linkpath", target(&member.kind));
    }
    for (key, value, limit) in [
        ("size", member.size, MAX_SIZE),
        ("uid", u64::from(member.uid), MAX_ID),
        ("gid", u64::from(member.gid), MAX_ID),
    ] {
        if value > limit {
            record(key.as_bytes(), value.to_string().as_bytes());
        }
    }
    if !(0..=MAX_SIZE as i64).contains(&member.mtime.seconds) {
        record(b"mtime", member.mtime.seconds.to_string().as_bytes());
    }
    for (name, value) in &member.xattrs {
        record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

fn header(member: &TarMember) -> [u8; BLOCK] {
    let (kind, device) = match member.kind {
        TarKind::File => (b'0', None),
        TarKind::HardLink { .. } => (b'1', None),
        TarKind::Symlink { .. } => (b'2', None),
        TarKind::CharDevice { major, minor } => (b'3', Some((major, minor))),
        TarKind::BlockDevice { major, minor } => (b'4', Some((major, minor))),
        TarKind::Directory => (b'5', None),
        TarKind::Fifo => (b'6', None),
    };
    let mut block = block(cut(&member.name), kind, member.size.min(MAX_SIZE), member.mode);
    put(&mut block, 108, octal(u64::from(member.uid).min(MAX_ID), 7).as_bytes());
    put(&mut block, 116, octal(u64::from(member.gid).min(MAX_ID), 7).as_bytes());
    let time = u64::try_from(member.mtime.seconds).unwrap_or(0).min(MAX_SIZE);
    put(&mut block, 136, octal(time, 11).as_bytes());
    put(&mut block, 157, cut(target(&member.kind)));
    if let Some((major, minor)) = device {
        put(&mut block, 329, octal(u64::from(major), 7).as_bytes());
        put(&mut block, 337, octal(u64::from(minor), 7).as_bytes());
    }
    sum(&mut block);
    block
}

/// A whole header of root's, from 1970.
fn block(name: &[u8], kind: u8, size: u64, mode: u32) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, name);
    put(&mut block, 100, octal(u64::from(mode), 7).as_bytes());
    put(&mut block, 108, octal(0, 7).as_bytes());
    put(&mut block, 116, octal(0, 7).as_bytes());
    put(&mut block, 124, octal(size, 11).as_bytes());
    put(&mut block, 136, octal(0, 11).as_bytes());
    block[156] = kind;
    put(&mut block, 257, b"ustar\x0000");
    sum(&mut block);
    block
}

fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(MAX_NAME)]
}

fn octal(value: u64, digits: usize) -> String {
    format!("{value:0digits$o}")
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The checksum is taken with blanks in its place.
fn sum(block: &mut [u8; BLOCK]) {
    put(block, 148, b"        ");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    put(block, 148, format!("{sum:06o}\0 ").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::super::tar::{TarReader, TarTime};
    use super::*;

    fn member(name: &[u8], kind: TarKind) -> TarMember {
        TarMember {
            name: name.to_vec(),
            kind,
            size: 0,
            sparse: None,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime: TarTime { seconds: 7, nanoseconds: 0 },
            xattrs: vec![],
            data_offset: 0,
        }
    }

    #[track_caller]
    fn check(written: &TarMember, content: &[u8]) {
        let mut writer = TarWriter::new(Vec::new());
        writer.member(written).unwrap();
        writer.content(content).unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..]);
        let mut read = reader.next_member().unwrap().unwrap();
        read.data_offset = 0;
        assert_eq!(read, *written);
        let mut buffer = vec![0; content.len()];
        let mut have = 0;
        while have < content.len() {
            have += reader.read_data(&mut buffer[have..]).unwrap();
        }
        assert_eq!(buffer, content);
        assert!(reader.next_member().unwrap().is_none());
    }

    #[test]
    fn what_is_written_reads_back() {
        check(&TarMember { size: 5, ..member(b"file", TarKind::File) }, b"hello");
        check(&TarMember { mode: 0o4755, ..member(b"setuid", TarKind::File) }, b"");
        check(&member(b"folder/", TarKind::Directory), b"");
        check(&member(b"link", TarKind::Symlink { target: b"../file".to_vec() }), b"");
        check(&member(b"same", TarKind::HardLink { target: b"file".to_vec() }), b"");
        check(&member(b"null", TarKind::CharDevice { major: 1, minor: 3 }), b"");
        check(&member(b"disk", TarKind::BlockDevice { major: 253, minor: 16 }), b"");
        check(&member(b"pipe", TarKind::Fifo), b"");
    }

    #[test]
    fn what_a_header_cannot_hold_is_written_beside_it() {
        check(&member(&b"long/".repeat(60), TarKind::Directory), b"");
        check(&member("ümlaut".as_bytes(), TarKind::File), b"");
        check(&member(b"far", TarKind::Symlink { target: b"x".repeat(500) }), b"");
        check(&TarMember { uid: 3_000_000, gid: u32::MAX - 1, ..member(b"owned", TarKind::File) }, b"");
        check(&TarMember { mtime: TarTime { seconds: -5, nanoseconds: 0 }, ..member(b"old", TarKind::File) }, b"");
        let xattrs = vec![(b"security.capability".to_vec(), b"\x01\0\n=\0".to_vec())];
        check(&TarMember { xattrs, ..member(b"able", TarKind::File) }, b"");
        // Each length around the point where its own digits grow.
        for length in 85..105 {
            check(&member("ü".repeat(length).as_bytes(), TarKind::File), b"");
        }
    }
}
