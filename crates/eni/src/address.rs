//! From an ENI's facts to what its namespace is configured with, and to what its lease holder gets to know.

use crate::{
    config::EniConfig,
    machine::{Eni, Finished, Seat},
};
use berth_types::{
    eni::{EniFacts, SlotFacts, SlotSpec},
    ids::SlotId,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The VPC router's link-local address, the same in every subnet.
const ROUTER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1);

/// Prefix length of every IPv6 block that a VPC gives to a subnet.
const SUBNET_IPV6_PREFIX: u8 = 64;

/// The VPC router in the ENI's subnet: the first address of the block.
pub(crate) fn gateway(facts: &EniFacts) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(facts.subnet_ipv4.network()).saturating_add(1))
}

/// The private DNS name, or the name that EC2 would have given.
pub(crate) fn hostname(facts: &EniFacts) -> String {
    facts.private_dns_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        match facts.ipv4.first() {
            Some(address) => format!("ip-{}", address.to_string().replace('.', "-")),
            None => facts.id.to_string(),
        }
    })
}

/// What the namespace builder is told.
pub(crate) fn slot_spec(config: &EniConfig, facts: &EniFacts, slot: &SlotId) -> SlotSpec {
    let length4 = facts.subnet_ipv4.prefix_len();
    let length6 = facts.subnet_ipv6.map_or(SUBNET_IPV6_PREFIX, |block| block.prefix_len());
    let ipv4 = facts.ipv4.iter().filter_map(|a| Ipv4Net::new(*a, length4).ok()).map(IpNet::V4);
    let ipv6 = facts.ipv6.iter().filter_map(|a| Ipv6Net::new(*a, length6).ok()).map(IpNet::V6);
    SlotSpec {
        slot: slot.clone(),
        eni: facts.id.clone(),
        mac: facts.mac,
        addresses: ipv4.chain(ipv6).collect(),
        gateway_ipv4: gateway(facts),
        gateway_ipv6: (!facts.ipv6.is_empty()).then_some(ROUTER_IPV6),
        mtu: config.mtu,
        block_imds: config.block_imds,
        hostname: hostname(facts),
        dns_servers: config.dns_servers.clone(),
        dns_search: config.dns_search.clone(),
    }
}

/// What a lease holder gets to know of a slot that has just been built.
pub(crate) fn slot_facts(
    config: &EniConfig,
    eni: &Eni,
    seat: &Seat,
    slot: &SlotId,
    built: &Finished,
) -> SlotFacts {
    let facts = &eni.facts;
    SlotFacts {
        slot: slot.clone(),
        eni: facts.id.clone(),
        attachment: seat.attachment.clone(),
        mac: facts.mac,
        subnet: facts.subnet.clone(),
        security_groups: eni.spec.groups.clone(),
        ipv4: facts.ipv4.clone(),
        ipv6: facts.ipv6.clone(),
        subnet_ipv4: facts.subnet_ipv4,
        subnet_ipv6: facts.subnet_ipv6,
        gateway_ipv4: gateway(facts),
        dns_servers: config.dns_servers.clone(),
        dns_search: config.dns_search.clone(),
        private_dns_name: hostname(facts),
        netns: built.netns,
        netns_path: built.netns_path.clone(),
        files: built.files.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_testkit::cloud;
    use std::collections::BTreeMap;

    #[test]
    fn a_slot_is_configured_from_the_facts_of_its_eni() {
        let slot = SlotId::random(&cloud::instance(3).instance_id);
        let mut facts = crate::tests::facts(&BTreeMap::new());
        facts.subnet_ipv4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 1, 0), 24);
        facts.ipv4 = vec![Ipv4Addr::new(10, 0, 1, 7)];
        facts.ipv6 = vec!["fd00:ec3::7".parse().unwrap()];
        facts.private_dns_name = None;
        let spec = slot_spec(&EniConfig::default(), &facts, &slot);
        let addresses: Vec<String> = spec.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.1.7/24", "fd00:ec3::7/64"]);
        assert_eq!(spec.gateway_ipv4, Ipv4Addr::new(10, 0, 1, 1));
        assert_eq!(spec.gateway_ipv6, Some(ROUTER_IPV6));
        assert_eq!(spec.hostname, "ip-10-0-1-7");
    }
}
