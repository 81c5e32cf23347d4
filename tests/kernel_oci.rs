//! The runtime's command line on the real kernel, as root: the life of a container as the specification has it, what fails leaves
//! nothing behind, what images would like to do to the host. Debian's package `busybox-static` is the image.

#[path = "oci/attacks.rs"]
mod attacks;
#[path = "oci/bundle.rs"]
mod bundle;
#[path = "oci/commands.rs"]
mod commands;
#[path = "oci/configuration.rs"]
mod configuration;
#[path = "oci/lifecycle.rs"]
mod lifecycle;
#[path = "oci/misses.rs"]
mod misses;
#[path = "oci/mounts.rs"]
mod mounts;
#[path = "oci/namespaces.rs"]
mod namespaces;
#[path = "oci/seccomp.rs"]
mod seccomp;
#[path = "oci/systemd.rs"]
mod systemd;
#[path = "oci/terminal.rs"]
mod terminal;
