//! Links, addresses, NAT and names.
//!
//! - `links`, `link`: bridges and veth pairs; `endpoint`: a container's side of them; `route`, `mac`, `sysctl`.
//! - `device`: devices of the host that move into a container.
//! - `nat`: which port of the host leads where, as a pure table; `nft`: that table on the kernel, as one transaction.
//! - `conntrack`: flows that must be forgotten when a port moves.
//! - `netlink`: the transport under all of them.

mod conntrack;
mod device;
mod endpoint;
mod link;
mod links;
mod mac;
mod nat;
mod netlink;
mod nft;
mod route;
mod sysctl;

pub use device::{DeviceError, move_device};
pub use endpoint::{
    DefaultRoute, EndpointConfig, EndpointDifference, EndpointError, ObservedEndpoint, configure_endpoint,
    endpoint_differences, in_netns, loopback_up, observe_endpoint,
};
pub use link::{BridgeSpec, MAX_ALIAS, MAX_INTERFACE_NAME, ObservedLink, VethSpec};
pub use links::{LinkError, Links, has_address};
pub use mac::generate_veth_mac;
pub use nat::{
    ADDRESS_PORTS, ADDRESS_PORTS6, LOOPBACK_PORTS, LOOPBACK_PORTS6, NatBind, NatBridge, NatPortMapping, NatProtocol,
    NatTable, PUBLIC_PORTS, PUBLIC_PORTS6, SHUT_TABLE, SHUT_TABLE6, shut, shut6,
};
pub use netlink::NetlinkError;
pub use nft::{
    BaseChain, Chain, ElementsChange, Expression, FieldType, FieldTypes, Hook, Inverted, LabelledTable, MAX_COMMENT,
    MAX_TABLE_NAME, NatDifference, Nft, NftError, ObservedTable, Policy, Register, Rule, Ruleset, Set, TableState,
    differences,
};
pub use route::{Route, routes};
pub use sysctl::{BridgeSwitch, SysctlError, Sysctls};
