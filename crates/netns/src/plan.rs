//! What is to be done in a slot's namespace: a pure function of what is wanted and what is seen.
//!
//! [`plan`] gives the ops of one round. The builder observes, plans, applies, and does it again: a slot is verified when the plan of a fresh
//! observation is **empty**. So there is one comparison, used both to decide and to verify, and a half-built namespace of a killed agent
//! is no special case.
//!
//! What a running task has added for itself is left alone, because after a restart of the agent this runs on namespaces with tasks in them:
//! routes and devices of its own (a VPN's tun with the default route on it, say), sysctls, everything of netfilter. Exact are: the
//! ENI's link, the addresses on it, and the routes through it that this file knows.

use crate::METADATA_IP;
use berth_types::{eni::SlotSpec, ids::MacAddr};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

#[cfg(test)]
mod tests;

/// The ENI's link in a task's namespace, as ECS names it.
pub(crate) const ENI_NAME: &str = "eth0";

/// The kernel puts the lowest free number in: a name that cannot clash, without looking first.
pub(crate) const ANY_ETH: &str = "eth%d";

const IMDS_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const IMDS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether a link can carry packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// operstate up, or unknown with the lower layer up (devices without a notion of carrier).
    Yes,
    /// Administratively up, and the other end or the device is not ready.
    NotYet,
}

/// A link as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) carrier: Carrier,
    pub(crate) alias: Option<String>,
    /// Made by software (veth, tun, bridge, ...); a device of the machine's has no kind.
    pub(crate) has_kind: bool,
    pub(crate) loopback: bool,
}

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ifindex: u32,
    pub(crate) net: IpNet,
    /// IPv4: not the first of its subnet, so not the source address of outgoing connections.
    pub(crate) secondary: bool,
    /// Not tentative and not refused by duplicate address detection.
    pub(crate) usable: bool,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteKind {
    Unicast,
    Blackhole,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) kind: RouteKind,
    pub(crate) destination: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    /// Which device; the kernel shows lo for an IPv6 blackhole, nothing for an IPv4 one.
    pub(crate) oif: Option<u32>,
}

/// A namespace as observed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    /// Default routes and blackholes of the main table.
    pub(crate) routes: Vec<Route>,
    /// Values by path under /proc/sys; what the kernel does not have is missing.
    pub(crate) sysctls: BTreeMap<String, String>,
}

/// Where the ENI's link is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the agent's own namespace, under this index.
    Host(u32),
    /// In the slot's namespace, under this index.
    Inside(u32),
}

/// One repeatable act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    SetSysctl {
        path: String,
        value: &'static str,
    },
    Up {
        ifindex: u32,
    },
    AddAddress {
        ifindex: u32,
        net: IpNet,
    },
    DeleteAddress {
        ifindex: u32,
        net: IpNet,
    },
    /// Takes the link down: old kernels rename no link that is up.
    Rename {
        ifindex: u32,
        name: &'static str,
    },
    /// Moves the link in, named, with its MTU, up: one message, because each one that names a link waits for the same locks.
    MoveIn {
        host_ifindex: u32,
        mtu: u32,
    },
    SetMtu {
        ifindex: u32,
        mtu: u32,
    },
    AwaitCarrier {
        ifindex: u32,
    },
    AddRoute(Route),
    DeleteRoute(Route),
}

fn needs_ipv6(spec: &SlotSpec) -> bool {
    spec.gateway_ipv6.is_some() || spec.addresses.iter().any(|a| matches!(a, IpNet::V6(_)))
}

/// Switches of the namespace, set before the link is in: a link takes over `default` when it arrives.
///
/// No router advertisements and no autoconfiguration: addresses and routes come from EC2. No duplicate address detection: EC2 vouches for
/// uniqueness, and detection costs a second or two. A task without IPv6 gets none on its ENI (not even a link-local
/// address) but keeps ::1: `default` is switched, never `all`.
fn sysctls(spec: &SlotSpec) -> Vec<(String, &'static str)> {
    let conf = |scope: &str, key: &str| format!("net/ipv6/conf/{scope}/{key}");
    let mut wanted = Vec::new();
    for key in ["accept_ra", "autoconf", "accept_dad"] {
        wanted.push((conf("all", key), "0"));
        wanted.push((conf("default", key), "0"));
    }
    if needs_ipv6(spec) {
        wanted.push((conf("all", "disable_ipv6"), "0"));
        wanted.push((conf("default", "disable_ipv6"), "0"));
    } else {
        wanted.push((conf("default", "disable_ipv6"), "1"));
    }
    wanted
}

/// The one switch of the link itself that stands in the way of its addresses.
fn link_disable_ipv6() -> String {
    format!("net/ipv6/conf/{ENI_NAME}/disable_ipv6")
}

/// Paths under /proc/sys that an observation reads.
pub(crate) fn observed_sysctls(spec: &SlotSpec) -> Vec<String> {
    sysctls(spec).into_iter().map(|(path, _)| path).chain([link_disable_ipv6()]).collect()
}

/// The link with this MAC. Children (VLAN, macvlan) copy their parent's: in a slot the parent is `eth0`, elsewhere it has the shortest name.
pub(crate) fn link_with_mac(links: &[Link], mac: MacAddr) -> Option<&Link> {
    let with_mac = links.iter().filter(|l| !l.loopback && l.mac == Some(mac));
    with_mac.min_by_key(|l| (l.name != ENI_NAME, l.name.len(), l.ifindex))
}

/// The links of a slot that go back to the agent's namespace: the ENI's, however the task has disguised it (with CAP_NET_ADMIN it can rename
/// it and change its MAC), and real devices. What software made inside dies with the namespace.
pub(crate) fn to_give_back(links: &[Link], mac: Option<MacAddr>) -> Vec<&Link> {
    let is_eni =
        |l: &Link| (mac.is_some() && l.mac == mac) || l.name == ENI_NAME || l.alias.is_some() || !l.has_kind;
    links.iter().filter(|l| !l.loopback && is_eni(l)).collect()
}

/// The ops of one round; empty when the namespace is as wanted.
pub(crate) fn plan(spec: &SlotSpec, seen: &Seen, place: Place) -> Vec<Op> {
    let mut ops = Vec::new();
    if let Place::Host(_) = place {
        let differs =
            |(path, value): &(String, &'static str)| seen.sysctls.get(path).is_some_and(|now| now != value);
        let wrong = sysctls(spec).into_iter().filter(differs);
        ops.extend(wrong.map(|(path, value)| Op::SetSysctl { path, value }));
    }
    plan_lo(seen, &mut ops);
    plan_blackholes(spec, seen, &mut ops);
    match place {
        Place::Host(host_ifindex) => {
            plan_name_is_free(seen, None, &mut ops);
            ops.push(Op::MoveIn { host_ifindex, mtu: spec.mtu });
        }
        Place::Inside(ifindex) => {
            if let Some(link) = seen.links.iter().find(|l| l.ifindex == ifindex) {
                plan_link(spec, seen, link, &mut ops);
                plan_addresses(spec, seen, ifindex, &mut ops);
                plan_defaults(spec, seen, ifindex, &mut ops);
                if link.carrier == Carrier::NotYet || !link.up {
                    ops.push(Op::AwaitCarrier { ifindex });
                }
            }
        }
    }
    ops
}

fn plan_lo(seen: &Seen, ops: &mut Vec<Op>) {
    let Some(lo) = seen.links.iter().find(|l| l.loopback) else { return };
    if !lo.up {
        ops.push(Op::Up { ifindex: lo.ifindex });
    }
    let net = metadata_net();
    if !seen.addresses.iter().any(|a| a.ifindex == lo.ifindex && a.net == net) {
        ops.push(Op::AddAddress { ifindex: lo.ifindex, net });
    }
}

fn metadata_net() -> IpNet {
    IpAddr::V4(METADATA_IP).into()
}

/// Blackholes keep tasks away from the instance's own credentials. They come before the link, so that there is no moment without them.
fn plan_blackholes(spec: &SlotSpec, seen: &Seen, ops: &mut Vec<Op>) {
    let has_ipv6 = seen.sysctls.keys().any(|path| path.starts_with("net/ipv6/"));
    for to in [IpAddr::V4(IMDS_V4), IpAddr::V6(IMDS_V6)] {
        if to.is_ipv6() && !has_ipv6 {
            continue;
        }
        let destination = IpNet::from(to);
        let now = seen.routes.iter().find(|r| r.kind == RouteKind::Blackhole && r.destination == destination);
        match (spec.block_imds, now) {
            (true, None) => {
                ops.push(Op::AddRoute(Route {
                    kind: RouteKind::Blackhole,
                    destination,
                    gateway: None,
                    oif: None,
                }));
            }
            (false, Some(route)) => ops.push(Op::DeleteRoute(route.clone())),
            _ => {}
        }
    }
}

/// Another link that has the ENI's name gives it up.
fn plan_name_is_free(seen: &Seen, except: Option<u32>, ops: &mut Vec<Op>) {
    let clash = seen.links.iter().find(|l| l.name == ENI_NAME && Some(l.ifindex) != except);
    ops.extend(clash.map(|l| Op::Rename { ifindex: l.ifindex, name: ANY_ETH }));
}

fn plan_link(spec: &SlotSpec, seen: &Seen, link: &Link, ops: &mut Vec<Op>) {
    let ifindex = link.ifindex;
    let mut up = link.up;
    if link.name != ENI_NAME {
        plan_name_is_free(seen, Some(ifindex), ops);
        ops.push(Op::Rename { ifindex, name: ENI_NAME });
        up = false;
    }
    if link.mtu != spec.mtu {
        ops.push(Op::SetMtu { ifindex, mtu: spec.mtu });
    }
    let switch = link_disable_ipv6();
    if needs_ipv6(spec) && seen.sysctls.get(&switch).is_some_and(|now| now != "0") {
        ops.push(Op::SetSysctl { path: switch, value: "0" });
    }
    if !up {
        ops.push(Op::Up { ifindex });
    }
}

fn plan_addresses(spec: &SlotSpec, seen: &Seen, ifindex: u32, ops: &mut Vec<Op>) {
    // The kernel makes and keeps link-local addresses itself.
    let automatic = |net: &IpNet| {
        matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local()) && !spec.addresses.contains(net)
    };
    let here: Vec<&Address> =
        seen.addresses.iter().filter(|a| a.ifindex == ifindex && !automatic(&a.net)).collect();
    // The primary address is the one that was added first: when it is not, all of IPv4 is laid anew.
    let primary = spec.addresses.iter().find(|a| matches!(a, IpNet::V4(_)));
    let disordered = here.iter().any(|a| a.secondary && Some(&a.net) == primary);
    let keep = |a: &Address| {
        spec.addresses.contains(&a.net) && a.usable && !(disordered && matches!(a.net, IpNet::V4(_)))
    };

    ops.extend(here.iter().filter(|a| !keep(a)).map(|a| Op::DeleteAddress { ifindex, net: a.net }));
    let missing = spec.addresses.iter().filter(|net| !here.iter().any(|a| a.net == **net && keep(a)));
    ops.extend(missing.map(|&net| Op::AddAddress { ifindex, net }));
}

fn plan_defaults(spec: &SlotSpec, seen: &Seen, ifindex: u32, ops: &mut Vec<Op>) {
    let has_ipv4 = spec.addresses.iter().any(|a| matches!(a, IpNet::V4(_)));
    let ipv4 = has_ipv4.then(|| (IpNet::V4(Ipv4Net::default()), IpAddr::V4(spec.gateway_ipv4)));
    let ipv6 = spec.gateway_ipv6.map(|gateway| (IpNet::V6(Ipv6Net::default()), IpAddr::V6(gateway)));
    for (destination, gateway) in ipv4.into_iter().chain(ipv6) {
        let wanted =
            Route { kind: RouteKind::Unicast, destination, gateway: Some(gateway), oif: Some(ifindex) };
        let defaults =
            || seen.routes.iter().filter(|r| r.destination == destination && r.kind == RouteKind::Unicast);
        ops.extend(
            defaults().filter(|r| r.oif == Some(ifindex) && **r != wanted).cloned().map(Op::DeleteRoute),
        );
        // A default route through a device of the task's own: it has taken its routing into its own hands.
        let taken_over = defaults().any(|r| r.oif != Some(ifindex));
        if !taken_over && !defaults().any(|r| *r == wanted) {
            ops.push(Op::AddRoute(wanted));
        }
    }
}
