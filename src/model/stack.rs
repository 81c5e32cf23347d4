//! A checked stack: every name resolved, every unit parsed, every reference known to lead somewhere.

use std::collections::HashMap;
use std::path::PathBuf;

use indexmap::IndexMap;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{Build, Container, ImageReference, Limits, Name};

/// What one stack file says.
#[derive(Clone, Debug)]
pub struct Stack {
    pub name: Name,
    pub images: IndexMap<Name, Image>,
    pub bridges: IndexMap<Name, Bridge>,
    pub cgroups: IndexMap<Name, CgroupBranch>,
    pub volumes: IndexMap<Name, Volume>,
    pub containers: IndexMap<Name, Container>,
    pub origins: Origins,
}

/// Where in the files a value came from, by its dotted path such as `container.web.memory`.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// The file as it was named on the command line.
    pub file: String,
    /// The files that it includes, as they are called in messages.
    pub included: Vec<String>,
    pub lines: HashMap<String, Line>,
}

/// A line of one of a stack's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// 0 is the file that was named, 1 the first of `included`.
    pub file: u16,
    /// From 1.
    pub line: u32,
}

impl Stack {
    /// The bridge by which a container's default route leads and by which its published ports lead to it. `None` where it
    /// is on internal bridges alone, or on none.
    pub fn way_out<'a>(&self, container: &'a Container) -> Option<&'a Name> {
        let leads_out = |name: &&Name| self.bridges.get(*name).is_some_and(|bridge| !bridge.internal);
        container.gateway.as_ref().or_else(|| container.bridges.iter().find(leads_out))
    }
}

/// A line of the stack file, for "why" in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub file: String,
    pub line: u32,
}

impl Origins {
    /// The place of `path`, or of the nearest enclosing table that the file wrote.
    pub fn place(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                let included = usize::from(line.file).checked_sub(1).and_then(|index| self.included.get(index));
                return Some(Place { file: included.unwrap_or(&self.file).clone(), line: line.line });
            }
            path = &path[..path.rfind('.')?];
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What a container is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub source: ImageSource,
    pub pull: Pull,
}

/// When the registry of an image is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pull {
    /// Where the image is not in the store, or another one is locked.
    #[default]
    Missing,
    /// In every run.
    Always,
    /// The image must be in the store.
    Never,
}

/// Where an image comes from. Paths are absolute: those of the file are taken from the file's own folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageSource {
    /// The host's own `/usr`, read-only, under a generated skeleton.
    Host,
    /// A root file system in a folder, used as it is.
    Dir(PathBuf),
    /// An OCI image layout; `tag` picks one of several images in it.
    OciLayout { path: PathBuf, tag: Option<String> },
    /// An OCI image layout in a tar archive.
    OciArchive { path: PathBuf, tag: Option<String> },
    /// What `docker save` writes.
    DockerArchive { path: PathBuf, tag: Option<String> },
    /// An image of a registry.
    Registry(ImageReference),
    /// One that is built here.
    Build(Box<Build>),
}

/// What a link must carry, in bytes, to have IPv6 (RFC 8200 5).
pub const IPV6_MIN_MTU: u32 = 1280;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// `None`: a free one is chosen and kept.
    pub subnet: Option<Ipv4Net>,
    /// `None`: one is derived from the names, where the bridge carries IPv6.
    pub subnet6: Option<Ipv6Net>,
    /// Whether it carries IPv6 beside IPv4, where the host does and the MTU lets it.
    pub ipv6: bool,
    /// Whether no way leads out of it or in: its containers reach each other and the host.
    pub internal: bool,
    /// Bytes; `None`: the kernel's default of 1500.
    pub mtu: Option<u32>,
}

/// A branch of the cgroup tree that several containers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupBranch {
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {}

/// Limits on one block device, per second; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoLimit {
    /// A device node such as `/dev/vda`.
    pub device: PathBuf,
    /// Bytes.
    pub read_bps: Option<u64>,
    pub write_bps: Option<u64>,
    /// Operations.
    pub read_iops: Option<u64>,
    pub write_iops: Option<u64>,
}
