//! Starting a created container.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::runtime::container::detached::start_outcome;

use super::create::{Point, run_hooks, short_path};
use super::end::{destroy, end_process};
use super::{Container, LifecycleError, Status};

/// Let the container's program run, and return once it does. Anything but a created container is left as it is.
pub fn start(container: &Container) -> Result<(), LifecycleError> {
    if container.status != Status::Created {
        return Err(container.refuse("start"));
    }
    let config = container.place.config()?;
    let id = &container.record.id;
    if config.process.is_none() {
        return Err(LifecycleError::NoProcess { id: id.clone() });
    }
    let connection = connect_to(container).map_err(LifecycleError::system(format!("reach the process of `{id}`")))?;
    let _ = fs::remove_file(container.place.start_socket());
    start_outcome(connection.as_fd(), &container.record.steps, container.record.first_step)
        .map_err(|source| LifecycleError::Spawn { source })?;
    let state = container.record.state(super::OciLifecycleState::Running);
    run_hooks(&config, Point::Poststart, &state).inspect_err(|_| {
        // As the specification has it: the container is stopped, and it is for the caller to delete what is left.
        end_process(&container.record);
        let _ = destroy(container, &config);
    })
}

fn connect_to(container: &Container) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let directory = fs::File::open(container.place.path())?;
    connect(&socket, &SocketAddrUnix::new(short_path(&directory))?)?;
    Ok(socket)
}
