//! TOML text to a checked `Stack`, or to diagnostics with the place, the cause and the cure.
