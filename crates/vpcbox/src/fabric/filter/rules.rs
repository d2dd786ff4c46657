//! What the chains of an ENI say.
//!
//! Every ENI has four chains of its own. `_out` and `_in` check who is speaking to whom, pass what belongs to a known flow, and try
//! the groups' rules; a rule that matches goes to `_new_out` or `_new_in`, which enters the flow and passes the packet.

use super::{
    super::links,
    Allow, EniFilter, IcmpKind, Peer, Ports, Traffic,
    words::{
        FAMILIES, Family, MISDIRECTED, SPOOFED, TABLE, V4, V6, Way, chain, echo_set, flow_set, group_set,
        line, new_flow, own_set, pair_set, talk_set,
    },
};
use std::net::{IpAddr, Ipv6Addr};

/// Rules of one chain, in order.
struct Chain<'t> {
    text: &'t mut String,
    name: String,
    end: &'t str,
}

impl Chain<'_> {
    fn rule(&mut self, rule: impl AsRef<str>) {
        line(self.text, format_args!("add rule {TABLE} {} {}", self.name, rule.as_ref()));
    }

    fn deny(&mut self, matching: &str, counter: &str) {
        self.rule(format!("{matching} counter name {}_{counter} drop", self.end));
    }
}

/// All rules of an ENI, for chains that are there and empty.
pub(super) fn rules(text: &mut String, end: &str, filter: &EniFilter) {
    for way in [Way::Out, Way::In] {
        begins(&mut Chain { text, name: new_flow(end, way), end }, way);
        let chain = &mut Chain { text, name: chain(end, way), end };
        match way {
            Way::Out => sender(chain, filter),
            Way::In => receiver(chain, filter),
        }
        for family in FAMILIES {
            chain.rule(format!("{} {} @router{} accept", family.ip, way.peer(), family.digit));
        }
        for family in FAMILIES {
            fragments(chain, way, family);
            tracked(chain, way, family);
        }
        for allow in if way == Way::Out { &filter.egress } else { &filter.ingress } {
            allowed(chain, way, allow);
        }
        chain.deny("", way.denied());
    }
}

/// Who may an ENI say that it is?
fn sender(chain: &mut Chain<'_>, filter: &EniFilter) {
    let mac = mac(filter.mac);
    chain.deny(&format!("ether saddr != {mac}"), SPOOFED);
    let speaks = format!("ether type arp arp saddr ether {mac} arp saddr ip");
    chain.rule(format!("{speaks} @{} accept", own_set(chain.end, V4)));
    // It asks whether anyone has the address that it is about to take.
    chain.rule(format!("{speaks} 0.0.0.0 accept"));
    chain.deny("ether type arp", SPOOFED);
    discovery(chain, filter);
    // A VPC carries no broadcast and no multicast; hosts try it all the time, so it is not worth a count.
    chain.rule(format!("{MULTICAST} drop"));
    chain.rule("ether type != @carried drop");
    for family in FAMILIES {
        chain.deny(&format!("{} saddr @router{}", family.ip, family.digit), SPOOFED);
    }
    own_only(chain, "saddr", filter, SPOOFED);
}

/// Frames to no single MAC.
const MULTICAST: &str = "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00";

/// Neighbour discovery comes in one piece, always; a later fragment has no type.
const WHOLE: &str = "exthdr frag missing";

/// Neighbour discovery is IPv6's ARP: an ENI may ask, and answer for itself.
fn discovery(chain: &mut Chain<'_>, filter: &EniFilter) {
    // Nobody else may be the router, whatever the source/destination check says: the links of tasks would believe it.
    chain.deny(&format!("{WHOLE} icmpv6 type @asks ip6 saddr @router{}", V6.digit), SPOOFED);
    chain.deny(&format!("{WHOLE} icmpv6 type nd-router-advert"), SPOOFED);
    chain.deny(&format!("{WHOLE} icmpv6 type nd-redirect"), SPOOFED);
    let asks = &format!("{WHOLE} icmpv6 type @asks ip6 hoplimit 255");
    for source in ["::", "fe80::/10", &format!("@{}", own_set(chain.end, V6))] {
        chain.rule(format!("{asks} ip6 saddr {source} accept"));
    }
    chain.deny(asks, SPOOFED);
    let answers = &format!("{WHOLE} icmpv6 type nd-neighbor-advert ip6 hoplimit 255");
    // The target is what follows the first 8 bytes of the message; older `nft`s have no name for it.
    chain.deny(&format!("{answers} @th,64,128 {}", hex(links::ROUTER_LINK_LOCAL)), SPOOFED);
    // The first ten bits of fe80::/10: it made its link-local address up itself, so nobody can tell which it is.
    chain.rule(format!("{answers} @th,64,10 0x3fa accept"));
    for address in filter.addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None })
    {
        chain.rule(format!("{answers} @th,64,128 {} accept", hex(address)));
    }
    chain.deny(answers, SPOOFED);
}

/// What may reach an ENI at all?
fn receiver(chain: &mut Chain<'_>, filter: &EniFilter) {
    // A bridge that does not know yet where a MAC is sends its frames to all ports; a VPC does not.
    chain.rule(format!(
        "ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether daddr != {} drop",
        mac(filter.mac)
    ));
    chain.rule("ether type arp accept");
    chain.rule(format!("{WHOLE} icmpv6 type @tells ip6 hoplimit 255 accept"));
    chain.rule(format!("{MULTICAST} drop"));
    own_only(chain, "daddr", filter, MISDIRECTED);
}

/// The source/destination check.
fn own_only(chain: &mut Chain<'_>, end: &str, filter: &EniFilter, counter: &str) {
    if !filter.source_dest_check {
        return;
    }
    for family in FAMILIES {
        let own = own_set(chain.end, family);
        chain.deny(&format!("{} {end} != @{own}", family.ip), counter);
    }
}

/// Fragments after the first have no ports, and the kernel would take their contents for ports. They pass between addresses that have
/// a flow: the first one has passed then, or the receiver can do nothing with the others.
fn fragments(chain: &mut Chain<'_>, way: Way, family: Family) {
    let later = family.later_fragment;
    for (way, reverse) in [(way, false), (way.other(), true)] {
        let talk = talk_set(chain.end, way, family);
        chain.rule(format!("{later} {} @{talk} accept", ends(family, reverse)));
    }
    chain.deny(later, way.denied());
}

/// Packets of flows that are known: more of what this direction let through, and replies to what the other one did.
fn tracked(chain: &mut Chain<'_>, way: Way, family: Family) {
    let Family { ip, icmp, digit, .. } = family;
    let talk = |way| talk_set(chain.end, way, family);
    let (forward, reverse) = (ends(family, false), ends(family, true));
    for (way, ends, ports) in
        [(way, &forward, "th sport . th dport"), (way.other(), &reverse, "th dport . th sport")]
    {
        let set = flow_set(chain.end, way, family);
        let key = format!("{ends} . meta l4proto . {ports}");
        let speak = format!("update @{} {{ {ends} }}", talk(way));
        chain.rule(format!("meta l4proto @with_ports {key} @{set} update @{set} {{ {key} }} {speak} accept"));
    }
    let echo = |way| echo_set(chain.end, way, family);
    let (asked, answered) = (echo(way), echo(way.other()));
    let (key, back) = (format!("{forward} . {icmp} id"), format!("{reverse} . {icmp} id"));
    let speak = format!("update @{} {{ {forward} }}", talk(way));
    chain.rule(format!("{icmp} type echo-request {key} @{asked} update @{asked} {{ {key} }} {speak} accept"));
    chain.rule(format!("{icmp} type echo-reply {back} @{answered} accept"));
    for (way, ends) in [(way, forward), (way.other(), reverse)] {
        let (known, set) = (talk(way), pair_set(chain.end, way, family));
        chain.rule(format!("{icmp} type @errors{digit} {ends} @{known} accept"));
        let (key, speak) = (format!("{ends} . meta l4proto"), format!("update @{known} {{ {ends} }}"));
        chain.rule(format!("ether type {ip} {OTHER} {key} @{set} update @{set} {{ {key} }} {speak} accept"));
    }
}

/// Protocols that are told apart by their addresses only.
const OTHER: &str = "meta l4proto != @told_apart";

fn ends(family: Family, reverse: bool) -> String {
    let ip = family.ip;
    if reverse { format!("{ip} daddr . {ip} saddr") } else { format!("{ip} saddr . {ip} daddr") }
}

/// A rule let the packet through: its flow is entered. Nothing is entered in a set that is full, and the packet falls through.
fn begins(chain: &mut Chain<'_>, way: Way) {
    for family in FAMILIES {
        let Family { ip, icmp, .. } = family;
        let ends = ends(family, false);
        let (flows, echos) = (flow_set(chain.end, way, family), echo_set(chain.end, way, family));
        let pairs = pair_set(chain.end, way, family);
        let flow = format!("update @{flows} {{ {ends} . meta l4proto . th sport . th dport }}");
        let speak = format!("update @{} {{ {ends} }}", talk_set(chain.end, way, family));
        chain.rule(format!("ether type {ip} meta l4proto @with_ports {flow} {speak} accept"));
        let echo = format!("update @{echos} {{ {ends} . {icmp} id }}");
        chain.rule(format!("{icmp} type echo-request {echo} {speak} accept"));
        chain.rule(format!("{icmp} type != echo-request accept"));
        let other = format!("update @{pairs} {{ {ends} . meta l4proto }}");
        chain.rule(format!("ether type {ip} {OTHER} {other} {speak} accept"));
    }
    chain.deny("", way.denied());
}

/// One rule of a security group.
fn allowed(chain: &mut Chain<'_>, way: Way, allow: &Allow) {
    let peers = match &allow.peer {
        Peer::V4(block) if block.prefix_len() == 0 => vec![(V4, String::new())],
        Peer::V6(block) if block.prefix_len() == 0 => vec![(V6, String::new())],
        Peer::V4(block) => vec![(V4, block.to_string())],
        Peer::V6(block) => vec![(V6, block.to_string())],
        Peer::Group(id) => FAMILIES.iter().map(|f| (*f, format!("@{}", group_set(id, *f)))).collect(),
    };
    for (family, peer) in peers {
        let Some(traffic) = traffic(family, allow.traffic) else { continue };
        let peer = match peer.as_str() {
            "" => format!("ether type {}", family.ip),
            peer => format!("{} {} {peer}", family.ip, way.peer()),
        };
        chain.rule(format!("{peer} {traffic} goto {}", new_flow(chain.end, way)));
    }
}

/// The match for a kind of traffic; nothing for the ICMP of the other IP version, which this one does not carry.
fn traffic(family: Family, traffic: Traffic) -> Option<String> {
    let ports = |name: &str, ports: Ports| match ports {
        Ports::ALL => format!("meta l4proto {name}"),
        Ports { first, last } if first == last => format!("{name} dport {first}"),
        Ports { first, last } => format!("{name} dport {first}-{last}"),
    };
    let icmp = |of: Family, kind| {
        (of == family).then(|| match kind {
            IcmpKind::Any => format!("meta l4proto {}", of.icmp_protocol),
            IcmpKind::Type(kind) => format!("{} type {kind}", of.icmp),
            IcmpKind::Code(kind, code) => format!("{} type {kind} {} code {code}", of.icmp, of.icmp),
        })
    };
    match traffic {
        Traffic::Any => Some(String::new()),
        Traffic::Tcp(range) => Some(ports("tcp", range)),
        Traffic::Udp(range) => Some(ports("udp", range)),
        Traffic::Icmp(kind) => icmp(V4, kind),
        Traffic::Icmpv6(kind) => icmp(V6, kind),
        Traffic::Protocol(number) => Some(format!("meta l4proto {number}")),
    }
}

fn mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn hex(address: Ipv6Addr) -> String {
    format!("{:#034x}", u128::from(address))
}
