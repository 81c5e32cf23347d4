//! `stack`: containers on one Linux host from a TOML file. No daemon, no other engine, no program run on the way.
//!
//! The map of the house, in reading order. Read it from the noun to the deed:
//!
//! | room | what it is |
//! |---|---|
//! | [`model`] | the nouns of a checked stack: names, units, containers, bridges, ports; no I/O |
//! | [`mod@file`] | TOML text → [`model::Stack`], or every fault with its place, its cause and its cure |
//! | [`plan`] | a stack → [`plan::Desired`]: every choice made, from addresses to digests; pure |
//! | [`reconcile`] | the one road: [`look`](reconcile::look) observes, desires and diffs; [`travel`](reconcile::travel) executes and looks again |
//! | [`build`] | builds images: a plan of steps with keys, and its execution, each step in a process of its own |
//! | [`monitor`] | one small process a container: its parent, log, health and restarts |
//! | [`runtime`] | the core that knows no stacks: images, overlays, cgroups, links, NAT, seccomp, containers |
//! | [`watch`] | triggers that send the road round again; empty so far |
//! | [`cli`] | one file a command; the only place that prints, and where errors become exit statuses |
//!
//! A room may use those to its right, never those to its left: `cli → watch → reconcile → plan → file → model`,
//! `reconcile → monitor → runtime`, `reconcile → build → model, runtime`, and `runtime` uses nothing of the house but itself. `tests/tidy.rs` holds this.
//! Inside [`runtime`] the order is `sys` (the only `unsafe`), `oci`, `image`, `overlay`, `cgroup`, `net`, `seccomp`,
//! `container`.
//!
//! `docs/architecture.md` tells one `up` as a story; `docs/decisions/` says why things are as they are.

pub mod build;
pub mod cli;
pub mod file;
pub mod model;
pub mod monitor;
pub mod plan;
pub mod reconcile;
pub mod runtime;
pub mod watch;
