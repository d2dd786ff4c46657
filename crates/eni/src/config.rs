//! What operators may set, and the limits that they may not.

use berth_types::{
    eni::InstanceFacts,
    ids::{SecurityGroupId, SubnetId},
    lease::LeaseNeeds,
};
use std::{net::IpAddr, time::Duration};

/// Retries of one ENI start here: two describes of EC2's usual lag.
pub(crate) const RETRY_BASE: Duration = Duration::from_millis(500);
/// Retries of one ENI never wait longer.
pub(crate) const RETRY_CAP: Duration = Duration::from_secs(60);
/// What EC2 refuses outright is tried again after this at first: an operator who has just corrected a policy looks on.
pub(crate) const REFUSED_BASE: Duration = Duration::from_secs(5);
/// And after this at last: a wrong policy stays wrong for hours.
pub(crate) const REFUSED_CAP: Duration = Duration::from_secs(300);
/// The first describe after a change that EC2 finishes by itself; then half as long again each time.
pub(crate) const POLL_FIRST: Duration = Duration::from_millis(300);
/// The slowest such describe: attach and detach take 2 to 10 s.
pub(crate) const POLL_CAP: Duration = Duration::from_secs(5);
/// EC2 does not find what is younger than this everywhere; after it, NotFound is believed.
pub(crate) const YOUNG: Duration = Duration::from_secs(30);
/// A describe this long after a change may still show the world before it.
pub(crate) const LAG: Duration = Duration::from_secs(10);
/// An ENI whose error does not go away by itself is looked at again after this.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(600);
/// Deleted ENIs are remembered this long, because a lagging describe still shows them.
pub(crate) const TOMBSTONE: Duration = Duration::from_secs(600);
/// Tombstones to keep: more than an instance can make in [`TOMBSTONE`] at the budget's rate would be 2400, but each of them has
/// occupied a device index for seconds; 256 is an instance's 15 indexes turned over every 30 s.
pub(crate) const TOMBSTONES: usize = 256;
/// Namespaces built at a time. The kernel moves one link at a time (8 in parallel take as long as 6 in a row); the second
/// builder prepares while the first one waits for the kernel.
pub(crate) const BUILDERS: usize = 2;
/// ENIs created at a time: at most as many calls as EC2 refills in a second.
pub(crate) const CREATORS: usize = 4;
/// So many ENIs in a row without a slot, then creating more only costs money and calls.
pub(crate) const FAILED_FILLS: u32 = 3;
/// Fill after failed fills waits this long at first.
pub(crate) const FILL_BASE: Duration = Duration::from_secs(15);
/// And this long at last.
pub(crate) const FILL_CAP: Duration = Duration::from_secs(600);
/// EC2 attaches within 10 s; what is still attaching after this is stuck for good.
pub(crate) const ATTACH_TIMEOUT: Duration = Duration::from_secs(300);
/// Builds of one slot that may fail before its ENI is given back.
pub(crate) const BUILD_TRIES: u32 = 5;
/// Loads of the journal that may fail before the agent goes on without it.
pub(crate) const LOAD_TRIES: u32 = 3;
/// Tasks that may wait for a slot: one for each task an instance can hold, as in the request queue.
pub(crate) const WAITERS: usize = berth_types::lease::LEASE_QUEUE;
/// Calls to EC2 that may be made at once after a pause. AWS gives an account 50 to 100 for all its instances.
pub(crate) const BUDGET_BURST: u64 = 20;
/// Calls to EC2 per second in the long run. AWS refills 5 to 20 per second for a whole account.
pub(crate) const BUDGET_RATE: u64 = 4;
/// Calls that are kept back for releases and launches when the warm pool, tags and audits want to call.
pub(crate) const BUDGET_RESERVE: u64 = 5;

/// What operators may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniConfig {
    /// The cluster, for tags.
    pub cluster: String,
    /// Slots to keep ready.
    pub warm: u32,
    /// ENIs that the pool may hold; `None` is what the instance can hold beside its primary.
    pub max_enis: Option<u32>,
    /// Idle slots above this are given back; `None` is `warm`.
    pub warm_max: Option<u32>,
    /// Rest of an ENI between two tasks, so that nothing still on its way to the old one reaches the new one.
    pub cooldown: Duration,
    /// Where pool ENIs go, in order of preference; empty is the instance's own subnet.
    pub subnets: Vec<SubnetId>,
    /// Groups of pool ENIs; empty is those of the instance.
    pub security_groups: Vec<SecurityGroupId>,
    /// MTU of eth0.
    pub mtu: u32,
    /// Whether tasks are kept from the instance's metadata.
    pub block_imds: bool,
    /// Name servers of tasks; empty copies the host's file.
    pub dns_servers: Vec<IpAddr>,
    /// Search list of tasks.
    pub dns_search: Vec<String>,
    /// How long an attached ENI may stay without a link.
    pub link_timeout: Duration,
    /// How long a task may wait for a slot.
    pub lease_timeout: Duration,
    /// Whether ENIs get an IPv6 address. Only for subnets with an IPv6 block: EC2 refuses it in others.
    pub ipv6: bool,
    /// How often everything is looked at again.
    pub audit: Duration,
    /// Where the jitter of retries starts; different on every instance, so that they do not retry together.
    pub seed: u64,
}

impl Default for EniConfig {
    fn default() -> Self {
        Self {
            cluster: "default".to_owned(),
            warm: 1,
            max_enis: None,
            warm_max: None,
            cooldown: Duration::from_secs(30),
            subnets: Vec::new(),
            security_groups: Vec::new(),
            mtu: 9001,
            block_imds: true,
            dns_servers: vec![IpAddr::from([169, 254, 169, 253])],
            dns_search: Vec::new(),
            link_timeout: Duration::from_secs(60),
            lease_timeout: Duration::from_secs(180),
            ipv6: false,
            audit: Duration::from_secs(60),
            seed: 0,
        }
    }
}

impl EniConfig {
    /// Fills what is empty from the instance and puts groups in order, so that specs compare.
    pub(crate) fn resolved(mut self, instance: &InstanceFacts) -> Self {
        if self.subnets.is_empty() {
            self.subnets.push(instance.subnet.clone());
        }
        if self.security_groups.is_empty() {
            self.security_groups.clone_from(&instance.security_groups);
        }
        self.security_groups.sort();
        self.security_groups.dedup();
        self
    }

    /// What a lease is to be like.
    pub(crate) fn want(&self, needs: &LeaseNeeds) -> Want {
        let mut groups = needs.security_groups.clone();
        groups.sort();
        groups.dedup();
        if groups.is_empty() {
            groups.clone_from(&self.security_groups);
        }
        let subnets = needs.subnet.clone().map_or_else(|| self.subnets.clone(), |subnet| vec![subnet]);
        Want { subnets, groups }
    }

    /// What the warm pool is made of.
    pub(crate) fn pool(&self) -> Want {
        Want { subnets: self.subnets.clone(), groups: self.security_groups.clone() }
    }
}

/// What an ENI is like, as far as a task can tell: its slot fits every task that wants this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Where it lies.
    pub(crate) subnet: SubnetId,
    /// Its groups in order.
    pub(crate) groups: Vec<SecurityGroupId>,
}

/// What a task wants: any of the subnets, exactly these groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    /// In order of preference; never empty.
    pub(crate) subnets: Vec<SubnetId>,
    /// In order.
    pub(crate) groups: Vec<SecurityGroupId>,
}

impl Want {
    /// Whether an ENI lies where it should, whatever its groups: those can be changed.
    pub(crate) fn fits_place(&self, spec: &Spec) -> bool {
        self.subnets.contains(&spec.subnet)
    }

    /// Whether an ENI fits.
    pub(crate) fn fits(&self, spec: &Spec) -> bool {
        self.groups == spec.groups && self.subnets.contains(&spec.subnet)
    }
}
