//! Bridges and veth pairs on the kernel: rtnetlink for what changes, one lean dump for what is.
//!
//! Each object is made "name first, label last": a link without an alias is unfinished, whoever finds it removes it.

use std::net::Ipv4Addr;

use futures_util::StreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use rtnetlink::{Handle, new_connection};
use tokio::task::JoinHandle;

use super::link::{
    BridgeSpec, Ipv6, MAX_ALIAS, MAX_INTERFACE_NAME, ObservedLink, VethSpec, address_message, change, create_bridge,
    create_veth, finish_bridge, finish_veth, link_local, loopback_by, raise_bridge, read_address, read_link,
};
use super::netlink::{Family, NetlinkError, Request, Socket};

pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_GETADDR: u16 = 22;
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: counters are half of a link's description and nobody asked for them.
const SKIP_STATISTICS: u32 = 1 << 3;
/// The high byte of the group into which links are put to be deleted together; the rest is our process's number, so that
/// two runs do not meet. What a run left in its group when it was killed was to be deleted all the same.
const DOOMED_GROUP: u32 = 0x5d00_0000;

/// What went wrong with a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot open a netlink socket")]
    Open { source: std::io::Error },
    #[error("`{name}` cannot name a link: 1 to {MAX_INTERFACE_NAME} bytes without `/` and blanks")]
    Name { name: String },
    #[error("the label of link `{name}` is longer than {MAX_ALIAS} bytes")]
    Alias { name: String },
    #[error("the kernel refused to {what}")]
    Refused { what: String, source: Errno },
    #[error("the connection to the kernel ended before it could {what}")]
    Closed { what: String },
    #[error("cannot list the links")]
    List { source: NetlinkError },
}

/// The links of the network namespace in which [`Links::connect`] was called.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
    /// For lists: a socket of its own, read in place, without a message type per attribute.
    lists: Socket,
    ipv6: Ipv6,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Opens the sockets in the calling thread's network namespace. Needs a tokio runtime.
    pub fn connect() -> Result<Self, LinkError> {
        let lists = Socket::open(Family::Route).map_err(|source| LinkError::List { source })?;
        let (connection, handle, _) = new_connection().map_err(|source| LinkError::Open { source })?;
        Ok(Self { handle, connection: tokio::spawn(connection), lists, ipv6: Ipv6::probe() })
    }

    /// All links with their addresses: two dumps.
    pub fn list(&self) -> Result<Vec<ObservedLink>, LinkError> {
        list_links(&self.lists).map_err(|source| LinkError::List { source })
    }

    /// Makes a bridge with its address, label and MTU, up, and returns its index.
    pub async fn create_bridge(&self, spec: &BridgeSpec) -> Result<u32, LinkError> {
        check(&spec.name, &spec.alias)?;
        let name = &spec.name;
        let created = self.create(create_bridge(spec), format!("create bridge `{name}`"));
        let index = self.index_of(name);
        created.answer().await?;
        let index = index.await?;
        let address = self.request(
            RouteNetlinkMessage::NewAddress(address_message(index, spec.address.into())),
            NLM_F_CREATE | NLM_F_EXCL,
            format!("give bridge `{name}` the address {}", spec.address),
        );
        address.answer().await?;
        self.finish_bridge(index, spec).await?;
        Ok(index)
    }

    /// Gives a bridge that is there all that [`Links::create_bridge`] gives one but its IPv4 address; its label last.
    pub async fn finish_bridge(&self, index: u32, spec: &BridgeSpec) -> Result<(), LinkError> {
        check(&spec.name, &spec.alias)?;
        if let Some(address) = spec.address6 {
            // The kernel takes IPv6 from a link that is up, and gives none to one of a smaller MTU.
            self.set(raise_bridge(index, spec, self.ipv6), format!("put bridge `{}` up", spec.name)).answer().await?;
            for address in [address, link_local(address)] {
                self.add_address(index, address.into()).await?;
            }
            let route = RouteNetlinkMessage::NewRoute(loopback_by(index));
            let what = format!("lead answers to ::1 in by bridge `{}`", spec.name);
            self.request(route, NLM_F_CREATE | NLM_F_REPLACE, what).answer().await?;
        }
        let what = format!("set up bridge `{}`", spec.name);
        self.set(finish_bridge(index, spec, self.ipv6), what).answer().await
    }

    /// Makes a veth pair, the peer directly in the network namespace of `spec.netns_pid`, the host's end a port of its
    /// bridge, labelled and up. Returns the index of the host's end.
    pub async fn create_veth_pair(&self, spec: &VethSpec) -> Result<u32, LinkError> {
        check(&spec.host_name, &spec.alias)?;
        check(&spec.peer_name, "")?;
        let name = &spec.host_name;
        self.create(create_veth(spec), format!("create veth pair `{name}`")).answer().await?;
        // Not sent along with the first: were the name taken, it would put our label on somebody else's link.
        let finished = RouteNetlinkMessage::NewLink(finish_veth(spec, self.ipv6));
        let finished = self.request(finished, 0, format!("set up link `{name}`"));
        let index = self.index_of(name);
        finished.answer().await?;
        index.await
    }

    /// Puts a link up.
    pub async fn set_up(&self, index: u32) -> Result<(), LinkError> {
        let mut message = change(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.set(message, format!("put link {index} up")).answer().await
    }

    /// Changes a link's MTU, in bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), LinkError> {
        self.set_attribute(index, LinkAttribute::Mtu(mtu), format!("set the MTU of link {index} to {mtu}")).await
    }

    /// Changes a link's label.
    pub async fn set_alias(&self, index: u32, alias: &str) -> Result<(), LinkError> {
        if alias.len() > MAX_ALIAS {
            return Err(LinkError::Alias { name: index.to_string() });
        }
        self.set_attribute(index, LinkAttribute::IfAlias(alias.to_owned()), format!("label link {index}")).await
    }

    /// Makes a link a port of the bridge with index `master`.
    pub async fn set_master(&self, index: u32, master: u32) -> Result<(), LinkError> {
        let what = format!("make link {index} a port of link {master}");
        self.set_attribute(index, LinkAttribute::Controller(master), what).await
    }

    /// Gives a link an address that it may already have.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let message = RouteNetlinkMessage::NewAddress(address_message(index, address));
        self.request(message, NLM_F_CREATE, format!("give link {index} the address {address}"))
            .answer()
            .await
            .or_else(|error| if is(&error, Errno::EEXIST) { Ok(()) } else { Err(error) })
    }

    /// Takes an address from a link.
    pub async fn remove_address(&self, index: u32, address: IpNet) -> Result<(), LinkError> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        self.request(message, 0, format!("take the address {address} from link {index}")).answer().await
    }

    /// Deletes a link; one that is gone already is no error. The peer of a veth pair goes with it.
    pub async fn delete_link(&self, index: u32) -> Result<(), LinkError> {
        let what = format!("delete link {index}");
        self.request(RouteNetlinkMessage::DelLink(change(index)), 0, what)
            .answer()
            .await
            .or_else(|error| if is(&error, Errno::ENODEV) { Ok(()) } else { Err(error) })
    }

    /// Deletes many links at the price of one. The kernel waits for all processors after each deletion, so the links are
    /// put into one group and the group is deleted: one wait in all.
    pub async fn delete_links(&self, indices: &[u32]) -> Result<(), LinkError> {
        if let [index] = indices {
            return self.delete_link(*index).await;
        }
        let group = DOOMED_GROUP | (std::process::id() & 0x00ff_ffff);
        let mut moved = Vec::with_capacity(indices.len());
        for index in indices {
            let mut message = change(*index);
            message.attributes = vec![LinkAttribute::Group(group)];
            moved.push(self.set(message, format!("mark link {index} for deletion")));
        }
        for answer in moved {
            match answer.answer().await {
                Err(error) if !is(&error, Errno::ENODEV) => return Err(error),
                _ => {}
            }
        }
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::Group(group)];
        let what = format!("delete {} links", indices.len());
        match self.request(RouteNetlinkMessage::DelLink(message), 0, what).answer().await {
            Err(error) if !is(&error, Errno::ENODEV) => Err(error),
            _ => Ok(()),
        }
    }

    async fn set_attribute(&self, index: u32, attribute: LinkAttribute, what: String) -> Result<(), LinkError> {
        let mut message = change(index);
        message.attributes = vec![attribute];
        self.set(message, what).answer().await
    }

    fn create(&self, message: LinkMessage, what: String) -> Pending {
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, what)
    }

    fn set(&self, message: LinkMessage, what: String) -> Pending {
        self.request(RouteNetlinkMessage::SetLink(message), 0, what)
    }

    /// Sends a request at once; its answer is awaited separately.
    fn request(&self, message: RouteNetlinkMessage, flags: u16, what: String) -> Pending {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let answers = self.handle.clone().request(request).ok().map(StreamExt::boxed);
        Pending { what, answers }
    }

    fn index_of(&self, name: &str) -> impl Future<Output = Result<u32, LinkError>> + use<> {
        let mut message = LinkMessage::default();
        message.attributes =
            vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(message));
        request.header.flags = NLM_F_REQUEST;
        let what = format!("look up link `{name}`");
        let answers = self.handle.clone().request(request).ok().map(StreamExt::boxed);
        async move {
            let Some(mut answers) = answers else { return Err(LinkError::Closed { what }) };
            match answers.next().await.map(|answer| answer.payload) {
                Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))) => Ok(link.header.index),
                Some(NetlinkPayload::Error(error)) => {
                    Err(LinkError::Refused { what, source: Errno::from_raw(-error.raw_code()) })
                }
                _ => Err(LinkError::Closed { what }),
            }
        }
    }
}

fn is(error: &LinkError, errno: Errno) -> bool {
    matches!(error, LinkError::Refused { source, .. } if *source == errno)
}

/// A request on its way.
struct Pending {
    what: String,
    answers: Option<futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>>,
}

impl Pending {
    async fn answer(self) -> Result<(), LinkError> {
        let Some(mut answers) = self.answers else { return Err(LinkError::Closed { what: self.what }) };
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                return match -error.raw_code() {
                    0 => Ok(()),
                    errno => Err(LinkError::Refused { what: self.what, source: Errno::from_raw(errno) }),
                };
            }
        }
        // The stream swallows a bare acknowledgement: its end is the good answer.
        Ok(())
    }
}

fn check(name: &str, alias: &str) -> Result<(), LinkError> {
    let bad = |byte: u8| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace();
    if name.is_empty() || name.len() > MAX_INTERFACE_NAME || name == "." || name == ".." || name.bytes().any(bad) {
        return Err(LinkError::Name { name: name.to_owned() });
    }
    if alias.len() > MAX_ALIAS {
        return Err(LinkError::Alias { name: name.to_owned() });
    }
    Ok(())
}

/// The links of the socket's namespace, with their addresses.
pub(super) fn list_links(socket: &Socket) -> Result<Vec<ObservedLink>, NetlinkError> {
    let request = Request { kind: RTM_GETLINK, flags: 0, what: "list the links" };
    let fill = |bytes: &mut Vec<u8>| {
        bytes.extend([0; 16]);
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(IFLA_EXT_MASK.to_ne_bytes());
        bytes.extend(SKIP_STATISTICS.to_ne_bytes());
    };
    let mut links: Vec<ObservedLink> =
        socket.dump(&request, fill, |links: &mut Vec<_>, payload| links.extend(read_link(payload)))?;
    let request = Request { kind: RTM_GETADDR, flags: 0, what: "list the addresses" };
    let addresses = socket.dump(
        &request,
        |bytes| bytes.extend([0; 8]),
        |addresses: &mut Vec<_>, payload| {
            addresses.extend(read_address(payload));
        },
    )?;
    for (index, address) in addresses {
        if let Some(link) = links.iter_mut().find(|link| link.index == index) {
            link.addresses.push(address);
        }
    }
    Ok(links)
}

/// Whether `links` holds a link with that IPv4 address, of whatever prefix.
pub fn has_address(links: &[ObservedLink], address: Ipv4Addr) -> bool {
    links.iter().flat_map(|link| &link.addresses).any(|net| net.addr() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_kernel_would_refuse_never_gets_there() {
        for name in ["", ".", "..", "a/b", "a b", "sixteen-bytes-xx", "a:b"] {
            assert!(matches!(check(name, ""), Err(LinkError::Name { .. })), "{name}");
        }
        assert!(check("st-0123456789ab", "").is_ok());
        assert!(matches!(check("br0", &"x".repeat(256)), Err(LinkError::Alias { .. })));
    }
}
