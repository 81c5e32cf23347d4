//! Writes tar members by hand, among them those that no honest tool writes.
#![allow(dead_code, reason = "each test file uses a part of it")]

/// A member to be written.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    pub name: &'a str,
    pub kind: u8,
    pub link: &'a str,
    pub content: &'a [u8],
    /// Size in the header, where it is not that of the content.
    pub size: Option<u64>,
    pub mode: u32,
    pub device: (u32, u32),
}

impl<'a> Member<'a> {
    pub fn new(kind: u8, name: &'a str) -> Self {
        Self { name, kind, link: "", content: b"", size: None, mode: 0o755, device: (0, 0) }
    }

    pub fn file(name: &'a str, content: &'a str) -> Self {
        Self { content: content.as_bytes(), mode: 0o644, ..Self::new(b'0', name) }
    }

    pub fn folder(name: &'a str) -> Self {
        Self::new(b'5', name)
    }

    pub fn symlink(name: &'a str, link: &'a str) -> Self {
        Self { link, ..Self::new(b'2', name) }
    }

    pub fn hard_link(name: &'a str, link: &'a str) -> Self {
        Self { link, ..Self::new(b'1', name) }
    }

    pub fn device(name: &'a str, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(b'3', name) }
    }

    /// Pax records for the member after this one.
    pub fn pax(records: &'a [u8]) -> Self {
        Self { content: records, ..Self::new(b'x', "pax") }
    }

    pub fn with_size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }
}

/// An archive of `members` with its two blocks of zeros.
pub fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        bytes.extend_from_slice(&header(member));
        bytes.extend_from_slice(member.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// One pax record.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let digits = |length: usize| length.to_string().len();
    let mut length = rest.len() + 1;
    while length != rest.len() + digits(length) {
        length += 1;
    }
    [length.to_string().as_bytes(), &rest].concat()
}

fn header(member: &Member<'_>) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, member.name.as_bytes());
    put(100, format!("{:07o}\0", member.mode).as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    let size = member.size.unwrap_or(member.content.len() as u64);
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat());
    }
    put(136, b"14530000000\0");
    put(148, b"        ");
    put(156, &[member.kind]);
    put(157, member.link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}\0", member.device.0).as_bytes());
    put(337, format!("{:07o}\0", member.device.1).as_bytes());
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
