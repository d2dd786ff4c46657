//! The fabric in real namespaces. Every test has a VPC of its own name; nothing of the machine's own network is touched.

use super::*;
use crate::fabric::{
    filter::{Allow, EniFilter, Peer, Traffic},
    owner::Owner,
    teardown::remove_all,
};
use futures::TryStreamExt;
use nix::sys::{
    socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt},
    time::TimeVal,
};
use rtnetlink::{
    LinkUnspec,
    packet_route::link::{LinkAttribute, LinkFlags, LinkMessage},
};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

const ONE: &str = "i-00000000000000001";
const TWO: &str = "i-00000000000000002";
pub(super) const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
const ENI: &str = "eni-00000000000000077";
/// Long for a machine under load; what is waited for takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// A fabric whose namespaces go with it, also when a test fails half way.
struct Scratch {
    fabric: Fabric,
    name: String,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(remove_all(&self.name));
    }
}

pub(super) fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Two dual-stack subnets, an instance for each.
pub(super) fn spec(name: &str) -> FabricSpec {
    let subnet = |n: u8| SubnetSpec {
        id: format!("subnet-0000000000000000{n}"),
        ipv4: format!("10.0.{n}.0/24").parse().unwrap(),
        ipv6: Some(format!("2001:db8:0:{n}::/64").parse().unwrap()),
    };
    FabricSpec {
        name: name.into(),
        mtu: 1500,
        subnets: vec![subnet(1), subnet(2)],
        instances: vec![ONE.into(), TWO.into()],
    }
}

/// The primary ENI of instance `n`: 10.0.n.7.
fn primary(instance: &str, n: u8) -> Plug {
    Plug {
        instance: instance.into(),
        subnet: format!("subnet-0000000000000000{n}"),
        eni: format!("eni-0000000000000000{n}"),
        mac: [0x02, 0, 0, 0, 0, n],
        name: Some("eth0".into()),
        addresses: vec![
            format!("10.0.{n}.7/24").parse().unwrap(),
            format!("2001:db8:0:{n}::7/64").parse().unwrap(),
        ],
    }
}

fn secondary(instance: &str) -> Plug {
    Plug {
        instance: instance.into(),
        subnet: "subnet-00000000000000001".into(),
        eni: ENI.into(),
        mac: MAC,
        name: None,
        addresses: vec![],
    }
}

/// Lets everything in and out of ENIs, as long as they are who they are.
pub(super) fn open_to_all<'p>(plugs: impl IntoIterator<Item = &'p Plug>) -> Filter {
    let any = |peer| Allow { peer, traffic: Traffic::Any };
    let all: BTreeSet<_> =
        [any(Peer::V4("0.0.0.0/0".parse().unwrap())), any(Peer::V6("::/0".parse().unwrap()))].into();
    let eni = |plug: &Plug| EniFilter {
        mac: plug.mac,
        addresses: plug.addresses.iter().map(|a| a.addr()).collect(),
        source_dest_check: true,
        ingress: all.clone(),
        egress: all.clone(),
    };
    let enis = plugs.into_iter().map(|plug| (plug.eni.clone(), eni(plug))).collect();
    Filter { enis, ..Filter::default() }
}

/// A fabric with both primaries plugged in.
async fn scratch() -> Scratch {
    scratch_named(fresh_name()).await
}

async fn scratch_named(name: String) -> Scratch {
    let fabric = Fabric::up(spec(&name)).await.unwrap();
    let scratch = Scratch { fabric, name };
    let plugs = [primary(ONE, 1), primary(TWO, 2)];
    scratch.fabric.filter(open_to_all(&plugs)).await.unwrap();
    for plug in plugs {
        scratch.fabric.plug(plug).await.unwrap();
    }
    scratch
}

impl Scratch {
    fn netns(&self, instance: &str) -> Netns {
        Netns::open(&self.fabric.instance_netns(instance).unwrap()).unwrap()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    index: u32,
    name: String,
    mac: [u8; 6],
    mtu: u32,
    up: bool,
}

/// All links of a namespace but lo.
async fn links_in(netns: &Netns) -> Vec<Seen> {
    let netlink = netns.netlink().unwrap();
    let all: Vec<LinkMessage> = netlink.handle.link().get().execute().try_collect().await.unwrap();
    netlink.close().await;
    let seen = all.into_iter().map(|message| {
        let up = message.header.flags.contains(LinkFlags::Up);
        let mut seen = Seen { index: message.header.index, name: String::new(), mac: [0; 6], mtu: 0, up };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => seen.name = name,
                LinkAttribute::Mtu(mtu) => seen.mtu = mtu,
                LinkAttribute::Address(mac) => seen.mac = mac.try_into().unwrap(),
                _ => {}
            }
        }
        seen
    });
    seen.filter(|l| l.name != "lo").collect()
}

async fn link_with(netns: &Netns, mac: [u8; 6]) -> Option<Seen> {
    links_in(netns).await.into_iter().find(|l| l.mac == mac)
}

/// What an agent does with an ENI: into a task's namespace, as eth0, up.
pub(super) async fn move_link(from: &Netns, mac: [u8; 6], to: &Netns) {
    let link = link_with(from, mac).await.unwrap();
    let netlink = from.netlink().unwrap();
    let message = LinkUnspec::new_with_index(link.index)
        .setns_by_fd(to.as_fd().as_raw_fd())
        .name("eth0".to_owned())
        .up()
        .build();
    netlink.handle.link().set(message).execute().await.unwrap();
    netlink.close().await;
    assert!(link_with(to, mac).await.is_some());
}

/// Looks until it is so. The pause lets the kernel and the owner's thread have the processor.
pub(super) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn connect(from: &Netns, to: SocketAddr) -> io::Result<TcpStream> {
    from.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(3))).unwrap()
}

fn netns_files(name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(names::NETNS_DIR).unwrap();
    let files = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    files.filter(|f| names::belongs_to(name, f)).collect()
}

/// All TCP packets that arrive in a namespace, with their IP headers.
fn sniff_tcp(netns: &Netns) -> OwnedFd {
    let open = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp);
    let raw = netns.run(open).unwrap().unwrap();
    setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::new(5, 0)).unwrap();
    raw
}

// ------------------------------------------------------------------------------------------------------------------ packets

#[tokio::test]
async fn instances_in_two_subnets_are_one_hop_apart_and_see_each_others_addresses() {
    let scratch = scratch().await;
    let (one, two) = (scratch.netns(ONE), scratch.netns(TWO));
    let listener = scratch.fabric.bind_in_instance(TWO, "10.0.2.7:8080".parse().unwrap()).unwrap();
    let raw = sniff_tcp(&two);
    let mut client = connect(&one, "10.0.2.7:8080".parse().unwrap()).unwrap();

    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), "10.0.1.7".parse::<IpAddr>().unwrap(), "no address translation");
    client.write_all(b"hello").unwrap();
    let mut said = [0; 5];
    server.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello");

    let mut packet = [0; 128];
    let length = recv(raw.as_raw_fd(), &mut packet, MsgFlags::empty()).unwrap();
    assert!(length >= 40);
    assert_eq!((&packet[12..16], &packet[16..20]), (&[10, 0, 1, 7][..], &[10, 0, 2, 7][..]));
    assert_eq!(packet[8], 63, "64 less one hop");
    scratch.fabric.down().await;
}

#[tokio::test]
async fn ipv6_is_routed_between_subnets_at_once() {
    let scratch = scratch().await;
    let listener = scratch.fabric.bind_in_instance(TWO, "[2001:db8:0:2::7]:8080".parse().unwrap()).unwrap();
    let begun = Instant::now();
    connect(&scratch.netns(ONE), "[2001:db8:0:2::7]:8080".parse().unwrap()).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(900), "no first packet lost: {:?}", begun.elapsed());
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), IpAddr::V6("2001:db8:0:1::7".parse::<Ipv6Addr>().unwrap()));
    scratch.fabric.down().await;
}

#[tokio::test]
async fn the_vpc_listens_at_every_subnets_router() {
    let scratch = scratch().await;
    let listener = scratch.fabric.bind_in_vpc("0.0.0.0:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    for (instance, router) in [(ONE, "10.0.1.1"), (TWO, "10.0.2.1")] {
        connect(&scratch.netns(instance), SocketAddr::new(router.parse().unwrap(), port)).unwrap();
    }
    drop(listener);
    scratch.fabric.down().await;
}

#[tokio::test]
async fn every_instance_has_the_metadata_address_to_itself() {
    let scratch = scratch().await;
    let address = SocketAddr::new(IMDS_ADDRESS.into(), 80);
    let (a, b) = (
        scratch.fabric.bind_in_instance(ONE, address).unwrap(),
        scratch.fabric.bind_in_instance(TWO, address).unwrap(),
    );
    let _client = connect(&scratch.netns(TWO), address).unwrap();
    b.set_nonblocking(true).unwrap();
    a.set_nonblocking(true).unwrap();
    assert!(b.accept().is_ok());
    assert_eq!(a.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop((a, b));
    scratch.fabric.down().await;
}

#[tokio::test]
async fn an_address_is_reachable_at_once_after_it_moved_to_another_eni() {
    let scratch = scratch().await;
    let listener = scratch.fabric.bind_in_instance(TWO, "0.0.0.0:8080".parse().unwrap()).unwrap();
    let target: SocketAddr = "10.0.2.7:8080".parse().unwrap();
    connect(&scratch.netns(ONE), target).unwrap();

    let old = primary(TWO, 2);
    scratch.fabric.unplug(&old.eni).await.unwrap();
    let new = Plug { eni: ENI.into(), mac: MAC, ..old };
    scratch.fabric.filter(open_to_all([&primary(ONE, 1), &new])).await.unwrap();
    scratch.fabric.plug(new).await.unwrap();

    let begun = Instant::now();
    connect(&scratch.netns(ONE), target).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(900), "the router still knew the old MAC");
    drop(listener);
    scratch.fabric.down().await;
}

// -------------------------------------------------------------------------------------------------------------------- links

#[tokio::test]
async fn an_attached_eni_shows_up_down_with_its_mac_under_a_kernel_given_name() {
    let scratch = scratch().await;
    let netns = scratch.netns(ONE);
    scratch.fabric.plug(secondary(ONE)).await.unwrap();
    let link = link_with(&netns, MAC).await.unwrap();
    assert_eq!((link.name.as_str(), link.up, link.mtu), ("eth1", false, 1500));
    scratch.fabric.plug(secondary(ONE)).await.unwrap();
    assert_eq!(link_with(&netns, MAC).await.unwrap(), link, "plugged twice is plugged once");

    scratch.fabric.unplug(ENI).await.unwrap();
    assert_eq!(link_with(&netns, MAC).await, None);
    scratch.fabric.unplug(ENI).await.unwrap();
    scratch.fabric.plug(secondary(TWO)).await.unwrap();
    assert_eq!(link_with(&scratch.netns(TWO), MAC).await.unwrap().name, "eth1");
    scratch.fabric.down().await;
}

#[tokio::test]
async fn a_link_that_was_moved_into_a_tasks_namespace_is_unplugged_there() {
    let scratch = scratch().await;
    scratch.fabric.plug(secondary(ONE)).await.unwrap();
    let task = Netns::create().unwrap();
    move_link(&scratch.netns(ONE), MAC, &task).await;
    scratch.fabric.unplug(ENI).await.unwrap();
    assert_eq!(links_in(&task).await, []);
    scratch.fabric.down().await;
}

#[tokio::test]
async fn a_link_falls_back_to_its_instance_when_the_namespace_around_it_dies() {
    let scratch = scratch().await;
    let instance = scratch.netns(ONE);
    scratch.fabric.plug(secondary(ONE)).await.unwrap();
    for _ in 0..2 {
        let task = Netns::create().unwrap();
        move_link(&instance, MAC, &task).await;
        drop(task);
        let link = eventually("the link is back", async || link_with(&instance, MAC).await).await;
        assert_eq!((link.name.as_str(), link.up), ("dev0", false));
    }
    scratch.fabric.unplug(ENI).await.unwrap();
    assert_eq!(link_with(&instance, MAC).await, None);
    scratch.fabric.down().await;
}

#[tokio::test]
async fn an_instance_whose_own_link_is_deleted_gets_it_back_configured() {
    let scratch = scratch().await;
    let one = scratch.netns(ONE);
    let old = link_with(&one, [2, 0, 0, 0, 0, 1]).await.unwrap();
    let netlink = one.netlink().unwrap();
    netlink.handle.link().del(old.index).execute().await.unwrap();
    netlink.close().await;
    let router = scratch.fabric.bind_in_vpc("10.0.1.1:0".parse().unwrap()).unwrap();
    let address = router.local_addr().unwrap();
    eventually("the primary works again", async || connect(&one, address).ok()).await;
    drop(router);
    scratch.fabric.down().await;
}

#[tokio::test]
async fn what_cannot_be_plugged_in_is_refused_and_leaves_nothing() {
    let scratch = scratch().await;
    let vpc = Netns::open(&scratch.fabric.vpc_netns()).unwrap();
    let before = links_in(&vpc).await;
    let cases = [
        (Plug { instance: "i-99999999".into(), ..secondary(ONE) }, "the fabric has no instance i-99999999"),
        (Plug { subnet: "subnet-9".into(), ..secondary(ONE) }, "the fabric has no subnet subnet-9"),
        (
            Plug { name: Some("eth0".into()), ..secondary(ONE) },
            "the name eth0 for a link of eni-00000000000000077 is taken",
        ),
        (
            Plug { mac: MAC, ..primary(ONE, 1) },
            "eni-00000000000000001 is plugged into i-00000000000000001 already, with other values",
        ),
        (
            Plug { eni: "eni-90000000000000001".into(), ..secondary(ONE) },
            "the name eni000000000001 for a link of eni-90000000000000001 is taken",
        ),
    ];
    for (plug, message) in cases {
        assert_eq!(scratch.fabric.plug(plug).await.unwrap_err().to_string(), message);
    }
    assert_eq!(links_in(&vpc).await, before);
    scratch.fabric.down().await;
}

#[tokio::test]
async fn specifications_that_cannot_be_built_are_refused() {
    let good = spec("tbad");
    let twice = vec![ONE.to_owned(), ONE.to_owned()];
    for bad in [
        FabricSpec { name: "T".into(), ..good.clone() },
        FabricSpec { mtu: 68, ..good.clone() },
        FabricSpec { instances: vec!["../i-12345678".into()], ..good.clone() },
        FabricSpec { instances: twice, ..good.clone() },
        FabricSpec { subnets: vec![good.subnets[0].clone(), good.subnets[0].clone()], ..good.clone() },
    ] {
        assert!(matches!(Fabric::up(bad).await, Err(FabricError::Spec { .. })));
    }
}

// --------------------------------------------------------------------------------------------------------------------- ends

#[tokio::test]
async fn down_leaves_nothing_not_even_in_a_tasks_namespace() {
    let scratch = scratch().await;
    scratch.fabric.plug(secondary(ONE)).await.unwrap();
    let task = Netns::create().unwrap();
    move_link(&scratch.netns(ONE), MAC, &task).await;
    assert_eq!(netns_files(&scratch.name).len(), 3);
    scratch.fabric.down().await;
    assert_eq!((netns_files(&scratch.name), links_in(&task).await), (vec![], vec![]));
    scratch.fabric.down().await;
    assert!(matches!(scratch.fabric.plug(secondary(ONE)).await, Err(FabricError::Down)));
}

#[tokio::test]
async fn a_dropped_fabric_is_taken_down() {
    let name = fresh_name();
    let fabric = Fabric::up(spec(&name)).await.unwrap();
    drop(fabric);
    eventually("all is removed", async || netns_files(&name).is_empty().then_some(())).await;
}

/// Everything that a kill -9 leaves: the owner is dropped, and nobody takes the fabric down.
async fn killed(name: &str) {
    let (mut owner, watch) = Owner::build(spec(name)).await.unwrap();
    for plug in [primary(ONE, 1), primary(TWO, 2), secondary(ONE)] {
        owner.plug(plug).await.unwrap();
    }
    drop((owner, watch));
}

#[tokio::test]
async fn what_a_killed_fabric_left_is_removed_wherever_it_is() {
    let name = fresh_name();
    killed(&name).await;
    let task = Netns::create().unwrap();
    move_link(&Netns::open(&names::instance_netns(&name, ONE)).unwrap(), MAC, &task).await;

    let removed = Fabric::remove_leftovers(&name).await.unwrap();
    assert_eq!(removed, [format!("{name}-{ONE}"), format!("{name}-{TWO}"), format!("{name}-vpc")]);
    assert_eq!((netns_files(&name), links_in(&task).await), (vec![], vec![]));
    assert_eq!(Fabric::remove_leftovers(&name).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_fabric_that_died_between_two_steps_is_removed_too() {
    let name = fresh_name();
    ns_dir();
    // The name is there, the mount is not yet.
    std::fs::write(names::vpc_netns(&name), "").unwrap();
    std::fs::write(names::instance_netns(&name, ONE), "").unwrap();
    assert_eq!(Fabric::remove_leftovers(&name).await.unwrap().len(), 2);
    assert_eq!(netns_files(&name), Vec::<String>::new());
}

fn ns_dir() {
    berth_netns::ns::share_dir(Path::new(names::NETNS_DIR)).unwrap();
}

#[tokio::test]
async fn a_fabric_starts_over_what_a_killed_one_left() {
    let name = fresh_name();
    killed(&name).await;
    let scratch = scratch_named(name).await;
    scratch.fabric.plug(secondary(ONE)).await.unwrap();
    assert_eq!(link_with(&scratch.netns(ONE), MAC).await.unwrap().name, "eth1");
    scratch.fabric.down().await;
}

#[tokio::test]
async fn a_living_fabric_is_neither_started_twice_nor_removed_as_a_leftover() {
    let scratch = scratch().await;
    let (again, leftovers) =
        tokio::join!(Fabric::up(spec(&scratch.name)), Fabric::remove_leftovers(&scratch.name));
    assert!(matches!(again, Err(FabricError::Running(_))));
    assert!(matches!(leftovers, Err(FabricError::Running(_))));
    assert_eq!(netns_files(&scratch.name).len(), 3);
    scratch.fabric.down().await;
}

#[tokio::test]
async fn two_fabrics_side_by_side_do_not_touch_each_other() {
    let first = scratch().await;
    // Same addresses, same ids, and a name that begins with the other's.
    let second = scratch_named(format!("{}-two", first.name)).await;
    let listener = second.fabric.bind_in_instance(TWO, "10.0.2.7:8080".parse().unwrap()).unwrap();
    let target = "10.0.2.7:8080".parse().unwrap();
    assert!(connect(&first.netns(ONE), target).is_err(), "nobody listens there in the first");
    first.fabric.down().await;
    connect(&second.netns(ONE), target).unwrap();
    drop(listener);
    second.fabric.down().await;
}
