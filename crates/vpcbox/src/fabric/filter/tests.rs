//! Security groups in real namespaces: three instances, two in one subnet (bridged), one in another (routed).

mod hostile;
mod scripts;

use super::*;
use crate::fabric::{
    Fabric, FabricError, FabricSpec, Plug, names,
    tests::{MAC, connect, eventually, fresh_name, move_link, open_to_all, spec},
};
use berth_netns::ns::Netns;
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
    },
    time::TimeVal,
};
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::Command,
    time::{Duration, Instant},
};

const A: &str = "i-0000000000000000a";
const B: &str = "i-0000000000000000b";
const C: &str = "i-0000000000000000c";
/// A packet that is dropped is waited for as long as this; one that passes takes microseconds.
const SILENCE: Duration = Duration::from_millis(250);
/// Nobody listens there: a refusal is an answer too.
const PORT: u16 = 4000;

/// A fabric, and what its ENIs may do.
struct Net {
    fabric: Fabric,
    filter: Filter,
}

impl Drop for Net {
    fn drop(&mut self) {
        let name = self.fabric.vpc_netns().file_name().unwrap().to_str().unwrap().to_owned();
        drop(crate::fabric::teardown::remove_all(name.strip_suffix("-vpc").unwrap()));
    }
}

fn subnet_of(instance: &str) -> u8 {
    if instance == C { 2 } else { 1 }
}

fn v4(instance: &str) -> IpAddr {
    let host = instance.as_bytes()[18] - b'a' + 10;
    IpAddr::from([10, 0, subnet_of(instance), host])
}

fn v6(instance: &str) -> IpAddr {
    let host = u16::from(instance.as_bytes()[18] - b'a') + 0x10;
    IpAddr::from([0x2001, 0xdb8, 0, u16::from(subnet_of(instance)), 0, 0, 0, host])
}

fn both(instance: &str) -> [IpAddr; 2] {
    [v4(instance), v6(instance)]
}

fn eni(instance: &str) -> String {
    instance.replace("i-", "eni-")
}

fn plug(instance: &str) -> Plug {
    let subnet = subnet_of(instance);
    Plug {
        instance: instance.into(),
        subnet: format!("subnet-0000000000000000{subnet}"),
        eni: eni(instance),
        mac: [2, 0, 0, 0, 1, instance.as_bytes()[18]],
        name: Some("eth0".into()),
        addresses: vec![
            format!("{}/24", v4(instance)).parse().unwrap(),
            format!("{}/64", v6(instance)).parse().unwrap(),
        ],
    }
}

fn anyone() -> [Peer; 2] {
    [Peer::V4(Ipv4Net::default()), Peer::V6(Ipv6Net::default())]
}

fn allow(traffic: Traffic, peers: impl IntoIterator<Item = Peer>) -> BTreeSet<Allow> {
    peers.into_iter().map(|peer| Allow { peer, traffic }).collect()
}

fn group(id: &str) -> [Peer; 1] {
    [Peer::Group(id.into())]
}

const ONE_PORT: Ports = Ports { first: PORT, last: PORT };

impl Net {
    /// All three instances; everything goes out, nothing comes in; `sg-a` has A in it, `sg-b` B, `sg-c` C.
    async fn up() -> Self {
        let name = fresh_name();
        let spec = FabricSpec { instances: vec![A.into(), B.into(), C.into()], ..spec(&name) };
        let fabric = Fabric::up(spec).await.unwrap();
        let plugs = [plug(A), plug(B), plug(C)];
        let mut filter = open_to_all(&plugs);
        for (id, instance) in [("sg-a", A), ("sg-b", B), ("sg-c", C)] {
            filter.enis.get_mut(&eni(instance)).unwrap().ingress.clear();
            filter.groups.insert(id.into(), both(instance).into());
        }
        let net = Self { fabric, filter };
        net.apply().await;
        for plug in plugs {
            net.fabric.plug(plug).await.unwrap();
        }
        net
    }

    fn eni(&mut self, instance: &str) -> &mut EniFilter {
        self.filter.enis.get_mut(&eni(instance)).unwrap()
    }

    async fn apply(&self) {
        self.fabric.filter(self.filter.clone()).await.unwrap();
    }

    fn netns(&self, instance: &str) -> Netns {
        Netns::open(&self.fabric.instance_netns(instance).unwrap()).unwrap()
    }

    /// Runs `ip` in an instance.
    fn ip(&self, instance: &str, arguments: &str) {
        ip(&self.netns(instance), arguments);
    }

    /// Whether each of TCP, UDP and ping gets an answer, over IPv4 and over IPv6.
    fn reaches(&self, from: &str, to: &str) -> [bool; 3] {
        let netns = &self.netns(from);
        let probes: [fn(&Netns, IpAddr) -> bool; 3] = [tcp, udp, ping];
        // Side by side: silence takes its time.
        std::thread::scope(|scope| {
            let started = probes.map(|probe| both(to).map(|to| scope.spawn(move || probe(netns, to))));
            started.map(|pair| {
                let [v4, v6] = pair.map(|thread| thread.join().unwrap());
                assert_eq!(v4, v6, "IPv4 {v4}, IPv6 {v6} from {from} to {to}");
                v4
            })
        })
    }

    async fn drops(&self, instance: &str) -> Drops {
        let found = drops(&self.fabric.vpc_netns(), [eni(instance).as_str()]).await.unwrap();
        found[&eni(instance)]
    }

    /// A datagram of the sender's that has `to` as its destination; whether the receiver gets it.
    fn datagram(&self, from: &str, source: IpAddr, receiver: &str, to: IpAddr) -> bool {
        let bind = |netns: &Netns, at| netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
        let listener = bind(&self.netns(receiver), SocketAddr::new(to, PORT));
        listener.set_read_timeout(Some(SILENCE)).unwrap();
        let sender = bind(&self.netns(from), SocketAddr::new(source, 0));
        sender.send_to(b"hello", SocketAddr::new(to, PORT)).unwrap();
        listener.recv_from(&mut [0; 16]).is_ok()
    }
}

fn ip(netns: &Netns, arguments: &str) {
    let run = || Command::new("ip").args(arguments.split(' ')).output().unwrap();
    let output = netns.run(run).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn tcp(from: &Netns, to: IpAddr) -> bool {
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(to, PORT), SILENCE);
    answered(&from.run(connect).unwrap())
}

fn udp(from: &Netns, to: IpAddr) -> bool {
    let ask = || {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.connect((to, PORT))?;
        socket.send(b"hello")?;
        socket.recv(&mut [0; 16])
    };
    answered(&from.run(ask).unwrap())
}

fn answered<T>(outcome: &io::Result<T>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => true,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => false,
            other => panic!("{other}"),
        },
    }
}

/// An echo request and its reply, by hand: not every machine has a `ping`.
fn ping(from: &Netns, to: IpAddr) -> bool {
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let open = || socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
    let raw = from.run(open).unwrap().unwrap();
    setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::new(0, i64::try_from(SILENCE.as_micros()).unwrap()))
        .unwrap();
    // The kernel fills the checksum in for IPv6 only.
    let sum = if to.is_ipv4() { !(u16::from_be_bytes([request, 0]) + 0x1234) } else { 0 };
    let [high, low] = sum.to_be_bytes();
    let packet = [request, 0, high, low, 0x12, 0x34, 0, 0];
    let target = nix::sys::socket::SockaddrStorage::from(SocketAddr::new(to, 0));
    sendto(raw.as_raw_fd(), &packet, &target, MsgFlags::empty()).unwrap();
    let end = Instant::now() + SILENCE;
    let mut buffer = [0; 256];
    while Instant::now() < end {
        let Ok(length) = recv(raw.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { return false };
        let header = if to.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let message = &buffer[header..length];
        if message[0] == reply && message[4..6] == [0x12, 0x34] {
            return true;
        }
    }
    false
}

const NOT_AT_ALL: [bool; 3] = [false; 3];
const BY_ALL_MEANS: [bool; 3] = [true; 3];

// ------------------------------------------------------------------------------------------------------------------ groups

#[tokio::test]
async fn members_of_two_groups_cannot_reach_each_other_in_one_subnet_or_across_two() {
    let net = Net::up().await;
    for (from, to) in [(A, B), (A, C), (C, B)] {
        assert_eq!(net.reaches(from, to), NOT_AT_ALL, "{from} to {to}");
    }
    let dropped = net.drops(B).await;
    assert!(dropped.denied_in >= 12, "three probes, two families, two senders: {dropped:?}");
    assert_eq!((dropped.denied_out, dropped.spoofed, dropped.misdirected), (0, 0, 0));
    net.fabric.down().await;
}

#[tokio::test]
async fn a_rule_that_names_a_group_opens_one_direction_and_replies_pass() {
    let mut net = Net::up().await;
    for instance in [B, C] {
        net.eni(instance).ingress = allow(Traffic::Any, group("sg-a"));
        // Not even replies could go out by a rule.
        net.eni(instance).egress.clear();
    }
    net.apply().await;
    for to in [B, C] {
        assert_eq!(net.reaches(A, to), BY_ALL_MEANS, "to {to}");
        assert_eq!(net.reaches(to, A), NOT_AT_ALL, "from {to}");
    }
    assert!(net.drops(B).await.denied_out > 0);
    net.fabric.down().await;
}

#[tokio::test]
async fn members_of_a_group_that_names_itself_reach_each_other() {
    let mut net = Net::up().await;
    net.filter.groups.insert("sg-all".into(), [both(A), both(C)].into_iter().flatten().collect());
    for instance in [A, C] {
        net.eni(instance).ingress = allow(Traffic::Any, group("sg-all"));
    }
    net.apply().await;
    assert_eq!(net.reaches(A, C), BY_ALL_MEANS);
    assert_eq!(net.reaches(C, A), BY_ALL_MEANS);
    assert_eq!(net.reaches(B, A), NOT_AT_ALL);

    net.filter.groups.insert("sg-all".into(), [both(A), both(B)].into_iter().flatten().collect());
    net.apply().await;
    assert_eq!(net.reaches(B, A), BY_ALL_MEANS, "who joins is in at once");
    // It spoke to A a moment ago, from other ports.
    assert!(!tcp(&net.netns(C), v4(A)), "who leaves is out at once");
    net.fabric.down().await;
}

#[tokio::test]
async fn rules_are_about_ports_protocols_and_blocks() {
    let mut net = Net::up().await;
    let near = [Peer::V4("10.0.1.0/24".parse().unwrap()), Peer::V6("2001:db8:0:1::/64".parse().unwrap())];
    let table: [(Traffic, [bool; 3]); 7] = [
        (Traffic::Tcp(ONE_PORT), [true, false, false]),
        (Traffic::Tcp(Ports { first: PORT + 1, last: 9000 }), NOT_AT_ALL),
        (Traffic::Tcp(Ports::ALL), [true, false, false]),
        (Traffic::Udp(Ports { first: 1, last: PORT }), [false, true, false]),
        (Traffic::Protocol(17), [false, true, false]),
        (Traffic::Protocol(50), NOT_AT_ALL),
        (Traffic::Any, BY_ALL_MEANS),
    ];
    for (traffic, expected) in table {
        net.eni(B).ingress = allow(traffic, near.clone());
        net.eni(C).ingress = allow(traffic, near.clone());
        // Flows of the row before would go on.
        net.fabric.filter(Filter::default()).await.unwrap();
        net.apply().await;
        assert_eq!(net.reaches(A, B), expected, "{traffic:?}");
        assert_eq!(net.reaches(A, C), expected, "{traffic:?}, routed");
        assert_eq!(net.reaches(C, B), NOT_AT_ALL, "{traffic:?}, from the other block");
    }
    for (kinds, expected) in [
        ([IcmpKind::Any; 2], true),
        ([IcmpKind::Type(8), IcmpKind::Code(128, 0)], true),
        ([IcmpKind::Type(3), IcmpKind::Code(128, 7)], false),
    ] {
        let [four, six] = kinds;
        net.eni(B).ingress = &allow(Traffic::Icmp(four), anyone()) | &allow(Traffic::Icmpv6(six), anyone());
        net.fabric.filter(Filter::default()).await.unwrap();
        net.apply().await;
        assert_eq!(net.reaches(A, B), [false, false, expected], "{kinds:?}");
    }
    net.fabric.down().await;
}

#[tokio::test]
async fn a_rule_that_is_taken_away_ends_no_flow_and_lets_no_new_one_in() {
    let mut net = Net::up().await;
    for instance in [B, C] {
        net.eni(instance).ingress = allow(Traffic::Tcp(ONE_PORT), group("sg-a"));
    }
    net.apply().await;
    for to in [B, C] {
        let target = SocketAddr::new(v4(to), PORT);
        let listener = net.netns(to).run(|| TcpListener::bind(target)).unwrap().unwrap();
        let mut client = connect(&net.netns(A), target).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let before = net.filter.clone();
        for instance in [B, C] {
            net.eni(instance).ingress.clear();
        }
        net.apply().await;
        assert!(!tcp(&net.netns(A), v4(to)), "a new flow to {to}");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        client.write_all(b"still").unwrap();
        let mut said = [0; 5];
        server.read_exact(&mut said).unwrap();
        server.write_all(b"there").unwrap();
        client.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"there");
        net.filter = before;
        net.apply().await;
    }
    net.fabric.down().await;
}

#[tokio::test]
async fn the_routers_addresses_are_reached_without_any_rule() {
    let mut net = Net::up().await;
    net.eni(A).egress.clear();
    net.apply().await;
    for router in ["10.0.1.1", "10.0.2.1", "2001:db8:0:1::1"] {
        let router = router.parse().unwrap();
        for probe in [tcp, udp, ping] {
            assert!(probe(&net.netns(A), router), "{router}");
        }
    }
    assert_eq!(net.reaches(A, B), NOT_AT_ALL);
    net.fabric.down().await;
}

#[tokio::test]
async fn an_eni_is_filtered_wherever_its_link_was_moved() {
    let mut net = Net::up().await;
    let (address, id) = (IpAddr::from([10, 0, 1, 77]), "eni-00000000000000077");
    let moved = Plug {
        eni: id.into(),
        mac: MAC,
        name: None,
        addresses: vec![format!("{address}/24").parse().unwrap()],
        ..plug(A)
    };
    let mut filter = open_to_all([&moved]).enis.remove(id).unwrap();
    filter.ingress = allow(Traffic::Any, group("sg-b"));
    net.filter.enis.insert(id.into(), filter);
    net.apply().await;
    net.fabric.plug(moved).await.unwrap();
    let task = Netns::create().unwrap();
    move_link(&net.netns(A), MAC, &task).await;
    ip(&task, "addr add 10.0.1.77/24 dev eth0");
    eventually("the link runs", async || tcp(&net.netns(B), address).then_some(())).await;
    assert!(!tcp(&net.netns(A), address) && !ping(&net.netns(A), address), "not even its own instance");
    assert!(!udp(&task, v4(B)));
    net.eni(B).ingress = allow(Traffic::Any, [Peer::V4("10.0.1.77/32".parse().unwrap())]);
    net.apply().await;
    assert!(udp(&task, v4(B)));
    net.fabric.down().await;
}

#[tokio::test]
async fn an_eni_that_no_filter_names_hears_and_says_nothing() {
    let mut net = Net::up().await;
    net.filter.enis.remove(&eni(B));
    net.apply().await;
    // Not even ARP: the sender learns that there is nobody.
    let refused = net.netns(A).run(|| TcpStream::connect_timeout(&SocketAddr::new(v4(B), PORT), SILENCE));
    assert!(!matches!(refused.unwrap(), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused));
    assert!(drops(&net.fabric.vpc_netns(), [eni(B).as_str()]).await.unwrap().is_empty());
    net.fabric.down().await;
}

// ------------------------------------------------------------------------------------------------ source/destination check

#[tokio::test]
async fn a_source_that_is_not_the_enis_own_is_dropped_unless_the_check_is_off() {
    let mut net = Net::up().await;
    for instance in [B, C] {
        net.eni(instance).ingress = allow(Traffic::Any, anyone());
    }
    net.apply().await;
    let foreign = ["10.0.1.99", "2001:db8:0:1::99"].map(|a| a.parse::<IpAddr>().unwrap());
    // Neighbours are asked for from its own address; what asks from another one is dropped too.
    assert_eq!(net.reaches(A, B), BY_ALL_MEANS);
    assert_eq!(net.reaches(A, C), BY_ALL_MEANS);
    net.ip(A, "addr add 10.0.1.99/32 dev eth0");
    net.ip(A, "addr add 2001:db8:0:1::99/128 dev eth0 nodad");
    for to in [B, C] {
        for (source, target) in foreign.into_iter().zip(both(to)) {
            assert!(!net.datagram(A, source, to, target), "{source} to {to}");
        }
    }
    assert!(net.drops(A).await.spoofed >= 4);
    net.eni(A).source_dest_check = false;
    net.apply().await;
    for to in [B, C] {
        for (source, target) in foreign.into_iter().zip(both(to)) {
            assert!(net.datagram(A, source, to, target), "{source} to {to}");
        }
    }
    // The address is in no book: nobody else may learn that it would be here.
    let ask = || TcpStream::connect_timeout(&SocketAddr::new(foreign[0], PORT), SILENCE);
    assert!(
        !matches!(net.netns(B).run(ask).unwrap(), Err(e) if e.kind() == io::ErrorKind::ConnectionRefused)
    );
    net.fabric.down().await;
}

#[tokio::test]
async fn what_is_for_another_address_is_dropped_unless_the_check_is_off() {
    let mut net = Net::up().await;
    net.eni(B).ingress = allow(Traffic::Any, anyone());
    net.apply().await;
    let elsewhere = IpAddr::from([172, 16, 0, 9]);
    net.ip(A, &format!("route add 172.16.0.9/32 via {}", v4(B)));
    net.ip(B, "addr add 172.16.0.9/32 dev lo");
    assert!(!net.datagram(A, v4(A), B, elsewhere));
    assert_eq!(net.drops(B).await.misdirected, 1);
    net.eni(B).source_dest_check = false;
    net.apply().await;
    assert!(net.datagram(A, v4(A), B, elsewhere));
    net.fabric.down().await;
}

#[tokio::test]
async fn a_mac_that_is_not_the_enis_own_is_dropped_always() {
    let mut net = Net::up().await;
    net.eni(B).ingress = allow(Traffic::Any, anyone());
    net.eni(A).source_dest_check = false;
    net.apply().await;
    assert!(net.datagram(A, v4(A), B, v4(B)));
    net.ip(A, "link set dev eth0 address 02:00:00:00:99:99");
    assert!(!net.datagram(A, v4(A), B, v4(B)));
    assert!(net.drops(A).await.spoofed > 0);
    net.fabric.down().await;
}
