//! Containers on the real kernel, as root: what a program in one sees, what it cannot do, how it ends. Debian's package
//! `busybox-static` is the image.

#[path = "container/attacks.rs"]
mod attacks;
#[path = "container/bundle.rs"]
mod bundle;
#[path = "container/exec.rs"]
mod exec;
#[path = "container/lifetime.rs"]
mod lifetime;
#[path = "container/view.rs"]
mod view;
