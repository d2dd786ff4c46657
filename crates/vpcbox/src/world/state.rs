//! What there is in the world: the fixed site (VPC, subnets, instances) and what calls change (ENIs, security groups, tags).
//!
//! A [`State`] is a plain value that can be cloned cheaply; [`super::World`] owns the current one and keeps old ones for stale
//! reads. `State::settle` lets time pass: it is the only place where an attachment changes its phase by itself.

use super::{
    groups::Group,
    ids::{AttachmentId, EniId, GroupId, InstanceId, Mac, SubnetId, VpcId},
    types::InstanceType,
};
use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// Addresses that EC2 keeps in every subnet: network, router, DNS, future use, broadcast.
pub const RESERVED_ADDRESSES: usize = 5;

/// What no call changes.
#[derive(Debug, Clone)]
pub struct Site {
    /// For example `us-west-2`.
    pub region: String,
    /// 12 digits.
    pub account: String,
    /// The one VPC.
    pub vpc: Vpc,
    /// Its subnets.
    pub subnets: BTreeMap<SubnetId, Subnet>,
    /// The group that an ENI gets when none is named.
    pub default_group: GroupId,
    /// Its instances.
    pub instances: BTreeMap<InstanceId, Instance>,
}

/// The VPC.
#[derive(Debug, Clone)]
pub struct Vpc {
    /// Its id.
    pub id: VpcId,
    /// IPv4 block.
    pub ipv4: Ipv4Net,
    /// IPv6 block.
    pub ipv6: Option<Ipv6Net>,
}

/// A subnet.
#[derive(Debug, Clone)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// For example `us-west-2a`.
    pub zone: String,
    /// For example `usw2-az1`.
    pub zone_id: String,
    /// IPv4 block.
    pub ipv4: Ipv4Net,
    /// IPv6 block.
    pub ipv6: Option<Ipv6Net>,
}

/// An instance; it always runs.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its `Name` tag.
    pub name: String,
    /// What it can hold.
    pub kind: &'static InstanceType,
    /// Subnet of its primary ENI.
    pub subnet: SubnetId,
    /// Its primary ENI.
    pub primary: EniId,
    /// IAM role whose credentials its IMDS hands out.
    pub role: Option<String>,
    /// When the world began.
    pub launched: Timestamp,
}

/// An ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eni {
    /// Its id.
    pub id: EniId,
    /// Its MAC.
    pub mac: Mac,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Free text.
    pub description: String,
    /// Its groups.
    pub groups: Vec<GroupId>,
    /// Private IPv4 addresses, the primary first; never empty.
    pub ipv4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub ipv6: Vec<Ipv6Addr>,
    /// Whether packets that are not its own are dropped.
    pub source_dest_check: bool,
    /// When it was created.
    pub created: Timestamp,
    /// Where it is attached.
    pub attachment: Option<Attachment>,
}

impl Eni {
    /// The primary private address.
    pub fn primary_ipv4(&self) -> Ipv4Addr {
        self.ipv4.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// All addresses, the primary first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.iter().copied().map(IpAddr::V4).chain(self.ipv6.iter().copied().map(IpAddr::V6))
    }

    /// `status` in EC2's words.
    pub fn status(&self) -> &'static str {
        match self.attachment.as_ref().map(|a| a.phase) {
            None => "available",
            Some(Phase::Attaching { .. }) => "attaching",
            Some(Phase::Attached) => "in-use",
            Some(Phase::Detaching { .. }) => "detaching",
        }
    }
}

/// The binding of an ENI to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// To what.
    pub instance: InstanceId,
    /// 0 is the primary ENI.
    pub device_index: u32,
    /// Whether the ENI ends with the instance.
    pub delete_on_termination: bool,
    /// When the attach call was made.
    pub since: Timestamp,
    /// How far it is, as EC2 tells it.
    pub phase: Phase,
    /// What the instance sees of it, which is another matter.
    pub link: LinkFate,
}

impl Attachment {
    /// `attachment.status` in EC2's words.
    pub fn status(&self) -> &'static str {
        match self.phase {
            Phase::Attaching { .. } => "attaching",
            Phase::Attached => "attached",
            Phase::Detaching { .. } => "detaching",
        }
    }
}

/// How far an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// On its way.
    Attaching {
        /// Attached from then on.
        until: Timestamp,
    },
    /// There.
    Attached,
    /// On its way off.
    Detaching {
        /// Not gone before then.
        until: Timestamp,
        /// Nor before the link has left the instance: a free ENI never still shows a device somewhere.
        link_gone: bool,
    },
}

/// When the link of an attachment shows up in the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFate {
    /// From this time on.
    From(Timestamp),
    /// Never: the fault that makes agents wait in vain.
    Never,
    /// It was there, and was pulled out behind the instance's back.
    Pulled,
}

/// Everything there is, at one time.
#[derive(Debug, Clone)]
pub struct State {
    /// The fixed part.
    pub site: Arc<Site>,
    /// ENIs. Behind `Arc`, so that old states share what has not changed.
    pub enis: BTreeMap<EniId, Arc<Eni>>,
    /// Security groups. Behind `Arc` for the same reason.
    pub groups: BTreeMap<GroupId, Arc<Group>>,
    /// Who holds which IPv4 address. Subnets do not overlap, so one map serves all.
    pub ipv4: BTreeMap<Ipv4Addr, EniId>,
    /// Who holds which IPv6 address.
    pub ipv6: BTreeMap<Ipv6Addr, EniId>,
    /// Tags by resource id.
    pub tags: BTreeMap<String, Tags>,
}

impl State {
    /// Lets time pass up to `now`.
    pub(super) fn settle(&mut self, now: Timestamp) {
        for eni in self.enis.values_mut() {
            let Some(attachment) = &eni.attachment else { continue };
            match attachment.phase {
                Phase::Attaching { until } if until <= now => {
                    if let Some(a) = &mut Arc::make_mut(eni).attachment {
                        a.phase = Phase::Attached;
                    }
                }
                Phase::Detaching { until, link_gone: true } if until <= now => {
                    Arc::make_mut(eni).attachment = None;
                }
                Phase::Attaching { .. } | Phase::Attached | Phase::Detaching { .. } => {}
            }
        }
    }

    /// Tags of a resource.
    pub fn tags_of(&self, resource: &str) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.tags.get(resource).into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// ENIs attached to an instance, in any phase, by device index.
    pub fn attached_to<'a>(&'a self, instance: &'a InstanceId) -> Vec<(&'a Eni, &'a Attachment)> {
        let mut found: Vec<_> = self
            .enis
            .values()
            .filter_map(|e| e.attachment.as_ref().filter(|a| a.instance == *instance).map(|a| (&**e, a)))
            .collect();
        found.sort_by_key(|(_, a)| a.device_index);
        found
    }

    /// The attachment of this id and its ENI.
    pub fn attachment(&self, id: &AttachmentId) -> Option<(&Eni, &Attachment)> {
        self.enis.values().find_map(|e| e.attachment.as_ref().filter(|a| a.id == *id).map(|a| (&**e, a)))
    }

    /// IPv4 addresses that a subnet has left.
    pub fn free_addresses(&self, subnet: &Subnet) -> usize {
        let size = 1usize << (32 - u32::from(subnet.ipv4.prefix_len()));
        let used = self.ipv4.range(subnet.ipv4.network()..=subnet.ipv4.broadcast()).count();
        size.saturating_sub(RESERVED_ADDRESSES + used)
    }

    /// The private DNS name that EC2 gives an address.
    pub fn dns_name(&self, address: Ipv4Addr) -> String {
        let [a, b, c, d] = address.octets();
        // us-east-1 is older than the rule.
        match self.site.region.as_str() {
            "us-east-1" => format!("ip-{a}-{b}-{c}-{d}.ec2.internal"),
            region => format!("ip-{a}-{b}-{c}-{d}.{region}.compute.internal"),
        }
    }
}
