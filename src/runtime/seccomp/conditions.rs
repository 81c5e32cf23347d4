//! When a rule of a profile is there: by capabilities, architecture and kernel.

use serde::Deserialize;

use super::Architecture;

/// Names of architectures in conditions (Go's, as docker's profile has them, and those of the sub-architectures).
pub const ARCHITECTURES: [&str; 17] = [
    "amd64", "x86", "x32", "386", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "ppc", "riscv64", "s390", "s390x",
];

/// When a rule is there: `includes` wants all, `excludes` wants none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conditions {
    #[serde(default, deserialize_with = "super::profile::or_default")]
    pub caps: Vec<String>,
    #[serde(default, deserialize_with = "super::profile::or_default")]
    pub arches: Vec<String>,
    /// `"4.8"`
    #[serde(default)]
    pub min_kernel: Option<String>,
}

/// What conditions are decided by, besides the machine's architecture.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// `CAP_…`, the bounding set.
    pub caps: &'a [&'a str],
    /// Major and minor version.
    pub kernel: (u32, u32),
}

impl Circumstances<'_> {
    /// Why a rule with these conditions is not there; `None` if it is.
    pub(super) fn why_not(&self, includes: &Conditions, excludes: &Conditions) -> Option<String> {
        let is_here = |arch: &String| Architecture::native().is_some_and(|native| *arch == native.go_name());
        let has_cap = |cap: &&String| self.caps.contains(&cap.as_str());
        let reaches = |version: &&String| kernel_version(version).is_some_and(|least| self.kernel >= least);
        if let Some(cap) = includes.caps.iter().find(|cap| !has_cap(cap)) {
            return Some(format!("only with {cap}"));
        }
        if let Some(cap) = excludes.caps.iter().find(has_cap) {
            return Some(format!("only without {cap}"));
        }
        if let Some(version) = includes.min_kernel.as_ref().filter(|version| !reaches(version)) {
            return Some(format!("only from Linux {version} on"));
        }
        if let Some(version) = excludes.min_kernel.as_ref().filter(reaches) {
            return Some(format!("only before Linux {version}"));
        }
        let is_elsewhere = !includes.arches.is_empty() && !includes.arches.iter().any(is_here);
        (is_elsewhere || excludes.arches.iter().any(is_here)).then(|| "only on other architectures".to_owned())
    }
}

pub fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
