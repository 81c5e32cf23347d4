//! The OCI runtime specification's documents as types.
