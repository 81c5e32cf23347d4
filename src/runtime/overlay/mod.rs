//! Layers seen as one tree: mounted by the kernel ([`OverlayMount`]), or computed without it ([`OverlayFs`]).
//!
//! Both follow the kernel's rules (kernel documentation, `filesystems/overlayfs.rst`); a test mounts random layers and
//! holds one against the other. Copy-up is left to the kernel.

mod compare;
mod entry;
mod layer;
mod mount;
mod view;

pub use compare::{TreeAspect, TreeDifference, TreeSize, layer_differences};
pub use entry::{OverlayEntry, OverlayEntryKind};
pub use layer::{MemoryTree, OverlayLayer, WhiteoutForm};
pub use mount::{OverlayMount, OverlayPlan, OverlayStep, OverlayStopped, OverlaySupport};
pub use view::OverlayFs;

use std::path::PathBuf;

/// Why layers cannot be seen or mounted as one tree.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` is not a path of an overlay: it is empty, too long or contains NUL", path.display())]
    Path { path: PathBuf },
    #[error("`{}` is not a path within the tree", path.display())]
    Outside { path: PathBuf },
    #[error("an overlay needs at least one lower layer")]
    NoLower,
    #[error("{layers} layers need {bytes} bytes of mount options; before Linux 6.7 they must fit in {limit}")]
    Options { layers: usize, bytes: usize, limit: usize },
}
