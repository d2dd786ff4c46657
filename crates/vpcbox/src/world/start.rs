//! The world at its beginning: the site that `vpc.toml` describes, every instance running with its primary ENI.

use super::{
    World,
    groups::{Direction, Group, Peer, Rule, Terms, everything_out},
    ids::{AttachmentId, EniId, GroupId, InstanceId, Mac, RuleId, SubnetId, VpcId},
    refusal::Refusal,
    state::{Attachment, Eni, Instance, LinkFate, Phase, Site, State, Subnet, Tags, Vpc},
    types,
};
use crate::{
    config::{Config, InstanceConfig, SecurityGroupConfig, derive_id},
    fabric::filter::{self, Allow, Traffic},
};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Why a configuration describes no possible world.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An instance type that is not in the table.
    #[error("instance {instance}: type `{kind}` is not known, expected one of {}", known())]
    UnknownType {
        /// The instance's name.
        instance: String,
        /// The type.
        kind: String,
    },
    /// An id that EC2 would not accept.
    #[error("id in the configuration")]
    BadId(#[source] Refusal),
    /// An instance without room for its primary ENI.
    #[error("primary ENI of instance {instance}")]
    Primary {
        /// The instance's name.
        instance: String,
        /// Why there is none.
        #[source]
        source: Refusal,
    },
    /// No group at all.
    #[error("the VPC has no security group, expected at least one")]
    NoGroup,
}

fn known() -> String {
    types::TYPES.iter().map(|t| t.name).collect::<Vec<_>>().join(", ")
}

impl World {
    /// The world that `config` describes. Ids and addresses given out later follow from `seed`.
    pub fn new(config: &Config, seed: &str, now: Timestamp) -> Result<Self, StartError> {
        let site = site(config, now)?;
        let groups = groups(config, &site)?;
        let mut world = Self {
            state: State {
                site: Arc::new(site),
                enis: BTreeMap::new(),
                groups,
                ipv4: BTreeMap::new(),
                ipv6: BTreeMap::new(),
                tags: static_tags(config),
            },
            delays: config.delays,
            read_lag: Duration::ZERO,
            links_never: 0,
            seed: seed.to_owned(),
            serial: 0,
            cursors: BTreeMap::new(),
            tokens: BTreeMap::new(),
            history: VecDeque::new(),
        };
        for instance in &config.instances {
            world
                .boot(instance, now)
                .map_err(|source| StartError::Primary { instance: instance.name.clone(), source })?;
        }
        Ok(world)
    }

    /// Gives an instance its primary ENI: attached for good, its link there from the start.
    fn boot(&mut self, config: &InstanceConfig, now: Timestamp) -> Result<(), Refusal> {
        let site = Arc::clone(&self.state.site);
        let instance = InstanceId::parse(&config.id)?;
        let instance = site.instances.get(&instance).ok_or_else(|| instance.not_found())?;
        let subnet = site.subnets.get(&instance.subnet).ok_or_else(|| instance.subnet.not_found())?;
        let ipv4 = self.choose_ipv4(subnet, 1, &BTreeSet::new())?;
        let ipv6 = self.choose_ipv6(subnet, usize::from(subnet.ipv6.is_some()), &BTreeSet::new())?;
        let groups = config.security_groups.iter().map(|g| GroupId::parse(g)).collect::<Result<_, _>>()?;
        let attachment = Attachment {
            id: AttachmentId::parse(&derive_id("eni-attach", &[&config.id]))?,
            instance: instance.id.clone(),
            device_index: 0,
            delete_on_termination: true,
            since: now,
            phase: Phase::Attached,
            link: LinkFate::From(now),
        };
        self.insert(Eni {
            id: instance.primary.clone(),
            mac: self.fresh_mac(&instance.primary),
            subnet: subnet.id.clone(),
            description: "Primary network interface".to_owned(),
            groups,
            ipv4,
            ipv6,
            source_dest_check: true,
            created: now,
            attachment: Some(attachment),
        });
        Ok(())
    }

    /// Puts a new ENI and its addresses into the books.
    pub(super) fn insert(&mut self, eni: Eni) {
        for address in &eni.ipv4 {
            self.state.ipv4.insert(*address, eni.id.clone());
        }
        for address in &eni.ipv6 {
            self.state.ipv6.insert(*address, eni.id.clone());
        }
        self.state.enis.insert(eni.id.clone(), Arc::new(eni));
    }

    /// A MAC that no other ENI has: locally administered, `02:`, as EC2's are.
    pub(super) fn fresh_mac(&self, eni: &EniId) -> Mac {
        let mut salt = 0u32;
        loop {
            let digest = Sha256::digest(format!("mac/{eni}/{salt}"));
            let mut mac = [2; 6];
            mac.iter_mut().skip(1).zip(digest.iter()).for_each(|(to, from)| *to = *from);
            if self.state.enis.values().all(|e| e.mac != Mac(mac)) {
                return Mac(mac);
            }
            salt += 1;
        }
    }
}

fn site(config: &Config, now: Timestamp) -> Result<Site, StartError> {
    let mut subnets = BTreeMap::new();
    for s in &config.subnets {
        let id = SubnetId::parse(&s.id).map_err(StartError::BadId)?;
        let subnet = Subnet {
            id: id.clone(),
            zone: s.zone.clone(),
            zone_id: s.zone_id.clone(),
            ipv4: s.ipv4,
            ipv6: s.ipv6,
        };
        subnets.insert(id, subnet);
    }
    let default_group = config.security_groups.first().ok_or(StartError::NoGroup)?;
    let mut instances = BTreeMap::new();
    for i in &config.instances {
        let instance = instance(i, now)?;
        instances.insert(instance.id.clone(), instance);
    }
    Ok(Site {
        region: config.region.clone(),
        account: config.account.clone(),
        vpc: Vpc {
            id: VpcId::parse(&config.vpc.id).map_err(StartError::BadId)?,
            ipv4: config.vpc.ipv4,
            ipv6: config.vpc.ipv6,
        },
        subnets,
        default_group: GroupId::parse(&default_group.id).map_err(StartError::BadId)?,
        instances,
    })
}

fn groups(config: &Config, site: &Site) -> Result<BTreeMap<GroupId, Arc<Group>>, StartError> {
    let made = config.security_groups.iter().map(|config| {
        let group = group(config, site).map_err(StartError::BadId)?;
        Ok((group.id.clone(), Arc::new(group)))
    });
    made.collect()
}

/// A group as the file has it. Where it says nothing of a direction, it is as EC2 makes groups: everything goes out, nothing comes
/// in, but for the default group's own members.
fn group(config: &SecurityGroupConfig, site: &Site) -> Result<Group, Refusal> {
    let id = GroupId::parse(&config.id)?;
    let given = |rules: &[Allow]| rules.iter().map(terms).collect::<Result<Vec<_>, _>>();
    let ingress = match &config.ingress {
        Some(rules) => given(rules)?,
        None if id == site.default_group => {
            vec![Terms { traffic: Traffic::Any, peer: Peer::Group(id.clone()) }]
        }
        None => Vec::new(),
    };
    let egress = match &config.egress {
        Some(rules) => given(rules)?,
        None => everything_out(site.vpc.ipv6.is_some()),
    };
    let mut rules = BTreeMap::new();
    for (direction, all) in [(Direction::Ingress, ingress), (Direction::Egress, egress)] {
        for (number, terms) in all.into_iter().enumerate() {
            // The same at every start, as the group's own id is.
            let way = if direction == Direction::Ingress { "ingress" } else { "egress" };
            let rule = RuleId::parse(&derive_id("sgr", &[&config.id, way, &number.to_string()]))?;
            rules.insert(rule.clone(), Rule { id: rule, direction, terms, description: None });
        }
    }
    Ok(Group { id, name: config.name.clone(), description: config.description.clone(), rules })
}

fn terms(allow: &Allow) -> Result<Terms, Refusal> {
    let peer = match &allow.peer {
        filter::Peer::V4(block) => Peer::V4(*block),
        filter::Peer::V6(block) => Peer::V6(*block),
        filter::Peer::Group(id) => Peer::Group(GroupId::parse(id)?),
    };
    Ok(Terms { traffic: allow.traffic, peer })
}

fn instance(config: &InstanceConfig, now: Timestamp) -> Result<Instance, StartError> {
    let kind = types::find(&config.instance_type).ok_or_else(|| StartError::UnknownType {
        instance: config.name.clone(),
        kind: config.instance_type.clone(),
    })?;
    Ok(Instance {
        id: InstanceId::parse(&config.id).map_err(StartError::BadId)?,
        name: config.name.clone(),
        kind,
        subnet: SubnetId::parse(&config.subnet).map_err(StartError::BadId)?,
        // The primary keeps its id over restarts of the box, as the instance does.
        primary: EniId::parse(&derive_id("eni", &["primary", &config.id])).map_err(StartError::BadId)?,
        role: config.role.clone(),
        launched: now,
    })
}

/// `Name` tags of what the configuration names.
fn static_tags(config: &Config) -> BTreeMap<String, Tags> {
    let named = |id: &String, name: &String| (id.clone(), Tags::from([("Name".to_owned(), name.clone())]));
    let subnets = config.subnets.iter().map(|s| named(&s.id, &s.name));
    let instances = config.instances.iter().map(|i| named(&i.id, &i.name));
    subnets.chain(instances).chain([named(&config.vpc.id, &config.name)]).collect()
}
