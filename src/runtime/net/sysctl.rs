//! The few sysctls that networking needs, in the network namespace of the thread that writes them: `/proc/sys/net`
//! shows each task its own.

use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with a sysctl.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write `{value}` to `{}`", path.display())]
    Write { path: PathBuf, value: &'static str, source: io::Error },
    #[error("`{name}` cannot stand in the path of a sysctl")]
    Name { name: String },
}

/// A switch of a bridge that stands in a sysctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BridgeSwitch {
    /// `ipv4.conf.<bridge>.route_localnet`, on: a connection of the host to 127.0.0.1 may be led out by the bridge.
    /// What that would let in is dropped by the guard of the nft table.
    RouteLocalnet,
    /// `ipv6.conf.<bridge>.disable_ipv6`, on: a container must not give the host an address or a route by a router
    /// advertisement.
    DisableIpv6,
}

impl BridgeSwitch {
    /// Every switch that a bridge of ours has on.
    pub const ALL: [Self; 2] = [Self::RouteLocalnet, Self::DisableIpv6];

    /// The sysctl's last component.
    pub fn name(self) -> &'static str {
        match self {
            Self::RouteLocalnet => "route_localnet",
            Self::DisableIpv6 => "disable_ipv6",
        }
    }

    fn family(self) -> &'static str {
        match self {
            Self::RouteLocalnet => "ipv4",
            Self::DisableIpv6 => "ipv6",
        }
    }
}

/// The sysctls below one `/proc/sys`.
#[derive(Clone, Debug)]
pub struct Sysctls {
    root: PathBuf,
}

impl Default for Sysctls {
    fn default() -> Self {
        Self::new("/proc/sys")
    }
}

impl Sysctls {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether the host forwards IPv4 between its links (`net.ipv4.ip_forward`).
    pub fn ip_forward(&self) -> Result<bool, SysctlError> {
        Ok(self.read(&self.root.join("net/ipv4/ip_forward"))? == "1")
    }

    /// Lets the host forward IPv4. It concerns all of its links, not ours alone: whoever calls this says so to the user.
    pub fn enable_ip_forward(&self) -> Result<(), SysctlError> {
        self.write(&self.root.join("net/ipv4/ip_forward"), "1")
    }

    /// Whether the switch is on. A kernel without IPv6 has nothing to switch off and counts as on.
    pub fn bridge_switch(&self, bridge: &str, switch: BridgeSwitch) -> Result<bool, SysctlError> {
        match self.switch_path(bridge, switch)? {
            Some(path) => Ok(self.read(&path)? == "1"),
            None => Ok(true),
        }
    }

    /// Puts the switch on.
    pub fn enable_bridge_switch(&self, bridge: &str, switch: BridgeSwitch) -> Result<(), SysctlError> {
        match self.switch_path(bridge, switch)? {
            Some(path) => self.write(&path, "1"),
            None => Ok(()),
        }
    }

    /// Puts every switch on that a bridge of ours needs.
    pub fn enable_bridge_switches(&self, bridge: &str) -> Result<(), SysctlError> {
        BridgeSwitch::ALL.into_iter().try_for_each(|switch| self.enable_bridge_switch(bridge, switch))
    }

    fn switch_path(&self, bridge: &str, switch: BridgeSwitch) -> Result<Option<PathBuf>, SysctlError> {
        if bridge.is_empty() || bridge == "." || bridge == ".." || bridge.contains('/') {
            return Err(SysctlError::Name { name: bridge.to_owned() });
        }
        let family = self.root.join("net").join(switch.family());
        if switch == BridgeSwitch::DisableIpv6 && !family.exists() {
            return Ok(None);
        }
        Ok(Some(family.join("conf").join(bridge).join(switch.name())))
    }

    fn read(&self, path: &Path) -> Result<String, SysctlError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SysctlError::Read { path: path.to_owned(), source })?;
        Ok(text.trim_end().to_owned())
    }

    fn write(&self, path: &Path, value: &'static str) -> Result<(), SysctlError> {
        std::fs::write(path, value).map_err(|source| SysctlError::Write { path: path.to_owned(), value, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_written_below_the_root_and_read_back() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("net/ipv4/conf/br0")).unwrap();
        std::fs::write(root.path().join("net/ipv4/conf/br0/route_localnet"), "0\n").unwrap();
        let sysctls = Sysctls::new(root.path());
        assert!(!sysctls.bridge_switch("br0", BridgeSwitch::RouteLocalnet).unwrap());
        sysctls.enable_bridge_switch("br0", BridgeSwitch::RouteLocalnet).unwrap();
        assert!(sysctls.bridge_switch("br0", BridgeSwitch::RouteLocalnet).unwrap());
        assert!(sysctls.bridge_switch("br0", BridgeSwitch::DisableIpv6).unwrap(), "no IPv6 here, nothing to disable");
    }

    #[test]
    fn a_name_cannot_leave_its_directory() {
        let error = Sysctls::new("/nowhere").enable_bridge_switch("../all", BridgeSwitch::RouteLocalnet);
        assert!(matches!(error, Err(SysctlError::Name { .. })));
    }
}
