//! Debian's podman and docker with this runtime under them. Each session is a shell script in mount, network and process
//! namespaces of its own, with storage of its own; images are made of `busybox-static`, and no registry is asked.

#[path = "oci/bundle.rs"]
#[allow(dead_code, reason = "only the root of an image is made with it")]
mod bundle;
#[path = "engines/session.rs"]
mod session;

use session::Session;

#[test]
fn podman_runs_containers_through_it() {
    Session { programs: &["podman", "conmon", "script"], engine: PODMAN, script: include_str!("engines/podman.sh") }
        .run();
}

#[test]
fn podman_runs_pods_through_it() {
    Session { programs: &["podman", "conmon"], engine: PODMAN, script: include_str!("engines/podman_pods.sh") }.run();
}

#[test]
fn docker_runs_containers_through_it() {
    Session {
        programs: &["dockerd", "containerd", "script"],
        engine: DOCKER,
        script: include_str!("engines/docker.sh"),
    }
    .run();
}

#[test]
fn docker_changes_and_ends_containers_through_it() {
    Session { programs: &["dockerd", "containerd"], engine: DOCKER, script: include_str!("engines/docker_life.sh") }
        .run();
}

const PODMAN: &str = include_str!("engines/podman_engine.sh");
const DOCKER: &str = include_str!("engines/docker_engine.sh");
