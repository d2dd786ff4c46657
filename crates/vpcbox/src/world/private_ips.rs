//! AssignPrivateIpAddresses and UnassignPrivateIpAddresses.

use super::{
    World,
    addresses::{MAX_ADDRESSES, check_ipv4},
    ids::EniId,
    refusal::Refusal,
};
use jiff::Timestamp;
use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

impl World {
    /// AssignPrivateIpAddresses: `named` ones, and `count` that are chosen. Gives the new ones, those only: a repeated call with
    /// named addresses changes nothing, a repeated count doubles, as in EC2.
    pub fn assign(
        &mut self,
        id: &EniId,
        named: &[Ipv4Addr],
        count: usize,
        take_over: bool,
        now: Timestamp,
    ) -> Result<Vec<Ipv4Addr>, Refusal> {
        self.state.settle(now);
        let site = Arc::clone(&self.state.site);
        let eni = Arc::clone(self.visible(id, now)?);
        let subnet = site.subnets.get(&eni.subnet).ok_or_else(|| eni.subnet.not_found())?;
        let (mut taken, mut assigned) = (BTreeSet::new(), Vec::new());
        for address in named {
            check_ipv4(&self.state, subnet, *address, Some(id), take_over)?;
            if taken.insert(*address) {
                assigned.push(*address);
            }
        }
        let fresh = taken.iter().filter(|a| !eni.ipv4.contains(a)).count();
        let total = eni.ipv4.len() + fresh + count;
        let limit = self.address_limit(id);
        if total > limit {
            return Err(Refusal::AddressLimit { count: total, limit });
        }
        assigned.append(&mut self.choose_ipv4(subnet, count, &taken)?);
        for address in &assigned {
            self.give(id, *address)?;
        }
        self.record(now);
        Ok(assigned)
    }

    /// What the instance's type allows, once the ENI is attached; until then what any type allows.
    fn address_limit(&self, id: &EniId) -> usize {
        let attachment = self.state.enis.get(id).and_then(|e| e.attachment.as_ref());
        let instance = attachment.and_then(|a| self.state.site.instances.get(&a.instance));
        instance.map_or(MAX_ADDRESSES, |i| i.kind.addresses_per_eni)
    }

    /// Moves a checked address to an ENI, from nobody or from its holder.
    fn give(&mut self, id: &EniId, address: Ipv4Addr) -> Result<(), Refusal> {
        if let Some(holder) = self.state.ipv4.insert(address, id.clone()).filter(|holder| holder != id) {
            self.eni_mut(&holder)?.ipv4.retain(|a| *a != address);
        }
        let eni = self.eni_mut(id)?;
        if !eni.ipv4.contains(&address) {
            eni.ipv4.push(address);
        }
        Ok(())
    }

    /// UnassignPrivateIpAddresses: all of them or none.
    pub fn unassign(&mut self, id: &EniId, addresses: &[Ipv4Addr], now: Timestamp) -> Result<(), Refusal> {
        self.state.settle(now);
        let eni = Arc::clone(self.visible(id, now)?);
        for address in addresses {
            if *address == eni.primary_ipv4() {
                return Err(Refusal::PrimaryAddress { address: (*address).into(), eni: id.clone() });
            }
            if !eni.ipv4.contains(address) {
                return Err(Refusal::NotAssigned { address: (*address).into(), eni: id.clone() });
            }
        }
        for address in addresses {
            self.state.ipv4.remove(address);
        }
        self.eni_mut(id)?.ipv4.retain(|a| !addresses.contains(a));
        self.record(now);
        Ok(())
    }
}
