//! What EC2 knows and how it changes: pure bookkeeping behind [`FakeCloud`](super::FakeCloud).

use super::{CloudCall, CloudKnobs, id};
use berth_types::{
    eni::{AttachmentFacts, AttachmentStatus, CreateEni, EniFacts, EniStatus, InstanceFacts},
    ids::{AttachmentId, ClientToken, EniId, InstanceId, MacAddr, SecurityGroupId, SubnetId},
    ports::{CloudErrorKind, TAG_INSTANCE},
};
use ipnet::{Ipv4Net, Ipv6Net};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{Ipv4Addr, Ipv6Addr},
};
use tokio::time::Instant;

#[derive(Debug, Clone)]
pub(super) struct Attached {
    pub(super) facts: AttachmentFacts,
    pub(super) since: Instant,
    pub(super) detaching: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(super) struct Nic {
    pub(super) facts: EniFacts,
    pub(super) born: Instant,
    pub(super) attached: Option<Attached>,
}

/// The world as it was at a point in time, for describes that lag.
pub(super) type Past = (Instant, BTreeMap<EniId, Nic>);

/// How much of the past stale describes can reach.
const PAST: usize = 256;

#[derive(Debug)]
pub(super) struct World {
    pub(super) nics: BTreeMap<EniId, Nic>,
    pub(super) tokens: BTreeMap<ClientToken, (CreateEni, EniFacts)>,
    pub(super) past: VecDeque<Past>,
    pub(super) knobs: CloudKnobs,
    pub(super) calls: Vec<CloudCall>,
    pub(super) guarded: BTreeSet<EniId>,
    pub(super) violations: Vec<String>,
    pub(super) most_attached: usize,
    pub(super) next: u32,
    pub(super) chance: u64,
}

/// What becomes of a call before it has any effect.
pub(super) enum Verdict {
    Pass,
    Lost,
    Fail(CloudErrorKind),
}

impl World {
    pub(super) fn serial(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// A number from 0 to 99 (splitmix64).
    pub(super) fn chance(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 100
    }

    pub(super) fn verdict(&mut self, op: &'static str) -> Verdict {
        let (throttled, failed, lost) = (self.chance(), self.chance(), self.chance());
        let knobs = &self.knobs;
        if knobs.down {
            return Verdict::Fail(CloudErrorKind::OutcomeUnknown("connection refused".to_owned()));
        }
        if let Some(kind) = knobs.refused.get(op) {
            return Verdict::Fail(kind.clone());
        }
        if throttled < knobs.throttled_percent {
            return Verdict::Fail(CloudErrorKind::Throttled("RequestLimitExceeded".to_owned()));
        }
        if failed < knobs.failed_percent {
            return Verdict::Fail(CloudErrorKind::OutcomeUnknown("InternalError".to_owned()));
        }
        if lost < knobs.lost_percent { Verdict::Lost } else { Verdict::Pass }
    }

    /// Keeps the world as it is before a change.
    pub(super) fn remember(&mut self) {
        if self.past.len() == PAST {
            self.past.pop_front();
        }
        let now = (Instant::now(), self.nics.clone());
        self.past.push_back(now);
    }

    /// Detaches that have run their time are over.
    pub(super) fn settle(&mut self) {
        let (now, delay) = (Instant::now(), self.knobs.detach_delay);
        for nic in self.nics.values_mut() {
            let over =
                nic.attached.as_ref().and_then(|a| a.detaching).is_some_and(|began| now >= began + delay);
            if over {
                nic.attached = None;
            }
        }
    }

    pub(super) fn fresh(&mut self, subnet: &SubnetId, groups: &[SecurityGroupId]) -> EniFacts {
        let number = self.serial();
        let [_, _, high, low] = number.to_be_bytes();
        let subnet_ipv4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16);
        let subnet_ipv6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec3, 0, 0, 0, 0, 0, 0), 64);
        EniFacts {
            id: id("eni-", number),
            mac: MacAddr([2, 0, 0, 0, high, low]),
            subnet: subnet.clone(),
            status: EniStatus::Available,
            attachment: None,
            ipv4: vec![Ipv4Addr::new(10, 0, high.wrapping_add(1), low)],
            ipv6: Vec::new(),
            subnet_ipv4,
            subnet_ipv6: self.knobs.dual_stack.then_some(subnet_ipv6),
            private_dns_name: Some(format!(
                "ip-10-0-{}-{low}.us-west-2.compute.internal",
                high.wrapping_add(1)
            )),
            security_groups: groups.to_vec(),
            tags: BTreeMap::new(),
            description: String::new(),
            requester_managed: false,
        }
    }

    /// An ENI as a describe shows it at a point in time.
    pub(super) fn render(&self, nic: &Nic, at: Instant) -> EniFacts {
        let mut facts = nic.facts.clone();
        let Some(attached) = &nic.attached else { return facts };
        let (status, attachment) = match attached.detaching {
            Some(began) if at >= began + self.knobs.detach_delay => return facts,
            Some(_) => (EniStatus::Detaching, AttachmentStatus::Detaching),
            None if at < attached.since + self.knobs.attach_delay && attached.facts.device_index != 0 => {
                (EniStatus::Attaching, AttachmentStatus::Attaching)
            }
            None => (EniStatus::InUse, AttachmentStatus::Attached),
        };
        facts.status = status;
        facts.attachment = Some(AttachmentFacts { status: attachment, ..attached.facts.clone() });
        facts
    }

    /// All ENIs of a describe, stale when chance says so.
    pub(super) fn describe(&mut self, instance: &InstanceId) -> Vec<EniFacts> {
        let stale = self.chance() < self.knobs.stale_percent;
        let now = Instant::now();
        let at = if stale { now.checked_sub(self.knobs.lag).unwrap_or(now) } else { now };
        // The world at that time is the one that was kept before the first change after it.
        let then =
            self.past.iter().find(|(changed, _)| stale && *changed > at).map_or(&self.nics, |(_, nics)| nics);
        let shown = then.values().map(|nic| self.render(nic, at));
        let here =
            |f: &EniFacts| f.attachment.as_ref().is_some_and(|a| a.instance.as_ref() == Some(instance));
        shown
            .filter(|f| here(f) || f.tags.get(TAG_INSTANCE).map(String::as_str) == Some(instance.as_str()))
            .collect()
    }

    pub(super) fn find(&self, eni: &EniId) -> Result<&Nic, CloudErrorKind> {
        let nic = self.nics.get(eni).filter(|n| n.born.elapsed() >= self.knobs.young);
        nic.ok_or_else(|| CloudErrorKind::NotFound(format!("InvalidNetworkInterfaceID.NotFound: {eni}")))
    }

    pub(super) fn create(&mut self, spec: &CreateEni) -> Result<EniFacts, CloudErrorKind> {
        if let Some((old, facts)) = self.tokens.get(&spec.token) {
            let same = old == spec;
            return if same {
                Ok(facts.clone())
            } else {
                Err(CloudErrorKind::TokenMismatch(spec.token.to_string()))
            };
        }
        if let Some(free) = self.knobs.free_addresses.get_mut(&spec.subnet) {
            if *free == 0 {
                return Err(CloudErrorKind::SubnetFull(format!(
                    "InsufficientFreeAddressesInSubnet: {}",
                    spec.subnet
                )));
            }
            *free -= 1;
        }
        self.remember();
        let mut facts = self.fresh(&spec.subnet, &spec.security_groups);
        facts.description.clone_from(&spec.description);
        facts.tags.clone_from(&spec.tags);
        self.tokens.insert(spec.token.clone(), (spec.clone(), facts.clone()));
        self.nics
            .insert(facts.id.clone(), Nic { facts: facts.clone(), born: Instant::now(), attached: None });
        Ok(facts)
    }

    pub(super) fn attach(
        &mut self,
        eni: &EniId,
        index: u32,
        instance: &InstanceFacts,
    ) -> Result<(Attached, MacAddr), CloudErrorKind> {
        if self.find(eni)?.attached.is_some() {
            return Err(CloudErrorKind::InUse(format!("InvalidNetworkInterface.InUse: {eni}")));
        }
        let here: Vec<u32> =
            self.nics.values().filter_map(|n| n.attached.as_ref()).map(|a| a.facts.device_index).collect();
        if here.len() >= instance.max_enis as usize {
            return Err(CloudErrorKind::InstanceFull(format!(
                "AttachmentLimitExceeded: {} interfaces",
                here.len()
            )));
        }
        if here.contains(&index) {
            return Err(CloudErrorKind::InstanceFull(format!("device index {index} is in use")));
        }
        self.remember();
        self.most_attached = self.most_attached.max(here.len() + 1);
        let facts = AttachmentFacts {
            id: id("eni-attach-", self.serial()),
            instance: Some(instance.instance_id.clone()),
            device_index: index,
            status: AttachmentStatus::Attaching,
            delete_on_termination: false,
        };
        let attached = Attached { facts, since: Instant::now(), detaching: None };
        let nic = self.nics.get_mut(eni).ok_or_else(|| CloudErrorKind::NotFound(eni.to_string()))?;
        nic.attached = Some(attached.clone());
        Ok((attached, nic.facts.mac))
    }

    pub(super) fn by_attachment(&self, attachment: &AttachmentId) -> Result<EniId, CloudErrorKind> {
        let found =
            self.nics.iter().find(|(_, n)| n.attached.as_ref().is_some_and(|a| a.facts.id == *attachment));
        found
            .map(|(eni, _)| eni.clone())
            .ok_or_else(|| CloudErrorKind::NotFound(format!("InvalidAttachmentID.NotFound: {attachment}")))
    }

    pub(super) fn detach(&mut self, attachment: &AttachmentId) -> Result<Option<MacAddr>, CloudErrorKind> {
        let eni = self.by_attachment(attachment)?;
        if self.guarded.contains(&eni) {
            self.violations.push(format!("{eni} was detached while it was guarded"));
        }
        self.remember();
        let nic = self.nics.get_mut(&eni);
        Ok(nic.and_then(|nic| {
            let attached = nic.attached.as_mut()?;
            attached.detaching.get_or_insert_with(Instant::now);
            Some(nic.facts.mac)
        }))
    }

    pub(super) fn delete(&mut self, eni: &EniId) -> Result<(), CloudErrorKind> {
        let Some(nic) = self.nics.get(eni) else { return Ok(()) };
        if self.guarded.contains(eni) {
            self.violations.push(format!("{eni} was deleted while it was guarded"));
        }
        if nic.attached.is_some() {
            return Err(CloudErrorKind::InUse(format!("InvalidParameterValue: {eni} is currently in use")));
        }
        self.remember();
        self.nics.remove(eni);
        Ok(())
    }
}
