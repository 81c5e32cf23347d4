//! Builds images: a [`Build`](crate::model::Build) and the images it rests on become a plan of steps with keys, and the
//! plan becomes an image of the store.
//!
//! Deciding: [`plan`] (what each step does, and its key), `ignore` (patterns), `key`. Doing: [`run`] (steps in their
//! order, with what was kept of earlier builds), `tree` (reads what is copied), `step`, `copy` and `clear` (one step, in a process
//! of its own, see [`step_main`]), `record` (what is remembered).

mod bootstrap;
mod clear;
mod copy;
mod ignore;
mod key;
mod plan;
mod record;
mod run;
mod step;
mod tree;

pub use plan::{BaseFacts, Bases, BuildPlan, PlanError, Planned, plan};
pub use record::Unbuilt;
pub use run::{BuildError, BuildEvent, Builder, StepRuntime};
pub use step::{is_step, step_main};
