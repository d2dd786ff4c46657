//! AuthorizeSecurityGroupIngress/Egress, RevokeSecurityGroupIngress/Egress, ModifySecurityGroupRules: all rules of a call or none.

use super::{
    World,
    groups::{Direction, Group, Peer, Rule, Terms},
    ids::{GroupId, RuleId},
    refusal::Refusal,
    state::Tags,
    tags::check_tags,
};
use jiff::Timestamp;
use std::{collections::BTreeSet, sync::Arc};

/// Rules that a group may have for each direction and IP version: EC2's default quota. One that names a group counts for both
/// versions.
pub const MAX_RULES: usize = 60;

/// A rule that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRule {
    /// What it lets through.
    pub terms: Terms,
    /// Free text.
    pub description: Option<String>,
}

impl World {
    /// AuthorizeSecurityGroupIngress and -Egress. Gives the new rules.
    pub fn authorize(
        &mut self,
        id: &GroupId,
        direction: Direction,
        rules: Vec<NewRule>,
        tags: &Tags,
        now: Timestamp,
    ) -> Result<Vec<Rule>, Refusal> {
        self.state.settle(now);
        check_tags(&Tags::new(), tags)?;
        let mut group = Group::clone(self.state.groups.get(id).ok_or_else(|| id.not_found())?);
        let mut asked = BTreeSet::new();
        let mut made = Vec::with_capacity(rules.len());
        for NewRule { terms, description } in rules {
            if !asked.insert(terms.clone()) {
                return Err(Refusal::RuleTwice);
            }
            self.check_peer(&terms.peer)?;
            let rule = Rule { id: RuleId::parse(&self.fresh_id("sgr"))?, direction, terms, description };
            check_new(&group, &rule)?;
            group.rules.insert(rule.id.clone(), rule.clone());
            made.push(rule);
        }
        check_count(&group, direction)?;
        for rule in made.iter().filter(|_| !tags.is_empty()) {
            self.state.tags.insert(rule.id.as_str().to_owned(), tags.clone());
        }
        self.state.groups.insert(id.clone(), Arc::new(group));
        self.record(now);
        Ok(made)
    }

    /// RevokeSecurityGroupIngress and -Egress by what rules say. Gives the rules that are gone. Flows that they let through go on.
    pub fn revoke(
        &mut self,
        id: &GroupId,
        direction: Direction,
        terms: &[Terms],
        now: Timestamp,
    ) -> Result<Vec<Rule>, Refusal> {
        let group = self.state.groups.get(id).ok_or_else(|| id.not_found())?;
        let find = |terms: &Terms| {
            let found = group.of(direction).find(|rule| rule.terms == *terms);
            found.map(|rule| rule.id.clone()).ok_or(Refusal::NoSuchRule)
        };
        let ids = terms.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        self.revoke_ids(id, direction, &ids, now)
    }

    /// The same by their ids.
    pub fn revoke_ids(
        &mut self,
        id: &GroupId,
        direction: Direction,
        rules: &[RuleId],
        now: Timestamp,
    ) -> Result<Vec<Rule>, Refusal> {
        self.state.settle(now);
        let mut group = Group::clone(self.state.groups.get(id).ok_or_else(|| id.not_found())?);
        let mut gone = Vec::with_capacity(rules.len());
        for rule in rules {
            let found = group.rules.remove(rule).filter(|rule| rule.direction == direction);
            gone.push(found.ok_or_else(|| rule.not_found())?);
        }
        for rule in rules {
            self.state.tags.remove(rule.as_str());
        }
        self.state.groups.insert(id.clone(), Arc::new(group));
        self.record(now);
        Ok(gone)
    }

    /// ModifySecurityGroupRules: the rules keep their ids and directions.
    pub fn modify_rules(
        &mut self,
        id: &GroupId,
        changes: Vec<(RuleId, NewRule)>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        self.state.settle(now);
        let mut group = Group::clone(self.state.groups.get(id).ok_or_else(|| id.not_found())?);
        for (id, NewRule { terms, description }) in changes {
            self.check_peer(&terms.peer)?;
            let old = group.rules.remove(&id).ok_or_else(|| id.not_found())?;
            let rule = Rule { id: id.clone(), direction: old.direction, terms, description };
            check_new(&group, &rule)?;
            group.rules.insert(id, rule);
        }
        check_count(&group, Direction::Ingress)?;
        check_count(&group, Direction::Egress)?;
        self.state.groups.insert(id.clone(), Arc::new(group));
        self.record(now);
        Ok(())
    }

    fn check_peer(&self, peer: &Peer) -> Result<(), Refusal> {
        match peer {
            Peer::Group(id) if !self.state.groups.contains_key(id) => Err(id.not_found()),
            Peer::Group(_) | Peer::V4(_) | Peer::V6(_) => Ok(()),
        }
    }
}

fn check_new(group: &Group, rule: &Rule) -> Result<(), Refusal> {
    if group.of(rule.direction).any(|old| old.terms == rule.terms) {
        return Err(Refusal::RuleExists(rule.terms.clone()));
    }
    Ok(())
}

fn check_count(group: &Group, direction: Direction) -> Result<(), Refusal> {
    let count = |counts: fn(&Peer) -> bool| group.of(direction).filter(|r| counts(&r.terms.peer)).count();
    let ipv4 = count(|peer| !matches!(peer, Peer::V6(_)));
    let ipv6 = count(|peer| !matches!(peer, Peer::V4(_)));
    if ipv4.max(ipv6) > MAX_RULES { Err(Refusal::TooManyRules) } else { Ok(()) }
}
