//! Security groups: what they are, CreateSecurityGroup, DeleteSecurityGroup, and which of them an ENI may be in.
//!
//! Their rules come and go in `rules`; `filter` says what they mean for the fabric.

use super::{
    World,
    ids::{GroupId, RuleId},
    refusal::Refusal,
    state::{State, Tags},
    tags::check_tags,
};
use crate::fabric::filter::{Allow, Peer as Sent, Ports, Traffic};
use ipnet::{Ipv4Net, Ipv6Net};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Groups that a VPC may have: EC2's default quota.
const MAX_GROUPS: usize = 2500;
/// Groups that an ENI may be in: EC2's default quota.
const MAX_GROUPS_PER_ENI: usize = 5;

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its rules.
    pub rules: BTreeMap<RuleId, Rule>,
}

/// Which packets a rule is about, seen from the members of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those that they get.
    Ingress,
    /// Those that they send.
    Egress,
}

/// A rule: traffic that may pass. There are none that forbid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its id.
    pub id: RuleId,
    /// Which way.
    pub direction: Direction,
    /// What it lets through.
    pub terms: Terms,
    /// Free text.
    pub description: Option<String>,
}

/// What makes a rule the same as another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Terms {
    /// What kind of traffic.
    pub traffic: Traffic,
    /// From whom, or to whom.
    pub peer: Peer,
}

/// The other side of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Addresses of a block.
    V4(Ipv4Net),
    /// Addresses of a block.
    V6(Ipv6Net),
    /// The members of a group.
    Group(GroupId),
}

impl Terms {
    /// In the fabric's words.
    pub(super) fn allow(&self) -> Allow {
        let peer = match &self.peer {
            Peer::V4(block) => Sent::V4(*block),
            Peer::V6(block) => Sent::V6(*block),
            Peer::Group(id) => Sent::Group(id.to_string()),
        };
        Allow { peer, traffic: self.traffic }
    }
}

impl Group {
    /// Whether one of its rules names the group.
    pub fn names(&self, id: &GroupId) -> bool {
        self.rules.values().any(|rule| matches!(&rule.terms.peer, Peer::Group(named) if named == id))
    }

    /// Its rules of one direction.
    pub fn of(&self, direction: Direction) -> impl Iterator<Item = &Rule> {
        self.rules.values().filter(move |rule| rule.direction == direction)
    }
}

/// What a new group lets its members send: everything, as in EC2.
pub(super) fn everything_out(ipv6: bool) -> Vec<Terms> {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
    let v6 = ipv6.then(|| Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));
    let peers = [Peer::V4(v4)].into_iter().chain(v6.map(Peer::V6));
    peers.map(|peer| Terms { traffic: Traffic::Any, peer }).collect()
}

/// Parameters of CreateSecurityGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateGroup {
    /// Unique in the VPC.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Tags of the new group.
    pub tags: Tags,
}

impl World {
    /// CreateSecurityGroup. A new group lets everything out and nothing in.
    pub fn create_group(&mut self, params: CreateGroup, now: Timestamp) -> Result<Arc<Group>, Refusal> {
        self.state.settle(now);
        check_tags(&Tags::new(), &params.tags)?;
        let vpc = self.state.site.vpc.clone();
        if self.state.groups.values().any(|g| g.name == params.name) {
            return Err(Refusal::GroupExists { name: params.name, vpc: vpc.id });
        }
        if self.state.groups.len() >= MAX_GROUPS {
            return Err(Refusal::GroupQuota(vpc.id));
        }
        let id = GroupId::parse(&self.fresh_id("sg"))?;
        let mut group = Group {
            id: id.clone(),
            name: params.name,
            description: params.description,
            rules: BTreeMap::new(),
        };
        for terms in everything_out(vpc.ipv6.is_some()) {
            let id = RuleId::parse(&self.fresh_id("sgr"))?;
            let rule = Rule { id: id.clone(), direction: Direction::Egress, terms, description: None };
            group.rules.insert(id, rule);
        }
        let group = Arc::new(group);
        self.state.groups.insert(id.clone(), Arc::clone(&group));
        if !params.tags.is_empty() {
            self.state.tags.insert(id.as_str().to_owned(), params.tags);
        }
        self.record(now);
        Ok(group)
    }

    /// DeleteSecurityGroup. One that an ENI is in, or another group's rule names, stays.
    pub fn delete_group(&mut self, id: &GroupId, now: Timestamp) -> Result<(), Refusal> {
        self.state.settle(now);
        let group = self.state.groups.get(id).ok_or_else(|| id.not_found())?;
        if *id == self.state.site.default_group {
            return Err(Refusal::DefaultGroup { id: id.clone(), name: group.name.clone() });
        }
        let used = self.state.enis.values().any(|eni| eni.groups.contains(id));
        let named = self.state.groups.values().any(|other| other.id != *id && other.names(id));
        if used || named {
            return Err(Refusal::GroupInUse(id.clone()));
        }
        if let Some(group) = self.state.groups.remove(id) {
            for tagged in group.rules.keys().map(RuleId::as_str).chain([id.as_str()]) {
                self.state.tags.remove(tagged);
            }
        }
        self.record(now);
        Ok(())
    }

    /// The groups of an ENI, each known; the default group when none is named.
    pub(super) fn check_groups(&self, groups: &[GroupId]) -> Result<Vec<GroupId>, Refusal> {
        if let Some(unknown) = groups.iter().find(|g| !self.state.groups.contains_key(*g)) {
            return Err(unknown.not_found());
        }
        let mut seen = BTreeSet::new();
        let mut once: Vec<_> = groups.iter().filter(|g| seen.insert(*g)).cloned().collect();
        if once.len() > MAX_GROUPS_PER_ENI {
            return Err(Refusal::TooManyGroups);
        }
        if once.is_empty() {
            once.push(self.state.site.default_group.clone());
        }
        Ok(once)
    }
}

impl State {
    /// The rule of this id, and its group.
    pub fn rule(&self, id: &RuleId) -> Option<(&Group, &Rule)> {
        self.groups.values().find_map(|group| group.rules.get(id).map(|rule| (&**group, rule)))
    }
}

/// As EC2 names a rule in errors.
impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.peer {
            Peer::V4(block) => write!(f, "peer: {block}, ")?,
            Peer::V6(block) => write!(f, "peer: {block}, ")?,
            Peer::Group(id) => write!(f, "peer: {id}, ")?,
        }
        let all_or = |number: Option<u8>| number.map_or_else(|| "ALL".to_owned(), |n| n.to_string());
        match self.traffic {
            Traffic::Any => f.write_str("ALL, ")?,
            Traffic::Tcp(Ports { first, last }) => write!(f, "TCP, from port: {first}, to port: {last}, ")?,
            Traffic::Udp(Ports { first, last }) => write!(f, "UDP, from port: {first}, to port: {last}, ")?,
            Traffic::Icmp(kind) | Traffic::Icmpv6(kind) => {
                let name = if matches!(self.traffic, Traffic::Icmp(_)) { "ICMP" } else { "ICMPv6" };
                let (kind, code) = kind.numbers();
                write!(f, "{name}, type: {}, code: {}, ", all_or(kind), all_or(code))?;
            }
            Traffic::Protocol(number) => write!(f, "{number}, ")?,
        }
        f.write_str("ALLOW")
    }
}

#[cfg(test)]
mod tests;
