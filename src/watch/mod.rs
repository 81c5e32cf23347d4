//! Triggers that send the same road round again.
