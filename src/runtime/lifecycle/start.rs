//! Starting a created container.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::runtime::container::SeccompAgent;
use crate::runtime::container::detached::{start_notifying, start_outcome};
use crate::runtime::oci::{OciConfig, OciContainerProcessState};

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
    let agent = seccomp_agent(container, &config)?;
    let connection = connect_to(container).map_err(LifecycleError::system(format!("reach the process of `{id}`")))?;
    let _ = fs::remove_file(container.place.start_socket());
    let record = &container.record;
    let outcome = match &agent {
        None => start_outcome(connection.as_fd(), &record.steps, record.first_step),
        Some(agent) => {
            let process = (record.init_process_pid, agent);
            start_notifying(connection.as_fd(), &record.steps, record.first_step, process)
        }
    };
    outcome.map_err(|source| LifecycleError::Spawn { source })?;
    let state = container.record.state(super::OciLifecycleState::Running);
    run_hooks(&config, Point::Poststart, &state).inspect_err(|_| {
        // As the specification has it: the container is stopped, and it is for the caller to delete what is left.
        end_process(&container.record);
        let _ = destroy(container, &config);
    })
}

/// Connected before the process is let go: without its agent it must not run. `None`: the filter asks nobody.
pub fn seccomp_agent(container: &Container, config: &OciConfig) -> Result<Option<SeccompAgent>, LifecycleError> {
    let Some(section) = config.linux.as_ref().and_then(|linux| linux.seccomp.as_ref()) else { return Ok(None) };
    let Some(path) = section.listener_path.as_deref().filter(|_| section.notifies()) else { return Ok(None) };
    let state = OciContainerProcessState {
        oci_version: container.record.oci_version.clone(),
        fds: vec!["seccompFd".to_owned()],
        pid: 0,
        metadata: section.listener_metadata.clone(),
        state: container.state(),
    };
    let path = Path::new(path);
    let failed = |source| LifecycleError::SeccompAgent { path: path.to_owned(), source };
    SeccompAgent::connect(path, state).map(Some).map_err(failed)
}

fn connect_to(container: &Container) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let directory = fs::File::open(container.place.path())?;
    connect(&socket, &SocketAddrUnix::new(short_path(&directory))?)?;
    Ok(socket)
}
