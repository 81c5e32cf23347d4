//! The few sysctls that networking needs, in the network namespace of the thread that writes them: `/proc/sys/net`
//! shows each task its own.

use std::io;
use std::path::{Path, PathBuf};

use ipnet::Ipv6Net;

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

/// A switch of a bridge that stands in a sysctl, in the position that ours have it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BridgeSwitch {
    /// `ipv4.conf.<bridge>.route_localnet`, on: a connection of the host to 127.0.0.1 may be led out by the bridge.
    /// What that would let in is dropped by the guard of the nft table.
    RouteLocalnet,
    /// `ipv6.conf.<bridge>.disable_ipv6`, on: the bridge carries IPv4 alone.
    DisableIpv6,
    /// `ipv6.conf.<bridge>.disable_ipv6`, off.
    EnableIpv6,
    /// `ipv6.conf.<bridge>.accept_ra`, off: a container must not give the host an address or a route by a router
    /// advertisement.
    IgnoreAdvertisements,
}

impl BridgeSwitch {
    /// Those of a bridge without IPv6.
    pub const V4: &'static [Self] = &[Self::RouteLocalnet, Self::DisableIpv6];
    /// Those of a bridge with both protocols.
    pub const BOTH: &'static [Self] = &[Self::RouteLocalnet, Self::EnableIpv6, Self::IgnoreAdvertisements];

    /// Those of a bridge that has this IPv6 address.
    pub fn with(address6: Option<Ipv6Net>) -> &'static [Self] {
        if address6.is_some() { Self::BOTH } else { Self::V4 }
    }

    /// The sysctl's last component.
    pub fn name(self) -> &'static str {
        match self {
            Self::RouteLocalnet => "route_localnet",
            Self::DisableIpv6 | Self::EnableIpv6 => "disable_ipv6",
            Self::IgnoreAdvertisements => "accept_ra",
        }
    }

    fn value(self) -> &'static str {
        match self {
            Self::RouteLocalnet | Self::DisableIpv6 => "1",
            Self::EnableIpv6 | Self::IgnoreAdvertisements => "0",
        }
    }

    fn family(self) -> &'static str {
        match self {
            Self::RouteLocalnet => "ipv4",
            _ => "ipv6",
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

    /// Whether the host forwards IPv6 (`net.ipv6.conf.all.forwarding`); `None` where it has none.
    pub fn ipv6_forward(&self) -> Result<Option<bool>, SysctlError> {
        let path = self.root.join("net/ipv6/conf/all/forwarding");
        if !path.exists() { Ok(None) } else { Ok(Some(self.read(&path)? == "1")) }
    }

    /// Whether links of the host may have IPv6: the kernel has it, and nobody switched it off for all.
    pub fn ipv6(&self) -> Result<bool, SysctlError> {
        let path = self.root.join("net/ipv6/conf/all/disable_ipv6");
        Ok(path.exists() && self.read(&path)? == "0")
    }

    /// The links that take addresses and routes from router advertisements and would cease to when the host forwards
    /// (`accept_ra` 1, in the kernel's `ip-sysctl`).
    pub fn advised_links(&self) -> Result<Vec<String>, SysctlError> {
        let folder = self.root.join("net/ipv6/conf");
        let read = |source| SysctlError::Read { path: folder.clone(), source };
        let mut links = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(read)? {
            let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
            // A link may go between two reads.
            let accepts = |name: &str| self.read(&folder.join(name).join("accept_ra")).is_ok_and(|value| value == "1");
            if !matches!(name.as_str(), "all" | "default" | "lo") && accepts(&name) {
                links.push(name);
            }
        }
        links.sort();
        Ok(links)
    }

    /// Lets the host forward IPv6. `advised` go on taking router advertisements: their `accept_ra` is made 2 first, or the
    /// kernel would forget the routes that it has from them.
    pub fn enable_ipv6_forward(&self, advised: &[String]) -> Result<(), SysctlError> {
        for link in advised {
            self.write(&self.conf("ipv6", link)?.join("accept_ra"), "2")?;
        }
        self.write(&self.root.join("net/ipv6/conf/all/forwarding"), "1")
    }

    /// Lets a container's link take nothing from router advertisements: a neighbour must not become its router.
    pub(super) fn ignore_advertisements(&self, link: &str) -> Result<(), SysctlError> {
        self.write(&self.conf("ipv6", link)?.join("accept_ra"), "0")
    }

    /// Whether the switch is in its position. A kernel without IPv6 has nothing to switch off and counts as switched.
    pub fn bridge_switch(&self, bridge: &str, switch: BridgeSwitch) -> Result<bool, SysctlError> {
        match self.switch_path(bridge, switch)? {
            Some(path) => Ok(self.read(&path)? == switch.value()),
            None => Ok(true),
        }
    }

    /// Puts the switch into its position.
    pub fn enable_bridge_switch(&self, bridge: &str, switch: BridgeSwitch) -> Result<(), SysctlError> {
        match self.switch_path(bridge, switch)? {
            Some(path) => self.write(&path, switch.value()),
            None => Ok(()),
        }
    }

    /// Puts every switch right that a bridge with this IPv6 address needs.
    pub fn enable_bridge_switches(&self, bridge: &str, address6: Option<Ipv6Net>) -> Result<(), SysctlError> {
        BridgeSwitch::with(address6).iter().try_for_each(|switch| self.enable_bridge_switch(bridge, *switch))
    }

    fn switch_path(&self, bridge: &str, switch: BridgeSwitch) -> Result<Option<PathBuf>, SysctlError> {
        let conf = self.conf(switch.family(), bridge)?;
        let absent = switch == BridgeSwitch::DisableIpv6 && !self.root.join("net/ipv6").exists();
        Ok((!absent).then(|| conf.join(switch.name())))
    }

    /// The folder of a link's settings.
    fn conf(&self, family: &str, link: &str) -> Result<PathBuf, SysctlError> {
        if link.is_empty() || link == "." || link == ".." || link.contains('/') {
            return Err(SysctlError::Name { name: link.to_owned() });
        }
        Ok(self.root.join("net").join(family).join("conf").join(link))
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
    fn links_that_are_advised_stay_so_when_the_host_forwards() {
        let root = tempfile::tempdir().unwrap();
        let conf = root.path().join("net/ipv6/conf");
        for (link, value) in [("all", "1"), ("default", "1"), ("lo", "1"), ("eth0", "1"), ("eth1", "0")] {
            std::fs::create_dir_all(conf.join(link)).unwrap();
            std::fs::write(conf.join(link).join("accept_ra"), value).unwrap();
        }
        std::fs::write(conf.join("all/forwarding"), "0").unwrap();
        let sysctls = Sysctls::new(root.path());
        let advised = sysctls.advised_links().unwrap();
        assert_eq!(advised, ["eth0"]);
        sysctls.enable_ipv6_forward(&advised).unwrap();
        assert_eq!(std::fs::read_to_string(conf.join("eth0/accept_ra")).unwrap(), "2");
        assert_eq!(sysctls.ipv6_forward().unwrap(), Some(true));
    }

    #[test]
    fn a_name_cannot_leave_its_directory() {
        let error = Sysctls::new("/nowhere").enable_bridge_switch("../all", BridgeSwitch::RouteLocalnet);
        assert!(matches!(error, Err(SysctlError::Name { .. })));
    }
}
