//! `stack`: containers on one Linux host from a TOML file.
//!
//! The map of the house, in reading order. A room may use those to its right, never those to its left
//! (`tests/tidy.rs` holds this):
//!
//! `cli → watch → reconcile → plan → file → model`, `reconcile → monitor → runtime`; `runtime` knows no stacks.

pub mod cli;
pub mod file;
pub mod model;
pub mod monitor;
pub mod plan;
pub mod reconcile;
pub mod runtime;
pub mod watch;
