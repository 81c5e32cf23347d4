//! The host's name servers: `nameserver` lines of its `/etc/resolv.conf`, resolv.conf(5). The resolver runs in the host's
//! network namespace, so a server on the host's loopback, such as systemd-resolved's 127.0.0.53, is asked like any other.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// As many servers as the C library counts.
const MAX_SERVERS: usize = 3;
/// No more of the file is read, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What the file last said.
pub struct Servers {
    path: PathBuf,
    seen: Option<Version>,
    addresses: Vec<IpAddr>,
}

/// Tells one content of a file from another: device, inode, time of the last change.
type Version = (u64, u64, i64, i64);

impl Servers {
    pub fn of(path: PathBuf) -> Self {
        Self { path, seen: None, addresses: Vec::new() }
    }

    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Looks whether the file is another one now, and reads it then. Whether the servers changed.
    pub fn refresh(&mut self) -> bool {
        let version = std::fs::metadata(&self.path)
            .ok()
            .map(|found| (found.dev(), found.ino(), found.mtime(), found.mtime_nsec()));
        if version.is_some() && version == self.seen {
            return false;
        }
        let mut text = Vec::new();
        if let Ok(file) = std::fs::File::open(&self.path) {
            let _ = file.take(MAX_FILE).read_to_end(&mut text);
        }
        let addresses = parse(&String::from_utf8_lossy(&text));
        self.seen = version;
        std::mem::replace(&mut self.addresses, addresses.clone()) != addresses
    }
}

/// The servers that the file names; the host's own where it names none.
fn parse(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    };
    let found: Vec<IpAddr> = text.lines().filter_map(server).take(MAX_SERVERS).collect();
    if found.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let words = |text| parse(text).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(words("# nameserver 1.1.1.1\nsearch lan\nnameserver 127.0.0.53\n"), ["127.0.0.53"]);
        assert_eq!(words("nameserver ::1\nnameserver x\n nameserver 192.0.2.1 # home\n"), ["::1", "192.0.2.1"]);
        assert_eq!(words(""), ["127.0.0.1"]);
        assert_eq!(words(&"nameserver 192.0.2.1\n".repeat(9)).len(), MAX_SERVERS);
    }

    #[test]
    fn a_file_that_was_replaced_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let mut servers = Servers::of(path.clone());
        servers.refresh();
        for address in ["192.0.2.1", "192.0.2.2"] {
            std::fs::write(folder.path().join("new"), format!("nameserver {address}\n")).unwrap();
            std::fs::rename(folder.path().join("new"), &path).unwrap();
            assert!(servers.refresh());
            assert_eq!(servers.addresses(), [address.parse::<IpAddr>().unwrap()]);
            assert!(!servers.refresh());
        }
    }
}
