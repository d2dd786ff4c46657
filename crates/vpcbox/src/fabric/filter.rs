//! Security groups and source/destination checks, as the fabric enforces them: at the outer end of each ENI's pair.
//!
//! [`Filter`] says what should be. `script` (with `rules` and `words`) turns the difference between two of them into one transaction
//! for `nft`, purely; `nft` runs it in the VPC's namespace. One table of the bridge family sees bridged and routed packets alike:
//!
//! ```text
//!  prerouting   iifname vmap { eniXXXX : goto eniXXXX_out }     what an ENI sends: is it the sender? does a group let it out?
//!  postrouting  oifname vmap { eniXXXX : goto eniXXXX_in  }     what an ENI gets:  is it for it?    does a group let it in?
//! ```
//!
//! What has no entry in a map is dropped, so an ENI without rules hears and says nothing. This kernel family has no connection
//! tracking, so flows are remembered in sets: what a rule lets through in one direction is entered with its addresses and ports,
//! and a packet that is the reverse of an entry of the *other* direction is a reply and passes. The sets belong to one ENI each: a
//! task that opens a flood of flows fills its own, and an address that comes to another ENI brings no flows with it. A
//! transaction never touches the flow sets of an ENI that stays, so taking a rule away ends no flow that it let in, as in AWS.
//!
//! Fragments after the first have no ports: they pass between addresses that have a flow.
//!
//! Limits, which a real VPC does not have: a flow ends by time alone, and the flows that others had with an address outlive its
//! ENI by that time.

mod nft;
mod rules;
mod script;
#[cfg(test)]
mod tests;
mod words;

pub(super) use nft::apply;
pub use nft::drops;
pub(super) use script::{base, change};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What every ENI may send and get.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// By ENI.
    pub enis: BTreeMap<String, EniFilter>,
    /// The addresses of the groups that rules name, by group.
    pub groups: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// What one ENI may send and get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniFilter {
    /// Its MAC: no other may be in what it sends.
    pub mac: [u8; 6],
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether packets with other addresses than its own are dropped.
    pub source_dest_check: bool,
    /// What its groups let in.
    pub ingress: BTreeSet<Allow>,
    /// What its groups let out.
    pub egress: BTreeSet<Allow>,
}

/// Traffic that may pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allow {
    /// From whom, or to whom.
    pub peer: Peer,
    /// What.
    pub traffic: Traffic,
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Addresses of a block.
    V4(Ipv4Net),
    /// Addresses of a block.
    V6(Ipv6Net),
    /// The addresses of the group of this id.
    Group(String),
}

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traffic {
    /// All of it.
    Any,
    /// To these ports.
    Tcp(Ports),
    /// To these ports.
    Udp(Ports),
    /// Over IPv4 only.
    Icmp(IcmpKind),
    /// Over IPv6 only.
    Icmpv6(IcmpKind),
    /// Of an IP protocol by its number.
    Protocol(u8),
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last; not before the first.
    pub last: u16,
}

impl Ports {
    /// All ports.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };
}

/// Messages of ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IcmpKind {
    /// All.
    Any,
    /// Of this type.
    Type(u8),
    /// Of this type and code.
    Code(u8, u8),
}

impl IcmpKind {
    /// Type and code, as far as they are given.
    pub fn numbers(self) -> (Option<u8>, Option<u8>) {
        match self {
            Self::Any => (None, None),
            Self::Type(kind) => (Some(kind), None),
            Self::Code(kind, code) => (Some(kind), Some(code)),
        }
    }
}

/// Packets of an ENI that were dropped since its link was plugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Drops {
    /// Sent, and no rule of its security groups lets it out.
    pub denied_out: u64,
    /// For it, and no rule of its security groups lets it in.
    pub denied_in: u64,
    /// Sent with a MAC or a source address that it does not have.
    pub spoofed: u64,
    /// For an address that it does not have.
    pub misdirected: u64,
}
