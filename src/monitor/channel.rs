//! What `up` and a new monitor say to each other, over a pair of SOCK_SEQPACKET sockets: one message, one datagram.
//!
//! ```text
//!   up ── spawn ─────────▶ monitor    joins its cgroup, makes the network namespace
//!   up ◀─ NetReady{pid} ── monitor    `up` puts the links into the namespace of `pid`
//!   up ── Go ────────────▶ monitor    starts the container
//!   up ◀─ Started{pid} ─── monitor    or Failed{text}; the monitor closes its end either way
//! ```
//!
//! An end of file before `Go` is a dead `up`: the monitor exits, and with it goes all that it made.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use serde::{Deserialize, Serialize};

/// No message is longer, in bytes; a longer one is refused by the one who reads it.
pub const MAX_MESSAGE: usize = 8 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The namespace of `pid`, which is the monitor, waits for its links.
    NetReady {
        pid: i32,
    },
    Go,
    /// The container runs; `pid` is its PID 1 as the host numbers it.
    Started {
        pid: i32,
    },
    /// It does not, and the monitor is about to exit.
    Failed {
        text: String,
    },
}

/// Why a message did not get through.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("cannot send to the other side")]
    Send { source: Errno },
    #[error("cannot hear the other side")]
    Receive { source: Errno },
    #[error("a message of the other side cannot be read")]
    Parse { source: serde_json::Error },
    #[error("a message of the other side is longer than {max} bytes", max = MAX_MESSAGE)]
    TooLong,
}

/// Sends one message.
pub fn send_message(socket: impl AsFd, message: &Message) -> Result<(), ChannelError> {
    let bytes = serde_json::to_vec(message).map_err(|source| ChannelError::Parse { source })?;
    if bytes.len() > MAX_MESSAGE {
        return Err(ChannelError::TooLong);
    }
    // A datagram is taken whole or not at all.
    send(socket.as_fd().as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)
        .map(drop)
        .map_err(|source| ChannelError::Send { source })
}

/// Receives one message. `None`: the other side is gone. On a socket that does not block, `Receive` with EAGAIN is
/// "nothing yet".
pub fn receive_message(socket: impl AsFd) -> Result<Option<Message>, ChannelError> {
    // One byte more, so that a message that is too long shows as such.
    let mut bytes = vec![0; MAX_MESSAGE + 1];
    let length = loop {
        match recv(socket.as_fd().as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(length) => break length,
            Err(Errno::EINTR) => {}
            // A peer that died with our message unread.
            Err(Errno::ECONNRESET) => return Ok(None),
            Err(source) => return Err(ChannelError::Receive { source }),
        }
    };
    match length {
        0 => Ok(None),
        _ if length > MAX_MESSAGE => Err(ChannelError::TooLong),
        _ => serde_json::from_slice(&bytes[..length]).map(Some).map_err(|source| ChannelError::Parse { source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn messages_keep_their_borders() {
        let (ours, theirs) = pair();
        let messages = [Message::NetReady { pid: 7 }, Message::Go, Message::Failed { text: "é\n".into() }];
        for message in &messages {
            send_message(&ours, message).unwrap();
        }
        for message in messages {
            assert_eq!(receive_message(&theirs).unwrap(), Some(message));
        }
        drop(ours);
        assert_eq!(receive_message(&theirs).unwrap(), None);
    }

    #[test]
    fn a_dead_peer_is_an_error_and_no_signal() {
        let (ours, theirs) = pair();
        drop(theirs);
        assert!(matches!(send_message(&ours, &Message::Go), Err(ChannelError::Send { source: Errno::EPIPE })));
    }

    #[test]
    fn what_is_too_long_or_no_message_is_refused() {
        let (ours, theirs) = pair();
        let text = "x".repeat(MAX_MESSAGE);
        assert!(matches!(send_message(&ours, &Message::Failed { text }), Err(ChannelError::TooLong)));
        send(ours.as_raw_fd(), &vec![b'x'; MAX_MESSAGE + 9], MsgFlags::empty()).unwrap();
        assert!(matches!(receive_message(&theirs), Err(ChannelError::TooLong)));
        send(ours.as_raw_fd(), b"{}", MsgFlags::empty()).unwrap();
        assert!(matches!(receive_message(&theirs), Err(ChannelError::Parse { .. })));
    }
}
