//! The life of a container (runtime-spec runtime.md): its states, and which operation is allowed in which.
//!
//! ```text
//! creating ─→ created ─start→ running ─(the process ends)→ stopped ─delete→ gone
//!                  └────────────── kill ─────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `status` of the state document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OciLifecycleState {
    Creating,
    Created,
    Running,
    Stopped,
}

/// What a caller may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OciOperation {
    Start,
    Kill,
    Delete,
}

impl OciLifecycleState {
    /// Whether the specification allows `operation` now; if not, it must fail and change nothing.
    pub fn allows(self, operation: OciOperation) -> bool {
        match operation {
            OciOperation::Start => self == Self::Created,
            OciOperation::Kill => matches!(self, Self::Created | Self::Running),
            OciOperation::Delete => self == Self::Stopped,
        }
    }
}

/// The state document, as hooks get it and `state` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciContainer {
    pub oci_version: String,
    pub id: String,
    pub status: OciLifecycleState,
    /// Of the container's process, in the reader's pid namespace; required while created and running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Absolute.
    pub bundle: PathBuf,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What the agent of a seccomp listener is told (runtime-spec config-linux.md, "The Container Process State").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciContainerProcessState {
    pub oci_version: String,
    /// What the descriptors that come along are.
    pub fds: Vec<String>,
    /// Of the process that has the filter, as the runtime numbers it.
    pub pid: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    pub state: OciContainer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_created_container_starts_and_only_a_stopped_one_is_deleted() {
        use OciLifecycleState::{Created, Creating, Running, Stopped};
        let allowed = |operation| -> Vec<_> {
            [Creating, Created, Running, Stopped].into_iter().filter(|state| state.allows(operation)).collect()
        };
        assert_eq!(allowed(OciOperation::Start), [Created]);
        assert_eq!(allowed(OciOperation::Kill), [Created, Running]);
        assert_eq!(allowed(OciOperation::Delete), [Stopped]);
    }
}
