//! Moving a device of the host into another network namespace, with its addresses (runtime-spec config-linux.md, "Network
//! Devices"). The kernel takes the addresses off and the device down when it moves.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::EndpointError;
use super::endpoint::in_netns;
use super::link::MAX_INTERFACE_NAME;
use super::links::list_links;
use super::netlink::{Batch, Family, NLM_F_ACK, NLM_F_CREATE, NetlinkError, Request, Socket};

const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
/// linux/if_link.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
/// linux/if_addr.h: the address came to stay, and was not given by a router for a while.
const IFA_F_PERMANENT: u8 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;
/// The sizes of `struct ifaddrmsg` and of an attribute's header.
const ADDRESS_HEADER: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("the host has no network device `{name}`")]
    None { name: String },
    #[error("`{name}` is no name of a network device")]
    Name { name: String },
    #[error("the network device `{name}` cannot be called `{inside}` in the container, which has one of this name")]
    Taken { name: String, inside: String },
    #[error("cannot look at the network device `{name}`")]
    Observe { name: String, source: NetlinkError },
    #[error("cannot move the network device `{name}` as `{inside}`")]
    Move { name: String, inside: String, source: NetlinkError },
    #[error("cannot enter the namespace of the network device `{name}`")]
    Enter { name: String, source: EndpointError },
    #[error("cannot set up the network device `{name}`")]
    SetUp { name: String, source: NetlinkError },
}

/// Move the device `name` of the calling thread's network namespace into `netns`, where it is called `inside`, and put it up there
/// with the lasting global addresses that it had. A name that is taken there is an error; `%d` in one is replaced by the first
/// number that is free.
pub fn move_device(name: &str, inside: &str, netns: BorrowedFd<'_>) -> Result<(), DeviceError> {
    if inside.is_empty()
        || inside.len() > MAX_INTERFACE_NAME
        || matches!(inside, "." | "..")
        || inside.contains(['/', ' ', '\n', '\0'])
    {
        return Err(DeviceError::Name { name: inside.to_owned() });
    }
    let observe = |source| DeviceError::Observe { name: name.to_owned(), source };
    let socket = Socket::open(Family::Route).map_err(observe)?;
    let links = list_links(&socket).map_err(observe)?;
    let link =
        links.iter().find(|link| link.name == name).ok_or_else(|| DeviceError::None { name: name.to_owned() })?;
    let addresses = addresses_of(&socket, link.index).map_err(observe)?;
    let enter = |source| DeviceError::Enter { name: name.to_owned(), source };
    let within = || netns.try_clone_to_owned().map_err(|source| enter(EndpointError::Thread { source }));
    let before = in_netns(within()?, names).map_err(enter)?.map_err(observe)?;

    // The kernel moves first and names afterwards: it would be lost.
    if before.iter().any(|taken| taken == inside) {
        return Err(DeviceError::Taken { name: name.to_owned(), inside: inside.to_owned() });
    }
    let mut batch = Batch::new();
    let what = format!("move `{name}`");
    batch.push(&Request { kind: RTM_SETLINK, flags: NLM_F_ACK, what: &what }, |bytes| {
        bytes.extend(link_header(link.index));
        attribute(bytes, IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
        let mut text = inside.as_bytes().to_vec();
        text.push(0);
        attribute(bytes, IFLA_IFNAME, &text);
    });
    socket.transact(&batch).map_err(|source| DeviceError::Move {
        name: name.to_owned(),
        inside: inside.to_owned(),
        source,
    })?;
    in_netns(within()?, move || set_up(&before, &addresses))
        .map_err(enter)?
        .map_err(|source| DeviceError::SetUp { name: name.to_owned(), source })
}

/// Whole address messages, as the kernel tells them and takes them.
fn addresses_of(socket: &Socket, index: u32) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let request = Request { kind: RTM_GETADDR, flags: 0, what: "list the addresses" };
    socket.dump(
        &request,
        |bytes| bytes.extend([0; ADDRESS_HEADER]),
        |list: &mut Vec<Vec<u8>>, payload| {
            if is_kept(payload, index) {
                list.push(without_label(payload));
            }
        },
    )
}

/// A label begins with the device's name, which may be another one soon.
fn without_label(message: &[u8]) -> Vec<u8> {
    const IFA_LABEL: u16 = 3;
    let (header, mut rest) = message.split_at(ADDRESS_HEADER.min(message.len()));
    let mut kept = header.to_vec();
    while let Some([low, high, kind_low, kind_high]) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([*low, *high])).max(4);
        let (attribute, after) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
        if u16::from_ne_bytes([*kind_low, *kind_high]) != IFA_LABEL {
            kept.extend(attribute);
        }
        rest = after;
    }
    kept
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index.
fn is_kept(message: &[u8], wanted: u32) -> bool {
    let Some([_, _, flags, scope, index @ ..]) = message.get(..ADDRESS_HEADER) else { return false };
    let index = <[u8; 4]>::try_from(index).map(u32::from_ne_bytes);
    index.is_ok_and(|index| index == wanted) && flags & IFA_F_PERMANENT != 0 && *scope == RT_SCOPE_UNIVERSE
}

fn names() -> Result<Vec<String>, NetlinkError> {
    Ok(list_links(&Socket::open(Family::Route)?)?.into_iter().map(|link| link.name).collect())
}

/// Set up the device that was not there `before`: its index and its name may be other ones now.
fn set_up(before: &[String], addresses: &[Vec<u8>]) -> Result<(), NetlinkError> {
    let socket = Socket::open(Family::Route)?;
    let links = list_links(&socket)?;
    let Some(index) = links.iter().find(|link| !before.contains(&link.name)).map(|link| link.index) else {
        return Ok(());
    };
    let mut batch = Batch::new();
    for message in addresses {
        let what = "give the device its address";
        batch.push(&Request { kind: RTM_NEWADDR, flags: NLM_F_ACK | NLM_F_CREATE, what }, |bytes| {
            bytes.extend(message.get(..4).unwrap_or_default());
            bytes.extend(index.to_ne_bytes());
            bytes.extend(message.get(ADDRESS_HEADER..).unwrap_or_default());
        });
    }
    batch.push(&Request { kind: RTM_SETLINK, flags: NLM_F_ACK, what: "put the device up" }, |bytes| {
        let mut header = link_header(index);
        // Flags and the mask of those that change: IFF_UP.
        header[8] = 1;
        header[12] = 1;
        bytes.extend(header);
    });
    socket.transact(&batch)
}

/// `struct ifinfomsg`.
fn link_header(index: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_global_addresses_are_kept() {
        let message = |flags, scope, index: u32| {
            let mut bytes = vec![2, 24, flags, scope];
            bytes.extend(index.to_ne_bytes());
            bytes
        };
        assert!(is_kept(&message(0x80, 0, 7), 7));
        assert!(!is_kept(&message(0x80, 0, 8), 7), "another device's");
        assert!(!is_kept(&message(0, 0, 7), 7), "for a while");
        assert!(!is_kept(&message(0x80, 253, 7), 7), "of the link");
        assert!(!is_kept(&[2, 24], 7));
    }

    #[test]
    fn a_label_stays_behind() {
        let mut message = vec![2, 24, 0x80, 0, 7, 0, 0, 0];
        attribute(&mut message, 2, &[10, 0, 0, 1]);
        let without = message.clone();
        attribute(&mut message, 3, b"eth0\0");
        assert_eq!(without_label(&message), without);
        assert_eq!(without_label(&message[..5]), message[..5]);
    }

    #[test]
    fn attributes_are_padded() {
        let mut bytes = Vec::new();
        attribute(&mut bytes, IFLA_IFNAME, b"a\0");
        assert_eq!(bytes.len(), 8);
        assert_eq!(&bytes[..2], 6_u16.to_ne_bytes());
    }
}
