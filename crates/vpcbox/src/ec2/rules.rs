//! AuthorizeSecurityGroupIngress/Egress, RevokeSecurityGroupIngress/Egress, ModifySecurityGroupRules,
//! DescribeSecurityGroupRules.

use super::{
    changes::tag_specification,
    error::ApiError,
    filters::Filters,
    groups::{arn, group_id},
    paging::Page,
    params::{Params, missing},
    permissions::{self, Words},
    xml::Xml,
};
use crate::world::{
    World,
    groups::{Direction, Group, Peer, Rule, Terms},
    ids::{GroupId, RuleId},
    state::State,
};
use jiff::Timestamp;

const FILTERS: &[&str] = &["group-id", "security-group-rule-id"];
/// Largest page.
const MAX_PAGE: u32 = 1000;

/// AuthorizeSecurityGroupIngress.
pub(super) fn authorize_ingress(
    params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    authorize(params, Direction::Ingress, world, now, xml)
}

/// AuthorizeSecurityGroupEgress.
pub(super) fn authorize_egress(
    params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    authorize(params, Direction::Egress, world, now, xml)
}

fn authorize(
    mut params: Params,
    direction: Direction,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let id = group_id(&mut params)?;
    let rules = permissions::take(&mut params)?;
    let tags = tag_specification(&mut params, "security-group-rule")?;
    params.finish()?;
    let made = world.authorize(&id, direction, rules, &tags, now)?;
    let state = world.current(now);
    xml.leaf("return", true);
    xml.set("securityGroupRuleSet", &made, |xml, rule| write(xml, state, &id, rule));
    Ok(())
}

/// RevokeSecurityGroupIngress.
pub(super) fn revoke_ingress(
    params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    revoke(params, Direction::Ingress, world, now, xml)
}

/// RevokeSecurityGroupEgress.
pub(super) fn revoke_egress(
    params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    revoke(params, Direction::Egress, world, now, xml)
}

fn revoke(
    mut params: Params,
    direction: Direction,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let id = group_id(&mut params)?;
    let ids = rule_ids(&mut params)?;
    let gone = if ids.is_empty() {
        // What a rule says of itself is not part of what it is.
        let terms: Vec<Terms> = permissions::take(&mut params)?.into_iter().map(|rule| rule.terms).collect();
        params.finish()?;
        world.revoke(&id, direction, &terms, now)?
    } else {
        params.finish()?;
        world.revoke_ids(&id, direction, &ids, now)?
    };
    xml.leaf("return", true);
    xml.set("revokedSecurityGroupRuleSet", gone, |xml, rule| {
        xml.leaf("securityGroupRuleId", &rule.id);
        xml.leaf("groupId", &id);
        write_terms(xml, &rule);
        permissions::write_peer(xml, &rule, ["cidrIpv4", "cidrIpv6", "referencedGroupId"]);
    });
    Ok(())
}

fn rule_ids(params: &mut Params) -> Result<Vec<RuleId>, ApiError> {
    let ids = params.list("SecurityGroupRuleId");
    Ok(ids.iter().map(|id| RuleId::parse(id)).collect::<Result<_, _>>()?)
}

/// ModifySecurityGroupRules.
pub(super) fn modify(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let id = group_id(&mut params)?;
    let mut changes = Vec::new();
    for index in params.indices("SecurityGroupRule") {
        let at = format!("SecurityGroupRule.{index}");
        let rule = RuleId::parse(&params.required(&format!("{at}.SecurityGroupRuleId"))?)?;
        changes.push((rule, permissions::one_rule(&mut params, &format!("{at}.SecurityGroupRule"))?));
    }
    params.finish()?;
    if changes.is_empty() {
        return Err(missing("SecurityGroupRule"));
    }
    world.modify_rules(&id, changes, now)?;
    xml.leaf("return", true);
    Ok(())
}

/// DescribeSecurityGroupRules.
pub(super) fn describe(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let ids = rule_ids(&mut params)?;
    let filters = Filters::take(&mut params, FILTERS)?;
    let page = Page::take(&mut params, MAX_PAGE, !ids.is_empty())?;
    params.finish()?;
    let state = world.read(now);
    if let Some(unknown) = ids.iter().find(|id| state.rule(id).is_none()) {
        return Err(unknown.not_found().into());
    }
    let all = state.groups.values().flat_map(|group| group.rules.values().map(move |rule| (&**group, rule)));
    let mut found: Vec<(&Group, &Rule)> = all
        .filter(|(_, rule)| ids.is_empty() || ids.contains(&rule.id))
        .filter(|(group, rule)| {
            filters.pass(state.tags_of(rule.id.as_str()), |name| match name {
                "group-id" => vec![group.id.to_string()],
                "security-group-rule-id" => vec![rule.id.to_string()],
                _ => Vec::new(),
            })
        })
        .collect();
    found.sort_by_key(|(_, rule)| &rule.id);
    let (found, next) = page.cut(found, |(_, rule)| rule.id.to_string());
    xml.set("securityGroupRuleSet", found, |xml, (group, rule)| write(xml, &state, &group.id, rule));
    if let Some(next) = next {
        xml.leaf("nextToken", next);
    }
    Ok(())
}

fn write(xml: &mut Xml, state: &State, group: &GroupId, rule: &Rule) {
    let account = &state.site.account;
    xml.leaf("securityGroupRuleId", &rule.id);
    xml.leaf("groupId", group);
    xml.leaf("groupOwnerId", account);
    write_terms(xml, rule);
    if let Peer::Group(id) = &rule.terms.peer {
        xml.node("referencedGroupInfo", |xml| {
            xml.leaf("groupId", id);
            xml.leaf("userId", account);
        });
        if let Some(description) = &rule.description {
            xml.leaf("description", description);
        }
    } else {
        permissions::write_peer(xml, rule, ["cidrIpv4", "cidrIpv6", ""]);
    }
    xml.tags(state.tags_of(rule.id.as_str()));
    xml.leaf("securityGroupRuleArn", arn(state, "security-group-rule", rule.id.as_str()));
}

/// Direction, protocol and ports; unlike in a permission, ports are there always.
fn write_terms(xml: &mut Xml, rule: &Rule) {
    let words = Words::of(rule.terms.traffic);
    xml.leaf("isEgress", rule.direction == Direction::Egress);
    xml.leaf("ipProtocol", words.protocol);
    xml.leaf("fromPort", words.from.unwrap_or(-1));
    xml.leaf("toPort", words.to.unwrap_or(-1));
}
