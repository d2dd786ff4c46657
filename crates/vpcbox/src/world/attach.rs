//! AttachNetworkInterface and DetachNetworkInterface.

use super::{
    World,
    ids::{AttachmentId, EniId, InstanceId},
    refusal::Refusal,
    state::{Attachment, LinkFate, Phase},
};
use jiff::Timestamp;
use std::sync::Arc;

impl World {
    /// AttachNetworkInterface. The link shows up on its own time, or never.
    pub fn attach(
        &mut self,
        eni: &EniId,
        instance: &InstanceId,
        device_index: u32,
        card: u32,
        now: Timestamp,
    ) -> Result<AttachmentId, Refusal> {
        self.state.settle(now);
        let site = Arc::clone(&self.state.site);
        let found = self.visible(eni, now)?;
        let host = site.instances.get(instance).ok_or_else(|| instance.not_found())?;
        if found.attachment.is_some() {
            return Err(Refusal::EniAttached(eni.clone()));
        }
        if card > 0 {
            return Err(Refusal::NoSuchCard { index: card, instance_type: host.kind.name });
        }
        let zone = |id| site.subnets.get(id).map(|s| &s.zone);
        if zone(&found.subnet) != zone(&host.subnet) {
            return Err(Refusal::OtherZone);
        }
        let limit = host.kind.addresses_per_eni;
        if let Some(count) = [found.ipv4.len(), found.ipv6.len()].into_iter().find(|count| *count > limit) {
            return Err(Refusal::AddressLimit { count, limit });
        }
        let attached = self.state.attached_to(instance);
        if attached.iter().any(|(_, a)| a.device_index == device_index) {
            return Err(Refusal::DeviceIndexTaken { instance: instance.clone(), index: device_index });
        }
        // One that is being detached still fills its place.
        let count = attached.len() + 1;
        if u32::try_from(count).is_ok_and(|count| count > host.kind.max_enis) {
            return Err(Refusal::AttachmentLimit { count, instance_type: host.kind.name });
        }
        let attachment = self.new_attachment(instance, device_index, now)?;
        let id = attachment.id.clone();
        self.eni_mut(eni)?.attachment = Some(attachment);
        self.record(now);
        Ok(id)
    }

    fn new_attachment(
        &mut self,
        instance: &InstanceId,
        device_index: u32,
        now: Timestamp,
    ) -> Result<Attachment, Refusal> {
        let link = match self.links_never.checked_sub(1) {
            Some(left) => {
                self.links_never = left;
                LinkFate::Never
            }
            None => LinkFate::From(now + self.delays.link),
        };
        let phase = if self.delays.attach.is_zero() {
            Phase::Attached
        } else {
            Phase::Attaching { until: now + self.delays.attach }
        };
        Ok(Attachment {
            id: AttachmentId::parse(&self.fresh_id("eni-attach"))?,
            instance: instance.clone(),
            device_index,
            delete_on_termination: false,
            since: now,
            phase,
            link,
        })
    }

    /// DetachNetworkInterface. The ENI is free when the delay is over and its link has left the instance, see
    /// [`World::link_gone`].
    pub fn detach(&mut self, id: &AttachmentId, now: Timestamp) -> Result<(), Refusal> {
        self.state.settle(now);
        let (eni, attachment) = self.state.attachment(id).ok_or_else(|| id.not_found())?;
        if attachment.device_index == 0 {
            return Err(Refusal::DetachPrimary);
        }
        if matches!(attachment.phase, Phase::Detaching { .. }) {
            return Err(Refusal::AlreadyDetaching(id.clone()));
        }
        let eni = eni.id.clone();
        let until = now + self.delays.detach;
        if let Some(attachment) = &mut self.eni_mut(&eni)?.attachment {
            attachment.phase = Phase::Detaching { until, link_gone: false };
        }
        self.record(now);
        Ok(())
    }
}
