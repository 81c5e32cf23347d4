//! Name service for one stack, on the gateway addresses of its bridges: UDP and TCP, port 53.
//!
//! Two processes of this program, in the host's network namespace: a keeper, and the one that answers, which the keeper
//! starts again when it ends. Like a monitor they have one thread and no async runtime.
//!
//! | file | what it is |
//! |---|---|
//! | `answer` | which question has which answer; pure |
//! | `message` | messages as bytes; pure |
//! | `cache` | what others answered; pure |
//! | `presence` | which instances are well |
//! | `servers`, `forward` | the host's name servers; asking them |
//! | `connection` | TCP |
//! | `serve`, `keeper` | the two processes |
//! | [`spec`], [`client`] | what lies in the resolver's folder; the side of `up` |

mod answer;
mod cache;
pub mod client;
mod connection;
mod forward;
mod keeper;
mod message;
mod presence;
mod serve;
mod servers;
pub mod spec;

use std::ffi::{CStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// The first argument that makes this program a resolver. The second is the resolver's folder.
pub const PROGRAM: &CStr = c"stack-resolver";
/// The third, of the process that answers. The fourth is its keeper's number.
const SERVE: &CStr = c"serve";
const PORT: u16 = 53;
/// The status of a process that could not listen.
const NOT_STARTED: u8 = 69;

/// Runs as a resolver, given all arguments of the process. Call it before anything else is set up.
///
/// 64 when it was not started by [`client::run`].
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (folder, role, keeper) = (arguments.nth(1), arguments.next(), arguments.next());
    let keeper = keeper.and_then(|keeper| keeper.to_str()?.parse().ok());
    match (folder, role, keeper) {
        (Some(folder), None, _) => keeper::run(Path::new(&folder)),
        (Some(folder), Some(role), Some(keeper)) if role.as_encoded_bytes() == SERVE.to_bytes() => {
            serve::run(Path::new(&folder), keeper)
        }
        _ => ExitCode::from(64),
    }
}

/// Whether a process with this first argument is to be a resolver.
pub fn is_resolver(program: &OsString) -> bool {
    program.as_encoded_bytes() == PROGRAM.to_bytes()
}
