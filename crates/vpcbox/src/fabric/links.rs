//! Netlink, one function for each thing that the fabric does to links. All of them are repeatable.

use super::{FabricError, names::LINK_GROUP};
use berth_netns::ns::Netns;
use futures::TryStreamExt;
use ipnet::{IpNet, Ipv6Net};
use nix::errno::Errno;
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{InfoData, InfoVeth, LinkAttribute, LinkMessage, State},
        neighbour::{NeighbourAddress, NeighbourAttribute},
        route::RouteType,
    },
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

/// The VPC router's well-known link-local address, the same in every subnet.
pub(super) const ROUTER_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1);

/// How long the kernel's work queues may take to bring a link from "up" to running. It takes some ten microseconds; the rest is for a
/// machine under load.
const CARRIER_WAIT: Duration = Duration::from_secs(2);
/// Short, because the first packet of an instance waits for it.
const CARRIER_POLL: Duration = Duration::from_millis(1);

/// A link as far as the fabric looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) running: bool,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, name: String::new(), running: false };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::OperState(state) => link.running = state == State::Up,
                _ => {}
            }
        }
        link
    }
}

/// The two ends of a pair that is to be made.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    /// Name of the end that stays.
    pub(super) vpc_end: &'a str,
    /// Bridge that the end becomes a port of.
    pub(super) bridge: u32,
    /// Name of the other end; may hold `%d`.
    pub(super) far_end: &'a str,
    /// Where the other end is born.
    pub(super) netns: &'a Netns,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
}

/// Whether a request was refused for this reason.
pub(super) fn refused_as(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(e) if e.raw_code() == -(errno as i32))
}

fn failed(op: &'static str, what: impl ToString) -> impl FnOnce(rtnetlink::Error) -> FabricError {
    let what = what.to_string();
    move |source| FabricError::Link { op, what, source }
}

/// The link of this name, if there is one.
pub(super) async fn find(handle: &Handle, name: &str) -> Result<Option<Link>, FabricError> {
    let mut found = std::pin::pin!(handle.link().get().match_name(name).execute());
    match found.try_next().await {
        Ok(message) => Ok(message.map(Link::from)),
        Err(e) if refused_as(&e, Errno::ENODEV) => Ok(None),
        Err(e) => Err(failed("look up link", name)(e)),
    }
}

/// The link of this name, which must be there.
pub(super) async fn get(handle: &Handle, name: &str) -> Result<Link, FabricError> {
    find(handle, name).await?.ok_or_else(|| FabricError::Vanished(name.to_owned()))
}

/// Names of all links.
pub(super) async fn all_names(handle: &Handle) -> Result<Vec<String>, FabricError> {
    let links: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.map_err(failed("list", "links"))?;
    Ok(links.into_iter().map(|l| Link::from(l).name).collect())
}

/// Makes a bridge with a fixed MAC, down.
pub(super) async fn add_bridge(
    handle: &Handle,
    name: &str,
    mac: [u8; 6],
    mtu: u32,
) -> Result<u32, FabricError> {
    let message = LinkBridge::new(name)
        .address(mac.to_vec())
        .mtu(mtu)
        // No querier here: with snooping, neighbour solicitations would stop once the membership reports have aged out.
        .mcast_snooping(false)
        .build();
    exists_is_fine(handle.link().add(message).execute().await).map_err(failed("make bridge", name))?;
    Ok(get(handle, name).await?.index)
}

pub(super) async fn set_up(handle: &Handle, link: &Link) -> Result<(), FabricError> {
    let message = LinkUnspec::new_with_index(link.index).up().build();
    handle.link().set(message).execute().await.map_err(failed("bring up", &link.name))
}

/// Makes a veth pair: one end up and a port of the bridge, the other born down in the other namespace. `EEXIST` is the caller's:
/// either end's name may be the one that is taken.
pub(super) async fn add_pair(handle: &Handle, pair: &Pair<'_>) -> Result<(), rtnetlink::Error> {
    // One queue each: the kernel's default, a queue for every CPU, costs a grace period per link.
    let queues = || [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let mut far = LinkMessageBuilder::<LinkUnspec>::new()
        .name(pair.far_end)
        .address(pair.mac.to_vec())
        .mtu(pair.mtu)
        .setns_by_fd(pair.netns.as_fd().as_raw_fd())
        .build();
    far.attributes.extend(queues());
    let mut message = LinkMessageBuilder::<LinkVeth>::new(pair.vpc_end, pair.far_end)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .controller(pair.bridge)
        .link_group(LINK_GROUP)
        .mtu(pair.mtu)
        .up()
        .build();
    message.attributes.extend(queues());
    handle.link().add(message).execute().await
}

/// The ENI's whole id, for people: `ip link` shows it. A separate message, because the kernel takes no alias with a new link.
pub(super) async fn set_alias(handle: &Handle, name: &str, alias: &str) -> Result<(), FabricError> {
    let message = LinkUnspec::new_with_name(name).alias(alias).build();
    handle.link().set(message).execute().await.map_err(failed("label link", name))
}

/// Removes a link, and with it the other end of its pair. One that is not there is removed.
pub(super) async fn remove(handle: &Handle, name: &str) -> Result<(), FabricError> {
    let Some(link) = find(handle, name).await? else { return Ok(()) };
    gone_is_fine(handle.link().del(link.index).execute().await).map_err(failed("remove link", name))
}

/// Removes the VPC ends of all ENIs at once: one grace period for all of them instead of one (15 ms) for each.
pub(super) async fn remove_group(handle: &Handle) -> Result<(), FabricError> {
    let mut request = handle.link().del(0);
    request.message_mut().attributes.push(LinkAttribute::Group(LINK_GROUP));
    gone_is_fine(request.execute().await).map_err(failed("remove", "the links of all ENIs"))
}

/// Gives a link an address. IPv6 addresses are not probed for duplicates: the VPC hands each out once.
pub(super) async fn add_address(handle: &Handle, link: &Link, address: IpNet) -> Result<(), FabricError> {
    let mut request = handle.address().add(link.index, address.addr(), address.prefix_len());
    if address.addr().is_ipv6() {
        request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    exists_is_fine(request.execute().await).map_err(failed("add address", address))
}

pub(super) async fn add_default_route(
    handle: &Handle,
    link: &Link,
    gateway: IpAddr,
) -> Result<(), FabricError> {
    let message = match gateway {
        IpAddr::V4(gateway) => {
            RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(link.index).build()
        }
        IpAddr::V6(gateway) => {
            RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(link.index).build()
        }
    };
    exists_is_fine(handle.route().add(message).execute().await).map_err(failed("route via", gateway))
}

/// Waits until the link runs. The kernel tells a bridge of its new port's carrier from a work queue; a packet that is sent before
/// is lost, and with it a second of TCP's first retransmission time-out.
pub(super) async fn wait_running(handle: &Handle, name: &str, eni: &str) -> Result<(), FabricError> {
    let running = async {
        while !get(handle, name).await?.running {
            tokio::time::sleep(CARRIER_POLL).await;
        }
        Ok(())
    };
    tokio::time::timeout(CARRIER_WAIT, running).await.unwrap_or_else(|_| {
        Err(FabricError::NoCarrier { eni: eni.to_owned(), millis: CARRIER_WAIT.as_millis() })
    })
}

/// Waits until the link answers for its IPv6 addresses. The kernel joins their multicast groups from a work queue; a neighbour that
/// asks before hears nothing, and asks again after a second.
pub(super) async fn wait_heard(handle: &Handle, name: &str, addresses: &[IpNet]) -> Result<(), FabricError> {
    let heard = async {
        for address in addresses {
            let IpAddr::V6(address) = address.addr() else { continue };
            while !is_local(handle, address).await? {
                tokio::time::sleep(CARRIER_POLL).await;
            }
        }
        Ok(())
    };
    tokio::time::timeout(CARRIER_WAIT, heard).await.unwrap_or_else(|_| {
        Err(FabricError::NotHeard { link: name.to_owned(), millis: CARRIER_WAIT.as_millis() })
    })
}

/// Whether packets to an address are taken in: the last thing that the work queue does for it.
async fn is_local(handle: &Handle, address: Ipv6Addr) -> Result<bool, FabricError> {
    let to = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
    let mut routes = std::pin::pin!(handle.route().get(to).execute());
    match routes.try_next().await {
        Ok(route) => Ok(route.is_some_and(|route| route.header.kind == RouteType::Local)),
        Err(e) if refused_as(&e, Errno::ENETUNREACH) => Ok(false),
        Err(e) => Err(failed("look up the route to", address)(e)),
    }
}

/// Forgets what the VPC's routers know of a MAC. An address that moves to another ENI would otherwise be unreachable from other
/// subnets until the entry ages out; a real VPC knows at once who has it.
pub(super) async fn forget_mac(handle: &Handle, mac: [u8; 6]) -> Result<(), FabricError> {
    forget(handle, |a| matches!(a, NeighbourAttribute::LinkLayerAddress(m) if *m == mac)).await
}

/// Forgets what the VPC's routers know of addresses, for the same reason: they move between ENIs that both stay.
pub(super) async fn forget_addresses(
    handle: &Handle,
    addresses: &BTreeSet<IpAddr>,
) -> Result<(), FabricError> {
    let moved = |attribute: &NeighbourAttribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => addresses.contains(&IpAddr::V4(*a)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => addresses.contains(&IpAddr::V6(*a)),
        _ => false,
    };
    forget(handle, moved).await
}

async fn forget(handle: &Handle, which: impl Fn(&NeighbourAttribute) -> bool) -> Result<(), FabricError> {
    let mut known = std::pin::pin!(handle.neighbours().get().execute());
    let mut stale = Vec::new();
    while let Some(entry) = known.try_next().await.map_err(failed("list", "neighbours"))? {
        if entry.attributes.iter().any(&which) {
            stale.push(entry);
        }
    }
    for entry in stale {
        gone_is_fine(handle.neighbours().del(entry).execute().await)
            .map_err(failed("forget", "a neighbour"))?;
    }
    Ok(())
}

/// The router's addresses in a subnet, with prefix lengths.
pub(super) fn router_addresses(ipv4: ipnet::Ipv4Net, ipv6: Option<Ipv6Net>) -> Vec<IpNet> {
    let mut addresses = vec![with_prefix(router_ipv4(ipv4).into(), ipv4.prefix_len())];
    if let Some(block) = ipv6 {
        let first = Ipv6Addr::from(u128::from(block.network()) | 1);
        addresses.push(with_prefix(first.into(), block.prefix_len()));
        addresses.push(with_prefix(ROUTER_LINK_LOCAL.into(), 64));
    }
    addresses
}

/// The first address after the network's.
pub(super) fn router_ipv4(block: ipnet::Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(block.network()) | 1)
}

/// A prefix length that came out of a block of the same family always fits; a host route is never wrong to fall back to.
fn with_prefix(address: IpAddr, prefix: u8) -> IpNet {
    IpNet::new(address, prefix).unwrap_or_else(|_| address.into())
}

fn exists_is_fine(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    result.or_else(|e| if refused_as(&e, Errno::EEXIST) { Ok(()) } else { Err(e) })
}

fn gone_is_fine(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    let gone = [Errno::ENODEV, Errno::ENOENT];
    result.or_else(|e| if gone.iter().any(|g| refused_as(&e, *g)) { Ok(()) } else { Err(e) })
}
