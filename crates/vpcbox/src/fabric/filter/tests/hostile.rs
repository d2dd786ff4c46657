//! What a task of one team may try on another's: fragments, and playing the router.

use super::*;
use crate::fabric::links;
use nix::sys::socket::SockaddrStorage;
use std::net::SocketAddrV6;

/// More than two links' MTU.
const LONG: usize = 4000;

#[tokio::test]
async fn fragments_pass_with_the_flow_that_they_belong_to_and_not_by_themselves() {
    let mut net = Net::up().await;
    let alone = net.drops(A).await.denied_out;
    lone_fragment(&net.netns(A), v4(B));
    eventually("it has no flow", async || (net.drops(A).await.denied_out > alone).then_some(())).await;
    for to in [B, C] {
        assert!(
            both(to).into_iter().all(|address| !net.long_datagram(A, to, address)),
            "{to} lets nobody in"
        );
        net.eni(to).ingress = allow(Traffic::Udp(Ports { first: PORT, last: PORT }), anyone());
    }
    net.apply().await;
    for to in [B, C] {
        for address in both(to) {
            assert!(net.long_datagram(A, to, address), "{address}");
        }
    }
    net.fabric.down().await;
}

#[tokio::test]
async fn nobody_but_the_router_is_believed_to_be_the_router() {
    let mut net = Net::up().await;
    // Not even one that may speak for others.
    net.eni(A).source_dest_check = false;
    net.eni(B).ingress = allow(Traffic::Any, anyone());
    net.apply().await;
    let IpAddr::V6(target) = v6(B) else { panic!("{} is IPv6", v6(B)) };
    assert!(udp(&net.netns(A), target.into()), "it knows where the target is");
    for (kind, what) in [(134, "an advertisement"), (137, "a redirect")] {
        let before = net.drops(A).await.spoofed;
        icmpv6(&net.netns(A), target, kind);
        assert_eq!(net.drops(A).await.spoofed, before + 1, "{what}");
    }
    net.ip(A, "addr add fe80:ec2::1/64 dev eth0 nodad");
    net.ip(A, "-6 neigh flush dev eth0");
    let before = net.drops(A).await.spoofed;
    let index = net.netns(A).run(|| nix::net::if_::if_nametoindex("eth0")).unwrap().unwrap();
    let router = SocketAddrV6::new(links::ROUTER_LINK_LOCAL, 0, 0, index);
    // To send it, the kernel asks who has the target, in the router's name and with the MAC of A.
    let ask = || UdpSocket::bind(router).unwrap().send_to(b"hello", (target, PORT));
    drop(net.netns(A).run(ask).unwrap());
    eventually("it was asked", async || (net.drops(A).await.spoofed > before).then_some(())).await;
    let known = || Command::new("ip").args(["-6", "neigh", "show", "to", "fe80:ec2::1"]).output().unwrap();
    let known = String::from_utf8(net.netns(B).run(known).unwrap().stdout).unwrap();
    assert!(!known.contains(&mac_of(A)), "{known}");
    net.fabric.down().await;
}

fn mac_of(instance: &str) -> String {
    plug(instance).mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Net {
    /// Whether a datagram of several fragments arrives.
    fn long_datagram(&self, from: &str, receiver: &str, to: IpAddr) -> bool {
        let bind = |netns: &Netns, at| netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
        let listener = bind(&self.netns(receiver), SocketAddr::new(to, PORT));
        listener.set_read_timeout(Some(SILENCE)).unwrap();
        let source = both(from).into_iter().find(|a| a.is_ipv4() == to.is_ipv4()).unwrap();
        let sender = bind(&self.netns(from), SocketAddr::new(source, 0));
        sender.send_to(&[7; LONG], SocketAddr::new(to, PORT)).unwrap();
        listener.recv_from(&mut [0; LONG]).is_ok_and(|(length, _)| length == LONG)
    }
}

/// Sends the second fragment of a datagram that has no first.
fn lone_fragment(from: &Netns, to: IpAddr) {
    let IpAddr::V4(target) = to else { panic!("{to} is IPv4") };
    let open = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw);
    let raw = from.run(open).unwrap().unwrap();
    // Version and length; 8 units of 8 bytes on; UDP. The kernel fills in source, id and checksum.
    let mut packet = vec![0x45, 0, 0, 52, 0x12, 0x34, 0, 8, 64, 17, 0, 0, 0, 0, 0, 0];
    packet.extend(target.octets());
    packet.extend([7; 32]);
    let target = SockaddrStorage::from(SocketAddr::new(to, 0));
    sendto(raw.as_raw_fd(), &packet, &target, MsgFlags::empty()).unwrap();
}

/// Sends a message of neighbour discovery.
fn icmpv6(from: &Netns, to: Ipv6Addr, kind: u8) {
    let open = || socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6);
    let raw = from.run(open).unwrap().unwrap();
    setsockopt(&raw, sockopt::Ipv6Ttl, &255).unwrap();
    let mut packet = vec![0; 40];
    packet[0] = kind;
    let target = SockaddrStorage::from(SocketAddr::new(to.into(), 0));
    sendto(raw.as_raw_fd(), &packet, &target, MsgFlags::empty()).unwrap();
}
