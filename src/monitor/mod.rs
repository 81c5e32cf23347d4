//! One small process per container: its parent, its log, its health, its restarts.

pub mod channel;
pub mod health;
pub mod log;
pub mod policy;
pub mod probe;
pub mod spec;
pub mod status;
