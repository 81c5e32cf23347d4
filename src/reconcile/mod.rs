//! The road that every command goes: observe, diff, plan, execute, and observe again.

mod actual;
mod changes;
mod diff;
mod execute;
mod exposure;
mod generation;
mod host;
mod library;
mod lockfile;
mod plan_file;
mod preflight;
mod road;
mod step;
pub mod why;

pub use crate::build::BuildEvent;
pub use crate::monitor::events::{Actor, EventLog, EventRecord, EventTail};
pub use crate::monitor::status::ProcessId;
pub use crate::runtime::container::{Executed, TerminalSize, reexec_protected as protect_this_program};
pub use crate::runtime::image::registry::{Progress as PullProgress, RegistryOptions, Silent};
pub use crate::runtime::image::{
    ImageConfig, ImageError, ImageLayer, ImageOrigin, LayerDigest, Reference, StoreHold, StoredImage,
};
pub use crate::runtime::overlay::{OverlayEntry, OverlayEntryKind, TreeAspect, TreeDifference, TreeSize};
pub use crate::runtime::sys::async_fd::readable;
pub use actual::{
    Actual, ActualBridge, ActualCgroup, ActualContainer, ActualLink, ActualNat, ActualResolver, ActualRoot, Change,
    HealthState, KernelLimits, Phase, RunFacts, StoredContainer,
};
pub use changes::hosts_text;
pub use diff::{HostFacts, Volumes, diff};
pub use execute::{Event, Failure, Report, execute};
pub use exposure::{Exposure, Protocols, Reach, Way};
pub use generation::{
    Change as GenerationChange, Generation, GenerationError, Generations, KeptVariable, before, changes, running,
};
pub use host::{
    Awaited, Brought, ExecFailure, ExecWish, Given, Host, HostError, LinuxHost, LockError, Renewal, Roots, StackLock,
    SyncWish, Synced, Usage, labels, turn,
};
pub use host::{BuildWatch, Rebuild, capacity};
pub use library::{Checked, ImageDifference, ImageLibrary, LibraryError, PruneWish, Pruned};
pub use lockfile::{ImageLock, ImageLockError};
pub use plan_file::{PlanFile, PlanFileError, seen};
pub use road::{Looked, RoadError, Travelled, Wish, look, travel};
pub use step::{Action, AdjustContainer, LinksOf, Plan, Reactions, Roll, Step, Verb};
