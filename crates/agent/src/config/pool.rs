//! Settings of the ENI pool and of the slots made from it.

use super::Source;
use berth_types::ids::{SecurityGroupId, SubnetId};
use std::{net::IpAddr, time::Duration};

/// A VPC's MTU; the box sets 1500.
const VPC_MTU: u32 = 9001;

/// Settings of the ENI pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pool {
    pub(crate) warm: u32,
    pub(crate) warm_max: Option<u32>,
    pub(crate) max_enis: Option<u32>,
    pub(crate) cooldown: Duration,
    pub(crate) link_timeout: Duration,
    pub(crate) lease_timeout: Duration,
    pub(crate) audit: Duration,
    pub(crate) subnets: Vec<SubnetId>,
    pub(crate) security_groups: Vec<SecurityGroupId>,
    pub(crate) mtu: u32,
    /// `None`: when the instance's own subnet has an IPv6 block.
    pub(crate) ipv6: Option<bool>,
    pub(crate) block_imds: bool,
    pub(crate) dns_servers: Vec<IpAddr>,
    pub(crate) dns_search: Vec<String>,
}

pub(super) fn read(s: &mut Source) -> Pool {
    let seconds = Duration::from_secs;
    Pool {
        warm: s.number("BERTH_WARM_SLOTS", 0, 120).unwrap_or(1),
        warm_max: s.number("BERTH_WARM_MAX", 0, 120),
        max_enis: s.number("BERTH_MAX_ENIS", 1, 120),
        cooldown: s.duration("BERTH_ENI_COOLDOWN", seconds(30), Duration::ZERO),
        link_timeout: s.duration("BERTH_LINK_TIMEOUT", seconds(60), seconds(1)),
        lease_timeout: s.duration("BERTH_LEASE_TIMEOUT", seconds(180), seconds(1)),
        audit: s.duration("BERTH_AUDIT_INTERVAL", seconds(60), seconds(1)),
        subnets: s.list("BERTH_SUBNETS"),
        security_groups: s.list("BERTH_SECURITY_GROUPS"),
        mtu: s.number("BERTH_MTU", 1280, 9001).unwrap_or(VPC_MTU),
        ipv6: s.one_of("BERTH_IPV6", "auto", &[("auto", None), ("true", Some(true)), ("false", Some(false))]),
        // The official agent leaves IMDS open unless told otherwise; a task that reads the instance's role by accident is worse
        // than one that must be told the address.
        block_imds: s.boolean("ECS_AWSVPC_BLOCK_IMDS", true),
        dns_servers: s.list("BERTH_DNS_SERVERS"),
        dns_search: s.list("BERTH_DNS_SEARCH"),
    }
}
