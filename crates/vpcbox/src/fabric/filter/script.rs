//! From filters to the text that `nft -f` takes: pure. `rules` has what is in an ENI's chains.

use super::{
    super::{SubnetSpec, links, names},
    Filter,
    rules::rules,
    words::{
        COUNTERS, FAMILIES, Family, TABLE, V4, V6, Way, chain, chains, echo_set, flow_set, group_set, line,
        own_set, pair_set, talk_set,
    },
};
use std::{collections::BTreeSet, net::IpAddr};

/// How long a flow is remembered after its last packet: AWS's time for an idle TCP connection.
const FLOW_SECONDS: u32 = 350;
/// How long an echo request waits for its replies.
const ECHO_SECONDS: u32 = 30;
/// Flows that an ENI may have in each direction; further ones are dropped, as an instance's are in AWS. 64 bytes each.
const MAX_FLOWS: u32 = 65_536;

/// Sets of values that the rules of all ENIs share. None is written into a rule: the kernel takes as long to name such a set as
/// there are sets, and a hundred ENIs would take seconds.
const SHARED: [(&str, &str, &str); 7] = [
    ("with_ports", "inet_proto", "tcp, udp"),
    ("told_apart", "inet_proto", "tcp, udp, icmp, ipv6-icmp"),
    ("carried", "ether_type", "ip, ip6"),
    ("asks", "icmpv6_type", "nd-router-solicit, nd-neighbor-solicit"),
    ("tells", "icmpv6_type", "nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"),
    ("errors4", "icmp_type", V4.errors),
    ("errors6", "icmpv6_type", V6.errors),
];

/// The table as it is before there is any ENI: the routers' addresses, the two maps, and hooks that drop what is in neither.
pub(in crate::fabric) fn base(subnets: &[SubnetSpec]) -> String {
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::from([IpAddr::V6(links::ROUTER_LINK_LOCAL)]));
    for subnet in subnets {
        for address in links::router_addresses(subnet.ipv4, subnet.ipv6) {
            let family = if address.addr().is_ipv4() { &mut v4 } else { &mut v6 };
            family.insert(address.addr());
        }
    }
    // Deleted first: a table of which it is not known how it stands is made anew.
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n");
    for (family, addresses) in [(V4, v4), (V6, v6)] {
        let set = format!("router{}", family.digit);
        line(&mut text, format_args!("add set {TABLE} {set} {{ type {}; }}", family.address));
        elements(&mut text, "add", &set, &addresses);
    }
    for (set, kind, values) in SHARED {
        line(&mut text, format_args!("add set {TABLE} {set} {{ type {kind}; elements = {{ {values} }}; }}"));
    }
    for (way, hook, device) in [(Way::Out, "prerouting", "iifname"), (Way::In, "postrouting", "oifname")] {
        let map = way.name();
        line(&mut text, format_args!("add map {TABLE} {map} {{ type ifname : verdict; }}"));
        let policy = "policy drop;";
        line(
            &mut text,
            format_args!("add chain {TABLE} {hook} {{ type filter hook {hook} priority 0; {policy} }}"),
        );
        line(&mut text, format_args!("add rule {TABLE} {hook} {device} vmap @{map}"));
    }
    text
}

/// What makes a table that enforces `old` enforce `new`, in one transaction; empty if there is nothing to do.
pub(in crate::fabric) fn change(old: &Filter, new: &Filter) -> String {
    let mut text = String::new();
    let none = BTreeSet::new();
    for (id, addresses) in &new.groups {
        let before = old.groups.get(id);
        for family in FAMILIES {
            let set = group_set(id, family);
            if before.is_none() {
                line(&mut text, format_args!("add set {TABLE} {set} {{ type {}; }}", family.address));
            }
            replace(&mut text, &set, &family.only(before.unwrap_or(&none)), &family.only(addresses));
        }
    }
    for eni in old.enis.keys().filter(|eni| !new.enis.contains_key(*eni)) {
        remove(&mut text, &names::vpc_end(eni));
    }
    for (eni, filter) in &new.enis {
        let end = names::vpc_end(eni);
        match old.enis.get(eni) {
            Some(before) if before == filter => {}
            Some(before) => {
                own(&mut text, &end, &before.addresses, &filter.addresses);
                for chain in chains(&end) {
                    line(&mut text, format_args!("flush chain {TABLE} {chain}"));
                }
                rules(&mut text, &end, filter);
            }
            None => {
                add(&mut text, &end);
                own(&mut text, &end, &none, &filter.addresses);
                rules(&mut text, &end, filter);
                for way in [Way::Out, Way::In] {
                    let (map, chain) = (way.name(), chain(&end, way));
                    line(&mut text, format_args!("add element {TABLE} {map} {{ \"{end}\" : goto {chain} }}"));
                }
            }
        }
    }
    // Last: until here, rules named them.
    for id in old.groups.keys().filter(|id| !new.groups.contains_key(*id)) {
        for family in FAMILIES {
            line(&mut text, format_args!("delete set {TABLE} {}", group_set(id, family)));
        }
    }
    text
}

fn elements(text: &mut String, verb: &str, set: &str, addresses: &BTreeSet<IpAddr>) {
    if addresses.is_empty() {
        return;
    }
    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    line(text, format_args!("{verb} element {TABLE} {set} {{ {} }}", list.join(", ")));
}

/// Makes a set that holds `was` hold `is`.
fn replace(text: &mut String, set: &str, was: &BTreeSet<IpAddr>, is: &BTreeSet<IpAddr>) {
    elements(text, "delete", set, &(was - is));
    elements(text, "add", set, &(is - was));
}

fn own(text: &mut String, end: &str, was: &BTreeSet<IpAddr>, is: &BTreeSet<IpAddr>) {
    for family in FAMILIES {
        replace(text, &own_set(end, family), &family.only(was), &family.only(is));
    }
}

fn add(text: &mut String, end: &str) {
    for counter in COUNTERS {
        line(text, format_args!("add counter {TABLE} {end}_{counter}"));
    }
    for family in FAMILIES {
        let set = own_set(end, family);
        line(text, format_args!("add set {TABLE} {set} {{ type {}; }}", family.address));
    }
    for way in [Way::Out, Way::In] {
        for family in FAMILIES {
            let Family { ip, address, icmp, .. } = family;
            let mut set = |name: String, key: &str, seconds: u32| {
                let life = format!("flags dynamic,timeout; timeout {seconds}s; size {MAX_FLOWS};");
                line(text, format_args!("add set {TABLE} {name} {{ {key}; {life} }}"));
            };
            let flow = format!("type {address} . {address} . inet_proto . inet_service . inet_service");
            set(flow_set(end, way, family), &flow, FLOW_SECONDS);
            let echo = format!("typeof {ip} saddr . {ip} daddr . {icmp} id");
            set(echo_set(end, way, family), &echo, ECHO_SECONDS);
            let pair = format!("type {address} . {address} . inet_proto");
            set(pair_set(end, way, family), &pair, FLOW_SECONDS);
            let talk = format!("type {address} . {address}");
            set(talk_set(end, way, family), &talk, FLOW_SECONDS);
        }
    }
    for chain in chains(end) {
        line(text, format_args!("add chain {TABLE} {chain}"));
    }
}

fn remove(text: &mut String, end: &str) {
    for way in [Way::Out, Way::In] {
        line(text, format_args!("delete element {TABLE} {} {{ \"{end}\" }}", way.name()));
    }
    for chain in chains(end) {
        line(text, format_args!("flush chain {TABLE} {chain}"));
    }
    for chain in chains(end) {
        line(text, format_args!("delete chain {TABLE} {chain}"));
    }
    for way in [Way::Out, Way::In] {
        for family in FAMILIES {
            for set in [flow_set, echo_set, pair_set, talk_set] {
                line(text, format_args!("delete set {TABLE} {}", set(end, way, family)));
            }
        }
    }
    for family in FAMILIES {
        line(text, format_args!("delete set {TABLE} {}", own_set(end, family)));
    }
    for counter in COUNTERS {
        line(text, format_args!("delete counter {TABLE} {end}_{counter}"));
    }
}
