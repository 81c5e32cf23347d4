//! The pure part of the road: a checked stack and what was found out about its images become [`Desired`], what the
//! host should hold, with every choice made: addresses, link names, digests, the order of things.

mod address;
mod desire;
mod desired;
mod generation;
mod label;
mod network;
mod picture;
mod promise;
mod spec;
mod zone;

pub use address::{AddressError, choose_subnet, choose_subnet6, hand_out};
pub use desire::{DesireError, Kept, Resolved, ResolvedImage, bridge_ifname_prefix, desire, instances};
pub use desired::{
    Desired, DesiredBridge, DesiredContainer, DesiredNat, Kind, Order, PortTarget, ResourceId, ServiceTarget,
    UpdatePlan,
};
pub use generation::{Held, generations, slot_of};
pub use label::{Label, LabelError};
pub use picture::{Graph, graph};
pub use promise::{Capacity, bytes, promises};
pub use spec::{
    ContainerSpec, ContentSpec, Endpoint, FileSpec, HostsLine, ImageIdentity, LiveSpec, SeccompSpec, SecretSpec,
    digest_of,
};
pub use zone::{DnsSpec, Zone, ZoneBridge, ZoneInstance, ZonePlace, ZoneService};
