//! EC2 in memory, with its rules and its bad habits: limits, device indexes, client tokens, objects that are not found while they
//! are young, describes that lag, throttling, lost replies, links that come late or never.
//!
//! It plugs links into a [`FakeNetwork`]. Chance comes from a seed, time from tokio (tests pause it).

mod world;

use crate::{crash::Crash, network::FakeNetwork};
use async_trait::async_trait;
use berth_types::{
    eni::{AttachmentFacts, AttachmentStatus, CreateEni, EniFacts, InstanceFacts},
    ids::{AttachmentId, EniId, MacAddr, SecurityGroupId, SubnetId, VpcId},
    ports::{Cloud, CloudError, CloudErrorKind, IdentityDocument},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::Ipv4Addr,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use world::{Attached, Nic, Verdict, World};

/// When the link of an attached ENI shows up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// This long after the attach call.
    After(Duration),
    /// Never, for so many attaches from now on; then prompt.
    Never(u32),
}

/// How EC2 behaves.
#[derive(Debug, Clone)]
pub struct CloudKnobs {
    /// How long every call takes.
    pub call_delay: Duration,
    /// How long `attaching` shows.
    pub attach_delay: Duration,
    /// How long `detaching` shows.
    pub detach_delay: Duration,
    /// When links show up.
    pub link: Link,
    /// How old the world is that a stale describe shows.
    pub lag: Duration,
    /// Of 100 describes, how many are stale.
    pub stale_percent: u64,
    /// Whether groups of an ENI cannot be changed: not every policy allows it.
    pub regroup_refused: bool,
    /// How long a new ENI is not found by other calls.
    pub young: Duration,
    /// Of 100 calls, how many are throttled.
    pub throttled_percent: u64,
    /// Of 100 calls, how many lose their reply after the effect.
    pub lost_percent: u64,
    /// Of 100 calls, how many fail with an unknown outcome and no effect.
    pub failed_percent: u64,
    /// Operations (`create`, `attach`, `flag`, `detach`, `delete`, `tag`, `describe`) that always end in this error.
    pub refused: BTreeMap<&'static str, CloudErrorKind>,
    /// Free addresses of subnets; others have enough.
    pub free_addresses: BTreeMap<SubnetId, u32>,
    /// Whether subnets have an IPv6 block.
    pub dual_stack: bool,
    /// While true nothing is answered and nothing is done.
    pub down: bool,
}

impl Default for CloudKnobs {
    fn default() -> Self {
        Self {
            call_delay: Duration::from_millis(50),
            attach_delay: Duration::from_secs(1),
            detach_delay: Duration::from_secs(2),
            link: Link::After(Duration::from_millis(700)),
            lag: Duration::from_secs(3),
            stale_percent: 0,
            regroup_refused: false,
            young: Duration::ZERO,
            throttled_percent: 0,
            lost_percent: 0,
            failed_percent: 0,
            refused: BTreeMap::new(),
            free_addresses: BTreeMap::new(),
            dual_stack: false,
            down: false,
        }
    }
}

/// A call as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudCall {
    /// When.
    pub at: Instant,
    /// `create`, `attach`, `flag`, `detach`, `delete`, `tag` or `describe`.
    pub op: &'static str,
    /// The ENI, the attachment or the token.
    pub target: String,
}

/// EC2.
#[derive(Debug)]
pub struct FakeCloud {
    instance: InstanceFacts,
    network: Arc<FakeNetwork>,
    crash: Arc<Crash>,
    world: Arc<Mutex<World>>,
}

/// Ids of the fakes are made from numbers, so they always parse.
fn id<T: FromStr>(prefix: &str, number: u32) -> T {
    match format!("{prefix}{number:08x}").parse() {
        Ok(id) => id,
        Err(_) => unreachable!("a prefix and 8 digits are an EC2 id"),
    }
}

/// An instance that can hold so many ENIs.
pub fn instance(max_enis: u32) -> InstanceFacts {
    InstanceFacts {
        instance_id: id("i-", 0xa11_0001),
        instance_type: "m5.large".to_owned(),
        region: "us-west-2".to_owned(),
        availability_zone: "us-west-2a".to_owned(),
        availability_zone_id: Some("usw2-az1".to_owned()),
        account: "111122223333".to_owned(),
        vpc: id::<VpcId>("vpc-", 1),
        subnet: id::<SubnetId>("subnet-", 1),
        security_groups: vec![id::<SecurityGroupId>("sg-", 1)],
        primary_mac: MacAddr([2, 0, 0, 0, 0, 0]),
        private_ipv4: Ipv4Addr::new(10, 0, 0, 4),
        max_enis,
        max_ipv4_per_eni: 10,
    }
}

/// A subnet id for tests.
pub fn subnet(number: u32) -> SubnetId {
    id("subnet-", number)
}

/// A security group id for tests.
pub fn group(number: u32) -> SecurityGroupId {
    id("sg-", number)
}

impl FakeCloud {
    /// EC2 with this instance and its primary ENI.
    pub fn new(instance: InstanceFacts, network: Arc<FakeNetwork>, crash: Arc<Crash>) -> Self {
        let world = World {
            nics: BTreeMap::new(),
            tokens: BTreeMap::new(),
            past: VecDeque::new(),
            knobs: CloudKnobs::default(),
            calls: Vec::new(),
            guarded: BTreeSet::new(),
            violations: Vec::new(),
            most_attached: 0,
            next: 1,
            chance: 1,
        };
        let cloud = Self { instance, network, crash, world: Arc::new(Mutex::new(world)) };
        cloud.add_foreign(0);
        cloud
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how EC2 behaves.
    pub fn set(&self, change: impl FnOnce(&mut CloudKnobs)) {
        change(&mut self.world().knobs);
    }

    /// Where chance starts.
    pub fn seed(&self, seed: u64) {
        self.world().chance = seed;
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<CloudCall> {
        self.world().calls.clone()
    }

    /// How often an operation was called.
    pub fn count(&self, op: &str) -> usize {
        self.world().calls.iter().filter(|c| c.op == op).count()
    }

    /// Detaching or deleting this ENI is a violation from now on.
    pub fn guard(&self, eni: &EniId) {
        self.world().guarded.insert(eni.clone());
    }

    /// It may be detached and deleted again.
    pub fn unguard(&self, eni: &EniId) {
        self.world().guarded.remove(eni);
    }

    /// Rules of ours, not of EC2's, that were broken.
    pub fn violations(&self) -> Vec<String> {
        self.world().violations.clone()
    }

    /// The most ENIs that were attached at the same time, the primary included.
    pub fn most_attached(&self) -> usize {
        self.world().most_attached
    }

    /// Every ENI as it really is now, without a call of the port.
    pub fn truth(&self) -> Vec<EniFacts> {
        let mut world = self.world();
        world.settle();
        let now = Instant::now();
        world.nics.values().map(|nic| world.render(nic, now)).collect()
    }

    /// An ENI that someone else attached to the instance. Index 0 is the primary.
    pub fn add_foreign(&self, device_index: u32) -> EniId {
        let mut world = self.world();
        let mut facts = world.fresh(&self.instance.subnet, &self.instance.security_groups);
        let number = world.next;
        if device_index == 0 {
            facts.mac = self.instance.primary_mac;
        }
        let attachment = AttachmentFacts {
            id: id("eni-attach-", number),
            instance: Some(self.instance.instance_id.clone()),
            device_index,
            status: AttachmentStatus::Attached,
            delete_on_termination: true,
        };
        let now = Instant::now();
        let attached = Attached { facts: attachment, since: now, detaching: None };
        let eni = facts.id.clone();
        self.network.plug(facts.mac);
        world.guarded.insert(eni.clone());
        world.nics.insert(eni.clone(), Nic { facts, born: now, attached: Some(attached) });
        eni
    }

    /// An ENI with our tags that a former program left behind, attached to nothing.
    pub fn add_leftover(&self, tags: &BTreeMap<String, String>) -> EniId {
        let mut world = self.world();
        let mut facts = world.fresh(&self.instance.subnet, &self.instance.security_groups);
        facts.tags.clone_from(tags);
        let eni = facts.id.clone();
        world.nics.insert(eni.clone(), Nic { facts, born: Instant::now(), attached: None });
        eni
    }

    /// Someone detached an ENI behind our back.
    pub fn detach_from_outside(&self, eni: &EniId) {
        let mut world = self.world();
        world.remember();
        if let Some(nic) = world.nics.get_mut(eni) {
            nic.attached = None;
            self.network.unplug(nic.facts.mac);
        }
    }

    /// Someone deleted an ENI behind our back.
    pub fn remove_from_outside(&self, eni: &EniId) {
        self.detach_from_outside(eni);
        self.world().nics.remove(eni);
    }

    /// What every call goes through: death, delay, and all that can go wrong before the effect.
    async fn enter(&self, op: &'static str, target: &str) -> Result<Passage, CloudError> {
        let dies = self.crash.enter().await;
        let (delay, verdict) = {
            let mut world = self.world();
            world.calls.push(CloudCall { at: Instant::now(), op, target: target.to_owned() });
            (world.knobs.call_delay, world.verdict(op))
        };
        tokio::time::sleep(delay).await;
        let lost = match verdict {
            Verdict::Pass => false,
            Verdict::Lost => true,
            Verdict::Fail(kind) => {
                self.crash.leave(dies).await;
                return Err(error(op, target, kind));
            }
        };
        self.world().settle();
        Ok(Passage { dies, lost })
    }

    /// The way back: death or a lost reply.
    async fn leave<T>(
        &self,
        passage: Passage,
        op: &'static str,
        target: &str,
        answer: Result<T, CloudErrorKind>,
    ) -> Result<T, CloudError> {
        self.crash.leave(passage.dies).await;
        if passage.lost {
            return Err(error(
                op,
                target,
                CloudErrorKind::OutcomeUnknown("connection reset by peer".to_owned()),
            ));
        }
        answer.map_err(|kind| error(op, target, kind))
    }

    /// The link of an attached ENI shows up when the knob says, if the ENI is still attached in the same way by then.
    fn plug_later(&self, eni: &EniId, since: Instant, delay: Duration) {
        let (world, network, eni) = (Arc::clone(&self.world), Arc::clone(&self.network), eni.clone());
        tokio::spawn(async move {
            tokio::time::sleep_until(since + delay).await;
            let world = world.lock().unwrap_or_else(PoisonError::into_inner);
            let nic = world.nics.get(&eni);
            if let Some((nic, _)) = nic.and_then(|n| {
                Some((n, n.attached.as_ref().filter(|a| a.since == since && a.detaching.is_none())?))
            }) {
                network.plug(nic.facts.mac);
            }
        });
    }
}

struct Passage {
    dies: bool,
    lost: bool,
}

fn error(op: &'static str, target: &str, kind: CloudErrorKind) -> CloudError {
    CloudError { op, target: target.to_owned(), kind, source: None }
}

#[async_trait]
impl Cloud for FakeCloud {
    async fn instance(&self) -> Result<InstanceFacts, CloudError> {
        Ok(self.instance.clone())
    }

    async fn enis(&self) -> Result<Vec<EniFacts>, CloudError> {
        let passage = self.enter("describe", "ENIs").await?;
        let seen = self.world().describe(&self.instance.instance_id);
        self.leave(passage, "describe", "ENIs", Ok(seen)).await
    }

    async fn create_eni(&self, spec: &CreateEni) -> Result<EniFacts, CloudError> {
        let passage = self.enter("create", spec.token.as_str()).await?;
        let created = self.world().create(spec);
        self.leave(passage, "create", spec.token.as_str(), created).await
    }

    async fn attach_eni(&self, eni: &EniId, device_index: u32) -> Result<AttachmentId, CloudError> {
        let passage = self.enter("attach", eni.as_str()).await?;
        let attached = self.world().attach(eni, device_index, &self.instance);
        if let Ok((attached, mac)) = &attached {
            let link = self.world().knobs.link;
            match link {
                Link::After(delay) if delay.is_zero() => self.network.plug(*mac),
                Link::After(delay) => self.plug_later(eni, attached.since, delay),
                Link::Never(left) => {
                    let next = if left > 1 { Link::Never(left - 1) } else { Link::After(Duration::ZERO) };
                    self.world().knobs.link = next;
                }
            }
        }
        self.leave(passage, "attach", eni.as_str(), attached.map(|(a, _)| a.facts.id)).await
    }

    async fn set_delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &AttachmentId,
    ) -> Result<(), CloudError> {
        let passage = self.enter("flag", eni.as_str()).await?;
        let flagged = {
            let mut world = self.world();
            world.by_attachment(attachment).map(|eni| {
                if let Some(attached) = world.nics.get_mut(&eni).and_then(|n| n.attached.as_mut()) {
                    attached.facts.delete_on_termination = true;
                }
            })
        };
        self.leave(passage, "flag", eni.as_str(), flagged).await
    }

    async fn detach_eni(&self, attachment: &AttachmentId) -> Result<(), CloudError> {
        let passage = self.enter("detach", attachment.as_str()).await?;
        let detached = self.world().detach(attachment);
        if let Ok(Some(mac)) = &detached {
            self.network.unplug(*mac);
        }
        self.leave(passage, "detach", attachment.as_str(), detached.map(drop)).await
    }

    async fn delete_eni(&self, eni: &EniId) -> Result<(), CloudError> {
        let passage = self.enter("delete", eni.as_str()).await?;
        let deleted = self.world().delete(eni);
        self.leave(passage, "delete", eni.as_str(), deleted).await
    }

    async fn set_security_groups(&self, eni: &EniId, groups: &[SecurityGroupId]) -> Result<(), CloudError> {
        let passage = self.enter("regroup", eni.as_str()).await?;
        let regrouped = {
            let mut world = self.world();
            let refused = world.knobs.regroup_refused;
            let allowed = if refused {
                Err(CloudErrorKind::Unauthorized("ec2:ModifyNetworkInterfaceAttribute".to_owned()))
            } else {
                world.find(eni).map(drop)
            };
            allowed.map(|()| {
                if let Some(nic) = world.nics.get_mut(eni) {
                    nic.facts.security_groups = groups.to_vec();
                }
            })
        };
        self.leave(passage, "regroup", eni.as_str(), regrouped).await
    }

    async fn identity_document(&self) -> Result<IdentityDocument, CloudError> {
        let instance = &self.instance;
        let document = format!(
            r#"{{"instanceId":"{}","instanceType":"{}","region":"{}","accountId":"{}","availabilityZone":"{}"}}"#,
            instance.instance_id,
            instance.instance_type,
            instance.region,
            instance.account,
            instance.availability_zone
        );
        Ok(IdentityDocument { document, signature: "c2ln".to_owned() })
    }

    async fn tag_eni(&self, eni: &EniId, tags: &BTreeMap<String, Option<String>>) -> Result<(), CloudError> {
        let passage = self.enter("tag", eni.as_str()).await?;
        let tagged = {
            let mut world = self.world();
            world.find(eni).map(drop).map(|()| {
                if let Some(nic) = world.nics.get_mut(eni) {
                    for (key, value) in tags {
                        match value {
                            Some(value) => drop(nic.facts.tags.insert(key.clone(), value.clone())),
                            None => drop(nic.facts.tags.remove(key)),
                        }
                    }
                }
            })
        };
        self.leave(passage, "tag", eni.as_str(), tagged).await
    }
}
