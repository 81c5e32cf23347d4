//! What `stack watch` does between two runs of the road: it waits for a change, decides what is downstream of it, and has
//! just that done.
//!
//! ```text
//! inotify ─▶ debounce ─▶ what differs on disk ─▶ jobs ─▶ guard ─▶ the road │ sync │ restart, signal, command
//!    ▲                                                                          │
//!    └──────────────── which folders to watch, worked out anew ◀────────────────┘
//! ```
//!
//! The kernel only says where to look; what changed is found by holding files against what was there before, so an event
//! too many does nothing and a lost one is made good by the next look. Deciding and doing are apart:
//!
//! | file | what it is |
//! |---|---|
//! | [`inputs`] | which files and folders a stack hangs on, and what each is for |
//! | [`places`], [`tree`] | which folders tell of a path; a folder's files and what became of them |
//! | [`decide`], [`guard`], [`drift`] | from differences to jobs; jobs that provoke themselves; what is repaired when |
//! | `notice`, `sight` | inotify; what is watched, as it was at the last look |
//! | `run`, `work` | the loop; what it has done |

pub mod decide;
pub mod drift;
pub mod guard;
pub mod inputs;
mod notice;
pub mod places;
mod run;
mod sight;
pub mod tree;
mod work;

pub use notice::NoticeError;
pub use run::{Options, Outcome, Stop, WatchError, watch};
pub use work::{Cause, Told};
