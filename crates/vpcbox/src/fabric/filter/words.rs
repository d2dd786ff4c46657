//! The words that scripts are made of: the table's name, the two IP versions, the two ways, and what the chains and sets of an ENI are
//! called. Names begin with that of the ENI's outer end.

use std::{collections::BTreeSet, fmt, net::IpAddr};

/// The table, as `nft` commands name it.
pub(super) const TABLE: &str = "bridge vpcbox";

/// What is counted for each ENI: the counters' last names.
pub(super) const DENIED_OUT: &str = "denied_out";
pub(super) const DENIED_IN: &str = "denied_in";
pub(super) const SPOOFED: &str = "spoofed";
pub(super) const MISDIRECTED: &str = "misdirected";
pub(super) const COUNTERS: [&str; 4] = [DENIED_OUT, DENIED_IN, SPOOFED, MISDIRECTED];

/// An IP version's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    /// In expressions and as `ether type`.
    pub(super) ip: &'static str,
    pub(super) digit: char,
    pub(super) address: &'static str,
    pub(super) icmp: &'static str,
    /// Number of its ICMP.
    pub(super) icmp_protocol: u8,
    /// Messages that speak of another packet.
    pub(super) errors: &'static str,
    /// Whether a packet is a fragment, and not the first.
    pub(super) later_fragment: &'static str,
}

pub(super) const V4: Family = Family {
    ip: "ip",
    digit: '4',
    address: "ipv4_addr",
    icmp: "icmp",
    icmp_protocol: 1,
    errors: "3, 11, 12",
    later_fragment: "ip frag-off & 0x1fff != 0",
};
pub(super) const V6: Family = Family {
    ip: "ip6",
    digit: '6',
    address: "ipv6_addr",
    icmp: "icmpv6",
    icmp_protocol: 58,
    errors: "1, 2, 3, 4",
    later_fragment: "frag frag-off != 0",
};
pub(super) const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { V4 } else { V6 }
    }

    pub(super) fn only(self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        addresses.iter().copied().filter(|a| Self::of(*a) == self).collect()
    }
}

/// Which way, seen from the ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::Out => Self::In,
            Self::In => Self::Out,
        }
    }

    /// Where the peer's address is.
    pub(super) fn peer(self) -> &'static str {
        match self {
            Self::Out => "daddr",
            Self::In => "saddr",
        }
    }

    pub(super) fn denied(self) -> &'static str {
        match self {
            Self::Out => DENIED_OUT,
            Self::In => DENIED_IN,
        }
    }
}

pub(super) fn chain(end: &str, way: Way) -> String {
    format!("{end}_{}", way.name())
}

/// The chain of packets that begin a flow.
pub(super) fn new_flow(end: &str, way: Way) -> String {
    format!("{end}_new_{}", way.name())
}

/// All chains, those first that others go to.
pub(super) fn chains(end: &str) -> [String; 4] {
    [new_flow(end, Way::Out), new_flow(end, Way::In), chain(end, Way::Out), chain(end, Way::In)]
}

/// Flows with ports: source, destination, protocol, source port, destination port.
pub(super) fn flow_set(end: &str, way: Way, family: Family) -> String {
    format!("{end}_{}_flow{}", way.name(), family.digit)
}

/// Echo requests: source, destination, identifier.
pub(super) fn echo_set(end: &str, way: Way, family: Family) -> String {
    format!("{end}_{}_echo{}", way.name(), family.digit)
}

/// That two addresses have a flow at all, of which error messages may speak and to whose packets later fragments may belong: source,
/// destination.
pub(super) fn talk_set(end: &str, way: Way, family: Family) -> String {
    format!("{end}_{}_talk{}", way.name(), family.digit)
}

/// What has no ports: source, destination, protocol.
pub(super) fn pair_set(end: &str, way: Way, family: Family) -> String {
    format!("{end}_{}_pair{}", way.name(), family.digit)
}

/// Its own addresses.
pub(super) fn own_set(end: &str, family: Family) -> String {
    format!("{end}_own{}", family.digit)
}

pub(super) fn group_set(id: &str, family: Family) -> String {
    format!("group_{}_{}", id.strip_prefix("sg-").unwrap_or(id), family.digit)
}

/// Adds a line to a script.
pub(super) fn line(text: &mut String, what: fmt::Arguments<'_>) {
    text.push_str(&fmt::format(what));
    text.push('\n');
}
