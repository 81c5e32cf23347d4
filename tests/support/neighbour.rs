//! Another machine on the host's network: a network namespace joined to the sandbox's by a veth pair.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::process::{Child, Command, Stdio};

use super::sandbox::{Sandbox, outcome};

/// The host's address on the network that it shares with the neighbour, and the neighbour's.
pub const HOST: &str = "192.0.2.1";
pub const NEIGHBOUR: &str = "192.0.2.2";
/// The same in IPv6.
pub const HOST6: &str = "2001:db8::1";
pub const NEIGHBOUR6: &str = "2001:db8::2";

/// A network namespace beside the sandbox's. Its link goes with it.
pub struct Neighbour {
    holder: Child,
}

impl Neighbour {
    pub fn of(host: &Sandbox) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 3600"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) is there and we are root");
        let mut ready = [0; 6];
        std::io::Read::read_exact(holder.stdout.as_mut().expect("it is piped"), &mut ready).expect("it is made");
        let neighbour = Neighbour { holder };
        host.sh(&format!(
            "ip link add lan0 type veth peer name lan0 netns {} && ip addr add {HOST}/24 dev lan0 && \
             ip addr add {HOST6}/64 dev lan0 nodad && ip link set lan0 up",
            neighbour.holder.id()
        ));
        neighbour.sh(&format!(
            "ip addr add {NEIGHBOUR}/24 dev lan0 && ip addr add {NEIGHBOUR6}/64 dev lan0 nodad && ip link set lan0 up"
        ));
        neighbour
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--", "sh", "-c", line]);
        command.stdin(Stdio::null());
        command
    }

    pub fn sh(&self, line: &str) -> String {
        let outcome = outcome(self.command(line).output().expect("a shell"));
        assert_eq!(outcome.code, 0, "{line}\n{}\n{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// What a server answers the neighbour; nothing if it does not within a second.
    pub fn ask(&self, address: &str, port: u16) -> Option<String> {
        let text = self.sh(&format!("busybox nc -w 1 {address} {port} < /dev/null || true"));
        Some(text.trim().to_string()).filter(|text| !text.is_empty())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What a server at an IPv4 or IPv6 address answers whom `sh` runs a line for.
pub fn call(sh: impl Fn(&str) -> String, address: &str, port: u16) -> Option<String> {
    let text = sh(&format!(
        "timeout 2 perl -MIO::Socket::IP -e 'my $s = IO::Socket::IP->new(PeerHost => \"{address}\", PeerPort => {port}, \
         Timeout => 1) or exit; print <$s>' || true"
    ));
    Some(text.trim().to_string()).filter(|text| !text.is_empty())
}
