//! The name of a control group, relative to the root of every hierarchy: checked once, then carried as proof.

use std::fmt;
use std::path::Path;

/// Longest path accepted, in bytes; the kernel's own bound is PATH_MAX minus where the hierarchy is mounted.
const PATH_LIMIT: usize = 2048;
/// NAME_MAX of kernfs.
const COMPONENT_LIMIT: usize = 255;

/// Why a text names no control group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupPathError {
    #[error("a cgroup path must not be empty")]
    Empty,
    #[error("the cgroup path `{path}` has an empty component")]
    EmptyComponent { path: String },
    #[error("the cgroup path `{path}` must not contain `{component}`")]
    Component { path: String, component: String },
    #[error("the cgroup path `{path}` is longer than the kernel takes")]
    TooLong { path: String },
}

/// A control group below the root of each hierarchy, such as `stack/shop/backend/web`.
///
/// Never empty, never absolute, without `.` and `..`, so that joining it to a mount point cannot leave the mount.
/// Components that start with `cgroup.` are refused as the kernel keeps those names for its files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Checks `path`.
    pub fn new(path: impl Into<String>) -> Result<Self, CgroupPathError> {
        let path = path.into();
        if path.is_empty() {
            return Err(CgroupPathError::Empty);
        }
        if path.len() > PATH_LIMIT || path.split('/').any(|component| component.len() > COMPONENT_LIMIT) {
            return Err(CgroupPathError::TooLong { path });
        }
        for component in path.split('/') {
            if component.is_empty() {
                return Err(CgroupPathError::EmptyComponent { path });
            }
            let reserved = matches!(component, "." | "..") || component.starts_with("cgroup.");
            if reserved || component.contains(|c: char| c.is_control()) {
                return Err(CgroupPathError::Component { component: component.into(), path });
            }
        }
        Ok(Self(path))
    }

    /// The group `component` (one or several levels) below this one.
    pub fn join(&self, component: &str) -> Result<Self, CgroupPathError> {
        Self::new(format!("{}/{component}", self.0))
    }

    /// The group above, `None` for a group directly below the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The whole path as text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The groups from the topmost down to this one: `a`, `a/b`, `a/b/c`.
    pub fn lineage(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.match_indices('/').map(|(at, _)| at).chain(std::iter::once(self.0.len()));
        ends.map(|end| &self.0[..end])
    }
}

impl AsRef<Path> for CgroupPath {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_the_hierarchy() {
        for bad in ["", "/", "/a", "a/", "a//b", "..", "a/../b", ".", "a/./b", "a/cgroup.procs", "a\nb"] {
            assert!(CgroupPath::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(CgroupPath::new("x".repeat(256)).is_err());
        assert!(CgroupPath::new("stack/shop/backend/web-1").is_ok());
    }

    #[test]
    fn the_lineage_goes_from_the_top_to_the_group() {
        let path = CgroupPath::new("stack/shop/web").unwrap();
        assert_eq!(path.lineage().collect::<Vec<_>>(), ["stack", "stack/shop", "stack/shop/web"]);
        assert_eq!(path.parent().unwrap().as_str(), "stack/shop");
        assert_eq!(path.name(), "web");
        assert_eq!(CgroupPath::new("stack").unwrap().parent(), None);
    }
}
