//! Who gets which address: the choice of free ones, and the checks on those that a caller names.
//!
//! Free IPv4 addresses are given out in turn, not lowest first: an address that was just given back is the last to be used
//! again, as EC2 does it, so that a test does not pass because a stale neighbour entry happens to fit.

use super::{
    World,
    ids::EniId,
    refusal::Refusal,
    state::{State, Subnet},
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// IPv4 addresses that any ENI can hold at most, whatever it is attached to: the most that any type allows.
pub const MAX_ADDRESSES: usize = 50;

/// First host part of IPv6 addresses that may be given out: EC2 keeps the first of each subnet too.
const FIRST_IPV6_HOST: u64 = 16;

/// Whether EC2 keeps this address of the subnet for itself.
fn is_reserved(subnet: &Subnet, address: Ipv4Addr) -> bool {
    let offset = u32::from(address).wrapping_sub(u32::from(subnet.ipv4.network()));
    offset < 4 || address == subnet.ipv4.broadcast()
}

/// Checks an IPv4 address that a caller named for an ENI (`None`: one that does not exist yet). `take_over` lets it be taken
/// from another ENI that holds it as a secondary address.
pub(super) fn check_ipv4(
    state: &State,
    subnet: &Subnet,
    address: Ipv4Addr,
    eni: Option<&EniId>,
    take_over: bool,
) -> Result<(), Refusal> {
    if !subnet.ipv4.contains(&address) {
        return Err(Refusal::AddressOutside { address: address.into(), subnet: subnet.ipv4.to_string() });
    }
    if is_reserved(subnet, address) {
        return Err(Refusal::AddressReserved(address.into()));
    }
    match state.ipv4.get(&address) {
        Some(holder) if Some(holder) == eni => Ok(()),
        Some(holder) => {
            let is_primary = state.enis.get(holder).is_some_and(|e| e.primary_ipv4() == address);
            if take_over && !is_primary { Ok(()) } else { Err(Refusal::AddressInUse(address.into())) }
        }
        None => Ok(()),
    }
}

/// Checks an IPv6 address that a caller named.
pub(super) fn check_ipv6(state: &State, subnet: &Subnet, address: Ipv6Addr) -> Result<(), Refusal> {
    let block = subnet.ipv6.ok_or_else(|| Refusal::NoIpv6(subnet.id.clone()))?;
    let address_ip = IpAddr::V6(address);
    if !block.contains(&address) {
        return Err(Refusal::AddressOutside { address: address_ip, subnet: block.to_string() });
    }
    if u128::from(address) - u128::from(block.network()) < u128::from(FIRST_IPV6_HOST) {
        return Err(Refusal::AddressReserved(address_ip));
    }
    if state.ipv6.contains_key(&address) { Err(Refusal::AddressInUse(address_ip)) } else { Ok(()) }
}

impl World {
    /// Chooses `count` free IPv4 addresses besides `taken`; all or none.
    pub(super) fn choose_ipv4(
        &mut self,
        subnet: &Subnet,
        count: usize,
        taken: &BTreeSet<Ipv4Addr>,
    ) -> Result<Vec<Ipv4Addr>, Refusal> {
        let first = u32::from(subnet.ipv4.network()) + 4;
        let last = u32::from(subnet.ipv4.broadcast()) - 1;
        let mut next = self.cursors.get(&subnet.id).copied().unwrap_or(first);
        let mut chosen = Vec::with_capacity(count.min(MAX_ADDRESSES));
        for _ in first..=last {
            if chosen.len() == count {
                break;
            }
            let address = Ipv4Addr::from(next);
            if !taken.contains(&address) && !self.state.ipv4.contains_key(&address) {
                chosen.push(address);
            }
            next = if next == last { first } else { next + 1 };
        }
        if chosen.len() < count {
            return Err(Refusal::SubnetFull(subnet.id.clone()));
        }
        self.cursors.insert(subnet.id.clone(), next);
        Ok(chosen)
    }

    /// Chooses `count` free IPv6 addresses besides `taken`. Host parts look random, as EC2's do.
    pub(super) fn choose_ipv6(
        &mut self,
        subnet: &Subnet,
        count: usize,
        taken: &BTreeSet<Ipv6Addr>,
    ) -> Result<Vec<Ipv6Addr>, Refusal> {
        let mut chosen = BTreeSet::new();
        if count == 0 {
            return Ok(Vec::new());
        }
        let block = subnet.ipv6.ok_or_else(|| Refusal::NoIpv6(subnet.id.clone()))?;
        while chosen.len() < count {
            let host = self.random_u64("ipv6").max(FIRST_IPV6_HOST);
            let address = Ipv6Addr::from(u128::from(block.network()) | u128::from(host));
            if !taken.contains(&address) && !self.state.ipv6.contains_key(&address) {
                chosen.insert(address);
            }
        }
        Ok(chosen.into_iter().collect())
    }

    /// A number that follows from the world's seed and its serial: the world is pure, and a seed makes a run repeatable.
    pub(super) fn random_u64(&mut self, purpose: &str) -> u64 {
        let serial = self.next_serial();
        let digest = Sha256::digest(format!("{}/{purpose}/{serial}", self.seed));
        digest.iter().take(8).fold(0, |n, byte| (n << 8) | u64::from(*byte))
    }
}
