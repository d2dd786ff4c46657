//! An instance as its metadata service shows it.

use super::{
    World,
    ids::InstanceId,
    state::{Eni, Phase, State},
};
use crate::imds::{ImdsInstance, ImdsInterface};
use jiff::Timestamp;

/// The image that every instance claims to run.
pub const AMI: &str = "ami-0be47bd0be47bd0be";

impl World {
    /// The instance of this id. ENIs appear when EC2 calls them attached and go when a detach begins; stale reads hold for
    /// IMDS too.
    pub fn imds_instance(&mut self, id: &str, now: Timestamp) -> Option<ImdsInstance> {
        let state = self.read(now);
        let site = &state.site;
        let instance = site.instances.get(&InstanceId::parse(id).ok()?)?;
        let primary = state.enis.get(&instance.primary)?;
        let subnet = site.subnets.get(&instance.subnet)?;
        let interfaces = state
            .attached_to(&instance.id)
            .into_iter()
            .filter(|(_, attachment)| attachment.phase == Phase::Attached)
            .filter_map(|(eni, attachment)| interface(&state, eni, attachment.device_index))
            .collect();
        Some(ImdsInstance {
            instance_id: instance.id.to_string(),
            instance_type: instance.kind.name.to_owned(),
            ami_id: AMI.to_owned(),
            region: site.region.clone(),
            availability_zone: subnet.zone.clone(),
            availability_zone_id: subnet.zone_id.clone(),
            account: site.account.clone(),
            mac: primary.mac.0,
            hostname: state.dns_name(primary.primary_ipv4()),
            local_ipv4: primary.primary_ipv4(),
            role: instance.role.clone(),
            launched: instance.launched,
            interfaces,
        })
    }
}

fn interface(state: &State, eni: &Eni, device_number: u32) -> Option<ImdsInterface> {
    let subnet = state.site.subnets.get(&eni.subnet)?;
    let groups = eni.groups.iter().filter_map(|g| state.groups.get(g));
    Some(ImdsInterface {
        mac: eni.mac.0,
        device_number,
        eni_id: eni.id.to_string(),
        subnet_id: subnet.id.to_string(),
        subnet_ipv4: subnet.ipv4,
        subnet_ipv6: subnet.ipv6,
        vpc_id: state.site.vpc.id.to_string(),
        vpc_ipv4: vec![state.site.vpc.ipv4],
        vpc_ipv6: state.site.vpc.ipv6.into_iter().collect(),
        ipv4: eni.ipv4.clone(),
        ipv6: eni.ipv6.clone(),
        security_groups: groups.map(|g| (g.id.to_string(), g.name.clone())).collect(),
        owner_id: state.site.account.clone(),
        hostname: state.dns_name(eni.primary_ipv4()),
    })
}
