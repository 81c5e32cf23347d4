//! The transport under links, addresses, routes, nftables and conntrack: one blocking netlink socket, requests gathered
//! into batches that go out in one send.
//!
//! Blocking costs nothing here: the kernel does the work of a request inside `send`, so that its answers lie ready when
//! the call returns. A socket belongs to the network namespace in which it was opened, whatever its thread does later.
//!
//! What the messages say is left to the callers; this file knows headers, acknowledgements and dumps (netlink(7)).

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket};

use crate::runtime::sys::netlink::{NetlinkOption, enable_netlink_option};

/// The size of a `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// What one read takes: the kernel fills at most 32 KiB of a dump at once.
const READ_BYTES: usize = 64 * 1024;
/// The buffers of the socket. A batch has to fit as a whole.
const SOCKET_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// The most messages that one dump may bring, so that a broken kernel cannot hold us for ever.
const MAX_DUMP_MESSAGES: usize = 4_000_000;
/// How often a dump is begun anew when the tables changed while they were read (`NLM_F_DUMP_INTR`).
const MAX_DUMP_ATTEMPTS: usize = 8;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_MULTI: u16 = 0x2;
/// Asks for an acknowledgement.
pub(crate) const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Asks for all objects of a kind (`NLM_F_ROOT | NLM_F_MATCH`).
const NLM_F_DUMP: u16 = 0x300;
/// Replaces what is there.
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
/// Creates what is missing.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_CAPPED: u16 = 0x100;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel's sentence in an extended acknowledgement.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What went wrong between us and the kernel's network tables.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket")]
    Open { source: Errno },
    #[error("cannot send {what} to the kernel")]
    Send { what: String, source: Errno },
    #[error("cannot read the kernel's answer to {what}")]
    Receive { what: String, source: Errno },
    /// `message` is the kernel's own sentence where it gave one.
    #[error("the kernel refused to {what}{}", .message.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused { what: String, message: Option<String>, source: Errno },
    #[error("the kernel's answer to {what} is no netlink message")]
    Malformed { what: String },
    #[error("the tables changed under each of {MAX_DUMP_ATTEMPTS} attempts to {what}")]
    Unsteady { what: String },
    #[error("the kernel's list is longer than {MAX_DUMP_MESSAGES} entries: {what}")]
    TooLong { what: String },
}

impl NetlinkError {
    /// The errno beneath, if the kernel gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open { source }
            | Self::Send { source, .. }
            | Self::Receive { source, .. }
            | Self::Refused { source, .. } => Some(*source),
            Self::Malformed { .. } | Self::Unsteady { .. } | Self::TooLong { .. } => None,
        }
    }
}

/// Which of the kernel's tables a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Route,
    Netfilter,
}

/// One request as it goes on the wire, without its header.
pub(crate) struct Request<'a> {
    /// Message type, such as `RTM_NEWLINK`.
    pub kind: u16,
    /// `NLM_F_*` beyond `NLM_F_REQUEST`.
    pub flags: u16,
    /// An infinitive for messages: "create bridge `x`".
    pub what: &'a str,
}

/// Requests that go out in one send, in order.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// One description per request; its sequence number is its place plus one.
    whats: Vec<String>,
    /// Whether the request at that place asked for an acknowledgement.
    acked: Vec<bool>,
}

impl Batch {
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(4096), whats: Vec::new(), acked: Vec::new() }
    }

    /// Adds a request whose payload is written by `fill`.
    pub fn push(&mut self, request: &Request<'_>, fill: impl FnOnce(&mut Vec<u8>)) {
        self.whats.push(request.what.to_owned());
        self.acked.push(request.flags & NLM_F_ACK != 0);
        let header = Header { kind: request.kind, flags: request.flags, sequence: self.whats.len() as u32 };
        write_message(&mut self.bytes, &header, fill);
    }

    fn what(&self, sequence: u32) -> String {
        let place = (sequence as usize).wrapping_sub(1);
        self.whats.get(place).cloned().unwrap_or_else(|| "do what was asked".to_owned())
    }

    /// The sequence number of the last request that is answered.
    fn last_acked(&self) -> Option<u32> {
        self.acked.iter().rposition(|acked| *acked).map(|place| place as u32 + 1)
    }
}

/// A netlink socket of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
    /// Held from a question to the end of its answer: two threads must not read each other's.
    turn: Mutex<()>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(family: Family) -> Result<Self, NetlinkError> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let descriptor = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(|source| NetlinkError::Open { source })?;
        // All four only widen what fits or what errors say; a kernel or a user that may not set them still works.
        let _ = setsockopt(&descriptor, SndBufForce, &SOCKET_BUFFER_BYTES);
        let _ = setsockopt(&descriptor, RcvBufForce, &SOCKET_BUFFER_BYTES);
        let _ = enable_netlink_option(&descriptor, NetlinkOption::CappedAck);
        let _ = enable_netlink_option(&descriptor, NetlinkOption::ExtendedAck);
        Ok(Self { descriptor, turn: Mutex::new(()) })
    }

    /// Sends `batch` in one piece and reads until its last acknowledgement. The first refusal is the answer; requests
    /// after it were still tried by the kernel, unless the batch is an nftables transaction.
    pub fn transact(&self, batch: &Batch) -> Result<(), NetlinkError> {
        let Some(last) = batch.last_acked() else { return Ok(()) };
        let _turn = self.turn();
        self.send(&batch.bytes, &batch.what(last))?;
        let mut refusal = None;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = self.receive(&mut buffer, &batch.what(last))?;
            for message in messages(&buffer[..read]) {
                let message = message.ok_or_else(|| NetlinkError::Malformed { what: batch.what(last) })?;
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let what = batch.what(message.sequence);
                let answer = Answer::read(&message).ok_or(NetlinkError::Malformed { what })?;
                // A transaction that fails as a whole is answered in the name of its first message only.
                let over = message.sequence == 1 && answer.errno != 0 && !batch.acked[0];
                if refusal.is_none() && answer.errno != 0 {
                    refusal = Some(answer.refusal(batch.what(message.sequence)));
                }
                if message.sequence == last || over {
                    return refusal.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Asks for all objects of a kind; `each` gathers from each message's payload. If the tables changed while they were
    /// read, it begins anew with nothing gathered.
    pub fn dump<T: Default>(
        &self,
        request: &Request<'_>,
        fill: impl Fn(&mut Vec<u8>),
        mut each: impl FnMut(&mut T, &[u8]),
    ) -> Result<T, NetlinkError> {
        let what = request.what;
        let mut bytes = Vec::with_capacity(128);
        let header = Header { kind: request.kind, flags: request.flags | NLM_F_DUMP, sequence: 1 };
        write_message(&mut bytes, &header, fill);
        let _turn = self.turn();
        for _ in 0..MAX_DUMP_ATTEMPTS {
            let mut gathered = T::default();
            self.send(&bytes, what)?;
            if self.read_list(what, |payload| each(&mut gathered, payload))? == Steady::Yes {
                return Ok(gathered);
            }
        }
        Err(NetlinkError::Unsteady { what: what.to_owned() })
    }

    /// Asks for one object and hands on the first message that answers. An object that is not there is a
    /// [`NetlinkError::Refused`] with the kernel's errno.
    pub fn get<T>(
        &self,
        request: &Request<'_>,
        fill: impl FnOnce(&mut Vec<u8>),
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, NetlinkError> {
        let what = request.what;
        let mut bytes = Vec::with_capacity(128);
        // Without an acknowledgement: the object itself, or the error, is the only answer.
        let header = Header { kind: request.kind, flags: request.flags, sequence: 1 };
        write_message(&mut bytes, &header, fill);
        let _turn = self.turn();
        self.send(&bytes, what)?;
        let mut buffer = vec![0; READ_BYTES];
        let length = self.receive(&mut buffer, what)?;
        let malformed = || NetlinkError::Malformed { what: what.to_owned() };
        let message = messages(&buffer[..length]).next().flatten().ok_or_else(malformed)?;
        if message.kind == NLMSG_ERROR {
            return Err(Answer::read(&message).ok_or_else(malformed)?.refusal(what.to_owned()));
        }
        read(message.payload).ok_or_else(malformed)
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        // A panic of another thread leaves at worst an answer unread, which shows as one that is malformed.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_list(&self, what: &str, mut each: impl FnMut(&[u8])) -> Result<Steady, NetlinkError> {
        let mut steady = Steady::Yes;
        let mut buffer = vec![0; READ_BYTES];
        let mut count = 0;
        loop {
            let read = self.receive(&mut buffer, what)?;
            for message in messages(&buffer[..read]) {
                let message = message.ok_or_else(|| NetlinkError::Malformed { what: what.to_owned() })?;
                count += 1;
                if count > MAX_DUMP_MESSAGES {
                    return Err(NetlinkError::TooLong { what: what.to_owned() });
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    steady = Steady::No;
                }
                match message.kind {
                    // A list ends with an errno too: zero, or why it was cut short.
                    NLMSG_DONE | NLMSG_ERROR => {
                        let malformed = || NetlinkError::Malformed { what: what.to_owned() };
                        return match Answer::read(&message).ok_or_else(malformed)? {
                            Answer { errno: 0, .. } => Ok(steady),
                            answer if answer.errno == Errno::EINTR as i32 => Ok(Steady::No),
                            answer => Err(answer.refusal(what.to_owned())),
                        };
                    }
                    _ => each(message.payload),
                }
                if message.flags & NLM_F_MULTI == 0 {
                    return Ok(steady);
                }
            }
        }
    }

    fn send(&self, bytes: &[u8], what: &str) -> Result<(), NetlinkError> {
        loop {
            match send(self.descriptor.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(source) => return Err(NetlinkError::Send { what: what.to_owned(), source }),
            }
        }
    }

    fn receive(&self, buffer: &mut [u8], what: &str) -> Result<usize, NetlinkError> {
        loop {
            match recv(self.descriptor.as_raw_fd(), buffer, MsgFlags::empty()) {
                Ok(read) => return Ok(read),
                Err(Errno::EINTR) => {}
                Err(source) => return Err(NetlinkError::Receive { what: what.to_owned(), source }),
            }
        }
    }
}

/// Whether a list was read while nobody changed it.
#[derive(PartialEq)]
enum Steady {
    Yes,
    No,
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

fn write_message(bytes: &mut Vec<u8>, header: &Header, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(header.kind.to_ne_bytes());
    bytes.extend((header.flags | NLM_F_REQUEST).to_ne_bytes());
    bytes.extend(header.sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    fill(bytes);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let length = (bytes.len() - start) as u32;
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

/// The messages of one read; `None` stands for bytes that are no message.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Option<Message<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some(length) = u32_at(bytes, 0).map(|length| length as usize) else { return Some(None) };
        if length < HEADER_BYTES || length > bytes.len() {
            bytes = &[];
            return Some(None);
        }
        let message = Message {
            kind: u16::from_ne_bytes([bytes[4], bytes[5]]),
            flags: u16::from_ne_bytes([bytes[6], bytes[7]]),
            sequence: u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
            payload: &bytes[HEADER_BYTES..length],
        };
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(Some(message))
    })
}

/// An acknowledgement: zero, or an errno with perhaps a sentence.
struct Answer {
    errno: i32,
    message: Option<String>,
}

impl Answer {
    fn read(message: &Message<'_>) -> Option<Self> {
        let errno = -i32::from_ne_bytes(message.payload.get(..4)?.try_into().ok()?);
        let mut text = None;
        if message.flags & NLM_F_ACK_TLVS != 0 {
            let echoed =
                if message.flags & NLM_F_CAPPED != 0 { HEADER_BYTES } else { u32_at(message.payload, 4)? as usize };
            let rest = message.payload.get(4 + echoed.next_multiple_of(4)..).unwrap_or_default();
            text = attributes(rest)
                .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
                .map(|(_, value)| text_of(value).unwrap_or_default());
        }
        Some(Self { errno, message: text })
    }

    fn refusal(self, what: String) -> NetlinkError {
        NetlinkError::Refused { what, message: self.message, source: Errno::from_raw(self.errno) }
    }
}

/// The attributes of a message in order: type without its flags, and value. Ends at the first that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` share the field with the type.
    const TYPE_MASK: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some((kind, value))
    })
}

/// The first attribute of that type.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A number in the host's order at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

/// A text attribute, without its closing NUL.
pub(crate) fn text_of(value: &[u8]) -> Option<String> {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_message_is_told_from_the_end() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, &Header { kind: 16, flags: 0, sequence: 7 }, |out| out.extend([1, 2, 3]));
        let whole: Vec<_> = messages(&bytes).map(|m| m.map(|m| (m.kind, m.sequence, m.payload.len()))).collect();
        assert_eq!(whole, [Some((16, 7, 4))], "a payload is padded to four bytes");
        assert!(messages(&bytes[..bytes.len() - 1]).next().is_some_and(|m| m.is_none()));
        assert!(messages(&bytes[..3]).next().is_some_and(|m| m.is_none()));
    }

    #[test]
    fn attributes_end_where_one_does_not_fit() {
        let bytes = [5, 0, 1, 0x80, b'x', 0, 0, 0, 200, 0, 2, 0, 1, 1, 1, 1];
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &b"x"[..])], "the nested flag is no part of the type");
    }
}
