//! CreateSecurityGroup, DeleteSecurityGroup, DescribeSecurityGroups.

use super::{
    changes::tag_specification,
    error::ApiError,
    filters::Filters,
    paging::Page,
    params::{Params, missing},
    permissions::{self, Words},
    xml::Xml,
};
use crate::world::{
    World,
    groups::{CreateGroup, Direction, Group, Peer},
    ids::{GroupId, VpcId},
    state::State,
};
use jiff::Timestamp;

/// The words of rules behind `ip-permission.` and `egress.ip-permission.`.
const FILTERS: &[&str] = &[
    "description",
    "egress.ip-permission.cidr",
    "egress.ip-permission.from-port",
    "egress.ip-permission.group-id",
    "egress.ip-permission.ipv6-cidr",
    "egress.ip-permission.protocol",
    "egress.ip-permission.to-port",
    "group-id",
    "group-name",
    "ip-permission.cidr",
    "ip-permission.from-port",
    "ip-permission.group-id",
    "ip-permission.ipv6-cidr",
    "ip-permission.protocol",
    "ip-permission.to-port",
    "owner-id",
    "vpc-id",
];
/// Largest page.
const MAX_PAGE: u32 = 1000;
/// Longest name and longest description: EC2's limit.
const MAX_TEXT: usize = 255;

/// CreateSecurityGroup.
pub(super) fn create(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let name = params.required("GroupName")?;
    let description = params.required("GroupDescription")?;
    // As in an account without a default VPC.
    let vpc = params.text("VpcId").ok_or_else(|| {
        ApiError::new("VPCIdNotSpecified", "No default VPC for this user. GroupName is only supported there.")
    })?;
    let vpc = VpcId::parse(&vpc)?;
    let tags = tag_specification(&mut params, "security-group")?;
    params.finish()?;
    if world.current(now).site.vpc.id != vpc {
        return Err(vpc.not_found().into());
    }
    check_name(&name)?;
    check_text("GroupDescription", &description)?;
    let group = world.create_group(CreateGroup { name, description, tags }, now)?;
    let state = world.current(now);
    xml.leaf("groupId", &group.id);
    xml.tags(state.tags_of(group.id.as_str()));
    xml.leaf("securityGroupArn", arn(state, "security-group", group.id.as_str()));
    Ok(())
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if name == "default" {
        let message = "Cannot use reserved security group name: default";
        return Err(ApiError::new("InvalidParameterValue", message));
    }
    if name.starts_with("sg-") {
        let expected = "Group names may not be in the format sg-*.";
        return Err(ApiError::bad_value("GroupName", name, expected));
    }
    check_text("GroupName", name)
}

fn check_text(parameter: &str, text: &str) -> Result<(), ApiError> {
    if text.chars().count() > MAX_TEXT || !permissions::is_plain(text) {
        let expected = "Expecting at most 255 characters from: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*";
        return Err(ApiError::bad_value(parameter, text, expected));
    }
    Ok(())
}

/// DeleteSecurityGroup.
pub(super) fn delete(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let id = group_id(&mut params)?;
    params.finish()?;
    world.delete_group(&id, now)?;
    xml.leaf("return", true);
    xml.leaf("groupId", id);
    Ok(())
}

/// The group that a call is about.
pub(super) fn group_id(params: &mut Params) -> Result<GroupId, ApiError> {
    if let Some(name) = params.text("GroupName") {
        let message = format!("Invalid value '{name}' for groupName. {BY_NAME}");
        return Err(ApiError::new("InvalidParameterValue", message));
    }
    let id = params.text("GroupId").ok_or_else(|| missing("groupName or groupId"))?;
    Ok(GroupId::parse(&id)?)
}

/// What EC2 says in every VPC but a default one.
pub(super) const BY_NAME: &str = "You may not reference Amazon VPC security groups by name. \
     Please use the corresponding id for this operation.";

/// DescribeSecurityGroups.
pub(super) fn describe(
    mut params: Params,
    world: &mut World,
    now: Timestamp,
    xml: &mut Xml,
) -> Result<(), ApiError> {
    let ids = params.list("GroupId");
    let ids = ids.iter().map(|id| GroupId::parse(id)).collect::<Result<Vec<_>, _>>()?;
    let names = params.list("GroupName");
    let filters = Filters::take(&mut params, FILTERS)?;
    let page = Page::take(&mut params, MAX_PAGE, !(ids.is_empty() && names.is_empty()))?;
    params.finish()?;
    let state = world.read(now);
    let groups = &state.groups;
    if let Some(unknown) = ids.iter().find(|id| !groups.contains_key(*id)) {
        return Err(unknown.not_found().into());
    }
    if let Some(unknown) = names.iter().find(|name| groups.values().all(|g| g.name != **name)) {
        let message = format!("The security group '{unknown}' does not exist");
        return Err(ApiError::new("InvalidGroup.NotFound", message));
    }
    let found = groups
        .values()
        .filter(|g| ids.is_empty() || ids.contains(&g.id))
        .filter(|g| names.is_empty() || names.contains(&g.name))
        .filter(|g| filters.pass(state.tags_of(g.id.as_str()), |name| values(&state, g, name)))
        .collect();
    let (found, next) = page.cut(found, |g| g.id.to_string());
    xml.set("securityGroupInfo", found, |xml, group| write(xml, &state, group));
    if let Some(next) = next {
        xml.leaf("nextToken", next);
    }
    Ok(())
}

/// What a group has under the name of a filter.
fn values(state: &State, group: &Group, filter: &str) -> Vec<String> {
    if let Some(word) = filter.strip_prefix("ip-permission.") {
        return rule_values(group, Direction::Ingress, word);
    }
    if let Some(word) = filter.strip_prefix("egress.ip-permission.") {
        return rule_values(group, Direction::Egress, word);
    }
    match filter {
        "description" => vec![group.description.clone()],
        "group-id" => vec![group.id.to_string()],
        "group-name" => vec![group.name.clone()],
        "owner-id" => vec![state.site.account.clone()],
        "vpc-id" => vec![state.site.vpc.id.to_string()],
        _ => Vec::new(),
    }
}

fn rule_values(group: &Group, direction: Direction, word: &str) -> Vec<String> {
    let value = |terms: &crate::world::groups::Terms| {
        let words = Words::of(terms.traffic);
        match (word, &terms.peer) {
            ("cidr", Peer::V4(block)) => Some(block.to_string()),
            ("ipv6-cidr", Peer::V6(block)) => Some(block.to_string()),
            ("group-id", Peer::Group(id)) => Some(id.to_string()),
            ("protocol", _) => Some(words.protocol),
            ("from-port", _) => words.from.map(|port| port.to_string()),
            ("to-port", _) => words.to.map(|port| port.to_string()),
            _ => None,
        }
    };
    group.of(direction).filter_map(|rule| value(&rule.terms)).collect()
}

fn write(xml: &mut Xml, state: &State, group: &Group) {
    let site = &state.site;
    xml.leaf("groupId", &group.id);
    xml.leaf("groupName", &group.name);
    xml.leaf("groupDescription", &group.description);
    xml.leaf("ownerId", &site.account);
    xml.leaf("vpcId", &site.vpc.id);
    xml.leaf("securityGroupArn", arn(state, "security-group", group.id.as_str()));
    permissions::write(xml, "ipPermissions", state, group.of(Direction::Ingress));
    permissions::write(xml, "ipPermissionsEgress", state, group.of(Direction::Egress));
    xml.tags(state.tags_of(group.id.as_str()));
}

/// The ARN of a resource of EC2.
pub(super) fn arn(state: &State, kind: &str, id: &str) -> String {
    let site = &state.site;
    format!("arn:aws:ec2:{}:{}:{kind}/{id}", site.region, site.account)
}
