//! Observing and acting over rtnetlink: [`observe`] makes a [`Seen`], [`Hands::apply`] does an [`Op`]. No decisions here; those are in [`crate::plan`].
//!
//! Runs on a namespace thread's own `current_thread` runtime, where an awaited message costs 30 to 60 us: on the shared runtime each would wake
//! another thread.

use crate::{
    METADATA_IP,
    error::Fail,
    ns::{Netlink, Netns},
    plan::{ANY_ETH, Address, Carrier, ENI_NAME, Link, Op, Route, RouteKind, Seen},
};
use berth_types::{
    eni::{LinkFacts, LinkTable},
    ids::MacAddr,
    ports::NetworkErrorKind,
};
use futures::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
        link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
};
use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};
use tokio::time::Instant;

/// How long a link may take to carry packets after it was brought up. A veth takes microseconds, ENA some ten milliseconds; past this
/// the ENI is broken, and the pool is better off with another.
const CARRIER_DEADLINE: Duration = Duration::from_secs(10);

/// First and longest pause between two looks at the carrier.
const CARRIER_PAUSE: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(20));

/// Whether rtnetlink's error is this one of the kernel's.
fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}

/// The kernel's own text for an error, or rtnetlink's.
fn failed(op: &'static str, error: rtnetlink::Error) -> Fail {
    let text = match &error {
        rtnetlink::Error::NetlinkError(message) => message.to_io().to_string(),
        other => other.to_string(),
    };
    Fail::kernel(op, text)
}

/// The index belongs to no link (any more).
fn is_gone(error: &rtnetlink::Error) -> bool {
    is(error, Errno::ENODEV)
}

/// Done already, by us before or by the kernel itself: the next observation compares.
fn unless(result: Result<(), rtnetlink::Error>, already: &[Errno], op: &'static str) -> Result<(), Fail> {
    match result {
        Err(e) if already.iter().any(|&errno| is(&e, errno)) => Ok(()),
        other => other.map_err(|e| failed(op, e)),
    }
}

// ---------------------------------------------------------------------------------------------------------------- observe

/// All links of the namespace that the connection lives in.
pub(crate) async fn links(netlink: &Netlink) -> Result<Vec<Link>, rtnetlink::Error> {
    netlink.handle.link().get().execute().map_ok(link).try_collect().await
}

fn link(message: LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        carrier: Carrier::NotYet,
        alias: None,
        has_kind: false,
        loopback: flags.contains(LinkFlags::Loopback),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddr),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias).filter(|a| !a.is_empty()),
            LinkAttribute::OperState(State::Up) => link.carrier = Carrier::Yes,
            // For ever with drivers that know no carrier, and for a moment with every link that has just been brought up: only the flag tells
            // the two apart.
            LinkAttribute::OperState(State::Unknown) if flags.contains(LinkFlags::LowerUp) => {
                link.carrier = Carrier::Yes;
            }
            LinkAttribute::LinkInfo(infos) => {
                link.has_kind = infos.iter().any(|i| matches!(i, LinkInfo::Kind(_)))
            }
            _ => {}
        }
    }
    link
}

/// Links by MAC, without loopback; of several with one MAC the one with the shortest name.
pub(crate) fn table(links: Vec<Link>) -> LinkTable {
    let mut table = LinkTable::new();
    for link in links.into_iter().filter(|l| !l.loopback) {
        let Some(mac) = link.mac else { continue };
        let rank = |name: &str, ifindex: u32| (name.len(), ifindex);
        let facts = facts(link, mac);
        match table.get(&mac) {
            Some(now) if rank(&now.name, now.ifindex) <= rank(&facts.name, facts.ifindex) => {}
            _ => drop(table.insert(mac, facts)),
        }
    }
    table
}

pub(crate) fn facts(link: Link, mac: MacAddr) -> LinkFacts {
    LinkFacts { ifindex: link.ifindex, name: link.name, mac, alias: link.alias }
}

/// Everything that [`crate::plan`] looks at, of the namespace that the connection lives in and the thread stands in.
pub(crate) async fn observe(inside: &Netlink, sysctls: &[String]) -> Result<Seen, Fail> {
    let dump = |e| failed("observe the namespace", e);
    let links = links(inside).await.map_err(dump)?;
    let addresses: Vec<AddressMessage> =
        inside.handle.address().get().execute().try_collect().await.map_err(dump)?;
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let found: Vec<RouteMessage> =
            inside.handle.route().get(request).execute().try_collect().await.map_err(dump)?;
        routes.extend(found.into_iter().filter_map(route));
    }
    Ok(Seen {
        links,
        addresses: addresses.into_iter().filter_map(observed_address).collect(),
        routes,
        sysctls: read_sysctls(sysctls)?,
    })
}

fn observed_address(message: AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end's.
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Address {
        ifindex: message.header.index,
        net,
        secondary: matches!(net, IpNet::V4(_)) && flags.contains(AddressFlags::Secondary),
        usable: !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}

/// Default routes and blackholes of the main table; the rest is none of our business.
fn route(message: RouteMessage) -> Option<Route> {
    let header = &message.header;
    let kind = match header.kind {
        RouteType::Unicast if header.destination_prefix_length == 0 => RouteKind::Unicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        _ => return None,
    };
    let mut table = u32::from(header.table);
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut destination, mut gateway, mut oif) = (unspecified, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(to) => destination = ip(to)?,
            RouteAttribute::Gateway(via) => gateway = ip(via),
            RouteAttribute::Oif(index) => oif = Some(*index),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(Route { kind, destination, gateway, oif })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// /proc/sys/net shows the namespace of the thread that opens it.
fn read_sysctls(paths: &[String]) -> Result<BTreeMap<String, String>, Fail> {
    let mut values = BTreeMap::new();
    for path in paths {
        match fs::read_to_string(format!("/proc/sys/{path}")) {
            Ok(value) => drop(values.insert(path.clone(), value.trim().to_owned())),
            // No IPv6 in this kernel, or no such device.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Fail::io("read sysctls", &e)),
        }
    }
    Ok(values)
}

// ------------------------------------------------------------------------------------------------------------------ apply

/// What acting takes: the two connections, and where links move to.
#[derive(Debug)]
pub(crate) struct Hands<'a> {
    pub(crate) host: &'a Netlink,
    pub(crate) inside: &'a Netlink,
    pub(crate) netns: &'a Netns,
}

fn by_index(ifindex: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(ifindex)
}

impl Hands<'_> {
    /// Does one op.
    pub(crate) async fn apply(&self, op: &Op, mac: MacAddr) -> Result<(), Fail> {
        match op {
            Op::SetSysctl { path, value } => {
                fs::write(format!("/proc/sys/{path}"), value).map_err(|e| Fail::io("set sysctl", &e))
            }
            Op::Up { ifindex } => self.set(by_index(*ifindex).up(), "bring up a link").await,
            Op::SetMtu { ifindex, mtu } => self.set(by_index(*ifindex).mtu(*mtu), "set the MTU").await,
            Op::Rename { ifindex, name } => {
                self.set(by_index(*ifindex).down(), "take a link down").await?;
                self.set(by_index(*ifindex).name(*name), "rename a link").await
            }
            Op::MoveIn { host_ifindex, mtu } => self.move_in(*host_ifindex, *mtu, mac).await,
            Op::AwaitCarrier { ifindex } => self.await_carrier(*ifindex).await,
            Op::AddAddress { ifindex, net } => self.add_address(*ifindex, *net).await,
            Op::DeleteAddress { ifindex, net } => {
                let result = self.inside.handle.address().del(address(*ifindex, *net)).execute().await;
                // Gone with the primary address of its subnet.
                unless(result, &[Errno::EADDRNOTAVAIL], "delete an address")
            }
            Op::AddRoute(route) => {
                let result = self.inside.handle.route().add(route_message(route)).execute().await;
                unless(result, &[Errno::EEXIST], "add a route")
            }
            Op::DeleteRoute(route) => {
                let result = self.inside.handle.route().del(route_message(route)).execute().await;
                unless(result, &[Errno::ESRCH], "delete a route")
            }
        }
    }

    async fn set(&self, link: LinkMessageBuilder<LinkUnspec>, op: &'static str) -> Result<(), Fail> {
        self.inside.handle.link().set(link.build()).execute().await.map_err(|e| failed(op, e))
    }

    async fn move_in(&self, host_ifindex: u32, mtu: u32, mac: MacAddr) -> Result<(), Fail> {
        let fd = self.netns.as_fd().as_raw_fd();
        let link = by_index(host_ifindex).setns_by_fd(fd).name(ENI_NAME).mtu(mtu).up();
        match self.host.handle.link().set(link.build()).execute().await {
            // Between the look and the move it went: detached, or moved by someone.
            Err(e) if is_gone(&e) => Err(Fail::new("move the link in", NetworkErrorKind::NoLink(mac))),
            other => other.map_err(|e| failed("move the link in", e)),
        }
    }

    async fn add_address(&self, ifindex: u32, net: IpNet) -> Result<(), Fail> {
        let mut request = self.inside.handle.address().add(ifindex, net.addr(), net.prefix_len());
        let message = request.message_mut();
        match net {
            IpNet::V6(_) => {
                message.header.flags |= AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            // Not an address of the task's towards others.
            IpNet::V4(v4) if v4.addr() == METADATA_IP => message.header.scope = AddressScope::Host,
            IpNet::V4(_) => {}
        }
        unless(request.execute().await, &[Errno::EEXIST], "add an address")
    }

    /// Without this, the first packet of the first connection is lost now and then, and its retry comes a second later.
    async fn await_carrier(&self, ifindex: u32) -> Result<(), Fail> {
        const OP: &str = "wait for the link's carrier";
        let deadline = Instant::now() + CARRIER_DEADLINE;
        let mut pause = CARRIER_PAUSE.0;
        loop {
            let message = self.inside.handle.link().get().match_index(ifindex).execute().try_next().await;
            match message.map_err(|e| failed(OP, e))?.map(link) {
                Some(link) if link.carrier == Carrier::Yes => return Ok(()),
                Some(_) if Instant::now() < deadline => tokio::time::sleep(pause).await,
                _ => {
                    let text = format!("no carrier on {ENI_NAME} within {CARRIER_DEADLINE:?}");
                    return Err(Fail::new(OP, NetworkErrorKind::NotVerified(text)));
                }
            }
            pause = (pause * 2).min(CARRIER_PAUSE.1);
        }
    }

    /// Moves a link out to the agent's namespace: down, under a free name of the kernel's choosing, without alias. One that is gone is out.
    pub(crate) async fn give_back(
        &self,
        link: &Link,
        home: &Netns,
        mac: Option<MacAddr>,
    ) -> Result<(), Fail> {
        let mut message =
            by_index(link.ifindex).down().setns_by_fd(home.as_fd().as_raw_fd()).name(ANY_ETH).alias("");
        if let Some(mac) = mac.filter(|mac| link.mac != Some(*mac)) {
            // The task has changed it: under another MAC nobody would recognise the ENI.
            message = message.address(mac.0.to_vec());
        }
        match self.inside.handle.link().set(message.build()).execute().await {
            Err(e) if is_gone(&e) => Ok(()),
            other => other.map_err(|e| failed("give the link back", e)),
        }
    }
}

/// Writes a link's alias.
pub(crate) async fn set_alias(inside: &Netlink, ifindex: u32, alias: &str) -> Result<(), Fail> {
    let message = by_index(ifindex).alias(alias).build();
    inside.handle.link().set(message).execute().await.map_err(|e| failed("set the alias", e))
}

fn address(ifindex: u32, net: IpNet) -> AddressMessage {
    match net {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(ifindex)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(ifindex)
            .address(net.addr(), net.prefix_len())
            .build(),
    }
}

fn route_message(route: &Route) -> RouteMessage {
    let kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
    };
    let mut message = match route.destination {
        IpNet::V4(to) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new().kind(kind);
            builder.destination_prefix(to.addr(), to.prefix_len()).build()
        }
        IpNet::V6(to) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new().kind(kind);
            builder.destination_prefix(to.addr(), to.prefix_len()).build()
        }
    };
    message.attributes.extend(route.gateway.map(|via| RouteAttribute::Gateway(via.into())));
    message.attributes.extend(route.oif.map(RouteAttribute::Oif));
    message
}
