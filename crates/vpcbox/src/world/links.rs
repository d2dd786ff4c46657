//! What the fabric should look like: which ENI's link belongs into which instance now, and when to ask again.

use super::{
    World, filter,
    ids::{AttachmentId, EniId},
    refusal::Refusal,
    state::{LinkFate, Phase},
};
use crate::fabric::{Filter, Plug};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The links that should be there at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkView {
    /// By ENI.
    pub wanted: BTreeMap<EniId, WantedLink>,
    /// Attachments that are ending and wait for [`World::link_gone`].
    pub leaving: Vec<(EniId, AttachmentId)>,
    /// What attached ENIs may send and get, also those whose links are still to come.
    pub filter: Filter,
    /// When a link is due next.
    pub next: Option<Timestamp>,
}

/// A link that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedLink {
    /// Of which attachment: a link of an earlier one must go first.
    pub attachment: AttachmentId,
    /// What the fabric has to do.
    pub plug: Plug,
    /// All addresses that the ENI holds now: they come and go while the link stays.
    pub addresses: BTreeSet<IpAddr>,
}

impl World {
    /// The links that should be there now.
    pub fn links(&mut self, now: Timestamp) -> LinkView {
        self.state.settle(now);
        let mut view = LinkView::default();
        let mut attached = Vec::new();
        for (id, eni) in &self.state.enis {
            let Some(attachment) = &eni.attachment else { continue };
            if !matches!(attachment.phase, Phase::Detaching { .. }) {
                attached.push(&**eni);
            }
            match (attachment.phase, attachment.link) {
                (Phase::Detaching { link_gone: false, .. }, _) => {
                    view.leaving.push((id.clone(), attachment.id.clone()));
                }
                (Phase::Attaching { .. } | Phase::Attached, LinkFate::From(due)) if due <= now => {
                    let plug = self.plug_of(id);
                    let wanted = plug.map(|plug| WantedLink {
                        attachment: attachment.id.clone(),
                        plug,
                        addresses: eni.addresses().collect(),
                    });
                    view.wanted.extend(wanted.map(|w| (id.clone(), w)));
                }
                (Phase::Attaching { .. } | Phase::Attached, LinkFate::From(due)) => {
                    view.next = Some(view.next.map_or(due, |next| next.min(due)));
                }
                (Phase::Attaching { .. } | Phase::Attached, LinkFate::Never | LinkFate::Pulled)
                | (Phase::Detaching { link_gone: true, .. }, _) => {}
            }
        }
        view.filter = filter::filter(&self.state, &attached);
        view
    }

    /// Only the primary comes up configured, under a fixed name, as the instance's own system would have done at boot.
    fn plug_of(&self, id: &EniId) -> Option<Plug> {
        let eni = self.state.enis.get(id)?;
        let attachment = eni.attachment.as_ref()?;
        let subnet = self.state.site.subnets.get(&eni.subnet)?;
        let primary = attachment.device_index == 0;
        let ipv4 = eni.ipv4.iter().take(1).filter_map(|a| Ipv4Net::new(*a, subnet.ipv4.prefix_len()).ok());
        let prefix6 = subnet.ipv6.map_or(64, |net| net.prefix_len());
        let ipv6 = eni.ipv6.iter().filter_map(|a| Ipv6Net::new(*a, prefix6).ok());
        let addresses = ipv4.map(IpNet::V4).chain(ipv6.map(IpNet::V6)).filter(|_| primary).collect();
        Some(Plug {
            instance: attachment.instance.as_str().to_owned(),
            subnet: eni.subnet.as_str().to_owned(),
            eni: id.as_str().to_owned(),
            mac: eni.mac.0,
            name: primary.then(|| "eth0".to_owned()),
            addresses,
        })
    }

    /// The fabric says: no link of this attachment is left anywhere. A word about an attachment that is not ending is ignored.
    pub fn link_gone(&mut self, eni: &EniId, id: &AttachmentId, now: Timestamp) {
        self.state.settle(now);
        let Ok(eni) = self.eni_mut(eni) else { return };
        if let Some(attachment) = eni.attachment.as_mut().filter(|a| a.id == *id)
            && let Phase::Detaching { link_gone, .. } = &mut attachment.phase
        {
            *link_gone = true;
            self.record(now);
        }
        self.state.settle(now);
    }

    /// Pulls an attached ENI's link out of wherever it is, without EC2 saying anything: a fault.
    pub fn pull(&mut self, eni: &EniId, now: Timestamp) -> Result<(), Refusal> {
        let attachment = self.eni_mut(eni)?.attachment.as_mut();
        attachment.ok_or_else(|| eni.not_found())?.link = LinkFate::Pulled;
        self.record(now);
        Ok(())
    }
}
